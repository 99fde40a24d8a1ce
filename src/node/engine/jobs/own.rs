//! What this process knows of this node's own runs, for as long as no voter of the ledger can be reached. Pure.
//!
//! What became of a run is the ledger's to say, and it is asked first. Here is what happened on this node: it is told of each attempt that
//! begins, starts or ends here and of those that the keeper has kept for an earlier process, and nothing is decided by it.
//!
//! Invariant: of one run there is one entry, that of its latest attempt here.

use std::collections::{BTreeMap, VecDeque};

use crate::crdt::document::RevisionId;
use crate::exec::plan::{Kept, LaunchPlan};
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::duty::{Duty, attempt_of};
use crate::ledger::run::{Fence, OnNodeLoss, Run, RunStatus, Trigger};
use crate::ledger::time::{LedgerTime, Slot};
use crate::node::engine::view::OwnRun;
use crate::time::Wall;

/// How many ended runs of one spec are known: as many as the ledger keeps where nobody says otherwise.
const ENDED_MAX: usize = 20;

/// How many of all specs: half a megabyte with the longest errors, and minutes of a host that runs something each second.
const ENDED_ALL_MAX: usize = 1_000;

/// The runs of this node.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Attempts that have not ended, by what the keeper calls them.
    open: BTreeMap<RunId, Known>,
    /// Runs whose latest attempt here has ended, the last at the back.
    ended: VecDeque<(RunId, Known)>,
}

#[derive(Debug)]
struct Known {
    cron: ServiceName,
    own: OwnRun,
}

impl Own {
    /// An attempt of a run begins.
    pub(super) fn begun(&mut self, cron: ServiceName, attempt: RunId, run: &Run) {
        self.take(attempt, Known { cron, own: OwnRun { run: run.clone(), is_told: true } });
    }

    /// The keeper holds an attempt. One that no longer shows which run it is of is left out.
    pub(super) fn recall(&mut self, me: NodeKey, kept: &Kept) {
        let attempt = kept.plan.run;
        let is_known = self.open.contains_key(&attempt) || self.ended.iter().any(|(known, _)| *known == attempt);
        if let Some(run) = run_of(me, &kept.plan, kept.started_at).filter(|_| !is_known) {
            let own = OwnRun { run, is_told: false };
            self.take(attempt, Known { cron: kept.plan.instance.service.clone(), own });
        }
    }

    fn take(&mut self, attempt: RunId, known: Known) {
        let Run { id, fence, .. } = known.own.run;
        let is_later = |other: &Known| other.own.run.id == id && other.own.run.fence > fence;
        if self.all().any(is_later) {
            return;
        }
        self.open.retain(|_, other| other.own.run.id != id);
        self.ended.retain(|(_, other)| other.own.run.id != id);
        self.open.insert(attempt, known);
    }

    /// An attempt was started.
    pub(super) fn started(&mut self, attempt: &RunId, at: Wall) {
        if let Some(Known { own, .. }) = self.open.get_mut(attempt) {
            own.run.is_started = true;
            own.run.started.get_or_insert(at);
        }
    }

    /// Something has become of an attempt: whether it has ended, and how, is the duty's to say.
    pub(super) fn ended(&mut self, attempt: &RunId, duty: &Duty) {
        let Some(end) = duty.end_of_attempt(attempt) else { return };
        let Some(mut known) = self.open.remove(attempt) else { return };
        let run = &mut known.own.run;
        // The same as the ledger makes of it, once it hears of it.
        if end.status == RunStatus::Failure && run.has_attempt_left() {
            (run.last_failure, run.is_started) = (Some(end.shortened()), false);
        } else {
            run.end = Some(end.shortened());
        }
        self.ended.push_back((*attempt, known));
        self.trim();
    }

    /// The keeper was lost, and all attempts with it.
    pub(super) fn all_ended(&mut self, duty: &Duty) {
        let all: Vec<RunId> = self.open.keys().copied().collect();
        for attempt in all {
            self.ended(&attempt, duty);
        }
    }

    /// Lets go of the oldest beyond what is kept, now that one more has ended.
    fn trim(&mut self) {
        let Some((_, last)) = self.ended.back() else { return };
        let of_spec = |(_, known): &(RunId, Known)| known.cron == last.cron;
        if self.ended.iter().filter(|ended| of_spec(ended)).count() > ENDED_MAX
            && let Some(oldest) = self.ended.iter().position(of_spec)
        {
            self.ended.remove(oldest);
        }
        if self.ended.len() > ENDED_ALL_MAX {
            self.ended.pop_front();
        }
    }

    fn all(&self) -> impl Iterator<Item = &Known> {
        self.open.values().chain(self.ended.iter().map(|(_, known)| known))
    }

    /// What is known of the runs of a spec: what happened here, and what the ledger has told last of those that are open.
    pub(super) fn of(&self, cron: &ServiceName, duty: &Duty) -> Vec<OwnRun> {
        let mut told: BTreeMap<RunId, &Run> = duty.open_here(cron).map(|run| (run.id, run)).collect();
        let known = self.all().filter(|known| known.cron == *cron);
        let mut runs: Vec<OwnRun> = known.map(|known| shown(&known.own, told.remove(&known.own.run.id))).collect();
        runs.extend(told.into_values().map(|run| not_begun(run, duty)));
        runs
    }
}

/// A run as it is shown, with what the ledger told last of it while it was open there.
fn shown(own: &OwnRun, told: Option<&Run>) -> OwnRun {
    let OwnRun { mut run, mut is_told } = own.clone();
    match told {
        // The next attempt was granted, and has not begun.
        Some(told) if told.fence > run.fence => return OwnRun { run: told.clone(), is_told: true },
        Some(told) => {
            run.is_replaced = told.is_replaced;
            (run.trigger, run.revision) = (told.trigger, told.revision);
            (run.attempts_max, run.reruns) = (told.attempts_max, told.reruns);
            is_told = true;
        }
        // Another attempt, if there was one, was not this node's.
        None => run.end = run.end.or(run.last_failure.take()),
    }
    OwnRun { run, is_told }
}

/// A run that this node was given, and of which it has begun nothing.
fn not_begun(run: &Run, duty: &Duty) -> OwnRun {
    let end = duty.end_of_attempt(&attempt_of(run.id, run.fence)).cloned();
    OwnRun { run: Run { end, ..run.clone() }, is_told: true }
}

/// The run that an attempt is of, by the environment that it was given: all that the keeper knows of it.
fn run_of(me: NodeKey, plan: &LaunchPlan, started: Wall) -> Option<Run> {
    let value = |name: &str| plan.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let attempt = value("NARUN_JOB_ATTEMPT")?.parse().ok()?;
    let scheduled: Wall = value("NARUN_JOB_SCHEDULED_TIME")?.parse().ok()?;
    Some(Run {
        id: value("NARUN_RUN_ID")?.parse().ok()?,
        // Not shown: a request has a moment, too.
        trigger: Trigger::Slot(Slot::at(scheduled)),
        scheduled,
        revision: RevisionId { number: plan.revision, hash: [0; 4] },
        node: Some(me),
        fence: Fence(value("NARUN_FENCE")?.parse().ok()?),
        attempt,
        // Not known, and not shown: nothing is said of attempts that are to follow.
        attempts_max: attempt,
        on_node_loss: OnNodeLoss::default(),
        claimed: LedgerTime::default(),
        // Of the first attempt it is when the run began; of a later one that is not known.
        started: (attempt == 1).then_some(started),
        is_started: true,
        orphaned: None,
        is_replaced: false,
        end: None,
        last_failure: None,
        reruns: 0,
    })
}
