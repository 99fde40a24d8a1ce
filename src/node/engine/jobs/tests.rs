//! Cron specs on one node, with a ledger of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::exec::plan::{Kept, LaunchPlan};
use crate::ledger::command::{JobKey, LeaseKey};
use crate::ledger::run::RunStatus;
use crate::node::engine::effect::{RefusalCode, Response};
use crate::node::engine::input::{BlobEvent, Input, Request};
use crate::node::engine::restore::Stored;
use crate::node::engine::tests::{BINARY, Node, two_nodes};
use crate::node::engine::town::{STEP, Town, name};

fn value<'a>(plan: &'a LaunchPlan, name: &str) -> &'a str {
    &plan.env.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}: {plan:?}")).1
}

const EACH_SECOND: &str = "{name: tick, tag: v1, runMode: cron, cronSchedule: '* * * * * *', replicas: 1}";

#[test]
fn a_slot_becomes_a_run_with_its_fence_in_its_environment() {
    let mut town = Town::with(EACH_SECOND);
    town.wait(Duration::from_secs(2));
    let plan = town.launched.first().expect("a slot was due").clone();
    let run = town.account("tick").runs.last().unwrap().clone();
    assert_eq!(value(&plan, "NARUN_FENCE"), run.fence.0.to_string());
    assert_eq!(value(&plan, "NARUN_RUN_ID"), run.id.to_string());
    assert_eq!(value(&plan, "NARUN_JOB_ATTEMPT"), "1");
    assert_eq!(value(&plan, "NARUN_JOB_SCHEDULED_TIME"), run.scheduled.to_string());
    assert_eq!((value(&plan, "NARUN_REPLICA_INDEX"), value(&plan, "NARUN_INSTANCE_ID")), ("-1", "tick-0"));
    assert!(plan.is_job && !plan.replaceable, "{plan:?}");
    assert_eq!(plan.run.0[..12], run.id.0[..12], "the attempt's name begins as the run's");
    // It is over: the ledger is told, then the keeper may forget it.
    town.end(plan.run, 0);
    town.wait(Duration::from_millis(600));
    assert_eq!(town.account("tick").runs.last().unwrap().end.as_ref().unwrap().status, RunStatus::Success);
    assert_eq!(town.forgotten, [plan.run]);
    assert!(town.node.engine.view().instances.is_empty(), "a run is no instance of a service");
}

#[test]
fn runs_that_overlap_have_lanes_of_their_own() {
    let mut town = Town::with(&EACH_SECOND.replace("replicas", "concurrencyPolicy: allow, replicas"));
    town.wait(Duration::from_secs(3));
    let lanes = |town: &Town| town.launched.iter().map(|plan| plan.instance.index).collect::<Vec<_>>();
    assert_eq!(lanes(&town)[..3], [0, 1, 2]);
    let first = town.launched[0].run;
    town.end(first, 0);
    town.wait(Duration::from_secs(1));
    assert_eq!(lanes(&town)[3], 0, "the lowest free one");
}

#[test]
fn an_attempt_waits_for_its_binary_and_is_given_up_in_the_end() {
    let mut town = Town::new(Node::founder());
    town.has_binary = false;
    town.node.deploy(EACH_SECOND).unwrap();
    town.wait(Duration::from_secs(30));
    assert!(town.launched.is_empty());
    town.wait(Duration::from_secs(35));
    let account = town.account("tick");
    let end = account.runs.iter().find_map(|run| run.end.clone()).expect("it was given up");
    assert_eq!(end.status, RunStatus::FailureToStart);
    assert!(end.error.unwrap().contains("`app` was not here after 60 s"));
    // The binary comes: what waits is launched at once.
    town.has_binary = true;
    town.settle();
    assert_eq!(town.launched.len(), 1);
}

#[test]
fn an_attempt_that_waited_for_its_binary_is_not_started_once_it_may_be_lost() {
    let mut town = Town::new(Node::founder());
    town.has_binary = false;
    town.node.deploy(EACH_SECOND).unwrap();
    town.wait(Duration::from_secs(2));
    let first = town.account("tick").runs[0].id;
    // The ledger is silent for longer than a session lives, and the binary comes.
    town.is_dark = true;
    town.wait(Duration::from_secs(4));
    town.has_binary = true;
    town.wait(Duration::from_secs(1));
    assert_eq!(town.launched, [], "nobody confirms the grant");
    town.is_dark = false;
    town.wait(Duration::from_secs(4));
    let account = town.account("tick");
    let run = account.runs.iter().find(|run| run.id == first).unwrap();
    assert_eq!(run.end.as_ref().unwrap().status, RunStatus::Lost);
    let is_first = |plan: &&LaunchPlan| plan.run.0[..12] == first.0[..12];
    assert_eq!(town.launched.iter().find(is_first), None, "it is recorded as lost");
    assert_eq!(town.launched.len(), 1, "the next slot runs");
}

#[test]
fn a_run_that_takes_too_long_is_asked_to_stop_and_killed() {
    let yaml = "{name: tick, tag: v1, runMode: cron, cronSchedule: '@hourly', jobTimeoutSeconds: 5, stopGraceSeconds: 3, replicas: 1}";
    let mut town = Town::with(yaml);
    while town.launched.is_empty() {
        town.wait(STEP);
    }
    let run = town.launched[0].run;
    town.wait(Duration::from_secs(8));
    assert_eq!(town.signals, [(run, 15)]);
    assert_eq!(town.killed, [run], "after its grace");
    town.end(run, 143);
    town.wait(Duration::from_secs(1));
    assert_eq!(town.account("tick").runs[0].end.as_ref().unwrap().status, RunStatus::Timeout);
}

#[test]
fn a_process_that_comes_back_finds_its_runs_at_the_keeper() {
    let mut town = Town::with(EACH_SECOND);
    town.wait(Duration::from_secs(2));
    let plan = town.launched[0].clone();
    let started_at = town.node.now.wall;
    let kept = Kept { plan: plan.clone(), pid: 7, started_at, ended: None, enforced: Default::default() };
    let stored: Stored = town.node.stored.clone();
    let mono = town.node.now.mono.0;
    town.node = Node::start_with(1, None, stored, mono, vec![kept]);
    town.node.input(Input::Blob(BlobEvent::Stored(BINARY, 100)));
    town.wait(Duration::from_secs(2));
    let count = town.launched.iter().filter(|one| one.run == plan.run).count();
    assert_eq!((count, town.killed.len()), (1, 0), "neither launched again nor ended");
    town.end(plan.run, 3);
    town.wait(Duration::from_secs(1));
    let account = town.account("tick");
    let run = account.runs.iter().find(|run| run.id.0[..12] == plan.run.0[..12]).unwrap();
    assert_eq!(run.end.as_ref().unwrap().code, Some(3));
}

#[test]
fn a_ledger_that_is_silent_is_told_once_there_is_something_to_fire() {
    let mut town = Town::new(Node::founder());
    town.is_dark = true;
    town.wait(Duration::from_secs(20));
    assert_eq!(town.problems(), Vec::<String>::new());
    town.node.deploy(EACH_SECOND).unwrap();
    town.wait(Duration::from_secs(1));
    let problems = town.problems();
    assert!(
        problems[0].starts_with("no cron slot fires from this node: the ledger has not answered since"),
        "{problems:?}"
    );
    town.is_dark = false;
    town.wait(Duration::from_secs(2));
    assert_eq!(town.problems(), Vec::<String>::new());
    assert!(!town.launched.is_empty());
}

#[test]
fn leases_go_to_those_who_can_run_a_spec() {
    let (a, b) = two_nodes();
    let mut town = Town::new(a);
    let other = b.engine.me;
    town.node.deploy(EACH_SECOND).unwrap();
    town.node
        .deploy(&EACH_SECOND.replace("tick", "mine").replace("replicas: 1", "nodes: [{name: n1, replicas: 1}]"))
        .unwrap();
    town.node
        .deploy(&EACH_SECOND.replace("tick", "each").replace("replicas: 1", "cronScope: node, replicas: 1"))
        .unwrap();
    town.wait(Duration::from_secs(1));
    let me = town.node.engine.me;
    let key = |text: &str, node| LeaseKey::Cron(JobKey { name: name(text), node });
    let wanted = |town: &Town, key| {
        town.wants.leases.get(&key).map(|wanted| wanted.nodes.iter().copied().collect::<BTreeSet<_>>())
    };
    assert_eq!(wanted(&town, key("tick", None)), Some([me, other].into()));
    assert_eq!(wanted(&town, key("mine", None)), Some([me].into()));
    assert_eq!(wanted(&town, key("each", Some(other))), Some([other].into()));
    assert_eq!(wanted(&town, key("each", None)), None);
    let version = town.wants.version;
    town.node.request(Request::DrainNode { node: crate::ids::NodeName::new("n1").unwrap() }).unwrap();
    town.wait(Duration::from_secs(1));
    assert!(town.wants.version > version);
    assert_eq!(wanted(&town, key("tick", None)), Some([other].into()));
    assert_eq!(wanted(&town, key("mine", None)), Some(BTreeSet::new()), "it is there, and nobody can have it");
    assert_eq!(wanted(&town, key("each", Some(me))), None);
    town.node.request(Request::Delete { service: name("tick") }).unwrap();
    town.wait(Duration::from_secs(1));
    assert_eq!(wanted(&town, key("tick", None)), None);
}

#[test]
fn the_only_voter_hands_the_ledger_on_before_it_leaves() {
    let (a, b) = two_nodes();
    let mut town = Town::new(a);
    let (me, other) = (town.node.engine.me, b.engine.me);
    let standing =
        |voter| LedgerEvent::Standing(Standing { voters: vec![voter], leader: Some(voter), ..Standing::default() });
    town.node.input(Input::Ledger(standing(me)));
    town.wait(Duration::from_secs(1));
    let can_vote = |town: &Town, node| town.members.iter().find(|one| one.node == node).unwrap().can_vote;
    assert!(can_vote(&town, me) && can_vote(&town, other));
    town.node.input(Input::Request { id: 100, request: Request::Leave });
    town.wait(Duration::from_secs(1));
    assert!(!can_vote(&town, me) && town.answers_to(100).is_empty(), "it waits");
    // Nobody takes it: the node stays.
    town.wait(Duration::from_secs(30));
    assert_eq!(town.answers_to(100)[0].clone().unwrap_err().code, RefusalCode::Unavailable);
    assert!(can_vote(&town, me));
    town.node.input(Input::Request { id: 101, request: Request::Leave });
    town.node.input(Input::Ledger(standing(other)));
    town.wait(Duration::from_secs(1));
    assert_eq!(town.machine.session_of(&me), None, "its leases are free");
    town.wait(Duration::from_secs(60));
    assert_eq!(town.node.take(|effect| matches!(effect, Effect::End(_)).then_some(())).len(), 1, "and it ends");
}

#[test]
fn what_was_suspended_is_known_by_its_revisions() {
    let mut town = Town::with(EACH_SECOND);
    town.wait(Duration::from_secs(2));
    town.node.request(Request::Stop { service: name("tick") }).unwrap();
    let launched = town.launched.len();
    town.wait(Duration::from_secs(10));
    assert_eq!(town.launched.len(), launched);
    let before = town.node.now.wall;
    town.node.request(Request::Start { service: name("tick") }).unwrap();
    town.wait(Duration::from_secs(3));
    let spec = &town.node.engine.jobs.specs.0[&name("tick")];
    assert!(!spec.policy.suspend && spec.suspended_until >= Slot::at(before));
    let run = town.launched[0].run;
    town.end(run, 0);
    town.wait(Duration::from_secs(2));
    let gaps: Vec<_> = town.account("tick").gaps.iter().map(|gap| gap.reason).collect();
    assert!(gaps.contains(&crate::ledger::run::GapReason::Suspended), "{gaps:?}");
}

#[test]
fn slots_between_a_deletion_and_the_next_deploy_are_not_run() {
    let yaml = EACH_SECOND.replace("replicas", "concurrencyPolicy: allow, replicas");
    let mut town = Town::with(&yaml);
    town.wait(Duration::from_secs(2));
    town.node.request(Request::Delete { service: name("tick") }).unwrap();
    town.wait(Duration::from_secs(1));
    let launched = town.launched.len();
    // So soon that the ledger was not told that the spec is gone.
    town.wait(Duration::from_secs(5));
    assert_eq!(town.launched.len(), launched);
    let again = town.node.now.wall;
    town.node.deploy(&yaml).unwrap();
    town.wait(Duration::from_secs(5));
    let runs = town.account("tick").runs;
    let later: Vec<_> = runs.iter().filter(|run| run.revision.number > 1).map(|run| run.scheduled).collect();
    assert!(later.len() >= 2 && later.iter().all(|slot| *slot >= again), "{again}: {later:?}");
}

/// What the node tells of its own runs of `tick`, newest first.
fn own_runs(town: &mut Town) -> Vec<OwnRun> {
    let cron = name("tick");
    town.node.input(Input::Request { id: 700, request: Request::OwnRuns { cron } });
    let answer = town.answers_to(700).remove(0).unwrap();
    let Response::OwnRuns(mut runs) = answer else { panic!("{answer:?}") };
    runs.sort_by_key(|own| std::cmp::Reverse(own.run.scheduled));
    runs
}

#[test]
fn a_node_tells_of_its_own_runs_where_the_ledger_is_silent() {
    let mut town = Town::with(&EACH_SECOND.replace("replicas", "jobMaxRetries: 1, replicas"));
    town.wait(Duration::from_secs(2));
    let first = town.launched[0].clone();
    town.end(first.run, 0);
    town.wait(Duration::from_secs(2));
    let second = town.launched.last().unwrap().clone();
    assert_ne!(second.run, first.run);
    town.is_dark = true;
    let runs = own_runs(&mut town);
    assert_eq!(runs.iter().map(|own| (own.run.is_started, own.is_told)).collect::<Vec<_>>(), [(true, true); 2]);
    assert_eq!(runs[1].run.end.as_ref().map(|end| end.status), Some(RunStatus::Success), "the ledger has it, too");
    assert_eq!((runs[0].run.end.as_ref(), runs[0].run.node), (None, Some(town.node.engine.me)));
    // It fails, and nobody can be asked for another attempt.
    town.end(second.run, 3);
    town.wait(Duration::from_secs(5));
    let failed = &own_runs(&mut town)[0].run;
    assert!(failed.is_waiting() && failed.last_failure.as_ref().is_some_and(|end| end.code == Some(3)), "{failed:?}");
    assert_eq!(own_runs(&mut town).len(), 2, "nothing more was begun");
    // What the ledger makes of it in the end is one run, with two attempts.
    town.is_dark = false;
    town.wait(Duration::from_secs(20));
    let again = town.launched.iter().find(|plan| plan.run.0[..12] == second.run.0[..12] && plan.run != second.run);
    town.end(again.expect("another attempt").run, 4);
    let run = own_runs(&mut town).into_iter().find(|own| own.run.id.0[..12] == second.run.0[..12]).unwrap().run;
    assert_eq!((run.attempt, run.end.map(|end| end.code)), (2, Some(Some(4))));
}

#[test]
fn of_what_an_earlier_process_began_the_keeper_s_word_is_told() {
    let mut town = Town::with(EACH_SECOND);
    town.wait(Duration::from_secs(2));
    let plan = town.launched[0].clone();
    let run = town.account("tick").runs.last().unwrap().clone();
    let started_at = town.node.now.wall;
    let kept = Kept { plan: plan.clone(), pid: 7, started_at, ended: None, enforced: Default::default() };
    town.is_dark = true;
    let mono = town.node.now.mono.0;
    town.node = Node::start_with(1, None, town.node.stored.clone(), mono, vec![kept]);
    town.wait(Duration::from_secs(1));
    let told = own_runs(&mut town);
    assert_eq!(told.iter().map(|own| (own.run.id, own.is_told)).collect::<Vec<_>>(), [(run.id, false)]);
    let own = &told[0].run;
    assert_eq!((own.scheduled, own.fence, own.attempt), (run.scheduled, run.fence, 1));
    assert_eq!((own.started, own.end.as_ref()), (Some(started_at), None));
    town.end(plan.run, 9);
    assert_eq!(own_runs(&mut town)[0].run.end.as_ref().unwrap().code, Some(9));
    // Once the ledger is heard, it knows more of it.
    town.is_dark = false;
    town.wait(Duration::from_secs(2));
    assert_eq!(town.account("tick").runs.last().unwrap().end.as_ref().unwrap().code, Some(9));
}

#[test]
fn as_many_ended_runs_are_known_as_the_ledger_keeps() {
    let mut town = Town::with(EACH_SECOND);
    let mut ended = 0;
    while ended < 25 {
        town.wait(STEP);
        while let Some(plan) = town.launched.get(ended).cloned() {
            town.end(plan.run, 0);
            ended += 1;
        }
    }
    let runs = own_runs(&mut town);
    let newest = town.launched.last().unwrap().run;
    assert_eq!(runs.iter().filter(|own| own.run.end.is_some()).count(), 20);
    assert_eq!(runs[0].run.id.0[..12], newest.0[..12]);
}
