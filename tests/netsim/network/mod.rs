//! The network between the hosts: connections that come and break, messages that are late, doubled or lost.
//!
//! `fabric` is what everybody shares: who stands on the network, which directions are cut, which connections stand. `wire` is
//! one direction of one link, and the order in which things come off it. [`SimNetwork`] is one node's end.
//!
//! There are two modes. *Streams* are true to the transport of the binary: a connection keeps order and loses nothing while it
//! stands; a cut delays, then breaks it. *Datagrams* are harsher than any transport: each message for itself is lost, doubled
//! or overtaken. Code that lives through the second does not lean on the first.

mod fabric;
mod tests;
mod wire;

use std::sync::Arc;

use narun::gossip::message::Message;
use narun::ids::NodeKey;
use narun::node::engine::effect::Peer;
use narun::node::shells::Network;

use crate::forgery;
use crate::life::Life;
use crate::trace::Trace;

pub(crate) use fabric::{Death, Fabric};

/// What becomes of messages on their way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// In order and whole, while the connection stands.
    Streams,
    /// Each for itself.
    Datagrams,
}

/// How the network is at the moment, on every link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Weather {
    /// How many of a thousand messages are lost; datagrams only.
    pub(crate) lost_per_mille: u32,
    /// How many of a thousand come twice; datagrams only.
    pub(crate) doubled_per_mille: u32,
    /// The slowest link's least delay, in milliseconds.
    pub(crate) latency_ms_max: u64,
    /// How many of a thousand messages take ten times as long.
    pub(crate) late_per_mille: u32,
}

impl Weather {
    /// A network that does its best.
    pub(crate) const FAIR: Self =
        Self { lost_per_mille: 0, doubled_per_mille: 0, latency_ms_max: 20, late_per_mille: 2 };
    /// A fifth lost, a fifth doubled, and often out of order.
    pub(crate) const FOUL: Self =
        Self { lost_per_mille: 200, doubled_per_mille: 200, latency_ms_max: 60, late_per_mille: 50 };
}

/// A message as a line of the record.
fn word(bytes: &[u8]) -> String {
    let Some(message) = Message::decode(bytes) else { return "what nobody can read".to_owned() };
    let text = match message {
        Message::Swim(_) => "swim",
        Message::News { acknowledge: true, .. } => "news to acknowledge",
        Message::News { .. } => "news",
        Message::Relay { .. } => "news to pass on",
        Message::Heard(_) => "heard",
        Message::Ask(_) => "ask",
        Message::Acknowledge(_) => "acknowledge",
        Message::Roots { .. } => "roots",
        Message::Buckets { .. } => "buckets",
        Message::Documents { .. } => "documents",
        Message::Records { .. } => "records",
        Message::Want { .. } => "want",
        Message::Repair { .. } => "repair",
        Message::Forgotten(_) => "forgotten",
    };
    text.to_owned()
}

/// One node's end of the network, for one run of its process.
pub(crate) struct SimNetwork {
    /// What all share.
    pub(crate) fabric: Fabric,
    /// Whose end.
    pub(crate) key: NodeKey,
    /// The process that sends.
    pub(crate) life: Arc<Life>,
    /// The host, for the record.
    pub(crate) host: String,
    /// Where it is recorded.
    pub(crate) trace: Trace,
}

impl Network for SimNetwork {
    fn send(&mut self, to: NodeKey, bytes: Vec<u8>) {
        if self.life.acts() {
            let forged = if self.life.forges() { forgery::altered(&self.key, &bytes) } else { None };
            let bytes = forged.unwrap_or(bytes);
            let line = format!("to {}: {}", self.fabric.name(&to), word(&bytes));
            self.trace.record(&self.host, &line, &bytes);
            self.fabric.send(self.key, to, bytes);
        }
    }

    fn members(&mut self, members: Vec<Peer>) {
        if self.life.acts() {
            let bytes: Vec<u8> = members.iter().flat_map(|peer| peer.key.0).collect();
            self.trace.record(&self.host, &format!("members {}", members.len()), &bytes);
            self.fabric.members(self.key, &members.into_iter().map(|peer| peer.key).collect());
        }
    }
}
