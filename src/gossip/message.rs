//! What members say to one another. Pure.
//!
//! CBOR maps with integer keys (RFC 8949): a reader passes over keys that it does not know. Records and document changes travel
//! as the bytes that their author made.

use crate::crdt::admission::Signed;
use crate::crdt::catalog::{DocDelta, DocKey, DocState};
use crate::crdt::document::RevisionId;
use crate::crdt::roster::Stamp;
use crate::crdt::tree::Version;
use crate::gossip::membership::Believed;
use crate::ids::NodeKey;

/// Largest message, in bytes: a document at its limit must fit.
pub const MESSAGE_LEN_MAX: usize = 8 << 20;

/// Names a piece of news: the start of the hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct NewsId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// Something new, to be told to everybody.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub enum News {
    /// A document was changed.
    #[n(0)]
    Document(#[n(0)] DocDelta),
    /// A node says something about itself.
    #[n(1)]
    Record(#[n(0)] Signed),
}

impl News {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into memory cannot fail")
    }
}

impl NewsId {
    /// The name of the news in these bytes.
    pub fn of(news: &[u8]) -> Self {
        let hash = blake3::hash(news);
        Self(std::array::from_fn(|at| hash.as_bytes()[at]))
    }
}

/// One of the two trees that members compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Which {
    /// The catalog's.
    #[n(0)]
    Catalog,
    /// The roster's.
    #[n(1)]
    Roster,
}

/// A record's key and stamp.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RecordState {
    /// As in [`record_key`](crate::crdt::roster::record_key).
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// Its stamp; zero for one that the sender has not.
    #[n(1)]
    pub stamp: Stamp,
}

/// A stretch of the ring of all keys: from one key on, up to another that is no longer in it. All of the ring where the two are
/// the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Stretch {
    /// Where it begins.
    #[n(0)]
    pub from: NodeKey,
    /// Where the next one begins.
    #[n(1)]
    pub to: NodeKey,
}

/// A message from member to member.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub enum Message {
    /// SWIM's own bytes.
    #[n(0)]
    Swim(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// News, whole.
    #[n(1)]
    News {
        /// An encoded [`News`], relayed as it is.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        news: Vec<u8>,
        /// True: the sender waits to hear that it is on this node's disk.
        #[n(1)]
        acknowledge: bool,
    },
    /// These news were heard of: who lacks one asks for it.
    #[n(2)]
    Heard(#[n(0)] Vec<NewsId>),
    /// Send me these.
    #[n(3)]
    Ask(#[n(0)] Vec<NewsId>),
    /// This news is on my disk.
    #[n(4)]
    Acknowledge(#[n(0)] NewsId),
    /// The roots of the sender's trees: the beginning of a round of anti-entropy, and its end if the receiver's are equal.
    #[n(5)]
    Roots {
        /// The catalog's.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        catalog: Version,
        /// The roster's.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        roster: Version,
    },
    /// The bucket hashes of a tree whose root differs.
    #[n(6)]
    Buckets {
        /// Of which tree.
        #[n(0)]
        which: Which,
        /// As in [`HashTree::bucket_hashes`](crate::crdt::tree::HashTree::bucket_hashes).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        hashes: Vec<u8>,
    },
    /// The sender's documents in buckets that differ. The receiver sends what the sender lacks and asks for what it lacks.
    #[n(7)]
    Documents {
        /// The buckets that are spoken of, whole.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        buckets: Vec<u8>,
        /// The sender's state of each document in them.
        #[n(1)]
        states: Vec<DocState>,
    },
    /// The same for records.
    #[n(8)]
    Records {
        /// The buckets that are spoken of, whole.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        buckets: Vec<u8>,
        /// The sender's stamp of each record in them.
        #[n(1)]
        states: Vec<RecordState>,
    },
    /// Send me what I lack of these.
    #[n(9)]
    Want {
        /// Documents, as the sender has them.
        #[n(0)]
        documents: Vec<DocState>,
        /// Records, as the sender has them.
        #[n(1)]
        records: Vec<RecordState>,
    },
    /// What the receiver lacked.
    #[n(10)]
    Repair {
        /// Changes to documents.
        #[n(0)]
        documents: Vec<DocDelta>,
        /// Records.
        #[n(1)]
        records: Vec<Signed>,
        /// True: the budget of a round was used up, there is more to be had in the next.
        #[n(2)]
        more: bool,
    },
    /// Every member held these tombstones, and the sender has forgotten them: the receiver may do so too.
    #[n(11)]
    Forgotten(#[n(0)] Vec<Tombstone>),
    /// The sender is alive, in this life and incarnation of SWIM's: some tens of bytes for everyone whom it is connected to.
    #[n(12)]
    Hello {
        /// Its life: the boot counter, and how often it renewed itself since.
        #[n(0)]
        life: u64,
        /// How often it has refuted in that life.
        #[n(1)]
        incarnation: u16,
        /// What the sender thinks of the receiver, where that is not that it is well: it is to say hello in its turn.
        #[n(2)]
        you: Option<Believed>,
    },
    /// News, whole, which the receiver passes on at once to all members whose keys lie in a stretch.
    #[n(13)]
    Relay {
        /// An encoded [`News`], relayed as it is.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        news: Vec<u8>,
        /// Who is to get it.
        #[n(1)]
        stretch: Stretch,
    },
}

/// A tombstone in the version that was forgotten.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Tombstone {
    /// Which document.
    #[n(0)]
    pub key: DocKey,
    /// In which version.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub version: Version,
    /// The revisions that it had kept; none from a version that did not tell.
    #[n(2)]
    #[cbor(default)]
    pub revisions: Vec<RevisionId>,
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into memory cannot fail")
    }

    /// A message out of bytes from a peer; none when they are none, or too many.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MESSAGE_LEN_MAX {
            return None;
        }
        minicbor::decode(bytes).ok()
    }
}

/// Whether bytes that do not decode are well-formed, and say something for which a later minor version has a name: a kind of message or
/// of news that is unknown here. That is no fault of its sender, and is passed over.
pub fn is_of_later_version<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> bool {
    let mut decoder = minicbor::Decoder::new(bytes);
    let whole = decoder.skip().is_ok() && decoder.position() == bytes.len();
    whole && minicbor::decode::<T>(bytes).is_err_and(|error| error.is_unknown_variant())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_field_is_passed_over() {
        let mut bytes = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        encoder.array(2).unwrap().u32(4).unwrap().map(2).unwrap();
        encoder.u8(0).unwrap().bytes(&[7; 16]).unwrap().u8(99).unwrap().str("from the future").unwrap();
        assert_eq!(Message::decode(&bytes), Some(Message::Acknowledge(NewsId([7; 16]))));
    }

    #[test]
    fn a_kind_of_a_later_version_is_told_from_garbage() {
        let kind = |kind: u32| {
            let mut bytes = Vec::new();
            let mut encoder = minicbor::Encoder::new(&mut bytes);
            encoder.array(2).unwrap().u32(kind).unwrap().map(1).unwrap().u8(0).unwrap().str("later").unwrap();
            bytes
        };
        let later = kind(1000);
        assert_eq!(Message::decode(&later), None);
        assert!(is_of_later_version::<Message>(&later) && is_of_later_version::<News>(&later));
        assert!(!is_of_later_version::<Message>(&kind(4)), "a known kind with the wrong content");
        assert!(!is_of_later_version::<Message>(&later[..later.len() - 1]), "cut");
        assert!(!is_of_later_version::<Message>(&[&later[..], &[0]].concat()), "and more behind it");
        assert!(!is_of_later_version::<Message>(b"garbage"));
        assert!(!is_of_later_version::<Message>(&Message::Heard(Vec::new()).encode()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_of_later_version::<Message>(&bytes);
            let _ = is_of_later_version::<News>(&bytes);
            if let Some(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }
    }
}
