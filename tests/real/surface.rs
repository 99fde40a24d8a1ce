//! What scripts hold on to: exit codes, keys of JSON, columns, help.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::cluster::{Cluster, narun};

/// The keys of a JSON object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Every command that a user may type.
const COMMANDS: [&str; 27] = [
    "start",
    "join",
    "stop",
    "ticket create",
    "ticket list",
    "ticket revoke",
    "node list",
    "node info",
    "status",
    "deploy",
    "service list",
    "service info",
    "service history",
    "service delete",
    "service start",
    "service stop",
    "service restart",
    "service scale",
    "list-images",
    "image list",
    "logs",
    "spec check",
    "spec schema",
    "completion",
    "man",
    "",
    "service",
];

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let words: Vec<&str> = command.split_whitespace().collect();
        let long = narun(&[&words[..], &["--help"]].concat()).done();
        assert!(long.contains("Usage:"), "{command}: {long}");
        // A group of commands has its examples at its commands.
        if command != "service" {
            assert!(long.contains("Example"), "{command}: {long}");
        }
        let short = narun(&[&words[..], &["-h"]].concat()).done();
        assert!(short.len() <= long.len(), "{command}");
        let page = narun(&[&["man"], &words[..]].concat()).done();
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{command}: {page}");
    }
    assert_eq!(narun(&["--version"]).done(), format!("narun {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(narun(&["completion", shell]).done().contains("narun complete"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    narun(&["man", "--dir", folder.path().to_str().unwrap()]).done();
    assert!(folder.path().join("narun-service-list.1").exists());
}

#[test]
fn wrong_words_are_told_before_any_node_is_asked() {
    for (words, told) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["service", "lst"], "list"),
        (&["service", "scale", "web"], "<N>"),
        (&["service", "scale", "web", "many"], "many"),
        (&["node", "list", "-o", "xml"], "xml"),
        (&["node", "list", "--timeout", "soon"], "soon"),
        (&["--nats", "nats://x", "node", "list"], "no broker"),
        (&["-nats", "x", "status"], "no broker"),
        (&["deploy", "-name", "web", "./x"], "--name"),
        (&["--api", "https://host:1", "status"], "https://"),
        (&["--api", "host:1", "status"], "unix:PATH"),
        (&["completion", "ksh"], "ksh"),
        (&["join"], "TICKET"),
        (&["join", "127.0.0.1:1"], "--token"),
    ] {
        narun(words).refused(2, &[told]);
    }
    assert_eq!(narun::<&str>(&[]).code, 2);
    let nowhere = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/none.sock", nowhere.path().display());
    for words in [&["status"][..], &["node", "list"], &["service", "list"], &["stop"], &["logs"], &["list-images"]] {
        narun(&[words, &["--data-dir", nowhere.path().to_str().unwrap()]].concat()).refused(3, &["narun start"]);
        narun(&[words, &["--api", &socket]].concat()).refused(3, &["none.sock"]);
    }
    // Whoever checks a specification needs no node.
    let good = nowhere.path().join("good.yaml");
    std::fs::write(&good, "name: web\ntag: v1\n").unwrap();
    narun(&["spec", "check", good.to_str().unwrap()]).done();
    std::fs::write(&good, "name: web\ntga: v1\n").unwrap();
    narun(&["spec", "check", good.to_str().unwrap()]).refused(1, &["`tga`", "`tag`"]);
    let schema: Value = serde_json::from_str(&narun(&["spec", "schema"]).done()).unwrap();
    assert!(schema["properties"]["replicas"].is_object(), "{schema}");
}

#[test]
fn json_has_the_documented_keys_and_tables_their_columns() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    assert_eq!(node.json(&["service", "list"]), serde_json::json!([]));
    assert_eq!(node.json(&["list-images"]), serde_json::json!([]));
    node.ok(&["deploy", "--name", "web", "--tag", "v1", &cluster.sleeper(), "--wait"]);

    let first = |words: &[&str]| node.json(words).as_array().expect("a list")[0].clone();
    for (words, expected) in [
        (
            &["service", "list"][..],
            "cron_schedule desired in_spec instance_ids mode node node_platform node_status running service stopped tag",
        ),
        (
            &["node", "list"],
            "addresses age capacity drain instances is_me joined_at key labels name platform role since started_at status version",
        ),
        (&["ticket", "list"], "expires id role uses_left"),
    ] {
        assert_eq!(keys(&first(words)).join(" "), expected, "{words:?}");
    }
    let image = first(&["list-images"]);
    for key in ["object_name", "size", "modified", "tag", "os", "arch", "digest", "nodes", "used_by"] {
        assert!(!image[key].is_null(), "{key}: {image}");
    }
    assert!(image["size"].is_u64());
    let status = node.json(&["status"]);
    assert_eq!(
        keys(&status).join(" "),
        "boot cluster cron_fires key ledger network node nodes problems services version"
    );
    let made = node.json(&["ticket", "create"]);
    assert_eq!(keys(&made).join(" "), "expires id ticket uses");
    let row = first(&["service", "list"]);
    assert_eq!((&row["desired"], &row["running"], &row["instance_ids"]), (&1.into(), &1.into(), &vec!["web-0"].into()));

    for (words, header) in [
        (
            &["service", "list"][..],
            "SERVICE TAG MODE CRON_SCHEDULE NODE NODE_STATUS NODE_PLATFORM DESIRED RUNNING INSTANCE_IDS",
        ),
        (&["node", "list"], "NAME STATUS PLATFORM VERSION INSTANCES LABELS AGE"),
        (&["image", "list"], "OBJECT_NAME SIZE MODIFIED TAG OS ARCH DIGEST NODES USED_BY"),
    ] {
        let table = node.ok(words);
        let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(columns.join(" "), header);
        assert!(!table.contains('\x1b'), "no colour but on a terminal");
    }

    // Names are completed live.
    assert_eq!(node.ok(&["complete", "service", "info", "w"]), "web\n");
    assert_eq!(node.ok(&["complete", "node", "info", ""]), "n1\n");
    assert!(node.ok(&["complete", "serv"]).contains("service"));

    // A prompt that nobody can answer is no yes; one that is answered is.
    for (answer, code) in [("no\n", 1), ("", 1), ("yes\n", 1)] {
        let mut command = node.command(&["service", "delete", "web"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        // It may have refused before it was told anything.
        let _ = child.stdin.take().expect("a pipe").write_all(answer.as_bytes());
        assert_eq!(child.wait().unwrap().code(), Some(code), "without a terminal: {answer:?}");
    }
    node.running("web", 1);
    // Nobody reads the result: no reason to complain.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let child = node.command(&["status"]).stdout(writer).stderr(Stdio::piped()).spawn().expect("it starts");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}
