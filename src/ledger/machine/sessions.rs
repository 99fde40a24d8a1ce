//! Who is here, and what becomes of the runs of those who are not. Pure.

use std::time::Duration;

use super::state::{Job, Session};
use super::{Entry, Machine};
use crate::ids::{NodeKey, RunId};
use crate::ledger::command::{LeaseKey, Refused, Reply, SessionId};
use crate::ledger::run::{OnNodeLoss, Run, RunStatus};

/// How long a node may be away before nobody waits for its word on what it has started: as long as the indices of a service wait
/// before they move, which a restart of the node process fits into many times over.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// How often one run is begun anew for lost nodes. Three nodes may well be lost to chance; a run that took more of them with it is
/// likely to be why.
const RERUNS_MAX: u32 = 3;

/// How many sessions may be open: one a node, and narun is made for some hundred of these.
const SESSIONS_MAX: usize = 4_096;

impl Machine {
    /// A node says that it is here.
    pub(super) fn open(&mut self, entry: Entry, node: NodeKey, life: u64) -> Result<Reply, Refused> {
        if let Some(id) = self.session_of(&node) {
            if self.state.sessions.get(&id).is_some_and(|session| session.life == life) {
                return Ok(Reply::Opened(id));
            }
            self.close(entry, id)?;
        }
        if self.state.sessions.len() >= SESSIONS_MAX {
            return Err(Refused::Full);
        }
        let id = SessionId(entry.index);
        self.state.sessions.insert(id, Session { node, life });
        self.index.open(entry.index, node, id);
        for key in self.index.runs.get(&node).cloned().unwrap_or_default() {
            self.change(entry, &key, |job| job.take_back(&node));
        }
        Ok(Reply::Opened(id))
    }

    /// A session is over: what it held is free, and what its node does is in doubt.
    pub(super) fn close(&mut self, entry: Entry, id: SessionId) -> Result<Reply, Refused> {
        let node = self.node_of(id)?;
        for lease in self.index.leases.get(&id).cloned().unwrap_or_default() {
            match lease {
                LeaseKey::Cron(key) => {
                    self.change(entry, &key, |job| job.holder = None);
                }
                LeaseKey::Singleton(name) => self.take_singleton(entry, &name),
            }
        }
        for key in self.index.runs.get(&node).cloned().unwrap_or_default() {
            self.change(entry, &key, |job| job.lose_node(entry, &node));
        }
        if bug!(EndedSessionKept) {
            return Ok(Reply::Done);
        }
        self.state.sessions.remove(&id);
        self.index.close(entry.index, &node);
        Ok(Reply::Done)
    }

    /// Ends the waiting for nodes that have been away for [`ORPHAN_GRACE`].
    pub(super) fn give_up_orphans(&mut self, entry: Entry) {
        let is_due = |(since, ..): &&(_, _, _)| *since + ORPHAN_GRACE <= entry.time && !bug!(OrphanKeptForEver);
        let due: Vec<_> = self.index.orphans.iter().take_while(is_due).cloned().collect();
        for (_, key, run) in due {
            self.change(entry, &key, |job| job.lose(entry, &run));
        }
    }
}

impl Job {
    /// A node is back, and will say itself what became of its runs.
    fn take_back(&mut self, node: &NodeKey) {
        for run in self.open.iter_mut().filter(|run| run.node.as_ref() == Some(node)) {
            run.orphaned = None;
        }
    }

    /// A node is away. What it had not started is not started; what it does, it may say when it comes back soon; between two attempts
    /// it did nothing, and somebody else makes the next.
    fn lose_node(&mut self, entry: Entry, node: &NodeKey) {
        let mut lost = Vec::new();
        for run in self.open.iter_mut().filter(|run| run.node.as_ref() == Some(node)) {
            if run.is_waiting() {
                run.node = None;
            } else if bug!(OrphanGivenAway) {
                (run.node, run.is_started, run.reruns) = (None, false, run.reruns + 1);
            } else if run.is_started {
                run.orphaned = Some(entry.time);
            } else {
                lost.push(run.id);
            }
        }
        for run in lost {
            self.lose(entry, &run);
        }
    }

    /// Nobody knows what became of the current attempt, and nobody will say.
    fn lose(&mut self, entry: Entry, run: &RunId) {
        let Some(at) = self.position(run) else { return };
        if self.is_to_rerun(&self.open[at]) {
            let run = &mut self.open[at];
            (run.node, run.is_started, run.orphaned) = (None, false, None);
            run.reruns += 1;
        } else {
            self.give_up(entry, at, RunStatus::Lost);
        }
    }

    /// Whether another node is to make another attempt of a run whose node is lost.
    fn is_to_rerun(&self, run: &Run) -> bool {
        run.on_node_loss == OnNodeLoss::Rerun && run.reruns < RERUNS_MAX && !run.is_replaced && self.retired.is_none()
    }
}
