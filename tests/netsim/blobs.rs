//! The pretend blob store of a host: no bytes, only which blobs are whole here, and how long it takes to fetch one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;

use narun::ids::{BlobHash, NodeKey};
use narun::node::engine::input::{BlobEvent, Input};
use narun::node::layout::Layout;
use narun::node::shells::Blobs;

use crate::life::Life;
use crate::network::Fabric;
use crate::outbox::Outbox;
use crate::trace::Trace;

/// How many bytes pass between two hosts in one millisecond: 100 Mbit/s.
const BYTES_PER_MS: u64 = 12_500;

/// In what pieces a blob is fetched: after each it is looked at whether its source is still there.
const PIECE_LEN: u64 = 1 << 18;

/// How long a silent source is waited for.
const SILENCE: Duration = Duration::from_secs(10);

/// What one host holds; cheap to clone. It outlives the node's process and the host's power.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<Inner>);

struct Inner {
    host: String,
    key: NodeKey,
    layout: Layout,
    world: Option<(Fabric, Shelves)>,
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    whole: BTreeMap<BlobHash, u64>,
    executables: BTreeSet<BlobHash>,
    /// How much of a blob has been fetched and verified.
    parts: BTreeMap<BlobHash, u64>,
    /// Fetches under way, with the sources that were not tried yet.
    fetching: BTreeMap<BlobHash, Vec<NodeKey>>,
    node: Option<Node>,
    corrupts: bool,
}

/// The ways to a node's process.
struct Node {
    outbox: Outbox,
    inputs: mpsc::Sender<Input>,
}

/// The shelves of all hosts.
pub(crate) type Shelves = Arc<Mutex<BTreeMap<NodeKey, Shelf>>>;

impl Shelf {
    /// An empty shelf, which it puts among the others.
    pub(crate) fn new(host: &str, key: NodeKey, layout: Layout, fabric: Fabric, all: &Shelves, trace: Trace) -> Self {
        let world = Some((fabric, all.clone()));
        let state = Mutex::default();
        let shelf = Self(Arc::new(Inner { host: host.to_owned(), key, layout, world, trace, state }));
        all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, shelf.clone());
        shelf
    }

    /// A shelf without others.
    pub(crate) fn alone(host: &str, layout: Layout, trace: Trace) -> Self {
        let (key, state) = (NodeKey([0; 32]), Mutex::default());
        Self(Arc::new(Inner { host: host.to_owned(), key, layout, world: None, trace, state }))
    }

    /// A node's process came up, and is told what is whole.
    pub(crate) fn attach(&self, inputs: mpsc::Sender<Input>) {
        let mut state = self.lock();
        let outbox = Outbox::new(inputs.clone());
        let holding = state.whole.iter().map(|(hash, size)| (*hash, *size)).collect();
        outbox.put(Input::Blob(BlobEvent::Holding(holding)));
        state.fetching.clear();
        state.node = Some(Node { outbox, inputs });
    }

    /// A blob lies here, as if it had come long ago.
    pub(crate) fn put(&self, hash: BlobHash, size: u64) {
        self.lock().whole.insert(hash, size);
        self.tell(BlobEvent::Stored(hash, size));
    }

    /// A blob comes from a user: it is whole, and the loop has been told, before this returns and a deploy is asked for.
    pub(crate) async fn import(&self, hash: BlobHash, size: u64) {
        let inputs = {
            let mut state = self.lock();
            state.whole.insert(hash, size);
            state.node.as_ref().map(|node| node.inputs.clone())
        };
        self.0.trace.record(&self.0.host, &format!("imported {}", hash.short()), &[]);
        if let Some(inputs) = inputs {
            // A node that has ended in the meantime will find the blob when it starts.
            let _ = inputs.send(Input::Blob(BlobEvent::Stored(hash, size))).await;
        }
    }

    /// Whether this blob is whole here.
    pub(crate) fn holds(&self, hash: &BlobHash) -> bool {
        self.lock().whole.contains_key(hash)
    }

    /// From now on this host sends wrong bytes, or right ones again.
    pub(crate) fn set_corrupts(&self, corrupts: bool) {
        self.lock().corrupts = corrupts;
    }

    /// Whether the file is a verified executable of a blob that is whole; why not.
    pub(crate) fn may_run(&self, binary: &Path) -> Result<(), String> {
        let state = self.lock();
        let whole = state.whole.keys().find(|hash| self.0.layout.executable(hash) == binary);
        match whole {
            Some(hash) if state.executables.contains(hash) => Ok(()),
            Some(hash) => Err(format!("`{}` was not made executable", hash.short())),
            None => Err(format!("{} is not of a blob that is whole here", binary.display())),
        }
    }

    pub(crate) fn make_executable_now(&self, hash: BlobHash) {
        self.lock().executables.insert(hash);
    }

    /// Fetches piece by piece, from one source after the other, until the blob is whole or no source is left.
    async fn fetch(self, hash: BlobHash, size: u64, life: Arc<Life>) {
        let mut reason = "no member holds it".to_owned();
        while let Some(source) = self.next_source(&hash) {
            match self.fetch_from(source, hash, size, &life).await {
                Ok(()) if life.is_over() => return,
                Ok(()) => {
                    let mut state = self.lock();
                    state.fetching.remove(&hash);
                    state.parts.remove(&hash);
                    state.whole.insert(hash, size);
                    drop(state);
                    return self.tell(BlobEvent::Stored(hash, size));
                }
                Err(error) => reason = error,
            }
            if life.is_over() {
                return;
            }
        }
        self.lock().fetching.remove(&hash);
        self.tell(BlobEvent::FetchFailed(hash, reason));
    }

    fn next_source(&self, hash: &BlobHash) -> Option<NodeKey> {
        let mut state = self.lock();
        let sources = state.fetching.get_mut(hash)?;
        if sources.is_empty() { None } else { Some(sources.remove(0)) }
    }

    async fn fetch_from(&self, source: NodeKey, hash: BlobHash, size: u64, life: &Life) -> Result<(), String> {
        let (fabric, all) = self.0.world.as_ref().expect("a shelf that stands alone fetches nothing");
        let name = fabric.name(&source);
        loop {
            let left = size - self.lock().parts.get(&hash).copied().unwrap_or(0);
            if left == 0 || life.is_over() {
                return Ok(());
            }
            let piece = left.min(PIECE_LEN);
            tokio::time::sleep(Duration::from_millis(2 + piece / BYTES_PER_MS)).await;
            let shelf = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&source).cloned();
            let Some(shelf) = shelf.filter(|_| fabric.passes(self.0.key, source)) else {
                tokio::time::sleep(SILENCE).await;
                return Err(format!("{name} does not answer"));
            };
            let (held, corrupts) = {
                let theirs = shelf.lock();
                (theirs.whole.contains_key(&hash), theirs.corrupts)
            };
            if !held {
                return Err(format!("{name} does not hold it"));
            }
            if corrupts {
                return Err(format!("{name} sent wrong bytes"));
            }
            *self.lock().parts.entry(hash).or_default() += piece;
        }
    }

    fn tell(&self, event: BlobEvent) {
        let line = match &event {
            BlobEvent::Holding(held) => format!("blobs {}", held.len()),
            BlobEvent::Stored(hash, _) => format!("stored {}", hash.short()),
            BlobEvent::FetchFailed(hash, reason) => format!("cannot fetch {}: {reason}", hash.short()),
            BlobEvent::Executable(hash) => format!("executable {}", hash.short()),
            BlobEvent::ExecutableFailed(hash, reason) => format!("no executable {}: {reason}", hash.short()),
        };
        self.0.trace.record(&self.0.host, &line, &[]);
        if let Some(Node { outbox, .. }) = &self.lock().node {
            outbox.put(Input::Blob(event));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The way of one run of a node's process to its host's shelf.
pub(crate) struct SimBlobs {
    /// The shelf.
    pub(crate) shelf: Shelf,
    /// The process that asks.
    pub(crate) life: Arc<Life>,
}

impl SimBlobs {
    fn ask(&self, what: &str, hash: &BlobHash) -> bool {
        let acts = self.life.acts();
        if acts {
            self.shelf.0.trace.record(&self.shelf.0.host, &format!("{what} {}", hash.short()), &[]);
        }
        acts
    }
}

impl Blobs for SimBlobs {
    fn fetch(&mut self, hash: BlobHash, size: u64, from: Vec<NodeKey>) {
        if !self.ask("fetch", &hash) {
            return;
        }
        let shelf = self.shelf.clone();
        let mut state = shelf.lock();
        if state.whole.contains_key(&hash) {
            drop(state);
            return shelf.tell(BlobEvent::Stored(hash, size));
        }
        let new = !state.fetching.contains_key(&hash);
        let sources = state.fetching.entry(hash).or_default();
        for source in from {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        drop(state);
        if new {
            tokio::spawn(shelf.fetch(hash, size, self.life.clone()));
        }
    }

    fn make_executable(&mut self, hash: BlobHash) {
        if !self.ask("make executable", &hash) {
            return;
        }
        let (shelf, life) = (self.shelf.clone(), self.life.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(15)).await;
            if life.is_over() {
                return;
            }
            let whole = {
                let mut state = shelf.lock();
                let whole = state.whole.contains_key(&hash);
                if whole {
                    state.executables.insert(hash);
                }
                whole
            };
            shelf.tell(if whole {
                BlobEvent::Executable(hash)
            } else {
                BlobEvent::ExecutableFailed(hash, "the blob is not whole here".to_owned())
            });
        });
    }

    fn sweep(&mut self, hash: BlobHash) {
        if self.ask("sweep", &hash) {
            let mut state = self.shelf.lock();
            state.whole.remove(&hash);
            state.parts.remove(&hash);
            state.executables.remove(&hash);
        }
    }
}

mod tests;
