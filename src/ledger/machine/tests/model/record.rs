//! What is known from the machine's answers alone, and what no answer may contradict.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What is known of one run from the answers.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) fences: Vec<Fence>,
    /// Attempts that were said to have ended, and taken for that.
    pub(super) ended: BTreeSet<Fence>,
    pub(super) attempts_max: u32,
    pub(super) on_node_loss: OnNodeLoss,
    pub(super) end: Option<RunEnd>,
}

/// What became of one slot.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Became {
    Run(RunId),
    Gap,
    /// There was no spec then.
    Nothing,
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) sessions: BTreeMap<u8, (SessionId, u64)>,
    pub(super) holders: BTreeMap<JobKey, SessionId>,
    pub(super) cursors: BTreeMap<JobKey, Slot>,
    pub(super) retired: BTreeSet<JobKey>,
    pub(super) slots: BTreeMap<JobKey, BTreeMap<u64, Became>>,
    pub(super) runs: BTreeMap<RunId, Known>,
    pub(super) singleton: Option<SessionId>,
    pub(super) fence: Fence,
}

impl Record {
    pub(super) fn close(&mut self, session: SessionId) {
        self.sessions.retain(|_, (open, _)| *open != session);
        self.holders.retain(|_, holder| *holder != session);
        self.singleton = self.singleton.filter(|holder| *holder != session);
    }

    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.values().any(|(open, _)| *open == session)
    }

    /// A slot is decided, for the first time.
    pub(super) fn became(&mut self, job: &JobKey, slot: u64, what: Became) {
        let before = self.slots.entry(job.clone()).or_default().insert(slot, what);
        assert_eq!(before, None, "slot {slot} was decided before");
    }

    /// A fence was given out, a greater one than all before.
    pub(super) fn fence(&mut self, fence: Fence) {
        assert!(fence > self.fence, "{fence:?} after {:?}", self.fence);
        self.fence = fence;
    }
}
