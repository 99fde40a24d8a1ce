//! This node's logs as they stand on its disk. A shell over `exec::logs`.

use std::path::PathBuf;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::exec::logs as kept;
use crate::ids::InstanceId;
use crate::node::layout::Layout;

use super::{LocalItem, LocalLine, LocalLogs, Start, Stream, parse_instance};

/// How many lines may stand unfinished at the end of a log: one for each of its streams.
const UNFINISHED_MAX: u64 = 2;

/// The logs in a data directory.
#[derive(Clone, Debug)]
pub struct DiskLogs {
    layout: Layout,
}

impl DiskLogs {
    /// The logs in the data directory of `layout`.
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

impl LocalLogs for DiskLogs {
    fn instances(&self) -> BoxFuture<'_, Vec<InstanceId>> {
        let folder = self.layout.logs();
        Box::pin(async move {
            let listed = tokio::task::spawn_blocking(move || {
                // A folder that is not there has no logs; one that cannot be read is told when a log in it is read.
                let entries = std::fs::read_dir(folder).into_iter().flatten();
                let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
                names.filter_map(|name| parse_instance(&name)).collect()
            });
            listed.await.unwrap_or_default()
        })
    }

    fn lines(&self, instance: &InstanceId, start: Start, follow: bool) -> BoxStream<'static, LocalItem> {
        let dir = self.layout.log_dir(instance);
        if !follow {
            return read(dir, start, false);
        }
        // History first, so that its end can be told; then what comes after its last whole line.
        let history = Some(read(dir.clone(), with_room(start), false));
        let last = match start {
            Start::After(seq) => seq,
            Start::Beginning | Start::Tail(_) | Start::Since(_) => 0,
        };
        futures::stream::unfold(Following { dir, last, history, live: None }, async |mut following| {
            let item = following.next().await?;
            Some((item, following))
        })
        .boxed()
    }
}

/// Lines that are unfinished count as lines of a tail; whoever follows gets them when they are whole, and wants others besides.
fn with_room(start: Start) -> Start {
    match start {
        Start::Tail(lines) => Start::Tail(lines.saturating_add(UNFINISHED_MAX)),
        other => other,
    }
}

struct Following {
    dir: PathBuf,
    /// The last whole line that was given.
    last: u64,
    history: Option<BoxStream<'static, LocalItem>>,
    live: Option<BoxStream<'static, LocalItem>>,
}

impl Following {
    async fn next(&mut self) -> Option<LocalItem> {
        while let Some(history) = &mut self.history {
            match history.next().await {
                // An unfinished line has the number of the line before it. It comes again, whole.
                Some(LocalItem::Line(line)) if line.seq <= self.last => {}
                Some(LocalItem::Line(line)) => {
                    self.last = line.seq;
                    return Some(LocalItem::Line(line));
                }
                Some(other) => return Some(other),
                None => {
                    self.history = None;
                    return Some(LocalItem::CaughtUp);
                }
            }
        }
        let live = self.live.get_or_insert_with(|| read(self.dir.clone(), Start::After(self.last), true));
        live.next().await
    }
}

fn read(dir: PathBuf, start: Start, follow: bool) -> BoxStream<'static, LocalItem> {
    let from = match start {
        Start::Beginning => kept::Start::Beginning,
        Start::Tail(lines) => kept::Start::Tail(usize::try_from(lines).unwrap_or(usize::MAX)),
        Start::Since(at_ns) => kept::Start::Since(at_ns),
        Start::After(seq) => kept::Start::After(seq),
    };
    let query = kept::LogQuery { from, follow, ..kept::LogQuery::default() };
    let item = |entry| match entry {
        Ok(kept::Entry::Line(line)) => LocalItem::Line(line_of(line)),
        Ok(kept::Entry::Missed(lines)) => LocalItem::Missed(lines),
        Err(error) => LocalItem::Failed(std::io::Error::to_string(&error)),
    };
    kept::lines(&dir, query).map(item).boxed()
}

fn line_of(line: kept::LogLine) -> LocalLine {
    let stream = match line.stream {
        kept::Stream::Stdout => Stream::Stdout,
        kept::Stream::Stderr => Stream::Stderr,
        kept::Stream::Narun => Stream::Narun,
    };
    LocalLine { seq: line.seq, at_ns: line.at_ns, run: line.run, stream, bytes: line.bytes, cut: line.cut }
}
