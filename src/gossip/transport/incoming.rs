//! Who serves which protocol on this node. Shell.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::ids::NodeKey;

use super::{Protocol, Stream};

/// How many streams of one protocol may wait to be taken. Those who serve only spawn, so that this many at once means that the
/// node is overloaded; further ones are dropped, and their openers try another node.
pub const INCOMING_MAX: usize = 64;

/// Streams of one protocol, as others open them. Dropping it ends the offer.
#[derive(Debug)]
pub struct Incoming {
    streams: mpsc::Receiver<(NodeKey, Stream)>,
}

impl Incoming {
    /// Waits for the next one; none when the transport was stopped, or somebody else accepts the protocol now.
    pub async fn next(&mut self) -> Option<(NodeKey, Stream)> {
        self.streams.recv().await
    }
}

/// Where streams go. Shared by the task that owns the swarm, the connections' tasks that ask what is offered, and those who
/// register; locked for a look-up.
#[derive(Debug, Default)]
pub(super) struct Acceptors {
    takers: Mutex<BTreeMap<Protocol, mpsc::Sender<(NodeKey, Stream)>>>,
}

impl Acceptors {
    pub(super) fn register(&self, protocol: Protocol) -> Incoming {
        let (sender, streams) = mpsc::channel(INCOMING_MAX);
        self.lock().insert(protocol, sender);
        Incoming { streams }
    }

    /// What this node offers: its protocols that somebody serves, and those that the transport serves itself.
    pub(super) fn offered(&self) -> Vec<Protocol> {
        let mut offered = vec![Protocol::Gossip, Protocol::Life];
        offered.extend(self.lock().iter().filter(|(_, taker)| !taker.is_closed()).map(|(protocol, _)| *protocol));
        offered
    }

    /// Whether somebody took the stream.
    pub(super) fn hand_over(&self, protocol: Protocol, from: NodeKey, stream: Stream) -> bool {
        self.lock().get(&protocol).is_some_and(|taker| taker.try_send((from, stream)).is_ok())
    }

    /// Ends every [`Incoming`].
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Protocol, mpsc::Sender<(NodeKey, Stream)>>> {
        self.takers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
