//! A host's two clocks, made of the one virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use narun::node::shells::Clock;
use narun::time::{Mono, Now, Wall};

/// When every world begins: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH_MS: i64 = 1_767_225_600_000;

/// What the boot clock shows when a host starts: not zero, so that a zero in the engine stands out.
const UPTIME_AT_START_MS: u64 = 5_000;

/// How often the loop may read the clock in one millisecond. It reads once a batch; more than this is a deadline that lies in
/// the past for ever, and virtual time would stand still.
const READS_PER_MS_MAX: u32 = 5_000;

/// The clock of one host; cheap to clone.
#[derive(Clone)]
pub(crate) struct SimClock(Arc<Inner>);

struct Inner {
    start: Instant,
    host: String,
    state: Mutex<State>,
    /// Counts steps of the wall clock.
    steps: watch::Sender<u64>,
}

struct State {
    booted: Instant,
    skew_ms: i64,
    last_read: Instant,
    reads: u32,
}

impl SimClock {
    /// The clock of `host`, off by `skew_ms` milliseconds.
    pub(crate) fn new(host: &str, skew_ms: i64) -> Self {
        let start = Instant::now();
        let state = State { booted: start, skew_ms, last_read: start, reads: 0 };
        Self(Arc::new(Inner { start, host: host.to_owned(), state: Mutex::new(state), steps: watch::Sender::new(0) }))
    }

    /// The host was started anew: its boot clock begins again.
    pub(crate) fn reboot(&self) {
        self.lock().booted = Instant::now();
    }

    /// Steps the wall clock: it is off by `skew_ms` from now on.
    pub(crate) fn set_skew(&self, skew_ms: i64) {
        self.lock().skew_ms = skew_ms;
        self.0.steps.send_modify(|steps| *steps += 1);
    }

    /// How far the wall clock is ahead, in milliseconds.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.lock().skew_ms
    }

    /// The wall clock, for shells.
    pub(crate) fn wall(&self) -> Wall {
        let elapsed = i64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        Wall(u64::try_from(EPOCH_MS + elapsed + self.lock().skew_ms).unwrap_or(0))
    }

    /// Both clocks; not counted as a read of the loop.
    pub(crate) fn read(&self) -> Now {
        let uptime = self.lock().booted.elapsed().as_millis() as u64;
        Now { mono: Mono(UPTIME_AT_START_MS + uptime), wall: self.wall() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        {
            let mut state = self.lock();
            let now = Instant::now();
            if state.last_read == now {
                state.reads += 1;
            } else {
                (state.last_read, state.reads) = (now, 0);
            }
            assert!(
                state.reads < READS_PER_MS_MAX,
                "{}: {READS_PER_MS_MAX} turns in one millisecond: its deadline does not move on",
                self.0.host
            );
        }
        self.read()
    }

    async fn wait_until(&self, deadline: Mono) {
        let mut steps = self.0.steps.subscribe();
        let wait = deadline.since(self.read().mono);
        let due = Instant::now().checked_add(wait).filter(|_| wait < Duration::from_secs(1 << 32));
        tokio::select! {
            biased;
            _ = steps.changed() => {}
            () = async { match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            } } => {}
        }
    }
}

mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_of_the_wall_clock_ends_the_wait_and_leaves_the_boot_clock_alone() {
        let clock = SimClock::new("n0", 0);
        let before = clock.read();
        let waiter = tokio::spawn({
            let clock = clock.clone();
            async move { clock.wait_until(before.mono + Duration::from_secs(60)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.set_skew(600_000);
        waiter.await.unwrap();
        let after = clock.read();
        assert_eq!(after.mono.since(before.mono), Duration::from_secs(1));
        assert_eq!(after.wall.since(before.wall), Duration::from_secs(601));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_the_deadline_not_before() {
        let clock = SimClock::new("n0", 0);
        let deadline = clock.read().mono + Duration::from_millis(1_234);
        clock.wait_until(deadline).await;
        assert_eq!(clock.read().mono, deadline);
        clock.reboot();
        assert!(clock.read().mono < deadline, "a boot clock begins again with its host");
    }
}
