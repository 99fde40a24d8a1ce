use proptest::prelude::*;

use super::*;

fn wall(rfc3339: &str) -> Wall {
    let time = DateTime::parse_from_rfc3339(rfc3339).unwrap();
    Wall(u64::try_from(time.timestamp_millis()).unwrap())
}

/// The first `count` slots after `from`, as text without the zone.
fn slots(text: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut time = wall(from);
    let mut found = Vec::new();
    for _ in 0..count {
        time = schedule.next_after(time).unwrap_or_else(|| panic!("{text}: no slot after {time}"));
        found.push(time.to_string().trim_end_matches(".000Z").to_owned());
    }
    found
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
        // Either day field is enough where both are given, crontab(5).
        ("0 0 25 * MON", ["2026-11-23T00:00:00", "2026-11-25T00:00:00"]),
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
    let every_second = Schedule::parse("* * * * * *").unwrap();
    assert_eq!(every_second.next_after(Wall(5_000)), Some(Wall(6_000)));
    assert_eq!(every_second.next_after(Wall(5_001)), Some(Wall(6_000)));
    assert_eq!(every_second.next_after(Wall(5_999)), Some(Wall(6_000)));
    let every_minute = Schedule::parse("@every 1m").unwrap();
    assert_eq!(every_minute.next_after(Wall(59_999)), Some(Wall(60_000)));
    assert_eq!(every_minute.next_after(Wall(60_000)), Some(Wall(120_000)));
}

#[test]
fn there_is_no_slot_where_the_calendar_ends() {
    assert_eq!(Schedule::parse("* * * * *").unwrap().next_after(Wall(u64::MAX)), None);
    assert_eq!(Schedule::parse("@every 366d").unwrap().next_after(Wall(u64::MAX)), None);
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
        ("H * * * *", "`H` is not carried out"),
        ("H/15 * * * *", "`H` is not carried out"),
        ("h(0-29) * * * *", "`H` is not carried out"),
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
        let error = Schedule::parse(text).err().unwrap_or_else(|| panic!("`{text}` was taken")).to_string();
        assert!(error.contains(reason), "`{text}`: {error}");
    }
    assert_eq!(Schedule::parse(&"1,".repeat(600)).unwrap_err(), ScheduleError::TooLong(1_200));
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The `cron` crate is somebody else's reading of the same expressions: where both mean alike, the slots are the same.
    #[test]
    fn agrees_with_another_implementation(expression in expression(), from in 0_u32..3_000_000_000) {
        let ours = Schedule::parse(&expression).unwrap();
        let theirs: cron::Schedule = expression.parse().unwrap();
        let start = DateTime::<Utc>::from_timestamp(i64::from(from), 0).unwrap();
        let mut time = Wall(u64::from(from) * 1_000);
        for expected in theirs.after(&start).take(30) {
            time = ours.next_after(time).unwrap();
            prop_assert_eq!(i64::try_from(time.0 / 1_000).unwrap(), expected.timestamp(), "{}", &expression);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}") {
        let _ = Schedule::parse(&text);
    }

    /// Texts of the right characters, which get further than any text.
    #[test]
    fn what_is_taken_always_has_later_slots(text in "[@*0-9,/#LWHh?A-Z-]{1,6}( [*0-9,/#LW?A-Z-]{1,4}){4,5}", from: u32) {
        if let Ok(schedule) = Schedule::parse(&text) {
            let time = Wall(u64::from(from) * 1_000);
            let next = schedule.next_after(time);
            prop_assert!(next.is_some_and(|next| next > time && next.0 % 1_000 == 0), "{text}: {next:?}");
        }
    }
}
