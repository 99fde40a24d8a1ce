//! What the ledger keeps of a job, as rows that people read. Pure.

use data_encoding::HEXLOWER;

use crate::api::wire::cron::CronRow;
use crate::ids::{NodeKey, RunId};
use crate::ledger::question::Account;
use crate::ledger::run::{Gap, GapReason, Run, RunEnd, RunStatus, Trigger};
use crate::ledger::time::Slot;
use crate::node::engine::view::OwnRun;

/// The rows of one job, newest first.
pub(super) fn rows(account: &Account, name_of: &dyn Fn(&NodeKey) -> String) -> Vec<CronRow> {
    let runs = account.runs.iter().map(|run| (run.scheduled, row_of_run(run, name_of)));
    let gaps = account.gaps.iter().map(|gap| (gap.first.wall(), row_of_gap(gap)));
    let mut rows: Vec<_> = runs.chain(gaps).collect();
    // Stable: of runs that were due at once, the later one stays first.
    rows.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The rows of runs as their own node knows them, newest first.
pub(super) fn own_rows(runs: &[OwnRun], name_of: &dyn Fn(&NodeKey) -> String) -> Vec<CronRow> {
    let mut runs: Vec<&OwnRun> = runs.iter().collect();
    runs.sort_by_key(|own| std::cmp::Reverse((own.run.scheduled, own.run.fence)));
    let row = |own: &OwnRun| match (row_of_run(&own.run, name_of), own.is_told) {
        (row, true) => row,
        (row, false) => CronRow { trigger: String::new(), attempts_max: None, ..row },
    };
    runs.into_iter().map(row).collect()
}

/// How a run stands, in one word.
fn status(run: &Run) -> &'static str {
    match &run.end {
        Some(end) => word(end.status),
        None if run.is_waiting() => "retrying",
        None if run.is_started => "running",
        None => "pending",
    }
}

fn word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Success => "success",
        RunStatus::Failure => "failure",
        RunStatus::Timeout => "timeout",
        RunStatus::FailureToStart => "failure-to-start",
        RunStatus::Replaced => "replaced",
        RunStatus::Aborted => "aborted",
        RunStatus::Lost => "lost",
    }
}

fn row_of_run(run: &Run, name_of: &dyn Fn(&NodeKey) -> String) -> CronRow {
    let (trigger, request) = match run.trigger {
        Trigger::Slot(_) => ("slot", None),
        Trigger::Asked(request) => ("asked", Some(HEXLOWER.encode(&request))),
    };
    let last = run.end.as_ref().or(run.last_failure.as_ref());
    CronRow {
        run_id: Some(run.id.to_string()),
        scheduled_at: run.scheduled.to_string(),
        started_at: run.started.map(|at| at.to_string()),
        ended_at: run.end.as_ref().map(|end| end.at.to_string()),
        status: status(run).to_owned(),
        exit_code: last.and_then(|end| end.code),
        attempts: Some(run.attempt),
        error: error_of(run),
        attempts_max: Some(run.attempts_allowed()),
        node: run.node.as_ref().map(name_of),
        trigger: trigger.to_owned(),
        count: 1,
        last_scheduled_at: run.scheduled.to_string(),
        revision: Some(run.revision.number),
        request,
    }
}

/// What is to be said of a run beside its status.
fn error_of(run: &Run) -> Option<String> {
    match (&run.end, &run.last_failure) {
        (Some(end), _) => reason(end),
        (None, Some(failure)) => {
            let how =
                reason(failure).unwrap_or_else(|| format!("exited with code {}", failure.code.unwrap_or_default()));
            Some(format!("attempt {}: {how}", run.attempt))
        }
        (None, None) if run.node.is_none() => Some("its node was lost; another one is to take it over".to_owned()),
        (None, None) if run.orphaned.is_some() => {
            Some("its node is not heard of: it counts as lost if that stays so".to_owned())
        }
        (None, None) if run.is_replaced => Some("it is being ended for a later slot".to_owned()),
        (None, None) => None,
    }
}

/// Why a run, or an attempt, ended as it did, where its exit code does not say all.
fn reason(end: &RunEnd) -> Option<String> {
    let own = end.error.clone();
    own.or_else(|| match (end.status, end.signal) {
        (RunStatus::Timeout, _) => Some("took longer than `jobTimeoutSeconds` and was ended".to_owned()),
        (RunStatus::Replaced, _) => Some("was ended for a later slot".to_owned()),
        (RunStatus::Aborted, _) => Some("was ended with its node, or with its spec".to_owned()),
        (RunStatus::Lost, _) => Some("its node was lost: nobody knows what became of it".to_owned()),
        (_, Some(signal)) => Some(format!("ended by signal {signal}")),
        (_, None) => None,
    })
}

fn row_of_gap(gap: &Gap) -> CronRow {
    let (status, why) = match gap.reason {
        GapReason::Skipped(run) => ("skipped", format!("run {} was still open", short(run))),
        GapReason::Missed => {
            ("missed", "nobody could claim it in time: no majority of the voters, or no eligible node".to_owned())
        }
        GapReason::Suspended => ("suspended", "the spec was suspended".to_owned()),
        GapReason::CaughtUp(slot) => ("caught-up", format!("the slot of {} was run in its place", seconds(slot))),
    };
    let error = match gap.count {
        1 => why,
        count => format!("{count} slots from {} to {}: {why}", seconds(gap.first), seconds(gap.last)),
    };
    CronRow {
        scheduled_at: gap.first.wall().to_string(),
        last_scheduled_at: gap.last.wall().to_string(),
        status: status.to_owned(),
        error: Some(error),
        trigger: "slot".to_owned(),
        count: gap.count,
        ..CronRow::default()
    }
}

/// The first digits of a run's identifier, as tables show it and `narun logs --run` takes it.
fn short(run: RunId) -> String {
    HEXLOWER.encode(&run.0[..5])
}

/// A slot without the milliseconds that it has not got.
fn seconds(slot: Slot) -> String {
    slot.to_string().replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::document::RevisionId;
    use crate::ledger::run::{Fence, OnNodeLoss};
    use crate::ledger::time::LedgerTime;
    use crate::time::Wall;

    fn run() -> Run {
        Run {
            id: RunId([0xab; 16]),
            trigger: Trigger::Slot(Slot(60)),
            scheduled: Wall(60_000),
            revision: RevisionId { number: 3, hash: [1; 4] },
            node: Some(NodeKey([1; 32])),
            fence: Fence(9),
            attempt: 2,
            attempts_max: 3,
            on_node_loss: OnNodeLoss::Fail,
            claimed: LedgerTime(5),
            started: None,
            is_started: false,
            orphaned: None,
            is_replaced: false,
            end: None,
            last_failure: None,
            reruns: 1,
        }
    }

    fn end(status: RunStatus) -> RunEnd {
        RunEnd { status, at: Wall(70_000), code: None, signal: None, error: None }
    }

    fn told(run: &Run) -> CronRow {
        row_of_run(run, &|_| "n1".to_owned())
    }

    #[test]
    fn a_run_has_a_status_at_every_moment() {
        let failed = RunEnd { code: Some(3), ..end(RunStatus::Failure) };
        let orphaned = Some(LedgerTime(1));
        for (run, status, error) in [
            (run(), "pending", None),
            (Run { is_started: true, ..run() }, "running", None),
            (Run { is_started: true, is_replaced: true, ..run() }, "running", Some("ended for a later slot")),
            (Run { is_started: true, orphaned, ..run() }, "running", Some("its node is not heard of")),
            (Run { last_failure: Some(failed.clone()), ..run() }, "retrying", Some("attempt 2: exited with code 3")),
            (Run { node: None, ..run() }, "retrying", Some("another one is to take it over")),
            (Run { end: Some(end(RunStatus::Success)), ..run() }, "success", None),
            (Run { end: Some(failed), ..run() }, "failure", None),
            (
                Run { end: Some(RunEnd { signal: Some(9), ..end(RunStatus::Failure) }), ..run() },
                "failure",
                Some("signal 9"),
            ),
            (Run { end: Some(end(RunStatus::Timeout)), ..run() }, "timeout", Some("`jobTimeoutSeconds`")),
            (Run { end: Some(end(RunStatus::FailureToStart)), ..run() }, "failure-to-start", None),
            (Run { end: Some(end(RunStatus::Replaced)), ..run() }, "replaced", Some("a later slot")),
            (Run { end: Some(end(RunStatus::Aborted)), ..run() }, "aborted", Some("with its node")),
            (Run { end: Some(end(RunStatus::Lost)), ..run() }, "lost", Some("nobody knows")),
        ] {
            let row = told(&run);
            assert_eq!(row.status, status);
            match error {
                None => assert_eq!(row.error, None, "{status}"),
                Some(words) => assert!(row.error.as_deref().is_some_and(|error| error.contains(words)), "{row:?}"),
            }
        }
        let row = told(&run());
        assert_eq!((row.attempts, row.attempts_max, row.revision), (Some(2), Some(4), Some(3)), "a rerun is one more");
        let own = RunEnd { error: Some("no such file".into()), ..end(RunStatus::FailureToStart) };
        assert_eq!(told(&Run { end: Some(own), ..run() }).error.as_deref(), Some("no such file"));
        let asked = told(&Run { trigger: Trigger::Asked([0xcd; 16]), ..run() });
        assert_eq!((asked.trigger.as_str(), asked.request), ("asked", Some("cd".repeat(16))));
    }

    #[test]
    fn a_run_that_the_keeper_alone_knows_says_no_more_than_that() {
        let own = |second: u64, is_told| OwnRun { run: Run { scheduled: Wall(second * 1_000), ..run() }, is_told };
        let rows = own_rows(&[own(60, false), own(120, true)], &|_| "n1".to_owned());
        let told: Vec<_> = rows.iter().map(|row| (row.trigger.as_str(), row.attempts, row.attempts_max)).collect();
        assert_eq!(told, [("slot", Some(2), Some(4)), ("", Some(2), None)], "newest first");
    }

    #[test]
    fn slots_without_a_run_say_how_many_and_why() {
        let gap = |count, reason| row_of_gap(&Gap { first: Slot(60), last: Slot(60 * count), count, reason });
        for (row, status, error) in [
            (gap(1, GapReason::Skipped(RunId([0xab; 16]))), "skipped", "run ababababab was still open"),
            (
                gap(1, GapReason::Missed),
                "missed",
                "nobody could claim it in time: no majority of the voters, or no eligible node",
            ),
            (
                gap(3, GapReason::Suspended),
                "suspended",
                "3 slots from 1970-01-01T00:01:00Z to 1970-01-01T00:03:00Z: the spec was suspended",
            ),
            (
                gap(2, GapReason::CaughtUp(Slot(180))),
                "caught-up",
                "2 slots from 1970-01-01T00:01:00Z to 1970-01-01T00:02:00Z: the slot of 1970-01-01T00:03:00Z was run in its \
                 place",
            ),
        ] {
            assert_eq!((row.status.as_str(), row.error.as_deref()), (status, Some(error)));
            assert_eq!((row.run_id, row.attempts), (None, None));
        }
    }

    #[test]
    fn runs_and_gaps_stand_in_the_order_of_time() {
        let at = |second: u64| Run { scheduled: Wall(second * 1_000), ..run() };
        let gap = |second| Gap { first: Slot(second), last: Slot(second), count: 1, reason: GapReason::Missed };
        let account = Account { runs: vec![at(240), at(60)], gaps: vec![gap(180), gap(120)], ..Account::default() };
        let found: Vec<_> = rows(&account, &|_| String::new()).into_iter().map(|row| row.status).collect();
        assert_eq!(found, ["pending", "missed", "missed", "pending"]);
    }
}
