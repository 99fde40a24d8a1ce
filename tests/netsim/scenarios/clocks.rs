//! Clocks that are wrong.

use super::*;

use crate::wish::anywhere;

#[test]
fn the_later_deploy_wins_whatever_the_clocks_say() {
    scenario_with_skew("the_later_deploy_wins_whatever_the_clocks_say", 4, 10, async |mut world| {
        for number in 0..6 {
            let deployment = Deployment::new("web", &format!("m{number}"), anywhere(2));
            deployed(&mut world, number % 4, deployment).await;
            at_rest(&mut world, &[]).await;
            let view = world.view((number + 1) % 4);
            assert_eq!(view.services[0].current.spec.tag, format!("m{number}"));
        }
    });
}

#[test]
fn a_step_of_a_clock_touches_no_instance_and_takes_nobody_for_dead() {
    scenario("a_step_of_a_clock_touches_no_instance_and_takes_nobody_for_dead", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        for (host, minutes) in [(0, 10), (1, -10), (2, 60 * 24), (0, -60 * 24 * 365)] {
            world.hosts[host].clock.set_skew(minutes * 60_000);
            watch(&mut world, Duration::from_secs(15), |world| {
                assert_eq!(living(world, "web"), before);
                for host in 0..3 {
                    let view = world.view(host);
                    assert!(view.nodes.iter().all(|node| node.status.word() == "alive"), "{:?}", view.nodes);
                }
            })
            .await;
        }
        deployed(&mut world, 0, Deployment::new("web", "m2", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
    });
}
