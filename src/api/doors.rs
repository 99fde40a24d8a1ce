//! What the API needs of the rest of the node, as small doors that the wiring fills. Plain traits.

use std::io;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::gossip::transport::Transport;
use crate::ids::{BlobHash, NodeKey, ServiceName};
use crate::ledger::question::{Answer, Question, Standing};
use crate::ledger::raft::Ledger;
use crate::node::engine::effect::Refusal;
use crate::node::logs::gather::Gather;
use crate::node::logs::{LogItem, LogQuery};
use crate::node::usage::ServiceUsage;
use crate::node::usage::gather::UsageGather;

/// The blob store as uploads meet it.
pub trait BlobDoor: Send + Sync {
    /// Stores what `content` gives, and answers once it is whole and durable: its hash and its size in bytes. When `content`
    /// gives an error, or the disk is full, nothing is left behind.
    fn import(&self, content: BoxStream<'static, io::Result<Bytes>>)
    -> BoxFuture<'_, Result<(BlobHash, u64), Refusal>>;
    /// The size in bytes of a blob that is whole here; none: it is not.
    fn size(&self, hash: BlobHash) -> BoxFuture<'_, Result<Option<u64>, Refusal>>;
}

/// The logs of all nodes.
pub trait LogDoor: Send + Sync {
    /// The items that the query asks for; dropping the stream ends the query.
    fn query(&self, query: LogQuery) -> Result<BoxStream<'static, LogItem>, Refusal>;
}

impl LogDoor for Gather {
    fn query(&self, query: LogQuery) -> Result<BoxStream<'static, LogItem>, Refusal> {
        Gather::query(self, query)
    }
}

/// What the instances of all nodes use.
pub trait UsageDoor: Send + Sync {
    /// That of one service's instances, from all nodes that run some.
    fn query<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, ServiceUsage>;
}

impl UsageDoor for UsageGather {
    fn query<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, ServiceUsage> {
        Box::pin(UsageGather::query(self, service))
    }
}

/// The ledger as those meet it who ask for people.
pub trait LedgerDoor: Send + Sync {
    /// Asks whoever can answer, for some seconds. [`Answer::NotLeader`]: nobody could, and nothing was done.
    fn ask(&self, question: Question) -> BoxFuture<'_, Answer>;
    /// Who votes and who leads, as this node sees it; without voters where it is none itself.
    fn standing(&self) -> Standing;
}

impl LedgerDoor for Ledger {
    fn ask(&self, question: Question) -> BoxFuture<'_, Answer> {
        Box::pin(Ledger::ask(self, question))
    }

    fn standing(&self) -> Standing {
        Ledger::standing(self).borrow().clone()
    }
}

/// The transport as those meet it who want to know how it fares.
pub trait NetworkDoor: Send + Sync {
    /// How often what was refused, dropped or lost since the start, by name; all names, also those of what never happened.
    fn counted(&self) -> Vec<(&'static str, u64)>;
    /// Members that speak a newer major version of the protocol than this node.
    fn newer(&self) -> Vec<NodeKey>;
}

impl NetworkDoor for Transport {
    fn counted(&self) -> Vec<(&'static str, u64)> {
        self.counters().named().collect()
    }

    fn newer(&self) -> Vec<NodeKey> {
        self.notices().newer.into_iter().collect()
    }
}

/// Tells the node to end its instances, its keeper and itself.
#[derive(Clone, Debug)]
pub struct StopSender(mpsc::Sender<()>);

impl StopSender {
    /// The sender, and where the node listens for the word.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Says the word; saying it twice is saying it once.
    pub(crate) fn stop(&self) {
        // A full queue holds the word already, and a closed one belongs to a node that is stopping.
        let _ = self.0.try_send(());
    }
}
