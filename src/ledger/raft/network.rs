//! The way to the other nodes, as openraft uses it. Shell over a [`Wire`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use minicbor::bytes::ByteVec;
use openraft::entry::RaftEntry;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};

use crate::ids::NodeKey;

use super::forms::{Form, Unreadable};
use super::types::{LogId, Snapshot, TypeConfig, Vote};
use super::wire::{Append, Appended, PART_LEN, Part, Request, Response, VoteWanted, decode, encode};

/// How long entries may take to be on the disk of a voter: its disk may be slow, and sending them again would not help it. A sign of
/// life without entries has the time that openraft gives it.
const APPEND_WITHIN: Duration = Duration::from_secs(2);

/// How long a snapshot may take, from the first part to the last.
pub const SNAPSHOT_WITHIN: Duration = Duration::from_secs(120);

/// How long one part of a snapshot may take on its way.
const PART_WITHIN: Duration = Duration::from_secs(3);

/// How much longer the last one may take for each mebibyte of the whole, which is read and written to the disk before it is answered.
const INSTALL_WITHIN: Duration = Duration::from_millis(200);

/// What a message is for. What is large and what is urgent do not share a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Channel {
    /// Entries, votes, signs of life.
    Raft,
    /// Parts of snapshots.
    Snapshot,
    /// Questions.
    Question,
}

/// Carries one request to another node, and its answer back.
pub trait Wire: Send + Sync + 'static {
    /// Asks. Dropping the future gives up on the answer.
    fn ask(
        &self,
        to: NodeKey,
        channel: Channel,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, Broken>>;
}

/// There is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// The node cannot be reached: it has not got the request.
    #[error("it cannot be reached: {0}")]
    Unreached(String),
    /// It may have got the request, or not.
    #[error("it did not answer: {0}")]
    Lost(String),
}

/// Makes the ways to other nodes.
pub(super) struct Network {
    pub(super) wire: Arc<dyn Wire>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: NodeKey, (): &()) -> Link {
        Link { wire: self.wire.clone(), to: target }
    }
}

/// The way to one node.
pub(super) struct Link {
    wire: Arc<dyn Wire>,
    to: NodeKey,
}

type Failure = RPCError<TypeConfig>;

/// The answer is none that belongs to the request.
fn wrong(cause: impl ToString) -> Failure {
    NetworkError::from_string(cause).into()
}

impl From<Unreadable> for Failure {
    fn from(Unreadable(cause): Unreadable) -> Self {
        wrong(cause)
    }
}

impl Link {
    async fn ask(&self, channel: Channel, request: &Request, within: Duration) -> Result<Response, Failure> {
        let answer = self.wire.ask(self.to, channel, encode(request), within).await;
        let answer = answer.map_err(|broken| match broken {
            Broken::Unreached(_) => Failure::Unreachable(Unreachable::new(&broken)),
            Broken::Lost(_) => Failure::Network(NetworkError::new(&broken)),
        })?;
        match decode(&answer).map_err(wrong)? {
            Response::Refused(cause) => Err(wrong(cause)),
            response => Ok(response),
        }
    }

    async fn vote_by(&self, request: Request, option: &RPCOption) -> Result<VoteResponse<TypeConfig>, Failure> {
        match self.ask(Channel::Raft, &request, option.hard_ttl()).await? {
            Response::Voted { vote, is_granted, last } => {
                let last = last.map(LogId::read).transpose()?;
                Ok(VoteResponse::new(Vote::read(vote)?, last, is_granted))
            }
            other => Err(wrong(format!("no answer to a vote: {other:?}"))),
        }
    }

    async fn send_parts(&self, vote: Vote, snapshot: &Snapshot) -> Result<SnapshotResponse<TypeConfig>, Failure> {
        let (covers, total) = (snapshot.meta.form(), snapshot.snapshot.len() as u64);
        let mut rest: Bytes = snapshot.snapshot.clone();
        let mut offset = 0;
        loop {
            let bytes = rest.split_to(rest.len().min(PART_LEN));
            let (len, is_last) = (bytes.len() as u64, rest.is_empty());
            let part =
                Part { vote: vote.form(), covers: covers.clone(), total, offset, bytes: ByteVec::from(bytes.to_vec()) };
            let install = INSTALL_WITHIN * u32::try_from(total >> 20).unwrap_or(u32::MAX);
            let within = if is_last { PART_WITHIN + install } else { PART_WITHIN };
            match self.ask(Channel::Snapshot, &Request::Part(part), within).await? {
                Response::Installed(vote) => return Ok(SnapshotResponse::new(Vote::read(vote)?)),
                Response::Taken if !is_last => offset += len,
                other => return Err(wrong(format!("no answer to a snapshot: {other:?}"))),
            }
        }
    }
}

fn vote_wanted(request: &VoteRequest<TypeConfig>) -> VoteWanted {
    VoteWanted {
        vote: request.vote.form(),
        last: request.last_log_id.as_ref().map(Form::form),
        is_transfer: request.leadership_transfer,
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        let within = if request.entries.is_empty() { option.hard_ttl() } else { option.hard_ttl().max(APPEND_WITHIN) };
        let append = Append {
            vote: request.vote.form(),
            before: request.prev_log_id.as_ref().map(Form::form),
            entries: request.entries.iter().map(Form::form).collect(),
            committed: request.leader_commit.as_ref().map(Form::form),
        };
        let (before, last) = (request.prev_log_id, request.entries.last().map(RaftEntry::log_id));
        match self.ask(Channel::Raft, &Request::Append(append), within).await? {
            Response::Appended(Appended::All) => Ok(AppendEntriesResponse::Success),
            // What openraft takes for granted of an answer is checked here: it comes from another host.
            Response::Appended(Appended::Upto(upto)) => {
                let upto = upto.map(LogId::read).transpose()?;
                if upto < before || upto > last.or(before) {
                    return Err(wrong("it says that it has entries which it was not sent"));
                }
                Ok(AppendEntriesResponse::PartialSuccess(upto))
            }
            Response::Appended(Appended::Conflict) if before.is_none() => {
                Err(wrong("it says that nothing is not what it has before the first entry"))
            }
            Response::Appended(Appended::Conflict) => Ok(AppendEntriesResponse::Conflict),
            Response::Appended(Appended::Deposed(vote)) => Ok(AppendEntriesResponse::HigherVote(Vote::read(vote)?)),
            other => Err(wrong(format!("no answer to entries: {other:?}"))),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.vote_by(Request::Vote(vote_wanted(&request)), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.vote_by(Request::PreVote(vote_wanted(&request)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = tokio::time::timeout(SNAPSHOT_WITHIN, self.send_parts(vote, &snapshot)) => match sent {
                Ok(sent) => sent.map_err(StreamingError::from),
                Err(_) => Err(NetworkError::from_string("the snapshot took too long").into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let lead = Request::Lead { from: request.from_leader().form(), last: request.last_log_id().map(Form::form) };
        match self.ask(Channel::Raft, &lead, option.hard_ttl()).await? {
            Response::Leading => Ok(Ok(())),
            other => Err(wrong(format!("no answer to a transfer: {other:?}"))),
        }
    }
}
