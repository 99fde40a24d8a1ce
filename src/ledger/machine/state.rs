//! What the machine keeps, and a snapshot holds. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::command::{JobKey, SessionId};
use crate::ledger::question::Asked;
use crate::ledger::run::{Fence, Gap, Run};
use crate::ledger::time::{LedgerTime, Slot};
use crate::time::Wall;

/// How much history a job has before its first claim says otherwise: the default of `historyLimit`.
const HISTORY_DEFAULT: u32 = 20;

/// All of it.
#[derive(Clone, PartialEq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct State {
    /// The index of the last entry that was applied.
    #[n(0)]
    pub(super) applied: u64,
    /// The greatest stamp.
    #[n(1)]
    pub(super) time: LedgerTime,
    /// Those that are open; at most one a node.
    #[n(2)]
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// Those that are held, and by whom.
    #[n(3)]
    pub(super) singletons: BTreeMap<ServiceName, SessionId>,
    /// Every job, shared with the copies that snapshots are made of, so that such a copy costs little.
    #[cbor(n(4), with = "shared")]
    pub(super) jobs: BTreeMap<JobKey, Arc<Job>>,
    /// The wall clock of whoever stamped the last entry, for people to read.
    #[cbor(n(5), default)]
    pub(super) wall: Wall,
    /// Slots up to this one are none of a job that is not known yet: what became of them was lost with an earlier ledger.
    #[cbor(n(6), default)]
    pub(super) floor: Slot,
}

/// A node's presence.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Session {
    /// Whose.
    #[n(0)]
    pub(super) node: NodeKey,
    /// Of which of its processes.
    #[n(1)]
    pub(super) life: u64,
}

/// One series of slots.
#[derive(Clone, PartialEq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Job {
    /// The last slot that was decided.
    #[n(0)]
    pub(super) cursor: Slot,
    /// Who decides the next one.
    #[n(1)]
    pub(super) holder: Option<SessionId>,
    /// Since when its spec is deleted, if it is.
    #[n(2)]
    pub(super) retired: Option<LedgerTime>,
    /// How many ended runs, and how many gaps, are kept.
    #[n(3)]
    pub(super) history_limit: u32,
    /// Runs without an end, oldest first.
    #[n(4)]
    pub(super) open: Vec<Run>,
    /// Requests that nobody has claimed, oldest first.
    #[n(5)]
    pub(super) asked: Vec<Asked>,
    /// Runs with an end, the one that ended last at the back.
    #[n(6)]
    pub(super) ended: VecDeque<Run>,
    /// Slots without a run, the latest at the back.
    #[n(7)]
    pub(super) gaps: VecDeque<Gap>,
    /// The run that ended well last, however long ago.
    #[n(8)]
    pub(super) last_success: Option<RunId>,
}

impl Job {
    /// A job of which no slot was decided; the first is the one after `begin`.
    pub(super) fn new(begin: Slot) -> Self {
        Self {
            cursor: begin,
            holder: None,
            retired: None,
            history_limit: HISTORY_DEFAULT,
            open: Vec::new(),
            asked: Vec::new(),
            ended: VecDeque::new(),
            gaps: VecDeque::new(),
            last_success: None,
        }
    }

    /// Where among the open runs that one is.
    pub(super) fn position(&self, run: &RunId) -> Option<usize> {
        self.open.iter().position(|open| open.id == *run)
    }

    /// Where among the open runs that one is, while the attempt with this fence is its current one. All that is said of an attempt goes
    /// through here.
    pub(super) fn current(&self, run: &RunId, fence: Fence) -> Option<usize> {
        self.position(run).filter(|at| self.open[*at].fence == fence || bug!(OldFenceAccepted))
    }

    /// All its runs that are remembered.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.open.iter().chain(&self.ended)
    }
}

/// The same bytes as those of a map of jobs that nobody shares.
mod shared {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{Encoder, Write};

    use super::{Arc, BTreeMap, Job, JobKey};

    pub(super) fn encode<C, W: Write>(
        jobs: &BTreeMap<JobKey, Arc<Job>>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.map(jobs.len() as u64)?;
        for (key, job) in jobs {
            encoder.encode_with(key, context)?.encode_with(&**job, context)?;
        }
        Ok(())
    }

    pub(super) fn decode<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<BTreeMap<JobKey, Arc<Job>>, Error> {
        let jobs: BTreeMap<JobKey, Job> = decoder.decode_with(context)?;
        Ok(jobs.into_iter().map(|(key, job)| (key, Arc::new(job))).collect())
    }
}
