//! Real transports on the loopback interface, real files, the real time.

// Figures are for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::gossip::transport::TransportConfig;
use crate::ledger::command::{Command, Reply};
use crate::ledger::question::{Answer, Question};
use crate::ledger::raft::store::Store;
use crate::ledger::raft::{Running, Settings};
use crate::ledger::voters::Candidate;
use crate::node::engine::effect::Peer;
use crate::node::identity::Identity;
use crate::time::{Mono, Now, Wall};

use super::*;

/// Longer than any wait that succeeds on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    key: NodeKey,
    transport: Transport,
    ledger: Ledger,
    running: Running,
    _dir: tempfile::TempDir,
    _inputs: mpsc::Receiver<crate::node::engine::input::Input>,
}

async fn start(seed: u64) -> Node {
    let (sender, inputs) = mpsc::channel(1_024);
    let identity = Identity::generate();
    let key = identity.key();
    let config = TransportConfig { identity, listen: "127.0.0.1:0".parse().unwrap() };
    let transport = Transport::start(config, sender).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (log, machines, _thread) = Store::open(&dir.path().join("ledger.redb")).unwrap().run();
    let wire = Arc::new(Streams::new(transport.clone()));
    let began = std::time::Instant::now();
    let clock = Arc::new(move || {
        let passed = began.elapsed();
        Now { mono: Mono(0) + passed, wall: Wall(1_700_000_000_000).plus(passed) }
    });
    let (ledger, running) = Ledger::start(Settings::new(key, seed), (log, machines), wire, clock).await.unwrap();
    tokio::spawn(serve(transport.clone(), ledger.clone()));
    Node { key, transport, ledger, running, _dir: dir, _inputs: inputs }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_over_real_connections_and_files() {
    let mut nodes = Vec::new();
    for seed in 0..4 {
        nodes.push(start(seed).await);
    }
    let peers: Vec<Peer> = nodes
        .iter()
        .map(|node| Peer { key: node.key, addresses: vec![node.transport.listen_address().to_string()] })
        .collect();
    let members: Arc<[Candidate]> =
        nodes.iter().map(|node| Candidate { node: node.key, down_for: None, can_vote: true }).collect();
    for node in &nodes {
        node.transport.set_members(peers.clone());
        node.ledger.members(members.clone());
    }
    nodes[0].ledger.found().await.unwrap();
    until("three vote", || nodes[0].ledger.standing().borrow().voters.len() == 3).await;

    // From a node that does not vote, through one that does.
    let voters = nodes[0].ledger.standing().borrow().voters.clone();
    let outside = nodes.iter().find(|node| !voters.contains(&node.key)).unwrap();
    let mut took = Vec::new();
    for life in 1..=100 {
        let began = Instant::now();
        let answer = outside.ledger.ask(Question::Propose(Command::Open { node: outside.key, life })).await;
        assert!(matches!(answer, Answer::Applied { reply: Reply::Opened(_), .. }), "{answer:?}");
        took.push(began.elapsed());
    }
    took.sort();
    println!("a command through three real nodes, from a fourth: p50 {:?}, p99 {:?}", took[50], took[99]);

    // The leader goes; the next one answers.
    let leader = nodes[0].ledger.standing().borrow().leader.unwrap();
    let at = nodes.iter().position(|node| node.key == leader).unwrap();
    let gone = nodes.remove(at);
    gone.running.stop().await;
    gone.transport.stop().await;
    let began = Instant::now();
    let asker = &nodes[0];
    let answer = loop {
        let open = Command::Open { node: asker.key, life: 500 };
        match asker.ledger.ask(Question::Propose(open)).await {
            // The leader was asked in the moment in which it went.
            Answer::Unknown | Answer::NotLeader { .. } if began.elapsed() < PATIENCE => {}
            answer => break answer,
        }
    };
    assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
    println!("answered {:?} after the leader had gone", began.elapsed());
    for node in nodes {
        node.running.stop().await;
        node.transport.stop().await;
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_before_it_is_read() {
    let (mut near, mut far) = tokio::io::duplex(64);
    near.write_all(b"GET / HTTP").await.unwrap();
    assert!(read_frame(&mut far).await.unwrap_err().to_string().contains("is the most"));
    let (mut near, mut far) = tokio::io::duplex(64);
    near.write_all(&[0, 0, 0, 9, 1, 2]).await.unwrap();
    drop(near);
    assert_eq!(read_frame(&mut far).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let (near, mut far) = tokio::io::duplex(64);
    drop(near);
    assert_eq!(read_frame(&mut far).await.unwrap(), None);
}
