//! A process by descriptor (pidfd_open(2)): a signal sent to it can never reach another one that got its number. Shell.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

/// A process.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this number now.
    pub(crate) fn open(pid: Pid) -> nix::Result<Self> {
        // SAFETY: makes a new descriptor, close-on-exec by itself.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0u32) })?;
        let fd = RawFd::try_from(fd).expect("descriptors are small numbers");
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal. One to a process that has ended is no error.
    pub(crate) fn signal(&self, number: i32) -> nix::Result<()> {
        let no_details = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without details the kernel fills in what kill(2) would.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, no_details, 0u32) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Waits until the process has ended; whether it did so within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        Ok(poll(&mut fds, timeout)? > 0)
    }
}
