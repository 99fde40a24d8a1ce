//! openraft's own suite for what it stores through, over every kind of ground that the store stands on.

use std::path::Path;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use redb::backends::InMemoryBackend;

use crate::ids::NodeKey;
use crate::ledger::raft::types::TypeConfig;

use super::{Log, Machines, Store, Writing};

/// The suite numbers nodes.
impl From<u64> for NodeKey {
    fn from(number: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Self(key)
    }
}

/// A file, and a thread that writes to it.
struct OnFile;

impl StoreBuilder<TypeConfig, Log, Machines, tempfile::TempDir> for OnFile {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machines), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machines, _thread) = Store::open(&dir.path().join("ledger.redb")).unwrap().run();
        Ok((dir, log, machines))
    }
}

/// Memory, and a task that takes its time.
struct InMemory;

impl StoreBuilder<TypeConfig, Log, Machines, Writing> for InMemory {
    async fn build(&self) -> Result<(Writing, Log, Machines), StorageError<TypeConfig>> {
        let store = Store::open_on(InMemoryBackend::new(), Path::new("memory")).unwrap();
        let (log, machines, writing) = store.run_in_task(Box::new(|| Duration::from_millis(2)));
        Ok((writing, log, machines))
    }
}

#[tokio::test]
async fn a_file_is_what_openraft_asks_for() {
    Suite::test_all(OnFile).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn memory_in_simulated_time_is_what_openraft_asks_for() {
    Suite::test_all(InMemory).await.unwrap();
}
