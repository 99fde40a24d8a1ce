//! The power goes at any operation of the disk: what was confirmed is there afterwards, and nothing is half there.

// Figures are for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftVote;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ids::{NodeKey, ServiceName};
use crate::ledger::command::{Command, JobKey, Stamped};
use crate::ledger::machine::Machine;
use crate::ledger::raft::types::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id};
use crate::ledger::time::LedgerTime;
use crate::time::Wall;

use super::Store;
use super::faulty::Disk;
use super::rows::{self, Write, encode};

/// What the database should hold.
#[derive(Clone, Default, PartialEq, Debug)]
struct Held {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    snapshot: Option<(SnapshotMeta, Machine)>,
}

/// One step of a script, in words of its own: what is written is not what is expected, read back.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Entry>, Option<LogId>),
    Vote(Vote),
    Truncate(u64),
    /// A snapshot up to there; the log before is purged.
    Snapshot(SnapshotMeta, Box<Machine>),
}

impl Held {
    fn after(&self, step: &Step) -> Self {
        let mut held = self.clone();
        match step {
            Step::Append(entries, committed) => {
                held.entries.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
                held.committed = committed.or(held.committed);
            }
            Step::Vote(vote) => held.vote = Some(*vote),
            Step::Truncate(from) => drop(held.entries.split_off(from)),
            Step::Snapshot(covers, machine) => {
                let upto = covers.last_log_id.unwrap();
                held.entries = held.entries.split_off(&(upto.index + 1));
                held.purged = Some(upto);
                held.snapshot = Some((covers.clone(), Machine::clone(machine)));
            }
        }
        held
    }

    fn read(disk: &Disk) -> Result<Self, crate::database::StoreError> {
        let store = Store::open_on(disk.clone(), Path::new("ledger.redb"))?;
        let rows::Contents { log, snapshot } = store.contents;
        let entries = log.entries.into_iter().map(|(index, (entry, _))| (index, entry)).collect();
        Ok(Self { vote: log.vote, committed: log.committed, purged: log.purged, entries, snapshot })
    }
}

fn writes(step: &Step) -> Vec<Write> {
    match step {
        Step::Append(entries, committed) => {
            let rows = entries.iter().map(|entry| (entry.log_id.index, encode(entry))).collect();
            [Write::Append(rows)].into_iter().chain(committed.map(Write::Committed)).collect()
        }
        Step::Vote(vote) => vec![Write::Vote(*vote)],
        Step::Truncate(from) => vec![Write::Truncate(*from)],
        Step::Snapshot(covers, machine) => {
            let bytes = Bytes::from(machine.freeze().encode());
            vec![Write::Snapshot(covers.clone(), bytes), Write::Purge(covers.last_log_id.unwrap())]
        }
    }
}

fn stamped(number: u64) -> Stamped {
    let job = JobKey { name: ServiceName::new(&format!("job-{}", number % 7)).unwrap(), node: None };
    let mut request = [0; 16];
    request[..8].copy_from_slice(&number.to_be_bytes());
    let command = match number % 3 {
        0 => Command::Open { node: NodeKey([u8::try_from(number % 200).unwrap(); 32]), life: number },
        _ => Command::Ask { job, request, at: Wall(number) },
    };
    Stamped { at: LedgerTime(number), command, wall: Wall(number) }
}

/// What a voter might write in a few moments.
fn script(seed: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut held, mut term, mut steps) = (Held::default(), 1, Vec::new());
    let members = Membership::new_with_defaults(vec![[NodeKey([1; 32])].into()], []);
    for _ in 0..random.random_range(6..14) {
        let last = held.entries.last_key_value().map(|(index, _)| *index).or(held.purged.map(|id| id.index));
        let next = last.map_or(0, |last| last + 1);
        let step = match random.random_range(0..10_u32) {
            0 | 1 => {
                term += 1;
                let leader = openraft::alias::LeaderIdOf::<TypeConfig> { term, voted_for: NodeKey([3; 32]) };
                Step::Vote(Vote::from_leader_id(leader, random.random_bool(0.5)))
            }
            2 if held.entries.len() > 2 => Step::Truncate(next - random.random_range(1..held.entries.len() as u64)),
            3 | 4 if !held.entries.is_empty() => {
                let at = random.random_range(0..held.entries.len());
                let upto = held.entries.values().nth(at).unwrap().log_id;
                let mut machine = Machine::default();
                for index in 1..=random.random_range(1..100) {
                    machine.apply(index, &stamped(index));
                }
                let last_membership = StoredMembership::new(Some(upto), members.clone());
                Step::Snapshot(SnapshotMeta { last_log_id: Some(upto), last_membership }, Box::new(machine))
            }
            _ => {
                let entries = (next..next + random.random_range(1..40)).map(|index| {
                    let payload = match random.random_range(0..12_u32) {
                        0 => EntryPayload::Blank,
                        1 => EntryPayload::Membership(members.clone()),
                        _ => EntryPayload::Normal(stamped(random.random())),
                    };
                    Entry::new(log_id(term, index), payload)
                });
                let committed = last.map(|last| log_id(term, last));
                Step::Append(entries.collect(), committed)
            }
        };
        held = held.after(&step);
        steps.push(step);
    }
    steps
}

/// A disk with an empty database: on a host it is made beside its place and renamed (`database::open`).
fn prepared() -> Disk {
    let disk = Disk::new(0);
    drop(Store::open_on(disk.clone(), Path::new("ledger.redb")).unwrap());
    disk
}

/// Writes until the power goes. Gives back how many steps were confirmed, and whether another one was under way.
fn write_until_dark(disk: &Disk, steps: &[Vec<Write>]) -> (usize, bool) {
    let Ok(store) = Store::open_on(disk.clone(), Path::new("ledger.redb")) else { return (0, false) };
    for (number, writes) in steps.iter().enumerate() {
        if rows::write(&store.database, writes.iter()).is_err() {
            return (number, true);
        }
    }
    (steps.len(), false)
}

#[test]
fn a_cut_at_any_operation_loses_nothing_that_was_confirmed() {
    let empty = prepared();
    let (mut cuts, mut lost, mut kept) = (0, 0, 0);
    for seed in 0..24 {
        let steps = script(seed);
        // What should be there after none, one, two, ... steps.
        let states = steps.iter().scan(Held::default(), |held, step| {
            *held = held.after(step);
            Some(held.clone())
        });
        let states: Vec<Held> = [Held::default()].into_iter().chain(states).collect();
        let steps: Vec<Vec<Write>> = steps.iter().map(writes).collect();
        let disk = empty.copy(seed);
        assert_eq!(write_until_dark(&disk, &steps), (steps.len(), false), "nothing fails with power");
        let operations = disk.operations();
        disk.restart(None);
        assert_eq!(Held::read(&disk).unwrap(), states[steps.len()], "script {seed}, without a cut");
        for cut in 1..=operations {
            let disk = empty.copy(seed * 100_000 + cut);
            disk.restart(Some(cut));
            let (confirmed, is_under_way) = write_until_dark(&disk, &steps);
            // It may go again while the database is repaired, and once more.
            if cut % 3 == 0 {
                for again in [cut % 7 + 1, cut % 5 + 1] {
                    disk.restart(Some(again));
                    drop(Held::read(&disk));
                }
            }
            disk.restart(None);
            let found = Held::read(&disk).unwrap_or_else(|error| panic!("script {seed}, cut {cut}: {error}"));
            let is_whole = is_under_way && found == states[confirmed + 1];
            let is_before = found == states[confirmed];
            assert!(is_whole || is_before, "script {seed}, cut {cut}: neither before nor after the write");
            cuts += 1;
            kept += usize::from(is_whole);
            lost += usize::from(is_under_way && !is_whole);
        }
    }
    println!("{cuts} cuts: {kept} times the write under way was whole, {lost} times it was not there");
    assert!(cuts > 2_000 && kept > 0 && lost > 0, "{cuts} cuts, {kept} kept, {lost} lost");
}

/// What Raft was told of is what counts: the whole way, through the queue and the writer.
#[tokio::test(start_paused = true)]
async fn what_raft_was_told_of_is_there_after_a_cut() {
    let mut told_in_all = 0;
    for cut in 1..=150 {
        let disk = Disk::new(cut);
        let store = Store::open_on(disk.clone(), Path::new("ledger.redb")).unwrap();
        disk.cut_after(cut);
        let (mut log, machines, writing) = store.run_in_task(Box::new(|| Duration::from_millis(3)));
        let mut waiting = Vec::new();
        for index in 0..40 {
            let (tell, told) = TypeConfig::oneshot();
            let entry = Entry::new(log_id(1, index), EntryPayload::Normal(stamped(index)));
            if log.append([entry], IOFlushed::signal(tell)).await.is_err() {
                break;
            }
            waiting.push(told);
            tokio::time::sleep(Duration::from_millis(index % 4)).await;
        }
        drop((log, machines));
        writing.ended().await;
        let mut told = 0;
        for one in waiting {
            match one.await {
                Ok(Ok(())) => told += 1,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        disk.restart(None);
        let found = Held::read(&disk).unwrap().entries.len();
        assert!(found >= told, "cut {cut}: {told} were told of, {found} are there");
        told_in_all += told;
    }
    assert!(told_in_all > 500, "{told_in_all}: the cuts came too early to show anything");
}
