//! The task that owns the swarm: a connection to each member, and a gossip link on it. Shell.
//!
//! In: commands, the newest members, libp2p's events, ends of its own small tasks. Out: the node's inputs, streams to those who
//! accept them. Its small tasks (a look-up, a greeting, a link's reader or writer) stand in one `JoinSet` and end with it.
//!
//! Members and dialling stand here, connections and links in [`links`]. A *link* is the gossip stream that this node opened to a member, once the member has greeted it. Whatever is wrong
//! with a link, its connection is closed, and all begins anew: there is one way to recover, and it is used daily.

mod links;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::TransportError as DialFailure;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{PeerId, Swarm};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::ids::NodeKey;
use crate::node::engine::effect::Peer;
use crate::node::engine::input::{Input, NetworkEvent};
use crate::node::identity::Identity;

use super::address::{multiaddr, node_key, peer_id, resolve, root_cause};
use super::counters::{Tally, count};
use super::dial::{Dial, HEAD_START};
use super::frames::{ReadEnd, Unread, Unwelcome};
use super::gate::{Arrival, Gate};
use super::greeting::{Life, SignOfLife};
use super::handler::OpenRequest;
use super::incoming::Acceptors;
use super::rest::Rest;
use super::slots::Slots;
use super::{AddressFailure, Notices, OpenError, Outboxes, Protocol, Stream};

/// How many streams may wait for a connection to one member. They wait for one dial at most; more of them means that somebody
/// opens streams in a loop.
const WAITING_MAX: usize = 64;

/// How many connections one member may hold: two where both dialled at the same moment, and as many that hang in a network which was
/// cut and healed.
pub const CONNECTIONS_OF_ONE_MAX: usize = 4;

/// Longest sleep without anything due.
const REST: Duration = Duration::from_secs(60);

/// What others ask of the task.
#[derive(Debug)]
pub(super) enum Command {
    Open { to: NodeKey, protocol: Protocol, reply: oneshot::Sender<Result<Stream, OpenError>> },
    Stop { done: oneshot::Sender<()> },
}

/// What the task is made of.
pub(super) struct Ends {
    pub(super) identity: Identity,
    /// This process.
    pub(super) life: Life,
    pub(super) swarm: Swarm<Gate>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) members: watch::Receiver<Vec<Peer>>,
    /// None for a transport that opens no gossip.
    pub(super) inputs: Option<mpsc::Sender<Input>>,
    pub(super) acceptors: Arc<Acceptors>,
    pub(super) outboxes: Outboxes,
    pub(super) notices: watch::Sender<Notices>,
    pub(super) tally: Arc<Tally>,
}

pub(super) struct Mesh {
    ends: Ends,
    members: BTreeMap<NodeKey, Member>,
    /// Connected and broken members that the engine has not yet been told of.
    news: VecDeque<NetworkEvent>,
    /// The one reader of each member's link to this node, with its connection.
    readers: BTreeMap<NodeKey, (ConnectionId, AbortHandle)>,
    tasks: JoinSet<Done>,
    rest: Arc<Rest>,
}

#[derive(Debug)]
struct Member {
    peer: PeerId,
    addresses: Vec<String>,
    dial: Dial,
    /// Each with the process that speaks on it, once it has said which.
    connections: BTreeMap<ConnectionId, Option<Life>>,
    link: Link,
    trial: Option<links::Trial>,
    /// How many streams it may open here, and this node there.
    slots_in: Slots,
    slots_out: Slots,
    /// Whether the engine was last told that it is connected.
    connected: bool,
    waiting: Vec<OpenRequest>,
}

#[derive(Debug, PartialEq, Eq)]
enum Link {
    None,
    Greeting(ConnectionId),
    Up(ConnectionId),
}

/// How long a removed member's connection may stay for the last words to it: some round trips between continents.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Why a member does not take the gossip of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    /// It speaks a newer version of the protocol.
    Newer,
    /// It seems to take this node for a stranger.
    Stranger,
}

/// How one of the small tasks ended.
enum Done {
    Resolved {
        key: NodeKey,
        found: Vec<(String, SocketAddr)>,
        failures: Vec<AddressFailure>,
    },
    Greeted {
        key: NodeKey,
        connection: ConnectionId,
        greeted: Result<(Stream, Life), Unwelcome>,
        refused: Option<Refused>,
    },
    Heard {
        key: NodeKey,
        connection: ConnectionId,
        stream: Stream,
        hello: Result<Life, Unread>,
    },
    Tried {
        key: NodeKey,
        connection: ConnectionId,
        sign: Option<SignOfLife>,
    },
    TurnedAway {
        key: NodeKey,
        connection: ConnectionId,
    },
    Served,
    /// The last words to one who is no member any more have had their time.
    Farewell {
        key: NodeKey,
    },
    Written {
        key: NodeKey,
        connection: ConnectionId,
        cause: String,
    },
    Read {
        key: NodeKey,
        connection: ConnectionId,
        end: ReadEnd,
    },
}

enum Happened {
    Command(Option<Command>),
    Members(Vec<Peer>),
    Swarm(SwarmEvent<Arrival>),
    Done(Result<Done, JoinError>),
    Told,
    Time,
}

impl Mesh {
    pub(super) fn new(ends: Ends) -> Self {
        let (members, news, readers) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Self { ends, members, news, readers, tasks: JoinSet::new(), rest: Arc::default() }
    }

    /// Runs until it is told to stop, or nobody is left who could tell it.
    pub(super) async fn run(mut self) {
        let stopped = loop {
            match self.next().await {
                Happened::Command(Some(Command::Open { to, protocol, reply })) => self.open(to, protocol, reply),
                Happened::Command(Some(Command::Stop { done })) => break Some(done),
                Happened::Command(None) => break None,
                Happened::Members(members) => self.set_members(members),
                Happened::Swarm(event) => self.on_swarm(event),
                Happened::Done(Ok(done)) => self.on_done(done),
                Happened::Done(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Happened::Done(Err(_)) => {} // A reader that was replaced.
                Happened::Told => {}
                Happened::Time => self.on_time(),
            }
            self.dial_what_is_due();
        };
        self.ends.acceptors.clear();
        self.outboxes().clear();
        self.tasks.shutdown().await;
        drop(self);
        if let Some(done) = stopped {
            // Whoever asked may have gone away.
            let _ = done.send(());
        }
    }

    async fn next(&mut self) -> Happened {
        let deadline = self.deadline();
        let Ends { swarm, commands, members, inputs, .. } = &mut self.ends;
        let news = &mut self.news;
        let tell = async {
            match inputs {
                Some(inputs) if !news.is_empty() => inputs.reserve().await.ok(),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => Happened::Command(command),
            Ok(()) = members.changed() => Happened::Members(members.borrow_and_update().clone()),
            event = swarm.select_next_some() => Happened::Swarm(event),
            Some(done) = self.tasks.join_next() => Happened::Done(done),
            permit = tell => {
                // Without a permit the engine is gone, and nobody wants to know.
                if let (Some(permit), Some(event)) = (permit, self.news.pop_front()) {
                    permit.send(Input::Network(event));
                }
                Happened::Told
            }
            () = sleep_until(deadline) => Happened::Time,
        }
    }

    fn deadline(&self) -> Instant {
        let dials = self.members.values().filter_map(|member| member.dial.deadline());
        let strangers = self.ends.swarm.behaviour().deadline();
        dials.chain(strangers).min().unwrap_or_else(|| Instant::now() + REST)
    }

    fn on_time(&mut self) {
        for connection in self.ends.swarm.behaviour_mut().overdue(Instant::now()) {
            self.ends.swarm.close_connection(connection);
        }
    }

    fn outboxes(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeKey, mpsc::Sender<Vec<u8>>>> {
        self.ends.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Members come and go.
impl Mesh {
    fn set_members(&mut self, members: Vec<Peer>) {
        let now = Instant::now();
        let wanted: BTreeMap<NodeKey, (PeerId, Vec<String>)> = members
            .into_iter()
            .filter(|peer| peer.key != self.ends.identity.key())
            .filter_map(|peer| Some((peer.key, (peer_id(&peer.key)?, peer.addresses))))
            .collect();

        self.rest.set_members(wanted.len());
        let gone: Vec<NodeKey> = self.members.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let peers = wanted.values().map(|(peer, _)| *peer).collect();
        let promoted = self.ends.swarm.behaviour_mut().set_members(peers);
        for key in gone {
            self.remove(key);
        }
        for (key, (peer, addresses)) in wanted {
            match self.members.get_mut(&key) {
                Some(member) if member.addresses != addresses => {
                    member.addresses = addresses;
                    if member.connections.is_empty() {
                        member.dial.hurry(now);
                    }
                }
                Some(_) => {}
                None => {
                    let first = if self.ends.identity.key() < key { now } else { now + HEAD_START };
                    self.members.insert(key, Member::new(peer, addresses, Dial::new(first)));
                }
            }
        }
        for (connection, peer) in promoted {
            self.on_established(peer, connection);
        }
    }

    /// Nothing more is taken from it, and whatever was under way with it fails. What waits to be said to it is still said: that it
    /// was removed is among it.
    fn remove(&mut self, key: NodeKey) {
        let Some(member) = self.members.remove(&key) else { return };
        let linked = self.outboxes().remove(&key).is_some();
        self.ends.notices.send_if_modified(|notices| notices.newer.remove(&key));
        if let Some((_, reader)) = self.readers.remove(&key) {
            reader.abort();
        }
        for request in member.waiting {
            let _ = request.reply.send(Err(OpenError::NotMember(key)));
        }
        if linked {
            self.tasks.spawn(async move {
                sleep(FAREWELL_MAX).await;
                Done::Farewell { key }
            });
        } else {
            // An error says that there was no connection.
            let _ = self.ends.swarm.disconnect_peer_id(member.peer);
        }
    }

    fn open(&mut self, to: NodeKey, protocol: Protocol, reply: oneshot::Sender<Result<Stream, OpenError>>) {
        // Whoever names members and then opens a stream to one of them means it in that order.
        if self.ends.members.has_changed().unwrap_or(false) {
            let members = self.ends.members.borrow_and_update().clone();
            self.set_members(members);
        }
        let Some(member) = self.members.get_mut(&to) else {
            let _ = reply.send(Err(OpenError::NotMember(to)));
            return;
        };
        let Some(slot) = member.slots_out.take(protocol) else {
            let _ = reply.send(Err(OpenError::Crowded));
            return;
        };
        let request = OpenRequest { protocol, slot: Some(slot), reply };
        match member.best_connection() {
            Some(connection) => self.ends.swarm.behaviour_mut().open(member.peer, connection, request),
            None if member.waiting.len() >= WAITING_MAX => {
                let _ = request.reply.send(Err(OpenError::Crowded));
            }
            None => {
                member.waiting.push(request);
                member.dial.hurry(Instant::now());
            }
        }
    }
}

/// Dialling.
impl Mesh {
    fn dial_what_is_due(&mut self) {
        let now = Instant::now();
        for (key, member) in &mut self.members {
            if !member.connections.is_empty() {
                continue;
            }
            if member.dial.begin(now) {
                let (key, addresses) = (*key, member.addresses.clone());
                self.tasks.spawn(async move {
                    let (found, failures) = resolve(&addresses).await;
                    Done::Resolved { key, found, failures }
                });
            }
            while let Some((name, address)) = member.dial.next_address(now) {
                let options = DialOpts::peer_id(member.peer)
                    .condition(PeerCondition::Always)
                    .addresses(vec![multiaddr(address)])
                    // The listening port is for those who dial us.
                    .allocate_new_port()
                    .build();
                let connection = options.connection_id();
                member.dial.dialling(connection, name);
                if let Err(error) = self.ends.swarm.dial(options) {
                    member.dial.failed(connection, dial_cause(&error), false);
                }
            }
            member.give_up_if_exhausted(*key, now);
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, peer: PeerId, error: &DialError) {
        let impostor = matches!(error, DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. });
        if impostor {
            count(&self.ends.tally.impostors);
        }
        if let Some((_, member)) = self.member_of(peer) {
            member.dial.failed(connection, dial_cause(error), impostor);
        }
    }

    fn member_of(&mut self, peer: PeerId) -> Option<(NodeKey, &mut Member)> {
        let key = node_key(&peer)?;
        Some((key, self.members.get_mut(&key)?))
    }
}

impl Member {
    fn new(peer: PeerId, addresses: Vec<String>, dial: Dial) -> Self {
        Self {
            peer,
            addresses,
            dial,
            connections: BTreeMap::new(),
            link: Link::None,
            trial: None,
            slots_in: Slots::default(),
            slots_out: Slots::default(),
            connected: false,
            waiting: Vec::new(),
        }
    }

    /// The one that is known to work, else the newest.
    fn best_connection(&self) -> Option<ConnectionId> {
        match self.link {
            Link::Up(connection) if self.connections.contains_key(&connection) => Some(connection),
            _ => self.connections.keys().last().copied(),
        }
    }

    fn give_up_if_exhausted(&mut self, key: NodeKey, now: Instant) {
        let Some(failures) = self.dial.exhausted(now, chance()) else { return };
        tracing::debug!(peer = %key.short(), ?failures, "cannot be reached");
        for request in self.waiting.drain(..) {
            let failures = failures.clone();
            let _ = request.reply.send(Err(OpenError::Unreachable { key, failures }));
        }
    }
}

/// What to tell people of a failed dial to one address.
fn dial_cause(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, .. } => match node_key(obtained) {
            Some(other) => format!("another node answers there ({})", other.short()),
            None => "another node answers there".to_owned(),
        },
        DialError::LocalPeerId { .. } => "this node itself answers there".to_owned(),
        DialError::Transport(failures) => match failures.first() {
            Some((_, DialFailure::Other(cause))) => root_cause(cause),
            Some((_, DialFailure::MultiaddrNotSupported(_))) => "this is no address to dial".to_owned(),
            None => "no answer".to_owned(),
        },
        other => root_cause(other),
    }
}

/// Any number, for the jitter of pauses. Without a source of randomness the pauses are just not spread.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(0)
}
