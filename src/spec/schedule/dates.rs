//! The dates on which a schedule fires. Pure.
//!
//! Numbers are sets of our own; `croner` judges what depends on the month: `L`, `W`, `#`. The walk from one date to the next is ours too,
//! so that it goes both ways and ends after one round of the calendar. `croner`'s own search would be right as well (a test holds
//! it against this one), but its expressions take 75 microseconds to read and five kilobytes to keep, for each cron spec on each node.

use chrono::{Datelike, Days, Months, NaiveDate};
use croner::{CronPattern, Weekday};

use super::calendar::Numbers;

/// The Gregorian calendar repeats after 400 years, weekdays included: what has not come by then never comes.
const ROUND_DAYS: i64 = 146_097;

/// 1970-01-01 counted from the first day of the year 1, as `chrono` counts.
const EPOCH_FROM_CE: i64 = 719_163;

/// Which dates match.
#[derive(Clone, Debug)]
pub(super) struct Dates {
    pub(super) months: Numbers,
    /// None: the field is `*`.
    pub(super) days: Option<DaysOfMonth>,
    /// None: the field is `*`.
    pub(super) weekdays: Option<DaysOfMonth>,
    /// Whether a date has to match the day field and the weekday field, rather than one of them.
    pub(super) both: bool,
}

/// A day or a weekday field.
#[derive(Clone, Debug)]
pub(super) struct DaysOfMonth {
    /// Days of the month, or weekdays from Sunday as 0.
    pub(super) numbers: Numbers,
    /// Entries with `L`, `W` or `#`.
    pub(super) of_month: Option<Box<CronPattern>>,
}

/// The entries with `L`, `W` or `#` of a day field and of a weekday field, in numbers and capitals, as `croner` reads them; none where
/// there is neither. Fails with the library's word.
pub(super) fn of_month(days: &str, weekdays: &str) -> Result<Option<Box<CronPattern>>, String> {
    if days.is_empty() && weekdays.is_empty() {
        return Ok(None);
    }
    let mut pattern = CronPattern::new("");
    pattern.days.parse(days).map_err(|e| e.to_string())?;
    pattern.days_of_week.parse(weekdays).map_err(|e| e.to_string())?;
    drop(std::mem::take(&mut pattern.years));
    Ok(Some(Box::new(pattern)))
}

impl DaysOfMonth {
    fn has(&self, number: u32, date: NaiveDate) -> bool {
        let is_of_month = |pattern: &CronPattern| {
            let weekday = Weekday::from_days_from_sunday(date.weekday().num_days_from_sunday());
            // It fails for what is no date alone.
            pattern.day_match(date.year(), date.month(), date.day(), weekday).unwrap_or(false)
        };
        self.numbers.has(number) || self.of_month.as_deref().is_some_and(is_of_month)
    }
}

impl Dates {
    /// The first matching day from `day` on, counted from 1970-01-01.
    pub(super) fn from(&self, day: i64) -> Option<i64> {
        let next_month = |date: NaiveDate| date.with_day(1)?.checked_add_months(Months::new(1));
        self.walk(day, |date| date.succ_opt(), next_month)
    }

    /// The last matching day up to `day`.
    pub(super) fn until(&self, day: i64) -> Option<i64> {
        self.walk(day, |date| date.pred_opt(), |date| date.with_day(1)?.checked_sub_days(Days::new(1)))
    }

    fn walk(
        &self,
        day: i64,
        neighbour: impl Fn(NaiveDate) -> Option<NaiveDate>,
        beyond_month: impl Fn(NaiveDate) -> Option<NaiveDate>,
    ) -> Option<i64> {
        let first = NaiveDate::from_num_days_from_ce_opt(i32::try_from(day + EPOCH_FROM_CE).ok()?)?;
        let mut date = first;
        while (date - first).num_days().abs() <= ROUND_DAYS {
            if !self.months.has(date.month()) {
                date = beyond_month(date)?;
            } else if self.matches(date) {
                return Some(i64::from(date.num_days_from_ce()) - EPOCH_FROM_CE);
            } else {
                date = neighbour(date)?;
            }
        }
        None
    }

    fn matches(&self, date: NaiveDate) -> bool {
        let is_day = |days: &DaysOfMonth| days.has(date.day(), date);
        let is_weekday = |days: &DaysOfMonth| days.has(date.weekday().num_days_from_sunday(), date);
        match (&self.days, &self.weekdays) {
            (None, None) => true,
            (Some(days), None) => is_day(days),
            (None, Some(weekdays)) => is_weekday(weekdays),
            (Some(days), Some(weekdays)) if self.both => is_day(days) && is_weekday(weekdays),
            (Some(days), Some(weekdays)) => is_day(days) || is_weekday(weekdays),
        }
    }
}
