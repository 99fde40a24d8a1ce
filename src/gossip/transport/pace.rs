//! How fast one member's messages are read. Pure: it is told the time.
//!
//! A member that sends more than it may is not read for a while, so that its own queue fills: that is all that happens to an honest
//! one in a storm. Who presses on for minutes is no honest one.

use std::time::Duration;

use tokio::time::Instant;

use super::rate::{Bucket, Rate};

/// Messages of one member. An idle cluster of 300 exchanges a few a second with each; a wave of deploys some hundred. The burst is
/// a full exchange of a large catalog after a week away, in messages of [`REPAIR_BYTES_MAX`](crate::gossip::sync::REPAIR_BYTES_MAX) and less.
pub const MESSAGES: Rate = Rate { per_second: 2_000, burst: 10_000 };

/// Bytes of one member's messages: more than a gigabit's share in a mesh, and a burst of the largest messages there may be.
pub const BYTES: Rate = Rate { per_second: 16 << 20, burst: 64 << 20 };

/// How long a member may press on, with never a moment in which it was not held back: the longest storm that is somebody's work
/// (a mass restart of 300 nodes) is over in half of it.
pub const PRESSING_MAX: Duration = Duration::from_secs(120);

/// What one member has sent lately.
#[derive(Debug)]
pub(super) struct Pace {
    messages: Bucket,
    bytes: Bucket,
    pressing_since: Option<Instant>,
}

/// What to do before the next message is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing.
    GoOn,
    /// Wait for so long; `first` where it was not waited for just before.
    Wait { pause: Duration, first: bool },
    /// Nothing more: it was held back for too long without a break.
    TooLong,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { messages: Bucket::new(MESSAGES, now), bytes: Bucket::new(BYTES, now), pressing_since: None }
    }

    /// A message of `length` bytes was read.
    pub(super) fn read(&mut self, length: usize, now: Instant) -> Verdict {
        let pause = self.messages.charge(1, now).max(self.bytes.charge(length, now));
        if pause.is_zero() {
            self.pressing_since = None;
            return Verdict::GoOn;
        }
        let first = self.pressing_since.is_none();
        let since = *self.pressing_since.get_or_insert(now);
        if now.saturating_duration_since(since) > PRESSING_MAX {
            return Verdict::TooLong;
        }
        Verdict::Wait { pause, first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as fast as it may, messages of this length; how many were read, and how long it took until the end.
    fn press(pace: &mut Pace, now: &mut Instant, length: usize, most: usize) -> (usize, Duration, Option<Verdict>) {
        let began = *now;
        for read in 0..most {
            match pace.read(length, *now) {
                Verdict::GoOn => {}
                Verdict::Wait { pause, .. } => *now += pause,
                Verdict::TooLong => return (read, *now - began, Some(Verdict::TooLong)),
            }
        }
        (most, *now - began, None)
    }

    #[test]
    fn a_burst_is_read_at_once_and_more_at_the_rate() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(press(&mut pace, &mut now, 100, 10_000), (10_000, Duration::ZERO, None));
        let (_, took, end) = press(&mut pace, &mut now, 100, 20_000);
        assert_eq!((took.as_secs_f64().round(), end), (10.0, None), "two thousand a second");
        // The largest messages count by their bytes.
        now += Duration::from_secs(60);
        assert_eq!(press(&mut pace, &mut now, 8 << 20, 8), (8, Duration::ZERO, None));
        let (_, took, _) = press(&mut pace, &mut now, 8 << 20, 8);
        assert_eq!(took.as_secs_f64().round(), 4.0, "sixteen megabytes a second");
    }

    #[test]
    fn who_presses_on_for_minutes_is_dropped_and_who_takes_breath_is_not() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..10 {
            let (_, _, end) = press(&mut pace, &mut now, 100, 200_000);
            assert_eq!(end, None, "within the time");
            now += Duration::from_millis(10);
        }
        let (_, took, end) = press(&mut pace, &mut now, 100, usize::MAX);
        assert_eq!(end, Some(Verdict::TooLong));
        assert!(took >= PRESSING_MAX && took < PRESSING_MAX + Duration::from_secs(1), "{took:?}");
    }

    #[test]
    fn the_first_wait_of_several_is_told_apart() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.read(BYTES.burst as usize, now), Verdict::GoOn);
        assert!(matches!(pace.read(1 << 20, now), Verdict::Wait { first: true, .. }));
        assert!(matches!(pace.read(1 << 20, now), Verdict::Wait { first: false, .. }));
        assert_eq!(pace.read(1, now + Duration::from_secs(1)), Verdict::GoOn);
        assert!(matches!(pace.read(64 << 20, now + Duration::from_secs(1)), Verdict::Wait { first: true, .. }));
    }
}
