//! The state table of one instance on its node. Pure.
//!
//! It is told what happened to the process and what is wished for, and says what to do next. Level-triggered: [`settle`] may be
//! called at any time and as often as one likes; it gets from any state to what is wished.
//!
//! [`settle`]: Supervisor::settle

use std::time::Duration;

use rand::{Rng, RngExt};

use super::backoff::Backoff;
use super::plan::{Ended, Kept};
use crate::crdt::roster::{InstanceReport, State};
use crate::ids::{BlobHash, RunId};
use crate::time::{Mono, Wall};

/// How long a process has to end after SIGTERM, before its whole tree is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long it must have been up to count as ready: most programs that cannot work say so and end within this time.
pub const READY_AFTER: Duration = Duration::from_secs(1);

/// SIGTERM, signal(7).
const SIGTERM: i32 = 15;

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
    Backoff {
        until: Mono,
    },
    CrashLoop,
}

/// One instance on its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Supervisor {
    phase: Phase,
    target: Target,
    backoff: Backoff,
    run: Option<RunId>,
    started_at: Option<Wall>,
    restarts: u32,
    exit: Option<Ended>,
    error: Option<String>,
}

impl Supervisor {
    /// An instance that shall be started.
    pub fn new(target: Target) -> Self {
        Self {
            phase: Phase::Fetching,
            target,
            backoff: Backoff::default(),
            run: None,
            started_at: None,
            restarts: 0,
            exit: None,
            error: None,
        }
    }

    /// With the restarts and the last exit that this node reported in its earlier life.
    #[must_use]
    pub fn remembering(mut self, before: Option<&InstanceReport>) -> Self {
        if let Some(before) = before {
            self.restarts = before.restarts;
            self.exit = before.exit;
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

    /// Does whatever brings it nearer to what is wished. `None` is wished for an instance that shall not be here; it is
    /// [gone](Supervisor::is_idle) once nothing runs.
    pub fn settle(&mut self, now: Mono, wish: Option<&Wish>, rng: &mut impl Rng) -> Option<Act> {
        match self.phase {
            Phase::Starting | Phase::Running { .. } => self.settle_running(now, wish),
            Phase::Stopping { pid, kill_at, killed: false } if kill_at <= now => {
                self.phase = Phase::Stopping { pid, kill_at, killed: true };
                self.run.map(Act::Kill)
            }
            Phase::Stopping { .. } => None,
            Phase::Fetching | Phase::Backoff { .. } | Phase::CrashLoop => self.settle_idle(now, wish?, rng),
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
        self.phase = Phase::Stopping { pid, kill_at: now + STOP_GRACE, killed: false };
        self.run.map(|run| Act::Signal(run, SIGTERM))
    }

    fn settle_idle(&mut self, now: Mono, wish: &Wish, rng: &mut impl Rng) -> Option<Act> {
        if wish.target.launch_hash != self.target.launch_hash {
            let (exit, started_at) = (self.exit, self.started_at);
            *self = Self { exit, started_at, ..Self::new(wish.target) };
        }
        self.target = wish.target;
        let due = match self.phase {
            Phase::Backoff { until } => until <= now,
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
        Some(Act::Launch(run))
    }

    /// The keeper started it.
    pub fn launched(&mut self, now: Mono, pid: u32, at: Wall) {
        self.started_at = Some(at);
        self.error = None;
        match &mut self.phase {
            Phase::Starting => self.phase = Phase::Running { pid, since: now, ready: false },
            Phase::Stopping { pid: stopping, .. } => *stopping = Some(pid),
            _ => {}
        }
    }

    /// The keeper could not start it.
    pub fn launch_failed(&mut self, now: Mono, error: String, rng: &mut impl Rng) {
        self.error = Some(error);
        self.ended(now, rng);
    }

    /// Its first process ended, and with it its tree.
    pub fn exited(&mut self, now: Mono, exit: Ended, rng: &mut impl Rng) {
        self.exit = Some(exit);
        if matches!(self.phase, Phase::Starting | Phase::Running { .. }) {
            self.error = Some(describe(&exit));
        }
        self.ended(now, rng);
    }

    /// The keeper is gone, and the process with it.
    pub fn keeper_lost(&mut self, now: Mono) {
        match self.phase {
            Phase::Starting | Phase::Running { .. } => {
                self.error = Some("the keeper of this node's processes was lost, and they with it".into());
                self.restarts = self.restarts.saturating_add(1);
                // Not its own fault: it is started again at once and its budget is not charged.
                self.phase = Phase::Backoff { until: now };
            }
            Phase::Stopping { .. } => self.phase = Phase::Fetching,
            Phase::Fetching | Phase::Backoff { .. } | Phase::CrashLoop => {}
        }
    }

    fn ended(&mut self, now: Mono, rng: &mut impl Rng) {
        match self.phase {
            Phase::Stopping { .. } => {
                self.error = None;
                self.phase = Phase::Fetching;
            }
            Phase::Starting | Phase::Running { .. } => {
                let healthy = match self.phase {
                    Phase::Running { since, .. } => now.since(since),
                    _ => Duration::ZERO,
                };
                self.phase = match self.backoff.failed(healthy, rng) {
                    Some(delay) => {
                        self.restarts = self.restarts.saturating_add(1);
                        Phase::Backoff { until: now + delay }
                    }
                    None => Phase::CrashLoop,
                };
            }
            Phase::Fetching | Phase::Backoff { .. } | Phase::CrashLoop => {}
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
        matches!(self.phase, Phase::Fetching | Phase::Backoff { .. } | Phase::CrashLoop)
    }

    /// When [`Supervisor::settle`] has something to do without anything happening.
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Running { since, ready: false, .. } => Some(since + READY_AFTER),
            Phase::Stopping { kill_at, killed: false, .. } => Some(kill_at),
            Phase::Backoff { until } => Some(until),
            _ => None,
        }
    }

    /// What its node says of it.
    pub fn report(&self, index: u32) -> InstanceReport {
        let (state, ready, pid) = match self.phase {
            Phase::Fetching => (State::Fetching, false, None),
            Phase::Starting => (State::Starting, false, None),
            Phase::Running { pid, ready, .. } => (State::Running, ready, Some(pid)),
            Phase::Stopping { pid, .. } => (State::Stopping, false, pid),
            Phase::Backoff { .. } => (State::Backoff, false, None),
            Phase::CrashLoop => (State::CrashLoop, false, None),
        };
        InstanceReport {
            index,
            state,
            ready,
            revision: self.target.revision,
            launch_hash: self.target.launch_hash,
            run: self.run,
            pid,
            started_at: self.started_at,
            restarts: self.restarts,
            exit: self.exit,
            error: self.error.clone(),
        }
    }
}

fn describe(exit: &Ended) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn target(n: u8) -> Target {
        Target { launch_hash: BlobHash([n; 32]), revision: u32::from(n) }
    }

    fn wish(n: u8) -> Wish {
        Wish { target: target(n), executable: true, may_replace: true }
    }

    fn exit(code: i32) -> Ended {
        Ended { code: Some(code), signal: None, at: Wall(0) }
    }

    fn running(n: u8, rng: &mut ChaCha8Rng) -> Supervisor {
        let mut one = Supervisor::new(target(n));
        assert!(matches!(one.settle(Mono(0), Some(&wish(n)), rng), Some(Act::Launch(_))));
        one.launched(Mono(0), 100, Wall(0));
        one
    }

    #[test]
    fn it_waits_for_its_binary_then_starts_and_becomes_ready() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = Supervisor::new(target(1));
        let without = Wish { executable: false, ..wish(1) };
        assert_eq!(one.settle(Mono(0), Some(&without), &mut rng), None);
        assert_eq!(one.report(0).state, State::Fetching);
        assert!(matches!(one.settle(Mono(5), Some(&wish(1)), &mut rng), Some(Act::Launch(_))));
        one.launched(Mono(10), 100, Wall(0));
        assert!(!one.report(0).ready);
        assert_eq!(one.next_deadline(), Some(Mono(10) + READY_AFTER));
        assert_eq!(one.settle(Mono(10) + READY_AFTER, Some(&wish(1)), &mut rng), None);
        assert!(one.report(0).ready);
    }

    #[test]
    fn stopping_asks_first_and_kills_after_the_grace_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = running(1, &mut rng);
        let run = one.run().unwrap();
        assert_eq!(one.settle(Mono(100), None, &mut rng), Some(Act::Signal(run, SIGTERM)));
        assert_eq!(one.settle(Mono(200), None, &mut rng), None);
        let late = Mono(100) + STOP_GRACE;
        assert_eq!(one.settle(late, None, &mut rng), Some(Act::Kill(run)));
        assert_eq!(one.settle(late, None, &mut rng), None);
        one.exited(late, exit(0), &mut rng);
        assert!(one.is_idle());
    }

    #[test]
    fn another_revision_of_equal_launch_keeps_the_process() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = running(1, &mut rng);
        let scaled = Wish { target: Target { revision: 9, ..target(1) }, ..wish(1) };
        assert_eq!(one.settle(Mono(1), Some(&scaled), &mut rng), None);
        assert_eq!(one.report(0).revision, 9);
    }

    #[test]
    fn an_outdated_process_is_replaced_only_when_it_may_be() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = running(1, &mut rng);
        let not_yet = Wish { may_replace: false, ..wish(2) };
        assert_eq!(one.settle(Mono(1), Some(&not_yet), &mut rng), None);
        assert!(matches!(one.settle(Mono(2), Some(&wish(2)), &mut rng), Some(Act::Signal(..))));
        one.exited(Mono(3), exit(0), &mut rng);
        assert!(matches!(one.settle(Mono(3), Some(&wish(2)), &mut rng), Some(Act::Launch(_))));
        assert_eq!(one.report(0).restarts, 0, "a replacement is not a restart");
    }

    #[test]
    fn a_crash_loop_ends_in_a_pause_that_a_new_revision_ends() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = running(1, &mut rng);
        let mut now = Mono(1);
        for _ in 0..5 {
            one.exited(now, exit(1), &mut rng);
            assert_eq!(one.report(0).state, State::Backoff);
            now = one.next_deadline().unwrap();
            assert!(matches!(one.settle(now, Some(&wish(1)), &mut rng), Some(Act::Launch(_))));
            one.launched(now, 100, Wall(0));
        }
        one.exited(now, exit(1), &mut rng);
        let report = one.report(0);
        assert_eq!((report.state, report.restarts), (State::CrashLoop, 5));
        assert_eq!(report.error.as_deref(), Some("exited with code 1"));
        assert_eq!(one.settle(now + Duration::from_secs(3600), Some(&wish(1)), &mut rng), None);
        assert!(matches!(one.settle(now, Some(&wish(2)), &mut rng), Some(Act::Launch(_))));
    }

    #[test]
    fn a_start_that_fails_is_tried_again_and_says_why() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = Supervisor::new(target(1));
        one.settle(Mono(0), Some(&wish(1)), &mut rng);
        one.launch_failed(Mono(0), "cannot run `x`".into(), &mut rng);
        let report = one.report(0);
        assert_eq!((report.state, report.error.as_deref()), (State::Backoff, Some("cannot run `x`")));
        let due = one.next_deadline().unwrap();
        assert!(matches!(one.settle(due, Some(&wish(1)), &mut rng), Some(Act::Launch(_))));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Settle(Option<u8>),
        Launched,
        Failed,
        Exited,
        KeeperLost,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => proptest::option::of(1_u8..3).prop_map(Step::Settle),
            1 => Just(Step::Launched),
            1 => Just(Step::Failed),
            1 => Just(Step::Exited),
            1 => Just(Step::KeeperLost),
        ]
    }

    proptest! {
        /// Whatever happens, a launch is only asked for while nothing runs: never two processes of one instance.
        #[test]
        fn never_two_processes(steps in proptest::collection::vec((step(), 0_u64..20_000), 1..80)) {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut one = Supervisor::new(target(1));
            let (mut now, mut alive, mut asked) = (Mono(0), false, false);
            for (step, wait) in steps {
                now = now + Duration::from_millis(wait);
                match step {
                    Step::Settle(n) => {
                        if let Some(Act::Launch(_)) = one.settle(now, n.map(wish).as_ref(), &mut rng) {
                            prop_assert!(!alive && !asked, "a second process was asked for");
                            asked = true;
                        }
                    }
                    Step::Launched if asked => { (asked, alive) = (false, true); one.launched(now, 1, Wall(0)); }
                    Step::Failed if asked => { asked = false; one.launch_failed(now, "x".into(), &mut rng); }
                    Step::Exited if alive => { alive = false; one.exited(now, exit(1), &mut rng); }
                    Step::KeeperLost => { (asked, alive) = (false, false); one.keeper_lost(now); }
                    _ => {}
                }
                prop_assert_eq!(one.is_idle(), !alive && !asked);
            }
        }
    }
}
