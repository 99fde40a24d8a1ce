//! What follows an exit, with engines called by hand.

use std::time::Duration;

use super::effect::{Effect, Response};
use super::input::{BlobEvent, Input, Request};
use super::tests::{BINARY, Node, exchange, two_nodes};
use super::view::{InstanceState, InstanceView};
use crate::confinement::Enforced;
use crate::exec::plan::{Ended, Kept, LaunchPlan, ProcessEvent};
use crate::ids::{NodeName, ServiceName};
use crate::time::Wall;

fn ended(code: i32) -> Ended {
    Ended { code: Some(code), signal: None, at: Wall(9), oom_kills: 0 }
}

fn exits(node: &mut Node, plan: &LaunchPlan, code: i32) {
    node.input(Input::Process(ProcessEvent::Exited { run: plan.run, ended: ended(code) }));
}

fn kept(plan: &LaunchPlan, pid: u32, ended: Option<Ended>) -> Kept {
    Kept { plan: plan.clone(), pid, started_at: Wall(u64::from(pid)), ended, enforced: Enforced::default() }
}

/// Ends the node and starts it on what its disk holds, with a keeper that holds this.
fn restarted(node: &Node, kept: Vec<Kept>) -> Node {
    let mut node = Node::start_with(1, None, node.stored.clone(), 100_000, kept);
    node.input(Input::Blob(BlobEvent::Holding(vec![(BINARY, 100)])));
    node.input(Input::Blob(BlobEvent::Executable(BINARY)));
    node
}

fn instances(node: &Node) -> Vec<InstanceView> {
    node.engine.view().instances.to_vec()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

#[test]
fn what_has_finished_is_started_by_its_user_alone() {
    let mut node = Node::founder();
    node.deploy("{name: job, tag: v1, restart: never, replicas: 2}").unwrap();
    let plans = node.obey();
    exits(&mut node, &plans[0], 0);
    exits(&mut node, &plans[1], 3);
    node.wait(Duration::from_secs(600));
    assert!(node.obey().is_empty());
    let seen = |node: &Node| -> Vec<_> {
        instances(node)
            .into_iter()
            .map(|one| (one.state, one.ready, one.error, one.exit.and_then(|exit| exit.code)))
            .collect()
    };
    let expected = [
        (InstanceState::Finished, true, None, Some(0)),
        (InstanceState::Finished, false, Some("exited with code 3".to_owned()), Some(3)),
    ];
    assert_eq!(seen(&node), expected);

    let mut node = restarted(&node, vec![]);
    node.wait(Duration::from_secs(60));
    assert!(node.obey().is_empty(), "a restart of the node starts none of them");
    assert_eq!(seen(&node), expected);

    // A scale starts what is new; a start what has failed counts all anew; and so does a restart.
    let scale = Request::Scale { service: service("job"), node: None, replicas: 3 };
    node.request(scale).unwrap();
    let third = node.obey();
    assert_eq!(third.iter().map(|plan| plan.instance.index).collect::<Vec<_>>(), [2]);
    exits(&mut node, &third[0], 0);
    let Ok(Response::Revised { changed: true, .. }) = node.request(Request::Start { service: service("job") }) else {
        panic!("one has failed")
    };
    let again = node.obey();
    assert_eq!(again.len(), 3);
    again.iter().for_each(|plan| exits(&mut node, plan, 0));
    let answer = node.request(Request::Start { service: service("job") });
    assert!(matches!(answer, Ok(Response::Revised { changed: false, .. })), "nothing is to be started: {answer:?}");
    node.request(Request::Restart { service: service("job") }).unwrap();
    assert_eq!(node.obey().len(), 3);
}

#[test]
fn a_rollout_goes_on_over_what_has_finished_well_and_stops_at_what_has_failed() {
    let mut node = Node::founder();
    node.deploy("{name: job, tag: v1, restart: never, replicas: 3}").unwrap();
    node.obey();
    node.wait(Duration::from_secs(2));
    node.deploy("{name: job, tag: v2, restart: never, replicas: 3}").unwrap();
    let first = node.obey();
    assert_eq!(first.len(), 1);
    exits(&mut node, &first[0], 0);
    let second = node.obey();
    assert_eq!(second.iter().map(|plan| plan.instance.index).collect::<Vec<_>>(), [1]);
    exits(&mut node, &second[0], 1);
    node.wait(Duration::from_secs(60));
    assert!(node.obey().is_empty());
    assert_eq!(instances(&node)[2].revision, 1);
}

#[test]
fn what_has_finished_stays_where_it_was() {
    let (mut a, mut b) = two_nodes();
    b.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
    a.deploy("{name: job, tag: v1, restart: on-failure, replicas: 2}").unwrap();
    exchange(&mut a, &mut b);
    let (of_a, of_b) = (a.obey(), b.obey());
    assert_eq!((of_a.len(), of_b.len()), (1, 1));
    exits(&mut a, &of_a[0], 0);
    exits(&mut b, &of_b[0], 0);
    exchange(&mut a, &mut b);
    a.request(Request::DrainNode { node: NodeName::new("n2").unwrap() }).unwrap();
    exchange(&mut a, &mut b);
    a.wait(Duration::from_secs(120));
    assert!(a.obey().is_empty() && b.obey().is_empty(), "elsewhere it would run anew");
    let view = b.engine.view();
    assert_eq!(
        view.nodes[1].drain.as_ref().map(super::view::DrainView::word),
        Some("drained"),
        "nothing is left there"
    );
    let finished = |one: &InstanceView| one.state == InstanceState::Finished && one.ready && one.wanted;
    assert!(instances(&b).iter().all(finished) && instances(&b).len() == 2, "{:#?}", instances(&b));
}

#[test]
fn an_exit_between_two_lives_is_counted_once() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1}").unwrap();
    let first = node.obey().remove(0);
    let before = node.stored.clone();
    exits(&mut node, &first, 7);
    node.wait(Duration::from_secs(1));
    let second = node.obey().remove(0);
    let seen = |node: &Node| {
        let one = instances(node).remove(0);
        (one.run, one.restarts, one.exit.and_then(|exit| exit.code))
    };
    assert_eq!(seen(&node), (Some(second.run), 1, Some(7)));
    let runs = vec![kept(&first, 5, Some(ended(7))), kept(&second, 6, None)];

    // Told before the end of that life, and the keeper had not heard so.
    assert_eq!(seen(&restarted(&node, runs.clone())), (Some(second.run), 1, Some(7)));
    // Not told any more: the next start came first.
    node.stored = before;
    let again = restarted(&node, runs);
    assert_eq!(seen(&again), (Some(second.run), 1, Some(7)));
}

#[test]
fn an_exit_that_was_told_is_not_counted_again() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1}").unwrap();
    let plan = node.obey().remove(0);
    exits(&mut node, &plan, 7);
    let mut again = restarted(&node, vec![kept(&plan, 5, Some(ended(7)))]);
    again.wait(Duration::from_secs(1));
    let launched = again.obey();
    assert_eq!(launched.len(), 1);
    let one = instances(&again).remove(0);
    assert_eq!((one.restarts, one.exit), (1, Some(ended(7))));
}

#[test]
fn another_signal_and_grace_hold_for_what_runs() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1}").unwrap();
    let plan = node.obey().remove(0);
    assert_eq!((plan.stop.signal, plan.stop.grace_ms), (15, 10_000));
    node.deploy("{name: web, tag: v1, stopSignal: INT, stopGraceSeconds: 2}").unwrap();
    assert!(node.obey().is_empty(), "nothing is replaced for it");
    node.request(Request::Stop { service: service("web") }).unwrap();
    let signalled = node.take(|effect| match effect {
        Effect::Signal { run, signal: 2 } => Some(*run),
        _ => None,
    });
    assert_eq!(signalled, [plan.run]);
    node.wait(Duration::from_millis(1_900));
    let killed = |effect: &Effect| if let Effect::Kill { run } = effect { Some(*run) } else { None };
    assert_eq!(node.take(killed), []);
    node.wait(Duration::from_millis(200));
    assert_eq!(node.take(killed), [plan.run]);
}
