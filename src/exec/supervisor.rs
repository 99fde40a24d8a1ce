//! The state table of one instance on its node. Pure.
//!
//! It is told what happened to the process and what is wished for, and says what to do next. Level-triggered: [`settle`] may be
//! called at any time and as often as one likes; it gets from any state to what is wished.
//!
//! ```text
//! Fetching --executable--> Starting --exec'ed--> Running --ended--> Over --again--> Backoff --in time--> Starting
//!                             \--cannot be started---------------/   \--budget used up--> CrashLoop
//!                                                                     \--not again--> Finished
//! ```
//!
//! What ended is judged when it is settled next, by the policy of that moment, so that a change of policy holds at once: also for
//! what has ended long ago.
//!
//! [`settle`]: Supervisor::settle

use std::time::Duration;

use rand::{Rng, RngExt};

use super::backoff::Backoff;
use super::plan::{Ended, Kept, Stop};
use crate::confinement::Enforced;
use crate::crdt::roster::{InstanceReport, State};
use crate::ids::{BlobHash, RunId};
use crate::spec::Restart;
use crate::time::{Mono, Now, Wall};

/// How long it must have been up to count as ready: most programs that cannot work say so and end within this time.
pub const READY_AFTER: Duration = Duration::from_secs(1);

/// SIGKILL, signal(7): the end at once, also what the kernel sends to what has used up its memory.
const SIGKILL: i32 = 9;

/// Which start is wished for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// What a start must satisfy.
    pub launch_hash: BlobHash,
    /// The revision's number, for people.
    pub revision: u32,
}

/// What is wished for an instance that shall run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Which start.
    pub target: Target,
    /// Whether its executable is here and verified.
    pub executable: bool,
    /// Whether a running process of another target may be replaced now.
    pub may_replace: bool,
    /// When it is started again.
    pub restart: Restart,
}

/// What to do with a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Start the wished-for target.
    Launch(RunId),
    /// Send a signal to the first process.
    Signal(RunId, i32),
    /// End the whole tree.
    Kill(RunId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing runs; a start is due as soon as the executable is here.
    Fetching,
    Starting,
    Running {
        pid: u32,
        since: Mono,
        ready: bool,
    },
    Stopping {
        pid: Option<u32>,
        kill_at: Mono,
        killed: bool,
    },
    /// It ended or could not be started, after having been up for `healthy`; not yet judged.
    Over {
        at: Mono,
        healthy: Duration,
    },
    Backoff {
        until: Mono,
        /// The same, for people.
        retry_at: Wall,
    },
    CrashLoop,
    Finished,
}

/// One instance on its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Supervisor {
    phase: Phase,
    target: Target,
    backoff: Backoff,
    stop: Stop,
    run: Option<RunId>,
    started_at: Option<Wall>,
    restarts: u32,
    exit: Option<Ended>,
    /// Whether its last start came to an end by itself: only then its policy may forbid another one. A start that failed, or that
    /// was lost with the keeper or the host, is always made good.
    ended_by_itself: bool,
    error: Option<String>,
    enforced: Enforced,
}

impl Supervisor {
    /// An instance that shall be started.
    pub fn new(target: Target) -> Self {
        Self {
            phase: Phase::Fetching,
            target,
            backoff: Backoff::default(),
            stop: Stop::default(),
            run: None,
            started_at: None,
            restarts: 0,
            exit: None,
            ended_by_itself: false,
            error: None,
            enforced: Enforced::default(),
        }
    }

    /// With what this node reported in its earlier life: the restarts, the last exit, and, if it was the same start, that it had
    /// finished or was given up.
    #[must_use]
    pub fn remembering(mut self, before: Option<&InstanceReport>) -> Self {
        let Some(before) = before else { return self };
        self.restarts = before.restarts;
        self.exit = before.exit;
        let phase = match before.state() {
            State::Finished => Phase::Finished,
            State::CrashLoop => Phase::CrashLoop,
            _ => return self,
        };
        if before.launch_hash == self.target.launch_hash {
            self.phase = phase;
            self.run = before.run;
            self.started_at = before.started_at;
            self.error.clone_from(&before.error);
            self.ended_by_itself = phase == Phase::Finished;
        }
        self
    }

    /// An instance that was found running. `before` is what this node reported of it in its earlier life.
    pub fn adopt(kept: &Kept, now: Mono, before: Option<&InstanceReport>) -> Self {
        let target = Target { launch_hash: kept.plan.launch_hash, revision: kept.plan.revision };
        let mut adopted = Self::new(target).remembering(before);
        adopted.phase = Phase::Running { pid: kept.pid, since: now, ready: false };
        adopted.run = Some(kept.plan.run);
        adopted.started_at = Some(kept.started_at);
        adopted.error = None;
        adopted.ended_by_itself = false;
        adopted.stop = kept.plan.stop;
        adopted.enforced = kept.enforced.clone();
        if let (Some(before), Phase::Running { ready, .. }) = (before, &mut adopted.phase) {
            *ready = before.ready && before.run == adopted.run;
        }
        adopted
    }

    /// The start that is under way or was the last one.
    pub fn run(&self) -> Option<RunId> {
        self.run
    }

    /// What its start satisfies.
    pub fn target(&self) -> Target {
        self.target
    }

    /// How it is asked to stop from now on; until this is said for the first time, as it was started to be.
    pub fn stop_by(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// Does whatever brings it nearer to what is wished. `None` is wished for an instance that shall not be here; it is
    /// [gone](Supervisor::is_idle) once nothing runs.
    pub fn settle(&mut self, now: Now, wish: Option<&Wish>, rng: &mut impl Rng) -> Option<Act> {
        match self.phase {
            Phase::Starting | Phase::Running { .. } => self.settle_running(now.mono, wish),
            Phase::Stopping { pid, kill_at, killed: false } if kill_at <= now.mono => {
                self.phase = Phase::Stopping { pid, kill_at, killed: true };
                self.run.map(Act::Kill)
            }
            Phase::Stopping { .. } => None,
            Phase::Fetching | Phase::Over { .. } | Phase::Backoff { .. } | Phase::CrashLoop | Phase::Finished => {
                self.settle_idle(now, wish?, rng)
            }
        }
    }

    fn settle_running(&mut self, now: Mono, wish: Option<&Wish>) -> Option<Act> {
        if let Phase::Running { pid, since, ready: false } = self.phase
            && now.since(since) >= READY_AFTER
        {
            self.phase = Phase::Running { pid, since, ready: true };
        }
        let outdated = match wish {
            Some(wish) if wish.target.launch_hash == self.target.launch_hash => {
                self.target = wish.target;
                false
            }
            Some(wish) => wish.may_replace,
            None => true,
        };
        if !outdated {
            return None;
        }
        let pid = match self.phase {
            Phase::Running { pid, .. } => Some(pid),
            _ => None,
        };
        let Stop { signal, grace_ms } = self.stop;
        // Who wants to be killed is not to leave descendants that were only asked.
        let killed = signal == SIGKILL;
        self.phase = Phase::Stopping { pid, kill_at: now + Duration::from_millis(grace_ms), killed };
        self.run.map(|run| if killed { Act::Kill(run) } else { Act::Signal(run, signal) })
    }

    fn settle_idle(&mut self, now: Now, wish: &Wish, rng: &mut impl Rng) -> Option<Act> {
        if wish.target.launch_hash != self.target.launch_hash {
            let (exit, started_at, stop) = (self.exit, self.started_at, self.stop);
            *self = Self { exit, started_at, stop, ..Self::new(wish.target) };
        }
        self.target = wish.target;
        self.judge(now, wish.restart, rng);
        let due = match self.phase {
            Phase::Backoff { until, .. } => until <= now.mono,
            Phase::Fetching => true,
            _ => false,
        };
        if !due {
            return None;
        }
        if !wish.executable {
            self.phase = Phase::Fetching;
            return None;
        }
        let run = RunId(rng.random());
        self.run = Some(run);
        self.phase = Phase::Starting;
        self.ended_by_itself = false;
        Some(Act::Launch(run))
    }

    /// Whether what is over is started again, and when.
    fn judge(&mut self, now: Now, restart: Restart, rng: &mut impl Rng) {
        let is_well = self.exit.is_some_and(|exit| exit.code == Some(0));
        let again = !self.ended_by_itself
            || match restart {
                Restart::Always => true,
                Restart::OnFailure => !is_well,
                Restart::Never => false,
            };
        match self.phase {
            Phase::Over { at, healthy } if again => {
                self.phase = match self.backoff.failed(healthy, rng) {
                    Some(delay) => {
                        self.restarts = self.restarts.saturating_add(1);
                        let until = at + delay;
                        Phase::Backoff { until, retry_at: now.wall.plus(until.since(now.mono)) }
                    }
                    None => Phase::CrashLoop,
                };
            }
            Phase::Over { .. } | Phase::Backoff { .. } | Phase::CrashLoop if !again => {
                if is_well {
                    self.error = None;
                }
                self.phase = Phase::Finished;
            }
            Phase::Finished if again => self.phase = Phase::Fetching,
            _ => {}
        }
    }

    /// The keeper started it.
    pub fn launched(&mut self, now: Mono, pid: u32, at: Wall, enforced: Enforced) {
        self.started_at = Some(at);
        self.enforced = enforced;
        self.error = None;
        match &mut self.phase {
            Phase::Starting => self.phase = Phase::Running { pid, since: now, ready: false },
            Phase::Stopping { pid: stopping, .. } => *stopping = Some(pid),
            _ => {}
        }
    }

    /// The keeper could not start it.
    pub fn launch_failed(&mut self, now: Mono, error: String) {
        self.error = Some(error);
        self.ended(now);
    }

    /// Its first process ended, and with it its tree.
    pub fn exited(&mut self, now: Mono, exit: Ended) {
        self.exit = Some(exit);
        if matches!(self.phase, Phase::Starting | Phase::Running { .. }) {
            self.error = Some(describe(&exit));
            self.ended_by_itself = true;
        }
        self.ended(now);
    }

    /// The start before this one ended so, which was not told before this one was found.
    pub fn missed(&mut self, exit: Ended, launch_hash: BlobHash) {
        self.exit = Some(exit);
        // A replacement is not a restart.
        if launch_hash == self.target.launch_hash {
            self.restarts = self.restarts.saturating_add(1);
        }
    }

    /// The keeper is gone, and the process with it.
    pub fn keeper_lost(&mut self, now: Now) {
        match self.phase {
            Phase::Starting | Phase::Running { .. } => {
                self.error = Some("the keeper of this node's processes was lost, and they with it".into());
                self.restarts = self.restarts.saturating_add(1);
                // Not its own fault: it is started again at once and its budget is not charged.
                self.phase = Phase::Backoff { until: now.mono, retry_at: now.wall };
            }
            Phase::Stopping { .. } => self.phase = Phase::Fetching,
            _ => {}
        }
    }

    fn ended(&mut self, now: Mono) {
        match self.phase {
            Phase::Stopping { .. } => {
                self.error = None;
                self.phase = Phase::Fetching;
            }
            Phase::Starting => self.phase = Phase::Over { at: now, healthy: Duration::ZERO },
            Phase::Running { since, .. } => self.phase = Phase::Over { at: now, healthy: now.since(since) },
            _ => {}
        }
    }

    /// Says why its executable is not here.
    pub fn waits_for_binary(&mut self, why: Option<String>) {
        if self.phase == Phase::Fetching {
            self.error = why;
        }
    }

    /// Whether no process of it exists, so that it may be forgotten.
    pub fn is_idle(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Running { .. } | Phase::Stopping { .. })
    }

    /// When [`Supervisor::settle`] has something to do without anything happening.
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Running { since, ready: false, .. } => Some(since + READY_AFTER),
            Phase::Stopping { kill_at, killed: false, .. } => Some(kill_at),
            Phase::Over { at, .. } => Some(at),
            Phase::Backoff { until, .. } => Some(until),
            _ => None,
        }
    }

    /// What its node says of it.
    pub fn report(&self, index: u32) -> InstanceReport {
        let (state, pid) = match self.phase {
            Phase::Fetching => (State::Fetching, None),
            Phase::Starting => (State::Starting, None),
            Phase::Running { pid, .. } => (State::Running, Some(pid)),
            Phase::Stopping { pid, .. } => (State::Stopping, pid),
            Phase::Over { .. } | Phase::Backoff { .. } => (State::Backoff, None),
            Phase::CrashLoop => (State::CrashLoop, None),
            Phase::Finished => (State::Finished, None),
        };
        let ready = match self.phase {
            Phase::Running { ready, .. } => ready,
            Phase::Finished => self.exit.is_some_and(|exit| exit.code == Some(0)),
            _ => false,
        };
        let retry_at = match self.phase {
            Phase::Backoff { retry_at, .. } => Some(retry_at),
            _ => None,
        };
        let (nearest, later) = state.told(ready);
        InstanceReport {
            index,
            nearest,
            later,
            ready,
            revision: self.target.revision,
            launch_hash: self.target.launch_hash,
            run: self.run,
            pid,
            started_at: self.started_at,
            restarts: self.restarts,
            exit: self.exit,
            error: self.error.clone(),
            enforced: if self.is_idle() { Enforced::default() } else { self.enforced.clone() },
            retry_at,
        }
    }
}

fn describe(exit: &Ended) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    match (exit.oom_kills, exit.signal) {
        (0, _) => how,
        (_, Some(SIGKILL)) => format!("{how}: it used up its memory"),
        // It lived on without the process that was killed, or died of its loss.
        (kills, _) => format!("{how}; it had used up its memory, for which the kernel killed {kills} of its processes"),
    }
}

#[cfg(test)]
mod tests;
