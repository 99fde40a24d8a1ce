//! The corpus of the fuzz targets is made here, kept in `fuzz/corpus`, and replayed here.
//!
//! `NARUN_WRITE_CORPUS=1 cargo test --lib decoders` writes it anew. What a fuzz run finds is put beside it by hand, under a name that says what
//! it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::crdt::admission::{ADMISSION_DOMAIN, Admission, Founding, REMOVAL_DOMAIN, Removal, Role};
use crate::crdt::catalog::DocKey;
use crate::crdt::document::RevisionId;
use crate::crdt::roster::{Stamp, Subject};
use crate::exec::logs::Stream;
use crate::exec::logs::frame::{Kind, Open};
use crate::exec::usage::{Pressure, Usage};
use crate::gossip::message::{NewsId, Which};
use crate::ids::{ClusterId, InstanceId, NodeName, RunId, ServiceName};
use crate::ledger::command::{Claim, Decide, JobKey, LeaseKey, SessionId};
use crate::ledger::question::{Answer, Question};
use crate::ledger::run::{Fence, Gap, GapReason, OnNodeLoss, Overlap, RunEnd, RunStatus, Trigger};
use crate::ledger::time::{LedgerTime, Slot};
use crate::node::engine::effect::Peer;
use crate::node::logs::LogQuery;
use crate::node::usage::InstanceUsage;
use crate::node::usage::wire as usage_wire;
use crate::time::Wall;

fn bytes<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap()
}

/// Good bytes for each decoder, each with a word for its file.
fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let actor = Actor { key: NodeKey([2; 32]), boot: 1 };
    let key = DocKey::service(&ServiceName::new("web").unwrap());
    let mut catalog = Catalog::default();
    let (_, first) = catalog.put_revision(&key, actor, |_| b"a revision".to_vec());
    let deleted = catalog.delete(&key, actor, Wall(5)).unwrap();
    let mut roster = Roster::default();
    let stamp = Stamp { boot: 1, version: 1 };
    let record = roster.write(&Gullible, Subject::facts(), stamp, Some(&7_u32)).unwrap();

    let founding =
        Founding { founder: NodeKey([1; 32]), name: NodeName::new("n1").unwrap(), at: Wall(1), nonce: [3; 16] };
    let admission = Admission {
        cluster: founding.cluster(),
        key: NodeKey([2; 32]),
        name: NodeName::new("n2").unwrap(),
        by: founding.founder,
        ticket: "abc".to_owned(),
        at: Wall(2),
        addresses: vec!["10.0.0.1:7".to_owned()],
        role: Role::MEMBER,
    };
    let removal = Removal {
        cluster: founding.cluster(),
        key: NodeKey([3; 32]),
        name: NodeName::new("n3").unwrap(),
        by: founding.founder,
        by_name: founding.name.clone(),
        at: Wall(3),
        admissions: vec![admission.clone()],
    };
    let welcome = Welcome {
        name: admission.name.clone(),
        admissions: vec![Signed::new(&Gullible, ADMISSION_DOMAIN, &admission)],
        removals: vec![Signed::new(&Gullible, REMOVAL_DOMAIN, &removal)],
        members: vec![Peer { key: founding.founder, addresses: vec!["10.0.0.2:7".to_owned()] }],
        founding,
    };
    let ticket = Ticket {
        cluster: ClusterId([1; 32]),
        maker: NodeKey([2; 32]),
        addresses: vec!["127.0.0.1:7000".to_owned()],
        secret: [3; 32],
        expires: Wall(1_000),
        uses: 1,
    };
    let query = LogQuery { service: Some(ServiceName::new("web").unwrap()), tail: Some(9), ..LogQuery::default() };
    let position =
        wire::Position { instance: InstanceId { service: ServiceName::new("web").unwrap(), index: 1 }, seq: 4 };
    let question = wire::Question { query, positions: vec![position], had_history: true };
    let mut segment = Vec::new();
    for (line, kind) in [(1, Kind::Chunk(Stream::Stdout)), (2, Kind::Chunk(Stream::Stderr)), (2, Kind::Break)] {
        let bytes: &[u8] = if kind == Kind::Break { b"" } else { b"hello\nwor" };
        Frame { at_ns: 5, line, open: Open::default(), kind, run: RunId([4; 16]), bytes }.encode(&mut segment);
    }
    // A whole blob, in iroh's form: the kind of request, the hash, the ranges.
    let blob = [&[0][..], &[9; 32], &[2, 0, 1, 0, 1, 0]].concat();

    let usage_question = usage_wire::Question { service: ServiceName::new("web").unwrap() };
    let usage =
        Usage { memory: Some(1 << 30), pids: Some(3), cpu_pressure: Some(Pressure::default()), ..Usage::default() };
    let one = InstanceUsage { index: 1, run: RunId([7; 16]), usage: Some(usage) };
    let usage_answer = usage_wire::Answer { instances: vec![one] };
    let mut samples = vec![
        ("message", "heard", Message::Heard(vec![NewsId([1; 16])]).encode()),
        ("message", "roots", Message::Roots { catalog: [1; 32], roster: [2; 32] }.encode()),
        ("message", "buckets", Message::Buckets { which: Which::Roster, hashes: vec![7; 64] }.encode()),
        ("message", "want", Message::Want { documents: vec![catalog.state(&key)], records: Vec::new() }.encode()),
        (
            "message",
            "repair",
            Message::Repair { documents: vec![first.clone()], records: vec![record.clone()], more: true }.encode(),
        ),
        ("message", "later", bytes(&(1000_u32, "later"))),
        ("news", "revision", News::Document(first).encode()),
        (
            "news",
            "whole",
            News::Document(catalog.since(&crate::crdt::catalog::DocState::nothing(key)).unwrap()).encode(),
        ),
        ("news", "deleted", News::Document(deleted).encode()),
        ("news", "record", News::Record(record.clone()).encode()),
        ("record", "facts", bytes(&record)),
        ("welcome", "two", bytes(&welcome)),
        ("ticket", "one", ticket.to_string().into_bytes()),
        ("logs", "question", bytes(&question)),
        ("logs", "end", bytes(&wire::Frame::End)),
        ("usage", "question", bytes(&usage_question)),
        ("usage", "answer", bytes(&usage_answer)),
        ("blobs", "whole", blob),
        ("segment", "three", segment),
    ];
    samples.extend(ledger_samples());
    samples.extend(raft::wire::samples().into_iter().map(|(word, bytes)| ("raft", word, bytes)));
    samples.extend(swim_samples().into_iter().map(|bytes| ("swim", "announce", bytes)));
    samples.extend(join::samples(&welcome).into_iter().map(|(word, bytes)| ("knock", word, bytes)));
    samples.extend(transport::greeting_samples().into_iter().map(|(word, bytes)| ("greeting", word, bytes)));
    samples.extend(crate::exec::keeper::samples().into_iter().map(|(word, bytes)| ("keeper", word, bytes)));
    samples
}

/// A short log, its snapshot, and what is said of it.
fn ledger_samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (node, session) = (NodeKey([1; 32]), SessionId(1));
    let job = JobKey { name: ServiceName::new("backup").unwrap(), node: None };
    let gap = Gap { first: Slot(101), last: Slot(109), count: 9, reason: GapReason::Missed };
    let claim = Claim {
        run: RunId([4; 16]),
        trigger: Trigger::Slot(Slot(110)),
        scheduled: Slot(110).wall(),
        revision: RevisionId { number: 1, hash: [1; 4] },
        overlap: Overlap::Skip,
        attempts_max: 3,
        on_node_loss: OnNodeLoss::Rerun,
        history_limit: 20,
    };
    let (cursor, upto, fence) = (Slot(100), Slot(110), Fence(4));
    let decide = Decide { job: job.clone(), session, cursor, gaps: vec![gap], claim: Some(claim), upto };
    let grant = |lease| Command::Grant { lease, to: Some(session), begin: Slot(100) };
    let end = RunEnd {
        status: RunStatus::Failure,
        at: Wall(111_000),
        code: Some(1),
        signal: None,
        error: Some("no".to_owned()),
    };
    let commands = [
        Command::Open { node, life: 7 },
        grant(LeaseKey::Cron(job.clone())),
        grant(LeaseKey::Singleton(job.name.clone())),
        Command::Decide(decide.clone()),
        Command::Started { job: job.clone(), run: RunId([4; 16]), fence, at: Wall(110_100) },
        Command::Ended { job: job.clone(), run: RunId([4; 16]), fence, end, again: true },
        Command::Ask { job: job.clone(), request: [9; 16], at: Wall(111_000) },
    ];
    let log = commands.map(|command| Stamped { at: LedgerTime(5), command, wall: Wall(110_000) });
    let mut machine = Machine::default();
    for (before, stamped) in (0..).zip(&log) {
        machine.apply(before + 1, stamped);
    }
    let renew = Question::Renew { session, known: 3, wall: Wall(111_000) };
    vec![
        ("commands", "run", bytes(&log)),
        ("snapshot", "run", machine.freeze().encode()),
        ("ledger", "propose", bytes(&Question::Propose(Command::Decide(decide)))),
        ("ledger", "renew", bytes(&renew)),
        ("ledger", "renewed", bytes(&Answer::Renewed(machine.concerns(&node, 0)))),
        ("ledger", "history", bytes(&Answer::History(machine.account(&job)))),
    ]
}

/// What one node says to another that it has just been connected to.
fn swim_samples() -> Option<Vec<u8>> {
    let (mut now, other) = (Mono::default(), NodeKey([1; 32]));
    let mut membership = Membership::new(NodeKey([2; 32]), 1, 1);
    membership.set_members(now, [other].into());
    membership.connect(now, other);
    membership.receive_hello(now, other, 1, 0, None);
    for _ in 0..100 {
        membership.tick(now);
        let swim = membership.take_outbox().into_iter().find_map(|(_, message)| match message {
            Message::Swim(bytes) => Some(bytes),
            _ => None,
        });
        if swim.is_some() {
            return swim;
        }
        now = now + Duration::from_millis(100);
    }
    None
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names() -> Vec<&'static str> {
    ALL.iter().chain([&KEEPER]).map(|(name, _)| *name).collect()
}

#[test]
fn every_sample_makes_sense_to_its_decoder() {
    let samples = samples();
    for (name, word, bytes) in &samples {
        assert!(understands(name, bytes), "{name}/{word}");
        if std::env::var_os("NARUN_WRITE_CORPUS").is_some() {
            fs::create_dir_all(corpus().join(name)).unwrap();
            fs::write(corpus().join(name).join(word), bytes).unwrap();
        }
    }
    for name in names() {
        assert!(samples.iter().any(|(of, ..)| *of == name), "no sample for `{name}`");
    }
}

#[test]
fn the_corpus_is_replayed() {
    for name in names() {
        let files = fs::read_dir(corpus().join(name)).unwrap_or_else(|error| panic!("no corpus for `{name}`: {error}"));
        let read = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        let made_sense = read.filter(|bytes| understands(name, bytes)).count();
        assert!(made_sense > 0, "nothing in the corpus of `{name}` makes sense any more: write it anew");
    }
}

#[test]
fn every_decoder_has_a_fuzz_target() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut found: Vec<String> = fs::read_dir(targets)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut wanted = names();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for name in names() {
            understands(name, &bytes);
        }
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        which in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let samples = samples();
        let (name, _, mut bytes) = which.get(&samples).clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        understands(name, &bytes);
        bytes.truncate(cut.index(bytes.len()));
        understands(name, &bytes);
    }
}
