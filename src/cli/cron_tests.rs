//! Cron's commands as users meet them, against an API whose ledger is a stand-in.

use std::sync::Arc;

use serde_json::Value;

use super::failure::Failure;
use super::tests::{failure, run};
use crate::api::cron_tests::{FakeLedger, Held, ended, held, job, own, run as a_run, with_cron};
use crate::api::tests::{Answer, Api, revised, view};
use crate::ledger::run::{Run, RunStatus};
use crate::node::engine::effect::Response;
use crate::node::engine::input::Request;
use crate::node::engine::view::View;
use crate::time::Wall;

/// Runs a command line against a node with that view and that ledger.
async fn told_by(view: View, ledger: Arc<FakeLedger>, line: &str) -> (Result<(), Failure>, String) {
    let answer: Answer = |request| match request {
        Request::OwnRuns { .. } => own(request),
        _ => Ok(Response::Revised { revision: 2, changed: true }),
    };
    let api = Api::start_with(view, answer, ledger).await;
    run(&format!("--api unix:{} {line}", api.client.socket().display())).await
}

async fn against(held: Held, line: &str) -> (Result<(), Failure>, String) {
    told_by(with_cron(""), FakeLedger::holding(held), line).await
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn words_of_cron_are_checked() {
    for line in
        ["cron", "cron run", "cron history nightly -n 0", "cron pause", "cron run nightly --wait --timeout soon"]
    {
        assert_eq!(failure(line).code(), 2, "{line}");
    }
}

#[tokio::test]
async fn the_history_is_a_table_and_a_list() {
    let (done, text) = against(held(), "cron history nightly").await;
    done.unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].contains("missed") && lines[1].contains("3 slots from 1970-01-01T00:02:00Z to"), "{text}");
    assert!(lines[2].starts_with("ababababab  1970-01-01T00:01:00Z") && lines[2].contains("success"), "{text}");
    let (done, text) = against(held(), "cron history nightly -n 1 -o json").await;
    done.unwrap();
    let rows = json(&text);
    assert_eq!((rows.as_array().map(Vec::len), rows[0]["status"].as_str()), (Some(1), Some("missed")));
}

#[tokio::test]
async fn without_a_voter_in_reach_the_history_is_the_node_s_own() {
    let nobody = || Arc::new(FakeLedger(None.into()));
    let (done, text) = told_by(with_cron(""), nobody(), "cron history nightly").await;
    done.unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() == 3 && lines[1].contains("running") && lines[2].contains("success"), "{text}");
    let (done, text) = told_by(with_cron(""), nobody(), "cron history nightly -o json").await;
    done.unwrap();
    assert_eq!(json(&text)[0]["node"], "n1");
    let (done, text) = told_by(with_cron("cronScope: node"), nobody(), "cron history nightly --node n2").await;
    let failure = done.unwrap_err();
    assert_eq!((failure.code(), text.as_str()), (1, ""));
    assert!(failure.text().contains("no voter of the ledger has answered"), "{}", failure.text());
    assert!(failure.text().contains("`narun status`"), "{}", failure.text());
}

#[tokio::test]
async fn a_run_hands_on_its_result() {
    let (done, text) = against(held(), "cron run nightly").await;
    done.unwrap();
    assert!(text.contains("a run of `nightly` was asked for"), "{text}");

    let outcome = |status, code| Held { outcome: Some(ended(status, code)), ..held() };
    let (done, text) = against(outcome(RunStatus::Success, Some(0)), "cron run nightly --wait").await;
    done.unwrap();
    assert_eq!(text, "run ababababab of `nightly` ended: success, exit code 0\n");
    let (done, text) = against(outcome(RunStatus::Failure, Some(3)), "cron run nightly --wait -o json").await;
    let failure = done.unwrap_err();
    assert_eq!(failure.code(), 1);
    assert_eq!(
        failure.text(),
        "error: run ababababab of `nightly` ended: failure, exit code 3\n\
         hint: `narun logs --app nightly --run ababababab` shows its output\n"
    );
    let value = json(&text);
    assert_eq!((&value["run"]["exit_code"], &value["run"]["trigger"]), (&3.into(), &"asked".into()));
}

#[tokio::test]
async fn a_run_that_nobody_takes_is_waited_for_as_long_as_was_said() {
    let (done, text) = against(held(), "cron run nightly --wait --timeout 300ms").await;
    let failure = done.unwrap_err();
    assert_eq!((failure.code(), text.as_str()), (1, ""));
    let told = failure.text();
    assert!(told.contains("after 300ms: node n1, which holds the lease, is to take it"), "{told}");
}

#[tokio::test]
async fn pause_and_resume_tell_what_was_done() {
    let (done, text) = against(held(), "cron pause nightly").await;
    done.unwrap();
    assert_eq!(text, "cron spec `nightly` paused: no slot is fired until `narun cron resume`: revision 2\n");
    let (done, text) = against(held(), "cron resume nightly -o json").await;
    done.unwrap();
    assert_eq!(json(&text), serde_json::json!({ "service": "nightly", "revision": 2, "changed": true }));
}

#[tokio::test]
async fn info_tells_all_that_is_known() {
    let (done, text) = against(held(), "service info nightly").await;
    done.unwrap();
    for part in ["Schedule\n  0 2 * * * in UTC", "Policy\n", "Next Due\n", "held by n1", "Last Runs\n", "missed"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let (done, text) = against(held(), "service info nightly -o json").await;
    done.unwrap();
    let value = json(&text);
    assert_eq!(value["cron"]["next"].as_array().map(Vec::len), Some(5));
    assert_eq!(value["cron"]["history"]["rows"][1]["status"], "success");
    let nobody = Arc::new(FakeLedger(None.into()));
    let (done, text) = told_by(with_cron(""), nobody, "service info nightly").await;
    done.unwrap();
    assert!(text.contains("Next Due\n") && text.contains("Last Runs (those of node n1 alone)"), "{text}");
}

#[tokio::test]
async fn why_says_what_stands_in_the_way() {
    let mut held = held();
    let failed = Run { end: Some(ended(RunStatus::Failure, Some(3))), scheduled: Wall(300_000), ..a_run(300) };
    held.accounts.get_mut(&job(None)).unwrap().runs = vec![failed];
    let (done, text) = against(held, "why nightly").await;
    done.unwrap();
    assert!(text.contains("nightly: the last run to end was ababababab, due at 1970-01-01T00:05:00Z on n1"), "{text}");
    assert!(text.contains("`narun logs --app nightly --run ababababab`") && text.contains("next due at"), "{text}");
    let nobody = Arc::new(FakeLedger(None.into()));
    let (done, text) = told_by(with_cron("suspend: true"), nobody, "why nightly -o json").await;
    done.unwrap();
    let states: Vec<_> = json(&text).as_array().unwrap().iter().map(|found| found["state"].clone()).collect();
    assert_eq!(states, ["paused", "no majority", "own", "running", "success"]);
}

#[tokio::test]
async fn status_and_lists_know_cron() {
    let (done, text) = against(held(), "status").await;
    done.unwrap();
    assert!(text.contains("Ledger   voters n1 (leads); quorum 1 of 1, 1 in reach; cron specs are fired\n"), "{text}");
    let (_, text) = told_by(with_cron("suspend: true"), FakeLedger::holding(held()), "service list").await;
    assert!(text.lines().any(|line| line.starts_with("nightly") && line.contains("N/A (paused)")), "{text}");
}

#[tokio::test]
async fn deleting_says_what_becomes_of_open_runs() {
    let deleted = async |held: Held| {
        let ledger = FakeLedger::holding(held);
        let api = Api::start_with(with_cron(""), |_| Ok(Response::Deleted { existed: true }), ledger).await;
        run(&format!("--api unix:{} service delete nightly -y", api.client.socket().display())).await.1
    };
    assert_eq!(deleted(held()).await, "cron spec `nightly` deleted\n");
    let mut open = held();
    open.accounts.get_mut(&job(None)).unwrap().runs = vec![Run { is_started: true, ..a_run(300) }, a_run(360)];
    assert_eq!(deleted(open).await, "cron spec `nightly` deleted; its 2 open runs run to their end\n");
    let mut unknown = held();
    unknown.accounts.clear();
    assert_eq!(deleted(unknown).await, "cron spec `nightly` deleted\n");
}

#[tokio::test]
async fn cron_words_on_a_service_are_refused() {
    for line in ["cron run web", "cron history web", "cron next web"] {
        let (done, text) = told_by(view(), FakeLedger::holding(held()), line).await;
        let failure = done.unwrap_err();
        assert_eq!((failure.code(), text.as_str()), (1, ""), "{line}");
        assert!(failure.text().contains("`web` is a service"), "{}", failure.text());
    }
    let api = Api::start(view(), revised).await;
    let line = format!("--api unix:{} cron history gone", api.client.socket().display());
    assert_eq!(run(&line).await.0.unwrap_err().code(), 1);
}
