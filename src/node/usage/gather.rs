//! The usage of a service, from all nodes that run instances of it. Wiring.
//!
//! All are asked at once, and have one deadline together. A member that does not answer by then is named, and is no failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use crate::ids::{NodeKey, NodeName, ServiceName};
use crate::node::engine::view::{NodeStatus, View};
use crate::node::handle::NodeHandle;
use crate::node::logs::serve::read_frame;
use crate::node::logs::wire::encode;

use super::wire::{Answer, Question};
use super::{InstanceUsage, ServiceUsage, UsagePeers, local};

/// How long all nodes have to answer: a person waits for it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How many nodes are asked at once; each takes a stream of a connection that is there already.
const ASKED_AT_ONCE: usize = 64;

/// Asks all nodes.
pub struct UsageGather {
    node: NodeHandle,
    peers: Arc<dyn UsagePeers>,
}

/// A member that runs instances of the service.
struct Holder {
    key: NodeKey,
    name: NodeName,
    is_me: bool,
    is_down: bool,
}

impl UsageGather {
    /// A gatherer over this node's view and the way to other members.
    pub fn new(node: NodeHandle, peers: Arc<dyn UsagePeers>) -> Self {
        Self { node, peers }
    }

    /// What the instances of a service use, wherever they run.
    pub async fn query(&self, service: &ServiceName) -> ServiceUsage {
        let view = self.node.view();
        let deadline = Instant::now() + ANSWERS_WITHIN;
        let asked = holders(&view, service).into_iter().map(|holder| self.answer_of(holder, &view, service, deadline));
        let mut answers = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        let mut found = ServiceUsage::default();
        while let Some((name, answer)) = answers.next().await {
            match answer {
                Ok(instances) => found.instances.extend(instances.into_iter().map(|one| (name.clone(), one))),
                Err(reason) => found.silent.push((name, reason)),
            }
        }
        found.instances.sort_by(|(one, a), (other, b)| (a.index, one).cmp(&(b.index, other)));
        found.silent.sort();
        found
    }

    async fn answer_of(
        &self,
        holder: Holder,
        view: &View,
        service: &ServiceName,
        deadline: Instant,
    ) -> (NodeName, Result<Vec<InstanceUsage>, String>) {
        let answer: BoxFuture<'_, _> = match holder {
            Holder { is_down: true, .. } => return (holder.name, Err("it is down".to_owned())),
            Holder { is_me: true, .. } => Box::pin(local::own(view, service)),
            Holder { key, .. } => Box::pin(self.ask(key, service)),
        };
        let late = || Err(format!("no answer within {} s", ANSWERS_WITHIN.as_secs()));
        (holder.name, timeout_at(deadline, answer).await.unwrap_or_else(|_| late()))
    }

    async fn ask(&self, peer: NodeKey, service: &ServiceName) -> Result<Vec<InstanceUsage>, String> {
        let mut stream = self.peers.open(peer).await?;
        let question = encode(&Question { service: service.clone() });
        let sent = async {
            stream.write_all(&question).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| format!("the stream broke: {error}"))?;
        let answer: Answer = read_frame(&mut stream).await.map_err(|error| error.to_string())?;
        Ok(answer.instances)
    }
}

/// The members that run instances of a service, or did when they were heard last.
fn holders(view: &View, service: &ServiceName) -> Vec<Holder> {
    let running = view.instances.iter().filter(|one| one.service == *service && one.pid.is_some());
    let named: BTreeMap<NodeKey, &NodeName> = running.map(|one| (one.node_key, &one.node)).collect();
    let holder = |(key, name): (NodeKey, &NodeName)| {
        let node = view.nodes.iter().find(|node| node.key == key);
        Holder {
            key,
            name: name.clone(),
            is_me: node.is_some_and(|node| node.is_me),
            is_down: node.is_some_and(|node| node.status == NodeStatus::Down),
        }
    };
    named.into_iter().map(holder).collect()
}
