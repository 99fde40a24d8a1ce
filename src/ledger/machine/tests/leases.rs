//! Who holds what, and which jobs there are.

use super::*;

#[test]
fn a_lease_goes_to_open_sessions_only() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.open(1);
    log.close(session);
    assert_eq!(log.grant(&job, session), Reply::Refused(Refused::NoSession));
    assert_eq!(log.machine.account(&job), None);
}

#[test]
fn a_lease_that_changes_hands_keeps_the_job() {
    let (mut log, job) = (Log::default(), job("backup"));
    let first = log.holder(1, &job);
    let fence = log.start(&job, first, claim(105, 1));
    let second = log.holder(2, &job);
    assert_eq!(log.cursor(&job), Slot(105));
    assert_eq!(log.decide(&job, first, vec![missed(106, 106)], None), Reply::Refused(Refused::NotHolder));
    assert_eq!(
        log.ended(&job, run_id(1), fence, RunStatus::Success, false),
        Reply::Done,
        "the run is its node's still"
    );
    log.claim(&job, second, claim(106, 2));
}

#[test]
fn a_node_s_own_job_goes_to_no_other_node() {
    let mut log = Log::default();
    let (own, other) = (log.open(1), log.open(2));
    let job = JobKey { node: Some(node(1)), ..job("rotate") };
    assert_eq!(log.grant(&job, other), Reply::Refused(Refused::Malformed));
    assert_eq!(log.grant(&job, own), Reply::Done);
}

#[test]
fn a_lease_can_be_taken_away_and_let_go_of() {
    let (mut log, job) = (Log::default(), job("backup"));
    let (session, other) = (log.holder(1, &job), log.open(2));
    let lease = LeaseKey::Cron(job.clone());
    let release = |session| Command::Release { lease: lease.clone(), session };
    assert_eq!(log.give(release(other)), Reply::Refused(Refused::NotHolder));
    assert_eq!(log.give(release(session)), Reply::Done);
    assert_eq!(log.machine.holder(&lease), None);
    log.grant(&job, other);
    assert_eq!(log.give(Command::Grant { lease: lease.clone(), to: None, begin: BEGIN }), Reply::Done);
    assert_eq!(log.machine.holder(&lease), None);
}

#[test]
fn a_singleton_goes_from_hand_to_hand_by_way_of_nobody() {
    let mut log = Log::default();
    let (first, second, lease) = (log.open(1), log.open(2), singleton("db"));
    let grant = |to| Command::Grant { lease: lease.clone(), to, begin: BEGIN };
    assert_eq!(log.give(grant(Some(first))), Reply::Done);
    assert_eq!(log.give(grant(Some(first))), Reply::Done);
    assert_eq!(log.give(grant(Some(second))), Reply::Refused(Refused::Held));
    assert_eq!(log.give(grant(None)), Reply::Refused(Refused::Held));
    assert_eq!(log.give(Command::Release { lease: lease.clone(), session: first }), Reply::Done);
    assert_eq!(log.give(grant(Some(second))), Reply::Done);
    log.close(second);
    assert_eq!(log.machine.holder(&lease), None);
    assert_eq!(log.give(grant(Some(first))), Reply::Done);
}

#[test]
fn a_retired_job_is_kept_for_a_day() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let forget = Command::Forget { job: job.clone() };
    log.ask(&job, 1);
    let fence = log.start(&job, session, claim(101, 1));
    assert_eq!(log.give(forget.clone()), Reply::Refused(Refused::Kept));
    assert_eq!(log.give(Command::Retire { job: job.clone() }), Reply::Done);
    assert_eq!(log.account(&job).holder, None);
    assert_eq!(log.ask(&job, 2), Reply::Refused(Refused::NoJob));
    log.pass(FORGET_AFTER);
    assert_eq!(log.give(forget.clone()), Reply::Refused(Refused::Kept), "a run is open");
    assert_eq!(log.machine.forgettable(log.machine.time()).count(), 0);
    log.ended(&job, run_id(1), fence, RunStatus::Aborted, false);
    assert_eq!(log.machine.forgettable(log.machine.time()).count(), 1);
    assert_eq!(log.give(forget), Reply::Done);
    assert_eq!(log.machine.account(&job), None);
}

#[test]
fn a_job_that_is_deployed_again_decides_no_slot_twice_and_none_from_between() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    log.start(&job, session, claim(500, 1));
    log.give(Command::Retire { job: job.clone() });
    log.grant(&job, session);
    assert_eq!(log.cursor(&job), Slot(500), "a clock that says 100 brings no slot back");
    log.give(Command::Retire { job: job.clone() });
    log.give(Command::Grant { lease: LeaseKey::Cron(job.clone()), to: Some(session), begin: Slot(900) });
    assert_eq!(log.cursor(&job), Slot(900), "there were no slots while there was no spec");
}

#[test]
fn what_waits_for_another_attempt_ends_with_the_spec() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { attempts_max: 5, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Failure, true);
    log.give(Command::Retire { job: job.clone() });
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Aborted));
}

#[test]
fn a_node_speaks_for_itself_alone() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    let own = [
        Command::Open { node: node(1), life: 2 },
        Command::Close { session },
        Command::Release { lease: LeaseKey::Cron(job.clone()), session },
        Command::Attempt { job: job.clone(), run: run_id(1), fence, session },
        Command::Started { job: job.clone(), run: run_id(1), fence, at: Wall(1) },
        Command::Ended { job: job.clone(), run: run_id(1), fence, end: ended_as(RunStatus::Success), again: false },
    ];
    for command in own {
        assert!(log.machine.is_allowed(&node(1), &command), "{command:?}");
        assert!(!log.machine.is_allowed(&node(2), &command), "{command:?}");
    }
    let leaders = [
        Command::Grant { lease: LeaseKey::Cron(job.clone()), to: None, begin: BEGIN },
        Command::Retire { job: job.clone() },
        Command::Forget { job: job.clone() },
        Command::Tick,
    ];
    for command in leaders {
        assert!(!log.machine.is_allowed(&node(1), &command), "{command:?}");
    }
    assert!(log.machine.is_allowed(&node(2), &Command::Ask { job, request: [1; 16], at: Wall(1) }));
}
