//! The gossip stream: frames of four bytes of length (big-endian) and as many bytes. Shell.
//!
//! A stream carries messages one way. Its first frame says which process speaks, and whoever accepts it answers with one frame of the
//! same form, the greeting, and nothing more: it tells the opener that it is a member in the other's eyes. An empty frame says
//! only that the writer is alive: TCP alone would notice a cut cable after a quarter of an hour, and a healed one after minutes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::ids::NodeKey;
use crate::node::engine::input::{Input, NetworkEvent};

use super::Stream;
use super::counters::{Tally, count};
use super::greeting::{Answer, CopyFound, GREETING_LEN_MAX, Hello, Life, SignOfLife};
use super::pace::{Pace, Verdict};
use super::rest::{Rest, SILENCE_MIN};

/// Longest message in bytes. A full-state exchange of a large cluster is split well below it; it bounds what one member can make
/// another hold.
pub const FRAME_LEN_MAX: usize = 8 << 20;

/// How long the greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// First allocation for a frame; more follows only as bytes really come.
const FRAME_LEN_FIRST: usize = 64 << 10;

/// Why reading a link ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The other side ended it, or the connection broke.
    Closed,
    /// Nothing came for [`Rest::silence_max`].
    Silent,
    /// A frame was announced with this length.
    Oversized(usize),
    /// It sent more than it may for too long.
    Pressing,
}

/// Why a link does not stand.
#[derive(Debug)]
pub(super) enum Unwelcome {
    /// No greeting came; why.
    Broken(String),
    /// The other side says that this process is a copy.
    Copy(CopyFound),
}

/// Why the first frame is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The stream ended, or nothing came in time.
    Broken,
    /// It is too long, or makes no sense.
    Garbled,
}

/// Introduces this process on a stream that it opened, and waits for the greeting: which process answers.
pub(super) async fn introduce(stream: &mut Stream, life: Life) -> Result<Life, Unwelcome> {
    let greeting = async {
        write_value(stream, &Hello { life }).await?;
        read_value::<Answer>(stream).await
    };
    match timeout(GREETING_MAX, greeting).await {
        Ok(Ok(Some(Answer::Welcome(hello)))) => Ok(hello.life),
        Ok(Ok(Some(Answer::Copy(found)))) => Err(Unwelcome::Copy(found)),
        Ok(Ok(None)) => Err(Unwelcome::Broken("the greeting makes no sense".to_owned())),
        Ok(Err(error)) => Err(Unwelcome::Broken(error.to_string())),
        Err(_) => Err(Unwelcome::Broken("no greeting in time".to_owned())),
    }
}

/// Waits for the first frame on a stream that a member opened: which process it is.
pub(super) async fn hear_hello(stream: &mut Stream) -> Result<Life, Unread> {
    match timeout(GREETING_MAX, read_value::<Hello>(stream)).await {
        Ok(Ok(Some(hello))) => Ok(hello.life),
        Ok(Ok(None)) => Err(Unread::Garbled),
        Ok(Err(_)) | Err(_) => Err(Unread::Broken),
    }
}

/// Tells a process that it is a copy, and waits until it has read that: closing first could throw the words away.
pub(super) async fn turn_away(mut stream: Stream, found: CopyFound) {
    let told = async {
        write_value(&mut stream, &Answer::Copy(found)).await?;
        stream.read_u8().await
    };
    // It leaves when it has read; where it does not, it is cut.
    let _ = timeout(GREETING_MAX, told).await;
}

/// Asks the process at the other end of a stream for a sign of life, about `newcomer`.
pub(super) async fn ask_for_life(stream: &mut Stream, newcomer: Life) -> io::Result<Option<SignOfLife>> {
    write_value(stream, &Hello { life: newcomer }).await?;
    read_value(stream).await
}

/// Answers such a question with what `sign` makes of it.
pub(super) async fn give_life(mut stream: Stream, sign: impl FnOnce(Life) -> Option<SignOfLife>) {
    let answered = async {
        let Some(asked) = read_value::<Hello>(&mut stream).await? else { return Ok(()) };
        let Some(sign) = sign(asked.life) else { return Ok(()) };
        write_value(&mut stream, &sign).await?;
        stream.read_u8().await.map(drop)
    };
    // The asker leaves when it has read; whatever goes wrong, it has no answer, and that is an answer.
    let _: Result<io::Result<()>, _> = timeout(GREETING_MAX, answered).await;
}

async fn write_value<T: minicbor::Encode<()>>(stream: &mut Stream, value: &T) -> io::Result<()> {
    let bytes = minicbor::to_vec(value).expect("encoding into memory cannot fail");
    write_frame(stream, &bytes).await?;
    stream.flush().await
}

/// A short frame's value; none where it is too long or no such value.
async fn read_value<T: for<'b> minicbor::Decode<'b, ()>>(stream: &mut Stream) -> io::Result<Option<T>> {
    let bytes = read_frame(stream, GREETING_LEN_MAX).await?;
    Ok(bytes.ok().and_then(|bytes| minicbor::decode(&bytes).ok()))
}

/// Writes messages as they come, until the queue is closed (then the stream is ended in order) or writing fails.
pub(super) async fn write(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<Vec<u8>>,
    rest: &Rest,
) -> io::Result<()> {
    let writing = async {
        let mut writer = BufWriter::new(writer);
        loop {
            let batch = match timeout(rest.keepalive(), outbox.recv()).await {
                Ok(None) => return writer.shutdown().await,
                Ok(Some(message)) => write_batch(&mut writer, message, &mut outbox).await,
                Err(_) => in_time(write_frame(&mut writer, &[])).await,
            };
            batch?;
            in_time(writer.flush()).await?;
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
    in_time(write_frame(writer, &first)).await?;
    while let Ok(message) = outbox.try_recv() {
        in_time(write_frame(writer, &message)).await?;
    }
    Ok(())
}

/// A member that holds this node back takes a frame now and then; one that takes none for so long is gone.
async fn in_time(writing: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(SILENCE_MIN, writing).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
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

/// Greets, then hands every message to `inputs`, as fast as the engine takes them and the member may send them.
pub(super) async fn read(
    from: NodeKey,
    stream: Stream,
    life: Life,
    inputs: mpsc::Sender<Input>,
    tally: &Tally,
    rest: &Rest,
) -> ReadEnd {
    let mut reader = BufReader::new(stream);
    if write_value(reader.get_mut(), &Answer::Welcome(Hello { life })).await.is_err() {
        return ReadEnd::Closed;
    }
    let mut pace = Pace::new(Instant::now());
    loop {
        let bytes = match timeout(rest.silence_max(), read_frame(&mut reader, FRAME_LEN_MAX)).await {
            Ok(Ok(Ok(bytes))) => bytes,
            Ok(Ok(Err(length))) => return ReadEnd::Oversized(length),
            Ok(Err(_)) => return ReadEnd::Closed,
            Err(_) => return ReadEnd::Silent,
        };
        let verdict = pace.read(bytes.len(), Instant::now());
        if !bytes.is_empty() && inputs.send(Input::Network(NetworkEvent::Message { from, bytes })).await.is_err() {
            return ReadEnd::Closed;
        }
        match verdict {
            Verdict::GoOn => {}
            Verdict::Wait { pause, first } => {
                if first {
                    count(&tally.members_held_back);
                }
                sleep(pause).await;
            }
            Verdict::TooLong => return ReadEnd::Pressing,
        }
    }
}

/// One frame, or the length of one that is longer than `length_max`.
async fn read_frame(reader: &mut (impl AsyncRead + Unpin), length_max: usize) -> io::Result<Result<Vec<u8>, usize>> {
    let length = reader.read_u32().await? as usize;
    if length > length_max {
        return Ok(Err(length));
    }
    let mut bytes = Vec::with_capacity(length.min(FRAME_LEN_FIRST));
    let read = reader.take(length as u64).read_to_end(&mut bytes).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Ok(bytes))
}
