//! Forking into namespaces and into a control group with one system call (clone3(2)). Shell.
//!
//! A process that is born in its group is never migrated, which would cost it a wait for all processors of the host.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

/// To be born in a group, clone3(2).
pub(super) const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks this process. The child stands in new namespaces as `flags` say, and in the group of version 2 whose directory `group` is.
/// Gives the child's number, or none in the child. Where clone3 is unknown or forbidden, clone(2) does the same, but for the
/// group: that fails then.
///
/// # Safety
/// This process must have one thread only: the child goes on with a copy of its memory, where the other threads' locks would
/// never be released.
pub(crate) unsafe fn fork(flags: CloneFlags, group: Option<BorrowedFd<'_>>) -> nix::Result<Option<Pid>> {
    // SAFETY: the caller vouches for the single thread.
    let number = match unsafe { clone3(flags, group) } {
        // Policies of seccomp that cannot look into the arguments of clone3 say ENOSYS, older ones EPERM.
        // SAFETY: as above.
        Err(Errno::ENOSYS | Errno::EPERM) if group.is_none() => unsafe { clone(flags) },
        result => result,
    }?;
    let number = i32::try_from(number).expect("process numbers have 22 bits");
    Ok((number != 0).then(|| Pid::from_raw(number)))
}

/// # Safety
/// As for [`fork`].
unsafe fn clone3(flags: CloneFlags, group: Option<BorrowedFd<'_>>) -> nix::Result<libc::c_long> {
    // SAFETY: `clone_args` is plain numbers, for which zero means "none".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.bits().unsigned_abs());
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(group) = group {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the arguments live on this stack and the size is theirs. Without a stack of its own and CLONE_VM this is fork; the
    // caller vouches for the single thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })
}

/// # Safety
/// As for [`fork`].
unsafe fn clone(flags: CloneFlags) -> nix::Result<libc::c_long> {
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: no stack, no CLONE_VM, nothing to be written: this is fork; the caller vouches for the single thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exit code of a child that `fork` makes and that ends at once with `code`.
    fn exit_code(fork: impl FnOnce() -> nix::Result<libc::c_long>, code: i32) -> i32 {
        let child = fork().unwrap();
        if child == 0 {
            // SAFETY: ends the child at once; it has touched nothing that another thread may have held.
            unsafe { libc::_exit(code) }
        }
        let mut status = 0;
        // SAFETY: waits for the very child and writes its status to a local.
        unsafe { libc::waitpid(i32::try_from(child).unwrap(), &raw mut status, 0) };
        assert!(libc::WIFEXITED(status), "{status}");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn both_calls_fork() {
        // SAFETY: the children end at once, without a lock or an allocation.
        assert_eq!(exit_code(|| unsafe { clone3(CloneFlags::empty(), None) }, 7), 7);
        // SAFETY: the same.
        assert_eq!(exit_code(|| unsafe { clone(CloneFlags::empty()) }, 8), 8);
    }
}
