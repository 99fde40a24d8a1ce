//! Names and identifiers, valid by construction. Pure.
//!
//! Every identifier that crosses a module border has a type of its own here, so that a node's key and a blob's hash, both
//! thirty-two bytes, can never be taken for one another. A value of these types has already been checked: code behind the
//! edge does not check again.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

/// Longest name of a node or a service, in bytes: what a DNS label holds (RFC 1035, 2.3.4), so that a name can become one.
pub const NAME_LEN_MAX: usize = 63;

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

        impl $name {
            /// The first ten hexadecimal digits: enough for people, never enough to look something up by.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok();
                let array = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                array.map($name).ok_or_else(|| IdError { what: $what, text: text.to_owned() })
            }
        }
    };
}

bytes32!(
    /// The ed25519 public key of a node: its identity, for as long as its data directory lives.
    NodeKey, "a node key"
);
bytes32!(
    /// The BLAKE3 hash of the record that founded a cluster: the cluster's identity.
    ClusterId, "a cluster identity"
);
bytes32!(
    /// The BLAKE3 hash of a blob: its only name.
    BlobHash, "a blob hash"
);

impl BlobHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// A text that should have been thirty-two bytes in hexadecimal.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not {what}: expected 64 lower-case hexadecimal digits")]
pub struct IdError {
    what: &'static str,
    text: String,
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_LEN_MAX`].
    #[error("`{0}…` is {1} characters long; a name has at most {NAME_LEN_MAX}")]
    TooLong(String, usize),
    /// A character outside of `a-z 0-9 - _ .` stands in the text.
    #[error("`{0}` holds `{1}`; a name is made of the letters a-z, digits, `-`, `_` and `.`")]
    BadCharacter(String, char),
    /// The text begins or ends with `-`, `_` or `.`.
    #[error("`{0}` must begin and end with a letter or a digit")]
    BadEnd(String),
    /// The text is one of the words that mean a set of nodes.
    #[error("`{0}` is a reserved word and cannot name a node")]
    Reserved(String),
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong(text.chars().take(20).collect(), text.chars().count()));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Err(NameError::BadCharacter(text.to_owned(), bad));
    }
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !end(text.chars().next()) || !end(text.chars().next_back()) {
        return Err(NameError::BadEnd(text.to_owned()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] String);

        /// What comes off a wire or a disk keeps the rule as well: names become paths and groups.
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let at = decoder.position();
                Self::new(decoder.str()?).map_err(|error| minicbor::decode::Error::message(error).at(at))
            }
        }

        impl $name {
            /// Checks `text`; fails with the rule that it breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                if $reserved.contains(&text) {
                    return Err(NameError::Reserved(text.to_owned()));
                }
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

/// Words that stand for sets of nodes in a specification and so name no node.
pub const RESERVED_NODE_NAMES: [&str; 3] = ["local", "any", "all"];

name!(
    /// The name of a service or cron spec.
    ServiceName, [""; 0]
);
name!(
    /// The name of a node: what `--name` said when it joined, never one of [`RESERVED_NODE_NAMES`].
    NodeName, RESERVED_NODE_NAMES
);

/// One replica of a service on one node: `<service>-<index>`. The cluster knows it by (service, node, index).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct InstanceId {
    /// The service that it is a replica of.
    #[n(0)]
    pub service: ServiceName,
    /// Which replica: counted from 0, over the node (`nodes:`) or over the cluster (`replicas:`).
    #[n(1)]
    pub index: u32,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.service, self.index))
    }
}

/// Names one start of one instance: unique in the cluster, so that a late word about an earlier start is told apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct RunId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({})", HEXLOWER.encode(&self.0[..4]))
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map(RunId).ok_or_else(|| IdError { what: "a run identifier", text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label() {
        for good in ["a", "web", "web-1", "db.eu_1", "0"] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ServiceName::new(""), Err(NameError::Empty));
        assert!(matches!(ServiceName::new(&"x".repeat(300)), Err(NameError::TooLong(_, 300))));
        assert!(matches!(ServiceName::new("a b"), Err(NameError::BadCharacter(_, ' '))));
        assert!(matches!(ServiceName::new("a/b"), Err(NameError::BadCharacter(_, '/'))));
        assert!(matches!(ServiceName::new("-a"), Err(NameError::BadEnd(_))));
        assert!(matches!(ServiceName::new(".."), Err(NameError::BadEnd(_))));
        assert!(matches!(NodeName::new("any"), Err(NameError::Reserved(_))));
    }

    #[test]
    fn a_name_that_breaks_the_rule_is_not_decoded() {
        let good = NodeName::new("n1").unwrap();
        assert_eq!(minicbor::decode::<NodeName>(&minicbor::to_vec(&good).unwrap()).unwrap(), good);
        for bad in ["", "../../etc", "a/b", "A", &"x".repeat(64)] {
            let bytes = minicbor::to_vec(bad).unwrap();
            assert!(minicbor::decode::<ServiceName>(&bytes).is_err(), "{bad}");
            assert!(minicbor::decode::<NodeName>(&bytes).is_err(), "{bad}");
        }
        let reserved = minicbor::to_vec("all").unwrap();
        assert!(minicbor::decode::<ServiceName>(&reserved).is_ok(), "only nodes have reserved names");
        let error = minicbor::decode::<NodeName>(&reserved).unwrap_err();
        assert!(error.to_string().contains("`all` is a reserved word"), "{error}");
    }

    #[test]
    fn hashes_survive_text() {
        let hash = BlobHash::of(b"narun");
        assert_eq!(hash.to_string().parse::<BlobHash>().unwrap(), hash);
        assert!("zz".parse::<BlobHash>().is_err());
    }
}
