//! Local times that match an expression, on a clock that is never put forward or back. Pure.
//!
//! Times are seconds since 1970-01-01T00:00:00 on that clock. What becomes of them in a zone is `schedule`'s.

use super::dates::Dates;

const DAY: i64 = 86_400;

/// A set of numbers below 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// Adds each `step`-th number from `first` to `last`.
    pub(super) fn add(&mut self, first: u32, last: u32, step: u32) {
        for number in (first..=last.min(63)).step_by(step.max(1) as usize) {
            self.0 |= 1 << number;
        }
    }

    pub(super) fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// The least one not below `number`, which is at most 63.
    fn from(self, number: u32) -> Option<u32> {
        let rest = self.0 >> number;
        (rest != 0).then(|| number + rest.trailing_zeros())
    }

    /// The greatest one below `number`, which is at most 63.
    fn below(self, number: u32) -> Option<u32> {
        let rest = self.0 & ((1 << number) - 1);
        rest.checked_ilog2()
    }
}

/// The fields of an expression.
#[derive(Clone, Debug)]
pub(super) struct Calendar {
    pub(super) seconds: Numbers,
    pub(super) minutes: Numbers,
    pub(super) hours: Numbers,
    pub(super) dates: Dates,
    /// Whether second, minute and hour are numbers or lists of numbers, without wildcard, range and step.
    pub(super) is_fixed: bool,
}

impl Calendar {
    /// The first match from `local` on.
    pub(super) fn from(&self, local: i64) -> Option<i64> {
        let (day, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let first = self.dates.from(day)?;
        if first == day
            && let Some(time) = self.time_from(time)
        {
            return Some(day * DAY + time);
        }
        let day = if first == day { self.dates.from(day + 1)? } else { first };
        Some(day * DAY + self.time_from(0)?)
    }

    /// The last match up to `local`.
    pub(super) fn until(&self, local: i64) -> Option<i64> {
        let (day, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let last = self.dates.until(day)?;
        if last == day
            && let Some(time) = self.time_until(time)
        {
            return Some(day * DAY + time);
        }
        let day = if last == day { self.dates.until(day - 1)? } else { last };
        Some(day * DAY + self.time_until(DAY - 1)?)
    }

    /// The first matching time of day from `time` on.
    fn time_from(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = parted(time);
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.from(second)
            {
                return Some(joined(hour, minute, second));
            }
            if let Some(minute) = self.minutes.from(minute + 1) {
                return Some(joined(hour, minute, self.seconds.from(0)?));
            }
        }
        Some(joined(self.hours.from(hour + 1)?, self.minutes.from(0)?, self.seconds.from(0)?))
    }

    /// The last matching time of day up to `time`.
    fn time_until(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = parted(time);
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.below(second + 1)
            {
                return Some(joined(hour, minute, second));
            }
            if let Some(minute) = self.minutes.below(minute) {
                return Some(joined(hour, minute, self.seconds.below(60)?));
            }
        }
        Some(joined(self.hours.below(hour)?, self.minutes.below(60)?, self.seconds.below(60)?))
    }
}

/// Hour, minute and second of a time of day.
fn parted(time: i64) -> (u32, u32, u32) {
    let time = u32::try_from(time).unwrap_or_default();
    (time / 3_600, time / 60 % 60, time % 60)
}

fn joined(hour: u32, minute: u32, second: u32) -> i64 {
    i64::from(hour * 3_600 + minute * 60 + second)
}
