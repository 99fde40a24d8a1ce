//! What the instances of a service use right now, asked for at any node and gathered from all that run some. Plain data and a door.
//!
//! The figures are the kernel's, read when somebody asks (`local`); nothing is kept, and nothing goes through the roster. `gather`
//! asks this node itself and every other member that runs an instance (`serve` answers there, in the frames of `wire`).

pub mod gather;
pub mod local;
pub mod serve;
pub mod wire;

#[cfg(test)]
mod cluster_tests;

use futures::future::BoxFuture;

use crate::exec::usage::Usage;
use crate::ids::{NodeKey, NodeName, RunId};

use super::logs::Duplex;

/// What one instance uses.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct InstanceUsage {
    /// Its index.
    #[n(0)]
    pub index: u32,
    /// Which start of it.
    #[n(1)]
    pub run: RunId,
    /// The figures; none where no control group holds it, so that nobody counts.
    #[n(2)]
    pub usage: Option<Usage>,
}

/// What all instances of a service use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceUsage {
    /// Those that run, each with its node; by index and node.
    pub instances: Vec<(NodeName, InstanceUsage)>,
    /// Nodes that run instances of it and did not answer, each with the reason.
    pub silent: Vec<(NodeName, String)>,
}

/// The way to the other members.
pub trait UsagePeers: Send + Sync + 'static {
    /// Opens a stream of [`wire::PROTOCOL`] to a member. Fails with the reason, for people.
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>>;
}
