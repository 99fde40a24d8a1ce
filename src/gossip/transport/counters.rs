//! What the transport refused, dropped or lost, each kind under its own name. Shell.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each thing happened since the start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Each with its name, in the order in which a connection meets them.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
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
    /// Connections refused because their address began too many within a short time.
    handshakes_hurried,
    /// Connections refused because too many handshakes of their address were under way.
    handshakes_crowded,
    /// Connections from outside that broke off before their key was proven.
    handshakes_failed,
    /// Connections from outside whose key was not proven in time.
    handshakes_slow,
    /// Proven strangers refused because as many as may were there already.
    strangers_refused,
    /// Proven strangers refused because as many as may were there already from their address.
    strangers_crowded,
    /// Strangers cut because their time was over.
    strangers_overdue,
    /// Streams of members' protocols that strangers opened: dropped unread.
    strangers_trespassing,
    /// Second streams that strangers opened at the door: dropped unread.
    strangers_insisting,
    /// Requests at the door refused because too many came from everywhere.
    door_hurried,
    /// Requests at the door refused because too many came from their address.
    door_pestered,
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
    /// First frames of members' links that make no sense; the connection was closed.
    greetings_garbled,
    /// Times that a member was not read for a moment because it sent more than it may.
    members_held_back,
    /// Members' connections closed because they sent more than they may for minutes.
    members_pressing,
    /// Connections of members refused because they broke a limit not long ago.
    members_barred,
    /// Connections of members refused because they hold as many as they may.
    members_crowded,
    /// Members' connections closed because nothing came for too long.
    members_silent,
    /// Members found to speak a newer version of the protocol.
    members_newer,
    /// Connections refused because another process with the same key is connected and lives.
    copies_refused,
    /// Times that a member called this process a copy and could not prove it.
    copies_unproven,
    /// Streams of members dropped because they have as many open as they may.
    streams_crowded,
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
    Pestered,
    Garbled,
    Oversized,
    OtherCluster,
    Slow,
}

impl Tally {
    pub(super) fn of_door(&self, fault: DoorFault) -> &AtomicU64 {
        match fault {
            DoorFault::Hurried => &self.door_hurried,
            DoorFault::Pestered => &self.door_pestered,
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
