//! Which members cannot fire a cron spec now, and why. Pure.

use std::collections::BTreeMap;

use crate::api::wire::cron::Barred;
use crate::blobs::image::Platform;
use crate::node::engine::eligibility::{Bar, Obstacle, Told, Work, Worker, bar};
use crate::node::engine::view::{NodeStatus, NodeView, ServiceView, View};

/// Those that cannot: the engine's rules for who may hold a lease, and beside them who is down.
pub(super) fn barred(view: &View, service: &ServiceView) -> Vec<Barred> {
    let told = |node: &NodeView| Some(Barred { node: node.name.to_string(), reason: reason(node, service)? });
    view.nodes.iter().filter_map(|node| told(node)).collect()
}

fn reason(node: &NodeView, service: &ServiceView) -> Option<String> {
    let platform = node.os.as_ref().zip(node.arch.as_ref()).map(|(os, arch)| Platform::new(os, arch));
    let labels: BTreeMap<_, _> = node.labels.iter().cloned().collect();
    let told = platform.as_ref().map(|platform| Told { platform, labels: &labels, capacity: node.capacity.as_ref() });
    let worker = Worker { name: &node.name, role: node.role, is_drained: node.drain.is_some(), told };
    let work = Work { spec: &service.current.spec, images: &service.current.images };
    let text = match bar(work, worker) {
        Some(Bar::Role) => Obstacle::Role.to_string(),
        Some(Bar::NotNamed) => "the specification names other nodes".to_owned(),
        // It is given no lease that it could not renew, and what it told last may not be so any more.
        _ if node.status == NodeStatus::Down => "it is down".to_owned(),
        Some(Bar::Drained) => "it is drained".to_owned(),
        Some(Bar::Untold) => "it has not told what it is and has yet".to_owned(),
        Some(Bar::Unfit(obstacles)) => hindered(&obstacles),
        None => return None,
    };
    Some(text)
}

/// Constraints are told where there is a binary at all.
fn hindered(obstacles: &[Obstacle]) -> String {
    let constraint = |obstacle: &Obstacle| match obstacle {
        Obstacle::Unmet(constraint) => Some(format!("`{constraint}`")),
        Obstacle::Role | Obstacle::NoBinary(_) => None,
    };
    match obstacles.iter().find(|obstacle| !matches!(obstacle, Obstacle::Unmet(_))) {
        Some(first) => first.to_string(),
        None => format!("it does not meet {}", obstacles.iter().filter_map(constraint).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{drained, node, revision};
    use crate::crdt::admission::Role;
    use crate::ids::ServiceName;

    fn told(spec: &str, node: NodeView) -> Option<String> {
        let current = revision(1, &format!("{{name: nightly, tag: v1, cronSchedule: '@daily', {spec}}}"));
        let name = ServiceName::new("nightly").unwrap();
        reason(&node, &ServiceView { name, current, history: Vec::new(), wanted: Vec::new() })
    }

    #[test]
    fn each_bar_is_named() {
        let n1 = || node("n1", NodeStatus::Alive);
        for (spec, node, found) in [
            ("", n1(), None),
            ("", NodeView { os: None, ..n1() }, Some("has not told")),
            ("constraints: {coresMin: 1}", NodeView { capacity: None, ..n1() }, Some("has not told")),
            ("constraints: {coresMin: 1}", n1(), None),
            ("", NodeView { role: Role::OPERATOR, ..n1() }, Some("to operate the cluster from")),
            ("", node("n1", NodeStatus::Down), Some("it is down")),
            ("", drained("n1"), Some("it is drained")),
            ("", NodeView { arch: Some("arm64".into()), ..n1() }, Some("no binary for linux/arm64")),
            ("constraints: {labels: {zone: b}}", n1(), Some("it does not meet `labels.zone: b`")),
            ("constraints: {labels: {zone: a}}", n1(), None),
            ("nodes: [{name: n2, replicas: 1}]", n1(), Some("names other nodes")),
            ("nodes: [{name: n1, replicas: 1}]", n1(), None),
        ] {
            match (told(spec, node), found) {
                (None, None) => {}
                (Some(told), Some(words)) if told.contains(words) => {}
                other => panic!("{spec}: {other:?}"),
            }
        }
    }
}
