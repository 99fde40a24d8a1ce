//! `narun node`: the members. Wiring, and the pure text of its tables.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::wire;

use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;
use super::remove::Remove;
use super::table::table;
use super::words;

#[derive(Subcommand, Debug)]
pub(crate) enum Node {
    List(List),
    Info(Info),
    Remove(Remove),
}

/// List all members and what the answering node thinks of them
///
/// Columns: NAME STATUS PLATFORM VERSION INSTANCES LABELS AGE. Statuses: alive, suspect (did not answer a probe), down,
/// unknown (not heard of since the answering node started). JSON keys: those, with age in seconds, and key, is_me, addresses,
/// since, joined_at, started_at, role.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun node list\n  narun node list -o json")]
pub(crate) struct List {}

/// Show one member
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun node info n1")]
pub(crate) struct Info {
    /// The node's name
    node: String,
}

/// One row of `node list`, as JSON.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    status: &'a str,
    platform: Option<String>,
    version: Option<&'a str>,
    instances: u32,
    labels: &'a BTreeMap<String, String>,
    age: u64,
    key: &'a str,
    is_me: bool,
    addresses: &'a [String],
    since: &'a str,
    joined_at: &'a str,
    started_at: Option<&'a str>,
    role: &'a str,
}

impl<'a> Row<'a> {
    fn new(node: &'a wire::Node, now: DateTime<Utc>) -> Self {
        Self {
            name: &node.name,
            status: &node.status,
            platform: platform(node),
            version: node.version.as_deref(),
            instances: node.instances,
            labels: &node.labels,
            age: words::since(&node.joined_at, now).as_secs(),
            key: &node.key,
            is_me: node.is_me,
            addresses: &node.addresses,
            since: &node.since,
            joined_at: &node.joined_at,
            started_at: node.started_at.as_deref(),
            role: &node.role,
        }
    }
}

impl Node {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::List(List {}) => {
                let nodes = reach.client()?.nodes().await?;
                let now = Utc::now();
                let rows: Vec<_> = nodes.iter().map(|node| Row::new(node, now)).collect();
                output.answer(&rows, || list_text(&nodes, now))
            }
            Self::Info(Info { node }) => {
                let node = reach.client()?.node(&node).await?;
                let now = Utc::now();
                output.answer(&Row::new(&node, now), || info_text(&node, now))
            }
            Self::Remove(remove) => remove.run(reach, output).await,
        }
    }
}

fn platform(node: &wire::Node) -> Option<String> {
    Some(format!("{}/{}", node.os.as_ref()?, node.arch.as_ref()?))
}

fn labels(node: &wire::Node) -> String {
    node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub(super) fn list_text(nodes: &[wire::Node], now: DateTime<Utc>) -> String {
    let row = |node: &wire::Node| {
        [
            node.name.clone(),
            node.status.clone(),
            platform(node).unwrap_or_default(),
            node.version.clone().unwrap_or_default(),
            node.instances.to_string(),
            labels(node),
            words::age(words::since(&node.joined_at, now)),
        ]
    };
    table(["NAME", "STATUS", "PLATFORM", "VERSION", "INSTANCES", "LABELS", "AGE"], nodes.iter().map(row))
}

fn info_text(node: &wire::Node, now: DateTime<Utc>) -> String {
    let ago = |moment: &str| format!("{} ({} ago)", words::seconds(moment), words::age(words::since(moment, now)));
    let mut lines = vec![
        ("Name", format!("{}{}", node.name, if node.is_me { " (the node that answered)" } else { "" })),
        ("Status", format!("{} since {}", node.status, words::seconds(&node.since))),
        ("Role", node.role.clone()),
        ("Key", node.key.clone()),
        ("Platform", platform(node).unwrap_or_else(|| "not yet known".into())),
        ("Version", node.version.clone().unwrap_or_else(|| "not yet known".into())),
        ("Addresses", node.addresses.join(", ")),
        ("Labels", labels(node)),
        ("Instances", node.instances.to_string()),
        ("Joined", ago(&node.joined_at)),
    ];
    lines.extend(node.started_at.as_ref().map(|at| ("Started", ago(at))));
    lines.iter().map(|(name, value)| format!("{name:<10} {}\n", if value.is_empty() { "-" } else { value })).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn node(name: &str, status: &str) -> wire::Node {
        wire::Node {
            name: name.into(),
            key: "ab".repeat(32),
            status: status.into(),
            since: "2026-11-21T10:00:00.000Z".into(),
            is_me: name == "n1",
            os: Some("linux".into()),
            arch: Some("amd64".into()),
            version: Some("0.1.0".into()),
            addresses: vec!["10.0.0.1:7470".into()],
            labels: BTreeMap::from([("zone".into(), "a".into()), ("disk".into(), "ssd".into())]),
            joined_at: "2026-11-20T10:30:00.000Z".into(),
            started_at: Some("2026-11-21T10:29:00.000Z".into()),
            instances: 3,
            role: "member".into(),
        }
    }

    pub(crate) fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-21T10:30:00Z").unwrap().to_utc()
    }

    #[test]
    fn members_stand_in_a_table() {
        let silent = wire::Node { os: None, version: None, labels: BTreeMap::new(), ..node("n2", "unknown") };
        assert_eq!(
            list_text(&[node("n1", "alive"), silent], now()),
            "\
NAME  STATUS   PLATFORM     VERSION  INSTANCES  LABELS           AGE
n1    alive    linux/amd64  0.1.0    3          disk=ssd,zone=a  1d0h
n2    unknown  -            -        3          -                1d0h
"
        );
    }

    #[test]
    fn one_member_is_shown_in_full() {
        let text = info_text(&node("n1", "alive"), now());
        assert!(text.contains("Name       n1 (the node that answered)\n"), "{text}");
        assert!(text.contains("Started    2026-11-21T10:29:00Z (1m ago)\n"), "{text}");
    }

    #[test]
    fn the_keys_are_a_contract() {
        let node = node("n1", "alive");
        let row = serde_json::to_value(Row::new(&node, now())).unwrap();
        let keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "name",
                "status",
                "platform",
                "version",
                "instances",
                "labels",
                "age",
                "key",
                "is_me",
                "addresses",
                "since",
                "joined_at",
                "started_at",
                "role"
            ]
        );
        assert_eq!(row["age"], 86_400);
    }
}
