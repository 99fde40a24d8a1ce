//! Fetching one blob from several members. Shell.
//!
//! What is missing is cut into pieces. Each member works through them on a stream of its own; all write into the one store,
//! which verifies every kilobyte against the hash. A piece that fails goes back, and its member is not asked again in this
//! fetch. What was verified stays, so that the next fetch, also after a restart, asks only for the rest.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iroh_blobs::get::fsm::{AtBlobHeaderNextError, DecodeError};
use iroh_blobs::get::{GetError, StreamPair};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt, GetRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::gossip::transport::{Protocol, Transport};
use crate::ids::{BlobHash, NodeKey};

use super::executable::hash_file;
use super::store::{BlobError, BlobStore, iroh_hash, store_error};
use super::wire::{Receiver, Sender, WrongSize};

/// How much one member is asked for at once: a tenth of a second of a fast link, so that a slow member keeps little from
/// a fast one, and a broken one loses nothing that was verified anyway.
pub const PIECE_LEN: u64 = 16 << 20;

/// From how many members one blob is fetched at once: three fill a link.
pub const MEMBERS_MAX: usize = 4;

/// How long a member may send nothing before it is taken for dead.
pub const GIVER_STALL_MAX: Duration = Duration::from_secs(10);

/// iroh counts in chunks of this many bytes.
const CHUNK_LEN: u64 = 1024;

/// What a fetch has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Bytes that came over the network, hash tree included.
    pub moved: u64,
}

/// Why a blob could not be fetched. What was verified is kept.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody gave it, or all of it.
    #[error("no member gave blob {}: {}", hash.short(), Givers(failures))]
    NoGiver {
        /// Which blob.
        hash: BlobHash,
        /// Who was asked, with the reason.
        failures: Vec<(NodeKey, GiverFault)>,
    },
    /// This node cannot hold it.
    #[error(transparent)]
    Here(#[from] BlobError),
}

/// What was wrong with a member as a source of one blob.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GiverFault {
    /// It sent bytes, or claimed a size, that are not the blob's.
    #[error("sent something else: {0}")]
    Wrong(String),
    /// It does not have it.
    #[error("does not have it")]
    Lacks,
    /// It could not be reached, or stopped sending.
    #[error("{0}")]
    Broken(String),
}

struct Givers<'a>(&'a [(NodeKey, GiverFault)]);

impl fmt::Display for Givers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none is known to have it");
        }
        for (index, (member, fault)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}node {} {fault}", member.short())?;
        }
        Ok(())
    }
}

/// Fetches a blob of `size` bytes; members come in through `sources`, best first, also while the fetch runs. When it returns the
/// blob is whole, verified and durable.
pub async fn fetch(
    transport: &Transport,
    store: &BlobStore,
    hash: BlobHash,
    size: u64,
    sources: mpsc::UnboundedReceiver<NodeKey>,
) -> Result<Fetched, FetchError> {
    if store.has(&hash) {
        return Ok(Fetched { moved: 0 });
    }
    store.keep_part(&hash).await?;
    let missing = missing(store, &hash, size).await?;
    store.check_space(missing.iter().map(piece_len).sum())?;
    let resumed = missing.iter().map(piece_len).sum::<u64>() < size;
    let job = Arc::new(Job {
        transport: transport.clone(),
        store: store.clone(),
        hash,
        size,
        pieces: Mutex::new(missing),
        moved: Arc::default(),
    });
    gather(&job, sources).await?;

    if resumed {
        // Part of it has lain on the disk, perhaps through a power cut: iroh's own record of what is verified may be newer
        // than the bytes.
        verify(store, &hash).await?;
    }
    store.seal(&hash, size).await?;
    let moved = job.moved.load(Ordering::Relaxed);
    tracing::info!(blob = %hash.short(), size, moved, "fetched");
    Ok(Fetched { moved })
}

/// One blob's fetch, shared by its workers.
struct Job {
    transport: Transport,
    store: BlobStore,
    hash: BlobHash,
    size: u64,
    /// What nobody is working on.
    pieces: Mutex<VecDeque<ChunkRanges>>,
    moved: Arc<AtomicU64>,
}

/// What ends the work of one member.
enum End {
    /// Nothing was left to do.
    Done,
    /// It is not asked again.
    Fault(GiverFault),
    /// This node's own store failed: nobody else can help.
    Here(BlobError),
}

/// Sets members to work until no piece is left, or no member.
async fn gather(job: &Arc<Job>, mut sources: mpsc::UnboundedReceiver<NodeKey>) -> Result<(), FetchError> {
    let mut known = BTreeSet::new();
    let mut idle = VecDeque::new();
    let mut working: JoinSet<(NodeKey, End)> = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        while let Ok(source) = sources.try_recv() {
            if known.insert(source) {
                idle.push_back(source);
            }
        }
        let mut open = job.pieces().len();
        while open > 0
            && working.len() < MEMBERS_MAX
            && let Some(member) = idle.pop_front()
        {
            let job = job.clone();
            working.spawn(async move { (member, job.work(member).await) });
            open -= 1;
        }
        if working.is_empty() {
            return if job.pieces().is_empty() {
                Ok(())
            } else {
                Err(FetchError::NoGiver { hash: job.hash, failures })
            };
        }
        tokio::select! {
            Some(ended) = working.join_next() => match ended {
                Ok((member, End::Done)) => idle.push_front(member),
                Ok((member, End::Fault(fault))) => {
                    tracing::warn!(peer = %member.short(), blob = %job.hash.short(), %fault, "not asked again");
                    failures.push((member, fault));
                }
                Ok((_, End::Here(error))) => return Err(error.into()),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            Some(source) = sources.recv() => {
                if known.insert(source) {
                    idle.push_back(source);
                }
            }
        }
    }
}

impl Job {
    fn pieces(&self) -> MutexGuard<'_, VecDeque<ChunkRanges>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, member: NodeKey) -> End {
        loop {
            let Some(piece) = self.pieces().pop_front() else { return End::Done };
            let Err(end) = self.get(member, piece.clone()).await else { continue };
            match here(&self.store, &self.hash).await {
                // What has come of it all the same is not asked for again.
                Ok(here) => {
                    let rest = &piece - &here;
                    if !rest.is_empty() {
                        self.pieces().push_back(rest);
                    }
                    return end;
                }
                Err(error) => return End::Here(error),
            }
        }
    }

    async fn get(&self, member: NodeKey, piece: ChunkRanges) -> Result<(), End> {
        let broken = |cause: String| End::Fault(GiverFault::Broken(cause));
        let stream = self.transport.open(member, Protocol::Blobs).await.map_err(|error| broken(error.to_string()))?;
        let (reader, writer) = stream.split();
        let reader = Receiver::new(reader, GIVER_STALL_MAX).of_blob(self.size, self.moved.clone());
        let pair = StreamPair::new(0, reader, Sender::new(writer, GIVER_STALL_MAX));
        let request = GetRequest::blob_ranges(iroh_hash(&self.hash), piece.clone());
        match self.store.iroh().remote().execute_get(pair, request).complete().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn explain(&self, error: &GetError) -> End {
        let broken = |cause: &dyn std::error::Error| End::Fault(GiverFault::Broken(cause.to_string()));
        match error {
            GetError::Decode { source, .. } => match source {
                DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => {
                    End::Fault(GiverFault::Wrong("its bytes do not match the hash".to_owned()))
                }
                DecodeError::ChunkNotFound { .. }
                | DecodeError::ParentNotFound { .. }
                | DecodeError::LeafNotFound { .. } => broken(&io::Error::from(io::ErrorKind::UnexpectedEof)),
                DecodeError::Read { source, .. } => read_fault(source),
                DecodeError::Write { source, .. } => End::Here(store_error("write a blob", source)),
                other => broken(other),
            },
            GetError::AtBlobHeaderNext { source, .. } => match source {
                AtBlobHeaderNextError::NotFound { .. } => End::Fault(GiverFault::Lacks),
                AtBlobHeaderNextError::Read { source, .. } => read_fault(source),
            },
            GetError::LocalFailure { .. } | GetError::IrpcSend { .. } => {
                let failed = store_error("write a blob", error);
                End::Here(self.store.check_space(0).err().unwrap_or(failed))
            }
            other => broken(other),
        }
    }
}

fn read_fault(cause: &io::Error) -> End {
    let wrong_size = cause.get_ref().and_then(|inner| inner.downcast_ref::<WrongSize>());
    End::Fault(match wrong_size {
        Some(wrong) => GiverFault::Wrong(wrong.to_string()),
        None => GiverFault::Broken(cause.to_string()),
    })
}

/// What is not here yet, in pieces.
async fn missing(store: &BlobStore, hash: &BlobHash, size: u64) -> Result<VecDeque<ChunkRanges>, BlobError> {
    let here = here(store, hash).await?;
    let end = size.div_ceil(CHUNK_LEN).max(1);
    let step = usize::try_from(PIECE_LEN / CHUNK_LEN).expect("a piece is small");
    let pieces = (0..end).step_by(step).map(|start| {
        let piece = ChunkRanges::chunks(start..end.min(start + PIECE_LEN / CHUNK_LEN));
        &piece - &here
    });
    Ok(pieces.filter(|piece| !piece.is_empty()).collect())
}

/// What is here and verified.
async fn here(store: &BlobStore, hash: &BlobHash) -> Result<ChunkRanges, BlobError> {
    let here = store.iroh().blobs().observe(iroh_hash(hash)).await;
    here.map(|here| here.ranges).map_err(|error| store_error("look at what is there of a blob", &error))
}

/// The length of a piece in bytes, the last chunk counted whole.
fn piece_len(piece: &ChunkRanges) -> u64 {
    let boundaries = piece.boundaries();
    boundaries.chunks_exact(2).map(|range| (range[1].0 - range[0].0) * CHUNK_LEN).sum()
}

/// Hashes the whole blob as it stands on the disk; where it is not what it should be, it is removed.
async fn verify(store: &BlobStore, hash: &BlobHash) -> Result<(), BlobError> {
    let path = store.data_path(hash);
    let found = if path.exists() {
        hash_file(path).await?
    } else {
        let bytes = store.iroh().blobs().get_bytes(iroh_hash(hash)).await;
        BlobHash::of(&bytes.map_err(|error| store_error("read a blob", &error))?)
    };
    if found == *hash {
        return Ok(());
    }
    store.remove(hash).await?;
    Err(BlobError::Damaged { hash: *hash, found: found.to_string() })
}

#[cfg(test)]
mod tests;
