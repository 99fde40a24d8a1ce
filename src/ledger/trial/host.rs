//! A simulated host: clocks, a disk and a keeper, which outlive the node's process, and that process: a real duty over a real ledger.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::EPOCH;
use super::book::{Book, Moment};
use super::catalog::View;
use super::fabric::Fabric;
use super::keeper::Keeper;
use crate::exec::plan::Ended;
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::duty::{Act, Duty};
use crate::ledger::question::Answer;
use crate::ledger::raft::gate::{Gate, behind};
use crate::ledger::raft::runtime::scope;
use crate::ledger::raft::store::Store;
use crate::ledger::raft::store::Writing;
use crate::ledger::raft::store::faulty::Disk;
use crate::ledger::raft::{Ledger, Running, Settings};
use crate::time::{Mono, Now, Wall};

/// Both clocks of a host. The calendar may be wrong; the boot clock is not.
pub(super) struct HostClock {
    began: Instant,
    /// Milliseconds by which the calendar is ahead.
    ahead: AtomicI64,
}

impl HostClock {
    pub(super) fn new(began: Instant) -> Arc<Self> {
        Arc::new(Self { began, ahead: AtomicI64::new(0) })
    }

    pub(super) fn moment(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_millis()).expect("a trial ends")
    }

    pub(super) fn now(&self) -> Now {
        let mono = self.moment();
        let wall = (EPOCH.0 + mono).saturating_add_signed(self.ahead.load(Ordering::Relaxed));
        Now { mono: Mono(mono), wall: Wall(wall) }
    }

    pub(super) fn set_ahead(&self, millis: i64) {
        self.ahead.store(millis, Ordering::Relaxed);
    }

    pub(super) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

/// What the node's process is told.
pub(super) enum Input {
    Answered(u64, Answer),
    Started(RunId, Wall),
    NotStarted(RunId),
    Ended(RunId, Ended),
    Specs(Vec<ServiceName>),
    ClockStepped,
}

/// A process of a node ends between two steps; with its host, or alone.
pub(super) struct Death {
    pub(super) host: usize,
    pub(super) life: u64,
}

pub(super) struct Host {
    pub(super) key: NodeKey,
    number: usize,
    seed: u64,
    pub(super) clock: Arc<HostClock>,
    pub(super) disk: Disk,
    /// The longest pause of the disk, in microseconds.
    pub(super) disk_pause: Arc<AtomicU64>,
    pub(super) keeper: Arc<Keeper>,
    /// What it knows of the catalog.
    pub(super) view: Arc<Mutex<Arc<View>>>,
    pub(super) process: Option<Process>,
    pub(super) life: u64,
    pub(super) is_member: bool,
    pub(super) is_paused: bool,
    pub(super) down_since: Option<Moment>,
}

pub(super) struct Process {
    pub(super) ledger: Ledger,
    pub(super) gate: Gate,
    pub(super) inbox: UnboundedSender<Input>,
    /// How many steps the process has left to do, if not all.
    pub(super) fuse: Arc<Mutex<Option<u32>>>,
    running: Running,
    writing: Writing,
    node: JoinHandle<()>,
}

impl Host {
    pub(super) fn new(number: usize, seed: u64, fabric: &Fabric, book: &Arc<Mutex<Book>>) -> Self {
        let clock = HostClock::new(fabric.began);
        let keeper = Keeper::new(number, seed ^ 0x6b65, clock.clone(), book.clone());
        Self {
            key: super::node(number),
            number,
            seed,
            clock,
            disk: Disk::new(seed ^ 0x6469),
            disk_pause: Arc::new(AtomicU64::new(super::DISK_PAUSE_US)),
            keeper,
            view: Arc::default(),
            process: None,
            life: 0,
            is_member: false,
            is_paused: false,
            down_since: Some(0),
        }
    }

    /// Starts the node's process, with what is on the disk.
    pub(super) async fn start(
        &mut self,
        (fabric, book): (&Arc<Fabric>, &Mutex<Book>),
        snapshot_every: u64,
        deaths: &UnboundedSender<Death>,
    ) {
        assert!(self.process.is_none(), "host {} runs", self.number);
        self.life += 1;
        (self.down_since, self.is_paused) = (None, false);
        let seed = self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(self.life);
        let store = Store::open_on(self.disk.taken_over(), std::path::Path::new("ledger.redb"));
        let store = match store {
            Ok(store) => store,
            Err(error) => {
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                book.wrongs.push(format!("host {} cannot read what it has synced: {error}", self.number));
                return;
            }
        };
        let (mut pace, longest) = (StdRng::seed_from_u64(seed), self.disk_pause.clone());
        let pace = move || Duration::from_micros(pace.random_range(100..longest.load(Ordering::Relaxed).max(101)));
        let (log, machines, writing) = store.run_in_task(Box::new(pace));
        let settings =
            Settings { snapshot_every, entries_kept: snapshot_every / 4, ..Settings::new(self.key, seed ^ 0x7261) };
        let (gate, clock) = (Gate::default(), self.clock.clone());
        let now = Arc::new(move || clock.now());
        let started = Ledger::start(settings, (log, machines), fabric.port(self.key), now);
        let (ledger, running) = behind(gate.clone(), started).await.expect("the disk works");
        fabric.open(self.key, ledger.clone(), gate.clone());
        let (inbox, inputs) = unbounded_channel();
        let fuse = Arc::new(Mutex::new(None));
        let node = Node {
            duty: Duty::new(self.key, seed ^ 0x6c69),
            clock: self.clock.clone(),
            ledger: ledger.clone(),
            gate: gate.clone(),
            keeper: self.keeper.clone(),
            view: self.view.clone(),
            inputs,
            inbox: inbox.clone(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            fuse: fuse.clone(),
        };
        let (deaths, death) = (deaths.clone(), Death { host: self.number, life: self.life });
        let node = tokio::spawn(scope(
            seed,
            behind(gate.clone(), async move {
                node.live().await;
                // Fails at the end of a trial, when nobody cares.
                let _ = deaths.send(death);
            }),
        ));
        ledger.wants(self.view.lock().unwrap_or_else(PoisonError::into_inner).wants.clone());
        self.process = Some(Process { ledger, gate, inbox, fuse, running, writing, node });
    }

    /// The process is gone at once. What is left of it reaches neither network nor disk nor keeper.
    pub(super) async fn crash(&mut self, fabric: &Fabric, with_power: bool) {
        fabric.close(self.key);
        if with_power {
            self.disk.cut();
        } else {
            self.disk.kill();
        }
        self.keeper.meet(None);
        if with_power {
            self.keeper.lose_power();
        }
        self.down_since = Some(self.clock.moment());
        self.is_paused = false;
        if let Some(Process { ledger, gate, running, writing, node, .. }) = self.process.take() {
            node.abort();
            gate.open();
            drop((ledger, writing));
            // It may wait for messages that never come.
            tokio::spawn(async move { running.stop().await });
        }
    }
}

/// The process of a node, as far as the ledger is concerned.
struct Node {
    duty: Duty,
    clock: Arc<HostClock>,
    ledger: Ledger,
    gate: Gate,
    keeper: Arc<Keeper>,
    view: Arc<Mutex<Arc<View>>>,
    inputs: UnboundedReceiver<Input>,
    inbox: UnboundedSender<Input>,
    rng: ChaCha8Rng,
    fuse: Arc<Mutex<Option<u32>>>,
}

impl Node {
    /// Until its fuse has burnt.
    async fn live(mut self) {
        let held = self.keeper.meet(Some(self.inbox.clone()));
        self.duty.holding(self.clock.now(), held);
        loop {
            let view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for act in self.duty.settle(self.clock.now(), &*view, &mut self.rng) {
                if self.is_burnt() {
                    return;
                }
                self.carry_out(act, &view);
            }
            let due = self.duty.next_deadline().unwrap_or(Mono(u64::MAX >> 20));
            let due = self.clock.began + Duration::from_millis(due.0);
            tokio::select! {
                biased;
                input = self.inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    while let Ok(input) = self.inputs.try_recv() {
                        self.take(input);
                    }
                }
                () = sleep_until(due) => {}
            }
            if self.is_burnt() {
                return;
            }
        }
    }

    /// Counts one step.
    fn is_burnt(&self) -> bool {
        match &mut *self.fuse.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Answered(id, answer) => self.duty.answered(now, id, answer),
            Input::Started(attempt, at) => self.duty.started(now, attempt, at),
            Input::NotStarted(attempt) => self.duty.failed_to_start(now, attempt, "no such program".into()),
            Input::Ended(attempt, ended) => self.duty.ended(attempt, &ended),
            Input::Specs(names) => names.iter().for_each(|name| self.duty.spec_changed(name)),
            Input::ClockStepped => self.duty.clock_stepped(),
        }
    }

    fn carry_out(&mut self, act: Act, view: &View) {
        match act {
            Act::Ask { id, question } => {
                let (ledger, inbox) = (self.ledger.clone(), self.inbox.clone());
                tokio::spawn(behind(self.gate.clone(), async move {
                    let answer = ledger.ask(question).await;
                    // Fails where the process has gone meanwhile.
                    let _ = inbox.send(Input::Answered(id, answer));
                }));
            }
            Act::Launch { job, attempt, run } => {
                match view.habits.get(&job.name) {
                    Some(habit) => self.keeper.launch(job, attempt, *run, habit),
                    // A host that has just joined may be given the next attempt of a run before it has heard of the spec.
                    None => drop(self.inbox.send(Input::NotStarted(attempt))),
                }
            }
            Act::Stop { attempt } => self.keeper.stop(attempt),
            Act::Acknowledge { attempt } => self.keeper.forget(attempt),
        }
    }
}
