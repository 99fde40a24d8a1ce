//! Two processes with one key.

use super::*;

/// A node that is connected to each of the others.
async fn connected_pair() -> (Node, Node) {
    let (mut one, mut two) = (Node::start().await, Node::start().await);
    acquaint(&[&one, &two]);
    one.connected(&[two.key()]).await;
    two.connected(&[one.key()]).await;
    (one, two)
}

#[tokio::test]
async fn a_copy_is_refused_and_told_so_and_the_first_goes_on() {
    let (mut one, mut two) = connected_pair().await;
    let copy = Node::start_as(two.identity.clone(), "127.0.0.1:0").await;
    copy.transport.set_members(vec![one.peer()]);
    let displaced = timeout(PATIENCE, copy.transport.displaced()).await.expect("the copy hears of it");
    assert_eq!(displaced, Displaced { by: one.key(), addresses: two.peer().addresses });
    assert!(one.transport.counters().copies_refused >= 1);
    // Nobody hears of the copy, and the first is as it was.
    assert!(one.inputs.try_recv().is_err() && two.inputs.try_recv().is_err());
    one.send(&two, "still you");
    assert_eq!(two.message().await.1, b"still you");
    two.send(&one, "still me");
    assert_eq!(one.message().await.1, b"still me");
    assert_eq!(two.transport.notices(), Notices::default());
}

/// A member that is connected and greeted, and deaf from then on: a host that was switched off behind a connection that still stands.
/// Its tasks live in a runtime that nobody drives any more.
async fn frozen_member(one: &Node) -> Identity {
    let (identity, peer) = (Identity::generate(), one.peer());
    one.transport.set_members(vec![Peer { key: identity.key(), addresses: Vec::new() }]);
    let member = identity.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (sender, mut inputs) = mpsc::channel(16);
            let config = TransportConfig { identity: member, listen: "127.0.0.1:0".parse().unwrap() };
            let transport = Transport::start(config, sender).await.unwrap();
            transport.set_members(vec![peer]);
            while !matches!(inputs.recv().await, Some(Input::Network(NetworkEvent::Connected(_)))) {}
            std::mem::forget(transport);
        });
        // Its sockets stay open for as long as this program runs.
        std::mem::forget(runtime);
    });
    identity
}

#[tokio::test]
async fn a_process_that_does_not_answer_is_followed_by_its_successor() {
    let mut one = Node::start().await;
    let gone = frozen_member(&one).await;
    one.connected(&[gone.key()]).await;
    let began = Instant::now();
    let mut successor = Node::start_as(gone, "127.0.0.1:0").await;
    successor.transport.set_members(vec![one.peer()]);
    successor.connected(&[one.key()]).await;
    assert!(began.elapsed() >= SIGN_OF_LIFE_MAX, "the old one was asked first");
    assert!(began.elapsed() < SILENCE_MIN, "it did not wait for the old connection to be given up");
    until("one hears the successor", || {
        one.transport.network().send(successor.key(), b"and you are?".to_vec());
        successor.inputs.try_recv().is_ok()
    })
    .await;
    assert_eq!(successor.transport.notices().displaced, None);
    assert_eq!(one.transport.counters().copies_refused, 0);
}

#[tokio::test]
async fn a_restart_is_let_in_at_once() {
    let (mut one, two) = connected_pair().await;
    for _ in 0..3 {
        let (identity, address) = (two.identity.clone(), two.transport.listen_address().to_string());
        two.transport.stop().await;
        let began = Instant::now();
        let mut again = Node::start_as(identity, "127.0.0.1:0").await;
        again.transport.set_members(vec![one.peer()]);
        again.connected(&[one.key()]).await;
        assert!(began.elapsed() < SIGN_OF_LIFE_MAX, "no trial: the old connection is closed ({address})");
        assert_eq!(again.transport.notices().displaced, None);
        one.connected(&[again.key()]).await;
        again.transport.stop().await;
        assert!(one.transport.counters().copies_refused == 0);
    }
}

#[tokio::test]
async fn nobody_is_talked_to_death() {
    let mut one = Node::start().await;
    // A member that calls every process a copy, with a sign that it made itself.
    let liar = Identity::generate();
    let caller = caller(&liar, &one).await;
    let mut links = caller.shared.acceptors.register(Protocol::Gossip);
    one.transport.set_members(vec![Peer { key: liar.key(), addresses: Vec::new() }]);
    let _stream = caller.open(one.key(), Protocol::Gossip).await.unwrap();
    let (_, mut link) = timeout(PATIENCE, links.next()).await.unwrap().unwrap();
    let asked = frames::hear_hello(&mut link).await.unwrap();
    let sign = greeting::SignOfLife::give(&liar, Life([1; 16]), asked).unwrap();
    let found = greeting::CopyFound { sign, addresses: vec!["10.0.0.1:1".to_owned()] };
    frames::turn_away(link, found).await;
    one.until_counted("the lie", |counters| counters.copies_unproven == 1).await;
    assert_eq!(one.transport.notices().displaced, None);
    assert!(one.inputs.try_recv().is_err());
}
