//! What one address may do to the port, whoever speaks from it: nobody is proven yet. Pure: it is told the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol as Part;
use tokio::time::Instant;

use super::rate::{Buckets, Rate};

/// How many connections one address may begin. Three hundred nodes on one host, or behind one address, all come back at once after
/// a power cut; those who are refused dial again.
pub const HANDSHAKES_FROM_ONE: Rate = Rate { per_second: 50, burst: 500 };

/// How many of an address's connections may be in their handshake: half of all, so that the other half is left to others.
pub const HANDSHAKES_FROM_ONE_MAX: usize = super::HANDSHAKES_MAX / 2;

/// How many strangers may be there from one address: half of all, so that nobody alone can keep the door shut for others.
pub const STRANGERS_FROM_ONE_MAX: usize = super::STRANGERS_MAX / 2;

/// How many addresses are remembered: far more than a cluster has, and some hundred kilobytes.
pub const ORIGINS_MAX: usize = 4096;

/// Where a connection comes from: an IPv4 address, or the 64 bits of an IPv6 address that name a network, since whoever has one of
/// its addresses has them all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::gossip) struct Origin(IpAddr);

impl Origin {
    /// None where the address holds no IP address, which TCP has always.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        address.iter().find_map(|part| match part {
            Part::Ip4(ip) => Some(Self::new(ip.into())),
            Part::Ip6(ip) => Some(Self::new(ip.into())),
            _ => None,
        })
    }

    fn new(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(ip) => Self(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
            v4 => Self(v4),
        }
    }
}

/// Why an address is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Excess {
    /// It began too many connections lately.
    Hurried,
    /// Too many of its connections are in their handshake.
    Crowded,
}

/// What all addresses are doing.
#[derive(Debug)]
pub(super) struct Origins {
    begun: Buckets<Origin>,
    handshakes: Count,
    strangers: Count,
}

impl Origins {
    pub(super) fn new() -> Self {
        let begun = Buckets::new(HANDSHAKES_FROM_ONE, ORIGINS_MAX);
        Self { begun, handshakes: Count::default(), strangers: Count::default() }
    }

    /// A connection begins: whether its handshake may.
    pub(super) fn begin(&mut self, origin: Origin, now: Instant) -> Result<(), Excess> {
        if !self.begun.takes(origin, now) {
            return Err(Excess::Hurried);
        }
        if self.handshakes.enter(origin, HANDSHAKES_FROM_ONE_MAX) { Ok(()) } else { Err(Excess::Crowded) }
    }

    /// Its handshake is over, one way or the other.
    pub(super) fn end(&mut self, origin: Origin) {
        self.handshakes.leave(origin);
    }

    /// Whether one more stranger may come from there.
    pub(super) fn enter(&mut self, origin: Origin) -> bool {
        self.strangers.enter(origin, STRANGERS_FROM_ONE_MAX)
    }

    /// A stranger has left.
    pub(super) fn leave(&mut self, origin: Origin) {
        self.strangers.leave(origin);
    }
}

/// How many there are from each address; addresses with none take no room.
#[derive(Debug, Default)]
struct Count(BTreeMap<Origin, usize>);

impl Count {
    fn enter(&mut self, origin: Origin, max: usize) -> bool {
        let count = self.0.entry(origin).or_default();
        let enters = *count < max;
        if enters {
            *count += 1;
        }
        enters
    }

    fn leave(&mut self, origin: Origin) {
        if let Some(count) = self.0.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(ip: &str) -> Origin {
        Origin::new(ip.parse().unwrap())
    }

    #[test]
    fn a_network_is_one_origin_and_a_mapped_address_is_its_ipv4_self() {
        assert_eq!(origin("2001:db8:1:2::7"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::7"), origin("2001:db8:1:3::7"));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(Origin::of(&"/ip4/10.0.0.1/tcp/9".parse().unwrap()), Some(origin("10.0.0.1")));
        assert_eq!(Origin::of(&"/dns/example/tcp/9".parse().unwrap()), None);
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let now = Instant::now();
        let (one, other) = (origin("10.0.0.1"), origin("10.0.0.2"));
        let mut origins = Origins::new();
        for _ in 0..HANDSHAKES_FROM_ONE_MAX {
            assert_eq!(origins.begin(one, now), Ok(()));
        }
        assert_eq!(origins.begin(one, now), Err(Excess::Crowded));
        assert_eq!(origins.begin(other, now), Ok(()));
        origins.end(one);
        assert_eq!(origins.begin(one, now), Ok(()));

        let mut hurried = 0;
        for _ in 0..HANDSHAKES_FROM_ONE.burst {
            match origins.begin(one, now) {
                Ok(()) => origins.end(one),
                Err(Excess::Hurried) => hurried += 1,
                Err(Excess::Crowded) => {}
            }
        }
        assert_eq!(hurried, HANDSHAKES_FROM_ONE_MAX + 2, "what was begun before counts");

        for _ in 0..STRANGERS_FROM_ONE_MAX {
            assert!(origins.enter(one));
        }
        assert!(!origins.enter(one) && origins.enter(other));
        origins.leave(one);
        assert!(origins.enter(one));
    }
}
