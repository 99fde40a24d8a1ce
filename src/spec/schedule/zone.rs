//! Time zones: which local time a clock on the wall shows at an instant, and which instant a local time means. Pure.
//!
//! One primitive is asked of the zone database: the offset at an instant. All else follows from it and from two bounds that hold
//! for every zone since 1970, and that the calendar tests look after: offsets lie within [`OFFSET_MAX`] of UTC, and no clock is
//! changed twice within [`WINDOW`]. Instants are seconds since 1970-01-01T00:00:00Z, local times are counted likewise, as if the clock
//! on the wall showed UTC.

use std::fmt;

use chrono::{DateTime, Offset, SecondsFormat, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::ScheduleError;
use crate::spec::tree::shortened;

/// Farther from UTC no clock was set since 1970, in seconds: today's go from -12 h to +14 h.
pub(super) const OFFSET_MAX: i64 = 16 * 3_600;

/// Within so many seconds a zone changes its clock at most once. Wide enough for any two offsets of one zone.
pub(super) const WINDOW: i64 = 36 * 3_600;

const DAY: i64 = 86_400;

/// Longest name of a zone that is compared with those that there are; the longest of those has 32 bytes.
const MEANT_LEN_MAX: usize = 64;

/// A zone of the IANA time zone database, as the release has it that this program was built with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zone(Tz);

impl Zone {
    /// What holds where nothing is said.
    pub const UTC: Self = Self(Tz::UTC);

    /// The zone of that name, written as in the database. Fails with the name that was most likely meant.
    pub fn parse(name: &str) -> Result<Self, ScheduleError> {
        match name.parse::<Tz>() {
            Ok(zone) => Ok(Self(zone)),
            Err(_) => Err(ScheduleError::UnknownZone(shortened(name), nearest(name))),
        }
    }

    /// Every zone of the database, links included.
    pub fn all() -> impl Iterator<Item = Self> {
        TZ_VARIANTS.iter().copied().map(Self)
    }

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The release of the zone database, such as `2025b`.
    pub fn database_release() -> &'static str {
        chrono_tz::IANA_TZDB_VERSION
    }

    /// An instant as clocks of the zone show it: RFC 3339 with the offset.
    pub fn written(self, instant: i64) -> Option<String> {
        let time = DateTime::<Utc>::from_timestamp(instant, 0)?.with_timezone(&self.0);
        Some(time.to_rfc3339_opts(SecondsFormat::Secs, false))
    }

    /// Seconds that local time is ahead of UTC.
    pub(super) fn offset(self, instant: i64) -> i64 {
        let Some(time) = DateTime::<Utc>::from_timestamp(instant, 0) else { return 0 };
        i64::from(self.0.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc())
    }

    /// The local time at an instant.
    pub(super) fn local(self, instant: i64) -> i64 {
        instant + self.offset(instant)
    }

    /// The first instant after `from`, up to `until`, at which another offset holds than at `from`. The two are at most
    /// [`WINDOW`] apart.
    pub(super) fn change(self, from: i64, until: i64) -> Option<i64> {
        debug_assert!(from <= until && until - from <= WINDOW, "{from}..{until}");
        let offset = self.offset(from);
        if self.offset(until) == offset {
            return None;
        }
        let (mut before, mut after) = (from, until);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.offset(middle) == offset {
                before = middle;
            } else {
                after = middle;
            }
        }
        Some(after)
    }

    /// The first instant at which clocks show `local`; where they never do, the first after the gap.
    pub(super) fn first_at(self, local: i64) -> i64 {
        let (from, until) = (local - OFFSET_MAX, local + OFFSET_MAX);
        let before = self.offset(from);
        match self.change(from, until) {
            None => local - before,
            Some(change) if local - before < change => local - before,
            Some(change) => change.max(local - self.offset(change)),
        }
    }

    /// The latest local time that clocks have shown up to `instant`: the present one, unless they were put back and it comes for
    /// the second time.
    pub(super) fn reached(self, instant: i64) -> i64 {
        let from = instant - WINDOW;
        let local = self.local(instant);
        match self.change(from, instant) {
            None => local,
            Some(change) => local.max(change - 1 + self.offset(change - 1)),
        }
    }

    /// Whether clocks show anything of the local day `day`, counted from 1970-01-01: some zones have left days out.
    pub(super) fn has_day(self, day: i64) -> bool {
        self.first_at(day * DAY) < self.first_at((day + 1) * DAY)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The zone whose name, or the last part of whose name, is most like `text`, if one is.
fn nearest(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > MEANT_LEN_MAX {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace([' ', '-'], "_");
    let meant = plain(text);
    let distance = |zone: &Tz| {
        let name = plain(zone.name());
        let place = name.rsplit('/').next().unwrap_or(&name);
        strsim::osa_distance(&name, &meant).min(strsim::osa_distance(place, &meant))
    };
    // Of two that are as near, the shorter one: `Iran` and `Asia/Tehran` are both good, `Zulu` is not better than `UTC`.
    let best = TZ_VARIANTS.iter().min_by_key(|zone| (distance(zone), zone.name().len()))?;
    // One error in four letters is still recognised.
    (distance(best) <= meant.len() / 4).then(|| best.name())
}
