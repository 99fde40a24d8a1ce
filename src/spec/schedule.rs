//! The due times of a cron spec: what an expression may say, and which slot comes next. Pure.
//!
//! Five fields as in POSIX crontab(5), six with seconds in front, `@hourly` to `@yearly`, and `@every 1h30m`, whose slots are the
//! multiples of the period since 1970, so that every node finds the same ones whenever it was started.
//! The fields are judged here, field by field, so that a mistake can be named; `croner` finds the times. It alone would take
//! more than we promise (a weekday's name among the minutes, a seventh field) and says less about what it refuses.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::tree::shortened;
use crate::time::Wall;

/// Longest expression in bytes: one that lists every second, minute and hour stays below it.
pub const EXPRESSION_LEN_MAX: usize = 1_024;

/// Longest period of `@every`: a year. Longer ones are dates.
const PERIOD_SECONDS_MAX: u64 = 366 * 86_400;

/// A checked expression: it has a next slot.
#[derive(Clone, Debug)]
pub struct Schedule(Slots);

#[derive(Clone, Debug)]
enum Slots {
    /// Times that match the fields.
    Calendar(Box<Cron>),
    /// Multiples of so many seconds since 1970-01-01T00:00:00Z.
    Every { seconds: u64 },
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
    /// A time spread by the hash of the name.
    #[error("`H` is not carried out by this version of narun")]
    Hashed,
    /// No time matches.
    #[error("`{0}` never fires: no date matches it")]
    NeverFires(String),
    /// The library refused what was found well-formed here.
    #[error("`{0}` is no schedule: {1}")]
    Refused(String, String),
}

impl Schedule {
    /// Reads an expression; fails where it is not well-formed, and where it would never fire.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if text.len() > EXPRESSION_LEN_MAX {
            return Err(ScheduleError::TooLong(text.len()));
        }
        let slots = match text.strip_prefix('@') {
            Some(word) => named(word)?,
            None => Slots::Calendar(Box::new(calendar(text)?)),
        };
        let schedule = Self(slots);
        // The calendar repeats after 400 years, so the answer is the same whenever it is asked; the croner search goes further.
        match schedule.next_after(Wall(0)) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::NeverFires(shortened(text))),
        }
    }

    /// The first slot after `time`, in UTC; none where the calendar ends.
    pub fn next_after(&self, time: Wall) -> Option<Wall> {
        let seconds = time.0 / 1_000;
        let next = match &self.0 {
            Slots::Every { seconds: period } => (seconds / period + 1).checked_mul(*period)?,
            // Slots are whole seconds: one that is after `time` is after the second that `time` lies in.
            Slots::Calendar(cron) => {
                let from = DateTime::<Utc>::from_timestamp(i64::try_from(seconds).ok()?, 0)?;
                let next = cron.find_next_occurrence(&from, false).ok()?;
                u64::try_from(next.timestamp()).ok()?
            }
        };
        next.checked_mul(1_000).map(Wall)
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
            let seconds = seconds.ok_or_else(|| ScheduleError::Period(shortened(period)))?;
            return Ok(Slots::Every { seconds });
        }
        ("every", None) => return Err(ScheduleError::Period(String::new())),
        _ => return Err(ScheduleError::UnknownWord(shortened(&format!("@{word}")))),
    };
    Ok(Slots::Calendar(Box::new(calendar(fields)?)))
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

/// One of the six fields.
struct Part {
    name: &'static str,
    values: RangeInclusive<u32>,
    /// Names of values, the first for `names_from`.
    names: &'static [&'static str],
    names_from: u32,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    Plain,
    Day,
    Weekday,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const PARTS: [Part; 6] = [
    Part { name: "second", values: 0..=59, names: &[], names_from: 0, kind: Kind::Plain },
    Part { name: "minute", values: 0..=59, names: &[], names_from: 0, kind: Kind::Plain },
    Part { name: "hour", values: 0..=23, names: &[], names_from: 0, kind: Kind::Plain },
    Part { name: "day", values: 1..=31, names: &[], names_from: 0, kind: Kind::Day },
    Part { name: "month", values: 1..=12, names: &MONTHS, names_from: 1, kind: Kind::Plain },
    // 7 is Sunday too.
    Part { name: "weekday", values: 0..=7, names: &WEEKDAYS, names_from: 0, kind: Kind::Weekday },
];

fn calendar(text: &str) -> Result<Cron, ScheduleError> {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("TZ=") || upper.starts_with("CRON_TZ=") {
        return Err(ScheduleError::Zone(shortened(text.split_whitespace().next().unwrap_or(text))));
    }
    let fields: Vec<&str> = upper.split_whitespace().collect();
    let parts = match fields.len() {
        5 => &PARTS[1..],
        6 => &PARTS[..],
        count => return Err(ScheduleError::FieldCount(shortened(text), count)),
    };
    for (part, field) in parts.iter().zip(&fields) {
        if field.split(',').any(|item| item == "H" || item.starts_with("H/") || item.starts_with("H(")) {
            return Err(ScheduleError::Hashed);
        }
        for item in field.split(',') {
            part.check(item).map_err(|problem| ScheduleError::Field {
                field: part.name,
                text: shortened(field),
                problem,
            })?;
        }
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(&upper).map_err(|e| ScheduleError::Refused(shortened(text), e.to_string()))
}

impl Part {
    /// Judges one entry of a list.
    fn check(&self, item: &str) -> Result<(), String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        if let Some(step) = step {
            let step = step.parse::<u32>().ok().filter(|step| (1..=*self.values.end()).contains(step));
            step.ok_or_else(|| format!("a step is a number from 1 to {}", self.values.end()))?;
            if range != "*" && !range.contains('-') {
                return Err("a step needs a range before it, as in `*/5` or `10-30/5`".to_owned());
            }
        }
        match range {
            "" => Err("holds an empty entry".to_owned()),
            "*" => Ok(()),
            "?" if self.kind != Kind::Plain => Ok(()),
            _ => match range.split_once('-') {
                Some((from, to)) => self.range(from, to),
                None => self.single(range),
            },
        }
    }

    fn range(&self, from: &str, to: &str) -> Result<(), String> {
        let first = self.value(from)?;
        // The week ends on a Sunday where Sunday ends a range.
        let last = if self.kind == Kind::Weekday && to == "SUN" { 7 } else { self.value(to)? };
        if first > last {
            return Err(format!(
                "the range runs backwards; write it as two, `{from}-{},{}-{to}`",
                self.last(),
                self.first()
            ));
        }
        Ok(())
    }

    fn single(&self, item: &str) -> Result<(), String> {
        match self.kind {
            Kind::Plain => self.value(item).map(drop),
            Kind::Day if item == "L" || item == "LW" => {
                if item == "LW" {
                    return Err("`LW` is not known; `L` is the last day, `15W` the weekday nearest to a day".to_owned());
                }
                Ok(())
            }
            Kind::Day => self.value(item.strip_suffix('W').unwrap_or(item)).map(drop),
            Kind::Weekday => match item.split_once('#') {
                Some((day, nth)) => {
                    self.value(day)?;
                    match nth {
                        "1" | "2" | "3" | "4" | "5" | "L" => Ok(()),
                        _ => Err("behind `#` stands a number from 1 to 5, or `L` for the last one".to_owned()),
                    }
                }
                None => self.value(item.strip_suffix('L').filter(|day| !day.is_empty()).unwrap_or(item)).map(drop),
            },
        }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        if let Some(position) = self.names.iter().position(|name| *name == text) {
            return Ok(self.names_from + u32::try_from(position).unwrap_or_default());
        }
        let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok());
        number.filter(|number| self.values.contains(number)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(" or a name from `{first}` to `{last}`"),
                _ => String::new(),
            };
            format!("`{text}` is not a number from {} to {}{names}", self.values.start(), self.values.end())
        })
    }

    fn first(&self) -> u32 {
        *self.values.start()
    }

    fn last(&self) -> u32 {
        if self.kind == Kind::Weekday { 6 } else { *self.values.end() }
    }
}

#[cfg(test)]
mod tests;
