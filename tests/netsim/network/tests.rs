//! The network by itself: two or three ends, no engine.

use super::*;
use std::sync::Arc;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use narun::node::engine::input::{Input, NetworkEvent};
use narun::node::handle::NodeHandle;

use crate::random;

struct Bench {
    fabric: Fabric,
    keys: Vec<NodeKey>,
    ends: Vec<mpsc::Receiver<Input>>,
    nets: Vec<SimNetwork>,
}

/// The door of a node that has no engine: nobody answers.
pub(crate) fn door() -> NodeHandle {
    NodeHandle::new(mpsc::channel(1).0, watch::channel(Arc::default()).1)
}

/// `count` connected nodes.
async fn bench(count: u8, mode: Mode, seed: u64) -> Bench {
    let trace = Trace::new();
    let keys: Vec<NodeKey> = (0..count).map(|n| NodeKey([n; 32])).collect();
    let hosts = keys.iter().map(|key| (*key, format!("n{}", key.0[0]))).collect();
    let fabric = Fabric::new(hosts, mode, random::stream(seed, "network"), trace.clone());
    let (mut ends, mut nets) = (Vec::new(), Vec::new());
    for key in &keys {
        let (inputs, end) = mpsc::channel(4096);
        let life = Life::new();
        fabric.attach(*key, inputs, door(), life.clone());
        ends.push(end);
        nets.push(SimNetwork { fabric: fabric.clone(), key: *key, life, host: fabric.name(key), trace: trace.clone() });
    }
    for net in &mut nets {
        net.members(keys.iter().map(|key| Arc::new(Peer { key: *key, addresses: Vec::new() })).collect());
    }
    let mut bench = Bench { fabric, keys, ends, nets };
    for n in 0..usize::from(count) {
        for _ in 1..count {
            let event = bench.event(n, 3).await.expect("nodes that may are connected soon");
            assert!(matches!(event, NetworkEvent::Connected(_)), "{event:?}");
        }
    }
    bench
}

impl Bench {
    /// What the node hears next, within so many seconds.
    async fn event(&mut self, node: usize, seconds: u64) -> Option<NetworkEvent> {
        match timeout(Duration::from_secs(seconds), self.ends[node].recv()).await.ok()?? {
            Input::Network(event) => Some(event),
            other => panic!("the network made {other:?}"),
        }
    }

    fn send(&mut self, from: usize, to: usize, text: &str) {
        let to = self.keys[to];
        self.nets[from].send(to, text.as_bytes().to_vec());
    }

    /// All messages that the node hears until it is quiet for 20 s.
    async fn messages(&mut self, node: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(event) = self.event(node, 20).await {
            if let NetworkEvent::Message { bytes, .. } = event {
                texts.push(String::from_utf8(bytes).unwrap());
            }
        }
        texts
    }
}

fn numbers(count: u32) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn streams_keep_order_and_lose_nothing_even_in_foul_weather() {
    let mut bench = bench(2, Mode::Streams, 1).await;
    bench.fabric.set_weather(Weather::FOUL);
    for text in numbers(500) {
        bench.send(0, 1, &text);
    }
    assert_eq!(bench.messages(1).await, numbers(500));
}

#[tokio::test(start_paused = true)]
async fn datagrams_are_lost_doubled_and_overtaken() {
    let mut bench = bench(2, Mode::Datagrams, 1).await;
    bench.fabric.set_weather(Weather::FOUL);
    for text in numbers(1_000) {
        bench.send(0, 1, &text);
    }
    let heard = bench.messages(1).await;
    let distinct: std::collections::BTreeSet<_> = heard.iter().collect();
    assert!((700..900).contains(&distinct.len()), "{} of 1000 came", distinct.len());
    assert!(heard.len() > distinct.len() + 100, "{} doubled", heard.len() - distinct.len());
    assert!(!heard.is_sorted_by_key(|text| text.parse::<u32>().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_delays_and_a_long_one_breaks_and_connects_again() {
    let mut bench = bench(2, Mode::Streams, 2).await;
    let (a, b) = (bench.keys[0], bench.keys[1]);
    bench.fabric.cut(a, b);
    bench.send(0, 1, "held");
    assert!(bench.event(1, 2).await.is_none());
    bench.send(1, 0, "the other direction passes");
    assert!(matches!(bench.event(0, 1).await, Some(NetworkEvent::Message { .. })));
    bench.fabric.heal(a, b);
    assert!(matches!(bench.event(1, 1).await, Some(NetworkEvent::Message { bytes, .. }) if bytes == b"held"));

    bench.fabric.cut(a, b);
    bench.send(0, 1, "lost");
    for node in [0, 1] {
        assert!(matches!(bench.event(node, 20).await, Some(NetworkEvent::Broken(_))), "n{node}");
    }
    assert!(!bench.fabric.passes(a, b));
    bench.fabric.heal(a, b);
    for node in [0, 1] {
        assert!(matches!(bench.event(node, 20).await, Some(NetworkEvent::Connected(_))), "n{node}");
    }
    assert_eq!(bench.messages(1).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_is_missed_at_once_and_a_host_only_after_a_while() {
    let mut bench = bench(3, Mode::Streams, 3).await;
    bench.send(0, 1, "last words");
    let began = Instant::now();
    let (process, host) = (bench.keys[0], bench.keys[2]);
    bench.fabric.detach(process, Death::Process);
    assert!(matches!(bench.event(1, 1).await, Some(NetworkEvent::Message { .. })), "what was sent before still comes");
    assert!(matches!(bench.event(1, 1).await, Some(NetworkEvent::Broken(key)) if key == process));
    assert!(began.elapsed() < Duration::from_secs(1));
    bench.fabric.detach(host, Death::Host);
    assert!(bench.event(1, 3).await.is_none());
    assert!(matches!(bench.event(1, 20).await, Some(NetworkEvent::Broken(key)) if key == host));
}

#[tokio::test(start_paused = true)]
async fn whom_one_end_does_not_admit_is_cut_and_stays_out() {
    let mut bench = bench(3, Mode::Streams, 4).await;
    let (stays, removed) = (bench.keys[1], bench.keys[2]);
    bench.nets[0].members(vec![Arc::new(Peer { key: stays, addresses: Vec::new() })]);
    for node in [0, 2] {
        assert!(matches!(bench.event(node, 1).await, Some(NetworkEvent::Broken(_))), "n{node}");
    }
    bench.send(2, 0, "let me in");
    assert!(bench.event(0, 20).await.is_none());
    assert!(!bench.fabric.passes(bench.keys[0], removed));
    assert_eq!(bench.fabric.dropped(), 1, "the message was dropped for want of a connection");
}

#[tokio::test(start_paused = true)]
async fn a_partition_separates_the_sides_and_only_them() {
    let mut bench = bench(4, Mode::Streams, 5).await;
    let side = [bench.keys[0], bench.keys[1]];
    bench.fabric.partition(&side);
    for (a, b) in [(0, 1), (2, 3)] {
        assert!(bench.fabric.passes(bench.keys[a], bench.keys[b]));
    }
    for (a, b) in [(0, 2), (1, 3)] {
        assert!(!bench.fabric.passes(bench.keys[a], bench.keys[b]));
    }
    bench.send(0, 1, "near");
    assert_eq!(bench.messages(1).await, ["near"]);
    bench.fabric.heal_all();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(bench.fabric.passes(bench.keys[0], bench.keys[3]));
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_sends_nothing() {
    let mut bench = bench(2, Mode::Streams, 6).await;
    bench.nets[0].life.end();
    bench.send(0, 1, "from the grave");
    assert_eq!(bench.messages(1).await, Vec::<String>::new());
}
