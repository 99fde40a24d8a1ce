//! The ledger's database: the log, the vote, and the last snapshot of the machine. Shell.
//!
//! One redb database, `ledger.redb`, with one writer. What waits while a commit is under way shares the next one, so that five hundred
//! claims in a second share a few syncs. Raft is told that something is written after the sync, never before.
//!
//! Entries since the last snapshot are held in memory as well: Raft reads an entry as soon as it is handed over, before it is on
//! the disk, and openraft counts it only when it is told of the sync.

mod log;
pub mod recover;
mod rows;
mod state;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(in crate::ledger) mod faulty;
#[cfg(test)]
mod torn;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;

use crate::database::{self, StoreError};

pub use log::{APPEND_LEN_MAX, Log};
pub use state::{Applied, Machines};
pub use writer::{Pace, Writing};

/// The ledger's database, open and read.
pub struct Store {
    path: PathBuf,
    database: redb::Database,
    contents: rows::Contents,
}

/// Why the bytes of a row are not what they should be.
type Cause = String;

impl Store {
    /// Opens the database at `path`, makes it where there is none, checks all of it and reads it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::read(database::open(path)?, path)
    }

    /// The same on something else than a file; `name` stands in errors.
    pub fn open_on(backend: impl StorageBackend, name: &Path) -> Result<Self, StoreError> {
        Self::read(database::open_on(backend, name)?, name)
    }

    fn read(database: redb::Database, path: &Path) -> Result<Self, StoreError> {
        let contents = rows::read(&database, path)?;
        Ok(Self { path: path.to_owned(), database, contents })
    }

    /// Hands the database to a thread of its own, which ends when log and machine are dropped.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn run(self) -> (Log, Machines, std::thread::JoinHandle<()>) {
        let (jobs, waiting) = writer::queue();
        let database = Arc::new(self.database);
        let (log, machines) = parts(self.contents, &self.path, &database, jobs);
        let thread = std::thread::Builder::new().name("narun-ledger".into());
        let handle = thread.spawn(move || writer::serve(&database, waiting)).expect("a thread can be started at start");
        (log, machines, handle)
    }

    /// The same by a task and without a thread, for simulated time: `pace` says how long the disk takes, once before a commit
    /// and once after it. Dropping what is given back is a crash: what waits is lost.
    pub fn run_in_task(self, pace: Pace) -> (Log, Machines, Writing) {
        let (jobs, waiting) = writer::queue();
        let database = Arc::new(self.database);
        let (log, machines) = parts(self.contents, &self.path, &database, jobs);
        (log, machines, Writing::new(tokio::spawn(writer::serve_paced(database, waiting, pace))))
    }
}

fn parts(contents: rows::Contents, path: &Path, database: &Arc<redb::Database>, jobs: writer::Jobs) -> (Log, Machines) {
    let machines = Machines::new(contents.snapshot, path, database.clone(), jobs.clone());
    (Log::new(contents.log, jobs), machines)
}
