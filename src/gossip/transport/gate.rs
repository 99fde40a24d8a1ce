//! Who is let in, and which streams pass: narun's own behaviour in libp2p's swarm. Shell.
//!
//! libp2p asks it about every connection once the other side's key is proven. A member is let in. A stranger is let as far as
//! the door: few at once, not for long, one stream. Streams go out and come in through its handlers; `libp2p-stream` would do
//! that, but it drops streams that arrive close together, and cannot tell connections of one peer apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::Endpoint;
use libp2p::core::transport::{PortUse, TransportError as ListenError};
use libp2p::swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, SwarmEvent, ToSwarm};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::time::Instant;

use crate::ids::NodeKey;
use crate::node::identity::Identity;

use super::address::{multiaddr, node_key, tcp_port};
use super::conduct::Conduct;
use super::counters::{Tally, count};
use super::handler::{Arrived, Handler, OpenRequest};
use super::incoming::Acceptors;
use super::origin::{Excess, Origin, Origins};
use super::slots::STREAMS_PER_CONNECTION_MAX;
use super::{Protocol, Stream, TransportError};

/// How many strangers may be connected at once. Joining takes well under a second; half as many, which one address may have, let a
/// whole rack join together.
pub const STRANGERS_MAX: usize = 32;

/// How long a stranger may stay: the time of one join, disk included.
pub const STRANGER_STAY_MAX: Duration = Duration::from_secs(10);

/// How many connections from outside may be in their handshake. All members of the largest mesh (300 nodes) come back at once
/// after a power cut, and those who are refused dial again.
pub const HANDSHAKES_MAX: usize = 256;

/// How long a handshake may take: three round trips, generously for a loaded host.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Connections are closed by the mesh, never for being idle; libp2p wants a number.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// A stream that was let in.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) from: NodeKey,
    pub(super) connection: ConnectionId,
    pub(super) protocol: Protocol,
    pub(super) stream: Stream,
}

#[derive(Debug)]
struct Handshake {
    origin: Option<Origin>,
    begun: Instant,
}

#[derive(Debug)]
struct Stranger {
    peer: PeerId,
    origin: Option<Origin>,
    until: Instant,
    entered: bool,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("too many handshakes are under way")]
    Handshakes,
    #[error("its address began too many handshakes")]
    Hurried,
    #[error("too many strangers are at the door")]
    Strangers,
    #[error("the member broke a limit not long ago")]
    Barred,
    #[error("the node is no member")]
    NotMember,
}

/// The behaviour.
pub(super) struct Gate {
    members: BTreeSet<PeerId>,
    strangers: BTreeMap<ConnectionId, Stranger>,
    handshakes: BTreeMap<ConnectionId, Handshake>,
    /// Where the other end of each connection is.
    came_from: BTreeMap<ConnectionId, Origin>,
    origins: Origins,
    conduct: Conduct,
    outgoing: VecDeque<ToSwarm<Arrival, OpenRequest>>,
    acceptors: Arc<Acceptors>,
    tally: Arc<Tally>,
}

/// A swarm with the gate as its only behaviour.
pub(super) fn swarm(
    identity: &Identity,
    acceptors: Arc<Acceptors>,
    tally: Arc<Tally>,
) -> Result<Swarm<Gate>, TransportError> {
    let setup = |error: &dyn std::error::Error| TransportError::Setup(error.to_string());
    let gate = Gate {
        members: BTreeSet::new(),
        strangers: BTreeMap::new(),
        handshakes: BTreeMap::new(),
        came_from: BTreeMap::new(),
        origins: Origins::new(),
        conduct: Conduct::default(),
        outgoing: VecDeque::new(),
        acceptors,
        tally,
    };
    let builder = SwarmBuilder::with_existing_identity(identity.keypair().clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || {
            let mut streams = yamux::Config::default();
            streams.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
            streams
        })
        .map_err(|error| setup(&error))?;
    let Ok(builder) = builder.with_behaviour(|_| gate);
    Ok(builder
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_MAX)
                // A stream that waits to be negotiated takes up its whole window; one that is being negotiated is read.
                .with_max_negotiating_inbound_streams(STREAMS_PER_CONNECTION_MAX)
        })
        .with_connection_timeout(HANDSHAKE_MAX)
        .build())
}

/// Listens at `address`, and gives back where, with the actual port.
pub(super) async fn listen(swarm: &mut Swarm<Gate>, address: SocketAddr) -> Result<SocketAddr, TransportError> {
    // libp2p binds with SO_REUSEPORT, so that two nodes of one user would share a port and each get half of the connections.
    // A plain socket is refused where anybody listens already.
    drop(TcpListener::bind(address).map_err(|cause| TransportError::Listen { address, cause })?);
    swarm.listen_on(multiaddr(address)).map_err(|error| match error {
        ListenError::Other(cause) => TransportError::Listen { address, cause },
        ListenError::MultiaddrNotSupported(_) => TransportError::Setup(format!("{address} is no TCP address")),
    })?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address: at, .. } => {
                let port = tcp_port(&at).unwrap_or(address.port());
                return Ok(SocketAddr::new(address.ip(), port));
            }
            SwarmEvent::ListenerClosed { reason: Err(cause), .. } | SwarmEvent::ListenerError { error: cause, .. } => {
                return Err(TransportError::Listen { address, cause });
            }
            // Nobody is a member yet: whatever else comes at this moment is a stranger, who will dial again.
            _ => {}
        }
    }
}

impl Gate {
    /// From now on these are the members. Gives back connections of strangers who have become members just now; closing those of
    /// former members is the caller's part.
    pub(super) fn set_members(&mut self, members: BTreeSet<PeerId>) -> Vec<(ConnectionId, PeerId)> {
        self.members = members;
        let members = &self.members;
        let promoted = self.strangers.extract_if(.., |_, stranger| members.contains(&stranger.peer));
        let promoted: Vec<_> = promoted.collect();
        promoted.iter().filter_map(|(_, stranger)| stranger.origin).for_each(|origin| self.origins.leave(origin));
        promoted.into_iter().map(|(connection, stranger)| (connection, stranger.peer)).collect()
    }

    /// A member broke a limit: until when its connections are refused now. Closing those that stand is the caller's part.
    pub(super) fn strike(&mut self, key: NodeKey, now: Instant) -> Instant {
        self.conduct.strike(key, now)
    }

    /// Opens a stream on one connection; where that breaks first, the request is dropped, which its sender notices.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, request: OpenRequest) {
        let handler = NotifyHandler::One(connection);
        self.outgoing.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: request });
    }

    /// When the first stranger has to go.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.strangers.values().map(|stranger| stranger.until).min()
    }

    /// Strangers whose time is over: to be closed by the caller.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<ConnectionId> {
        let overdue: Vec<_> = self.strangers.extract_if(.., |_, stranger| stranger.until <= now).collect();
        for (_, stranger) in &overdue {
            count(&self.tally.strangers_overdue);
            stranger.origin.into_iter().for_each(|origin| self.origins.leave(origin));
        }
        overdue.into_iter().map(|(connection, _)| connection).collect()
    }

    /// Its handshake is over; when it began, if it was under way.
    fn end_handshake(&mut self, connection: ConnectionId) -> Option<Instant> {
        let handshake = self.handshakes.remove(&connection)?;
        handshake.origin.into_iter().for_each(|origin| self.origins.end(origin));
        Some(handshake.begun)
    }

    fn let_stranger_in(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        origin: Option<Origin>,
        now: Instant,
    ) -> Result<(), ConnectionDenied> {
        if self.strangers.len() >= STRANGERS_MAX {
            count(&self.tally.strangers_refused);
            return Err(ConnectionDenied::new(Refused::Strangers));
        }
        if origin.is_some_and(|origin| !self.origins.enter(origin)) {
            count(&self.tally.strangers_crowded);
            return Err(ConnectionDenied::new(Refused::Strangers));
        }
        let until = now + STRANGER_STAY_MAX;
        self.strangers.insert(connection, Stranger { peer, origin, until, entered: false });
        Ok(())
    }

    fn refuse_barred(&self, peer: &PeerId, now: Instant) -> Result<(), ConnectionDenied> {
        if node_key(peer).is_some_and(|key| self.conduct.is_barred(&key, now)) {
            count(&self.tally.members_barred);
            return Err(ConnectionDenied::new(Refused::Barred));
        }
        Ok(())
    }

    /// Whether this stream may pass.
    fn admits(&mut self, peer: &PeerId, connection: ConnectionId, protocol: Protocol) -> bool {
        if self.members.contains(peer) {
            return true;
        }
        match self.strangers.get_mut(&connection) {
            Some(stranger) if protocol == Protocol::Join && !stranger.entered => {
                stranger.entered = true;
                return true;
            }
            Some(_) if protocol == Protocol::Join => count(&self.tally.strangers_insisting),
            // Without an entry: a member until a moment ago, whose connection is being closed.
            Some(_) | None => count(&self.tally.strangers_trespassing),
        }
        false
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = Handler;
    type ToSwarm = Arrival;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.handshakes.len() >= HANDSHAKES_MAX {
            count(&self.tally.handshakes_refused);
            return Err(ConnectionDenied::new(Refused::Handshakes));
        }
        let (begun, origin) = (Instant::now(), Origin::of(remote));
        if let Err(excess) = origin.map_or(Ok(()), |origin| self.origins.begin(origin, begun)) {
            let (counter, refused) = match excess {
                Excess::Hurried => (&self.tally.handshakes_hurried, Refused::Hurried),
                Excess::Crowded => (&self.tally.handshakes_crowded, Refused::Handshakes),
            };
            count(counter);
            return Err(ConnectionDenied::new(refused));
        }
        self.handshakes.insert(connection, Handshake { origin, begun });
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.end_handshake(connection);
        let (now, origin) = (Instant::now(), Origin::of(remote));
        if !self.members.contains(&peer) {
            self.let_stranger_in(connection, peer, origin, now)?;
        } else {
            self.refuse_barred(&peer, now)?;
        }
        if let Some(origin) = origin {
            self.came_from.insert(connection, origin);
        }
        Ok(Handler::new(self.acceptors.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        // It may have ceased to be one while it was dialled.
        if !self.members.contains(&peer) {
            return Err(ConnectionDenied::new(Refused::NotMember));
        }
        // Somebody here may have asked for a stream to it.
        self.refuse_barred(&peer, Instant::now())?;
        if let Some(origin) = Origin::of(address) {
            self.came_from.insert(connection, origin);
        }
        Ok(Handler::new(self.acceptors.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(closed) => {
                self.came_from.remove(&closed.connection_id);
                if let Some(stranger) = self.strangers.remove(&closed.connection_id) {
                    stranger.origin.into_iter().for_each(|origin| self.origins.leave(origin));
                }
            }
            FromSwarm::ListenFailure(failure) => {
                if let Some(begun) = self.end_handshake(failure.connection_id) {
                    // libp2p's own clock begins a little before this one.
                    let slow = begun.elapsed() >= HANDSHAKE_MAX * 9 / 10;
                    count(if slow { &self.tally.handshakes_slow } else { &self.tally.handshakes_failed });
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, arrived: Arrived) {
        let Arrived { protocol, stream } = arrived;
        if !self.admits(&peer, connection, protocol) {
            // Whoever tries the wrong door is no joiner: the connection goes, and with it the stream, unread.
            let connection = libp2p::swarm::CloseConnection::One(connection);
            return self.outgoing.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
        }
        if let Some(from) = node_key(&peer) {
            let stream = stream.coming_from(self.came_from.get(&connection).copied());
            self.outgoing.push_back(ToSwarm::GenerateEvent(Arrival { from, connection, protocol, stream }));
        }
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ToSwarm<Arrival, OpenRequest>> {
        // Filled only by calls that the swarm's owner makes, after which it polls the swarm again.
        self.outgoing.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
