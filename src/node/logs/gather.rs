//! A query answered by the whole cluster. Wiring.
//!
//! This node's own lines and one stream for each other member, merged by time while they give history. A member that cannot
//! be reached is a notice and not a failure. Where the query follows, a member that breaks off is asked again from the place
//! where it stopped, and members that come later join in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::ids::{InstanceId, NodeKey, NodeName};
use crate::node::engine::effect::{Refusal, RefusalCode};
use crate::node::engine::view::{NodeStatus, View};
use crate::node::handle::NodeHandle;

use super::local::{Gone, history, received};
use super::serve::{StreamError, ask, read_frame};
use super::wire::{Frame, Position, Question};
use super::{ITEMS_MAX, LocalLogs, LogItem, LogPeers, LogQuery, TAIL_MAX, local};

/// How long a member may take to open a stream: a dial over a slow line, not the patience of a person.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// How long a member may be silent while it owes history; a disk that takes longer is as good as gone.
const HISTORY_SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long to wait before a member that broke off is asked again. A restart of a node takes about as long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Asks all nodes.
pub struct Gather {
    node: NodeHandle,
    local: Arc<dyn LocalLogs>,
    peers: Arc<dyn LogPeers>,
}

impl Gather {
    /// A gatherer over this node's view, its own logs and the way to those of others.
    pub fn new(node: NodeHandle, local: Arc<dyn LocalLogs>, peers: Arc<dyn LogPeers>) -> Self {
        Self { node, local, peers }
    }

    /// The items for `query`, from all nodes that it concerns. Refused when it names a node that is no member. The stream ends
    /// with the last line, or, where the query follows, when it is dropped.
    pub fn query(&self, query: LogQuery) -> Result<BoxStream<'static, LogItem>, Refusal> {
        if query.tail.is_some_and(|tail| tail > TAIL_MAX) {
            return Err(Refusal::new(
                RefusalCode::Limit,
                format!("at most the last {TAIL_MAX} lines can be asked for"),
            ));
        }
        let view = self.node.view();
        if let Some(name) = query.node.as_ref().filter(|name| !view.nodes.iter().any(|node| node.name == **name)) {
            let known: Vec<_> = view.nodes.iter().map(|node| format!("`{}`", node.name)).collect();
            return Err(Refusal::new(RefusalCode::NotFound, format!("no node `{name}`"))
                .hint(format!("the members are {}", known.join(", "))));
        }
        let (items, shown) = mpsc::channel(ITEMS_MAX);
        let asking = Asking { node: self.node.clone(), local: self.local.clone(), peers: self.peers.clone(), query };
        tokio::spawn(async move {
            let closed = items.clone();
            tokio::select! {
                () = closed.closed() => {}
                _ = asking.run(&items) => {}
            }
        });
        Ok(received(shown))
    }
}

/// One query under way.
struct Asking {
    node: NodeHandle,
    local: Arc<dyn LocalLogs>,
    peers: Arc<dyn LogPeers>,
    query: LogQuery,
}

/// A member to ask.
#[derive(Clone)]
struct Member {
    key: NodeKey,
    name: NodeName,
    is_me: bool,
}

impl Asking {
    async fn run(&self, items: &mpsc::Sender<LogItem>) -> Result<(), Gone> {
        let mut asked = BTreeSet::new();
        let mut streams = Vec::new();
        for member in members(&self.node.view(), &self.query, &asked) {
            asked.insert(member.key);
            streams.push(self.stream(member, false));
        }
        history(&mut streams, items).await?;
        if !self.query.follow {
            return Ok(());
        }
        items.send(LogItem::Live).await?;

        let mut live: futures::stream::SelectAll<_> = streams.into_iter().collect();
        loop {
            let newcomers = self.node.when(|view| {
                let new = members(view, &self.query, &asked);
                if new.is_empty() { None } else { Some(new) }
            });
            tokio::select! {
                // Positions serve nodes that ask one another; this is where the answer leaves for a person.
                Some(item) = live.next() => match item {
                    LogItem::Live | LogItem::Position(..) => {}
                    item => items.send(item).await?,
                },
                newcomers = newcomers => {
                    let Some(newcomers) = newcomers else { return Ok(()) };
                    for member in newcomers {
                        asked.insert(member.key);
                        live.push(self.stream(member, true));
                    }
                }
            }
        }
    }

    /// The items of one member. `had_history`: all that it has is newer than the query.
    fn stream(&self, member: Member, had_history: bool) -> BoxStream<'static, LogItem> {
        let question = Question { query: self.query.clone(), positions: Vec::new(), had_history };
        if member.is_me {
            return local::lines(self.local.clone(), member.name, question);
        }
        let (items, shown) = mpsc::channel(ITEMS_MAX);
        let remote = Remote {
            node: self.node.clone(),
            peers: self.peers.clone(),
            member,
            query: self.query.clone(),
            positions: BTreeMap::new(),
            had_history,
        };
        tokio::spawn(async move {
            let closed = items.clone();
            tokio::select! {
                () = closed.closed() => {}
                _ = remote.run(&items) => {}
            }
        });
        received(shown)
    }
}

/// The members that a query concerns and that were not asked yet.
fn members(view: &View, query: &LogQuery, asked: &BTreeSet<NodeKey>) -> Vec<Member> {
    let wanted = view.nodes.iter().filter(|node| query.node.as_ref().is_none_or(|name| *name == node.name));
    wanted
        .filter(|node| !asked.contains(&node.key))
        .map(|node| Member { key: node.key, name: node.name.clone(), is_me: node.is_me })
        .collect()
}

/// The answers of one other member, over as many streams as it takes.
struct Remote {
    node: NodeHandle,
    peers: Arc<dyn LogPeers>,
    member: Member,
    query: LogQuery,
    positions: BTreeMap<InstanceId, u64>,
    had_history: bool,
}

impl Remote {
    async fn run(mut self, items: &mpsc::Sender<LogItem>) -> Result<(), Gone> {
        let mut told = false;
        // The others' history must not wait for a member that cannot be reached, and neither must their live lines.
        let mut live_said = false;
        loop {
            let failure = match self.is_down() {
                true => "is down".to_owned(),
                false => match self.one_answer(items, &mut told, &mut live_said).await? {
                    Ok(()) => return Ok(()),
                    Err(reason) => format!("cannot be asked: {reason}"),
                },
            };
            if !told {
                let name = &self.member.name;
                let follow = if self.query.follow { "; they follow once it is back" } else { "" };
                let notice = format!("node `{name}` {failure}: its lines are missing{follow}");
                items.send(LogItem::Notice(notice)).await?;
                told = true;
            }
            if !self.query.follow {
                return Ok(());
            }
            if !live_said {
                items.send(LogItem::Live).await?;
                live_said = true;
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
            let key = self.member.key;
            let up = |view: &View| {
                view.nodes.iter().find(|node| node.key == key && node.status != NodeStatus::Down).map(drop)
            };
            if self.node.when(up).await.is_none() {
                return Ok(());
            }
        }
    }

    fn is_down(&self) -> bool {
        let view = self.node.view();
        view.nodes.iter().any(|node| node.key == self.member.key && node.status == NodeStatus::Down)
    }

    /// Asks once and passes on what comes. The inner result says whether the answer was whole.
    async fn one_answer(
        &mut self,
        items: &mpsc::Sender<LogItem>,
        told: &mut bool,
        live_said: &mut bool,
    ) -> Result<Result<(), String>, Gone> {
        let opened = tokio::time::timeout(OPEN_WITHIN, self.peers.open(self.member.key)).await;
        let mut stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(reason)) => return Ok(Err(reason)),
            Err(_) => return Ok(Err(format!("no connection within {OPEN_WITHIN:?}"))),
        };
        let positions = self.positions.iter().map(|(instance, seq)| Position { instance: instance.clone(), seq: *seq });
        let question =
            Question { query: self.query.clone(), positions: positions.collect(), had_history: self.had_history };
        if let Err(error) = ask(stream.as_mut(), &question).await {
            return Ok(Err(error.to_string()));
        }
        let mut owes_history = true;
        loop {
            let frame = match owes_history {
                true => match tokio::time::timeout(HISTORY_SILENCE_MAX, read_frame(&mut stream)).await {
                    Ok(frame) => frame,
                    Err(_) => Err(StreamError::Silent(HISTORY_SILENCE_MAX)),
                },
                false => read_frame(&mut stream).await,
            };
            let item = match frame {
                Ok(Frame::Item(item)) => item,
                Ok(Frame::End) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error.to_string())),
            };
            // Reached again: the next break is worth a notice of its own.
            *told = false;
            match item {
                LogItem::Live => {
                    owes_history = false;
                    self.had_history = true;
                    if !std::mem::replace(live_said, true) {
                        items.send(LogItem::Live).await?;
                    }
                }
                LogItem::Position(instance, seq) => self.reached(instance, seq),
                LogItem::Line(record) => {
                    self.reached(record.instance.clone(), record.line.seq);
                    items.send(LogItem::Line(record)).await?;
                }
                item @ (LogItem::Missed(..) | LogItem::Notice(_)) => items.send(item).await?,
            }
        }
    }

    fn reached(&mut self, instance: InstanceId, seq: u64) {
        let position = self.positions.entry(instance).or_insert(seq);
        *position = (*position).max(seq);
    }
}
