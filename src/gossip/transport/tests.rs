//! Real transports on the loopback interface.

mod copies;
mod limits;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::*;
use crate::node::engine::input::NetworkEvent;

/// Longer than any wait that succeeds on a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    identity: Identity,
    transport: Transport,
    inputs: mpsc::Receiver<Input>,
}

impl Node {
    async fn start() -> Self {
        Self::start_as(Identity::generate(), "127.0.0.1:0").await
    }

    async fn start_as(identity: Identity, listen: &str) -> Self {
        let (sender, inputs) = mpsc::channel(1024);
        let config = TransportConfig { identity: identity.clone(), listen: listen.parse().unwrap() };
        let transport = Transport::start(config, sender).await.unwrap();
        Self { identity, transport, inputs }
    }

    fn key(&self) -> NodeKey {
        self.identity.key()
    }

    fn peer(&self) -> Peer {
        Peer { key: self.key(), addresses: vec![self.transport.listen_address().to_string()] }
    }

    fn send(&self, to: &Node, text: &str) {
        self.transport.network().send(to.key(), text.as_bytes().to_vec());
    }

    async fn event(&mut self) -> NetworkEvent {
        match timeout(PATIENCE, self.inputs.recv()).await.expect("no event in time") {
            Some(Input::Network(event)) => event,
            other => panic!("unexpected input {other:?}"),
        }
    }

    /// Waits until each of these is connected; messages on the way are skipped.
    async fn connected(&mut self, keys: &[NodeKey]) {
        let mut missing: Vec<NodeKey> = keys.to_vec();
        while !missing.is_empty() {
            if let NetworkEvent::Connected(key) = self.event().await {
                missing.retain(|other| *other != key);
            }
        }
    }

    async fn message(&mut self) -> (NodeKey, Vec<u8>) {
        loop {
            if let NetworkEvent::Message { from, bytes } = self.event().await {
                return (from, bytes);
            }
        }
    }

    /// Whether all that it has heard lately is that others treat it as a stranger.
    fn is_only_shut_out(&mut self) -> bool {
        std::iter::from_fn(|| self.inputs.try_recv().ok())
            .all(|input| matches!(input, Input::Network(NetworkEvent::ShutOut(_))))
    }

    async fn until_counted(&self, what: &str, enough: impl Fn(&Counters) -> bool) {
        until(what, || enough(&self.transport.counters())).await;
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn acquaint(nodes: &[&Node]) {
    let peers: Vec<Peer> = nodes.iter().map(|node| node.peer()).collect();
    for node in nodes {
        node.transport.set_members(peers.clone());
    }
}

/// Somebody with a key who dials and opens what it likes, with no gossip of its own.
async fn caller(identity: &Identity, to: &Node) -> Transport {
    let transport = Transport::outward(identity).await.unwrap();
    transport.set_members(vec![to.peer()]);
    transport
}

/// A member that does by hand what a transport would do: the greeting given, and its own stream, greeted.
async fn member_by_hand(one: &Node) -> (Identity, Stream, Stream, Transport) {
    let member = Identity::generate();
    one.transport.set_members(vec![Peer { key: member.key(), addresses: Vec::new() }]);
    let caller = caller(&member, one).await;
    let mut gossip = caller.shared.acceptors.register(Protocol::Gossip);
    let mut stream = caller.open(one.key(), Protocol::Gossip).await.unwrap();
    let (_, mut link) = timeout(PATIENCE, gossip.next()).await.unwrap().unwrap();
    let life = Life([9; 16]);
    frames::hear_hello(&mut link).await.unwrap();
    let welcome = minicbor::to_vec(greeting::Answer::Welcome(greeting::Hello { life })).unwrap();
    link.write_u32(welcome.len() as u32).await.unwrap();
    link.write_all(&welcome).await.unwrap();
    link.flush().await.unwrap();
    frames::introduce(&mut stream, life).await.expect("a member is greeted");
    (member, stream, link, caller)
}

/// Whether the other side ended the stream without a byte.
async fn ends_without_a_byte(stream: &mut Stream) -> bool {
    let mut byte = [0];
    matches!(timeout(PATIENCE, stream.read(&mut byte)).await.expect("neither bytes nor an end"), Ok(0) | Err(_))
}

/// Whether a stream cannot be opened, or ends without a byte: the end may come before it was agreed upon, or after.
async fn gets_nothing(caller: &Transport, one: &Node, protocol: Protocol) -> bool {
    match caller.open(one.key(), protocol).await {
        Ok(mut stream) => ends_without_a_byte(&mut stream).await,
        Err(error) => matches!(error, OpenError::Closed(_)),
    }
}

#[tokio::test]
async fn members_exchange_messages_in_order() {
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
    for index in 0..100 {
        one.send(&two, &format!("message {index}"));
    }
    two.send(&one, "back");
    for index in 0..100 {
        assert_eq!(two.message().await, (one.key(), format!("message {index}").into_bytes()));
    }
    assert_eq!(one.message().await, (two.key(), b"back".to_vec()));
    assert_eq!(one.transport.counters(), Counters::default());
}

#[tokio::test]
async fn three_members_form_a_mesh_and_large_messages_pass() {
    let mut nodes = [Node::start().await, Node::start().await, Node::start().await];
    acquaint(&nodes.each_ref());
    let keys = nodes.each_ref().map(Node::key);
    for (index, node) in nodes.iter_mut().enumerate() {
        let others: Vec<_> = (0..3).filter(|other| *other != index).map(|other| keys[other]).collect();
        node.connected(&others).await;
    }
    let large = vec![7; FRAME_LEN_MAX];
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            nodes[from].transport.network().send(keys[to], large.clone());
            let (sender, bytes) = nodes[to].message().await;
            assert!(sender == keys[from] && bytes == large);
        }
    }
    nodes[0].transport.network().send(keys[1], vec![7; FRAME_LEN_MAX + 1]);
    assert_eq!(nodes[0].transport.counters().messages_oversized, 1);
}

#[tokio::test]
async fn a_stranger_gets_nothing_but_the_door() {
    let mut one = Node::start().await;
    let mut blobs = one.transport.accept(Protocol::Blobs);
    let mut door = one.transport.door();
    let stranger = Identity::generate();

    for (tries, protocol) in [(1, Protocol::Gossip), (2, Protocol::Blobs)] {
        let caller = caller(&stranger, &one).await;
        assert!(gets_nothing(&caller, &one, protocol).await);
        one.until_counted("a trespasser", |counters| counters.strangers_trespassing == tries).await;
    }
    // What nobody serves is not even offered.
    let caller = caller(&stranger, &one).await;
    let error = caller.open(one.key(), Protocol::Logs).await.unwrap_err();
    assert_eq!(error, OpenError::Unsupported("/narun/logs/1"));

    // The door opens once.
    let mut stream = caller.open(one.key(), Protocol::Join).await.unwrap();
    stream.write_all(b"knock").await.unwrap();
    let (from, mut inside) = timeout(PATIENCE, door.next()).await.unwrap().unwrap();
    assert_eq!(from, stranger.key());
    let mut knock = [0; 5];
    inside.read_exact(&mut knock).await.unwrap();
    assert_eq!(&knock, b"knock");
    assert!(gets_nothing(&caller, &one, Protocol::Join).await);
    one.until_counted("a second knock", |counters| counters.strangers_insisting == 1).await;

    assert!(one.inputs.try_recv().is_err(), "the engine hears nothing of strangers");
    assert!(timeout(Duration::from_millis(50), blobs.next()).await.is_err(), "no stranger's stream appears");
}

#[tokio::test]
async fn few_strangers_are_let_in_and_not_for_long() {
    let one = Node::start().await;
    let mut door = one.transport.door();
    let began = Instant::now();
    let mut inside = Vec::new();
    for _ in 0..STRANGERS_FROM_ONE_MAX {
        let caller = caller(&Identity::generate(), &one).await;
        let stream = caller.open(one.key(), Protocol::Join).await.unwrap();
        inside.push((caller, stream, door.next().await.unwrap()));
    }
    let late = caller(&Identity::generate(), &one).await;
    late.open(one.key(), Protocol::Join).await.expect_err("one too many");
    assert!(one.transport.counters().strangers_crowded >= 1);

    for (_, stream, _) in &mut inside {
        assert!(ends_without_a_byte(stream).await);
    }
    assert!(began.elapsed() >= STRANGER_STAY_MAX);
    one.until_counted("all of them", |counters| counters.strangers_overdue >= STRANGERS_FROM_ONE_MAX as u64).await;
}

#[tokio::test]
async fn a_member_takes_and_opens_streams_and_dials_on_demand() {
    let (one, two) = (Node::start().await, Node::start().await);
    let mut incoming = two.transport.accept(Protocol::Blobs);
    acquaint(&[&one, &two]);
    let mut stream = one.transport.open(two.key(), Protocol::Blobs).await.unwrap();
    stream.write_all(b"ask").await.unwrap();
    stream.shutdown().await.unwrap();
    let (from, mut inside) = timeout(PATIENCE, incoming.next()).await.unwrap().unwrap();
    assert_eq!(from, one.key());
    let mut asked = Vec::new();
    inside.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"ask");
    inside.write_all(b"answer").await.unwrap();
    inside.shutdown().await.unwrap();
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, b"answer");

    let stranger = Identity::generate().key();
    assert_eq!(one.transport.open(stranger, Protocol::Blobs).await.unwrap_err(), OpenError::NotMember(stranger));
}

#[tokio::test]
async fn streams_that_arrive_together_are_all_taken() {
    let (mut one, two) = (Node::start().await, Node::start().await);
    let mut incoming = two.transport.accept(Protocol::Blobs);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    let opening = (0..slots::slots_of(Protocol::Blobs)).map(|_| one.transport.open(two.key(), Protocol::Blobs));
    let opened = futures::future::try_join_all(opening).await.unwrap();
    for _ in &opened {
        timeout(PATIENCE, incoming.next()).await.expect("a stream was lost").unwrap();
    }
    assert_eq!(two.transport.counters(), Counters::default());
    // One more than the other side takes is not even opened; when one has ended, it is.
    assert_eq!(one.transport.open(two.key(), Protocol::Blobs).await.unwrap_err(), OpenError::Crowded);
    drop(opened);
    one.transport.open(two.key(), Protocol::Blobs).await.unwrap();
}

#[tokio::test]
async fn a_removed_member_is_cut_at_once() {
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    let mut incoming = one.transport.accept(Protocol::Blobs);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
    let mut stream = two.transport.open(one.key(), Protocol::Blobs).await.unwrap();
    let _inside = incoming.next().await.unwrap();

    one.transport.set_members(vec![one.peer()]);
    assert!(ends_without_a_byte(&mut stream).await);
    assert!(matches!(two.event().await, NetworkEvent::Broken(key) if key == one.key()));
    one.send(&two, "too late");
    assert_eq!(one.transport.counters().messages_unconnected, 1);
    // It dials again, and comes no further than any stranger.
    one.until_counted("a trespasser", |counters| counters.strangers_trespassing >= 1).await;
    assert!(two.is_only_shut_out(), "never connected again, and broken once");
}

#[tokio::test]
async fn who_has_become_a_member_is_connected_although_it_dialled_too_early() {
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    two.transport.set_members(vec![one.peer(), two.peer()]);
    one.until_counted("the first try", |counters| counters.strangers_trespassing >= 1).await;
    assert!(two.is_only_shut_out(), "an established connection is no admission");
    // No address of it is known: it must come by itself.
    one.transport.set_members(vec![Peer { key: two.key(), addresses: Vec::new() }]);
    two.connected(&[one.key()]).await;
    one.connected(&[two.key()]).await;
}

#[tokio::test]
async fn a_member_that_returns_is_found_again() {
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
    let (identity, address) = (two.identity.clone(), two.transport.listen_address().to_string());
    two.transport.stop().await;
    assert!(matches!(one.event().await, NetworkEvent::Broken(key) if key == two.key()));

    let mut two = Node::start_as(identity, &address).await;
    two.transport.set_members(vec![Peer { key: one.key(), addresses: Vec::new() }]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
    one.send(&two, "welcome back");
    assert_eq!(two.message().await.1, b"welcome back");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let one = Node::start().await;
    let address = one.transport.listen_address();
    let config = TransportConfig { identity: Identity::generate(), listen: address };
    let error = Transport::start(config, mpsc::channel(1).0).await.unwrap_err();
    assert!(matches!(&error, TransportError::Listen { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("--listen"), "{error}");
}

#[tokio::test]
async fn several_addresses_are_tried_and_each_failure_is_told() {
    let (one, two, other) = (Node::start().await, Node::start().await, Node::start().await);
    let _incoming = two.transport.accept(Protocol::Blobs);
    acquaint(&[&two, &one]);
    let closed = Node::start().await;
    let dead = closed.transport.listen_address().to_string();
    closed.transport.stop().await;

    let mut addresses = vec![dead.clone(), other.transport.listen_address().to_string()];
    one.transport.set_members(vec![Peer { key: two.key(), addresses: addresses.clone() }]);
    two.transport.set_members(Vec::new());
    // The connection that stood until a moment ago may still be closing.
    let until = Instant::now() + PATIENCE;
    let error = loop {
        match one.transport.open(two.key(), Protocol::Blobs).await {
            Err(error @ OpenError::Unreachable { .. }) => break error,
            other => assert!(Instant::now() < until, "still {other:?}"),
        }
    };
    let OpenError::Unreachable { failures, .. } = &error else { unreachable!("it was looked at just now") };
    assert_eq!(failures.len(), 2, "{error}");
    assert!(error.to_string().contains(&dead) && error.to_string().contains("refused"), "{error}");
    assert!(failures.iter().any(|failure| failure.impostor && failure.address == addresses[1]), "{error}");
    assert!(one.transport.counters().impostors >= 1);

    addresses.push(two.transport.listen_address().to_string());
    acquaint(&[&two, &one]);
    one.transport.set_members(vec![Peer { key: two.key(), addresses }]);
    one.transport.open(two.key(), Protocol::Blobs).await.unwrap();
}

#[tokio::test]
async fn a_member_that_announces_too_long_a_frame_is_cut_and_counted() {
    let mut one = Node::start().await;
    let (member, mut stream, _link, _caller) = member_by_hand(&one).await;
    stream.write_all(&[0, 0, 0, 2, b'o', b'k', 0, 0, 0, 0]).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(one.message().await, (member.key(), b"ok".to_vec()));
    stream.write_u32(FRAME_LEN_MAX as u32 + 1).await.unwrap();
    stream.flush().await.unwrap();
    assert!(ends_without_a_byte(&mut stream).await);
    assert_eq!(one.transport.counters().frames_oversized, 1);
}

#[tokio::test]
async fn a_silent_link_is_closed() {
    let one = Node::start().await;
    let (_, mut stream, _link, _caller) = member_by_hand(&one).await;
    let greeted = Instant::now();
    assert!(ends_without_a_byte(&mut stream).await);
    assert!(greeted.elapsed() + Duration::from_secs(1) > SILENCE_MIN);
    assert_eq!(one.transport.counters().members_silent, 1);
}

#[tokio::test]
async fn an_idle_link_is_kept() {
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
    let silence = SILENCE_MIN + Duration::from_secs(2);
    assert!(timeout(silence, one.inputs.recv()).await.is_err(), "nothing breaks");
    one.send(&two, "still there");
    assert_eq!(two.message().await.1, b"still there");
}

#[tokio::test]
async fn a_member_that_does_not_read_costs_a_bounded_queue() {
    let mut one = Node::start().await;
    let slow = Identity::generate();
    // Its engine takes nothing, so that its reader stops reading.
    let (sender, mut inputs) = mpsc::channel(1);
    let config = TransportConfig { identity: slow.clone(), listen: "127.0.0.1:0".parse().unwrap() };
    let transport = Transport::start(config, sender).await.unwrap();
    let peer = Peer { key: slow.key(), addresses: vec![transport.listen_address().to_string()] };
    transport.set_members(vec![one.peer()]);
    one.transport.set_members(vec![peer]);
    one.connected(&[slow.key()]).await;

    let message = vec![1; 64 << 10];
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    while one.transport.counters().messages_overflowed == 0 {
        assert!(Instant::now() < deadline, "the queue has no end: {sent} sent");
        one.transport.network().send(slow.key(), message.clone());
        sent += 1;
        tokio::task::yield_now().await;
    }
    // What was queued arrives once it reads again, the newest was dropped.
    let mut arrived = 0;
    while let Ok(Some(input)) = timeout(Duration::from_millis(500), inputs.recv()).await {
        arrived += usize::from(matches!(input, Input::Network(NetworkEvent::Message { .. })));
    }
    assert!(arrived >= OUTBOX_MAX && arrived < sent, "{arrived} of {sent}");
}

#[tokio::test]
async fn stopping_frees_the_port_and_ends_all_that_wait() {
    let one = Node::start().await;
    let address = one.transport.listen_address();
    let mut door = one.transport.door();
    one.transport.stop().await;
    assert!(door.next().await.is_none());
    assert_eq!(one.transport.open(one.key(), Protocol::Blobs).await.unwrap_err(), OpenError::Stopped);
    std::net::TcpListener::bind(address).unwrap();
}
