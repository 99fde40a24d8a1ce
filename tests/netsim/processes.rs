//! The pretend keeper of a host: it owns the host's pretend processes, outlives the node's process and dies with the host.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;

use narun::confinement::Enforced;
use narun::exec::plan::{Ended, Kept, LaunchPlan, ProcessEvent};
use narun::ids::RunId;
use narun::node::engine::input::Input;
use narun::node::shells::Processes;
use narun::time::Mono;

use crate::blobs::Shelf;
use crate::clock::SimClock;
use crate::invariants::{one_run, verified};
use crate::life::Life;
use crate::outbox::Outbox;
use crate::program::Program;
use crate::random::{self, Stream};
use crate::stamps::Stamps;
use crate::trace::Trace;

/// After how long without its node a keeper stops what other nodes take over: the time until the node is held for dead, and
/// the grace before its indices move.
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_secs(20);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// The keeper of one host; cheap to clone.
#[derive(Clone)]
pub(crate) struct Keeper(Arc<Inner>);

struct Inner {
    host: String,
    clock: SimClock,
    shelf: Shelf,
    stamps: Stamps,
    trace: Trace,
    state: Mutex<State>,
}

struct State {
    stream: Stream,
    runs: BTreeMap<RunId, Run>,
    next_pid: u32,
    /// Counts deaths of the keeper: what was on its way under an earlier one is void.
    generation: u64,
    /// The node, once it was told what is held.
    node: Option<Outbox>,
    /// Counts nodes that came and went.
    visits: u64,
}

struct Run {
    kept: Kept,
    /// Nothing: the launch is under way.
    program: Option<Program>,
    /// The number of its stamp, if it is an attempt of a run and has begun.
    stamp: Option<usize>,
}

impl Run {
    fn lives(&self) -> bool {
        self.kept.ended.is_none()
    }
}

impl Keeper {
    /// A keeper that holds nothing.
    pub(crate) fn new(host: &str, clock: SimClock, shelf: Shelf, stream: Stream, stamps: Stamps, trace: Trace) -> Self {
        let state = State { stream, runs: BTreeMap::new(), next_pid: 100, generation: 0, node: None, visits: 0 };
        Self(Arc::new(Inner { host: host.to_owned(), clock, shelf, stamps, trace, state: Mutex::new(state) }))
    }

    /// What lives on this host now.
    pub(crate) fn living(&self) -> Vec<Kept> {
        self.lock().runs.values().filter(|run| run.lives()).map(|run| run.kept.clone()).collect()
    }

    /// How many runs the keeper holds, ended ones that were not acknowledged among them.
    pub(crate) fn held(&self) -> usize {
        self.lock().runs.len()
    }

    /// A node's process came up: soon it is told what is held.
    pub(crate) fn attach(&self, inputs: mpsc::Sender<Input>) {
        let (after, visit) = {
            let mut state = self.lock();
            state.visits += 1;
            (random::millis(&mut state.stream, 1, 50), state.visits)
        };
        let keeper = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut state = keeper.lock();
            if state.visits == visit {
                let outbox = Outbox::new(inputs);
                let held = state.runs.values().map(|run| run.kept.clone()).collect::<Vec<_>>();
                keeper.0.trace.record(&keeper.0.host, &format!("holding {}", held.len()), &[]);
                outbox.put(Input::Process(ProcessEvent::Holding(held)));
                state.node = Some(outbox);
            }
        });
    }

    /// The node's process is gone.
    pub(crate) fn detach(&self) {
        let (visit, generation) = {
            let mut state = self.lock();
            state.node = None;
            state.visits += 1;
            (state.visits, state.generation)
        };
        let keeper = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ORPHAN_GRACE).await;
            let runs: Vec<RunId> = {
                let state = keeper.lock();
                if state.visits != visit || state.generation != generation {
                    return;
                }
                state.runs.values().filter(|run| run.kept.plan.replaceable).map(|run| run.kept.plan.run).collect()
            };
            for run in runs {
                keeper.end(run, None, SIGKILL, 1, 20);
            }
        });
    }

    /// The keeper dies, and all that it holds; `again`: a new one takes its place and the node hears of it.
    pub(crate) fn die(&self, again: bool) {
        let mut state = self.lock();
        state.generation += 1;
        for stamp in state.runs.values().filter_map(|run| run.stamp) {
            self.0.stamps.end(stamp);
        }
        state.runs.clear();
        self.0.trace.record(&self.0.host, "keeper lost", &[]);
        if !again {
            state.node = None;
            state.visits += 1;
            return;
        }
        let Some(node) = state.node.clone() else { return };
        node.put(Input::Process(ProcessEvent::KeeperLost));
        let after = random::millis(&mut state.stream, 50, 2_000);
        let keeper = self.clone();
        let (visit, generation) = (state.visits, state.generation);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let state = keeper.lock();
            if (state.visits, state.generation) == (visit, generation) {
                let held = state.runs.values().map(|run| run.kept.clone()).collect();
                node.put(Input::Process(ProcessEvent::Holding(held)));
            }
        });
    }

    fn launch(&self, plan: LaunchPlan) {
        let run = plan.run;
        let mut state = self.lock();
        if state.runs.contains_key(&run) {
            return self.0.trace.violated("runs are named once", &format!("{run} on {}", self.0.host));
        }
        let living = state.runs.values().filter(|run| run.lives()).map(|run| &run.kept);
        if let Err(text) = one_run::check(&plan, living) {
            self.0.trace.violated("one run an instance", &format!("on {}: {text}", self.0.host));
        }
        if let Err(text) = verified::check(&plan, &self.0.shelf) {
            self.0.trace.violated("verified bytes only", &format!("on {}: {text}", self.0.host));
        }
        let Some(program) = Program::of_args(&plan.args) else {
            return self.0.trace.violated("plans carry arguments", &format!("{}: {:?}", plan.instance, plan.args));
        };
        state.next_pid += 1;
        let kept = Kept {
            plan,
            pid: state.next_pid,
            started_at: self.0.clock.wall(),
            ended: None,
            enforced: Enforced::default(),
        };
        state.runs.insert(run, Run { kept, program: None, stamp: None });
        let after = random::millis(&mut state.stream, 2, 40);
        let generation = state.generation;
        drop(state);
        let keeper = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            keeper.launched(run, program, generation);
        });
    }

    fn launched(&self, run: RunId, program: Program, generation: u64) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        if program == Program::Fails {
            state.runs.remove(&run);
            let error = "cannot run the program: exec format error".to_owned();
            return self.tell(&state, ProcessEvent::LaunchFailed { run, error });
        }
        let Some(held) = state.runs.get_mut(&run).filter(|held| held.lives()) else { return };
        held.program = Some(program);
        held.stamp = held.kept.plan.is_job.then(|| self.0.stamps.begin(&self.0.host, &held.kept.plan));
        let event =
            ProcessEvent::Launched { run, pid: held.kept.pid, at: held.kept.started_at, enforced: Enforced::default() };
        self.tell(&state, event);
        drop(state);
        if let Program::Ends { code, after_ms } = program {
            self.end(run, Some(code), 0, after_ms, after_ms);
        }
    }

    /// Ends a run between `from` and `to` milliseconds from now, by exit code or by signal.
    fn end(&self, run: RunId, code: Option<i32>, signal: i32, from: u64, to: u64) {
        let (after, generation) = {
            let mut state = self.lock();
            (random::millis(&mut state.stream, from, to), state.generation)
        };
        let keeper = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut state = keeper.lock();
            let at = keeper.0.clock.wall();
            let alive = state.generation == generation;
            let Some(held) = state.runs.get_mut(&run).filter(|held| alive && held.lives()) else { return };
            let ended = Ended { code, signal: code.is_none().then_some(signal), at, oom_kills: 0 };
            held.kept.ended = Some(ended);
            if let Some(stamp) = held.stamp {
                keeper.0.stamps.end(stamp);
            }
            keeper.tell(&state, ProcessEvent::Exited { run, ended });
        });
    }

    fn signal(&self, run: RunId, signal: i32) {
        let deaf = match self.lock().runs.get(&run) {
            Some(held) => held.program == Some(Program::Stubborn),
            None => return,
        };
        match signal {
            SIGKILL => self.end(run, None, SIGKILL, 1, 20),
            SIGTERM if !deaf => self.end(run, None, SIGTERM, 5, 300),
            _ => {}
        }
    }

    fn acknowledge(&self, run: RunId) {
        let mut state = self.lock();
        if state.runs.get(&run).is_some_and(|held| !held.lives()) {
            state.runs.remove(&run);
        }
    }

    fn tell(&self, state: &State, event: ProcessEvent) {
        self.0.trace.record(&self.0.host, &word(&event), &[]);
        if let Some(node) = &state.node {
            node.put(Input::Process(event));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An event as a line of the record.
fn word(event: &ProcessEvent) -> String {
    match event {
        ProcessEvent::Holding(held) => format!("holding {}", held.len()),
        ProcessEvent::Launched { run, .. } => format!("launched {run:?}"),
        ProcessEvent::LaunchFailed { run, .. } => format!("launch failed {run:?}"),
        ProcessEvent::Exited { run, ended } => format!("exited {run:?} {:?} {:?}", ended.code, ended.signal),
        ProcessEvent::KeeperLost => "keeper lost".to_owned(),
    }
}

/// The way of one run of a node's process to its host's keeper.
pub(crate) struct SimProcesses {
    /// The keeper.
    pub(crate) keeper: Keeper,
    /// The process that asks.
    pub(crate) life: Arc<Life>,
}

impl SimProcesses {
    fn ask(&self, what: &str, bytes: &[u8]) -> bool {
        let acts = self.life.acts();
        if acts {
            self.keeper.0.trace.record(&self.keeper.0.host, what, bytes);
        }
        acts
    }
}

impl Processes for SimProcesses {
    fn launch(&mut self, plan: LaunchPlan) {
        let bytes = minicbor::to_vec(&plan).expect("encoding into memory cannot fail");
        if self.ask(&format!("launch {} {:?} revision {}", plan.instance, plan.run, plan.revision), &bytes) {
            self.keeper.launch(plan);
        }
    }

    fn signal(&mut self, run: RunId, signal: i32) {
        if self.ask(&format!("signal {run:?} {signal}"), &[]) {
            self.keeper.signal(run, signal);
        }
    }

    fn kill(&mut self, run: RunId) {
        if self.ask(&format!("kill {run:?}"), &[]) {
            self.keeper.signal(run, SIGKILL);
        }
    }

    /// The worlds that there are have no singletons.
    fn extend(&mut self, _: RunId, _: Mono) {}

    fn acknowledge(&mut self, run: RunId) {
        if self.ask(&format!("acknowledge {run:?}"), &[]) {
            self.keeper.acknowledge(run);
        }
    }
}

mod tests;
