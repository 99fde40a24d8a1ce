//! How often a link says that it is alive, and how long it may be silent. Pure, but for the one number that all links share.
//!
//! In a small cluster a link that was cut is given up after ten seconds, so that a network that heals is used at once. In a large
//! one a hundred links would then be most of what an idle node says; there SWIM finds out about hosts long before their links do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// After how long without a message an empty frame is sent, in a small cluster.
const KEEPALIVE_MIN: Duration = Duration::from_secs(3);

/// The same in a large one: half of what common firewalls and address translators remember an idle connection for at least.
const KEEPALIVE_MAX: Duration = Duration::from_secs(15);

/// By how much it grows with each member: up to 100 members a node sends at most seven empty frames a second, with 300 twenty.
const KEEPALIVE_OF_ONE: Duration = Duration::from_millis(150);

/// How many empty frames may be lost, with a second on top, before a link is taken for broken.
const LOST_MAX: u32 = 3;

/// How long a link may be silent at least.
pub const SILENCE_MIN: Duration = Duration::from_secs(10);

/// The number of members, which sets the pace.
#[derive(Debug, Default)]
pub(super) struct Rest(AtomicUsize);

impl Rest {
    /// There are this many members now.
    pub(super) fn set_members(&self, members: usize) {
        self.0.store(members, Ordering::Relaxed);
    }

    /// After how long without a message an empty frame is sent.
    pub(super) fn keepalive(&self) -> Duration {
        let members = u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        KEEPALIVE_OF_ONE.saturating_mul(members).clamp(KEEPALIVE_MIN, KEEPALIVE_MAX)
    }

    /// How long a link may be silent before it is taken for broken.
    pub(super) fn silence_max(&self) -> Duration {
        (self.keepalive() * LOST_MAX + Duration::from_secs(1)).max(SILENCE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_large_cluster_speak_less_often() {
        let rest = Rest::default();
        let at = |members| {
            rest.set_members(members);
            (rest.keepalive().as_secs(), rest.silence_max().as_secs())
        };
        assert_eq!([at(0), at(20), at(60), at(300)], [(3, 10), (3, 10), (9, 28), (15, 46)]);
        for members in 0..=300 {
            rest.set_members(members);
            assert!(members as f64 / rest.keepalive().as_secs_f64() <= 20.0 + f64::EPSILON, "{members}");
        }
    }
}
