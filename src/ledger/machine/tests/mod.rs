//! A log that a test writes by hand, and what all kinds of tests say with it.

mod attempts;
mod leases;
mod model;
mod nonsense;
mod sessions;
mod size;
mod slots;
mod snapshots;
mod watching;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::crdt::document::RevisionId;
use crate::ids::{RunId, ServiceName};
use crate::ledger::command::{Claim, Decide, LeaseKey};
use crate::ledger::question::{Account, Concern};
use crate::ledger::run::{Fence, Gap, GapReason, OnNodeLoss, Overlap, Run, RunEnd, RunStatus, Trigger};
use crate::ledger::time::Slot;

/// The slot up to which nothing is a job's own in most tests.
const BEGIN: Slot = Slot(100);

fn node(number: u8) -> NodeKey {
    NodeKey([number; 32])
}

fn job(name: &str) -> JobKey {
    JobKey { name: ServiceName::new(name).unwrap(), node: None }
}

fn run_id(number: u8) -> RunId {
    RunId([number; 16])
}

fn singleton(name: &str) -> LeaseKey {
    LeaseKey::Singleton(ServiceName::new(name).unwrap())
}

fn ended_as(status: RunStatus) -> RunEnd {
    RunEnd { status, at: Wall(9_000), code: None, signal: None, error: None }
}

fn missed(first: u64, last: u64) -> Gap {
    Gap { first: Slot(first), last: Slot(last), count: last - first + 1, reason: GapReason::Missed }
}

/// A claim of a slot by run `number`, under the defaults of a spec.
fn claim(slot: u64, number: u8) -> Claim {
    Claim {
        run: run_id(number),
        trigger: Trigger::Slot(Slot(slot)),
        scheduled: Slot(slot).wall(),
        revision: RevisionId { number: 1, hash: [1; 4] },
        overlap: Overlap::Skip,
        attempts_max: 1,
        on_node_loss: OnNodeLoss::Fail,
        history_limit: 20,
    }
}

/// A machine with its log.
#[derive(Default)]
struct Log {
    machine: Machine,
    now: Duration,
}

impl Log {
    /// The next entry.
    fn give(&mut self, command: Command) -> Reply {
        let at = LedgerTime::default() + self.now;
        let wall = Wall(1_000_000).plus(self.now);
        self.machine.apply(self.machine.applied() + 1, &Stamped { at, command, wall })
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        assert_eq!(self.give(Command::Tick), Reply::Done);
    }

    fn open(&mut self, number: u8) -> SessionId {
        self.open_life(number, 1)
    }

    fn open_life(&mut self, number: u8, life: u64) -> SessionId {
        match self.give(Command::Open { node: node(number), life }) {
            Reply::Opened(session) => session,
            other => panic!("not opened: {other:?}"),
        }
    }

    fn close(&mut self, session: SessionId) {
        assert_eq!(self.give(Command::Close { session }), Reply::Done);
    }

    fn grant(&mut self, job: &JobKey, to: SessionId) -> Reply {
        self.give(Command::Grant { lease: LeaseKey::Cron(job.clone()), to: Some(to), begin: BEGIN })
    }

    /// A session that holds the lease of the job.
    fn holder(&mut self, number: u8, job: &JobKey) -> SessionId {
        let session = self.open(number);
        assert_eq!(self.grant(job, session), Reply::Done);
        session
    }

    /// Decides as an honest holder that knows the cursor.
    fn decide(&mut self, job: &JobKey, session: SessionId, gaps: Vec<Gap>, claim: Option<Claim>) -> Reply {
        let cursor = self.cursor(job);
        let last = gaps.last().map_or(cursor, |gap| gap.last);
        let upto = match claim.as_ref().map(|claim| claim.trigger) {
            Some(Trigger::Slot(slot)) => slot,
            _ => last,
        };
        self.give(Command::Decide(Decide { job: job.clone(), session, cursor, gaps, claim, upto }))
    }

    fn claim(&mut self, job: &JobKey, session: SessionId, claim: Claim) -> Fence {
        match self.decide(job, session, Vec::new(), Some(claim)) {
            Reply::Granted(fence) => fence,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Claims slot 101 by run 1, and starts it.
    fn start(&mut self, job: &JobKey, session: SessionId, claim: Claim) -> Fence {
        let run = claim.run;
        let fence = self.claim(job, session, claim);
        assert_eq!(self.started(job, run, fence), Reply::Done);
        fence
    }

    fn started(&mut self, job: &JobKey, run: RunId, fence: Fence) -> Reply {
        self.give(Command::Started { job: job.clone(), run, fence, at: Wall(8_000) })
    }

    fn ended(&mut self, job: &JobKey, run: RunId, fence: Fence, status: RunStatus, again: bool) -> Reply {
        self.give(Command::Ended { job: job.clone(), run, fence, end: ended_as(status), again })
    }

    fn attempt(&mut self, job: &JobKey, run: RunId, fence: Fence, session: SessionId) -> Reply {
        self.give(Command::Attempt { job: job.clone(), run, fence, session })
    }

    fn ask(&mut self, job: &JobKey, request: u8) -> Reply {
        self.give(Command::Ask { job: job.clone(), request: [request; 16], at: Wall(7) })
    }

    fn account(&self, job: &JobKey) -> Account {
        self.machine.account(job).unwrap()
    }

    fn cursor(&self, job: &JobKey) -> Slot {
        self.account(job).cursor
    }

    fn run(&self, job: &JobKey, run: RunId) -> Run {
        self.account(job).runs.into_iter().find(|one| one.id == run).unwrap()
    }

    /// How a run ended, if it has.
    fn status(&self, job: &JobKey, run: RunId) -> Option<RunStatus> {
        self.run(job, run).end.map(|end| end.status)
    }
}

/// The index is what one would work out from the state.
fn check_index(machine: &Machine) {
    let comparable =
        |index: &Index| Index { watches: BTreeMap::new(), sessions_changed: 0, leases_changed: 0, ..index.clone() };
    assert_eq!(comparable(&machine.index), comparable(&Index::build(&machine.state)));
}
