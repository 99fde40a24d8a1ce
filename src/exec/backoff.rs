//! When to try again. Pure.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The first delay: a service that fell over once is back before anybody notices.
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay: what keeps failing costs next to nothing, and is back within a minute of its cause going away.
const LONGEST: Duration = Duration::from_secs(60);

/// How far a delay is spread, so that what fell together does not come back together.
const SPREAD: f64 = 0.2;

/// How many restarts are free before healthy time has to earn more.
const BUDGET: u32 = 5;

/// How much healthy time earns one restart: five in ten minutes.
const REFILL: Duration = Duration::from_secs(120);

/// How long something must have been up for its delays to begin at the first one again.
const HEALTHY: Duration = Duration::from_secs(10);

/// The delays and the budget of one thing that may fail again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backoff {
    failures: u32,
    budget: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, budget: BUDGET }
    }
}

impl Backoff {
    /// It failed after having been up for `healthy`: how long to wait before the next try; none when the budget is used up.
    pub fn failed(&mut self, healthy: Duration, rng: &mut impl Rng) -> Option<Duration> {
        if healthy >= HEALTHY {
            self.failures = 0;
        }
        let earned = u32::try_from(healthy.as_secs() / REFILL.as_secs()).unwrap_or(BUDGET);
        self.budget = self.budget.saturating_add(earned).min(BUDGET).checked_sub(1)?;
        Some(self.next_delay(rng))
    }

    /// The same where there is no budget: a fetch is tried for as long as it is wanted.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(rng.random_range(1.0 - SPREAD..=1.0 + SPREAD))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        let (mut backoff, mut rng) = (Backoff::default(), ChaCha8Rng::seed_from_u64(1));
        for exponent in 0..20_u32 {
            let nominal = FIRST.saturating_mul(2_u32.saturating_pow(exponent)).min(LONGEST);
            let delay = backoff.next_delay(&mut rng);
            assert!(delay >= nominal.mul_f64(0.79) && delay <= nominal.mul_f64(1.21), "{exponent}: {delay:?}");
        }
    }

    #[test]
    fn the_budget_ends_and_healthy_time_refills_it() {
        let (mut backoff, mut rng) = (Backoff::default(), ChaCha8Rng::seed_from_u64(1));
        for _ in 0..BUDGET {
            assert!(backoff.failed(Duration::ZERO, &mut rng).is_some());
        }
        assert_eq!(backoff.failed(Duration::ZERO, &mut rng), None);
        assert_eq!(backoff.failed(REFILL / 2, &mut rng), None);
        let delay = backoff.failed(REFILL, &mut rng).unwrap();
        assert!(delay < FIRST * 2, "healthy time also shortens the delay: {delay:?}");
        assert_eq!(backoff.failed(Duration::ZERO, &mut rng), None);
        assert!(backoff.failed(REFILL * 100, &mut rng).is_some());
    }
}
