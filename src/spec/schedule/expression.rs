//! What an expression of five or six fields says, judged field by field, so that a mistake can be named. Pure.
//!
//! `croner` alone would take more than we promise (a weekday's name among the minutes, a seventh field) and says less about
//! what it refuses.

use std::ops::RangeInclusive;

use croner::CronPattern;

use super::calendar::{Calendar, Numbers};
use super::dates::{self, Dates, DaysOfMonth};
use super::{ScheduleError, hashed};
use crate::spec::tree::shortened;

/// One of the six fields.
struct Part {
    name: &'static str,
    values: RangeInclusive<u32>,
    /// What `H` is drawn from, and where a wildcard ends.
    last: u32,
    last_hashed: u32,
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

/// What one entry of a list says.
enum Entry {
    /// One number.
    Number(u32),
    /// Each so many-th number of a range.
    Steps { first: u32, last: u32, step: u32 },
    /// Days that depend on the month, with `L`, `W` or `#`, in numbers.
    OfMonth(String),
}

pub(super) const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
pub(super) const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// As a weekday, this number is 0.
const SUNDAY_TOO: u32 = 7;

const fn plain(name: &'static str, values: RangeInclusive<u32>) -> Part {
    let last = *values.end();
    Part { name, values, last, last_hashed: last, names: &[], names_from: 0, kind: Kind::Plain }
}

const PARTS: [Part; 6] = [
    plain("second", 0..=59),
    plain("minute", 0..=59),
    plain("hour", 0..=23),
    // Every month has 28 days.
    Part { kind: Kind::Day, last_hashed: 28, ..plain("day", 1..=31) },
    Part { names: &MONTHS, names_from: 1, ..plain("month", 1..=12) },
    // 7 is Sunday too.
    Part { kind: Kind::Weekday, names: &WEEKDAYS, last: 6, last_hashed: 6, ..plain("weekday", 0..=7) },
];

/// Reads an expression of the spec called `name`.
pub(super) fn read(text: &str, name: &str) -> Result<Calendar, ScheduleError> {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("TZ=") || upper.starts_with("CRON_TZ=") {
        return Err(ScheduleError::Zone(shortened(text.split_whitespace().next().unwrap_or(text))));
    }
    let mut given: Vec<&str> = upper.split_whitespace().collect();
    match given.len() {
        5 => given.insert(0, "0"),
        6 => {}
        count => return Err(ScheduleError::FieldCount(shortened(text), count)),
    }
    let fields = PARTS.iter().zip(&given).map(|(part, field)| part.read(field, name)).collect::<Result<Vec<_>, _>>()?;
    let [second, minute, hour, day, month, weekday] =
        <[Read; 6]>::try_from(fields).unwrap_or_else(|_| unreachable!("six parts give six fields"));
    // Vixie's crontab(5): a field that begins with `*` restricts nothing, and the other one has to match as well; where both
    // restrict, one of them is enough, as POSIX has it.
    let both = [given[3], given[5]].iter().any(|field| field.starts_with(['*', '?']));
    let refused = |problem| ScheduleError::Refused(shortened(text), problem);
    let dates = Dates {
        months: month.numbers,
        days: day.days(dates::of_month(&day.of_month, "").map_err(refused)?),
        weekdays: weekday.days(dates::of_month("", &weekday.of_month).map_err(refused)?),
        both,
    };
    Ok(Calendar {
        is_fixed: second.is_fixed && minute.is_fixed && hour.is_fixed,
        seconds: second.numbers,
        minutes: minute.numbers,
        hours: hour.numbers,
        dates,
    })
}

/// A field that was read.
struct Read {
    /// Its plain numbers; Sunday is 0.
    numbers: Numbers,
    /// Whether it consists of numbers alone.
    is_fixed: bool,
    /// Whether it is nothing but `*` or `?`.
    is_any: bool,
    /// Its entries with `L`, `W` and `#`.
    of_month: String,
}

impl Read {
    /// The field as one of days; none where it says nothing of them.
    fn days(&self, of_month: Option<Box<CronPattern>>) -> Option<DaysOfMonth> {
        (!self.is_any).then_some(DaysOfMonth { numbers: self.numbers, of_month })
    }
}

impl Part {
    fn read(&self, field: &str, name: &str) -> Result<Read, ScheduleError> {
        let wrong = |problem| ScheduleError::Field { field: self.name, text: shortened(field), problem };
        let is_any = matches!(field, "*" | "?");
        let mut read = Read { numbers: Numbers::default(), is_fixed: true, is_any, of_month: String::new() };
        for item in field.split(',') {
            let item = self.without_hash(item, name).map_err(wrong)?;
            match self.entry(&item).map_err(wrong)? {
                Entry::Number(number) => read.numbers.add(number, number, 1),
                Entry::Steps { first, last, step } => {
                    read.numbers.add(first, last, step);
                    read.is_fixed = false;
                }
                Entry::OfMonth(entry) => {
                    read.of_month += &entry;
                    read.of_month.push(',');
                }
            }
        }
        if self.kind == Kind::Weekday && read.numbers.has(SUNDAY_TOO) {
            read.numbers.add(0, 0, 1);
        }
        Ok(read)
    }

    /// The entry with what `H` stands for in its place.
    fn without_hash(&self, item: &str, name: &str) -> Result<String, String> {
        // `H` begins no name of a month or weekday.
        let Some(rest) = item.strip_prefix('H') else { return Ok(item.to_owned()) };
        let (range, step) = match rest.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (rest, None),
        };
        let (first, last) = match range {
            "" => (self.first(), self.last_hashed),
            _ => {
                let bounds = range.strip_prefix('(').and_then(|range| range.strip_suffix(')'));
                let bounds = bounds.and_then(|bounds| bounds.split_once('-'));
                let (from, to) =
                    bounds.ok_or_else(|| "`H` is written as `H`, `H(0-29)`, `H/15` or `H(0-29)/10`".to_owned())?;
                self.range(from, to)?
            }
        };
        Ok(hashed::written(hashed::draw(name, self.name), first, last, step))
    }

    /// Judges one entry of a list.
    fn entry(&self, item: &str) -> Result<Entry, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (item, None),
        };
        if step.is_some() && range != "*" && !range.contains('-') {
            return Err("a step needs a range before it, as in `*/5` or `10-30/5`".to_owned());
        }
        let steps = |first, last| Entry::Steps { first, last, step: step.unwrap_or(1) };
        match range {
            "" => Err("holds an empty entry".to_owned()),
            "*" => Ok(steps(self.first(), self.last)),
            "?" if self.kind != Kind::Plain => Ok(steps(self.first(), self.last)),
            _ => match range.split_once('-') {
                Some((from, to)) => self.range(from, to).map(|(first, last)| steps(first, last)),
                None => self.single(range),
            },
        }
    }

    fn step(&self, text: &str) -> Result<u32, String> {
        let step = text.parse::<u32>().ok().filter(|step| (1..=*self.values.end()).contains(step));
        step.ok_or_else(|| format!("a step is a number from 1 to {}", self.values.end()))
    }

    fn range(&self, from: &str, to: &str) -> Result<(u32, u32), String> {
        let first = self.value(from)?;
        // The week ends on a Sunday where Sunday ends a range.
        let last = if self.kind == Kind::Weekday && to == "SUN" { 7 } else { self.value(to)? };
        if first > last {
            return Err(format!(
                "the range runs backwards; write it as two, `{from}-{},{}-{to}`",
                self.last,
                self.first()
            ));
        }
        Ok((first, last))
    }

    fn single(&self, item: &str) -> Result<Entry, String> {
        match self.kind {
            Kind::Day if item == "LW" => {
                Err("`LW` is not known; `L` is the last day, `15W` the weekday nearest to a day".to_owned())
            }
            Kind::Day if item == "L" => Ok(Entry::OfMonth(item.to_owned())),
            Kind::Day if item.ends_with('W') => {
                let day = self.value(item.strip_suffix('W').unwrap_or(item))?;
                Ok(Entry::OfMonth(format!("{day}W")))
            }
            Kind::Weekday if item.contains('#') => {
                let (day, nth) = item.split_once('#').unwrap_or_default();
                let day = self.value(day)? % SUNDAY_TOO;
                match nth {
                    "1" | "2" | "3" | "4" | "5" | "L" => Ok(Entry::OfMonth(format!("{day}#{nth}"))),
                    _ => Err("behind `#` stands a number from 1 to 5, or `L` for the last one".to_owned()),
                }
            }
            Kind::Weekday if item.len() > 1 && item.ends_with('L') => {
                let day = self.value(item.strip_suffix('L').unwrap_or(item))? % SUNDAY_TOO;
                Ok(Entry::OfMonth(format!("{day}#L")))
            }
            Kind::Plain | Kind::Day | Kind::Weekday => self.value(item).map(Entry::Number),
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
}
