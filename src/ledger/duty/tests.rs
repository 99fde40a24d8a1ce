//! Nodes and a ledger in one thread: no Raft, no network, but lost answers, restarts, pauses and a ledger that is away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Act, Duty, JobSpec, Specs};
use crate::crdt::document::RevisionId;
use crate::exec::plan::Ended;
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::command::{Command, JobKey, LeaseKey, Reply, SessionId, Stamped};
use crate::ledger::machine::Machine;
use crate::ledger::office::{Office, Wanted, Wants};
use crate::ledger::question::{Answer, Concern, Concerns, Question};
use crate::ledger::run::{Fence, GapReason, Run, RunStatus, Trigger};
use crate::ledger::time::{LedgerTime, Slot};
use crate::spec::schedule::{Schedule, Zone};
use crate::spec::{CatchUp, Concurrency, CronPolicy, OnNodeLoss};
use crate::time::{Mono, Now, Wall};

/// When a world begins, in seconds of the calendar.
const BEGIN: u64 = 1_800_000_000;

/// How far the time goes in one step.
const STEP: u64 = 50;

fn name() -> ServiceName {
    ServiceName::new("job").unwrap()
}

fn job() -> JobKey {
    JobKey { name: name(), node: None }
}

fn spec(expression: &str, policy: CronPolicy) -> JobSpec {
    let schedule = Schedule::parse(expression, Zone::UTC, "job").unwrap();
    JobSpec { schedule, policy, revision: RevisionId { number: 1, hash: [0; 4] }, suspended_until: Slot(0) }
}

struct One(Option<JobSpec>);

impl Specs for One {
    fn job(&self, name: &ServiceName) -> Option<&JobSpec> {
        self.0.as_ref().filter(|_| name.as_str() == "job")
    }
}

/// A process that the keeper of a node holds.
struct Process {
    run: Run,
    started: Wall,
    ends_at: u64,
    code: i32,
    ended: Option<Ended>,
}

struct Node {
    key: NodeKey,
    duty: Duty,
    lives: u64,
    /// Down or paused until then.
    away_until: u64,
    processes: BTreeMap<RunId, Process>,
    /// Answers that came while it was away, or are on their way.
    mail: Vec<(u64, u64, Answer)>,
}

/// What happened outside of narun: programs that were started.
struct Launch {
    run: Run,
    at: u64,
    ended_at: Option<u64>,
}

struct World {
    now: u64,
    nodes: Vec<Node>,
    machine: Machine,
    office: Office,
    wants: Wants,
    index: u64,
    specs: One,
    rng: ChaCha8Rng,
    /// The ledger cannot be reached until then.
    dark_until: u64,
    /// Of a hundred answers so many are lost, half of them after the deed.
    losses: u32,
    /// By how much a grant is overtaken by what is answered after it, in milliseconds.
    grants_late: u64,
    /// How long a program runs, in milliseconds, and of a hundred so many fail.
    runs_for: u64,
    failures: u32,
    launches: Vec<Launch>,
    /// Every reply to a decision, as a record that forgets nothing.
    granted: BTreeMap<Slot, Vec<RunId>>,
    decided: BTreeMap<Slot, GapReason>,
}

impl World {
    fn new(seed: u64, nodes: u8, spec: JobSpec) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let keys: Vec<NodeKey> = (1..=nodes).map(|at| NodeKey([at; 32])).collect();
        let wanted = Wanted { nodes: keys.clone(), begin: Slot(BEGIN) };
        let wants = Wants { version: 1, leases: BTreeMap::from([(LeaseKey::Cron(job()), wanted)]) };
        let node = |key: &NodeKey| Node {
            key: *key,
            duty: Duty::new(*key, rng.random()),
            lives: 1,
            away_until: 0,
            processes: BTreeMap::new(),
            mail: Vec::new(),
        };
        let mut nodes: Vec<Node> = keys.iter().map(node).collect();
        let machine = Machine::default();
        let office = Office::begin(Mono(0), &machine);
        for node in &mut nodes {
            node.duty.holding(Now { mono: Mono(0), wall: Wall(BEGIN * 1_000) }, []);
        }
        Self {
            now: 0,
            nodes,
            machine,
            office,
            wants,
            index: 0,
            specs: One(Some(spec)),
            rng,
            dark_until: 0,
            losses: 0,
            grants_late: 0,
            runs_for: 200,
            failures: 0,
            launches: Vec::new(),
            granted: BTreeMap::new(),
            decided: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now), wall: Wall(BEGIN * 1_000 + self.now) }
    }

    fn run_for(&mut self, span: Duration) {
        let until = self.now + u64::try_from(span.as_millis()).unwrap();
        while self.now < until {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now();
        if self.dark_until <= self.now {
            let voters: BTreeSet<NodeKey> = self.nodes.iter().map(|node| node.key).collect();
            for command in self.office.due(now, &self.machine, &self.wants, &voters) {
                self.apply(command);
            }
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].away_until <= self.now {
                self.live(at);
            }
            self.let_programs_end(at);
        }
    }

    /// One node takes what came, settles, and acts.
    fn live(&mut self, at: usize) {
        let now = self.now();
        let mail = std::mem::take(&mut self.nodes[at].mail);
        let (due, later): (Vec<_>, Vec<_>) = mail.into_iter().partition(|(due, ..)| *due <= self.now);
        self.nodes[at].mail = later;
        let node = &mut self.nodes[at];
        for (_, id, answer) in due {
            node.duty.answered(now, id, answer);
        }
        let ended: Vec<(RunId, Ended)> =
            node.processes.iter().filter_map(|(id, process)| Some((*id, process.ended?))).collect();
        for (id, ended) in ended {
            node.duty.ended(id, &ended);
        }
        for act in node.duty.settle(now, &self.specs, &mut self.rng) {
            self.carry_out(at, act);
        }
    }

    fn carry_out(&mut self, at: usize, act: Act) {
        let now = self.now();
        match act {
            Act::Ask { id, question } => {
                let answer = self.answer(at, question);
                let mut due = self.now + self.rng.random_range(1..100);
                if matches!(answer, Answer::Applied { reply: Reply::Granted(_), .. }) {
                    due += self.grants_late;
                }
                self.nodes[at].mail.push((due, id, answer));
            }
            Act::Launch { job: of, attempt, run } => {
                assert_eq!(of, job());
                let again = self.launches.iter().any(|launch| launch.run.id == run.id && launch.run.fence == run.fence);
                assert!(!again, "an attempt was launched twice: {run:?}");
                self.launches.push(Launch { run: (*run).clone(), at: self.now, ended_at: None });
                let code = i32::from(self.rng.random_range(0..100) < self.failures);
                let ends_at = self.now + self.runs_for;
                let process = Process { run: *run, started: now.wall, ends_at, code, ended: None };
                self.nodes[at].processes.insert(attempt, process);
                self.nodes[at].duty.started(now, attempt, now.wall);
            }
            Act::Stop { attempt } => {
                if let Some(process) = self.nodes[at].processes.get_mut(&attempt) {
                    process.ends_at = self.now;
                }
            }
            Act::Acknowledge { attempt } => {
                let process = self.nodes[at].processes.remove(&attempt);
                assert!(process.is_none_or(|process| process.ended.is_some()), "what runs was forgotten");
            }
        }
    }

    fn let_programs_end(&mut self, at: usize) {
        let wall = self.now().wall;
        for process in self.nodes[at].processes.values_mut() {
            if process.ends_at <= self.now && process.ended.is_none() {
                process.ended = Some(Ended { code: Some(process.code), signal: None, at: wall, oom_kills: 0 });
                let is_it =
                    |launch: &&mut Launch| launch.run.id == process.run.id && launch.run.fence == process.run.fence;
                self.launches.iter_mut().find(is_it).expect("it was launched").ended_at = Some(self.now);
            }
        }
    }

    fn answer(&mut self, at: usize, question: Question) -> Answer {
        if self.dark_until > self.now {
            return if self.rng.random() { Answer::Unknown } else { Answer::NotLeader { leader: None } };
        }
        let lost = self.rng.random_range(0..100) < self.losses;
        if lost && self.rng.random() {
            return Answer::Unknown;
        }
        let answer = match question {
            Question::Renew { session, known, wall } => {
                match self.office.renew(session, wall, self.now(), &self.machine) {
                    true => Answer::Renewed(self.machine.concerns(&self.nodes[at].key, known)),
                    false => Answer::NoSession,
                }
            }
            Question::Propose(command) => {
                let reply = self.apply(command);
                Answer::Applied { index: self.index, reply }
            }
            Question::History { .. } | Question::Standing => unreachable!("a duty does not ask that"),
        };
        if lost { Answer::Unknown } else { answer }
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let now = self.now();
        let at = self.office.stamp(now.mono, &self.machine);
        let reply = self.machine.apply(self.index, &Stamped { at, command: command.clone(), wall: now.wall });
        if let Command::Decide(decide) = command
            && !matches!(reply, Reply::Refused(_))
        {
            for gap in &decide.gaps {
                let mut slot = gap.first.wall();
                while Slot::at(slot) <= gap.last {
                    let earlier = self.decided.insert(Slot::at(slot), gap.reason);
                    assert_eq!(earlier, None, "{} was decided twice", Slot::at(slot));
                    slot = self.specs.0.as_ref().unwrap().schedule.next_after(slot).unwrap();
                }
            }
            if let Some(claim) = decide.claim
                && let Trigger::Slot(slot) = claim.trigger
            {
                match reply {
                    Reply::Granted(_) => self.granted.entry(slot).or_default().push(claim.run),
                    Reply::Skipped(open) => drop(self.decided.insert(slot, GapReason::Skipped(open))),
                    _ => {}
                }
            }
        }
        reply
    }

    /// A node's process ends and comes back; its keeper goes on, or is lost with it.
    fn restart(&mut self, at: usize, with_keeper: bool, away: u64) {
        let now = self.now();
        let node = &mut self.nodes[at];
        node.away_until = self.now + away;
        node.mail.clear();
        node.lives += 1;
        node.duty = Duty::new(node.key, node.lives);
        if with_keeper {
            for (_, process) in std::mem::take(&mut node.processes) {
                let is_it =
                    |launch: &&mut Launch| launch.run.id == process.run.id && launch.run.fence == process.run.fence;
                let launch = self.launches.iter_mut().find(is_it).expect("it was launched");
                launch.ended_at.get_or_insert(self.now);
            }
        }
        let held = node.processes.iter().map(|(id, process)| (*id, process.started, process.ended));
        let held: Vec<_> = held.collect();
        self.nodes[at].duty.holding(now, held);
    }

    /// What must hold, whatever happened.
    fn check(&self) {
        for (slot, runs) in &self.granted {
            assert_eq!(runs.len(), 1, "{slot} has two runs");
            assert!(!self.decided.contains_key(slot), "{slot} has a run and is a gap");
        }
        // Attempts of one run follow one another, unless the user has said otherwise.
        for launch in &self.launches {
            let may_overlap = launch.run.on_node_loss == crate::ledger::run::OnNodeLoss::Rerun;
            for other in self.launches.iter().filter(|other| other.run.id == launch.run.id && other.at > launch.at) {
                assert!(
                    may_overlap || launch.ended_at.is_some_and(|end| end <= other.at),
                    "attempts overlap: {:?}",
                    other.run
                );
            }
        }
        let fences: Vec<_> = self.launches.iter().map(|launch| launch.run.fence).collect();
        assert_eq!(fences.iter().collect::<BTreeSet<_>>().len(), fences.len(), "a fence was used twice");
        // No slot up to the cursor is left out.
        let cursor = self.machine.account(&job()).map_or(Slot(BEGIN), |account| account.cursor);
        let schedule = &self.specs.0.as_ref().unwrap().schedule;
        let mut slot = Slot(BEGIN).wall();
        while let Some(next) = schedule.next_after(slot).filter(|next| Slot::at(*next) <= cursor) {
            let known = self.granted.contains_key(&Slot::at(next)) || self.decided.contains_key(&Slot::at(next));
            assert!(known, "{} has no record", Slot::at(next));
            slot = next;
        }
    }

    /// How often each thing became of a slot.
    fn count(&self, reason: impl Fn(&GapReason) -> bool) -> usize {
        self.decided.values().filter(|found| reason(found)).count()
    }
}

fn each_second(policy: CronPolicy) -> JobSpec {
    spec("* * * * * *", policy)
}

#[test]
fn every_second_has_one_run_while_nothing_happens() {
    let mut world = World::new(1, 3, each_second(CronPolicy::default()));
    world.run_for(Duration::from_secs(60));
    world.check();
    assert!((55..=60).contains(&world.granted.len()), "{} runs", world.granted.len());
    assert!(world.granted.len() - world.launches.len() <= 1, "one may have been granted in the last moment");
    assert_eq!(world.count(|reason| !matches!(reason, GapReason::Missed)), 0);
    let account = world.machine.account(&job()).unwrap();
    assert!(
        account
            .runs
            .iter()
            .filter(|run| run.end.is_some())
            .all(|run| { run.end.as_ref().unwrap().status == RunStatus::Success && run.started.is_some() })
    );
    assert!(world.nodes.iter().all(|node| node.processes.len() <= 1), "what has ended is forgotten by the keeper");
}

#[test]
fn a_grant_that_is_overtaken_by_the_renewal_that_shows_its_run_is_carried_out() {
    let policy = CronPolicy {
        concurrency: Concurrency::Allow,
        max_retries: 1,
        retry_backoff_seconds: 1,
        ..CronPolicy::default()
    };
    let mut world = World::new(1, 1, each_second(policy));
    (world.grants_late, world.failures) = (700, 30);
    world.run_for(Duration::from_secs(60));
    world.check();
    let account = world.machine.account(&job()).unwrap();
    let lost = account.runs.iter().filter(|run| run.end.as_ref().is_some_and(|end| end.status == RunStatus::Lost));
    assert_eq!(lost.count(), 0, "{:#?}", account.runs);
    let (first, next): (Vec<_>, Vec<_>) = world.launches.iter().partition(|launch| launch.run.attempt == 1);
    assert!(first.len() > 20 && next.len() > 3, "{} {}", first.len(), next.len());
}

#[test]
fn a_run_in_the_way_has_the_next_slots_skipped_or_replaced_or_is_joined() {
    let runs = |concurrency| {
        let mut world = World::new(1, 1, each_second(CronPolicy { concurrency, ..CronPolicy::default() }));
        world.runs_for = 2_500;
        world.run_for(Duration::from_secs(30));
        world.check();
        let at_once = |at: u64| {
            world.launches.iter().filter(|one| one.at <= at && one.ended_at.is_none_or(|end| end > at)).count()
        };
        let most = (0..world.now).step_by(100).map(at_once).max().unwrap();
        (world.launches.len(), world.count(|reason| matches!(reason, GapReason::Skipped(_))), most)
    };
    let (launched, skipped, most) = runs(Concurrency::Skip);
    assert!(launched + skipped >= 28 && (8..=11).contains(&launched) && most == 1, "{launched} {skipped} {most}");
    let (launched, skipped, most) = runs(Concurrency::Allow);
    assert!(launched >= 28 && skipped == 0 && most >= 2, "{launched} {skipped} {most}");
    let (launched, skipped, most) = runs(Concurrency::Replace);
    assert!(launched >= 26 && skipped == 0 && most == 1, "{launched} {skipped} {most}");
}

#[test]
fn what_was_missed_is_treated_as_the_policy_says() {
    let after_an_hour_in_the_dark = |catch_up| {
        let policy = CronPolicy { catch_up, starting_deadline_seconds: 30, ..CronPolicy::default() };
        let mut world = World::new(1, 1, spec("0 * * * * *", policy));
        world.run_for(Duration::from_secs(90));
        let before = world.granted.len();
        world.dark_until = world.now + 3_605_000;
        // Until between two minutes: none is in time then.
        world.run_for(Duration::from_secs(3_600 + 20));
        world.check();
        let missed = world.count(|reason| matches!(reason, GapReason::Missed));
        let caught_up = world.count(|reason| matches!(reason, GapReason::CaughtUp(_)));
        (world.granted.len() - before, missed, caught_up)
    };
    let (run, missed, caught_up) = after_an_hour_in_the_dark(CatchUp::None);
    assert!(run == 0 && missed >= 59 && caught_up == 0, "{run} {missed} {caught_up}");
    let (run, missed, caught_up) = after_an_hour_in_the_dark(CatchUp::Latest);
    assert!(run == 1 && missed == 0 && caught_up >= 58, "{run} {missed} {caught_up}");
    let (run, missed, caught_up) = after_an_hour_in_the_dark(CatchUp::All { window_seconds: 600 });
    assert!((9..=11).contains(&run) && missed >= 48 && caught_up == 0, "{run} {missed} {caught_up}");
}

#[test]
fn failures_are_tried_again_and_nothing_else_is() {
    let policy = CronPolicy { max_retries: 2, retry_backoff_seconds: 1, ..CronPolicy::default() };
    let mut world = World::new(1, 1, spec("0 * * * * *", policy));
    world.failures = 100;
    world.run_for(Duration::from_secs(115));
    world.check();
    let account = world.machine.account(&job()).unwrap();
    let run = account.runs.iter().find(|run| run.end.is_some()).expect("one has ended");
    assert_eq!((run.attempt, run.attempts_max), (3, 3));
    assert_eq!(world.launches.iter().filter(|launch| launch.run.id == run.id).count(), 3);
    assert_eq!(run.end.as_ref().unwrap().status, RunStatus::Failure);

    let policy = CronPolicy { timeout_seconds: 1, ..policy };
    let mut world = World::new(1, 1, spec("0 * * * * *", policy));
    world.runs_for = 5_000;
    world.run_for(Duration::from_secs(70));
    world.check();
    let account = world.machine.account(&job()).unwrap();
    assert_eq!(account.runs[0].end.as_ref().expect("it was ended").status, RunStatus::Timeout);
    assert_eq!(world.launches.len(), 1, "a timeout is no failure");
}

#[test]
fn a_node_process_that_comes_back_finds_its_run_again() {
    let mut world = World::new(1, 1, spec("0 * * * * *", CronPolicy::default()));
    world.runs_for = 5_000;
    world.run_for(Duration::from_secs(61));
    assert_eq!(world.launches.len(), 1);
    world.restart(0, false, 500);
    world.run_for(Duration::from_secs(10));
    world.check();
    let account = world.machine.account(&job()).unwrap();
    assert_eq!(account.runs[0].end.as_ref().expect("it has ended").status, RunStatus::Success);
    assert!(world.nodes[0].processes.is_empty());
    assert_eq!(world.launches.len(), 1);
}

#[test]
fn a_run_that_is_lost_with_its_host_is_told_or_made_again_elsewhere() {
    let lost = |on_node_loss| {
        let mut world = World::new(1, 3, spec("0 * * * * *", CronPolicy { on_node_loss, ..CronPolicy::default() }));
        world.runs_for = 5_000;
        world.run_for(Duration::from_secs(61));
        let holder = world.nodes.iter().position(|node| !node.processes.is_empty()).expect("it runs somewhere");
        world.restart(holder, true, 60_000);
        world.run_for(Duration::from_secs(30));
        world.check();
        let account = world.machine.account(&job()).unwrap();
        (account.runs[0].end.as_ref().expect("it is over").status, world.launches.len(), account.holder)
    };
    let (status, launches, holder) = lost(OnNodeLoss::Fail);
    assert_eq!((status, launches), (RunStatus::Lost, 1));
    assert!(holder.is_some(), "somebody else holds the lease");
    let (status, launches, _) = lost(OnNodeLoss::Rerun);
    assert_eq!((status, launches), (RunStatus::Success, 2));
}

#[test]
fn a_run_that_was_asked_for_is_made_and_leaves_the_slots_alone() {
    let mut world = World::new(1, 2, spec("0 0 * * * *", CronPolicy::default()));
    world.run_for(Duration::from_secs(5));
    let ask = Command::Ask { job: job(), request: [7; 16], at: world.now().wall };
    assert_eq!(world.apply(ask.clone()), Reply::Done);
    assert_eq!(world.apply(ask), Reply::Done, "the same request twice");
    world.run_for(Duration::from_secs(5));
    world.check();
    assert_eq!(world.launches.len(), 1);
    let account = world.machine.account(&job()).unwrap();
    assert_eq!((account.cursor, account.runs[0].trigger), (Slot(BEGIN), Trigger::Asked([7; 16])));
}

#[test]
fn a_suspended_spec_is_not_run_and_its_slots_are_told() {
    let policy = CronPolicy { suspend: true, ..CronPolicy::default() };
    let mut world = World::new(1, 1, spec("0 * * * * *", policy));
    world.run_for(Duration::from_secs(1_500));
    assert!(world.launches.is_empty());
    let resumed = Slot::at(world.now().wall);
    world.specs = One(Some(JobSpec { suspended_until: resumed, ..spec("0 * * * * *", CronPolicy::default()) }));
    world.nodes[0].duty.spec_changed(&name());
    world.run_for(Duration::from_secs(120));
    world.check();
    assert!(world.granted.keys().all(|slot| *slot > resumed) && !world.granted.is_empty());
    assert_eq!(world.count(|reason| matches!(reason, GapReason::Suspended)), 25);
}

#[test]
fn a_claim_of_which_nothing_is_known_is_made_again_for_the_same_run() {
    let spec = spec("0 * * * * *", CronPolicy::default());
    let mut duty = Duty::new(NodeKey([1; 32]), 1);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (specs, session) = (One(Some(spec)), SessionId(1));
    let now = |mono: u64| Now { mono: Mono(mono), wall: Wall(BEGIN * 1_000 + 60_000 + mono) };
    let (open, asked) = (Vec::new(), Vec::new());
    let concern = Concern { job: job(), is_held: true, cursor: Slot(BEGIN), open, asked };
    let mut claims = Vec::new();
    for step in 0..6 {
        for act in duty.settle(now(step * 500), &specs, &mut rng) {
            let Act::Ask { id, question } = act else { panic!("nothing was granted: {act:?}") };
            let answer = match question {
                Question::Propose(Command::Open { .. }) => Answer::Applied { index: 1, reply: Reply::Opened(session) },
                Question::Propose(Command::Decide(decide)) => {
                    claims.push(decide.claim.expect("a slot is due").run);
                    Answer::Unknown
                }
                _ => Answer::Renewed(Concerns { upto: 2, jobs: vec![concern.clone()], ..Concerns::default() }),
            };
            duty.answered(now(step * 500), id, answer);
        }
    }
    assert!(claims.len() > 1 && claims.iter().all(|run| *run == claims[0]), "{claims:?}");
}

#[test]
fn a_grant_that_a_renewal_tells_first_is_carried_out_once() {
    for is_lost in [false, true] {
        let me = NodeKey([1; 32]);
        let (specs, session) = (One(Some(spec("0 * * * * *", CronPolicy::default()))), SessionId(1));
        let now = |mono: u64| Now { mono: Mono(mono), wall: Wall(BEGIN * 1_000 + 60_000 + mono) };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut duty = Duty::new(me, 1);
        duty.holding(now(0), []);
        let mut concern =
            Concern { job: job(), is_held: true, cursor: Slot(BEGIN), open: Vec::new(), asked: Vec::new() };
        let (mut upto, mut claimed, mut launched) = (2, None, 0);
        for step in 0..8 {
            let now = now(step * 500);
            for act in duty.settle(now, &specs, &mut rng) {
                match act {
                    Act::Ask { id, question: Question::Propose(Command::Open { .. }) } => {
                        let opened = Answer::Applied { index: 1, reply: Reply::Opened(session) };
                        duty.answered(now, id, opened);
                    }
                    Act::Ask { id, question: Question::Renew { .. } } => {
                        let jobs = vec![concern.clone()];
                        duty.answered(now, id, Answer::Renewed(Concerns { upto, jobs, ..Concerns::default() }));
                    }
                    // It is granted, and what is answered takes its time.
                    Act::Ask { id, question: Question::Propose(Command::Decide(decide)) } => {
                        assert_eq!(claimed, None, "one slot is due");
                        (claimed, upto) = (Some(id), 9);
                        let run = decide.claim.expect("a slot is due").granted(Fence(9), me, LedgerTime(0));
                        (concern.open, concern.cursor) = (vec![run], decide.upto);
                    }
                    Act::Launch { run, .. } => {
                        assert_eq!(run.fence, Fence(9));
                        launched += 1;
                    }
                    other => panic!("nothing has ended: {other:?}"),
                }
            }
            if step == 4 {
                let granted = Answer::Applied { index: 9, reply: Reply::Granted(Fence(9)) };
                let answer = if is_lost { Answer::Unknown } else { granted };
                duty.answered(now, claimed.expect("it was asked for"), answer);
            }
        }
        assert_eq!(launched, 1);
    }
}

/// Lost answers, restarts, pauses and darkness, from one seed.
fn rough(seed: u64) -> World {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let policy = CronPolicy {
        concurrency: [Concurrency::Skip, Concurrency::Allow, Concurrency::Replace][dice.random_range(0..3)],
        catch_up: [CatchUp::None, CatchUp::Latest, CatchUp::All { window_seconds: 20 }][dice.random_range(0..3)],
        on_node_loss: [OnNodeLoss::Fail, OnNodeLoss::Rerun][dice.random_range(0..2)],
        starting_deadline_seconds: dice.random_range(1..20),
        max_retries: dice.random_range(0..3),
        retry_backoff_seconds: 1,
        timeout_seconds: [0, 3][dice.random_range(0..2)],
        ..CronPolicy::default()
    };
    let mut world = World::new(seed, 3, each_second(policy));
    (world.losses, world.failures) = (dice.random_range(0..30), dice.random_range(0..50));
    world.runs_for = dice.random_range(100..3_000);
    for _ in 0..40 {
        world.run_for(Duration::from_millis(dice.random_range(50..3_000)));
        let node = dice.random_range(0..3);
        match dice.random_range(0..5) {
            0 => world.restart(node, false, dice.random_range(0..5_000)),
            1 => world.restart(node, true, dice.random_range(0..20_000)),
            2 => world.nodes[node].away_until = world.now + dice.random_range(100..15_000),
            3 => world.dark_until = world.now + dice.random_range(100..10_000),
            _ => {}
        }
        world.check();
    }
    (world.losses, world.dark_until) = (0, 0);
    world.run_for(Duration::from_secs(40));
    world.check();
    world
}

#[test]
fn no_slot_has_two_runs_and_none_is_forgotten_whatever_happens() {
    let mut slots = 0;
    for seed in 0..60 {
        let world = rough(seed);
        slots += world.granted.len() + world.decided.len();
        // Calm again: the ledger is up to date, and open is only what runs.
        let account = world.machine.account(&job()).expect("the job");
        let behind = Slot::at(world.now().wall).0 - account.cursor.0;
        let policy = &world.specs.0.as_ref().unwrap().policy;
        // Whoever wants every slot run, one after the other, and takes longer than from one to the next, stays behind: by the window, and
        // by the run that is under way, three attempts of it if the worst comes.
        let may_be = if matches!(policy.catch_up, CatchUp::All { .. }) { 34 } else { 8 };
        assert!(behind <= may_be, "seed {seed}: {behind} s behind, {policy:?}, {account:?}");
    }
    assert!(slots > 3_000, "{slots} slots");
}

#[test]
fn a_seed_repeats_a_life() {
    let told = |seed| {
        let world = rough(seed);
        let launches: Vec<_> =
            world.launches.iter().map(|one| (one.run.id, one.run.fence, one.at, one.ended_at)).collect();
        (launches, world.machine)
    };
    let (first, second) = (told(3), told(3));
    assert!(first.0 == second.0 && first.1 == second.1);
    assert!(!first.0.is_empty());
}

/// The one question among these acts, and its number.
fn asked(acts: &[Act]) -> (u64, &Question) {
    match acts {
        [Act::Ask { id, question }] => (*id, question),
        other => panic!("not one question: {other:?}"),
    }
}

/// A claim shows in the ledger, and then this is answered to it.
fn answered_late(answer: Answer) -> Vec<Act> {
    let (me, specs) = (NodeKey([1; 32]), One(Some(spec("* * * * * *", CronPolicy::default()))));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut duty = Duty::new(me, 1);
    let at = |ms: u64| Now { mono: Mono(100_000 + ms), wall: Wall(BEGIN * 1_000 + ms) };
    let concern = |cursor, open| Concern { job: job(), is_held: true, cursor, open, asked: Vec::new() };
    let renewed = |upto, concern| {
        let jobs = vec![concern];
        Answer::Renewed(Concerns { upto, is_whole: true, jobs, gone: Vec::new(), singletons: Vec::new() })
    };
    duty.holding(at(0), []);
    let acts = duty.settle(at(0), &specs, &mut rng);
    duty.answered(at(0), asked(&acts).0, Answer::Applied { index: 1, reply: Reply::Opened(SessionId(1)) });
    let acts = duty.settle(at(0), &specs, &mut rng);
    duty.answered(at(0), asked(&acts).0, renewed(5, concern(Slot(BEGIN - 1), Vec::new())));
    let acts = duty.settle(at(0), &specs, &mut rng);
    let (claimed, Question::Propose(Command::Decide(decide))) = asked(&acts) else { panic!("no claim: {acts:?}") };
    let run = decide.claim.as_ref().expect("a slot is due").granted(Fence(6), me, LedgerTime::default());
    let upto = decide.upto;

    let acts = duty.settle(at(500), &specs, &mut rng);
    duty.answered(at(510), asked(&acts).0, renewed(7, concern(upto, vec![run.clone()])));
    assert_eq!(duty.settle(at(510), &specs, &mut rng), [], "nothing is known of the claim yet");
    duty.answered(at(520), claimed, answer);
    let mut acts = duty.settle(at(520), &specs, &mut rng);
    if let [Act::Ask { id, question: Question::Renew { .. } }] = acts[..] {
        duty.answered(at(530), id, Answer::Renewed(Concerns { upto: 8, ..Concerns::default() }));
        acts = duty.settle(at(530), &specs, &mut rng);
    }
    acts
}

#[test]
fn a_claim_that_shows_in_the_ledger_before_it_is_answered_is_carried_out_once() {
    for answer in [Answer::Applied { index: 6, reply: Reply::Granted(Fence(6)) }, Answer::Unknown] {
        let acts = answered_late(answer);
        // Where it was not known, the ledger may be asked once more how it stands.
        let launched: Vec<_> = acts.iter().filter(|act| !matches!(act, Act::Ask { .. })).collect();
        assert!(matches!(launched[..], [Act::Launch { run, .. }] if run.fence == Fence(6)), "{acts:?}");
    }
}

/// The lease goes to and fro for no reason while a claim is under way; what was claimed is this process's to run all the same.
#[test]
fn a_claim_whose_lease_is_told_to_be_gone_before_it_is_answered_is_carried_out_once() {
    for answer in [Answer::Applied { index: 6, reply: Reply::Granted(Fence(6)) }, Answer::Unknown] {
        let (me, specs) = (NodeKey([1; 32]), One(Some(spec("* * * * * *", CronPolicy::default()))));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut duty = Duty::new(me, 1);
        let at = |ms: u64| Now { mono: Mono(100_000 + ms), wall: Wall(BEGIN * 1_000 + ms) };
        let concern = |cursor, open| Concern { job: job(), is_held: true, cursor, open, asked: Vec::new() };
        let told =
            |upto, jobs, gone| Answer::Renewed(Concerns { upto, is_whole: false, jobs, gone, singletons: Vec::new() });
        duty.holding(at(0), []);
        let acts = duty.settle(at(0), &specs, &mut rng);
        duty.answered(at(0), asked(&acts).0, Answer::Applied { index: 1, reply: Reply::Opened(SessionId(1)) });
        let acts = duty.settle(at(0), &specs, &mut rng);
        let jobs = vec![concern(Slot(BEGIN - 1), Vec::new())];
        duty.answered(at(0), asked(&acts).0, told(2, jobs, Vec::new()));
        let acts = duty.settle(at(0), &specs, &mut rng);
        let (claimed, Question::Propose(Command::Decide(decide))) = asked(&acts) else { panic!("no claim: {acts:?}") };
        let run = decide.claim.as_ref().expect("a slot is due").granted(Fence(6), me, LedgerTime::default());
        let upto = decide.upto;

        let acts = duty.settle(at(500), &specs, &mut rng);
        duty.answered(at(510), asked(&acts).0, told(4, Vec::new(), vec![LeaseKey::Cron(job())]));
        assert_eq!(duty.settle(at(510), &specs, &mut rng), [], "it is not held, and nothing is known of the claim");
        duty.answered(at(520), claimed, answer);
        let mut acts = duty.settle(at(520), &specs, &mut rng);
        for turn in 0..3 {
            let [Act::Ask { id, question: Question::Renew { .. } }] = acts[..] else { break };
            let jobs = vec![concern(upto, vec![run.clone()])];
            duty.answered(at(530 + turn), id, told(8 + turn, jobs, Vec::new()));
            acts = duty.settle(at(530 + turn), &specs, &mut rng);
        }
        assert!(matches!(&acts[..], [Act::Launch { run, .. }] if run.fence == Fence(6)), "{acts:?}");
    }
}
