//! One run, as the ledger keeps it, and the slots that had none. Pure.

use crate::crdt::document::RevisionId;
use crate::ids::{NodeKey, RunId};
use crate::time::Wall;

use super::time::{LedgerTime, Slot};

/// Longest text of an error that the ledger keeps, in bytes: a path and its cause; the rest is in the logs.
pub const ERROR_LEN_MAX: usize = 256;

/// The log index of the claim or of the later attempt: greater for every later one in the cluster. `NARUN_FENCE`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Fence(#[n(0)] pub u64);

/// Why there is a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Trigger {
    /// A slot was due.
    #[n(0)]
    Slot(#[n(0)] Slot),
    /// Somebody asked for it, by `narun cron run`; the number is that of the request, drawn by the node that took it.
    #[n(1)]
    Asked(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
}

/// The execution of one slot, or of one request: one or more attempts.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Run {
    /// Its name for people, the same over all attempts: drawn by the claimer.
    #[n(0)]
    pub id: RunId,
    /// Why there is one.
    #[n(1)]
    pub trigger: Trigger,
    /// When it was due.
    #[n(2)]
    pub scheduled: Wall,
    /// What is run.
    #[n(3)]
    pub revision: RevisionId,
    /// The node of the current attempt. After it was lost under [`OnNodeLoss::Rerun`], none, until another one takes it over.
    #[n(4)]
    pub node: Option<NodeKey>,
    /// The fence of the current attempt. A word on an attempt with another fence is refused.
    #[n(5)]
    pub fence: Fence,
    /// Which attempt, from 1.
    #[n(6)]
    pub attempt: u32,
    /// How many there may be.
    #[n(7)]
    pub attempts_max: u32,
    /// What is done when the node is lost.
    #[n(8)]
    pub on_node_loss: OnNodeLoss,
    /// When the current attempt was claimed.
    #[n(9)]
    pub claimed: LedgerTime,
    /// When the first attempt was started, by the clock of its node.
    #[n(10)]
    pub started: Option<Wall>,
    /// Whether the current attempt was started.
    #[n(11)]
    pub is_started: bool,
    /// Since when the session of its node is over, while nobody has claimed it anew and it has not ended.
    #[n(12)]
    pub orphaned: Option<LedgerTime>,
    /// A later slot wants its place ([`Overlap::Replace`]): its node is to end it.
    #[n(13)]
    pub is_replaced: bool,
    /// How it ended; an attempt that failed and is to be followed by another leaves the run open.
    #[n(14)]
    pub end: Option<RunEnd>,
    /// The end of the last attempt, while the run is open: it waits for its next attempt.
    #[n(15)]
    pub last_failure: Option<RunEnd>,
    /// How often it lost its node under [`OnNodeLoss::Rerun`]: so many attempts there may be beyond [`Run::attempts_max`].
    #[n(16)]
    pub reruns: u32,
}

impl Run {
    /// Whether no attempt is under way: the last one has ended, or lost its node, and the next one was not claimed.
    pub fn is_waiting(&self) -> bool {
        self.end.is_none() && (self.last_failure.is_some() || self.node.is_none())
    }

    /// How many attempts there may be, those for lost nodes included.
    pub fn attempts_allowed(&self) -> u32 {
        self.attempts_max.saturating_add(self.reruns)
    }

    /// Whether another attempt may follow the current one.
    pub fn has_attempt_left(&self) -> bool {
        self.attempt < self.attempts_allowed() && !self.is_replaced
    }
}

/// How a run, or one attempt, ended.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RunEnd {
    /// In one word.
    #[n(0)]
    pub status: RunStatus,
    /// When, by the clock of the node that says so; where the ledger ended it, by the leader's.
    #[n(1)]
    pub at: Wall,
    /// The exit code, where it exited by itself.
    #[n(2)]
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    #[n(3)]
    pub signal: Option<i32>,
    /// What went wrong; at most [`ERROR_LEN_MAX`] bytes.
    #[n(4)]
    pub error: Option<String>,
}

impl RunEnd {
    /// With as much of its error's beginning as is kept.
    pub fn shortened(&self) -> Self {
        let shortened = |text: &String| text[..text.floor_char_boundary(ERROR_LEN_MAX)].to_owned();
        Self { error: self.error.as_ref().map(shortened), ..self.clone() }
    }
}

/// How a run ended, in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum RunStatus {
    /// With code 0.
    #[n(0)]
    Success,
    /// With another code, or by a signal that narun did not send.
    #[n(1)]
    Failure,
    /// It took longer than `jobTimeoutSeconds`, and was ended.
    #[n(2)]
    Timeout,
    /// Its program could not be started: no binary, a limit that cannot be given, and the like.
    #[n(3)]
    FailureToStart,
    /// It was ended for a later slot, by `concurrencyPolicy: replace`.
    #[n(4)]
    Replaced,
    /// It was ended by somebody's word: its node was stopped, or its spec deleted.
    #[n(5)]
    Aborted,
    /// Its node was lost between claim and end: nobody knows what became of it.
    #[n(6)]
    Lost,
}

/// What becomes of a run whose node is lost during an attempt. Between two attempts nothing is lost with a node: another one
/// makes the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum OnNodeLoss {
    /// It is recorded as lost.
    #[default]
    #[n(0)]
    Fail,
    /// Another node makes another attempt, which may overlap with what the lost node still does.
    #[n(1)]
    Rerun,
}

/// What is done with a slot while an earlier run of the same job is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Overlap {
    /// It is run beside it.
    #[n(0)]
    Allow,
    /// It is skipped, and recorded.
    #[default]
    #[n(1)]
    Skip,
    /// The earlier run is ended; then it is run.
    #[n(2)]
    Replace,
}

/// Slots in a row that had no run, all for one reason.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Gap {
    /// The first.
    #[n(0)]
    pub first: Slot,
    /// The last; the first again where it is one.
    #[n(1)]
    pub last: Slot,
    /// How many.
    #[n(2)]
    pub count: u64,
    /// Why.
    #[n(3)]
    pub reason: GapReason,
}

/// Why a slot had no run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
pub enum GapReason {
    /// An earlier run was open ([`Overlap::Skip`]).
    #[n(0)]
    Skipped(#[n(0)] RunId),
    /// Nobody could claim it before its deadline: no majority, no eligible node, or none that was awake.
    #[n(1)]
    Missed,
    /// The spec was suspended.
    #[n(2)]
    Suspended,
    /// A later slot was run in its place, by `catchUp: latest`.
    #[n(3)]
    CaughtUp(#[n(0)] Slot),
}
