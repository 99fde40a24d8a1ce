//! Who notices that a node is gone, how soon, and who is wrongly thought to be.

use super::*;

use std::collections::BTreeSet;

use tokio::time::Instant;

use narun::node::engine::view::NodeStatus;

use crate::network::Weather;
use crate::random;

/// Runs a long `story` in one world alone, of that kind of network.
fn once<F: Future<Output = ()>>(name: &str, hosts: usize, mode: Mode, story: impl Fn(World) -> F) {
    for seed in seeds(1) {
        let replay = format!("{SEED_VARIABLE}={seed} cargo test --test netsim {name} -- --nocapture");
        simulate(Plan { seed, hosts, mode, skew_minutes: 0, has_ledger: false }, &replay, |mut world| {
            let story = &story;
            async move {
                world.found(hosts).await;
                at_rest(&mut world, &[]).await;
                story(world).await;
            }
        });
    }
}

fn status(world: &World, viewer: usize, of: usize) -> Option<NodeStatus> {
    let key = world.hosts[of].key;
    world.view(viewer).nodes.iter().find(|node| node.key == key).map(|node| node.status)
}

/// Waits until every node that runs shows these hosts so; gives back how long that took.
async fn shown(world: &mut World, of: &[usize], wanted: NodeStatus, limit: Duration) -> Duration {
    let start = Instant::now();
    world
        .until(limit, wanted.word(), |world| {
            for viewer in world.up() {
                for other in of.iter().filter(|other| **other != viewer) {
                    if status(world, viewer, *other) != Some(wanted) {
                        return Err(format!("n{viewer} shows n{other} {:?}", status(world, viewer, *other)));
                    }
                }
            }
            Ok(())
        })
        .await;
    start.elapsed()
}

/// Deaths that were shown, of nodes that lived.
#[derive(Default)]
struct FalseDeaths {
    open: BTreeMap<(usize, usize), Instant>,
    ended: Vec<(usize, usize, Duration)>,
}

impl FalseDeaths {
    /// Looks at what every node shows of every node that runs.
    fn look(&mut self, world: &World) {
        for viewer in world.up() {
            for of in world.up().into_iter().filter(|of| *of != viewer) {
                if status(world, viewer, of) == Some(NodeStatus::Down) {
                    self.open.entry((viewer, of)).or_insert_with(Instant::now);
                } else if let Some(since) = self.open.remove(&(viewer, of)) {
                    self.ended.push((viewer, of, since.elapsed()));
                }
            }
        }
    }

    fn of(&self, counts: impl Fn(usize) -> bool) -> usize {
        let ended = self.ended.iter().map(|(_, of, _)| of);
        ended.chain(self.open.keys().map(|(_, of)| of)).filter(|of| counts(**of)).count()
    }

    fn longest(&self) -> Duration {
        let ended = self.ended.iter().map(|(_, _, span)| *span);
        ended.chain(self.open.values().map(Instant::elapsed)).max().unwrap_or_default()
    }
}

#[test]
fn a_killed_process_is_known_to_be_down_everywhere_within_three_seconds() {
    scenario("a_killed_process_is_known_to_be_down_everywhere_within_three_seconds", 10, async |mut world| {
        world.crash(4).await;
        let took = shown(&mut world, &[4], NodeStatus::Down, Duration::from_secs(3)).await;
        eprintln!("10 nodes: a killed process is down everywhere after {took:?}");
        world.start(4).await;
        let took = shown(&mut world, &[4], NodeStatus::Alive, Duration::from_secs(3)).await;
        eprintln!("10 nodes: it is back everywhere after {took:?}");
    });
}

#[test]
fn a_host_without_power_is_known_to_be_down_everywhere_within_ten_seconds() {
    scenario("a_host_without_power_is_known_to_be_down_everywhere_within_ten_seconds", 6, async |mut world| {
        world.kill(2).await;
        let took = shown(&mut world, &[2], NodeStatus::Down, Duration::from_secs(10)).await;
        eprintln!("6 nodes: a host without power is down everywhere after {took:?}");
    });
}

#[test]
fn a_link_that_breaks_takes_nobody_for_dead_and_is_held_against_nobody_for_long() {
    scenario("a_link_that_breaks_takes_nobody_for_dead_and_is_held_against_nobody_for_long", 5, async |mut world| {
        let (a, b) = (world.hosts[0].key, world.hosts[1].key);
        world.fabric.cut(a, b);
        world.fabric.cut(b, a);
        let mut suspected = 0;
        let mut before = false;
        watch(&mut world, Duration::from_secs(90), |world| {
            for viewer in 0..5 {
                for of in (0..5).filter(|of| *of != viewer) {
                    assert_ne!(status(world, viewer, of), Some(NodeStatus::Down), "n{viewer} of n{of}");
                }
            }
            let now = status(world, 0, 1) == Some(NodeStatus::Suspect);
            suspected += u32::from(now && !before);
            before = now;
        })
        .await;
        assert!(suspected <= 8, "n0 suspected n1 {suspected} times in 90 s");
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
    });
}

/// Lifeguard's experiment: a quarter of the nodes stands still for seconds, again and again.
#[test]
fn nodes_that_stall_take_no_healthy_node_for_dead() {
    scenario("nodes_that_stall_take_no_healthy_node_for_dead", 8, async |mut world| {
        let mut fate = random::stream(world.plan.seed, "stalls");
        let mut deaths = FalseDeaths::default();
        for round in 0..8 {
            // Now and then for so long that every connection breaks.
            let span = if round == 5 { Duration::from_secs(14) } else { random::millis(&mut fate, 1_500, 9_000) };
            world.stall(0, true);
            world.stall(1, true);
            watch(&mut world, span, |world| deaths.look(world)).await;
            world.stall(0, false);
            world.stall(1, false);
            let pause = random::millis(&mut fate, 500, 6_000);
            watch(&mut world, pause, |world| deaths.look(world)).await;
        }
        let healthy = deaths.of(|of| of > 1);
        eprintln!("stalls: {healthy} deaths of healthy nodes, {} of stalled ones", deaths.of(|of| of < 2));
        assert_eq!(healthy, 0);
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_node_that_flaps_harms_nobody_else() {
    scenario("a_node_that_flaps_harms_nobody_else", 5, async |mut world| {
        let mut fate = random::stream(world.plan.seed, "flaps");
        let mut deaths = FalseDeaths::default();
        for _ in 0..8 {
            world.crash(0).await;
            let away = random::millis(&mut fate, 100, 5_000);
            watch(&mut world, away, |world| deaths.look(world)).await;
            world.start(0).await;
            let back = random::millis(&mut fate, 100, 5_000);
            watch(&mut world, back, |world| deaths.look(world)).await;
        }
        assert_eq!(deaths.of(|of| of != 0), 0);
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn at_one_percent_loss_nobody_is_taken_for_dead() {
    once("at_one_percent_loss_nobody_is_taken_for_dead", 8, Mode::Datagrams, async |mut world| {
        world.fabric.set_weather(Weather { lost_per_mille: 10, ..Weather::FAIR });
        let mut deaths = FalseDeaths::default();
        watch(&mut world, Duration::from_secs(300), |world| deaths.look(world)).await;
        assert_eq!(deaths.of(|_| true), 0);
    });
}

#[test]
fn at_a_fifth_lost_every_false_death_is_refuted_within_ten_seconds() {
    once("at_a_fifth_lost_every_false_death_is_refuted_within_ten_seconds", 8, Mode::Datagrams, async |mut world| {
        world.fabric.set_weather(Weather::FOUL);
        let mut deaths = FalseDeaths::default();
        let minutes = 5;
        watch(&mut world, Duration::from_secs(minutes * 60), |world| deaths.look(world)).await;
        let (count, longest) = (deaths.of(|_| true), deaths.longest());
        eprintln!("20 % loss: {count} false deaths in {} node-minutes, the longest of {longest:?}", minutes * 8);
        assert!(longest < Duration::from_secs(10), "{longest:?}");
        world.fabric.set_weather(Weather::FAIR);
        at_rest(&mut world, &[]).await;
    });
}

/// Cuts `side` off for an hour, and says how long after healing all show all others alive.
async fn apart_for_an_hour(world: &mut World, side: &[usize]) {
    let cut: BTreeSet<usize> = side.iter().copied().collect();
    let keys: Vec<_> = side.iter().map(|host| world.hosts[*host].key).collect();
    world.fabric.partition(&keys);
    world.run_for(Duration::from_secs(3_600)).await;
    let all: Vec<usize> = (0..world.hosts.len()).collect();
    for viewer in &all {
        for of in all.iter().filter(|of| *of != viewer) {
            let wanted = if cut.contains(viewer) == cut.contains(of) { NodeStatus::Alive } else { NodeStatus::Down };
            assert_eq!(status(world, *viewer, *of), Some(wanted), "n{viewer} of n{of}");
        }
    }
    world.fabric.heal_all();
    // Dialling takes up to a second and a half of it.
    let took = shown(world, &all, NodeStatus::Alive, Duration::from_secs(5)).await;
    eprintln!("after an hour apart all are alive again in {took:?}");
    at_rest(world, &[]).await;
}

#[test]
fn a_third_that_was_cut_off_for_an_hour_is_back_within_seconds() {
    once("a_third_that_was_cut_off_for_an_hour_is_back_within_seconds", 6, Mode::Streams, async |mut world| {
        apart_for_an_hour(&mut world, &[1, 4]).await;
    });
}

#[test]
fn a_node_that_was_alone_for_an_hour_is_back_within_seconds() {
    once("a_node_that_was_alone_for_an_hour_is_back_within_seconds", 4, Mode::Streams, async |mut world| {
        apart_for_an_hour(&mut world, &[2]).await;
    });
}

#[test]
fn after_all_lost_power_at_once_all_are_alive_again_within_seconds() {
    scenario("after_all_lost_power_at_once_all_are_alive_again_within_seconds", 8, async |mut world| {
        let all: Vec<usize> = (0..8).collect();
        for host in &all {
            world.kill(*host).await;
        }
        world.run_for(Duration::from_secs(30)).await;
        for host in &all {
            world.start(*host).await;
        }
        let took = shown(&mut world, &all, NodeStatus::Alive, Duration::from_secs(5)).await;
        eprintln!("8 nodes: after a restart of all, all are alive in {took:?}");
        at_rest(&mut world, &[]).await;
    });
}
