//! What is said of members: who founded the cluster, who let whom in, who was removed by whom. Pure.
//!
//! There is no shared signing key. The founder signs the founding record, whose hash is the cluster's identity; every other
//! member has an admission signed by a member. What follows from all of them is worked out by [`Trust`](super::trust::Trust).

use crate::ids::{ClusterId, NodeKey, NodeName};
use crate::node::engine::effect::Peer;
use crate::time::Wall;

/// Makes signatures of this node, and checks those of others: ed25519 in the binary, keyed hashes in the simulator.
pub trait Signatures: Send + Sync {
    /// This node's public key.
    fn key(&self) -> NodeKey;
    /// This node's signature over `bytes`.
    fn sign(&self, bytes: &[u8]) -> Vec<u8>;
    /// Whether `signature` over `bytes` was made by the node of that key.
    fn verify(&self, key: &NodeKey, bytes: &[u8], signature: &[u8]) -> bool;
}

/// The record that founded a cluster.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Founding {
    /// The founder.
    #[n(0)]
    pub founder: NodeKey,
    /// The founder's name.
    #[n(1)]
    pub name: NodeName,
    /// When.
    #[n(2)]
    pub at: Wall,
    /// Tells clusters of one founder apart.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

impl Founding {
    /// The cluster that this record founded.
    pub fn cluster(&self) -> ClusterId {
        let bytes = minicbor::to_vec(self).expect("encoding into memory cannot fail");
        ClusterId(*blake3::hash(&bytes).as_bytes())
    }
}

/// What a member says when it lets another node in.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Admission {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// Who is let in.
    #[n(1)]
    pub key: NodeKey,
    /// Under which name.
    #[n(2)]
    pub name: NodeName,
    /// Who lets it in.
    #[n(3)]
    pub by: NodeKey,
    /// By which ticket.
    #[n(4)]
    pub ticket: String,
    /// When.
    #[n(5)]
    pub at: Wall,
    /// Where it said that it can be reached; its own roster record overrules this.
    #[n(6)]
    pub addresses: Vec<String>,
    /// What it is there for.
    #[n(7)]
    pub role: Role,
}

/// What a member is there for. A number on the wire, so that later versions can add some: a role that this version does not
/// know is treated as one that runs nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Role(#[n(0)] u8);

impl Role {
    /// A full member: it runs instances and keeps copies of binaries.
    pub const MEMBER: Self = Self(0);

    /// A place to operate the cluster from, as a person's own machine is: it runs nothing and keeps no copies for others.
    pub const OPERATOR: Self = Self(1);

    /// Whether instances and copies may be placed there.
    pub fn carries_work(self) -> bool {
        self == Self::MEMBER
    }

    /// The word in options, tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::MEMBER => "member",
            Self::OPERATOR => "operator-only",
            _ => "unknown",
        }
    }

    /// The role of that word, if it is one that can be given.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::MEMBER, Self::OPERATOR].into_iter().find(|role| role.word() == word)
    }
}

/// What a member says when another one is no member any more, or itself: a key that was removed never comes back.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Removal {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// Who is removed.
    #[n(1)]
    pub key: NodeKey,
    /// Its name, for people.
    #[n(2)]
    pub name: NodeName,
    /// Who removes it; the key itself for a node that leaves.
    #[n(3)]
    pub by: NodeKey,
    /// The remover's name, for people.
    #[n(4)]
    pub by_name: NodeName,
    /// When.
    #[n(5)]
    pub at: Wall,
    /// The admissions by the removed node that stay: all that the remover knew. What the removed node signs from now on, or
    /// has signed without being heard, admits nobody.
    #[n(6)]
    pub admissions: Vec<Admission>,
}

/// Bytes with a signature over them; relayed as they are.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Signed {
    /// What was signed.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// The signature.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl Signed {
    /// Encodes and signs.
    pub fn new<T: minicbor::Encode<()>>(signatures: &dyn Signatures, domain: &str, value: &T) -> Self {
        let body = minicbor::to_vec(value).expect("encoding into memory cannot fail");
        let signature = signatures.sign(&message(domain, &body));
        Self { body, signature }
    }

    /// Whether `key` signed these bytes for that purpose.
    pub fn is_by(&self, signatures: &dyn Signatures, domain: &str, key: &NodeKey) -> bool {
        signatures.verify(key, &message(domain, &self.body), &self.signature)
    }
}

/// A signature made for one purpose must be worthless for another: the purpose is signed along.
fn message(domain: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.len() + 1 + body.len());
    bytes.extend_from_slice(domain.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(body);
    bytes
}

/// The purpose of admissions' signatures.
pub const ADMISSION_DOMAIN: &str = "narun/admission/1";

/// The purpose of removals' signatures.
pub const REMOVAL_DOMAIN: &str = "narun/removal/1";

/// What a new member is told at the door.
#[derive(Clone, PartialEq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The cluster's founding record; its hash is what the ticket named.
    #[n(0)]
    pub founding: Founding,
    /// The joiner's own name.
    #[n(1)]
    pub name: NodeName,
    /// All admissions, the joiner's own among them.
    #[n(2)]
    pub admissions: Vec<Signed>,
    /// Where members can be reached.
    #[n(3)]
    pub members: Vec<Peer>,
    /// All removals.
    #[n(4)]
    #[cbor(default)]
    pub removals: Vec<Signed>,
}
