//! `narun status`: the cluster on one screen. Wiring, and its pure text.

use clap::Args;

use crate::api::wire;
use crate::api::wire::cron::{Ledger, Voter};

use super::failure::Failure;
use super::node_text;
use super::output::Output;
use super::reach::Reach;
use super::table::table;
use super::words;

/// Show the cluster on one screen: members, who votes in the ledger, services, and what is wrong
///
/// Slots of cron specs are fired while a majority of the voters is in reach and one of them leads; where they are not, it says why. JSON keys:
/// node, key, cluster, boot, version, nodes, services, problems, cron_fires, network, ledger (voters, learners, leader, quorum,
/// in_reach, fires, why).
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun status")]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let status = reach.client()?.status().await?;
        output.answer(&status, || text(&status))
    }
}

fn text(status: &wire::Status) -> String {
    let alive = status.nodes.iter().filter(|node| node.status == "alive").count();
    let mut out = format!(
        "Cluster  {}, {}, {alive} alive\nNode     {}, narun {}, started {}\nLedger   {}\n\n",
        words::short(&status.cluster),
        words::count(status.nodes.len(), "member"),
        status.node.as_deref().unwrap_or("not named yet"),
        status.version,
        times(status.boot),
        ledger(&status.ledger),
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
        let name = |cron: &&wire::ServiceCount| match cron.stopped {
            true => format!("{} (paused)", cron.service),
            false => cron.service.clone(),
        };
        out += &format!("\nCron specs: {}\n", crons.iter().map(name).collect::<Vec<_>>().join(", "));
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

/// Who votes, whether enough of them are in reach, and whether slots are fired.
fn ledger(ledger: &Ledger) -> String {
    let fires = match &ledger.why {
        None => "cron specs are fired".to_owned(),
        Some(why) => format!("cron specs are not fired: {why}"),
    };
    if ledger.voters.is_empty() {
        return fires;
    }
    let voter = |voter: &Voter| match voter.status.as_str() {
        "alive" if ledger.leader.as_ref() == Some(&voter.node) => format!("{} (leads)", voter.node),
        "alive" => voter.node.clone(),
        status => format!("{} ({status})", voter.node),
    };
    let voters: Vec<_> = ledger.voters.iter().map(voter).collect();
    let quorum = format!("quorum {} of {}, {} in reach", ledger.quorum, ledger.voters.len(), ledger.in_reach);
    format!("voters {}; {quorum}; {fires}", voters.join(", "))
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

    fn majority(fires: bool) -> Ledger {
        let voter = |node: &str, status: &str| Voter { node: node.into(), status: status.into() };
        Ledger {
            voters: vec![
                voter("n1", "alive"),
                voter("n2", "down"),
                voter("n3", if fires { "alive" } else { "suspect" }),
            ],
            learners: Vec::new(),
            leader: fires.then(|| "n1".into()),
            quorum: 2,
            in_reach: 2,
            fires,
            why: (!fires).then(|| "no voter leads".into()),
        }
    }

    #[test]
    fn the_ledger_says_whether_slots_are_fired() {
        assert_eq!(
            ledger(&majority(false)),
            "voters n1, n2 (down), n3 (suspect); quorum 2 of 3, 2 in reach; cron specs are not fired: no voter leads"
        );
        let alone = Ledger { why: Some("nobody answers".into()), ..Ledger::default() };
        assert_eq!(ledger(&alone), "cron specs are not fired: nobody answers");
    }

    #[test]
    fn the_cluster_stands_on_one_screen() {
        let cron = wire::ServiceCount { mode: "cron".into(), desired: 0, running: 0, ..service("nightly", 0) };
        let paused = wire::ServiceCount { service: "weekly".into(), stopped: true, ..cron.clone() };
        let stopped = wire::ServiceCount { stopped: true, running: 0, ..service("old", 0) };
        let status = wire::Status {
            node: Some("n1".into()),
            key: "cd".repeat(32),
            cluster: "ab".repeat(32),
            boot: 1,
            version: "0.1.0".into(),
            nodes: vec![node("n1", "alive"), node("n2", "down")],
            services: vec![cron, stopped, service("web", 2), paused],
            problems: vec![wire::Problem {
                subject: "node n2".into(),
                message: "is down since 2026-11-21T10:00:00Z".into(),
                hint: "start it again there with `narun start`".into(),
            }],
            cron_fires: false,
            network: [("handshakes_failed".into(), 7)].into(),
            ledger: majority(true),
        };
        assert_eq!(
            text(&status),
            "\
Cluster  ababababab, 2 members, 1 alive
Node     n1, narun 0.1.0, started once
Ledger   voters n1 (leads), n2 (down), n3; quorum 2 of 3, 2 in reach; cron specs are fired

NODE  STATUS  SINCE                 INSTANCES  ADDRESS
n1    alive   2026-11-21T10:00:00Z  3          10.0.0.1:7470
n2    down    2026-11-21T10:00:00Z  3          10.0.0.1:7470

SERVICE  DESIRED  RUNNING  READY  STATE
old      3        0        0      stopped
web      3        3        2      short

Cron specs: nightly, weekly (paused)

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
