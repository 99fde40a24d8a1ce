//! Who should hold which blob. Pure.

use std::collections::BTreeSet;

use crate::ids::{BlobHash, NodeKey};

/// On how many nodes each binary of a kept revision lives, where there are as many: one may be lost and another be down.
pub const COPIES: usize = 3;

/// The nodes that can hold blobs.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Those that are asked first.
    pub open: BTreeSet<NodeKey>,
    /// Drained nodes: they are asked where there are too few others.
    pub spared: BTreeSet<NodeKey>,
}

/// The nodes that should hold a blob, out of those that can: the first ones by rendezvous hashing.
pub fn keepers(hash: &BlobHash, nodes: &Holders) -> Vec<NodeKey> {
    let scored = |nodes: &BTreeSet<NodeKey>| {
        let mut scored: Vec<_> = nodes.iter().map(|node| (score(hash, node), *node)).collect();
        scored.sort_unstable();
        scored
    };
    scored(&nodes.open).into_iter().chain(scored(&nodes.spared)).take(COPIES).map(|(_, node)| node).collect()
}

fn score(hash: &BlobHash, node: &NodeKey) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&hash.0);
    hasher.update(&node.0);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_are_and_few_move() {
        let hash = BlobHash([7; 32]);
        let mut nodes = Holders { open: (0..2).map(|n| NodeKey([n; 32])).collect(), ..Holders::default() };
        assert_eq!(keepers(&hash, &nodes).len(), 2);
        nodes.open.extend((2..20).map(|n| NodeKey([n; 32])));
        let before = keepers(&hash, &nodes);
        assert_eq!(before.len(), COPIES);
        nodes.open.remove(&before[0]);
        let after = keepers(&hash, &nodes);
        assert_eq!(after[..2], before[1..], "only the lost copy moves");
    }

    #[test]
    fn a_drained_node_holds_copies_only_where_others_are_too_few() {
        let hash = BlobHash([7; 32]);
        let nodes = |range: std::ops::Range<u8>| range.map(|n| NodeKey([n; 32])).collect::<BTreeSet<_>>();
        let many = Holders { open: nodes(0..3), spared: nodes(3..9) };
        assert_eq!(keepers(&hash, &many).into_iter().collect::<BTreeSet<_>>(), many.open);
        let few = Holders { open: nodes(0..2), spared: nodes(2..9) };
        let chosen = keepers(&hash, &few);
        assert_eq!(chosen.len(), COPIES);
        assert!(few.open.iter().all(|node| chosen.contains(node)));
    }
}
