//! Somebody else's calendar: `jiff` for the zones, and fields matched as plainly as can be. No `croner`, no `chrono`, nothing of ours.
//!
//! It knows quarters of an hour, which every offset since 2000 is a multiple of, and looks at each of them.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan, Zoned};

/// What fires when, by plain sets.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    /// The expression that says the same.
    pub(super) text: String,
    /// Quarters: 0, 15, 30, 45.
    pub(super) minutes: BTreeSet<i8>,
    pub(super) hours: BTreeSet<i8>,
    /// From Sunday as 0.
    pub(super) weekdays: BTreeSet<i8>,
    /// Whether minutes and hours were written as numbers.
    pub(super) is_fixed: bool,
}

impl Plain {
    /// Every day at one time.
    pub(super) fn daily(hour: i8, minute: i8) -> Self {
        Self {
            text: format!("{minute} {hour} * * *"),
            minutes: [minute].into(),
            hours: [hour].into(),
            weekdays: (0..7).collect(),
            is_fixed: true,
        }
    }

    /// Its slots from `from` on and before `until`, in seconds since 1970.
    pub(super) fn slots(&self, zone: &TimeZone, from: i64, until: i64) -> Vec<i64> {
        let slots = if self.is_fixed { self.fixed(zone, from, until) } else { self.elapsing(zone, from, until) };
        slots.into_iter().filter(|slot| (from..until).contains(slot)).collect()
    }

    /// Each quarter of an hour whose local time matches.
    fn elapsing(&self, zone: &TimeZone, from: i64, until: i64) -> BTreeSet<i64> {
        let first = from - from.rem_euclid(900);
        let matches = |instant: &i64| {
            let local = at(*instant, zone);
            self.minutes.contains(&local.minute())
                && self.hours.contains(&local.hour())
                && self.weekdays.contains(&local.weekday().to_sunday_zero_offset())
        };
        (first..until).step_by(900).filter(matches).collect()
    }

    /// Each local time of each day that exists, at its first instant or at the end of the gap that swallowed it.
    fn fixed(&self, zone: &TimeZone, from: i64, until: i64) -> BTreeSet<i64> {
        let mut slots = BTreeSet::new();
        let last = at(until, zone).date().saturating_add(2.days());
        let mut date = at(from, zone).date().saturating_sub(2.days());
        while date <= last {
            if self.weekdays.contains(&date.weekday().to_sunday_zero_offset()) {
                for (hour, minute) in self.hours.iter().flat_map(|hour| self.minutes.iter().map(move |m| (*hour, *m))) {
                    slots.extend(first_shown(zone, date, hour, minute));
                }
            }
            date = date.tomorrow().unwrap();
        }
        slots
    }
}

fn first_shown(zone: &TimeZone, date: Date, hour: i8, minute: i8) -> Option<i64> {
    let asked = zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
    match asked.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
            Some(asked.earlier().unwrap().as_second())
        }
        AmbiguousOffset::Gap { .. } => {
            // In a gap the earlier of the two readings lies before it.
            let change = zone.following(asked.earlier().unwrap()).next().unwrap().timestamp().as_second();
            exists(zone, date).then_some(change)
        }
    }
}

/// Whether any quarter of an hour shows that date.
fn exists(zone: &TimeZone, date: Date) -> bool {
    let midnight = date.to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    (midnight - 86_400..midnight + 2 * 86_400).step_by(900).any(|instant| at(instant, zone).date() == date)
}

pub(super) fn at(instant: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_second(instant).unwrap().to_zoned(zone.clone())
}

/// The instants from `from` on and before `until` at which the zone's offset changes.
pub(super) fn changes(zone: &TimeZone, from: i64, until: i64) -> Vec<i64> {
    let following = zone.following(Timestamp::from_second(from - 1).unwrap());
    let instants = following.map(|change| change.timestamp().as_second()).take_while(|instant| *instant < until);
    instants.filter(|instant| at(*instant, zone).offset() != at(instant - 1, zone).offset()).collect()
}
