//! Two nodes with one key: a data directory that was copied.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Node, text};

/// Copies a stopped node's data directory, as a careless administrator does.
fn copy_of(cluster: &Cluster, original: &Node) -> Node {
    let copy = cluster.host(&original.name);
    let copied = std::process::Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([original.data_dir(), copy.data_dir()])
        .status()
        .expect("cp starts");
    assert!(copied.success(), "cp failed");
    copy
}

fn all_alive(node: &Node) -> bool {
    node.members().iter().all(|(_, status)| status == "alive")
}

#[test]
fn a_copy_of_a_data_directory_ends_itself_and_the_original_goes_on() {
    let mut cluster = Cluster::start(3);
    let sleeper = cluster.sleeper();
    cluster[1].ok(&["deploy", "--name", "web", "--tag", "v1", "--node", "n2", &sleeper, "--wait"]);
    let before = cluster[0].running("web", 1);
    cluster[1].signal(libc::SIGTERM);
    cluster[1].ends();
    let mut copy = copy_of(&cluster, &cluster[1]);
    cluster[1].start();
    cluster.settled();
    let rows = cluster[0].json(&["node", "info", "n2"]);
    let address = text(&rows["addresses"][0]);

    // Meanwhile the others see no change.
    let (first, third) = (&cluster[0], &cluster[2]);
    let began = Instant::now();
    let answer = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy.fails(&["start", "--listen", "127.0.0.1:0"]));
        while !copying.is_finished() {
            assert!(all_alive(first) && all_alive(third), "{:?} {:?}", first.members(), third.members());
        }
        copying.join().expect("the copy was waited for")
    });
    let told = answer.refused(1, &["another node runs with the key", &address, "is a copy", "narun join"]);
    assert!(!told.contains("panicked"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(30), "took {:?}", began.elapsed());
    assert!(copy.keeper_pid().is_none(), "nothing of the copy is left");

    cluster.settled();
    assert_eq!(text(&cluster[0].json(&["node", "info", "n2"])["addresses"][0]), address, "it was not led astray");
    assert_eq!(cluster[2].running("web", 1)[0].pid, before[0].pid, "what ran goes on");
    let counted: u64 = [first_count(&cluster[0]), first_count(&cluster[2])].iter().sum();
    assert!(counted >= 1, "counted where it was refused");

    // The original may crash and return as ever, and the copy is refused again.
    cluster[1].crash();
    cluster[1].start();
    cluster.settled();
    copy.fails(&["start"]).refused(1, &["is a copy"]);
    assert!(Path::new(copy.data_dir()).join("identity.key").exists(), "nothing was deleted");
}

fn first_count(node: &Node) -> u64 {
    node.json(&["status"])["network"]["copies_refused"].as_u64().unwrap_or(0)
}

#[test]
fn a_node_that_is_killed_and_started_again_at_once_is_no_copy() {
    let mut cluster = Cluster::start(2);
    for _ in 0..5 {
        cluster[1].crash();
        let began = Instant::now();
        cluster[1].start();
        cluster.settled();
        assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
    }
    assert_eq!(first_count(&cluster[0]), 0);
}
