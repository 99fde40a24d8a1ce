//! Every decoder of bytes that others made, by name: for the fuzz targets in `fuzz/` and for the replay of their corpus. Pure, but for
//! the blob request, which is read from a stream.
//!
//! A decoder that is not here is not fuzzed. None of them may panic, whatever it is given; a fuzz target is one line that calls
//! [`understands`].

use crate::crdt::admission::{Signatures, Signed, Welcome};
use crate::crdt::catalog::Catalog;
use crate::crdt::document::Actor;
use crate::crdt::roster::{Roster, Taken};
use crate::crdt::ticket::Ticket;
use crate::crdt::trust::Trust;
use crate::exec::logs::frame::{Frame, Parsed};
use crate::gossip::membership::Membership;
use crate::gossip::message::{Message, News, is_of_later_version};
use crate::gossip::{join, transport};
use crate::ids::NodeKey;
use crate::ledger::command::{Command, Stamped};
use crate::ledger::machine::Machine;
use crate::ledger::{question, raft};
use crate::node::logs::wire;
use crate::node::usage::wire as usage_wire;
use crate::time::{Mono, Wall};

/// Reads bytes, and says whether they made sense.
type Decoder = fn(&[u8]) -> bool;

/// All of them; a folder of the corpus and a fuzz target have the same names.
pub const ALL: [(&str, Decoder); 16] = [
    ("message", message),
    ("swim", swim),
    ("news", news),
    ("record", record),
    ("welcome", welcome),
    ("knock", join::understands),
    ("greeting", transport::understands_greeting),
    ("ticket", ticket),
    ("logs", logs),
    ("usage", usage),
    ("blobs", crate::blobs::understands_request),
    ("segment", segment),
    ("ledger", ledger),
    ("commands", commands),
    ("snapshot", snapshot),
    ("raft", raft::understands),
];

/// The keeper's messages, which come from another process of the same user.
pub const KEEPER: (&str, Decoder) = ("keeper", crate::exec::keeper::understands);

/// Gives the bytes to the decoder of that name, which says whether they made sense.
///
/// # Panics
/// Where there is no decoder of that name, or the decoder is wrong.
pub fn understands(name: &str, bytes: &[u8]) -> bool {
    let mut all = ALL.iter().chain([&KEEPER]);
    let (_, decoder) = all.find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no decoder `{name}`"));
    decoder(bytes)
}

/// Takes every signature for a good one, so that what stands behind the check is reached.
struct Gullible;

impl Signatures for Gullible {
    fn key(&self) -> NodeKey {
        NodeKey([1; 32])
    }

    fn sign(&self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    fn verify(&self, _: &NodeKey, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

fn message(bytes: &[u8]) -> bool {
    is_of_later_version::<Message>(bytes) || Message::decode(bytes).is_some()
}

/// A packet of one member to another.
fn swim(bytes: &[u8]) -> bool {
    let (now, other) = (Mono::default(), NodeKey([2; 32]));
    let mut membership = Membership::new(NodeKey([1; 32]), 1, 1);
    membership.set_members(now, [other].into());
    membership.receive(now, other, bytes)
}

/// News of a document are merged, twice: into nothing, and into what came of that.
fn news(bytes: &[u8]) -> bool {
    match minicbor::decode::<News>(bytes) {
        Ok(News::Document(delta)) => {
            let (mut catalog, actor) = (Catalog::default(), Actor { key: NodeKey([1; 32]), boot: 1 });
            let merged = catalog.merge(&delta, actor).is_ok();
            merged && catalog.merge(&delta, actor).is_ok()
        }
        Ok(News::Record(signed)) => matches!(Roster::default().take(&Gullible, &signed), Taken::New(_)),
        Err(_) => false,
    }
}

fn record(bytes: &[u8]) -> bool {
    let Ok(signed) = minicbor::decode::<Signed>(bytes) else { return false };
    matches!(Roster::default().take(&Gullible, &signed), Taken::New(_))
}

fn welcome(bytes: &[u8]) -> bool {
    let Ok(welcome) = minicbor::decode::<Welcome>(bytes) else { return false };
    let mut trust = Trust::new(&welcome.founding);
    let statements = welcome.admissions.iter().chain(&welcome.removals);
    let taken = statements.filter(|signed| trust.take(&Gullible, signed)).count();
    trust.verdict().members.contains_key(&welcome.founding.founder) && taken > 0
}

fn ticket(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ticket>().is_ok())
}

fn logs(bytes: &[u8]) -> bool {
    wire::decode::<wire::Question>(bytes).is_ok() | wire::decode::<wire::Frame>(bytes).is_ok()
}

fn usage(bytes: &[u8]) -> bool {
    wire::decode::<usage_wire::Question>(bytes).is_ok() | wire::decode::<usage_wire::Answer>(bytes).is_ok()
}

/// What nodes ask of the ledger, and what they are answered.
fn ledger(bytes: &[u8]) -> bool {
    minicbor::decode::<question::Question>(bytes).is_ok() | minicbor::decode::<question::Answer>(bytes).is_ok()
}

/// A log, which is applied; what comes of it is read from a snapshot as it was.
fn commands(bytes: &[u8]) -> bool {
    let Ok(log) = minicbor::decode::<Vec<Stamped>>(bytes) else { return false };
    let mut machine = Machine::default();
    for (before, stamped) in (0..).zip(&log) {
        machine.apply(before + 1, stamped);
    }
    Machine::decode(&machine.freeze().encode()).is_ok_and(|read| read == machine) && !log.is_empty()
}

/// A snapshot of the ledger's machine, with which the machine goes on.
fn snapshot(bytes: &[u8]) -> bool {
    let Ok(mut machine) = Machine::decode(bytes) else { return false };
    let (node, Some(index)) = (NodeKey([1; 32]), machine.applied().checked_add(2)) else { return false };
    for (index, life) in [(index - 1, 1), (index, 2)] {
        let (at, command) = (machine.time(), Command::Open { node, life });
        machine.apply(index, &Stamped { at, command, wall: Wall::default() });
    }
    machine.concerns(&node, 0).is_whole
}

/// A whole segment's frames, one after the other.
fn segment(mut bytes: &[u8]) -> bool {
    let mut frames = 0;
    loop {
        match Frame::parse(bytes) {
            Parsed::Frame(_, length) | Parsed::Unknown(length) => {
                bytes = &bytes[length..];
                frames += 1;
            }
            Parsed::Partial | Parsed::Bad => return frames > 0,
        }
    }
}

#[cfg(test)]
mod tests;
