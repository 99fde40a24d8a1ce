//! More instances, and fewer.

use super::*;

use crate::wish::{anywhere, on};

fn scale(replicas: u32) -> Wish {
    Wish::Scale { service: service_name("web"), node: None, replicas }
}

#[test]
fn scaling_down_takes_the_highest_indices_and_leaves_the_others_alone() {
    scenario("scaling_down_takes_the_highest_indices_and_leaves_the_others_alone", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(5))).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        done(&mut world, 1, scale(2)).await;
        watch(&mut world, Duration::from_secs(20), |world| {
            let now = living(world, "web");
            for index in 0..2 {
                assert_eq!(now.get(&index), before.get(&index), "index {index} is not touched");
            }
        })
        .await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").into_keys().collect::<Vec<_>>(), [0, 1]);
    });
}

#[test]
fn scaling_up_adds_indices_and_replaces_none() {
    scenario("scaling_up_adds_indices_and_replaces_none", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", anywhere(2))).await;
        at_rest(&mut world, &[]).await;
        let before = living(&world, "web");
        done(&mut world, 2, scale(6)).await;
        at_rest(&mut world, &[]).await;
        let after = living(&world, "web");
        assert_eq!(after.len(), 6);
        for (index, runs) in before {
            assert_eq!(after[&index], runs, "index {index} is not touched");
        }
        let hosts: std::collections::BTreeSet<usize> = after.values().flatten().map(|(host, _)| *host).collect();
        assert!(hosts.len() > 1, "six instances do not all stand on one of three hosts: {after:?}");
    });
}

#[test]
fn a_named_place_is_scaled_where_it_is_and_moved_by_a_deploy() {
    scenario("a_named_place_is_scaled_where_it_is_and_moved_by_a_deploy", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", on(&[1], 1))).await;
        at_rest(&mut world, &[]).await;
        done(&mut world, 2, scale(3)).await;
        at_rest(&mut world, &[]).await;
        assert!(living(&world, "web").values().flatten().all(|(host, _)| *host == 1));
        deployed(&mut world, 0, Deployment::new("web", "m2", on(&[2], 2))).await;
        at_rest(&mut world, &[]).await;
        assert!(living(&world, "web").values().flatten().all(|(host, _)| *host == 2));
    });
}
