//! The databases of a node, opened with care. Shell: redb files, or anything that redb can stand on.
//!
//! A node has two: `catalog.redb` (`node/store`) and `ledger.redb` (`ledger/raft/store`).

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use redb::{Database, StorageBackend};

/// Cache of a database, in bytes: all of it is read once, at start.
const CACHE_LEN: usize = 8 << 20;

/// The version of both databases' form; stands in the row `format` of the table `meta`.
pub const FORMAT: u8 = 1;

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the database {0} is in use by another process")]
    InUse(PathBuf),
    /// Its content is damaged.
    #[error(
        "the database {path} is damaged: {cause}\nnothing was changed; move the data directory away and join the cluster \
         again with a new ticket, or bring the file back from a copy"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database says.
        cause: String,
    },
    /// It was written by a later version.
    #[error("the database {path} has format {found}, this narun reads format {FORMAT}\nupgrade narun on this host")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
    },
    /// The disk failed.
    #[error("cannot use the database {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
}

/// Opens the database at `path`, makes it where there is none, and checks all of it.
pub fn open(path: &Path) -> Result<Database, StoreError> {
    if !path.exists() {
        create(path)?;
    }
    checked(path, || Database::builder().set_cache_size(CACHE_LEN).create(path))
}

/// Makes an empty database, whole or not at all: redb writes the head of a file last, and refuses one that has none, as a power cut in
/// between leaves it.
fn create(path: &Path) -> Result<(), StoreError> {
    let io = |error: std::io::Error| StoreError::Io { path: path.to_owned(), cause: error.to_string() };
    let unfinished = path.with_added_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    drop(Database::create(&unfinished).map_err(|error| failure(path, error.into()))?);
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&unfinished, path).map_err(io)?;
    // The new name is on the disk when its folder is (fsync(2)).
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// The same on something else than a file, which must not lose its power while it is empty; `name` stands in errors.
pub fn open_on(backend: impl StorageBackend, name: &Path) -> Result<Database, StoreError> {
    // What a panic leaves behind is the backend's, which is gone with it.
    let backend = AssertUnwindSafe(backend);
    checked(name, move || {
        let AssertUnwindSafe(backend) = { backend };
        Database::builder().set_cache_size(CACHE_LEN).create_with_backend(backend)
    })
}

fn checked(
    path: &Path,
    create: impl FnOnce() -> Result<Database, redb::DatabaseError> + UnwindSafe,
) -> Result<Database, StoreError> {
    // A damaged file can make the database panic where it expects what it wrote; that must not pass for a fault of narun's.
    let opened = quietly(|| -> Result<Database, redb::Error> {
        let mut database = create()?;
        database.check_integrity()?;
        Ok(database)
    });
    match opened {
        Ok(database) => database.map_err(|error| failure(path, error)),
        Err(_) => {
            let cause = "its pages contradict one another".to_owned();
            Err(StoreError::Damaged { path: path.to_owned(), cause })
        }
    }
}

/// Runs what may panic, and catches the panic without the report that belongs to faults of the program.
fn quietly<T>(work: impl FnOnce() -> T + UnwindSafe) -> std::thread::Result<T> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    // The hook is the whole process's; all other threads report their panics as before.
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                report(panic);
            }
        }));
    });
    QUIET.set(true);
    let done = std::panic::catch_unwind(work);
    QUIET.set(false);
    done
}

/// What a failure of the database at `path` is to an operator.
pub fn failure(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse(path),
        redb::Error::Corrupted(cause) => StoreError::Damaged { path, cause },
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Damaged { path, cause: error.to_string() }
        }
        redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => {
            StoreError::Damaged { path, cause: error.to_string() }
        }
        other => StoreError::Io { path, cause: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_of_a_new_database_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        // As redb leaves it before it writes the head.
        std::fs::write(path.with_added_extension("new"), vec![0; 1 << 20]).unwrap();
        drop(open(&path).unwrap());
        drop(open(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_database_without_its_head_is_damaged_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert!(matches!(open(&path), Err(StoreError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 1 << 20]);
    }
}
