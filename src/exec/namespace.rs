//! A PID namespace with one init for an instance: on its specification's word, and where no control group can be written to hold its
//! tree together. Shell.
//!
//! When the first process of a PID namespace dies the kernel kills all the others and waits for them (pid_namespaces(7)). That
//! process is a small init of ours, forked by the keeper, which starts the program as its only child, reaps whatever is
//! orphaned, and hands on how the program ended. The program is not the init itself: a first process ignores every signal that it
//! has no handler for, and programs do not expect that.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{self, ForkResult, Pid};

use super::cause::why;
use super::forget;
use super::launch::{LaunchError, Start, exit_with_report, run_order_or_exit, settle};
use super::pidfd::PidFd;

/// The folder in the data directory where inits are written down, a file each, named by the process number.
const RECORDS_NAME: &str = "keeper.inits";

/// How long a killed namespace may take to be gone. Only a process that hangs in the kernel takes longer than milliseconds.
const SWEEP_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the program sees as its parent.
const INIT: Pid = Pid::from_raw(1);

/// What the forked init does until the end. It writes the program's wait status (wait(2)) to `status`, then exits, and with it
/// all that is left in the namespace.
pub(crate) fn init(start: &Start<'_>, status: &OwnedFd) -> ! {
    exit_with_report(start.report, || {
        settle(start)?;
        // After the mapping, since a change of credentials clears it.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| LaunchError::ParentDeath(e.into()))?;
        if parent_is_gone(start.report)? {
            return Err(LaunchError::ParentGone);
        }
        // SAFETY: forked from a process with one thread, so this one has only one too.
        match unsafe { unistd::fork() }.map_err(|e| LaunchError::Fork(e.into()))? {
            ForkResult::Child => run_order_or_exit(&Start { parent: INIT, is_settled: true, ..*start }),
            ForkResult::Parent { child } => reap_until(child, status),
        }
    })
}

/// Whether the keeper had died before the parent-death signal was asked for. Its number says nothing in here (it is 0), but
/// its end of the report socket is closed then.
fn parent_is_gone(report: &OwnedFd) -> Result<bool, LaunchError> {
    let mut fds = [PollFd::new(report.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map_err(|e| LaunchError::ParentDeath(e.into()))?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// Reaps everything until `program` ends, and hands on how. Holds no descriptor but `status`: the pipes and the report socket
/// must close when the program's own copies do. Holds next to no memory either, and lets nobody look into it.
#[inline(never)]
fn reap_until(program: Pid, status: &OwnedFd) -> ! {
    // A signal to the whole session or group must not end the init before its program has ended by it.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    // Cannot fail (PR_SET_DUMPABLE in prctl(2)).
    let _ = prctl::set_dumpable(false);
    keep_only(status);
    let (program, status) = (program.as_raw(), status.as_raw_fd());
    let mut raw = 0;
    // SAFETY: what follows does not return and uses these three numbers alone.
    unsafe { forget::all_but(&raw const raw) };
    loop {
        // SAFETY: waits for any child and writes its status to a local.
        let pid = unsafe { libc::waitpid(-1, &raw mut raw, 0) };
        if pid == program {
            break;
        }
        if pid == -1 && Errno::last() != Errno::EINTR {
            // Without children, though the program was never reaped: impossible, and nothing can be said about it.
            break;
        }
    }
    // SAFETY: writes four bytes of a local, and ends this process at once, without the keeper's exit handlers.
    unsafe {
        libc::write(status, (&raw const raw).cast(), size_of_val(&raw));
        libc::_exit(0)
    }
}

fn keep_only(status: &OwnedFd) {
    let number = status.as_raw_fd().unsigned_abs();
    // SAFETY: this process goes on to use `status` alone; every other descriptor's owner is a copy of the keeper's memory that
    // never runs again.
    unsafe {
        if number > 0 {
            libc::syscall(libc::SYS_close_range, 0u32, number - 1, 0u32);
        }
        libc::syscall(libc::SYS_close_range, number + 1, u32::MAX, 0u32);
    }
}

/// The word on disk that an init is there. Inits die with their keeper, but a little after it; whoever comes next waits for that
/// by these.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

impl Record {
    /// Writes down the init `pid`. Without the record, on a full disk, everything works but that waiting.
    pub(crate) fn write(data_dir: &Path, pid: Pid) -> Self {
        let path = data_dir.join(RECORDS_NAME).join(pid.to_string());
        let written = fs::create_dir_all(data_dir.join(RECORDS_NAME))
            .and_then(|()| fs::write(&path, started_at(pid).unwrap_or_default()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write down an init");
        }
        Self(path)
    }

    /// The init is gone.
    pub(crate) fn remove(&self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why leftovers could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The records cannot be read.
    #[error("cannot read the records in `{path}`: {}", why(cause))]
    Records {
        /// Which folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// An init cannot be ended.
    #[error("cannot end the leftover process {pid}: {cause}")]
    Kill {
        /// Which one.
        pid: i32,
        /// Why.
        cause: Errno,
    },
    /// An init does not end.
    #[error("the leftover process {0} did not end within {SWEEP_WAIT_MAX:?} after it was killed")]
    Stuck(i32),
}

/// Ends the inits that an earlier keeper of `data_dir` has left, with all that runs under them, and waits until they are gone.
pub(crate) fn sweep(data_dir: &Path) -> Result<usize, SweepError> {
    let folder = data_dir.join(RECORDS_NAME);
    let failed = |cause| SweepError::Records { path: folder.clone(), cause };
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed)?,
    };
    let mut swept = 0;
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(pid) = number.map(Pid::from_raw) else { continue };
        let recorded = fs::read_to_string(&path).map_err(failed)?;
        // First the descriptor, then the look at who it is: what has the number and that start is the init, and stays it.
        if let Ok(init) = PidFd::open(pid)
            && started_at(pid).is_some_and(|start| start == recorded)
        {
            let kill = |cause| SweepError::Kill { pid: pid.as_raw(), cause };
            init.signal(libc::SIGKILL).map_err(kill)?;
            if !init.wait(SWEEP_WAIT_MAX).map_err(kill)? {
                return Err(SweepError::Stuck(pid.as_raw()));
            }
            swept += 1;
        }
        fs::remove_file(&path).map_err(failed)?;
    }
    Ok(swept)
}

/// When a process was started, in the kernel's ticks since boot, and in which boot: field 22 of /proc/PID/stat
/// (proc_pid_stat(5)). With its number this names a process for ever.
fn started_at(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold spaces and parentheses.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{ticks} {}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_process_is_ended_and_one_that_has_only_its_number_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sweep(dir.path()).unwrap(), 0);
        let mut ours = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        Record::write(dir.path(), Pid::from_raw(ours.id().cast_signed()));
        let reused = Record::write(dir.path(), Pid::from_raw(other.id().cast_signed()));
        fs::write(&reused.0, "1 another boot").unwrap();
        assert_eq!(sweep(dir.path()).unwrap(), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "a stranger was killed");
        assert_eq!(fs::read_dir(dir.path().join(RECORDS_NAME)).unwrap().count(), 0);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
