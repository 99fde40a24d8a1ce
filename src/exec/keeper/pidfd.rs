//! A process by descriptor (pidfd_open(2)): a signal sent to it can never reach another one that got its number. Shell.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// A process.
#[derive(Debug)]
pub(super) struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this number now.
    pub(super) fn open(pid: Pid) -> nix::Result<Self> {
        // SAFETY: makes a new descriptor, close-on-exec by itself.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0u32) })?;
        let fd = RawFd::try_from(fd).expect("descriptors are small numbers");
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal. One to a process that has ended is no error.
    pub(super) fn signal(&self, number: i32) -> nix::Result<()> {
        let no_details = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without details the kernel fills in what kill(2) would.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, no_details, 0u32) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(e),
        }
    }
}
