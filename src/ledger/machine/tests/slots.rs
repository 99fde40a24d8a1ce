//! Which slot has a run.

use super::*;

#[test]
fn a_slot_is_claimed_once() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let decide = |run: u8| {
        let claim = Some(Claim { overlap: Overlap::Allow, ..claim(101, run) });
        let (gaps, cursor, upto) = (Vec::new(), BEGIN, Slot(101));
        Command::Decide(Decide { job: job.clone(), session, cursor, gaps, claim, upto })
    };
    assert!(matches!(log.give(decide(1)), Reply::Granted(_)));
    assert_eq!(log.give(decide(2)), Reply::Refused(Refused::Cursor(Slot(101))));
}

#[test]
fn a_fence_is_the_index_of_its_claim() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.claim(&job, session, claim(101, 1));
    assert_eq!(fence, Fence(log.machine.applied()));
    assert_eq!(log.run(&job, run_id(1)).fence, fence);
}

#[test]
fn slots_before_the_claim_are_recorded_with_it() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let reply = log.decide(&job, session, vec![missed(101, 140)], Some(claim(150, 1)));
    assert!(matches!(reply, Reply::Granted(_)));
    assert_eq!(log.account(&job).gaps, [missed(101, 140)]);
    assert_eq!(log.cursor(&job), Slot(150));
}

#[test]
fn gaps_that_follow_upon_each_other_for_one_reason_are_one() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    log.decide(&job, session, vec![missed(101, 110)], None);
    log.decide(&job, session, vec![missed(111, 120)], None);
    assert_eq!(log.account(&job).gaps, [missed(101, 120)]);
    let suspended = Gap { reason: GapReason::Suspended, ..missed(121, 130) };
    log.decide(&job, session, vec![suspended.clone()], None);
    assert_eq!(log.account(&job).gaps, [suspended.clone(), missed(101, 120)]);
    log.claim(&job, session, claim(131, 1));
    let later = Gap { first: Slot(132), last: Slot(133), count: 2, ..suspended.clone() };
    log.decide(&job, session, vec![later.clone()], None);
    assert_eq!(log.account(&job).gaps, [later, suspended, missed(101, 120)], "a run stands between them");
}

#[test]
fn what_contradicts_itself_is_refused_and_changes_nothing() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let good = Decide {
        job: job.clone(),
        session,
        cursor: BEGIN,
        gaps: vec![missed(101, 105)],
        claim: Some(claim(110, 1)),
        upto: Slot(110),
    };
    let gap = |first, last, count| vec![Gap { count, ..missed_unchecked(first, last) }];
    let bad = [
        ("nothing at all", Decide { gaps: Vec::new(), claim: None, upto: BEGIN, ..good.clone() }),
        ("gaps before the cursor", Decide { gaps: vec![missed(100, 105)], ..good.clone() }),
        ("gaps out of order", Decide { gaps: vec![missed(104, 105), missed(101, 102)], ..good.clone() }),
        ("gaps that overlap", Decide { gaps: vec![missed(101, 103), missed(103, 105)], ..good.clone() }),
        ("a gap that ends before it begins", Decide { gaps: gap(105, 104, 1), ..good.clone() }),
        ("a gap of no slots", Decide { gaps: gap(101, 105, 0), ..good.clone() }),
        ("a gap of more slots than seconds", Decide { gaps: gap(101, 105, 6), ..good.clone() }),
        ("too many gaps", Decide { gaps: vec![missed(101, 101); 257], ..good.clone() }),
        ("a claim among the gaps", Decide { claim: Some(claim(105, 1)), upto: Slot(105), ..good.clone() }),
        ("slots after the claim", Decide { upto: Slot(111), ..good.clone() }),
        ("slots after the gaps", Decide { claim: None, ..good.clone() }),
        ("no attempt", Decide { claim: Some(Claim { attempts_max: 0, ..claim(110, 1) }), ..good.clone() }),
        ("a request that nobody made", Decide { claim: Some(asked(1, 9)), upto: Slot(105), ..good.clone() }),
    ];
    let before = log.account(&job);
    for (what, decide) in bad {
        assert_eq!(log.give(Command::Decide(decide)), Reply::Refused(Refused::Malformed), "{what}");
        assert_eq!(log.account(&job), before, "{what}");
    }
    assert!(matches!(log.give(Command::Decide(good)), Reply::Granted(_)));
    let reply = log.decide(&job, session, Vec::new(), Some(claim(120, 1)));
    assert_eq!(reply, Reply::Refused(Refused::Malformed), "a run's name is its own");
}

fn missed_unchecked(first: u64, last: u64) -> Gap {
    Gap { first: Slot(first), last: Slot(last), count: 1, reason: GapReason::Missed }
}

/// A claim by run `number` for a request.
fn asked(number: u8, request: u8) -> Claim {
    Claim { trigger: Trigger::Asked([request; 16]), scheduled: Wall(7), ..claim(0, number) }
}

#[test]
fn a_slot_is_skipped_while_a_run_is_open() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    let reply = log.decide(&job, session, Vec::new(), Some(claim(102, 2)));
    assert_eq!(reply, Reply::Skipped(run_id(1)));
    assert_eq!(log.cursor(&job), Slot(102));
    let skipped = Gap { reason: GapReason::Skipped(run_id(1)), ..missed(102, 102) };
    assert_eq!(log.account(&job).gaps, [skipped]);
    log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    log.claim(&job, session, claim(103, 3));
}

#[test]
fn under_allow_runs_stand_beside_each_other_up_to_a_limit() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    for number in 1..=64 {
        log.claim(&job, session, Claim { overlap: Overlap::Allow, ..claim(100 + u64::from(number), number) });
    }
    let one_more = Claim { overlap: Overlap::Allow, ..claim(165, 65) };
    assert_eq!(log.decide(&job, session, Vec::new(), Some(one_more)), Reply::Skipped(run_id(1)));
}

#[test]
fn under_replace_the_earlier_run_is_told_to_end() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { attempts_max: 3, ..claim(101, 1) });
    log.claim(&job, session, Claim { overlap: Overlap::Replace, ..claim(102, 2) });
    assert!(log.run(&job, run_id(1)).is_replaced);
    assert!(!log.run(&job, run_id(2)).is_replaced);
    assert_eq!(log.ended(&job, run_id(1), fence, RunStatus::Failure, true), Reply::Done);
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Failure), "no other attempt follows");
}

#[test]
fn under_replace_what_only_waits_ends_at_once() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, Claim { attempts_max: 3, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Failure, true);
    log.claim(&job, session, Claim { overlap: Overlap::Replace, ..claim(102, 2) });
    assert_eq!(log.status(&job, run_id(1)), Some(RunStatus::Replaced));
    assert_eq!(log.attempt(&job, run_id(1), fence, session), Reply::Refused(Refused::PassedOver));
}

#[test]
fn a_request_is_taken_once_and_leaves_the_cursor() {
    let (mut log, job) = (Log::default(), job("backup"));
    assert_eq!(log.ask(&job, 9), Reply::Refused(Refused::NoJob));
    let session = log.holder(1, &job);
    assert_eq!(log.ask(&job, 9), Reply::Done);
    assert_eq!(log.ask(&job, 9), Reply::Done);
    assert_eq!(log.machine.concerns(&node(1), 0).jobs[0].asked.len(), 1);
    let fence = log.claim(&job, session, asked(1, 9));
    assert_eq!(log.cursor(&job), BEGIN);
    assert_eq!(log.ask(&job, 9), Reply::Done, "it has its run");
    log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    assert_eq!(log.ask(&job, 9), Reply::Done, "it had its run");
    assert_eq!(log.machine.concerns(&node(1), 0).jobs[0].asked, []);
}

#[test]
fn a_request_waits_while_a_run_is_open() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    log.ask(&job, 9);
    assert_eq!(log.decide(&job, session, Vec::new(), Some(asked(2, 9))), Reply::Skipped(run_id(1)));
    assert_eq!(log.account(&job).gaps, []);
    log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    log.claim(&job, session, asked(2, 9));
}

#[test]
fn so_many_requests_wait_and_no_more() {
    let (mut log, job) = (Log::default(), job("backup"));
    log.holder(1, &job);
    for request in 0..32 {
        assert_eq!(log.ask(&job, request), Reply::Done);
    }
    assert_eq!(log.ask(&job, 32), Reply::Refused(Refused::Full));
}

#[test]
fn the_history_keeps_the_last_runs_and_gaps() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    for number in 1..=9_u8 {
        let slot = 100 + u64::from(number) * 10;
        let last = Claim { history_limit: 3, ..claim(slot, number) };
        let reply = log.decide(&job, session, vec![missed(slot - 1, slot - 1)], Some(last));
        let Reply::Granted(fence) = reply else { panic!("{reply:?}") };
        let status = if number == 1 { RunStatus::Success } else { RunStatus::Failure };
        log.ended(&job, run_id(number), fence, status, false);
    }
    let account = log.account(&job);
    assert_eq!(account.runs.iter().map(|run| run.id).collect::<Vec<_>>(), [9, 8, 7].map(run_id));
    assert_eq!(account.gaps, [missed(189, 189), missed(179, 179), missed(169, 169)]);
    assert_eq!(account.last_success, Some(run_id(1)), "it is known for longer than the run");
}

#[test]
fn no_claim_leaves_nothing_remembered_nor_everything() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.claim(&job, session, Claim { history_limit: 0, ..claim(101, 1) });
    log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    assert_eq!(log.account(&job).runs.len(), 1);
    log.claim(&job, session, Claim { history_limit: u32::MAX, ..claim(102, 2) });
    assert_eq!(log.machine.state.jobs[&job].history_limit, 1_000);
}
