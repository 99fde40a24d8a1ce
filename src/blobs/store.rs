//! The blobs on this node's disk: whole and durable, or not there. Shell, over `iroh-blobs`.
//!
//! A blob counts as *whole* when the store's database holds a tag `whole/<hash>/<size>` for it. That tag is set last: after
//! every byte was verified, and its files and folders were synced. What a crash leaves without the tag is not listed, served
//! or run; the part of a fetch keeps a tag `part/<hash>` so that the next fetch goes on where it stopped. The store's own
//! collection, run now and then, removes what has neither.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures::StreamExt;
use iroh_blobs::store::GcConfig;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::fs::options::Options;
use iroh_blobs::{Hash, HashAndFormat};
use nix::sys::statvfs::statvfs;

use crate::ids::BlobHash;
use crate::node::layout::Layout;

use super::import::Imports;

/// How much of the disk an import or a fetch leaves free: the databases of this node have to go on, and a full disk would
/// stop them.
pub const DISK_RESERVE: u64 = 4 << 20;

/// How often the store removes what has no tag.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

const WHOLE: &str = "whole/";
const PART: &str = "part/";

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store cannot be opened.
    #[error("cannot open the blob store `{}`: {cause}", path.display())]
    Open {
        /// Its folder.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The disk is full, or would be.
    #[error("the disk of `{}` is full: {wanted} more bytes are needed and {free} are free", path.display())]
    Full {
        /// The data directory.
        path: PathBuf,
        /// The blob's, and the reserve.
        wanted: u64,
        /// What may be used.
        free: u64,
    },
    /// What was imported is longer than allowed.
    #[error("it is longer than {0} bytes, the most that is allowed")]
    TooLong(u64),
    /// What was imported could not be read to its end.
    #[error("it could not be read to its end: {0}")]
    Source(io::Error),
    /// A file cannot be written, read or synced.
    #[error("cannot {what} `{}`: {cause}", path.display())]
    File {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The store failed.
    #[error("the blob store cannot {what}: {cause}")]
    Store {
        /// The step.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// There is no such blob here.
    #[error("blob {} is not on this node", .0.short())]
    Missing(BlobHash),
    /// The blob's bytes on this disk are not what they were.
    #[error("blob {} is damaged on this disk: its bytes hash to {found}; it was removed", hash.short())]
    Damaged {
        /// What it should be.
        hash: BlobHash,
        /// What it is.
        found: String,
    },
}

/// The store; cheap to clone. [`BlobStore::shutdown`] before the process ends.
#[derive(Clone, Debug)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    store: FsStore,
    /// The tags' content: what is whole, with its size in bytes.
    whole: RwLock<BTreeMap<BlobHash, u64>>,
    imports: Imports,
}

impl BlobStore {
    /// Opens the store of a data directory, or makes a new one. Fails when another process has it open.
    pub async fn open(layout: &Layout) -> Result<Self, BlobError> {
        Self::open_collecting(layout, COLLECT_EVERY).await
    }

    async fn open_collecting(layout: &Layout, collect_every: Duration) -> Result<Self, BlobError> {
        let root = layout.blobs();
        for folder in [root.clone(), layout.executables(), layout.scratch()] {
            fs::create_dir_all(&folder).map_err(|cause| file("create", &folder, cause))?;
        }
        clear(&root.join("temp"));
        let mut options = Options::new(&root);
        options.gc = Some(GcConfig { interval: collect_every, add_protected: None });
        let store = FsStore::load_with_opts(root.join("blobs.db"), options)
            .await
            .map_err(|error| BlobError::Open { path: root, cause: error.to_string() })?;
        let whole = RwLock::new(BTreeMap::new());
        let inner = Inner { layout: layout.clone(), store, whole, imports: Imports::default() };
        let this = Self { inner: Arc::new(inner) };
        this.read_tags().await?;
        Ok(this)
    }

    /// Whether the blob is whole here.
    pub fn has(&self, hash: &BlobHash) -> bool {
        self.whole().contains_key(hash)
    }

    /// Its size in bytes, if it is whole here.
    pub fn size(&self, hash: &BlobHash) -> Option<u64> {
        self.whole().get(hash).copied()
    }

    /// All whole blobs with their sizes in bytes.
    pub fn list(&self) -> Vec<(BlobHash, u64)> {
        self.whole().iter().map(|(hash, size)| (*hash, *size)).collect()
    }

    /// Removes a blob, whole or part, and its executable. Its bytes leave the disk within a minute.
    pub async fn remove(&self, hash: &BlobHash) -> Result<(), BlobError> {
        let path = self.layout().executable(hash);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(file("remove", &path, cause)),
        }
        let size = self.whole_mut().remove(hash);
        if let Some(size) = size {
            self.delete_tag(whole_tag(hash, size)).await?;
        }
        self.delete_tag(part_tag(hash)).await?;
        self.sync_db().await
    }

    /// Writes everything out and closes the database.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.store.shutdown().await {
            tracing::warn!(%error, "the blob store did not close in order; it checks itself at the next start");
        }
    }
}

/// For the other files of this folder.
impl BlobStore {
    pub(super) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(super) fn iroh(&self) -> &FsStore {
        &self.inner.store
    }

    pub(super) fn imports(&self) -> &Imports {
        &self.inner.imports
    }

    /// The folder where the store puts what is being imported, under names of its own.
    pub(super) fn unfinished_imports(&self) -> PathBuf {
        self.layout().blobs().join("temp")
    }

    /// The file that holds the blob's bytes; the smallest ones stand in the database instead.
    pub(super) fn data_path(&self, hash: &BlobHash) -> PathBuf {
        self.layout().blobs().join("data").join(format!("{hash}.data"))
    }

    /// Fails when `wanted` more bytes would leave less than [`DISK_RESERVE`].
    pub(super) fn check_space(&self, wanted: u64) -> Result<(), BlobError> {
        let path = self.layout().root();
        let stat = statvfs(path).map_err(|errno| file("ask for the free space of", path, errno.into()))?;
        // The types differ between platforms.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size()));
        let wanted = wanted.saturating_add(DISK_RESERVE);
        if free < wanted {
            return Err(BlobError::Full { path: path.to_owned(), wanted, free });
        }
        Ok(())
    }

    /// From now on what there is of the blob survives a restart, so that its fetch can go on.
    pub(super) async fn keep_part(&self, hash: &BlobHash) -> Result<(), BlobError> {
        self.set_tag(part_tag(hash), hash).await
    }

    /// Makes a blob whole whose every byte was verified: syncs its files, then says so durably.
    pub(super) async fn seal(&self, hash: &BlobHash, size: u64) -> Result<(), BlobError> {
        let data = self.data_path(hash);
        tokio::task::spawn_blocking(move || sync_blob_files(&data)).await.expect("syncing files does not panic")?;
        self.set_tag(whole_tag(hash, size), hash).await?;
        self.delete_tag(part_tag(hash)).await?;
        self.sync_db().await?;
        self.whole_mut().insert(*hash, size);
        Ok(())
    }

    fn whole(&self) -> RwLockReadGuard<'_, BTreeMap<BlobHash, u64>> {
        self.inner.whole.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn whole_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<BlobHash, u64>> {
        self.inner.whole.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_tags(&self) -> Result<(), BlobError> {
        let failed = |error: &dyn Error| store_error("list its blobs", error);
        let mut tags = self.iroh().tags().list_prefix(WHOLE).await.map_err(|error| failed(&error))?;
        let mut lost = Vec::new();
        while let Some(tag) = tags.next().await {
            let name = tag.map_err(|error| failed(&error))?.name.0;
            let Some((hash, size)) = parse_whole_tag(&name) else {
                tracing::warn!(tag = %String::from_utf8_lossy(&name), "unknown tag in the blob store");
                continue;
            };
            let inlined = size <= Options::new(Path::new("")).inline.max_data_inlined;
            // Somebody may have tidied up behind our back.
            if inlined || fs::metadata(self.data_path(&hash)).is_ok_and(|data| data.len() == size) {
                self.whole_mut().insert(hash, size);
            } else {
                lost.push((hash, size));
            }
        }
        for (hash, size) in lost {
            tracing::error!(blob = %hash, "its file is gone or was cut: the blob is taken for lost");
            self.delete_tag(whole_tag(&hash, size)).await?;
        }
        Ok(())
    }

    async fn set_tag(&self, name: String, hash: &BlobHash) -> Result<(), BlobError> {
        let value = HashAndFormat::raw(iroh_hash(hash));
        let set = self.iroh().tags().set(name, value).await;
        set.map_err(|error| store_error("write a tag", &error))
    }

    async fn delete_tag(&self, name: String) -> Result<(), BlobError> {
        let deleted = self.iroh().tags().delete(name).await;
        deleted.map(|_| ()).map_err(|error| store_error("delete a tag", &error))
    }

    /// Returns once all writes before it are on the disk.
    async fn sync_db(&self) -> Result<(), BlobError> {
        self.iroh().sync_db().await.map_err(|error| store_error("sync its database", &error))
    }
}

pub(super) fn iroh_hash(hash: &BlobHash) -> Hash {
    Hash::from_bytes(hash.0)
}

fn whole_tag(hash: &BlobHash, size: u64) -> String {
    format!("{WHOLE}{hash}/{size}")
}

fn part_tag(hash: &BlobHash) -> String {
    format!("{PART}{hash}")
}

fn parse_whole_tag(name: &[u8]) -> Option<(BlobHash, u64)> {
    let (hash, size) = std::str::from_utf8(name).ok()?.strip_prefix(WHOLE)?.split_once('/')?;
    Some((hash.parse().ok()?, size.parse().ok()?))
}

pub(super) fn file(what: &'static str, path: &Path, cause: io::Error) -> BlobError {
    BlobError::File { what, path: path.to_owned(), cause }
}

pub(super) fn store_error(what: &'static str, error: &dyn Error) -> BlobError {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !cause.contains(&text) {
            cause = format!("{cause}: {text}");
        }
        source = inner.source();
    }
    BlobError::Store { what, cause }
}

/// The data, its hash tree, and the names of both.
fn sync_blob_files(data: &Path) -> Result<(), BlobError> {
    for path in [data.to_owned(), data.with_extension("obao4")] {
        match File::open(&path) {
            Ok(open) => open.sync_all().map_err(|cause| file("sync", &path, cause))?,
            // Small ones stand in the database.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(file("open", &path, cause)),
        }
    }
    for folder in data.ancestors().skip(1).take(2) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| file("sync", folder, cause))?;
    }
    Ok(())
}

/// Removes the files of a folder. What cannot be removed takes room and does no other harm.
pub(super) fn clear(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what an import left");
        }
    }
}

#[cfg(test)]
mod tests;
