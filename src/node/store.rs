//! The node's database. Shell: it writes what it is given and decides nothing.
//!
//! One redb file, one thread that writes to it. Batches that wait while a commit is under way share the next one (group commit), so
//! that the cost of a sync is paid once for many writes. A batch is confirmed when redb has synced it to the disk.

use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::mpsc;

use super::engine::Stored;
use super::engine::effect::{Change, Committed, Table};
use super::shells::{Disk, DiskError};
use crate::database::{self, FORMAT, failure};

pub use crate::database::StoreError;

/// How many batches may wait for the writing thread. It takes all that wait into one commit, so this is reached only when one
/// sync takes longer than a thousand turns of the engine.
const BATCHES_MAX: usize = 1_024;

/// The row that holds [`FORMAT`].
const FORMAT_ROW: &[u8] = b"format";

/// The node's database, open.
pub struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens the database at `path`, makes it where there is none, and checks all of it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = database::open(path)?;
        Ok(Self { path: path.to_owned(), database })
    }

    /// All rows.
    pub fn read(&self) -> Result<Stored, StoreError> {
        let stored = self.read_rows().map_err(|error| failure(&self.path, error))?;
        match stored.get(&(Table::Meta, FORMAT_ROW.to_vec())).map(Vec::as_slice) {
            None | Some([FORMAT]) => Ok(stored),
            Some([found]) => Err(StoreError::Newer { path: self.path.clone(), found: *found }),
            Some(_) => Err(self.damaged("the row `format` is damaged")),
        }
    }

    /// This database is damaged, in the words of whoever found out.
    pub fn damaged(&self, cause: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), cause: cause.to_string() }
    }

    fn read_rows(&self) -> Result<Stored, redb::Error> {
        let mut stored = Stored::new();
        let transaction = self.database.begin_read()?;
        for table in Table::ALL {
            match transaction.open_table(definition(table)) {
                Ok(rows) => {
                    for row in rows.iter()? {
                        let (key, value) = row?;
                        stored.insert((table, key.value().to_vec()), value.value().to_vec());
                    }
                }
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(stored)
    }

    /// Writes changes and waits until they are durable. For the start of a node; a running one writes through [`Store::run`].
    pub fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let format = Change { table: Table::Meta, key: FORMAT_ROW.to_vec(), value: Some(vec![FORMAT]) };
        write(&self.database, changes.iter().chain([&format])).map_err(|error| failure(&self.path, error))
    }

    /// Hands the database to a thread of its own, which ends when the writer is dropped.
    pub fn run(self) -> (StoreWriter, JoinHandle<()>) {
        let (batches, waiting) = blocking::sync_channel(BATCHES_MAX);
        let (confirm, confirmed) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("narun-store".into());
        let handle = thread.spawn(move || self.serve(&waiting, &confirm)).expect("a thread can be started at start");
        (StoreWriter { batches, confirmed }, handle)
    }

    fn serve(
        &self,
        waiting: &blocking::Receiver<Vec<Change>>,
        confirm: &mpsc::UnboundedSender<Result<Committed, DiskError>>,
    ) {
        while let Ok(first) = waiting.recv() {
            let mut batches = vec![first];
            batches.extend(waiting.try_iter());
            let changes = batches.iter().flatten();
            let written = if batches.iter().all(Vec::is_empty) { Ok(()) } else { write(&self.database, changes) };
            for _ in &batches {
                let result = match &written {
                    Ok(()) => Ok(Committed::after_sync()),
                    Err(error) => Err(DiskError(error.to_string())),
                };
                // Nobody listens any more: the node is stopping, and what was promised is on the disk.
                if confirm.send(result).is_err() {
                    return;
                }
            }
        }
    }
}

/// The way to the writing thread.
pub struct StoreWriter {
    batches: blocking::SyncSender<Vec<Change>>,
    /// As long as the queue of batches, which is bounded.
    confirmed: mpsc::UnboundedReceiver<Result<Committed, DiskError>>,
}

impl Disk for StoreWriter {
    fn commit(&mut self, changes: Vec<Change>) {
        // Fails only when the thread is gone, and then `confirmed` says so.
        let _ = self.batches.send(changes);
    }

    async fn confirmed(&mut self) -> Result<Committed, DiskError> {
        self.confirmed.recv().await.unwrap_or_else(|| Err(DiskError("its writing thread has ended".into())))
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

fn write<'a>(database: &Database, changes: impl Iterator<Item = &'a Change>) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // Opening after a crash then needs no walk over the whole file.
    transaction.set_quick_repair(true);
    for change in changes {
        let mut table = transaction.open_table(definition(change.table))?;
        match &change.value {
            Some(value) => table.insert(&change.key[..], &value[..])?,
            None => table.remove(&change.key[..])?,
        };
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &[u8], value: Option<&[u8]>) -> Change {
        Change { table: Table::Catalog, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    #[tokio::test]
    async fn what_was_confirmed_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let (mut writer, thread) = Store::open(&path).unwrap().run();
        writer.commit(vec![change(b"a", Some(b"1")), change(b"b", Some(b"2"))]);
        writer.commit(vec![change(b"a", None)]);
        writer.commit(vec![]);
        for _ in 0..3 {
            writer.confirmed().await.unwrap();
        }
        drop(writer);
        thread.join().unwrap();
        let stored = Store::open(&path).unwrap().read().unwrap();
        assert_eq!(stored.get(&(Table::Catalog, b"b".to_vec())), Some(&b"2".to_vec()));
        assert_eq!(stored.len(), 1);
    }

    #[test]
    fn a_database_is_open_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let _first = Store::open(&path).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    }

    #[test]
    fn damage_anywhere_is_told_or_harmless_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let rows: Vec<Change> = (0..200_u32).map(|n| change(&n.to_be_bytes(), Some(&[7; 500]))).collect();
        let store = Store::open(&path).unwrap();
        store.write(&rows).unwrap();
        let whole = store.read().unwrap();
        drop(store);
        let good = std::fs::read(&path).unwrap();
        let mut told = 0;
        for at in (0..good.len()).step_by(good.len() / 60) {
            let mut bad = good.clone();
            let end = (at + 4096).min(bad.len());
            bad[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
            std::fs::write(&path, &bad).unwrap();
            match Store::open(&path).and_then(|store| store.read()) {
                Ok(stored) => assert_eq!(stored, whole, "rows differ after damage at {at}"),
                Err(error) => {
                    told += 1;
                    assert!(error.to_string().contains("catalog.redb"), "{error}");
                }
            }
        }
        assert!(told > 0, "no damage was noticed");
        std::fs::write(&path, b"this is no database").unwrap();
        let error = Store::open(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_later_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let store = Store::open(&path).unwrap();
        store.write(&[]).unwrap();
        let later = Change { table: Table::Meta, key: FORMAT_ROW.to_vec(), value: Some(vec![9]) };
        write(&store.database, [&later].into_iter()).unwrap();
        assert!(matches!(store.read(), Err(StoreError::Newer { found: 9, .. })));
    }
}
