//! Signatures of the simulator: keyed hashes. A node's secret follows from its key, which every test may know and no engine
//! does; making one costs a hundredth of what ed25519 costs.

use narun::crdt::admission::Signatures;
use narun::ids::NodeKey;

/// The signatures of one node.
pub(crate) struct SimSignatures(pub(crate) NodeKey);

fn secret(key: &NodeKey) -> [u8; 32] {
    blake3::derive_key("narun netsim 2026 signing secret of a node key", &key.0)
}

impl Signatures for SimSignatures {
    fn key(&self) -> NodeKey {
        self.0
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        blake3::keyed_hash(&secret(&self.0), bytes).as_bytes().to_vec()
    }

    fn verify(&self, key: &NodeKey, bytes: &[u8], signature: &[u8]) -> bool {
        blake3::keyed_hash(&secret(key), bytes).as_bytes()[..] == *signature
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_maker_and_its_bytes_only() {
        let (mine, other) = (SimSignatures(NodeKey([1; 32])), SimSignatures(NodeKey([2; 32])));
        let signature = mine.sign(b"text");
        assert!(other.verify(&mine.key(), b"text", &signature));
        assert!(!other.verify(&mine.key(), b"test", &signature));
        assert!(!other.verify(&other.key(), b"text", &signature));
        assert!(!other.verify(&mine.key(), b"text", &signature[..31]));
    }
}
