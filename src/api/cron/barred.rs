//! Which members cannot fire a cron spec now, and why. Pure.

use std::collections::BTreeMap;

use crate::api::wire::cron::Barred;
use crate::blobs::image::Platform;
use crate::node::engine::eligibility::held_against;
use crate::node::engine::view::{NodeStatus, NodeView, ServiceView, View};
use crate::spec::{Place, Placement};

/// Those that cannot, by what the engine asks of a node that is to hold a lease (`engine::leases`).
pub(super) fn barred(view: &View, service: &ServiceView) -> Vec<Barred> {
    let told = |node: &NodeView| Some(Barred { node: node.name.to_string(), reason: reason(node, service)? });
    view.nodes.iter().filter_map(|node| told(node)).collect()
}

fn reason(node: &NodeView, service: &ServiceView) -> Option<String> {
    let current = &service.current;
    if !node.role.carries_work() {
        return Some("it runs nothing: it is there to operate the cluster from".to_owned());
    }
    if let Placement::Named(places) = &current.spec.placement {
        let is_it = |place: &Place| matches!(place, Place::Node(name) if *name == node.name);
        if !places.iter().any(|place| is_it(&place.node)) {
            return Some("the specification names other nodes".to_owned());
        }
    }
    if node.status == NodeStatus::Down {
        return Some("it is down".to_owned());
    }
    if node.drain.is_some() {
        return Some("it is drained".to_owned());
    }
    let untold = || Some("it has not told what it is and has yet".to_owned());
    let (Some(os), Some(arch)) = (&node.os, &node.arch) else { return untold() };
    let platform = Platform::new(os, arch);
    if !current.images.iter().any(|image| image.platform.runs_on(&platform)) {
        return Some(format!("there is no binary for {platform}"));
    }
    let labels: BTreeMap<_, _> = node.labels.iter().cloned().collect();
    let held = held_against(&current.spec.constraints, &labels, &platform, node.capacity.as_ref());
    match held.unmet.as_slice() {
        [] if held.all_known => None,
        [] => untold(),
        unmet => Some(format!("it does not meet `{}`", unmet.join("`, `"))),
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
