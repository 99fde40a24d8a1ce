//! Trials of the ordinary run, and of every deliberate bug.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::*;

/// How many slots are tried where `NARUN_TRIAL_SLOTS` says nothing else: a minute and a half of two cores, unoptimised. With those of whole nodes
/// (`tests/netsim/random_slots.rs`) they are 20,000.
const SLOTS: u64 = 14_000;

/// A bug has to be caught within this time of one core.
const CAUGHT_WITHIN: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is to be a number, not `{text}`")))
}

/// What this thread has computed so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

fn assert_clean(seed: u64, outcome: &Outcome) {
    let wrongs = &outcome.verdict.wrongs;
    assert!(
        wrongs.is_empty(),
        "{} promises were broken: {wrongs:#?}\nto live it again: \
         NARUN_TRIAL_SEED={seed} NARUN_TRIAL_TELL=1 cargo test --lib ledger::trial::tests::promises -- --nocapture",
        wrongs.len()
    );
}

/// What all lives so far came to.
#[derive(Default)]
struct Sum {
    next: u64,
    lives: u64,
    lasted: Moment,
    took: Duration,
    verdict: Verdict,
    faults: BTreeMap<&'static str, u64>,
}

#[test]
fn promises_are_kept_whatever_happens() {
    let wanted = number("NARUN_TRIAL_SLOTS").unwrap_or(SLOTS);
    let only = number("NARUN_TRIAL_SEED");
    let sum = Mutex::new(Sum { next: only.unwrap_or(0), ..Sum::default() });
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let take = || {
        let mut sum = lock();
        sum.next += 1;
        let is_done = only.map_or(sum.verdict.slots >= wanted, |seed| sum.next > seed + 1);
        (!is_done).then_some(sum.next - 1)
    };
    let live_on = || {
        while let Some(seed) = take() {
            let began = cpu_time();
            let outcome = live(Terms::of(seed), None);
            assert_clean(seed, &outcome);
            let mut sum = lock();
            sum.verdict.add(&outcome.verdict);
            for (fault, count) in outcome.faults {
                *sum.faults.entry(fault).or_default() += count;
            }
            (sum.lasted, sum.lives, sum.took) =
                (sum.lasted + outcome.lasted, sum.lives + 1, sum.took + (cpu_time() - began));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(live_on);
        }
    });
    let Sum { lives, lasted, took, verdict: sum, faults, .. } =
        sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{lives} lives of {} s together: {} slots, {} of them within ten seconds of a fault, {} runs, {} programs started, {} runs \
         recorded as lost; {} slots of every tenth looked at were promised a run in time; {} faults: {faults:?}; in {took:?} of one core",
        lasted / 1_000,
        sum.slots,
        sum.near,
        sum.runs,
        sum.starts,
        sum.lost,
        sum.promised,
        faults.values().sum::<u64>(),
    );
    assert!(sum.promised > 0 && sum.lost > 0 && sum.runs > sum.slots / 4, "a trial that tries nothing: {sum:?}");
}

#[test]
fn one_seed_is_one_life() {
    let lived = |seed| {
        let outcome = live(Terms { lasts: 25_000, ..Terms::brief(seed, Leaning::Nowhere) }, None);
        assert_clean(seed, &outcome);
        (outcome.trace, outcome.verdict.slots)
    };
    let first = lived(2);
    assert_eq!(lived(2), first, "the same seed, and another life");
    assert_ne!(lived(3), first, "another seed, and the same life");
}

/// The bug is caught, by a seed from this one on.
fn catch(bug: Bug, leaning: Leaning, first: u64) {
    let began = cpu_time();
    let first = number("NARUN_TRIAL_SEED").unwrap_or(first);
    for seed in first.. {
        let outcome = live(Terms::brief(seed, leaning), Some(bug));
        let took = cpu_time() - began;
        if let Some(wrong) = outcome.verdict.wrongs.first() {
            println!("{bug:?}: {took:?}, by seed {seed}: {wrong}");
            return;
        }
        assert!(took < CAUGHT_WITHIN, "{bug:?} was not caught within {took:?}, by seeds from {first} to {seed}");
    }
}

/// The one of these whose name stands in a variable.
fn named<T: Copy + std::fmt::Debug>(variable: &str, all: &[T]) -> Option<T> {
    let name = std::env::var(variable).ok()?;
    let found = all.iter().find(|one| format!("{one:?}") == name);
    Some(*found.unwrap_or_else(|| panic!("{variable} is to be one of {all:?}, not `{name}`")))
}

/// Many short lives, for whoever looks for bugs or for seeds: `NARUN_TRIAL_SEED` is where to begin, `NARUN_TRIAL_LIVES` how many there
/// are, `NARUN_TRIAL_LEANING` what all of them are drawn towards, and `NARUN_TRIAL_BUG` a deliberate bug.
#[test]
#[ignore = "an hour, or as long as one likes"]
fn many_brief_lives() {
    let first = number("NARUN_TRIAL_SEED").unwrap_or(0);
    let leaning = named("NARUN_TRIAL_LEANING", &Leaning::ALL).unwrap_or(Leaning::Nowhere);
    let bug = named("NARUN_TRIAL_BUG", Bug::ALL);
    for seed in first..first + number("NARUN_TRIAL_LIVES").unwrap_or(500) {
        let began = cpu_time();
        let outcome = live(Terms::brief(seed, leaning), bug);
        let (took, slots) = (cpu_time() - began, outcome.verdict.slots);
        println!("{leaning:?} {seed}: {slots} slots in {took:?}, {:?}", outcome.verdict.wrongs);
    }
}

macro_rules! caught {
    ($($test:ident: $bug:ident from $seed:literal $(in $leaning:ident)?,)+) => {
        $(
            #[test]
            fn $test() {
                catch(Bug::$bug, [$(Leaning::$leaning,)? Leaning::Nowhere][0], $seed);
            }
        )+

        /// Without their bugs, the seeds that catch them are clean; and no bug is left out.
        #[test]
        fn seeds_that_catch_bugs_are_clean_without_them() {
            let bugs = [$(Bug::$bug,)+];
            assert!(Bug::ALL.iter().all(|bug| bugs.contains(bug)), "a bug is not tried");
            let seeds: BTreeSet<(Leaning, u64)> = [$(([$(Leaning::$leaning,)? Leaning::Nowhere][0], $seed)),+].into();
            for (leaning, seed) in seeds {
                let outcome = live(Terms::brief(seed, leaning), None);
                assert!(outcome.verdict.wrongs.is_empty(), "{leaning:?} {seed}: {:#?}", outcome.verdict.wrongs);
            }
        }
    };
}

caught! {
    a_start_before_its_claim_is_caught: StartBeforeClaim from 0,
    a_fence_that_is_used_twice_is_caught: FenceReused from 0,
    a_claim_that_ignores_the_cursor_is_caught: CursorIgnored from 0,
    an_early_claim_is_caught: EarlyClaimTaken from 0,
    a_forgotten_sync_is_caught: SyncForgotten from 2,
    voters_by_gossip_are_caught: VotersFromGossip from 0,
    a_snapshot_that_forgets_claims_is_caught: SnapshotForgetsClaims from 0,
    a_snapshot_that_forgets_runs_is_caught: SnapshotForgetsRuns from 0,
    a_session_that_does_not_end_is_caught: EndedSessionKept from 0,
    an_orphan_that_is_given_away_is_caught: OrphanGivenAway from 0,
    an_orphan_that_is_kept_is_caught: OrphanKeptForEver from 0,
    a_retry_under_an_old_fence_is_caught: RetryUnderOldFence from 0,
    an_end_that_is_not_told_is_caught: EndNotRecorded from 0,
    gaps_that_are_dropped_are_caught: GapsDropped from 0,
    a_cursor_that_is_lost_is_caught: CursorLostWithLease from 0,
    a_slot_that_is_caught_up_twice_is_caught: CaughtUpTwice from 2,
    a_grant_that_is_carried_out_again_is_caught: GrantLaunchedAgain from 0,
    a_policy_that_is_ignored_is_caught: SkipIgnored from 0,
    a_replacement_that_does_not_wait_is_caught: ReplacedNotAwaited from 0,
    a_timeout_that_is_ignored_is_caught: TimeoutIgnored from 0,
    clocks_that_nobody_judges_are_caught: ClocksNotJudged from 0 in Clocks,
    a_lease_that_never_moves_is_caught: LeaseNeverMoved from 0 in Users,
    a_lease_that_is_not_taken_away_is_caught: LeaseNotTakenAway from 0 in Users,
    a_late_word_that_is_taken_is_caught: OldFenceAccepted from 0 in Echoes,
    a_claim_that_is_not_looked_for_is_caught: UnknownClaimForgotten from 1 in Claims,
    a_deadline_that_is_ignored_is_caught: DeadlineIgnored from 1 in Outages,
    an_old_grant_that_is_carried_out_is_caught: OldGrantCarriedOut from 0 in Stalls,
    slots_from_before_a_deploy_are_caught: BegunBeforeDeploy from 0 in Users,
}
