//! The node's blobs, as the runtime asks for them. Shell: each request becomes a task, which reports when it is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::gossip::transport::Transport;
use crate::ids::{BlobHash, NodeKey};
use crate::node::engine::input::{BlobEvent, Input};
use crate::node::shells::Blobs;

use super::fetch::fetch;
use super::store::BlobStore;

/// How many blobs are fetched at once; each may come from several members. More would only share the same link.
pub const FETCHES_MAX: usize = 4;

/// How many executables are made at once: each hashes and copies as fast as a disk goes.
pub const EXECUTABLES_MAX: usize = 2;

/// Fetches, makes executables and sweeps. One task for each blob and kind, which waits its turn: there are as many as the
/// engine asks for, and it asks for a blob once.
#[derive(Clone, Debug)]
pub struct BlobShell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    store: BlobStore,
    inputs: mpsc::Sender<Input>,
    fetching: Semaphore,
    making: Semaphore,
    under_way: Mutex<BTreeMap<BlobHash, UnderWay>>,
}

/// A fetch that waits or runs.
#[derive(Debug)]
struct UnderWay {
    sources: mpsc::UnboundedSender<NodeKey>,
    task: AbortHandle,
}

impl BlobShell {
    /// Over an open store; reports to `inputs`.
    pub fn new(transport: Transport, store: BlobStore, inputs: mpsc::Sender<Input>) -> Self {
        let (fetching, making) = (Semaphore::new(FETCHES_MAX), Semaphore::new(EXECUTABLES_MAX));
        let shared = Shared { transport, store, inputs, fetching, making, under_way: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Reports what is whole here: once, at the start.
    pub async fn report_holding(&self) {
        self.shared.report(BlobEvent::Holding(self.shared.store.list())).await;
    }
}

impl Blobs for BlobShell {
    fn fetch(&mut self, hash: BlobHash, size: u64, from: Vec<NodeKey>) {
        let mut under_way = self.shared.under_way();
        let entry = under_way.entry(hash).or_insert_with(|| {
            // Unbounded, but nothing is repeated: a fetch knows its members, of which there are some hundreds.
            let (sender, sources) = mpsc::unbounded_channel();
            let task = tokio::spawn(self.shared.clone().run_fetch(hash, size, sources));
            UnderWay { sources: sender, task: task.abort_handle() }
        });
        for member in from {
            // A fetch that ends at this moment is asked for again by the engine.
            let _ = entry.sources.send(member);
        }
    }

    fn make_executable(&mut self, hash: BlobHash) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let made = {
                let _turn = shared.making.acquire().await;
                shared.store.make_executable(&hash).await
            };
            shared
                .report(match made {
                    Ok(_) => BlobEvent::Executable(hash),
                    Err(error) => BlobEvent::ExecutableFailed(hash, error.to_string()),
                })
                .await;
        });
    }

    fn sweep(&mut self, hash: BlobHash) {
        if let Some(fetch) = self.shared.under_way().remove(&hash) {
            fetch.task.abort();
        }
        let shared = self.shared.clone();
        tokio::spawn(async move {
            match shared.store.remove(&hash).await {
                Ok(()) => tracing::info!(blob = %hash.short(), "swept"),
                // It stays listed, and is swept at another time.
                Err(error) => tracing::warn!(blob = %hash.short(), %error, "cannot sweep"),
            }
        });
    }
}

impl Shared {
    async fn run_fetch(self: Arc<Self>, hash: BlobHash, size: u64, sources: mpsc::UnboundedReceiver<NodeKey>) {
        let fetched = {
            let _turn = self.fetching.acquire().await;
            fetch(&self.transport, &self.store, hash, size, sources).await
        };
        // Before the report: whoever hears of the failure may ask anew at once.
        self.under_way().remove(&hash);
        self.report(match fetched {
            Ok(_) => BlobEvent::Stored(hash, size),
            Err(error) => BlobEvent::FetchFailed(hash, error.to_string()),
        })
        .await;
    }

    async fn report(&self, event: BlobEvent) {
        // The runtime is gone: nobody wants to know.
        let _ = self.inputs.send(Input::Blob(event)).await;
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<BlobHash, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
