//! Binaries: where they are kept, and how they get to where they are run.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Node, eventually, text};

/// The image of a service, as a node lists it.
fn image(node: &Node, service: &str) -> Option<Value> {
    let images = node.json(&["list-images"]);
    let used = |image: &&Value| image["used_by"].as_array().unwrap().iter().any(|by| by == service);
    images.as_array().unwrap().iter().find(used).cloned()
}

/// Who holds it.
fn holders(node: &Node, service: &str) -> Vec<String> {
    let image = image(node, service);
    image.map(|image| image["nodes"].as_array().unwrap().iter().map(text).collect()).unwrap_or_default()
}

#[test]
fn binaries_are_kept_on_three_nodes_and_run_on_all() {
    let mut cluster = Cluster::start(5);
    let content = format!("#!/bin/sh\n# {}\nexec sleep 600\n", "x".repeat(300_000));
    let program = cluster.file("tool", &content);
    cluster[0].ok(&["deploy", "--name", "kept", "--tag", "v7", "--node", "n1", &program, "--wait"]);
    for node in &cluster.nodes {
        // The node that runs it may hold a copy beside the three that are chosen to.
        let kept = || holders(node, "kept").len();
        eventually("three copies, as each node tells", || (3..=4).contains(&kept()).then_some(()));
    }
    let image = image(&cluster[3], "kept").unwrap();
    assert_eq!((text(&image["object_name"]).contains("kept"), &image["tag"]), (true, &"v7".into()), "{image}");
    assert_eq!(image["size"], content.len());
    assert_eq!(image["digest"], format!("blake3:{}", blake3::hash(content.as_bytes()).to_hex()));
    let table = cluster[0].ok(&["list-images"]);
    let header = "OBJECT_NAME SIZE MODIFIED TAG OS ARCH DIGEST NODES USED_BY";
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "), header);

    // A node that has no copy runs it, whoever takes the wish.
    let holding = holders(&cluster[0], "kept");
    let is_without = |name: &&str| !holding.iter().any(|held| held == name);
    let without = ["n1", "n2", "n3", "n4", "n5"].into_iter().find(is_without).expect("a node without a copy");
    cluster[0].ok(&["deploy", "--name", "there", "--tag", "v7", "--node", without, &program, "--wait"]);
    assert_eq!(cluster[0].running("there", 1)[0].node, without);

    // One that comes later fetches it from whoever has it, though the node that took the deploy is gone.
    cluster.add();
    cluster.settled();
    cluster[0].crash();
    cluster[1].ok(&["deploy", "--name", "late", "--tag", "v7", "--node", "n6", &program, "--wait"]);
    let instance = cluster[1].running("late", 1).remove(0);
    let executable = fs::read(format!("/proc/{}/cmdline", instance.pid())).unwrap();
    assert!(String::from_utf8_lossy(&executable).contains("sleep"), "it runs what it should");
    let folder = cluster.named("n6").layout.executables();
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(fs::read(&files[0]).unwrap(), content.as_bytes());
}

#[test]
fn a_transfer_goes_on_elsewhere_when_its_giver_dies() {
    let mut cluster = Cluster::start(3);
    // Large enough to die in the middle of. The program is at its head; the rest is never read.
    let mut content = b"#!/bin/sh\nexec sleep 600\n".to_vec();
    let mut state = 0x9e37_79b9_u32;
    content.resize_with(64 << 20, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let program = cluster.file("large", &content);
    cluster[0].ok(&["deploy", "--name", "large", "--tag", "v1", "--node", "n1", &program, "--wait", "--timeout", "3m"]);
    assert_eq!(holders(&cluster[1], "large").len(), 3);
    cluster.add();
    cluster.settled();
    // Through the one that stays: the new node may be fetching already, as one of those that keep it, before it hears of this.
    cluster[0].ok(&["deploy", "--name", "goes-on", "--tag", "v1", "--node", "n4", &program]);
    // Some of it has come, and not all.
    let blobs = cluster[3].layout.blobs();
    let begun = Instant::now();
    let came = || size_of(&blobs);
    eventually("the transfer to be under way", || (came() > 4 << 20).then_some(()));
    let moved = came();
    // Two of the three that have it, so that the one that gives is most likely among them.
    cluster[1].die();
    cluster[2].die();
    eventually("it to run", || {
        cluster[0].instances("goes-on").into_iter().find(|instance| instance.runs() && instance.node == "n4")
    });
    let files: Vec<_> = fs::read_dir(cluster[3].layout.executables()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert!(fs::read(&files[0]).unwrap() == content, "every byte is right");
    assert!(begun.elapsed() < Duration::from_secs(60), "killed at {moved} bytes, took {:?}", begun.elapsed());
}

/// All bytes below a folder.
fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => data.len(),
        // Gone since it was listed.
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
