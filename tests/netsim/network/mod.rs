//! The network between the hosts: connections that come and break, messages that are late, doubled or lost.
//!
//! `fabric` is what everybody shares: who stands on the network, which directions are cut, which connections stand. `wire` is
//! one direction of one link, and the order in which things come off it. [`SimNetwork`] is one node's end.
//!
//! There are two modes. *Streams* are true to the transport of the binary: a connection keeps order and loses nothing while it
//! stands; a cut delays, then breaks it. *Datagrams* are harsher than any transport: each message for itself is lost, doubled
//! or overtaken. Code that lives through the second does not lean on the first.

mod fabric;
pub(crate) mod tests;
mod wire;

use std::sync::Arc;

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

/// A message as a line of the record: by its number, since most lines are never read and decoding costs much.
fn word(bytes: &[u8]) -> &'static str {
    let mut decoder = minicbor::Decoder::new(bytes);
    let kind = decoder.array().and_then(|_| decoder.u32());
    match kind {
        Ok(0) => "swim",
        Ok(1) => "news",
        Ok(2) => "heard",
        Ok(3) => "ask",
        Ok(4) => "acknowledge",
        Ok(5) => "roots",
        Ok(6) => "buckets",
        Ok(7) => "documents",
        Ok(8) => "records",
        Ok(9) => "want",
        Ok(10) => "repair",
        Ok(11) => "forgotten",
        Ok(12) => "hello",
        Ok(13) => "news to pass on",
        Ok(_) => "a message of a kind without a word",
        Err(_) => "what nobody can read",
    }
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

    fn members(&mut self, members: Vec<Arc<Peer>>) {
        if self.life.acts() {
            let bytes: Vec<u8> = members.iter().flat_map(|peer| peer.key.0).collect();
            self.trace.record(&self.host, &format!("members {}", members.len()), &bytes);
            self.fabric.members(self.key, &members.into_iter().map(|peer| peer.key).collect());
        }
    }

    fn ask_standing(&mut self, member: NodeKey) {
        if self.life.acts() {
            self.trace.record(&self.host, &format!("asks {} how it stands", self.fabric.name(&member)), &[]);
            self.fabric.ask_standing(self.key, member);
        }
    }
}
