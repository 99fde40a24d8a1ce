//! What openraft is told about narun: its types, and the times by which a voter is missed. Shell.
//!
//! openraft draws random numbers (election timeouts) from the task that it runs in, so that a seed replays an election: everything
//! that starts or calls it stands in a [`super::runtime::scope`].

use std::fmt;
use std::time::Duration;

use openraft::impls::leader_id_std;
use openraft::{Config, SnapshotPolicy};

use crate::ids::NodeKey;
use crate::ledger::command::{Reply, Stamped};

use super::runtime::Steady;

openraft::declare_raft_types!(
    /// One entry a command; at most one leader a term, as in the paper, so that an entry is known by (term, index).
    pub TypeConfig:
        D = Stamped,
        R = Reply,
        NodeId = NodeKey,
        Node = (),
        LeaderId = leader_id_std::LeaderId<u64, NodeKey>,
        AsyncRuntime = Steady,
);

/// (term, index).
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// For whom a node has voted, in which term.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// One entry of the log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// What an entry holds.
pub type Payload = openraft::alias::PayloadOf<TypeConfig>;
/// Who votes and who learns.
pub type Membership = openraft::Membership<NodeKey, ()>;
/// The same, with the entry that it stands in.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: what it covers, and the encoded machine.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, bytes::Bytes>;

/// The entry of `index` in the term `term`.
pub fn log_id(term: u64, index: u64) -> LogId {
    openraft::LogId { leader_id: openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(term), index }
}

/// openraft puts entries into its own log lines.
impl fmt::Display for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.command)
    }
}

/// How often a leader says that it is there. One, and a fifth of one by which openraft may be late, has to fit into the shortest election timeout.
/// Where one is lost, somebody may ask who would vote for it, and is told that the leader is heard (Pre-Vote). openraft wakes up five times as often as
/// this, which is most of what an idle node costs.
pub const HEARTBEAT: Duration = Duration::from_millis(300);

/// The shortest time after which a voter that hears no leader stands for election.
pub const ELECTION_MIN: Duration = Duration::from_millis(500);

/// The longest; each voter draws its own between the two. It is also how long a leader is believed after a majority has answered it.
pub const ELECTION_MAX: Duration = Duration::from_millis(1_000);

/// A snapshot is made each time that so many entries were applied: of some 300 bytes each, the log takes about a megabyte by then,
/// and a restart applies as many within a moment.
pub const SNAPSHOT_EVERY: u64 = 4_096;

/// So many entries stay in the log when a snapshot covers them: a voter that was away for a moment is sent these, not all.
pub const ENTRIES_KEPT: u64 = 1_024;

/// Most entries in one message; [`super::store::APPEND_LEN_MAX`] bounds their bytes.
const ENTRIES_MAX: u64 = 1_024;

/// Pauses between attempts to reach a voter that does not answer: as often as it would hear a heartbeat.
const BACKOFF: &str = "300ms";

/// For how long a leader whom no majority answers is silent, and then for how long it says that it is there, in turn: those who hear it elect another one meanwhile
/// (openraft asks for twice the longest election time).
const PROBE: Duration = Duration::from_millis(2_500);

/// openraft's settings.
pub fn config(snapshot_every: u64, entries_kept: u64) -> Config {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "narun".into(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_MIN),
        election_timeout_max: millis(ELECTION_MAX),
        max_payload_entries: ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: entries_kept,
        // A learner is caught up when it is behind by less than one message.
        replication_lag_threshold: ENTRIES_MAX,
        install_snapshot_timeout: millis(super::network::SNAPSHOT_WITHIN),
        // A voter that comes back from behind a wall would otherwise raise the term and depose a leader that all others hear.
        enable_pre_vote: Some(true),
        // A leader sends entries before they are on its own disk. If it went on in the same term after it had lost them, it would give their
        // names to others, and a follower that has them could not tell.
        enable_leader_restore: Some(false),
        // A leader that a majority hears, and that hears no majority, would keep them from electing another one.
        quorum_loss_probe_interval: Some(millis(PROBE)),
        backoff: BACKOFF.into(),
        ..Config::default()
    }
}
