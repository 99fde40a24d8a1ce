//! One direction of one link: what is on its way, in order.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use narun::node::engine::input::NetworkEvent;

use crate::random::{self, Stream};

use super::Weather;

/// Most messages on their way in one direction: what the queue to one member holds in the binary, and its socket buffers.
/// Beyond it the newest are dropped.
pub(crate) const PARCELS_MAX: usize = 1_024;

/// From one host to another.
#[derive(Default)]
pub(super) struct Wire {
    /// True: nothing comes through.
    pub(super) cut: bool,
    /// Counts cuts and heals, so that a timer set under one of them knows that it is out of date.
    pub(super) changes: u64,
    /// The connection that the receiver was told of and was not told has broken.
    pub(super) shown: Option<u64>,
    /// The least delay, as a share of the weather's slowest link.
    length: f64,
    parcels: VecDeque<Parcel>,
}

/// One thing on its way.
pub(super) struct Parcel {
    /// When it arrives.
    pub(super) due: Instant,
    /// What arrives.
    pub(super) event: NetworkEvent,
}

impl Parcel {
    /// Whether it comes over the link, so that a cut holds it up; the rest is what the receiver's own system tells it.
    fn travels(&self) -> bool {
        matches!(self.event, NetworkEvent::Message { .. })
    }
}

impl Wire {
    /// A whole wire of that length.
    pub(super) fn new(length: f64) -> Self {
        Self { length, ..Self::default() }
    }

    /// How long the next message takes.
    pub(super) fn latency(&self, stream: &mut Stream, weather: &Weather) -> Duration {
        let least = 1 + (self.length * weather.latency_ms_max as f64) as u64;
        let jitter = stream.random_range(0..=least / 2);
        let late = stream.random_range(0..1_000) < weather.late_per_mille;
        Duration::from_millis(if late { (least + jitter) * 10 } else { least + jitter })
    }

    /// Puts something at the end, to arrive `after` from now and not before what is there. Gives back when, or nothing if a
    /// message found the wire full.
    pub(super) fn push(&mut self, event: NetworkEvent, after: Duration) -> Option<Instant> {
        let now = Instant::now();
        let due = self.parcels.back().map_or(now + after, |last| last.due.max(now + after));
        let parcel = Parcel { due, event };
        if parcel.travels() && self.parcels.len() >= PARCELS_MAX {
            return None;
        }
        self.parcels.push_back(parcel);
        Some(due)
    }

    /// Takes what has arrived by now, if the wire lets it through.
    pub(super) fn pop(&mut self) -> Option<Parcel> {
        let front = self.parcels.front()?;
        let held = self.cut && front.travels();
        if held || front.due > Instant::now() { None } else { self.parcels.pop_front() }
    }

    /// Puts back what the receiver had no room for.
    pub(super) fn unpop(&mut self, parcel: Parcel) {
        self.parcels.push_front(parcel);
    }

    /// Loses every message; what the receiver's own system says stays.
    pub(super) fn clear(&mut self) {
        self.parcels.retain(|parcel| !parcel.travels());
    }
}

/// After how long a connection over a cut link is given up: unanswered data is sent again for that long.
pub(super) fn give_up_after(stream: &mut Stream) -> Duration {
    random::millis(stream, 4_000, 15_000)
}

/// How long it takes until two nodes that may are connected: back-off and a few round trips.
pub(super) fn dial_after(stream: &mut Stream) -> Duration {
    random::millis(stream, 10, 1_500)
}
