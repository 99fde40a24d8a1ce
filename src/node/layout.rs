//! Where things stand in a data directory. Pure: paths only, nothing is looked up.

use std::path::{Path, PathBuf};

use crate::ids::{BlobHash, InstanceId};

/// A data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The data directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Locked by the node that uses the directory.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The node's secret key.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    /// The engine's state.
    pub fn database(&self) -> PathBuf {
        self.root.join("catalog.redb")
    }

    /// What this node has of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.redb")
    }

    /// Why this node is no member any more, for people; there only when it is none.
    pub fn gone(&self) -> PathBuf {
        self.root.join("gone.txt")
    }

    /// Where key and database of a former membership are put aside, by the second when that was done.
    pub fn former(&self, at: u64) -> PathBuf {
        self.root.join(format!("former-{at}"))
    }

    /// The API's socket.
    pub fn api_socket(&self) -> PathBuf {
        self.root.join("narun.sock")
    }

    /// The keeper's socket.
    pub fn keeper_socket(&self) -> PathBuf {
        self.root.join("keeper.sock")
    }

    /// What the keeper prints about itself.
    pub fn keeper_log(&self) -> PathBuf {
        self.root.join("keeper.log")
    }

    /// The blob store.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Verified executables.
    pub fn executables(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The verified executable of one blob.
    pub fn executable(&self, hash: &BlobHash) -> PathBuf {
        self.executables().join(hash.to_string())
    }

    /// Uploads and other unfinished files.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// All working directories, one an instance.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// The working directory of an instance.
    pub fn work_dir(&self, instance: &InstanceId) -> PathBuf {
        self.instances().join(instance.to_string())
    }

    /// All log folders, one an instance.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log segments of an instance.
    pub fn log_dir(&self, instance: &InstanceId) -> PathBuf {
        self.logs().join(instance.to_string())
    }
}
