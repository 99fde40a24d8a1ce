//! Networks that fall apart.

use super::*;

use narun::node::engine::view::{NodeStatus, RevisionStatus};
use narun::time::Wall;

use crate::network::Weather;
use crate::wish::{anywhere, everywhere, on};

fn split(world: &World, side: &[usize]) {
    let side: Vec<_> = side.iter().map(|host| world.hosts[*host].key).collect();
    world.fabric.partition(&side);
}

#[test]
fn of_two_deploys_on_two_sides_one_wins_everywhere_and_the_other_is_superseded() {
    scenario("of_two_deploys_on_two_sides_one_wins_everywhere_and_the_other_is_superseded", 5, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "base", anywhere(3))).await;
        at_rest(&mut world, &[]).await;
        split(&world, &[0, 1]);
        world.run_for(Duration::from_secs(20)).await;
        deployed(&mut world, 0, Deployment::new("web", "left", anywhere(2))).await;
        deployed(&mut world, 3, Deployment::new("web", "right", anywhere(4))).await;
        world.run_for(Duration::from_secs(20)).await;
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
        let view = world.view(4);
        let web = view.services.iter().find(|service| service.name == service_name("web")).expect("web is kept");
        let status = |mark: &str| {
            let revision = web.history.iter().find(|revision| revision.spec.tag == mark);
            revision.map(|revision| revision.status)
        };
        let mut both = [status("left"), status("right")];
        both.sort_by_key(|status| *status == Some(RevisionStatus::Superseded));
        assert_eq!(both, [Some(RevisionStatus::Current), Some(RevisionStatus::Superseded)]);
        assert_eq!(status("base"), Some(RevisionStatus::Past));
    });
}

#[test]
fn a_minority_takes_deploys_and_scales_and_they_count_after_healing() {
    scenario("a_minority_takes_deploys_and_scales_and_they_count_after_healing", 5, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "base", anywhere(3))).await;
        at_rest(&mut world, &[]).await;
        split(&world, &[4]);
        world.run_for(Duration::from_secs(30)).await;
        deployed(&mut world, 4, Deployment::new("lonely", "m1", everywhere(1))).await;
        done(&mut world, 4, Wish::Scale { service: service_name("web"), node: None, replicas: 5 }).await;
        deployed(&mut world, 1, Deployment::new("other", "m2", on(&[1], 1))).await;
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").len(), 5);
        assert_eq!(living(&world, "lonely").values().flatten().count(), 5);
    });
}

/// How many bytes one node may send in the half minute in which two sides meet: the other side's changes, a few times over, and what
/// it says in any half minute.
const MEETING_BYTES_PER_NODE_MAX: u64 = 256 << 10;

/// Who is named as out of reach at a host, and since when, by `narun status`.
fn out_of_reach(world: &World, host: usize) -> BTreeMap<String, Wall> {
    let view = world.view(host);
    let problems = view.problems.iter().filter(|problem| problem.message.starts_with("out of reach since"));
    let since = |name: &str| view.nodes.iter().find(|node| node.name.as_str() == name).map(|node| node.since);
    let named = problems.map(|problem| {
        let since = since(&problem.subject).expect("it is a member");
        assert!(problem.message.ends_with(&since.to_string()), "{problem:?}");
        (problem.subject.clone(), since)
    });
    named.collect()
}

#[test]
fn each_side_stays_usable_and_says_who_is_out_of_reach_and_they_meet_without_a_storm() {
    let name = "each_side_stays_usable_and_says_who_is_out_of_reach_and_they_meet_without_a_storm";
    scenario(name, 5, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "base", anywhere(3))).await;
        at_rest(&mut world, &[]).await;
        let sides: [&[usize]; 2] = [&[0, 1], &[2, 3, 4]];
        let cut_at = world.hosts[0].clock.wall();
        split(&world, sides[0]);
        world.run_for(Duration::from_secs(20)).await;
        for (side, others) in [(sides[0], sides[1]), (sides[1], sides[0])] {
            for host in side {
                let named = out_of_reach(&world, *host);
                let wanted: Vec<String> = others.iter().map(|other| format!("n{other}")).collect();
                assert_eq!(named.keys().cloned().collect::<Vec<_>>(), wanted, "at n{host}");
                assert!(named.values().all(|since| since.since(cut_at) <= Duration::from_secs(15) && *since >= cut_at));
            }
            // Deploys, changes and deletions are carried out by those who are left.
            let at = side[0];
            let own = format!("own{at}");
            deployed(&mut world, at, Deployment::new(&own, &own, anywhere(2))).await;
            done(&mut world, side[1], Wish::Restart(service_name("web"))).await;
            world
                .until(Duration::from_secs(30), "carried out", |world| match living(world, &own).len() {
                    2 => Ok(()),
                    count => Err(format!("{count} run")),
                })
                .await;
        }
        world.run_for(Duration::from_secs(10)).await;
        let before = world.fabric.bytes();
        world.fabric.heal_all();
        let begun = tokio::time::Instant::now();
        at_rest(&mut world, &[]).await;
        let took = begun.elapsed();
        world.run_for(Duration::from_secs(30).saturating_sub(took)).await;
        let bytes = (world.fabric.bytes() - before) / 5;
        assert!(bytes <= MEETING_BYTES_PER_NODE_MAX, "{bytes} bytes a node");
        for host in 0..5 {
            assert_eq!(*world.view(host).problems, [], "n{host} names somebody");
            assert!(world.view(host).services.iter().filter(|it| it.name.as_str().starts_with("own")).count() == 2);
        }
        assert_eq!(living(&world, "web").len(), 3);
    });
}

#[test]
fn a_deletion_on_one_side_and_a_deploy_on_the_other_end_the_same_everywhere() {
    scenario("a_deletion_on_one_side_and_a_deploy_on_the_other_end_the_same_everywhere", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "base", anywhere(2))).await;
        at_rest(&mut world, &[]).await;
        split(&world, &[0, 1]);
        world.run_for(Duration::from_secs(20)).await;
        done(&mut world, 0, Wish::Delete(service_name("web"))).await;
        deployed(&mut world, 3, Deployment::new("web", "late", anywhere(2))).await;
        world.run_for(Duration::from_secs(5)).await;
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_one_way_cut_between_two_takes_nobody_for_dead() {
    scenario("a_one_way_cut_between_two_takes_nobody_for_dead", 4, async |mut world| {
        let (from, to) = (world.hosts[0].key, world.hosts[1].key);
        world.fabric.cut(from, to);
        watch(&mut world, Duration::from_secs(60), |world| {
            for host in 0..4 {
                let view = world.view(host);
                let down = view.nodes.iter().find(|node| node.status == NodeStatus::Down);
                assert!(down.is_none(), "n{host} takes {down:?} for dead");
            }
        })
        .await;
        deployed(&mut world, 0, Deployment::new("web", "m1", on(&[1], 1))).await;
        world
            .until(Duration::from_secs(40), "told by others", |world| {
                if living(world, "web").is_empty() { Err("n1 does not run it".into()) } else { Ok(()) }
            })
            .await;
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_network_that_loses_and_doubles_a_fifth_still_agrees() {
    scenario("a_network_that_loses_and_doubles_a_fifth_still_agrees", 4, async |mut world| {
        world.fabric.set_weather(Weather::FOUL);
        for number in 0..6 {
            let deployment = Deployment::new("web", &format!("m{number}"), anywhere(number % 4 + 1));
            deployed(&mut world, number as usize % 4, deployment).await;
            world.run_for(Duration::from_secs(3)).await;
        }
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        watch(&mut world, Duration::from_secs(60), |world| {
            assert_eq!(living(world, "web"), before, "nobody is silent for so long that instances move");
        })
        .await;
    });
}

#[test]
fn links_that_flap_lose_nothing() {
    scenario("links_that_flap_lose_nothing", 3, async |mut world| {
        let keys: Vec<_> = world.hosts.iter().map(|host| host.key).collect();
        for round in 0..10_usize {
            let (a, b) = (round % 3, (round + 1) % 3);
            world.fabric.cut(keys[a], keys[b]);
            deployed(&mut world, a, Deployment::new(&format!("s{a}"), &format!("m{round}"), anywhere(2))).await;
            world.run_for(Duration::from_millis(700)).await;
            world.fabric.heal(keys[a], keys[b]);
            world.run_for(Duration::from_millis(700)).await;
        }
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn an_acknowledgement_counts_what_is_on_the_disk_and_not_what_only_arrived() {
    scenario("an_acknowledgement_counts_what_is_on_the_disk_and_not_what_only_arrived", 3, async |mut world| {
        let (asked, away) = (world.hosts[0].key, world.hosts[2].key);
        split(&world, &[2]);
        world.run_for(Duration::from_secs(30)).await;
        for number in 0..3 {
            deployed(&mut world, 0, Deployment::new("web", &format!("before{number}"), anywhere(1))).await;
        }
        world.fabric.heal_all();
        while !world.fabric.passes(asked, away) {
            world.run_for(Duration::from_millis(1)).await;
        }
        // The change reaches a node that has not been given yet what it builds on.
        world.run_for(Duration::from_millis(3)).await;
        let answer = workload::submit(&world, 0, Wish::Deploy(Deployment::new("web", "last", anywhere(1))), 3);
        let answer = world.answer(answer).await;
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        for host in 0..3 {
            world.kill(host).await;
        }
        world.start(2).await;
        let view = world.view(2);
        let web = view.services.iter().find(|service| service.name == service_name("web"));
        let knows = web.is_some_and(|web| web.history.iter().any(|revision| revision.spec.tag == "last"));
        assert!(knows, "n2 said that it had it on disk, and shows {web:?}");
        world.heal(&[]).await;
        at_rest(&mut world, &[]).await;
    });
}
