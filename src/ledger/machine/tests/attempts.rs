//! What is said of attempts.

use super::*;

#[test]
fn a_run_is_started_and_ends() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    assert_eq!(log.started(&job, run_id(1), fence), Reply::Done);
    assert_eq!(log.run(&job, run_id(1)).started, Some(Wall(8_000)));
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Failure, false), Reply::Done);
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Failure, false), Reply::Done, "it was said before");
    let other = log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    assert_eq!(other, Reply::Refused(Refused::PassedOver));
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Failure));
    assert_eq!(log.account(&job).last_success, None);
}

#[test]
fn a_word_on_another_fence_is_refused() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.claim(&job, session, claim(101, 1));
    let other = Fence(fence.0 + 1);
    assert_eq!(log.started(&job, run_id(1), other), Reply::Refused(Refused::PassedOver));
    assert_eq!(log.ended(&job, run_id(1), other, RunStatus::Success, false), Reply::Refused(Refused::PassedOver));
    assert_eq!(log.attempt(&job, run_id(1), other, session), Reply::Refused(Refused::PassedOver));
    assert_eq!(log.started(&job, run_id(2), fence), Reply::Refused(Refused::PassedOver));
}

#[test]
fn a_failed_attempt_is_followed_by_another_under_a_new_fence() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let first = log.start(&job, session, Claim { attempts_max: 2, ..claim(101, 1) });
    assert_eq!(log.attempt(&job, run_id(1), first, session), Reply::Refused(Refused::NotEnded));
    assert_eq!(log.ended(&job, run_id(1), first, RunStatus::Failure, true), Reply::Done);
    assert_eq!(log.ended(&job, run_id(1), first, RunStatus::Failure, true), Reply::Done, "it was said before");
    assert_eq!(log.run(&job, run_id(1)).last_failure, Some(ended_as(RunStatus::Failure)));
    let Reply::Granted(second) = log.attempt(&job, run_id(1), first, session) else { panic!("not granted") };
    assert!(second > first);
    let run = log.run(&job, run_id(1));
    assert_eq!((run.attempt, run.is_started, run.last_failure), (2, false, None));
    assert_eq!(log.ended(&job, run_id(1), first, RunStatus::Success, false), Reply::Refused(Refused::PassedOver));
    log.started(&job, run_id(1), second);
    log.ended(&job, run_id(1), second, RunStatus::Failure, true);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Failure), "there were two attempts to be made");
}

#[test]
fn success_is_followed_by_nothing() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { attempts_max: 9, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Success, true);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Success));
}

#[test]
fn a_start_that_is_told_after_the_end_changes_little() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.claim(&job, session, Claim { attempts_max: 2, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Failure, true);
    assert_eq!(log.started(&job, run_id(1), fence), Reply::Done);
    let run = log.run(&job, run_id(1));
    assert_eq!((run.started, run.is_started, run.is_waiting()), (Some(Wall(8_000)), false, true));
}

#[test]
fn the_next_attempt_is_its_node_s() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { attempts_max: 2, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Failure, true);
    let other = log.holder(2, &job);
    assert_eq!(log.attempt(&job, run_id(1), fence, other), Reply::Refused(Refused::NotHolder));
    assert!(matches!(log.attempt(&job, run_id(1), fence, session), Reply::Granted(_)), "it holds the lease no more");
}

#[test]
fn a_holder_gives_up_a_run_that_waits() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { attempts_max: 2, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Failure, true);
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Aborted, false), Reply::Done);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Aborted));
}

#[test]
fn a_long_error_is_cut_between_two_characters() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.claim(&job, session, claim(101, 1));
    let end = RunEnd { error: Some("ä€".repeat(100_000)), ..ended_as(RunStatus::FailureToStart) };
    let ended = Command::Ended { job: job.clone(), run: run_id(1), fence, end, again: false };
    assert_eq!(log.give(ended.clone()), Reply::Done);
    let error = log.run(&job, run_id(1)).end.unwrap().error.unwrap();
    assert!((250..=256).contains(&error.len()), "{}", error.len());
    assert_eq!(log.give(ended), Reply::Done, "it was said before");
}
