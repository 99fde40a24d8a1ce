//! One question to several nodes, with pipes in place of connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};

use super::gather::UsageGather;
use super::serve::UsageServer;
use super::{ServiceUsage, UsagePeers};
use crate::confinement::Enforced;
use crate::ids::{NodeKey, NodeName, RunId, ServiceName};
use crate::node::engine::view::{InstanceState, InstanceView, NodeStatus, NodeView, View};
use crate::node::handle::NodeHandle;
use crate::node::logs::Duplex;
use crate::time::Wall;

/// What stands at the other end of a connection.
#[derive(Clone)]
enum End {
    Answers(Arc<UsageServer>),
    HangsUp,
    SaysNothing,
}

struct Pipes(BTreeMap<NodeKey, End>);

impl UsagePeers for Pipes {
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>> {
        let end = self.0.get(&peer).cloned();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(512);
            match end.ok_or_else(|| "connection refused".to_owned())? {
                End::Answers(server) => drop(tokio::spawn(async move { server.serve(far).await })),
                End::HangsUp => drop(far),
                End::SaysNothing => drop(tokio::spawn(hold(far))),
            }
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

async fn hold(stream: DuplexStream) {
    std::future::pending::<()>().await;
    drop(stream);
}

fn key(index: u8) -> NodeKey {
    NodeKey([index + 1; 32])
}

fn name(index: u8) -> NodeName {
    NodeName::new(&format!("n{index}")).unwrap()
}

fn service() -> ServiceName {
    ServiceName::new("web").unwrap()
}

/// The view of one of five nodes, each of which runs an instance; the last one is down.
fn view(of: u8) -> View {
    let node = |index| NodeView {
        key: key(index),
        name: name(index),
        status: if index == 4 { NodeStatus::Down } else { NodeStatus::Alive },
        since: Wall(0),
        is_me: index == of,
        role: crate::crdt::admission::Role::MEMBER,
        os: None,
        arch: None,
        version: None,
        addresses: Vec::new(),
        labels: Vec::new(),
        joined_at: Wall(0),
        started_at: None,
        instances: 0,
        capacity: None,
        drain: None,
    };
    let instance = |index| InstanceView {
        service: service(),
        index: u32::from(index),
        node_key: key(index),
        node: name(index),
        node_status: NodeStatus::Alive,
        state: InstanceState::Running,
        ready: true,
        revision: 1,
        current: true,
        wanted: true,
        run: Some(RunId([index; 16])),
        // A process that lives, and is in no group of a run.
        pid: Some(std::process::id()),
        started_at: None,
        restarts: 0,
        exit: None,
        error: None,
        enforced: Enforced::default(),
        retry_at: None,
    };
    let (nodes, instances) =
        ((0..5).map(|at| Arc::new(node(at))).collect::<Vec<_>>(), (0..5).map(instance).collect::<Vec<_>>());
    View { nodes: nodes.into(), instances: instances.into(), ..View::default() }
}

fn handle(of: u8) -> NodeHandle {
    let (commands, _) = mpsc::channel(1);
    let (_, shown) = watch::channel(Arc::new(view(of)));
    NodeHandle::new(commands, shown)
}

fn told(found: &ServiceUsage) -> Vec<(String, u32)> {
    found.instances.iter().map(|(node, one)| (node.to_string(), one.index)).collect()
}

#[tokio::test(start_paused = true)]
async fn all_that_answer_are_shown_and_all_others_named() {
    let answers = End::Answers(Arc::new(UsageServer::new(handle(1))));
    let peers = Pipes([(key(1), answers), (key(2), End::HangsUp), (key(3), End::SaysNothing)].into());
    let found = UsageGather::new(handle(0), Arc::new(peers)).query(&service()).await;
    assert_eq!(told(&found), [("n0".to_owned(), 0), ("n1".to_owned(), 1)]);
    assert_eq!(found.instances[1].1.run, RunId([1; 16]));
    assert_eq!(found.instances[1].1.usage, None, "nobody counts it");
    let silent: Vec<_> = found.silent.iter().map(|(node, reason)| (node.to_string(), reason.as_str())).collect();
    assert_eq!(silent[0].0, "n2");
    assert!(silent[0].1.starts_with("the stream broke"), "{silent:?}");
    assert_eq!(silent[1..], [("n3".to_owned(), "no answer within 2 s"), ("n4".to_owned(), "it is down")]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_reached_is_named_with_the_reason() {
    let found = UsageGather::new(handle(0), Arc::new(Pipes(BTreeMap::new()))).query(&service()).await;
    assert_eq!(told(&found), [("n0".to_owned(), 0)]);
    assert_eq!(found.silent[0], (name(1), "connection refused".to_owned()));
    let other = ServiceName::new("other").unwrap();
    let found = UsageGather::new(handle(0), Arc::new(Pipes(BTreeMap::new()))).query(&other).await;
    assert_eq!(found, ServiceUsage::default());
}
