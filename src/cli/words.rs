//! Words that people write and read: durations, moments, sizes, numbers of things. Pure.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A duration such as `90s`, `1h30m` or `250ms`; a bare number counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write it as `90s`, `15m` or `1h30m`");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)?;
        millis = millis.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

/// A moment that was written: RFC 3339, or a duration, which means that long before `now`.
pub(crate) fn moment(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.to_utc());
    }
    let ago = duration(text).ok().and_then(|ago| chrono::TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| now.checked_sub_signed(ago)).ok_or_else(|| {
        format!("`{text}` is no moment: write it as `2026-11-21T10:30:00Z`, or as `15m` for a quarter of an hour ago")
    })
}

/// How long something is ago, in its one or two greatest units: `45s`, `12m`, `3h5m`, `2d4h`.
pub(crate) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// A duration as one would write it: `15s`, `1h30m`, `250ms`.
pub(crate) fn span(span: Duration) -> String {
    let mut millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in UNITS.iter().rev() {
        if millis >= *factor {
            text.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    text
}

/// A moment of the API, or what it says instead, to the second.
pub(crate) fn seconds(moment: &str) -> String {
    match DateTime::parse_from_rfc3339(moment) {
        Ok(moment) => moment.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
        Err(_) => moment.to_owned(),
    }
}

/// How long a moment of the API lies before `now`; zero where it is later or none.
pub(crate) fn since(moment: &str, now: DateTime<Utc>) -> Duration {
    let moment = DateTime::parse_from_rfc3339(moment).ok();
    moment.and_then(|moment| (now - moment.to_utc()).to_std().ok()).unwrap_or_default()
}

/// A size in binary units: `9.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const STEP: f64 = 1024.0;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Sizes for people: the lost digits are not shown.
    #[expect(clippy::cast_precision_loss)]
    let mut number = bytes as f64 / STEP;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter().peekable();
    let mut unit = "KiB";
    while let Some(next) = units.next() {
        unit = next;
        // What would be shown as 1024.0 belongs to the next unit.
        if number < STEP - 0.05 || units.peek().is_none() {
            break;
        }
        number /= STEP;
    }
    format!("{number:.1} {unit}")
}

/// `1 instance`, `2 instances`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The first digits of a long identifier.
pub(crate) fn short(text: &str) -> &str {
    text.get(..10).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, millis, shown) in [
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("250ms", 250, "250ms"),
            ("2d", 172_800_000, "2d"),
            ("15", 15_000, "15s"),
            ("0", 0, "0s"),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
            assert_eq!(span(Duration::from_millis(millis)), shown);
        }
        for wrong in ["", "s", "5x", "1.5h", "-3s", "5 m", "99999999999999999999s", "18446744073709551615d", "1hour"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_are_read() {
        let now = DateTime::parse_from_rfc3339("2026-11-21T10:30:00Z").unwrap().to_utc();
        assert_eq!(moment("15m", now).unwrap().to_rfc3339(), "2026-11-21T10:15:00+00:00");
        assert_eq!(moment("2026-01-02T03:04:05+01:00", now).unwrap().to_rfc3339(), "2026-01-02T02:04:05+00:00");
        assert!(moment("yesterday", now).is_err());
        assert_eq!(since("2026-11-21T10:29:00Z", now), Duration::from_secs(60));
        assert_eq!(since("2026-11-21T10:31:00Z", now), Duration::ZERO);
        assert_eq!(seconds("2026-11-21T10:29:00.123Z"), "2026-11-21T10:29:00Z");
    }

    #[test]
    fn ages_and_sizes_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3_725, "1h2m"), (90_000, "1d1h")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (10_000_000, "9.5 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((count(1, "node"), count(0, "node")), ("1 node".into(), "0 nodes".into()));
    }
}
