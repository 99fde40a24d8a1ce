//! What the transport refused, dropped or lost, each kind under its own name. Shell.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each thing happened since the start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, while it is being counted.
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Tally {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections refused because too many handshakes were under way.
    handshakes_refused,
    /// Connections from outside that broke off before their key was proven.
    handshakes_failed,
    /// Proven strangers refused because as many as may were there already.
    strangers_refused,
    /// Strangers cut because their time was over.
    strangers_overdue,
    /// Streams of members' protocols that strangers opened: dropped unread.
    strangers_trespassing,
    /// Second streams that strangers opened at the door: dropped unread.
    strangers_insisting,
    /// Requests at the door refused because too many came.
    door_hurried,
    /// Requests at the door that could not be read.
    door_garbled,
    /// Requests at the door that were too long.
    door_oversized,
    /// Requests at the door with a ticket of another cluster.
    door_other_cluster,
    /// Requests at the door that were not over in time.
    door_slow,
    /// Connections made to an address where somebody else than the member answered.
    impostors,
    /// Frames of members longer than the longest allowed; the connection was closed.
    frames_oversized,
    /// Members' connections closed because nothing came for too long.
    members_silent,
    /// Streams dropped because those who serve the protocol were too slow to take them.
    streams_dropped,
    /// Messages not sent because the queue to the member was full.
    messages_overflowed,
    /// Messages not sent because they were longer than a frame may be.
    messages_oversized,
    /// Messages not sent because the member was not connected.
    messages_unconnected,
}

/// What can be wrong with a knock at the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gossip) enum DoorFault {
    Hurried,
    Garbled,
    Oversized,
    OtherCluster,
    Slow,
}

impl Tally {
    pub(super) fn of_door(&self, fault: DoorFault) -> &AtomicU64 {
        match fault {
            DoorFault::Hurried => &self.door_hurried,
            DoorFault::Garbled => &self.door_garbled,
            DoorFault::Oversized => &self.door_oversized,
            DoorFault::OtherCluster => &self.door_other_cluster,
            DoorFault::Slow => &self.door_slow,
        }
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
