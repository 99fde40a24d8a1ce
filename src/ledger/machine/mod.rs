//! What the log adds up to: sessions, leases, cursors, runs. Pure.
//!
//! The same on every voter, since it is made of nothing but the commands and their order. It has no clock: its time is the greatest
//! stamp that it was given. It is total: whatever a log holds is done or refused, and nothing in it can make this code panic.
//!
//! What must hold: each slot up to a job's cursor was decided once, as a run or as a gap; a fence is the log index of the claim
//! or attempt that it belongs to, and so greater than all before it; a word on an attempt that was passed over changes nothing.
//!
//! `sessions`, `leases`, `slots` and `attempts` are what the commands do, `history` what is remembered of runs and slots. `state` is what is
//! kept and goes into snapshots; `index` is worked out from it, so that neither a command nor a question goes through all jobs.

mod answers;
mod attempts;
mod history;
mod index;
mod leases;
mod sessions;
mod slots;
mod snapshot;
mod state;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::leases::FORGET_AFTER;
pub use self::sessions::ORPHAN_GRACE;
pub use self::snapshot::{Frozen, SnapshotError};

use self::index::{Facets, Index};
use self::state::{Job, State};
use super::command::{Command, JobKey, Refused, Reply, SessionId, Stamped};
use super::time::{LedgerTime, Slot};
use crate::ids::NodeKey;
use crate::time::Wall;

/// What the log adds up to.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    state: State,
    index: Index,
}

/// Two are equal that hold the same; how much either remembers of what changed when does not count.
impl PartialEq for Machine {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

/// Which entry is being applied.
#[derive(Clone, Copy)]
struct Entry {
    index: u64,
    /// The machine's time, with this entry.
    time: LedgerTime,
    /// For people alone.
    wall: Wall,
}

impl Machine {
    /// One that follows a ledger which was lost: slots up to `floor` are none of any job's.
    pub fn beginning_after(floor: Slot) -> Self {
        Self { state: State { floor, ..State::default() }, index: Index::default() }
    }

    /// Applies the entry of the log at `index`, and answers whoever proposed it.
    ///
    /// # Panics
    /// Where `index` is not greater than that of every entry before: a fault of the log's, which would give out a fence twice.
    pub fn apply(&mut self, index: u64, stamped: &Stamped) -> Reply {
        assert!(index > self.state.applied, "entry {index} comes after entry {}", self.state.applied);
        self.state.applied = index;
        self.state.time = self.state.time.max(stamped.at);
        self.state.wall = stamped.wall;
        let entry = Entry { index, time: self.state.time, wall: stamped.wall };
        self.give_up_orphans(entry);
        self.execute(entry, &stamped.command).unwrap_or_else(Reply::Refused)
    }

    fn execute(&mut self, entry: Entry, command: &Command) -> Result<Reply, Refused> {
        match command {
            Command::Open { node, life } => self.open(entry, *node, *life),
            Command::Close { session } => self.close(entry, *session),
            Command::Grant { lease, to, begin } => self.grant(entry, lease, *to, *begin),
            Command::Release { lease, session } => self.release(entry, lease, *session),
            Command::Retire { job } => self.retire(entry, job),
            Command::Forget { job } => self.forget(entry, job),
            Command::Decide(decide) => self.decide(entry, decide),
            Command::Ask { job, request, at } => self.ask(entry, job, *request, *at),
            Command::Started { job, run, fence, at } => self.started(entry, job, *run, *fence, *at),
            Command::Ended { job, run, fence, end, again } => self.ended(entry, job, *run, *fence, end, *again),
            Command::Attempt { job, run, fence, session } => self.attempt(entry, job, *run, *fence, *session),
            Command::Tick => Ok(Reply::Done),
        }
    }

    /// The one way in which a job changes: whatever depends on it is brought up to date with it. None if there is no such job.
    fn change<T>(&mut self, entry: Entry, key: &JobKey, change: impl FnOnce(&mut Job) -> T) -> Option<T> {
        let sessions = &self.state.sessions;
        let node_of = |session: SessionId| sessions.get(&session).map(|session| session.node);
        let job = Arc::make_mut(self.state.jobs.get_mut(key)?);
        let before = Facets::of(job, node_of);
        let result = change(job);
        self.index.change(entry.index, key, &before, &Facets::of(job, node_of));
        Some(result)
    }

    /// The job, to be looked at.
    fn job(&self, key: &JobKey) -> Result<&Job, Refused> {
        self.state.jobs.get(key).map(|job| &**job).ok_or(Refused::NoJob)
    }

    /// The node of a session that is open.
    fn node_of(&self, session: SessionId) -> Result<NodeKey, Refused> {
        self.state.sessions.get(&session).map(|session| session.node).ok_or(Refused::NoSession)
    }
}
