//! Members as tables and JSON. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::api::wire;

use super::table::table;
use super::words;

/// One row of `node list`, and the answer of `node info`, as JSON.
#[derive(Serialize)]
pub(super) struct Row<'a> {
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
    capacity: Option<&'a wire::Capacity>,
    drain: Option<&'a wire::Drain>,
}

impl<'a> Row<'a> {
    pub(super) fn new(node: &'a wire::Node, now: DateTime<Utc>) -> Self {
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
            capacity: node.capacity.as_ref(),
            drain: node.drain.as_ref(),
        }
    }
}

fn platform(node: &wire::Node) -> Option<String> {
    Some(format!("{}/{}", node.os.as_ref()?, node.arch.as_ref()?))
}

/// Labels as they are given.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What is thought of a member, and whether it is drained: `alive, draining`.
pub(super) fn status(node: &wire::Node) -> String {
    match &node.drain {
        Some(drain) => format!("{}, {}", node.status, drain.state),
        None => node.status.clone(),
    }
}

pub(super) fn list_text(nodes: &[wire::Node], now: DateTime<Utc>) -> String {
    let row = |node: &wire::Node| {
        [
            node.name.clone(),
            status(node),
            platform(node).unwrap_or_default(),
            node.version.clone().unwrap_or_default(),
            node.instances.to_string(),
            labels(&node.labels),
            words::age(words::since(&node.joined_at, now)),
        ]
    };
    table(["NAME", "STATUS", "PLATFORM", "VERSION", "INSTANCES", "LABELS", "AGE"], nodes.iter().map(row))
}

/// All that is known of one member.
pub(super) fn info_text(node: &wire::Node, now: DateTime<Utc>) -> String {
    let ago = |moment: &str| format!("{} ({} ago)", words::seconds(moment), words::age(words::since(moment, now)));
    let mut lines = vec![
        ("Name", format!("{}{}", node.name, if node.is_me { " (the node that answered)" } else { "" })),
        ("Status", format!("{} since {}", node.status, words::seconds(&node.since))),
    ];
    if let Some(drain) = &node.drain {
        let since = words::seconds(&drain.since);
        lines.push(("Drain", format!("{}, asked for at {} on {since}", drain.state, drain.asked_at)));
        lines.extend(drain.left.iter().map(|left| ("", left_text(left))));
    }
    lines.extend([
        ("Role", node.role.clone()),
        ("Key", node.key.clone()),
        ("Platform", platform(node).unwrap_or_else(|| "not yet known".into())),
        ("Version", node.version.clone().unwrap_or_else(|| "not yet known".into())),
        ("Addresses", node.addresses.join(", ")),
        ("Labels", labels(&node.labels)),
        ("Instances", node.instances.to_string()),
        ("Joined", ago(&node.joined_at)),
    ]);
    lines.extend(node.started_at.as_ref().map(|at| ("Started", ago(at))));
    lines.extend(node.capacity.iter().flat_map(capacity));
    lines.iter().map(|(name, value)| format!("{name:<10} {}\n", if value.is_empty() { "-" } else { value })).collect()
}

/// An instance that is left on a drained node, and why.
pub(super) fn left_text(left: &wire::Left) -> String {
    format!("{}: {}", left.instance, left.reason)
}

fn capacity(capacity: &wire::Capacity) -> [(&'static str, String); 6] {
    let landlock = match capacity.landlock_abi {
        0 => "none".to_owned(),
        version => format!("version {version}"),
    };
    let cgroups = match &capacity.cgroup_controllers[..] {
        [] => format!("{}, without a controller that the node can use", capacity.cgroup),
        usable => format!("{}; the node can use {}", capacity.cgroup, usable.join(", ")),
    };
    [
        ("Cores", capacity.cores.to_string()),
        ("Memory", words::size(capacity.memory_bytes)),
        ("Kernel", capacity.kernel.clone()),
        ("Landlock", landlock),
        ("Cgroups", cgroups),
        ("Runs as", if capacity.is_root { "root" } else { "an ordinary user" }.to_owned()),
    ]
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
            capacity: Some(wire::Capacity {
                cores: 4,
                memory_bytes: 8 << 30,
                kernel: "6.12.0".into(),
                landlock_abi: 6,
                cgroup: "hybrid".into(),
                cgroup_controllers: vec!["cpu".into(), "memory".into()],
                is_root: true,
            }),
            drain: None,
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
    fn a_drain_is_shown_beside_what_is_thought_of_the_member() {
        let left = wire::Left { instance: "web-0".into(), reason: "no other node can take it".into() };
        let drain = |state: &str, left| wire::Drain {
            state: state.into(),
            since: "2026-11-21T10:20:00.000Z".into(),
            asked_at: "n2".into(),
            left,
        };
        let draining = wire::Node { drain: Some(drain("draining", vec![left])), ..node("n1", "alive") };
        let drained = wire::Node { drain: Some(drain("drained", vec![])), ..node("n3", "down") };
        let list = list_text(&[draining.clone(), drained], now());
        assert!(
            list.contains("n1    alive, draining  linux/amd64") && list.contains("n3    down, drained    linux"),
            "{list}"
        );
        let info = info_text(&draining, now());
        let told = "Drain      draining, asked for at n2 on 2026-11-21T10:20:00Z\n           web-0: no other node can take it\n";
        assert!(info.contains(told), "{info}");
    }

    #[test]
    fn one_member_is_shown_in_full() {
        let text = info_text(&node("n1", "alive"), now());
        assert!(text.contains("Name       n1 (the node that answered)\n"), "{text}");
        assert!(text.contains("Started    2026-11-21T10:29:00Z (1m ago)\n"), "{text}");
        assert!(text.contains("Memory     8.0 GiB\n") && text.contains("Landlock   version 6\n"), "{text}");
        assert!(text.contains("Cgroups    hybrid; the node can use cpu, memory\n"), "{text}");
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
                "role",
                "capacity",
                "drain"
            ]
        );
        assert_eq!(row["age"], 86_400);
    }
}
