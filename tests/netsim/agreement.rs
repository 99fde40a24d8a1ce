//! A node's ledger: that of the binary, openraft and all, over the simulated network and a simulated disk. A world in which nothing needs
//! agreement does without: a group that elects leaders is most of what a small world does.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use rand::{Rng, RngExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use narun::ids::NodeKey;
use narun::ledger::office::Wants;
use narun::ledger::question::Question;
use narun::ledger::raft::network::{Broken, Channel, Wire};
use narun::ledger::raft::store::{Store, Writing};
use narun::ledger::raft::{self, Ledger, Settings, Stopped};
use narun::ledger::voters::Candidate;
use narun::node::agreement::{Questions, watch};
use narun::node::engine::input::Input;
use narun::node::shells::Agreement;

use crate::clock::SimClock;
use crate::disk::{Platter, Speed};
use crate::ledger_disk::LedgerDisk;
use crate::life::Life;
use crate::network::Fabric;
use crate::random::Stream;
use crate::trace::Trace;

/// The way of one run of a node's process to its ledger.
pub(crate) enum SimAgreement {
    /// There is none: nobody ever answers.
    None,
    /// To the ledger of that process.
    Ledger {
        /// As in the binary.
        questions: Questions,
        /// The process that asks.
        life: Arc<Life>,
        /// The host, for the record.
        host: String,
        /// Where it is recorded.
        trace: Trace,
    },
}

impl Agreement for SimAgreement {
    fn ask(&mut self, id: u64, question: Question) {
        if let Self::Ledger { questions, life, host, trace } = self
            && life.acts()
        {
            let bytes = minicbor::to_vec(&question).expect("encoding into memory cannot fail");
            trace.record(host, &format!("asks {}", word(&question)), &bytes);
            questions.ask(id, question);
        }
    }

    fn wants(&mut self, wants: Arc<Wants>) {
        if let Self::Ledger { questions, life, host, trace } = self
            && life.acts()
        {
            let nodes: usize = wants.leases.values().map(|wanted| wanted.nodes.len()).sum();
            trace.record(host, &format!("wants {} leases on {nodes} nodes", wants.leases.len()), &[]);
            questions.wants(wants);
        }
    }

    fn members(&mut self, members: Arc<[Candidate]>) {
        if let Self::Ledger { questions, life, host, trace } = self
            && life.acts()
        {
            trace.record(host, &format!("candidates {}", members.len()), &[]);
            questions.members(members);
        }
    }
}

/// A question as a line of the record.
fn word(question: &Question) -> String {
    match question {
        Question::Propose(command) => {
            let text = format!("{command:?}");
            let end = text.find([' ', '(']).unwrap_or(text.len());
            text[..end].to_owned()
        }
        Question::Renew { .. } => "Renew".to_owned(),
        Question::History { .. } => "History".to_owned(),
        Question::Standing => "Standing".to_owned(),
    }
}

/// Where a ledger stands.
pub(crate) struct Ground {
    /// Whose it is.
    pub(crate) key: NodeKey,
    /// The host, for the record.
    pub(crate) host: String,
    /// The process that it is part of.
    pub(crate) life: Arc<Life>,
    /// The host's clocks.
    pub(crate) clock: SimClock,
    /// What the disk holds of it.
    pub(crate) disk: LedgerDisk,
    /// The rest of that disk, which says how fast it is.
    pub(crate) platter: Arc<Mutex<Platter>>,
    /// The network.
    pub(crate) fabric: Fabric,
    /// All its chance.
    pub(crate) stream: Stream,
    /// After how many entries it makes a snapshot.
    pub(crate) snapshot_every: u64,
    /// Where it is recorded.
    pub(crate) trace: Trace,
}

/// What runs of a ledger in one run of a node's process.
pub(crate) struct Process {
    ledger: Ledger,
    running: raft::Running,
    writing: Writing,
    watching: JoinHandle<()>,
}

impl Process {
    /// Starts it on what the disk holds, as the binary does; the founder of the cluster founds the ledger too, if it was not done yet.
    pub(crate) async fn start(ground: Ground, founds: bool, inputs: mpsc::Sender<Input>) -> Self {
        let Ground { key, host, life, clock, disk, platter, fabric, mut stream, snapshot_every, trace } = ground;
        let store = Store::open_on(disk.open(life.clone()), Path::new("ledger.redb"))
            .expect("a disk loses what was not synced and damages nothing");
        let settings =
            Settings { snapshot_every, entries_kept: snapshot_every / 4, ..Settings::new(key, stream.next_u64()) };
        let pace = move || {
            let speed = platter.lock().unwrap_or_else(PoisonError::into_inner).speed();
            let (from, to) = match speed {
                Speed::Ordinary => (100, 3_000),
                Speed::Slow => (50_000, 1_500_000),
            };
            Duration::from_micros(stream.random_range(from..to))
        };
        let (log, machines, writing) = store.run_in_task(Box::new(pace));
        let wire = Arc::new(SimWire { fabric, key, life: life.clone(), host, trace });
        let clock = Arc::new(move || clock.read());
        let started = life.gated(Ledger::start(settings, (log, machines), wire, clock)).await;
        let (ledger, running) = started.expect("a ledger can be started on what its own disk holds");
        if founds {
            // It stands already, but for the first time.
            let _ = life.gated(ledger.found()).await;
        }
        let watching = tokio::spawn(life.gated(watch(key, ledger.clone(), inputs)));
        Self { ledger, running, writing, watching }
    }

    /// The way to it.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Waits until it cannot go on.
    pub(crate) async fn ended(&mut self) -> Stopped {
        match self.running.ended().await {
            Err(stopped) => stopped,
            Ok(()) => Stopped("it ended without being told to".to_owned()),
        }
    }

    /// Clears away what is left of it after the process has ended: nothing of it reaches the world any more.
    pub(crate) async fn bury(self) {
        self.watching.abort();
        drop((self.ledger, self.writing));
        self.running.stop().await;
    }
}

/// One node's end of the network, for its ledger.
struct SimWire {
    fabric: Fabric,
    key: NodeKey,
    life: Arc<Life>,
    host: String,
    trace: Trace,
}

impl Wire for SimWire {
    fn ask(
        &self,
        to: NodeKey,
        channel: Channel,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, Broken>> {
        let (fabric, key, life) = (self.fabric.clone(), self.key, self.life.clone());
        let (host, trace) = (self.host.clone(), self.trace.clone());
        Box::pin(async move {
            life.open().await;
            if !life.acts() {
                return Err(Broken::Unreached("the process has ended".into()));
            }
            trace.record(&host, &format!("to {}: {channel:?}", fabric.name(&to)), &request);
            let answer = fabric.request(key, to, request)?;
            match timeout(within, answer).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err(Broken::Lost("the connection broke".into())),
                Err(_) => Err(Broken::Lost(format!("nothing within {within:?}"))),
            }
        })
    }
}
