//! What users ask of nodes: labels, and to be drained. Pure.
//!
//! The requests, and what follows from the documents `node/<key>`: the labels that this node reports, and how far each drained node
//! is. Placement reads labels in what a node reports of itself, and drains here, so that a drain holds for a node that is down.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::effect::{Refusal, RefusalCode, Response};
use super::out::Out;
use super::placement::Drain;
use crate::crdt::admission::Admission;
use crate::crdt::catalog::DocKey;
use crate::crdt::document::Content;
use crate::crdt::node_settings::{Drained, NodeSettings};
use crate::crdt::roster::{InstanceReport, State};
use crate::ids::{NodeKey, NodeName, ServiceName};
use crate::spec::{Placement, check_label};

/// Most labels of one node: they stand in its facts, which every node holds of every other.
pub(super) const LABELS_MAX: usize = 64;

type Answer = Result<Response, Refusal>;

/// All nodes' settings.
#[derive(Debug, Default)]
pub(super) struct Settings {
    of: BTreeMap<NodeKey, NodeSettings>,
}

impl Settings {
    /// Takes over what a node's document says now. What a later version wrote and this one cannot read counts as nothing.
    fn update(&mut self, node: NodeKey, content: Option<&Content>) {
        let body = content.filter(|content| content.deleted_at.is_none());
        let body = body.and_then(|content| content.revisions.get(&content.current?));
        match body.and_then(|body| minicbor::decode::<NodeSettings>(body).ok()) {
            Some(settings) => drop(self.of.insert(node, settings)),
            None => drop(self.of.remove(&node)),
        }
    }

    /// Since when a node is drained, if it is.
    pub(super) fn drained(&self, node: &NodeKey) -> Option<&Drained> {
        self.of.get(node)?.drained.as_ref()
    }

    /// `labels` with what users set and removed.
    pub(super) fn over(&self, node: &NodeKey, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        self.of.get(node).map_or_else(|| labels.clone(), |settings| settings.over(labels))
    }
}

impl Engine {
    pub(super) fn label_node(
        &mut self,
        name: &NodeName,
        set: BTreeMap<String, String>,
        remove: &BTreeSet<String>,
        out: &mut Out,
    ) -> Answer {
        let invalid = |message: String| Refusal::new(RefusalCode::Invalid, message);
        for (key, value) in &set {
            check_label(key, value).map_err(invalid)?;
        }
        if let Some(both) = remove.iter().find(|key| set.contains_key(*key)) {
            return Err(invalid(format!("the label `{both}` cannot be set and removed at once")));
        }
        let node = self.member(name)?.key;
        let reported = match node == self.me {
            true => Some(&self.config.labels),
            false => self.known.facts(&node).map(|facts| &facts.labels),
        };
        let mut after = self.settings_of(&node);
        let before = after.labels.clone();
        for key in remove {
            // What is not there need not be remembered as removed, where that can be known.
            match reported {
                Some(reported) if !reported.contains_key(key) => drop(after.labels.remove(key)),
                _ => drop(after.labels.insert(key.clone(), None)),
            }
        }
        after.labels.extend(set.into_iter().map(|(key, value)| (key, Some(value))));
        let labels = after.over(reported.unwrap_or(&BTreeMap::new()));
        if labels.len().max(after.labels.len()) > LABELS_MAX {
            return Err(Refusal::new(RefusalCode::Limit, format!("a node has at most {LABELS_MAX} labels")));
        }
        let changed = after.labels != before;
        if changed {
            self.write_settings(&node, after, out);
        }
        Ok(Response::Labelled { labels, changed })
    }

    pub(super) fn drain_node(&mut self, name: &NodeName, out: &mut Out) -> Answer {
        let node = self.member(name)?.key;
        let mut settings = self.settings_of(&node);
        let changed = settings.drained.is_none();
        if changed {
            settings.drained = Some(Drained { since: self.now.wall, asked_at: self.config.name.to_string() });
            self.write_settings(&node, settings, out);
        }
        Ok(Response::NodeSet { changed })
    }

    pub(super) fn uncordon_node(&mut self, name: &NodeName, out: &mut Out) -> Answer {
        let node = self.member(name)?.key;
        let mut settings = self.settings_of(&node);
        let changed = settings.drained.take().is_some();
        if changed {
            self.write_settings(&node, settings, out);
        }
        Ok(Response::NodeSet { changed })
    }

    /// The member of that name; refused with the names that there are.
    pub(super) fn member(&self, name: &NodeName) -> Result<&Admission, Refusal> {
        self.cluster.by_name(name).ok_or_else(|| {
            let names: Vec<&str> = self.cluster.members().values().map(|member| member.name.as_str()).collect();
            Refusal::new(RefusalCode::NotFound, format!("there is no node `{name}` in this cluster"))
                .hint(format!("its nodes are: {}", names.join(", ")))
        })
    }

    fn settings_of(&self, node: &NodeKey) -> NodeSettings {
        self.settings.of.get(node).cloned().unwrap_or_else(|| NodeSettings {
            number: 0,
            labels: BTreeMap::new(),
            drained: None,
            author: self.me,
            at: self.now.wall,
        })
    }

    fn write_settings(&mut self, node: &NodeKey, settings: NodeSettings, out: &mut Out) {
        let key = DocKey::node(node);
        let settings = NodeSettings { author: self.me, at: self.now.wall, ..settings };
        let (_, delta) =
            self.catalog.put_revision(&key, self.actor(), |number| NodeSettings { number, ..settings }.encode());
        self.document_changed(&key, out);
        self.spread_document(delta, out);
    }

    /// A node's document is other than before.
    pub(super) fn node_settings_changed(&mut self, node: NodeKey) {
        let entry = self.catalog.get(&DocKey::node(&node));
        self.settings.update(node, entry.map(|entry| entry.content()));
        self.dirty.cluster = true;
    }

    /// Works out anew how far the drained nodes are. Where that changed, what is bound to nodes is to be looked at.
    pub(super) fn settle_drains(&mut self) {
        let drained = self.settings.of.iter().filter(|(_, settings)| settings.drained.is_some());
        let members = drained.map(|(node, _)| *node).filter(|node| self.cluster.is_member(node));
        let drains: BTreeMap<NodeKey, Drain> =
            members.map(|node| (node, if self.has_movable(&node) { Drain::Moving } else { Drain::Empty })).collect();
        if drains != self.drains {
            self.drains = drains;
            let bound = self.services.iter().filter(|service| !service.is_movable());
            self.dirty.services.extend(bound.map(|service| service.name.clone()));
            self.dirty.view = true;
        }
    }

    /// How far a node is drained.
    pub(super) fn drain_of(&self, node: &NodeKey) -> Drain {
        self.drains.get(node).copied().unwrap_or(Drain::No)
    }

    /// Whether a node reports an instance that another node could run in its place.
    fn has_movable(&self, node: &NodeKey) -> bool {
        let goes = |name: &ServiceName| {
            let Some(service) = self.services.get(name).filter(|service| service.is_movable()) else { return false };
            // What has finished stays where it was, and is no reason to wait.
            let is_over =
                |one: &InstanceReport| one.state() == State::Finished && one.launch_hash == service.current.launch_hash;
            self.known.report(name, node).is_some_and(|report| !report.instances.iter().all(is_over))
        };
        self.known.services_of(node).any(goes)
    }
}

impl super::services::Service {
    /// Whether narun chooses the nodes of its instances, and may choose others.
    pub(super) fn is_movable(&self) -> bool {
        matches!(self.current.spec.placement, Placement::Cluster { .. })
    }
}
