//! What holds for every schedule in every zone at every time.

use super::oracle::{Plain, at, changes};
use super::*;
use crate::spec::schedule::zone::WINDOW;
use jiff::tz::TimeZone;

/// From 2000 to the end of 2037, in seconds.
const SPAN: std::ops::Range<i64> = 946_684_800..2_145_916_800;

fn any_zone() -> impl Strategy<Value = Zone> {
    prop::sample::select(Zone::all().collect::<Vec<_>>())
}

/// A zone and a time; half of the times are near a change of its clock, many of those very near.
fn zone_and_time() -> impl Strategy<Value = (Zone, i64)> {
    let off = prop_oneof![-WINDOW..WINDOW, -7_200..7_200_i64];
    (any_zone(), SPAN, any::<prop::sample::Index>(), off, any::<bool>()).prop_map(
        |(zone, any_time, which, off, is_near)| {
            let changes = changes(&TimeZone::get(zone.name()).unwrap(), SPAN.start, SPAN.end);
            if changes.is_empty() || !is_near {
                (zone, any_time)
            } else {
                (zone, changes[which.index(changes.len())] + off)
            }
        },
    )
}

/// A field of hours or quarters: its text, what it holds, and whether it consists of numbers.
fn field(values: Vec<i8>) -> impl Strategy<Value = (String, Vec<i8>, bool)> {
    let (first, last) = (values[0], values[values.len() - 1]);
    let all = values.clone();
    let between = move |from: i8, to: i8| all.iter().copied().filter(|v| (from..=to).contains(v)).collect::<Vec<_>>();
    let range = between.clone();
    prop_oneof![
        4 => prop::sample::subsequence(values.clone(), 1..4.min(values.len())).prop_map(|values| {
            (values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), values, true)
        }),
        2 => (prop::sample::select(values.clone()), prop::sample::select(values)).prop_map(move |(a, b)| {
            let (from, to) = (a.min(b), a.max(b));
            // Over minutes, a range would hold more than quarters.
            let step = if last == 45 { "/15" } else { "" };
            (format!("{from}-{to}{step}"), range(from, to), false)
        }),
        1 => Just((whole(first, last), between(first, last), false)),
    ]
}

/// All of a field in one word.
fn whole(first: i8, last: i8) -> String {
    match last {
        45 => "*/15".to_owned(),
        23 => "*".to_owned(),
        _ => format!("{first}-{last}"),
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let weekdays = prop_oneof![
        Just(("*".to_owned(), (0..7).collect::<Vec<i8>>())),
        prop::sample::subsequence((0..7).collect::<Vec<i8>>(), 1..7)
            .prop_map(|days| (days.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), days)),
    ];
    // Most clocks are changed in the first hours of a day.
    let hours = prop_oneof![field((0..24).collect()), field((0..4).collect())];
    (field(vec![0, 15, 30, 45]), hours, weekdays).prop_map(|(minutes, hours, (days, weekdays))| Plain {
        text: format!("{} {} * * {days}", minutes.0, hours.0),
        minutes: minutes.1.into_iter().collect(),
        hours: hours.1.into_iter().collect(),
        weekdays: weekdays.into_iter().collect(),
        is_fixed: minutes.2 && hours.2,
    })
}

/// Any expression, those that fire every second and every twelfth year included.
fn any_expression() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => expression(),
        3 => plain().prop_map(|plain| plain.text),
        2 => prop::sample::select(vec![
            "* * * * * *", "*/7 * * * * *", "* * * * *", "H/7 * * * *", "0 0 29 2 *", "0 12 29 2 */7", "30 2 L * *",
            "0 0 15W * MON#2", "59 59 23 31 12 *", "@yearly", "@hourly", "@every 1s", "@every 7h13m", "@every 366d",
        ]).prop_map(str::to_owned),
    ]
}

fn seconds(slot: Wall) -> i64 {
    i64::try_from(slot.0 / 1_000).unwrap()
}

fn wall_at(instant: i64) -> Wall {
    Wall(u64::try_from(instant).unwrap() * 1_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A week round any time, the slots are what somebody else's calendar says.
    #[test]
    fn agrees_with_the_oracle(plain in plain(), (zone, time) in zone_and_time()) {
        let schedule = Schedule::parse(&plain.text, zone, "job").unwrap();
        let theirs = plain.slots(&TimeZone::get(zone.name()).unwrap(), time - 3 * DAY, time + 4 * DAY);
        let ours = schedule.slots_between(wall_at(time - 3 * DAY - 1), wall_at(time + 4 * DAY - 1), SLOTS_MAX);
        prop_assert_eq!(ours.map(seconds).collect::<Vec<_>>(), theirs, "`{}` in {}", &plain.text, zone);
    }

    /// The next slot is later, whole, the first one, and the same from wherever one looks.
    #[test]
    fn next_and_last_are_two_ways_to_say_one_thing(text in any_expression(), (zone, time) in zone_and_time(), ms in 0..1_000_u64) {
        let schedule = Schedule::parse(&text, zone, "job").unwrap();
        let now = Wall(wall_at(time).0 + ms);
        let next = schedule.next_after(now).unwrap();
        prop_assert!(next > now && next.0.is_multiple_of(1_000), "`{}` in {}: {} after {}", &text, zone, next, now);
        if let Some(last) = schedule.last_at_or_before(now) {
            prop_assert!(last <= now && last.0.is_multiple_of(1_000), "`{}` in {}: {} at or before {}", &text, zone, last, now);
            prop_assert_eq!(schedule.next_after(last), Some(next), "`{}` in {}: after {}", &text, zone, last);
            prop_assert_eq!(schedule.last_at_or_before(last), Some(last));
        }
        prop_assert_eq!(schedule.last_at_or_before(next), Some(next), "`{}` in {}", &text, zone);
        prop_assert_eq!(schedule.next_after(Wall(next.0 - 1)), Some(next));
        let before_next = schedule.last_at_or_before(Wall(next.0 - 1));
        prop_assert_eq!(before_next, schedule.last_at_or_before(now), "`{}` in {}", &text, zone);
    }

    /// What lies between two times is each next slot, up to the limit.
    #[test]
    fn slots_between_are_those_that_come_next(text in any_expression(), (zone, time) in zone_and_time(), max in 0..40_usize) {
        let schedule = Schedule::parse(&text, zone, "job").unwrap();
        let (after, until) = (wall_at(time), wall_at(time + 3 * DAY));
        let between: Vec<Wall> = schedule.slots_between(after, until, max).collect();
        let mut expected = Vec::new();
        let mut slot = schedule.next_after(after);
        while let Some(next) = slot.filter(|next| *next <= until && expected.len() < max) {
            expected.push(next);
            slot = schedule.next_after(next);
        }
        prop_assert_eq!(between, expected);
    }

    /// A later time never has an earlier slot.
    #[test]
    fn next_never_goes_back(text in any_expression(), (zone, time) in zone_and_time(), later in 0..200_000_i64) {
        let schedule = Schedule::parse(&text, zone, "job").unwrap();
        prop_assert!(schedule.next_after(wall_at(time)) <= schedule.next_after(wall_at(time + later)));
        prop_assert!(schedule.last_at_or_before(wall_at(time)) <= schedule.last_at_or_before(wall_at(time + later)));
    }

    /// Texts of the right characters, which get further than any text.
    #[test]
    fn what_is_taken_always_has_later_slots(
        text in "[@*0-9,/#LWHh?A-Z-]{1,6}( [*0-9,/#LWH?A-Z()-]{1,4}){4,5}",
        (zone, time) in zone_and_time(),
    ) {
        if let Ok(schedule) = Schedule::parse(&text, zone, "job") {
            let next = schedule.next_after(wall_at(time));
            prop_assert!(next.is_some_and(|next| next > wall_at(time) && next.0.is_multiple_of(1_000)), "{text}: {next:?}");
        }
    }
}

#[test]
fn the_oracle_knows_the_time() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    assert_eq!(at(1_774_746_000, &berlin).to_string(), "2026-03-29T03:00:00+02:00[Europe/Berlin]");
    let daily = Plain::daily(2, 30);
    assert_eq!(daily.slots(&berlin, 1_774_742_400, 1_774_828_800), [1_774_746_000]);
    assert_eq!(changes(&berlin, 1_774_742_400, 1_774_828_800), [1_774_746_000]);
}
