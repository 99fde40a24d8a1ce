//! A new group out of what one node has, where the majority of the old one is lost for good. Shell.
//!
//! All that stands in the log is applied, whether or not it is known to be committed: a claim that may have been granted counts as granted.
//! Then this node alone votes, in a term and at a log index far beyond what the lost voters can have reached: later fences are greater
//! than theirs, and one of them that comes back and reaches this node finds itself outvoted by a later term, and is made to follow.

use std::path::Path;

use bytes::Bytes;
use openraft::EntryPayload;
use redb::Database;

use crate::database::{self, StoreError, failure};
use crate::ids::NodeKey;
use crate::ledger::command::{Command, Stamped};
use crate::ledger::machine::Machine;
use crate::ledger::raft::types::{Membership, SnapshotMeta, StoredMembership, Vote, log_id};
use crate::ledger::time::Slot;
use crate::time::Wall;

use super::rows::{self, Contents, Write};

/// By how much terms and log indices are raised: years of elections and of claims that this node may not have heard of.
const BEYOND: u64 = 1 << 32;

/// What a node has of the ledger, and a new group can be made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remains {
    /// The last log index.
    pub last: u64,
    /// How many series of slots it knows.
    pub jobs: usize,
    /// Who voted, as far as this node knows.
    pub voters: Vec<NodeKey>,
}

/// What is left in the database at `path`; none: nothing is.
pub fn remains(path: &Path) -> Result<Option<Remains>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let contents = rows::read(&database::open(path)?, path)?;
    let Some(whole) = Whole::of(contents) else { return Ok(None) };
    let voters = whole.membership.membership().voter_ids().collect();
    Ok(Some(Remains { last: whole.last, jobs: whole.machine.jobs().count(), voters }))
}

/// Makes `own` the only voter of a new group that goes on from what the database at `path` holds. Where it holds nothing, the ledger
/// begins anew, and slots before `now` count as decided. One transaction: it is done whole, or not at all.
pub fn recover(path: &Path, own: NodeKey, now: Wall) -> Result<(), StoreError> {
    recover_in(&database::open(path)?, path, own, now)
}

/// The same in an open database; `path` stands in errors.
pub(in crate::ledger::raft) fn recover_in(
    database: &Database,
    path: &Path,
    own: NodeKey,
    now: Wall,
) -> Result<(), StoreError> {
    let contents = rows::read(database, path)?;
    let mut whole = Whole::of(contents).unwrap_or_else(|| Whole::anew(now));
    let (term, index) = (whole.term + BEYOND, whole.last + BEYOND);
    // The machine learns of the index: later it answers what has changed since.
    whole.machine.apply(index, &Stamped { at: whole.machine.time(), command: Command::Tick, wall: now });
    let last = log_id(term, index);
    let membership = Membership::new_with_defaults(vec![[own].into()], [own]);
    let covers =
        SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), membership) };
    let writes = [
        Write::Snapshot(covers, Bytes::from(whole.machine.freeze().encode())),
        Write::Truncate(0),
        Write::Purge(last),
        Write::Committed(last),
        Write::Vote(Vote::new(term, own)),
    ];
    rows::write(database, writes.iter()).map_err(|error| failure(path, error))
}

/// Snapshot and log as one.
struct Whole {
    machine: Machine,
    membership: StoredMembership,
    term: u64,
    last: u64,
}

impl Whole {
    /// None where the node never was in a group.
    fn of(contents: Contents) -> Option<Self> {
        let Contents { log, snapshot } = contents;
        let (covers, mut machine) = snapshot.unwrap_or_default();
        let (mut membership, mut last) = (covers.last_membership, covers.last_log_id);
        let after = last.map_or(0, |last| last.index + 1);
        for (entry, _) in log.entries.into_values().filter(|(entry, _)| entry.log_id.index >= after) {
            last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(stamped) => drop(machine.apply(entry.log_id.index, &stamped)),
                EntryPayload::Membership(of) => membership = StoredMembership::new(last, of),
            }
        }
        let last = last?;
        let voted = log.vote.map_or(0, |vote| vote.leader_id().term);
        Some(Self { machine, membership, term: voted.max(*last.leader_id), last: last.index })
    }

    /// Out of nothing. Term and index come from the clock: they are beyond any that came one by one.
    fn anew(now: Wall) -> Self {
        let beyond = now.0 / 1_000;
        Self {
            machine: Machine::beginning_after(Slot::at(now)),
            membership: StoredMembership::default(),
            term: beyond,
            last: beyond,
        }
    }
}
