//! What two processes say to each other before any message passes, and how a copy of a data directory is told from a restart. Pure.
//!
//! A key names a node, but two processes may hold it: one and its successor after a crash, or one and a copy of its data
//! directory. So every process draws a number when it starts, its *life*, and shows it at the head of each link. Where another life
//! comes while a connection of the first stands, the first is asked for a *sign of life*: its signature over the newcomer's number.
//! If it gives one within [`SIGN_OF_LIFE_MAX`], the newcomer is refused and shown the signature; if not, the newcomer takes over.
//!
//! The signature keeps members from talking each other to death: a node ends itself only where its own key has signed, in another life,
//! the very number that it drew itself. Nobody else can make that, and nobody can have kept it from before.

use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::crdt::admission::Signatures;

use super::ADDRESSES_MAX;

/// How long a process has to show that it lives: it answers within a round trip unless its host is overloaded, and a node that was
/// restarted behind a dead connection is back after this long.
pub const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(3);

/// Longest frame of a greeting, in bytes: some addresses of the longest kind and a signature.
pub(super) const GREETING_LEN_MAX: usize = 4 << 10;

/// The purpose of the signature; it is worthless for another.
const DOMAIN: &[u8] = b"narun/life/1\0";

/// The number that a process draws at its start.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Life(#[cbor(with = "minicbor::bytes")] pub(super) [u8; 16]);

impl Life {
    /// A new one. Fails where the system has no randomness.
    pub(super) fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// The first frame on a link, from the side that opened it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Hello {
    /// The process that speaks.
    #[n(0)]
    pub(super) life: Life,
}

/// The one frame that comes back.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum Answer {
    /// Messages may follow.
    #[n(0)]
    Welcome(#[n(0)] Hello),
    /// Another process with the same key is connected here, and it lives.
    #[n(1)]
    Copy(#[n(0)] CopyFound),
}

/// Why a process is taken for a copy.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct CopyFound {
    /// What the other process said when it was asked.
    #[n(0)]
    pub(super) sign: SignOfLife,
    /// Where the node that refuses reaches it.
    #[n(1)]
    pub(super) addresses: Vec<String>,
}

/// A process shows that it lives and holds the key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct SignOfLife {
    /// Which process.
    #[n(0)]
    pub(super) life: Life,
    /// Its signature over the number that it was asked about and its own.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) signature: Vec<u8>,
}

impl SignOfLife {
    /// The sign of the process `life`, which was asked about another one. None where that is its own number: somebody sends its
    /// words back to it.
    pub(super) fn give(signatures: &dyn Signatures, life: Life, asked: Life) -> Option<Self> {
        (asked != life).then(|| Self { life, signature: signatures.sign(&signed(asked, life)) })
    }

    /// Whether another process with this key gave it, when it was asked about `asked`.
    pub(super) fn is_of(&self, signatures: &dyn Signatures, key: &crate::ids::NodeKey, asked: Life) -> bool {
        self.life != asked && signatures.verify(key, &signed(asked, self.life), &self.signature)
    }
}

impl CopyFound {
    /// The addresses, as far as they are fit to be shown: they are a peer's word.
    pub(super) fn shown_addresses(&self) -> Vec<String> {
        let plain = |address: &&String| address.len() <= 261 && address.chars().all(|c| c.is_ascii_graphic());
        self.addresses.iter().filter(plain).take(ADDRESSES_MAX).cloned().collect()
    }
}

/// Whether these bytes are one of the frames of a greeting: for the fuzz targets.
pub(crate) fn understands(bytes: &[u8]) -> bool {
    minicbor::decode::<Hello>(bytes).is_ok()
        | minicbor::decode::<Answer>(bytes).is_ok()
        | minicbor::decode::<SignOfLife>(bytes).is_ok()
}

/// One of each, with a word for it.
#[cfg(test)]
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let (hello, sign) = (Hello { life: Life([1; 16]) }, SignOfLife { life: Life([2; 16]), signature: vec![3; 64] });
    let copy = Answer::Copy(CopyFound { sign: sign.clone(), addresses: vec!["10.0.0.1:7".to_owned()] });
    vec![
        ("hello", minicbor::to_vec(&hello).unwrap()),
        ("welcome", minicbor::to_vec(Answer::Welcome(hello)).unwrap()),
        ("copy", minicbor::to_vec(copy).unwrap()),
        ("sign", minicbor::to_vec(sign).unwrap()),
    ]
}

fn signed(asked: Life, life: Life) -> Vec<u8> {
    [DOMAIN, &asked.0, &life.0].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::identity::Identity;

    #[test]
    fn only_another_life_of_the_same_key_can_say_that_one_is_a_copy() {
        let (identity, stranger) = (Identity::generate(), Identity::generate());
        let [mine, other, earlier] = [1, 2, 3].map(|byte| Life([byte; 16]));
        let key = identity.key();
        let sign = SignOfLife::give(&identity, other, mine).unwrap();
        assert!(sign.is_of(&identity, &key, mine));
        assert!(!sign.is_of(&identity, &key, earlier), "asked about another number: kept from before");
        assert!(!SignOfLife::give(&stranger, other, mine).unwrap().is_of(&identity, &key, mine), "another key");
        let relabelled = SignOfLife { life: earlier, ..sign };
        assert!(!relabelled.is_of(&identity, &key, mine));
        assert_eq!(SignOfLife::give(&identity, mine, mine), None, "its own words");
    }

    #[test]
    fn a_field_of_a_later_version_is_passed_over() {
        let mut bytes = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        encoder.map(2).unwrap().u8(0).unwrap().bytes(&[7; 16]).unwrap().u8(9).unwrap().str("later").unwrap();
        assert_eq!(minicbor::decode::<Hello>(&bytes).unwrap(), Hello { life: Life([7; 16]) });
    }

    #[test]
    fn what_a_peer_says_is_shown_only_where_it_is_plain() {
        let sign = SignOfLife { life: Life([0; 16]), signature: Vec::new() };
        let addresses = ["10.0.0.1:7", "\x1b[2Jboo", "a b"].map(str::to_owned).to_vec();
        assert_eq!(CopyFound { sign, addresses }.shown_addresses(), ["10.0.0.1:7"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = minicbor::decode::<Hello>(&bytes);
            if let Ok(answer) = minicbor::decode::<Answer>(&bytes) {
                let again = minicbor::to_vec(&answer).unwrap();
                prop_assert_eq!(minicbor::decode::<Answer>(&again).unwrap(), answer);
            }
        }
    }
}
