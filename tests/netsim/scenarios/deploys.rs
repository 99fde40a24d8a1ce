//! Deploys, and what follows from them, in a cluster that is well.

use super::*;

use narun::node::engine::view::InstanceState;
use narun::spec::Restart;

use crate::program::Program;
use crate::wish::{anywhere, everywhere, on};

#[test]
fn a_deploy_at_any_node_runs_where_it_is_wanted() {
    scenario("a_deploy_at_any_node_runs_where_it_is_wanted", 3, async |mut world| {
        for host in 0..3 {
            let deployment = Deployment::new(&format!("web{host}"), &format!("m{host}"), anywhere(3));
            assert_eq!(deployed(&mut world, host, deployment).await, 1);
        }
        deployed(&mut world, 0, Deployment::new("pinned", "p", on(&[2], 2))).await;
        deployed(&mut world, 1, Deployment::new("agent", "a", everywhere(1))).await;
        at_rest(&mut world, &[]).await;
        let pinned: Vec<usize> = living(&world, "pinned").values().flatten().map(|(host, _)| *host).collect();
        assert_eq!(pinned, [2, 2]);
        let total: usize = (0..3).map(|host| world.hosts[host].keeper.living().len()).sum();
        assert_eq!(total, 3 * 3 + 2 + 3);
    });
}

#[test]
fn the_same_deploy_again_replaces_nothing() {
    scenario("the_same_deploy_again_replaces_nothing", 3, async |mut world| {
        let deployment = Deployment::new("web", "m1", anywhere(3));
        deployed(&mut world, 0, deployment.clone()).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        deployed(&mut world, 1, deployment).await;
        world.run_for(Duration::from_secs(10)).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web"), before);
    });
}

#[test]
fn a_changed_revision_replaces_one_index_at_a_time_in_order() {
    scenario("a_changed_revision_replaces_one_index_at_a_time_in_order", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
        let old = living(&world, "web");
        deployed(&mut world, 1, Deployment::new("web", "m2", anywhere(4))).await;
        watch(&mut world, Duration::from_secs(30), |world| {
            let now = living(world, "web");
            assert!(now.len() >= 3, "one index at a time is down, and the others live: {now:?}");
            let replaced: Vec<bool> = (0..4).map(|index| now.get(&index) != old.get(&index)).collect();
            assert!(replaced.is_sorted_by(|a, b| a >= b), "in order of the indices: {replaced:?}");
        })
        .await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_revision_that_cannot_start_stops_at_its_first_index() {
    scenario("a_revision_that_cannot_start_stops_at_its_first_index", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "good", anywhere(3))).await;
        at_rest(&mut world, &[]).await;
        deployed(&mut world, 0, Deployment::new("web", "bad", anywhere(3)).program(Program::Fails)).await;
        watch(&mut world, Duration::from_secs(60), |world| {
            assert!(living(world, "web").len() >= 2, "the instances behind the first go on as they were");
        })
        .await;
        deployed(&mut world, 2, Deployment::new("web", "mended", anywhere(3))).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_deploy_with_acks_stands_on_that_many_disks() {
    scenario("a_deploy_with_acks_stands_on_that_many_disks", 3, async |mut world| {
        let wish = Wish::Deploy(Deployment::new("web", "m1", anywhere(1)));
        let answer = workload::demand(&mut world, 0, wish, 3).await;
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        assert_eq!(world.journal.acknowledged(), 1);
        for host in 0..3 {
            world.kill(host).await;
        }
        for host in [1, 2] {
            world.start(host).await;
            let view = world.view(host);
            assert!(view.services.iter().any(|service| service.name == service_name("web")), "n{host} had it on disk");
        }
        world.start(0).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn acks_that_do_not_come_are_said_and_the_deploy_stands() {
    scenario("acks_that_do_not_come_are_said_and_the_deploy_stands", 3, async |mut world| {
        world.kill(2).await;
        let wish = Wish::Deploy(Deployment::new("web", "m1", anywhere(1)));
        let answer = workload::demand(&mut world, 0, wish, 3).await;
        let code = match answer {
            Some(Err(refusal)) => refusal.code,
            other => panic!("three disks cannot have it: {other:?}"),
        };
        assert_eq!(code, RefusalCode::TimedOut);
        world.start(2).await;
        at_rest(&mut world, &[]).await;
        assert!(living(&world, "web").len() == 1);
    });
}

#[test]
fn stop_start_and_restart_do_what_they_say() {
    scenario("stop_start_and_restart_do_what_they_say", 3, async |mut world| {
        let web = || service_name("web");
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(3)).program(Program::Stubborn)).await;
        at_rest(&mut world, &[]).await;
        let first = living(&world, "web");
        done(&mut world, 1, Wish::Restart(web())).await;
        world
            .until(REST, "replaced", |world| {
                let now = living(world, "web");
                let replaced = now.len() == 3 && now.iter().all(|(index, runs)| first[index] != *runs);
                replaced.then_some(()).ok_or(format!("{now:?}"))
            })
            .await;
        done(&mut world, 2, Wish::Stop(web())).await;
        at_rest(&mut world, &[]).await;
        assert!(living(&world, "web").is_empty());
        done(&mut world, 0, Wish::Start(web())).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").len(), 3);
    });
}

#[test]
fn what_is_not_there_is_refused_or_deleted_already() {
    scenario("what_is_not_there_is_refused_or_deleted_already", 3, async |mut world| {
        let web = || service_name("web");
        assert_eq!(refused(&mut world, 0, Wish::Stop(web())).await, RefusalCode::NotFound);
        let scale = Wish::Scale { service: web(), node: None, replicas: 2 };
        assert_eq!(refused(&mut world, 1, scale).await, RefusalCode::NotFound);
        assert_eq!(done(&mut world, 2, Wish::Delete(web())).await, Response::Deleted { existed: false });
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(2))).await;
        assert_eq!(done(&mut world, 0, Wish::Delete(web())).await, Response::Deleted { existed: true });
        at_rest(&mut world, &[]).await;
        assert!(living(&world, "web").is_empty());
        deployed(&mut world, 0, Deployment::new("web", "m2", anywhere(2))).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").len(), 2);
    });
}

#[test]
fn a_program_that_ends_is_started_again_and_again_and_at_last_left_alone() {
    scenario("a_program_that_ends_is_started_again_and_again_and_at_last_left_alone", 3, async |mut world| {
        let program = Program::Ends { code: 3, after_ms: 200 };
        deployed(&mut world, 0, Deployment::new("web", "m1", on(&[1], 1)).program(program)).await;
        let state = |world: &World| {
            let view = world.view(2);
            let instance = view.instances.iter().find(|instance| instance.service == service_name("web"));
            instance
                .map(|instance| (instance.state.word(), instance.restarts, instance.exit.and_then(|exit| exit.code)))
        };
        world
            .until(Duration::from_secs(120), "left alone", |world| match state(world) {
                Some(("crash-loop", restarts, Some(3))) if restarts >= 3 => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        let before = living(&world, "web");
        world.run_for(Duration::from_secs(60)).await;
        assert_eq!(living(&world, "web"), before);
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn what_has_finished_is_not_run_again_whatever_becomes_of_its_node() {
    scenario("what_has_finished_is_not_run_again_whatever_becomes_of_its_node", 4, async |mut world| {
        let program = Program::Ends { code: 0, after_ms: 300 };
        let job = Deployment::new("job", "m1", anywhere(4)).program(program).restart(Restart::OnFailure);
        deployed(&mut world, 0, job).await;
        let finished = |world: &World| {
            let view = world.view(0);
            let done = view.instances.iter().filter(|it| it.state == InstanceState::Finished && it.ready && it.wanted);
            done.map(|it| (it.index, it.node_key, it.run)).collect::<Vec<_>>()
        };
        world
            .until(Duration::from_secs(60), "all finished", |world| match finished(world).len() {
                4 => Ok(()),
                count => Err(format!("{count} of 4")),
            })
            .await;
        let before = finished(&world);
        let count = |world: &World| world.view(0).instances.len();
        // A process, and a whole host: for longer than it takes until others take over what runs there.
        world.crash(1).await;
        world.kill(2).await;
        world.start(1).await;
        world.run_for(Duration::from_secs(120)).await;
        assert_eq!((finished(&world), count(&world)), (before.clone(), 4));
        world.start(2).await;
        at_rest(&mut world, &[]).await;
        assert_eq!((finished(&world), count(&world)), (before.clone(), 4));
        // Its user's word does it.
        done(&mut world, 3, Wish::Restart(service_name("job"))).await;
        world
            .until(Duration::from_secs(60), "all finished once more", |world| {
                let now = finished(world);
                let again = now.iter().filter(|one| before.iter().all(|old| old.2 != one.2)).count();
                if again == 4 { Ok(()) } else { Err(format!("{again} of 4 have run again")) }
            })
            .await;
    });
}
