//! `narun cron run`: a run out of turn, and what comes of it. Wiring.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use crate::api::client::{Client, ClientError};
use crate::api::wire::cron::{CronHistory, CronRow, HistoryWanted, RunAsked, RunNow};

use super::cron_text::outcome;
use super::failure::Failure;
use super::output::{Output, note};
use super::reach::Reach;
use super::words;

/// How often the history is looked at: a person takes less for at once, and it costs a voter nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Run a cron spec now, out of turn
///
/// The node that holds its lease takes the request, within moments; while an earlier run is open it waits for its turn, as
/// `concurrencyPolicy` has it. A spec that is paused is run too. With --wait the run is followed to its end: exit code 0 for success and 1
/// for anything else; for as long as it takes, or --timeout at the most. JSON keys: service, node, request, run (a row of `narun cron
/// history`; null without --wait).
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun cron run nightly\n  narun cron run nightly --wait --timeout 10m")]
pub(crate) struct Run {
    /// The cron spec's name
    #[arg(value_name = "NAME")]
    cron: String,
    /// On which node; needed with `cronScope: node`, and only there
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Wait until the run has ended, and hand on its result
    #[arg(long)]
    wait: bool,
}

impl Run {
    pub(super) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        let asked = client.cron_run(&self.cron, &RunNow { node: self.node }).await?;
        let RunAsked { service, node, request } = &asked;
        if !self.wait {
            let value = json!({ "service": service, "node": node, "request": request, "run": null });
            return output.answer(&value, || {
                format!("a run of `{service}` was asked for; `narun cron history {service}` shows what becomes of it\n")
            });
        }
        let row = followed(reach, &client, &asked).await?;
        let id = row.run_id.as_deref().map(words::short).unwrap_or_default();
        let value = json!({ "service": service, "node": node, "request": request, "run": row });
        if row.status == "success" {
            return output.answer(&value, || format!("run {id} of `{service}` ended: {}\n", outcome(&row)));
        }
        output.answer(&value, String::new)?;
        output.flush()?;
        let failure = Failure::failed(format!("run {id} of `{service}` ended: {}", outcome(&row)));
        Err(failure.hint(format!("`narun logs --app {service} --run {id}` shows its output")))
    }
}

/// Waits until the run that answers a request has ended.
async fn followed(reach: &Reach, client: &Client, asked: &RunAsked) -> Result<CronRow, Failure> {
    let deadline = reach.timeout().map(|within| (within, Instant::now() + within));
    let wanted = HistoryWanted { node: asked.node.clone(), limit: None };
    let mut said = String::new();
    loop {
        let stands = match client.cron_history(&asked.service, &wanted).await {
            // How it ended is the ledger's to say.
            Ok(CronHistory { only_node: Some(node), .. }) => format!("node {node} reaches no voter of the ledger"),
            Ok(history) => match run_of(&history, &asked.request) {
                Some(row) if row.ended_at.is_some() => return Ok(row.clone()),
                Some(row) => {
                    let on = row.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
                    let id = row.run_id.as_deref().map(words::short).unwrap_or_default();
                    format!("run {id}{on} is {}", outcome(row))
                }
                None => waits(&history),
            },
            // The ledger elects a leader, or this node looks for a voter: the run goes on.
            Err(ClientError::Refused(words)) if words.code == "unavailable" => words.message,
            Err(error) => return Err(error.into()),
        };
        if let Some((within, _)) = deadline.filter(|(_, deadline)| *deadline <= Instant::now()) {
            let within = words::span(within);
            let failure =
                Failure::failed(format!("the run of `{}` has not ended after {within}: {stands}", asked.service));
            return Err(failure.hint(format!("it goes on; `narun cron history {}` shows it", asked.service)));
        }
        if said != stands {
            note(format!("waiting for `{}`: {stands}", asked.service));
            said = stands;
        }
        let until = Instant::now() + LOOK_EVERY;
        tokio::time::sleep_until(deadline.map_or(until, |(_, deadline)| deadline.min(until))).await;
    }
}

fn run_of<'a>(history: &'a CronHistory, request: &str) -> Option<&'a CronRow> {
    history.rows.iter().find(|row| row.request.as_deref() == Some(request))
}

/// What a request waits for that nobody has taken.
fn waits(history: &CronHistory) -> String {
    let is_open = |row: &&CronRow| row.run_id.is_some() && row.ended_at.is_none();
    if let Some(open) = history.rows.iter().find(is_open) {
        let id = open.run_id.as_deref().map(words::short).unwrap_or_default();
        return format!("run {id} is open, which may have to end first");
    }
    match history.jobs.iter().find_map(|job| job.holder.as_ref()) {
        Some(holder) => format!("node {holder}, which holds the lease, is to take it"),
        None => format!("no node holds the lease; `narun why {}` says why", history.service),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cron_text::tests::{nightly, run};
    use super::*;

    #[test]
    fn what_a_request_waits_for_is_told() {
        assert_eq!(waits(&nightly(vec![run("success", 1)])), "node n1, which holds the lease, is to take it");
        let open = CronRow { ended_at: None, ..run("running", 1) };
        assert_eq!(waits(&nightly(vec![open])), "run ababababab is open, which may have to end first");
        let mut idle = nightly(Vec::new());
        idle.jobs[0].holder = None;
        assert_eq!(waits(&idle), "no node holds the lease; `narun why nightly` says why");
    }
}
