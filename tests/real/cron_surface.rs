//! Cron specs as their users see and handle them, on real nodes: history, runs by hand, their output, pause and resume, and what is said where
//! no majority is left.

use serde_json::Value;

use crate::cluster::{Cluster, Node, eventually, text};

/// Says who it is, and fails where its spec says so.
const JOB: &str = "echo \"attempt $NARUN_JOB_ATTEMPT\"\nexit ${CODE:-0}\n";

fn rows(node: &Node, cron: &str) -> Vec<Value> {
    node.json(&["cron", "history", cron]).as_array().expect("a list").clone()
}

fn statuses(node: &Node, cron: &str) -> Vec<String> {
    rows(node, cron).iter().map(|row| text(&row["status"])).collect()
}

#[test]
fn runs_are_seen_asked_for_and_paused() {
    let cluster = Cluster::start(1);
    let (node, job) = (&cluster[0], cluster.script("job.sh", JOB));
    let deployed = node.run(&["deploy", "--name", "tick", "--tag", "v1", "--cron-schedule", "@every 1s", &job]);
    assert!(!deployed.stderr.contains("no slot"), "{deployed:?}");
    deployed.done();
    eventually("two slots to have been run", || {
        (statuses(node, "tick").iter().filter(|status| *status == "success").count() >= 2).then_some(())
    });
    let newest =
        eventually("a run that has ended", || rows(node, "tick").into_iter().find(|row| row["ended_at"].is_string()));
    assert_eq!((&newest["exit_code"], &newest["trigger"], &newest["node"]), (&0.into(), &"slot".into(), &"n1".into()));

    node.ok(&["cron", "pause", "tick"]);
    assert!(node.ok(&["why", "tick"]).contains("tick: paused, on node n1"));
    let told = node.run(&["cron", "run", "tick", "--wait"]).done();
    assert!(told.contains("of `tick` ended: success"), "a paused spec is run by hand: {told}");
    node.ok(&["cron", "resume", "tick"]);
    let runs = |node: &Node| rows(node, "tick").iter().filter(|row| row["run_id"].is_string()).count();
    let before = runs(node);
    eventually("a slot to be run again", || (runs(node) > before).then_some(()));
    assert!(node.ok(&["service", "info", "tick"]).contains("held by n1"));
    assert_eq!(node.ok(&["complete", "cron", "run", "t"]), "tick\n");

    // A run keeps its name over its attempts, and its output is found by that name alone.
    let words = ["deploy", "--name", "bad", "--tag", "v1", "--cron-schedule", "@yearly", "--job-max-retries", "1"];
    node.ok(&[&words[..], &["--env", "CODE=3", &job]].concat());
    eventually("somebody to hold the lease", || {
        let info = node.json(&["service", "info", "bad"]);
        info["cron"]["history"]["jobs"][0]["holder"].is_string().then_some(())
    });
    let answer = node.run(&["cron", "run", "bad", "--wait", "-o", "json"]);
    assert!(answer.stderr.contains("ended: failure, exit code 3, attempt 2/2"), "{answer:?}");
    let row = &rows(node, "bad")[0];
    assert_eq!((&row["status"], &row["attempts"], &row["exit_code"]), (&"failure".into(), &2.into(), &3.into()));
    let id = text(&row["run_id"]);
    for digits in [&id[..], &id[..10]] {
        let lines = eventually("both attempts' lines", || {
            let lines = node.messages(&["--run", digits, "--stream", "stdout"]);
            (lines.len() == 2).then_some(lines)
        });
        assert_eq!(lines, ["attempt 1", "attempt 2"]);
    }
    assert!(node.ok(&["why", "bad"]).contains(&format!("`narun logs --app bad --run {}`", &id[..10])));
}

#[test]
fn without_a_majority_everything_says_why_nothing_fires() {
    let mut cluster = Cluster::start(3);
    let job = cluster.script("job.sh", JOB);
    cluster[0].ok(&["deploy", "--name", "tick", "--tag", "v1", "--cron-schedule", "@every 1s", "--node", "any", &job]);
    eventually("three voters", || (cluster[0].json(&["status"])["ledger"]["quorum"] == 2).then_some(()));
    eventually("a slot to have been run", || {
        statuses(&cluster[0], "tick").contains(&"success".to_owned()).then_some(())
    });

    cluster.named("n2").die();
    cluster.named("n3").die();
    let node = &cluster[0];
    let status = eventually("the loss to be noticed", || {
        let status = node.json(&["status"]);
        (status["ledger"]["in_reach"] == 1).then_some(status)
    });
    assert_eq!(status["cron_fires"], false);
    assert!(text(&status["ledger"]["why"]).contains("1 of 3 voters are in reach, and 2 are needed"), "{status}");
    let told = eventually("the history to say how old it is", || {
        let answer = node.run(&["cron", "history", "tick"]);
        answer.stderr.contains("this is what one of them knew at").then_some(answer)
    });
    assert!(told.done().contains("success"));
    assert!(node.ok(&["why", "tick"]).contains("no slot of any cron spec is fired: 1 of 3 voters"));
    let refused = node.run(&["cron", "run", "tick"]);
    refused.refused(1, &["tick"]);
}

#[test]
fn a_node_that_reaches_no_voter_shows_its_own_runs_and_says_so() {
    let mut cluster = Cluster::start(2);
    let (quick, long) = (cluster.script("job.sh", JOB), cluster.script("long.sh", "exec sleep 600\n"));
    for (name, job) in [("quick", &quick), ("long", &long)] {
        let words = ["deploy", "--name", name, "--tag", "v1", "--cron-schedule", "@every 1s", "--node", "n2", job];
        cluster[0].ok(&words);
    }
    eventually("a slot of each to have been run", || {
        let is_done = statuses(&cluster[1], "quick").contains(&"success".to_owned());
        (is_done && statuses(&cluster[1], "long").contains(&"running".to_owned())).then_some(())
    });
    assert_eq!(cluster[0].json(&["status"])["ledger"]["voters"].as_array().map(Vec::len), Some(1));
    let known = rows(&cluster[1], "long").pop().expect("a run");

    // Of two members one votes.
    cluster.named("n1").die();
    let alone = "these are the runs of node n2 alone";
    let told = eventually("the history to be the node's own", || {
        let answer = cluster[1].run(&["cron", "history", "quick"]);
        answer.stderr.contains(alone).then_some(answer)
    });
    assert!(told.done().contains("success"));
    let info = cluster[1].json(&["service", "info", "long"]);
    assert_eq!(info["cron"]["history"]["only_node"], "n2");
    let told = cluster[1].run(&["why", "long"]);
    assert!(told.stdout.contains(alone) && told.stdout.contains("running"), "{told:?}");

    // Another process of the node knows of what its keeper holds.
    let node = cluster.named("n2");
    node.crash();
    node.start();
    let own = eventually("the run to be found at the keeper", || {
        let answer = node.run(&["cron", "history", "long", "-o", "json"]);
        let rows: Value = serde_json::from_str(&answer.stdout).ok()?;
        rows.as_array()?.iter().find(|row| row["run_id"] == known["run_id"]).cloned()
    });
    assert_eq!((&own["status"], &own["scheduled_at"]), (&"running".into(), &known["scheduled_at"]));
}
