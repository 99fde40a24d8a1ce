//! Members that break limits: each strike bars them for longer. Pure: it is told the time.
//!
//! A member that is cut for a fault dials again at once, and honest members are made by the same code: without a pause a node
//! with a fault, or with malice, would cost its peers a handshake and a burst several times a second, for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::NodeKey;

/// How long the first strike bars: a fault that does not come again costs no more than a restart.
pub const BAR_MIN: Duration = Duration::from_secs(1);

/// The longest bar: somebody who has mended the member's host sees it back within it.
pub const BAR_MAX: Duration = Duration::from_secs(300);

/// A member without a strike for this long, its bar not counted, begins anew.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// What is held against members.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    records: BTreeMap<NodeKey, Record>,
}

#[derive(Debug)]
struct Record {
    strikes: u32,
    barred_until: Instant,
}

impl Conduct {
    /// One more strike: until when the member is barred now.
    pub(super) fn strike(&mut self, key: NodeKey, now: Instant) -> Instant {
        self.records.retain(|_, record| now < record.barred_until + FORGIVEN_AFTER);
        let record = self.records.entry(key).or_insert(Record { strikes: 0, barred_until: now });
        let bar = BAR_MIN.saturating_mul(2_u32.saturating_pow(record.strikes)).min(BAR_MAX);
        record.strikes += 1;
        record.barred_until = now + bar;
        record.barred_until
    }

    /// Whether it is not to be let in now.
    pub(super) fn is_barred(&self, key: &NodeKey, now: Instant) -> bool {
        self.records.get(key).is_some_and(|record| now < record.barred_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_double_up_to_the_longest_and_good_conduct_is_rewarded() {
        let mut now = Instant::now();
        let (one, other) = (NodeKey([1; 32]), NodeKey([2; 32]));
        let mut conduct = Conduct::default();
        let mut bars = Vec::new();
        for _ in 0..11 {
            let until = conduct.strike(one, now);
            assert!(conduct.is_barred(&one, now) && !conduct.is_barred(&other, now) && !conduct.is_barred(&one, until));
            bars.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(bars, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let until = conduct.strike(one, now + FORGIVEN_AFTER);
        assert_eq!(until - now - FORGIVEN_AFTER, BAR_MIN);
    }
}
