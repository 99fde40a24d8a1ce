//! Which slot is to be decided now, and how. Pure.

use std::time::Duration;

use crate::crdt::document::RevisionId;
use crate::ledger::question::Asked;
use crate::ledger::run::{Gap, GapReason, Trigger};
use crate::ledger::time::Slot;
use crate::spec::schedule::Schedule;
use crate::spec::{CatchUp, Concurrency, CronPolicy};
use crate::time::Wall;

/// How many slots are counted in one go: more are decided by one command after the other, so that none holds up the node.
const COUNT_MAX: u64 = 2_000;

/// How often the slots of a suspended spec are written down as such: seldom, for they are many and nobody waits for them; often enough
/// that a spec which is resumed has few of them left.
const SUSPENDED_EVERY: Duration = Duration::from_secs(600);

/// A cron spec as it is carried out.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// When it is due.
    pub schedule: Schedule,
    /// What becomes of runs that overlap, fail or are missed.
    pub policy: CronPolicy,
    /// The revision that is run.
    pub revision: RevisionId,
    /// Slots up to this one fell into a suspension: where a spec was resumed, or is there again after it was deleted, the moment at which that was.
    pub suspended_until: Slot,
}

/// What is to be done about slots.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Verdict {
    /// Nothing before this moment, or before something changes.
    Wait(Option<Wall>),
    /// This.
    Decide(Decision),
}

/// Slots up to one.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Decision {
    pub(super) gaps: Vec<Gap>,
    pub(super) claim: Option<(Trigger, Wall)>,
    pub(super) upto: Slot,
}

/// What comes next after `cursor`.
pub(super) fn decision(cursor: Slot, has_open: bool, asked: &[Asked], spec: &JobSpec, now: Wall) -> Verdict {
    let verdict = slots(cursor, has_open, spec, now);
    let waits = matches!(verdict, Verdict::Wait(_));
    let may_run = !has_open || spec.policy.concurrency != Concurrency::Skip;
    match asked.first().filter(|_| waits && may_run) {
        Some(asked) => {
            let claim = Some((Trigger::Asked(asked.request), asked.at));
            Verdict::Decide(Decision { gaps: Vec::new(), claim, upto: cursor })
        }
        None => verdict,
    }
}

fn slots(cursor: Slot, has_open: bool, spec: &JobSpec, now: Wall) -> Verdict {
    let next = Verdict::Wait(spec.schedule.next_after(now.max(cursor.wall())));
    let Some(last) = spec.schedule.last_at_or_before(now).map(Slot::at).filter(|last| *last > cursor) else {
        return next;
    };
    if spec.policy.suspend {
        let since = spec.schedule.next_after(cursor.wall()).unwrap_or(now);
        let due = since.plus(SUSPENDED_EVERY);
        return if due > now { Verdict::Wait(Some(due)) } else { pass(spec, cursor, last, GapReason::Suspended) };
    }
    if cursor < spec.suspended_until {
        let until = spec.suspended_until.min(last);
        if let passed @ Verdict::Decide(_) = pass(spec, cursor, until, GapReason::Suspended) {
            return passed;
        }
    }
    let (target, is_late) = match target(cursor, last, spec, now) {
        Target::Run(slot) => (slot, false),
        Target::CatchUp(slot) => (slot, true),
        Target::None => return pass(spec, cursor, last, GapReason::Missed),
    };
    // One after the other: whoever has them run late does not want them skipped, or at one another's throats.
    if is_late && has_open {
        return Verdict::Wait(None);
    }
    let reason = match spec.policy.catch_up {
        CatchUp::Latest if is_late => GapReason::CaughtUp(target),
        _ => GapReason::Missed,
    };
    let claim = Some((Trigger::Slot(target), target.wall()));
    match gap(spec, cursor, Slot(target.0 - 1), reason) {
        None => Verdict::Decide(Decision { gaps: Vec::new(), claim, upto: target }),
        Some((gap, true)) => Verdict::Decide(Decision { gaps: vec![gap], claim, upto: target }),
        Some((gap, false)) => Verdict::Decide(Decision { upto: gap.last, gaps: vec![gap], claim: None }),
    }
}

/// Which slot is to be run next.
enum Target {
    /// In time.
    Run(Slot),
    /// Late, as the policy for missed slots has it.
    CatchUp(Slot),
    /// None: all are too late.
    None,
}

fn target(cursor: Slot, last: Slot, spec: &JobSpec, now: Wall) -> Target {
    let first_after = |time: u64| {
        let after = Slot(time).max(cursor);
        spec.schedule.next_after(after.wall()).map(Slot::at).filter(|slot| *slot <= last)
    };
    let second = now.0.div_ceil(1_000);
    let deadline = if bug!(DeadlineIgnored) { u64::MAX - 1 } else { spec.policy.starting_deadline_seconds };
    let in_time = first_after(second.saturating_sub(deadline + 1));
    match (spec.policy.catch_up, in_time) {
        (CatchUp::All { window_seconds }, _) => match first_after(second.saturating_sub(window_seconds + 1)) {
            Some(slot) if Some(slot) == in_time => Target::Run(slot),
            Some(slot) => Target::CatchUp(slot),
            None => in_time.map_or(Target::None, Target::Run),
        },
        (_, Some(slot)) => Target::Run(slot),
        (CatchUp::Latest, None) => Target::CatchUp(last),
        (CatchUp::None, None) => Target::None,
    }
}

/// Lets slots after `cursor` pass, up to `until`.
fn pass(spec: &JobSpec, cursor: Slot, until: Slot, reason: GapReason) -> Verdict {
    match gap(spec, cursor, until, reason) {
        Some((gap, _)) => Verdict::Decide(Decision { upto: gap.last, gaps: vec![gap], claim: None }),
        None => Verdict::Wait(None),
    }
}

/// The slots after `cursor` up to `until`, if there are any, and whether these are all; else the first [`COUNT_MAX`].
fn gap(spec: &JobSpec, cursor: Slot, until: Slot, reason: GapReason) -> Option<(Gap, bool)> {
    let max = usize::try_from(COUNT_MAX).unwrap_or(usize::MAX);
    let mut slots = spec.schedule.slots_between(cursor.wall(), until.wall(), max).map(Slot::at);
    let first = slots.next()?;
    let (last, count) = slots.fold((first, 1), |(_, count), slot| (slot, count + 1));
    let is_whole = spec.schedule.next_after(last.wall()).is_none_or(|next| Slot::at(next) > until);
    Some((Gap { first, last, count, reason }, is_whole))
}
