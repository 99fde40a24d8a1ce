//! What becomes of runs that overlap, fail, take too long or are not wanted, and of specs that change.

use super::*;

use narun::ledger::run::GapReason;
use narun::spec::{Concurrency, CronPolicy};

use crate::wish::Wish;

fn concurrency(name: &str, concurrency: Concurrency) -> Deployment {
    let slow = Program::Ends { code: 0, after_ms: 2_600 };
    let policy = |policy: &mut CronPolicy| policy.concurrency = concurrency;
    Deployment::new(name, name, anywhere(1)).program(slow).every(1).policy(policy)
}

/// The most attempts that were there at one moment.
fn most_at_once(stamps: &[Stamp]) -> usize {
    let is_there = |stamp: &Stamp, at: Duration| stamp.began <= at && stamp.ended.is_none_or(|ended| ended > at);
    let at_start = |start: &Stamp| stamps.iter().filter(|stamp| is_there(stamp, start.began)).count();
    stamps.iter().map(at_start).max().unwrap_or(0)
}

#[test]
fn overlapping_runs_are_skipped_allowed_or_replaced() {
    scenario_with_ledger("overlapping_runs_are_skipped_allowed_or_replaced", 3, async |mut world| {
        let mut specs = Vec::new();
        for (name, policy) in
            [("skip", Concurrency::Skip), ("allow", Concurrency::Allow), ("replace", Concurrency::Replace)]
        {
            specs.push(deployed_cron(&mut world, 0, 1, concurrency(name, policy)).await);
        }
        world.run_for(Duration::from_secs(20)).await;
        let [skip, allow, replace] = ["skip", "allow", "replace"].map(|name| stamps(&world, name));
        assert_eq!((most_at_once(&skip), most_at_once(&allow), most_at_once(&replace)), (1, 3, 1));
        assert!(skip.len() < 8 && allow.len() >= 18 && replace.len() >= 17, "{}, {}", allow.len(), replace.len());
        let skipped = told(&mut world, "skip").await.gaps;
        assert!(skipped.iter().all(|gap| matches!(gap.reason, GapReason::Skipped(_))), "{skipped:?}");
        assert!(skipped.iter().map(|gap| gap.count).sum::<u64>() >= 12, "{skipped:?}");
        let replaced = told(&mut world, "replace").await;
        assert!(count(&replaced, RunStatus::Replaced) >= 16, "{:?}", replaced.runs);
        assert_eq!(audit(&mut world, &specs).await.missed, 0);
    });
}

#[test]
fn a_run_that_fails_is_tried_again_and_one_that_hangs_is_ended() {
    scenario_with_ledger("a_run_that_fails_is_tried_again_and_one_that_hangs_is_ended", 3, async |mut world| {
        let retries = |policy: &mut CronPolicy| (policy.max_retries, policy.retry_backoff_seconds) = (2, 1);
        let fails = Program::Ends { code: 7, after_ms: 100 };
        let fails = Deployment::new("fails", "fails", anywhere(1)).program(fails).every(10).policy(retries);
        let timeout = |policy: &mut CronPolicy| policy.timeout_seconds = 2;
        let hangs = Deployment::new("hangs", "hangs", anywhere(1)).program(Program::Stubborn).every(20).policy(timeout);
        let absent = Deployment::new("absent", "absent", anywhere(1)).program(Program::Fails).every(10);
        let mut specs = Vec::new();
        for (every, deployment) in [(10, fails), (20, hangs), (10, absent)] {
            specs.push(deployed_cron(&mut world, 0, every, deployment).await);
        }
        world.run_for(Duration::from_secs(58)).await;
        let tried = stamps(&world, "fails");
        let runs: BTreeSet<&String> = tried.iter().map(|stamp| &stamp.run).collect();
        for run in runs {
            let of_run: Vec<&Stamp> = tried.iter().filter(|stamp| stamp.run == *run).collect();
            assert_eq!(of_run.iter().map(|stamp| stamp.attempt).collect::<Vec<_>>(), [1, 2, 3]);
            let pauses = of_run.windows(2).map(|pair| pair[1].began - pair[0].ended.expect("it ended"));
            for (pause, wanted) in pauses.zip([1.0, 2.0]) {
                let pause = pause.as_secs_f64();
                assert!(pause >= wanted * 0.8 && pause <= wanted * 1.2 + 0.3, "{pause} s, not about {wanted} s");
            }
        }
        let account = told(&mut world, "fails").await;
        assert!(count(&account, RunStatus::Failure) >= 4, "{:?}", account.runs);
        // It does not hear SIGTERM: its tree is killed ten seconds later.
        let hung = stamps(&world, "hangs");
        let took: Vec<f64> = hung.iter().filter_map(|it| Some((it.ended? - it.began).as_secs_f64())).collect();
        assert!(!took.is_empty() && took.iter().all(|took| (11.5..14.0).contains(took)), "{took:?}");
        assert!(count(&told(&mut world, "hangs").await, RunStatus::Timeout) >= 1);
        assert!(count(&told(&mut world, "absent").await, RunStatus::FailureToStart) >= 4);
        assert_eq!(audit(&mut world, &specs).await.missed, 0);
    });
}

#[test]
fn a_spec_that_changes_is_suspended_deleted_and_comes_back_fires_each_slot_once() {
    let name = "a_spec_that_changes_is_suspended_deleted_and_comes_back_fires_each_slot_once";
    scenario_with_ledger(name, 3, async |mut world| {
        let fired = |world: &World, from: Duration| stamps(world, "tick").iter().filter(|it| it.began > from).count();
        let mut spec = deployed_cron(&mut world, 0, 1, each_second("tick")).await;
        world.run_for(Duration::from_secs(6)).await;
        spec.deployment.mark = "second".to_owned();
        let from = world.stamps.now();
        deployed(&mut world, 1, spec.deployment.clone()).await;
        world.run_for(Duration::from_secs(6)).await;
        assert_eq!(lateness(&world, "tick", from, from + Duration::from_secs(5)).1, 0, "a redeploy costs no slot");

        let suspended = spec.deployment.clone().policy(|policy| policy.suspend = true);
        deployed(&mut world, 2, Deployment { mark: "third".to_owned(), ..suspended }).await;
        world.run_for(Duration::from_secs(2)).await;
        let from = world.stamps.now();
        world.run_for(Duration::from_secs(10)).await;
        assert_eq!(fired(&world, from), 0);
        deployed(&mut world, 0, Deployment { mark: "fourth".to_owned(), ..spec.deployment.clone() }).await;
        world.run_for(Duration::from_secs(8)).await;
        assert!(fired(&world, from) >= 6);
        let Tally { missed, suspended, .. } = audit(&mut world, &[spec.clone()]).await;
        assert!(missed == 0 && (9..=13).contains(&suspended), "{missed} missed, {suspended} suspended");

        done(&mut world, 1, Wish::Delete(service_name("tick"))).await;
        world.run_for(Duration::from_secs(2)).await;
        let from = world.stamps.now();
        world.run_for(Duration::from_secs(8)).await;
        assert_eq!(fired(&world, from), 0);
        let again = world.stamps.now();
        deployed(&mut world, 2, Deployment { mark: "fifth".to_owned(), ..spec.deployment }).await;
        world.run_for(Duration::from_secs(8)).await;
        assert!(fired(&world, again) >= 6);
        let early = stamps(&world, "tick").into_iter().find(|it| it.began > again && due(it.slot) < again);
        assert!(early.is_none(), "slots from before it was there again are none of its: {early:?}");
    });
}

#[test]
fn a_spec_of_each_node_has_a_run_a_slot_on_each_node() {
    scenario_with_ledger("a_spec_of_each_node_has_a_run_a_slot_on_each_node", 3, async |mut world| {
        let spec = deployed_cron(&mut world, 0, 1, each_second("tick").on_each_node()).await;
        world.run_for(Duration::from_secs(4)).await;
        let from = world.stamps.now();
        world.run_for(Duration::from_secs(12)).await;
        for host in ["n0", "n1", "n2"] {
            let fired = |it: &&Stamp| it.host == host && it.began > from;
            let fired = stamps(&world, "tick").iter().filter(fired).count();
            assert!((11..=13).contains(&fired), "{fired} on {host}");
        }
        let Tally { slots, ran, .. } = audit(&mut world, &[spec]).await;
        assert_eq!(slots, ran);
    });
}
