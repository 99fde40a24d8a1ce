//! What became of cron specs, as tables and as JSON. Pure.

use serde::Serialize;

use crate::api::wire::cron::{CronHistory, CronRow};
use crate::spec::{CatchUp, Concurrency, CronScope, CronSpec, OnNodeLoss};

use super::cron::{self, Slot};
use super::table::table;
use super::words;

/// The part of `service info` that only cron specs have.
#[derive(Serialize, Debug)]
pub(super) struct Info<'a> {
    /// The next due times.
    pub(super) next: &'a [Slot],
    /// What became of its slots; null where the ledger does not answer.
    pub(super) history: Option<&'a CronHistory>,
}

/// How many rows `service info` shows: the last of them; `cron history` has them all.
pub(super) const ROWS_SHOWN: usize = 10;

/// Whose a history is that no voter has told.
pub(super) fn only(node: &str) -> String {
    format!("no voter of the ledger could be reached: these are the runs of node {node} alone, as it knows them itself")
}

/// The table of `cron history`; for a spec with a series of slots on each node, one for each.
pub(super) fn history(history: &CronHistory) -> String {
    match history.jobs.as_slice() {
        [] | [_] => rows(&history.rows),
        jobs => {
            let nodes = jobs.iter().filter_map(|job| job.node.as_ref());
            let tables = nodes.filter_map(|node| {
                // A run names the node that it ran on, which is that of its series.
                let own: Vec<_> = history.rows.iter().filter(|row| row.node.as_ref() == Some(node)).cloned().collect();
                (!own.is_empty()).then(|| format!("Node {node}\n{}", rows(&own)))
            });
            let tables: Vec<_> = tables.collect();
            if tables.is_empty() { rows(&[]) } else { tables.join("\n") }
        }
    }
}

fn rows(rows: &[CronRow]) -> String {
    let time = |moment: &Option<String>| moment.as_deref().map(words::seconds).unwrap_or_default();
    let row = |row: &CronRow| {
        [
            row.run_id.as_deref().map(words::short).unwrap_or_default().to_owned(),
            words::seconds(&row.scheduled_at),
            time(&row.started_at),
            time(&row.ended_at),
            row.status.clone(),
            row.exit_code.map(|code| code.to_string()).unwrap_or_default(),
            attempts(row),
            // An error may be a program's or a kernel's words: one row stays one line.
            row.error.as_deref().unwrap_or_default().replace(char::is_control, " "),
        ]
    };
    table(
        ["RUN_ID", "SCHEDULED_AT", "STARTED_AT", "ENDED_AT", "STATUS", "EXIT_CODE", "ATTEMPTS", "ERROR"],
        rows.iter().map(row),
    )
}

fn attempts(row: &CronRow) -> String {
    match (row.attempts, row.attempts_max) {
        (Some(attempt), Some(max)) => format!("{attempt}/{max}"),
        (Some(attempt), None) => attempt.to_string(),
        (None, _) => String::new(),
    }
}

/// How a run ended, or how it stands, in words.
pub(super) fn outcome(row: &CronRow) -> String {
    let mut text = row.status.clone();
    // What waits for its next attempt says in its error how the last one ended.
    if row.status != "retrying" {
        text += &row.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        if let (Some(attempt), Some(max @ 2..)) = (row.attempts, row.attempts_max) {
            text += &format!(", attempt {attempt}/{max}");
        }
    }
    if let Some(error) = &row.error {
        text += &format!(": {error}");
    }
    text
}

/// The text of `service info` below a cron spec's binaries.
pub(super) fn info(cron: &CronSpec, suspended: bool, info: &Info<'_>) -> String {
    let scope = match cron.scope {
        CronScope::Cluster => "one run a slot in the cluster",
        CronScope::Node => "one run a slot on each node",
    };
    let mut out = format!("\nSchedule\n  {} in {}, {scope}\n", cron.schedule, cron.timezone.name());
    if suspended {
        out += "  paused: no slot is fired\n";
    }
    out += "\nPolicy\n";
    for (field, value) in policy(cron) {
        out += &format!("  {field}: {value}\n");
    }
    out += &format!("\nNext Due\n{}", indented(&cron::text(info.next)));
    let Some(history) = info.history else { return out };
    out += "\nLease\n";
    if history.only_node.is_some() {
        out += "  not known: no voter of the ledger could be reached\n";
    }
    for job in &history.jobs {
        let holder = job.holder.as_deref().unwrap_or("nobody");
        let until = job.decided_until.as_deref().map(words::seconds);
        let until = until.map(|until| format!(", slots are decided up to {until}")).unwrap_or_default();
        out += &match &job.node {
            Some(node) => format!("  {node}: held by {holder}{until}\n"),
            None => format!("  held by {holder}{until}\n"),
        };
    }
    for barred in &history.barred {
        out += &format!("  {} cannot fire it: {}\n", barred.node, barred.reason);
    }
    out += "\nLast Success\n";
    out += &last_success(history);
    out += &match &history.only_node {
        None => "\nLast Runs\n".to_owned(),
        Some(node) => format!("\nLast Runs (those of node {node} alone)\n"),
    };
    if history.rows.is_empty() {
        return out + if history.only_node.is_some() { "  (none)\n" } else { "  (No slot was decided yet)\n" };
    }
    let shown = &history.rows[..history.rows.len().min(ROWS_SHOWN)];
    let table = self::history(&CronHistory { rows: shown.to_vec(), ..history.clone() });
    out += &indented(&table);
    if history.rows.len() > ROWS_SHOWN {
        out += &format!("  (the last {ROWS_SHOWN} of {}; `narun cron history` shows all)\n", history.rows.len());
    }
    out
}

fn last_success(history: &CronHistory) -> String {
    let mut out = String::new();
    if history.only_node.is_some()
        && let Some(row) = history.rows.iter().find(|row| row.status == "success")
    {
        let id = row.run_id.as_deref().map(words::short).unwrap_or_default();
        let at = row.ended_at.as_deref().map(words::seconds).unwrap_or_default();
        out += &format!("  run {id}, ended at {at}\n");
    }
    for job in &history.jobs {
        let Some(run) = &job.last_success else { continue };
        let row = history.rows.iter().find(|row| row.run_id.as_ref() == Some(run));
        let at = match row.and_then(|row| row.ended_at.as_deref()) {
            Some(at) => format!("ended at {}", words::seconds(at)),
            None => "longer ago than the history goes back".to_owned(),
        };
        let node = job.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        out += &format!("  {node}run {}, {at}\n", words::short(run));
    }
    if out.is_empty() { "  (none)\n".to_owned() } else { out }
}

/// What becomes of runs that overlap, fail or are missed: fields of the specification, those not given included.
fn policy(cron: &CronSpec) -> Vec<(&'static str, String)> {
    let policy = &cron.policy;
    let never = |seconds: u64| if seconds == 0 { "0 (never)".to_owned() } else { seconds.to_string() };
    let concurrency = match policy.concurrency {
        Concurrency::Skip => "skip",
        Concurrency::Allow => "allow",
        Concurrency::Replace => "replace",
    };
    let catch_up = match policy.catch_up {
        CatchUp::Latest => "latest".to_owned(),
        CatchUp::None => "none".to_owned(),
        CatchUp::All { window_seconds } => format!("all, of the last {window_seconds} s"),
    };
    let loss = match policy.on_node_loss {
        OnNodeLoss::Fail => "fail",
        OnNodeLoss::Rerun => "rerun",
    };
    vec![
        ("concurrencyPolicy", concurrency.to_owned()),
        ("catchUp", catch_up),
        ("startingDeadlineSeconds", policy.starting_deadline_seconds.to_string()),
        ("jobMaxRetries", policy.max_retries.to_string()),
        ("jobTimeoutSeconds", never(policy.timeout_seconds)),
        ("onNodeLoss", loss.to_owned()),
        ("historyLimit", policy.history_limit.to_string()),
    ]
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use crate::api::wire::cron::{Barred, CronJob};
    use crate::spec::{RunMode, ServiceSpec};
    use crate::time::Wall;

    use super::*;

    pub(crate) fn run(status: &str, minute: u32) -> CronRow {
        CronRow {
            run_id: Some("ab".repeat(16)),
            scheduled_at: format!("2026-11-21T10:{minute:02}:00.000Z"),
            started_at: Some(format!("2026-11-21T10:{minute:02}:00.120Z")),
            ended_at: Some(format!("2026-11-21T10:{minute:02}:07.000Z")),
            status: status.into(),
            exit_code: Some(0),
            attempts: Some(1),
            error: None,
            attempts_max: Some(3),
            node: Some("n1".into()),
            trigger: "slot".into(),
            count: 1,
            last_scheduled_at: format!("2026-11-21T10:{minute:02}:00.000Z"),
            revision: Some(2),
            request: None,
        }
    }

    pub(crate) fn gap(status: &str, minute: u32, error: &str) -> CronRow {
        CronRow {
            run_id: None,
            started_at: None,
            ended_at: None,
            exit_code: None,
            attempts: None,
            attempts_max: None,
            error: Some(error.into()),
            revision: None,
            node: None,
            ..run(status, minute)
        }
    }

    pub(crate) fn nightly(rows: Vec<CronRow>) -> CronHistory {
        let job = CronJob {
            node: None,
            known: true,
            holder: Some("n1".into()),
            decided_until: Some("2026-11-21T10:30:00.000Z".into()),
            last_success: Some("ab".repeat(16)),
            asked: 0,
            as_of: None,
        };
        CronHistory { service: "nightly".into(), jobs: vec![job], rows, barred: Vec::new(), only_node: None }
    }

    fn failed() -> CronRow {
        CronRow { exit_code: None, error: Some("ended by\nsignal 9".into()), attempts: Some(3), ..run("failure", 29) }
    }

    #[test]
    fn the_history_has_the_columns_that_people_know() {
        assert_eq!(
            history(&nightly(vec![gap("missed", 30, "nobody could claim it"), failed(), run("success", 28)])),
            "\
RUN_ID      SCHEDULED_AT          STARTED_AT            ENDED_AT              STATUS   EXIT_CODE  ATTEMPTS  ERROR
-           2026-11-21T10:30:00Z  -                     -                     missed   -          -         nobody could claim it
ababababab  2026-11-21T10:29:00Z  2026-11-21T10:29:00Z  2026-11-21T10:29:07Z  failure  -          3/3       ended by signal 9
ababababab  2026-11-21T10:28:00Z  2026-11-21T10:28:00Z  2026-11-21T10:28:07Z  success  0          1/3       -
"
        );
    }

    #[test]
    fn the_keys_of_a_row_are_the_columns_and_more() {
        let value = serde_json::to_value(run("success", 1)).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        let table = history(&nightly(Vec::new()));
        let columns: Vec<_> = table.split_whitespace().map(str::to_lowercase).collect();
        assert_eq!(keys[..columns.len()], columns);
        assert_eq!(
            keys[columns.len()..],
            ["attempts_max", "node", "trigger", "count", "last_scheduled_at", "revision", "request"]
        );
    }

    #[test]
    fn what_one_node_alone_tells_is_marked_as_such() {
        let spec = ServiceSpec::parse("{name: nightly, tag: v1, cronSchedule: '30 2 * * *'}").unwrap();
        let RunMode::Cron(cron) = &spec.mode else { panic!("a cron spec") };
        let recalled = CronRow { attempts_max: None, trigger: String::new(), ..run("running", 29) };
        let own = |rows| CronHistory { jobs: Vec::new(), only_node: Some("n3".into()), ..nightly(rows) };
        let text = info(cron, false, &Info { next: &[], history: Some(&own(vec![recalled, run("success", 28)])) });
        for part in [
            "Lease\n  not known: no voter",
            "Last Success\n  run ababababab, ended at 2026-11-21T10:28:07Z",
            "Last Runs (those of node n3 alone)\n  RUN_ID",
            "running  0          1         -",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        let text = info(cron, false, &Info { next: &[], history: Some(&own(Vec::new())) });
        assert!(text.ends_with("Last Success\n  (none)\n\nLast Runs (those of node n3 alone)\n  (none)\n"), "{text}");
    }

    #[test]
    fn a_series_on_each_node_is_a_table_for_each() {
        let mut found = nightly(vec![run("success", 2), CronRow { node: Some("n2".into()), ..run("failure", 1) }]);
        let job = |node: &str| CronJob { node: Some(node.into()), ..found.jobs[0].clone() };
        found.jobs = vec![job("n1"), job("n2"), job("n3")];
        let text = history(&found);
        assert!(text.starts_with("Node n1\nRUN_ID") && text.contains("\n\nNode n2\nRUN_ID"), "{text}");
        assert!(!text.contains("n3"), "{text}");
    }

    #[test]
    fn a_cron_spec_is_shown_in_full() {
        let spec = "{name: nightly, tag: v1, cronSchedule: '30 2 * * *', timezone: Europe/Berlin, jobMaxRetries: 2}";
        let spec = ServiceSpec::parse(spec).unwrap();
        let next = cron::slots(&spec, Wall(1_792_843_200_000), 1).unwrap();
        let RunMode::Cron(cron) = &spec.mode else { panic!("a cron spec") };
        let mut history = nightly(vec![run("success", 28)]);
        history.barred.push(Barred { node: "n2".into(), reason: "it is drained".into() });
        assert_eq!(
            info(cron, true, &Info { next: &next, history: Some(&history) }),
            "
Schedule
  30 2 * * * in Europe/Berlin, one run a slot in the cluster
  paused: no slot is fired

Policy
  concurrencyPolicy: skip
  catchUp: latest
  startingDeadlineSeconds: 60
  jobMaxRetries: 2
  jobTimeoutSeconds: 0 (never)
  onNodeLoss: fail
  historyLimit: 20

Next Due
  SCHEDULED_AT          LOCAL_TIME                 TIMEZONE
  2026-10-25T00:30:00Z  2026-10-25T02:30:00+02:00  Europe/Berlin

Lease
  held by n1, slots are decided up to 2026-11-21T10:30:00Z
  n2 cannot fire it: it is drained

Last Success
  run ababababab, ended at 2026-11-21T10:28:07Z

Last Runs
  RUN_ID      SCHEDULED_AT          STARTED_AT            ENDED_AT              STATUS   EXIT_CODE  ATTEMPTS  ERROR
  ababababab  2026-11-21T10:28:00Z  2026-11-21T10:28:00Z  2026-11-21T10:28:07Z  success  0          1/3       -
"
        );
        let many = nightly((0..12).map(|minute| run("failure", minute)).collect());
        let many = CronHistory { jobs: vec![CronJob { last_success: None, ..many.jobs[0].clone() }], ..many };
        let text = info(cron, false, &Info { next: &next, history: Some(&many) });
        assert!(text.contains("(the last 10 of 12;") && text.contains("Last Success\n  (none)"), "{text}");
        let unknown = info(cron, false, &Info { next: &next, history: None });
        assert!(unknown.ends_with("Europe/Berlin\n"), "{unknown}");
    }

    #[test]
    fn an_outcome_says_what_is_to_be_said() {
        assert_eq!(outcome(&failed()), "failure, attempt 3/3: ended by\nsignal 9");
        let error = Some("attempt 1: exited with code 3".into());
        let waits = CronRow { exit_code: Some(3), ended_at: None, error, ..run("retrying", 1) };
        assert_eq!(outcome(&waits), "retrying: attempt 1: exited with code 3");
        let once = CronRow { attempts_max: Some(1), ..run("success", 1) };
        assert_eq!(outcome(&once), "success, exit code 0");
    }
}
