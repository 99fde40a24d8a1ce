//! The ledger's own time, and slots. Pure.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use crate::time::Wall;

/// Milliseconds for which the ledger has had a leader, more or less: each leader goes on from the last stamp in the log by its own
/// boot clock. It only grows, stands still while there is no leader, and has nothing to do with the calendar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct LedgerTime(#[n(0)] pub u64);

impl LedgerTime {
    /// How long `earlier` lies back; zero if it is later.
    pub fn since(self, earlier: LedgerTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for LedgerTime {
    type Output = LedgerTime;

    fn add(self, span: Duration) -> LedgerTime {
        LedgerTime(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// One due time of a cron spec, in seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Slot(#[n(0)] pub u64);

impl Slot {
    /// The slot as a moment of calendar time.
    pub fn wall(self) -> Wall {
        Wall(self.0.saturating_mul(1_000))
    }

    /// The second that `time` lies in.
    pub fn at(time: Wall) -> Self {
        Self(time.0 / 1_000)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wall().fmt(f)
    }
}
