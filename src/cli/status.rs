//! `narun status`: the cluster on one screen. Wiring, and its pure text.

use clap::Args;

use crate::api::wire;

use super::failure::Failure;
use super::node_text;
use super::output::Output;
use super::reach::Reach;
use super::table::table;
use super::words;

/// Show the cluster on one screen: members, services, and what is wrong
///
/// JSON keys: node, key, cluster, boot, version, nodes, services, problems, cron_fires,
/// network.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun status")]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let status = reach.client()?.status().await?;
        output.answer(&status, || text(&status))
    }
}

/// What those are told who look at cron specs.
pub(super) const CRON_STORED: &str = "cron specs are stored, and not fired by this version of narun";

fn text(status: &wire::Status) -> String {
    let alive = status.nodes.iter().filter(|node| node.status == "alive").count();
    let mut out = format!(
        "Cluster  {}, {}, {alive} alive\nNode     {}, narun {}, started {}\n\n",
        words::short(&status.cluster),
        words::count(status.nodes.len(), "member"),
        status.node.as_deref().unwrap_or("not named yet"),
        status.version,
        times(status.boot),
    );
    let member = |node: &wire::Node| {
        [
            node.name.clone(),
            node_text::status(node),
            words::seconds(&node.since),
            node.instances.to_string(),
            node.addresses.first().cloned().unwrap_or_default(),
        ]
    };
    out += &table(["NODE", "STATUS", "SINCE", "INSTANCES", "ADDRESS"], status.nodes.iter().map(member));
    out.push('\n');

    let (crons, services): (Vec<_>, Vec<_>) = status.services.iter().partition(|service| service.mode == "cron");
    if services.is_empty() {
        out += "No services\n";
    } else {
        let row = |service: &&wire::ServiceCount| {
            let numbers = [service.desired, service.running, service.ready].map(|number| number.to_string());
            let [desired, running, ready] = numbers;
            [service.service.clone(), desired, running, ready, state(service).to_owned()]
        };
        out += &table(["SERVICE", "DESIRED", "RUNNING", "READY", "STATE"], services.iter().map(row));
    }
    if !crons.is_empty() {
        let names: Vec<_> = crons.iter().map(|cron| cron.service.as_str()).collect();
        let note = if status.cron_fires { String::new() } else { format!(" ({CRON_STORED})") };
        out += &format!("\nCron specs: {}{note}\n", names.join(", "));
    }
    out.push('\n');

    if status.problems.is_empty() {
        out += "Nothing is wrong\n";
    } else {
        out += "Problems\n";
        for problem in &status.problems {
            out += &format!("  {}: {}\n", problem.subject, problem.message);
            if !problem.hint.is_empty() {
                out += &format!("    {}\n", problem.hint);
            }
        }
    }
    if !status.network.is_empty() {
        out += "\nRefused, dropped or lost on this node's network since its start\n";
        for (name, count) in &status.network {
            out += &format!("  {name}: {count}\n");
        }
    }
    out
}

fn state(service: &wire::ServiceCount) -> &'static str {
    match service {
        _ if service.stopped => "stopped",
        _ if service.ready >= service.desired => "as wanted",
        _ => "short",
    }
}

fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

#[cfg(test)]
mod tests {
    use super::super::node_text::tests::node;
    use super::*;

    fn service(name: &str, ready: u32) -> wire::ServiceCount {
        wire::ServiceCount {
            service: name.into(),
            mode: "service".into(),
            stopped: false,
            desired: 3,
            running: 3,
            ready,
        }
    }

    #[test]
    fn the_cluster_stands_on_one_screen() {
        let cron = wire::ServiceCount { mode: "cron".into(), desired: 0, running: 0, ..service("nightly", 0) };
        let stopped = wire::ServiceCount { stopped: true, running: 0, ..service("old", 0) };
        let status = wire::Status {
            node: Some("n1".into()),
            key: "cd".repeat(32),
            cluster: "ab".repeat(32),
            boot: 1,
            version: "0.1.0".into(),
            nodes: vec![node("n1", "alive"), node("n2", "down")],
            services: vec![cron, stopped, service("web", 2)],
            problems: vec![wire::Problem {
                subject: "node n2".into(),
                message: "is down since 2026-11-21T10:00:00Z".into(),
                hint: "start it again there with `narun start`".into(),
            }],
            cron_fires: false,
            network: [("handshakes_failed".into(), 7)].into(),
        };
        assert_eq!(
            text(&status),
            "\
Cluster  ababababab, 2 members, 1 alive
Node     n1, narun 0.1.0, started once

NODE  STATUS  SINCE                 INSTANCES  ADDRESS
n1    alive   2026-11-21T10:00:00Z  3          10.0.0.1:7470
n2    down    2026-11-21T10:00:00Z  3          10.0.0.1:7470

SERVICE  DESIRED  RUNNING  READY  STATE
old      3        0        0      stopped
web      3        3        2      short

Cron specs: nightly (cron specs are stored, and not fired by this version of narun)

Problems
  node n2: is down since 2026-11-21T10:00:00Z
    start it again there with `narun start`

Refused, dropped or lost on this node's network since its start
  handshakes_failed: 7
"
        );
        let quiet = wire::Status { services: vec![], problems: vec![], network: [].into(), ..status };
        assert!(text(&quiet).ends_with("No services\n\nNothing is wrong\n"));
    }
}
