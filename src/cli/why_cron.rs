//! `narun why` for cron specs: what keeps a slot from being run, and how the last one fared. Pure.

use crate::api::wire::Service;
use crate::api::wire::cron::{CronHistory, CronRow, Ledger};
use crate::spec::{RunMode, ServiceSpec};
use crate::time::Wall;

use super::cron;
use super::cron_text::{only, outcome};
use super::why::Finding;
use super::words;

/// What is known of a cron spec.
pub(super) struct Known<'a> {
    pub(super) service: &'a Service,
    pub(super) ledger: &'a Ledger,
    /// Or why it is not known.
    pub(super) history: &'a Result<CronHistory, String>,
    pub(super) now: Wall,
}

/// What is to be said, what stands in the way of the next slot first.
pub(super) fn findings(known: &Known<'_>) -> Vec<Finding> {
    let name = &known.service.service;
    let mut findings = Vec::new();
    let mut find = |state: &str, well, message: String, hint: Option<String>| {
        findings.push(Finding { subject: name.clone(), kind: "cron", state: state.to_owned(), well, message, hint });
    };
    let revision = &known.service.revision;
    if revision.suspended {
        let at = words::seconds(&revision.at);
        let how = match (revision.stopped, revision.cause.as_str()) {
            (true, "stop") => "stopped",
            (_, "pause") => "paused",
            _ => "suspended by its specification",
        };
        let message = format!("{how}, on node {} at {at}: no slot is fired", revision.author);
        find("paused", true, message, Some(format!("`narun cron resume {name}` fires it again")));
    }
    if let Some(why) = known.ledger.why.as_ref().filter(|_| !known.ledger.fires) {
        let hint =
            "a slot is run only when a majority of the voters agree; `narun status` shows which of them are down";
        find("no majority", false, format!("no slot of any cron spec is fired: {why}"), Some(hint.to_owned()));
    }
    match known.history {
        Err(why) => find("unknown", false, why.clone(), None),
        Ok(history) => {
            if let Some(bar) = lease(history).filter(|_| known.ledger.fires && !revision.suspended) {
                find(bar.state, false, bar.message, bar.hint);
            }
            if let Some(as_of) = history.jobs.iter().filter_map(|job| job.as_of.as_deref()).min() {
                let message = format!("what follows was known at {}: no voter in reach leads", words::seconds(as_of));
                find("old", false, message, None);
            }
            if let Some(node) = &history.only_node {
                find("own", false, only(node), None);
            }
            let asked: u64 = history.jobs.iter().map(|job| job.asked).sum();
            if asked > 0 {
                let runs = words::count(usize::try_from(asked).unwrap_or(usize::MAX), "run");
                let hint = "they begin once the lease is held, and an open run that may not overlap has ended";
                find("asked", false, format!("{runs} asked for and not begun"), Some(hint.to_owned()));
            }
            for row in open(history) {
                find(&row.status, row.status != "retrying", format!("run {}", told(row)), None);
            }
            if let Some(row) = history.rows.first().filter(|row| ["missed", "skipped"].contains(&row.status.as_str())) {
                let error = row.error.as_deref().unwrap_or_default();
                let message =
                    format!("the last slot, {}, was {}: {error}", words::seconds(&row.scheduled_at), row.status);
                find(&row.status, false, message, gap_hint(&row.status, name));
            }
            if let Some(row) = history.rows.iter().find(|row| row.run_id.is_some() && row.ended_at.is_some()) {
                let well = row.status == "success";
                let id = row.run_id.as_deref().map(words::short).unwrap_or_default();
                let hint = format!("`narun logs --app {name} --run {id}` shows its output");
                find(&row.status, well, format!("the last run to end was {}", told(row)), (!well).then_some(hint));
            }
        }
    }
    if let Some(next) = next(known).filter(|_| !revision.suspended) {
        find("due", true, next, None);
    }
    findings
}

/// What is wrong with a lease.
struct Bar {
    state: &'static str,
    message: String,
    hint: Option<String>,
}

/// Why nobody holds the lease, where nobody does and the ledger says so. Of a spec with a lease on each node, those do not count that cannot fire it.
fn lease(history: &CronHistory) -> Option<Bar> {
    if history.only_node.is_some() {
        return None;
    }
    let is_barred = |node: &Option<String>| history.barred.iter().any(|barred| Some(&barred.node) == node.as_ref());
    let is_idle = history.jobs.iter().filter(|job| !is_barred(&job.node)).any(|job| job.holder.is_none());
    let nobody_can = history.jobs.iter().all(|job| job.holder.is_none() && is_barred(&job.node));
    if !is_idle && !nobody_can {
        return None;
    }
    if history.barred.is_empty() {
        let message = "no node holds its lease at this moment: one is given within seconds".to_owned();
        return Some(Bar { state: "no lease", message, hint: None });
    }
    let barred = history.barred.iter().map(|barred| format!("{} ({})", barred.node, barred.reason));
    let message = format!("no node holds its lease; these cannot: {}", barred.collect::<Vec<_>>().join("; "));
    let hint = "bring one of them back, or change the specification's nodes, constraints or binaries".to_owned();
    Some(Bar { state: "no node", message, hint: Some(hint) })
}

fn open(history: &CronHistory) -> impl Iterator<Item = &CronRow> {
    history.rows.iter().filter(|row| row.run_id.is_some() && row.ended_at.is_none())
}

/// A run in words.
fn told(row: &CronRow) -> String {
    let id = row.run_id.as_deref().map(words::short).unwrap_or_default();
    let due = words::seconds(&row.scheduled_at);
    let node = row.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("{id}, due at {due}{node}: {}", outcome(row))
}

fn gap_hint(status: &str, name: &str) -> Option<String> {
    let hint = match status {
        "skipped" => {
            "a run that takes longer than its schedule allows: `concurrencyPolicy` says what becomes of it, `jobTimeoutSeconds` ends \
             it"
        }
        _ => "`catchUp` runs missed slots late, and `startingDeadlineSeconds` says how late a run may start",
    };
    Some(format!("{hint}; `narun cron history {name}` shows all"))
}

fn next(known: &Known<'_>) -> Option<String> {
    let spec = ServiceSpec::parse(&known.service.revision.spec).ok()?;
    let RunMode::Cron(_) = spec.mode else { return None };
    let slot = cron::slots(&spec, known.now, 1).ok()?.into_iter().next()?;
    Some(format!("next due at {}", slot.shown()))
}

#[cfg(test)]
mod tests {
    use super::super::cron_text::tests::{gap, nightly, run};
    use super::super::service_text::tests::web;
    use super::*;
    use crate::api::wire::cron::{Barred, CronJob};

    fn spec() -> Service {
        let mut service = web();
        service.service = "nightly".into();
        service.revision.mode = "cron".into();
        service.revision.spec = "{name: nightly, tag: v1, cronSchedule: '0 2 * * *', timezone: Europe/Berlin}".into();
        service
    }

    fn said(service: &Service, ledger: &Ledger, history: &Result<CronHistory, String>) -> Vec<String> {
        // 2026-10-24T12:00:00Z
        let known = Known { service, ledger, history, now: Wall(1_792_843_200_000) };
        findings(&known).into_iter().map(|found| format!("{} {} {}", found.state, found.well, found.message)).collect()
    }

    fn fires() -> Ledger {
        Ledger { fires: true, ..Ledger::default() }
    }

    const DUE: &str = "due true next due at 2026-10-25T00:00:00Z (2026-10-25T02:00:00+02:00)";

    #[test]
    fn a_spec_that_fares_well_says_how_and_when() {
        assert_eq!(
            said(&spec(), &fires(), &Ok(nightly(vec![run("success", 28)]))),
            [
                "success true the last run to end was ababababab, due at 2026-11-21T10:28:00Z on n1: success, exit code 0, attempt 1/3",
                DUE
            ]
        );
    }

    #[test]
    fn what_failed_and_what_was_missed_have_their_reasons() {
        let failed = CronRow { exit_code: None, error: Some("no such file".into()), ..run("failure-to-start", 28) };
        let found = said(&spec(), &fires(), &Ok(nightly(vec![gap("missed", 29, "no majority"), failed])));
        assert_eq!(found[0], "missed false the last slot, 2026-11-21T10:29:00Z, was missed: no majority");
        assert!(found[1].ends_with("on n1: failure-to-start, attempt 1/3: no such file"), "{found:?}");
        let open =
            CronRow { ended_at: None, exit_code: None, error: Some("attempt 1: x".into()), ..run("retrying", 28) };
        let found = said(&spec(), &fires(), &Ok(nightly(vec![gap("skipped", 29, "run x was still open"), open])));
        assert!(
            found[0].starts_with("retrying false run ababababab") && found[1].starts_with("skipped false"),
            "{found:?}"
        );
        let old = said(&spec(), &fires(), &Ok(nightly(vec![run("success", 28), gap("missed", 27, "then")])));
        assert_eq!(old.len(), 2, "what a later slot has made good is history: {old:?}");
    }

    #[test]
    fn what_stands_in_the_way_comes_first() {
        let mut paused = spec();
        (paused.revision.suspended, paused.revision.cause) = (true, "pause".into());
        let mut history = nightly(Vec::new());
        assert_eq!(
            said(&paused, &fires(), &Ok(history.clone())),
            ["paused true paused, on node n1 at 2026-11-21T10:30:00Z: no slot is fired"]
        );
        let ledger = Ledger { why: Some("1 of 3 voters are in reach, and 2 are needed".into()), ..Ledger::default() };
        let unknown = Err("the history of `nightly` cannot be told: nobody answers".to_owned());
        assert_eq!(
            said(&spec(), &ledger, &unknown),
            [
                "no majority false no slot of any cron spec is fired: 1 of 3 voters are in reach, and 2 are needed",
                "unknown false the history of `nightly` cannot be told: nobody answers",
                DUE
            ]
        );
        history.jobs[0].holder = None;
        history.jobs[0].asked = 2;
        let found = said(&spec(), &fires(), &Ok(history.clone()));
        assert!(found[0].starts_with("no lease false no node holds its lease at this moment"), "{found:?}");
        assert_eq!(found[1], "asked false 2 runs asked for and not begun");
        history.barred.push(Barred { node: "n2".into(), reason: "it is drained".into() });
        let found = said(&spec(), &fires(), &Ok(history));
        assert_eq!(found[0], "no node false no node holds its lease; these cannot: n2 (it is drained)");
    }

    #[test]
    fn what_one_node_alone_knows_is_no_word_on_the_lease() {
        let own = CronHistory { jobs: Vec::new(), only_node: Some("n3".into()), ..nightly(vec![run("success", 28)]) };
        let found = said(&spec(), &fires(), &Ok(own));
        assert!(found[0].starts_with("own false no voter of the ledger could be reached"), "{found:?}");
        assert!(found[1].starts_with("success true the last run to end") && found.len() == 3, "{found:?}");
    }

    #[test]
    fn a_node_that_cannot_fire_it_is_no_matter_while_others_do() {
        let mut history = nightly(Vec::new());
        let job = |node: &str, holder: Option<&str>| CronJob {
            node: Some(node.into()),
            holder: holder.map(Into::into),
            ..CronJob::default()
        };
        history.jobs = vec![job("n1", Some("n1")), job("n2", None)];
        history.barred = vec![Barred { node: "n2".into(), reason: "it is down".into() }];
        assert!(lease(&history).is_none());
        history.jobs[0].holder = None;
        assert!(lease(&history).is_some());
        history.jobs.remove(0);
        assert!(lease(&history).is_some(), "nobody is left that can");
    }
}
