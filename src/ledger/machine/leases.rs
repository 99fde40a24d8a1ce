//! Who holds what, and which jobs there are. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::index::Facets;
use super::state::Job;
use super::{Entry, Machine};
use crate::ids::ServiceName;
use crate::ledger::command::{JobKey, LeaseKey, Refused, Reply, SessionId};
use crate::ledger::run::RunStatus;
use crate::ledger::time::{LedgerTime, Slot};

/// How long the cursor of a job outlives its spec, so that a spec which was deleted and deployed again at once claims no slot twice,
/// by however wrong a clock (decisions.md).
pub const FORGET_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// How many jobs there may be: ten times what narun is made for. Only a leader makes them.
const JOBS_MAX: usize = 1_000_000;

impl Machine {
    /// The leader gives a lease to a session, or to nobody.
    pub(super) fn grant(
        &mut self,
        entry: Entry,
        lease: &LeaseKey,
        to: Option<SessionId>,
        begin: Slot,
    ) -> Result<Reply, Refused> {
        match (lease, to) {
            (LeaseKey::Cron(key), Some(to)) => self.grant_job(entry, key, to, begin),
            (LeaseKey::Cron(key), None) => {
                if self.job(key)?.holder.is_some() {
                    self.change(entry, key, |job| job.holder = None);
                }
                Ok(Reply::Done)
            }
            (LeaseKey::Singleton(name), to) => self.grant_singleton(entry, name, to),
        }
    }

    fn grant_job(&mut self, entry: Entry, key: &JobKey, to: SessionId, begin: Slot) -> Result<Reply, Refused> {
        let node = self.node_of(to)?;
        if key.node.is_some_and(|own| own != node) {
            return Err(Refused::Malformed);
        }
        if !self.state.jobs.contains_key(key) {
            if self.state.jobs.len() >= JOBS_MAX {
                return Err(Refused::Full);
            }
            self.state.jobs.insert(key.clone(), Arc::new(Job::new(begin.max(self.state.floor))));
        }
        let job = self.job(key)?;
        if job.holder != Some(to) || job.retired.is_some() {
            self.change(entry, key, |job| job.pass_to(to, begin));
        }
        Ok(Reply::Done)
    }

    /// A singleton goes from hand to hand only by way of nobody: two holders would be two instances.
    fn grant_singleton(&mut self, entry: Entry, name: &ServiceName, to: Option<SessionId>) -> Result<Reply, Refused> {
        let holder = self.state.singletons.get(name).copied();
        let Some(to) = to else { return if holder.is_some() { Err(Refused::Held) } else { Ok(Reply::Done) } };
        let node = self.node_of(to)?;
        match holder {
            Some(holder) if holder == to => Ok(Reply::Done),
            Some(_) => Err(Refused::Held),
            None => {
                self.state.singletons.insert(name.clone(), to);
                self.index.give(entry.index, to, Some(node), name);
                Ok(Reply::Done)
            }
        }
    }

    /// A holder lets go.
    pub(super) fn release(&mut self, entry: Entry, lease: &LeaseKey, session: SessionId) -> Result<Reply, Refused> {
        self.node_of(session)?;
        if self.holder(lease) != Some(session) {
            return Err(Refused::NotHolder);
        }
        match lease {
            LeaseKey::Cron(key) => {
                self.change(entry, key, |job| job.holder = None);
            }
            LeaseKey::Singleton(name) => self.take_singleton(entry, name),
        }
        Ok(Reply::Done)
    }

    /// Nobody holds a singleton from now on.
    pub(super) fn take_singleton(&mut self, entry: Entry, name: &ServiceName) {
        if let Some(session) = self.state.singletons.remove(name) {
            let node = self.node_of(session).ok();
            self.index.take(entry.index, session, node, name);
        }
    }

    /// The spec of a job was deleted.
    pub(super) fn retire(&mut self, entry: Entry, key: &JobKey) -> Result<Reply, Refused> {
        if self.job(key)?.retired.is_none() {
            self.change(entry, key, |job| job.retire(entry));
        }
        Ok(Reply::Done)
    }

    /// A job is over for good.
    pub(super) fn forget(&mut self, entry: Entry, key: &JobKey) -> Result<Reply, Refused> {
        if !self.job(key)?.is_forgettable(entry.time) {
            return Err(Refused::Kept);
        }
        if let Some(job) = self.state.jobs.remove(key) {
            let before = Facets::of(&job, |session| self.node_of(session).ok());
            self.index.change(entry.index, key, &before, &Facets::default());
        }
        Ok(Reply::Done)
    }
}

impl Job {
    /// Another one decides from now on. While the spec was deleted there were no slots: those before `begin` are passed over.
    fn pass_to(&mut self, session: SessionId, begin: Slot) {
        self.holder = Some(session);
        if self.retired.take().is_some() && !bug!(BegunBeforeDeploy) {
            self.cursor = self.cursor.max(begin);
        }
        if bug!(CursorLostWithLease) {
            self.cursor = begin;
        }
    }

    /// Nobody decides any more, nobody's request is taken, and nothing is tried again. What runs ends by its node's word.
    fn retire(&mut self, entry: Entry) {
        self.holder = None;
        self.retired = Some(entry.time);
        self.asked.clear();
        self.give_up_waiting(entry, RunStatus::Aborted);
    }

    /// Whether its cursor is of no use any more.
    pub(super) fn is_forgettable(&self, time: LedgerTime) -> bool {
        self.open.is_empty() && self.retired.is_some_and(|since| since + FORGET_AFTER <= time)
    }
}
