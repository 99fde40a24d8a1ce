//! The machine as bytes.

use super::*;

fn full() -> Log {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    log.give(Command::Grant { lease: singleton("db"), to: Some(session), begin: BEGIN });
    let first = log.start(&job, session, claim(101, 1));
    log.ended(&job, run_id(1), first, RunStatus::Success, false);
    log.decide(&job, session, vec![missed(102, 110)], Some(Claim { attempts_max: 3, ..claim(111, 2) }));
    log.ask(&job, 9);
    log.open(2);
    log
}

#[test]
fn a_snapshot_reads_as_it_was() {
    let log = full();
    let frozen = log.machine.freeze();
    assert_eq!(frozen.applied(), log.machine.applied());
    let read = Machine::decode(&frozen.encode()).unwrap();
    assert_eq!(read, log.machine);
    assert_eq!(read.freeze().encode(), frozen.encode());
    assert_eq!(read.account(&job("backup")), log.machine.account(&job("backup")));
}

#[test]
fn a_snapshot_is_of_the_moment_at_which_it_was_frozen() {
    let mut log = full();
    let (frozen, before) = (log.machine.freeze(), log.machine.clone());
    log.ask(&job("backup"), 10);
    assert_ne!(log.machine, before);
    assert_eq!(Machine::decode(&frozen.encode()).unwrap(), before);
}

#[test]
fn bytes_that_are_no_snapshot_are_refused_with_a_reason() {
    let bytes = full().machine.freeze().encode();
    assert!(matches!(Machine::decode(&[]), Err(SnapshotError::Empty)));
    assert!(matches!(Machine::decode(&[&[9], &bytes[1..]].concat()), Err(SnapshotError::Version(9))));
    assert!(matches!(Machine::decode(&bytes[..bytes.len() - 1]), Err(SnapshotError::Damaged(_))));
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    type Damage = fn(&mut State);
    let damages: [(&str, Damage); 5] = [
        ("a lease of nobody's", |state| state.sessions.clear()),
        ("a fence of later", |state| state.applied = 1),
        ("one node twice", |state| {
            let session = state.sessions.values().next().unwrap().clone();
            state.sessions.insert(SessionId(0), session);
        }),
        ("an end before the end", |state| {
            let job = Arc::make_mut(state.jobs.values_mut().next().unwrap());
            job.open[0].end = Some(ended_as(RunStatus::Success));
        }),
        ("one run twice", |state| {
            let job = Arc::make_mut(state.jobs.values_mut().next().unwrap());
            job.open.extend(job.open.clone());
        }),
    ];
    for (what, damage) in damages {
        let mut log = full();
        damage(&mut log.machine.state);
        let read = Machine::decode(&log.machine.freeze().encode());
        assert!(matches!(read, Err(SnapshotError::Contradiction(_))), "{what}: {read:?}");
    }
}
