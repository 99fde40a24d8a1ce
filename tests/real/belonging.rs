//! Ending a membership: removal, leaving, and coming back.

use std::fs;

use crate::cluster::{Cluster, Node, eventually, stays};
use crate::host::lives;

/// Waits until the node's program has ended by itself, with this code, and nothing of it is left.
fn ended(node: &mut Node, code: i32) {
    node.ends_with(code);
    assert!(node.keeper_pid().is_none_or(|keeper| !lives(keeper)), "its keeper is gone too");
}

fn names(node: &Node) -> Vec<String> {
    node.members().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_removed_node_ends_its_work_moves_and_it_comes_back_only_by_a_new_ticket() {
    let mut cluster = Cluster::start(3);
    let program = cluster.sleeper();
    cluster[0].ok(&["deploy", "--name", "web", "--tag", "v1", "--node", "any", "--replicas", "3", "--wait", &program]);
    let doomed = cluster[0].running("web", 3).into_iter().find(|one| one.node == "n3").expect("one on each").pid();
    cluster[0].run(&["node", "remove", "n3"]).refused(1, &["n3", "-y"]);
    cluster[0].run(&["node", "remove", "n9", "-y"]).refused(1, &["`n9`", "narun node list"]);
    cluster[0].run(&["node", "remove", "n1", "-y"]).refused(1, &["`n1` is this node itself", "narun leave"]);

    assert!(cluster[0].ok(&["node", "remove", "n3", "-y"]).contains("`n3` is no member any more"));
    let mut removed = cluster.nodes.pop().expect("n3");
    ended(&mut removed, 1);
    assert!(!lives(doomed), "what it ran was the cluster's");
    eventually("n2 to have heard of it", || (names(&cluster[1]) == ["n1", "n2"]).then_some(()));
    assert!(cluster[1].running("web", 3).iter().all(|one| one.node != "n3"));
    let again = cluster[1].json(&["node", "remove", "n3", "-y"]);
    assert_eq!(again, serde_json::json!({ "node": "n3", "removed": false }), "no error, and nothing done");

    // It says what happened, to whoever starts it and to whoever looks.
    let told = removed.fails(&["start"]).refused(1, &["`n3` was removed from the cluster by `n1`", "narun join"]);
    let explained = fs::read_to_string(removed.data_dir().join("gone.txt")).expect("an explanation");
    assert!(told.contains(explained.lines().next().expect("a line")), "{told} does not hold {explained}");

    let ticket = cluster[1].ok(&["ticket", "create"]);
    removed.join(ticket.trim());
    cluster.nodes.push(removed);
    cluster.settled();
    assert_eq!(cluster[0].running("web", 3).len(), 3);
}

#[test]
fn one_that_was_removed_while_it_was_down_is_told_at_the_door() {
    let mut cluster = Cluster::start(3);
    let program = cluster.sleeper();
    cluster[0].ok(&["deploy", "--name", "agent", "--tag", "v1", "--node", "all", "--wait", &program]);
    let kept = cluster[0].running("agent", 3).into_iter().find(|one| one.node == "n2").expect("one on each").pid();
    cluster[1].crash();
    cluster[2].ok(&["node", "remove", "n2", "-y"]);
    let mut removed = cluster.nodes.remove(1);
    assert!(lives(kept), "nobody has told its keeper");
    removed.spawn(&["start"]);
    ended(&mut removed, 1);
    assert!(removed.log().contains("`n2` was removed from the cluster by `n3`"), "{}", removed.log());
    assert!(!lives(kept));
    let network = cluster[0].json(&["status"]);
    assert_eq!(network["nodes"].as_array().expect("nodes").len(), 2, "{network}");
}

#[test]
fn who_leaves_is_forgotten_and_its_name_is_free() {
    let mut cluster = Cluster::start(3);
    let program = cluster.sleeper();
    cluster[0].ok(&["deploy", "--name", "web", "--tag", "v1", "--node", "any", "--replicas", "3", "--wait", &program]);
    cluster[1].run(&["leave"]).refused(1, &["-y"]);
    let moved_first = cluster[1].run(&["leave", "-y"]);
    assert!(moved_first.done().contains("`n2` has left the cluster"));
    let mut left = cluster.nodes.remove(1);
    ended(&mut left, 0);
    eventually("all to have heard of it", || {
        cluster.nodes.iter().all(|node| names(node) == ["n1", "n3"]).then_some(())
    });
    assert!(cluster[0].instances("web").iter().filter(|one| one.runs()).count() >= 3, "it was handed over before");
    cluster[0].running("web", 3);
    left.fails(&["start"]).refused(1, &["`n2` left the cluster"]);

    // Another host takes the name.
    let ticket = cluster[0].ok(&["ticket", "create"]);
    let mut other = cluster.host("n2");
    fs::remove_dir_all(other.data_dir()).expect("the directory of the one that left");
    other.join(ticket.trim());
    cluster.nodes.insert(1, other);
    cluster.settled();

    for _ in 0..2 {
        cluster[0].ok(&["node", "remove", &cluster.nodes.last().expect("one more").name.clone(), "-y"]);
        ended(&mut cluster.nodes.pop().expect("one more"), 1);
    }
    cluster[0].run(&["leave", "-y"]).refused(1, &["only member", "narun stop"]);
}

#[test]
fn an_operator_only_node_answers_and_runs_nothing() {
    let mut cluster = Cluster::start(2);
    let made = cluster[0].json(&["ticket", "create", "--role", "operator-only"]);
    // Beside the one that the founder printed, which may come first.
    let listed = cluster[0].json(&["ticket", "list"]);
    let ours =
        listed.as_array().expect("a list").iter().find(|ticket| ticket["id"] == made["id"]).expect("the new one");
    assert_eq!(ours["role"], "operator-only");
    cluster[0].run(&["ticket", "create", "--role", "king"]).refused(2, &["operator-only"]);
    let mut desk = cluster.host("n3");
    desk.join(made["ticket"].as_str().expect("a ticket"));
    cluster.nodes.push(desk);
    cluster.settled();
    assert_eq!(cluster[1].json(&["node", "info", "n3"])["role"], "operator-only");
    let program = cluster.sleeper();
    let deploy = |service, node| {
        let words = ["deploy", "--name", service, "--tag", "v1", "--node", node, "--replicas", "2", "--wait", &program];
        words.map(str::to_owned)
    };
    cluster[2].ok(&deploy("agent", "all"));
    cluster[2].ok(&deploy("web", "any"));
    assert!(cluster[0].running("agent", 4).iter().all(|one| one.node != "n3"));
    assert!(cluster[0].running("web", 2).iter().all(|one| one.node != "n3"));
    cluster[0].run(&deploy("pinned", "n3")).refused(1, &["`n3`", "runs nothing"]);
    stays("nothing to run on n3", std::time::Duration::from_secs(2), || {
        cluster[2].instances("web").iter().all(|one| one.node != "n3")
    });
}
