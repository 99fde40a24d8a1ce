//! The wire over the mesh: `/narun/ledger/1`. Shell.
//!
//! A request is a length (four bytes, big-endian) and a message, and so is its answer; a stream carries one after the other, and is kept
//! for the next, so that a claim waits for no negotiation. What is large and what is urgent have streams of their own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::gossip::transport::{Protocol, Stream, Transport};
use crate::ids::NodeKey;

use super::Ledger;
use super::network::{Broken, Channel, Wire};
use super::wire::FRAME_LEN_MAX;

/// How long a member may take to send a request that it has begun, and to take its answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(20);

/// How many streams there may be to one member for each channel; together they fit the slots of the protocol. Requests beyond wait.
const fn streams_max(channel: Channel) -> usize {
    match channel {
        // Entries, a sign of life beside them, a vote.
        Channel::Raft => 4,
        // One is sent at a time; the one before may still be ending.
        Channel::Snapshot => 2,
        // Five hundred claims in a second take some milliseconds each.
        Channel::Question => 24,
    }
}

/// The ways to all members.
pub struct Streams {
    transport: Transport,
    lanes: Mutex<BTreeMap<(NodeKey, Channel), Arc<Lane>>>,
}

/// The streams of one channel to one member.
struct Lane {
    room: Semaphore,
    /// Those that wait for a request, the last used one last.
    idle: Mutex<Vec<Stream>>,
}

impl Streams {
    /// Over a transport.
    pub fn new(transport: Transport) -> Self {
        Self { transport, lanes: Mutex::default() }
    }

    /// Forgets the ways to all who are no members any more.
    pub fn keep(&self, is_member: impl Fn(&NodeKey) -> bool) {
        lock(&self.lanes).retain(|(node, _), _| is_member(node));
    }

    fn lane(&self, to: NodeKey, channel: Channel) -> Arc<Lane> {
        let new = || Arc::new(Lane { room: Semaphore::new(streams_max(channel)), idle: Mutex::default() });
        lock(&self.lanes).entry((to, channel)).or_insert_with(new).clone()
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    /// A stream that is still open.
    fn take(&self) -> Option<Stream> {
        loop {
            let mut stream = lock(&self.idle).pop()?;
            // Nothing comes on a stream that nothing was asked on: whatever can be read is its end.
            if stream.read(&mut [0]).now_or_never().is_none() {
                return Some(stream);
            }
        }
    }

    async fn ask(
        &self,
        transport: &Transport,
        to: NodeKey,
        request: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, Broken> {
        let unreached = |cause: &dyn std::fmt::Display| Broken::Unreached(cause.to_string());
        let reach = async {
            let place = self.room.acquire().await.map_err(|error| unreached(&error))?;
            let stream = match self.take() {
                Some(stream) => stream,
                None => transport.open(to, Protocol::Ledger).await.map_err(|error| unreached(&error))?,
            };
            Ok((place, stream))
        };
        let (_place, mut stream) =
            timeout_at(deadline, reach).await.unwrap_or_else(|_| Err(unreached(&"no stream in time")))?;
        let asked = timeout_at(deadline, async {
            write_frame(&mut stream, request).await?;
            read_frame(&mut stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        });
        let answer: io::Result<Vec<u8>> = asked.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        // From here on it is not known whether the request has arrived.
        let answer = answer.map_err(|error| Broken::Lost(error.to_string()))?;
        lock(&self.idle).push(stream);
        Ok(answer)
    }
}

impl Wire for Streams {
    fn ask(
        &self,
        to: NodeKey,
        channel: Channel,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, Broken>> {
        let (lane, transport) = (self.lane(to, channel), self.transport.clone());
        let deadline = Instant::now() + within;
        Box::pin(async move { lane.ask(&transport, to, &request, deadline).await })
    }
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).ok().filter(|_| message.len() <= FRAME_LEN_MAX);
    let len = len.ok_or_else(|| io::Error::other(format!("a message of {} bytes is too long", message.len())))?;
    let mut frame = Vec::with_capacity(4 + message.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// The next message; none where the stream ends before it.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 4];
    if stream.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        stream.read_exact(&mut header[1..]).await?;
        let len = u32::from_be_bytes(header);
        if len as usize > FRAME_LEN_MAX {
            return Err(io::Error::other(format!(
                "a message of {len} bytes was announced, and {FRAME_LEN_MAX} is the most"
            )));
        }
        // It takes memory as it comes, not as it is announced.
        let mut message = Vec::new();
        let read = stream.take(u64::from(len)).read_to_end(&mut message).await?;
        if read < len as usize { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(message)) }
    };
    timeout(REQUEST_WITHIN, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers other members, until the transport stops. Each member's streams are bounded by the transport, and each carries one request
/// at a time.
pub async fn serve(transport: Transport, ledger: Ledger) {
    let mut incoming = transport.accept(Protocol::Ledger);
    let mut askers = JoinSet::new();
    while let Some((peer, stream)) = incoming.next().await {
        while askers.try_join_next().is_some() {}
        let ledger = ledger.clone();
        askers.spawn(async move {
            if let Err(error) = answer(&ledger, peer, stream).await {
                tracing::debug!(peer = %peer.short(), %error, "asker of the ledger went away");
            }
        });
    }
}

async fn answer(ledger: &Ledger, peer: NodeKey, mut stream: Stream) -> io::Result<()> {
    while let Some(request) = read_frame(&mut stream).await? {
        let response = ledger.serve(peer, &request).await;
        let written = timeout(REQUEST_WITHIN, write_frame(&mut stream, &response));
        written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
