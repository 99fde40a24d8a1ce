//! Labels, constraints and drains, on real nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Node, eventually, stays, text};
use crate::host::{is_root, lives};

/// The nodes that run a service, by instance.
fn nodes_of(at: &Node, service: &str) -> Vec<(String, String)> {
    let running = at.instances(service).into_iter().filter(|one| one.state == "running");
    running.map(|one| (one.name, one.node)).collect()
}

fn drain_state(at: &Node, node: &str) -> Value {
    at.json(&["node", "info", node])["drain"]["state"].clone()
}

#[test]
fn a_node_says_what_its_host_offers() {
    let cluster = Cluster::start(2);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    for node in &cluster.nodes {
        // Of itself as of the other.
        let list = eventually("both to have told", || {
            let list = node.json(&["node", "list"]);
            list.as_array().unwrap().iter().all(|row| !row["capacity"].is_null()).then_some(list)
        });
        for row in list.as_array().unwrap() {
            let capacity = &row["capacity"];
            assert_eq!(capacity["kernel"], release.trim());
            assert!(capacity["cores"].as_u64().unwrap() >= 1 && capacity["memory_bytes"].as_u64().unwrap() > 1 << 26);
            assert_eq!(capacity["is_root"], is_root());
            assert!(["none", "v1", "v2", "hybrid"].contains(&capacity["cgroup"].as_str().unwrap()), "{capacity}");
            assert_eq!(row["drain"], Value::Null);
        }
    }
    let info = cluster[0].ok(&["node", "info", "n2"]);
    for line in ["Cores ", "Memory ", "Kernel ", "Landlock ", "Cgroups ", "Runs as "] {
        assert!(info.lines().any(|shown| shown.starts_with(line)), "{info}");
    }
}

#[test]
fn labels_outlast_restarts_and_services_follow_them() {
    let mut cluster = Cluster::start(3);
    let program = cluster.sleeper();
    assert_eq!(cluster[0].ok(&["node", "label", "n2", "zone=a", "disk=ssd"]), "disk=ssd,zone=a\n");
    let answer = cluster[2].json(&["node", "label", "n2", "disk-", "rack=7"]);
    // Asked at another node, which may not have heard of the first labels; in the end there is one truth.
    assert_eq!(answer["changed"], true);
    cluster[1].crash();
    cluster[0].ok(&["node", "label", "n2", "zone=b", "disk-", "rack=7"]);
    cluster[1].start();
    let expected = json!({"rack": "7", "zone": "b"});
    for node in &cluster.nodes {
        eventually("its labels", || (node.json(&["node", "info", "n2"])["labels"] == expected).then_some(()));
    }
    cluster[0].run(&["node", "label", "n2", "zone"]).refused(2, &["`zone`", "KEY=VALUE"]);
    cluster[0].run(&["node", "label", "n2", "zone=a b"]).refused(1, &["`a b`"]);
    cluster[0].run(&["node", "label", "n7", "zone=a"]).refused(1, &["`n7`"]);

    let spec =
        |name: &str, rest: &str| cluster.file(&format!("{name}.yaml"), format!("name: {name}\ntag: v1\n{rest}\n"));
    let web = spec("web", "replicas: 2\nconstraints: {labels: {zone: b}, os: linux, coresMin: 1}");
    cluster[2].ok(&["deploy", "--config", &web, &program, "--wait"]);
    assert!(nodes_of(&cluster[2], "web").iter().all(|(_, node)| node == "n2"));
    let shown = cluster[0].ok(&["service", "info", "web"]);
    assert!(shown.contains("coresMin: 1"), "{shown}");

    // What no node meets is told, and so is a node that was named and does not.
    let lost = spec("lost", "replicas: 1\nconstraints: {labels: {zone: z}, coresMin: 60000}");
    let answer = cluster[0].run(&["deploy", "--config", &lost, &program, "--wait", "--timeout", "1s"]);
    answer.refused(1, &["of 3 nodes", "3 do not meet `labels.zone: z`", "3 do not meet `coresMin: 60000`"]);
    let status = cluster[0].ok(&["status"]);
    assert!(status.contains("lost: 1 instances have no node that can run them: of 3 nodes"), "{status}");
    let named = spec("named", "nodes: [{name: n1}]\nconstraints: {labels: {zone: b}}");
    cluster[0].run(&["deploy", "--config", &named, &program]).refused(1, &["node `n1`", "`labels.zone: b`"]);

    // The label goes to another node, and the service with it.
    cluster[1].ok(&["node", "label", "n3", "zone=b"]);
    cluster[1].ok(&["node", "label", "n2", "zone-"]);
    eventually("web to move", || {
        let nodes = nodes_of(&cluster[0], "web");
        (nodes.len() == 2 && nodes.iter().all(|(_, node)| node == "n3")).then_some(())
    });
}

#[test]
fn a_drain_moves_the_work_away_and_says_when_it_is_done() {
    let mut cluster = Cluster::start(3);
    let program = cluster.sleeper();
    cluster[0].ok(&["deploy", "--name", "web", "--tag", "v1", "--node", "any", "--replicas", "3", &program, "--wait"]);
    cluster[0].ok(&["deploy", "--name", "db", "--tag", "v1", "--node", "n2", &program, "--wait"]);
    let bound = cluster[0].running("db", 1)[0].pid();

    // Nobody can be asked here, and something would be lost.
    cluster[0].run(&["node", "drain", "n2"]).refused(1, &["db-0", "-y"]);
    assert_eq!(drain_state(&cluster[0], "n2"), Value::Null);
    cluster[0].run(&["node", "drain", "n9", "-y"]).refused(1, &["`n9`"]);

    // Asked at the third node, about the second.
    let answer = cluster[2].json(&["node", "drain", "n2", "-y"]);
    assert_eq!(
        (&answer["state"], &answer["left"], &answer["bound"]),
        (&json!("drained"), &json!([]), &json!(["db-0"]))
    );
    assert!(!lives(bound));
    let web = nodes_of(&cluster[2], "web");
    let nodes: BTreeSet<&str> = web.iter().map(|(_, node)| node.as_str()).collect();
    assert_eq!((web.len(), nodes), (3, BTreeSet::from(["n1", "n3"])));
    let list = cluster[2].ok(&["node", "list"]);
    assert!(list.contains("alive, drained"), "{list}");
    for node in &cluster.nodes {
        let db = eventually("db to be shown as stopped", || {
            node.instances("db").into_iter().find(|one| one.state == "stopped")
        });
        assert_eq!(db.error, "the node is drained");
    }

    // It answers, and takes deploys for others; restarts of all change nothing.
    cluster[1].ok(&["deploy", "--name", "late", "--tag", "v1", "--node", "any", "--replicas", "2", &program, "--wait"]);
    for at in 0..3 {
        cluster[at].crash();
    }
    for at in 0..3 {
        cluster[at].start();
    }
    cluster.settled();
    assert_eq!(drain_state(&cluster[0], "n2"), "drained");
    stays("n2 to be empty", std::time::Duration::from_secs(3), || {
        let services = cluster[0].json(&["service", "list"]);
        let rows = services.as_array().unwrap().clone();
        rows.iter().filter(|row| row["node"] == "n2").all(|row| row["running"] == 0)
    });

    assert_eq!(cluster[0].ok(&["node", "uncordon", "n2"]), "node `n2` is back\n");
    assert_eq!(cluster[0].ok(&["node", "uncordon", "n2"]), "node `n2` was not drained\n");
    assert_eq!(cluster[0].running("db", 1)[0].node, "n2");
    let after: BTreeSet<String> = nodes_of(&cluster[0], "web").into_iter().map(|(_, node)| node).collect();
    assert!(!after.contains("n2"), "what was moved stays");
}

#[test]
fn what_cannot_move_stays_and_is_told() {
    let cluster = Cluster::start(1);
    let program = cluster.sleeper();
    cluster[0].ok(&["deploy", "--name", "web", "--tag", "v1", "--node", "any", &program, "--wait"]);
    let pid = cluster[0].running("web", 1)[0].pid();
    let answer = cluster[0].run(&["node", "drain", "n1", "--timeout", "1s"]);
    answer
        .refused(1, &["not drained after 1s", "web-0: no other node can take it: there is no other node", "uncordon"]);
    assert!(lives(pid), "it stays");
    let list = cluster[0].ok(&["node", "list"]);
    assert!(list.contains("alive, draining"), "{list}");
    assert_eq!(cluster[0].ok(&["node", "drain", "n1", "--no-wait"]), "node `n1` is draining\n");
    let info = cluster[0].ok(&["node", "info", "n1"]);
    assert!(info.contains("web-0: no other node can take it"), "{info}");
    cluster[0].ok(&["node", "uncordon", "n1"]);
    assert_eq!(cluster[0].running("web", 1)[0].pid(), pid, "nothing was touched");
    assert_eq!(text(&cluster[0].json(&["node", "info", "n1"])["status"]), "alive");
}
