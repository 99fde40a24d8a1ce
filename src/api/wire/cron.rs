//! The forms of the API around cron specs and the ledger, in JSON. Pure, plain data. A contract, like the forms beside it.

use serde::{Deserialize, Serialize};

/// The query of `GET /v1/cron/{name}/history`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct HistoryWanted {
    /// Under `cronScope: node`: of the runs on this node alone.
    #[serde(default)]
    pub node: Option<String>,
    /// At most so many rows, the newest ones.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// What became of a cron spec. `GET /v1/cron/{name}/history`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct CronHistory {
    /// Its name.
    pub service: String,
    /// Its series of slots: one or, under `cronScope: node`, one for each node. None where no voter could be reached.
    pub jobs: Vec<CronJob>,
    /// Runs, and slots without one, newest first.
    pub rows: Vec<CronRow>,
    /// Members that cannot fire it now.
    pub barred: Vec<Barred>,
    /// Where no voter of the ledger could be reached: the node whose own runs these are, as it knows them, and nobody else's. Null: the
    /// ledger has answered.
    #[serde(default)]
    pub only_node: Option<String>,
}

/// One series of slots.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct CronJob {
    /// Under `cronScope: node`, the node.
    pub node: Option<String>,
    /// Whether the ledger knows it. It does once a node was given its lease.
    pub known: bool,
    /// The node that holds its lease: it decides the next slot.
    pub holder: Option<String>,
    /// The last slot that was decided.
    pub decided_until: Option<String>,
    /// The newest run that ended with success.
    pub last_success: Option<String>,
    /// How many requests for a run wait to be taken.
    pub asked: u64,
    /// Where nobody leads the ledger: up to when this is known. Null: it is as the cluster has it now.
    pub as_of: Option<String>,
}

/// A run, or slots in a row that had none.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct CronRow {
    /// The run; null where there was none.
    pub run_id: Option<String>,
    /// When it was due; the first of several slots.
    pub scheduled_at: String,
    /// When its first attempt was started.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// A run's: `pending`, `running`, `retrying`, `success`, `failure`, `timeout`, `failure-to-start`, `replaced`, `aborted`, `lost`.
    /// A slot's without a run: `skipped`, `missed`, `suspended`, `caught-up`.
    pub status: String,
    /// The exit code of its last attempt, where that exited by itself.
    pub exit_code: Option<i32>,
    /// Which attempt this is, or was; null where there was no run.
    pub attempts: Option<u32>,
    /// What went wrong, or why there was no run.
    pub error: Option<String>,
    /// How many attempts there may be, where that is known.
    pub attempts_max: Option<u32>,
    /// The node of the last attempt; of slots without a run, under `cronScope: node`, the node that they were for.
    pub node: Option<String>,
    /// `slot` or `asked`; empty where that is not known: the node has begun anew since then, and reaches no voter.
    pub trigger: String,
    /// How many slots: 1 for a run.
    pub count: u64,
    /// The last of several slots; of one, that one.
    pub last_scheduled_at: String,
    /// The number of the revision that was run.
    pub revision: Option<u32>,
    /// Which request it answers, where it was asked for.
    pub request: Option<String>,
}

/// A member that cannot fire a cron spec now.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Barred {
    /// Its name.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// `POST /v1/cron/{name}/run`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct RunNow {
    /// On which node; needed under `cronScope: node`, and only there.
    #[serde(default)]
    pub node: Option<String>,
}

/// The answer to that: the ledger has it, and whoever holds the lease runs it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct RunAsked {
    /// The cron spec.
    pub service: String,
    /// The node that was named.
    pub node: Option<String>,
    /// The number of the request, by which the run is found in the history.
    pub request: String,
}

/// How the ledger stands, as the answering node sees it. `GET /v1/ledger`, and in `GET /v1/status`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Who votes.
    pub voters: Vec<Voter>,
    /// Who learns to become a voter.
    pub learners: Vec<String>,
    /// Who leads.
    pub leader: Option<String>,
    /// How many voters a decision needs.
    pub quorum: u32,
    /// How many of them are in reach.
    pub in_reach: u32,
    /// Whether slots of cron specs are fired.
    pub fires: bool,
    /// Why not.
    pub why: Option<String>,
}

/// A voter.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    /// Its name; of one that is no member any more, the first digits of its key.
    pub node: String,
    /// As of a node; `removed`: it is no member any more.
    pub status: String,
}
