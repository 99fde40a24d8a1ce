//! A stream of bytes to or from one other node. Shell.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt};

use super::origin::Origin;
use super::slots::Slot;

/// Both directions of one stream. Shutting it down ends the writing half only; dropping it ends both, and may throw away what
/// the other side has not read.
pub struct Stream {
    bytes: Compat<libp2p::Stream>,
    origin: Option<Origin>,
    /// Held until all of the stream is gone.
    slot: Option<Slot>,
}

/// The half of a stream that is read from.
pub struct StreamReader {
    bytes: Compat<futures::io::ReadHalf<libp2p::Stream>>,
    _slot: Option<Slot>,
}

/// The half of a stream that is written to.
pub struct StreamWriter {
    bytes: Compat<futures::io::WriteHalf<libp2p::Stream>>,
    _slot: Option<Slot>,
}

impl Stream {
    pub(super) fn new(stream: libp2p::Stream) -> Self {
        Self { bytes: stream.compat(), origin: None, slot: None }
    }

    /// One that came from there.
    pub(super) fn from(stream: libp2p::Stream, origin: Option<Origin>) -> Self {
        Self { origin, ..Self::new(stream) }
    }

    /// The same, holding a slot for as long as it is open.
    pub(super) fn holding(self, slot: Option<Slot>) -> Self {
        Self { slot, ..self }
    }

    /// Where it came from; none for a stream that this node opened.
    pub(in crate::gossip) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Splits it in two, which can be used from two tasks.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        // futures' halves are `Sync` although the stream is not; tokio's would not be.
        let (reader, writer) = futures::AsyncReadExt::split(self.bytes.into_inner());
        let reader = StreamReader { bytes: reader.compat(), _slot: self.slot.clone() };
        (reader, StreamWriter { bytes: writer.compat_write(), _slot: self.slot })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

macro_rules! forward_read {
    ($name:ty) => {
        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.bytes).poll_read(cx, buffer)
            }
        }
    };
}

macro_rules! forward_write {
    ($name:ty) => {
        impl AsyncWrite for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.bytes).poll_write(cx, bytes)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.bytes).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.bytes).poll_shutdown(cx)
            }
        }
    };
}

forward_read!(Stream);
forward_write!(Stream);
forward_read!(StreamReader);
forward_write!(StreamWriter);
