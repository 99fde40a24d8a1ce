//! The ticket that lets a stranger in. Pure.
//!
//! It names the cluster and the node that made it, so that the joiner proves both before it shows the secret. It is
//! redeemed at that node only, which burns a use durably before it answers.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

use crate::ids::{ClusterId, NodeKey};
use crate::time::Wall;

/// What the text form begins with: the kind of thing and its version.
const PREFIX: &str = "narun1";

/// Longest text taken for a ticket: 8 addresses of 64 bytes and the fixed parts, in base 32, fit twice.
const TEXT_LEN_MAX: usize = 2048;

/// A ticket, secret included: whoever holds it may become a member.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Ticket {
    /// The cluster that it admits to.
    #[n(0)]
    pub cluster: ClusterId,
    /// The node that made it and that alone redeems it.
    #[n(1)]
    pub maker: NodeKey,
    /// Where that node listens, `HOST:PORT`.
    #[n(2)]
    pub addresses: Vec<String>,
    /// The credential.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// Until when it is good, by the maker's clock.
    #[n(4)]
    pub expires: Wall,
    /// How many members it admitted when it was made.
    #[n(5)]
    pub uses: u32,
}

impl Ticket {
    /// Names the ticket without giving it away: the first digits of its secret's hash.
    pub fn id(&self) -> String {
        ticket_id(&self.secret)
    }
}

/// The identifier of the ticket with this secret.
pub fn ticket_id(secret: &[u8; 32]) -> String {
    blake3::hash(secret).to_hex()[..12].to_owned()
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, expires {})", self.id(), self.expires)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = minicbor::to_vec(self).expect("encoding into memory cannot fail");
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..4]);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

/// A text that is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin like one.
    #[error("this is not a ticket: a ticket begins with `{PREFIX}`")]
    Prefix,
    /// It begins with another version's prefix.
    #[error("this ticket was made by a newer version of narun")]
    Newer,
    /// It was cut or mistyped.
    #[error("this ticket is damaged: copy the whole of it, it is one word")]
    Damaged,
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            let digit = text.strip_prefix("narun").and_then(|rest| rest.chars().next());
            return Err(if digit.is_some_and(|c| c.is_ascii_digit()) {
                TicketError::Newer
            } else {
                TicketError::Prefix
            });
        };
        if body.len() > TEXT_LEN_MAX {
            return Err(TicketError::Damaged);
        }
        let bytes = BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::Damaged)?;
        let split = bytes.len().checked_sub(4).ok_or(TicketError::Damaged)?;
        let (bytes, check) = bytes.split_at(split);
        if blake3::hash(bytes).as_bytes()[..4] != *check {
            return Err(TicketError::Damaged);
        }
        minicbor::decode(bytes).map_err(|_| TicketError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            cluster: ClusterId([1; 32]),
            maker: NodeKey([2; 32]),
            addresses: vec!["127.0.0.1:7000".into()],
            secret: [3; 32],
            expires: Wall(1_000),
            uses: 1,
        }
    }

    #[test]
    fn a_ticket_survives_its_text() {
        let text = ticket().to_string();
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket());
        assert_eq!(format!(" {text}\n").parse::<Ticket>().unwrap(), ticket());
    }

    #[test]
    fn every_cut_or_mistyped_ticket_is_refused() {
        let text = ticket().to_string();
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!("".parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!("narun2abc".parse::<Ticket>(), Err(TicketError::Newer));
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<Ticket>(), Err(TicketError::Damaged), "cut at {end}");
        }
        for at in PREFIX.len()..text.len() {
            let other = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, other);
            assert!(wrong.parse::<Ticket>().is_err(), "mistyped at {at}");
        }
    }

    #[test]
    fn a_ticket_does_not_show_its_secret_in_debug_output() {
        let shown = format!("{:?}", ticket());
        assert!(!shown.contains("0303") && !shown.contains("3, 3"), "{shown}");
    }
}
