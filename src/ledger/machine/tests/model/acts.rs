//! What happens to the machine, at random.

use proptest::prelude::*;
use proptest::sample::{Index as Pick, select};

use super::{JOBS, NODES};
use crate::ledger::run::{OnNodeLoss, Overlap, RunStatus};

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Open { who: u8, is_new_life: bool },
    Close { who: u8 },
    Grant { job: usize, who: u8, is_taken: bool },
    Release { who: u8, job: usize },
    GrantSingleton { who: u8 },
    ReleaseSingleton { who: u8 },
    Listen { who: u8 },
    Decide { who: u8, job: usize, is_informed: bool, gap: u64, claim: Option<(Overlap, OnNodeLoss, u32)> },
    ClaimAsked { who: u8, job: usize, overlap: Overlap },
    Ask { job: usize, request: u8 },
    Started { job: usize, run: Pick, is_stale: bool },
    Ended { job: usize, run: Pick, is_stale: bool, status: RunStatus, again: bool },
    Attempt { who: u8, job: usize, run: Pick, is_stale: bool },
    Retire { job: usize },
    Forget { job: usize },
    Pass { span_ms: u64 },
    Reload,
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    let (who, job) = (1..=NODES, 0..JOBS);
    let overlap = select(vec![Overlap::Allow, Overlap::Skip, Overlap::Replace]);
    let loss = select(vec![OnNodeLoss::Fail, OnNodeLoss::Rerun]);
    let status = select(vec![RunStatus::Success, RunStatus::Failure, RunStatus::Timeout]);
    let claim = proptest::option::weighted(0.8, (overlap.clone(), loss, 1..4_u32));
    let is_stale = || proptest::bool::weighted(0.2);
    prop_oneof![
        6 => (who.clone(), proptest::bool::weighted(0.3))
            .prop_map(|(who, is_new_life)| Act::Open { who, is_new_life }),
        2 => who.clone().prop_map(|who| Act::Close { who }),
        8 => (job.clone(), who.clone(), proptest::bool::weighted(0.1))
            .prop_map(|(job, who, is_taken)| Act::Grant { job, who, is_taken }),
        1 => (who.clone(), job.clone()).prop_map(|(who, job)| Act::Release { who, job }),
        2 => who.clone().prop_map(|who| Act::GrantSingleton { who }),
        1 => who.clone().prop_map(|who| Act::ReleaseSingleton { who }),
        6 => who.clone().prop_map(|who| Act::Listen { who }),
        14 => (who.clone(), job.clone(), proptest::bool::weighted(0.8), 0..4_u64, claim).prop_map(
            |(who, job, is_informed, gap, claim)| Act::Decide { who, job, is_informed, gap, claim }
        ),
        2 => (who.clone(), job.clone(), overlap)
            .prop_map(|(who, job, overlap)| Act::ClaimAsked { who, job, overlap }),
        2 => (job.clone(), 0..4_u8).prop_map(|(job, request)| Act::Ask { job, request }),
        8 => (job.clone(), any::<Pick>(), is_stale())
            .prop_map(|(job, run, is_stale)| Act::Started { job, run, is_stale }),
        8 => (job.clone(), any::<Pick>(), is_stale(), status, any::<bool>()).prop_map(
            |(job, run, is_stale, status, again)| Act::Ended { job, run, is_stale, status, again }
        ),
        5 => (who, job.clone(), any::<Pick>(), is_stale())
            .prop_map(|(who, job, run, is_stale)| Act::Attempt { who, job, run, is_stale }),
        1 => job.clone().prop_map(|job| Act::Retire { job }),
        1 => job.prop_map(|job| Act::Forget { job }),
        4 => select(vec![1, 900, 6_000, 11_000, 25 * 3_600_000])
            .prop_map(|span_ms| Act::Pass { span_ms }),
        2 => Just(Act::Reload),
    ]
}
