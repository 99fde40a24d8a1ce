//! The instances on this node: what is wanted here against what is here. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;

use super::EngineConfig;
use super::effect::Effect;
use super::known::Known;
use super::launch::{Start, image_for, stop_of};
use super::out::Out;
use super::placement::Seat;
use super::services::Service;
use crate::blobs::image::Image;
use crate::crdt::roster::{InstanceReport, Report};
use crate::exec::plan::{Kept, ProcessEvent, Stop};
use crate::exec::supervisor::{Act, Supervisor, Target, Wish};
use crate::ids::{InstanceId, NodeKey, RunId, ServiceName};
use crate::ledger::run::Fence;
use crate::spec::Restart;
use crate::time::{Mono, Now};

/// This node's instances.
#[derive(Debug, Default)]
pub(super) struct Instances {
    here: BTreeMap<ServiceName, BTreeMap<u32, Supervisor>>,
    /// Whose start each run is.
    runs: BTreeMap<RunId, InstanceId>,
    /// False until the keeper has said what it holds: nothing is started before that, or it might run twice.
    known: bool,
}

/// What the engine knows when one service is settled.
pub(super) struct Surroundings<'a> {
    pub(super) now: Now,
    pub(super) me: NodeKey,
    pub(super) config: &'a EngineConfig,
    pub(super) known: &'a Known,
    /// All seats of the service in the cluster, in order.
    pub(super) seats: &'a [Seat],
    /// The indices that this node keeps although they belong on other nodes, until they are ready there.
    pub(super) lingering: &'a BTreeSet<u32>,
    /// For a singleton whose lease this node holds, until when, and its fence.
    pub(super) lease: Option<(Mono, Fence)>,
    /// Whether a node is not to be waited for in a rollout.
    pub(super) is_gone: &'a dyn Fn(&NodeKey) -> bool,
    /// Whether the binary is here and can be run.
    pub(super) is_executable: &'a dyn Fn(&Image) -> bool,
    /// Why it is not.
    pub(super) trouble: &'a dyn Fn(&Image) -> Option<String>,
}

/// What is the same for all instances of a service on this node.
struct Asked<'a> {
    service: &'a Service,
    target: Target,
    stop: Stop,
    /// The binary for this node; none: there is none.
    image: Option<&'a Image>,
    executable: bool,
    /// Why there is nothing to execute.
    trouble: Option<String>,
    /// The instances of the seats up to this one may be replaced.
    replaceable: usize,
}

impl<'a> Asked<'a> {
    /// For those that are here.
    fn of(service: &'a Service, here: &BTreeMap<u32, Supervisor>, around: &Surroundings<'_>) -> Self {
        let image = image_for(&service.current, around.config);
        let target = Target { launch_hash: service.current.launch_hash, revision: service.current.revision.number };
        let some_outdated = here.values().any(|one| one.target().launch_hash != target.launch_hash);
        Self {
            service,
            target,
            stop: stop_of(&service.current),
            image,
            executable: image.is_some_and(|image| (around.is_executable)(image)),
            trouble: match image {
                Some(image) => (around.trouble)(image),
                None => Some(format!("`{}` has no binary for {}", service.name, around.config.platform)),
            },
            // Whom to wait for is asked only where there is something to replace: it takes a look at every seat.
            replaceable: if some_outdated { replaceable(service, around) } else { 0 },
        }
    }

    fn wish(&self, seat: usize) -> Wish {
        Wish {
            target: self.target,
            executable: self.executable,
            may_replace: seat <= self.replaceable,
            restart: self.service.current.spec.supervision.restart,
        }
    }
}

impl Instances {
    /// Takes in what the keeper reports. Gives back the service that it concerns (none: all of them), and what to do at once.
    pub(super) fn apply(
        &mut self,
        now: Now,
        event: ProcessEvent,
        before: impl Fn(&ServiceName) -> Option<Report>,
        out: &mut Out,
    ) -> Concerns {
        match event {
            ProcessEvent::Holding(kept) => {
                self.take_over(now, kept, before, out);
                Concerns::All
            }
            ProcessEvent::Launched { run, pid, at, enforced } => match self.of_run(run) {
                Some((service, one)) => {
                    one.launched(now.mono, pid, at, enforced);
                    Concerns::One(service)
                }
                None => {
                    out.act(Effect::Kill { run });
                    Concerns::Nobody
                }
            },
            ProcessEvent::LaunchFailed { run, error } => match self.of_run(run) {
                Some((service, one)) => {
                    one.launch_failed(now.mono, error);
                    Concerns::One(service)
                }
                None => Concerns::Nobody,
            },
            ProcessEvent::Exited { run, ended } => {
                out.act_when_durable(Effect::Acknowledge { run });
                match self.of_run(run) {
                    Some((service, one)) => {
                        one.exited(now.mono, ended);
                        Concerns::One(service)
                    }
                    None => Concerns::Nobody,
                }
            }
            ProcessEvent::KeeperLost => {
                for one in self.here.values_mut().flat_map(BTreeMap::values_mut) {
                    one.keeper_lost(now);
                }
                self.known = false;
                Concerns::All
            }
        }
    }

    /// Makes this table agree with all that the keeper holds.
    fn take_over(
        &mut self,
        now: Now,
        mut kept: Vec<Kept>,
        before: impl Fn(&ServiceName) -> Option<Report>,
        out: &mut Out,
    ) {
        self.known = true;
        let held: BTreeSet<RunId> = kept.iter().map(|kept| kept.plan.run).collect();
        for one in self.here.values_mut().flat_map(BTreeMap::values_mut) {
            if !one.is_idle() && one.run().is_none_or(|run| !held.contains(&run)) {
                one.keeper_lost(now);
            }
        }
        let mut reported: BTreeMap<ServiceName, BTreeMap<u32, InstanceReport>> = BTreeMap::new();
        // The latest start of an instance is the one that counts; an earlier one that still runs is in its way.
        kept.sort_by_key(|kept| std::cmp::Reverse((kept.ended.is_none(), kept.started_at)));
        for kept in kept {
            let InstanceId { service, index } = kept.plan.instance.clone();
            let run = kept.plan.run;
            let reported = reported.entry(service.clone()).or_insert_with_key(|service| {
                let instances = before(service).map(|report| report.instances).unwrap_or_default();
                instances.into_iter().map(|one| (one.index, one)).collect()
            });
            let reported = reported.get(&index);
            let here = self.here.entry(service).or_default();
            let known = here.get(&index);
            // It was told in the life before, and only the keeper has not heard that it was.
            let is_told = reported.is_some_and(|one| one.run == Some(run) && one.exit == kept.ended);
            if known.is_none() && kept.ended.is_some() && is_told {
                out.act_when_durable(Effect::Acknowledge { run });
                continue;
            }
            if known.is_none() || known.is_some_and(|one| one.is_idle() && one.run() != Some(run)) {
                here.insert(index, Supervisor::adopt(&kept, now.mono, reported));
            }
            let one = here.get_mut(&index).expect("it is there now");
            if one.run() != Some(run) {
                match kept.ended {
                    None => out.act(Effect::Kill { run }),
                    // The life before was cut off between the next start and telling of this end.
                    Some(ended) if reported.is_some_and(|one| one.run == Some(run) && one.exit != kept.ended) => {
                        one.missed(ended, kept.plan.launch_hash);
                    }
                    Some(_) => {}
                }
            } else if kept.ended.is_none() {
                one.launched(now.mono, kept.pid, kept.started_at, kept.enforced);
            }
            if let Some(ended) = kept.ended {
                if one.run() == Some(run) {
                    one.exited(now.mono, ended);
                }
                out.act_when_durable(Effect::Acknowledge { run });
            }
        }
        self.here.retain(|_, here| !here.is_empty());
        let runs = self.here.iter().flat_map(|(service, here)| {
            let id = |index: &u32| InstanceId { service: service.clone(), index: *index };
            here.iter().filter_map(move |(index, one)| Some((one.run()?, id(index))))
        });
        self.runs = runs.collect();
    }

    fn of_run(&mut self, run: RunId) -> Option<(ServiceName, &mut Supervisor)> {
        let InstanceId { service, index } = self.runs.get(&run)?;
        let one = self.here.get_mut(service)?.get_mut(index).filter(|one| one.run() == Some(run))?;
        Some((service.clone(), one))
    }

    /// Whether the keeper has said what it holds.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether a service has anything here.
    pub(super) fn has(&self, name: &ServiceName) -> bool {
        self.here.contains_key(name)
    }

    /// The runs of a service here.
    pub(super) fn runs_of(&self, name: &ServiceName) -> impl Iterator<Item = RunId> {
        self.here.get(name).into_iter().flat_map(BTreeMap::values).filter_map(Supervisor::run)
    }

    /// The services that have anything here.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.here.keys()
    }

    /// Brings this node's instances of one service nearer to what is wanted. `service` is none when it is not there any more.
    pub(super) fn settle(
        &mut self,
        name: &ServiceName,
        service: Option<&Service>,
        around: &Surroundings<'_>,
        rng: &mut ChaCha8Rng,
        out: &mut Out,
    ) {
        let mine = around.seats.iter().enumerate().filter(|(_, seat)| seat.is_of(&around.me));
        let mut seats: BTreeMap<u32, usize> = mine.map(|(at, seat)| (seat.index, at)).collect();
        let mut here = self.here.remove(name).unwrap_or_default();
        let asked = service.map(|service| Asked::of(service, &here, around));
        match &asked {
            Some(asked) => {
                let new: Vec<u32> = seats.keys().copied().filter(|index| !here.contains_key(index)).collect();
                here.extend(begin(&new, asked, name, around));
            }
            None => seats.clear(),
        }
        let (seated, surplus): (Vec<u32>, Vec<u32>) = here.keys().partition(|index| seats.contains_key(index));
        // What is too much goes from the highest index down, what is wanted comes from the lowest up.
        for index in surplus.into_iter().rev().chain(seated) {
            let one = here.get_mut(&index).expect("settled instances are in the table");
            let before = one.run();
            if let Some(asked) = &asked {
                one.stop_by(asked.stop);
            }
            let wish = match (&asked, seats.get(&index)) {
                (Some(asked), Some(seat)) => Some(asked.wish(*seat)),
                // As it is, and not started again.
                _ if !one.is_idle() && around.lingering.contains(&index) => {
                    Some(Wish { target: one.target(), executable: false, may_replace: false, restart: Restart::Never })
                }
                _ => None,
            };
            let act = one.settle(around.now, wish.as_ref(), rng);
            let is_gone = wish.is_none() && one.is_idle();
            if let Some(asked) = asked.as_ref().filter(|_| seats.contains_key(&index)) {
                one.waits_for_binary(asked.trouble.clone());
            }
            if is_gone || one.run() != before {
                self.runs.extend(one.run().map(|run| (run, InstanceId { service: name.clone(), index })));
                before.map(|run| self.runs.remove(&run));
            }
            match act {
                Some(Act::Launch(run)) => {
                    let asked = asked.as_ref().expect("only what is wanted is launched");
                    let image = asked.image.expect("only what has an executable is launched");
                    let id = InstanceId { service: name.clone(), index };
                    let start = Start {
                        rev: &asked.service.current,
                        image,
                        id: &id,
                        name: run,
                        run: None,
                        lease: around.lease,
                    };
                    out.act(Effect::Launch(Box::new(start.plan(around.config))));
                }
                Some(Act::Signal(run, signal)) => out.act(Effect::Signal { run, signal }),
                Some(Act::Kill(run)) => out.act(Effect::Kill { run }),
                None => {}
            }
            if is_gone {
                here.remove(&index);
            }
        }
        if !here.is_empty() {
            self.here.insert(name.clone(), here);
        }
    }

    /// What this node says of its instances of a service; none when it has none.
    pub(super) fn report(&self, name: &ServiceName) -> Option<Report> {
        let here = self.here.get(name)?;
        Some(Report { instances: here.iter().map(|(index, one)| one.report(*index)).collect() })
    }

    /// When a service's instances have something to do without anything happening.
    pub(super) fn next_deadline(&self, name: &ServiceName) -> Option<Mono> {
        self.here.get(name)?.values().filter_map(Supervisor::next_deadline).min()
    }
}

/// Instances that are not here yet. What ended while this node was starting anew is remembered, though nothing of it runs any more.
fn begin(indices: &[u32], asked: &Asked<'_>, name: &ServiceName, around: &Surroundings<'_>) -> Vec<(u32, Supervisor)> {
    let reported = around.known.report(name, &around.me).filter(|_| !indices.is_empty());
    let reported: BTreeMap<u32, &InstanceReport> = by_index(reported);
    let new = |index: &u32| Supervisor::new(asked.target).remembering(reported.get(index).copied());
    indices.iter().map(|index| (*index, new(index))).collect()
}

fn by_index(report: Option<&Report>) -> BTreeMap<u32, &InstanceReport> {
    report.into_iter().flat_map(|report| &report.instances).map(|one| (one.index, one)).collect()
}

/// Whom an event concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Concerns {
    All,
    One(ServiceName),
    Nobody,
}

/// One at a time: an outdated instance is replaced once all before it are ready at the new revision. Who is gone is not waited
/// for. Gives the last seat whose instance may be replaced now.
fn replaceable(service: &Service, around: &Surroundings<'_>) -> usize {
    let mut reports: BTreeMap<NodeKey, BTreeMap<u32, &InstanceReport>> = BTreeMap::new();
    let is_settled = |seat: &Seat| {
        let Some(node) = seat.node.filter(|node| seat.withheld.is_none() && !(around.is_gone)(node)) else {
            return true;
        };
        let of_node = reports.entry(node).or_insert_with(|| by_index(around.known.report(&service.name, &node)));
        of_node.get(&seat.index).is_some_and(|one| one.ready && one.launch_hash == service.current.launch_hash)
    };
    around.seats.iter().map(is_settled).take_while(|settled| *settled).count()
}
