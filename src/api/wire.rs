//! The forms of the API, in JSON. Pure, plain data.
//!
//! A contract: keys may be added, and are never renamed or given another meaning. Times are RFC 3339 in UTC, sizes are bytes,
//! hashes and keys are hexadecimal. What is not known is `null`.

pub mod cron;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The version of this API, as it stands in the paths.
pub const API_VERSION: u32 = 1;

/// The body of every refusal.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ErrorBody {
    /// What was refused.
    pub error: ErrorWords,
}

/// Why something was refused.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ErrorWords {
    /// A stable word, one of [`RefusalCode::word`](crate::node::engine::effect::RefusalCode::word).
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// `GET /v1/version`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The node's version of narun.
    pub version: String,
    /// The API's version.
    pub api: u32,
}

/// `GET /v1/status`
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Status {
    /// The name of the node that answered.
    pub node: Option<String>,
    /// Its key.
    pub key: String,
    /// The cluster.
    pub cluster: String,
    /// How often that node has started.
    pub boot: u64,
    /// Its version of narun.
    pub version: String,
    /// All members.
    pub nodes: Vec<Node>,
    /// All services and cron specs, counted.
    pub services: Vec<ServiceCount>,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
    /// Whether slots of cron specs are fired now; see `ledger`.
    pub cron_fires: bool,
    /// What the answering node's network has refused, dropped or lost since its start, by name; what never happened is left out.
    #[serde(default)]
    pub network: BTreeMap<String, u64>,
    /// How the ledger stands, which decides about slots.
    #[serde(default)]
    pub ledger: cron::Ledger,
}

/// How a service stands.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ServiceCount {
    /// Its name.
    pub service: String,
    /// `service` or `cron`.
    pub mode: String,
    /// Whether its user stopped it, or paused it.
    pub stopped: bool,
    /// How many instances are wanted.
    pub desired: u32,
    /// How many of those run.
    pub running: u32,
    /// How many of those are ready at the current revision.
    pub ready: u32,
}

/// Something that is wrong.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The thing.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A member. `GET /v1/nodes`, `GET /v1/nodes/{name}`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: String,
    /// `alive`, `suspect`, `down` or `unknown`.
    pub status: String,
    /// Since when.
    pub since: String,
    /// Whether it is the node that answered.
    pub is_me: bool,
    /// `linux`.
    pub os: Option<String>,
    /// `amd64`, `arm64`.
    pub arch: Option<String>,
    /// Its version of narun.
    pub version: Option<String>,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it became a member.
    pub joined_at: String,
    /// When it was started last.
    pub started_at: Option<String>,
    /// How many instances it reports running.
    pub instances: u32,
    /// `member` or `operator-only`.
    pub role: String,
    /// What its host offers; null until it has reported.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// How far it is drained; null where it is not to be.
    #[serde(default)]
    pub drain: Option<Drain>,
}

/// `DELETE /v1/nodes/{name}`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct RemovedNode {
    /// Its name.
    pub node: String,
    /// False where it was no member any more.
    pub removed: bool,
}

/// `POST /v1/leave`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct HasLeft {
    /// True: another member has written it down.
    pub left: bool,
}

/// What a node's host offers.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Processors that are switched on.
    pub cores: u32,
    /// Memory in bytes, without swap.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The version of Landlock's interface; 0: none.
    pub landlock_abi: u32,
    /// The control groups that are mounted: `none`, `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// The controllers whose groups the node can make.
    pub cgroup_controllers: Vec<String>,
    /// Whether the node runs as root.
    pub is_root: bool,
}

/// How far a node is drained.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Drain {
    /// `draining` while anything is left there, then `drained`.
    pub state: String,
    /// Since when.
    pub since: String,
    /// The node that was asked.
    pub asked_at: String,
    /// What is still there.
    pub left: Vec<Left>,
}

/// An instance that is still on a drained node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// `<service>-<index>`.
    pub instance: String,
    /// Why it is still there.
    pub reason: String,
}

/// `POST /v1/nodes/{name}/labels`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Label {
    /// Values by key.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys.
    #[serde(default)]
    pub remove: BTreeSet<String>,
}

/// The answer to that.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Labelled {
    /// The node.
    pub node: String,
    /// All its labels from now on; those of a node that is down as it reported them last, with what users set over them.
    pub labels: BTreeMap<String, String>,
    /// False where nothing had to be changed.
    pub changed: bool,
}

/// The answer to `POST /v1/nodes/{name}/drain` and `/uncordon`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct NodeSet {
    /// The node.
    pub node: String,
    /// False where it was so already.
    pub changed: bool,
}

/// The query of `GET /v1/nodes/{name}/wait`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct WaitForDrain {
    /// How long to hold the answer back while the node is draining, in milliseconds.
    pub timeout_ms: u64,
}

/// A service or cron spec. `GET /v1/services`, `GET /v1/services/{name}`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name.
    pub service: String,
    /// The revision that is carried out.
    pub revision: Revision,
    /// How many instances belong on which node, and what runs there.
    pub placements: Vec<Placement>,
    /// All its instances.
    pub instances: Vec<Instance>,
}

/// The instances of a service on one node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The node; null: no node can take these instances now.
    pub node: Option<String>,
    /// As of a node; null where the node is no member.
    pub node_status: Option<String>,
    /// `os/arch`; null until the node has reported.
    pub node_platform: Option<String>,
    /// How many are wanted there.
    pub desired: u32,
    /// False: the current revision wants none on that node.
    pub in_spec: bool,
    /// How many run there.
    pub running: u32,
    /// The names of those that run there.
    pub instance_ids: Vec<String>,
}

/// One revision of a service.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// Counted from 1.
    pub revision: u32,
    /// `<n>-<hash8>`.
    pub id: String,
    /// `current`, `past` or `superseded`.
    pub status: String,
    /// The version label of its binaries.
    pub tag: String,
    /// `service` or `cron`.
    pub mode: String,
    /// The schedule of a cron spec.
    pub cron_schedule: Option<String>,
    /// Whether its instances are to be stopped.
    pub stopped: bool,
    /// `deploy`, `scale`, `stop`, `start`, `restart`, `pause` or `resume`.
    pub cause: String,
    /// The node that took it.
    pub author: String,
    /// When.
    pub at: String,
    /// Its binaries.
    pub images: Vec<ImageRef>,
    /// The whole specification, in YAML.
    pub spec: String,
    /// Of a cron spec: whether no slot of it is fired, because it is paused or stopped.
    #[serde(default)]
    pub suspended: bool,
}

/// A binary as a revision names it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ImageRef {
    /// `linux`, `any` for a script.
    pub os: String,
    /// `amd64`, `any` for a script.
    pub arch: String,
    /// BLAKE3 of its content.
    pub hash: String,
    /// In bytes.
    pub size: u64,
    /// The name of the file that was deployed.
    pub file_name: String,
}

/// An instance.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// `<service>-<index>`.
    pub instance: String,
    /// Its service.
    pub service: String,
    /// Its index.
    pub index: u32,
    /// The node that runs it.
    pub node: String,
    /// What is thought of that node.
    pub node_status: String,
    /// `pending`, `fetching`, `starting`, `running`, `stopping`, `backoff`, `crash-loop`, `unreachable`; `stopped`: its
    /// node must not run it for now, and `error` says why; or `finished`: it has ended by itself and is not started again.
    pub state: String,
    /// Whether it has been up long enough to count, or has finished with exit code 0.
    pub ready: bool,
    /// The revision that it was started by.
    pub revision: u32,
    /// Whether that satisfies the current one.
    pub current: bool,
    /// Whether the current revision wants it there.
    pub wanted: bool,
    /// Its current or last start.
    pub run: Option<String>,
    /// Its first process.
    pub pid: Option<u32>,
    /// When it was started last.
    pub started_at: Option<String>,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// How its last start ended.
    pub exit: Option<Exit>,
    /// Why it does not run.
    pub error: Option<String>,
    /// When it is tried again, while it waits for that.
    #[serde(default)]
    pub retry_at: Option<String>,
    /// What of its sandbox it has, while it runs.
    #[serde(default)]
    pub enforced: Enforced,
}

/// What of its sandbox an instance has.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Enforced {
    /// The version of Landlock's interface whose rules hold; null without Landlock.
    pub landlock_abi: Option<u32>,
    /// What was asked for and is not enforced, a line each.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// `GET /v1/services/{name}/usage`: what the instances of a service use, each with all its descendants.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub struct ServiceUsage {
    /// Those that run.
    pub instances: Vec<InstanceUsage>,
    /// Nodes that run some and did not answer.
    pub silent: Vec<Silent>,
}

/// What one instance uses. What this host does not count is `null`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct InstanceUsage {
    /// `<service>-<index>`.
    pub instance: String,
    /// The node that runs it.
    pub node: String,
    /// Which start of it.
    pub run: String,
    /// Memory now, in bytes.
    pub memory: Option<u64>,
    /// Whether that is the sum over its processes, since no controller counts it: what they share counts for each.
    pub memory_is_summed: bool,
    /// The most memory so far, in bytes.
    pub memory_peak: Option<u64>,
    /// The memory that it cannot exceed, in bytes.
    pub memory_max: Option<u64>,
    /// How many of its processes were killed because it had used up its memory.
    pub oom_kills: Option<u64>,
    /// Processor time so far, in microseconds.
    pub cpu_us: Option<u64>,
    /// How long it was held back because it had used up its processor time, in microseconds.
    pub throttled_us: Option<u64>,
    /// In how many periods it was held back.
    pub throttled_periods: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// The most so far.
    pub pids_peak: Option<u64>,
    /// How many it cannot exceed.
    pub pids_max: Option<u64>,
    /// How much it waits for processors.
    pub cpu_pressure: Option<Pressure>,
    /// How much it waits for memory.
    pub memory_pressure: Option<Pressure>,
    /// How much it waits for disks.
    pub io_pressure: Option<Pressure>,
}

/// How much of the last ten seconds was spent waiting, in per cent.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct Pressure {
    /// In which at least one task waited.
    pub some_percent: f64,
    /// In which all tasks did.
    pub full_percent: f64,
}

/// A node that did not answer.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Silent {
    /// Its name.
    pub node: String,
    /// Why, as far as is known.
    pub reason: String,
}

/// How a process ended.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Its exit code, when it exited by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When.
    pub at: String,
    /// How many of its processes the kernel killed because they had used up their memory.
    #[serde(default)]
    pub oom_kills: u32,
}

/// `POST /v1/services`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Deploy {
    /// The specification, YAML or JSON.
    pub spec: String,
    /// The binaries, which must have been uploaded before, unless `dry_run`.
    pub images: Vec<ImageRef>,
    /// On how many nodes' disks the revision must be before the answer.
    #[serde(default = "one")]
    pub acks: u32,
    /// How long to wait for those, in milliseconds.
    #[serde(default = "acks_timeout_default_ms")]
    pub timeout_ms: u64,
    /// Check everything and store nothing.
    #[serde(default)]
    pub dry_run: bool,
}

fn one() -> u32 {
    1
}

fn acks_timeout_default_ms() -> u64 {
    10_000
}

/// The answer to a change of a service.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Revised {
    /// Its name.
    pub service: String,
    /// The number of the current revision.
    pub revision: u32,
    /// False where what was asked for was so already.
    pub changed: bool,
}

/// `DELETE /v1/services/{name}`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// Its name.
    pub service: String,
    /// False where there was none.
    pub existed: bool,
}

/// `POST /v1/services/{name}/scale`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Scale {
    /// How many instances.
    pub replicas: u32,
    /// On which node; needed where the specification names several.
    #[serde(default)]
    pub node: Option<String>,
}

/// The query of `GET /v1/services/{name}/wait`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct WaitFor {
    /// The revision, as a deploy answered it.
    pub revision: u32,
    /// How long to hold the answer back, in milliseconds.
    pub timeout_ms: u64,
}

/// How far a revision has come.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Waited {
    /// `done`, `waiting` (the time is over) or `failed`.
    pub outcome: String,
    /// How many instances are wanted.
    pub desired: u32,
    /// How many of those are ready.
    pub ready: u32,
    /// What is missing, or what failed, one thing a line.
    pub reasons: Vec<String>,
}

/// An image of a kept revision. `GET /v1/images`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// `<name>-<tag>-<os>-<arch>`.
    pub object_name: String,
    /// In bytes.
    pub size: u64,
    /// When the revision was made that brought it.
    pub modified: String,
    /// The service's tag.
    pub tag: String,
    /// `linux`, `any` for a script.
    pub os: String,
    /// `amd64`, `any` for a script.
    pub arch: String,
    /// `blake3:<64 hexadecimal digits>`.
    pub digest: String,
    /// The nodes that hold it whole.
    pub nodes: Vec<String>,
    /// How many nodes should hold it.
    pub copies_wanted: u32,
    /// The services whose kept revisions refer to it.
    pub used_by: Vec<String>,
}

/// A blob on the node that answers. `POST /v1/blobs`, `GET /v1/blobs/{hash}`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// BLAKE3 of its content.
    pub hash: String,
    /// In bytes.
    pub size: u64,
}

/// A ticket of the node that answers. `GET /v1/tickets`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Names it without giving it away.
    pub id: String,
    /// Until when it is good.
    pub expires: String,
    /// How many more members it admits.
    pub uses_left: u32,
    /// What it makes of them: `member` or `operator-only`.
    pub role: String,
}

/// `POST /v1/tickets`
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct NewTicket {
    /// How long it is good for, in seconds.
    pub ttl_seconds: u64,
    /// How many members it admits.
    pub uses: u32,
    /// What it makes of them: `member`, or `operator-only`; not given: `member`.
    #[serde(default)]
    pub role: Option<String>,
}

/// The answer to that: the only time that the ticket is shown.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MadeTicket {
    /// The ticket itself.
    pub ticket: String,
    /// Names it from now on.
    pub id: String,
    /// Until when it is good.
    pub expires: String,
    /// How many members it admits.
    pub uses: u32,
}

/// The query of `GET /v1/logs`; everything that is given must hold.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Logs {
    /// A service.
    pub app: Option<String>,
    /// A node.
    pub node: Option<String>,
    /// An instance.
    pub instance: Option<String>,
    /// The first digits of a run's identifier, or all of them.
    pub run: Option<String>,
    /// `stdout`, `stderr` or `narun`.
    pub stream: Option<String>,
    /// Nanoseconds since 1970, included.
    pub since_ns: Option<u64>,
    /// Nanoseconds since 1970, excluded.
    pub until_ns: Option<u64>,
    /// Of each instance the last so many lines for which the rest holds.
    pub tail: Option<u64>,
    /// A text that the line holds.
    pub grep: Option<String>,
    /// Whether to go on with what is written from now on.
    #[serde(default)]
    pub follow: bool,
}

/// One line of the answer to that. The answer is whole only when it ends with `end`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogEvent {
    /// A line.
    Line(LogLine),
    /// So many lines are gone.
    Missed {
        /// On this node.
        node_id: String,
        /// Of this instance.
        instance_id: String,
        /// How many.
        lines: u64,
    },
    /// Something to tell the user.
    Notice {
        /// The text.
        message: String,
    },
    /// What was written before the query has come; from here on it is live.
    Live,
    /// That was all.
    End,
}

/// A line of output.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// When it was read off the pipe, with nanoseconds.
    pub timestamp: String,
    /// The service.
    pub app_name: String,
    /// The instance.
    pub instance_id: String,
    /// The node.
    pub node_id: String,
    /// The start of the instance.
    pub run_id: String,
    /// `stdout`, `stderr` or `narun`.
    pub stream: String,
    /// Its place among the lines of its instance on its node.
    pub seq: u64,
    /// Its text; where its bytes are no UTF-8, with a mark in place of what is not.
    pub message: String,
    /// Its very bytes in base 64, where they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_base64: Option<String>,
    /// True: it was too long, and goes on in the next line.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cut: bool,
}
