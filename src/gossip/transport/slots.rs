//! How many streams may be open with one member, for each protocol and each direction. Shell.
//!
//! A stream holds its slot until it is dropped. Both sides keep to the same numbers: a node opens no more than the other would
//! take, so that only a member with a fault or with malice is ever refused a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Protocol;

/// How many streams one connection may carry in both directions, whatever they are for: all the slots below, both ways, and
/// a few that are about to go. An unread stream takes up to 256 KiB (yamux).
pub const STREAMS_PER_CONNECTION_MAX: usize = 256;

/// How many streams a member may have open here at once.
pub(super) const fn slots_of(protocol: Protocol) -> usize {
    match protocol {
        // The link that stands, the one that replaces it, and what is left of those before.
        Protocol::Gossip => 4,
        // One lost welcome is asked for again.
        Protocol::Join => 2,
        // One newcomer is on trial at a time; the next one after that.
        Protocol::Life => 2,
        // Twice what the provider serves one member at a time, as those that end overlap with those that begin.
        Protocol::Blobs => 32,
        // A follower of logs holds one for as long as somebody looks.
        Protocol::Logs => 32,
        // One for each person who looks at a service at this moment.
        Protocol::Usage => 6,
        // Short requests.
        Protocol::Api => 16,
        // Kept for the next request: entries, snapshots, questions (`ledger::raft::streams`).
        Protocol::Ledger => 32,
    }
}

/// A place for one stream; free again when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The places of one member in one direction.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<Protocol, Arc<Semaphore>>);

impl Slots {
    /// A place, if one is free.
    pub(super) fn take(&mut self, protocol: Protocol) -> Option<Slot> {
        let places = self.0.entry(protocol).or_insert_with(|| Arc::new(Semaphore::new(slots_of(protocol))));
        let permit = places.clone().try_acquire_owned().ok()?;
        Some(Slot { _permit: Arc::new(permit) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_last_clone_is_gone() {
        let mut slots = Slots::default();
        let mut taken: Vec<Slot> = std::iter::from_fn(|| slots.take(Protocol::Api)).collect();
        assert_eq!(taken.len(), slots_of(Protocol::Api));
        assert!(slots.take(Protocol::Logs).is_some(), "protocols do not share");
        let half = taken.pop().unwrap();
        let other_half = half.clone();
        drop(half);
        assert!(slots.take(Protocol::Api).is_none());
        drop(other_half);
        assert!(slots.take(Protocol::Api).is_some());
    }

    #[test]
    fn a_connection_carries_all_slots_both_ways() {
        use Protocol::{Api, Blobs, Gossip, Join, Ledger, Life, Logs, Usage};
        let all: usize = [Gossip, Join, Life, Blobs, Logs, Usage, Api, Ledger].into_iter().map(slots_of).sum();
        assert!(2 * all <= STREAMS_PER_CONNECTION_MAX, "{all}");
    }
}
