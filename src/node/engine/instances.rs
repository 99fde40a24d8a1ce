//! The instances on this node: what is wanted here against what is here. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand_chacha::ChaCha8Rng;

use super::EngineConfig;
use super::effect::Effect;
use super::known::Known;
use super::out::Out;
use super::placement::Seat;
use super::services::Service;
use crate::blobs::image::Image;
use crate::crdt::roster::Report;
use crate::exec::plan::{Kept, LaunchPlan, ProcessEvent};
use crate::exec::supervisor::{Act, Supervisor, Target, Wish};
use crate::ids::{InstanceId, NodeKey, RunId, ServiceName};
use crate::node::layout::Layout;
use crate::spec::Placement;
use crate::time::{Mono, Now};

/// Where programs are looked for when nothing else is said.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This node's instances.
#[derive(Debug, Default)]
pub(super) struct Instances {
    here: BTreeMap<InstanceId, Supervisor>,
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
    /// Whether a node is not to be waited for in a rollout.
    pub(super) is_gone: &'a dyn Fn(&NodeKey) -> bool,
    /// Whether the binary is here and can be run.
    pub(super) is_executable: &'a dyn Fn(&Image) -> bool,
    /// Why it is not.
    pub(super) trouble: &'a dyn Fn(&Image) -> Option<String>,
}

impl Instances {
    /// Takes in what the keeper reports. Gives back the service that it concerns (none: all of them), and what to do at once.
    pub(super) fn apply(
        &mut self,
        now: Now,
        event: ProcessEvent,
        before: impl Fn(&ServiceName) -> Option<Report>,
        rng: &mut ChaCha8Rng,
        out: &mut Out,
    ) -> Concerns {
        match event {
            ProcessEvent::Holding(kept) => {
                self.take_over(now.mono, kept, before, rng, out);
                Concerns::All
            }
            ProcessEvent::Launched { run, pid, at } => match self.of_run(run) {
                Some((id, one)) => {
                    one.launched(now.mono, pid, at);
                    Concerns::One(id.service)
                }
                None => {
                    out.act(Effect::Kill { run });
                    Concerns::Nobody
                }
            },
            ProcessEvent::LaunchFailed { run, error } => match self.of_run(run) {
                Some((id, one)) => {
                    one.launch_failed(now.mono, error, rng);
                    Concerns::One(id.service)
                }
                None => Concerns::Nobody,
            },
            ProcessEvent::Exited { run, ended } => {
                out.act_when_durable(Effect::Acknowledge { run });
                match self.of_run(run) {
                    Some((id, one)) => {
                        one.exited(now.mono, ended, rng);
                        Concerns::One(id.service)
                    }
                    None => Concerns::Nobody,
                }
            }
            ProcessEvent::KeeperLost => {
                for one in self.here.values_mut() {
                    one.keeper_lost(now.mono);
                }
                self.known = false;
                Concerns::All
            }
        }
    }

    /// Makes this table agree with all that the keeper holds.
    fn take_over(
        &mut self,
        now: Mono,
        mut kept: Vec<Kept>,
        before: impl Fn(&ServiceName) -> Option<Report>,
        rng: &mut ChaCha8Rng,
        out: &mut Out,
    ) {
        self.known = true;
        let held: Vec<RunId> = kept.iter().map(|kept| kept.plan.run).collect();
        for one in self.here.values_mut() {
            if !one.is_idle() && one.run().is_none_or(|run| !held.contains(&run)) {
                one.keeper_lost(now);
            }
        }
        // The latest start of an instance is the one that counts; an earlier one that still runs is in its way.
        kept.sort_by_key(|kept| std::cmp::Reverse((kept.ended.is_none(), kept.started_at)));
        for kept in kept {
            let id = kept.plan.instance.clone();
            let reported = before(&id.service);
            let reported = reported.iter().flat_map(|report| &report.instances).find(|report| report.index == id.index);
            let known = self.here.get(&id);
            if known.is_none() || known.is_some_and(|one| one.is_idle() && one.run() != Some(kept.plan.run)) {
                self.here.insert(id.clone(), Supervisor::adopt(&kept, now, reported));
            }
            let one = self.here.get_mut(&id).expect("it is there now");
            if one.run() != Some(kept.plan.run) {
                out.act(Effect::Kill { run: kept.plan.run });
            } else if kept.ended.is_none() {
                one.launched(now, kept.pid, kept.started_at);
            }
            if let Some(ended) = kept.ended {
                if one.run() == Some(kept.plan.run) {
                    one.exited(now, ended, rng);
                }
                out.act_when_durable(Effect::Acknowledge { run: kept.plan.run });
            }
        }
    }

    fn of_run(&mut self, run: RunId) -> Option<(InstanceId, &mut Supervisor)> {
        let found = self.here.iter_mut().find(|(_, one)| one.run() == Some(run));
        found.map(|(id, one)| (id.clone(), one))
    }

    /// Whether the keeper has said what it holds.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// The services that have anything here.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.here.keys().map(|id| &id.service)
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
        let wanted: Vec<usize> =
            around.seats.iter().enumerate().filter(|(_, seat)| seat.is_of(&around.me)).map(|(at, _)| at).collect();
        if let Some(service) = service {
            let target = target_of(service);
            for at in &wanted {
                let id = InstanceId { service: name.clone(), index: around.seats[*at].index };
                self.here.entry(id).or_insert_with_key(|id| {
                    // What ended while this node was starting anew is remembered, though nothing of it runs any more.
                    let reported =
                        around.known.report(name, &around.me).into_iter().flat_map(|report| &report.instances);
                    Supervisor::new(target).remembering(reported.into_iter().find(|one| one.index == id.index))
                });
            }
        }
        let seat_of = |id: &InstanceId| wanted.iter().copied().find(|at| around.seats[*at].index == id.index);
        let (seated, surplus): (Vec<_>, Vec<_>) = self.ids_of(name).into_iter().partition(|id| seat_of(id).is_some());
        // What is too much goes from the highest index down, what is wanted comes from the lowest up.
        for id in surplus.iter().rev().chain(&seated) {
            self.settle_one(id, service.zip(seat_of(id)), around, rng, out);
        }
    }

    fn settle_one(
        &mut self,
        id: &InstanceId,
        wanted: Option<(&Service, usize)>,
        around: &Surroundings<'_>,
        rng: &mut ChaCha8Rng,
        out: &mut Out,
    ) {
        let one = self.here.get_mut(id).expect("settled instances are in the table");
        let image = wanted.and_then(|(service, _)| image_for(service, around.config));
        let wish = match wanted {
            Some((service, seat)) => Some(Wish {
                target: target_of(service),
                executable: image.is_some_and(|image| (around.is_executable)(image)),
                may_replace: may_replace(service, seat, around),
            }),
            // As it is, and not started again.
            None if !one.is_idle() && around.lingering.contains(&id.index) => {
                Some(Wish { target: one.target(), executable: false, may_replace: false })
            }
            None => None,
        };
        match one.settle(around.now.mono, wish.as_ref(), rng) {
            Some(Act::Launch(run)) => {
                let (service, _) = wanted.expect("only what is wanted is launched");
                let image = image.expect("only what has an executable is launched");
                out.act(Effect::Launch(Box::new(plan(service, image, id, run, around))));
            }
            Some(Act::Signal(run, signal)) => out.act(Effect::Signal { run, signal }),
            Some(Act::Kill(run)) => out.act(Effect::Kill { run }),
            None => {}
        }
        if wish.is_none() && one.is_idle() {
            self.here.remove(id);
        } else if let Some((service, _)) = wanted {
            one.waits_for_binary(match image {
                Some(image) => (around.trouble)(image),
                None => Some(format!("`{}` has no binary for {}", service.name, around.config.platform)),
            });
        }
    }

    fn ids_of(&self, name: &ServiceName) -> Vec<InstanceId> {
        let first = InstanceId { service: name.clone(), index: 0 };
        self.here.range(first..).map(|(id, _)| id).take_while(|id| id.service == *name).cloned().collect()
    }

    /// What this node says of its instances of a service; none when it has none.
    pub(super) fn report(&self, name: &ServiceName) -> Option<Report> {
        let ids = self.ids_of(name);
        let instances: Vec<_> = ids.iter().map(|id| self.here[id].report(id.index)).collect();
        (!instances.is_empty()).then_some(Report { instances })
    }

    /// When a service's instances have something to do without anything happening.
    pub(super) fn next_deadline(&self, name: &ServiceName) -> Option<Mono> {
        self.ids_of(name).iter().filter_map(|id| self.here[id].next_deadline()).min()
    }
}

/// Whom an event concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Concerns {
    All,
    One(ServiceName),
    Nobody,
}

fn target_of(service: &Service) -> Target {
    Target { launch_hash: service.current.launch_hash, revision: service.current.revision.number }
}

/// The binary for this node: one made for its platform before one that runs anywhere.
fn image_for<'a>(service: &'a Service, config: &EngineConfig) -> Option<&'a Image> {
    let images = &service.current.revision.images;
    let exact = images.iter().find(|image| image.platform == config.platform);
    exact.or_else(|| images.iter().find(|image| image.platform.runs_on(&config.platform)))
}

/// One at a time: an outdated instance is replaced once all before it are ready at the new revision. Who is gone is not
/// waited for.
fn may_replace(service: &Service, seat: usize, around: &Surroundings<'_>) -> bool {
    around.seats[..seat].iter().all(|earlier| {
        let waited_for = earlier.node.filter(|node| earlier.withheld.is_none() && !(around.is_gone)(node));
        let Some(node) = waited_for else { return true };
        let report = around.known.report(&service.name, &node);
        let instance = report.and_then(|report| report.instances.iter().find(|one| one.index == earlier.index));
        instance.is_some_and(|one| one.ready && one.launch_hash == service.current.launch_hash)
    })
}

fn plan(service: &Service, image: &Image, id: &InstanceId, run: RunId, around: &Surroundings<'_>) -> LaunchPlan {
    let layout = Layout::new(&around.config.data_dir);
    let spec = &service.current.spec;
    let work_dir = layout.work_dir(id);
    LaunchPlan {
        instance: id.clone(),
        run,
        launch_hash: service.current.launch_hash,
        binary: layout.executable(&image.hash),
        interpreter: spec.command.clone(),
        args: spec.args.clone(),
        env: environment(service, id, run, &work_dir, around),
        log_dir: layout.log_dir(id),
        work_dir,
        replaceable: matches!(spec.placement, Placement::Cluster { .. }),
        revision: service.current.revision.number,
    }
}

/// A small base, the documented variables, then the specification's own; nothing of the node's.
fn environment(
    service: &Service,
    id: &InstanceId,
    run: RunId,
    work_dir: &Path,
    around: &Surroundings<'_>,
) -> Vec<(String, String)> {
    let config = around.config;
    let root = work_dir.to_string_lossy().into_owned();
    let mut env: BTreeMap<String, String> = [
        ("PATH", PATH.to_owned()),
        ("HOME", root.clone()),
        ("USER", config.user.clone()),
        ("TMPDIR", root.clone()),
        ("LANG", "C.UTF-8".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    env.extend(service.current.spec.env.iter().map(|var| (var.name.clone(), var.value.clone())));
    let documented = [
        ("NARUN_APP_NAME", service.name.to_string()),
        ("NARUN_INSTANCE_ID", id.to_string()),
        ("NARUN_RUN_ID", run.to_string()),
        ("NARUN_REPLICA_INDEX", id.index.to_string()),
        ("NARUN_NODE_ID", config.name.to_string()),
        ("NARUN_NODE_OS", config.platform.os.clone()),
        ("NARUN_NODE_ARCH", config.platform.arch.clone()),
        ("NARUN_INSTANCE_ROOT", root),
    ];
    env.extend(documented.map(|(name, value)| (name.to_owned(), value)));
    env.into_iter().collect()
}
