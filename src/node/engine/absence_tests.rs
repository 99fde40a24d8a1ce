//! Two engines, of which one is away for over a week.

use std::time::Duration;

use super::effect::Table;
use super::input::{NetworkEvent, Request};
use super::tests::{Node, connect, exchange, two_nodes};
use super::view::NodeStatus;
use super::*;
use crate::crdt::catalog::DocKey;
use crate::gossip::sync::Offer;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn key(name: &str) -> DocKey {
    DocKey::service(&ServiceName::new(name).unwrap())
}

fn deploy(node: &mut Node, name: &str, tag: &str) {
    node.deploy(&format!("{{name: {name}, tag: {tag}, nodes: [{{name: n1, replicas: 1}}]}}")).unwrap();
}

fn delete(node: &mut Node, name: &str) {
    node.request(Request::Delete { service: ServiceName::new(name).unwrap() }).unwrap();
}

fn tags(node: &Node, name: &str) -> Vec<String> {
    let view = node.engine.view();
    let service = view.services.iter().find(|service| service.name.as_str() == name);
    service.map_or_else(Vec::new, |service| service.history.iter().map(|rev| rev.spec.tag.clone()).collect())
}

/// The other node's host goes off: the connection breaks, and nothing is heard of it any more.
fn lose(node: &mut Node, other: &Node) {
    node.input(Input::Network(NetworkEvent::Broken(other.engine.me)));
    node.wait(Duration::from_secs(60));
    assert_eq!(node.engine.cluster.status(&other.engine.me).0, NodeStatus::Down);
}

/// The host comes back: its node is started on what its disk holds, at the time that it is at `there`.
fn come_back(away: Node, there: &mut Node) -> Node {
    let mut back = Node::start(2, away.engine.config.welcome.clone(), away.stored, there.engine.now.mono.0);
    connect(there, &mut back);
    back
}

/// Two nodes that both hold `old` and `web`, and have reported that they do.
fn two_that_agree() -> (Node, Node) {
    let (mut a, mut b) = two_nodes();
    deploy(&mut a, "web", "v1");
    deploy(&mut a, "old", "v1");
    exchange(&mut a, &mut b);
    a.wait(Duration::from_secs(65));
    b.wait(Duration::from_secs(65));
    exchange(&mut a, &mut b);
    assert_eq!(a.engine.roots().0, b.engine.roots().0);
    (a, b)
}

#[test]
fn who_is_out_of_reach_holds_up_the_end_of_histories_for_a_week_and_no_longer() {
    let (mut a, b) = two_that_agree();
    lose(&mut a, &b);
    for tag in 0..120 {
        deploy(&mut a, "web", &format!("w{tag}"));
    }
    delete(&mut a, "old");
    for _ in 0..6 {
        a.jump(DAY);
    }
    a.jump(2 * HOUR);
    assert_eq!(a.engine.catalog.history_len(&key("web")), 121, "the other may be back tomorrow");
    assert!(a.engine.catalog.get(&key("old")).is_some());
    a.jump(DAY);
    a.wait(Duration::from_secs(60));
    a.jump(2 * HOUR);
    assert_eq!(a.engine.catalog.history_len(&key("web")), 1);
    assert!(a.engine.catalog.get(&key("old")).is_none());
    assert_eq!(tags(&a, "web")[0], "w119");
}

#[test]
fn a_side_that_is_cut_off_ends_no_history_by_what_the_others_said_before() {
    let (mut a, mut b) = two_that_agree();
    for tag in 0..120 {
        deploy(&mut a, "web", &format!("w{tag}"));
    }
    exchange(&mut a, &mut b);
    for node in [&mut a, &mut b] {
        node.wait(Duration::from_secs(65));
    }
    exchange(&mut a, &mut b);
    let root = a.engine.roots().0;
    assert_eq!(a.engine.known.catalog(&b.engine.me).map(|report| report.root), Some(root), "the last that was heard");
    lose(&mut a, &b);
    for _ in 0..5 {
        a.jump(HOUR);
    }
    assert_eq!(a.engine.catalog.history_len(&key("web")), 121);
}

#[test]
fn what_was_deleted_meanwhile_does_not_come_back_and_what_nobody_has_seen_is_not_lost() {
    let (mut a, mut b) = two_that_agree();
    lose(&mut a, &b);
    b.input(Input::Network(NetworkEvent::Broken(a.engine.me)));
    deploy(&mut b, "web", "mine");
    deploy(&mut b, "new", "v1");
    delete(&mut a, "old");
    delete(&mut a, "web");
    for _ in 0..8 {
        a.jump(DAY);
    }
    a.wait(Duration::from_secs(60));
    a.jump(2 * HOUR);
    assert!(tags(&a, "old").is_empty() && a.engine.catalog.get(&key("old")).is_none());

    let mut b = come_back(b, &mut a);
    assert_eq!(b.engine.offer(), Offer::WhatBothHold);
    assert_eq!(tags(&b, "old"), [""; 0]);
    assert!(b.stored.keys().any(|(table, row)| *table == Table::Forgotten && row == key("old").as_bytes()));
    assert!(!b.stored.keys().any(|(table, row)| *table == Table::Catalog && row == key("old").as_bytes()));
    assert_eq!(tags(&a, "web"), ["mine", "v1"], "it was deployed where nobody could know of the deletion");
    assert_eq!(tags(&a, "new"), [""; 0], "it may be one that all but this member know to be deleted");
    for _ in 0..9 {
        a.wait(Duration::from_secs(10));
        b.wait(Duration::from_secs(10));
        exchange(&mut a, &mut b);
    }
    assert_eq!(tags(&a, "new"), ["v1"]);
    assert_eq!(b.engine.offer(), Offer::Everything);
    assert_eq!(a.engine.roots().0, b.engine.roots().0);
    assert_eq!(tags(&a, "old"), [""; 0]);
}

#[test]
fn a_day_away_is_not_long() {
    let (mut a, b) = two_that_agree();
    lose(&mut a, &b);
    a.jump(DAY);
    let mut b = come_back(b, &mut a);
    assert_eq!((a.engine.offer(), b.engine.offer()), (Offer::Everything, Offer::Everything));
}

#[test]
fn a_node_that_was_cut_off_from_most_for_a_week_was_away_though_it_ran() {
    let (mut a, mut b) = two_that_agree();
    lose(&mut a, &b);
    b.input(Input::Network(NetworkEvent::Broken(a.engine.me)));
    for _ in 0..8 {
        a.jump(DAY);
        b.jump(DAY);
    }
    connect(&mut a, &mut b);
    assert_eq!(b.engine.offer(), Offer::Everything, "of two, each is half: neither can say who was away");
    // The same with a third member, of which nobody has ever heard a word.
    let (mut a, b) = two_that_agree();
    let secret = [6; 32];
    let ttl = Duration::from_secs(60);
    let role = crate::crdt::admission::Role::MEMBER;
    a.request(Request::CreateTicket { ttl, uses: 1, role, secret }).unwrap();
    let name = NodeName::new("n3").unwrap();
    a.request(Request::Admit(super::input::Admit { key: NodeKey([3; 32]), name, addresses: vec![], secret })).unwrap();
    lose(&mut a, &b);
    for _ in 0..8 {
        a.jump(DAY);
    }
    a.input(Input::Network(NetworkEvent::Connected(b.engine.me)));
    assert_eq!(a.engine.offer(), Offer::WhatBothHold);
}
