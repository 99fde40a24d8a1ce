//! A stream of bytes to or from one other node. Shell.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt};

/// Both directions of one stream. Shutting it down ends the writing half only; dropping it ends both, and may throw away what
/// the other side has not read.
pub struct Stream(Compat<libp2p::Stream>);

/// The half of a stream that is read from.
pub struct StreamReader(Compat<futures::io::ReadHalf<libp2p::Stream>>);

/// The half of a stream that is written to.
pub struct StreamWriter(Compat<futures::io::WriteHalf<libp2p::Stream>>);

impl Stream {
    pub(super) fn new(stream: libp2p::Stream) -> Self {
        Self(stream.compat())
    }

    /// Splits it in two, which can be used from two tasks.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        // futures' halves are `Sync` although the stream is not; tokio's would not be.
        let (reader, writer) = futures::AsyncReadExt::split(self.0.into_inner());
        (StreamReader(reader.compat()), StreamWriter(writer.compat_write()))
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
                Pin::new(&mut self.0).poll_read(cx, buffer)
            }
        }
    };
}

macro_rules! forward_write {
    ($name:ty) => {
        impl AsyncWrite for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, bytes)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_shutdown(cx)
            }
        }
    };
}

forward_read!(Stream);
forward_write!(Stream);
forward_read!(StreamReader);
forward_write!(StreamWriter);
