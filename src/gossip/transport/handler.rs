//! One connection's end of the gate: streams go out and come in here. Shell; it runs in libp2p's task for that connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::incoming::Acceptors;
use super::slots::Slot;
use super::{OpenError, Protocol, Stream};

/// Names of the gossip of later major versions. Whoever agrees to one of them, and not to ours, speaks a newer narun: that is all
/// that they are offered for, after our own. libp2p's negotiation tells nothing but *unsupported*, and a protocol of its own that
/// tells the version would have to be kept by all versions to come; these names they keep anyway.
const LATER_GOSSIP: [&str; 4] = ["/narun/gossip/2", "/narun/gossip/3", "/narun/gossip/4", "/narun/gossip/5"];

/// A stream to be opened, with the way back.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) protocol: Protocol,
    /// Held by the stream for as long as it is open.
    pub(super) slot: Option<Slot>,
    pub(super) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// The handler.
pub(super) struct Handler {
    acceptors: Arc<Acceptors>,
    /// Cancelled when the connection is closed.
    closed: CancellationToken,
    to_open: VecDeque<OpenRequest>,
    arrived: VecDeque<Arrived>,
}

/// Also where a connection ends without being closed in order.
impl Drop for Handler {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// A stream that the other side opened.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) protocol: Protocol,
    pub(super) stream: Stream,
}

impl Handler {
    pub(super) fn new(acceptors: Arc<Acceptors>) -> Self {
        let closed = CancellationToken::new();
        Self { acceptors, closed, to_open: VecDeque::new(), arrived: VecDeque::new() }
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
        SubstreamProtocol::new(Offer::of(self.acceptors.offered()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, OpenRequest, Arrived>> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(arrived));
        }
        if let Some(request) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(Offer::to_open(request.protocol), request);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // Both queues are filled only by the two calls below, after which libp2p polls again.
        Poll::Pending
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Arrived>> {
        self.closed.cancel();
        Poll::Ready(None)
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        self.to_open.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offer, Offer, (), OpenRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (Name::Ours(protocol), stream),
                ..
            }) => {
                let stream = Stream::new(stream, self.closed.clone());
                self.arrived.push_back(Arrived { protocol, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (name, stream), info }) => {
                let opened = match name {
                    Name::Ours(_) => Ok(Stream::new(stream, self.closed.clone()).holding(info.slot)),
                    Name::Later(name) => Err(OpenError::Newer(name)),
                };
                // The asker may have given up; then the stream closes here.
                let _ = info.reply.send(opened);
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

/// What a stream may turn out to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    Ours(Protocol),
    Later(&'static str),
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        match self {
            Self::Ours(protocol) => protocol.name(),
            Self::Later(name) => name,
        }
    }
}

/// The names that one stream is offered under, best first.
#[derive(Debug)]
pub(super) struct Offer(Vec<Name>);

impl Offer {
    fn of(protocols: Vec<Protocol>) -> Self {
        Self(protocols.into_iter().map(Name::Ours).collect())
    }

    fn to_open(protocol: Protocol) -> Self {
        let later = LATER_GOSSIP.into_iter().filter(|_| protocol == Protocol::Gossip).map(Name::Later);
        Self(std::iter::once(Name::Ours(protocol)).chain(later).collect())
    }
}

impl UpgradeInfo for Offer {
    type Info = Name;
    type InfoIter = std::vec::IntoIter<Name>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for Offer {
    type Output = (Name, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, name: Name) -> Self::Future {
        ready(Ok((name, stream)))
    }
}

impl OutboundUpgrade<libp2p::Stream> for Offer {
    type Output = (Name, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, name: Name) -> Self::Future {
        ready(Ok((name, stream)))
    }
}
