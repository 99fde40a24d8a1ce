//! The pure node: all that narun decides is decided here.
//!
//! [`Engine::handle`] applies a batch of inputs, then settles: from everything that is known it derives what should be, and asks
//! for what brings the world nearer to that. Nothing here reads a clock, opens a socket, takes a lock or draws randomness that
//! was not seeded; all maps are ordered. So a seed replays to the byte in `tests/netsim/`.
//!
//! The parts, in the order in which a turn goes through them: `network` and `requests` apply inputs to the catalog, the roster
//! and the parts below; `trust` says who is a member, `cluster` how each fares; `node_settings` is what users ask of nodes, `services`
//! what the catalog asks for; `eligibility` says who can run it, `placement` who does; `demand` says which blobs that takes, `copies` looks after them; `instances` after
//! processes, `leases` says who is wanted for each lease of the ledger, `jobs` fires cron slots, `singletons` runs what there may be one of; `housekeeping` ends histories, `absence` says for whom that does not wait; `readmodel` builds the view.

pub mod cluster;
pub mod effect;
pub mod eligibility;
pub mod input;
pub mod placement;
pub mod services;
pub mod view;

mod absence;
mod acks;
mod copies;
mod demand;
mod handover;
mod housekeeping;
mod instances;
mod jobs;
mod known;
mod launch;
mod leases;
mod network;
mod node_settings;
mod out;
mod readmodel;
mod requests;
mod restore;
mod settle;
mod singletons;
mod tickets;
mod trust;

#[cfg(test)]
mod absence_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod pause_tests;
#[cfg(test)]
mod supervision_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod town;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use crate::blobs::image::Platform;
use crate::capacity::Capacity;
use crate::crdt::admission::{Founding, Signatures, Welcome};
use crate::crdt::catalog::Catalog;
use crate::crdt::document::Actor;
use crate::crdt::roster::Roster;
use crate::gossip::dissemination::Dissemination;
use crate::gossip::membership::Membership;
use crate::gossip::sync::Rounds;
use crate::ids::{NodeKey, NodeName, ServiceName};
use crate::time::{Mono, Now, Wall};

use absence::Absence;
use acks::Acks;
use cluster::{Cluster, Standing};
use copies::Copies;
use demand::Demand;
use effect::{Peer, Turn};
use handover::Handover;
use housekeeping::Housekeeping;
use input::Input;
use instances::Instances;
use jobs::Jobs;
use known::Known;
use leases::Leases;
use node_settings::Settings;
use out::Out;
use placement::{Drain, Seat};
use readmodel::ReadModel;
use services::Services;
use singletons::Singletons;
use tickets::Tickets;
use trust::Belonging;
use view::View;

pub use restore::{RestoreError, Stored, first_rows, next_boot};

/// What an engine is told about its host and its place when it is made.
pub struct EngineConfig {
    /// Signs what this node says and checks what others say.
    pub signatures: Arc<dyn Signatures>,
    /// The cluster's founding record.
    pub founding: Founding,
    /// What the door said when this node joined; none on the founder.
    pub welcome: Option<Welcome>,
    /// This node's name, as it was admitted.
    pub name: NodeName,
    /// Where it can be reached, `HOST:PORT`, best first.
    pub addresses: Vec<String>,
    /// What its programs must be made for.
    pub platform: Platform,
    /// Labels by key, as the node was started with them.
    pub labels: BTreeMap<String, String>,
    /// What its host offers.
    pub capacity: Capacity,
    /// Absolute path of the data directory, for the paths in launch plans.
    pub data_dir: PathBuf,
    /// The name of the user whom the node runs as.
    pub user: String,
    /// Most members that this node admits to: [`MEMBERS_MAX`], but for trials of larger clusters.
    pub members_max: usize,
}

/// Most members of one cluster: the full mesh of connections and the tables of every node are made for this many.
pub const MEMBERS_MAX: usize = 300;

/// What changed since the last settle.
#[derive(Debug, Default)]
struct Dirty {
    /// These services, or what anybody reports on them.
    services: BTreeSet<ServiceName>,
    /// What shows of these services.
    rows: BTreeSet<ServiceName>,
    /// The members, or what they are.
    cluster: bool,
    /// Which blobs are named, or who holds them.
    copies: bool,
    /// What shows of the members.
    nodes: bool,
    /// What shows of instances.
    instances: bool,
    /// Who holds which blob.
    holders: bool,
    /// What shows of tickets.
    tickets: bool,
    /// Only what is wrong.
    problems: bool,
    /// Anything that shows.
    view: bool,
}

/// When a node that is no member any more is woken, should its disk never confirm that: any time will do.
const OVER_REST: Duration = Duration::from_secs(60);

/// One node's mind.
pub struct Engine {
    config: EngineConfig,
    me: NodeKey,
    boot: u64,
    rng: ChaCha8Rng,
    now: Now,
    started_at: Wall,

    catalog: Catalog,
    roster: Roster,
    /// The version of the last stamp of this boot.
    stamped: u64,
    membership: Membership,
    dissemination: Dissemination,
    rounds: Rounds,
    /// False until this node, which has just started, knows what happened while it was away: until then it starts nothing that
    /// another node may have taken over.
    caught_up: bool,

    cluster: Cluster,
    belonging: Belonging,
    /// How far each member counted, and in which life, when services were settled last for all members.
    standings: Vec<(NodeKey, Standing, u64)>,
    peers: Vec<Arc<Peer>>,
    /// Where members were when this node joined.
    welcomed: BTreeMap<NodeKey, Vec<String>>,
    known: Known,
    services: Services,
    settings: Settings,
    /// How far each drained member is.
    drains: BTreeMap<NodeKey, Drain>,
    seats: BTreeMap<ServiceName, Vec<Seat>>,
    demand: Demand,
    copies: Copies,
    instances: Instances,
    leases: Leases,
    jobs: Jobs,
    singletons: Singletons,
    handover: Option<Handover>,
    /// When each service's instances have something to do.
    deadlines: BTreeMap<ServiceName, Mono>,
    tickets: Tickets,
    acks: Acks,
    housekeeping: Housekeeping,
    absence: Absence,
    /// What members sent that was refused, by kind.
    refused: BTreeMap<(NodeKey, network::Refused), u64>,

    dirty: Dirty,
    /// How often settling over everything found something to do.
    overlooked: u64,
    read_model: ReadModel,
}

impl Engine {
    /// Applies a batch of inputs and settles.
    pub fn handle(&mut self, now: Now, inputs: Vec<Input>) -> Turn {
        assert!(now.mono >= self.now.mono, "the boot clock went back from {:?} to {:?}", self.now.mono, now.mono);
        self.now = now;
        let mut out = Out::default();
        for input in inputs {
            self.apply(input, &mut out);
        }
        // One who is no member any more has nothing to say, and starts nothing.
        if !self.is_over() {
            self.settle(&mut out);
        }
        self.settle_end(&mut out);
        out.into_turn()
    }

    fn apply(&mut self, input: Input, out: &mut Out) {
        match input {
            Input::Tick => {}
            Input::Network(event) => self.apply_network(event, out),
            Input::Process(event) => self.apply_process(event, out),
            Input::Blob(event) => self.apply_blob(event),
            Input::Ledger(event) => self.apply_ledger(event),
            Input::Request { id, request } => self.apply_request(id, request, out),
        }
    }

    /// When it wants to be called with [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Mono {
        let now = self.now.mono;
        if self.is_over() {
            // It waits for the disk alone, and that is no deadline.
            return now + OVER_REST;
        }
        let deadlines = [
            Some(self.rounds.next_deadline()),
            self.membership.next_deadline(),
            self.dissemination.next_deadline(),
            self.cluster.next_deadline(),
            self.copies.next_deadline(now),
            self.deadlines.values().min().copied(),
            self.leases.next_deadline(),
            self.jobs.next_deadline().filter(|_| self.may_ask_ledger()),
            self.singletons_deadline(),
            self.handover_deadline(),
            self.acks.next_deadline(),
            Some(self.housekeeping.next_deadline()),
        ];
        deadlines.into_iter().flatten().min().expect("a round of anti-entropy is always due some time")
    }

    /// The read model.
    pub fn view(&self) -> Arc<View> {
        self.read_model.view()
    }

    fn actor(&self) -> Actor {
        Actor { key: self.me, boot: self.boot }
    }

    /// Bytes that two engines with the same knowledge have in common: the roots of the catalog and the roster.
    pub fn roots(&self) -> ([u8; 32], [u8; 32]) {
        (self.catalog.tree().root(), self.roster.tree().root())
    }
}
