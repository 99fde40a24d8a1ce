//! `narun node remove` and `narun leave`: ending a membership. Wiring.

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use super::confirm::confirmed;
use super::drain::{bound_to, emptied};
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
/// What it runs is moved away first, as by `node drain`; what is bound to it by name stops. Then the other members are told, the
/// node ends, and its data directory says that it left: `narun join` with a new ticket makes this host a member again. When
/// --timeout (10m) is over before everything has moved, it stays a member, drained. JSON keys: left.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun leave\n  narun leave -y --now --data-dir /srv/narun")]
pub(crate) struct Leave {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Do not move anything away first: what may run elsewhere starts there once this node has gone
    #[arg(long)]
    now: bool,
}

impl Leave {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        let status = client.status().await?;
        let name = status.node.ok_or_else(|| Failure::failed("this node is no member of a cluster"))?;
        let bound = bound_to(&client.services().await?, &name);
        if !confirmed(&question(&name, &bound), self.yes)? {
            return Err(Failure::failed(format!("`{name}` stays a member")));
        }
        // Alone there is nobody to hand over to: then the node says so itself.
        if !self.now && status.nodes.len() > 1 {
            client.drain_node(&name).await?;
            emptied(reach, &client, &name).await?;
        }
        client.leave().await?;
        gone(&client, Instant::now() + END_WITHIN).await?;
        output.answer(&json!({ "left": true }), || format!("`{name}` has left the cluster, and has stopped\n"))
    }
}

fn question(name: &str, bound: &[String]) -> String {
    let stopped = match bound {
        [] => String::new(),
        some => format!(" These instances are bound to it and will be stopped: {}.", some.join(", ")),
    };
    format!("This takes `{name}` out of its cluster for good.{stopped}")
}
