//! `narun service`: what runs where, and changing it. Wiring; its texts are in `service_text`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::api::client::Client;
use crate::api::wire::{Revised, Scale as ScaleRequest};

use super::confirm::confirmed;
use super::failure::Failure;
use super::output::{Output, note};
use super::reach::Reach;
use super::service_text as text;
use super::status::CRON_STORED;
use super::wait::WaitArgs;
use super::words;

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

/// Show one service: specification, revision, nodes, instances with their errors
///
/// JSON keys: service, revision, placements, instances.
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
/// A service that is not there is no failure.
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
                    note(CRON_STORED);
                }
                output.answer(&service, || text::info(&service))
            }
            Self::History(History { service }) => {
                let revisions = client.history(&service).await?;
                output.answer(&revisions, || text::history(&revisions))
            }
            Self::Delete(delete) => delete.run(&client, output).await,
            Self::Start(Start { service, wait }) => {
                let revised = client.start_service(&service).await?;
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
            Ok(_) => true,
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error.into()),
        };
        if there && !confirmed(&format!("Delete service `{service}` and stop its instances?"), self.yes)? {
            note("nothing was deleted");
            return output.answer(&json!({ "service": service, "existed": true, "deleted": false }), String::new);
        }
        let existed = client.delete(service).await?.existed;
        if !existed {
            note(format!("no service `{service}`: nothing to delete"));
        }
        let value = json!({ "service": service, "existed": existed, "deleted": existed });
        output.answer(&value, || if existed { format!("service `{service}` deleted\n") } else { String::new() })
    }
}
