//! Nobody could fire for a while: what is caught up.

use super::*;

use narun::spec::{CatchUp, CronPolicy};

/// How long all hosts are without power: ten slots.
const OUTAGE: Duration = Duration::from_secs(300);

fn half_minutes(name: &str, catch_up: CatchUp) -> Deployment {
    let policy = |policy: &mut CronPolicy| {
        policy.catch_up = catch_up;
        policy.starting_deadline_seconds = 10;
    };
    Deployment::new(name, name, anywhere(1)).program(QUICK).every(30).policy(policy)
}

#[test]
fn after_an_outage_missed_slots_are_caught_up_as_the_spec_says() {
    scenario_with_ledger("after_an_outage_missed_slots_are_caught_up_as_the_spec_says", 3, async |mut world| {
        let all = CatchUp::All { window_seconds: 3_600 };
        let mut specs = Vec::new();
        for (name, catch_up) in [("none", CatchUp::None), ("latest", CatchUp::Latest), ("all", all)] {
            specs.push(deployed_cron(&mut world, 0, 30, half_minutes(name, catch_up)).await);
        }
        world.run_for(Duration::from_secs(65)).await;
        // Not at a slot: its run would be lost with its host.
        let second = |world: &World| world.stamps.now().as_secs() % 30;
        let is_quiet = |world: &World| if second(world) == 12 { Ok(()) } else { Err(String::new()) };
        world.until(Duration::from_secs(31), "between two slots", is_quiet).await;
        for host in 0..3 {
            world.kill(host).await;
        }
        let before = world.stamps.now();
        world.pass(OUTAGE).await;
        for host in 0..3 {
            world.start(host).await;
        }
        let after = world.stamps.now();
        world.run_for(Duration::from_secs(45)).await;
        let caught_up = |name: &str| {
            let late = |stamp: &&Stamp| stamp.began > after && due(stamp.slot) < after - Duration::from_secs(10);
            stamps(&world, name).iter().filter(late).count()
        };
        let missed = (before.as_secs() / 30 + 1..=(after.as_secs() - 10) / 30).count();
        assert_eq!(missed, 10);
        // One more or less is in time, by when the ledger was there again.
        assert_eq!((caught_up("none"), caught_up("latest")), (0, 1));
        assert!((9..=10).contains(&caught_up("all")), "{}", caught_up("all"));
        audit(&mut world, &specs).await;
    });
}
