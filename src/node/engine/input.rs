//! All that can happen to a node. Pure.
//!
//! A closed enum: something new that can happen is a new variant, and every match sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::blobs::image::Image;
use crate::crdt::admission::{Role, Signed};
use crate::exec::plan::ProcessEvent;
use crate::ids::{BlobHash, NodeKey, NodeName, ServiceName};
use crate::ledger::question::{Answer, Standing};
use crate::spec::ServiceSpec;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The deadline that the engine asked for has come, or the wall clock was stepped.
    Tick,
    /// From the network.
    Network(NetworkEvent),
    /// From the keeper.
    Process(ProcessEvent),
    /// From the blob store.
    Blob(BlobEvent),
    /// From the ledger.
    Ledger(LedgerEvent),
    /// A request that changes something; its answer is an [`Effect::Reply`](super::effect::Effect::Reply) with the same number.
    Request {
        /// Chosen by the runtime, unique while the node runs.
        id: u64,
        /// What is asked for.
        request: Request,
    },
}

/// What the transport reports. Only members' messages come this way.
#[derive(Clone, Debug)]
pub enum NetworkEvent {
    /// A connection to this member stands and can carry messages.
    Connected(NodeKey),
    /// The last connection to this member broke. Evidence, not proof, that it is gone.
    Broken(NodeKey),
    /// This member's node answered, and treats this one as a stranger.
    ShutOut(NodeKey),
    /// What a member said at its door on how this node stands: statements, not yet checked.
    Standing(Vec<Signed>),
    /// A message of a member, as it came off the wire.
    Message {
        /// Proven by the connection.
        from: NodeKey,
        /// Not yet decoded: it may be anything.
        bytes: Vec<u8>,
    },
}

/// What the blob store reports.
#[derive(Clone, Debug)]
pub enum BlobEvent {
    /// All blobs that are whole on this node's disk, at start.
    Holding(Vec<(BlobHash, u64)>),
    /// This blob is whole, verified and durable here: imported or fetched. Size in bytes.
    Stored(BlobHash, u64),
    /// A fetch gave up, with the reason; what was verified is kept for the next try.
    FetchFailed(BlobHash, String),
    /// The blob's executable is ready to run at `bin/<hash>`.
    Executable(BlobHash),
    /// The executable could not be made, with the reason.
    ExecutableFailed(BlobHash, String),
}

/// What the ledger reports.
#[derive(Clone, Debug)]
pub enum LedgerEvent {
    /// The answer to the question of this number.
    Answered {
        /// The question's number.
        id: u64,
        /// What was said.
        answer: Answer,
    },
    /// Who votes and who leads, as a node in the group sees it: this one, or the one that was asked.
    Standing(Standing),
}

/// A request that changes something. Reading goes to the [`View`](super::view::View) instead, but for what is read too seldom to be shown.
#[derive(Clone, Debug)]
pub enum Request {
    /// Store a new revision of a service.
    Deploy(Box<Deploy>),
    /// Forget a service, and stop its instances.
    Delete {
        /// Which one.
        service: ServiceName,
    },
    /// Store a revision with other numbers of instances.
    Scale {
        /// Which one.
        service: ServiceName,
        /// On which node; needed where the specification names several.
        node: Option<NodeName>,
        /// How many.
        replicas: u32,
    },
    /// Stop all instances and keep the specification.
    Stop {
        /// Which one.
        service: ServiceName,
    },
    /// Undo a stop; also ends a crash loop's pause.
    Start {
        /// Which one.
        service: ServiceName,
    },
    /// Replace every instance, one index at a time.
    Restart {
        /// Which one.
        service: ServiceName,
    },
    /// Fire no slot of a cron spec for now, or fire them again; that also undoes a stop.
    Suspend {
        /// Which one.
        service: ServiceName,
        /// Whether from now on no slot is fired.
        suspended: bool,
    },
    /// Set and remove labels of a node, which may be down.
    LabelNode {
        /// Which one.
        node: NodeName,
        /// Values by key.
        set: BTreeMap<String, String>,
        /// Keys.
        remove: BTreeSet<String>,
    },
    /// Give a node nothing new, and move away what it runs.
    DrainNode {
        /// Which one.
        node: NodeName,
    },
    /// Undo that.
    UncordonNode {
        /// Which one.
        node: NodeName,
    },
    /// Make a ticket that admits new members.
    CreateTicket {
        /// How long it is good for.
        ttl: Duration,
        /// How many members it admits.
        uses: u32,
        /// What they are there for.
        role: Role,
        /// The secret, drawn by the runtime from the system's source: the engine's own randomness can be foretold.
        secret: [u8; 32],
    },
    /// Make a ticket of this node worthless.
    RevokeTicket {
        /// The identifier that `ticket list` shows.
        ticket: String,
    },
    /// A stranger at the door asks to become a member, with a ticket's secret.
    Admit(Admit),
    /// A stranger at the door asks why it is one.
    Standing {
        /// Proven by the connection.
        key: NodeKey,
    },
    /// Take a member's membership away, for good.
    RemoveNode {
        /// Which one.
        node: NodeName,
    },
    /// Take this node out of the cluster, for good.
    Leave,
    /// Tell what this process knows of its own runs of a cron spec. It changes with every run, and is wanted only while no voter of the
    /// ledger can be reached.
    OwnRuns {
        /// Which one.
        cron: ServiceName,
    },
}

/// A new revision.
#[derive(Clone, Debug)]
pub struct Deploy {
    /// Checked; `local` not yet resolved.
    pub spec: ServiceSpec,
    /// The binaries; every one is already whole and durable in this node's store.
    pub images: Vec<Image>,
    /// On how many nodes' disks the revision must be before the reply, this one counted; 1 or more.
    pub acks: u32,
    /// How long to wait for those.
    pub acks_timeout: Duration,
    /// Check everything and store nothing.
    pub dry_run: bool,
}

/// Who asks to become a member.
#[derive(Clone, Debug)]
pub struct Admit {
    /// Proven by the connection.
    pub key: NodeKey,
    /// The name that it wants.
    pub name: NodeName,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// What stood in its ticket.
    pub secret: [u8; 32],
}
