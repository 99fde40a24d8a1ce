//! Named scenarios: what somebody once thought of, and what a seed once found. Each runs under some seeds and both kinds of
//! network.

mod absences;
mod belonging;
mod clocks;
mod crashes;
mod deploys;
mod drains;
mod failures;
mod hosts;
mod later_versions;
mod numbers;
mod partitions;
mod scale;
mod slots;
mod transfers;
mod trust;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use narun::ids::RunId;
use narun::node::engine::effect::{RefusalCode, Response};

use crate::invariants;
use crate::network::Mode;
use crate::random_seeds::{REST, SEED_VARIABLE, seeds};
use crate::wish::{Deployment, Wish, service_name};
use crate::workload;
use crate::world::{Plan, World, simulate};

/// How many seeds a scenario runs under: latencies and the moments of syncs differ, the story is the same.
const SEEDS: u64 = 3;

/// Runs `story` in worlds of `hosts` hosts that have founded a cluster. `name` is the test's.
fn scenario<F: Future<Output = ()>>(name: &str, hosts: usize, story: impl Fn(World) -> F) {
    scenario_with_skew(name, hosts, 0, story);
}

fn scenario_with_skew<F: Future<Output = ()>>(name: &str, hosts: usize, skew_minutes: i64, story: impl Fn(World) -> F) {
    for seed in seeds(SEEDS) {
        for mode in [Mode::Streams, Mode::Datagrams] {
            let replay = format!("{SEED_VARIABLE}={seed} cargo test --test netsim {name} -- --nocapture");
            simulate(Plan { seed, hosts, mode, skew_minutes, has_ledger: false }, &replay, |mut world| {
                let story = &story;
                async move {
                    world.found(hosts).await;
                    at_rest(&mut world, &[]).await;
                    story(world).await;
                }
            });
        }
    }
}

/// Waits until everything is as it should be, without healing anything first.
async fn at_rest(world: &mut World, dead: &[usize]) {
    world.until(REST, "at rest", |world| invariants::at_rest(world, dead)).await;
}

/// A wish that must be carried out.
async fn done(world: &mut World, host: usize, wish: Wish) -> Response {
    let text = wish.to_string();
    match workload::demand(world, host, wish, 1).await {
        Some(Ok(response)) => response,
        other => panic!("n{host} did not {text}: {other:?}"),
    }
}

/// A deploy that must be carried out.
async fn deployed(world: &mut World, host: usize, deployment: Deployment) -> u32 {
    match done(world, host, Wish::Deploy(deployment)).await {
        Response::Revised { revision, .. } => revision,
        other => panic!("a deploy was answered with {other:?}"),
    }
}

/// A wish that must be refused, with what code.
async fn refused(world: &mut World, host: usize, wish: Wish) -> RefusalCode {
    match workload::demand(world, host, wish, 1).await {
        Some(Err(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

/// What lives of a service: by index, host and run.
fn living(world: &World, service: &str) -> BTreeMap<u32, Vec<(usize, RunId)>> {
    let service = service_name(service);
    let mut living: BTreeMap<u32, Vec<(usize, RunId)>> = BTreeMap::new();
    for (host, it) in world.hosts.iter().enumerate() {
        for kept in it.keeper.living() {
            if kept.plan.instance.service == service {
                living.entry(kept.plan.instance.index).or_default().push((host, kept.plan.run));
            }
        }
    }
    living
}

/// Lets the world go on for `span`, looking at it often.
async fn watch(world: &mut World, span: Duration, mut look: impl FnMut(&World)) {
    let end = tokio::time::Instant::now() + span;
    while tokio::time::Instant::now() < end {
        look(world);
        world.run_for(Duration::from_millis(20)).await;
    }
}
