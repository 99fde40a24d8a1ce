//! Limits, and what becomes of those who break them.

use super::*;

#[tokio::test]
async fn who_breaks_a_limit_again_and_again_is_let_in_ever_later() {
    let one = Node::start().await;
    let member = Identity::generate();
    one.transport.set_members(vec![Peer { key: member.key(), addresses: Vec::new() }]);
    let caller = caller(&member, &one).await;
    let _ungreeted = caller.leave_ungreeted();
    let mut gaps = Vec::new();
    let mut last = Instant::now();
    for strikes in 1..=3 {
        // It dials again and again by itself, and is let in when its bar is over.
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            if let Ok(mut stream) = caller.open(one.key(), Protocol::Gossip).await
                && frames::introduce(&mut stream, Life([1; 16])).await.is_ok()
            {
                break stream;
            }
            assert!(Instant::now() < deadline, "never let in again");
        };
        gaps.push(last.elapsed());
        last = Instant::now();
        stream.write_u32(FRAME_LEN_MAX as u32 + 1).await.unwrap();
        stream.flush().await.unwrap();
        one.until_counted("a frame too long", |counters| counters.frames_oversized == strikes).await;
    }
    assert!(gaps[1] >= BAR_MIN && gaps[2] >= 2 * BAR_MIN, "{gaps:?}");
    assert!(one.transport.counters().members_barred >= 2);
}

#[tokio::test]
async fn a_garbled_greeting_is_a_broken_limit() {
    let one = Node::start().await;
    let member = Identity::generate();
    one.transport.set_members(vec![Peer { key: member.key(), addresses: Vec::new() }]);
    let caller = caller(&member, &one).await;
    let _ungreeted = caller.leave_ungreeted();
    let mut stream = caller.open(one.key(), Protocol::Gossip).await.unwrap();
    stream.write_all(&[0, 0, 0, 3, 1, 2, 3]).await.unwrap();
    stream.flush().await.unwrap();
    assert!(ends_without_a_byte(&mut stream).await);
    assert_eq!(one.transport.counters().greetings_garbled, 1);
}

#[tokio::test]
async fn streams_over_the_limit_are_dropped_unread_and_counted() {
    let one = Node::start().await;
    let mut incoming = one.transport.accept(Protocol::Api);
    let member = Identity::generate();
    one.transport.set_members(vec![Peer { key: member.key(), addresses: Vec::new() }]);
    // Each of its transports keeps to the limit; together they break it.
    let (first, second) = (caller(&member, &one).await, caller(&member, &one).await);
    let _ungreeted = (first.leave_ungreeted(), second.leave_ungreeted());
    let mut held = Vec::new();
    for _ in 0..slots::slots_of(Protocol::Api) {
        held.push((first.open(one.key(), Protocol::Api).await.unwrap(), incoming.next().await.unwrap()));
    }
    assert!(gets_nothing(&second, &one, Protocol::Api).await);
    one.until_counted("a stream too many", |counters| counters.streams_crowded == 1).await;
    held.pop();
    let mut stream = second.open(one.key(), Protocol::Api).await.unwrap();
    stream.write_u8(1).await.unwrap();
    let (_, mut inside) = timeout(PATIENCE, incoming.next()).await.unwrap().unwrap();
    assert_eq!(inside.read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn a_stream_ends_when_this_side_closes_its_connection() {
    for _ in 0..20 {
        let (mut one, mut two) = (Node::start().await, Node::start().await);
        let mut incoming = two.transport.accept(Protocol::Logs);
        acquaint(&[&one, &two]);
        one.connected(&[two.key()]).await;
        two.connected(&[one.key()]).await;
        let (mut reader, _writer) = one.transport.open(two.key(), Protocol::Logs).await.unwrap().split();
        let _inside = timeout(PATIENCE, incoming.next()).await.unwrap().unwrap();
        let reading = tokio::spawn(async move { reader.read_u8().await });
        one.transport.set_members(Vec::new());
        let read = timeout(PATIENCE, reading).await.expect("the reader waits for ever").unwrap();
        assert!(read.is_err(), "{read:?}");
    }
}

#[tokio::test]
async fn a_member_holds_so_many_connections_and_no_more() {
    let one = Node::start().await;
    let _incoming = one.transport.accept(Protocol::Api);
    let member = Identity::generate();
    one.transport.set_members(vec![Peer { key: member.key(), addresses: Vec::new() }]);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_OF_ONE_MAX {
        let caller = caller(&member, &one).await;
        held.push((caller.leave_ungreeted(), caller.open(one.key(), Protocol::Api).await.unwrap(), caller));
    }
    let late = caller(&member, &one).await;
    late.open(one.key(), Protocol::Api).await.expect_err("one too many");
    assert!(one.transport.counters().members_crowded >= 1);
}

#[tokio::test]
async fn connections_that_say_nothing_are_few_and_not_there_for_long() {
    let one = Node::start().await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_FROM_ONE_MAX + 50 {
        silent.push(tokio::net::TcpStream::connect(one.transport.listen_address()).await.unwrap());
    }
    one.until_counted("those too many", |counters| counters.handshakes_crowded >= 50).await;
    one.until_counted("the others", |counters| counters.handshakes_slow >= HANDSHAKES_FROM_ONE_MAX as u64).await;
    // There is room again, and whoever is proven comes through.
    let (mut one, mut two) = (one, Node::start().await);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
}

#[tokio::test]
async fn a_flood_from_one_address_is_refused_at_the_first_packet() {
    let one = Node::start().await;
    let deadline = Instant::now() + PATIENCE;
    while one.transport.counters().handshakes_hurried == 0 {
        assert!(Instant::now() < deadline, "the rate is not limited");
        for _ in 0..100 {
            drop(tokio::net::TcpStream::connect(one.transport.listen_address()).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_member_of_a_newer_version_is_named() {
    use futures::StreamExt;
    use libp2p::swarm::SwarmEvent;

    let one = Node::start().await;
    // Its gossip is of the second version: it knows nothing of the first.
    let newer = Identity::generate();
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(newer.keypair().clone())
        .with_tokio()
        .with_tcp(libp2p::tcp::Config::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| second_version::Speaker)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let port = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address::tcp_port(&address).unwrap();
        }
    };
    let speaking = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    one.transport.set_members(vec![Peer { key: newer.key(), addresses: vec![format!("127.0.0.1:{port}")] }]);
    until("the newer one is named", || one.transport.notices().newer.contains(&newer.key())).await;
    assert_eq!(one.transport.counters().members_newer, 1, "told once, however often it is dialled");

    // It is replaced by one that speaks this version.
    speaking.abort();
    let mut back = Node::start_as(newer, "127.0.0.1:0").await;
    one.transport.set_members(vec![back.peer()]);
    back.transport.set_members(vec![one.peer()]);
    back.connected(&[one.key()]).await;
    until("it is no longer named", || one.transport.notices().newer.is_empty()).await;
}

/// A node of a version to come, as far as libp2p is concerned.
mod second_version {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use libp2p::core::upgrade::ReadyUpgrade;
    use libp2p::core::{Endpoint, transport::PortUse};
    use libp2p::swarm::handler::ConnectionEvent;
    use libp2p::swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        StreamProtocol, SubstreamProtocol, ToSwarm,
    };
    use libp2p::{Multiaddr, PeerId};

    const GOSSIP: StreamProtocol = StreamProtocol::new("/narun/gossip/2");

    pub(super) struct Speaker;

    impl NetworkBehaviour for Speaker {
        type ConnectionHandler = Ear;
        type ToSwarm = Infallible;

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<Ear, ConnectionDenied> {
            Ok(Ear)
        }

        fn handle_established_outbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<Ear, ConnectionDenied> {
            Ok(Ear)
        }

        fn on_swarm_event(&mut self, _: FromSwarm) {}

        fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
            match event {}
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
            Poll::Pending
        }
    }

    pub(super) struct Ear;

    impl ConnectionHandler for Ear {
        type FromBehaviour = Infallible;
        type ToBehaviour = Infallible;
        type InboundProtocol = ReadyUpgrade<StreamProtocol>;
        type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
        type InboundOpenInfo = ();
        type OutboundOpenInfo = ();

        fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
            SubstreamProtocol::new(ReadyUpgrade::new(GOSSIP), ())
        }

        fn poll(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
            Poll::Pending
        }

        fn on_behaviour_event(&mut self, event: Infallible) {
            match event {}
        }

        fn on_connection_event(&mut self, _: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol, (), ()>) {}
    }
}
