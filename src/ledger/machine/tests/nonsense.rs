//! Commands that make no sense, which do no harm.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::model::{JOBS, job_of};
use super::*;

/// A command that makes no sense, on things that are there.
fn wild() -> impl Strategy<Value = Command> {
    let number = || prop_oneof![0..20_u64, 100..140_u64, any::<u64>()];
    let session = move || number().prop_map(SessionId);
    let key = || (0..JOBS).prop_map(job_of);
    let lease = move || prop_oneof![key().prop_map(LeaseKey::Cron), Just(singleton("db"))];
    let reason = prop_oneof![
        Just(GapReason::Missed),
        number().prop_map(|slot| GapReason::CaughtUp(Slot(slot))),
        (0..9_u8).prop_map(|run| GapReason::Skipped(run_id(run))),
    ];
    let gap = (number(), number(), number(), reason).prop_map(|(first, last, count, reason)| Gap {
        first: Slot(first),
        last: Slot(last),
        count,
        reason,
    });
    let trigger = prop_oneof![
        number().prop_map(|slot| Trigger::Slot(Slot(slot))),
        (0..4_u8).prop_map(|request| Trigger::Asked([request; 16])),
    ];
    let overlap = select(vec![Overlap::Allow, Overlap::Skip, Overlap::Replace]);
    let loss = select(vec![OnNodeLoss::Fail, OnNodeLoss::Rerun]);
    let claim = (0..9_u8, trigger, overlap, loss, any::<u32>(), any::<u32>()).prop_map(
        |(run, trigger, overlap, on_node_loss, attempts_max, history_limit)| Claim {
            trigger,
            overlap,
            on_node_loss,
            attempts_max,
            history_limit,
            ..claim(0, run)
        },
    );
    let run = || (0..9_u8).prop_map(run_id);
    let fence = move || number().prop_map(Fence);
    let status = select(vec![RunStatus::Success, RunStatus::Lost, RunStatus::FailureToStart]);
    let end = (status, number(), proptest::option::of(".{0,400}")).prop_map(|(status, at, error)| RunEnd {
        at: Wall(at),
        error,
        ..ended_as(status)
    });
    prop_oneof![
        (0..9_u8, 0..3_u64).prop_map(|(who, life)| Command::Open { node: node(who), life }),
        session().prop_map(|session| Command::Close { session }),
        (lease(), proptest::option::of(session()), number()).prop_map(|(lease, to, begin)| Command::Grant {
            lease,
            to,
            begin: Slot(begin)
        }),
        (lease(), session()).prop_map(|(lease, session)| Command::Release { lease, session }),
        (key(), session(), number(), proptest::collection::vec(gap, 0..3), proptest::option::of(claim), number())
            .prop_map(|(job, session, cursor, gaps, claim, upto)| {
                Command::Decide(Decide { job, session, cursor: Slot(cursor), gaps, claim, upto: Slot(upto) })
            }),
        (key(), run(), fence()).prop_map(|(job, run, fence)| Command::Started { job, run, fence, at: Wall(1) }),
        (key(), run(), fence(), end, any::<bool>()).prop_map(|(job, run, fence, end, again)| Command::Ended {
            job,
            run,
            fence,
            end,
            again
        }),
        (key(), run(), fence(), session()).prop_map(|(job, run, fence, session)| Command::Attempt {
            job,
            run,
            fence,
            session
        }),
        (key(), 0..4_u8).prop_map(|(job, request)| Command::Ask { job, request: [request; 16], at: Wall(1) }),
        key().prop_map(|job| Command::Retire { job }),
        key().prop_map(|job| Command::Forget { job }),
        Just(Command::Tick),
    ]
}

proptest! {
    #[test]
    fn nonsense_does_no_harm(
        turns in proptest::collection::vec(proptest::collection::vec((any::<u64>(), wild()), 0..4), 1..40),
    ) {
        // The stamps are nonsense as well. An honest node takes the lease again and again, so that some of it is heard.
        let mut log = Log::default();
        let job = job("a");
        let mut granted = BTreeSet::new();
        for nonsense in turns {
            let session = log.open(1);
            log.grant(&job, session);
            for (at, command) in nonsense {
                let slot = match &command {
                    Command::Decide(Decide { job, claim: Some(claim), .. }) => match claim.trigger {
                        Trigger::Slot(slot) => Some((job.clone(), slot)),
                        Trigger::Asked(_) => None,
                    },
                    _ => None,
                };
                let index = log.machine.applied() + 1;
                let reply = log.machine.apply(index, &Stamped { at: LedgerTime(at), command, wall: Wall(at) });
                if let (Reply::Granted(fence), Some(slot)) = (reply, slot) {
                    prop_assert_eq!(fence, Fence(index));
                    prop_assert!(granted.insert(slot));
                }
                check_index(&log.machine);
                let bytes = log.machine.freeze().encode();
                prop_assert_eq!(&Machine::decode(&bytes).unwrap(), &log.machine);
            }
        }
    }
}
