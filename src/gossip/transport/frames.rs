//! The gossip stream: frames of four bytes of length (big-endian) and as many bytes. Shell.
//!
//! A stream carries messages one way. Whoever accepts it answers with one byte, the greeting, and nothing more: it tells
//! the opener that it is a member in the other's eyes. An empty frame says only that the writer is alive: TCP alone would
//! notice a cut cable after a quarter of an hour, and a healed one after minutes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::ids::NodeKey;
use crate::node::engine::input::{Input, NetworkEvent};

/// Longest message in bytes. A full-state exchange of a large cluster is split well below it; it bounds what one member can make
/// another hold.
pub const FRAME_LEN_MAX: usize = 8 << 20;

/// How long a link may be silent before it is taken for broken: some lost empty frames.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// After how long without a message an empty frame is sent.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// How long the greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// The byte that greets.
const GREETING: u8 = 1;

/// First allocation for a frame; more follows only as bytes really come.
const FRAME_LEN_FIRST: usize = 64 << 10;

/// Why reading a link ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The other side ended it, or the connection broke.
    Closed,
    /// Nothing came for [`SILENCE_MAX`].
    Silent,
    /// A frame was announced with this length.
    Oversized(usize),
}

/// Waits for the greeting on a stream that this node opened.
pub(super) async fn await_greeting(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    match timeout(GREETING_MAX, stream.read_u8()).await {
        Ok(Ok(GREETING)) => Ok(()),
        Ok(Ok(byte)) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("greeted with {byte}"))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Writes messages as they come, until the queue is closed (then the stream is ended in order) or writing fails.
pub(super) async fn write(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let writing = async {
        let mut writer = BufWriter::new(writer);
        loop {
            let batch = match timeout(KEEPALIVE, outbox.recv()).await {
                Ok(None) => return writer.shutdown().await,
                Ok(Some(message)) => timeout(SILENCE_MAX, write_batch(&mut writer, message, &mut outbox)).await,
                Err(_) => timeout(SILENCE_MAX, write_frame(&mut writer, &[])).await,
            };
            batch.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
            timeout(SILENCE_MAX, writer.flush()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        }
    };
    tokio::select! {
        written = writing => written,
        // Nothing comes after the greeting: this is the end of the stream, or a member that does not know the protocol.
        ended = hear_end(reader) => Err(ended),
    }
}

/// All that wait are written before the flush, so that a burst costs few packets.
async fn write_batch(
    writer: &mut (impl AsyncWrite + Unpin),
    first: Vec<u8>,
    outbox: &mut mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    write_frame(writer, &first).await?;
    while let Ok(message) = outbox.try_recv() {
        write_frame(writer, &message).await?;
    }
    Ok(())
}

async fn write_frame(writer: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).expect("checked against FRAME_LEN_MAX when it was sent");
    writer.write_u32(length).await?;
    writer.write_all(message).await
}

async fn hear_end(mut reader: impl AsyncRead + Unpin) -> io::Error {
    match reader.read_u8().await {
        Ok(byte) => io::Error::new(io::ErrorKind::InvalidData, format!("unexpected byte {byte} after the greeting")),
        Err(error) => error,
    }
}

/// Greets, then hands every message to `inputs`, as fast as the engine takes them.
pub(super) async fn read(
    from: NodeKey,
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    inputs: mpsc::Sender<Input>,
) -> ReadEnd {
    if writer.write_u8(GREETING).await.is_err() || writer.flush().await.is_err() {
        return ReadEnd::Closed;
    }
    let mut reader = BufReader::new(reader);
    loop {
        let bytes = match timeout(SILENCE_MAX, read_frame(&mut reader)).await {
            Ok(Ok(Ok(bytes))) => bytes,
            Ok(Ok(Err(length))) => return ReadEnd::Oversized(length),
            Ok(Err(_)) => return ReadEnd::Closed,
            Err(_) => return ReadEnd::Silent,
        };
        if bytes.is_empty() {
            continue;
        }
        if inputs.send(Input::Network(NetworkEvent::Message { from, bytes })).await.is_err() {
            return ReadEnd::Closed;
        }
    }
}

/// One frame, or the length of one that is too long.
async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Vec<u8>, usize>> {
    let length = reader.read_u32().await? as usize;
    if length > FRAME_LEN_MAX {
        return Ok(Err(length));
    }
    let mut bytes = Vec::with_capacity(length.min(FRAME_LEN_FIRST));
    let read = reader.take(length as u64).read_to_end(&mut bytes).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Ok(bytes))
}
