//! The read model: what API, CLI and UI see of a node. Pure, plain data, cheap to clone.
//!
//! Sections are shared: one that did not change is the same allocation as in the view before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blobs::image::Image;
use crate::capacity::Capacity;
use crate::confinement::Enforced;
use crate::crdt::admission::Role;
use crate::ids::{BlobHash, ClusterId, NodeKey, NodeName, RunId, ServiceName};
use crate::ledger::run::Run;
use crate::spec::ServiceSpec;
use crate::time::Wall;

/// All that can be read of a node, at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// This node itself.
    pub me: Arc<Me>,
    /// All members, by name.
    pub nodes: Arc<Vec<Arc<NodeView>>>,
    /// All services, by name; deleted ones are not here.
    pub services: Arc<Vec<Arc<ServiceView>>>,
    /// All instances that nodes report or that are wanted and not reported, by service, index, node.
    pub instances: Arc<Vec<InstanceView>>,
    /// Where the blobs of images stand.
    pub copies: Arc<CopiesView>,
    /// Tickets that this node made and that are still good.
    pub tickets: Arc<Vec<TicketView>>,
    /// What is wrong, worst first, each with what to do.
    pub problems: Arc<Vec<Problem>>,
    /// How often looking at everything found something to do that looking at what had changed had not. Zero, or narun has a
    /// mistake.
    pub overlooked: u64,
}

impl View {
    /// A service that is there.
    pub fn service(&self, name: &str) -> Option<&ServiceView> {
        let place = self.services.binary_search_by(|service| service.name.as_str().cmp(name)).ok()?;
        Some(&self.services[place])
    }
}

/// This node.
#[derive(Clone, PartialEq, Debug)]
pub struct Me {
    /// Its key.
    pub key: NodeKey,
    /// Its name.
    pub name: Option<NodeName>,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// How often it has started.
    pub boot: u64,
}

impl Default for Me {
    fn default() -> Self {
        Self { key: NodeKey([0; 32]), name: None, cluster: ClusterId([0; 32]), boot: 0 }
    }
}

/// What is thought of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NodeStatus {
    /// It answers.
    Alive,
    /// It did not answer a probe; it has a short time to refute.
    Suspect,
    /// It is taken for dead or cut off.
    Down,
    /// This node started a moment ago and has not heard of it yet.
    Unknown,
}

impl NodeStatus {
    /// The word in tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// A member.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeView {
    /// Its key.
    pub key: NodeKey,
    /// Its name.
    pub name: NodeName,
    /// What this node thinks of it.
    pub status: NodeStatus,
    /// Since when, by this node's clock.
    pub since: Wall,
    /// Whether it is the node that made this view.
    pub is_me: bool,
    /// What it is there for.
    pub role: Role,
    /// `linux`, once it has reported.
    pub os: Option<String>,
    /// `amd64`, `arm64`, once it has reported.
    pub arch: Option<String>,
    /// narun's version there, once it has reported.
    pub version: Option<String>,
    /// Where it says it can be reached.
    pub addresses: Vec<String>,
    /// Its labels, by key.
    pub labels: Vec<(String, String)>,
    /// When it became a member.
    pub joined_at: Wall,
    /// When it was started last, once it has reported.
    pub started_at: Option<Wall>,
    /// How many instances it reports running.
    pub instances: u32,
    /// What its host offers, once it has reported.
    pub capacity: Option<Capacity>,
    /// How far it is drained, if it is to be.
    pub drain: Option<DrainView>,
}

/// A drain: wanted since when, and what is left to be done.
#[derive(Clone, PartialEq, Debug)]
pub struct DrainView {
    /// Since when, by the clock of the node that was asked.
    pub since: Wall,
    /// The name of the node that was asked.
    pub asked_at: String,
    /// What is still there; empty: the node is drained.
    pub left: Vec<LeftView>,
}

impl DrainView {
    /// The word in tables and JSON.
    pub fn word(&self) -> &'static str {
        if self.left.is_empty() { "drained" } else { "draining" }
    }
}

/// An instance that is still on a drained node.
#[derive(Clone, PartialEq, Debug)]
pub struct LeftView {
    /// Its service.
    pub service: ServiceName,
    /// Its index.
    pub index: u32,
    /// Why it is still there.
    pub why: String,
}

/// A service or cron spec.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// The revision that is carried out.
    pub current: RevisionView,
    /// All kept revisions, newest first, the current one among them.
    pub history: Vec<RevisionView>,
    /// How many instances are wanted on which node: one row a node, by node name. A row without a node counts indices that
    /// no node can take now.
    pub wanted: Vec<WantedView>,
}

/// How many instances of a service are wanted on a node.
#[derive(Clone, PartialEq, Debug)]
pub struct WantedView {
    /// The node as named; it need not be a member. None: no eligible node.
    pub node: Option<NodeName>,
    /// How many are wanted there.
    pub desired: u32,
    /// Why no node can take them, where none can.
    pub why: Option<String>,
}

/// What became of a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RevisionStatus {
    /// It is carried out.
    Current,
    /// It was current before.
    Past,
    /// It was made at the same time as another one on the other side of a partition, and lost.
    Superseded,
}

/// One revision of a service.
#[derive(Clone, PartialEq, Debug)]
pub struct RevisionView {
    /// Counted from 1.
    pub number: u32,
    /// `<n>-<hash8>`.
    pub id: String,
    /// What it asks for.
    pub spec: Arc<ServiceSpec>,
    /// Its binaries.
    pub images: Vec<Image>,
    /// True: its instances are to be stopped.
    pub stopped: bool,
    /// The node that took it.
    pub author: String,
    /// When that node took it, by its clock.
    pub at: Wall,
    /// `deploy`, `scale`, `stop`, `start`, `restart`, `pause`, `resume`.
    pub cause: String,
    /// What became of it.
    pub status: RevisionStatus,
}

/// The states of an instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum InstanceState {
    /// Wanted, and its node has not said anything yet.
    Pending,
    /// Its node is fetching the binary.
    Fetching,
    /// Its node is starting it.
    Starting,
    /// It runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// It ended or could not be started, and waits for the next try.
    Backoff,
    /// It failed too often and waits for its user: `service start`, `service restart` or a new deploy.
    CrashLoop,
    /// Its node is down: whether it still runs cannot be known from here.
    Unreachable,
    /// It is bound to a node that must not run it for now: it is drained, or does not meet the constraints any more.
    Stopped,
    /// It ended by itself, and its service's restart policy wants no other start.
    Finished,
}

impl InstanceState {
    /// The word in tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fetching => "fetching",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::CrashLoop => "crash-loop",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
        }
    }
}

/// An instance.
#[derive(Clone, PartialEq, Debug)]
pub struct InstanceView {
    /// Its service.
    pub service: ServiceName,
    /// Its index.
    pub index: u32,
    /// The node that runs it.
    pub node_key: NodeKey,
    /// The node's name.
    pub node: NodeName,
    /// What is thought of that node.
    pub node_status: NodeStatus,
    /// Its state, as its node reported last.
    pub state: InstanceState,
    /// True: it has been up long enough for the rollout to go on and for `--wait`, or has finished as it should.
    pub ready: bool,
    /// The revision that it was started by.
    pub revision: u32,
    /// Whether it satisfies the current revision (one that only changed numbers does not replace it).
    pub current: bool,
    /// Whether the current revision wants it there.
    pub wanted: bool,
    /// Its current or last start.
    pub run: Option<RunId>,
    /// Its first process, while it runs.
    pub pid: Option<u32>,
    /// When it was started last.
    pub started_at: Option<Wall>,
    /// How often it was started again after it ended by itself, since its revision was first started there.
    pub restarts: u32,
    /// How its last start ended, if one has.
    pub exit: Option<crate::exec::plan::Ended>,
    /// Why it does not run, where something failed.
    pub error: Option<String>,
    /// When it is tried again, while it waits for that.
    pub retry_at: Option<Wall>,
    /// What of its confinement it has, while it runs.
    pub enforced: Enforced,
}

/// Where the blobs of images stand.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CopiesView {
    /// How many nodes should hold each blob, and do or will.
    pub wanted: u32,
    /// The names of the nodes that hold a blob whole.
    pub holders: BTreeMap<BlobHash, Vec<NodeName>>,
}

impl CopiesView {
    /// The names of the nodes that hold a blob whole.
    pub fn of(&self, blob: &BlobHash) -> &[NodeName] {
        self.holders.get(blob).map_or(&[], Vec::as_slice)
    }
}

/// A ticket of this node.
#[derive(Clone, PartialEq, Debug)]
pub struct TicketView {
    /// Names it without giving it away.
    pub id: String,
    /// Until when it is good.
    pub expires: Wall,
    /// How many more members it admits.
    pub uses_left: u32,
    /// What they are there for.
    pub role: Role,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// The thing: a node or service name.
    pub subject: String,
    /// What is wrong with it and since when.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A run of a cron spec, as the node's process knows it whose run it is. In no view: it is asked for where the ledger is out of reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnRun {
    /// The run.
    pub run: Run,
    /// False where it is known by the keeper alone: then its trigger and how many attempts there may be are not known.
    pub is_told: bool,
}
