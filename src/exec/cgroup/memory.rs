//! Memory: how much is kept for an instance, and how much it cannot exceed.
//!
//! The limit counts swap too: on a host without swap a program meets it at the same place as on one with, and none slows a
//! host down by swapping. Where it is met the kernel reclaims, and then kills: under version 2 the whole instance, so that no half of it
//! is left; under version 1 one process. (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst)

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::files::{read, write};
use super::hierarchy::Version;
use super::setting::Setting;
use crate::confinement::Limits;
use crate::exec::usage::{Usage, keyed, number};

/// Version 1 says "no limit" with a number near the greatest one, rounded down to a page; no host has this much memory.
const UNLIMITED_MIN: u64 = 1 << 60;

/// What to write.
pub(super) fn settings(limits: &Limits, version: Version) -> Vec<Setting> {
    let mut all = Vec::new();
    if limits.memory_low > 0 {
        let file = match version {
            Version::One => "memory.soft_limit_in_bytes",
            Version::Two => "memory.low",
        };
        all.push(Setting::needed(file, limits.memory_low));
    }
    if limits.memory_max > 0 {
        match version {
            Version::One => {
                all.push(Setting::needed("memory.limit_in_bytes", limits.memory_max));
                // Memory and swap together; after the limit, below which it may not be. There only where swap is counted.
                all.push(Setting::wished("memory.memsw.limit_in_bytes", limits.memory_max));
            }
            Version::Two => {
                all.push(Setting::needed("memory.max", limits.memory_max));
                all.push(Setting::wished("memory.swap.max", 0_u64));
                all.push(Setting::wished("memory.oom.group", 1_u64));
            }
        }
    }
    all
}

/// What a base group of version 2 keeps for all of its instances together. A group is kept no more than the groups above it are,
/// and what those keep beyond the sum of their children's goes to children that have asked for nothing: so it is that sum.
#[derive(Debug)]
pub(super) struct Protection {
    file: PathBuf,
    sum: Cell<u64>,
}

impl Protection {
    /// Of that base group, which keeps nothing yet.
    pub(super) fn of(base: &Path) -> Rc<Self> {
        Rc::new(Self { file: base.join("memory.low"), sum: Cell::new(0) })
    }

    /// Keeps so much more, until the share is dropped.
    pub(super) fn share(self: &Rc<Self>, bytes: u64) -> Share {
        self.change(self.sum.get().saturating_add(bytes));
        Share { protection: self.clone(), bytes }
    }

    fn change(&self, sum: u64) {
        self.sum.set(sum);
        if let Err(error) = write(&self.file, &sum.to_string()) {
            tracing::warn!(file = %self.file.display(), %error, "cannot keep memory for instances");
        }
    }
}

/// One instance's part of it.
#[derive(Debug)]
pub(super) struct Share {
    protection: Rc<Protection>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.protection.change(self.protection.sum.get().saturating_sub(self.bytes));
    }
}

/// How many processes of the group were killed because it had used up its memory.
pub(super) fn oom_kills(group: &Path, version: Version) -> Option<u64> {
    let file = match version {
        Version::One => "memory.oom_control",
        Version::Two => "memory.events",
    };
    keyed(&read(&group.join(file))?, "oom_kill")
}

/// What is used.
pub(super) fn usage(group: &Path, version: Version, usage: &mut Usage) {
    let [now, peak, max] = match version {
        Version::One => ["memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"],
        Version::Two => ["memory.current", "memory.peak", "memory.max"],
    };
    let get = |file: &str| number(&read(&group.join(file))?);
    usage.memory = get(now);
    usage.memory_peak = get(peak);
    usage.memory_max = get(max).filter(|max| *max < UNLIMITED_MIN);
    usage.oom_kills = oom_kills(group, version);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &Limits, version: Version) -> Vec<(&'static str, String)> {
        settings(limits, version).into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn each_version_has_its_own_files() {
        let limits = Limits { memory_low: 1 << 20, memory_max: 1 << 21, ..Limits::default() };
        let two =
            [("memory.low", "1048576"), ("memory.max", "2097152"), ("memory.swap.max", "0"), ("memory.oom.group", "1")];
        assert_eq!(written(&limits, Version::Two), two.map(|(file, value)| (file, value.to_owned())));
        let one = [
            ("memory.soft_limit_in_bytes", "1048576"),
            ("memory.limit_in_bytes", "2097152"),
            ("memory.memsw.limit_in_bytes", "2097152"),
        ];
        assert_eq!(written(&limits, Version::One), one.map(|(file, value)| (file, value.to_owned())));
        assert_eq!(written(&Limits::default(), Version::One), []);
    }

    #[test]
    fn a_base_keeps_what_its_instances_have_asked_for_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.low");
        // The kernel's files are there, and each write replaces all.
        std::fs::write(&file, "").unwrap();
        let kept = || std::fs::read_to_string(&file).unwrap();
        let protection = Protection::of(dir.path());
        let first = protection.share(1000);
        let second = protection.share(2345);
        assert_eq!((kept().as_str(), protection.sum.get()), ("3345", 3345));
        drop(first);
        assert_eq!((kept().as_str(), protection.sum.get()), ("2345", 2345));
        drop(second);
        assert_eq!(protection.sum.get(), 0);
    }

    #[test]
    fn no_limit_is_none_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let mut found = Usage::default();
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        std::fs::write(dir.path().join("memory.current"), "8192\n").unwrap();
        usage(dir.path(), Version::Two, &mut found);
        assert_eq!((found.memory, found.memory_max, found.oom_kills), (Some(8192), None, None));
        std::fs::write(dir.path().join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        std::fs::write(dir.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n").unwrap();
        usage(dir.path(), Version::One, &mut found);
        assert_eq!((found.memory_max, found.oom_kills), (None, Some(3)));
    }
}
