//! Making a new ledger group out of what a stopped node has. Wiring, over `ledger::raft::store::recover`.

use std::path::{Path, PathBuf};

use super::clock::SystemClock;
use super::identity::{Identity, IdentityError};
use super::layout::Layout;
use super::lock::{DataDirLock, LockError};
use super::shells::Clock;
use crate::database::StoreError;
use crate::ids::NodeKey;
use crate::ledger::raft::store::recover::{self, Remains};

/// Why a ledger cannot be recovered; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// There is no node in that directory.
    #[error("no node has lived in {0}")]
    NoNode(PathBuf),
    /// The node runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its key cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ledger's database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A stopped node, held so that nobody starts it meanwhile.
pub struct Recovery {
    layout: Layout,
    own: NodeKey,
    _lock: DataDirLock,
}

impl Recovery {
    /// Takes the node of a data directory.
    pub fn of(data_dir: &Path) -> Result<Self, RecoveryError> {
        let layout = Layout::new(data_dir);
        if !layout.identity().exists() {
            return Err(RecoveryError::NoNode(data_dir.to_owned()));
        }
        let lock = DataDirLock::take(&layout.lock())?;
        let own = Identity::load_or_create(&layout.identity())?.key();
        Ok(Self { layout, own, _lock: lock })
    }

    /// What it has of the ledger; none: it never voted.
    pub fn remains(&self) -> Result<Option<Remains>, RecoveryError> {
        Ok(recover::remains(&self.layout.ledger())?)
    }

    /// Makes it the only voter of a new group.
    pub fn carry_out(&self) -> Result<(), RecoveryError> {
        Ok(recover::recover(&self.layout.ledger(), self.own, SystemClock.now().wall)?)
    }
}
