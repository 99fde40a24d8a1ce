//! Engines, called by hand: one node alone, and two that exchange messages. Whole clusters are tested in `tests/netsim/`.

use crate::crdt::admission::Role;
use std::collections::VecDeque;
use std::time::Duration;

use super::effect::{Effect, RefusalCode, Response, Table};
use super::input::{Admit, BlobEvent, Deploy, NetworkEvent, Request};
use super::view::{InstanceState, RevisionStatus};
use super::*;
use crate::blobs::image::Image;
use crate::capacity::tests::some_capacity;
use crate::confinement::Enforced;
use crate::crdt::roster::tests::HashSignatures;
use crate::exec::plan::{Ended, Kept, LaunchPlan, ProcessEvent};
use crate::ids::BlobHash;
use crate::node::engine::effect::Committed;
use crate::spec::ServiceSpec;

pub(super) const BINARY: BlobHash = BlobHash([7; 32]);

/// An engine with a disk that confirms at once, and what it asked for.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) stored: Stored,
    pub(super) now: Now,
    effects: VecDeque<Effect>,
    requests: u64,
}

fn founding() -> Founding {
    Founding { founder: NodeKey([1; 32]), name: NodeName::new("n1").unwrap(), at: Wall(1), nonce: [0; 16] }
}

fn config(node: u8, welcome: Option<Welcome>) -> EngineConfig {
    EngineConfig {
        signatures: Arc::new(HashSignatures(NodeKey([node; 32]))),
        founding: founding(),
        welcome,
        name: NodeName::new(&format!("n{node}")).unwrap(),
        addresses: vec![format!("10.0.0.{node}:7000")],
        platform: Platform::new("linux", "amd64"),
        labels: BTreeMap::new(),
        capacity: some_capacity(),
        data_dir: "/data".into(),
        user: "nobody".into(),
        members_max: MEMBERS_MAX,
    }
}

impl Node {
    pub(super) fn start(node: u8, welcome: Option<Welcome>, stored: Stored, mono: u64) -> Self {
        Self::start_with(node, welcome, stored, mono, vec![])
    }

    /// With a keeper that holds this.
    pub(super) fn start_with(
        node: u8,
        welcome: Option<Welcome>,
        mut stored: Stored,
        mono: u64,
        kept: Vec<Kept>,
    ) -> Self {
        next_boot(&mut stored).unwrap();
        let now = Now { mono: Mono(mono), wall: Wall(1_000_000 + mono) };
        let engine = Engine::restore(&stored, config(node, welcome), u64::from(node), now).unwrap();
        let mut one = Self { engine, stored, now, effects: VecDeque::new(), requests: 0 };
        one.input(Input::Blob(BlobEvent::Holding(vec![])));
        one.input(Input::Process(ProcessEvent::Holding(kept)));
        one
    }

    /// Takes out of what it asked for whatever `wanted` makes something of.
    pub(super) fn take<T>(&mut self, wanted: impl Fn(&Effect) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.effects.retain(|effect| match wanted(effect) {
            Some(found) => {
                taken.push(found);
                false
            }
            None => true,
        });
        taken
    }

    pub(super) fn founder() -> Self {
        Self::start(1, None, Stored::new(), 0)
    }

    pub(super) fn input(&mut self, input: Input) {
        let turn = self.engine.handle(self.now, vec![input]);
        self.effects.extend(turn.now);
        let mut pending = turn.pending;
        for change in pending.take_changes() {
            match change.value {
                Some(value) => self.stored.insert((change.table, change.key), value),
                None => self.stored.remove(&(change.table, change.key)),
            };
        }
        self.effects.extend(pending.release(&Committed::after_sync()));
    }

    pub(super) fn wait(&mut self, span: Duration) {
        let end = self.now.mono + span;
        loop {
            let next = self.engine.next_deadline().min(end).max(self.now.mono);
            self.now.wall = self.now.wall.plus(next.since(self.now.mono));
            self.now.mono = next;
            self.input(Input::Tick);
            if next == end {
                break;
            }
        }
    }

    /// Lets time pass at one stroke, as on a host that was suspended.
    pub(super) fn jump(&mut self, span: Duration) {
        self.now = Now { mono: self.now.mono + span, wall: self.now.wall.plus(span) };
        self.input(Input::Tick);
    }

    pub(super) fn request(&mut self, request: Request) -> Result<Response, effect::Refusal> {
        self.requests += 1;
        let id = self.requests;
        self.input(Input::Request { id, request });
        let at = self.effects.iter().position(|effect| matches!(effect, Effect::Reply { id: of, .. } if *of == id));
        match self.effects.remove(at.expect("every request is answered")) {
            Some(Effect::Reply { response, .. }) => response,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn deploy(&mut self, yaml: &str) -> Result<Response, effect::Refusal> {
        self.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
        let image =
            Image { platform: Platform::new("linux", "amd64"), hash: BINARY, size: 100, file_name: "app".into() };
        let spec = ServiceSpec::parse(yaml).unwrap();
        self.request(Request::Deploy(Box::new(Deploy {
            spec,
            images: vec![image],
            acks: 1,
            acks_timeout: Duration::from_secs(1),
            dry_run: false,
        })))
    }

    /// Answers what the engine asks of the store and of the keeper, until it asks for nothing more; gives back the launches.
    /// Messages stay where they are.
    pub(super) fn obey(&mut self) -> Vec<LaunchPlan> {
        let (mut launched, mut to_send) = (Vec::new(), Vec::new());
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::MakeExecutable(hash) => self.input(Input::Blob(BlobEvent::Executable(hash))),
                Effect::Launch(plan) => {
                    let pid = 100 + launched.len() as u32;
                    self.input(Input::Process(ProcessEvent::Launched {
                        run: plan.run,
                        pid,
                        at: self.now.wall,
                        enforced: Enforced::default(),
                    }));
                    launched.push(*plan);
                }
                Effect::Signal { run, .. } | Effect::Kill { run } => {
                    let ended = Ended { code: None, signal: Some(15), at: self.now.wall, oom_kills: 0 };
                    self.input(Input::Process(ProcessEvent::Exited { run, ended }));
                }
                Effect::Send { .. } => to_send.push(effect),
                _ => {}
            }
        }
        self.effects.extend(to_send);
        launched
    }

    pub(super) fn states(&self) -> Vec<(String, InstanceState)> {
        let view = self.engine.view();
        view.instances.iter().map(|one| (format!("{}-{}", one.service, one.index), one.state)).collect()
    }
}

#[test]
fn one_node_deploys_runs_scales_and_deletes() {
    let mut node = Node::founder();
    assert_eq!(node.deploy("{name: web, tag: v1, args: [a], replicas: 2}"), Ok(revised(1, true)));
    let launched = node.obey();
    assert_eq!(launched.len(), 2);
    let plan = &launched[0];
    assert_eq!(plan.binary, std::path::Path::new("/data/bin").join(BINARY.to_string()));
    let of = |name: &str| plan.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(of("NARUN_APP_NAME"), Some("web"));
    assert_eq!(of("NARUN_INSTANCE_ID"), Some(plan.instance.to_string().as_str()));
    assert_eq!(of("NARUN_NODE_ID"), Some("n1"));

    assert_eq!(node.deploy("{name: web, tag: v1, args: [a], replicas: 2}"), Ok(revised(1, false)), "nothing changed");
    let web = ServiceName::new("web").unwrap();
    let scale = |replicas| Request::Scale { service: web.clone(), node: None, replicas };
    assert_eq!(node.request(scale(3)), Ok(revised(2, true)));
    assert_eq!(node.obey().len(), 1, "scaling starts only what is new");
    assert_eq!(node.request(scale(1)), Ok(revised(3, true)));
    node.obey();
    assert_eq!(node.states(), [("web-0".to_owned(), InstanceState::Running)]);
    assert_eq!(node.request(scale(0)).unwrap_err().code, RefusalCode::Invalid);

    assert_eq!(node.request(Request::Delete { service: web.clone() }), Ok(Response::Deleted { existed: true }));
    node.obey();
    assert!(node.states().is_empty());
    assert_eq!(node.request(Request::Delete { service: web.clone() }), Ok(Response::Deleted { existed: false }));
    assert_eq!(node.request(scale(2)).unwrap_err().code, RefusalCode::NotFound);
}

fn revised(revision: u32, changed: bool) -> Response {
    Response::Revised { revision, changed }
}

#[test]
fn a_new_revision_replaces_one_index_at_a_time() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1, replicas: 3}").unwrap();
    node.obey();
    node.wait(Duration::from_secs(2));
    node.deploy("{name: web, tag: v2, replicas: 3}").unwrap();
    for index in 0..3 {
        let launched: Vec<u32> = node.obey().iter().map(|plan| plan.instance.index).collect();
        assert_eq!(launched, [index]);
        assert!(node.obey().is_empty(), "the next waits until this one is ready");
        node.wait(Duration::from_secs(2));
    }
    let view = node.engine.view();
    assert!(view.instances.iter().all(|one| one.current && one.ready && one.revision == 2));
}

#[test]
fn stop_start_and_restart_are_revisions() {
    let mut node = Node::founder();
    let web = ServiceName::new("web").unwrap();
    node.deploy("{name: web, tag: v1}").unwrap();
    node.obey();
    node.request(Request::Stop { service: web.clone() }).unwrap();
    node.obey();
    assert!(node.states().is_empty());
    assert_eq!(node.request(Request::Stop { service: web.clone() }), Ok(revised(2, false)));
    assert_eq!(node.request(Request::Restart { service: web.clone() }).unwrap_err().code, RefusalCode::Conflict);
    node.request(Request::Start { service: web.clone() }).unwrap();
    assert_eq!(node.obey().len(), 1);
    node.request(Request::Restart { service: web.clone() }).unwrap();
    assert_eq!(node.obey().len(), 1);
    let view = node.engine.view();
    let causes: Vec<&str> = view.services[0].history.iter().map(|rev| rev.cause.as_str()).collect();
    assert_eq!(causes, ["restart", "start", "stop", "deploy"]);
    assert!(view.services[0].history[1..].iter().all(|rev| rev.status == RevisionStatus::Past));
}

#[test]
fn bad_deploys_change_nothing() {
    let mut node = Node::founder();
    let refusal = node.deploy("{name: web, tag: v1, nodes: [{name: elsewhere, replicas: 1}]}").unwrap_err();
    assert!(refusal.message.contains("`elsewhere`") && refusal.hint.unwrap().contains("n1"));
    let spec = ServiceSpec::parse("{name: web, tag: v1}").unwrap();
    let image = |os: &str, hash| Image { platform: Platform::new(os, "amd64"), hash, size: 1, file_name: os.into() };
    let deploy = |spec: &ServiceSpec, images, acks| {
        let acks_timeout = Duration::from_secs(1);
        Request::Deploy(Box::new(Deploy { spec: spec.clone(), images, acks, acks_timeout, dry_run: false }))
    };
    for (images, acks, word) in [
        (vec![], 1, "no binary"),
        (vec![image("linux", BINARY), image("linux", BINARY)], 1, "both for linux/amd64"),
        (vec![image("linux", BlobHash([9; 32]))], 1, "not in this node's store"),
        (vec![image("linux", BINARY)], 2, "2 nodes cannot acknowledge"),
    ] {
        let refusal = node.request(deploy(&spec, images, acks)).unwrap_err();
        assert!(refusal.message.contains(word), "{refusal:?}");
    }
    let local = ServiceSpec::parse("{name: web, tag: v1, nodes: [{name: local, replicas: 1}]}").unwrap();
    let refusal = node.request(deploy(&local, vec![image("windows", BINARY)], 1)).unwrap_err();
    assert!(refusal.message.contains("no binary for node `n1`, which is linux/amd64"), "{refusal:?}");
    assert!(node.engine.view().services.is_empty());
}

#[test]
fn a_restarted_node_finds_its_instances_again() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1, replicas: 2}").unwrap();
    let plans = node.obey();
    node.wait(Duration::from_secs(2));
    let kept: Vec<_> = plans
        .iter()
        .zip(0..)
        .map(|(plan, n)| crate::exec::plan::Kept {
            plan: plan.clone(),
            pid: 100 + n,
            started_at: Wall(5),
            ended: (n == 1).then_some(Ended { code: Some(3), signal: None, at: Wall(9), oom_kills: 0 }),
            enforced: Enforced::default(),
        })
        .collect();

    let mut stored = node.stored.clone();
    next_boot(&mut stored).unwrap();
    let now = Now { mono: Mono(50), wall: Wall(2_000_000) };
    let engine = Engine::restore(&stored, config(1, None), 2, now).unwrap();
    let mut node = Node { engine, stored, now, effects: VecDeque::new(), requests: 0 };
    node.input(Input::Blob(BlobEvent::Holding(vec![(BINARY, 100)])));
    node.input(Input::Blob(BlobEvent::Executable(BINARY)));
    assert!(node.obey().is_empty(), "nothing is started before the keeper has said what it holds");
    node.input(Input::Process(ProcessEvent::Holding(kept)));
    let acknowledged = node.effects.iter().any(|e| matches!(e, Effect::Acknowledge { run } if *run == plans[1].run));
    assert!(acknowledged, "the exit in the gap is known now");
    assert!(node.obey().is_empty());
    assert_eq!(node.states()[0].1, InstanceState::Running);
    assert_eq!(node.states()[1].1, InstanceState::Backoff);
    let view = node.engine.view();
    assert_eq!(view.instances[1].exit.and_then(|exit| exit.code), Some(3));
    node.wait(Duration::from_secs(1));
    assert_eq!(node.obey().len(), 1, "and the instance is started again");
}

/// Carries messages between two nodes until there are none.
pub(super) fn exchange(a: &mut Node, b: &mut Node) {
    let mut quiet = 0;
    while quiet < 2 {
        let from_a = take_messages(a, b.engine.me);
        quiet = if from_a.is_empty() { quiet + 1 } else { 0 };
        let from = a.engine.me;
        from_a.into_iter().for_each(|bytes| b.input(Input::Network(NetworkEvent::Message { from, bytes })));
        std::mem::swap(&mut *a, &mut *b);
    }
    // Swapped an even number of times or not, both hold what they hold; put them back by name.
    if a.engine.me > b.engine.me {
        std::mem::swap(a, b);
    }
}

fn take_messages(node: &mut Node, to: NodeKey) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    node.effects.retain(|effect| match effect {
        Effect::Send { to: receiver, bytes } if *receiver == to => {
            messages.push(bytes.clone());
            false
        }
        _ => true,
    });
    messages
}

pub(super) fn two_nodes() -> (Node, Node) {
    let mut a = Node::founder();
    let request = Request::CreateTicket { ttl: Duration::from_secs(60), uses: 1, role: Role::MEMBER, secret: [5; 32] };
    let Ok(Response::Ticket(ticket)) = a.request(request) else { panic!("no ticket") };
    let admit = Admit {
        key: NodeKey([2; 32]),
        name: NodeName::new("n2").unwrap(),
        addresses: vec!["10.0.0.2:7000".into()],
        secret: ticket.secret,
    };
    let Ok(Response::Admitted(welcome)) = a.request(Request::Admit(admit.clone())) else { panic!("not admitted") };
    assert!(matches!(a.request(Request::Admit(admit.clone())), Ok(Response::Admitted(_))), "asking again is harmless");
    let third = Admit { key: NodeKey([3; 32]), ..admit.clone() };
    assert_eq!(a.request(Request::Admit(third)).unwrap_err().code, RefusalCode::Conflict, "the name is taken");
    let third = Admit { key: NodeKey([3; 32]), name: NodeName::new("n3").unwrap(), ..admit };
    let refusal = a.request(Request::Admit(third)).unwrap_err();
    assert!(refusal.message.contains("used up"), "{refusal:?}");

    let mut b = Node::start(2, Some(*welcome), Stored::new(), 0);
    connect(&mut a, &mut b);
    (a, b)
}

/// A connection comes about between two nodes, and they say what they have to say.
pub(super) fn connect(a: &mut Node, b: &mut Node) {
    let (one, two) = (a.engine.me, b.engine.me);
    a.input(Input::Network(NetworkEvent::Connected(two)));
    b.input(Input::Network(NetworkEvent::Connected(one)));
    exchange(a, b);
}

#[test]
fn a_joined_node_learns_all_and_takes_deploys() {
    let (mut a, mut b) = two_nodes();
    assert_eq!(a.engine.roots(), b.engine.roots());
    assert_eq!(b.engine.view().nodes.len(), 2);
    b.deploy("{name: web, tag: v1, nodes: [{name: n1, replicas: 1}]}").unwrap();
    exchange(&mut a, &mut b);
    let fetch = a.effects.iter().any(|effect| matches!(effect, Effect::Fetch { hash, .. } if *hash == BINARY));
    assert!(fetch, "the node that lacks the binary fetches it");
    a.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
    assert_eq!(a.obey().len(), 1);
    a.wait(Duration::from_secs(1));
    exchange(&mut a, &mut b);
    assert_eq!(b.states(), [("web-0".to_owned(), InstanceState::Running)]);
    assert!(!b.stored.keys().any(|(table, _)| *table == Table::Tickets), "tickets stay with their maker");
}

#[test]
fn acknowledgements_are_counted_and_missing_ones_are_told() {
    let (mut a, mut b) = two_nodes();
    a.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
    let image = Image { platform: Platform::any(), hash: BINARY, size: 100, file_name: "app".into() };
    let deploy = |name: &str| {
        let spec = ServiceSpec::parse(&format!("{{name: {name}, tag: v1}}")).unwrap();
        let acks_timeout = Duration::from_secs(5);
        Request::Deploy(Box::new(Deploy { spec, images: vec![image.clone()], acks: 2, acks_timeout, dry_run: false }))
    };
    let reply = |node: &Node, id| {
        node.effects.iter().find_map(|effect| match effect {
            Effect::Reply { id: of, response } if *of == id => Some(response.clone()),
            _ => None,
        })
    };
    a.input(Input::Request { id: 100, request: deploy("one") });
    assert!(reply(&a, 100).is_none(), "it waits for the other node");
    exchange(&mut a, &mut b);
    assert!(matches!(reply(&a, 100), Some(Ok(_))));

    a.input(Input::Request { id: 101, request: deploy("two") });
    take_messages(&mut a, NodeKey([2; 32]));
    a.wait(Duration::from_secs(6));
    assert!(matches!(reply(&a, 101), Some(Err(refusal)) if refusal.code == RefusalCode::TimedOut));
}

#[test]
fn a_forged_record_is_counted_against_its_sender() {
    let (mut a, b) = two_nodes();
    let mut signed = b.engine.roster.signed(&NodeKey([2; 32]), &crate::crdt::roster::Subject::facts()).unwrap().clone();
    let mut record: crate::crdt::roster::Record = minicbor::decode(&signed.body).unwrap();
    record.stamp.version += 10;
    signed.body = minicbor::to_vec(&record).unwrap();
    let news = crate::gossip::message::News::Record(signed).encode();
    let bytes = crate::gossip::message::Message::News { news, acknowledge: false }.encode();
    a.input(Input::Network(NetworkEvent::Message { from: NodeKey([2; 32]), bytes }));
    let view = a.engine.view();
    assert!(view.problems.iter().any(|problem| problem.subject == "n2" && problem.message.contains("altered")));
}

#[test]
fn settling_twice_changes_nothing() {
    let (mut a, _) = two_nodes();
    a.deploy("{name: web, tag: v1, replicas: 3}").unwrap();
    a.obey();
    let turn = a.engine.handle(a.now, vec![]);
    assert!(turn.now.is_empty() && turn.pending.is_empty(), "{turn:?}");
}

#[test]
fn a_blob_is_swept_once_nothing_has_named_it_for_a_while() {
    let minute = Duration::from_secs(60);
    let swept =
        |node: &Node| node.effects.iter().any(|effect| matches!(effect, Effect::Sweep(hash) if *hash == BINARY));
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1}").unwrap();
    node.jump(60 * minute);
    assert!(!swept(&node), "a kept revision names it");
    node.request(Request::Delete { service: ServiceName::new("web").unwrap() }).unwrap();
    node.jump(14 * minute);
    assert!(!swept(&node), "it may be deployed again");
    node.jump(2 * minute);
    assert!(swept(&node));
}

#[test]
fn histories_and_tombstones_end_when_all_have_agreed_for_long() {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let mut node = Node::founder();
    for tag in 0..120 {
        node.deploy(&format!("{{name: web, tag: v{tag}}}")).unwrap();
    }
    let web = crate::crdt::catalog::DocKey::service(&ServiceName::new("web").unwrap());
    for _ in 0..2 {
        node.jump(2 * minute);
    }
    assert_eq!(node.engine.catalog.history_len(&web), 120, "nobody has agreed for long yet");
    node.jump(hour);
    assert_eq!(node.engine.catalog.history_len(&web), 1);
    assert_eq!(node.engine.view().services[0].current.number, 120, "and nothing that counts is lost");

    node.request(Request::Delete { service: ServiceName::new("web").unwrap() }).unwrap();
    for _ in 0..3 {
        node.jump(hour);
    }
    assert!(node.engine.catalog.get(&web).is_some(), "somebody who was away may still have to hear of it");
    node.jump(24 * hour);
    node.jump(hour);
    assert!(node.engine.catalog.get(&web).is_none());
    assert!(node.stored.keys().any(|(table, key)| *table == Table::Forgotten && key == web.as_bytes()));
}
