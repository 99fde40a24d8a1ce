//! Slots of cron specs, and their one run each.

mod clocks;
mod members;
mod outages;
mod policies;
mod takeovers;

use super::*;

use std::collections::BTreeSet;

use narun::ids::NodeKey;
use narun::ledger::command::JobKey;
use narun::ledger::question::{Account, Standing};
use narun::ledger::run::RunStatus;
use narun::ledger::time::Slot;
use narun::time::Wall;

use crate::clock::EPOCH_MS;
use crate::invariants::slots::{Spec, Tally, account, audit};
use crate::program::Program;
use crate::stamps::Stamp;
use crate::wish::anywhere;

/// Ends well within its second.
const QUICK: Program = Program::Ends { code: 0, after_ms: 200 };

/// How long a group of voters may take until it is as large as it should be.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs `story` in a world of `hosts` hosts with a ledger whose voters stand. `name` is the test's.
fn scenario_with_ledger<F: Future<Output = ()>>(name: &str, hosts: usize, story: impl Fn(World) -> F) {
    // One of these takes as long as ten of the others.
    for seed in seeds(1) {
        with_ledger(name, seed, hosts, |mut world| {
            let story = &story;
            async move {
                world.assemble().await;
                let voters = [1, 1, 1, 3, 3].get(hosts).copied().unwrap_or(5);
                until_voters(&mut world, voters).await;
                story(world).await;
            }
        });
    }
}

/// Runs `story` in a world of `hosts` hosts that would have a ledger and were not started.
fn with_ledger<F: Future<Output = ()>>(name: &str, seed: u64, hosts: usize, story: impl FnOnce(World) -> F) {
    let replay = format!("{SEED_VARIABLE}={seed} cargo test --test netsim {name} -- --nocapture");
    simulate(Plan { seed, hosts, mode: Mode::Streams, skew_minutes: 0, has_ledger: true }, &replay, story);
}

/// Who votes and who leads, as a node's ledger has it.
fn standing(world: &World, host: usize) -> Standing {
    let ledger = world.hosts[host].running.as_ref().and_then(|running| running.ledger.as_ref());
    ledger.expect("it runs, with a ledger").standing().borrow().clone()
}

/// Waits until so many vote and all of those that run agree on them and on who leads.
async fn until_voters(world: &mut World, count: usize) {
    world
        .until(SETTLE, "voters", |world| {
            let standings: Vec<(NodeKey, Standing)> =
                world.up().iter().map(|host| (world.hosts[*host].key, standing(world, *host))).collect();
            let voters: BTreeSet<NodeKey> = standings.iter().flat_map(|(_, it)| it.voters.clone()).collect();
            let group: Vec<&Standing> =
                standings.iter().filter(|(key, _)| voters.contains(key)).map(|(_, it)| it).collect();
            let is_settled = |it: &&Standing| it.voters.len() == count && it.leader.is_some() && it.learners.is_empty();
            let leaders: BTreeSet<_> = group.iter().map(|it| it.leader).collect();
            match voters.len() == count && leaders.len() == 1 && group.iter().all(is_settled) {
                true => Ok(()),
                false => Err(format!("{standings:?}")),
            }
        })
        .await;
}

fn host_of(world: &World, key: NodeKey) -> usize {
    world.hosts.iter().position(|host| host.key == key).expect("only hosts are members")
}

/// The host that leads, by the word of the highest term.
fn leader(world: &World) -> Option<usize> {
    let newest = world.up().into_iter().map(|host| standing(world, host)).max_by_key(|it| it.term)?;
    newest.leader.map(|leader| host_of(world, leader))
}

/// What the ledger says of a spec.
async fn told(world: &mut World, name: &str) -> Account {
    let job = JobKey { name: service_name(name), node: None };
    let host = *world.up().first().expect("somebody runs");
    account(world, host, job).await.expect("the ledger knows it")
}

/// The host that holds a spec's lease.
async fn holder(world: &mut World, name: &str) -> usize {
    let holder = told(world, name).await.holder.expect("somebody holds it");
    host_of(world, holder)
}

/// A spec with a slot each second that ends quickly.
fn each_second(name: &str) -> Deployment {
    Deployment::new(name, &format!("first-{name}"), anywhere(1)).program(QUICK).every(1)
}

/// Deploys a spec with a slot at every so many seconds, to be audited later.
async fn deployed_cron(world: &mut World, host: usize, every: u64, deployment: Deployment) -> Spec {
    let asked = world.hosts[host].clock.wall();
    deployed(world, host, deployment.clone()).await;
    let answered = world.hosts[host].clock.wall();
    Spec { deployment, every, taken: (asked, answered), is_suspended: false }
}

fn stamps(world: &World, name: &str) -> Vec<Stamp> {
    world.stamps.of(&service_name(name))
}

/// When a slot is due, since the world began, by a clock that is right.
fn due(slot: Slot) -> Duration {
    let Wall(ms) = slot.wall();
    Duration::from_millis(ms.saturating_sub(EPOCH_MS as u64))
}

/// How late the first attempts for the slots due from `from` until `until` were started, the worst of them; and how many slots had none.
fn lateness(world: &World, name: &str, from: Duration, until: Duration) -> (Duration, usize) {
    let stamps = stamps(world, name);
    let slots = (from.as_secs() + 1..until.as_secs()).map(|second| Slot(EPOCH_MS as u64 / 1_000 + second));
    let (mut worst, mut none) = (Duration::ZERO, 0);
    for slot in slots {
        match stamps.iter().find(|stamp| stamp.slot == slot) {
            Some(stamp) => worst = worst.max(stamp.began.saturating_sub(due(slot))),
            None => none += 1,
        }
    }
    (worst, none)
}

fn count(account: &Account, status: RunStatus) -> usize {
    account.runs.iter().filter(|run| run.end.as_ref().is_some_and(|end| end.status == status)).count()
}

#[test]
fn every_second_has_its_run_on_three_nodes() {
    scenario_with_ledger("every_second_has_its_run_on_three_nodes", 3, async |mut world| {
        let spec = deployed_cron(&mut world, 1, 1, each_second("tick")).await;
        let from = world.stamps.now() + Duration::from_secs(3);
        world.run_for(Duration::from_secs(60)).await;
        let (worst, none) = lateness(&world, "tick", from, world.stamps.now() - Duration::from_secs(1));
        eprintln!("three nodes, no faults: the latest run is {worst:?} late");
        assert!(none == 0 && worst < Duration::from_millis(500), "{none} slots without a run, {worst:?} late");
        let Tally { slots, ran, .. } = audit(&mut world, &[spec]).await;
        assert!(slots == ran && slots >= 59, "{ran} of {slots}");
    });
}
