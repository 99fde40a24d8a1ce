//! Ties the API's and the network's doors to the node's shells. Wiring.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;

use crate::api::doors::BlobDoor;
use crate::blobs::store::BlobStore;
use crate::exec::logs::{self as files, Entry, LogReader};
use crate::gossip::join;
use crate::gossip::transport::{Protocol, Transport};
use crate::ids::{BlobHash, ClusterId, InstanceId, NodeKey, NodeName};
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::{BlobEvent, Input, Request};
use crate::node::handle::NodeHandle;
use crate::node::layout::Layout;
use crate::node::logs::{self, Duplex, LocalItem, LocalLine, LocalLogs, LogPeers, Start, Stream, parse_instance};

/// Largest binary, in bytes; the API counts uploads against the same limit.
const BLOB_LEN_MAX: u64 = 8 << 30;

/// How many readers of this node's logs other nodes may have at once: some people at each of many nodes.
const LOG_READERS_MAX: usize = 256;

/// How often a reader that follows looks for more: shorter than a person notices.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many entries are read at a stretch.
const BATCH: usize = 256;

/// Uploads into the store.
pub(super) struct Uploads {
    pub(super) store: BlobStore,
    pub(super) inputs: mpsc::Sender<Input>,
}

impl BlobDoor for Uploads {
    fn import(&self, content: BoxStream<'static, io::Result<Bytes>>) -> BoxFuture<'_, Result<(BlobHash, u64), Refusal>> {
        Box::pin(async move {
            let imported = self.store.import_reader(StreamReader::new(content), BLOB_LEN_MAX).await;
            let (hash, size) = imported.map_err(|error| Refusal::new(RefusalCode::Unavailable, error))?;
            let stored = Input::Blob(BlobEvent::Stored(hash, size));
            // The engine hears of it before the uploader does: a deploy that follows finds it.
            let heard = self.inputs.send(stored).await;
            heard.map_err(|_| Refusal::new(RefusalCode::Unavailable, "this node is stopping"))?;
            Ok((hash, size))
        })
    }

    fn size(&self, hash: BlobHash) -> BoxFuture<'_, Result<Option<u64>, Refusal>> {
        Box::pin(async move { Ok(self.store.size(&hash)) })
    }
}

/// The log files of this node.
pub(super) struct KeptLogs {
    layout: Layout,
}

impl KeptLogs {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

impl LocalLogs for KeptLogs {
    fn instances(&self) -> BoxFuture<'_, Vec<InstanceId>> {
        let dir = self.layout.logs();
        Box::pin(async move { tokio::task::spawn_blocking(move || folders(dir)).await.unwrap_or_default() })
    }

    fn lines(&self, instance: &InstanceId, start: Start, follow: bool) -> BoxStream<'static, LocalItem> {
        let dir = self.layout.log_dir(instance);
        let reader = match start {
            Start::After(seq) => LogReader::after(&dir, seq),
            Start::Beginning | Start::Tail(_) | Start::Since(_) => LogReader::open(&dir),
        };
        let cursor = Cursor { reader, start, follow, caught_up: false, ready: VecDeque::new() };
        stream::unfold(Some(cursor), |cursor| async { cursor?.next().await }).boxed()
    }
}

/// All instances that have a folder of logs; none while nothing was ever started here.
fn folders(dir: PathBuf) -> Vec<InstanceId> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| parse_instance(&name)).collect()
}

/// A place in one log.
struct Cursor {
    reader: LogReader,
    start: Start,
    follow: bool,
    /// Whether the end of what stood there was reached.
    caught_up: bool,
    ready: VecDeque<LocalItem>,
}

impl Cursor {
    async fn next(mut self) -> Option<(LocalItem, Option<Self>)> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                let rest = if matches!(item, LocalItem::Failed(_)) { None } else { Some(self) };
                return Some((item, rest));
            }
            if self.caught_up && !self.follow {
                return None;
            }
            if self.caught_up {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // Reading waits for the disk: that is not for the threads that carry messages.
            self = tokio::task::spawn_blocking(move || self.read()).await.ok()?;
        }
    }

    /// Reads on: up to the end of what stands there the first time (for a tail, all of it), a batch at a time.
    fn read(mut self) -> Self {
        let tail = match self.start {
            Start::Tail(lines) if !self.caught_up => Some(usize::try_from(lines).unwrap_or(usize::MAX)),
            _ => None,
        };
        loop {
            match self.reader.next_entry() {
                Ok(Some(entry)) => {
                    self.take(entry);
                    match tail {
                        Some(lines) if self.ready.len() > lines => drop(self.ready.pop_front()),
                        Some(_) => {}
                        None if self.ready.len() >= BATCH => return self,
                        None => {}
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.ready.push_back(LocalItem::Failed(format!("cannot read a log: {error}")));
                    return self;
                }
            }
        }
        if !self.caught_up {
            self.caught_up = true;
            if self.follow {
                self.ready.push_back(LocalItem::CaughtUp);
            } else {
                self.take_unfinished(tail);
            }
        }
        self
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Line(line) => {
                if !matches!(self.start, Start::Since(since) if line.at_ns < since) {
                    self.ready.push_back(LocalItem::Line(local_line(line)));
                }
            }
            Entry::Missed(lines) => self.ready.push_back(LocalItem::Missed(lines)),
        }
    }

    /// A history ends with what stands there, a last line without its end included.
    fn take_unfinished(&mut self, tail: Option<usize>) {
        let unfinished: Vec<_> = self.reader.unfinished().collect();
        for line in unfinished {
            self.take(Entry::Line(line));
        }
        while tail.is_some_and(|lines| self.ready.len() > lines) {
            self.ready.pop_front();
        }
    }
}

fn local_line(line: files::LogLine) -> LocalLine {
    let stream = match line.stream {
        files::Stream::Stdout => Stream::Stdout,
        files::Stream::Stderr => Stream::Stderr,
        files::Stream::Narun => Stream::Narun,
    };
    LocalLine { seq: line.seq, at_ns: line.at_ns, run: line.run, stream, bytes: line.bytes, cut: line.cut }
}

/// The way to other members' logs.
pub(super) struct LogStreams(pub(super) Transport);

impl LogPeers for LogStreams {
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>> {
        Box::pin(async move {
            let stream = self.0.open(peer, Protocol::Logs).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

/// Lets other members read this node's logs, until the transport stops.
pub(super) async fn serve_logs(transport: Transport, logs: Arc<KeptLogs>, node: NodeName) {
    let mut incoming = transport.accept(Protocol::Logs);
    let mut readers = JoinSet::new();
    while let Some((peer, stream)) = incoming.next().await {
        while readers.try_join_next().is_some() {}
        if readers.len() >= LOG_READERS_MAX {
            tracing::warn!(peer = %peer.short(), limit = LOG_READERS_MAX, "reader of logs refused: too many at once");
            continue;
        }
        let (logs, node) = (logs.clone(), node.clone());
        readers.spawn(async move {
            if let Err(error) = logs::serve::serve(stream, logs, node).await {
                tracing::debug!(peer = %peer.short(), %error, "reader of logs went away");
            }
        });
    }
}

/// Lets strangers in who hold a ticket, until the transport stops.
pub(super) async fn serve_joiners(transport: Transport, cluster: ClusterId, node: NodeHandle) {
    let admit = move |admit| {
        let node = node.clone();
        async move {
            match node.request(Request::Admit(admit)).await? {
                Response::Admitted(welcome) => Ok(*welcome),
                other => unreachable!("an admission was asked for, not {other:?}"),
            }
        }
    };
    join::serve(&transport, cluster, admit).await;
}
