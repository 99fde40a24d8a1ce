//! A host's disk: batches become durable in order, after a while; a crash loses a tail of what was not yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use narun::node::engine::Stored;
use narun::node::engine::effect::{Change, Committed, Table};
use narun::node::shells::{Disk, DiskError};

use crate::life::{Fuse, Life};
use crate::random::{self, Stream};
use crate::trace::Trace;

/// Most batches that may wait to become durable. A batch costs at most one sync and one is handed over a turn, so more than
/// this is an engine that writes faster than any disk takes.
const UNSYNCED_MAX: usize = 2_048;

/// What stands on one host's disk. It outlives the node's process and the host's power.
pub(crate) struct Platter {
    rows: Stored,
    unsynced: VecDeque<Batch>,
    stream: Stream,
    speed: Speed,
    fails: bool,
}

/// How long a sync takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speed {
    /// A millisecond to ten.
    Ordinary,
    /// A tenth of a second to three seconds: a disk that is dying or shared.
    Slow,
}

struct Batch {
    changes: Vec<Change>,
    due: Instant,
}

impl Platter {
    /// An empty disk.
    pub(crate) fn new(stream: Stream) -> Arc<Mutex<Self>> {
        let (rows, unsynced) = (Stored::new(), VecDeque::new());
        Arc::new(Mutex::new(Self { rows, unsynced, stream, speed: Speed::Ordinary, fails: false }))
    }

    /// Writes rows at once and durably: what the binary does before it starts a node for the first time.
    pub(crate) fn install(&mut self, changes: Vec<Change>) {
        self.apply(changes);
    }

    /// The process or the host ended. Batches that were due are there; of the others some number of the oldest, or what `fuse`
    /// says.
    pub(crate) fn crash(&mut self, fuse: Option<Fuse>) {
        let now = Instant::now();
        let due = self.unsynced.iter().take_while(|batch| batch.due <= now).count();
        let kept = match fuse {
            Some(Fuse::NextCommit { survives: true } | Fuse::NextConfirmation) => self.unsynced.len(),
            Some(Fuse::NextCommit { survives: false }) => self.unsynced.len().saturating_sub(1),
            _ => self.stream.random_range(due..=self.unsynced.len()),
        };
        for batch in self.unsynced.drain(..).take(kept).collect::<Vec<_>>() {
            self.apply(batch.changes);
        }
        self.fails = false;
    }

    /// What is durable.
    pub(crate) fn rows(&self) -> Stored {
        self.rows.clone()
    }

    /// One table of what is durable.
    pub(crate) fn table(&self, table: Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let rows = self.rows.iter().filter(|((of, _), _)| *of == table);
        rows.map(|((_, key), row)| (key.clone(), row.clone())).collect()
    }

    /// It is a good disk again.
    pub(crate) fn repair(&mut self) {
        self.speed = Speed::Ordinary;
        self.fails = false;
    }

    /// From now on a sync takes that long.
    pub(crate) fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
    }

    /// How long a sync takes now.
    pub(crate) fn speed(&self) -> Speed {
        self.speed
    }

    /// The next sync fails.
    pub(crate) fn fail_next(&mut self) {
        self.fails = true;
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for Change { table, key, value } in changes {
            match value {
                Some(value) => self.rows.insert((table, key), value),
                None => self.rows.remove(&(table, key)),
            };
        }
    }

    /// Hands over one batch, to become durable after the ones before it.
    fn push(&mut self, changes: Vec<Change>) {
        let span = match self.speed {
            Speed::Ordinary => random::millis(&mut self.stream, 1, 10),
            Speed::Slow => random::millis(&mut self.stream, 100, 3_000),
        };
        // Group commit: a batch that comes while a sync is under way waits for the next one, and shares it with others.
        let after =
            self.unsynced.back().map_or(Duration::ZERO, |last| last.due.saturating_duration_since(Instant::now()));
        let due = Instant::now() + after + if after.is_zero() { span } else { span / 4 };
        self.unsynced.push_back(Batch { changes, due });
    }
}

/// The disk of one run of a node's process.
pub(crate) struct SimDisk {
    /// The host's disk.
    pub(crate) platter: Arc<Mutex<Platter>>,
    /// The process that writes.
    pub(crate) life: Arc<Life>,
    /// The host, for the record.
    pub(crate) host: String,
    /// Where it is recorded.
    pub(crate) trace: Trace,
}

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn commit(&mut self, changes: Vec<Change>) {
        if !self.life.acts() {
            return;
        }
        let mut bytes = Vec::new();
        for Change { table, key, value } in &changes {
            bytes.extend_from_slice(table.name().as_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value.as_deref().unwrap_or(b"-"));
        }
        self.trace.record(&self.host, &format!("commit {}", changes.len()), &bytes);
        let waiting = {
            let mut platter = self.lock();
            platter.push(changes);
            platter.unsynced.len()
        };
        if waiting > UNSYNCED_MAX {
            self.trace.violated("bounded", &format!("{waiting} batches wait for the disk of {}", self.host));
        }
        if matches!(self.life.fuse(), Some(Fuse::NextCommit { .. })) {
            self.life.end();
        }
    }

    async fn confirmed(&mut self) -> Result<Committed, DiskError> {
        let due = self.lock().unsynced.front().map(|batch| batch.due);
        match due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        if self.life.fuse() == Some(Fuse::NextConfirmation) {
            self.life.end();
        }
        if !self.life.acts() {
            return std::future::pending().await;
        }
        let mut platter = self.lock();
        if platter.fails {
            return Err(DiskError(format!("no space left on the disk of {}", self.host)));
        }
        let batch = platter.unsynced.pop_front().expect("only this disk takes batches away");
        platter.apply(batch.changes);
        drop(platter);
        self.trace.record(&self.host, "confirmed", &[]);
        Ok(Committed::after_sync())
    }
}

mod tests {
    use super::*;

    fn row(key: u8, value: Option<u8>) -> Change {
        Change { table: Table::Meta, key: vec![key], value: value.map(|value| vec![value]) }
    }

    fn disk(seed: u64) -> SimDisk {
        let platter = Platter::new(random::stream(seed, "disk"));
        SimDisk { platter, life: Life::new(), host: "n0".into(), trace: Trace::new() }
    }

    fn keys(stored: &Stored) -> Vec<u8> {
        stored.keys().map(|(_, key)| key[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_confirmed_survives_every_crash_and_of_the_rest_only_a_prefix() {
        let mut survivors = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = disk(seed);
            disk.commit(vec![row(0, Some(1))]);
            disk.confirmed().await.unwrap();
            for key in 1..5 {
                disk.commit(vec![row(key, Some(1))]);
            }
            disk.lock().crash(None);
            let keys = keys(&disk.lock().rows());
            assert_eq!(keys, (0..keys.len() as u8).collect::<Vec<_>>(), "seed {seed}");
            assert!(!keys.is_empty());
            survivors.insert(keys.len());
        }
        assert!(survivors.len() > 2, "crashes lose tails of different lengths: {survivors:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_confirmed_once_and_a_cancelled_wait_loses_nothing() {
        let mut disk = disk(1);
        disk.commit(vec![row(1, Some(1))]);
        disk.commit(vec![row(1, None), row(2, Some(2))]);
        let short = Duration::from_micros(10);
        assert!(tokio::time::timeout(short, disk.confirmed()).await.is_err());
        disk.confirmed().await.unwrap();
        disk.confirmed().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), disk.confirmed()).await.is_err());
        assert_eq!(keys(&disk.lock().rows()), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_fuse_ends_the_process_where_it_says() {
        for (fuse, survives) in [
            (Fuse::NextCommit { survives: false }, false),
            (Fuse::NextCommit { survives: true }, true),
            (Fuse::NextConfirmation, true),
        ] {
            let mut disk = disk(2);
            disk.life.light(fuse);
            disk.commit(vec![row(7, Some(1))]);
            assert_eq!(disk.life.is_over(), fuse != Fuse::NextConfirmation, "{fuse:?}");
            assert!(tokio::time::timeout(Duration::from_secs(9), disk.confirmed()).await.is_err(), "{fuse:?}");
            assert!(disk.life.is_over());
            disk.lock().crash(Some(fuse));
            assert_eq!(keys(&disk.lock().rows()) == [7], survives, "{fuse:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_disk_says_so() {
        let mut disk = disk(3);
        disk.commit(vec![row(7, Some(1))]);
        disk.lock().fail_next();
        let error = disk.confirmed().await.unwrap_err();
        assert!(error.to_string().contains("no space left on the disk of n0"), "{error}");
    }
}
