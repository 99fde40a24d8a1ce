//! What users ask of one node: labels, and to be drained. Pure.
//!
//! The document `node/<key>` holds these in whole revisions, as a service's document does: of two changes that two sides of a
//! partition made at the same time one wins, everywhere the same one. They are held by every member, so that they can be changed
//! while the node itself is down, and outlast every restart.

use std::collections::BTreeMap;

use crate::ids::NodeKey;
use crate::time::Wall;

/// A revision of one node's settings.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct NodeSettings {
    /// Counted from 1.
    #[n(0)]
    pub number: u32,
    /// Labels over those that the node was started with; without a value: removed, whatever the node was started with.
    #[n(1)]
    pub labels: BTreeMap<String, Option<String>>,
    /// Since when the node is drained, if it is.
    #[n(2)]
    pub drained: Option<Drained>,
    /// The node that took this.
    #[n(3)]
    pub author: NodeKey,
    /// When, by that node's clock.
    #[n(4)]
    pub at: Wall,
}

/// A drain.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Drained {
    /// Since when, by the clock of the node that was asked.
    #[n(0)]
    pub since: Wall,
    /// The name of the node that was asked.
    #[n(1)]
    pub asked_at: String,
}

impl NodeSettings {
    /// `labels` with these settings over them.
    pub fn over(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = labels.clone();
        for (key, value) in &self.labels {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        labels
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into memory cannot fail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_lie_over_the_labels_of_the_start() {
        let settings = NodeSettings {
            number: 3,
            labels: BTreeMap::from([("zone".into(), Some("b".into())), ("disk".into(), None), ("gone".into(), None)]),
            drained: Some(Drained { since: Wall(5), asked_at: "n2".into() }),
            author: NodeKey([2; 32]),
            at: Wall(5),
        };
        let start =
            BTreeMap::from([("zone".into(), "a".into()), ("disk".into(), "ssd".into()), ("x".into(), "y".into())]);
        let labels = settings.over(&start);
        assert_eq!(labels, BTreeMap::from([("zone".into(), "b".into()), ("x".into(), "y".into())]));
        assert_eq!(settings.over(&labels), labels, "what a node reports may be looked at through them again");
        assert_eq!(minicbor::decode::<NodeSettings>(&settings.encode()).unwrap(), settings);
    }
}
