//! The signals that this process ignores, which exec would hand on (execve(2)). Shell.
//!
//! Rust's runtime ignores SIGPIPE, the keeper SIGHUP, and whoever started it may have ignored more. Handlers need no care: exec does away
//! with them.

use nix::errno::Errno;

/// How long the kernel's masks of signals are, in bytes.
const MASK_LEN: usize = 8;

/// As the kernel has it: handler, flags, restorer and mask. Zeros mean SIG_DFL.
type Action = [u64; 4];

/// A set of signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ignored(u64);

impl Ignored {
    /// Those of now.
    pub(crate) fn read() -> Self {
        let is_ignored = |number: &i32| match action(*number, None) {
            Ok([handler, ..]) => handler == libc::SIG_IGN as u64,
            // It is set to its default at no harm.
            Err(_) => true,
        };
        Self(all().filter(is_ignored).fold(0, |set, number| set | 1 << (number - 1)))
    }

    /// Ignores none of them any more.
    pub(crate) fn reset(self) {
        for number in all().filter(|number| self.0 & 1 << (number - 1) != 0) {
            // Cannot fail for what could be ignored.
            let _ = action(number, Some(&[0; 4]));
        }
    }
}

fn all() -> impl Iterator<Item = i32> {
    1..=libc::SIGRTMAX()
}

/// Sets the disposition of a signal, if there is one to be set; gives the one before. The C library's own call refuses the two signals
/// that it keeps to itself, which may be ignored like any other.
fn action(number: i32, new: Option<&Action>) -> nix::Result<Action> {
    let mut old = [0; 4];
    let new = new.map_or(std::ptr::null(), |new| new.as_ptr());
    // SAFETY: reads one action and writes the other, both as the kernel has them, and installs no handler.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, new, old.as_mut_ptr(), MASK_LEN) };
    Errno::result(result).map(|_| old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signals_of_this_process_are_those_of_its_status() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        let Ignored(set) = Ignored::read();
        assert_eq!(set, u64::from_str_radix(line, 16).unwrap());
        assert_ne!(set & 1 << (libc::SIGPIPE - 1), 0, "Rust's runtime ignores this one");
    }
}
