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

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
