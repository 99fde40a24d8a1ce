//! Nodes that end at the worst moment.

use super::*;

use crate::disk::Speed;
use crate::life::Fuse;
use crate::program::Program;
use crate::wish::{anywhere, on};

/// A deploy at n0, which ends where `fuse` says; then it starts again. What was acknowledged is looked at when it starts, and
/// everywhere in the end. Gives back whether anything of the deploy is there.
async fn crash_in_a_deploy(world: &mut World, fuse: Fuse, after: Duration) -> (bool, bool) {
    world.light(0, fuse);
    let task = workload::submit(world, 0, Wish::Deploy(Deployment::new("web", "m1", anywhere(2))), 1);
    world.until(REST, "ended", |world| if world.runs(0) { Err("n0 lives".into()) } else { Ok(()) }).await;
    world.run_for(after).await;
    world.start(0).await;
    world.until(REST, "answered", |_| task.is_finished().then_some(()).ok_or("waits".into())).await;
    at_rest(world, &[]).await;
    let known = world.view(0).services.iter().any(|service| service.name == service_name("web"));
    (known, world.journal.acknowledged() == 1)
}

#[test]
fn a_crash_before_the_commit_loses_a_deploy_that_nobody_was_promised() {
    scenario("a_crash_before_the_commit_loses_a_deploy_that_nobody_was_promised", 3, async |mut world| {
        let fuse = Fuse::NextCommit { survives: false };
        let (_, acknowledged) = crash_in_a_deploy(&mut world, fuse, Duration::from_secs(2)).await;
        assert!(!acknowledged, "nothing was durable");
    });
}

#[test]
fn a_crash_after_the_commit_and_before_the_answer_keeps_the_deploy_or_loses_it_whole() {
    scenario(
        "a_crash_after_the_commit_and_before_the_answer_keeps_the_deploy_or_loses_it_whole",
        3,
        async |mut world| {
            for fuse in [Fuse::NextCommit { survives: true }, Fuse::NextConfirmation] {
                let before = world.journal.acknowledged();
                let (_, _) = crash_in_a_deploy(&mut world, fuse, Duration::from_secs(1)).await;
                assert_eq!(world.journal.acknowledged(), before, "{fuse:?}: the answer is an effect of the commit");
            }
        },
    );
}

#[test]
fn a_crash_between_any_two_effects_of_a_deploy_breaks_no_promise() {
    scenario("a_crash_between_any_two_effects_of_a_deploy_breaks_no_promise", 3, async |mut world| {
        for effects in (0..12).chain([20, 40, 60]) {
            let service = format!("web{effects}");
            world.light(0, Fuse::Effects(effects));
            let deployment = Deployment::new(&service, &format!("m{effects}"), anywhere(1));
            workload::submit(&world, 0, Wish::Deploy(deployment), 1);
            world.until(REST, "ended", |world| if world.runs(0) { Err("n0 lives".into()) } else { Ok(()) }).await;
            world.run_for(Duration::from_millis(700)).await;
            world.start(0).await;
            world.run_for(Duration::from_secs(2)).await;
        }
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn the_end_of_a_node_leaves_its_instances_running_and_it_finds_them_again() {
    scenario("the_end_of_a_node_leaves_its_instances_running_and_it_finds_them_again", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(6))).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        for host in [0, 1, 2] {
            world.crash(host).await;
            world.run_for(Duration::from_secs(2)).await;
            world.start(host).await;
            watch(&mut world, Duration::from_secs(8), |world| {
                assert_eq!(living(world, "web"), before, "not one was stopped, restarted or doubled");
            })
            .await;
        }
        at_rest(&mut world, &[]).await;
        let view = world.view(1);
        assert!(view.instances.iter().all(|instance| instance.restarts == 0), "{:?}", view.instances);
    });
}

#[test]
fn an_exit_while_the_node_was_away_is_not_lost() {
    scenario("an_exit_while_the_node_was_away_is_not_lost", 3, async |mut world| {
        let program = Program::Ends { code: 7, after_ms: 3_000 };
        deployed(&mut world, 0, Deployment::new("web", "m1", on(&[1], 1)).program(program)).await;
        world
            .until(REST, "up", |world| if living(world, "web").is_empty() { Err("down".into()) } else { Ok(()) })
            .await;
        world.crash(1).await;
        world.run_for(Duration::from_secs(6)).await;
        assert!(living(&world, "web").is_empty());
        world.start(1).await;
        world
            .until(REST, "known at another node", |world| {
                let view = world.view(0);
                let instance = view.instances.iter().find(|instance| instance.service == service_name("web"));
                let exit = instance.and_then(|instance| instance.exit).and_then(|exit| exit.code);
                if exit == Some(7) { Ok(()) } else { Err(format!("{instance:?}")) }
            })
            .await;
        assert!(world.hosts[1].keeper.held() <= 2, "exits are acknowledged, and forgotten by the keeper");
    });
}

#[test]
fn all_hosts_die_at_once_and_come_back() {
    scenario("all_hosts_die_at_once_and_come_back", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
        done(&mut world, 1, Wish::Scale { service: service_name("web"), node: None, replicas: 3 }).await;
        deployed(&mut world, 2, Deployment::new("pinned", "m2", on(&[3], 1))).await;
        at_rest(&mut world, &[]).await;
        for host in 0..4 {
            world.kill(host).await;
        }
        world.run_for(Duration::from_secs(60)).await;
        for host in [2, 0, 3, 1] {
            world.start(host).await;
        }
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").len(), 3);
        assert_eq!(living(&world, "pinned").len(), 1);
    });
}

#[test]
fn a_keeper_that_dies_costs_its_instances_a_restart_and_no_more() {
    scenario("a_keeper_that_dies_costs_its_instances_a_restart_and_no_more", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(3))).await;
        deployed(&mut world, 0, Deployment::new("pinned", "m2", on(&[1], 2))).await;
        at_rest(&mut world, &[]).await;
        // Just launched: the loop waits for it to be ready, and now for a keeper first.
        done(&mut world, 0, Wish::Restart(service_name("pinned"))).await;
        world.run_for(Duration::from_millis(600)).await;
        world.hosts[1].keeper.die(true);
        at_rest(&mut world, &[]).await;
        world.crash(1).await;
        world.hosts[1].keeper.die(false);
        world.run_for(Duration::from_secs(1)).await;
        world.start(1).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_node_whose_disk_fails_stops_and_breaks_no_promise() {
    scenario("a_node_whose_disk_fails_stops_and_breaks_no_promise", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(2))).await;
        at_rest(&mut world, &[]).await;
        world.hosts[0].platter().fail_next();
        workload::submit(&world, 0, Wish::Deploy(Deployment::new("web", "m2", anywhere(2))), 1);
        world.until(REST, "stopped", |world| if world.runs(0) { Err("n0 lives".into()) } else { Ok(()) }).await;
        assert_eq!(world.journal.acknowledged(), 1, "what is not on the disk is not acknowledged");
        world.run_for(Duration::from_secs(5)).await;
        world.start(0).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_slow_disk_delays_answers_and_nothing_else() {
    scenario("a_slow_disk_delays_answers_and_nothing_else", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", on(&[0], 2))).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        world.hosts[0].platter().set_speed(Speed::Slow);
        for number in 0..5 {
            deployed(&mut world, 0, Deployment::new("other", &format!("o{number}"), on(&[1], 1))).await;
        }
        for host in 0..3 {
            let view = world.view(host);
            assert!(view.nodes.iter().all(|node| node.status.word() == "alive"), "it answers probes: {:?}", view.nodes);
        }
        assert_eq!(living(&world, "web"), before);
        world.heal(&[]).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_service_that_becomes_movable_while_its_node_is_catching_up_waits_in_peace() {
    scenario("a_service_that_becomes_movable_while_its_node_is_catching_up_waits_in_peace", 3, async |mut world| {
        world.fabric.partition(&[world.hosts[1].key]);
        world.crash(1).await;
        world.start(1).await;
        let program = Program::Ends { code: 1, after_ms: 50 };
        deployed(&mut world, 1, Deployment::new("web", "m1", on(&[1], 1)).program(program)).await;
        world
            .until(Duration::from_secs(5), "failing", |world| {
                let view = world.view(1);
                let states: Vec<_> = view.instances.iter().map(|instance| instance.state.word()).collect();
                if states == ["backoff"] { Ok(()) } else { Err(format!("{states:?}")) }
            })
            .await;
        deployed(&mut world, 1, Deployment::new("web", "m2", anywhere(1))).await;
        world.run_for(Duration::from_secs(20)).await;
        world.heal(&[]).await;
        at_rest(&mut world, &[]).await;
    });
}
