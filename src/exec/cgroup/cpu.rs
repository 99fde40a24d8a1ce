//! Processor time: how much of each period an instance gets at most (Documentation/scheduler/sched-bwc.rst).
//!
//! How much it has used is told by version 2 of every group, with the controller or without.

use std::path::Path;

use super::files::read;
use super::hierarchy::Version;
use super::setting::Setting;
use crate::confinement::{CPU_PERIOD_US, Limits};
use crate::exec::usage::{Usage, keyed};

/// What to write.
pub(super) fn settings(limits: &Limits, version: Version) -> Vec<Setting> {
    if limits.cpu_millicores == 0 {
        return Vec::new();
    }
    let quota_us = u64::from(limits.cpu_millicores) * u64::from(CPU_PERIOD_US) / 1000;
    match version {
        Version::One => {
            vec![Setting::needed("cpu.cfs_period_us", CPU_PERIOD_US), Setting::needed("cpu.cfs_quota_us", quota_us)]
        }
        Version::Two => vec![Setting::needed("cpu.max", format!("{quota_us} {CPU_PERIOD_US}"))],
    }
}

/// How much time was used, out of a group of version 2.
pub(super) fn time(unified: &Path, usage: &mut Usage) {
    usage.cpu_us = read(&unified.join("cpu.stat")).and_then(|text| keyed(&text, "usage_usec"));
}

/// How it was held back.
pub(super) fn usage(group: &Path, version: Version, usage: &mut Usage) {
    let Some(text) = read(&group.join("cpu.stat")) else { return };
    usage.throttled_periods = keyed(&text, "nr_throttled");
    usage.throttled_us = match version {
        Version::One => keyed(&text, "throttled_time").map(|nanos| nanos / 1000),
        Version::Two => keyed(&text, "throttled_usec"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_core_is_half_of_each_period() {
        let written = |millicores, version| {
            let limits = Limits { cpu_millicores: millicores, ..Limits::default() };
            let all =
                settings(&limits, version).into_iter().map(|setting| format!("{} {}", setting.file, setting.value));
            all.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(written(500, Version::Two), "cpu.max 50000 100000");
        assert_eq!(written(500, Version::One), "cpu.cfs_period_us 100000, cpu.cfs_quota_us 50000");
        assert_eq!(written(10, Version::Two), "cpu.max 1000 100000");
        assert_eq!(written(2500, Version::Two), "cpu.max 250000 100000");
        assert_eq!(written(0, Version::One), "");
    }

    #[test]
    fn being_held_back_is_told_in_microseconds() {
        let dir = tempfile::tempdir().unwrap();
        let mut found = Usage::default();
        std::fs::write(dir.path().join("cpu.stat"), "nr_periods 9\nnr_throttled 4\nthrottled_time 2500000\n").unwrap();
        usage(dir.path(), Version::One, &mut found);
        assert_eq!((found.throttled_periods, found.throttled_us), (Some(4), Some(2500)));
        std::fs::write(dir.path().join("cpu.stat"), "usage_usec 77\nnr_throttled 1\nthrottled_usec 3\n").unwrap();
        usage(dir.path(), Version::Two, &mut found);
        time(dir.path(), &mut found);
        assert_eq!((found.throttled_periods, found.throttled_us, found.cpu_us), (Some(1), Some(3), Some(77)));
    }
}
