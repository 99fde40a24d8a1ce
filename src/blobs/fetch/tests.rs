//! Real stores, real transports, and members that do not behave.

use std::sync::atomic::AtomicUsize;

use iroh_blobs::protocol::Request;
use iroh_blobs::provider::events::EventSender;
use iroh_blobs::provider::{StreamPair as Pair, handle_get};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::blobs::provide;
use crate::blobs::shell::BlobShell;
use crate::gossip::transport::TransportConfig;
use crate::node::engine::effect::Peer;
use crate::node::engine::input::{BlobEvent, Input};
use crate::node::identity::Identity;
use crate::node::layout::Layout;
use crate::node::shells::Blobs;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

struct Node {
    folder: TempDir,
    key: NodeKey,
    transport: Transport,
    store: BlobStore,
    /// How many blob streams it was asked for, where it does not behave.
    asked: Arc<AtomicUsize>,
    _inputs: mpsc::Receiver<Input>,
}

/// How a member does not behave.
#[derive(Clone, Copy)]
enum Trick {
    None,
    /// Ends each answer after so many bytes.
    Cut(u64),
    /// Changes the byte at this place of each answer.
    Flip(u64),
    /// Sends nothing more after so many bytes.
    Stall(u64),
}

impl Node {
    async fn start(trick: Trick) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate();
        let (sender, inputs) = mpsc::channel(64);
        let config = TransportConfig { identity: identity.clone(), listen: "127.0.0.1:0".parse().unwrap() };
        let transport = Transport::start(config, sender).await.unwrap();
        let store = BlobStore::open(&Layout::new(folder.path())).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        tokio::spawn(serve(transport.clone(), store.clone(), trick, asked.clone()));
        Self { folder, key: identity.key(), transport, store, asked, _inputs: inputs }
    }

    fn peer(&self) -> Peer {
        Peer { key: self.key, addresses: vec![self.transport.listen_address().to_string()] }
    }

    async fn holds(&self, bytes: &[u8]) -> BlobHash {
        self.store.import_reader(bytes, u64::MAX).await.unwrap().0
    }

    async fn fetches(&self, hash: BlobHash, size: u64, from: &[&Node]) -> Result<Fetched, FetchError> {
        let (sender, sources) = mpsc::unbounded_channel();
        from.iter().for_each(|node| sender.send(node.key).unwrap());
        timeout(PATIENCE, fetch(&self.transport, &self.store, hash, size, sources)).await.expect("a fetch has an end")
    }
}

async fn serve(transport: Transport, store: BlobStore, trick: Trick, asked: Arc<AtomicUsize>) {
    if let Trick::None = trick {
        return provide::serve(&transport, store).await;
    }
    let mut incoming = transport.accept(Protocol::Blobs);
    while let Some((_, mut stream)) = incoming.next().await {
        asked.fetch_add(1, Ordering::SeqCst);
        let store = store.clone();
        tokio::spawn(async move {
            let (mut near, far) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                let (reader, writer) = tokio::io::split(far);
                let halves = (Receiver::new(reader, PATIENCE), Sender::new(writer, PATIENCE));
                let mut pair = Pair::new(0, halves.0, halves.1, EventSender::DEFAULT);
                let Ok(Request::Get(request)) = pair.read_request().await else { return };
                let _ = handle_get(pair, store.iroh().clone().into(), request).await;
            });
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            near.write_all(&request).await.unwrap();
            near.shutdown().await.unwrap();
            let mut at = 0;
            let mut buffer = vec![0; 16 << 10];
            loop {
                let read = near.read(&mut buffer).await.unwrap();
                let bytes = &mut buffer[..read];
                let here = at..at + read as u64;
                match trick {
                    Trick::Cut(place) if place < here.end => return,
                    Trick::Stall(place) if place < here.end => return std::future::pending().await,
                    Trick::Flip(place) if here.contains(&place) => bytes[(place - at) as usize] ^= 1,
                    _ => {}
                }
                if read == 0 || stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
                    let _ = stream.shutdown().await;
                    return;
                }
                at = here.end;
            }
        });
    }
}

fn acquaint(nodes: &[&Node]) {
    let peers: Vec<Peer> = nodes.iter().map(|node| node.peer()).collect();
    nodes.iter().for_each(|node| node.transport.set_members(peers.clone()));
}

fn noise(length: u64, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

async fn assert_whole(node: &Node, bytes: &[u8]) {
    let hash = BlobHash::of(bytes);
    assert!(node.store.has(&hash));
    let path = node.store.make_executable(&hash).await.unwrap();
    assert!(std::fs::read(path).unwrap() == bytes, "other bytes");
}

#[tokio::test]
async fn a_blob_passes_from_store_to_store_to_store() {
    let [one, two, three] =
        [Node::start(Trick::None).await, Node::start(Trick::None).await, Node::start(Trick::None).await];
    acquaint(&[&one, &two, &three]);
    for (seed, size) in [(1, 1), (2, 16 << 10), (3, (16 << 10) + 1), (4, MIB + 1), (5, 40 * MIB + 12_345)] {
        let bytes = noise(size, seed);
        let hash = one.holds(&bytes).await;
        let fetched = two.fetches(hash, size, &[&one]).await.unwrap();
        assert!(fetched.moved >= size && fetched.moved < size + size / 50 + 10_000, "{fetched:?} for {size}");
        assert_whole(&two, &bytes).await;
        three.fetches(hash, size, &[&one, &two]).await.unwrap();
        assert_whole(&three, &bytes).await;
        assert_eq!(three.fetches(hash, size, &[&one]).await.unwrap(), Fetched { moved: 0 });
    }
}

#[tokio::test]
async fn a_transfer_that_was_cut_goes_on_where_it_stopped() {
    let (cutter, honest, one) =
        (Node::start(Trick::Cut(10 * MIB)).await, Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&cutter, &honest, &one]);
    let (size, bytes) = (15 * MIB, noise(15 * MIB, 1));
    let hash = cutter.holds(&bytes).await;
    honest.holds(&bytes).await;
    let error = one.fetches(hash, size, &[&cutter]).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::NoGiver { failures, .. } if matches!(failures[..], [(_, GiverFault::Broken(_))]))
    );
    assert!(!one.store.has(&hash) && one.store.list().is_empty(), "a part is not listed");

    // Also after a restart of the node.
    one.store.shutdown().await;
    let Node { folder, key, transport, asked, _inputs, .. } = one;
    let store = BlobStore::open(&Layout::new(folder.path())).await.unwrap();
    let one = Node { folder, key, transport, store, asked, _inputs };
    let fetched = one.fetches(hash, size, &[&honest]).await.unwrap();
    assert!(fetched.moved < 6 * MIB, "{fetched:?}: nearly 10 MiB were here");
    assert_whole(&one, &bytes).await;
}

#[tokio::test]
async fn a_member_that_sends_wrong_bytes_is_not_asked_again() {
    let (liar, honest, one) =
        (Node::start(Trick::Flip(5 * MIB)).await, Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&liar, &honest, &one]);
    let (size, bytes) = (40 * MIB, noise(40 * MIB, 1));
    let hash = liar.holds(&bytes).await;
    let error = one.fetches(hash, size, &[&liar]).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::NoGiver { failures, .. } if matches!(failures[..], [(_, GiverFault::Wrong(_))]))
    );
    assert!(error.to_string().contains(&liar.key.short()), "{error}");
    assert!(!one.store.has(&hash));
    assert_eq!(liar.asked.load(Ordering::SeqCst), 1);

    honest.holds(&bytes).await;
    one.fetches(hash, size, &[&liar, &honest]).await.unwrap();
    assert_whole(&one, &bytes).await;
    assert_eq!(liar.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_member_that_claims_another_size_is_wrong() {
    let (liar, one) = (Node::start(Trick::Flip(1)).await, Node::start(Trick::None).await);
    acquaint(&[&liar, &one]);
    let bytes = noise(MIB, 1);
    let hash = liar.holds(&bytes).await;
    let error = one.fetches(hash, MIB, &[&liar]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("claims a size of 1048832 bytes; the blob has 1048576"), "{text}");
}

#[tokio::test]
async fn a_member_that_dies_or_stalls_is_replaced() {
    let (cutter, staller) = (Node::start(Trick::Cut(2 * MIB)).await, Node::start(Trick::Stall(2 * MIB)).await);
    let (honest, one) = (Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&cutter, &staller, &honest, &one]);
    let (size, bytes) = (40 * MIB, noise(40 * MIB, 1));
    let hash = honest.holds(&bytes).await;
    cutter.holds(&bytes).await;
    staller.holds(&bytes).await;
    one.fetches(hash, size, &[&cutter, &staller, &honest]).await.unwrap();
    assert_whole(&one, &bytes).await;
    assert_eq!((cutter.asked.load(Ordering::SeqCst), staller.asked.load(Ordering::SeqCst)), (1, 1));

    // Its whole host goes while it gives.
    let bytes = noise(64 * MIB, 2);
    let hash = honest.holds(&bytes).await;
    one.transport.set_members(vec![honest.peer(), staller.peer()]);
    let givers = [&honest];
    let fetching = one.fetches(hash, 64 * MIB, &givers);
    let dying = async {
        while !one.store.data_path(&hash).exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        honest.transport.stop().await;
    };
    let (fetched, ()) = tokio::join!(fetching, dying);
    assert!(matches!(fetched.unwrap_err(), FetchError::NoGiver { .. }));
    assert!(!one.store.has(&hash));
}

#[tokio::test]
async fn what_nobody_has_fails_at_once_and_says_who_was_asked() {
    let (one, two, gone) =
        (Node::start(Trick::None).await, Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&one, &two, &gone]);
    gone.transport.stop().await;
    let hash = BlobHash::of(b"never seen");
    let error = one.fetches(hash, 10, &[&two, &gone]).await.unwrap_err();
    let FetchError::NoGiver { failures, .. } = &error else { panic!("{error}") };
    assert!(failures.contains(&(two.key, GiverFault::Lacks)), "{error}");
    assert!(failures.iter().any(|(key, fault)| *key == gone.key && matches!(fault, GiverFault::Broken(_))), "{error}");
    let error = one.fetches(hash, 10, &[]).await.unwrap_err();
    assert!(error.to_string().contains("none is known to have it"), "{error}");
}

#[tokio::test]
async fn a_part_that_was_damaged_on_the_disk_never_becomes_whole() {
    let (cutter, honest, one) =
        (Node::start(Trick::Cut(2 * MIB)).await, Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&cutter, &honest, &one]);
    let (size, bytes) = (4 * MIB, noise(4 * MIB, 1));
    let hash = cutter.holds(&bytes).await;
    honest.holds(&bytes).await;
    one.fetches(hash, size, &[&cutter]).await.unwrap_err();
    let file = std::fs::File::options().write(true).open(one.store.data_path(&hash)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", MIB).unwrap();
    let error = one.fetches(hash, size, &[&honest]).await.unwrap_err();
    assert!(matches!(error, FetchError::Here(BlobError::Damaged { .. })), "{error}");
    assert!(!one.store.has(&hash));
}

#[tokio::test]
async fn only_whole_blobs_are_given() {
    let (cutter, part, one) =
        (Node::start(Trick::Cut(2 * MIB)).await, Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&cutter, &part, &one]);
    let hash = cutter.holds(&noise(4 * MIB, 1)).await;
    part.fetches(hash, 4 * MIB, &[&cutter]).await.unwrap_err();
    let error = one.fetches(hash, 4 * MIB, &[&part]).await.unwrap_err();
    assert!(matches!(&error, FetchError::NoGiver { failures, .. } if failures[..] == [(part.key, GiverFault::Lacks)]));
}

async fn event(inputs: &mut mpsc::Receiver<Input>) -> BlobEvent {
    match timeout(PATIENCE, inputs.recv()).await.expect("no event in time") {
        Some(Input::Blob(event)) => event,
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn the_shell_reports_what_has_become_of_each_request() {
    let (staller, honest, one) =
        (Node::start(Trick::Stall(0)).await, Node::start(Trick::None).await, Node::start(Trick::None).await);
    acquaint(&[&staller, &honest, &one]);
    let bytes = noise(3 * MIB, 1);
    let hash = honest.holds(&bytes).await;
    staller.holds(&bytes).await;
    let (sender, mut inputs) = mpsc::channel(16);
    let mut shell = BlobShell::new(one.transport.clone(), one.store.clone(), sender);
    shell.report_holding().await;
    assert!(matches!(event(&mut inputs).await, BlobEvent::Holding(held) if held.is_empty()));

    shell.make_executable(hash);
    assert!(
        matches!(event(&mut inputs).await, BlobEvent::ExecutableFailed(of, why) if of == hash && why.contains("not on this node"))
    );

    // The second call adds a source to the fetch under way; it is reported once.
    shell.fetch(hash, 3 * MIB, vec![staller.key]);
    shell.fetch(hash, 3 * MIB, vec![staller.key, honest.key]);
    assert!(matches!(event(&mut inputs).await, BlobEvent::Stored(of, size) if (of, size) == (hash, 3 * MIB)));
    assert_eq!(staller.asked.load(Ordering::SeqCst), 1);
    shell.make_executable(hash);
    assert!(matches!(event(&mut inputs).await, BlobEvent::Executable(of) if of == hash));

    shell.sweep(hash);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while one.store.has(&hash) {
        assert!(tokio::time::Instant::now() < deadline, "not swept");
        tokio::task::yield_now().await;
    }
    assert!(!Layout::new(one.folder.path()).executable(&hash).exists());
    let unknown = BlobHash::of(b"unknown");
    shell.fetch(unknown, 7, vec![honest.key]);
    assert!(
        matches!(event(&mut inputs).await, BlobEvent::FetchFailed(of, why) if of == unknown && why.contains("does not have it"))
    );
    assert!(inputs.try_recv().is_err(), "nothing is reported twice");
}
