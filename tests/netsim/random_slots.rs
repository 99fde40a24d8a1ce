//! Worlds of cron specs drawn from seeds: every fault there is in the middle of slots, then healing, then an audit of every slot.

use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use narun::node::engine::effect::Response;
use narun::spec::{CatchUp, Concurrency, OnNodeLoss};

use crate::faults;
use crate::invariants::slots::{Spec, Tally, audit};
use crate::network::Mode;
use crate::program::Program;
use crate::random::{self, Stream};
use crate::random_seeds::{SEED_VARIABLE, heal_all, seed_asked, variable};
use crate::wish::{Deployment, Wish, anywhere};
use crate::workload;
use crate::world::{Plan, World, simulate};

/// How many slots the ordinary test run looks at; with those of the ledger alone (`ledger::trial`) they are 20,000.
const SLOTS: u64 = 6_000;

/// Set to a number: that many slots.
const SLOTS_VARIABLE: &str = "NARUN_SIM_SLOTS";

/// Set to a number: the seed of the first world, so that a long trial goes on where it was left.
const FIRST_VARIABLE: &str = "NARUN_SIM_FIRST";

/// Set to a number: that many hours of cluster time in worlds that last long.
const HOURS_VARIABLE: &str = "NARUN_SIM_HOURS";

/// How much cluster time the ordinary test run spends in worlds that last long.
const LONG: Duration = Duration::from_secs(300);

/// After how many failures no more seeds are tried: each says as much as the next hundred.
const FAILURES_MAX: usize = 5;

/// What kind of worlds.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// The test that tries them.
    name: &'static str,
    /// How many specs a world has.
    specs: usize,
    /// How many seconds there may be from one slot to the next.
    every: &'static [u64],
    /// How long things go wrong, in milliseconds: from, to.
    span: (u64, u64),
    /// How many times longer than in the other random worlds faults last and are apart.
    stretch: u32,
}

/// Many slots in a short time, and one fault upon the other.
const DENSE: Shape =
    Shape { name: "random_slots", specs: 12, every: &[1, 1, 1, 2, 5], span: (40_000, 70_000), stretch: 1 };

/// Few slots, and faults that last for minutes.
const LASTING: Shape =
    Shape { name: "long_lives", specs: 4, every: &[3, 5, 10, 20], span: (240_000, 900_000), stretch: 6 };

/// How long after healing a world is audited: leaders are elected, what was missed is caught up, and what runs has ended.
const REST: Duration = Duration::from_secs(45);

/// The host whose clock may be off from the start.
const SKEWED: usize = 2;

/// How late a run may start.
const DEADLINE_SECONDS: u64 = 15;

fn plan_of(seed: u64) -> Plan {
    let mut stream = random::stream(seed, "plan of slots");
    let mode = if stream.random_bool(0.8) { Mode::Streams } else { Mode::Datagrams };
    Plan { seed, hosts: stream.random_range(3..=5), mode, skew_minutes: 0, has_ledger: true }
}

/// What one world came to.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    tally: Tally,
    faults: u64,
    seconds: u64,
}

fn run(shape: &Shape, seed: u64) -> (blake3::Hash, u64, Outcome) {
    let name = shape.name;
    let replay = format!("{SEED_VARIABLE}={seed} cargo test --test netsim random_slots::{name} -- --exact --nocapture");
    let outcome = Mutex::new(Outcome::default());
    let (hash, events) = simulate(plan_of(seed), &replay, |world| async {
        let came = story(shape, world).await;
        *outcome.lock().unwrap_or_else(PoisonError::into_inner) = came;
    });
    (hash, events, outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn story(shape: &Shape, mut world: World) -> Outcome {
    let seed = world.plan.seed;
    let mut stream = random::stream(seed, "specs");
    let mut fate = random::stream(seed, "faults of slots");
    world.assemble().await;
    world.run_for(Duration::from_secs(8)).await;
    // One clock is off from the start in some worlds; steps of others come with the faults.
    if stream.random_bool(0.3) {
        world.hosts[SKEWED].clock.set_skew(stream.random_range(-600_000..600_000));
        world.run_for(Duration::from_secs(4)).await;
    }
    let mut specs = Vec::new();
    for number in 0..shape.specs {
        let spec = deploy(&mut world, shape, &mut stream, number).await;
        specs.extend(spec);
    }
    let span = random::millis(&mut fate, shape.span.0, shape.span.1);
    let schedule = faults::schedule(&mut fate, world.hosts.len(), span / shape.stretch);
    let count = schedule.len() as u64;
    let mut schedule = schedule.into_iter().map(|(at, fault)| (at * shape.stretch, fault)).peekable();
    let start = Instant::now();
    let mut next_wish = random::millis(&mut stream, 1_000, 8_000);
    while start.elapsed() < span {
        while let Some((_, fault)) = schedule.next_if(|(at, _)| *at <= start.elapsed()) {
            faults::strike(&mut world, fault).await;
        }
        if next_wish <= start.elapsed() {
            wish(&mut world, &mut stream, &mut specs);
            next_wish += random::millis(&mut stream, 500, 8_000) * shape.stretch;
        }
        let next = schedule.peek().map_or(span, |(at, _)| *at).min(next_wish).min(span);
        world.run_for(next.saturating_sub(start.elapsed()).max(Duration::from_millis(1))).await;
    }
    for host in &world.hosts {
        host.clock.set_skew(0);
    }
    heal_all(&mut world, &[]).await;
    world.run_for(REST).await;
    learn_what_is_suspended(&world, &mut specs);
    let tally = audit(&mut world, &specs).await;
    Outcome { tally, faults: count, seconds: world.stamps.now().as_secs() }
}

/// Deploys one spec; none if that was not answered.
async fn deploy(world: &mut World, shape: &Shape, stream: &mut Stream, number: usize) -> Option<Spec> {
    let every = *random::pick(stream, shape.every);
    let program = match stream.random_range(0..10) {
        0..6 => Program::Ends { code: 0, after_ms: stream.random_range(20..900) },
        6..8 => Program::Ends { code: 0, after_ms: stream.random_range(900..4_000) },
        8 => Program::Ends { code: 1, after_ms: stream.random_range(20..500) },
        _ => Program::Runs,
    };
    let mut deployment = Deployment::new(&format!("cron-{number}"), &format!("m{number}"), anywhere(1));
    deployment = deployment.program(program).every(every).policy(|policy| {
        policy.starting_deadline_seconds = DEADLINE_SECONDS;
        policy.concurrency = *random::pick(stream, &[Concurrency::Skip, Concurrency::Allow, Concurrency::Replace]);
        policy.catch_up = match stream.random_range(0..4) {
            0 => CatchUp::None,
            1 => CatchUp::All { window_seconds: 30 },
            _ => CatchUp::Latest,
        };
        policy.on_node_loss = *random::pick(stream, &[OnNodeLoss::Fail, OnNodeLoss::Fail, OnNodeLoss::Rerun]);
        policy.max_retries = stream.random_range(0..3);
        if policy.max_retries > 0 {
            policy.retry_backoff_seconds = 1;
        }
        // What does not end by itself.
        policy.timeout_seconds = if program == Program::Runs { 2 } else { 0 };
    });
    if stream.random_bool(0.15) {
        deployment = deployment.on_each_node();
    }
    // A spec begins when it was deployed, by the clock of whoever took it.
    let host = stream.random_range(0..SKEWED);
    let asked = world.hosts[host].clock.wall();
    let answer = workload::demand(world, host, Wish::Deploy(deployment.clone()), 1).await;
    let answered = world.hosts[host].clock.wall();
    match answer {
        Some(Ok(Response::Revised { .. })) => {
            Some(Spec { deployment, every, taken: (asked, answered), is_suspended: false })
        }
        other => panic!("n{host} took no spec: {other:?}"),
    }
}

/// A redeploy, a suspension, its end, or a drain.
fn wish(world: &mut World, stream: &mut Stream, specs: &mut [Spec]) {
    let up = world.up();
    if up.is_empty() {
        return;
    }
    let host = *random::pick(stream, &up);
    let number = stream.random_range(0..specs.len());
    let spec = &mut specs[number];
    let service = spec.deployment.service.clone();
    let wish = match stream.random_range(0..10) {
        // A deploy ends a suspension too, and by a clock that is off nobody can tell until when that was.
        0..4 if spec.is_suspended && is_off(world, host) => return,
        5..8 if is_off(world, host) => return,
        0..4 => {
            spec.deployment.mark = format!("m{number}-{}", world.journal.entries().len());
            Wish::Deploy(spec.deployment.clone())
        }
        4 => {
            spec.is_suspended = true;
            Wish::Stop(service)
        }
        5..8 => Wish::Start(service),
        _ => return workload::random_drain(world, stream),
    };
    workload::submit(world, host, wish, 1);
}

fn is_off(world: &World, host: usize) -> bool {
    world.hosts[host].clock.ahead_ms().abs() > 1_000
}

fn learn_what_is_suspended(world: &World, specs: &mut [Spec]) {
    let Some(view) = world.up().first().map(|host| world.view(*host)) else { return };
    for spec in specs {
        let service = view.services.iter().find(|service| service.name == spec.deployment.service);
        spec.is_suspended = service.is_some_and(|service| service.current.stopped);
    }
}

/// What all seeds so far came to.
#[derive(Default)]
struct Sum {
    next: u64,
    worlds: u64,
    outcome: Outcome,
    failed: Vec<u64>,
}

/// Tries worlds until `is_enough` of what came of them, or too many have failed.
fn try_worlds(shape: &Shape, is_enough: impl Fn(&Outcome) -> bool + Sync) -> Sum {
    let first = seed_asked().or_else(|| variable(FIRST_VARIABLE)).unwrap_or(0);
    let sum = Mutex::new(Sum { next: first, ..Sum::default() });
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let take = || {
        let mut sum = lock();
        let is_done = match seed_asked() {
            Some(seed) => sum.next > seed,
            None => is_enough(&sum.outcome) || sum.failed.len() >= FAILURES_MAX,
        };
        sum.next += 1;
        (!is_done).then_some(sum.next - 1)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = take() {
                    let ended = catch_unwind(|| run(shape, seed));
                    lock().add(seed, ended.ok().map(|(.., outcome)| outcome));
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return self.failed.push(seed) };
        self.worlds += 1;
        self.outcome.tally.add(outcome.tally);
        self.outcome.faults += outcome.faults;
        self.outcome.seconds += outcome.seconds;
    }

    /// Says what came of it, and fails if a world did.
    fn tell(&self, began: std::time::Instant) {
        let Self { worlds, outcome: Outcome { tally, faults, seconds }, failed, .. } = self;
        let took = began.elapsed().as_secs_f64();
        eprintln!(
            "{} slots in {worlds} worlds, {} of them within ten seconds of a fault: {} ran, {} lost, {} missed, {} skipped, {} suspended; \
             {faults} faults, {seconds} s of cluster time in {took:.0} s: {:.0} slots and {:.0} s of cluster time a second",
            tally.slots,
            tally.near,
            tally.ran,
            tally.lost,
            tally.missed,
            tally.skipped,
            tally.suspended,
            tally.slots as f64 / took,
            *seconds as f64 / took,
        );
        assert!(failed.is_empty(), "seeds that failed: {failed:?}");
        // One world alone may be anything.
        if seed_asked().is_none() {
            assert!(tally.ran > tally.slots / 4, "worlds in which slots run");
            assert!(tally.near > tally.slots / 2, "worlds in which things break");
        }
    }
}

#[test]
fn random_slots() {
    let wanted = variable(SLOTS_VARIABLE).unwrap_or(SLOTS);
    let began = std::time::Instant::now();
    try_worlds(&DENSE, |outcome| outcome.tally.slots >= wanted).tell(began);
}

#[test]
fn long_lives() {
    let wanted = variable(HOURS_VARIABLE).map_or(LONG.as_secs(), |hours| hours * 3_600);
    let began = std::time::Instant::now();
    try_worlds(&LASTING, |outcome| outcome.seconds >= wanted).tell(began);
}

#[test]
fn a_seed_of_slots_replays_to_the_byte() {
    let (first, events, _) = run(&DENSE, 1);
    let (again, events_again, _) = run(&DENSE, 1);
    assert_eq!((first, events), (again, events_again));
}
