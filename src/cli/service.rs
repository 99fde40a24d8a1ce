//! `narun service`: what runs where, and changing it. Wiring; its texts are in `service_text`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::api::client::{Client, ClientError};
use crate::api::wire::cron::HistoryWanted;
use crate::api::wire::{Revised, Scale as ScaleRequest, Service as ServiceForm};
use crate::spec::RunMode;

use super::confirm::confirmed;
use super::failure::Failure;
use super::output::{Output, note};
use super::reach::Reach;
use super::service_text as text;
use super::usage_text;
use super::wait::WaitArgs;
use super::words;
use super::{cron, cron_text};

#[derive(Subcommand, Debug)]
pub(crate) enum Service {
    List(List),
    Info(Info),
    History(History),
    Delete(Delete),
    Start(Start),
    Stop(Stop),
    Restart(Restart),
    Scale(Scale),
}

/// List all services: what is wanted on which node, and what runs there
///
/// Columns and JSON keys: SERVICE TAG MODE CRON_SCHEDULE NODE NODE_STATUS NODE_PLATFORM DESIRED RUNNING INSTANCE_IDS; one row
/// for each service and node. `0 (not in spec)`: instances run on a node that the specification does not name.
/// `offline/unknown`: the specification names a node that is no member. JSON has in_spec and stopped besides.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Example:\n  narun service list\n  narun service list -o json | jq '.[] | select(.running < .desired)'"
)]
pub(crate) struct List {}

/// Show one service: specification, revision, nodes, instances with their errors, what they use
///
/// `Usage` is what each instance uses at this moment with all its descendants; a node that does not tell is named. Of a cron spec:
/// schedule, policy, next due times, who holds its lease, last runs. JSON keys: service, revision, placements, instances, usage, and
/// of a cron spec cron (next, history).
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service info web")]
pub(crate) struct Info {
    /// The service's name
    service: String,
}

/// Show all kept revisions of a service, newest first
///
/// Columns and JSON keys: REVISION STATUS CAUSE TAG AT AUTHOR IMAGES. `superseded`: made at the same time as another one on
/// the other side of a partition, and lost. JSON has the specification besides.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service history web")]
pub(crate) struct History {
    /// The service's name
    service: String,
}

/// Forget a service and stop its instances
///
/// A service that is not there is no failure. Runs of a cron spec that are open run to their end.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service delete web\n  narun service delete web -y")]
pub(crate) struct Delete {
    /// The service's name
    service: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Start a service that was stopped, and try again what was given up
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service start web --wait")]
pub(crate) struct Start {
    /// The service's name
    service: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Stop all instances of a service and keep its specification
///
/// Of a cron spec no slot is fired until `narun service start` or `narun cron resume`; runs that are open go on.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service stop web --wait")]
pub(crate) struct Stop {
    /// The service's name
    service: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Replace every instance of a service, one index at a time
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service restart web --wait --timeout 2m")]
pub(crate) struct Restart {
    /// The service's name
    service: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Change how many instances of a service are wanted
///
/// The highest indices stop first.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun service scale web 5\n  narun service scale web 2 --node n1 --wait")]
pub(crate) struct Scale {
    /// The service's name
    service: String,
    /// How many instances
    #[arg(value_name = "N")]
    replicas: u32,
    /// On which node; needed where the specification names several
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Service {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        match self {
            Self::List(List {}) => {
                let services = client.services().await?;
                let rows = text::rows(&services);
                output.answer(&rows, || text::list(&rows))
            }
            Self::Info(Info { service }) => {
                let service = client.service(&service).await?;
                if service.revision.mode == "cron" {
                    return cron_info(&client, &service, output).await;
                }
                let usage = client.usage(&service.service).await?;
                let answer = usage_text::Answer { service: &service, usage: Some(&usage), cron: None };
                output.answer(&answer, || text::info(&service) + &usage_text::usage(&usage))
            }
            Self::History(History { service }) => {
                let revisions = client.history(&service).await?;
                output.answer(&revisions, || text::history(&revisions))
            }
            Self::Delete(delete) => delete.run(&client, output).await,
            Self::Start(Start { service, wait }) => {
                let revised = client.start_service(&service).await?;
                if client.service(&service).await?.revision.suspended {
                    note(format!("`{service}` is still paused: `narun cron resume {service}` ends that"));
                }
                finish(reach, &client, output, &revised, wait, "started").await
            }
            Self::Stop(Stop { service, wait }) => {
                let revised = client.stop_service(&service).await?;
                finish(reach, &client, output, &revised, wait, "stopped").await
            }
            Self::Restart(Restart { service, wait }) => {
                let revised = client.restart_service(&service).await?;
                finish(reach, &client, output, &revised, wait, "restarted").await
            }
            Self::Scale(Scale { service, replicas, node, wait }) => {
                let revised = client.scale(&service, &ScaleRequest { replicas, node }).await?;
                let done = format!("scaled to {}", words::count(replicas as usize, "instance"));
                finish(reach, &client, output, &revised, wait, &done).await
            }
        }
    }
}

/// A cron spec: what the catalog says of it, and what the ledger does, as far as that answers.
async fn cron_info(client: &Client, service: &ServiceForm, output: &mut Output) -> Result<(), Failure> {
    let spec = cron::spec_of(service)?;
    let history = match client.cron_history(&service.service, &HistoryWanted::default()).await {
        Ok(history) => Some(history),
        Err(ClientError::Refused(words)) => {
            note(format!("{}; the rest is what the catalog says", words.message));
            None
        }
        Err(error) => return Err(error.into()),
    };
    history.iter().for_each(cron::note_source);
    let next = cron::slots(&spec, cron::now(), cron::NEXT)?;
    let info = cron_text::Info { next: &next, history: history.as_ref() };
    let answer = usage_text::Answer { service, usage: None, cron: Some(&info) };
    output.answer(&answer, || {
        let head = text::info(service);
        match &spec.mode {
            RunMode::Cron(cron) => head + &cron_text::info(cron, service.revision.suspended, &info),
            RunMode::Service => head,
        }
    })
}

/// Waits if that is wanted, and says what was done.
async fn finish(
    reach: &Reach,
    client: &Client,
    output: &mut Output,
    revised: &Revised,
    wait: WaitArgs,
    done: &str,
) -> Result<(), Failure> {
    let arrived = wait.arrived(reach, client, &revised.service, revised.revision).await?;
    let Revised { service, revision, changed } = revised;
    let value = json!({
        "service": service,
        "revision": revision,
        "changed": changed,
        "ready": arrived.as_ref().map(|arrived| arrived.ready),
        "desired": arrived.as_ref().map(|arrived| arrived.desired),
    });
    output.answer(&value, || match changed {
        true => format!("service `{service}` {done}: revision {revision}\n"),
        false => format!("service `{service}` was so already: revision {revision}\n"),
    })
}

impl Delete {
    async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let service = &self.service;
        // Looked at first, so that nobody is asked about what is not there.
        let there = match client.service(service).await {
            Ok(there) => Some(there),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let is_cron = there.as_ref().is_some_and(|there| there.revision.mode == "cron");
        let question = match is_cron {
            true => format!("Delete cron spec `{service}`? Its open runs run to their end."),
            false => format!("Delete service `{service}` and stop its instances?"),
        };
        if there.is_some() && !confirmed(&question, self.yes)? {
            note("nothing was deleted");
            return output.answer(&json!({ "service": service, "existed": true, "deleted": false }), String::new);
        }
        let open = if is_cron { open_runs(client, service).await } else { None };
        let existed = client.delete(service).await?.existed;
        if !existed {
            note(format!("no service `{service}`: nothing to delete"));
        }
        let value = json!({ "service": service, "existed": existed, "deleted": existed });
        output.answer(&value, || match (existed, is_cron) {
            (false, _) => String::new(),
            (true, false) => format!("service `{service}` deleted\n"),
            (true, true) => format!("cron spec `{service}` deleted{}\n", left_open(open)),
        })
    }
}

/// How many runs of a cron spec are open; none: the ledger does not say.
async fn open_runs(client: &Client, cron: &str) -> Option<usize> {
    let history = client.cron_history(cron, &HistoryWanted::default()).await.ok()?;
    // One node's own are not all.
    let history = Some(history).filter(|history| history.only_node.is_none())?;
    Some(history.rows.iter().filter(|row| row.run_id.is_some() && row.ended_at.is_none()).count())
}

/// What becomes of the open runs of a cron spec that is deleted.
fn left_open(open: Option<usize>) -> String {
    match open {
        None => "; runs that are open run to their end".to_owned(),
        Some(0) => String::new(),
        Some(1) => "; its open run runs to its end".to_owned(),
        Some(open) => format!("; its {open} open runs run to their end"),
    }
}
