//! Singletons on one node, with a ledger of its own.

use std::time::Duration;

use super::*;
use crate::exec::plan::Kept;
use crate::ids::NodeName;
use crate::node::engine::input::{BlobEvent, Input, Request};
use crate::node::engine::tests::{BINARY, Node};
use crate::node::engine::town::{Town, name};

const ONE: &str = "{name: one, tag: v1, singleton: true, replicas: 1}";

fn lease() -> LeaseKey {
    LeaseKey::Singleton(name("one"))
}

/// A node that runs a singleton.
fn running() -> Town {
    let mut town = Town::with(ONE);
    town.wait(Duration::from_secs(2));
    assert_eq!(town.launched.len(), 1);
    town
}

#[test]
fn it_runs_under_a_lease_that_is_put_off_with_each_renewal() {
    let mut town = running();
    let plan = town.launched[0].clone();
    let until = plan.lease_until.expect("it has one");
    assert!(plan.env.iter().any(|(name, _)| name == "NARUN_FENCE"), "{plan:?}");
    assert!(!plan.is_job);
    town.wait(Duration::from_secs(3));
    assert!(town.extended.iter().all(|(run, _)| *run == plan.run));
    let last = town.extended.last().expect("renewals go on").1;
    assert!(last > until && last > town.node.now.mono, "{last:?} at {:?}", town.node.now.mono);
    let of_session = last.since(town.node.now.mono);
    assert!(of_session < crate::ledger::office::SESSION_TTL - Duration::from_millis(500), "{of_session:?}");
}

#[test]
fn nothing_is_started_without_a_ledger_and_nothing_is_put_off() {
    let mut town = Town::with(ONE);
    town.is_dark = true;
    town.wait(Duration::from_secs(20));
    assert!(town.launched.is_empty());
    town.is_dark = false;
    town.wait(Duration::from_secs(3));
    let run = town.launched[0].run;
    town.is_dark = true;
    let before = town.extended.len();
    town.wait(Duration::from_secs(3));
    assert!(town.extended.len() <= before + 1, "what was asked for before may still have been answered");
    assert_eq!(town.signals, [(run, 15)], "it is stopped here too");
    town.end(run, 0);
    assert_eq!(town.launched.len(), 1);
    town.is_dark = false;
    town.wait(Duration::from_secs(4));
    assert_eq!(town.launched.len(), 2);
}

#[test]
fn its_lease_is_let_go_of_once_nothing_runs_here() {
    let mut town = running();
    let run = town.launched[0].run;
    town.node.request(Request::DrainNode { node: NodeName::new("n1").unwrap() }).unwrap();
    town.wait(Duration::from_secs(2));
    assert_eq!(town.signals, [(run, 15)]);
    assert!(town.machine.holder(&lease()).is_some(), "it still runs");
    town.end(run, 0);
    town.wait(Duration::from_secs(1));
    assert_eq!(town.machine.holder(&lease()), None);
    town.node.request(Request::UncordonNode { node: NodeName::new("n1").unwrap() }).unwrap();
    town.wait(Duration::from_secs(3));
    assert_eq!(town.launched.len(), 2);
    town.node.request(Request::Delete { service: name("one") }).unwrap();
    town.wait(Duration::from_secs(1));
    town.end(town.launched[1].run, 0);
    town.wait(Duration::from_secs(1));
    assert_eq!(town.machine.holder(&lease()), None);
}

#[test]
fn what_an_earlier_life_started_ends_before_this_one_has_a_session() {
    let mut town = running();
    let plan = town.launched[0].clone();
    let started_at = town.node.now.wall;
    let kept = Kept { plan: plan.clone(), pid: 7, started_at, ended: None, enforced: Default::default() };
    let session = town.machine.session_of(&town.node.engine.me);
    town.node = Node::start_with(1, None, town.node.stored.clone(), town.node.now.mono.0, vec![kept]);
    town.node.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
    town.wait(Duration::from_secs(1));
    assert_eq!(town.killed, [plan.run]);
    assert_eq!(town.machine.session_of(&town.node.engine.me), session, "the old one stands until it is missed");
    town.end(plan.run, 137);
    town.wait(Duration::from_secs(4));
    assert_ne!(town.machine.session_of(&town.node.engine.me), session);
    assert_eq!(town.launched.len(), 2);
}
