//! Names and addresses: what narun says (`NodeKey`, `HOST:PORT`) and what libp2p says for it. Shell: it asks the resolver.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId, identity};
use tokio::time::timeout;

use crate::ids::NodeKey;

/// How many addresses of one member are dialled: more than anyone has, few enough that a member cannot make others knock
/// through a whole network.
pub const ADDRESSES_MAX: usize = 8;

/// How long the resolver may think about one name; it is asked again with the next dial.
const RESOLVE_MAX: Duration = Duration::from_secs(3);

/// One address, and why it did not lead to the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressFailure {
    /// `HOST:PORT`.
    pub address: String,
    /// Why.
    pub cause: String,
    /// Whether somebody answered there, but with another key.
    pub impostor: bool,
}

impl fmt::Display for AddressFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.address, self.cause)
    }
}

/// libp2p's name for a node. None where the bytes are no key at all: such a node cannot exist.
pub(super) fn peer_id(key: &NodeKey) -> Option<PeerId> {
    let public = identity::ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(PeerId::from_public_key(&identity::PublicKey::from(public)))
}

/// narun's name for a peer. None for keys of another kind than ed25519, which no node has.
pub(super) fn node_key(peer: &PeerId) -> Option<NodeKey> {
    // A short public key stands in the identifier itself (multihash code 0, identity).
    let hash = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    let public = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(NodeKey(public.try_into_ed25519().ok()?.to_bytes()))
}

/// `/ip4|ip6/…/tcp/…`.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    let host = match address {
        SocketAddr::V4(v4) => Part::Ip4(*v4.ip()),
        SocketAddr::V6(v6) => Part::Ip6(*v6.ip()),
    };
    Multiaddr::empty().with(host).with(Part::Tcp(address.port()))
}

/// The port in a TCP address.
pub(super) fn tcp_port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Part::Tcp(port) => Some(port),
        _ => None,
    })
}

/// Looks up every `HOST:PORT`: what was found, in the order given, with the words it was found by; and what was not.
pub(super) async fn resolve(addresses: &[String]) -> (Vec<(String, SocketAddr)>, Vec<AddressFailure>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let failure = match timeout(RESOLVE_MAX, tokio::net::lookup_host(address.as_str())).await {
            Ok(Ok(hosts)) => {
                let before = found.len();
                found.extend(hosts.map(|host| (address.clone(), host)));
                if found.len() > before {
                    continue;
                }
                "the name has no address".to_owned()
            }
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => "the resolver did not answer in time".to_owned(),
        };
        failures.push(AddressFailure { address: address.clone(), cause: failure, impostor: false });
    }
    found.truncate(ADDRESSES_MAX);
    (found, failures)
}

/// The innermost cause of an error: libp2p wraps `connection refused` in four layers of its own words.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::identity::Identity;

    #[test]
    fn a_key_survives_the_way_to_libp2p_and_back() {
        let key = Identity::generate().key();
        assert_eq!(node_key(&peer_id(&key).unwrap()), Some(key));
        assert_eq!(node_key(&PeerId::random()), None, "a hashed key names no node");
    }

    #[tokio::test]
    async fn addresses_are_looked_up_in_order_and_failures_are_named() {
        let asked = ["127.0.0.1:7", "no port", "[::1]:8", "127.0.0.1:99999"].map(str::to_owned);
        let (found, failures) = resolve(&asked).await;
        let found: Vec<String> = found.into_iter().map(|(_, host)| host.to_string()).collect();
        assert_eq!(found, ["127.0.0.1:7", "[::1]:8"]);
        let failed: Vec<&str> = failures.iter().map(|failure| failure.address.as_str()).collect();
        assert_eq!(failed, ["no port", "127.0.0.1:99999"]);
    }

    #[test]
    fn an_address_becomes_a_dialable_one() {
        let address = multiaddr("127.0.0.1:7000".parse().unwrap());
        assert_eq!(address.to_string(), "/ip4/127.0.0.1/tcp/7000");
        assert_eq!(tcp_port(&address), Some(7000));
        assert_eq!(multiaddr("[::1]:7".parse().unwrap()).to_string(), "/ip6/::1/tcp/7");
    }
}
