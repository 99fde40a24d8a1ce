//! Who votes, as members come, die and leave.

use super::*;

use narun::node::engine::input::Request;

#[test]
fn voters_grow_with_the_cluster_and_a_dead_one_is_replaced_after_a_minute() {
    let name = "voters_grow_with_the_cluster_and_a_dead_one_is_replaced_after_a_minute";
    with_ledger(name, 0, 6, async |mut world| {
        world.found(1).await;
        until_voters(&mut world, 1).await;
        let spec = deployed_cron(&mut world, 0, 1, each_second("tick")).await;
        world.join(1, 0).await;
        world.run_for(Duration::from_secs(5)).await;
        until_voters(&mut world, 1).await;
        world.join(2, 1).await;
        until_voters(&mut world, 3).await;
        for joiner in 3..6 {
            world.join(joiner, joiner - 1).await;
        }
        until_voters(&mut world, 5).await;
        let voters: BTreeSet<NodeKey> = standing(&world, 0).voters.into_iter().collect();
        let dead = (0..6).rev().find(|host| voters.contains(&world.hosts[*host].key)).expect("five of six vote");
        let spare = (0..6).find(|host| !voters.contains(&world.hosts[*host].key)).expect("five of six vote");
        world.kill(dead).await;
        world.run_for(Duration::from_secs(50)).await;
        let asked = (0..6).find(|host| *host != dead && *host != spare).expect("there are four");
        assert!(standing(&world, asked).voters.contains(&world.hosts[dead].key), "not before a minute");
        world.run_for(Duration::from_secs(35)).await;
        let now: BTreeSet<NodeKey> = standing(&world, asked).voters.into_iter().collect();
        assert!(now.len() == 5 && now.contains(&world.hosts[spare].key) && !now.contains(&world.hosts[dead].key));
        world.heal(&[]).await;
        world.run_for(Duration::from_secs(10)).await;
        assert_eq!(audit(&mut world, &[spec]).await.missed, 0);
    });
}

#[test]
fn the_only_voter_leaves_and_hands_the_ledger_on() {
    scenario_with_ledger("the_only_voter_leaves_and_hands_the_ledger_on", 2, async |mut world| {
        let spec = deployed_cron(&mut world, 1, 1, each_second("tick")).await;
        world.run_for(Duration::from_secs(6)).await;
        assert_eq!(leader(&world), Some(0), "the founder");
        let left = world.ask(0, Request::Leave).await;
        assert!(matches!(left, Some(Ok(Response::Left))), "{left:?}");
        world.journal.strike(world.hosts[0].key);
        let from = world.stamps.now() + Duration::from_secs(5);
        world.run_for(Duration::from_secs(25)).await;
        assert_eq!((standing(&world, 1).voters, leader(&world)), (vec![world.hosts[1].key], Some(1)));
        let (worst, none) = lateness(&world, "tick", from, from + Duration::from_secs(15));
        assert!(none == 0 && worst < Duration::from_secs(1), "{none} slots without a run, {worst:?} late");
        assert_eq!(audit(&mut world, &[spec]).await.missed, 0);
    });
}
