//! The system's clocks. Shell: the only place in a running node that looks at one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::shells::Clock;
use crate::time::{Mono, Now, Wall};

/// Longest sleep at a stretch: tokio's timers stand still while the host is suspended and know nothing of steps of the wall
/// clock, so that either is noticed after this time at the latest.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// CLOCK_BOOTTIME and the calendar.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
        let seconds = u64::try_from(boot.tv_sec()).unwrap_or(0);
        let millis = u64::try_from(boot.tv_nsec()).unwrap_or(0) / 1_000_000;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Mono(seconds * 1_000 + millis), wall: Wall(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    async fn wait_until(&self, deadline: Mono) {
        let left = deadline.since(self.now().mono);
        tokio::time::sleep(left.min(SLEEP_MAX)).await;
    }
}
