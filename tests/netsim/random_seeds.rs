//! Worlds drawn from seeds: random faults under a random workload, then healing, then quiet, then everything must be right.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::comings::{Comings, outsiders};
use crate::faults;
use crate::invariants;
use crate::network::{Mode, Weather};
use crate::random;
use crate::workload;
use crate::world::{Plan, World, simulate};

/// How many seeds the ordinary test run takes.
const SEEDS: u64 = 200;

/// Set to a number: that many seeds.
const SEEDS_VARIABLE: &str = "NARUN_SIM_SEEDS";

/// Set to a seed: that one alone.
pub(crate) const SEED_VARIABLE: &str = "NARUN_SIM_SEED";

/// After how many failures no more seeds are tried: each says as much as the next hundred.
const FAILURES_MAX: usize = 10;

/// How long a healed cluster may take until everything is as it should be: a node held for dead comes back, indices move after
/// the grace, a failed fetch is tried again, a rollout goes index by index.
pub(crate) const REST: Duration = Duration::from_secs(120);

/// How long it must then stay so.
const CALM: Duration = Duration::from_secs(5);

/// Before that: what does not hear SIGTERM is killed after ten seconds, and may until then have looked like what is wanted.
const LAST_STOPS: Duration = Duration::from_secs(12);

pub(crate) fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}=`{text}` is not a number")))
}

/// The seed that was asked for.
pub(crate) fn seed_asked() -> Option<u64> {
    variable(SEED_VARIABLE)
}

/// The seeds to run: the one that was asked for, or the first `count`.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match seed_asked() {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

fn plan_of(seed: u64) -> Plan {
    let mut stream = random::stream(seed, "plan");
    let mode = if stream.random_bool(0.5) { Mode::Streams } else { Mode::Datagrams };
    let hosts = stream.random_range(3..=5) + outsiders(seed);
    Plan { seed, hosts, mode, skew_minutes: stream.random_range(0..10), has_ledger: false }
}

fn run(seed: u64) -> (blake3::Hash, u64) {
    let replay = format!("{SEED_VARIABLE}={seed} cargo test --test netsim random_seeds -- --nocapture");
    simulate(plan_of(seed), &replay, chaos)
}

async fn chaos(mut world: World) {
    let seed = world.plan.seed;
    let outsiders = outsiders(seed);
    let founders = world.hosts.len() - outsiders;
    world.found(founders).await;
    let mut comings = Comings::new(&world, founders);
    let mut stream = random::stream(seed, "workload");
    let mut fate = random::stream(seed, "faults");
    if world.plan.mode == Mode::Datagrams && fate.random_bool(0.3) {
        world.fabric.set_weather(Weather::FOUL);
    }
    let span = random::millis(&mut fate, 20_000, 50_000);
    let mut schedule = faults::schedule(&mut fate, founders, span).into_iter().peekable();
    let start = Instant::now();
    let mut next_wish = random::millis(&mut stream, 100, 2_000);
    // A chance of its own, so that what comes of a seed is otherwise as it was.
    let mut drains = random::stream(seed, "drains");
    let mut next_drain = random::millis(&mut drains, 1_000, 30_000);
    let mut next_coming = if outsiders > 0 { comings.pause() } else { Duration::MAX };
    while start.elapsed() < span {
        while let Some((_, fault)) = schedule.next_if(|(at, _)| *at <= start.elapsed()) {
            faults::strike(&mut world, fault).await;
        }
        if next_wish <= start.elapsed() {
            workload::random_wish(&world, &mut stream);
            next_wish += random::millis(&mut stream, 50, 4_000);
        }
        if next_drain <= start.elapsed() {
            workload::random_drain(&world, &mut drains);
            next_drain += random::millis(&mut drains, 1_000, 20_000);
        }
        if next_coming <= start.elapsed() {
            comings.happen(&mut world).await;
            next_coming = start.elapsed() + comings.pause();
        }
        let next_fault = schedule.peek().map_or(span, |(at, _)| *at);
        let next = next_fault.min(next_wish).min(next_drain).min(next_coming).min(span);
        world.run_for(next.saturating_sub(start.elapsed()).max(Duration::from_millis(1))).await;
    }
    // Now and then a host does not come back.
    let mut dead: Vec<usize> = (0..founders).filter(|host| !world.runs(*host) && fate.random_bool(0.2)).collect();
    if outsiders > 0 {
        dead.retain(|host| *host != comings.porter());
        heal_all(&mut world, &dead).await;
        comings.finish(&mut world).await;
    }
    rest(&mut world, &dead).await;
}

/// Puts everything right, but for the hosts that do not come back.
pub(crate) async fn heal_all(world: &mut World, dead: &[usize]) {
    for host in dead {
        world.kill(*host).await;
    }
    world.heal(dead).await;
}

/// Heals the world and waits until everything is right, and stays so.
pub(crate) async fn rest(world: &mut World, dead: &[usize]) {
    heal_all(world, dead).await;
    world.until(REST, "at rest", |world| invariants::at_rest(world, dead)).await;
    world.run_for(LAST_STOPS).await;
    world.until(REST, "still at rest", |world| invariants::at_rest(world, dead)).await;
    world.run_for(CALM).await;
    if let Err(complaint) = invariants::at_rest(world, dead) {
        panic!("it was at rest and did not stay so: {complaint}");
    }
}

#[test]
fn random_seeds() {
    let seeds = seeds(variable(SEEDS_VARIABLE).unwrap_or(SEEDS));
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Each world is a thread of its own time; how many are looked at side by side changes none of them.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = |seed| {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(seed);
                        failed.len()
                    };
                    if catch_unwind(|| run(*seed)).is_err() && failed(*seed) >= FAILURES_MAX {
                        next.store(seeds.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn one_seed_replays_to_the_byte() {
    for seed in [1, 2, 3] {
        let (first, events) = run(seed);
        let again = run(seed);
        assert_eq!((first, events), again, "seed {seed}");
        assert!(events > 1_000, "a world in which something happens: {events} events");
    }
    assert_ne!(run(1).0, run(2).0);
}
