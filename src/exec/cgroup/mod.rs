//! Control groups: so that no descendant of an instance can get away, and none can use up more than the instance may. Shell.
//!
//! An instance has one group in the hierarchy of version 2, which holds its processes together (membership, `cgroup.kill`,
//! `cgroup.events`, processor time, pressure); that works wherever a cgroup2 file system is mounted, with controllers or without.
//! Its limits hold there too where version 2 has the controller. A controller that a hierarchy of version 1 has, as on hosts that
//! are on their way to version 2, limits the instance by a group of the same name there, made only when there is something to limit.
//!
//! All groups of one data directory stand under one group of its own, `narun-<hash of the directory>`, beneath the group that the
//! keeper was started in or beneath the one that the specification names as `cgroupParent`. The rules come from the kernel's
//! Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
//!
//! Pure: `hierarchy` finds what is mounted where, `setting` with `memory`, `cpu` and `pids` knows which files say what. Shells:
//! `delegation` gets controllers for the groups, `base` and `group` make them, `reading` tells what is used, `sweep` clears up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;

use crate::ids::{InstanceId, RunId};

mod base;
mod cpu;
mod delegation;
mod error;
mod files;
mod group;
mod hierarchy;
mod memory;
mod pids;
mod reading;
mod setting;
mod sweep;

pub(crate) use base::{BaseGroup, without_groups};
pub(crate) use error::GroupError;
pub(crate) use group::Group;
use hierarchy::Hierarchies;
pub(crate) use hierarchy::path_in_hierarchy;
pub(crate) use reading::Reader;
pub(crate) use sweep::sweep;

/// Where the keeper writes down its base groups, for whoever has to clean up after it.
const RECORD_NAME: &str = "keeper.cgroup";

/// What every base group's name begins with; sixteen hexadecimal digits follow.
const BASE_PREFIX: &str = "narun-";

/// How long a killed group may take to empty before it is given up on. Only a process that hangs in the kernel takes longer
/// than milliseconds, and waiting would not help it.
const SWEEP_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a sweep looks again.
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// The base group's name: the same for every path that leads to this directory.
fn base_name(data_dir: &Path) -> String {
    let path = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!("{BASE_PREFIX}{}", HEXLOWER.encode(&blake3::hash(path.as_os_str().as_encoded_bytes()).as_bytes()[..8]))
}

/// Whether a group of that name may be a base group.
fn is_base_name(name: &str) -> bool {
    let digits = name.strip_prefix(BASE_PREFIX);
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The name of a run's group.
fn run_name(instance: &InstanceId, run: &RunId) -> String {
    format!("{instance}-{}", HEXLOWER.encode(&run.0[..4]))
}

/// The hierarchies as this process sees them.
fn hierarchies() -> Result<Hierarchies, GroupError> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(|cause| GroupError::Read { path: PathBuf::from(path), cause });
    Ok(Hierarchies::parse(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?))
}

/// Whether a process of the group path `theirs` (as /proc/PID/cgroup shows it) stands in an instance's group, seen from a
/// process in the group path `ours`. What lies above us both does not count: all of this narun may itself be an instance.
pub(crate) fn in_instance(ours: &str, theirs: &str) -> bool {
    // Nodes and keepers may stand in a leaf of what they were given.
    let home = delegation::home(Path::new(ours));
    let beneath = Path::new(theirs).strip_prefix(&home).unwrap_or(Path::new(theirs));
    beneath.iter().any(|name| name.to_str().is_some_and(is_base_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_in_an_instance_is_seen() {
        let base = "/narun-0123456789abcdef";
        assert!(in_instance("/", &format!("{base}/web-0-aabbccdd")));
        assert!(in_instance(
            "/system.slice/narun.service",
            &format!("/system.slice/narun.service{base}/web-0-aabbccdd")
        ));
        assert!(in_instance("/other", &format!("{base}/web-0-aabbccdd")));
        assert!(in_instance("/other", &format!("/batch/low{base}/web-0-aabbccdd")), "beneath a parent that was named");
        assert!(!in_instance("/", "/user.slice"));
        assert!(!in_instance("/", "/narun-demo/x"));
        // A narun that is an instance itself still lets its own people in.
        let nested = format!("{base}/web-0-aabbccdd");
        assert!(!in_instance(&nested, &nested));
        assert!(in_instance(&nested, &format!("{nested}{base}/x")));
    }

    #[test]
    fn nodes_and_keepers_in_their_leaf_are_no_instances() {
        let (home, base) = ("/system.slice/narun.service", "narun-0123456789abcdef");
        let leaf = format!("{home}/narun.node");
        assert!(!in_instance(&leaf, &leaf));
        assert!(!in_instance("/", "/narun.node"));
        assert!(!in_instance("/user.slice", &leaf));
        assert!(in_instance(&leaf, &format!("{home}/{base}/web-0-aabbccdd")));
        // Also where all of this is an instance itself.
        let nested = format!("/{base}/web-0-aabbccdd");
        assert!(!in_instance(&format!("{nested}/narun.node"), &nested));
        assert!(in_instance(&format!("{nested}/narun.node"), &format!("{nested}/{base}/x-0-00000000")));
    }
}
