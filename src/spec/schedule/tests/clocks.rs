//! What becomes of slots when clocks change: the cases that people ask about, one by one.

use super::*;

/// The slots between two times, in UTC without the year.
fn between(text: &str, zone_name: &str, from: &str, until: &str) -> Vec<String> {
    let schedule = Schedule::parse(text, zone(zone_name), "job").unwrap_or_else(|e| panic!("{text}: {e}"));
    let slots = schedule.slots_between(wall(from), wall(until), 100);
    slots.map(|slot| slot.to_string()[5..16].replace('T', " ")).collect()
}

/// 2026-03-29, 02:00 becomes 03:00 in Berlin, at 01:00 UTC.
#[test]
fn a_time_that_does_not_exist_fires_at_the_end_of_the_gap() {
    let berlin = |text| between(text, "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
    assert_eq!(berlin("30 2 * * *"), ["03-29 01:00"]);
    assert_eq!(berlin("0 2 * * *"), ["03-29 01:00"]);
    assert_eq!(berlin("15,45 2 * * *"), ["03-29 01:00"], "one gap, one slot");
    assert_eq!(berlin("0,30 2,3 * * *"), ["03-29 01:00", "03-29 01:30"], "03:00 is the end of the gap too");
    assert_eq!(berlin("59 1 * * *"), ["03-29 00:59"]);
    assert_eq!(berlin("1 3 * * *"), ["03-29 01:01"]);
    assert_eq!(berlin("30 2 29 3 *"), ["03-29 01:00"]);
    assert_eq!(berlin("30 2 28 3 *"), [] as [&str; 0]);
}

/// 2026-10-25, 03:00 becomes 02:00 in Berlin, at 01:00 UTC.
#[test]
fn a_time_that_comes_twice_fires_at_its_first() {
    let berlin = |text| between(text, "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
    assert_eq!(berlin("30 2 * * *"), ["10-25 00:30"]);
    assert_eq!(berlin("0 2 * * *"), ["10-25 00:00"]);
    assert_eq!(berlin("0 3 * * *"), ["10-25 02:00"]);
    assert_eq!(berlin("59 59 2 * * *"), ["10-25 00:59"]);
}

#[test]
fn wildcards_ranges_and_steps_follow_elapsed_time() {
    let spring = |text| between(text, "Europe/Berlin", "2026-03-28T23:59:00Z", "2026-03-29T03:00:00Z");
    assert_eq!(spring("*/30 * * * *").len(), 7, "each half hour of three hours");
    assert_eq!(spring("0 * * * *"), ["03-29 00:00", "03-29 01:00", "03-29 02:00", "03-29 03:00"]);
    assert_eq!(spring("0 1-3 * * *"), ["03-29 00:00", "03-29 01:00"], "01:00, no 02:00, 03:00");
    assert_eq!(spring("*/30 2 * * *"), [] as [&str; 0], "that hour is left out");
    let autumn = |text| between(text, "Europe/Berlin", "2026-10-24T23:59:00Z", "2026-10-25T03:00:00Z");
    assert_eq!(autumn("*/30 * * * *").len(), 7);
    assert_eq!(autumn("0 2-3 * * *"), ["10-25 00:00", "10-25 01:00", "10-25 02:00"], "02:00 twice, 03:00");
    assert_eq!(autumn("*/30 2 * * *"), ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"]);
    assert_eq!(autumn("@every 1h"), ["10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]);
}

/// Whoever looks while an hour passes for the second time finds what has fired in its first pass behind, and not ahead.
#[test]
fn the_second_pass_of_an_hour_has_no_fixed_slots() {
    let schedule = Schedule::parse("0,30,59 2 * * *", zone("Europe/Berlin"), "job").unwrap();
    let (last, next) = (wall("2026-10-25T00:59:00Z"), wall("2026-10-26T01:00:00Z"));
    for minute in 0..60 {
        let now = Wall(wall("2026-10-25T01:00:00Z").0 + minute * 60_000);
        assert_eq!(schedule.next_after(now), Some(next), "{now}");
        assert_eq!(schedule.last_at_or_before(now), Some(last), "{now}");
    }
}

#[test]
fn the_seconds_on_both_sides_of_a_change_count() {
    let schedule = |text| Schedule::parse(text, zone("Europe/Berlin"), "job").unwrap();
    let (before, change) = (wall("2026-03-29T00:59:59Z"), wall("2026-03-29T01:00:00Z"));
    let (dawn, noon) = (wall("2026-03-29T00:30:00Z"), wall("2026-03-29T12:00:00Z"));
    for last_before in ["59 59 1 * * *", "59 59 0-1 * * *"] {
        assert_eq!(schedule(last_before).last_at_or_before(noon), Some(before), "{last_before}");
        assert_eq!(schedule(last_before).next_after(dawn), Some(before), "{last_before}");
    }
    for first_behind in ["0 0 3 * * *", "0 0 3-4 * * *"] {
        assert_eq!(schedule(first_behind).last_at_or_before(change), Some(change), "{first_behind}");
        assert_eq!(schedule(first_behind).next_after(before), Some(change), "{first_behind}");
    }
}

/// `H` by itself is a number; with a step it is one.
#[test]
fn hashed_values_are_fixed_times() {
    let autumn = |text| between(text, "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z").len();
    assert_eq!(autumn("H 2 * * *"), 1);
    assert_eq!(autumn("H(0-29) H(2-2) * * *"), 1);
    assert_eq!(autumn("H/30 2 * * *"), 4);
}

/// São Paulo, until 2018: midnight became 01:00 (2018-11-04) and 23:00 (2018-02-18).
#[test]
fn changes_at_midnight_neither_lose_nor_repeat_a_day() {
    let brazil = |text, from, until| between(text, "America/Sao_Paulo", from, until);
    let spring = ("2018-11-03T12:00:00Z", "2018-11-05T12:00:00Z");
    assert_eq!(brazil("0 0 * * *", spring.0, spring.1), ["11-04 03:00", "11-05 02:00"]);
    assert_eq!(brazil("0 0 * * SUN", spring.0, spring.1), ["11-04 03:00"]);
    assert_eq!(brazil("30 23 * * *", spring.0, spring.1), ["11-04 02:30", "11-05 01:30"]);
    let autumn = ("2018-02-17T12:00:00Z", "2018-02-19T12:00:00Z");
    assert_eq!(brazil("0 0 * * *", autumn.0, autumn.1), ["02-18 03:00", "02-19 03:00"]);
    assert_eq!(brazil("30 23 * * *", autumn.0, autumn.1), ["02-18 01:30", "02-19 02:30"]);
}

/// St. John's, until 2011: 00:01 became 23:01 of the day before (2010-11-07), so that midnight comes twice.
#[test]
fn a_midnight_that_comes_twice_is_one_slot() {
    let slots = |text| between(text, "America/St_Johns", "2010-11-06T12:00:00Z", "2010-11-08T12:00:00Z");
    assert_eq!(slots("0 0 * * *"), ["11-07 02:30", "11-08 03:30"]);
    assert_eq!(slots("30 23 * * *"), ["11-07 02:00", "11-08 03:00"]);
}

/// Samoa crossed the date line: 2011-12-29 was followed by 2011-12-31.
#[test]
fn a_day_that_was_left_out_has_no_slots() {
    let samoa = |text| between(text, "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T12:00:00Z");
    assert_eq!(samoa("0 12 * * *"), ["12-29 22:00", "12-30 22:00", "12-31 22:00"]);
    assert_eq!(samoa("0 0 * * *"), ["12-29 10:00", "12-30 10:00", "12-31 10:00", "01-01 10:00"]);
    assert_eq!(samoa("0 12 30 12 *"), [] as [&str; 0]);
    assert_eq!(samoa("0 12 * * FRI"), [] as [&str; 0]);
    let schedule = Schedule::parse("0 12 30 12 *", zone("Pacific/Apia"), "job").unwrap();
    let last = schedule.last_at_or_before(wall("2012-06-01T00:00:00Z")).unwrap();
    assert_eq!(schedule.local_time(last), "2010-12-30T12:00:00-10:00");
    let next = schedule.next_after(last).unwrap();
    assert_eq!(schedule.local_time(next), "2012-12-30T12:00:00+14:00");
}

/// Lord Howe Island puts its clocks forward by half an hour.
#[test]
fn half_an_hour_is_a_change_too() {
    let slots = |text| between(text, "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-04T00:00:00Z");
    assert_eq!(slots("15 2 * * *"), ["10-03 15:30"], "02:00 becomes 02:30");
    assert_eq!(slots("45 2 * * *"), ["10-03 15:45"]);
}

#[test]
fn slots_are_shown_in_their_zone() {
    let schedule = Schedule::parse("0 3 * * *", zone("Europe/Berlin"), "job").unwrap();
    let slot = schedule.next_after(wall("2026-07-01T00:00:00Z")).unwrap();
    assert_eq!(slot, wall("2026-07-01T01:00:00Z"));
    assert_eq!(schedule.local_time(slot), "2026-07-01T03:00:00+02:00");
    assert_eq!(schedule.zone().to_string(), "Europe/Berlin");
}
