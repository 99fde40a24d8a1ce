//! Who should hold which blob. Pure.

use std::collections::BTreeSet;

use crate::ids::{BlobHash, NodeKey};

/// On how many nodes each binary of a kept revision lives, where there are as many: one may be lost and another be down.
pub const COPIES: usize = 3;

/// The nodes that should hold a blob, out of those that can: the first ones by rendezvous hashing.
pub fn keepers(hash: &BlobHash, nodes: &BTreeSet<NodeKey>) -> Vec<NodeKey> {
    let mut scored: Vec<_> = nodes.iter().map(|node| (score(hash, node), *node)).collect();
    scored.sort_unstable();
    scored.into_iter().take(COPIES).map(|(_, node)| node).collect()
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
        let mut nodes: BTreeSet<_> = (0..2).map(|n| NodeKey([n; 32])).collect();
        assert_eq!(keepers(&hash, &nodes).len(), 2);
        nodes.extend((2..20).map(|n| NodeKey([n; 32])));
        let before = keepers(&hash, &nodes);
        assert_eq!(before.len(), COPIES);
        nodes.remove(&before[0]);
        let after = keepers(&hash, &nodes);
        assert_eq!(after[..2], before[1..], "only the lost copy moves");
    }
}
