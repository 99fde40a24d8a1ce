//! The body of a revision: what one deploy, scale or stop wrote, whole and never changed again. Pure.

use crate::blobs::image::Image;
use crate::ids::{BlobHash, NodeKey};
use crate::spec::ServiceSpec;
use crate::time::Wall;

use super::document::RevisionId;

/// A revision of a service.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Revision {
    /// Counted from 1.
    #[n(0)]
    pub number: u32,
    /// The revision that was current for its author. Those on the way from the current one back are the past; others were
    /// superseded.
    #[n(1)]
    pub parent: Option<RevisionId>,
    /// The specification in its stored form.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub spec: Vec<u8>,
    /// One binary for each platform.
    #[n(3)]
    pub images: Vec<Image>,
    /// True: the instances are to be stopped.
    #[n(4)]
    pub stopped: bool,
    /// Goes up with each `service restart` (and `start`), so that every instance counts as outdated.
    #[n(5)]
    pub generation: u32,
    /// The node that took it.
    #[n(6)]
    pub author: NodeKey,
    /// That node's name then.
    #[n(7)]
    pub author_name: String,
    /// When, by that node's clock.
    #[n(8)]
    pub at: Wall,
    /// Which command made it: `deploy`, `scale`, `stop`, `start`, `restart`.
    #[n(9)]
    pub cause: String,
}

impl Revision {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into memory cannot fail")
    }

    /// What a running instance depends on: an instance that was started under an equal hash satisfies this revision. Numbers
    /// of replicas and their places are not in it, so that scaling replaces nobody.
    pub fn launch_hash(&self, spec: &ServiceSpec) -> BlobHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.generation.to_be_bytes());
        for image in &self.images {
            hasher.update(&image.hash.0);
            hasher.update(image.platform.to_string().as_bytes());
        }
        hasher.update(&spec.launch_hash_input());
        BlobHash(*hasher.finalize().as_bytes())
    }
}
