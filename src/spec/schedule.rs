//! The due times of a cron spec: what an expression may say, and which slot comes next. Pure.
//!
//! Five fields as in POSIX crontab(5), six with seconds in front, `@hourly` to `@yearly`, and `@every 1h30m`, whose slots are the
//! multiples of the period since 1970, so that every node finds the same ones whenever it was started. Values may be left to the
//! hash of the name (`hashed`). Of day and weekday either is enough where both restrict; one that begins with `*` or `?` does not
//! restrict, and then both have to match: Vixie's reading of crontab(5), and POSIX' where there are no steps.
//!
//! A slot is an instant in whole seconds. `expression` judges the fields, `calendar` and `dates` find the local times that match them
//! (`croner` says which dates do), `zone` knows what clocks show, and here stands the rule that joins them:
//!
//! - *Fixed times*: second, minute and hour are numbers or lists of numbers, `H` included. Each local time is one slot: the first
//!   instant at which clocks show it, so that one that comes twice fires once; one that clocks leave out fires at the first
//!   instant after the gap, where all that fall into one gap are one slot. A day that is left out as a whole has no slots.
//! - *All others* (a wildcard, range or step in one of the three): every instant at which clocks show a matching time is a slot, so that
//!   `*/15` goes on every quarter of an hour while clocks change.

mod calendar;
mod dates;
mod expression;
mod hashed;
mod zone;

use calendar::Calendar;
use zone::WINDOW;
pub use zone::Zone;

use super::tree::shortened;
use crate::time::Wall;

/// Longest expression in bytes: one that lists every second, minute and hour stays below it.
pub const EXPRESSION_LEN_MAX: usize = 1_024;

/// Longest period of `@every`: a year. Longer ones are dates.
const PERIOD_SECONDS_MAX: u64 = 366 * 86_400;

/// Most slots that [`Schedule::slots_between`] gives: an hour of a schedule that fires every second. Who catches up on more than
/// that is better served by the latest.
pub const SLOTS_MAX: usize = 3_600;

/// The last slot there is, 9999-12-31T23:59:59Z: later years are not written in four digits (RFC 3339).
const SLOT_LAST: i64 = 253_402_300_799;

const DAY: i64 = 86_400;

/// A checked expression in its zone: it has slots.
#[derive(Clone, Debug)]
pub struct Schedule {
    slots: Slots,
    zone: Zone,
}

#[derive(Clone, Debug)]
enum Slots {
    /// Times that match the fields.
    Calendar(Calendar),
    /// Multiples of so many seconds since 1970-01-01T00:00:00Z.
    Every { seconds: i64 },
}

/// Why a text is no expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The text is empty.
    #[error("found an empty schedule, wanted an expression such as `0 3 * * *`")]
    Empty,
    /// The text is longer than [`EXPRESSION_LEN_MAX`].
    #[error("the schedule is {0} bytes long, wanted at most {EXPRESSION_LEN_MAX}")]
    TooLong(usize),
    /// The text has not five and not six fields.
    #[error("`{0}` has {1} fields, wanted 5 (minute hour day month weekday) or 6 (with seconds in front)")]
    FieldCount(String, usize),
    /// A word behind `@` that means nothing.
    #[error(
        "`{0}` is unknown, wanted `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually` or `@every DURATION`"
    )]
    UnknownWord(String),
    /// What follows `@every` is no duration.
    #[error("`{0}` is no period for `@every`, wanted one such as `90s`, `15m` or `1h30m`, from 1 s to 366 days")]
    Period(String),
    /// One field breaks a rule.
    #[error("{field} `{text}`: {problem}")]
    Field {
        /// Which one.
        field: &'static str,
        /// As it was written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The text names a time zone.
    #[error("`{0}` does not belong into the schedule; the zone is a field of its own, `timezone`")]
    Zone(String),
    /// No zone of that name; and the one that is most like it.
    #[error("`{0}` is no time zone; {hint}", hint = suggestion(.1))]
    UnknownZone(String, Option<&'static str>),
    /// No time matches.
    #[error("`{0}` never fires: no date matches it")]
    NeverFires(String),
    /// The library refused what was found well-formed here.
    #[error("`{0}` is no schedule: {1}")]
    Refused(String, String),
}

/// Judges an expression as far as it can be without the spec's name and zone.
pub(super) fn check(text: &str) -> Result<(), ScheduleError> {
    read(text, "").map(drop)
}

impl Schedule {
    /// Reads the expression of the spec called `name`, which `H` is drawn from. Fails where it is not well-formed, and where it
    /// would never fire.
    pub fn parse(expression: &str, zone: Zone, name: &str) -> Result<Self, ScheduleError> {
        let schedule = Self { slots: read(expression, name)?, zone };
        // The calendar repeats after 400 years, so the answer is the same whenever it is asked.
        match schedule.next_after(Wall(0)) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::NeverFires(shortened(expression.trim()))),
        }
    }

    /// The zone that it is read in.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The first slot after `time`; none where the calendar ends.
    pub fn next_after(&self, time: Wall) -> Option<Wall> {
        // Slots are whole seconds: one that is after `time` is after the second that `time` lies in.
        let instant = i64::try_from(time.0 / 1_000).ok().filter(|instant| *instant < SLOT_LAST)?;
        let next = match &self.slots {
            Slots::Every { seconds } => (instant / seconds + 1) * seconds,
            Slots::Calendar(calendar) if calendar.is_fixed => self.fixed_after(calendar, instant)?,
            Slots::Calendar(calendar) => self.elapsing_after(calendar, instant)?,
        };
        wall(next)
    }

    /// The last slot that is not after `time`; none before 1970.
    pub fn last_at_or_before(&self, time: Wall) -> Option<Wall> {
        let instant = i64::try_from(time.0 / 1_000).map_or(SLOT_LAST, |instant| instant.min(SLOT_LAST));
        let last = match &self.slots {
            Slots::Every { seconds } => instant / seconds * seconds,
            Slots::Calendar(calendar) if calendar.is_fixed => self.fixed_until(calendar, instant)?,
            Slots::Calendar(calendar) => self.elapsing_until(calendar, instant)?,
        };
        wall(last)
    }

    /// The slots after `after` up to and with `until`, in order: the first `max` of them, and at most [`SLOTS_MAX`].
    pub fn slots_between(&self, after: Wall, until: Wall, max: usize) -> impl Iterator<Item = Wall> + '_ {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
            .take_while(move |slot| *slot <= until)
            .take(max.min(SLOTS_MAX))
    }

    /// A slot as clocks of the zone show it: RFC 3339 with the offset.
    pub fn local_time(&self, slot: Wall) -> String {
        let written = i64::try_from(slot.0 / 1_000).ok().and_then(|instant| self.zone.written(instant));
        written.unwrap_or_else(|| "-".to_owned())
    }

    /// A slot's local time is greater than all that clocks have shown up to `instant`.
    fn fixed_after(&self, calendar: &Calendar, instant: i64) -> Option<i64> {
        let mut local = calendar.from(self.zone.reached(instant) + 1)?;
        loop {
            let slot = self.zone.first_at(local);
            if self.is_in_a_day(local, slot) {
                return Some(slot);
            }
            local = calendar.from((local.div_euclid(DAY) + 1) * DAY)?;
        }
    }

    fn fixed_until(&self, calendar: &Calendar, instant: i64) -> Option<i64> {
        let mut local = calendar.until(self.zone.reached(instant))?;
        loop {
            let slot = self.zone.first_at(local);
            if self.is_in_a_day(local, slot) {
                return Some(slot);
            }
            local = calendar.until(local.div_euclid(DAY) * DAY - 1)?;
        }
    }

    /// Whether the day of the time `local`, which stands for `slot`, exists in the zone.
    fn is_in_a_day(&self, local: i64, slot: i64) -> bool {
        self.zone.local(slot) == local || self.zone.has_day(local.div_euclid(DAY))
    }

    /// Between two changes of the clock, local time runs as time does: so a match is a slot if no change comes before it. If it is far
    /// off, only the time round it has to be looked at: whatever offset holds in between, no slot is farther from its place
    /// than two offsets can differ.
    fn elapsing_after(&self, calendar: &Calendar, instant: i64) -> Option<i64> {
        let mut at = instant + 1;
        loop {
            let offset = self.zone.offset(at);
            let found = calendar.from(at + offset)? - offset;
            if found > SLOT_LAST {
                return None;
            }
            let near = found.min(at + WINDOW);
            match self.zone.change(at, near) {
                Some(change) => at = change,
                None if near == found => return Some(found),
                None => at = near.max(found - WINDOW),
            }
        }
    }

    /// [`elapsing_after`](Self::elapsing_after), the other way round.
    fn elapsing_until(&self, calendar: &Calendar, instant: i64) -> Option<i64> {
        let mut at = instant;
        loop {
            let offset = self.zone.offset(at);
            let found = calendar.until(at + offset)? - offset;
            if found < -WINDOW {
                return None;
            }
            let near = found.max(at - WINDOW);
            match self.zone.change(near, at) {
                Some(change) => at = change - 1,
                None if near == found => return Some(found),
                None => at = near.min(found + WINDOW),
            }
        }
    }
}

/// An instant as a slot, if it can be one.
fn wall(instant: i64) -> Option<Wall> {
    u64::try_from(instant).ok().filter(|_| instant <= SLOT_LAST).map(|seconds| Wall(seconds * 1_000))
}

fn suggestion(nearest: &Option<&str>) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => "one is written as `Europe/Berlin`".to_owned(),
    }
}

fn read(text: &str, name: &str) -> Result<Slots, ScheduleError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ScheduleError::Empty);
    }
    if text.len() > EXPRESSION_LEN_MAX {
        return Err(ScheduleError::TooLong(text.len()));
    }
    match text.strip_prefix('@') {
        Some(word) => named(word),
        None => expression::read(text, name).map(Slots::Calendar),
    }
}

fn named(word: &str) -> Result<Slots, ScheduleError> {
    let mut parts = word.splitn(2, char::is_whitespace);
    let (name, rest) = (parts.next().unwrap_or_default().to_ascii_lowercase(), parts.next().map(str::trim));
    let fields = match (name.as_str(), rest) {
        ("hourly", None) => "0 * * * *",
        ("daily" | "midnight", None) => "0 0 * * *",
        ("weekly", None) => "0 0 * * 0",
        ("monthly", None) => "0 0 1 * *",
        ("yearly" | "annually", None) => "0 0 1 1 *",
        ("every", Some(period)) => {
            let seconds = period_seconds(period).filter(|seconds| (1..=PERIOD_SECONDS_MAX).contains(seconds));
            let seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
            let seconds = seconds.ok_or_else(|| ScheduleError::Period(shortened(period)))?;
            return Ok(Slots::Every { seconds });
        }
        ("every", None) => return Err(ScheduleError::Period(String::new())),
        _ => return Err(ScheduleError::UnknownWord(shortened(&format!("@{word}")))),
    };
    expression::read(fields, "").map(Slots::Calendar)
}

/// The seconds of `1h30m`, `90s`, `2d`; each unit at most once, from the greatest down.
fn period_seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    let mut greatest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let (unit, behind) = match rest[digits..].chars().next()? {
            'd' => (86_400, &rest[digits + 1..]),
            'h' => (3_600, &rest[digits + 1..]),
            'm' => (60, &rest[digits + 1..]),
            's' => (1, &rest[digits + 1..]),
            _ => return None,
        };
        if unit >= greatest {
            return None;
        }
        greatest = unit;
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = behind;
    }
    Some(total)
}

#[cfg(test)]
mod tests;
