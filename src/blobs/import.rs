//! Taking blobs in: an upload becomes a whole and durable blob, or leaves nothing. Shell.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};

use crate::ids::BlobHash;

use super::store::{BlobError, BlobStore, DISK_RESERVE, clear, store_error};

/// After how many bytes the free space is looked at again while a blob is imported.
const SPACE_CHECK_EVERY: u64 = 1 << 20;

/// Bytes read at once from what is imported, and how many of those pieces may wait for the disk.
pub(super) const CHUNK_LEN: usize = 64 << 10;
const CHUNKS_MAX: usize = 8;

/// How long a failed import waits for the store to come to rest before it tidies up.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(1);

/// A failed import leaves a file of a name that nobody knows in the store's folder for such; when no import is under way, all
/// that stands there is left over.
#[derive(Debug, Default)]
pub(super) struct Imports(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    count: usize,
    dirty: bool,
}

impl Imports {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobStore {
    /// Takes in what `reader` holds, at most `size_max` bytes. When it returns the blob is durable; when it fails, or is
    /// cancelled, nothing is left of it.
    pub async fn import_reader(
        &self,
        reader: impl AsyncRead + Send,
        size_max: u64,
    ) -> Result<(BlobHash, u64), BlobError> {
        let (chunks, waiting) = mpsc::channel(CHUNKS_MAX);
        // In a task of its own, so that it cleans up although the caller may be cancelled.
        let importing = tokio::spawn(self.clone().import_chunks(waiting));
        let fed = self.feed(reader, size_max, chunks).await;
        let imported = match importing.await {
            Ok(imported) => imported,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match (fed, imported) {
            // The store's own complaint about the end of its input would only hide the cause.
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(size), Ok(hash)) => {
                tracing::info!(blob = %hash.short(), size, "imported");
                Ok((hash, size))
            }
        }
    }

    /// Reads to the end, and says so only there: an input that just breaks off is no blob.
    async fn feed(
        &self,
        reader: impl AsyncRead + Send,
        size_max: u64,
        chunks: mpsc::Sender<Chunk>,
    ) -> Result<u64, BlobError> {
        let mut reader = std::pin::pin!(reader);
        let (mut size, mut checked_at) = (0_u64, None);
        loop {
            if checked_at.is_none_or(|at| size - at >= SPACE_CHECK_EVERY) {
                self.check_space(0)?;
                checked_at = Some(size);
            }
            let mut chunk = BytesMut::with_capacity(CHUNK_LEN);
            let read = reader.read_buf(&mut chunk).await.map_err(BlobError::Source)?;
            size += read as u64;
            if size > size_max {
                return Err(BlobError::TooLong(size_max));
            }
            let chunk = if read == 0 { Chunk::End } else { Chunk::Bytes(chunk.freeze()) };
            // Nobody takes it: the import has failed, and tells why itself.
            if chunks.send(chunk).await.is_err() || read == 0 {
                return Ok(size);
            }
        }
    }

    async fn import_chunks(self, chunks: mpsc::Receiver<Chunk>) -> Result<BlobHash, BlobError> {
        self.imports().lock().count += 1;
        let (broken, broke_off) = oneshot::channel();
        let source = Source { chunks, size: Arc::default(), broken: Some(broken) };
        let size = source.size.clone();
        let imported = async {
            let adding = async { self.iroh().add_stream(source).await.temp_tag().await };
            let tag = tokio::select! {
                added = adding => added.map_err(|error| self.import_error(&error))?,
                Ok(()) = broke_off => return Err(BlobError::Source(io::ErrorKind::UnexpectedEof.into())),
            };
            let hash = BlobHash(*tag.hash().as_bytes());
            // The temporary tag is held until the lasting one stands.
            self.seal(&hash, size.load(Ordering::Relaxed)).await?;
            Ok(hash)
        }
        .await;

        if imported.is_err() {
            // The store's own task ends a moment after we have left it, and may yet create its file. Where the store is too busy
            // for an idle moment, the file goes with the next failure, or at the next start.
            let _ = tokio::time::timeout(IDLE_WAIT_MAX, self.iroh().wait_idle()).await;
        }
        let mut under_way = self.imports().lock();
        under_way.count -= 1;
        under_way.dirty |= imported.is_err();
        if under_way.count == 0 && std::mem::take(&mut under_way.dirty) {
            clear(&self.unfinished_imports());
        }
        imported
    }

    fn import_error(&self, error: &(dyn Error + 'static)) -> BlobError {
        if is_full(error) {
            return match self.check_space(0) {
                Err(full) => full,
                // Room was made since, by the failed import itself or by others.
                Ok(()) => BlobError::Full { path: self.layout().root().to_owned(), wanted: DISK_RESERVE, free: 0 },
            };
        }
        store_error("take in a blob", error)
    }
}

enum Chunk {
    Bytes(Bytes),
    End,
}

/// The chunks as the store wants them. Where they break off it gives neither an end, which would make a blob of half an upload,
/// nor an error, at which iroh-blobs 0.104 may panic ("multiple values were yielded"): it says so on its own channel, and
/// its reader is dropped.
struct Source {
    chunks: mpsc::Receiver<Chunk>,
    size: Arc<AtomicU64>,
    broken: Option<oneshot::Sender<()>>,
}

impl futures::Stream for Source {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.chunks.poll_recv(cx)) {
            Some(Chunk::Bytes(bytes)) => {
                self.size.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(bytes)))
            }
            Some(Chunk::End) => {
                self.broken = None;
                Poll::Ready(None)
            }
            None => match self.broken.take() {
                Some(broken) => {
                    // Nobody listens only where the import has failed already.
                    let _ = broken.send(());
                    Poll::Pending
                }
                None => Poll::Pending,
            },
        }
    }
}

/// Whether somewhere in this error the system said that the disk, or the user's share of it, is full.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(here) = error {
        let kind = here.downcast_ref::<io::Error>().map(io::Error::kind);
        let full = matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
        // Between its threads the store hands on the text alone.
        if full || here.to_string().contains("os error 28") {
            return true;
        }
        error = here.source();
    }
    false
}
