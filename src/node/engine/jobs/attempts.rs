//! Attempts of runs beside the keeper: those that wait for their binary, that run, that are being stopped. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::exec::plan::{Kept, LaunchPlan, ProcessEvent, Stop};
use crate::ids::{InstanceId, RunId, ServiceName};
use crate::ledger::duty::Permit;
use crate::ledger::run::Run;
use crate::node::engine::Engine;
use crate::node::engine::effect::Effect;
use crate::node::engine::launch::{Start, image_for};
use crate::node::engine::out::Out;
use crate::node::engine::services::Rev;
use crate::time::Mono;

/// How long an attempt may wait for its binary: a large one over a slow link takes less. After that it counts as one that could not be
/// started.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The attempts of this node, by what the keeper calls them.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    all: BTreeMap<RunId, Attempt>,
    /// One was begun since this was asked last.
    has_new: bool,
}

#[derive(Debug)]
struct Attempt {
    /// Its spec, and its lane.
    id: InstanceId,
    stop: Stop,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// For its binary, until then.
    Waiting(Box<Run>, Mono),
    /// The keeper has it; where it was asked to stop, it is killed then.
    Handed(Option<Mono>),
    /// It has ended, and the ledger does not know yet.
    Ended,
}

/// What becomes of one that waits.
enum Verdict {
    Launch(Box<LaunchPlan>),
    Wait,
    Fail(String),
}

impl Attempts {
    pub(super) fn begin(&mut self, now: Mono, service: ServiceName, name: RunId, run: Box<Run>) {
        let of_service =
            self.all.values().filter(|one| one.id.service == service && !matches!(one.phase, Phase::Ended));
        let taken: BTreeSet<u32> = of_service.map(|one| one.id.index).collect();
        let index = (0..).find(|lane| !taken.contains(lane)).expect("there are more numbers than attempts");
        let phase = Phase::Waiting(run, now + WAIT_MAX);
        self.has_new = true;
        self.all.insert(name, Attempt { id: InstanceId { service, index }, stop: Stop::default(), phase });
    }

    /// Whether an attempt that was begun since this was asked last waits for its binary.
    pub(super) fn take_new_waiting(&mut self) -> bool {
        std::mem::take(&mut self.has_new) && self.waiting().next().is_some()
    }

    /// Asks one to stop, as its specification says.
    pub(super) fn stop(&mut self, now: Mono, name: RunId, out: &mut Out) {
        let Some(attempt) = self.all.get_mut(&name) else { return };
        if let Phase::Handed(kill_at @ None) = &mut attempt.phase {
            *kill_at = Some(now + Duration::from_millis(attempt.stop.grace_ms));
            out.act(Effect::Signal { run: name, signal: attempt.stop.signal });
        }
    }

    /// Ends those that did not stop in time.
    pub(super) fn kill_overdue(&mut self, now: Mono, out: &mut Out) {
        for (name, attempt) in &mut self.all {
            if let Phase::Handed(Some(at)) = attempt.phase
                && at <= now
            {
                // Once more after the same time, should the keeper not have heard it.
                attempt.phase = Phase::Handed(Some(now + Duration::from_millis(attempt.stop.grace_ms.max(1_000))));
                out.act(Effect::Kill { run: *name });
            }
        }
    }

    pub(super) fn forget(&mut self, name: RunId) {
        self.all.remove(&name);
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let due = |attempt: &Attempt| match attempt.phase {
            Phase::Waiting(_, until) => Some(until),
            Phase::Handed(kill_at) => kill_at,
            Phase::Ended => None,
        };
        self.all.values().filter_map(due).min()
    }

    fn waiting(&self) -> impl Iterator<Item = (RunId, &InstanceId, &Run, Mono)> {
        self.all.iter().filter_map(|(name, attempt)| match &attempt.phase {
            Phase::Waiting(run, until) => Some((*name, &attempt.id, &**run, *until)),
            Phase::Handed(_) | Phase::Ended => None,
        })
    }

    fn set(&mut self, name: RunId, phase: Phase) -> bool {
        self.all.get_mut(&name).map(|attempt| attempt.phase = phase).is_some()
    }

    fn take_over(&mut self, kept: &[Kept]) {
        for Kept { plan, ended, .. } in kept {
            let phase = if ended.is_some() { Phase::Ended } else { Phase::Handed(None) };
            match self.all.get_mut(&plan.run) {
                Some(known) if ended.is_some() => known.phase = phase,
                Some(_) => {}
                None => drop(self.all.insert(plan.run, Attempt { id: plan.instance.clone(), stop: plan.stop, phase })),
            }
        }
    }
}

impl Engine {
    /// Takes in what the keeper says of attempts. What it says of anything else is handed back.
    pub(in crate::node::engine) fn apply_attempt(
        &mut self,
        event: ProcessEvent,
        out: &mut Out,
    ) -> Option<ProcessEvent> {
        let now = self.now;
        let jobs = &mut self.jobs;
        match event {
            ProcessEvent::Holding(kept) => {
                let (attempts, rest): (Vec<Kept>, Vec<Kept>) = kept.into_iter().partition(|kept| kept.plan.is_job);
                jobs.attempts.take_over(&attempts);
                for kept in rest.iter().filter(|kept| kept.plan.lease_until.is_some() && kept.ended.is_none()) {
                    self.singletons.found(kept.plan.run);
                    out.act(Effect::Kill { run: kept.plan.run });
                }
                let held = attempts.iter().map(|kept| (kept.plan.run, kept.started_at, kept.ended));
                jobs.duty.holding(now, held);
                for kept in &attempts {
                    jobs.own.recall(self.me, kept);
                    jobs.own.ended(&kept.plan.run, &jobs.duty);
                }
                return Some(ProcessEvent::Holding(rest));
            }
            ProcessEvent::KeeperLost => {
                self.singletons.lost();
                jobs.attempts = Attempts::default();
                jobs.duty.keeper_lost(now);
                jobs.own.all_ended(&jobs.duty);
                return Some(ProcessEvent::KeeperLost);
            }
            ProcessEvent::Launched { run, at, .. } if jobs.attempts.all.contains_key(&run) => {
                jobs.duty.started(now, run, at);
                jobs.own.started(&run, at);
            }
            ProcessEvent::LaunchFailed { run, error } if jobs.attempts.set(run, Phase::Ended) => {
                jobs.duty.failed_to_start(now, run, error);
                jobs.own.ended(&run, &jobs.duty);
            }
            ProcessEvent::Exited { run, ended } if jobs.attempts.set(run, Phase::Ended) => {
                jobs.duty.ended(run, &ended);
                jobs.own.ended(&run, &jobs.duty);
            }
            other => {
                if let ProcessEvent::Exited { run, .. } = &other {
                    self.singletons.ended(run);
                }
                return Some(other);
            }
        }
        None
    }

    /// Launches what has its binary now and may still be started, and gives up what waited too long. True: the ledger is to be told something.
    pub(super) fn launch_waiting(&mut self, out: &mut Out) -> bool {
        let decided: Vec<(RunId, Verdict)> = self
            .jobs
            .attempts
            .waiting()
            .map(|(name, id, run, until)| (name, self.look_at_waiting(name, id, run, until)))
            .collect();
        let mut has_failed = false;
        for (name, verdict) in decided {
            match verdict {
                Verdict::Wait => {}
                Verdict::Launch(plan) => {
                    if let Some(attempt) = self.jobs.attempts.all.get_mut(&name) {
                        (attempt.stop, attempt.phase) = (plan.stop, Phase::Handed(None));
                    }
                    out.act(Effect::Launch(plan));
                }
                Verdict::Fail(error) => {
                    self.jobs.attempts.set(name, Phase::Ended);
                    self.jobs.duty.failed_to_start(self.now, name, error);
                    self.jobs.own.ended(&name, &self.jobs.duty);
                    has_failed = true;
                }
            }
        }
        has_failed
    }

    fn look_at_waiting(&self, name: RunId, id: &InstanceId, run: &Run, until: Mono) -> Verdict {
        let Some(rev) = self.revision_of(&id.service, run) else {
            return Verdict::Fail(format!("revision {} of `{}` is not kept any more", run.revision.number, id.service));
        };
        let Some(image) = image_for(rev, &self.config) else {
            return Verdict::Fail(format!("`{}` has no binary for {}", id.service, self.config.platform));
        };
        let is_here = self.copies.is_executable(&image.hash);
        match self.jobs.duty.permit(self.now.mono, &name) {
            Permit::Gone => return Verdict::Fail("its run was closed before it could start".to_owned()),
            Permit::Unconfirmed if is_here && self.now.mono >= until => {
                return Verdict::Fail(format!("the ledger did not confirm it within {} s", WAIT_MAX.as_secs()));
            }
            Permit::Unconfirmed if is_here => return Verdict::Wait,
            Permit::Stands | Permit::Unconfirmed => {}
        }
        if is_here {
            let start = Start { rev, image, id, name, run: Some(run), lease: None };
            return Verdict::Launch(Box::new(start.plan(&self.config)));
        }
        if self.now.mono < until {
            return Verdict::Wait;
        }
        let trouble = self.copies.trouble(&image.hash).unwrap_or_else(|| "nobody in reach has it".to_owned());
        let waited = WAIT_MAX.as_secs();
        Verdict::Fail(format!("its binary `{}` was not here after {waited} s: {trouble}", image.file_name))
    }

    fn revision_of(&self, service: &ServiceName, run: &Run) -> Option<&Rev> {
        self.services.get(service)?.history.iter().find(|rev| rev.id == run.revision)
    }

    /// Binaries that attempts of this node wait for.
    pub(in crate::node::engine) fn awaited(&self) -> impl Iterator<Item = (&ServiceName, &Rev)> {
        let waiting = self.jobs.attempts.waiting();
        waiting.filter_map(|(_, id, run, _)| Some((&id.service, self.revision_of(&id.service, run)?)))
    }
}
