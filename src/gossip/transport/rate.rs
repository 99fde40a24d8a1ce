//! Token buckets: how much of something may pass in a second, and how much at once. Pure: they are told the time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How much may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// In a second, for as long as one likes.
    pub per_second: u32,
    /// At once, after a rest.
    pub burst: u32,
}

/// One bucket. It is full at first, and fills evenly.
#[derive(Clone, Copy, Debug)]
pub(in crate::gossip) struct Bucket {
    rate: Rate,
    /// Below zero after a charge that was larger than what was there.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(in crate::gossip) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), at: now }
    }

    /// Takes one, if one is there.
    pub(in crate::gossip) fn takes(&mut self, now: Instant) -> bool {
        self.fill(now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    /// Takes `amount` whether or not it is there, and tells how long to wait until the bucket is out of debt.
    pub(super) fn charge(&mut self, amount: usize, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= amount as f64;
        Duration::from_secs_f64((-self.tokens / f64::from(self.rate.per_second)).max(0.0))
    }

    /// Whether it is as if nothing had ever been taken.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= f64::from(self.rate.burst)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * f64::from(self.rate.per_second)).min(f64::from(self.rate.burst));
    }
}

/// A bucket for each of many, of which only so many are remembered.
#[derive(Debug)]
pub(in crate::gossip) struct Buckets<K> {
    rate: Rate,
    remembered_max: usize,
    buckets: BTreeMap<K, Bucket>,
}

impl<K: Ord> Buckets<K> {
    pub(in crate::gossip) fn new(rate: Rate, remembered_max: usize) -> Self {
        Self { rate, remembered_max, buckets: BTreeMap::new() }
    }

    /// Takes one from the bucket of `key`, if one is there. Nobody new is taken while as many as may are remembered: they were all
    /// here within the time that a bucket takes to fill.
    pub(in crate::gossip) fn takes(&mut self, key: K, now: Instant) -> bool {
        if self.buckets.len() >= self.remembered_max && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.remembered_max {
                return false;
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::new(self.rate, now)).takes(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    #[test]
    fn a_burst_passes_at_once_and_then_one_at_a_time() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(RATE, now);
        assert_eq!((0..100).filter(|_| bucket.takes(now)).count(), 20);
        for _ in 0..3 {
            now += Duration::from_millis(101);
            assert!(bucket.takes(now) && !bucket.takes(now));
        }
        now += Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.takes(now)).count(), 20, "a long rest is worth one burst");
    }

    #[test]
    fn a_debt_is_waited_for_and_a_clock_that_stands_still_forgives_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::new(RATE, now);
        assert_eq!(bucket.charge(20, now), Duration::ZERO);
        assert_eq!(bucket.charge(15, now), Duration::from_millis(1500));
        assert_eq!(bucket.charge(0, now + Duration::from_secs(1)), Duration::from_millis(500));
        assert!(!bucket.takes(now));
        assert!(!bucket.is_full(now + Duration::from_secs(3)) && bucket.is_full(now + Duration::from_secs(4)));
    }

    #[test]
    fn one_s_hurry_is_not_another_s_and_the_memory_is_bounded() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATE, 2);
        assert_eq!((0..30).filter(|_| buckets.takes('a', now)).count(), 20);
        assert!(buckets.takes('b', now));
        assert!(!buckets.takes('c', now), "nobody new while two are remembered");
        assert!(buckets.takes('b', now));
        let later = now + Duration::from_secs(1);
        assert!(buckets.takes('c', later), "who has rested is forgotten");
        assert!(!buckets.takes('d', later));
    }
}
