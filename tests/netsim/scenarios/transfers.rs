//! Binaries on their way.

use super::*;

use crate::wish::{everywhere, on};

/// Seconds of transfer between two hosts.
const LARGE: u64 = 40_000_000;

#[test]
fn a_source_that_dies_in_the_middle_is_replaced_by_another() {
    scenario("a_source_that_dies_in_the_middle_is_replaced_by_another", 4, async |mut world| {
        let deployment = Deployment::new("web", "m1", on(&[3], 1)).size(LARGE);
        world.hosts[1].shelf.put(deployment.blob, LARGE);
        deployed(&mut world, 0, deployment).await;
        world.run_for(Duration::from_secs(1)).await;
        world.kill(0).await;
        at_rest(&mut world, &[0]).await;
        assert_eq!(living(&world, "web").len(), 1);
        world.start(0).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn the_only_source_dies_and_returns_and_the_transfer_ends_well() {
    scenario("the_only_source_dies_and_returns_and_the_transfer_ends_well", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", everywhere(1)).size(LARGE)).await;
        world.run_for(Duration::from_secs(1)).await;
        world.kill(0).await;
        world.run_for(Duration::from_secs(30)).await;
        world.start(0).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn wrong_bytes_are_never_run_and_another_source_is_found() {
    scenario("wrong_bytes_are_never_run_and_another_source_is_found", 4, async |mut world| {
        let deployment = Deployment::new("web", "m1", everywhere(1));
        world.hosts[2].shelf.put(deployment.blob, deployment.size);
        world.hosts[0].shelf.set_corrupts(true);
        deployed(&mut world, 0, deployment).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn a_node_that_ends_in_the_middle_of_a_transfer_goes_on_with_it() {
    scenario("a_node_that_ends_in_the_middle_of_a_transfer_goes_on_with_it", 3, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "m1", on(&[2], 1)).size(LARGE)).await;
        world.run_for(Duration::from_secs(1)).await;
        world.crash(2).await;
        world.run_for(Duration::from_secs(1)).await;
        world.start(2).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").len(), 1);
    });
}
