//! Who is a member. Pure.
//!
//! There is no shared signing key. The founder signs the founding record, whose hash is the cluster's identity; every other
//! member has an admission signed by a member. A key is admitted while a chain of admissions leads from it to the founder.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

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
    /// What it may do. There is one role so far: 0, a full member.
    #[n(7)]
    pub role: u8,
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

/// Whom the chain of admissions admits, the founder first. `admissions` may be in any order and hold anything: what does not
/// check out is left out.
pub fn members(
    signatures: &dyn Signatures,
    founding: &Founding,
    admissions: impl IntoIterator<Item = Signed>,
) -> BTreeMap<NodeKey, Admission> {
    let cluster = founding.cluster();
    let mut by_admitter: BTreeMap<NodeKey, Vec<Admission>> = BTreeMap::new();
    for signed in admissions {
        let Ok(admission) = minicbor::decode::<Admission>(&signed.body) else { continue };
        if admission.cluster == cluster && signed.is_by(signatures, ADMISSION_DOMAIN, &admission.by) {
            by_admitter.entry(admission.by).or_default().push(admission);
        }
    }
    let founder = Admission {
        cluster,
        key: founding.founder,
        name: founding.name.clone(),
        by: founding.founder,
        ticket: String::new(),
        at: founding.at,
        addresses: Vec::new(),
        role: 0,
    };
    let mut members = BTreeMap::from([(founder.key, founder)]);
    let mut reached = BTreeSet::from([founding.founder]);
    while let Some(admitter) = reached.pop_first() {
        for admission in by_admitter.remove(&admitter).unwrap_or_default() {
            if let Entry::Vacant(unknown) = members.entry(admission.key) {
                reached.insert(admission.key);
                unknown.insert(admission);
            }
        }
    }
    members
}

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
}
