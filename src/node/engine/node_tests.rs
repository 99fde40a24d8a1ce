//! Labels, constraints and drains, with engines called by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::effect::{RefusalCode, Response};
use super::input::{BlobEvent, Input, Request};
use super::tests::{BINARY, Node, exchange, two_nodes};
use super::view::{DrainView, InstanceState};
use crate::exec::plan::ProcessEvent;
use crate::ids::NodeName;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn label(node: &str, set: &[(&str, &str)], remove: &[&str]) -> Request {
    Request::LabelNode {
        node: name(node),
        set: set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        remove: remove.iter().map(|key| (*key).to_owned()).collect(),
    }
}

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn drain(node: &str) -> Request {
    Request::DrainNode { node: name(node) }
}

fn uncordon(node: &str) -> Request {
    Request::UncordonNode { node: name(node) }
}

fn drain_of(at: &Node, node: &str) -> DrainView {
    let view = at.engine.view();
    let shown = view.nodes.iter().find(|shown| shown.name == name(node)).unwrap();
    shown.drain.clone().expect("it is drained")
}

fn problems(at: &Node) -> String {
    at.engine.view().problems.iter().map(|problem| format!("{}: {}\n", problem.subject, problem.message)).collect()
}

/// Ends the node and starts it on what its disk holds; the keeper holds nothing.
fn restarted(node: &Node) -> Node {
    Node::start(1, None, node.stored.clone(), 100_000)
}

#[test]
fn labels_are_set_removed_and_kept() {
    let mut node = Node::founder();
    let answer = node.request(label("n1", &[("zone", "a"), ("disk", "ssd")], &[]));
    let all = labels(&[("zone", "a"), ("disk", "ssd")]);
    assert_eq!(answer, Ok(Response::Labelled { labels: all.clone(), changed: true }));
    let answer = node.request(label("n1", &[("zone", "a")], &[]));
    assert_eq!(answer, Ok(Response::Labelled { labels: all.clone(), changed: false }), "it was so already");
    let reported = |node: &Node| node.engine.view().nodes[0].labels.iter().cloned().collect::<BTreeMap<_, _>>();
    assert_eq!(reported(&node), all, "the node reports them");
    assert_eq!(reported(&restarted(&node)), all);
    let answer = node.request(label("n1", &[("zone", "b")], &["disk", "nowhere"]));
    assert_eq!(answer, Ok(Response::Labelled { labels: labels(&[("zone", "b")]), changed: true }));
    assert_eq!(reported(&node), labels(&[("zone", "b")]));

    for (request, code, told) in [
        (label("n9", &[("a", "b")], &[]), RefusalCode::NotFound, "`n9`"),
        (label("n1", &[("", "b")], &[]), RefusalCode::Invalid, "must not be empty"),
        (label("n1", &[("a", "b c")], &[]), RefusalCode::Invalid, "holds ` `"),
        (label("n1", &[("a", "b")], &["a"]), RefusalCode::Invalid, "at once"),
    ] {
        let refusal = node.request(request).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal:?}");
        assert!(refusal.message.contains(told), "{refusal:?}");
    }
    let many: BTreeMap<String, String> = (0..65).map(|n| (format!("k{n}"), String::new())).collect();
    let request = Request::LabelNode { node: name("n1"), set: many, remove: BTreeSet::new() };
    assert_eq!(node.request(request).unwrap_err().code, RefusalCode::Limit);
}

#[test]
fn a_label_given_elsewhere_reaches_the_node_and_its_facts() {
    let (mut a, mut b) = two_nodes();
    b.request(label("n1", &[("zone", "a")], &[])).unwrap();
    exchange(&mut a, &mut b);
    for node in [&a, &b] {
        assert_eq!(node.engine.view().nodes[0].labels, [("zone".to_owned(), "a".to_owned())]);
    }
    assert_eq!(a.engine.roots(), b.engine.roots());
}

#[test]
fn a_deploy_that_names_a_node_without_what_is_asked_is_refused() {
    let mut node = Node::founder();
    let web = "name: web, tag: v1, nodes: [{name: n1}]";
    let refusal = node.deploy(&format!("{{{web}, constraints: {{labels: {{zone: a}}, coresMin: 64}}}}")).unwrap_err();
    assert_eq!(refusal.message, "node `n1` does not meet the constraint `labels.zone: a`, `coresMin: 64`");
    node.request(label("n1", &[("zone", "a")], &[])).unwrap();
    node.deploy(&format!("{{{web}, constraints: {{labels: {{zone: a}}, coresMin: 4}}}}")).unwrap();
    assert_eq!(node.obey().len(), 1);

    // A label that goes takes the instance with it, and brings it back.
    node.request(label("n1", &[], &["zone"])).unwrap();
    node.obey();
    assert_eq!(node.states(), [("web-0".to_owned(), InstanceState::Stopped)]);
    assert!(
        problems(&node).contains("web-0 on n1: stopped: the constraint `labels.zone: a` is not met"),
        "{}",
        problems(&node)
    );
    node.request(label("n1", &[("zone", "a")], &[])).unwrap();
    assert_eq!(node.obey().len(), 1);
}

#[test]
fn what_no_node_can_take_is_told_with_the_constraints_that_fail() {
    let (mut a, _) = two_nodes();
    a.request(label("n1", &[("zone", "a")], &[])).unwrap();
    a.deploy("{name: web, tag: v1, replicas: 2, constraints: {labels: {zone: a}, memoryMinMB: 9000}}").unwrap();
    assert!(a.obey().is_empty());
    let told = "web: 2 instances have no node that can run them: of 2 nodes, 1 does not meet `labels.zone: a`, \
                2 do not meet `memoryMinMB: 9000`";
    assert!(problems(&a).contains(told), "{}", problems(&a));
    a.deploy("{name: web, tag: v1, replicas: 2, constraints: {labels: {zone: a}}}").unwrap();
    assert_eq!(a.obey().len(), 2, "both on the one node that has it");
}

#[test]
fn the_last_node_keeps_what_could_go_elsewhere() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1, replicas: 1}").unwrap();
    node.deploy("{name: db, tag: v1, nodes: [{name: n1}]}").unwrap();
    assert_eq!(node.obey().len(), 2);
    node.wait(Duration::from_secs(2));
    assert_eq!(node.request(drain("n1")), Ok(Response::NodeSet { changed: true }));
    assert_eq!(node.request(drain("n1")), Ok(Response::NodeSet { changed: false }));
    node.obey();
    let left = drain_of(&node, "n1").left;
    let told: Vec<_> = left.iter().map(|left| (left.service.as_str(), left.why.as_str())).collect();
    let bound = "it is bound to this node, and stopped once those have gone that can";
    assert_eq!(told, [("db", bound), ("web", "no other node can take it: there is no other node")]);
    assert_eq!(drain_of(&node, "n1").word(), "draining");

    // Nothing new comes, not even by name.
    node.deploy("{name: more, tag: v1, replicas: 1}").unwrap();
    node.deploy("{name: here, tag: v1, nodes: [{name: n1}]}").unwrap();
    node.deploy("{name: each, tag: v1, nodes: [{name: all}]}").unwrap();
    assert!(node.obey().is_empty());
    assert!(
        problems(&node).contains("more: 1 instances have no node that can run them: of 1 node, 1 is drained"),
        "{}",
        problems(&node)
    );
    assert!(problems(&node).contains("here-0 on n1: stopped: the node is drained"));

    // Once that is gone which could go elsewhere, the rest stops.
    let web = crate::ids::ServiceName::new("web").unwrap();
    node.request(Request::Delete { service: web }).unwrap();
    assert!(node.obey().is_empty());
    assert_eq!(drain_of(&node, "n1").word(), "drained");
    let db = ("db-0".to_owned(), InstanceState::Stopped);
    assert!(node.states().contains(&db), "{:?}", node.states());

    let mut node = restarted(&node);
    node.input(Input::Process(ProcessEvent::Holding(vec![])));
    node.input(Input::Blob(BlobEvent::Holding(vec![(BINARY, 100)])));
    assert!(node.obey().is_empty(), "a drain outlasts a restart");
    assert_eq!(drain_of(&node, "n1").word(), "drained");
    assert_eq!(node.request(uncordon("n1")), Ok(Response::NodeSet { changed: true }));
    assert_eq!(node.obey().len(), 4, "all that is wanted comes back");
    assert_eq!(node.request(uncordon("n1")), Ok(Response::NodeSet { changed: false }));
}

#[test]
fn a_drained_node_stops_an_instance_when_the_other_has_it_ready() {
    let (mut a, mut b) = two_nodes();
    b.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
    a.request(label("n1", &[("zone", "a")], &[])).unwrap();
    exchange(&mut a, &mut b);
    a.deploy("{name: web, tag: v1, replicas: 1, constraints: {labels: {zone: a}}}").unwrap();
    assert_eq!(a.obey().len(), 1);
    a.wait(Duration::from_secs(2));
    exchange(&mut a, &mut b);
    b.request(drain("n1")).unwrap();
    exchange(&mut a, &mut b);
    let why = drain_of(&b, "n1").left[0].why.clone();
    assert_eq!(why, "no other node can take it: of 1 other node, 1 does not meet `labels.zone: a`");

    b.request(label("n2", &[("zone", "a")], &[])).unwrap();
    exchange(&mut a, &mut b);
    a.obey();
    assert_eq!(drain_of(&a, "n1").left[0].why, "its replacement on `n2` is fetching");
    assert_eq!(b.obey().len(), 1, "the other starts first");
    exchange(&mut a, &mut b);
    a.obey();
    let running = |node: &Node| node.states().iter().filter(|(_, state)| *state == InstanceState::Running).count();
    assert_eq!(running(&a), 2, "both run until the new one is ready");
    let why = drain_of(&a, "n1").left[0].why.clone();
    assert_eq!(why, "its replacement on `n2` is running, but not yet for long enough");
    b.wait(Duration::from_secs(1));
    exchange(&mut a, &mut b);
    a.obey();
    exchange(&mut a, &mut b);
    for node in [&a, &b] {
        assert_eq!(running(node), 1);
        assert_eq!(drain_of(node, "n1").word(), "drained");
    }
    a.request(uncordon("n1")).unwrap();
    exchange(&mut a, &mut b);
    assert!(a.obey().is_empty() && b.obey().is_empty(), "nothing moves back");
}
