//! Who is here, and what becomes of the runs of those who are not.

use super::*;

#[test]
fn a_life_that_asks_twice_gets_one_session() {
    let mut log = Log::default();
    let session = log.open_life(1, 7);
    assert_eq!(log.open_life(1, 7), session);
    assert_eq!(log.machine.session(session), Some(node(1)));
}

#[test]
fn another_life_ends_the_session_and_its_leases() {
    let (mut log, job) = (Log::default(), job("backup"));
    let first = log.holder(1, &job);
    let second = log.open_life(1, 2);
    assert_ne!(first, second);
    assert_eq!(log.machine.session(first), None);
    assert_eq!(log.machine.session_of(&node(1)), Some(second));
    assert_eq!(log.account(&job).holder, None);
    assert_eq!(log.decide(&job, first, vec![missed(101, 101)], None), Reply::Refused(Refused::NoSession));
}

#[test]
fn a_session_ends_once() {
    let mut log = Log::default();
    let session = log.open(1);
    log.close(session);
    assert_eq!(log.give(Command::Close { session }), Reply::Refused(Refused::NoSession));
}

#[test]
fn a_run_that_was_not_started_is_lost_with_the_session() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.claim(&job, session, claim(101, 1));
    log.close(session);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Lost));
    assert_eq!(log.started(&job, run_id(1), fence), Reply::Refused(Refused::PassedOver));
}

#[test]
fn a_run_that_was_started_waits_for_its_node() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    log.close(session);
    log.pass(ORPHAN_GRACE - Duration::from_millis(1));
    assert_eq!(log.status(&job, run_id(1)), None);
    log.open_life(1, 2);
    log.pass(ORPHAN_GRACE * 2);
    assert_eq!(log.run(&job, run_id(1)).orphaned, None);
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Success, false), Reply::Done);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Success));
}

#[test]
fn nobody_waits_longer_than_the_grace() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    log.close(session);
    assert!(!log.machine.is_due(log.machine.time() + (ORPHAN_GRACE - Duration::from_millis(1))));
    assert!(log.machine.is_due(log.machine.time() + ORPHAN_GRACE));
    log.pass(ORPHAN_GRACE);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Lost));
    assert_eq!(log.run(&job, run_id(1)).end.unwrap().at, Wall(1_000_000).plus(log.now));
    log.open_life(1, 2);
    let late = log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    assert_eq!(late, Reply::Refused(Refused::PassedOver));
}

#[test]
fn time_never_goes_back() {
    let mut log = Log::default();
    log.pass(Duration::from_secs(5));
    log.now = Duration::from_secs(1);
    log.open(1);
    assert_eq!(log.machine.time(), LedgerTime(5_000));
}

#[test]
fn under_rerun_another_node_makes_another_attempt() {
    let (mut log, job) = (Log::default(), job("backup"));
    let first = log.holder(1, &job);
    let fence = log.start(&job, first, Claim { on_node_loss: OnNodeLoss::Rerun, ..claim(101, 1) });
    log.close(first);
    let second = log.holder(2, &job);
    assert_eq!(log.attempt(&job, run_id(1), fence, second), Reply::Refused(Refused::NotHolder), "in its grace");
    log.pass(ORPHAN_GRACE);
    assert_eq!(log.run(&job, run_id(1)).node, None);
    let Reply::Granted(later) = log.attempt(&job, run_id(1), fence, second) else { panic!("not granted") };
    assert!(later > fence);
    let run = log.run(&job, run_id(1));
    assert_eq!((run.node, run.attempt, run.attempts_max, run.reruns), (Some(node(2)), 2, 1, 1));
    let late = log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    assert_eq!(late, Reply::Refused(Refused::PassedOver));
}

#[test]
fn a_lost_node_that_comes_back_before_the_rerun_is_believed() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { on_node_loss: OnNodeLoss::Rerun, ..claim(101, 1) });
    log.close(session);
    log.pass(ORPHAN_GRACE);
    let again = log.started(&job, run_id(1), fence);
    assert_eq!(again, Reply::Refused(Refused::PassedOver), "what it starts now is somebody else's");
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Success, false), Reply::Done);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Success));
}

#[test]
fn a_run_is_begun_anew_for_three_lost_nodes_and_no_more() {
    let (mut log, job) = (Log::default(), job("backup"));
    let mut session = log.holder(1, &job);
    let mut fence = log.start(&job, session, Claim { on_node_loss: OnNodeLoss::Rerun, ..claim(101, 1) });
    for lost in 2..5 {
        log.close(session);
        log.pass(ORPHAN_GRACE);
        session = log.holder(lost, &job);
        let Reply::Granted(next) = log.attempt(&job, run_id(1), fence, session) else { panic!("attempt {lost}") };
        fence = next;
    }
    log.close(session);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Lost));
}

#[test]
fn between_two_attempts_nothing_is_lost_with_a_node() {
    let (mut log, job) = (Log::default(), job("backup"));
    let first = log.holder(1, &job);
    let fence = log.start(&job, first, Claim { attempts_max: 2, ..claim(101, 1) });
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Failure, true), Reply::Done);
    log.close(first);
    let second = log.holder(2, &job);
    assert!(matches!(log.attempt(&job, run_id(1), fence, second), Reply::Granted(_)));
    let run = log.run(&job, run_id(1));
    assert_eq!((run.node, run.attempt, run.reruns), (Some(node(2)), 2, 0));
}
