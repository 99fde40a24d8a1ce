//! Verified programs: `bin/<hash>`, mode 0555. Shell.
//!
//! A program is made beside its place, hashed as it stands on the disk, synced, and renamed: under that name there is never
//! anything but the blob's bytes. Once at each start of the node all of them are hashed again.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::ids::BlobHash;

use super::store::{BlobError, BlobStore, file, iroh_hash, store_error};

/// Everybody may run it, nobody may write it.
const MODE: u32 = 0o555;

/// What was found at a start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Ready to run; those that were made again among them.
    pub sound: Vec<BlobHash>,
    /// Damaged, and made again from their blobs.
    pub remade: Vec<BlobHash>,
    /// Damaged and removed: their blobs are not whole here.
    pub removed: Vec<BlobHash>,
}

impl BlobStore {
    /// Makes `bin/<hash>`, or checks the one that is there. A blob that turns out to be damaged is removed.
    pub async fn make_executable(&self, hash: &BlobHash) -> Result<PathBuf, BlobError> {
        let target = self.layout().executable(hash);
        if check(&target, hash).await? == Found::Sound {
            return Ok(target);
        }
        let size = self.size(hash).ok_or(BlobError::Missing(*hash))?;
        self.check_space(size)?;
        let unfinished = Unfinished(self.layout().scratch().join(format!("executable-{hash}")));
        // The store refuses to go on with a file that is there only if it cannot write to it.
        remove(&unfinished.0)?;
        let exported = self.iroh().export(iroh_hash(hash), &unfinished.0).await;
        if let Err(error) = exported {
            // What it says it has it cannot give.
            self.remove(hash).await?;
            return Err(store_error("give out a blob", &error));
        }
        if let Found::Damaged(found) = check_in_the_making(&unfinished.0, hash).await? {
            self.remove(hash).await?;
            return Err(BlobError::Damaged { hash: *hash, found });
        }
        let (from, to) = (unfinished.0.clone(), target.clone());
        blocking(move || {
            let failed = |cause| file("make", &to, cause);
            fs::set_permissions(&from, Permissions::from_mode(MODE)).map_err(failed)?;
            File::open(&from).and_then(|made| made.sync_all()).map_err(failed)?;
            fs::rename(&from, &to).map_err(failed)?;
            let folder = to.parent().expect("it stands in `bin`");
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| file("sync", folder, cause))
        })
        .await?;
        tracing::info!(blob = %hash.short(), "executable made");
        Ok(target)
    }

    /// Hashes every executable again; damaged ones are removed, and made again where their blobs are whole.
    pub async fn verify_executables(&self) -> Result<Verified, BlobError> {
        let folder = self.layout().executables();
        let mut verified = Verified::default();
        let entries = fs::read_dir(&folder).map_err(|cause| file("list", &folder, cause))?;
        for entry in entries {
            let path = entry.map_err(|cause| file("list", &folder, cause))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(hash) = name.and_then(|name| name.parse::<BlobHash>().ok()) else {
                tracing::warn!(path = %path.display(), "not made by narun: left alone");
                continue;
            };
            match check(&path, &hash).await? {
                Found::Sound => verified.sound.push(hash),
                Found::Nothing => {}
                Found::Damaged(found) => {
                    tracing::error!(blob = %hash, found, "damaged executable: removing it");
                    remove(&path)?;
                    match self.make_executable(&hash).await {
                        Ok(_) => {
                            verified.sound.push(hash);
                            verified.remade.push(hash);
                        }
                        Err(error) => {
                            tracing::error!(blob = %hash, %error, "cannot make it again");
                            verified.removed.push(hash);
                        }
                    }
                }
            }
        }
        Ok(verified)
    }
}

/// What stands under a name.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    Sound,
    Damaged(String),
}

/// A finished executable must have its mode as well.
async fn check(path: &Path, hash: &BlobHash) -> Result<Found, BlobError> {
    match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(cause) => Err(file("examine", path, cause)),
        Ok(metadata) if !metadata.is_file() => Ok(Found::Damaged("something that is no file".to_owned())),
        Ok(metadata) if metadata.permissions().mode() & 0o7777 != MODE => {
            let mode = metadata.permissions().mode() & 0o7777;
            Ok(Found::Damaged(format!("a file of mode {mode:04o}")))
        }
        Ok(_) => check_in_the_making(path, hash).await,
    }
}

async fn check_in_the_making(path: &Path, hash: &BlobHash) -> Result<Found, BlobError> {
    let found = hash_file(path.to_owned()).await?;
    Ok(if found == *hash { Found::Sound } else { Found::Damaged(found.to_string()) })
}

/// The hash of a file as it stands on the disk.
pub(super) async fn hash_file(path: PathBuf) -> Result<BlobHash, BlobError> {
    blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let hashed = File::open(&path).and_then(|open| hasher.update_reader(open).map(|_| ()));
        hashed.map_err(|cause| file("read", &path, cause))?;
        Ok(BlobHash(*hasher.finalize().as_bytes()))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn remove(path: &Path) -> Result<(), BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(file("remove", path, cause)),
    }
}

/// A file that is removed again unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed, or never made: nothing to do. Otherwise the next try replaces it.
        let _ = fs::remove_file(&self.0);
    }
}
