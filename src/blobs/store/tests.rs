//! A real store in a temporary folder, and on a small disk of its own.

use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use nix::mount::{MsFlags, mount, umount};
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep};

use super::*;
use crate::blobs::import::CHUNK_LEN;
use crate::skip::skip;

const PATIENCE: Duration = Duration::from_secs(30);
const ANY_SIZE: u64 = u64::MAX;

async fn store() -> (TempDir, BlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(&Layout::new(folder.path())).await.unwrap();
    (folder, store)
}

/// Bytes that compress to nothing and differ everywhere.
fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn files_in(folder: PathBuf) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

#[tokio::test]
async fn blobs_of_every_size_are_taken_in_and_outlive_the_node() {
    let (folder, store) = store().await;
    let mut expected = Vec::new();
    for (seed, length) in [0, 1, 1024, 16 << 10, (16 << 10) + 1, (1 << 20) + 7, 5 << 20].into_iter().enumerate() {
        let bytes = noise(length, seed as u8);
        let imported = store.import_reader(&bytes[..], ANY_SIZE).await.unwrap();
        assert_eq!(imported, (BlobHash::of(&bytes), length as u64));
        assert!(store.has(&imported.0));
        expected.push(imported);
    }
    expected.sort();
    assert_eq!(store.list(), expected);
    // The same again changes nothing.
    store.import_reader(&noise(1024, 2)[..], ANY_SIZE).await.unwrap();
    assert_eq!(store.list(), expected);
    store.shutdown().await;
    drop(store);
    let again = BlobStore::open(&Layout::new(folder.path())).await.unwrap();
    assert_eq!(again.list(), expected);
}

/// What is durable is told by a copy of the folder as it stands: a crash at this moment would leave just that.
#[tokio::test]
async fn an_acknowledged_blob_is_on_the_disk() {
    let (folder, store) = store().await;
    let small = store.import_reader(&b"small"[..], ANY_SIZE).await.unwrap();
    let large = store.import_reader(&noise(1 << 20, 1)[..], ANY_SIZE).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    for part in ["blobs/data", "blobs"] {
        fs::create_dir_all(copy.path().join(part)).unwrap();
        for entry in fs::read_dir(folder.path().join(part)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.path().join(part).join(entry.file_name())).unwrap();
            }
        }
    }
    let after_crash = BlobStore::open(&Layout::new(copy.path())).await.unwrap();
    for (hash, size) in [small, large] {
        assert_eq!(after_crash.size(&hash), Some(size));
        after_crash.make_executable(&hash).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_long_leaves_nothing() {
    let (folder, store) = store().await;
    let bytes = noise(1 << 20, 1);
    let error = store.import_reader(&bytes[..], (1 << 20) - 1).await.unwrap_err();
    assert!(matches!(error, BlobError::TooLong(max) if max == (1 << 20) - 1), "{error}");
    assert_eq!(store.list(), []);
    assert_eq!(files_in(folder.path().join("blobs/temp")) + files_in(folder.path().join("blobs/data")), 0);
    store.import_reader(&bytes[..], 1 << 20).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (folder, store) = store().await;
    let bytes = noise(1 << 20, 1);
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(Bytes::from(bytes.clone())),
        Err(io::Error::from(io::ErrorKind::ConnectionReset)),
    ]));
    let error = store.import_reader(broken, ANY_SIZE).await.unwrap_err();
    assert!(matches!(&error, BlobError::Source(cause) if cause.kind() == io::ErrorKind::ConnectionReset));
    until("an empty folder", || files_in(folder.path().join("blobs/temp")) == 0).await;

    // The uploader's request is cancelled, in the middle of a blob whose end never comes.
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let importing = {
        let store = store.clone();
        tokio::spawn(async move { store.import_reader(reader, ANY_SIZE).await })
    };
    tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await.unwrap();
    until("a file being written", || files_in(folder.path().join("blobs/temp")) == 1).await;
    importing.abort();
    until("an empty folder", || files_in(folder.path().join("blobs/temp")) == 0).await;
    assert_eq!(store.list(), []);
}

#[tokio::test]
async fn a_removed_blob_is_gone_at_once_and_leaves_the_disk_soon() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path());
    let store = BlobStore::open_collecting(&layout, Duration::from_millis(50)).await.unwrap();
    let (kept, _) = store.import_reader(&noise(1 << 20, 1)[..], ANY_SIZE).await.unwrap();
    let (gone, _) = store.import_reader(&noise(1 << 20, 2)[..], ANY_SIZE).await.unwrap();
    store.make_executable(&gone).await.unwrap();
    store.remove(&gone).await.unwrap();
    store.remove(&gone).await.unwrap();
    assert_eq!(store.list(), [(kept, 1 << 20)]);
    assert!(!layout.executable(&gone).exists());
    until("its file gone", || !store.data_path(&gone).exists()).await;
    assert!(store.data_path(&kept).exists());
    store.make_executable(&kept).await.unwrap();
    // And it can come again.
    store.import_reader(&noise(1 << 20, 2)[..], ANY_SIZE).await.unwrap();
    store.make_executable(&gone).await.unwrap();
}

#[tokio::test]
async fn a_store_in_use_or_damaged_is_refused_by_name() {
    let (folder, store) = store().await;
    let layout = Layout::new(folder.path());
    let error = BlobStore::open(&layout).await.unwrap_err();
    assert!(error.to_string().contains(&layout.blobs().display().to_string()), "{error}");
    store.shutdown().await;
    drop(store);
    fs::write(layout.blobs().join("blobs.db"), b"this is no database, and it is long enough to see").unwrap();
    let error = BlobStore::open(&layout).await.unwrap_err();
    assert!(matches!(error, BlobError::Open { .. }), "{error}");
}

#[tokio::test]
async fn a_blob_whose_file_was_cut_is_taken_for_lost() {
    let (folder, store) = store().await;
    let (hash, _) = store.import_reader(&noise(1 << 20, 1)[..], ANY_SIZE).await.unwrap();
    let data = store.data_path(&hash);
    store.shutdown().await;
    drop(store);
    File::options().write(true).open(&data).unwrap().set_len(1000).unwrap();
    let store = BlobStore::open(&Layout::new(folder.path())).await.unwrap();
    assert_eq!(store.list(), []);
}

#[tokio::test]
async fn an_executable_is_the_blob_and_cannot_be_written() {
    let (folder, store) = store().await;
    for (seed, length) in [(1, 100), (2, 1 << 20)] {
        let bytes = noise(length, seed);
        let (hash, _) = store.import_reader(&bytes[..], ANY_SIZE).await.unwrap();
        let path = store.make_executable(&hash).await.unwrap();
        assert_eq!(path, Layout::new(folder.path()).executable(&hash));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o555);
        assert_eq!(store.make_executable(&hash).await.unwrap(), path, "a second time is no harm");
    }
    assert_eq!(files_in(folder.path().join("tmp")), 0);
    let missing = BlobHash([1; 32]);
    assert!(matches!(store.make_executable(&missing).await.unwrap_err(), BlobError::Missing(hash) if hash == missing));
}

#[tokio::test]
async fn damaged_executables_are_found_at_a_start_and_made_again() {
    let (folder, store) = store().await;
    let layout = Layout::new(folder.path());
    let mut hashes = Vec::new();
    for seed in 0..4 {
        let (hash, _) = store.import_reader(&noise(1 << 18, seed)[..], ANY_SIZE).await.unwrap();
        store.make_executable(&hash).await.unwrap();
        hashes.push(hash);
    }
    flip_a_byte(&layout.executable(&hashes[1]));
    fs::set_permissions(layout.executable(&hashes[2]), fs::Permissions::from_mode(0o755)).unwrap();
    // The blob of the last one is gone as well.
    store.remove(&hashes[3]).await.unwrap();
    fs::write(layout.executable(&hashes[3]), b"something else").unwrap();
    fs::write(layout.executables().join("README"), b"not ours").unwrap();

    let mut verified = store.verify_executables().await.unwrap();
    verified.sound.sort();
    verified.remade.sort();
    let mut sound = hashes[..3].to_vec();
    let mut remade = hashes[1..3].to_vec();
    sound.sort();
    remade.sort();
    assert_eq!((verified.sound, verified.remade, verified.removed), (sound, remade, vec![hashes[3]]));
    for seed in 0..3_u8 {
        assert_eq!(fs::read(layout.executable(&hashes[usize::from(seed)])).unwrap(), noise(1 << 18, seed));
    }
    assert!(!layout.executable(&hashes[3]).exists());
    assert!(layout.executables().join("README").exists());
}

#[tokio::test]
async fn a_blob_damaged_on_the_disk_becomes_no_executable() {
    let (folder, store) = store().await;
    let (hash, _) = store.import_reader(&noise(1 << 20, 1)[..], ANY_SIZE).await.unwrap();
    flip_a_byte(&store.data_path(&hash));
    let error = store.make_executable(&hash).await.unwrap_err();
    assert!(matches!(error, BlobError::Damaged { .. }), "{error}");
    assert!(!store.has(&hash), "it is not said to be here any more");
    assert!(!Layout::new(folder.path()).executable(&hash).exists());
    assert_eq!(files_in(folder.path().join("tmp")), 0);
    // A sound copy from outside is taken in its place.
    store.import_reader(&noise(1 << 20, 1)[..], ANY_SIZE).await.unwrap();
    store.make_executable(&hash).await.unwrap();
}

/// A file system of its own, of `size`, gone with the value. None where this process may not mount.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        match mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => Some(Self(folder)),
            Err(errno) => {
                skip(&format!("a full disk needs a file system of its own, and mounting one failed: {errno}"));
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(errno) = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {errno}", self.0.path().display());
        }
        let _ = umount(self.0.path());
    }
}

#[tokio::test]
async fn an_import_stops_before_the_disk_is_full() {
    let Some(disk) = SmallDisk::new("24m") else { return };
    let store = BlobStore::open(&Layout::new(disk.0.path())).await.unwrap();
    let error = store.import_reader(&noise(40 << 20, 1)[..], ANY_SIZE).await.unwrap_err();
    assert!(matches!(error, BlobError::Full { .. }), "{error}");
    assert!(error.to_string().contains("full"), "{error}");
    until("an empty folder", || files_in(disk.0.path().join("blobs/temp")) == 0).await;
    store.import_reader(&noise(4 << 20, 1)[..], ANY_SIZE).await.unwrap();
    store.shutdown().await;
}

/// Hands out bytes, and at some point has filled the disk itself.
struct Filler {
    bytes: Vec<u8>,
    at: usize,
    fill_at: usize,
    filler: PathBuf,
}

impl AsyncRead for Filler {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at >= self.fill_at && !self.filler.exists() {
            let mut filler = File::create(&self.filler).unwrap();
            while io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
        }
        let end = self.bytes.len().min(self.at + buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_disk_that_others_fill_fails_the_import_and_not_the_store() {
    let Some(disk) = SmallDisk::new("48m") else { return };
    let store = BlobStore::open(&Layout::new(disk.0.path())).await.unwrap();
    let (kept, _) = store.import_reader(&noise(1 << 20, 9)[..], ANY_SIZE).await.unwrap();
    let filler = disk.0.path().join("filler");
    let reader = Filler { bytes: noise(24 << 20, 1), at: 0, fill_at: (6 << 20) + CHUNK_LEN, filler: filler.clone() };
    let error = store.import_reader(reader, ANY_SIZE).await.unwrap_err();
    assert!(matches!(error, BlobError::Full { .. }), "{error}");
    until("an empty folder", || files_in(disk.0.path().join("blobs/temp")) == 0).await;
    fs::remove_file(filler).unwrap();
    assert!(store.has(&kept));
    let (hash, _) = store.import_reader(&noise(4 << 20, 2)[..], ANY_SIZE).await.unwrap();
    store.make_executable(&hash).await.unwrap();
    store.shutdown().await;
}
