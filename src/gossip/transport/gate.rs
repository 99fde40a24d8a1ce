//! Who is let in, and which streams pass: narun's own behaviour in libp2p's swarm. Shell.
//!
//! libp2p asks it about every connection once the other side's key is proven. A member is let in. A stranger is let as far as
//! the door: few at once, not for long, one stream. Streams go out and come in here as well; `libp2p-stream` would do that,
//! but it drops streams that arrive close together, and cannot tell connections of one peer apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::Endpoint;
use libp2p::core::transport::{PortUse, TransportError as ListenError};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamUpgradeError, SubstreamProtocol, SwarmEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::ids::NodeKey;
use crate::node::identity::Identity;

use super::address::{multiaddr, node_key, tcp_port};
use super::counters::{Tally, count};
use super::incoming::Acceptors;
use super::{OpenError, Protocol, Stream, TransportError};

/// How many strangers may be connected at once. Joining takes well under a second; this many let a whole rack join together.
pub const STRANGERS_MAX: usize = 16;

/// How long a stranger may stay: the time of one join, disk included.
pub const STRANGER_STAY_MAX: Duration = Duration::from_secs(10);

/// How many connections from outside may be in their handshake. All members of the largest mesh (300 nodes) come back at once
/// after a power cut, and those who are refused dial again.
pub const HANDSHAKES_MAX: usize = 256;

/// How long a handshake may take: three round trips, generously for a loaded host.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Connections are closed by the mesh, never for being idle; libp2p wants a number.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// A stream to be opened, with the way back.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) protocol: Protocol,
    pub(super) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// A stream that was let in.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) from: NodeKey,
    pub(super) connection: ConnectionId,
    pub(super) protocol: Protocol,
    pub(super) stream: Stream,
}

#[derive(Debug)]
struct Stranger {
    peer: PeerId,
    until: Instant,
    entered: bool,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("too many handshakes are under way")]
    Handshakes,
    #[error("too many strangers are at the door")]
    Strangers,
    #[error("the node is no member")]
    NotMember,
}

/// The behaviour.
pub(super) struct Gate {
    members: BTreeSet<PeerId>,
    strangers: BTreeMap<ConnectionId, Stranger>,
    handshakes: BTreeSet<ConnectionId>,
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
        handshakes: BTreeSet::new(),
        outgoing: VecDeque::new(),
        acceptors,
        tally,
    };
    let builder = SwarmBuilder::with_existing_identity(identity.keypair().clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?;
    let Ok(builder) = builder.with_behaviour(|_| gate);
    Ok(builder
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_MAX))
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
        promoted.map(|(connection, stranger)| (connection, stranger.peer)).collect()
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
        overdue.iter().for_each(|_| count(&self.tally.strangers_overdue));
        overdue.into_iter().map(|(connection, _)| connection).collect()
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
        _remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.handshakes.len() >= HANDSHAKES_MAX {
            count(&self.tally.handshakes_refused);
            return Err(ConnectionDenied::new(Refused::Handshakes));
        }
        self.handshakes.insert(connection);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.handshakes.remove(&connection);
        if !self.members.contains(&peer) {
            if self.strangers.len() >= STRANGERS_MAX {
                count(&self.tally.strangers_refused);
                return Err(ConnectionDenied::new(Refused::Strangers));
            }
            let until = Instant::now() + STRANGER_STAY_MAX;
            self.strangers.insert(connection, Stranger { peer, until, entered: false });
        }
        Ok(Handler::new(self.acceptors.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        // It may have ceased to be one while it was dialled.
        if !self.members.contains(&peer) {
            return Err(ConnectionDenied::new(Refused::NotMember));
        }
        Ok(Handler::new(self.acceptors.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(closed) => {
                self.strangers.remove(&closed.connection_id);
            }
            FromSwarm::ListenFailure(failure) if self.handshakes.remove(&failure.connection_id) => {
                count(&self.tally.handshakes_failed);
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
            let stream = Stream::new(stream);
            self.outgoing.push_back(ToSwarm::GenerateEvent(Arrival { from, connection, protocol, stream }));
        }
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ToSwarm<Arrival, OpenRequest>> {
        // Filled only by calls that the swarm's owner makes, after which it polls the swarm again.
        self.outgoing.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection's end of the gate; it runs in libp2p's task for that connection.
pub(super) struct Handler {
    acceptors: Arc<Acceptors>,
    to_open: VecDeque<OpenRequest>,
    arrived: VecDeque<Arrived>,
}

/// A stream that the other side opened.
#[derive(Debug)]
pub(super) struct Arrived {
    protocol: Protocol,
    stream: libp2p::Stream,
}

impl Handler {
    fn new(acceptors: Arc<Acceptors>) -> Self {
        Self { acceptors, to_open: VecDeque::new(), arrived: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = Arrived;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(self.acceptors.offered()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, OpenRequest, Arrived>> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(arrived));
        }
        if let Some(request) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(Offer(vec![request.protocol]), request);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // Both queues are filled only by the two calls below, after which libp2p polls again.
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        self.to_open.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offer, Offer, (), OpenRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream), ..
            }) => self.arrived.push_back(Arrived { protocol, stream }),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                // The asker may have given up; then the stream closes here.
                let _ = info.reply.send(Ok(Stream::new(stream)));
            }
            ConnectionEvent::DialUpgradeError(failed) => {
                let error = match failed.error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(failed.info.protocol.name()),
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::Io(cause) => OpenError::Closed(cause.to_string()),
                };
                let _ = failed.info.reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// The protocols that one stream may turn out to be.
#[derive(Debug)]
pub(super) struct Offer(Vec<Protocol>);

impl UpgradeInfo for Offer {
    type Info = Protocol;
    type InfoIter = std::vec::IntoIter<Protocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for Offer {
    type Output = (Protocol, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: Protocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<libp2p::Stream> for Offer {
    type Output = (Protocol, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, protocol: Protocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
