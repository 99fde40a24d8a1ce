//! Answers what other nodes send to Raft. Shell.
//!
//! Raft is no defence against voters that lie. What is checked is that a node speaks for itself, and that its message is sound.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::Raft;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest, VoteResponse};
use tokio::time::Instant;

use crate::ids::NodeKey;
use crate::ledger::machine::Machine;
use crate::time::Wall;

use super::Clock;
use super::forms::{Form, Unreadable};
use super::sound::{Refusal, read_append, read_part, read_vote};
use super::store::Machines;
use super::types::{LogId, Snapshot, SnapshotMeta, TypeConfig, Vote};
use super::wire::{Append, Appended, Part, Request, Response, VoteWanted};

/// Raft's ear.
pub(super) struct Ear {
    raft: Raft<TypeConfig, Machines>,
    /// The snapshot that comes in, in parts. There is one leader, so there is one.
    incoming: Mutex<Option<Incoming>>,
    clock: Clock,
    heard: Mutex<Option<Heard>>,
}

/// When a leader was heard last.
#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    wall: Wall,
}

/// After a longer silence than this a leader counts as not heard: by then another one would have been elected, where a majority is left.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A snapshot, as far as it has come.
struct Incoming {
    from: NodeKey,
    /// Of the last part, which tells one sending from another.
    covers: SnapshotMeta,
    bytes: BytesMut,
}

impl Ear {
    pub(super) fn new(raft: Raft<TypeConfig, Machines>, clock: Clock) -> Self {
        Self { raft, incoming: Mutex::new(None), clock, heard: Mutex::new(None) }
    }

    /// Whether a leader was heard lately. openraft goes on naming the last one while nobody can win an election.
    pub(super) fn hears_leader(&self) -> bool {
        self.heard().is_some_and(|heard| heard.at.elapsed() < SILENCE_MAX)
    }

    /// When a leader was heard last, by this host's clock; none since the start of this process.
    pub(super) fn heard_at(&self) -> Option<Wall> {
        self.heard().map(|heard| heard.wall)
    }

    /// A leader has spoken, and is taken for one.
    fn hear(&self) {
        let heard = Heard { at: Instant::now(), wall: (self.clock)().wall };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    fn heard(&self) -> Option<Heard> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request that is none of [`Request::Ask`].
    pub(super) async fn answer(&self, from: NodeKey, request: Request) -> Response {
        let speaker = match &request {
            Request::Append(append) => append.vote.node,
            Request::Vote(wanted) | Request::PreVote(wanted) => wanted.vote.node,
            Request::Part(part) => part.vote.node,
            Request::Lead { from, .. } => from.node,
            Request::Ask { .. } => return Response::Refused("questions are answered elsewhere".to_owned()),
        };
        if speaker != from {
            return Response::Refused("it speaks for another node".to_owned());
        }
        let answered = match request {
            Request::Append(append) => self.append(append).await,
            Request::Vote(wanted) => self.vote(wanted, false).await,
            Request::PreVote(wanted) => self.vote(wanted, true).await,
            Request::Part(part) => self.take_part(from, part).await,
            Request::Lead { from, last } => match last.map(LogId::read).transpose() {
                Ok(last) => self.lead(Vote::read(from), last).await,
                Err(error) => Err(error.to_string()),
            },
            Request::Ask { .. } => Err("questions are answered elsewhere".to_owned()),
        };
        answered.unwrap_or_else(Response::Refused)
    }

    async fn append(&self, append: Append) -> Result<Response, Refusal> {
        let request = read_append(append)?;
        let appended = match self.raft.append_entries(request).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Appended::All,
            AppendEntriesResponse::PartialSuccess(upto) => Appended::Upto(upto.as_ref().map(Form::form)),
            AppendEntriesResponse::Conflict => Appended::Conflict,
            AppendEntriesResponse::HigherVote(vote) => return Ok(Response::Appended(Appended::Deposed(vote.form()))),
        };
        self.hear();
        Ok(Response::Appended(appended))
    }

    async fn vote(&self, wanted: VoteWanted, is_pre_vote: bool) -> Result<Response, Refusal> {
        let request = read_vote(wanted)?;
        let answered = if is_pre_vote { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        let VoteResponse { vote, vote_granted, last_log_id } = answered.map_err(stopped)?;
        let last = last_log_id.as_ref().map(Form::form);
        Ok(Response::Voted { vote: vote.form(), is_granted: vote_granted, last })
    }

    async fn lead(&self, from: Result<Vote, Unreadable>, last: Option<LogId>) -> Result<Response, Refusal> {
        let from = from.map_err(|error| error.to_string())?;
        let request = TransferLeaderRequest::new(from, *self.raft.node_id(), last);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Ok(Response::Leading),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn take_part(&self, from: NodeKey, part: Part) -> Result<Response, Refusal> {
        let (vote, meta) = read_part(&part)?;
        let Some(snapshot) = self.assemble(from, meta.clone(), &part)? else { return Ok(Response::Taken) };
        // Raft would stop this node on a snapshot that the machine cannot read.
        Machine::decode(&snapshot).map_err(|error| error.to_string())?;
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        let installed = installed.map_err(|error| error.to_string())?;
        self.hear();
        Ok(Response::Installed(installed.vote.form()))
    }

    /// The whole, with its last part.
    fn assemble(&self, from: NodeKey, covers: SnapshotMeta, part: &Part) -> Result<Option<Bytes>, Refusal> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        if part.offset == 0 {
            *incoming = Some(Incoming { from, covers: covers.clone(), bytes: BytesMut::new() });
        }
        let Some(held) = incoming.as_mut().filter(|held| held.from == from && held.covers == covers) else {
            return Err("a part of a snapshot that was not begun".to_owned());
        };
        if held.bytes.len() as u64 != part.offset {
            return Err("a part of a snapshot that does not follow the one before".to_owned());
        }
        held.bytes.extend_from_slice(&part.bytes);
        let is_whole = held.bytes.len() as u64 == part.total;
        Ok(if is_whole { incoming.take().map(|held| held.bytes.freeze()) } else { None })
    }
}

fn stopped(error: RaftError<TypeConfig>) -> Refusal {
    error.to_string()
}
