//! Programs that were started: each under a grant of its own, in time, and one after the other where that was promised.

use std::collections::{BTreeMap, BTreeSet};

use super::calm::sound_majority;
use super::{Case, due};
use crate::ids::RunId;
use crate::ledger::run::{Fence, OnNodeLoss, Overlap, RunStatus, Trigger};
use crate::ledger::trial::VIEW_LAG;
use crate::ledger::trial::book::{Book, Cause, Moment, Of, Start};
use crate::spec::{CatchUp, Concurrency, CronPolicy};

/// How much earlier than its slot a run may start: as far as the clocks of a node and of the leader may be off.
const EARLY: Moment = 4_000;

/// How much later than its deadline a run may start that was claimed in time: a grant is carried out within two seconds, by a clock that is off
/// by as much.
const LATE: Moment = 6_000;

/// How long after its timeout a run is surely asked to end, and does.
const TIMEOUT_WITHIN: Moment = 4_000;

/// How long after the ledger has given up a run its node may still start it: while it takes its session for open.
const GIVEN_UP_WITHIN: Moment = 8_000;

/// How long after it is not wanted for a job any more a node may still start runs of it: it has to be heard of, and the lease to be moved.
const UNWANTED_FOR: Moment = VIEW_LAG + 15_000;

/// A fence is one attempt's, and greater than those of all earlier slots of its job.
pub(super) fn check_fences(book: &Book, wrongs: &mut Vec<String>) {
    let mut attempts: BTreeMap<Fence, (RunId, u32)> = BTreeMap::new();
    for start in &book.starts {
        let this = (start.run.id, start.run.attempt);
        if *attempts.entry(start.run.fence).or_insert(this) != this {
            wrongs.push(format!("{} at {}: its fence was another attempt's", start.job.name, start.at));
        }
    }
    let mut latest = BTreeMap::new();
    for start in &book.starts {
        let Trigger::Slot(slot) = start.run.trigger else { continue };
        if start.run.attempt == 1 {
            latest.entry((&start.job, slot)).or_insert(start.run.fence);
        }
    }
    for (((job, slot), fence), ((next_job, next), later)) in latest.iter().zip(latest.iter().skip(1)) {
        if job == next_job && later <= fence {
            wrongs.push(format!("{}: {next} has fence {}, and {slot} before it {}", job.name, later.0, fence.0));
        }
    }
}

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let mut slots: BTreeMap<Trigger, RunId> = BTreeMap::new();
    for start in &case.starts {
        let run = &start.run;
        if *slots.entry(run.trigger).or_insert(run.id) != run.id {
            wrongs.push(format!("{:?} was run twice, again at {} on host {}", run.trigger, start.at, start.host));
        }
        match case.runs.get(&run.id) {
            None => wrongs.push(format!("{:?} was started at {} and has no record", run.trigger, start.at)),
            Some(record) if record.fence < run.fence || record.trigger != run.trigger => {
                wrongs.push(format!("{:?} was started at {} under no grant", run.trigger, start.at));
            }
            Some(_) => {}
        }
        check_time(case, start, wrongs);
        check_place(case, start, wrongs);
        check_timeout(case, start, wrongs);
        check_others(case, start, wrongs);
    }
    check_attempts(case, wrongs);
}

fn policy(case: &Case<'_>, start: &Start) -> CronPolicy {
    case.job.revision(start.run.revision).expect("it was deployed").policy
}

/// Neither too early nor too late, nor long after the ledger has given it up.
fn check_time(case: &Case<'_>, start: &Start, wrongs: &mut Vec<String>) {
    let (run, policy) = (&start.run, policy(case, start));
    let Trigger::Slot(slot) = run.trigger else { return };
    let book = case.evidence.book;
    let due = due(slot);
    let is_clock_wrong =
        |from, until| book.troubles.iter().any(|trouble| matches!(trouble.of, Of::Clock) && trouble.is_in(from, until));
    // Who leads with a wrong calendar lets itself claim what is not due, until it notices.
    let led = book.leaders.iter().rev().find(|(at, _)| *at <= start.at.saturating_sub(300)).map(|(_, leader)| *leader);
    if start.at + EARLY < due && !is_leader_troubled(book, led, start.at) {
        wrongs.push(format!("{slot} was started {} ms too early, on host {}", due - start.at, start.host));
    }
    let deadline = due + policy.starting_deadline_seconds * 1_000;
    let was_in_trouble = is_host_troubled(book, start.host, start.at.saturating_sub(5_000), start.at);
    let waits = policy.catch_up != CatchUp::None || policy.concurrency == Concurrency::Replace || run.attempt > 1;
    if start.at > deadline + LATE && !waits && !was_in_trouble {
        wrongs.push(format!("{slot} was started {} ms after its deadline", start.at - deadline));
    }
    let record = case.runs.get(&run.id).filter(|record| record.fence == run.fence);
    let given_up = record.and_then(|record| record.end.as_ref()).filter(|end| end.status == RunStatus::Lost);
    if let Some(end) = given_up.filter(|end| end.error.is_none()) {
        let at = end.at.0.saturating_sub(super::EPOCH.0);
        // By the calendar of whoever led then.
        if start.at > at + GIVEN_UP_WITHIN && !is_clock_wrong(start.at.saturating_sub(120_000), start.at + 120_000) {
            wrongs.push(format!("{slot} was started {} ms after it was recorded as lost", start.at - at));
        }
    }
}

/// Whether anything was done to the one that led, about a moment: its calendar most of all.
fn is_leader_troubled(book: &Book, leader: Option<usize>, at: Moment) -> bool {
    leader.is_none_or(|leader| is_host_troubled(book, leader, at.saturating_sub(5_000), at))
}

/// On a node that is wanted for the job.
fn check_place(case: &Case<'_>, start: &Start, wrongs: &mut Vec<String>) {
    let from = start.at.saturating_sub(UNWANTED_FOR);
    let was_wanted = case.job.chapters.iter().enumerate().any(|(number, chapter)| {
        let next = case.job.chapters.get(number + 1).map_or(Moment::MAX, |next| next.from);
        chapter.from <= start.at && next >= from && chapter.nodes.contains(&start.host)
    });
    let others = case.wanted(from, start.at);
    let sound = sound_majority(case.evidence, from + VIEW_LAG, start.at);
    if !was_wanted && sound.is_some_and(|sound| !sound.is_disjoint(&others)) {
        wrongs.push(format!(
            "{:?} was started at {} on host {}, where nobody wants it",
            start.run.trigger, start.at, start.host
        ));
    }
}

fn check_timeout(case: &Case<'_>, start: &Start, wrongs: &mut Vec<String>) {
    let limit = policy(case, start).timeout_seconds * 1_000;
    let until = start.end.map_or(case.evidence.end, |end| end.at);
    let is_current = case.runs.get(&start.run.id).is_some_and(|record| {
        record.fence == start.run.fence && record.end.as_ref().is_none_or(|end| end.status != RunStatus::Lost)
    });
    let (book, over) = (case.evidence.book, start.at + limit + TIMEOUT_WITHIN);
    let excused = is_host_troubled(book, start.host, start.at, over)
        || case.is_changed(start.at.saturating_sub(VIEW_LAG), over)
        || sound_majority(case.evidence, start.at, over).is_none_or(|sound| !sound.contains(&start.host));
    if limit > 0 && until > over && is_current && !excused {
        let took = until - start.at;
        wrongs.push(format!("{:?} took {took} ms, and may take {limit}", start.run.trigger));
    }
}

/// Beside other runs of the job only where the spec allows it, or the ledger has given them up.
fn check_others(case: &Case<'_>, start: &Start, wrongs: &mut Vec<String>) {
    if policy(case, start).concurrency == Concurrency::Allow {
        return;
    }
    for other in case.starts.iter().filter(|other| other.run.id != start.run.id && other.at < start.at) {
        let is_running = other.end.is_none_or(|end| end.at > start.at);
        let is_given_up = case.runs.get(&other.run.id).is_some_and(|record| {
            record.fence != other.run.fence
                || record.reruns > 0
                || record.end.as_ref().is_some_and(|end| end.status == RunStatus::Lost)
        });
        if is_running && !is_given_up {
            let overlap = match policy(case, start).concurrency {
                Concurrency::Skip => Overlap::Skip,
                _ => Overlap::Replace,
            };
            wrongs.push(format!(
                "{:?} was started at {} beside {:?}, under {overlap:?}",
                start.run.trigger, start.at, other.run.trigger
            ));
        }
    }
}

/// The attempts of one run come one after the other, each once, and only after failures.
fn check_attempts(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let mut runs: BTreeMap<RunId, Vec<&Start>> = BTreeMap::new();
    for start in &case.starts {
        runs.entry(start.run.id).or_default().push(start);
    }
    for starts in runs.values() {
        let fences: BTreeSet<Fence> = starts.iter().map(|start| start.run.fence).collect();
        let run = &starts[0].run;
        if fences.len() != starts.len() {
            wrongs.push(format!("an attempt of {:?} was started twice", run.trigger));
        }
        for pair in starts.windows(2) {
            let (one, next) = (pair[0], pair[1]);
            if next.run.fence < one.run.fence {
                wrongs.push(format!("a later attempt of {:?} has a lower fence", run.trigger));
            }
            if run.on_node_loss == OnNodeLoss::Rerun {
                continue;
            }
            if one.end.is_none_or(|end| end.at > next.at) {
                wrongs.push(format!("attempts of {:?} overlap at {}", run.trigger, next.at));
            }
            if one.end.is_some_and(|end| end.cause == Cause::Itself && end.code == Some(0)) {
                wrongs.push(format!("{:?} was tried again after it had ended well", run.trigger));
            }
        }
        let allowed = case.runs.get(&run.id).map_or(u32::MAX, |record| record.attempts_allowed());
        if u32::try_from(starts.len()).is_ok_and(|count| count > allowed) {
            wrongs.push(format!("{:?} was tried {} times, and {allowed} are allowed", run.trigger, starts.len()));
        }
    }
}

/// Whether anything was done to a host between two moments.
pub(super) fn is_host_troubled(book: &Book, host: usize, from: Moment, until: Moment) -> bool {
    book.troubles.iter().any(|trouble| match &trouble.of {
        Of::Host(of) => *of == host && trouble.is_in(from, until),
        Of::Ways(ways) => ways.iter().any(|(a, b)| *a == host || *b == host) && trouble.is_in(from, until),
        Of::Weather => trouble.is_in(from, until),
        Of::Clock => false,
    })
}
