//! Records of runs: each says what became of the program that ran under its fence, and of no other.

use super::calm::sound_majority;
use super::{Case, due};
use crate::ledger::run::{Run, RunEnd, RunStatus, Trigger};
use crate::ledger::trial::book::{End, Moment, Of, Start};

/// How long a run may be open after its last program has ended: pauses before retries, and waiting for a node that is away.
const OPEN_FOR: Moment = 35_000;

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    for run in case.runs.values() {
        let starts: Vec<&Start> = case.starts.iter().filter(|start| start.run.id == run.id).copied().collect();
        let current = starts.iter().find(|start| start.run.fence == run.fence).copied();
        if run.started.is_some() && starts.is_empty() {
            wrongs.push(format!("{:?} is recorded as started, and nothing was", run.trigger));
        }
        match &run.end {
            Some(end) => {
                check_end(case, run, end, current, wrongs);
                check_loss(case, run, end, &starts, wrongs);
            }
            None => check_open(case, run, &starts, wrongs),
        }
    }
}

/// The end that is told is that of the current attempt's program.
fn check_end(case: &Case<'_>, run: &Run, end: &RunEnd, current: Option<&Start>, wrongs: &mut Vec<String>) {
    let really = current.and_then(|start| start.end);
    let is_it = |really: End| really.wall == end.at && really.code == end.code;
    let is_true = match end.status {
        RunStatus::Success => really.is_some_and(|really| is_it(really) && really.code == Some(0)),
        RunStatus::Failure => really.is_some_and(|really| is_it(really) && really.code != Some(0)),
        RunStatus::Timeout => really.is_some_and(is_it),
        // While it waited for its next attempt the ledger ended it by itself.
        RunStatus::Replaced if end.code.is_none() && end.signal.is_none() => {
            really.is_none_or(|really| really.code != Some(0))
        }
        RunStatus::Replaced => really.is_some_and(is_it),
        RunStatus::FailureToStart => current.is_none(),
        // A node says that it has started nothing, or that its host took it along.
        RunStatus::Lost if end.error.is_some() => current.is_none_or(|start| lost_power(case, start)),
        RunStatus::Lost | RunStatus::Aborted => true,
    };
    if !is_true {
        let really = really.map(|really| (really.wall, really.code, really.cause));
        wrongs.push(format!("{:?} is recorded as {end:?}, and really {really:?}", run.trigger));
    }
    if let Some(start) = current.filter(|start| start.run.attempt != run.attempt) {
        let (recorded, started) = (run.attempt, start.run.attempt);
        wrongs.push(format!("{:?}: attempt {recorded} is recorded under the fence of {started}", run.trigger));
    }
}

/// Whether a host lost its power after a start, and with it what its keeper held: a program, or how it has ended.
fn lost_power(case: &Case<'_>, start: &Start) -> bool {
    case.evidence.book.power_cuts.iter().any(|(host, at)| *host == start.host && *at >= start.at)
}

/// Nothing is lost on a node that was up, with a majority, from claim to end.
fn check_loss(case: &Case<'_>, run: &Run, end: &RunEnd, starts: &[&Start], wrongs: &mut Vec<String>) {
    let Trigger::Slot(slot) = run.trigger else { return };
    let Some(host) = run.node.and_then(|node| case.host(node)).filter(|_| end.status == RunStatus::Lost) else {
        return;
    };
    let ended = end.at.0.saturating_sub(super::EPOCH.0);
    let last = starts.iter().map(|start| start.end.map_or(case.evidence.end, |end| end.at)).max();
    let until = ended.max(last.unwrap_or_default()) + 3_000;
    // What the ledger ends it stamps with the calendar of whoever leads, which may be wrong.
    let is_stamp_wrong = case.evidence.book.troubles.iter().any(|trouble| matches!(trouble.of, Of::Clock));
    if end.error.is_none() && is_stamp_wrong {
        return;
    }
    let sound = sound_majority(case.evidence, due(slot).saturating_sub(3_000), until);
    if sound.is_some_and(|sound| sound.contains(&host)) {
        wrongs.push(format!("{slot} is recorded as lost on host {host}, to which nothing was done: {end:?}"));
    }
}

/// What has ended is recorded, once all is calm.
fn check_open(case: &Case<'_>, run: &Run, starts: &[&Start], wrongs: &mut Vec<String>) {
    let last = starts.iter().map(|start| start.end.map_or(case.evidence.end, |end| end.at)).max();
    let since = last.unwrap_or_else(|| due(crate::ledger::time::Slot::at(run.scheduled)));
    if case.evidence.end.saturating_sub(since) > OPEN_FOR {
        wrongs.push(format!("{:?} is open, {} ms after its last sign of life", run.trigger, case.evidence.end - since));
    }
}
