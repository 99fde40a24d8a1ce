//! `narun node drain`: asks for it, and waits until the node is empty. Wiring, and the pure text of what is left.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::client::Client;
use crate::api::wire::{self, WaitForDrain};
use crate::spec::{Placement, ServiceSpec};

use super::confirm::confirmed;
use super::failure::Failure;
use super::node_text::left_text;
use super::output::{Output, note};
use super::reach::Reach;
use super::words;

/// How long to wait when nothing is said: binaries that other nodes have to fetch first take minutes on a slow link.
const DRAINED_WITHIN: Duration = Duration::from_secs(600);

/// How long one request waits; then what is left is told, and the next one waits.
const ASK_FOR: Duration = Duration::from_secs(5);

/// Move away what a member runs, and give it nothing new
///
/// Instances that narun places start on other nodes first, and stop here when they are ready there. Those that are bound to the
/// node by name stop once the others have gone, and come back with `node uncordon`; -y stops them without asking. Waits until
/// nothing is left. When --timeout (10m) is over before that, or no other node can take an instance, says what is left and why,
/// and ends with exit code 1; the node stays drained. It remains a member and answers commands. JSON keys: node, changed, state,
/// left, bound.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Example:\n  narun node drain n1\n  narun node drain n1 -y --timeout 2m\n  narun node drain n1 --no-wait"
)]
pub(crate) struct Drain {
    /// The node's name
    node: String,
    /// Do not wait until the node is empty
    #[arg(long)]
    no_wait: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What came of it, as JSON.
#[derive(Serialize, Debug)]
struct Answer<'a> {
    node: &'a str,
    changed: bool,
    state: &'a str,
    left: &'a [wire::Left],
    /// Instances that were stopped, since they are bound to the node.
    bound: &'a [String],
}

impl Drain {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        // Looked at first, so that nobody is asked about what is not there.
        let name = client.node(&self.node).await?.name;
        let bound = bound_to(&client.services().await?, &name);
        if !bound.is_empty() && !confirmed(&question(&name, &bound), self.yes)? {
            note("nothing was drained");
            return Ok(());
        }
        let changed = client.drain_node(&name).await?.changed;
        let left =
            if self.no_wait { client.node(&name).await?.drain } else { Some(emptied(reach, &client, &name).await?) };
        let left = left.ok_or_else(|| uncordoned(&name))?;
        let answer = Answer { node: &name, changed, state: &left.state, left: &left.left, bound: &bound };
        output.answer(&answer, || format!("node `{name}` is {}\n", left.state))
    }
}

/// The instances on a node that no other node can run in its place, as far as they have a process.
pub(super) fn bound_to(services: &[wire::Service], node: &str) -> Vec<String> {
    let is_bound = |service: &&wire::Service| {
        // What this program cannot read it had better ask about.
        let spec = ServiceSpec::parse(&service.revision.spec);
        !spec.is_ok_and(|spec| matches!(spec.placement, Placement::Cluster { .. }))
    };
    let instances = services.iter().filter(is_bound).flat_map(|service| &service.instances);
    let here = instances.filter(|one| one.node == node && matches!(one.state.as_str(), "starting" | "running"));
    here.map(|one| one.instance.clone()).collect()
}

fn question(node: &str, bound: &[String]) -> String {
    format!("Drain node `{node}`? These instances are bound to it and will be stopped: {}.", bound.join(", "))
}

/// Waits until nothing is left on the node. Fails with what is left.
pub(super) async fn emptied(reach: &Reach, client: &Client, node: &str) -> Result<wire::Drain, Failure> {
    let within = reach.timeout().unwrap_or(DRAINED_WITHIN);
    let deadline = Instant::now() + within;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.min(ASK_FOR).as_millis()).unwrap_or(u64::MAX);
        let drain = client.wait_for_drain(node, &WaitForDrain { timeout_ms }).await?.drain;
        let drain = drain.ok_or_else(|| uncordoned(node))?;
        if drain.left.is_empty() {
            return Ok(drain);
        }
        if left <= ASK_FOR {
            return Err(Failure::failed(late(node, within, &drain.left)).hint(format!(
                "it stays drained and narun goes on; `narun node info {node}` shows what is left, `narun node uncordon {node}` undoes it"
            )));
        }
        if said != drain.left {
            note(format!("draining `{node}`:{}", listed(&drain.left)));
            said = drain.left;
        }
    }
}

fn uncordoned(node: &str) -> Failure {
    Failure::failed(format!("node `{node}` was brought back while it was drained"))
}

fn late(node: &str, within: Duration, left: &[wire::Left]) -> String {
    let instances = words::count(left.len(), "instance");
    format!("node `{node}` is not drained after {}, {instances} left:{}", words::span(within), listed(left))
}

fn listed(left: &[wire::Left]) -> String {
    left.iter().map(|left| format!("\n  {}", left_text(left))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_with_its_reason() {
        let left = [wire::Left { instance: "web-0".into(), reason: "there is no other node".into() }];
        assert_eq!(
            late("n1", Duration::from_secs(600), &left),
            "node `n1` is not drained after 10m, 1 instance left:\n  web-0: there is no other node"
        );
    }
}
