//! Slots: each has one record, and a run in time where that was promised.

use std::collections::BTreeMap;

use super::calm::sound_majority;
use super::{Case, Verdict, due};
use crate::ledger::duty::JobSpec;
use crate::ledger::run::{Gap, GapReason, RunStatus, Trigger};
use crate::ledger::time::Slot;
use crate::ledger::trial::VIEW_LAG;
use crate::ledger::trial::book::Moment;
use crate::ledger::trial::catalog::slot_of;
use crate::spec::CatchUp;

/// How far the ledger may be behind when all was calm for longer.
const BEHIND: Moment = 42_000;

/// How long before a slot all has to be well for it to count as promised: what was done before may still be felt.
const BEFORE: Moment = 5_000;

/// How long a job has been deleted before none of its slots may be run.
const DELETED_FOR: Moment = VIEW_LAG + 15_000;

/// What became of a slot.
#[derive(Clone, Copy, Debug)]
enum Record {
    Run,
    Gap(GapReason),
}

pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict, wrongs: &mut Vec<String>) {
    let runs = case.account.runs.iter();
    let mut records: BTreeMap<Slot, Record> = BTreeMap::new();
    for run in runs {
        let Trigger::Slot(slot) = run.trigger else { continue };
        verdict.lost += u64::from(run.end.as_ref().is_some_and(|end| end.status == RunStatus::Lost));
        if records.insert(slot, Record::Run).is_some() {
            wrongs.push(format!("{slot} has two runs"));
        }
        if slot > case.account.cursor {
            wrongs.push(format!("{slot} has a run, and the cursor stands at {}", case.account.cursor));
        }
    }
    let mut gaps: Vec<&Gap> = case.account.gaps.iter().collect();
    gaps.sort_by_key(|gap| gap.first);
    for pair in gaps.windows(2).filter(|pair| pair[1].first <= pair[0].last) {
        wrongs.push(format!("{} is in two gaps", pair[1].first));
    }
    for gap in &gaps {
        if let Some((slot, _)) = records.range(gap.first..=gap.last).find(|(_, record)| matches!(record, Record::Run)) {
            wrongs.push(format!("{slot} has a run and lies in a gap: {gap:?}"));
        }
    }
    verdict.runs += records.len() as u64;
    verdict.starts += case.starts.len() as u64;
    check_chapters(case, &records, &gaps, verdict, wrongs);
    check_deletions(case, wrongs);
}

fn check_chapters(
    case: &Case<'_>,
    records: &BTreeMap<Slot, Record>,
    gaps: &[&Gap],
    verdict: &mut Verdict,
    wrongs: &mut Vec<String>,
) {
    let end = case.evidence.end;
    let mut reached = 0;
    for (number, chapter) in case.job.chapters.iter().enumerate() {
        let next = case.job.chapters.get(number + 1);
        let until = next.map_or(end, |next| next.from);
        let Some(spec) = &chapter.spec else {
            reached = until;
            continue;
        };
        // Where only who may have it was changed, the slots stay what they are.
        let before = number.checked_sub(1).and_then(|before| case.job.chapters[before].spec.as_ref());
        let is_same = before.is_some_and(|before| before.revision == spec.revision);
        if !is_same {
            reached = if number == 0 { chapter.from } else { chapter.from + VIEW_LAG + 5_000 };
        }
        // After a deletion the job begins again when the ledger has heard of it.
        let from = reached.max(chapter.from);
        let slots = spec.schedule.slots_between(slot_of(from).wall(), slot_of(until).wall(), usize::MAX).map(Slot::at);
        for slot in slots {
            if slot > case.account.cursor {
                let is_behind = next.is_none() && end.saturating_sub(due(slot)) > BEHIND;
                if is_behind && !chapter.nodes.is_empty() {
                    wrongs.push(format!("{slot} is not decided at the end"));
                    break;
                }
                continue;
            }
            verdict.slots += 1;
            let is_near = |trouble: &super::super::book::Trouble| {
                trouble.is_in(due(slot).saturating_sub(10_000), due(slot) + 10_000)
            };
            verdict.near += u64::from(case.evidence.book.troubles.iter().any(is_near));
            let gap = gaps.iter().find(|gap| gap.first <= slot && slot <= gap.last);
            let record = records.get(&slot).copied().or(gap.map(|gap| Record::Gap(gap.reason)));
            match record {
                // What was not decided when another schedule came is that one's to decide.
                None if may_be_anothers(case, number, slot) => {}
                None => wrongs.push(format!("{slot} has no record")),
                Some(record) => check_record(case, slot, record, verdict, wrongs),
            }
        }
        check_counts(case, chapter.from + VIEW_LAG + 5_000, until, gaps, number, wrongs);
    }
}

/// Whether another schedule came later, and nothing says that this slot had to be decided before it: then it is that one's to decide
/// what there was.
fn may_be_anothers(case: &Case<'_>, number: usize, slot: Slot) -> bool {
    let chapters = &case.job.chapters;
    let Some(spec) = &chapters[number].spec else { return true };
    let is_other = |later: &JobSpec| {
        let slots =
            |spec: &JobSpec| spec.schedule.slots_between(slot.wall(), Slot(slot.0 + 30).wall(), 30).collect::<Vec<_>>();
        slots(later) != slots(spec)
    };
    let Some(next) = chapters[number + 1..].iter().find(|next| next.spec.as_ref().is_none_or(is_other)) else {
        return false;
    };
    let deadline = due(slot) + spec.policy.starting_deadline_seconds * 1_000;
    next.from < deadline || sound_majority(case.evidence, due(slot).saturating_sub(BEFORE), deadline).is_none()
}

/// A gap tells how many slots it has.
fn check_counts(case: &Case<'_>, from: Moment, until: Moment, gaps: &[&Gap], number: usize, wrongs: &mut Vec<String>) {
    let Some(spec) = &case.job.chapters[number].spec else { return };
    for gap in gaps.iter().filter(|gap| due(gap.first) > from && due(gap.last) <= until) {
        let before = Slot(gap.first.0 - 1);
        let count =
            |spec: &JobSpec| spec.schedule.slots_between(before.wall(), gap.last.wall(), usize::MAX).count() as u64;
        // Whoever records it late may know a later schedule.
        let later = case.job.chapters[number..].iter().filter_map(|chapter| chapter.spec.as_ref());
        if later.map(count).all(|count| count != gap.count) {
            wrongs.push(format!("{gap:?} has {} slots", count(spec)));
        }
    }
}

/// What was promised for a slot is kept.
fn check_record(case: &Case<'_>, slot: Slot, record: Record, verdict: &mut Verdict, wrongs: &mut Vec<String>) {
    let is_missed = matches!(record, Record::Gap(GapReason::Missed | GapReason::CaughtUp(_)));
    // To look is dear: figures look at every tenth slot.
    if !is_missed && !slot.0.is_multiple_of(10) {
        return;
    }
    let Some(spec) = case.job.chapters.iter().rev().find(|chapter| chapter.from <= due(slot)) else { return };
    let Some(spec) = &spec.spec else { return };
    let deadline = due(slot) + spec.policy.starting_deadline_seconds * 1_000;
    // Who wants all of what was missed waits until it is made up for.
    let before = if matches!(spec.policy.catch_up, CatchUp::All { .. }) { 90_000 } else { BEFORE };
    let from = due(slot).saturating_sub(before);
    let is_young = case.job.chapters[0].from + BEFORE > due(slot);
    if is_young || deadline > case.evidence.end || case.is_changed(from.saturating_sub(VIEW_LAG + 10_000), deadline) {
        return;
    }
    let Some(sound) = sound_majority(case.evidence, from, deadline) else { return };
    if sound.is_disjoint(&case.wanted(from, deadline)) {
        return;
    }
    verdict.promised += u64::from(slot.0.is_multiple_of(10));
    if is_missed {
        wrongs.push(format!("{slot} was missed ({record:?}), while {sound:?} were up"));
    }
}

/// While a spec is deleted it has no slots.
fn check_deletions(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let chapters = &case.job.chapters;
    // Who may have it may change meanwhile, which makes chapters of their own.
    let begins = |number: &usize| chapters[*number].spec.is_none() && chapters[number - 1].spec.is_some();
    for number in (1..chapters.len()).filter(begins) {
        let chapter = &chapters[number];
        let back = chapters[number..].iter().find(|later| later.spec.is_some());
        let until = back.map_or(case.evidence.end, |back| back.from);
        let from = slot_of(chapter.from + VIEW_LAG);
        let is_in = |start: &&&super::Start| matches!(start.run.trigger, Trigger::Slot(slot) if slot > from && slot < slot_of(until));
        // Else the ledger may not have heard of it.
        let sound = sound_majority(case.evidence, chapter.from + VIEW_LAG, chapter.from + DELETED_FOR);
        if until > chapter.from + DELETED_FOR
            && sound.is_some()
            && let Some(start) = case.starts.iter().find(is_in)
        {
            wrongs.push(format!("{:?} was run at {}, while it was deleted", start.run.trigger, start.at));
        }
    }
}
