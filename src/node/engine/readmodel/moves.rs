//! Why an instance is where it is: what is left on a drained node, and why no node can take what has none. Pure.

use std::collections::BTreeMap;

use super::super::Engine;
use super::super::eligibility::{Fit, Obstacle};
use super::super::placement::Drain;
use super::super::services::Service;
use super::super::view::{DrainView, InstanceState, InstanceView, LeftView, NodeStatus};
use crate::ids::NodeKey;

const BEING_STOPPED: &str = "it is being stopped";

/// Why a node does not take an instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Why {
    Down,
    NotHeardOf,
    Drained,
    TellsTooLittle,
    Obstacle(Obstacle),
}

impl Why {
    /// What is so of `nodes` nodes.
    fn of(&self, nodes: usize) -> String {
        let (is, does, has) = if nodes == 1 { ("is", "does", "has") } else { ("are", "do", "have") };
        match self {
            Self::Down => format!("{nodes} {is} down"),
            Self::NotHeardOf => format!("{nodes} {is} not heard of yet"),
            Self::Drained => format!("{nodes} {is} drained"),
            Self::TellsTooLittle => format!("{nodes} {has} not told enough yet"),
            Self::Obstacle(Obstacle::Role) => format!("{nodes} {is} there to operate the cluster from"),
            Self::Obstacle(Obstacle::NoBinary(platform)) => {
                format!("{nodes} {is} {platform}, for which there is no binary")
            }
            Self::Obstacle(Obstacle::Unmet(constraint)) => format!("{nodes} {does} not meet `{constraint}`"),
        }
    }
}

impl Engine {
    /// How far a node is drained, and what is left there.
    pub(super) fn drain_view(&self, key: &NodeKey, instances: &[InstanceView]) -> Option<DrainView> {
        let drained = self.settings.drained(key)?;
        // Of what has finished nothing is there any more.
        let nothing = [InstanceState::Pending, InstanceState::Stopped, InstanceState::Finished];
        let reported = |one: &&InstanceView| !nothing.contains(&one.state);
        let here = instances.iter().filter(|one| one.node_key == *key).filter(reported);
        let left = here.filter_map(|one| {
            let why = self.why_left(one, instances)?;
            Some(LeftView { service: one.service.clone(), index: one.index, why })
        });
        Some(DrainView { since: drained.since, asked_at: drained.asked_at.clone(), left: left.collect() })
    }

    /// Why an instance is still on its node, which is drained. None: it does not count, for its node is down and nothing is missed
    /// for its sake.
    fn why_left(&self, one: &InstanceView, instances: &[InstanceView]) -> Option<String> {
        let is_down = one.node_status == NodeStatus::Down;
        let Some(service) = self.services.get(&one.service).filter(|service| service.wants_instances()) else {
            return (!is_down).then(|| BEING_STOPPED.to_owned());
        };
        if !service.is_movable() {
            let why = match one.state {
                InstanceState::Stopping => BEING_STOPPED,
                _ => "it is bound to this node, and stopped once those have gone that can",
            };
            return (!is_down).then(|| why.to_owned());
        }
        let seats = self.seats.get(&one.service);
        let seat = seats.into_iter().flatten().find(|seat| seat.index == one.index);
        match seat.and_then(|seat| seat.node) {
            None => (!is_down).then(|| BEING_STOPPED.to_owned()),
            Some(node) if node == one.node_key => {
                Some(format!("no other node can take it: {}", self.obstacles(service, Some(&one.node_key))))
            }
            Some(node) => {
                let there = instances
                    .iter()
                    .find(|other| (&other.service, other.index, other.node_key) == (&one.service, one.index, node));
                match there {
                    Some(there) if there.ready && there.current => (!is_down).then(|| BEING_STOPPED.to_owned()),
                    _ => Some(self.replacement(&node, there)),
                }
            }
        }
    }

    fn replacement(&self, node: &NodeKey, there: Option<&InstanceView>) -> String {
        let name = self.name_of(node).map_or_else(|| node.short(), ToString::to_string);
        let state = there.map_or(InstanceState::Pending, |there| there.state);
        let mut text = format!("its replacement on `{name}` is {}", state.word());
        if state == InstanceState::Running {
            text.push_str(", but not yet for long enough");
        }
        if let Some(error) = there.and_then(|there| there.error.as_ref()) {
            text.push_str(&format!(": {error}"));
        }
        text
    }

    /// Why no node, `but` aside, takes an instance of a service: how many nodes have what against it.
    pub(super) fn obstacles(&self, service: &Service, but: Option<&NodeKey>) -> String {
        let nodes: Vec<&NodeKey> = self.cluster.members().keys().filter(|node| Some(*node) != but).collect();
        if nodes.is_empty() {
            return "there is no other node".to_owned();
        }
        let mut reasons: BTreeMap<Why, usize> = BTreeMap::new();
        for node in &nodes {
            for why in self.why_not(service, node) {
                *reasons.entry(why).or_default() += 1;
            }
        }
        let told: Vec<String> = reasons.iter().map(|(why, count)| why.of(*count)).collect();
        if told.is_empty() {
            return "not all nodes have been heard of yet".to_owned();
        }
        let other = if but.is_some() { "other " } else { "" };
        let plural = if nodes.len() == 1 { "" } else { "s" };
        format!("of {} {other}node{plural}, {}", nodes.len(), told.join(", "))
    }

    fn why_not(&self, service: &Service, node: &NodeKey) -> Vec<Why> {
        match self.cluster.status(node).0 {
            NodeStatus::Down => return vec![Why::Down],
            NodeStatus::Unknown => return vec![Why::NotHeardOf],
            NodeStatus::Alive | NodeStatus::Suspect => {}
        }
        if self.drain_of(node) != Drain::No {
            return vec![Why::Drained];
        }
        match self.fit(service, node) {
            Fit::Fits => Vec::new(),
            Fit::Unknown => vec![Why::TellsTooLittle],
            Fit::Unfit(obstacles) => obstacles.into_iter().map(Why::Obstacle).collect(),
        }
    }
}
