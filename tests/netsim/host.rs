//! One simulated machine: what outlives its node's process, and that process while it runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use narun::blobs::image::Platform;
use narun::capacity::{Capacity, CgroupLayout};
use narun::crdt::admission::{Founding, Welcome};
use narun::crdt::trust::Gone;
use narun::ids::{NodeKey, NodeName};
use narun::ledger::raft::Ledger;
use narun::node::agreement::Questions;
use narun::node::engine::{Engine, EngineConfig, first_rows, next_boot};
use narun::node::handle::{COMMANDS_MAX, NodeHandle};
use narun::node::layout::Layout;
use narun::node::runtime::{self, Doors, INPUTS_MAX};
use narun::node::shells::DiskError;

use crate::agreement::{Ground, Process, SimAgreement};
use crate::blobs::{Shelf, Shelves, SimBlobs};
use crate::clock::SimClock;
use crate::disk::{Platter, SimDisk};
use crate::ledger_disk::LedgerDisk;
use crate::life::{End, Life};
use crate::network::{Death, Fabric, SimNetwork};
use crate::processes::{Keeper, SimProcesses};
use crate::random;
use crate::signatures::SimSignatures;
use crate::stamps::Stamps;
use crate::trace::Trace;

/// After how many entries ledgers make snapshots, by the seed: as in the binary, and so often that there are some in a short world.
const SNAPSHOTS_EVERY: [u64; 3] = [4_096, 256, 64];

/// A machine.
pub(crate) struct Host {
    /// Its name, and its node's.
    pub(crate) name: NodeName,
    /// Its node's key.
    pub(crate) key: NodeKey,
    /// Its clocks.
    pub(crate) clock: SimClock,
    /// Its disk.
    pub(crate) platter: Arc<Mutex<Platter>>,
    /// What it holds of the ledger; none in a world without one.
    pub(crate) ledger_disk: Option<LedgerDisk>,
    /// Its keeper and its processes.
    pub(crate) keeper: Keeper,
    /// Its blobs.
    pub(crate) shelf: Shelf,
    /// Its node's process, while it runs.
    pub(crate) running: Option<Running>,
    /// How often its node was started.
    pub(crate) boots: u32,
    /// Why its node is no member any more, once it has ended for that.
    pub(crate) gone: Option<Gone>,
    layout: Layout,
    seed: u64,
    fabric: Fabric,
    trace: Trace,
}

/// A node's process.
pub(crate) struct Running {
    /// Pauses and ends it.
    pub(crate) life: Arc<Life>,
    /// The door to it.
    pub(crate) handle: NodeHandle,
    /// The way to its ledger.
    pub(crate) ledger: Option<Ledger>,
    task: JoinHandle<(End, Option<Process>)>,
}

/// What all hosts of a world share.
pub(crate) struct Shared {
    /// The seed.
    pub(crate) seed: u64,
    /// Whether they have a ledger.
    pub(crate) has_ledger: bool,
    /// The network.
    pub(crate) fabric: Fabric,
    /// All their blobs.
    pub(crate) shelves: Shelves,
    /// What attempts leave behind.
    pub(crate) stamps: Stamps,
    /// What happened.
    pub(crate) trace: Trace,
}

impl Host {
    /// A machine that was never started, its wall clock off by `skew_ms`.
    pub(crate) fn new(name: &str, skew_ms: i64, shared: &Shared) -> Self {
        let Shared { seed, has_ledger, fabric, shelves, stamps, trace } = shared;
        let key = key_of(name);
        let layout = Layout::new(format!("/{name}"));
        let clock = SimClock::new(name, skew_ms);
        let shelf = Shelf::new(name, key, layout.clone(), fabric.clone(), shelves, trace.clone());
        let stream = |what: &str| random::stream(*seed, &format!("{what} of {name}"));
        let keeper = Keeper::new(name, clock.clone(), shelf.clone(), stream("keeper"), stamps.clone(), trace.clone());
        Self {
            name: NodeName::new(name).expect("hosts have good names"),
            key,
            clock,
            platter: Platter::new(stream("disk")),
            ledger_disk: has_ledger.then(LedgerDisk::default),
            keeper,
            shelf,
            running: None,
            boots: 0,
            gone: None,
            layout,
            seed: *seed,
            fabric: fabric.clone(),
            trace: trace.clone(),
        }
    }

    /// Where its node says it can be reached.
    pub(crate) fn addresses(&self) -> Vec<String> {
        vec![format!("{}:7000", self.name)]
    }

    /// Whether its node belongs to a cluster.
    pub(crate) fn belongs(&self) -> bool {
        let rows = self.platter().rows();
        !rows.is_empty() && EngineConfig::read_gone(&rows).expect("a disk loses batches and damages none").is_none()
    }

    /// Writes down to which cluster its node belongs, as the binary does before it starts a node for the first time.
    pub(crate) fn belong(&self, founding: &Founding, welcome: Option<&Welcome>) {
        self.platter().install(first_rows(founding, welcome));
    }

    /// Starts the node's process on what the disk holds.
    pub(crate) async fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.boots += 1;
        self.trace.record(self.name.as_str(), &format!("start {}", self.boots), &[]);
        let mut rows = self.platter().rows();
        let boot = next_boot(&mut rows).expect("a disk loses batches and damages none");
        self.platter().install(vec![boot]);
        let cluster = EngineConfig::read_cluster(&rows).expect("a disk loses batches and damages none");
        let (founding, welcome) = cluster.expect("a node is started once it has a cluster");
        let founds = founding.founder == self.key;
        let config = EngineConfig {
            signatures: Arc::new(SimSignatures(self.key)),
            founding,
            welcome,
            name: self.name.clone(),
            addresses: self.addresses(),
            platform: Platform::new("linux", "amd64"),
            labels: BTreeMap::new(),
            capacity: capacity(),
            data_dir: self.layout.root().to_owned(),
            user: "narun".to_owned(),
            members_max: usize::MAX,
        };
        let seed = rand::Rng::next_u64(&mut random::stream(self.seed, &format!("engine {} {}", self.name, self.boots)));
        let engine =
            Engine::restore(&rows, config, seed, self.clock.read()).expect("a disk loses batches and damages none");

        let life = Life::new();
        let (inputs, from_shells) = mpsc::channel(INPUTS_MAX);
        let (commands, from_people) = mpsc::channel(COMMANDS_MAX);
        let (view, shown) = watch::channel(engine.view());
        let (host, trace) = (self.name.to_string(), self.trace.clone());
        let mut process = match self.ground(&life) {
            Some(ground) => Some(Process::start(ground, founds, inputs.clone()).await),
            None => None,
        };
        let ledger = process.as_ref().map(Process::ledger);
        let agreement = match &ledger {
            None => SimAgreement::None,
            Some(ledger) => SimAgreement::Ledger {
                questions: Questions::new(ledger.clone(), inputs.clone()),
                life: life.clone(),
                host: host.clone(),
                trace: trace.clone(),
            },
        };
        let world = runtime::World {
            network: SimNetwork {
                fabric: self.fabric.clone(),
                key: self.key,
                life: life.clone(),
                host: host.clone(),
                trace: trace.clone(),
            },
            disk: SimDisk { platter: self.platter.clone(), life: life.clone(), host, trace },
            processes: SimProcesses { keeper: self.keeper.clone(), life: life.clone() },
            blobs: SimBlobs { shelf: self.shelf.clone(), life: life.clone() },
            ledger: agreement,
            clock: self.clock.clone(),
        };
        let handle = NodeHandle::new(commands, shown);
        self.fabric.attach(self.key, inputs.clone(), handle.clone(), life.clone());
        if let Some(ledger) = &ledger {
            self.fabric.attach_ledger(self.key, ledger.clone());
        }
        self.keeper.attach(inputs.clone());
        self.shelf.attach(inputs);
        let node = runtime::run(engine, world, Doors { inputs: from_shells, commands: from_people, view });
        let task = tokio::spawn({
            let life = life.clone();
            async move {
                let end = match &mut process {
                    None => life.live(node).await,
                    Some(process) => life.live(or_stopped(node, process)).await,
                };
                (end, process)
            }
        });
        self.running = Some(Running { life, handle, ledger, task });
    }

    /// Where the ledger of its node's process stands.
    fn ground(&self, life: &Arc<Life>) -> Option<Ground> {
        let disk = self.ledger_disk.clone()?;
        Some(Ground {
            key: self.key,
            host: self.name.to_string(),
            life: life.clone(),
            clock: self.clock.clone(),
            disk,
            platter: self.platter.clone(),
            fabric: self.fabric.clone(),
            stream: random::stream(self.seed, &format!("ledger {} {}", self.name, self.boots)),
            snapshot_every: SNAPSHOTS_EVERY[self.seed as usize % SNAPSHOTS_EVERY.len()],
            trace: self.trace.clone(),
        })
    }

    /// Ends the node's process, if it runs: alone, or with the whole machine.
    pub(crate) async fn end(&mut self, death: Death) {
        let Some(running) = self.running.take() else {
            if death == Death::Host {
                self.power_off();
            }
            return;
        };
        self.trace.record(self.name.as_str(), &format!("end {death:?}"), &[]);
        running.life.end();
        self.fabric.detach(self.key, death);
        self.platter().crash(running.life.fuse());
        self.crash_ledger(death);
        match death {
            Death::Process => self.keeper.detach(),
            Death::Host => self.power_off(),
        }
        end_of(running, &self.name).await;
    }

    fn crash_ledger(&self, death: Death) {
        if let Some(disk) = &self.ledger_disk {
            disk.crash(death == Death::Process || self.boots.is_multiple_of(2));
        }
    }

    /// Whether the process ended by itself; then it is cleared away.
    pub(crate) async fn ended(&mut self) -> Option<End> {
        let running = self.running.take_if(|running| running.task.is_finished())?;
        running.life.end();
        self.fabric.detach(self.key, Death::Process);
        self.platter().crash(running.life.fuse());
        self.crash_ledger(Death::Process);
        self.keeper.detach();
        let end = end_of(running, &self.name).await;
        if let End::Returned(Ok(Some(gone))) = &end {
            // As the binary does: what it ran was the cluster's.
            self.keeper.die(false);
            self.gone = Some(gone.clone());
        }
        self.trace.record(self.name.as_str(), &format!("ended: {end:?}"), &[]);
        Some(end)
    }

    /// The disk.
    pub(crate) fn platter(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn power_off(&self) {
        self.keeper.die(false);
        self.clock.reboot();
    }
}

/// What every machine offers.
fn capacity() -> Capacity {
    Capacity {
        cores: 4,
        memory_bytes: 8 << 30,
        kernel: "6.12.0".to_owned(),
        landlock_abi: 6,
        cgroup: CgroupLayout::V2,
        cgroup_controllers: vec!["cpu".to_owned(), "memory".to_owned()],
        is_root: true,
    }
}

/// The key of the node on the host of that name.
pub(crate) fn key_of(name: &str) -> NodeKey {
    NodeKey(*blake3::hash(name.as_bytes()).as_bytes())
}

/// Runs a node for as long as its ledger can go on.
async fn or_stopped(
    node: impl Future<Output = Result<Option<Gone>, DiskError>>,
    process: &mut Process,
) -> Result<Option<Gone>, DiskError> {
    tokio::select! {
        biased;
        ended = node => ended,
        stopped = process.ended() => Err(DiskError(stopped.to_string())),
    }
}

/// Waits for a process that ends. A panic in it goes on from here.
async fn end_of(running: Running, name: &NodeName) -> End {
    let Running { task, ledger, .. } = running;
    drop(ledger);
    match task.await {
        Ok((end, process)) => {
            if let Some(process) = process {
                process.bury().await;
            }
            end
        }
        Err(error) => match error.try_into_panic() {
            Ok(panic) => {
                eprintln!("the node of {name} panicked");
                std::panic::resume_unwind(panic)
            }
            Err(error) => panic!("the task of {name} was cancelled by nobody: {error}"),
        },
    }
}
