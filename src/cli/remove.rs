//! `narun node remove` and `narun leave`: ending a membership. Wiring.

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use super::confirm::confirmed;
use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;
use super::stop::{END_WITHIN, gone};

/// Take a member's membership away, for good
///
/// Every member that hears of it cuts the node off; a node that is alive hears of it, stops its instances and ends. Its key
/// never comes back: the host joins again with a new ticket. A part of the cluster that is cut off hears of it when it heals.
/// JSON keys: node, removed.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun node remove n3\n  narun node remove n3 -y")]
pub(crate) struct Remove {
    /// The node's name
    node: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Remove {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let Self { node, yes } = self;
        let client = reach.client()?;
        let question = format!("This ends the membership of `{node}` for good, and all instances there.");
        if !confirmed(&question, yes)? {
            return Err(Failure::failed(format!("`{node}` stays a member")));
        }
        let removed = client.remove_node(&node).await?;
        output.answer(&removed, || match removed.removed {
            true => format!("node `{node}` is no member any more; who hears of it cuts it off\n"),
            false => format!("node `{node}` was no member any more\n"),
        })
    }
}

/// Take this host's node out of the cluster, for good
///
/// Its instances are stopped; those that may run elsewhere are placed elsewhere. The other members are told, the node ends, and
/// its data directory says that it left: `narun join` with a new ticket makes this host a member again. JSON keys: left.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun leave\n  narun leave -y --data-dir /srv/narun")]
pub(crate) struct Leave {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Leave {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        let status = client.status().await?;
        let name = status.node.as_deref().unwrap_or("this node");
        if !confirmed(&format!("This takes `{name}` out of its cluster for good."), self.yes)? {
            return Err(Failure::failed(format!("`{name}` stays a member")));
        }
        client.leave().await?;
        gone(&client, Instant::now() + reach.timeout().unwrap_or(END_WITHIN)).await?;
        output.answer(&json!({ "left": true }), || format!("`{name}` has left the cluster, and has stopped\n"))
    }
}
