//! Three shelves on one network, no engine.

use super::*;
use std::sync::Arc;

use tokio::time::timeout;

use narun::node::engine::effect::Peer;
use narun::node::shells::Network;

use crate::network::{Death, Mode, SimNetwork};
use crate::random;

const SIZE: u64 = 4 << 20;

struct Bench {
    fabric: Fabric,
    keys: Vec<NodeKey>,
    shelves: Vec<Shelf>,
    events: mpsc::Receiver<Input>,
    blobs: SimBlobs,
    hash: BlobHash,
}

/// Three connected hosts; the last two hold a blob, the first is asked to fetch it.
async fn bench() -> Bench {
    let trace = Trace::new();
    let keys: Vec<NodeKey> = (0..3).map(|n| NodeKey([n; 32])).collect();
    let hosts = keys.iter().map(|key| (*key, format!("n{}", key.0[0]))).collect();
    let fabric = Fabric::new(hosts, Mode::Streams, random::stream(1, "network"), trace.clone());
    let all = Shelves::default();
    let mut shelves = Vec::new();
    for key in &keys {
        let (name, life, inputs) = (fabric.name(key), Life::new(), mpsc::channel(64).0);
        shelves.push(Shelf::new(&name, *key, Layout::new("/"), fabric.clone(), &all, trace.clone()));
        fabric.attach(*key, inputs, crate::network::tests::door(), life.clone());
        let mut net = SimNetwork { fabric: fabric.clone(), key: *key, life, host: name, trace: trace.clone() };
        net.members(keys.iter().map(|key| Arc::new(Peer { key: *key, addresses: Vec::new() })).collect());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let hash = BlobHash::of(b"program");
    for shelf in &shelves[1..] {
        shelf.put(hash, SIZE);
    }
    let (inputs, events) = mpsc::channel(64);
    let life = Life::new();
    shelves[0].attach(inputs);
    let blobs = SimBlobs { shelf: shelves[0].clone(), life };
    let mut bench = Bench { fabric, keys, shelves, events, blobs, hash };
    assert!(matches!(bench.event().await, Some(BlobEvent::Holding(held)) if held.is_empty()));
    bench
}

impl Bench {
    async fn event(&mut self) -> Option<BlobEvent> {
        match timeout(Duration::from_secs(60), self.events.recv()).await.ok()?? {
            Input::Blob(event) => Some(event),
            other => panic!("the shelf made {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_fetched_in_the_time_its_size_takes_then_made_executable_then_swept() {
    let mut bench = bench().await;
    let began = tokio::time::Instant::now();
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[1]]);
    assert!(matches!(bench.event().await, Some(BlobEvent::Stored(..))));
    assert!(began.elapsed() >= Duration::from_millis(SIZE / BYTES_PER_MS));
    bench.blobs.make_executable(bench.hash);
    assert!(matches!(bench.event().await, Some(BlobEvent::Executable(_))));
    bench.shelves[0].may_run(&Layout::new("/").executable(&bench.hash)).unwrap();
    bench.blobs.sweep(bench.hash);
    assert!(!bench.shelves[0].holds(&bench.hash));
    bench.blobs.make_executable(bench.hash);
    assert!(matches!(bench.event().await, Some(BlobEvent::ExecutableFailed(..))));
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_and_a_dying_source_are_passed_over() {
    let mut bench = bench().await;
    bench.shelves[1].set_corrupts(true);
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[1], bench.keys[2]]);
    assert!(matches!(bench.event().await, Some(BlobEvent::Stored(..))));
    bench.blobs.sweep(bench.hash);

    bench.shelves[1].set_corrupts(false);
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[1]]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[2]]);
    bench.fabric.detach(bench.keys[1], Death::Host);
    assert!(matches!(bench.event().await, Some(BlobEvent::Stored(..))));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_a_good_source_gives_up_with_the_reason_and_keeps_what_it_has() {
    let mut bench = bench().await;
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[1]]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    bench.fabric.partition(&bench.keys[..1]);
    let failed = bench.event().await;
    assert!(matches!(&failed, Some(BlobEvent::FetchFailed(_, reason)) if reason == "n1 does not answer"), "{failed:?}");
    bench.fabric.heal_all();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = tokio::time::Instant::now();
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[2]]);
    assert!(matches!(bench.event().await, Some(BlobEvent::Stored(..))));
    assert!(began.elapsed() < Duration::from_millis(SIZE / BYTES_PER_MS), "it went on where it stopped");
    bench.blobs.fetch(BlobHash::of(b"unknown"), 1, vec![bench.keys[1]]);
    let failed = bench.event().await;
    assert!(
        matches!(&failed, Some(BlobEvent::FetchFailed(_, reason)) if reason == "n1 does not hold it"),
        "{failed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ends_with_the_process_that_asked_for_it() {
    let mut bench = bench().await;
    bench.blobs.fetch(bench.hash, SIZE, vec![bench.keys[1]]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.blobs.life.end();
    assert!(bench.event().await.is_none());
    assert!(!bench.shelves[0].holds(&bench.hash));
}
