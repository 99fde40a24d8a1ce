//! `narun stop`: ends this host's instances, keeper and node. Wiring.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use crate::api::client::{Client, ClientError};

use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;
use super::words;

/// How long the end may take when nothing is said: the stop grace of instances where their specifications do not say (10 s), and as much again for a slow disk.
pub(super) const END_WITHIN: Duration = Duration::from_secs(30);

/// How often to look whether the node is gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// End this host's instances, keeper and node
///
/// Instances get SIGTERM, or the `stopSignal` of their specification, and SIGKILL after their grace (10 s, or `stopGraceSeconds`).
/// Instances that may run elsewhere are placed elsewhere. Ctrl-C in the terminal of `narun start` does the same; SIGTERM to the node
/// leaves its instances running. Where a grace is longer than 30 s, give --timeout as well.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun stop\n  narun stop --data-dir /srv/narun --timeout 1m")]
pub(crate) struct Stop {}

impl Stop {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        let within = reach.timeout().unwrap_or(END_WITHIN);
        client.stop().await?;
        gone(&client, Instant::now() + within).await?;
        output.answer(&json!({ "stopped": true }), || "the node has stopped\n".to_owned())
    }
}

/// Waits until no node answers any more.
pub(super) async fn gone(client: &Client, deadline: Instant) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        match client.version().await {
            Err(ClientError::NoNode { .. }) => return Ok(()),
            _ if Instant::now() >= deadline => {
                let waited = words::span(begun.elapsed());
                return Err(Failure::failed(format!("the node was told to stop and still answers after {waited}"))
                    .hint("its log says what it waits for; --timeout waits longer"));
            }
            // A node on its way out may break connections off.
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
