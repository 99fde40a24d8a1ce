//! What nodes ask of the ledger, and what it answers: the words of `/narun/ledger/1`. Pure.
//!
//! Any voter takes a question. One that does not lead hands it on to the leader, once; one that does not know the leader says so.

use crate::ids::{NodeKey, RunId};
use crate::time::Wall;

use super::command::{Command, JobKey, LeaseKey, Reply, SessionId};
use super::run::{Gap, Run};
use super::time::Slot;

/// A question.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Question {
    /// Puts a command into the log and answers with what the machine says to it, once it is committed. Only commands that nodes may give
    /// are taken: not [`Command::Grant`], [`Command::Forget`], nor the `Close` of somebody else's session.
    #[n(0)]
    Propose(#[n(0)] Command),
    /// Keeps a session alive. It writes nothing.
    #[n(1)]
    Renew {
        /// Which.
        #[n(0)]
        session: SessionId,
        /// What the asker has: everything that concerns it up to this log index.
        #[n(1)]
        known: u64,
        /// The asker's wall clock.
        #[n(2)]
        wall: Wall,
    },
    /// What became of a job, newest first. Any voter answers from what it has applied.
    #[n(2)]
    History {
        /// Which.
        #[n(0)]
        job: JobKey,
    },
    /// Who votes, who leads. Any voter answers.
    #[n(3)]
    Standing,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Answer {
    /// The command is in the log and was applied.
    #[n(0)]
    Applied {
        /// At which log index.
        #[n(0)]
        index: u64,
        /// What the machine said.
        #[n(1)]
        reply: Reply,
    },
    /// The session goes on.
    #[n(1)]
    Renewed(#[n(0)] Concerns),
    /// The session is over.
    #[n(2)]
    NoSession,
    /// See [`Question::History`].
    #[n(3)]
    History(#[n(0)] Option<Account>),
    /// See [`Question::Standing`].
    #[n(4)]
    Standing(#[n(0)] Standing),
    /// This voter does not lead, and did not hand the question on; nothing was done.
    #[n(5)]
    NotLeader {
        /// Who leads, as far as it knows.
        #[n(0)]
        leader: Option<NodeKey>,
    },
    /// A claim of a slot that is not due yet by the leader's clock: one of the two clocks is wrong. Nothing was done.
    #[n(6)]
    Early {
        /// The leader's wall clock.
        #[n(0)]
        wall: Wall,
    },
    /// The command may have been done or not: it was given to the log, and what became of it is not known in time.
    #[n(7)]
    Unknown,
    /// Nobody may ask that; nothing was done.
    #[n(8)]
    NotAllowed,
}

/// What changed for one node between two log indices.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Concerns {
    /// All that was applied up to here is in it.
    #[n(0)]
    pub upto: u64,
    /// True: this is all there is, and what is not named here is not the node's concern any more.
    #[n(1)]
    pub is_whole: bool,
    /// Jobs whose lease it holds or whose runs it has, that changed.
    #[n(2)]
    pub jobs: Vec<Concern>,
    /// Singletons that it no longer holds, and jobs that are no longer its concern. A job whose lease it has lost while a run of it is
    /// its own stays in [`Concerns::jobs`], with `is_held` false.
    #[n(3)]
    pub gone: Vec<LeaseKey>,
    /// Singletons that it holds now.
    #[n(4)]
    pub singletons: Vec<LeaseKey>,
}

/// What one node has to know of one job.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Concern {
    /// Which.
    #[n(0)]
    pub job: JobKey,
    /// Whether the node holds its lease.
    #[n(1)]
    pub is_held: bool,
    /// The last slot that was decided.
    #[n(2)]
    pub cursor: Slot,
    /// Runs that are open, on whatever node.
    #[n(3)]
    pub open: Vec<Run>,
    /// Requests for runs that nobody has claimed, oldest first, and when they were made.
    #[n(4)]
    pub asked: Vec<Asked>,
}

/// A request for a run.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Asked {
    /// Its number.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub request: [u8; 16],
    /// When it was made.
    #[n(1)]
    pub at: Wall,
}

impl Answer {
    /// Whether it comes from a voter that hears no leader: others may know more.
    pub fn is_old(&self) -> bool {
        match self {
            Self::History(Some(account)) => account.as_of.is_some(),
            Self::Standing(standing) => standing.leader.is_none(),
            _ => false,
        }
    }

    /// Up to when, or up to which log index, it is known; for answers to one question, the greater the newer.
    pub fn knows_up_to(&self) -> u64 {
        match self {
            Self::History(Some(account)) => account.as_of.map_or(u64::MAX, |wall| wall.0),
            Self::Standing(standing) => standing.applied,
            _ => 0,
        }
    }
}

/// What became of a job.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Account {
    /// The last slot that was decided.
    #[n(0)]
    pub cursor: Slot,
    /// Who holds its lease.
    #[n(1)]
    pub holder: Option<NodeKey>,
    /// Open runs, then ended ones, newest first.
    #[n(2)]
    pub runs: Vec<Run>,
    /// Slots without a run, newest first.
    #[n(3)]
    pub gaps: Vec<Gap>,
    /// The newest run that narun knows to have ended well.
    #[n(4)]
    pub last_success: Option<RunId>,
    /// Where the voter that answers hears no leader: up to which moment, by the clocks of that time, all that was decided is in this.
    /// None: it is as the cluster has it now.
    #[n(5)]
    pub as_of: Option<Wall>,
    /// Requests for runs that nobody has claimed, oldest first.
    #[cbor(n(6), default)]
    pub asked: Vec<Asked>,
}

/// Who votes and who leads, as one voter sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Standing {
    /// The voters.
    #[n(0)]
    pub voters: Vec<NodeKey>,
    /// Who learns to become one.
    #[n(1)]
    pub learners: Vec<NodeKey>,
    /// Who leads.
    #[n(2)]
    pub leader: Option<NodeKey>,
    /// The Raft term.
    #[n(3)]
    pub term: u64,
    /// The last log index that was applied here.
    #[n(4)]
    pub applied: u64,
}
