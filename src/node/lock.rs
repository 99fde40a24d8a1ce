//! One node for each data directory. Shell.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// A data directory that is this process's alone while this value lives (flock(2)).
#[derive(Debug)]
pub struct DataDirLock {
    _file: Flock<File>,
}

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A node uses it.
    #[error(
        "the data directory {dir} is in use by another node{owner}\n`narun stop` ends it; `--data-dir` names another directory"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Its process, if it could be read.
        owner: String,
    },
    /// The file system failed.
    #[error("cannot lock the data directory with {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
}

impl DataDirLock {
    /// Takes the directory whose lock file is `path`.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let io = |cause| LockError::Io { path: path.to_owned(), cause };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
                writeln!(file, "{}", std::process::id()).map_err(io)?;
                Ok(Self { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // Who it is only helps the reader: the directory is taken in any case.
                let _ = file.read_to_string(&mut text);
                let owner =
                    text.trim().parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
                Err(LockError::InUse { dir: path.parent().unwrap_or(path).to_owned(), owner })
            }
            Err((_, errno)) => Err(io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_node_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = DataDirLock::take(&path).unwrap();
        let error = DataDirLock::take(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DataDirLock::take(&path).unwrap();
    }
}
