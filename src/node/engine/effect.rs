//! All that a node can do to the world. Pure.
//!
//! A closed enum again, and beside it the [`Turn`], which makes *persist, then act* a type: gated effects can only be taken
//! out of a [`Pending`] by showing the proof, made by the disk alone, that its changes are durable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::crdt::admission::Signed;
use crate::crdt::trust::Gone;
use crate::exec::plan::LaunchPlan;
use crate::ids::{BlobHash, NodeKey, RunId};
use crate::ledger::office::Wants;
use crate::ledger::question::Question;
use crate::ledger::voters::Candidate;
use crate::time::Mono;

use super::view::OwnRun;

/// One thing to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send a message to a member; it may be lost.
    Send {
        /// Whom to.
        to: NodeKey,
        /// The encoded message.
        bytes: Vec<u8>,
    },
    /// These are all the members: let their connections in, keep connections to them, refuse and cut everybody else.
    Members(Vec<Arc<Peer>>),
    /// Answer the request of this number.
    Reply {
        /// The request's number.
        id: u64,
        /// The answer.
        response: Result<Response, Refusal>,
    },
    /// Start a process.
    Launch(Box<LaunchPlan>),
    /// Send a signal to the first process of a run.
    Signal {
        /// Which run.
        run: RunId,
        /// The signal's number, signal(7).
        signal: i32,
    },
    /// End every process of a run at once (SIGKILL to the whole tree).
    Kill {
        /// Which run.
        run: RunId,
    },
    /// The exit of this run is durably known: the keeper may forget it.
    Acknowledge {
        /// Which run.
        run: RunId,
    },
    /// The lease of a run goes on until then.
    Extend {
        /// Which run.
        run: RunId,
        /// By the boot clock.
        until: Mono,
    },
    /// Fetch a blob from one of these members, or several at once.
    Fetch {
        /// Which blob.
        hash: BlobHash,
        /// Its size in bytes, as the revision says.
        size: u64,
        /// Who holds it, best first.
        from: Vec<NodeKey>,
    },
    /// Make `bin/<hash>` out of a blob that is whole.
    MakeExecutable(BlobHash),
    /// Nothing refers to this blob any more: remove it and its executable.
    Sweep(BlobHash),
    /// Ask the ledger; every question gets one answer, if only that it is not known.
    AskLedger {
        /// Handed back with the answer.
        id: u64,
        /// What.
        question: Question,
    },
    /// Who is wanted for which lease of the ledger, should this node lead it.
    Wants(Arc<Wants>),
    /// All members and how they fare, for the choice of who votes.
    Candidates(Arc<[Candidate]>),
    /// Ask a member, at its door, why it does not let this node in.
    AskStanding(NodeKey),
    /// This node is no member any more, and that is written down: end its instances and itself.
    End(Gone),
}

/// A member as the transport needs it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Peer {
    /// Its key: the only proof of who it is.
    #[n(0)]
    pub key: NodeKey,
    /// Where to dial it, `HOST:PORT`, best first; may be empty for one that was never heard of at an address.
    #[n(1)]
    pub addresses: Vec<String>,
}

/// The answer to a request that was carried out.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// A revision was stored, or nothing had to be changed.
    Revised {
        /// The number of the current revision.
        revision: u32,
        /// False where what was asked for was so already.
        changed: bool,
    },
    /// The service is gone.
    Deleted {
        /// False where there was none.
        existed: bool,
    },
    /// The node's labels are asked for.
    Labelled {
        /// All that it has with them.
        labels: BTreeMap<String, String>,
        /// False where nothing had to be changed.
        changed: bool,
    },
    /// The node is drained, or is not any more.
    NodeSet {
        /// False where it was so already.
        changed: bool,
    },
    /// The ticket stands.
    Ticket(crate::crdt::ticket::Ticket),
    /// The ticket is worthless now.
    Revoked,
    /// The stranger is a member now: what it needs to know.
    Admitted(Box<crate::crdt::admission::Welcome>),
    /// The node is no member any more.
    Removed {
        /// False where it was none before either.
        existed: bool,
    },
    /// This node is no member any more, and another one knows.
    Left,
    /// The statements that show a node how it stands.
    Standing(Vec<Signed>),
    /// What this process knows of its own runs.
    OwnRuns(Vec<OwnRun>),
}

/// Why a request was not carried out; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: names the thing.
    pub message: String,
    /// What to do about it, where people stumble.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(code: RefusalCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

/// The kinds of refusal: stable words of the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalCode {
    /// There is no such thing.
    NotFound,
    /// It clashes with something that is there.
    Conflict,
    /// It is not well-formed, or asks for what cannot be.
    Invalid,
    /// A named limit is reached.
    Limit,
    /// The asker may not.
    NotAllowed,
    /// It was done here, but not confirmed by as many nodes as asked within the time.
    TimedOut,
    /// It cannot be done right now.
    Unavailable,
}

impl RefusalCode {
    /// The word in the API's errors.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Limit => "limit",
            Self::NotAllowed => "not_allowed",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The tables on disk that hold an engine's state. The numbers stand in the disk format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Table {
    /// Single values: boot counter, cluster, own name.
    Meta,
    /// Catalog documents by their key.
    Catalog,
    /// Tombstones that were forgotten, by document key.
    Forgotten,
    /// Roster records by (node, subject).
    Roster,
    /// Tickets that this node made.
    Tickets,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 5] = [Table::Meta, Table::Catalog, Table::Forgotten, Table::Roster, Table::Tickets];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Catalog => "catalog",
            Table::Forgotten => "forgotten",
            Table::Roster => "roster",
            Table::Tickets => "tickets",
        }
    }
}

/// One write to the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Which row.
    pub key: Vec<u8>,
    /// What stands there from now on; none: the row is removed.
    pub value: Option<Vec<u8>>,
}

/// What came out of a batch of inputs.
#[derive(Debug, Default)]
pub struct Turn {
    /// To do at once: nothing here says anything that a crash could make untrue.
    pub now: Vec<Effect>,
    /// To write, and what may be done only after that.
    pub pending: Pending,
}

/// Changes to be made durable, and the effects that wait for it.
#[derive(Debug, Default)]
pub struct Pending {
    changes: Vec<Change>,
    effects: Vec<Effect>,
}

/// Proof that a batch of changes is durable. Only a disk makes one.
#[derive(Debug)]
pub struct Committed(());

impl Committed {
    /// For implementations of [`Disk`](crate::node::shells::Disk) only: calling this *is* the promise.
    pub fn after_sync() -> Self {
        Self(())
    }
}

impl Pending {
    /// Changes with the effects that wait for them.
    pub fn new(changes: Vec<Change>, effects: Vec<Effect>) -> Self {
        Self { changes, effects }
    }

    /// Whether there is nothing to write and nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.effects.is_empty()
    }

    /// The changes, to hand to the disk; a second call gives none.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The effects, once the changes are durable.
    pub fn release(self, _proof: &Committed) -> Vec<Effect> {
        assert!(self.changes.is_empty(), "effects released before their changes were handed to the disk");
        self.effects
    }
}
