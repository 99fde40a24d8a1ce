//! openraft's values on the disk and on the wire: CBOR maps with integer keys (RFC 8949), our own, so that a later openraft with other
//! names reads what this one wrote. Pure.

use std::collections::BTreeSet;

use openraft::alias::LeaderIdOf;
use openraft::entry::RaftEntry;
use openraft::vote::RaftVote;
use openraft::{EntryPayload, StoredMembership as OpenraftStored};

use crate::ids::NodeKey;
use crate::ledger::command::Stamped;

use super::types::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id};

/// A value of openraft that has a form of ours.
pub(super) trait Form: Sized {
    /// The form.
    type Of: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>;
    /// The value in its form.
    fn form(&self) -> Self::Of;
    /// The value of a form; fails where the form is one that narun never makes.
    fn read(form: Self::Of) -> Result<Self, Unreadable>;
}

/// A form that contradicts itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(pub(super) String);

/// See [`LogId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct LogIdForm {
    #[n(0)]
    term: u64,
    #[n(1)]
    index: u64,
}

impl Form for LogId {
    type Of = LogIdForm;

    fn form(&self) -> LogIdForm {
        LogIdForm { term: *self.leader_id, index: self.index }
    }

    fn read(form: LogIdForm) -> Result<Self, Unreadable> {
        Ok(log_id(form.term, form.index))
    }
}

/// See [`Vote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct VoteForm {
    #[n(0)]
    term: u64,
    #[n(1)]
    pub(super) node: NodeKey,
    #[n(2)]
    is_committed: bool,
}

impl Form for Vote {
    type Of = VoteForm;

    fn form(&self) -> VoteForm {
        let leader = self.leader_id();
        VoteForm { term: leader.term, node: leader.voted_for, is_committed: self.is_committed() }
    }

    fn read(form: VoteForm) -> Result<Self, Unreadable> {
        let leader = LeaderIdOf::<TypeConfig> { term: form.term, voted_for: form.node };
        Ok(Self::from_leader_id(leader, form.is_committed))
    }
}

/// See [`Membership`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct MembershipForm {
    /// One set of voters; two while one follows the other.
    #[n(0)]
    voters: Vec<Vec<NodeKey>>,
    /// Voters and learners.
    #[n(1)]
    nodes: Vec<NodeKey>,
}

impl Form for Membership {
    type Of = MembershipForm;

    fn form(&self) -> MembershipForm {
        let voters = self.get_joint_config().iter().map(|set| set.iter().copied().collect());
        MembershipForm { voters: voters.collect(), nodes: self.nodes().map(|(node, ())| *node).collect() }
    }

    fn read(form: MembershipForm) -> Result<Self, Unreadable> {
        let voters: Vec<BTreeSet<NodeKey>> = form.voters.into_iter().map(|set| set.into_iter().collect()).collect();
        let nodes: BTreeSet<NodeKey> = form.nodes.into_iter().collect();
        Self::new(voters, nodes).map_err(|error| Unreadable(format!("a set of voters that cannot be: {error}")))
    }
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct EntryForm {
    #[n(0)]
    term: u64,
    #[n(1)]
    index: u64,
    #[n(2)]
    payload: PayloadForm,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
enum PayloadForm {
    /// Nothing: the first entry of a leader.
    #[n(0)]
    Blank,
    #[n(1)]
    Command(#[n(0)] Stamped),
    #[n(2)]
    Membership(#[n(0)] MembershipForm),
}

impl Form for Entry {
    type Of = EntryForm;

    fn form(&self) -> EntryForm {
        let payload = match &self.payload {
            EntryPayload::Blank => PayloadForm::Blank,
            EntryPayload::Normal(stamped) => PayloadForm::Command(stamped.clone()),
            EntryPayload::Membership(membership) => PayloadForm::Membership(membership.form()),
        };
        EntryForm { term: *self.log_id.leader_id, index: self.log_id.index, payload }
    }

    fn read(form: EntryForm) -> Result<Self, Unreadable> {
        let payload = match form.payload {
            PayloadForm::Blank => EntryPayload::Blank,
            PayloadForm::Command(stamped) => EntryPayload::Normal(stamped),
            PayloadForm::Membership(membership) => EntryPayload::Membership(Membership::read(membership)?),
        };
        Ok(Self::new(log_id(form.term, form.index), payload))
    }
}

/// See [`SnapshotMeta`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct MetaForm {
    /// The last entry that was applied.
    #[n(0)]
    last: Option<LogIdForm>,
    /// The entry that the set of voters stands in.
    #[n(1)]
    since: Option<LogIdForm>,
    #[n(2)]
    membership: MembershipForm,
}

impl Form for SnapshotMeta {
    type Of = MetaForm;

    fn form(&self) -> MetaForm {
        let membership = &self.last_membership;
        MetaForm {
            last: self.last_log_id.as_ref().map(Form::form),
            since: membership.log_id().as_ref().map(Form::form),
            membership: membership.membership().form(),
        }
    }

    fn read(form: MetaForm) -> Result<Self, Unreadable> {
        let since = form.since.map(LogId::read).transpose()?;
        let last_membership: StoredMembership = OpenraftStored::new(since, Membership::read(form.membership)?);
        Ok(Self { last_log_id: form.last.map(LogId::read).transpose()?, last_membership })
    }
}
