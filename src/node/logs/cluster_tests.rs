//! Queries over several nodes: real logs on disk, pipes in place of connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::disk::DiskLogs;
use super::gather::Gather;
use super::serve::LogServer;
use super::{Duplex, LocalLogs, LogItem, LogPeers, LogQuery, Stream, parse_instance};
use crate::exec::logs::Stream as Kept;
use crate::exec::logs::writer::LogWriter;
use crate::ids::{NodeKey, NodeName, RunId};
use crate::node::engine::effect::RefusalCode;
use crate::node::engine::view::{NodeStatus, NodeView, View};
use crate::node::handle::NodeHandle;
use crate::node::layout::Layout;
use crate::time::Wall;

/// Longest that anything here may take; reached only when something is wrong.
const WITHIN: Duration = Duration::from_secs(30);

/// Small enough that an answer has to wait for its reader.
const PIPE_LEN: usize = 512;

const RUN: RunId = RunId([0xab; 16]);

/// Some nodes in one process. The first one is asked.
struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    view: watch::Sender<Arc<View>>,
    peers: Arc<Pipes>,
    gather: Gather,
}

/// The ways to the other nodes.
#[derive(Default)]
struct Pipes {
    nodes: Mutex<BTreeMap<NodeKey, (NodeName, Layout)>>,
    open: Mutex<Vec<AbortHandle>>,
}

impl Pipes {
    /// Breaks every connection off, as the end of a node does.
    fn cut(&self) {
        for connection in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

impl LogPeers for Pipes {
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>> {
        let found = self.nodes.lock().unwrap().get(&peer).cloned();
        Box::pin(async move {
            let (name, layout) = found.ok_or_else(|| "connection refused".to_owned())?;
            let (near, far) = tokio::io::duplex(PIPE_LEN);
            let server = LogServer::new(Arc::new(DiskLogs::new(layout)), name);
            let serving = tokio::spawn(async move { server.serve(far).await });
            self.open.lock().unwrap().push(serving.abort_handle());
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

fn key(index: usize) -> NodeKey {
    NodeKey([u8::try_from(index).unwrap() + 1; 32])
}

fn member(index: usize, status: NodeStatus) -> NodeView {
    NodeView {
        key: key(index),
        name: NodeName::new(&format!("n{index}")).unwrap(),
        status,
        since: Wall(0),
        is_me: index == 0,
        role: crate::crdt::admission::Role::MEMBER,
        os: None,
        arch: None,
        version: None,
        addresses: Vec::new(),
        labels: Vec::new(),
        joined_at: Wall(0),
        started_at: None,
        instances: 0,
        capacity: None,
        drain: None,
    }
}

impl Cluster {
    fn new(statuses: &[NodeStatus]) -> Self {
        let dirs: Vec<_> = statuses.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        let peers = Arc::new(Pipes::default());
        let (view, shown) = watch::channel(Arc::new(View::default()));
        let (commands, _) = mpsc::channel(1);
        let local = Arc::new(DiskLogs::new(Layout::new(dirs[0].path())));
        let gather = Gather::new(NodeHandle::new(commands, shown), local, peers.clone());
        let cluster = Self { dirs, view, peers, gather };
        cluster.show(statuses);
        for index in 1..statuses.len() {
            cluster.reachable(index, true);
        }
        cluster
    }

    fn show(&self, statuses: &[NodeStatus]) {
        let nodes = statuses.iter().enumerate().map(|(index, status)| Arc::new(member(index, *status))).collect();
        self.view.send_replace(Arc::new(View { nodes: Arc::new(nodes), ..View::default() }));
    }

    fn reachable(&self, index: usize, yes: bool) {
        let mut nodes = self.peers.nodes.lock().unwrap();
        match yes {
            true => drop(nodes.insert(key(index), (member(index, NodeStatus::Alive).name, self.layout(index)))),
            false => drop(nodes.remove(&key(index))),
        }
    }

    fn layout(&self, index: usize) -> Layout {
        Layout::new(self.dirs[index].path())
    }

    fn writer(&self, index: usize, instance: &str) -> LogWriter {
        LogWriter::open(&self.layout(index).log_dir(&parse_instance(instance).unwrap())).unwrap()
    }

    fn ask(&self, query: LogQuery) -> BoxStream<'static, LogItem> {
        self.gather.query(query).unwrap()
    }

    /// The texts of all that comes until the end.
    async fn all(&self, query: LogQuery) -> Vec<String> {
        let items = tokio::time::timeout(WITHIN, self.ask(query).collect::<Vec<_>>()).await.unwrap();
        items.iter().filter_map(text).collect()
    }
}

/// A line as `node/instance: text`, a notice as itself.
fn text(item: &LogItem) -> Option<String> {
    match item {
        LogItem::Line(record) => {
            let line = String::from_utf8_lossy(&record.line.bytes);
            Some(format!("{}/{}: {line}", record.node, record.instance))
        }
        LogItem::Notice(notice) => Some(notice.clone()),
        LogItem::Missed(node, instance, lines) => Some(format!("{node}/{instance}: {lines} missed")),
        LogItem::Position(..) | LogItem::Live => None,
    }
}

async fn next(items: &mut BoxStream<'static, LogItem>) -> LogItem {
    tokio::time::timeout(WITHIN, items.next()).await.expect("nothing comes").expect("the stream ended")
}

/// The next `count` lines and notices.
async fn texts(items: &mut BoxStream<'static, LogItem>, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(text(&next(items).await));
    }
    found
}

async fn until_live(items: &mut BoxStream<'static, LogItem>) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match next(items).await {
            LogItem::Live => return found,
            item => found.extend(text(&item)),
        }
    }
}

fn line(number: usize) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

const TWO: [NodeStatus; 2] = [NodeStatus::Alive, NodeStatus::Alive];

#[tokio::test]
async fn history_of_all_nodes_comes_in_the_order_of_time_and_ends() {
    let cluster = Cluster::new(&TWO);
    let mut writers = [cluster.writer(0, "web-0"), cluster.writer(1, "web-1"), cluster.writer(1, "db-0")];
    for number in 0..300 {
        writers[number % 3].append(RUN, Kept::Stdout, &line(number));
    }
    let found = cluster.all(LogQuery::default()).await;
    let names = ["n0/web-0", "n1/web-1", "n1/db-0"];
    let expected: Vec<_> = (0..300).map(|number| format!("{}: {number}", names[number % 3])).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn filters_combine() {
    let cluster = Cluster::new(&TWO);
    for (index, instance) in [(0, "web-0"), (1, "web-1"), (1, "db-0")] {
        let mut writer = cluster.writer(index, instance);
        for number in 0..20 {
            writer.append(RUN, if number % 2 == 0 { Kept::Stdout } else { Kept::Stderr }, &line(number));
        }
    }
    let web = LogQuery { service: Some("web".parse().unwrap()), ..LogQuery::default() };
    let tail = cluster.all(LogQuery { tail: Some(1), ..web.clone() }).await;
    assert_eq!(tail, ["n0/web-0: 19", "n1/web-1: 19"]);
    let stderr = LogQuery { stream: Some(Stream::Stderr), grep: Some("1".into()), tail: Some(2), ..web.clone() };
    let found = cluster.all(LogQuery { node: Some("n1".parse().unwrap()), ..stderr.clone() }).await;
    assert_eq!(found, ["n1/web-1: 17", "n1/web-1: 19"], "the last lines are counted after all other filters");
    let instance = parse_instance("web-0");
    assert_eq!(cluster.all(LogQuery { instance, ..stderr }).await, ["n0/web-0: 17", "n0/web-0: 19"]);
    assert_eq!(cluster.all(LogQuery { run: Some("cd".into()), ..web.clone() }).await, Vec::<String>::new());
    assert_eq!(cluster.all(LogQuery { tail: Some(0), ..web }).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_is_down_is_a_notice_and_no_failure() {
    let cluster = Cluster::new(&[NodeStatus::Alive, NodeStatus::Down, NodeStatus::Alive]);
    cluster.reachable(2, false);
    cluster.writer(0, "web-0").append(RUN, Kept::Stdout, b"hello\n");
    let mut found = cluster.all(LogQuery::default()).await;
    found.sort();
    assert_eq!(found[0], "n0/web-0: hello");
    assert_eq!(found[1], "node `n1` is down: its lines are missing");
    assert_eq!(found[2], "node `n2` cannot be asked: connection refused: its lines are missing");
    let refusal = cluster.gather.query(LogQuery { node: Some("n9".parse().unwrap()), ..LogQuery::default() });
    assert_eq!(refusal.map(drop).unwrap_err().code, RefusalCode::NotFound);
}

#[tokio::test]
async fn following_goes_on_where_history_ended() {
    let cluster = Cluster::new(&TWO);
    let mut near = cluster.writer(0, "web-0");
    let mut far = cluster.writer(1, "web-1");
    near.append(RUN, Kept::Stdout, b"1\n2\nhal");
    far.append(RUN, Kept::Stdout, b"a\nb\n");
    let query = LogQuery { follow: true, tail: Some(1), ..LogQuery::default() };
    let mut items = cluster.ask(query);
    let mut history = until_live(&mut items).await;
    history.sort();
    assert_eq!(history, ["n0/web-0: 2", "n1/web-1: b"]);
    near.append(RUN, Kept::Stdout, b"f\n");
    assert_eq!(texts(&mut items, 1).await, ["n0/web-0: half"], "an unfinished line comes once, whole");
    far.append(RUN, Kept::Stderr, b"c\n");
    assert_eq!(texts(&mut items, 1).await, ["n1/web-1: c"]);
    let mut other = cluster.writer(1, "late-0");
    other.append(RUN, Kept::Stdout, b"x\n");
    assert_eq!(texts(&mut items, 1).await, ["n1/late-0: x"], "an instance that comes later joins in");
}

#[tokio::test]
async fn a_broken_connection_loses_and_repeats_nothing() {
    let cluster = Cluster::new(&TWO);
    let mut writer = cluster.writer(1, "web-0");
    let mut silent = cluster.writer(1, "old-0");
    silent.append(RUN, Kept::Stdout, b"long ago\n");
    let mut items = cluster.ask(LogQuery { follow: true, tail: Some(0), ..LogQuery::default() });
    assert_eq!(until_live(&mut items).await, Vec::<String>::new());
    let mut expected = Vec::new();
    let mut found = Vec::new();
    for round in 0..4 {
        for number in 0..100 {
            writer.append(RUN, Kept::Stdout, &line(round * 100 + number));
            expected.push(format!("n1/web-0: {}", round * 100 + number));
        }
        // Somewhere in the middle of what was just written.
        found.extend(texts(&mut items, 50).await);
        cluster.peers.cut();
    }
    while found.iter().filter(|text| text.starts_with("n1/web-0")).count() < expected.len() {
        found.extend(texts(&mut items, 1).await);
    }
    let (notices, lines): (Vec<_>, Vec<_>) = found.into_iter().partition(|text| text.starts_with("node "));
    assert_eq!(lines, expected);
    assert!(!notices.is_empty(), "a break is told");
}

#[tokio::test]
async fn a_member_that_comes_back_joins_in() {
    let cluster = Cluster::new(&[NodeStatus::Alive, NodeStatus::Down]);
    let mut writer = cluster.writer(1, "web-0");
    let mut items = cluster.ask(LogQuery { follow: true, ..LogQuery::default() });
    let told = until_live(&mut items).await;
    assert_eq!(told, ["node `n1` is down: its lines are missing; they follow once it is back"]);
    writer.append(RUN, Kept::Stdout, b"back\n");
    cluster.show(&TWO);
    assert_eq!(texts(&mut items, 1).await, ["n1/web-0: back"]);
    let third = Cluster::new(&TWO);
    third.show(&TWO[..1]);
    let mut items = third.ask(LogQuery { follow: true, ..LogQuery::default() });
    until_live(&mut items).await;
    third.writer(1, "web-0").append(RUN, Kept::Stdout, b"new\n");
    third.show(&TWO);
    assert_eq!(texts(&mut items, 1).await, ["n1/web-0: new"]);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_all_that_was_begun_for_it() {
    let cluster = Cluster::new(&TWO);
    let _writer = cluster.writer(1, "web-0");
    let mut items = cluster.ask(LogQuery { follow: true, ..LogQuery::default() });
    until_live(&mut items).await;
    drop(items);
    let over = async {
        while !cluster.peers.open.lock().unwrap().iter().all(AbortHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, over).await.expect("a connection outlives its reader");
}

#[tokio::test]
async fn garbage_at_the_door_of_the_logs_harms_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = Cluster::new(&TWO);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 2, 0xff, 0xff], &[0, 0]] {
        let (mut near, far) = tokio::io::duplex(PIPE_LEN);
        let logs: Arc<dyn LocalLogs> = Arc::new(DiskLogs::new(cluster.layout(1)));
        let server = LogServer::new(logs, "n1".parse().unwrap());
        let serving = tokio::spawn(async move { server.serve(far).await });
        near.write_all(garbage).await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty(), "nothing is said to garbage");
        assert!(tokio::time::timeout(WITHIN, serving).await.unwrap().unwrap().is_err());
    }
}
