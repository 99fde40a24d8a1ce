//! What this host offers: processors, memory, the kernel and what it can do. Shell: it looks and changes nothing.
//!
//! Read once, when the node starts. What cannot be read counts as not there, so that no constraint is taken for met by
//! mistake. The sources are uname(2), sysconf(3), `/proc/meminfo` (proc_meminfo(5)), `/proc/self/mounts` and
//! `/proc/self/cgroup` (cgroups(7)), and landlock_create_ruleset(2).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, SysconfVar, access, geteuid, sysconf};

use crate::capacity::{Capacity, CgroupLayout};

/// Makes landlock_create_ruleset(2) tell the version of its interface and do nothing else.
const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;

/// What this host offers.
pub fn capacity() -> Capacity {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mounts = cgroup_mounts(&read("/proc/self/mounts"));
    Capacity {
        cores: cores(),
        memory_bytes: memory_bytes(&read("/proc/meminfo")).unwrap_or(0),
        kernel: kernel(),
        landlock_abi: landlock_abi(),
        cgroup: layout(&mounts),
        cgroup_controllers: writable_controllers(&mounts, &read("/proc/self/cgroup")),
        is_root: geteuid().is_root(),
    }
}

fn cores() -> u32 {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.and_then(|online| u32::try_from(online).ok()).unwrap_or(1)
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn kernel() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn landlock_abi() -> u32 {
    // SAFETY: with this flag the kernel takes a null pointer and the size 0, and only answers with a number (landlock(7)).
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    // An error means that the kernel was built without it, or started without it.
    u32::try_from(version).unwrap_or(0)
}

/// Where hierarchies of control groups are mounted.
#[derive(Debug, Default)]
struct CgroupMounts {
    /// Of version 1, with the mount's options, which name its controllers.
    v1: Vec<(PathBuf, Vec<String>)>,
    unified: Option<PathBuf>,
}

fn cgroup_mounts(mounts: &str) -> CgroupMounts {
    let mut found = CgroupMounts::default();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(at), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else { continue };
        match kind {
            "cgroup" => found.v1.push((at.into(), options.split(',').map(str::to_owned).collect())),
            "cgroup2" => drop(found.unified.get_or_insert_with(|| at.into())),
            _ => {}
        }
    }
    found
}

fn layout(mounts: &CgroupMounts) -> CgroupLayout {
    match (mounts.v1.is_empty(), mounts.unified.is_some()) {
        (true, false) => CgroupLayout::None,
        (false, false) => CgroupLayout::V1,
        (true, true) => CgroupLayout::V2,
        (false, true) => CgroupLayout::Hybrid,
    }
}

/// The controllers beneath whose own group this process can make groups. `own` is its `/proc/self/cgroup`: a line
/// `ID:CONTROLLERS:PATH` for each hierarchy, that of the unified one without controllers.
fn writable_controllers(mounts: &CgroupMounts, own: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            let Some(group) = mounts.unified.as_ref().map(|at| beneath(at, path)) else { continue };
            if is_writable(&group) {
                let listed = std::fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
                found.extend(listed.split_whitespace().map(str::to_owned));
            }
            continue;
        }
        let controllers: Vec<&str> = controllers.split(',').filter(|name| !name.starts_with("name=")).collect();
        let is_of = |options: &[String]| controllers.iter().any(|name| options.iter().any(|option| option == name));
        let mount = mounts.v1.iter().find(|(_, options)| is_of(options));
        if mount.is_some_and(|(at, _)| is_writable(&beneath(at, path))) {
            found.extend(controllers.into_iter().map(str::to_owned));
        }
    }
    found.into_iter().collect()
}

fn beneath(mount: &Path, group: &str) -> PathBuf {
    mount.join(group.trim_start_matches('/'))
}

fn is_writable(group: &Path) -> bool {
    access(group, AccessFlags::W_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_seen_as_it_is() {
        let capacity = capacity();
        assert!(capacity.cores >= 1);
        assert!(capacity.memory_bytes > 64 << 20, "{capacity:?}");
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(capacity.kernel, release.trim());
        let listed = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        if listed.split(',').any(|module| module.trim() == "landlock") {
            assert!(capacity.landlock_abi >= 1, "{capacity:?}");
        }
        assert_eq!(
            capacity.is_root,
            std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me)).unwrap() == 0
        );
    }

    #[test]
    fn layouts_are_told_apart_by_what_is_mounted() {
        let v1 = "cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,memory 0 0\n";
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let other = "proc /proc proc rw 0 0\nnonsense\n";
        for (mounts, expected) in [
            (other.to_owned(), CgroupLayout::None),
            (format!("{other}{v1}"), CgroupLayout::V1),
            (format!("{unified}{other}"), CgroupLayout::V2),
            (format!("{v1}{unified}"), CgroupLayout::Hybrid),
        ] {
            assert_eq!(layout(&cgroup_mounts(&mounts)), expected, "{mounts}");
        }
    }

    #[test]
    fn only_controllers_of_groups_that_can_be_written_count() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for group in ["memory/own", "cpu,cpuacct/own", "unified/own"] {
            std::fs::create_dir_all(at(group)).unwrap();
        }
        std::fs::write(at("unified/own/cgroup.controllers"), "io hugetlb\n").unwrap();
        let mounts = format!(
            "cgroup {} cgroup rw,memory 0 0\ncgroup {} cgroup rw,cpu,cpuacct 0 0\ncgroup2 {} cgroup2 rw 0 0\n",
            at("memory").display(),
            at("cpu,cpuacct").display(),
            at("unified").display()
        );
        let own = "5:memory:/own\n4:cpu,cpuacct:/own\n3:pids:/own\n2:name=systemd:/own\n0::/own\n";
        let mounts = cgroup_mounts(&mounts);
        assert_eq!(writable_controllers(&mounts, own), ["cpu", "cpuacct", "hugetlb", "io", "memory"]);
        let elsewhere = own.replace(":/own", ":/not/there");
        assert_eq!(writable_controllers(&mounts, &elsewhere), Vec::<String>::new());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:       24561234 kB\n"), Some(24_561_234 * 1024));
        assert_eq!(memory_bytes("MemTotal: many\n"), None);
    }
}
