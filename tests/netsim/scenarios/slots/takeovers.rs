//! The node that holds a lease dies, is paused or cut off, or is drained: another one goes on.

use super::*;

use narun::ledger::run::Run;
use narun::node::engine::input::Request;
use narun::spec::{Concurrency, CronPolicy, OnNodeLoss};

use crate::wish::Wish;

/// How late the next slot may be where the holder is lost.
const LATE_MAX: Duration = Duration::from_secs(3);

/// The same where it also leads.
const LEADER_LATE_MAX: Duration = Duration::from_secs(6);

/// How many specs: enough that every node holds one.
const SPECS: usize = 12;

/// What befalls the holder.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Dies,
    ProcessDies,
    IsPaused,
    IsCutOff,
}

async fn take_over(mut world: World, blow: Blow, leads: bool) {
    let mut specs = Vec::new();
    for number in 0..SPECS {
        // What is late comes in one go: by `skip` the first of these would cost the others their runs.
        let allow = |policy: &mut CronPolicy| policy.concurrency = Concurrency::Allow;
        let deployment = each_second(&format!("tick-{number}")).policy(allow);
        specs.push(deployed_cron(&mut world, number % 5, 1, deployment).await);
    }
    world.run_for(Duration::from_secs(8)).await;
    let leader = leader(&world).expect("one leads");
    let mut held = None;
    for number in 0..SPECS {
        let name = format!("tick-{number}");
        let host = holder(&mut world, &name).await;
        if (host == leader) == leads {
            held = Some((name, host));
        }
    }
    let (name, host) = held.expect("twelve leases lie on more than one of five nodes");
    let from = world.stamps.now();
    match blow {
        Blow::Dies => world.kill(host).await,
        Blow::ProcessDies => world.crash(host).await,
        Blow::IsPaused => world.stall(host, true),
        Blow::IsCutOff => world.fabric.partition(&[world.hosts[host].key]),
    }
    world.run_for(Duration::from_secs(20)).await;
    let (worst, none) = lateness(&world, &name, from, from + Duration::from_secs(15));
    eprintln!("the holder {blow:?}, leading: {leads}: the latest run is {worst:?} late, {none} slots without one");
    assert!(worst <= if leads { LEADER_LATE_MAX } else { LATE_MAX }, "{worst:?}");
    // The one that was claimed and not started.
    assert!(none <= 1, "{none} slots without a run");
    world.heal(&[]).await;
    world.run_for(Duration::from_secs(20)).await;
    let Tally { missed, lost, .. } = audit(&mut world, &specs).await;
    assert_eq!(missed, 0);
    assert!(lost <= 2 * SPECS as u64, "{lost} lost");
}

#[test]
fn the_holder_dies_and_another_fires_its_slots() {
    let name = "the_holder_dies_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::Dies, false));
}

#[test]
fn the_holders_process_dies_and_another_fires_its_slots() {
    let name = "the_holders_process_dies_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::ProcessDies, false));
}

#[test]
fn the_holder_is_paused_and_another_fires_its_slots() {
    let name = "the_holder_is_paused_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::IsPaused, false));
}

#[test]
fn the_holder_is_cut_off_and_another_fires_its_slots() {
    let name = "the_holder_is_cut_off_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::IsCutOff, false));
}

#[test]
fn the_holder_that_leads_dies_and_another_fires_its_slots() {
    let name = "the_holder_that_leads_dies_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::Dies, true));
}

#[test]
fn the_holder_that_leads_is_paused_and_another_fires_its_slots() {
    let name = "the_holder_that_leads_is_paused_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::IsPaused, true));
}

#[test]
fn the_holder_that_leads_is_cut_off_and_another_fires_its_slots() {
    let name = "the_holder_that_leads_is_cut_off_and_another_fires_its_slots";
    scenario_with_ledger(name, 5, |world| take_over(world, Blow::IsCutOff, true));
}

#[test]
fn a_holder_that_does_not_hear_the_leader_loses_neither_session_nor_run() {
    let name = "a_holder_that_does_not_hear_the_leader_loses_neither_session_nor_run";
    scenario_with_ledger(name, 3, |world| lose_one_way(world, |leader, holder| (leader, holder)));
}

#[test]
fn a_holder_that_the_leader_does_not_hear_loses_neither_session_nor_run() {
    let name = "a_holder_that_the_leader_does_not_hear_loses_neither_session_nor_run";
    scenario_with_ledger(name, 4, |world| lose_one_way(world, |leader, holder| (holder, leader)));
}

/// One way between the leader and a holder is lost. The other nodes hear both, so that nobody else is elected.
async fn lose_one_way(mut world: World, way: impl Fn(NodeKey, NodeKey) -> (NodeKey, NodeKey)) {
    let mut specs = Vec::new();
    for number in 0..SPECS {
        let deployment = Deployment::new(&format!("tick-{number}"), "first", anywhere(1)).program(QUICK).every(5);
        specs.push(deployed_cron(&mut world, 0, 5, deployment).await);
    }
    world.run_for(Duration::from_secs(8)).await;
    let leader = leader(&world).expect("one leads");
    let is_voter = |host: &usize| standing(&world, leader).voters.contains(&world.hosts[*host].key);
    let holder = (0..world.hosts.len()).filter(is_voter).find(|host| *host != leader).expect("others vote");
    let (from, to) = way(world.hosts[leader].key, world.hosts[holder].key);
    world.fabric.cut(from, to);
    world.run_for(Duration::from_secs(15)).await;
    let later = world.hosts[holder].clock.wall();
    world.run_for(Duration::from_secs(15)).await;
    let holder = Some(world.hosts[holder].key);
    let is_its = |run: &&Run| run.node == holder && run.scheduled >= later;
    let mut ran = 0;
    for spec in &specs {
        let account = told(&mut world, spec.deployment.service.as_str()).await;
        assert_eq!(count(&account, RunStatus::Lost), 0, "{account:#?}");
        ran += account.runs.iter().filter(is_its).count();
    }
    assert!(ran >= 6, "{ran} runs of the one that is not heard, or does not hear: it holds leases all the time");
    world.fabric.heal_all();
    world.run_for(Duration::from_secs(10)).await;
    audit(&mut world, &specs).await;
}

#[test]
fn a_leader_that_a_majority_does_not_answer_keeps_nobody_from_electing_another() {
    let name = "a_leader_that_a_majority_does_not_answer_keeps_nobody_from_electing_another";
    scenario_with_ledger(name, 5, async |mut world| {
        let specs = [deployed_cron(&mut world, 0, 1, each_second("tick")).await];
        world.run_for(Duration::from_secs(3)).await;
        let old = leader(&world).expect("one leads");
        let others: Vec<usize> = (0..5).filter(|host| *host != old).collect();
        let [dead, unheard, deaf, well] = others[..] else { panic!("four others") };
        let key = |world: &World, host: usize| world.hosts[host].key;
        // Two of them hear the leader, which hears one of these: with itself two of five, and the three that could elect another would not.
        world.kill(dead).await;
        world.fabric.cut(key(&world, unheard), key(&world, old));
        world.fabric.cut(key(&world, old), key(&world, deaf));
        let majority = [unheard, deaf, well];
        let is_other = |world: &World| {
            let leaders: BTreeSet<Option<NodeKey>> =
                majority.iter().map(|host| standing(world, *host).leader).collect();
            let is_elected = leaders.len() == 1 && leaders.iter().all(|it| it.is_some_and(|it| it != key(world, old)));
            if is_elected { Ok(()) } else { Err(format!("{leaders:?}")) }
        };
        world.until(Duration::from_secs(15), "another leads", is_other).await;
        world.heal(&[]).await;
        world.run_for(Duration::from_secs(20)).await;
        audit(&mut world, &specs).await;
    });
}

/// How often the leader is cut off, each time a bit later in the life of a session.
const CUTS: u32 = 6;

#[test]
fn those_who_keep_a_majority_fire_on_without_the_leader_and_another() {
    let name = "those_who_keep_a_majority_fire_on_without_the_leader_and_another";
    scenario_with_ledger(name, 5, async |mut world| {
        let mut specs = Vec::new();
        for number in 0..SPECS {
            let allow = |policy: &mut CronPolicy| policy.concurrency = Concurrency::Allow;
            let deployment = each_second(&format!("tick-{number}")).policy(allow);
            specs.push(deployed_cron(&mut world, number % 5, 1, deployment).await);
        }
        for number in 0..CUTS {
            world.run_for(Duration::from_secs(8) + Duration::from_millis(170) * number).await;
            let leader = leader(&world).expect("one leads");
            let cut_off = [leader, (leader + 1 + number as usize % 4) % 5];
            let mut kept = Vec::new();
            for spec in &specs {
                let name = spec.deployment.service.as_str();
                let host = holder(&mut world, name).await;
                kept.extend((!cut_off.contains(&host)).then_some(name));
            }
            let from = world.stamps.now();
            world.fabric.partition(&cut_off.map(|host| world.hosts[host].key));
            world.run_for(Duration::from_secs(12)).await;
            for name in kept {
                let (worst, none) = lateness(&world, name, from, from + Duration::from_secs(8));
                assert!(
                    worst <= LEADER_LATE_MAX && none == 0,
                    "cut {number}, {name}: {worst:?} late, {none} without a run"
                );
            }
            world.fabric.heal_all();
        }
        world.run_for(Duration::from_secs(12)).await;
        audit(&mut world, &specs).await;
    });
}

#[test]
fn among_fifty_nodes_others_fire_for_the_leader_and_two_holders_that_die() {
    let name = "among_fifty_nodes_others_fire_for_the_leader_and_two_holders_that_die";
    scenario_with_ledger(name, 50, async |mut world| {
        let allow = |policy: &mut CronPolicy| policy.concurrency = Concurrency::Allow;
        let names: Vec<String> = (0..SPECS).map(|number| format!("tick-{number}")).collect();
        let mut specs = Vec::new();
        for (number, name) in names.iter().enumerate() {
            specs.push(deployed_cron(&mut world, 4 * number, 1, each_second(name).policy(allow)).await);
        }
        world.run_for(Duration::from_secs(8)).await;
        let mut holders = BTreeSet::new();
        for name in &names {
            holders.insert(holder(&mut world, name).await);
        }
        assert!(holders.len() > SPECS / 2, "{SPECS} leases lie on {} of fifty nodes", holders.len());
        let leader = leader(&world).expect("one leads");
        let from = world.stamps.now();
        for host in holders.into_iter().filter(|host| *host != leader).take(2).chain([leader]) {
            world.kill(host).await;
        }
        world.run_for(Duration::from_secs(14)).await;
        for name in &names {
            let (worst, none) = lateness(&world, name, from, from + Duration::from_secs(8));
            assert!(worst <= LEADER_LATE_MAX && none <= 1, "{name}: {worst:?} late, {none} slots without a run");
        }
        world.heal(&[]).await;
        world.run_for(Duration::from_secs(10)).await;
        assert_eq!(audit(&mut world, &specs).await.missed, 0);
    });
}

#[test]
fn a_minority_fires_nothing_and_says_so() {
    scenario_with_ledger("a_minority_fires_nothing_and_says_so", 5, async |mut world| {
        let mut specs = Vec::new();
        for number in 0..8 {
            specs.push(deployed_cron(&mut world, number % 5, 1, each_second(&format!("tick-{number}"))).await);
        }
        world.run_for(Duration::from_secs(5)).await;
        // Not in a run: those that are open there are waited for, and slots are skipped for them.
        let is_quiet = |world: &World| match world.stamps.now().subsec_millis() {
            500..900 => Ok(()),
            _ => Err(String::new()),
        };
        world.until(Duration::from_secs(2), "between two slots", is_quiet).await;
        world.fabric.partition(&[world.hosts[0].key, world.hosts[3].key]);
        world.run_for(Duration::from_secs(8)).await;
        let from = world.stamps.now();
        world.run_for(Duration::from_secs(12)).await;
        let says_so =
            |host: usize| world.view(host).problems.iter().any(|it| it.message.contains("no cron slot fires"));
        assert_eq!([0, 1, 2, 3, 4].map(says_so), [true, false, false, true, false]);
        let fired: Vec<Stamp> = world.stamps.all().into_iter().filter(|stamp| stamp.began > from).collect();
        let (few, many): (Vec<_>, Vec<_>) = fired.into_iter().partition(|it| it.host == "n0" || it.host == "n3");
        assert!(few.is_empty(), "{few:?}");
        assert!(many.len() >= 8 * 10, "{} runs of the majority", many.len());
        world.heal(&[]).await;
        world.run_for(Duration::from_secs(15)).await;
        assert!((0..5).all(|host| world.view(host).problems.iter().all(|it| !it.message.contains("no cron slot"))));
        assert_eq!(audit(&mut world, &specs).await.missed, 0);
    });
}

#[test]
fn a_drain_moves_the_leases_and_loses_nothing() {
    scenario_with_ledger("a_drain_moves_the_leases_and_loses_nothing", 3, async |mut world| {
        let spec = deployed_cron(&mut world, 0, 1, each_second("tick")).await;
        world.run_for(Duration::from_secs(5)).await;
        let before = holder(&mut world, "tick").await;
        let node = world.hosts[before].name.clone();
        let from = world.stamps.now();
        let drained = world.ask(1, Request::DrainNode { node }).await;
        assert!(matches!(drained, Some(Ok(_))), "{drained:?}");
        world.run_for(Duration::from_secs(10)).await;
        assert_ne!(holder(&mut world, "tick").await, before);
        let (worst, none) = lateness(&world, "tick", from, from + Duration::from_secs(8));
        assert!(none == 0 && worst < Duration::from_secs(2), "{none} slots without a run, {worst:?} late");
        let name = format!("n{before}");
        let late = stamps(&world, "tick").into_iter().find(|it| it.host == name && it.began > from + LATE_MAX);
        assert!(late.is_none(), "{late:?}");
        let Tally { slots, ran, .. } = audit(&mut world, &[spec]).await;
        assert_eq!(slots, ran);
    });
}

#[test]
fn a_lost_node_under_rerun_costs_an_attempt_and_not_the_run() {
    scenario_with_ledger("a_lost_node_under_rerun_costs_an_attempt_and_not_the_run", 3, async |mut world| {
        let slow = Program::Ends { code: 0, after_ms: 12_000 };
        let rerun = |policy: &mut CronPolicy| policy.on_node_loss = OnNodeLoss::Rerun;
        let deployment = Deployment::new("slow", "m1", anywhere(1)).program(slow).every(30).policy(rerun);
        let spec = deployed_cron(&mut world, 0, 30, deployment).await;
        world
            .until(Duration::from_secs(60), "it runs", |world| match stamps(world, "slow").last() {
                Some(stamp) if world.stamps.now() > stamp.began + Duration::from_secs(3) => Ok(()),
                last => Err(format!("{last:?}")),
            })
            .await;
        let first = stamps(&world, "slow").pop().expect("it runs");
        let host = (0..3).find(|host| world.hosts[*host].name.as_str() == first.host).expect("a host");
        world.kill(host).await;
        // Its node has a while to come back and say how it ended; then it takes as long as it takes.
        world.run_for(Duration::from_secs(40)).await;
        let of_run: Vec<Stamp> = stamps(&world, "slow").into_iter().filter(|it| it.run == first.run).collect();
        assert_eq!(of_run.iter().map(|it| it.attempt).collect::<Vec<_>>(), [1, 2], "{of_run:?}");
        assert!(of_run[1].host != first.host && of_run[1].ended.is_some());
        let account = told(&mut world, "slow").await;
        let run = account.runs.iter().find(|run| run.id.to_string() == first.run).expect("it is on record");
        assert_eq!(run.end.as_ref().map(|end| end.status), Some(RunStatus::Success));
        world.heal(&[]).await;
        world.run_for(Duration::from_secs(20)).await;
        audit(&mut world, &[spec]).await;
    });
}

#[test]
fn a_node_whose_ledger_cannot_be_written_ends_and_comes_back() {
    scenario_with_ledger("a_node_whose_ledger_cannot_be_written_ends_and_comes_back", 3, async |mut world| {
        let spec = deployed_cron(&mut world, 0, 1, each_second("tick")).await;
        world.run_for(Duration::from_secs(4)).await;
        let leader = leader(&world).expect("one leads");
        world.hosts[leader].ledger_disk.as_ref().expect("it has one").fail_next();
        let is_down = |world: &World| if world.runs(leader) { Err("it runs".to_owned()) } else { Ok(()) };
        world.until(Duration::from_secs(5), "it has ended", is_down).await;
        world.run_for(Duration::from_secs(6)).await;
        world.heal(&[]).await;
        world.run_for(Duration::from_secs(10)).await;
        done(&mut world, leader, Wish::Start(service_name("tick"))).await;
        assert_eq!(audit(&mut world, &[spec]).await.missed, 0);
    });
}
