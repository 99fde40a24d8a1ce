//! What ten thousand jobs with full histories weigh. Prints; asserts the figure that ARCHITECTURE.md states.

use std::time::Instant;

use super::*;

const JOBS: u64 = 10_000;

#[test]
#[allow(clippy::print_stdout)]
#[ignore = "a measurement: prints what a large machine weighs"]
fn ten_thousand_jobs_with_full_histories() {
    let mut log = Log::default();
    let sessions: Vec<SessionId> = (1..=50).map(|number| log.open(number)).collect();
    let began = Instant::now();
    for number in 0..JOBS {
        let job = job(&format!("nightly-report-{number}"));
        let session = sessions[number as usize % sessions.len()];
        log.grant(&job, session);
        for slot in 1..=20_u8 {
            let due = 1_800_000_000 + u64::from(slot) * 3_600;
            let gap = Gap { first: Slot(due - 60), last: Slot(due - 60), count: 1, reason: GapReason::Missed };
            let claim = Claim { scheduled: Slot(due).wall(), ..claim(due, slot) };
            let Reply::Granted(fence) = log.decide(&job, session, vec![gap], Some(claim)) else { panic!("refused") };
            let (run, at) = (run_id(slot), Slot(due).wall());
            log.give(Command::Started { job: job.clone(), run, fence, at });
            let end = RunEnd { code: Some(0), at, ..ended_as(RunStatus::Success) };
            log.give(Command::Ended { job: job.clone(), run, fence, end, again: false });
        }
    }
    let (applied, built) = (log.machine.applied(), began.elapsed());
    let began = Instant::now();
    let frozen = log.machine.freeze();
    let froze = began.elapsed();
    let began = Instant::now();
    let bytes = frozen.encode();
    let encoded = began.elapsed();
    let began = Instant::now();
    let read = Machine::decode(&bytes).unwrap();
    let decoded = began.elapsed();
    assert_eq!(read, log.machine);
    println!("{applied} entries in {built:?}; snapshot of {} bytes, {} a job", bytes.len(), bytes.len() as u64 / JOBS);
    println!("frozen in {froze:?}, encoded in {encoded:?}, decoded in {decoded:?}");
    let began = Instant::now();
    let whole = log.machine.concerns(&node(1), 0);
    println!("whole concerns of one of 50 nodes: {} jobs in {:?}", whole.jobs.len(), began.elapsed());
    log.ask(&job("nightly-report-0"), 1);
    let began = Instant::now();
    let some = log.machine.concerns(&node(1), whole.upto);
    println!("one change of them: {} job in {:?}", some.jobs.len(), began.elapsed());
    assert!(bytes.len() < 40 << 20, "{} bytes", bytes.len());
}
