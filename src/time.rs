//! The two times narun knows. Pure: nothing here reads a clock; only `node/runtime` does.
//!
//! [`Mono`] is for waiting: it never jumps, counts through suspend (CLOCK_BOOTTIME, clock_gettime(2)) and means nothing on
//! another node or after a reboot. [`Wall`] is for people and for stamps: it may jump, so nothing waits on it.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment on this host's boot clock, in milliseconds. Written down only for the keeper, which has the same clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Mono(#[n(0)] pub u64);

impl Mono {
    /// How long `earlier` lies back; zero if it is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;

    fn sub(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A moment of calendar time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Wall(#[n(0)] pub u64);

impl Wall {
    /// How long `earlier` lies back; zero if it is later.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment later by `span`.
    pub fn plus(self, span: Duration) -> Wall {
        Wall(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 in UTC, with milliseconds.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match DateTime::<Utc>::from_timestamp_millis(millis) {
            Some(time) => f.pad(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => f.pad("-"),
        }
    }
}

/// What [`Wall`]'s `Display` writes. Fails for text that is no moment since 1970.
impl FromStr for Wall {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| NoMoment)?;
        u64::try_from(time.timestamp_millis()).map(Wall).map_err(|_| NoMoment)
    }
}

/// Text that is no moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMoment;

impl fmt::Display for NoMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no moment since 1970 in the form of RFC 3339")
    }
}

/// Both clocks, read at one moment: what the engine is given with each batch of inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For deadlines.
    pub mono: Mono,
    /// For people and stamps.
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        for moment in [Wall(0), Wall(1_792_843_200_123), Wall(4_102_444_800_000)] {
            assert_eq!(moment.to_string().parse(), Ok(moment));
        }
        for text in ["", "-", "1969-12-31T23:59:59Z", "2026-11-21"] {
            assert_eq!(text.parse::<Wall>(), Err(NoMoment), "{text}");
        }
    }
}
