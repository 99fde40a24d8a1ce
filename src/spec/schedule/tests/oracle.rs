//! Somebody else's calendar: `jiff` for the zones, and fields matched as plainly as can be. No `croner`, no `chrono`, nothing of ours.
//!
//! It knows quarters of an hour, which every offset since 2000 is a multiple of, and looks at each of them.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan, Zoned};

const DAY: i64 = 86_400;
const QUARTER: i64 = 900;

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

/// What the clocks of a zone show, quarter of an hour by quarter, and so when each of the 96 daily schedules is due: one moment for each day that
/// exists. As [`Plain`] has it, and cheaper where all of them are wanted.
pub(super) struct Days {
    /// The first one of which anything was looked at, counted from 1970-01-01.
    first: i64,
    /// Whether clocks have shown anything of a day, and when its quarters are due.
    days: Vec<(bool, [Option<i64>; 96])>,
}

impl Days {
    /// Those of which clocks show anything from `from` on and before `until`, and the quarters that are due then. `changes` are the zone's, in order.
    pub(super) fn shown(zone: &TimeZone, changes: &[i64], from: i64, until: i64) -> Self {
        // A time that comes twice comes within a day.
        let (from, until) = ((from - DAY) / QUARTER * QUARTER, until + DAY);
        let first = from.div_euclid(DAY) - 1;
        let count = usize::try_from(until.div_euclid(DAY) + 2 - first).unwrap();
        let mut shown = Self { first, days: vec![(false, [None; 96]); count] };
        let mut instant = from;
        while instant < until {
            let (exists, due) = shown.quarter(instant + offset(zone, instant));
            *exists = true;
            due.get_or_insert(instant);
            instant += QUARTER;
        }
        let inside =
            changes.partition_point(|change| *change < from)..changes.partition_point(|change| *change < until);
        for change in &changes[inside] {
            let (before, after) = (change + offset(zone, change - 1), change + offset(zone, *change));
            let mut swallowed = (before + QUARTER - 1).div_euclid(QUARTER) * QUARTER;
            while swallowed < after {
                let (exists, due) = shown.quarter(swallowed);
                if *exists {
                    due.get_or_insert(*change);
                }
                swallowed += QUARTER;
            }
        }
        shown
    }

    fn quarter(&mut self, local: i64) -> (&mut bool, &mut Option<i64>) {
        let (day, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        assert_eq!(time % QUARTER, 0, "a clock that is off by less than a quarter of an hour");
        let (exists, due) = &mut self.days[usize::try_from(day - self.first).unwrap()];
        (exists, &mut due[usize::try_from(time / QUARTER).unwrap()])
    }

    /// When the schedule of that quarter is due, from `from` on and before `until`.
    pub(super) fn due(&self, quarter: usize, from: i64, until: i64) -> Vec<i64> {
        let due = self.days.iter().filter_map(|(_, due)| due[quarter]);
        due.filter(|slot| (from..until).contains(slot)).collect()
    }

    /// The days between the first and the last one that exist, that do not exist themselves, counted from 1970-01-01.
    pub(super) fn left_out(&self) -> Vec<i64> {
        let numbered = || (self.first..).zip(&self.days);
        let first = numbered().find(|(_, (exists, _))| *exists).map_or(self.first, |(day, _)| day);
        let last = numbered().filter(|(_, (exists, _))| *exists).last().map_or(self.first, |(day, _)| day);
        numbered().filter(|(day, (exists, _))| (first..last).contains(day) && !exists).map(|(day, _)| day).collect()
    }
}

fn offset(zone: &TimeZone, instant: i64) -> i64 {
    i64::from(zone.to_offset(Timestamp::from_second(instant).unwrap()).seconds())
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
