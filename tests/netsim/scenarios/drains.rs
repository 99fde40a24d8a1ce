//! Hosts that are to be empty, and services that are bound to labels.

use super::*;

use std::collections::BTreeSet;

use narun::exec::supervisor::READY_AFTER;
use narun::node::engine::input::Request;
use narun::node::engine::view::DrainView;

use crate::wish::{anywhere, everywhere, on};

/// How long a drain may take: a binary is fetched, started, and must be up for a second; then the old instance stops.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

async fn drain(world: &mut World, at: usize, host: usize) {
    let node = world.hosts[host].name.clone();
    let answer = world.ask(at, Request::DrainNode { node }).await;
    assert_eq!(answer, Some(Ok(Response::NodeSet { changed: true })));
}

async fn uncordon(world: &mut World, at: usize, host: usize) {
    let node = world.hosts[host].name.clone();
    let answer = world.ask(at, Request::UncordonNode { node }).await;
    assert_eq!(answer, Some(Ok(Response::NodeSet { changed: true })));
}

async fn label(world: &mut World, at: usize, host: usize, zone: &str) {
    let node = world.hosts[host].name.clone();
    let set = [("zone".to_owned(), zone.to_owned())].into();
    let answer = world.ask(at, Request::LabelNode { node, set, remove: BTreeSet::new() }).await;
    assert!(matches!(answer, Some(Ok(Response::Labelled { changed: true, .. }))), "{answer:?}");
}

/// What a node shows of the drain of a host.
fn shown(world: &World, at: usize, host: usize) -> Option<DrainView> {
    let view = world.view(at);
    view.nodes.iter().find(|node| node.key == world.hosts[host].key).and_then(|node| node.drain.clone())
}

fn is_drained(world: &World, at: usize, host: usize) -> Result<(), String> {
    match shown(world, at, host) {
        Some(drain) if drain.left.is_empty() => Ok(()),
        other => Err(format!("n{at} shows {other:?}")),
    }
}

/// What runs on a host.
fn runs_on(world: &World, host: usize) -> BTreeSet<String> {
    world.hosts[host].keeper.living().iter().map(|kept| kept.plan.instance.to_string()).collect()
}

/// The indices of a service of which an instance is up for as long as it takes to be ready, by its host's own clock.
fn ready(world: &World, service: &str) -> BTreeSet<u32> {
    let service = service_name(service);
    let mut ready = BTreeSet::new();
    for host in &world.hosts {
        let now = host.clock.wall().0;
        for kept in host.keeper.living().into_iter().filter(|kept| kept.plan.instance.service == service) {
            if now.saturating_sub(kept.started_at.0) >= u64::try_from(READY_AFTER.as_millis()).expect("a second") {
                ready.insert(kept.plan.instance.index);
            }
        }
    }
    ready
}

/// Lets the world go on until `host` is drained in the eyes of `at`. At no moment does `service` have fewer ready instances than
/// `replicas`.
async fn emptied_without_a_gap(world: &mut World, at: usize, host: usize, service: &str, replicas: u32) {
    let all: BTreeSet<u32> = (0..replicas).collect();
    let end = tokio::time::Instant::now() + DRAINED_WITHIN;
    while let Err(complaint) = is_drained(world, at, host) {
        assert!(tokio::time::Instant::now() < end, "not drained: {complaint}");
        assert_eq!(ready(world, service), all, "its service misses an instance");
        world.run_for(Duration::from_millis(20)).await;
    }
    assert_eq!(ready(world, service), all);
}

#[test]
fn a_drain_leaves_no_gap_and_uncordon_takes_nothing_away() {
    scenario("a_drain_leaves_no_gap_and_uncordon_takes_nothing_away", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        deployed(&mut world, 0, Deployment::new("pinned", "m2", on(&[0, 1, 2, 3], 1))).await;
        deployed(&mut world, 0, Deployment::new("agent", "m3", everywhere(1))).await;
        deployed(&mut world, 0, Deployment::new("other", "m4", anywhere(2))).await;
        at_rest(&mut world, &[]).await;
        world.run_for(Duration::from_secs(2)).await;
        let before = living(&world, "web");
        drain(&mut world, 3, 1).await;
        // Traffic meanwhile: whatever it asks for, the drained host gets nothing of it.
        workload::submit(&world, 2, Wish::Scale { service: service_name("other"), node: None, replicas: 5 }, 1);
        workload::submit(&world, 0, Wish::Deploy(Deployment::new("more", "m5", everywhere(2))), 1);
        emptied_without_a_gap(&mut world, 3, 1, "web", 6).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(runs_on(&world, 1), BTreeSet::new());
        let after = living(&world, "web");
        for (index, runs) in before.iter().filter(|(_, runs)| runs[0].0 != 1) {
            assert_eq!(after[index], *runs, "what was elsewhere was left alone");
        }
        deployed(&mut world, 1, Deployment::new("late", "m6", anywhere(8))).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(runs_on(&world, 1), BTreeSet::new(), "it takes deploys for others");

        uncordon(&mut world, 2, 1).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web"), after);
        let back: BTreeSet<String> = ["agent-0", "more-0", "more-1", "pinned-0"].map(str::to_owned).into();
        assert_eq!(runs_on(&world, 1), back, "what is bound to it is back, and nothing else");
    });
}

#[test]
fn a_host_that_is_down_is_drained_at_once_and_stays_so_when_it_returns() {
    scenario("a_host_that_is_down_is_drained_at_once_and_stays_so_when_it_returns", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        deployed(&mut world, 0, Deployment::new("pinned", "m2", on(&[0, 1, 2], 1))).await;
        at_rest(&mut world, &[]).await;
        world.kill(2).await;
        drain(&mut world, 0, 2).await;
        for at in [0, 1] {
            world.until(DRAINED_WITHIN, "drained", |world| is_drained(world, at, 2)).await;
        }
        assert_eq!(living(&world, "web").len(), 6);
        world.start(2).await;
        watch(&mut world, Duration::from_secs(1), |world| assert!(!runs_on(world, 2).contains("web-0"))).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(runs_on(&world, 2), BTreeSet::new());
        uncordon(&mut world, 2, 2).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(runs_on(&world, 2), BTreeSet::from(["pinned-0".to_owned()]));
    });
}

#[test]
fn a_drain_goes_on_through_crashes_and_outlasts_the_restart_of_all() {
    scenario("a_drain_goes_on_through_crashes_and_outlasts_the_restart_of_all", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6)).size(4_000_000)).await;
        deployed(&mut world, 0, Deployment::new("pinned", "m2", on(&[1], 2))).await;
        at_rest(&mut world, &[]).await;
        world.run_for(Duration::from_secs(2)).await;
        drain(&mut world, 0, 1).await;
        // The nodes of the drained host and of one that takes over end in the middle of it; their instances live on.
        world.run_for(Duration::from_millis(400)).await;
        world.crash(1).await;
        world.crash(2).await;
        world.run_for(Duration::from_secs(1)).await;
        world.start(1).await;
        world.start(2).await;
        emptied_without_a_gap(&mut world, 3, 1, "web", 6).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(runs_on(&world, 1), BTreeSet::new());

        for host in 0..4 {
            world.kill(host).await;
        }
        for host in 0..4 {
            world.start(host).await;
        }
        at_rest(&mut world, &[]).await;
        assert_eq!(runs_on(&world, 1), BTreeSet::new());
        world.until(REST, "shown as drained", |world| (0..4).try_for_each(|at| is_drained(world, at, 1))).await;
    });
}

#[test]
fn a_drain_asked_for_on_one_side_of_a_partition_holds_when_it_heals() {
    scenario("a_drain_asked_for_on_one_side_of_a_partition_holds_when_it_heals", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
        world.run_for(Duration::from_secs(2)).await;
        let side = [world.hosts[0].key, world.hosts[1].key];
        world.fabric.partition(&side);
        world.run_for(Duration::from_secs(2)).await;
        drain(&mut world, 0, 3).await;
        let before = runs_on(&world, 3);
        world.run_for(Duration::from_secs(20)).await;
        assert!(runs_on(&world, 3).is_superset(&before), "it has not heard of it, and its side needs what it runs");
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
        world.until(DRAINED_WITHIN, "drained", |world| is_drained(world, 2, 3)).await;
        assert_eq!(runs_on(&world, 3), BTreeSet::new());
    });
}

#[test]
fn instances_follow_a_label_without_a_gap() {
    scenario("instances_follow_a_label_without_a_gap", 4, async |mut world| {
        for host in [0, 1] {
            label(&mut world, 3, host, "a").await;
        }
        world.run_for(Duration::from_secs(2)).await;
        deployed(&mut world, 2, Deployment::new("web", "m1", anywhere(4)).labelled("zone", "a")).await;
        at_rest(&mut world, &[]).await;
        world.run_for(Duration::from_secs(2)).await;
        let hosts = |world: &World| living(world, "web").values().flatten().map(|(host, _)| *host).collect::<Vec<_>>();
        assert!(hosts(&world).iter().all(|host| *host < 2), "{:?}", hosts(&world));
        let before = living(&world, "web");
        label(&mut world, 0, 2, "a").await;
        world.run_for(Duration::from_secs(5)).await;
        assert_eq!(living(&world, "web"), before, "a node that could take some takes nothing away");

        label(&mut world, 3, 1, "b").await;
        let all: BTreeSet<u32> = (0..4).collect();
        watch(&mut world, Duration::from_secs(10), |world| assert_eq!(ready(world, "web"), all)).await;
        at_rest(&mut world, &[]).await;
        let after = living(&world, "web");
        for (index, runs) in &before {
            match runs[0].0 {
                1 => assert_eq!(after[index][0].0, 2, "to the one that has room"),
                _ => assert_eq!(after[index], *runs, "what may stay, stays"),
            }
        }
    });
}
