//! What is said at the door: one request, one answer. Pure.
//!
//! The joiner dials the ticket's addresses and accepts nobody but the ticket's maker, whose key the handshake proves; only
//! then it sends the secret. So the cluster is proven to the joiner before the joiner is proven to the cluster. [`serve`] is
//! the maker's side, [`knock`] the joiner's: shells, over a stream of the transport.
//!
//! On the wire: four bytes of length (big-endian), then CBOR with integer keys.

mod door;
mod knock;

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::crdt::admission::{Signed, Welcome};
use crate::ids::{ClusterId, NodeKey, NodeName};
use crate::node::engine::effect::Refusal;
use crate::node::engine::input::Admit;

use super::transport::ADDRESSES_MAX;

pub use door::{ATTEMPTS, ATTEMPTS_FROM_ONE, serve};
pub use knock::{JoinError, ask_standing, knock};

/// Longest request in bytes: all addresses at their longest, several times over.
pub const REQUEST_LEN_MAX: usize = 16 << 10;

/// Longest answer in bytes: the admissions and addresses of more members than a full mesh can have.
pub const ANSWER_LEN_MAX: usize = 4 << 20;

/// How long one join may take in all, on either side: the maker burns the ticket durably before it answers.
pub const JOIN_MAX: Duration = Duration::from_secs(10);

/// Longest address in bytes: a DNS name (RFC 1035, 255) and a port.
const ADDRESS_LEN_MAX: usize = 261;

/// What the joiner asks.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// The cluster that its ticket names.
    #[n(0)]
    pub cluster: ClusterId,
    /// The ticket's secret; none for one who asks no more than how it stands: a member's node that is taken for a stranger.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: Option<[u8; 32]>,
    /// The name that it wants; not yet checked.
    #[n(2)]
    pub name: String,
    /// Where it can be reached, `HOST:PORT`.
    #[n(3)]
    pub addresses: Vec<String>,
    /// The version of its narun, for the log.
    #[n(4)]
    pub version: String,
}

/// What the maker answers.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
pub enum Answer {
    /// The joiner is a member now.
    #[n(0)]
    Welcome(#[n(0)] Box<Welcome>),
    /// It is not, and nothing was changed.
    #[n(1)]
    Refused(#[n(0)] Refused),
    /// What shows the asker how it stands.
    #[n(2)]
    Standing(#[n(0)] Vec<Signed>),
}

/// What a stranger wants at the door, as it goes to the engine.
#[derive(Clone, Debug)]
pub enum Asked {
    /// To become a member.
    Admit(Admit),
    /// To know why it is none: its key, proven by the connection.
    Standing(NodeKey),
}

/// Why not.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// For programs: a word of [`RefusalCode`](crate::node::engine::effect::RefusalCode).
    #[n(0)]
    pub code: String,
    /// For people.
    #[n(1)]
    pub message: String,
    /// What to do about it.
    #[n(2)]
    pub hint: Option<String>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.word().to_owned(), message: refusal.message, hint: refusal.hint }
    }
}

impl Request {
    /// The name, if it is one, and the addresses, if they are few and short.
    fn checked(&self) -> Result<NodeName, String> {
        let name = NodeName::new(&self.name).map_err(|error| error.to_string())?;
        if self.addresses.len() > ADDRESSES_MAX {
            return Err(format!("{} addresses are too many; at most {ADDRESSES_MAX}", self.addresses.len()));
        }
        match self.addresses.iter().find(|address| address.len() > ADDRESS_LEN_MAX) {
            Some(long) => Err(format!("an address of {} bytes is too long", long.len())),
            None => Ok(name),
        }
    }
}

/// Whether these bytes are a request that may be decided on, or an answer: for the fuzz targets.
pub(crate) fn understands(bytes: &[u8]) -> bool {
    let request = minicbor::decode::<Request>(bytes).is_ok_and(|request| request.checked().is_ok());
    request | minicbor::decode::<Answer>(bytes).is_ok()
}

/// One of each, with a word for it.
#[cfg(test)]
pub(crate) fn samples(welcome: &Welcome) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |answer: &Answer| minicbor::to_vec(answer).unwrap();
    let request = Request {
        cluster: ClusterId([1; 32]),
        secret: Some([2; 32]),
        name: "n2".to_owned(),
        addresses: vec!["10.0.0.1:7".to_owned()],
        version: "0.1.0".to_owned(),
    };
    let refused = Refused { code: "invalid".to_owned(), message: "no".to_owned(), hint: None };
    vec![
        ("request", minicbor::to_vec(&request).unwrap()),
        ("welcome", bytes(&Answer::Welcome(Box::new(welcome.clone())))),
        ("refused", bytes(&Answer::Refused(refused))),
        ("standing", bytes(&Answer::Standing(welcome.admissions.clone()))),
    ]
}

#[cfg(test)]
mod tests;
