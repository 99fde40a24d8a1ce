//! What becomes of one instance, step by step.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

fn target(n: u8) -> Target {
    Target { launch_hash: BlobHash([n; 32]), revision: u32::from(n) }
}

fn wish(n: u8) -> Wish {
    Wish { target: target(n), executable: true, may_replace: true, restart: Restart::Always }
}

fn at(mono: Mono) -> Now {
    Now { mono, wall: Wall(1_000_000 + mono.0) }
}

fn exit(code: i32) -> Ended {
    Ended { code: Some(code), signal: None, at: Wall(0), oom_kills: 0 }
}

fn running(n: u8, rng: &mut ChaCha8Rng) -> Supervisor {
    let mut one = Supervisor::new(target(n));
    assert!(matches!(one.settle(at(Mono(0)), Some(&wish(n)), rng), Some(Act::Launch(_))));
    one.launched(Mono(0), 100, Wall(0), Enforced::default());
    one
}

#[test]
fn it_waits_for_its_binary_then_starts_and_becomes_ready() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = Supervisor::new(target(1));
    let without = Wish { executable: false, ..wish(1) };
    assert_eq!(one.settle(at(Mono(0)), Some(&without), &mut rng), None);
    assert_eq!(one.report(0).state(), State::Fetching);
    assert!(matches!(one.settle(at(Mono(5)), Some(&wish(1)), &mut rng), Some(Act::Launch(_))));
    one.launched(Mono(10), 100, Wall(0), Enforced::default());
    assert!(!one.report(0).ready);
    assert_eq!(one.next_deadline(), Some(Mono(10) + READY_AFTER));
    assert_eq!(one.settle(at(Mono(10) + READY_AFTER), Some(&wish(1)), &mut rng), None);
    assert!(one.report(0).ready);
}

#[test]
fn stopping_asks_first_and_kills_after_the_grace_once() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    let run = one.run().unwrap();
    assert_eq!(one.settle(at(Mono(100)), None, &mut rng), Some(Act::Signal(run, 15)));
    assert_eq!(one.settle(at(Mono(200)), None, &mut rng), None);
    let late = Mono(100) + Duration::from_secs(10);
    assert_eq!(one.settle(at(late), None, &mut rng), Some(Act::Kill(run)));
    assert_eq!(one.settle(at(late), None, &mut rng), None);
    one.exited(late, exit(0));
    assert!(one.is_idle());
}

#[test]
fn another_revision_of_equal_launch_keeps_the_process() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    let scaled = Wish { target: Target { revision: 9, ..target(1) }, ..wish(1) };
    assert_eq!(one.settle(at(Mono(1)), Some(&scaled), &mut rng), None);
    assert_eq!(one.report(0).revision, 9);
}

#[test]
fn an_outdated_process_is_replaced_only_when_it_may_be() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    let not_yet = Wish { may_replace: false, ..wish(2) };
    assert_eq!(one.settle(at(Mono(1)), Some(&not_yet), &mut rng), None);
    assert!(matches!(one.settle(at(Mono(2)), Some(&wish(2)), &mut rng), Some(Act::Signal(..))));
    one.exited(Mono(3), exit(0));
    assert!(matches!(one.settle(at(Mono(3)), Some(&wish(2)), &mut rng), Some(Act::Launch(_))));
    assert_eq!(one.report(0).restarts, 0, "a replacement is not a restart");
}

#[test]
fn a_crash_loop_ends_in_a_pause_that_a_new_revision_ends() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    let mut now = Mono(1);
    for _ in 0..5 {
        one.exited(now, exit(1));
        assert_eq!(one.settle(at(now), Some(&wish(1)), &mut rng), None);
        assert_eq!(one.report(0).state(), State::Backoff);
        now = one.next_deadline().unwrap();
        assert!(matches!(one.settle(at(now), Some(&wish(1)), &mut rng), Some(Act::Launch(_))));
        one.launched(now, 100, Wall(0), Enforced::default());
    }
    one.exited(now, exit(1));
    assert_eq!(one.settle(at(now), Some(&wish(1)), &mut rng), None);
    let report = one.report(0);
    assert_eq!((report.state(), report.restarts), (State::CrashLoop, 5));
    assert_eq!(report.error.as_deref(), Some("exited with code 1"));
    assert_eq!(one.settle(at(now + Duration::from_secs(3600)), Some(&wish(1)), &mut rng), None);
    assert!(matches!(one.settle(at(now), Some(&wish(2)), &mut rng), Some(Act::Launch(_))));
}

#[test]
fn a_start_that_fails_is_tried_again_and_says_why() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = Supervisor::new(target(1));
    one.settle(at(Mono(0)), Some(&wish(1)), &mut rng);
    one.launch_failed(Mono(0), "cannot run `x`".into());
    assert_eq!(one.settle(at(Mono(0)), Some(&Wish { restart: Restart::Never, ..wish(1) }), &mut rng), None);
    let report = one.report(0);
    assert_eq!((report.state(), report.error.as_deref()), (State::Backoff, Some("cannot run `x`")));
    let due = one.next_deadline().unwrap();
    assert!(matches!(one.settle(at(due), Some(&wish(1)), &mut rng), Some(Act::Launch(_))));
}

fn under(restart: Restart) -> Wish {
    Wish { restart, ..wish(1) }
}

#[test]
fn a_policy_decides_what_follows_an_end() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let by_signal = Ended { code: None, signal: Some(9), ..exit(0) };
    for (restart, ended, state, ready, error) in [
        (Restart::Always, exit(0), State::Backoff, false, Some("exited with code 0")),
        (Restart::OnFailure, exit(0), State::Finished, true, None),
        (Restart::OnFailure, exit(3), State::Backoff, false, Some("exited with code 3")),
        (Restart::OnFailure, by_signal, State::Backoff, false, Some("ended by signal 9")),
        (Restart::Never, exit(0), State::Finished, true, None),
        (Restart::Never, exit(3), State::Finished, false, Some("exited with code 3")),
        (Restart::Never, by_signal, State::Finished, false, Some("ended by signal 9")),
    ] {
        let mut one = running(1, &mut rng);
        one.exited(Mono(50), ended);
        assert_eq!(one.settle(at(Mono(50)), Some(&under(restart)), &mut rng), None);
        let report = one.report(0);
        let told = format!("{restart:?} after {ended:?}: {report:?}");
        assert_eq!((report.state(), report.ready, report.error.as_deref()), (state, ready, error), "{told}");
        assert_eq!(report.restarts, u32::from(state == State::Backoff), "{told}");
        assert_eq!(one.next_deadline().is_some(), state == State::Backoff, "{told}");
    }
}

#[test]
fn what_has_finished_is_started_by_a_new_revision_or_another_policy_alone() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    one.exited(Mono(50), exit(0));
    let much_later = Mono(50) + Duration::from_secs(86_400);
    assert_eq!(one.settle(at(much_later), Some(&under(Restart::Never)), &mut rng), None);
    let report = one.report(0);

    // After a restart of its node it is as it was, and its run is not started again.
    let mut again = Supervisor::new(target(1)).remembering(Some(&report));
    assert_eq!(again.settle(at(much_later), Some(&under(Restart::Never)), &mut rng), None);
    assert_eq!(again.report(0), report);
    let mut other = Supervisor::new(target(2)).remembering(Some(&report));
    let new = Wish { restart: Restart::Never, ..wish(2) };
    assert!(matches!(other.settle(at(much_later), Some(&new), &mut rng), Some(Act::Launch(_))));

    assert!(matches!(one.clone().settle(at(much_later), Some(&new), &mut rng), Some(Act::Launch(_))));
    assert_eq!(one.settle(at(much_later), Some(&under(Restart::OnFailure)), &mut rng), None);
    assert!(matches!(one.settle(at(much_later), Some(&under(Restart::Always)), &mut rng), Some(Act::Launch(_))));
}

#[test]
fn what_was_given_up_stays_so_over_a_restart_of_the_node() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let report = InstanceReport {
        nearest: State::CrashLoop,
        restarts: 5,
        error: Some("exited with code 1".into()),
        ..running(1, &mut rng).report(0)
    };
    let mut again = Supervisor::new(target(1)).remembering(Some(&report));
    assert_eq!(again.settle(at(Mono(9)), Some(&wish(1)), &mut rng), None);
    let told = again.report(0);
    assert_eq!((told.state(), told.restarts, told.error), (State::CrashLoop, 5, report.error));
    assert!(matches!(again.settle(at(Mono(9)), Some(&wish(2)), &mut rng), Some(Act::Launch(_))));
}

#[test]
fn a_lost_keeper_is_made_good_whatever_the_policy() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    one.keeper_lost(at(Mono(5)));
    assert!(matches!(one.settle(at(Mono(5)), Some(&under(Restart::Never)), &mut rng), Some(Act::Launch(_))));
    assert_eq!(one.report(0).restarts, 1);
}

#[test]
fn a_start_that_waits_says_until_when() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    one.exited(Mono(500), exit(1));
    assert_eq!(one.settle(at(Mono(500)), Some(&wish(1)), &mut rng), None);
    let due = one.next_deadline().unwrap();
    assert_eq!(one.report(0).retry_at, Some(at(due).wall));
    one.settle(at(due), Some(&wish(1)), &mut rng);
    assert_eq!(one.report(0).retry_at, None);
}

#[test]
fn it_is_asked_to_stop_as_its_specification_says_now() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut one = running(1, &mut rng);
    let run = one.run().unwrap();
    one.stop_by(Stop { signal: 2, grace_ms: 300 });
    assert_eq!(one.settle(at(Mono(100)), None, &mut rng), Some(Act::Signal(run, 2)));
    assert_eq!(one.next_deadline(), Some(Mono(400)));
    assert_eq!(one.settle(at(Mono(400)), None, &mut rng), Some(Act::Kill(run)));

    let mut one = running(1, &mut rng);
    let run = one.run().unwrap();
    one.stop_by(Stop { signal: SIGKILL, grace_ms: 300 });
    assert_eq!(one.settle(at(Mono(100)), None, &mut rng), Some(Act::Kill(run)), "no grace for what is to be killed");
    assert_eq!(one.next_deadline(), None);
}

#[test]
fn memory_that_was_used_up_is_named_as_the_cause() {
    let ended = |code, signal, oom_kills| describe(&Ended { code, signal, at: Wall(0), oom_kills });
    assert_eq!(ended(None, Some(9), 2), "ended by signal 9: it used up its memory");
    assert_eq!(ended(None, Some(9), 0), "ended by signal 9");
    let worker = "exited with code 1; it had used up its memory, for which the kernel killed 1 of its processes";
    assert_eq!(ended(Some(1), None, 1), worker);
}

#[derive(Clone, Debug)]
enum Step {
    Settle(Option<(u8, Restart)>),
    Launched,
    Failed,
    Exited,
    KeeperLost,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::option::of((1_u8..3, proptest::sample::select(Restart::ALL.to_vec()))).prop_map(Step::Settle),
        1 => Just(Step::Launched),
        1 => Just(Step::Failed),
        1 => Just(Step::Exited),
        1 => Just(Step::KeeperLost),
    ]
}

proptest! {
    /// Whatever happens, a launch is only asked for while nothing runs: never two processes of one instance.
    #[test]
    fn never_two_processes(steps in proptest::collection::vec((step(), 0_u64..20_000), 1..80)) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut one = Supervisor::new(target(1));
        let (mut now, mut alive, mut asked) = (Mono(0), false, false);
        for (step, wait) in steps {
            now = now + Duration::from_millis(wait);
            match step {
                Step::Settle(wished) => {
                    let wish = wished.map(|(n, restart)| Wish { restart, ..wish(n) });
                    if let Some(Act::Launch(_)) = one.settle(at(now), wish.as_ref(), &mut rng) {
                        prop_assert!(!alive && !asked, "a second process was asked for");
                        asked = true;
                    }
                }
                Step::Launched if asked => { (asked, alive) = (false, true); one.launched(now, 1, Wall(0), Enforced::default()); }
                Step::Failed if asked => { asked = false; one.launch_failed(now, "x".into()); }
                Step::Exited if alive => { alive = false; one.exited(now, exit(1)); }
                Step::KeeperLost => { (asked, alive) = (false, false); one.keeper_lost(at(now)); }
                _ => {}
            }
            prop_assert_eq!(one.is_idle(), !alive && !asked);
        }
    }
}
