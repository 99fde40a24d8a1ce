//! Hosts that die, pause and return.

use super::*;

use tokio::time::Instant;

use narun::node::engine::view::NodeStatus;

use crate::wish::{anywhere, everywhere, on};

/// How long nobody may take over the indices of a host that went: it may only be slow.
const GRACE: Duration = Duration::from_secs(10);

fn hosts_of(world: &World, service: &str) -> Vec<usize> {
    living(world, service).values().flatten().map(|(host, _)| *host).collect()
}

#[test]
fn the_indices_of_a_dead_host_move_after_the_grace_and_no_others() {
    scenario("the_indices_of_a_dead_host_move_after_the_grace_and_no_others", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        deployed(&mut world, 0, Deployment::new("pinned", "m2", on(&[0, 1, 2, 3], 1))).await;
        at_rest(&mut world, &[]).await;
        let victim = hosts_of(&world, "web")[0];
        world.kill(victim).await;
        let left = living(&world, "web");
        assert!(left.len() < 6);
        let died = Instant::now();
        watch(&mut world, GRACE, |world| assert_eq!(living(world, "web"), left, "too soon")).await;
        world
            .until(Duration::from_secs(50), "moved", |world| {
                let now = living(world, "web");
                if now.len() == 6 { Ok(()) } else { Err(format!("{now:?}")) }
            })
            .await;
        assert!(died.elapsed() > GRACE);
        let now = living(&world, "web");
        assert!(left.iter().all(|(index, runs)| now[index] == *runs), "those that lived were left alone");
        at_rest(&mut world, &[victim]).await;
        assert_eq!(living(&world, "pinned").values().flatten().count(), 3, "what is named does not move");
        world.start(victim).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "pinned").values().flatten().count(), 4);
    });
}

#[test]
fn a_host_that_returns_within_the_grace_keeps_its_indices() {
    scenario("a_host_that_returns_within_the_grace_keeps_its_indices", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        at_rest(&mut world, &[]).await;
        let before = hosts_of(&world, "web");
        world.kill(before[0]).await;
        world.run_for(Duration::from_secs(4)).await;
        world.start(before[0]).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(hosts_of(&world, "web"), before);
    });
}

#[test]
fn a_node_that_was_paused_for_long_returns_to_one_of_each() {
    scenario("a_node_that_was_paused_for_long_returns_to_one_of_each", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        at_rest(&mut world, &[]).await;
        let paused = hosts_of(&world, "web")[0];
        world.stall(paused, true);
        world.run_for(Duration::from_secs(45)).await;
        let other = (paused + 1) % 3;
        let moved: std::collections::BTreeSet<u32> = (0..3)
            .filter(|host| *host != paused)
            .flat_map(|host| world.hosts[host].keeper.living())
            .map(|kept| kept.plan.instance.index)
            .collect();
        assert_eq!(moved.len(), 6, "the others took over");
        deployed(&mut world, other, Deployment::new("web", "m2", anywhere(4))).await;
        world.stall(paused, false);
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_short_pause_moves_nothing() {
    scenario("a_short_pause_moves_nothing", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        for host in 0..3 {
            world.stall(host, true);
            world.run_for(Duration::from_secs(3)).await;
            world.stall(host, false);
            world.run_for(Duration::from_secs(12)).await;
        }
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web"), before);
    });
}

#[test]
fn a_deletion_while_one_sleeps_is_final() {
    scenario("a_deletion_while_one_sleeps_is_final", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
        world.kill(2).await;
        world.run_for(Duration::from_secs(1)).await;
        done(&mut world, 0, Wish::Delete(service_name("web"))).await;
        world.run_for(Duration::from_secs(40)).await;
        world.start(2).await;
        watch(&mut world, Duration::from_secs(30), |world| {
            for host in [0, 1] {
                assert!(world.view(host).services.is_empty(), "n{host}: it came back");
            }
        })
        .await;
        at_rest(&mut world, &[]).await;
        assert!(living(&world, "web").is_empty());
    });
}

#[test]
fn a_node_that_joins_late_learns_all_and_takes_part() {
    for seed in seeds(SEEDS) {
        let replay = format!("{SEED_VARIABLE}={seed} cargo test --test netsim a_node_that_joins_late");
        let plan = Plan { seed, hosts: 4, mode: Mode::Streams, skew_minutes: 3, has_ledger: false };
        simulate(plan, &replay, async |mut world| {
            world.found(3).await;
            deployed(&mut world, 0, Deployment::new("agent", "m1", everywhere(1))).await;
            done(&mut world, 1, Wish::Delete(service_name("agent"))).await;
            deployed(&mut world, 2, Deployment::new("agent", "m2", everywhere(1))).await;
            at_rest(&mut world, &[]).await;
            assert_eq!(hosts_of(&world, "agent").len(), 3);
            world.join(3, 1).await;
            at_rest(&mut world, &[]).await;
            assert_eq!(hosts_of(&world, "agent").len(), 4);
        });
    }
}

#[test]
fn a_suspicion_from_before_a_pause_is_not_kept_for_ever() {
    scenario("a_suspicion_from_before_a_pause_is_not_kept_for_ever", 4, async |mut world| {
        for round in 0..6 {
            let (first, second) = (round % 4, (round + 1) % 4);
            world.stall(first, true);
            let key = world.hosts[first].key;
            // The stalls of the round before made everybody doubt himself: accusing takes several times longer now.
            world
                .until(Duration::from_secs(40), "suspected", |world| {
                    let view = world.view(second);
                    let seen = view.nodes.iter().find(|node| node.key == key).map(|node| node.status);
                    if seen > Some(NodeStatus::Alive) { Ok(()) } else { Err(format!("{seen:?}")) }
                })
                .await;
            // It suspects, and is held for dead itself before it could be told better.
            world.stall(second, true);
            world.stall(first, false);
            world.run_for(Duration::from_secs(12)).await;
            world.stall(second, false);
            at_rest(&mut world, &[]).await;
        }
    });
}
