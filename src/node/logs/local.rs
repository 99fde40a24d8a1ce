//! The lines of this node that a question asks for, as one stream. Wiring.
//!
//! One task for each log, which ends with its reader; the streams are merged by `merge` while they give history. Where the
//! question follows, logs that appear later join in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::ids::{InstanceId, NodeName};

use super::merge::{Merge, Next};
use super::wire::Question;
use super::{ITEMS_MAX, LocalItem, LocalLogs, LogItem, LogQuery, LogRecord, Start};

/// How often a reader that follows looks for logs of new instances: often enough that a person does not wait for the first
/// line, seldom enough that listing a folder costs nothing.
const NEW_LOGS_EVERY: Duration = Duration::from_millis(250);

/// All items of this node for `question`. With `follow` the stream ends only when it is dropped.
pub fn lines(logs: Arc<dyn LocalLogs>, node: NodeName, question: Question) -> BoxStream<'static, LogItem> {
    let (items, shown) = mpsc::channel(ITEMS_MAX);
    tokio::spawn(async move {
        let closed = items.clone();
        tokio::select! {
            () = closed.closed() => {}
            _ = answer(logs.as_ref(), &node, &question, &items) => {}
        }
    });
    received(shown)
}

/// A receiver as a stream.
pub(super) fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> BoxStream<'static, T> {
    futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed()
}

/// The reader has gone away.
pub(super) struct Gone;

impl<T> From<mpsc::error::SendError<T>> for Gone {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self
    }
}

async fn answer(
    logs: &dyn LocalLogs,
    node: &NodeName,
    question: &Question,
    items: &mpsc::Sender<LogItem>,
) -> Result<(), Gone> {
    let mut known: BTreeSet<InstanceId> = BTreeSet::new();
    let mut streams = Vec::new();
    for instance in wanted(logs, &question.query, &known).await {
        streams.push(one_log(logs, node, &instance, question, question.had_history));
        known.insert(instance);
    }
    history(&mut streams, items).await?;
    if !question.query.follow {
        return Ok(());
    }
    items.send(LogItem::Live).await?;

    let mut live: futures::stream::SelectAll<_> = streams.into_iter().collect();
    let mut look = tokio::time::interval(NEW_LOGS_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(item) = live.next() => if item != LogItem::Live { items.send(item).await? },
            _ = look.tick() => {
                for instance in wanted(logs, &question.query, &known).await {
                    live.push(one_log(logs, node, &instance, question, true));
                    known.insert(instance);
                }
            }
        }
    }
}

async fn wanted(logs: &dyn LocalLogs, query: &LogQuery, known: &BTreeSet<InstanceId>) -> Vec<InstanceId> {
    let mut instances = logs.instances().await;
    instances.retain(|instance| query.wants_instance(instance) && !known.contains(instance));
    instances.sort();
    instances
}

/// Sends the history of all `streams` in the order of time, and leaves them where they are live; those that ended are taken out.
pub(super) async fn history(
    streams: &mut Vec<BoxStream<'static, LogItem>>,
    items: &mpsc::Sender<LogItem>,
) -> Result<(), Gone> {
    let mut merge = Merge::default();
    let mut open: BTreeMap<usize, BoxStream<'static, LogItem>> =
        std::mem::take(streams).into_iter().map(|stream| (merge.add(), stream)).collect();
    loop {
        match merge.next() {
            Next::Await(source) => {
                let item = open.get_mut(&source).expect("a source in its history is open").next().await;
                if item.is_none() {
                    open.remove(&source);
                }
                if let Some(other) = merge.take(source, item) {
                    items.send(other).await?;
                }
            }
            Next::Show(record) => items.send(LogItem::Line(*record)).await?,
            Next::Done => break,
        }
    }
    streams.extend(open.into_values());
    Ok(())
}

/// The items of one log. `all_new`: nothing of a log without a position was seen before, and all of it is wanted.
fn one_log(
    logs: &dyn LocalLogs,
    node: &NodeName,
    instance: &InstanceId,
    question: &Question,
    all_new: bool,
) -> BoxStream<'static, LogItem> {
    let query = &question.query;
    let position = question.positions.iter().find(|position| position.instance == *instance);
    let tail = query.tail.filter(|_| position.is_none() && !all_new);
    let start = match (position, query.since_ns, tail) {
        (Some(position), _, _) => Start::After(position.seq),
        (None, Some(since), _) => Start::Since(since),
        // The reader can count lines where every line is meant. It is asked for one at least, which tells where the log ends.
        (None, None, Some(tail)) if !query.picks_lines() => Start::Tail(tail.max(1)),
        (None, None, _) => Start::Beginning,
    };
    let lines = logs.lines(instance, start, query.follow);
    let (items, shown) = mpsc::channel(ITEMS_MAX);
    let filter = Filter {
        node: node.clone(),
        instance: instance.clone(),
        query: query.clone(),
        kept: tail.map(|tail| Tail { lines: VecDeque::new(), most: tail.min(super::TAIL_MAX) }),
        last_seq: None,
    };
    tokio::spawn(async move {
        let closed = items.clone();
        tokio::select! {
            () = closed.closed() => {}
            _ = filter.run(lines, &items) => {}
        }
    });
    received(shown)
}

/// Picks the wanted lines out of one log.
struct Filter {
    node: NodeName,
    instance: InstanceId,
    query: LogQuery,
    /// Held back until all history was seen, when only its end is wanted. It cannot outgrow the log, whose size is bounded.
    kept: Option<Tail>,
    last_seq: Option<u64>,
}

struct Tail {
    lines: VecDeque<LogItem>,
    most: u64,
}

impl Filter {
    async fn run(
        mut self,
        mut lines: BoxStream<'static, LocalItem>,
        items: &mpsc::Sender<LogItem>,
    ) -> Result<(), Gone> {
        while let Some(item) = lines.next().await {
            match item {
                LocalItem::Line(line) => {
                    self.last_seq = Some(line.seq);
                    if self.query.wants_line(&line) {
                        let (node, instance) = (self.node.clone(), self.instance.clone());
                        self.show(LogItem::Line(LogRecord { node, instance, line }), items).await?;
                    }
                }
                LocalItem::Missed(lines) => {
                    items.send(LogItem::Missed(self.node.clone(), self.instance.clone(), lines)).await?;
                }
                LocalItem::CaughtUp => {
                    self.release(items).await?;
                    if let Some(seq) = self.last_seq {
                        items.send(LogItem::Position(self.instance.clone(), seq)).await?;
                    }
                    items.send(LogItem::Live).await?;
                }
                LocalItem::Failed(reason) => {
                    let (instance, node) = (&self.instance, &self.node);
                    let notice = format!("cannot read the log of `{instance}` on node `{node}`: {reason}");
                    items.send(LogItem::Notice(notice)).await?;
                    break;
                }
            }
        }
        self.release(items).await
    }

    async fn show(&mut self, line: LogItem, items: &mpsc::Sender<LogItem>) -> Result<(), Gone> {
        match &mut self.kept {
            Some(tail) => {
                tail.lines.push_back(line);
                if tail.lines.len() as u64 > tail.most {
                    tail.lines.pop_front();
                }
                Ok(())
            }
            None => Ok(items.send(line).await?),
        }
    }

    /// Gives out what was held back; from here on lines pass at once.
    async fn release(&mut self, items: &mpsc::Sender<LogItem>) -> Result<(), Gone> {
        for line in self.kept.take().map(|tail| tail.lines).unwrap_or_default() {
            items.send(line).await?;
        }
        Ok(())
    }
}
