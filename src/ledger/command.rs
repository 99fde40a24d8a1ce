//! What stands in the log, and what the machine answers to it. Pure.

use crate::crdt::document::RevisionId;
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::time::Wall;

use super::run::{Fence, Gap, OnNodeLoss, Overlap, Run, RunEnd, Trigger};
use super::time::{LedgerTime, Slot};

/// What a lease is on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
pub enum LeaseKey {
    /// A cron spec: one holder in the cluster or, under `cronScope: node`, one job a node, held by that node.
    #[n(0)]
    Cron(#[n(0)] JobKey),
    /// A service with `singleton: true`.
    #[n(1)]
    Singleton(#[n(0)] ServiceName),
}

/// One series of slots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct JobKey {
    /// The name of the spec; its revisions do not matter.
    #[n(0)]
    pub name: ServiceName,
    /// Under `cronScope: node`, the node.
    #[n(1)]
    pub node: Option<NodeKey>,
}

/// The log index at which a session was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct SessionId(#[n(0)] pub u64);

/// One entry of the log: a command and the leader's time.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Stamped {
    /// The leader's time; the machine takes the greater of this and its own.
    #[n(0)]
    pub at: LedgerTime,
    /// What is to be done.
    #[n(1)]
    pub command: Command,
    /// The leader's wall clock, for people to read: when a run was given up. Nothing is decided by it.
    #[n(2)]
    pub wall: Wall,
}

/// What can be done.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Command {
    /// By a node: it is here. Its earlier session, if it has one of another life, is over with that.
    #[n(0)]
    Open {
        /// Who.
        #[n(0)]
        node: NodeKey,
        /// Drawn anew by each process of the node: the same one asks twice and gets the same session.
        #[n(1)]
        life: u64,
    },
    /// By a node that ends, or by the leader for one that has not renewed it in time: a session is over.
    #[n(1)]
    Close {
        /// Which.
        #[n(0)]
        session: SessionId,
    },
    /// By the leader: a lease goes to a session, whoever held it; without one, nobody holds it from now on. A singleton is only given
    /// while nobody holds it: its holder lets go of it by [`Command::Release`], once its instance has ended, or is lost.
    #[n(2)]
    Grant {
        /// Which lease.
        #[n(0)]
        lease: LeaseKey,
        /// To whom.
        #[n(1)]
        to: Option<SessionId>,
        /// For a job that the ledger does not know, and for one that was retired: slots up to this one are none of its. The moment
        /// at which the spec was deployed or, where a clock says that it will be, this one.
        #[n(2)]
        begin: Slot,
    },
    /// By the holder of a lease: decides slots.
    #[n(3)]
    Decide(#[n(0)] Decide),
    /// By a node: the current attempt of its run was started.
    #[n(4)]
    Started {
        /// Of which job.
        #[n(0)]
        job: JobKey,
        /// Which run.
        #[n(1)]
        run: RunId,
        /// Which attempt.
        #[n(2)]
        fence: Fence,
        /// When.
        #[n(3)]
        at: Wall,
    },
    /// By a node: the current attempt of its run has ended.
    #[n(5)]
    Ended {
        /// Of which job.
        #[n(0)]
        job: JobKey,
        /// Which run.
        #[n(1)]
        run: RunId,
        /// Which attempt.
        #[n(2)]
        fence: Fence,
        /// How.
        #[n(3)]
        end: RunEnd,
        /// Whether another attempt is to follow, as far as [`super::run::Run::attempts_max`] allows: the run stays open then.
        #[n(4)]
        again: bool,
    },
    /// By the node of a run that waits for its next attempt, or by the holder of the lease for a run without a node.
    #[n(6)]
    Attempt {
        /// Of which job.
        #[n(0)]
        job: JobKey,
        /// Which run.
        #[n(1)]
        run: RunId,
        /// The attempt before.
        #[n(2)]
        fence: Fence,
        /// Of whom makes it.
        #[n(3)]
        session: SessionId,
    },
    /// By any node: somebody asks for a run out of turn.
    #[n(7)]
    Ask {
        /// Of which job.
        #[n(0)]
        job: JobKey,
        /// Drawn by the node that took the request: the same one is taken once.
        #[cbor(n(1), with = "minicbor::bytes")]
        request: [u8; 16],
        /// When it was asked for.
        #[n(2)]
        at: Wall,
    },
    /// By the leader: a job was retired 24 hours ago, and is not kept any longer.
    #[n(8)]
    Forget {
        /// Which job.
        #[n(0)]
        job: JobKey,
    },
    /// By the leader, when something is due by the ledger's time alone and nothing else comes: it carries the time.
    #[n(9)]
    Tick,
    /// By the holder of a lease: it does not hold it any more, and nothing of its own runs under it.
    #[n(10)]
    Release {
        /// Which lease.
        #[n(0)]
        lease: LeaseKey,
        /// Whose.
        #[n(1)]
        session: SessionId,
    },
    /// By the leader: the spec of a job was deleted. Its cursor is kept for a while, see [`Command::Forget`].
    #[n(11)]
    Retire {
        /// Which job.
        #[n(0)]
        job: JobKey,
    },
}

/// The holder's word on all slots of a job up to one.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Decide {
    /// Which job.
    #[n(0)]
    pub job: JobKey,
    /// Of whom decides; it has to hold the lease.
    #[n(1)]
    pub session: SessionId,
    /// The cursor that it knows: the last slot that was decided.
    #[n(2)]
    pub cursor: Slot,
    /// Slots after the cursor that get no run, in order.
    #[n(3)]
    pub gaps: Vec<Gap>,
    /// What is run.
    #[n(4)]
    pub claim: Option<Claim>,
    /// Up to here all slots are decided with that: the claim's own, or the last of the gaps. A claim for a request leaves it at the
    /// cursor.
    #[n(5)]
    pub upto: Slot,
}

/// A claim: permission for one run.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Claim {
    /// The run's name, drawn by the claimer.
    #[n(0)]
    pub run: RunId,
    /// What it is for.
    #[n(1)]
    pub trigger: Trigger,
    /// When it was due.
    #[n(2)]
    pub scheduled: Wall,
    /// What is run.
    #[n(3)]
    pub revision: RevisionId,
    /// What is done while an earlier run is open.
    #[n(4)]
    pub overlap: Overlap,
    /// How many attempts there may be, at least 1.
    #[n(5)]
    pub attempts_max: u32,
    /// What is done when the node is lost.
    #[n(6)]
    pub on_node_loss: OnNodeLoss,
    /// How many ended runs and gaps of this job are kept from now on.
    #[n(7)]
    pub history_limit: u32,
}

impl Claim {
    /// The run that it becomes once it is granted.
    pub fn granted(&self, fence: Fence, node: NodeKey, claimed: LedgerTime) -> Run {
        Run {
            id: self.run,
            trigger: self.trigger,
            scheduled: self.scheduled,
            revision: self.revision,
            node: Some(node),
            fence,
            attempt: 1,
            attempts_max: self.attempts_max,
            on_node_loss: self.on_node_loss,
            claimed,
            started: None,
            is_started: false,
            orphaned: None,
            is_replaced: false,
            end: None,
            last_failure: None,
            reruns: 0,
        }
    }
}

/// What the machine answers to a command.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Reply {
    /// It was done; there is nothing to be said.
    #[n(0)]
    Done,
    /// A session is open.
    #[n(1)]
    Opened(#[n(0)] SessionId),
    /// A run, or its next attempt, may be started by whoever asked, under this fence.
    #[n(2)]
    Granted(#[n(0)] Fence),
    /// The slot is skipped, since this run is open; that is recorded. A request goes on waiting.
    #[n(3)]
    Skipped(#[n(0)] RunId),
    /// Nothing was done.
    #[n(4)]
    Refused(#[n(0)] Refused),
}

/// Why nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, minicbor::Encode, minicbor::Decode)]
pub enum Refused {
    /// The session is over.
    #[error("the session is over")]
    #[n(0)]
    NoSession,
    /// Somebody else holds the lease, or nobody.
    #[error("the lease is held by somebody else, or by nobody")]
    #[n(1)]
    NotHolder,
    /// The slots were decided already, up to this one.
    #[error("slots up to {0} are decided")]
    #[n(2)]
    Cursor(#[n(0)] Slot),
    /// There is no such job.
    #[error("the ledger has no such job")]
    #[n(3)]
    NoJob,
    /// There is no such open run, or a later attempt was claimed.
    #[error("the run is over, or a later attempt was claimed")]
    #[n(4)]
    PassedOver,
    /// All attempts were made.
    #[error("all attempts were made")]
    #[n(5)]
    NoAttemptLeft,
    /// The command contradicts itself: a fault of its author.
    #[error("the command contradicts itself")]
    #[n(6)]
    Malformed,
    /// There is no room for more of these; see the machine's limits.
    #[error("the ledger has no room for more of these")]
    #[n(7)]
    Full,
    /// The singleton is held, and its holder has not let go of it.
    #[error("the lease is held, and its holder has not let go of it")]
    #[n(8)]
    Held,
    /// The job was not retired, or too short a while ago, or a run of it is open.
    #[error("the job may not be forgotten yet")]
    #[n(9)]
    Kept,
    /// The current attempt has not ended.
    #[error("the attempt before has not ended")]
    #[n(10)]
    NotEnded,
}
