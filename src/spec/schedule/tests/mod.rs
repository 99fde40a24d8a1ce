//! What expressions mean, which are refused, and what holds for every schedule. `calendars` holds them against the zones.

mod calendars;
mod clocks;
mod laws;
mod oracle;

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds, Year};
use proptest::prelude::*;

use super::expression::{MONTHS, WEEKDAYS};
use super::*;

fn wall(rfc3339: &str) -> Wall {
    let time = DateTime::parse_from_rfc3339(rfc3339).unwrap();
    Wall(u64::try_from(time.timestamp_millis()).unwrap())
}

fn zone(name: &str) -> Zone {
    Zone::parse(name).unwrap_or_else(|e| panic!("{e}"))
}

/// A schedule in UTC.
fn utc(text: &str) -> Schedule {
    Schedule::parse(text, Zone::UTC, "job").unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The first `count` slots after `from`, as text without the zone.
fn slots(text: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = utc(text);
    let found = schedule.slots_between(wall(from), Wall(u64::MAX), count).map(|slot| slot.to_string());
    found.map(|slot| slot.trim_end_matches(".000Z").to_owned()).collect()
}

#[test]
fn expressions_fire_when_they_say() {
    let from = "2026-11-21T10:20:30Z"; // a Saturday
    for (text, expected) in [
        ("0 2 * * *", ["2026-11-22T02:00:00", "2026-11-23T02:00:00"]),
        ("*/5 * * * *", ["2026-11-21T10:25:00", "2026-11-21T10:30:00"]),
        ("*/10 * * * * *", ["2026-11-21T10:20:40", "2026-11-21T10:20:50"]),
        ("15,45 8-10/2 * * *", ["2026-11-21T10:45:00", "2026-11-22T08:15:00"]),
        ("0 0 * * 1-5", ["2026-11-23T00:00:00", "2026-11-24T00:00:00"]),
        ("0 0 * * mon-fri", ["2026-11-23T00:00:00", "2026-11-24T00:00:00"]),
        ("0 0 * * 0", ["2026-11-22T00:00:00", "2026-11-29T00:00:00"]),
        ("0 0 * * 7", ["2026-11-22T00:00:00", "2026-11-29T00:00:00"]),
        ("0 0 * * FRI-SUN", ["2026-11-22T00:00:00", "2026-11-27T00:00:00"]),
        ("0 0 1 jan *", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        // Either day field is enough where both restrict, crontab(5).
        ("0 0 25 * MON", ["2026-11-23T00:00:00", "2026-11-25T00:00:00"]),
        ("0 0 L * MON", ["2026-11-23T00:00:00", "2026-11-30T00:00:00"]),
        ("0 0 1W,15 * SUN#1", ["2026-12-01T00:00:00", "2026-12-06T00:00:00"]),
        // One that begins with `*` does not restrict: both have to match.
        ("0 0 */2 * MON", ["2026-11-23T00:00:00", "2026-12-07T00:00:00"]),
        ("0 0 20-26 * */7", ["2026-11-22T00:00:00", "2026-12-20T00:00:00"]),
        ("0 0 *,5 * MON", ["2026-11-23T00:00:00", "2026-11-30T00:00:00"]),
        ("0 0 5,* * MON", ["2026-11-22T00:00:00", "2026-11-23T00:00:00"]),
        ("*,5 0 * * *", ["2026-11-22T00:00:00", "2026-11-22T00:01:00"]),
        ("0 0 29 2 */7", ["2032-02-29T00:00:00", "2060-02-29T00:00:00"]),
        ("0 0 L * *", ["2026-11-30T00:00:00", "2026-12-31T00:00:00"]),
        ("0 0 15W * *", ["2026-12-15T00:00:00", "2027-01-15T00:00:00"]),
        ("0 0 1W 8 *", ["2027-08-02T00:00:00", "2028-08-01T00:00:00"]),
        ("0 0 * * MON#1", ["2026-12-07T00:00:00", "2027-01-04T00:00:00"]),
        ("0 0 * * FRI#L", ["2026-11-27T00:00:00", "2026-12-25T00:00:00"]),
        ("0 0 * * 5L", ["2026-11-27T00:00:00", "2026-12-25T00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("0 0 ? * MON", ["2026-11-23T00:00:00", "2026-11-30T00:00:00"]),
        ("  @hourly ", ["2026-11-21T11:00:00", "2026-11-21T12:00:00"]),
        ("@Daily", ["2026-11-22T00:00:00", "2026-11-23T00:00:00"]),
        ("@midnight", ["2026-11-22T00:00:00", "2026-11-23T00:00:00"]),
        ("@weekly", ["2026-11-22T00:00:00", "2026-11-29T00:00:00"]),
        ("@monthly", ["2026-12-01T00:00:00", "2027-01-01T00:00:00"]),
        ("@yearly", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("@annually", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("@every 1h30m", ["2026-11-21T10:30:00", "2026-11-21T12:00:00"]),
        ("@every 90s", ["2026-11-21T10:21:00", "2026-11-21T10:22:30"]),
        ("@every 1d", ["2026-11-22T00:00:00", "2026-11-23T00:00:00"]),
    ] {
        assert_eq!(slots(text, from, 2), expected, "{text}");
    }
}

#[test]
fn the_next_slot_is_after_the_time_even_within_a_second() {
    let every_second = utc("* * * * * *");
    assert_eq!(every_second.next_after(Wall(5_000)), Some(Wall(6_000)));
    assert_eq!(every_second.next_after(Wall(5_001)), Some(Wall(6_000)));
    assert_eq!(every_second.next_after(Wall(5_999)), Some(Wall(6_000)));
    let every_minute = utc("@every 1m");
    assert_eq!(every_minute.next_after(Wall(59_999)), Some(Wall(60_000)));
    assert_eq!(every_minute.next_after(Wall(60_000)), Some(Wall(120_000)));
}

#[test]
fn there_is_no_slot_where_the_calendar_ends() {
    assert_eq!(utc("* * * * *").next_after(Wall(u64::MAX)), None);
    assert_eq!(utc("@every 366d").next_after(Wall(u64::MAX)), None);
}

#[test]
fn what_is_no_expression_is_refused_with_its_reason() {
    for (text, reason) in [
        ("", "empty schedule"),
        ("   ", "empty schedule"),
        ("* * * *", "has 4 fields, wanted 5"),
        ("0 0 * * * * 2027", "has 7 fields"),
        ("every day", "has 2 fields"),
        ("60 * * * *", "minute `60`: `60` is not a number from 0 to 59"),
        ("61 0 * * * *", "second `61`"),
        ("* 24 * * *", "hour `24`: `24` is not a number from 0 to 23"),
        ("* * 0 * *", "day `0`: `0` is not a number from 1 to 31"),
        ("* * 32 * *", "day `32`"),
        ("* * * 13 *", "month `13`: `13` is not a number from 1 to 12 or a name from `JAN` to `DEC`"),
        ("* * * FOO *", "month `FOO`"),
        ("* * * * 8", "weekday `8`: `8` is not a number from 0 to 7 or a name from `SUN` to `SAT`"),
        ("* * * * MONDAY", "weekday `MONDAY`"),
        ("MON * * * *", "minute `MON`"),
        ("* * * * JAN", "weekday `JAN`"),
        ("-5 * * * *", "minute `-5`"),
        ("+5 * * * *", "minute `+5`"),
        ("* * * * +MON", "weekday `+MON`"),
        ("30-10 * * * *", "the range runs backwards; write it as two, `30-59,0-10`"),
        ("0 0 * * FRI-MON", "write it as two, `FRI-6,0-MON`"),
        ("*/0 * * * *", "a step is a number from 1 to 59"),
        ("*/90 * * * *", "a step is a number from 1 to 59"),
        ("5/10 * * * *", "a step needs a range"),
        ("/10 * * * *", "a step needs a range"),
        ("1,,2 * * * *", "holds an empty entry"),
        ("1, * * * *", "holds an empty entry"),
        ("? * * * *", "minute `?`"),
        ("L * * * *", "minute `L`"),
        ("* * LW * *", "`LW` is not known"),
        ("* * 40W * *", "day `40W`"),
        ("* * * * MON#6", "behind `#`"),
        ("* * * * 5#", "behind `#`"),
        ("* * * * L", "weekday `L`"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("H() * * * *", "minute `H()`: `H` is written as `H`, `H(0-29)`, `H/15` or `H(0-29)/10`"),
        ("H(5) * * * *", "`H` is written as"),
        ("H5 * * * *", "`H` is written as"),
        ("H-5 * * * *", "`H` is written as"),
        ("H(0-60) * * * *", "minute `H(0-60)`: `60` is not a number from 0 to 59"),
        ("H(20-10) * * * *", "the range runs backwards"),
        ("H/0 * * * *", "a step is a number from 1 to 59"),
        ("H/60 * * * *", "a step is a number from 1 to 59"),
        ("* * H(0-5) * *", "`0` is not a number from 1 to 31"),
        ("* * HW * *", "`H` is written as"),
        ("TZ=Europe/Berlin 0 2 * * *", "`timezone`"),
        ("CRON_TZ=UTC 0 2 * * *", "`timezone`"),
        ("@reboot", "`@reboot` is unknown"),
        ("@daily 5", "is unknown"),
        ("@", "is unknown"),
        ("@every", "no period"),
        ("@every 0s", "no period"),
        ("@every 500ms", "no period"),
        ("@every 5", "no period"),
        ("@every -5m", "no period"),
        ("@every 1.5h", "no period"),
        ("@every 30m1h", "no period"),
        ("@every 1h1h", "no period"),
        ("@every 367d", "no period"),
        ("@every 99999999999999999999s", "no period"),
        ("@every 999999999999999999d", "no period"),
    ] {
        let error =
            Schedule::parse(text, Zone::UTC, "job").err().unwrap_or_else(|| panic!("`{text}` was taken")).to_string();
        assert!(error.contains(reason), "`{text}`: {error}");
    }
    assert_eq!(Schedule::parse(&"1,".repeat(600), Zone::UTC, "job").unwrap_err(), ScheduleError::TooLong(1_200));
}

#[test]
fn the_last_slot_is_not_after_the_time() {
    let now = wall("2026-11-21T10:20:30.500Z"); // a Saturday
    for (text, expected) in [
        ("* * * * * *", "2026-11-21T10:20:30.000Z"),
        ("30 20 10 * * *", "2026-11-21T10:20:30.000Z"),
        ("31 20 10 * * *", "2026-11-20T10:20:31.000Z"),
        ("*/15 * * * *", "2026-11-21T10:15:00.000Z"),
        ("0 12 * * *", "2026-11-20T12:00:00.000Z"),
        ("0 0 * * MON", "2026-11-16T00:00:00.000Z"),
        ("59 59 23 31 12 *", "2025-12-31T23:59:59.000Z"),
        ("0 0 29 2 *", "2024-02-29T00:00:00.000Z"),
        ("0 0 29 2 */7", "2004-02-29T00:00:00.000Z"),
        ("@every 1h30m", "2026-11-21T09:00:00.000Z"),
        ("@every 366d", "2026-02-12T00:00:00.000Z"),
    ] {
        let last = utc(text).last_at_or_before(now).map(|slot| slot.to_string());
        assert_eq!(last.as_deref(), Some(expected), "{text}");
    }
    assert_eq!(utc("0 0 29 2 *").last_at_or_before(wall("1972-02-28T00:00:00Z")), None);
    assert_eq!(utc("* * * * *").last_at_or_before(Wall(u64::MAX)), Some(wall("9999-12-31T23:59:00Z")));
}

#[test]
fn slots_between_two_times_are_in_order_and_limited() {
    let (noon, later) = (wall("2026-11-21T12:00:00Z"), wall("2026-11-21T13:00:00Z"));
    let between = |text: &str, max| utc(text).slots_between(noon, later, max).collect::<Vec<_>>();
    let half_past = wall("2026-11-21T12:30:00Z");
    assert_eq!(between("*/30 * * * *", 10), [half_past, later], "without the first, with the last");
    assert_eq!(between("*/30 * * * *", 1), [half_past]);
    assert_eq!(between("0 11 * * *", 10), []);
    assert_eq!(between("* * * * * *", usize::MAX).len(), SLOTS_MAX);
    assert_eq!(utc("* * * * *").slots_between(later, noon, 10).count(), 0);
}

/// These never change: a spec that is spread to 02:37 stays there, whatever the version.
#[test]
fn hashed_values_stay_for_ever() {
    let at = |text: &str, name: &str| {
        let schedule = Schedule::parse(text, Zone::UTC, name).unwrap_or_else(|e| panic!("{text}: {e}"));
        let slots = schedule.slots_between(wall("2026-01-01T00:00:00Z"), Wall(u64::MAX), 3);
        slots.map(|slot| slot.to_string().trim_end_matches(":00.000Z").to_owned()).collect::<Vec<_>>().join(" ")
    };
    for (text, name, expected) in PINNED {
        assert_eq!(at(text, name), *expected, "`{text}` of `{name}`");
    }
}

/// An expression, a name, and the first three slots of 2026.
const PINNED: &[(&str, &str, &str)] = &[
    ("H * * * *", "reports", "2026-01-01T00:48 2026-01-01T01:48 2026-01-01T02:48"),
    ("H H * * *", "reports", "2026-01-01T00:48 2026-01-02T00:48 2026-01-03T00:48"),
    ("H H * * *", "reports-2", "2026-01-01T21:19 2026-01-02T21:19 2026-01-03T21:19"),
    ("H(0-29) 3 * * *", "reports", "2026-01-01T03:18 2026-01-02T03:18 2026-01-03T03:18"),
    ("H/15 * * * *", "reports", "2026-01-01T00:03 2026-01-01T00:18 2026-01-01T00:33"),
    ("H(0-29)/10 5 * * *", "reports", "2026-01-01T05:08 2026-01-01T05:18 2026-01-01T05:28"),
    ("0 H(9-17)/4 * * *", "reports", "2026-01-01T09:00 2026-01-01T13:00 2026-01-01T17:00"),
    ("0 0 H * *", "reports", "2026-01-07T00:00 2026-02-07T00:00 2026-03-07T00:00"),
    ("0 0 1 H *", "reports", "2026-05-01T00:00 2027-05-01T00:00 2028-05-01T00:00"),
    ("0 0 * * H", "reports", "2026-01-02T00:00 2026-01-09T00:00 2026-01-16T00:00"),
    ("0 0 * * H(MON-FRI)", "reports", "2026-01-05T00:00 2026-01-12T00:00 2026-01-19T00:00"),
];

#[test]
fn hashed_values_are_spread_over_their_range() {
    let mut minutes = [0_u32; 60];
    for number in 0..6_000 {
        let schedule = Schedule::parse("H * * * *", Zone::UTC, &format!("job-{number}")).unwrap();
        let slot = schedule.next_after(Wall(0)).unwrap();
        minutes[usize::try_from(slot.0 / 60_000 % 60).unwrap()] += 1;
    }
    // A hundred each is expected; five standard deviations are fifty.
    assert!(minutes.iter().all(|count| (50..150).contains(count)), "{minutes:?}");
    // Fields are drawn for themselves: what shares a minute does not share the hour.
    let alike = (0..1_000).filter(|number| {
        let name = format!("job-{number}");
        hashed::draw(&name, "minute") % 24 == hashed::draw(&name, "hour") % 24
    });
    assert!((10..90).contains(&alike.count()));
}

#[test]
fn unknown_zones_are_refused_with_what_was_meant() {
    for (name, hint) in [
        ("europe/berlin", "did you mean `Europe/Berlin`?"),
        ("Europe/Berln", "did you mean `Europe/Berlin`?"),
        ("Berlin", "did you mean `Europe/Berlin`?"),
        ("New York", "did you mean `America/New_York`?"),
        ("utc", "did you mean `UTC`?"),
        ("Mars/Olympus", "one is written as `Europe/Berlin`"),
        ("", "one is written as"),
        ("+01:00", "one is written as"),
    ] {
        let error = Zone::parse(name).unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    }
    assert!(Zone::parse(&"x".repeat(1_000_000)).is_err());
    assert_eq!(zone("America/Argentina/Buenos_Aires").name(), "America/Argentina/Buenos_Aires");
}

/// A list of entries as both this module and the `cron` crate read them alike: numbers, ranges, ranges with a step.
fn list(first: u32, last: u32) -> impl Strategy<Value = String> {
    let span = move || (first..=last, first..=last).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let entry = prop_oneof![
        (first..=last).prop_map(|n| n.to_string()),
        span().prop_map(|(a, b)| format!("{a}-{b}")),
        (span(), 1_u32..8).prop_map(|((a, b), step)| format!("{a}-{b}/{step}")),
    ];
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => (1_u32..10).prop_map(|step| format!("*/{step}")),
        3 => prop::collection::vec(entry, 1..4).prop_map(|entries| entries.join(",")),
    ]
}

/// The day and the weekday field, one of them free: the `cron` crate wants both to match, crontab(5) one of the two. Weekdays
/// by name: the `cron` crate counts them from Sunday as 1. No day above 28, so that every month has it.
fn days() -> impl Strategy<Value = (String, String)> {
    let weekdays = prop::sample::subsequence(WEEKDAYS.to_vec(), 1..7).prop_map(|days| days.join(","));
    prop_oneof![
        list(1, 28).prop_map(|days| (days, "*".to_owned())),
        weekdays.prop_map(|weekdays| ("*".to_owned(), weekdays)),
        Just(("*".to_owned(), "MON-FRI".to_owned())),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    let month_name = prop::sample::select(MONTHS.to_vec()).prop_map(str::to_owned);
    let months = prop_oneof![3 => list(1, 12), 1 => month_name];
    (list(0, 59), list(0, 59), list(0, 23), days(), months).prop_map(|(second, minute, hour, (day, weekday), month)| {
        format!("{second} {minute} {hour} {day} {month} {weekday}")
    })
}

fn day_of_month() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => list(1, 31),
        1 => Just("L".to_owned()),
        2 => (1..=31_u32).prop_map(|day| format!("{day}W")),
        1 => (list(1, 31), 1..=31_u32).prop_map(|(days, day)| format!("{days},{day}W,L").replace("*,", "1-31,")),
    ]
    .prop_filter("that library does not read them", |text| !text.contains("*/") || !text.contains(','))
}

fn day_of_week() -> impl Strategy<Value = String> {
    let nth = prop::sample::select(vec!["#1", "#2", "#3", "#4", "#5", "#L", "L"]);
    prop_oneof![
        2 => list(0, 7),
        1 => prop::sample::subsequence(WEEKDAYS.to_vec(), 1..7).prop_map(|days| days.join(",")),
        1 => (0..=7_u32, nth.clone()).prop_map(|(day, nth)| format!("{day}{nth}")),
        1 => (prop::sample::select(WEEKDAYS.to_vec()), nth, 0..=7_u32).prop_map(|(day, nth, more)| format!("{day}{nth},{more}")),
    ]
}

/// Zones that have not changed their clocks since 1986, so that the other crate's rule for changes does not matter.
fn steady_zone() -> impl Strategy<Value = (Zone, chrono_tz::Tz)> {
    let names = ["UTC", "Asia/Tokyo", "Asia/Kolkata", "Africa/Johannesburg", "Asia/Kathmandu", "America/Phoenix"];
    prop::sample::select(names.to_vec()).prop_map(|name| (zone(name), name.parse().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The `cron` crate is somebody else's reading of the same expressions: where both mean alike, the slots are the same, and the
    /// way back is the way there.
    #[test]
    fn agrees_with_another_implementation(
        expression in expression(),
        (zone, their_zone) in steady_zone(),
        from in 600_000_000_u32..3_000_000_000,
    ) {
        let ours = Schedule::parse(&expression, zone, "job").unwrap();
        let theirs: cron::Schedule = expression.parse().unwrap();
        let start = DateTime::<Utc>::from_timestamp(i64::from(from), 0).unwrap().with_timezone(&their_zone);
        let from = Wall(u64::from(from) * 1_000);
        let expected: Vec<Wall> = theirs
            .after(&start)
            .take(30)
            .map(|slot| Wall(u64::try_from(slot.timestamp()).unwrap() * 1_000))
            .collect();
        prop_assert_eq!(ours.slots_between(from, Wall(u64::MAX), 30).collect::<Vec<_>>(), expected.clone(), "{}", &expression);
        let mut before = expected[29];
        for slot in expected.iter().rev().skip(1) {
            before = ours.last_at_or_before(Wall(before.0 - 1)).unwrap();
            prop_assert_eq!(before, *slot, "{}", &expression);
        }
    }

    /// `croner`'s own search, of which only the judgement on `L`, `W` and `#` is used, finds the same slots in UTC, with both day fields.
    #[test]
    fn agrees_with_the_search_of_the_library(
        times in (list(0, 59), list(0, 59), list(0, 23)),
        day in day_of_month(),
        month in list(1, 12),
        weekday in day_of_week(),
        from in 600_000_000_u32..3_000_000_000,
    ) {
        let (second, minute, hour) = times;
        let text = format!("{second} {minute} {hour} {day} {month} {weekday}");
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed);
        // What that library has as a setting follows from the fields here.
        let both = [&day, &weekday].iter().any(|field| field.starts_with('*') && field.len() > 1);
        let theirs = parser.dom_and_dow(both).build().parse(&text).unwrap();
        let ours = match Schedule::parse(&text, Zone::UTC, "job") {
            Ok(ours) => ours,
            Err(error) => {
                let start = DateTime::<Utc>::from_timestamp(0, 0).unwrap();
                let never = theirs.find_next_occurrence(&start, false).is_err();
                // Else a step that is too wide for its field, which that library takes.
                prop_assert!(never || matches!(error, ScheduleError::Field { .. }), "`{}` fires: {}", &text, error);
                return Ok(());
            }
        };
        let start = DateTime::<Utc>::from_timestamp(i64::from(from), 0).unwrap();
        let mut now = Wall(u64::from(from) * 1_000);
        for slot in theirs.iter_after(start).take(10) {
            now = ours.next_after(now).unwrap();
            prop_assert_eq!(i64::try_from(now.0 / 1_000).unwrap(), slot.timestamp(), "{}", &text);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", zone in ".{0,20}") {
        let _ = Schedule::parse(&text, Zone::UTC, &zone);
        let _ = Zone::parse(&zone);
    }
}
