//! Blobs for other members. Shell: every whole blob is given to any member who knows its hash.

use std::collections::BTreeMap;
use std::time::Duration;

use iroh_blobs::protocol::Request;
use iroh_blobs::provider::events::EventSender;
use iroh_blobs::provider::{StreamPair, handle_get};
use tokio::task::JoinSet;

use crate::gossip::transport::{Protocol, Stream, Transport};
use crate::ids::{BlobHash, NodeKey};

use super::store::BlobStore;
use super::wire::{Receiver, Sender};

/// How many streams one member may have: it fetches a few blobs at once, a few pieces of each.
pub const PER_MEMBER_MAX: usize = 16;

/// How many streams are served at once: the disk and the network are shared by all of them.
pub const AT_ONCE_MAX: usize = 64;

/// How long a member may neither ask nor take: longer than a fetching side waits.
pub const TAKER_STALL_MAX: Duration = Duration::from_secs(30);

/// Serves until the transport stops.
pub async fn serve(transport: &Transport, store: BlobStore) {
    let mut incoming = transport.accept(Protocol::Blobs);
    let mut serving: JoinSet<NodeKey> = JoinSet::new();
    let mut per_member: BTreeMap<NodeKey, usize> = BTreeMap::new();
    loop {
        tokio::select! {
            Some(served) = serving.join_next() => {
                let Ok(member) = served else { continue };
                if let Some(streams) = per_member.get_mut(&member) {
                    *streams -= 1;
                    if *streams == 0 {
                        per_member.remove(&member);
                    }
                }
            }
            stream = incoming.next() => {
                let Some((from, stream)) = stream else { return };
                let streams = per_member.entry(from).or_default();
                if *streams >= PER_MEMBER_MAX || serving.len() >= AT_ONCE_MAX {
                    // The stream ends unanswered, and the member turns to another node or comes again.
                    tracing::debug!(peer = %from.short(), "too many blob streams: one dropped");
                    if *streams == 0 {
                        per_member.remove(&from);
                    }
                    continue;
                }
                *streams += 1;
                let store = store.clone();
                serving.spawn(async move {
                    answer(stream, &store, from).await;
                    from
                });
            }
        }
    }
}

/// Answers one request. Whatever is not a request for one whole blob ends unanswered, which says "not here".
async fn answer(stream: Stream, store: &BlobStore, from: NodeKey) {
    let (reader, writer) = stream.split();
    let (reader, writer) = (Receiver::new(reader, TAKER_STALL_MAX), Sender::new(writer, TAKER_STALL_MAX));
    let mut pair = StreamPair::new(0, reader, writer, EventSender::DEFAULT);
    let request = match pair.read_request().await {
        Ok(Request::Get(request)) if request.ranges.is_blob() => request,
        Ok(_) => return tracing::debug!(peer = %from.short(), "asked for something else than a blob"),
        Err(error) => return tracing::debug!(peer = %from.short(), %error, "the request cannot be read"),
    };
    let hash = BlobHash(*request.hash.as_bytes());
    if !store.has(&hash) {
        return tracing::debug!(peer = %from.short(), blob = %hash.short(), "asked for a blob that is not here");
    }
    if let Err(error) = handle_get(pair, store.iroh().clone().into(), request).await {
        tracing::debug!(peer = %from.short(), blob = %hash.short(), %error, "sending a blob ended early");
    }
}

/// Whether these bytes are a request for a blob, as it comes from a member: for the fuzz targets.
pub(crate) fn understands_request(bytes: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.is_ok_and(|runtime| {
        let mut reader = Receiver::new(bytes, TAKER_STALL_MAX);
        runtime.block_on(async { Request::read_async(&mut reader).await.is_ok() })
    })
}
