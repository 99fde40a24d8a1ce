//! Processes and threads: how many an instance has at most. The files are the same in both versions
//! (Documentation/admin-guide/cgroup-v1/pids.rst).

use std::path::Path;

use super::files::read;
use super::setting::Setting;
use crate::confinement::Limits;
use crate::exec::usage::{Usage, number};

/// What to write.
pub(super) fn settings(limits: &Limits) -> Vec<Setting> {
    vec![Setting::needed("pids.max", limits.pids_max)]
}

/// What is used.
pub(super) fn usage(group: &Path, usage: &mut Usage) {
    let get = |file: &str| number(&read(&group.join(file))?);
    usage.pids = get("pids.current");
    usage.pids_peak = get("pids.peak");
    usage.pids_max = get("pids.max");
}
