//! What a message must be before Raft sees it. Pure.
//!
//! openraft asserts what its own messages never break: entries follow one another, only leaders send them. What another host
//! sends is held against that here, so that nobody but this node's own faults can trip an assert.

use openraft::raft::{AppendEntriesRequest, VoteRequest};

use super::forms::{Form, Unreadable};
use super::types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};
use super::wire::{Append, PART_LEN, Part, Request, SNAPSHOT_LEN_MAX, VoteWanted};

/// Why a request is not answered as it was meant, in words for an operator.
pub(super) type Refusal = String;

/// Whether a request is one that a node that follows the rules could send.
pub(super) fn is_sound(request: &Request) -> bool {
    match request {
        Request::Append(append) => read_append(append.clone()).is_ok(),
        Request::Vote(wanted) | Request::PreVote(wanted) => read_vote(wanted.clone()).is_ok(),
        Request::Part(part) => read_part(part).is_ok(),
        Request::Lead { from, last } => Vote::read(*from).is_ok() && last.is_none_or(|last| LogId::read(last).is_ok()),
        Request::Ask { .. } => true,
    }
}

pub(super) fn read_append(append: Append) -> Result<AppendEntriesRequest<TypeConfig>, Refusal> {
    let text = |error: Unreadable| error.to_string();
    let vote = Vote::read(append.vote).map_err(text)?;
    let before = append.before.map(LogId::read).transpose().map_err(text)?;
    let entries: Result<Vec<Entry>, _> = append.entries.into_iter().map(Entry::read).collect();
    let entries = entries.map_err(text)?;
    let committed = append.committed.map(LogId::read).transpose().map_err(text)?;
    let mut last = before;
    for entry in &entries {
        let follows = last.as_ref().map_or(Some(0), |last| last.index.checked_add(1)) == Some(entry.log_id.index);
        if !follows || last.is_some_and(|last| last.leader_id > entry.log_id.leader_id) {
            return Err("entries that do not follow one another".to_owned());
        }
        last = Some(entry.log_id);
    }
    if !vote.committed || last.is_some_and(|last| *last.leader_id > vote.leader_id.term) {
        return Err("entries by a node that does not lead".to_owned());
    }
    Ok(AppendEntriesRequest { vote, prev_log_id: before, entries, leader_commit: committed })
}

pub(super) fn read_vote(wanted: VoteWanted) -> Result<VoteRequest<TypeConfig>, Refusal> {
    let vote = Vote::read(wanted.vote).map_err(|error| error.to_string())?;
    let last = wanted.last.map(LogId::read).transpose().map_err(|error| error.to_string())?;
    if vote.committed {
        return Err("a candidate that says that it leads".to_owned());
    }
    Ok(VoteRequest { vote, last_log_id: last, leadership_transfer: wanted.is_transfer })
}

pub(super) fn read_part(part: &Part) -> Result<(Vote, SnapshotMeta), Refusal> {
    let vote = Vote::read(part.vote).map_err(|error| error.to_string())?;
    let covers = SnapshotMeta::read(part.covers.clone()).map_err(|error| error.to_string())?;
    let end = part.offset.checked_add(part.bytes.len() as u64);
    if part.bytes.len() > PART_LEN || part.total > SNAPSHOT_LEN_MAX || end.is_none_or(|end| end > part.total) {
        return Err("a snapshot that is too long".to_owned());
    }
    let is_led = vote.committed && covers.last_log_id.is_some_and(|last| *last.leader_id <= vote.leader_id.term);
    if !is_led {
        return Err("a snapshot by a node that does not lead".to_owned());
    }
    Ok((vote, covers))
}
