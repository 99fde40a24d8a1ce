//! Keeps root from leaving its control group: in a mount namespace of its own, every cgroup file system is read-only. Shell.
//!
//! A process may be moved by whoever may write to `cgroup.procs` of both groups (cgroups(7)), which root may, whatever its
//! capabilities. Mounts that are read-only in its own namespace (mount_namespaces(7)) say no to root too, and without SYS_ADMIN it
//! can neither change them back nor enter another namespace.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd;

use crate::exec::cause::Cause;

/// The whole tree of mounts beneath a path, mount_setattr(2).
const AT_RECURSIVE: libc::c_uint = 0x8000;
/// The attribute of a mount that nothing can be written through.
const MOUNT_ATTR_RDONLY: u64 = 1;

/// Why the groups stay writable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupfsError {
    #[error("cannot make a mount namespace, so that the program could leave its control group: {0}")]
    Unshare(Cause),
    #[error("cannot enter a mount namespace, so that the program could leave its control group: {0}")]
    Enter(Cause),
    #[error("cannot see which control groups are mounted: {0}")]
    Mounts(Cause),
    #[error("cannot make `{}` read-only, so that the program could leave its control group: {cause}", path.display())]
    ReadOnly { path: PathBuf, cause: Cause },
}

/// A mount namespace in which every cgroup file system is read-only: made once, for all instances of root's that have none of
/// their own. To make one for each start would take most of its time.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    namespace: File,
    /// The mounts that it was made from, which tell when they change (proc_pid_mountinfo(5)).
    mounts: File,
}

impl Closed {
    /// Makes it ahead of the first start that needs it. Where it cannot be made, that start says why.
    pub(crate) fn prepared() -> Self {
        let mut this = Self::default();
        if unistd::geteuid().is_root() {
            let _ = this.namespace();
        }
        this
    }

    /// The namespace as the host's mounts are now. The calling process must have one thread.
    pub(crate) fn namespace(&mut self) -> Result<BorrowedFd<'_>, CgroupfsError> {
        if self.made.as_ref().is_none_or(Made::is_outdated) {
            self.made = Some(Made::make()?);
        }
        Ok(self.made.as_ref().expect("just made").namespace.as_fd())
    }
}

impl Made {
    fn make() -> Result<Self, CgroupfsError> {
        let open = |path| File::open(path).map_err(|e| CgroupfsError::Mounts(e.into()));
        let enter =
            |namespace: &File| setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|e| CgroupfsError::Enter(e.into()));
        // Before they are read for the copy, so that no change is missed.
        let mounts = open("/proc/self/mountinfo")?;
        let home = open("/proc/self/ns/mnt")?;
        // Changes nothing, and says whether there will be a way back.
        enter(&home)?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| CgroupfsError::Unshare(e.into()))?;
        let made = make_read_only().and_then(|()| open("/proc/self/ns/mnt"));
        enter(&home).expect("the way back was tried, and this process has lost no right since");
        Ok(Self { namespace: made?, mounts })
    }

    fn is_outdated(&self) -> bool {
        let mut fds = [PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::ZERO) != Ok(0)
    }
}

/// Has this process, and all that it becomes and forks, see the mounts of that namespace.
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> Result<(), CgroupfsError> {
    setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|e| CgroupfsError::Enter(e.into()))
}

/// Makes every cgroup file system read-only in this process's mount namespace, which must not be the host's.
pub(crate) fn make_read_only() -> Result<(), CgroupfsError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| CgroupfsError::Mounts(e.into()))?;
    for path in outermost(mounted(&mounts)) {
        set_read_only(&path).map_err(|e| CgroupfsError::ReadOnly { path, cause: e.into() })?;
    }
    Ok(())
}

fn set_read_only(path: &Path) -> nix::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // `struct mount_attr`: to be set, to be cleared, propagation, a user namespace.
    let attributes = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: the path and the attributes live on this stack, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            AT_RECURSIVE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(result).map(drop)
}

/// Where cgroup file systems are mounted, by the text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
fn mounted(mountinfo: &str) -> Vec<PathBuf> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let point = left.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(unescape(point)))
    };
    mountinfo.lines().filter_map(line).collect()
}

/// Those that stand beneath no other.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup_by(|later, earlier| later.starts_with(&*earlier));
    paths
}

/// A space, tab, newline or backslash of a path is written as three octal digits.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cgroup_mounts_are_found_and_those_beneath_another_are_left_to_it() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                      42 31 0:39 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      43 41 0:40 / /sys/fs/cgroup/unified/in rw - cgroup2 none rw\n\
                      44 23 0:40 / /mnt/my\\040groups rw - cgroup2 none rw\n";
        let found: Vec<_> = outermost(mounted(mounts)).into_iter().map(|path| path.display().to_string()).collect();
        assert_eq!(found, ["/mnt/my groups", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]);
    }
}
