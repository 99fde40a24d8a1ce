//! The API over a real socket, with a task in the engine's place.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};

use super::client::{Client, ClientError};
use super::doors::{BlobDoor, LedgerDoor, LogDoor, NetworkDoor, StopSender, UsageDoor};
use super::peer::Doorkeeper;
use super::wire::{self, LogEvent};
use super::{ApiState, serve, socket};
use crate::blobs::image::{Image, Platform};
use crate::capacity::tests::some_capacity;
use crate::confinement::Enforced;
use crate::crdt::ticket::Ticket;
use crate::exec::plan::Ended;
use crate::exec::usage::{Pressure, Usage};
use crate::ids::{BlobHash, ClusterId, InstanceId, NodeKey, NodeName, RunId, ServiceName};
use crate::ledger::question::{Answer as LedgerAnswer, Question, Standing};
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::Request;
use crate::node::engine::view::{
    CopiesView, DrainView, InstanceState, InstanceView, Me, NodeStatus, NodeView, Problem, RevisionStatus,
    RevisionView, ServiceView, TicketView, View, WantedView,
};
use crate::node::handle::{Command, NodeHandle};
use crate::node::logs::{LocalLine, LogItem, LogQuery, LogRecord, Stream};
use crate::node::usage::{InstanceUsage, ServiceUsage};
use crate::spec::ServiceSpec;
use crate::time::Wall;

/// A network with a past, in which the node with the second key speaks a newer version.
struct Counted;

impl NetworkDoor for Counted {
    fn counted(&self) -> Vec<(&'static str, u64)> {
        vec![("handshakes_failed", 3), ("impostors", 0)]
    }

    fn newer(&self) -> Vec<NodeKey> {
        vec![NodeKey([b'2'; 32]), NodeKey([77; 32])]
    }
}

/// A ledger of which nobody answers.
struct Closed;

impl LedgerDoor for Closed {
    fn ask(&self, _: Question) -> BoxFuture<'_, LedgerAnswer> {
        async { LedgerAnswer::NotLeader { leader: None } }.boxed()
    }

    fn standing(&self) -> Standing {
        Standing::default()
    }
}

/// One instance that uses something, and one node that does not answer.
struct Used;

impl UsageDoor for Used {
    fn query<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, ServiceUsage> {
        assert_eq!(*service, name("web"));
        let pressure = Pressure { some: 1234, full: 50 };
        let usage = Usage { memory: Some(1 << 20), cpu_us: Some(7), cpu_pressure: Some(pressure), ..Usage::default() };
        let instance = InstanceUsage { index: 0, run: RunId([0xab; 16]), usage: Some(usage) };
        let silent = vec![(node_name("n2"), "it is down".to_owned())];
        Box::pin(async move { ServiceUsage { instances: vec![(node_name("n1"), instance)], silent } })
    }
}

/// What the engine's stand-in answers.
pub(crate) type Answer = fn(&Request) -> Result<Response, Refusal>;

/// A node whose engine, store and logs are stand-ins, and whose API is real.
pub(crate) struct Api {
    pub(crate) client: Client,
    view: watch::Sender<Arc<View>>,
    asked: Arc<Mutex<Vec<Request>>>,
    queries: Arc<Mutex<Vec<LogQuery>>>,
    pub(crate) stopped: mpsc::Receiver<()>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Api {
    pub(crate) async fn start(view: View, answer: Answer) -> Self {
        Self::start_with(view, answer, Arc::new(Closed)).await
    }

    pub(crate) async fn start_with(view: View, answer: Answer, ledger: Arc<dyn LedgerDoor>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("narun.sock");
        let (commands, mut inbox) = mpsc::channel::<Command>(8);
        let (view, shown) = watch::channel(Arc::new(view));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Some(command) = inbox.recv().await {
                let response = answer(&command.request);
                seen.lock().unwrap().push(command.request);
                let _ = command.reply.send(response);
            }
        });
        let (stop, stopped) = StopSender::new();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let state = ApiState {
            node: NodeHandle::new(commands, shown),
            blobs: Arc::new(Store::default()),
            logs: Arc::new(Lines { queries: queries.clone() }),
            usage: Arc::new(Used),
            ledger,
            network: Arc::new(Counted),
            stop,
        };
        let (shutdown, over) = oneshot::channel::<()>();
        let listener = socket::bind(&path).unwrap();
        let serving = tokio::spawn(serve(Doorkeeper::new(listener, watch::channel(None).1), state, over.map(drop)));
        let client = Client::new(path, Duration::from_secs(20));
        Self { client, view, asked, queries, stopped, shutdown: Some(shutdown), serving, _dir: dir }
    }

    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Ends the API, as a node that stops does.
    pub(crate) fn end(&mut self) {
        self.shutdown = None;
    }

    /// Sends bytes as they are and takes all that comes back.
    pub(crate) async fn raw(&self, request: &str) -> (u16, Value) {
        let mut stream = socket::connect(self.client.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer[9..12].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// A store in memory that is full at 1 MiB.
#[derive(Default)]
struct Store {
    blobs: Mutex<BTreeMap<BlobHash, u64>>,
}

impl BlobDoor for Store {
    fn import(
        &self,
        mut content: BoxStream<'static, io::Result<Bytes>>,
    ) -> BoxFuture<'_, Result<(BlobHash, u64), Refusal>> {
        async move {
            let mut bytes = Vec::new();
            while let Some(piece) = content.next().await {
                let piece = piece.map_err(|error| Refusal::new(RefusalCode::Unavailable, error))?;
                bytes.extend_from_slice(&piece);
                if bytes.len() > 1024 * 1024 {
                    return Err(Refusal::new(
                        RefusalCode::Unavailable,
                        "cannot store the upload: no space left on device",
                    ));
                }
            }
            let stored = (BlobHash::of(&bytes), bytes.len() as u64);
            self.blobs.lock().unwrap().insert(stored.0, stored.1);
            Ok(stored)
        }
        .boxed()
    }

    fn size(&self, hash: BlobHash) -> BoxFuture<'_, Result<Option<u64>, Refusal>> {
        let size = self.blobs.lock().unwrap().get(&hash).copied();
        async move { Ok(size) }.boxed()
    }
}

struct Lines {
    queries: Arc<Mutex<Vec<LogQuery>>>,
}

impl LogDoor for Lines {
    fn query(&self, query: LogQuery) -> Result<BoxStream<'static, LogItem>, Refusal> {
        let follow = query.follow;
        self.queries.lock().unwrap().push(query);
        let instance = InstanceId { service: name("web"), index: 0 };
        let line = |seq, bytes: &[u8]| {
            LogItem::Line(LogRecord {
                node: node_name("n1"),
                instance: instance.clone(),
                line: LocalLine {
                    seq,
                    at_ns: 1_700_000_000_123_456_789,
                    run: RunId([0xab; 16]),
                    stream: Stream::Stdout,
                    bytes: bytes.to_vec(),
                    cut: false,
                },
            })
        };
        let items = vec![
            line(1, b"hello"),
            LogItem::Position(instance.clone(), 1),
            line(2, b"\xff\xfe"),
            LogItem::Missed(node_name("n1"), instance.clone(), 3),
            LogItem::Notice("node `n2` is down".into()),
        ];
        let items = futures::stream::iter(items);
        Ok(if follow { items.chain(futures::stream::pending()).boxed() } else { items.boxed() })
    }
}

pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

pub(crate) fn node_name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn node(text: &str, status: NodeStatus) -> NodeView {
    NodeView {
        key: NodeKey([text.as_bytes()[1]; 32]),
        name: node_name(text),
        status,
        since: Wall(1_000),
        is_me: text == "n1",
        role: crate::crdt::admission::Role::MEMBER,
        os: Some("linux".into()),
        arch: Some("amd64".into()),
        version: Some("0.1.0".into()),
        addresses: vec!["127.0.0.1:7470".into()],
        labels: vec![("zone".into(), "a".into())],
        joined_at: Wall(500),
        started_at: Some(Wall(900)),
        instances: 1,
        capacity: Some(some_capacity()),
        drain: None,
    }
}

/// A node that is drained.
pub(crate) fn drained(text: &str) -> NodeView {
    let drain = DrainView { since: Wall(9_000), asked_at: "n2".into(), left: Vec::new() };
    NodeView { drain: Some(drain), ..node(text, NodeStatus::Alive) }
}

fn image() -> Image {
    Image { platform: Platform::new("linux", "amd64"), hash: BlobHash::of(b"web"), size: 3, file_name: "web".into() }
}

pub(crate) fn revision(number: u32, text: &str) -> RevisionView {
    RevisionView {
        number,
        id: format!("{number}-aabbccdd"),
        spec: Arc::new(ServiceSpec::parse(text).unwrap()),
        images: vec![image()],
        stopped: false,
        author: "n1".into(),
        at: Wall(2_000),
        cause: "deploy".into(),
        status: RevisionStatus::Current,
    }
}

fn instance(index: u32, node: &str, state: InstanceState) -> InstanceView {
    InstanceView {
        service: name("web"),
        index,
        node_key: NodeKey([1; 32]),
        node: node_name(node),
        node_status: NodeStatus::Alive,
        state,
        ready: state == InstanceState::Running,
        revision: 2,
        current: true,
        wanted: true,
        run: Some(RunId([0xcd; 16])),
        pid: Some(77),
        started_at: Some(Wall(3_000)),
        restarts: 4,
        exit: Some(Ended { code: Some(1), signal: None, at: Wall(2_500), oom_kills: 0 }),
        error: None,
        retry_at: None,
        enforced: Enforced::default(),
    }
}

const WEB: &str = "name: web\ntag: v1\nnodes: [{name: n1, replicas: 2}, {name: n9, replicas: 1}]\n";

/// Two nodes; `web` wants two instances on `n1`, of which one runs, and one on `n9`, which is no member; `n2` runs one that is
/// not wanted there.
pub(crate) fn view() -> View {
    let current = revision(2, WEB);
    let past = RevisionView { status: RevisionStatus::Past, ..revision(1, WEB) };
    let stray = InstanceView { wanted: false, ..instance(5, "n2", InstanceState::Running) };
    View {
        overlooked: 0,
        me: Arc::new(Me { key: NodeKey([1; 32]), name: Some(node_name("n1")), cluster: ClusterId([2; 32]), boot: 3 }),
        nodes: Arc::new(vec![Arc::new(node("n1", NodeStatus::Alive)), Arc::new(node("n2", NodeStatus::Down))]),
        services: Arc::new(vec![Arc::new(ServiceView {
            name: name("web"),
            current: current.clone(),
            history: vec![current, past],
            wanted: vec![
                WantedView { node: Some(node_name("n1")), desired: 2, why: None },
                WantedView { node: Some(node_name("n9")), desired: 1, why: None },
            ],
        })]),
        instances: Arc::new(vec![
            instance(0, "n1", InstanceState::Running),
            InstanceView { error: Some("exit code 1".into()), ..instance(1, "n1", InstanceState::Backoff) },
            stray,
        ]),
        copies: Arc::new(CopiesView { wanted: 2, holders: [(image().hash, vec![node_name("n1")])].into() }),
        tickets: Arc::new(vec![TicketView {
            role: crate::crdt::admission::Role::MEMBER,
            id: "abcdef012345".into(),
            expires: Wall(4_102_444_800_000),
            uses_left: 1,
        }]),
        problems: Arc::new(vec![Problem {
            subject: "web".into(),
            message: "1 of 3 instances runs".into(),
            hint: "see `narun service info web`".into(),
        }]),
    }
}

/// The same view, with everything that `web` wants in place.
pub(crate) fn settled() -> View {
    let mut view = view();
    Arc::make_mut(&mut Arc::make_mut(&mut view.services)[0]).wanted =
        vec![WantedView { node: Some(node_name("n1")), desired: 2, why: None }];
    view.instances =
        Arc::new(vec![instance(0, "n1", InstanceState::Running), instance(1, "n1", InstanceState::Running)]);
    Arc::make_mut(&mut view.copies).wanted = 1;
    view
}

pub(crate) fn revised(_: &Request) -> Result<Response, Refusal> {
    Ok(Response::Revised { revision: 2, changed: true })
}

#[track_caller]
pub(crate) fn keys(value: &Value) -> Vec<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

pub(crate) fn refused(error: ClientError) -> wire::ErrorWords {
    match error {
        ClientError::Refused(words) => words,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test]
async fn the_keys_of_the_api_are_a_contract() {
    let api = Api::start(view(), revised).await;
    let get = async |path: &str| api.raw(&format!("GET {path} HTTP/1.0\r\nhost: n\r\n\r\n")).await.1;
    assert_eq!(keys(&get("/v1/version").await), ["version", "api"]);
    assert_eq!(
        keys(&get("/v1/status").await),
        [
            "node",
            "key",
            "cluster",
            "boot",
            "version",
            "nodes",
            "services",
            "problems",
            "cron_fires",
            "network",
            "ledger"
        ]
    );
    assert_eq!(
        keys(&get("/v1/status").await["services"][0]),
        ["service", "mode", "stopped", "desired", "running", "ready"]
    );
    let status = get("/v1/status").await;
    assert_eq!(status["network"], serde_json::json!({"handshakes_failed": 3}), "what never happened is left out");
    let newer = &status["problems"][0];
    assert_eq!((&newer["subject"], &newer["hint"]), (&"n2".into(), &"upgrade narun on this node".into()));
    assert_eq!(
        keys(&get("/v1/nodes").await[0]["capacity"]),
        ["cores", "memory_bytes", "kernel", "landlock_abi", "cgroup", "cgroup_controllers", "is_root"]
    );
    assert_eq!(
        keys(&get("/v1/nodes").await[0]),
        [
            "name",
            "key",
            "status",
            "since",
            "is_me",
            "os",
            "arch",
            "version",
            "addresses",
            "labels",
            "joined_at",
            "started_at",
            "instances",
            "role",
            "capacity",
            "drain"
        ]
    );
    let service = get("/v1/services/web").await;
    assert_eq!(keys(&service), ["service", "revision", "placements", "instances"]);
    assert_eq!(
        keys(&service["revision"]),
        [
            "revision",
            "id",
            "status",
            "tag",
            "mode",
            "cron_schedule",
            "stopped",
            "cause",
            "author",
            "at",
            "images",
            "spec",
            "suspended"
        ]
    );
    assert_eq!(
        keys(&service["placements"][0]),
        ["node", "node_status", "node_platform", "desired", "in_spec", "running", "instance_ids"]
    );
    assert_eq!(
        keys(&service["instances"][0]),
        [
            "instance",
            "service",
            "index",
            "node",
            "node_status",
            "state",
            "ready",
            "revision",
            "current",
            "wanted",
            "run",
            "pid",
            "started_at",
            "restarts",
            "exit",
            "error",
            "retry_at",
            "enforced"
        ]
    );
    assert_eq!(
        keys(&get("/v1/images").await[0]),
        ["object_name", "size", "modified", "tag", "os", "arch", "digest", "nodes", "copies_wanted", "used_by"]
    );
    assert_eq!(keys(&get("/v1/tickets").await[0]), ["id", "expires", "uses_left", "role"]);
}

#[tokio::test]
async fn placements_show_what_is_wanted_what_runs_and_what_strays() {
    let api = Api::start(view(), revised).await;
    let service = api.client.service("web").await.unwrap();
    let rows: Vec<_> = service
        .placements
        .iter()
        .map(|row| (row.node.as_deref().unwrap(), row.node_status.as_deref(), row.desired, row.running, row.in_spec))
        .collect();
    assert_eq!(rows, [("n1", Some("alive"), 2, 1, true), ("n9", None, 1, 0, true), ("n2", Some("down"), 0, 1, false)]);
    assert_eq!(service.placements[2].instance_ids, ["web-5"]);
    assert_eq!(api.client.history("web").await.unwrap().iter().map(|r| r.revision).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_the_name_that_was_meant() {
    let api = Api::start(view(), revised).await;
    let words = refused(api.client.service("wbe").await.unwrap_err());
    assert_eq!(words.code, "not_found");
    assert!(words.message.contains("`wbe`") && words.hint.unwrap().contains("`web`"));
    let words = refused(api.client.node("n").await.unwrap_err());
    assert_eq!(words.code, "not_found");
    let words = refused(api.client.service("../nodes").await.unwrap_err());
    assert_eq!(words.code, "not_found", "a name never becomes a step in a path");
}

#[tokio::test]
async fn every_refusal_of_the_engine_arrives_whole() {
    for code in [
        RefusalCode::NotFound,
        RefusalCode::Conflict,
        RefusalCode::Invalid,
        RefusalCode::Limit,
        RefusalCode::NotAllowed,
        RefusalCode::TimedOut,
        RefusalCode::Unavailable,
    ] {
        let status = super::error::status(code);
        assert!(status.is_client_error() || status.is_server_error(), "{status}");
    }
    let api = Api::start(view(), |_| Err(Refusal::new(RefusalCode::Conflict, "no").hint("try `x`"))).await;
    let words = refused(api.client.restart_service("web").await.unwrap_err());
    assert_eq!(
        (words.code.as_str(), words.message.as_str(), words.hint.as_deref()),
        ("conflict", "no", Some("try `x`"))
    );
    let (status, body) = api.raw("POST /v1/services/web/stop HTTP/1.0\r\nhost: n\r\n\r\n").await;
    assert_eq!(status, 409);
    assert_eq!(keys(&body), ["error"]);
    assert_eq!(keys(&body["error"]), ["code", "message", "hint"]);
}

#[tokio::test]
async fn requests_that_are_not_well_formed_get_our_own_error() {
    let api = Api::start(view(), revised).await;
    for (request, status) in [
        ("GET /v1/nothing HTTP/1.0\r\nhost: n\r\n\r\n", 404),
        ("PUT /v1/nodes HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("POST /v1/services HTTP/1.0\r\nhost: n\r\ncontent-length: 3\r\n\r\n{x}", 400),
        ("POST /v1/services HTTP/1.0\r\nhost: n\r\ncontent-length: 2\r\n\r\n{}", 400),
        ("GET /v1/logs?tail=many HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("GET /v1/logs?instance=web HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("GET /v1/logs?stream=stdin HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("GET /v1/logs?run=xyz HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("GET /v1/services/web/wait HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("POST /v1/services/We%20b/stop HTTP/1.0\r\nhost: n\r\n\r\n", 400),
        ("GET /v1/blobs/zz HTTP/1.0\r\nhost: n\r\n\r\n", 400),
    ] {
        let (found, body) = api.raw(request).await;
        assert_eq!(found, status, "{request}");
        assert!(body["error"]["message"].is_string(), "{request}: {body}");
    }
    assert!(api.asked().is_empty(), "nothing of this reached the engine");
}

fn deploy_of(spec: &str, images: Vec<wire::ImageRef>) -> wire::Deploy {
    wire::Deploy { spec: spec.into(), images, acks: 1, timeout_ms: 1_000, dry_run: false }
}

fn image_ref(content: &[u8]) -> wire::ImageRef {
    wire::ImageRef {
        os: "linux".into(),
        arch: "amd64".into(),
        hash: BlobHash::of(content).to_string(),
        size: content.len() as u64,
        file_name: "web".into(),
    }
}

fn pieces(content: Vec<io::Result<Bytes>>) -> BoxStream<'static, io::Result<Bytes>> {
    futures::stream::iter(content).boxed()
}

#[tokio::test]
async fn an_upload_and_a_deploy_reach_the_engine() {
    let api = Api::start(view(), revised).await;
    let image = image_ref(b"web");
    let words = refused(api.client.deploy(&deploy_of(WEB, vec![image.clone()])).await.unwrap_err());
    assert_eq!(words.code, "not_found", "content that was not uploaded is missed: {}", words.message);

    assert_eq!(api.client.blob(BlobHash::of(b"web")).await.unwrap(), None);
    let content = pieces(vec![Ok(Bytes::from_static(b"w")), Ok(Bytes::from_static(b"eb"))]);
    let blob = api.client.upload(content).await.unwrap();
    assert_eq!((blob.hash.as_str(), blob.size), (image.hash.as_str(), 3));
    assert_eq!(api.client.blob(BlobHash::of(b"web")).await.unwrap(), Some(blob));

    let answer = api.client.deploy(&deploy_of(WEB, vec![image.clone()])).await.unwrap();
    assert_eq!((answer.service.as_str(), answer.revision, answer.changed), ("web", 2, true));
    let asked = api.asked();
    let [Request::Deploy(deploy)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(deploy.spec.name.as_str(), "web");
    assert_eq!(deploy.images[0].hash, BlobHash::of(b"web"));

    let wrong_size = wire::ImageRef { size: 4, ..image.clone() };
    let words = refused(api.client.deploy(&deploy_of(WEB, vec![wrong_size])).await.unwrap_err());
    assert_eq!(words.code, "invalid");
}

#[tokio::test]
async fn the_node_checks_a_deploy_again() {
    let api = Api::start(view(), revised).await;
    let words = refused(api.client.deploy(&deploy_of("name: We b\ntag: v1\n", vec![])).await.unwrap_err());
    assert_eq!(words.code, "invalid");
    assert!(words.message.contains("name"), "{}", words.message);
    let twice = vec![image_ref(b"a"), wire::ImageRef { file_name: "other".into(), ..image_ref(b"b") }];
    let words = refused(api.client.deploy(&deploy_of(WEB, twice)).await.unwrap_err());
    assert!(words.message.contains("`web` and `other`") && words.message.contains("linux/amd64"), "{}", words.message);
    let no_acks = wire::Deploy { acks: 0, ..deploy_of(WEB, vec![]) };
    assert_eq!(refused(api.client.deploy(&no_acks).await.unwrap_err()).code, "invalid");
    assert!(api.asked().is_empty());

    let dry = wire::Deploy { dry_run: true, ..deploy_of(WEB, vec![image_ref(b"not uploaded")]) };
    api.client.deploy(&dry).await.unwrap();
    assert!(matches!(api.asked().as_slice(), [Request::Deploy(deploy)] if deploy.dry_run));
}

#[tokio::test]
async fn an_upload_that_breaks_leaves_nothing() {
    let api = Api::start(view(), revised).await;
    let content = pieces(vec![Ok(Bytes::from_static(b"half")), Err(io::Error::other("cable cut"))]);
    api.client.upload(content).await.unwrap_err();
    assert_eq!(api.client.blob(BlobHash::of(b"half")).await.unwrap(), None);
}

#[tokio::test]
async fn a_full_disk_is_told_even_while_the_client_still_writes() {
    let api = Api::start(view(), revised).await;
    let piece = Bytes::from(vec![7; 256 * 1024]);
    let content = pieces((0..64).map(|_| Ok(piece.clone())).collect());
    let words = refused(api.client.upload(content).await.unwrap_err());
    assert!(words.message.contains("no space left"), "{}", words.message);
}

#[tokio::test]
async fn changes_are_handed_on_as_asked() {
    let api = Api::start(view(), revised).await;
    api.client.scale("web", &wire::Scale { replicas: 3, node: Some("n1".into()) }).await.unwrap();
    api.client.stop_service("web").await.unwrap();
    api.client.start_service("web").await.unwrap();
    api.client.restart_service("web").await.unwrap();
    let asked = api.asked();
    assert!(
        matches!(
            asked.as_slice(),
            [
                Request::Scale { replicas: 3, node: Some(_), .. },
                Request::Stop { .. },
                Request::Start { .. },
                Request::Restart { .. }
            ]
        ),
        "{asked:?}"
    );
    let api = Api::start(view(), |_| Ok(Response::Deleted { existed: false })).await;
    assert!(!api.client.delete("gone").await.unwrap().existed);
}

#[tokio::test]
async fn a_ticket_is_made_with_a_fresh_secret_each_time() {
    let api = Api::start(view(), |request| {
        let Request::CreateTicket { ttl, uses, secret, .. } = request else {
            return Ok(Response::Revoked);
        };
        if *ttl > Duration::from_secs(60) || *uses == 0 {
            return Err(Refusal::new(RefusalCode::Limit, "that is the engine's to say"));
        }
        let (cluster, maker, addresses) = (ClusterId([1; 32]), NodeKey([2; 32]), vec!["127.0.0.1:7470".to_owned()]);
        Ok(Response::Ticket(Ticket { cluster, maker, addresses, secret: *secret, expires: Wall(5_000), uses: *uses }))
    })
    .await;
    let new = wire::NewTicket { ttl_seconds: 60, uses: 2, role: None };
    let first = api.client.create_ticket(&new).await.unwrap();
    let second = api.client.create_ticket(&new).await.unwrap();
    assert_eq!(first.ticket.parse::<Ticket>().unwrap().id(), first.id);
    assert_ne!(first.ticket, second.ticket);
    assert_eq!((first.uses, first.expires.as_str()), (2, "1970-01-01T00:00:05.000Z"));
    api.client.revoke_ticket(&first.id).await.unwrap();
    let new = |ttl_seconds, uses| wire::NewTicket { ttl_seconds, uses, role: None };
    for wrong in [new(u64::MAX, 1), new(60, 0)] {
        let words = refused(api.client.create_ticket(&wrong).await.unwrap_err());
        assert_eq!((words.code.as_str(), words.message.as_str()), ("limit", "that is the engine's to say"));
    }
}

#[tokio::test]
async fn waiting_ends_when_all_is_in_place() {
    let api = Api::start(view(), revised).await;
    let soon = wire::WaitFor { revision: 2, timeout_ms: 10 };
    let waited = api.client.wait("web", &soon).await.unwrap();
    assert_eq!((waited.outcome.as_str(), waited.desired, waited.ready), ("waiting", 3, 1));
    let reasons = waited.reasons.join("\n");
    for missing in ["web-1", "exit code 1", "`n9`", "1 of 2 copies of `web-v1-linux-amd64`"] {
        assert!(reasons.contains(missing), "{missing} is not told in {reasons}");
    }

    let long = wire::WaitFor { revision: 2, timeout_ms: 20_000 };
    let (waited, ()) = tokio::join!(api.client.wait("web", &long), async {
        tokio::task::yield_now().await;
        api.view.send_replace(Arc::new(settled()));
    });
    let waited = waited.unwrap();
    assert_eq!((waited.outcome.as_str(), waited.desired, waited.ready), ("done", 2, 2));
}

#[tokio::test]
async fn waiting_fails_at_once_with_the_instances_own_error() {
    let mut view = settled();
    let hopeless = InstanceView { error: Some("exit code 7".into()), ..instance(1, "n1", InstanceState::CrashLoop) };
    Arc::make_mut(&mut view.instances)[1] = hopeless;
    let api = Api::start(view, revised).await;
    let waited = api.client.wait("web", &wire::WaitFor { revision: 2, timeout_ms: 20_000 }).await.unwrap();
    assert_eq!(waited.outcome, "failed");
    assert_eq!(waited.reasons, ["instance `web-1` on node `n1` is crash-loop: exit code 7"]);

    let mut view = settled();
    let finished = |ready| InstanceView { ready, ..instance(1, "n1", InstanceState::Finished) };
    Arc::make_mut(&mut view.instances)[1] = finished(true);
    api.view.send_replace(Arc::new(view.clone()));
    let waited = api.client.wait("web", &wire::WaitFor { revision: 2, timeout_ms: 20_000 }).await.unwrap();
    assert_eq!((waited.outcome.as_str(), waited.ready), ("done", 2), "what has ended well is as good as what is up");
    Arc::make_mut(&mut view.instances)[1] =
        InstanceView { error: Some("exited with code 3".into()), ..finished(false) };
    api.view.send_replace(Arc::new(view));
    let waited = api.client.wait("web", &wire::WaitFor { revision: 2, timeout_ms: 20_000 }).await.unwrap();
    assert_eq!(waited.reasons, ["instance `web-1` on node `n1` is finished: exited with code 3"]);

    let waited = api.client.wait("web", &wire::WaitFor { revision: 1, timeout_ms: 20_000 }).await.unwrap();
    assert_eq!(waited.outcome, "failed", "another revision took its place");
    let waited = api.client.wait("gone", &wire::WaitFor { revision: 1, timeout_ms: 20_000 }).await.unwrap();
    assert_eq!((waited.outcome.as_str(), waited.reasons[0].as_str()), ("failed", "service `gone` was deleted"));
}

#[tokio::test]
async fn lines_arrive_as_they_were_written() {
    let api = Api::start(view(), revised).await;
    let asked =
        wire::Logs { app: Some("web".into()), grep: Some("a&b=c ü".into()), tail: Some(9), ..Default::default() };
    let events: Vec<_> = api.client.logs(&asked).await.unwrap().map(Result::unwrap).collect().await;
    let [
        LogEvent::Line(text),
        LogEvent::Line(bytes),
        LogEvent::Missed { lines: 3, .. },
        LogEvent::Notice { .. },
        LogEvent::End,
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((text.timestamp.as_str(), text.message.as_str()), ("2023-11-14T22:13:20.123456789Z", "hello"));
    assert_eq!((text.instance_id.as_str(), text.app_name.as_str(), text.node_id.as_str()), ("web-0", "web", "n1"));
    assert_eq!(text.message_base64, None);
    assert_eq!(bytes.message_base64.as_deref(), Some("//4="));
    let queries = api.queries.lock().unwrap();
    assert_eq!(queries[0].grep.as_deref(), Some("a&b=c ü"));
    assert_eq!(queries[0].tail, Some(9));
}

#[tokio::test]
async fn usage_of_a_service_comes_from_all_nodes() {
    let api = Api::start(view(), revised).await;
    let found = api.client.usage("web").await.unwrap();
    let one = &found.instances[0];
    assert_eq!((one.instance.as_str(), one.node.as_str(), one.run.as_str()), ("web-0", "n1", &*"ab".repeat(16)));
    assert_eq!((one.memory, one.cpu_us, one.pids), (Some(1 << 20), Some(7), None));
    assert_eq!(one.cpu_pressure, Some(wire::Pressure { some_percent: 12.34, full_percent: 0.5 }));
    assert_eq!(found.silent, [wire::Silent { node: "n2".into(), reason: "it is down".into() }]);
    let error = api.client.usage("wbe").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn lines_of_an_unknown_service_come_with_a_word() {
    let api = Api::start(view(), revised).await;
    let asked = wire::Logs { app: Some("gone".into()), ..Default::default() };
    let mut events = api.client.logs(&asked).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(&first, LogEvent::Notice { message } if message.contains("`gone`")), "{first:?}");
}

#[tokio::test]
async fn a_followed_line_is_not_held_back() {
    let api = Api::start(view(), revised).await;
    let asked = wire::Logs { follow: true, ..Default::default() };
    let mut events = api.client.logs(&asked).await.unwrap();
    for _ in 0..4 {
        tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_stream_without_end_does_not_hold_up_the_end() {
    let mut api = Api::start(view(), revised).await;
    let asked = wire::Logs { follow: true, ..Default::default() };
    let mut events = api.client.logs(&asked).await.unwrap();
    events.next().await.unwrap().unwrap();
    api.end();
    let serving = &mut api.serving;
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("the API does not end").unwrap().unwrap();
    assert!(matches!(api.client.version().await, Err(ClientError::NoNode { .. })));
}

#[tokio::test]
async fn the_word_to_stop_reaches_the_node() {
    let mut api = Api::start(view(), revised).await;
    api.client.stop().await.unwrap();
    api.client.stop().await.unwrap();
    assert_eq!(api.stopped.recv().await, Some(()));
}

#[tokio::test]
async fn without_a_node_the_socket_is_named() {
    let client = Client::new("/nonexistent/narun.sock", Duration::from_secs(1));
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::NoNode { .. }));
    assert!(error.to_string().contains("/nonexistent/narun.sock"), "{error}");
}

#[tokio::test]
async fn an_engine_that_is_gone_is_unavailable() {
    let (commands, inbox) = mpsc::channel(1);
    drop(inbox);
    let (_view, shown) = watch::channel(Arc::new(view()));
    let handle = NodeHandle::new(commands, shown);
    let refusal = handle.request(Request::Stop { service: name("web") }).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Unavailable);
}
