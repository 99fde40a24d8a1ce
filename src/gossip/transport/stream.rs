//! A stream of bytes to or from one other node. Shell.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::origin::Origin;
use super::slots::Slot;

/// Both directions of one stream. Shutting it down ends the writing half only; dropping it ends both, and may throw away what
/// the other side has not read. It fails when its connection is closed, from whichever side.
pub struct Stream {
    bytes: Compat<libp2p::Stream>,
    origin: Option<Origin>,
    end: End,
    /// Held until all of the stream is gone.
    slot: Option<Slot>,
}

/// The half of a stream that is read from.
pub struct StreamReader {
    bytes: Compat<futures::io::ReadHalf<libp2p::Stream>>,
    end: End,
    _slot: Option<Slot>,
}

/// The half of a stream that is written to.
pub struct StreamWriter {
    bytes: Compat<futures::io::WriteHalf<libp2p::Stream>>,
    end: End,
    _slot: Option<Slot>,
}

/// The end of the connection that a stream is on. yamux wakes nobody who waits on a stream when this side closes the connection:
/// without this a reader of another node's log would wait for ever on a member that was cut.
struct End {
    closed: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl End {
    fn new(closed: CancellationToken) -> Self {
        let waiting = Box::pin(closed.clone().cancelled_owned());
        Self { closed, waiting }
    }

    /// What a stream gives, or the end while it gives nothing.
    fn or<T>(&mut self, cx: &mut Context<'_>, given: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match given {
            Poll::Pending => self.waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into())),
            ready => ready,
        }
    }
}

impl Stream {
    /// On a connection that cancels `closed` when it is closed.
    pub(super) fn new(stream: libp2p::Stream, closed: CancellationToken) -> Self {
        Self { bytes: stream.compat(), origin: None, end: End::new(closed), slot: None }
    }

    /// The same, known to come from there.
    pub(super) fn coming_from(self, origin: Option<Origin>) -> Self {
        Self { origin, ..self }
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
        let end = End::new(self.end.closed.clone());
        let reader = StreamReader { bytes: reader.compat(), end, _slot: self.slot.clone() };
        (reader, StreamWriter { bytes: writer.compat_write(), end: self.end, _slot: self.slot })
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
                let given = Pin::new(&mut self.bytes).poll_read(cx, buffer);
                self.end.or(cx, given)
            }
        }
    };
}

macro_rules! forward_write {
    ($name:ty) => {
        impl AsyncWrite for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                let given = Pin::new(&mut self.bytes).poll_write(cx, bytes);
                self.end.or(cx, given)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let given = Pin::new(&mut self.bytes).poll_flush(cx);
                self.end.or(cx, given)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let given = Pin::new(&mut self.bytes).poll_shutdown(cx);
                self.end.or(cx, given)
            }
        }
    };
}

forward_read!(Stream);
forward_write!(Stream);
forward_read!(StreamReader);
forward_write!(StreamWriter);
