//! Clocks that are wrong: slots are those of the voters' common time.

use super::*;

#[test]
fn a_node_whose_clock_is_off_fires_nothing_and_delays_nobody() {
    scenario_with_ledger("a_node_whose_clock_is_off_fires_nothing_and_delays_nobody", 3, async |mut world| {
        let mut specs = Vec::new();
        for number in 0..6 {
            specs.push(deployed_cron(&mut world, 0, 1, each_second(&format!("tick-{number}"))).await);
        }
        world.run_for(Duration::from_secs(5)).await;
        for minutes in [10, -10] {
            let host = holder(&mut world, "tick-0").await;
            world.hosts[host].clock.set_skew(minutes * 60_000);
            world.run_for(Duration::from_secs(6)).await;
            assert_ne!(holder(&mut world, "tick-0").await, host, "its clock is off by {minutes} min");
            let from = world.stamps.now();
            world.run_for(Duration::from_secs(10)).await;
            for number in 0..6 {
                let (worst, none) = lateness(&world, &format!("tick-{number}"), from, from + Duration::from_secs(8));
                assert!(none == 0 && worst < Duration::from_secs(1), "{none} slots without a run, {worst:?} late");
            }
            let name = world.hosts[host].name.to_string();
            let fired = world.stamps.all().into_iter().find(|it| it.host == name && it.began > from);
            assert!(fired.is_none(), "{fired:?}");
            world.hosts[host].clock.set_skew(0);
            world.run_for(Duration::from_secs(8)).await;
        }
        assert_eq!(audit(&mut world, &specs).await.missed, 0);
    });
}

#[test]
fn a_clock_that_jumps_to_and_fro_fires_no_slot_twice() {
    scenario_with_ledger("a_clock_that_jumps_to_and_fro_fires_no_slot_twice", 3, async |mut world| {
        let spec = deployed_cron(&mut world, 0, 1, each_second("tick")).await;
        world.run_for(Duration::from_secs(4)).await;
        for jump_ms in [1_500, -1_500, 5_000, 0, -5_000, 0, 90_000, 0] {
            let host = holder(&mut world, "tick").await;
            world.hosts[host].clock.set_skew(jump_ms);
            world.run_for(Duration::from_millis(2_300)).await;
            for host in 0..3 {
                world.hosts[host].clock.set_skew(0);
            }
            world.run_for(Duration::from_millis(1_700)).await;
        }
        world.run_for(Duration::from_secs(10)).await;
        // Two attempts for one slot would have been seen as they were made.
        assert_eq!(audit(&mut world, &[spec]).await.missed, 0);
    });
}
