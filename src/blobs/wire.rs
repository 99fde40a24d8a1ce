//! iroh's verified streaming over narun's streams. Shell.
//!
//! iroh's protocol relies on two things that a stream of the transport does not do by itself: the end of the request is
//! told by dropping the sending half, and a peer that stalls ends with an error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::VarInt;
use iroh_blobs::util::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::time::timeout;

/// Buffer of each half: larger ones make no difference (`libraries.md`).
const BUFFER_LEN: usize = 16 << 10;

/// The receiving half.
pub(super) struct Receiver<R> {
    reader: BufReader<R>,
    stall_max: Duration,
    moved: Arc<AtomicU64>,
    size: Option<ExpectedSize>,
}

/// An answer begins with the blob's size, eight bytes, little-endian; iroh believes it until the last byte.
struct ExpectedSize {
    expected: u64,
    seen: Vec<u8>,
}

/// The answer claims another size than the revision says.
#[derive(Debug, thiserror::Error)]
#[error("it claims a size of {found} bytes; the blob has {expected}")]
pub(super) struct WrongSize {
    expected: u64,
    found: u64,
}

impl<R: AsyncRead> Receiver<R> {
    pub(super) fn new(reader: R, stall_max: Duration) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER_LEN, reader), stall_max, moved: Arc::default(), size: None }
    }

    /// Counts the bytes that came, and fails at once where the first of them are not this size.
    pub(super) fn of_blob(mut self, size: u64, moved: Arc<AtomicU64>) -> Self {
        self.size = Some(ExpectedSize { expected: size, seen: Vec::with_capacity(8) });
        self.moved = moved;
        self
    }

    fn note(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let Some(size) = &mut self.size else { return Ok(()) };
        size.seen.extend(bytes.iter().take(8 - size.seen.len()));
        if let Ok(found) = <[u8; 8]>::try_from(size.seen.as_slice()) {
            let (found, expected) = (u64::from_le_bytes(found), size.expected);
            self.size = None;
            if found != expected {
                return Err(io::Error::new(io::ErrorKind::InvalidData, WrongSize { expected, found }));
            }
        }
        Ok(())
    }
}

async fn within<T>(stall_max: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let stalled = || io::Error::new(io::ErrorKind::TimedOut, format!("stalled for {} s", stall_max.as_secs()));
    timeout(stall_max, work).await.unwrap_or_else(|_| Err(stalled()))
}

impl<R: AsyncRead + Unpin + Send> RecvStream for Receiver<R> {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(len as u64);
        within(self.stall_max, async { { read }.read_to_end(&mut bytes).await }).await?;
        self.note(&bytes)?;
        Ok(bytes.into())
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.recv_exact(&mut bytes).await?;
        Ok(bytes.into())
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        within(self.stall_max, self.reader.read_exact(target)).await?;
        self.note(target)
    }

    fn stop(&mut self, _code: VarInt) -> io::Result<()> {
        // Dropping the stream says as much.
        Ok(())
    }

    fn id(&self) -> u64 {
        0
    }
}

/// The sending half; dropping it ends the stream in order.
pub(super) struct Sender<W: AsyncWrite + Unpin + Send + 'static> {
    writer: Option<BufWriter<W>>,
    stall_max: Duration,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Sender<W> {
    pub(super) fn new(writer: W, stall_max: Duration) -> Self {
        Self { writer: Some(BufWriter::with_capacity(BUFFER_LEN, writer)), stall_max }
    }

    fn writer(&mut self) -> io::Result<&mut BufWriter<W>> {
        self.writer.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> SendStream for Sender<W> {
    async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stall_max = self.stall_max;
        within(stall_max, self.writer()?.write_all(bytes)).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        let stall_max = self.stall_max;
        within(stall_max, self.writer()?.flush()).await
    }

    fn reset(&mut self, _code: VarInt) -> io::Result<()> {
        // Without the orderly end: what was not yet sent is not sent.
        self.writer = None;
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        std::future::pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Drop for Sender<W> {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        let stall_max = self.stall_max;
        // Outside of a runtime everything is going down, and the stream with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A peer that has gone away needs no end.
                let _ = timeout(stall_max, writer.shutdown()).await;
            });
        }
    }
}
