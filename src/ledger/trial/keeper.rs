//! A simulated keeper: it holds programs, which outlive the node's process and end with their host.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::book::{Book, Cause, End, Start};
use super::host::{HostClock, Input};
use crate::exec::plan::Ended;
use crate::ids::RunId;
use crate::ledger::command::JobKey;
use crate::ledger::run::Run;
use crate::time::Wall;

/// How long a start takes, and how long a program takes to end when it is asked to, in milliseconds.
const STARTS_WITHIN: Range<u64> = 1..10;
const STOPS_WITHIN: Range<u64> = 1..400;

/// Of a hundred starts so many fail.
const START_FAILURES: u32 = 1;

/// How the programs of a job fare.
#[derive(Clone, Debug)]
pub(super) struct Habit {
    /// How long they run, in milliseconds.
    pub(super) runs_for: Range<u64>,
    /// Of a hundred so many fail.
    pub(super) failures: u32,
}

/// One host's.
pub(super) struct Keeper {
    host: usize,
    clock: Arc<HostClock>,
    book: Arc<Mutex<Book>>,
    state: Mutex<State>,
}

struct State {
    held: BTreeMap<RunId, Held>,
    /// The node's process, while there is one.
    node: Option<UnboundedSender<Input>>,
    /// Counts the times that the host lost its power.
    power_cuts: u64,
    random: ChaCha8Rng,
}

struct Held {
    /// Which start in the book.
    number: usize,
    started: Wall,
    ended: Option<Ended>,
    stop: Arc<Notify>,
}

impl Keeper {
    pub(super) fn new(host: usize, seed: u64, clock: Arc<HostClock>, book: Arc<Mutex<Book>>) -> Arc<Self> {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let state = State { held: BTreeMap::new(), node: None, power_cuts: 0, random };
        Arc::new(Self { host, clock, book, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's process is there, or is not any more; it is told what is held.
    pub(super) fn meet(&self, node: Option<UnboundedSender<Input>>) -> Vec<(RunId, Wall, Option<Ended>)> {
        let mut state = self.lock();
        state.node = node;
        state.held.iter().map(|(id, held)| (*id, held.started, held.ended)).collect()
    }

    /// Starts a program.
    pub(super) fn launch(self: &Arc<Self>, job: JobKey, attempt: RunId, run: Run, habit: &Habit) {
        let (now, at) = (self.clock.now(), self.clock.moment());
        let mut state = self.lock();
        let delay = Duration::from_millis(state.random.random_range(STARTS_WITHIN));
        let lasts = Duration::from_millis(state.random.random_range(habit.runs_for.clone()));
        let code = i32::from(state.random.random_range(0..100) < habit.failures);
        if state.random.random_range(0..100) < START_FAILURES {
            let node = state.node.clone();
            tokio::spawn(async move {
                sleep(delay).await;
                tell(node.as_ref(), Input::NotStarted(attempt));
            });
            return;
        }
        let stop = Arc::new(Notify::new());
        let number = {
            let mut book = self.book();
            book.starts.push(Start { job, run, attempt, host: self.host, at, end: None });
            book.starts.len() - 1
        };
        state.held.insert(attempt, Held { number, started: now.wall, ended: None, stop: stop.clone() });
        let (keeper, power_cuts) = (self.clone(), state.power_cuts);
        tokio::spawn(async move {
            sleep(delay).await;
            tell(keeper.lock().node.as_ref(), Input::Started(attempt, now.wall));
            let (code, cause) = tokio::select! {
                biased;
                () = stop.notified() => {
                    let grace = keeper.lock().random.random_range(STOPS_WITHIN);
                    sleep(Duration::from_millis(grace)).await;
                    (None, Cause::Stopped)
                }
                () = sleep(lasts) => (Some(code), Cause::Itself),
            };
            if keeper.lock().power_cuts == power_cuts {
                keeper.end(attempt, number, code, cause);
            }
        });
    }

    fn end(&self, attempt: RunId, number: usize, code: Option<i32>, cause: Cause) {
        let (wall, at) = (self.clock.now().wall, self.clock.moment());
        self.book().starts[number].end = Some(End { at, wall, code, cause });
        let ended = Ended { code, signal: code.is_none().then_some(15), at: wall, oom_kills: 0 };
        let mut state = self.lock();
        if let Some(held) = state.held.get_mut(&attempt).filter(|held| held.number == number) {
            held.ended = Some(ended);
        }
        tell(state.node.as_ref(), Input::Ended(attempt, ended));
    }

    /// Asks a program to end.
    pub(super) fn stop(&self, attempt: RunId) {
        if let Some(held) = self.lock().held.get(&attempt) {
            held.stop.notify_one();
        }
    }

    /// Forgets a program that has ended.
    pub(super) fn forget(&self, attempt: RunId) {
        let mut state = self.lock();
        if state.held.get(&attempt).is_some_and(|held| held.ended.is_none()) {
            self.book().wrongs.push(format!("host {} lets its keeper forget {attempt}, which runs", self.host));
        }
        state.held.remove(&attempt);
    }

    /// The host loses its power, and all its programs with it.
    pub(super) fn lose_power(&self) {
        let (wall, at) = (self.clock.now().wall, self.clock.moment());
        let mut state = self.lock();
        state.power_cuts += 1;
        let mut book = self.book();
        book.power_cuts.push((self.host, at));
        for held in std::mem::take(&mut state.held).into_values().filter(|held| held.ended.is_none()) {
            book.starts[held.number].end = Some(End { at, wall, code: None, cause: Cause::Power });
        }
    }
}

/// Fails where the node's process is not there: it asks when it comes back.
fn tell(node: Option<&UnboundedSender<Input>>, input: Input) {
    if let Some(node) = node {
        let _ = node.send(input);
    }
}
