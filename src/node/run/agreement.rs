//! The ledger in this process: its database opened, started, founded where that is due. Wiring.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{RunError, WIND_DOWN, random};
use crate::ids::NodeKey;
use crate::ledger::raft::network::Wire;
use crate::ledger::raft::store::Store as LedgerStore;
use crate::ledger::raft::{Ledger, Running, Settings, Stopped};
use crate::node::clock::SystemClock;
use crate::node::engine::Stored;
use crate::node::engine::effect::{Change, Table};
use crate::node::layout::Layout;
use crate::node::shells::Clock;
use crate::node::store::Store;

/// How often the end of the writing thread is looked for: it takes a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The row that says that this node has had a ledger's database.
const LEDGER: &[u8] = b"ledger";

/// Opens the ledger's database. One that was there and is not any more is missed: without it this node would have forgotten its vote.
pub(super) fn open(layout: &Layout, store: &Store, stored: &Stored) -> Result<LedgerStore, RunError> {
    let path = layout.ledger();
    let has_had = stored.contains_key(&(Table::Meta, LEDGER.to_vec()));
    if has_had && !path.exists() {
        return Err(RunError::LedgerGone(path));
    }
    let opened = LedgerStore::open(&path)?;
    if !has_had {
        store.write(&[Change { table: Table::Meta, key: LEDGER.to_vec(), value: Some(vec![1]) }])?;
    }
    Ok(opened)
}

/// What runs of it.
pub(super) struct Agreement {
    ledger: Ledger,
    running: Running,
    writer: JoinHandle<()>,
}

impl Agreement {
    /// Starts it; the founder of the cluster founds the ledger too, if it was not done yet.
    pub(super) async fn start(
        me: NodeKey,
        store: LedgerStore,
        wire: Arc<dyn Wire>,
        founds: bool,
    ) -> Result<Self, RunError> {
        let (log, machines, writer) = store.run();
        let settings = Settings::new(me, u64::from_le_bytes(random()?));
        let clock = Arc::new(|| SystemClock.now());
        let (ledger, running) = Ledger::start(settings, (log, machines), wire, clock).await?;
        if founds && let Err(cause) = ledger.found().await {
            tracing::debug!(%cause, "the ledger stands already");
        }
        Ok(Self { ledger, running, writer })
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Waits until it cannot go on.
    pub(super) async fn ended(&mut self) -> Stopped {
        match self.running.ended().await {
            Err(stopped) => stopped,
            Ok(()) => Stopped("it ended without being told to".to_owned()),
        }
    }

    /// Ends it. What was confirmed is on the disk.
    pub(super) async fn stop(self) {
        self.running.stop().await;
        drop(self.ledger);
        // The writing thread closes the database with the last who could hand it anything: an answer that is still under way.
        let closed = async {
            while !self.writer.is_finished() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(WIND_DOWN, closed).await.is_err() {
            tracing::debug!("the ledger's database was left open");
        }
    }
}
