//! The one place that knows a socket: messages and streams between nodes. Shell.
//!
//! One libp2p swarm over TCP, noise and yamux on one port. Both ends of every connection are proven by their ed25519 keys before
//! a byte of narun's passes. Whoever is not a member may open one stream, `/narun/join/1`, for ten seconds, and is told
//! nothing: no name, no version, no cluster.
//!
//! One task ([`mesh`]) owns the swarm, the members and their connections; everything else asks it through channels. It keeps a
//! connection to each member, dialling again with growing pauses, and on it one gossip stream in each direction. A
//! connection counts as *connected* only when the member has greeted us on that stream: the dialling side of a
//! handshake hears of it before the other side has made up its mind.
//!
//! It never decides who is a member: [`Network::members`](crate::node::shells::Network::members) says so, and everybody else is cut at once.
//!
//! What it holds against whom: addresses may begin so many connections (`origin`), strangers stay for so long (`gate`), members
//! send so much (`pace`), hold so many connections (`mesh`) and streams (`slots`); who breaks a limit is cut, counted (`counters`) and
//! barred for a while (`conduct`). Of two processes with one key, the second is refused (`greeting`).

mod address;
mod conduct;
mod counters;
mod dial;
mod frames;
mod gate;
mod greeting;
mod handler;
mod incoming;
mod mesh;
mod origin;
mod pace;
mod rate;
mod rest;
mod slots;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::ids::NodeKey;
use crate::node::engine::effect::Peer;
use crate::node::engine::input::Input;
use crate::node::identity::Identity;

pub use address::{ADDRESSES_MAX, AddressFailure};
pub use conduct::{BAR_MAX, BAR_MIN, FORGIVEN_AFTER};
pub use counters::Counters;
pub(in crate::gossip) use counters::DoorFault;
pub use dial::{PAUSE_MAX, PAUSE_MIN};
pub use frames::FRAME_LEN_MAX;
pub use gate::{HANDSHAKES_MAX, STRANGER_STAY_MAX, STRANGERS_MAX};
pub use greeting::SIGN_OF_LIFE_MAX;
#[cfg(test)]
pub(crate) use greeting::samples as greeting_samples;
pub(crate) use greeting::understands as understands_greeting;
pub use incoming::{INCOMING_MAX, Incoming};
pub use mesh::CONNECTIONS_OF_ONE_MAX;
pub use origin::{HANDSHAKES_FROM_ONE, HANDSHAKES_FROM_ONE_MAX, ORIGINS_MAX, STRANGERS_FROM_ONE_MAX};
pub use pace::{BYTES, MESSAGES, PRESSING_MAX};
pub use rate::Rate;
pub(in crate::gossip) use rate::{Bucket, Buckets};
pub use rest::SILENCE_MIN;
pub use slots::STREAMS_PER_CONNECTION_MAX;
pub use stream::{Stream, StreamReader, StreamWriter};

use counters::{Tally, count};
use greeting::Life;
use incoming::Acceptors;
use mesh::{Command, Mesh};

/// How many messages may wait for one member's connection. A settle of the engine sends a handful to each; a queue of this
/// length means that the member does not read, and gossip repairs what it misses.
pub const OUTBOX_MAX: usize = 256;

/// How long opening a stream may take in all: resolving, dialling several addresses, two handshakes.
pub const OPEN_MAX: Duration = Duration::from_secs(10);

/// How many requests may wait for the task that owns the swarm; it answers each within microseconds.
const COMMANDS_MAX: usize = 64;

/// The major version of all of narun's protocols; one that differs is another language.
pub const PROTOCOL_MAJOR: u32 = 1;

/// What a stream is for. On the wire: `/narun/<channel>/<major>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// Messages between engines: opened by the transport itself, one in each direction.
    Gossip,
    /// The door: the only one that strangers may open.
    Join,
    /// Whether the process at the other end lives and holds its key: answered by the transport itself.
    Life,
    /// Blobs by their hash.
    Blobs,
    /// Output of instances, from the node that keeps it.
    Logs,
    /// What instances use, from the node that runs them.
    Usage,
    /// Requests of one node's API to another's.
    Api,
    /// What nodes ask of the ledger, and what its voters say to one another.
    Ledger,
}

impl Protocol {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gossip => "/narun/gossip/1",
            Self::Join => "/narun/join/1",
            Self::Life => "/narun/life/1",
            Self::Blobs => "/narun/blobs/1",
            Self::Logs => "/narun/logs/1",
            Self::Usage => "/narun/usage/1",
            Self::Api => "/narun/api/1",
            Self::Ledger => "/narun/ledger/1",
        }
    }
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// What a transport needs to start.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Who this node is.
    pub identity: Identity,
    /// Where to listen; with port 0 the system picks one.
    pub listen: SocketAddr,
}

/// Why the transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}{}", hint_of(cause))]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// libp2p cannot be set up.
    #[error("cannot set up the network stack: {0}")]
    Setup(String),
}

fn hint_of(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "\nhint: another program listens there, perhaps another node; choose a free port with `--listen`"
        }
        io::ErrorKind::AddrNotAvailable => "\nhint: no interface of this host has that address",
        _ => "",
    }
}

/// Why a stream could not be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Streams go to members only.
    #[error("node {} is not a member", .0.short())]
    NotMember(NodeKey),
    /// None of its addresses led to it.
    #[error("cannot reach node {}: {}", key.short(), list(failures))]
    Unreachable {
        /// Which node.
        key: NodeKey,
        /// Each address with its cause; empty where no address is known.
        failures: Vec<AddressFailure>,
    },
    /// The node does not speak that protocol, or not that version of it.
    #[error("the node does not speak `{0}`")]
    Unsupported(&'static str),
    /// The node speaks a later major version of narun's protocols, and not this one.
    #[error("the node speaks `{0}`: upgrade narun on this node")]
    Newer(&'static str),
    /// The connection broke, or the other side closed it.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// It took longer than [`OPEN_MAX`].
    #[error("no answer within {} s", OPEN_MAX.as_secs())]
    TimedOut,
    /// As many streams as may are open to that node, or wait for a connection to it.
    #[error("too many streams to that node are open or waiting")]
    Crowded,
    /// The transport was stopped.
    #[error("this node is stopping")]
    Stopped,
}

fn list(failures: &[AddressFailure]) -> String {
    match failures {
        [] => "no address of it is known".to_owned(),
        some => some.iter().map(AddressFailure::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// What whoever runs the node should know of its connections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notices {
    /// Members that speak a newer major version of the protocol than this node, and no other.
    pub newer: BTreeSet<NodeKey>,
    /// Another process with this node's key is connected to a member, and it lives: this one is a copy.
    pub displaced: Option<Displaced>,
}

/// Who refused this process as a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Displaced {
    /// The member that refused it, having asked the other process.
    pub by: NodeKey,
    /// Where that member reaches the other process.
    pub addresses: Vec<String>,
}

/// The door to the network; cheap to clone. The network goes down with [`Transport::stop`], or with the last clone.
#[derive(Clone, Debug)]
pub struct Transport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listen: SocketAddr,
    commands: mpsc::Sender<Command>,
    members: watch::Sender<Vec<Peer>>,
    acceptors: Arc<Acceptors>,
    outboxes: Outboxes,
    notices: watch::Receiver<Notices>,
    tally: Arc<Tally>,
}

/// The queues to connected members. Written by the mesh alone when a link comes or goes; locked for a look-up.
type Outboxes = Arc<Mutex<BTreeMap<NodeKey, mpsc::Sender<Vec<u8>>>>>;

impl Transport {
    /// Listens, and reports to `inputs` what happens. There are no members yet: nobody is let in, and nobody dialled.
    pub async fn start(config: TransportConfig, inputs: mpsc::Sender<Input>) -> Result<Self, TransportError> {
        Self::begin(&config.identity, Some(config.listen), Some(inputs)).await
    }

    /// A transport that only dials, and opens no gossip: for a stranger at another node's door.
    pub async fn outward(identity: &Identity) -> Result<Self, TransportError> {
        Self::begin(identity, None, None).await
    }

    async fn begin(
        identity: &Identity,
        listen: Option<SocketAddr>,
        inputs: Option<mpsc::Sender<Input>>,
    ) -> Result<Self, TransportError> {
        let tally = Arc::new(Tally::default());
        let acceptors = Arc::new(Acceptors::default());
        let outboxes = Outboxes::default();
        let (commands, commands_taken) = mpsc::channel(COMMANDS_MAX);
        let (members, members_seen) = watch::channel(Vec::new());
        let (notices, notices_seen) = watch::channel(Notices::default());
        let life = Life::draw().map_err(|error| TransportError::Setup(error.to_string()))?;
        let mut swarm = gate::swarm(identity, acceptors.clone(), tally.clone())?;
        let listen = match listen {
            Some(address) => gate::listen(&mut swarm, address).await?,
            None => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let mesh = Mesh::new(mesh::Ends {
            identity: identity.clone(),
            life,
            swarm,
            commands: commands_taken,
            members: members_seen,
            inputs,
            acceptors: acceptors.clone(),
            outboxes: outboxes.clone(),
            notices,
            tally: tally.clone(),
        });
        tokio::spawn(mesh.run());
        let notices = notices_seen;
        Ok(Self { shared: Arc::new(Shared { listen, commands, members, acceptors, outboxes, notices, tally }) })
    }

    /// Where this node listens, with the actual port.
    pub fn listen_address(&self) -> SocketAddr {
        self.shared.listen
    }

    /// The end that the runtime sends through.
    pub fn network(&self) -> TransportSender {
        TransportSender { shared: self.shared.clone() }
    }

    /// From now on these are the members; see [`Network::members`](crate::node::shells::Network::members).
    pub fn set_members(&self, members: Vec<Peer>) {
        self.shared.members.send_replace(members);
    }

    /// Opens a stream to a member, dialling it where there is no connection. Fails within [`OPEN_MAX`].
    pub async fn open(&self, to: NodeKey, protocol: Protocol) -> Result<Stream, OpenError> {
        let opening = async {
            let (reply, answer) = oneshot::channel();
            self.shared.commands.send(Command::Open { to, protocol, reply }).await.map_err(|_| OpenError::Stopped)?;
            answer.await.unwrap_or_else(|_| Err(OpenError::Closed("it broke while the stream was opened".to_owned())))
        };
        timeout(OPEN_MAX, opening).await.unwrap_or(Err(OpenError::TimedOut))
    }

    /// Takes the streams of `protocol` that members open, from now on and in place of whoever took them before. Without a taker
    /// the protocol is not offered.
    ///
    /// # Panics
    /// For [`Protocol::Gossip`] and [`Protocol::Life`], which the transport serves itself.
    pub fn accept(&self, protocol: Protocol) -> Incoming {
        let own = matches!(protocol, Protocol::Gossip | Protocol::Life);
        assert!(!own, "streams of {protocol:?} are the transport's own");
        self.shared.acceptors.register(protocol)
    }

    /// Takes the streams at the door: of strangers, one each, and of members whose welcome was lost and who ask again.
    pub fn door(&self) -> Incoming {
        self.accept(Protocol::Join)
    }

    /// Takes the links that members open to a transport that only dials, and leaves them without an answer while the value lives: a
    /// member whose link is refused hangs up.
    pub(super) fn leave_ungreeted(&self) -> Incoming {
        self.shared.acceptors.register(Protocol::Gossip)
    }

    /// What was refused, dropped or lost so far.
    pub fn counters(&self) -> Counters {
        self.shared.tally.read()
    }

    /// What is known of its connections now.
    pub fn notices(&self) -> Notices {
        self.shared.notices.borrow().clone()
    }

    /// Waits until this process is refused as a copy; for ever, if it never is.
    pub async fn displaced(&self) -> Displaced {
        let mut notices = self.shared.notices.clone();
        loop {
            if let Some(displaced) = &notices.borrow_and_update().displaced {
                return displaced.clone();
            }
            if notices.changed().await.is_err() {
                // Stopped: nobody refuses it any more.
                return std::future::pending().await;
            }
        }
    }

    pub(in crate::gossip) fn count_at_door(&self, fault: DoorFault) {
        count(self.shared.tally.of_door(fault));
    }

    /// Closes all connections and the port, and returns when that is done.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.shared.commands.send(Command::Stop { done }).await.is_ok() {
            // The sender is dropped without a word when the task ends another way: stopped as well.
            let _ = stopped.await;
        }
    }
}

/// Sends the engine's messages.
#[derive(Clone, Debug)]
pub struct TransportSender {
    shared: Arc<Shared>,
}

impl TransportSender {
    /// See [`Network::send`](crate::node::shells::Network::send).
    pub fn send(&mut self, to: NodeKey, bytes: Vec<u8>) {
        let tally = &self.shared.tally;
        if bytes.len() > FRAME_LEN_MAX {
            tracing::error!(peer = %to.short(), length = bytes.len(), "message longer than a frame: dropped");
            return count(&tally.messages_oversized);
        }
        let outboxes = self.shared.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        match outboxes.get(&to).map(|outbox| outbox.try_send(bytes)) {
            Some(Ok(())) => {}
            Some(Err(mpsc::error::TrySendError::Full(_))) => count(&tally.messages_overflowed),
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => count(&tally.messages_unconnected),
        }
    }

    /// See [`Network::members`](crate::node::shells::Network::members).
    pub fn members(&mut self, members: Vec<Peer>) {
        self.shared.members.send_replace(members);
    }
}

#[cfg(test)]
mod tests;
