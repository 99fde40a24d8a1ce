//! The keeper's side of a start: the pipes, the group, the fork. Shell.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::rlim_t;
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, setsockopt,
    sockopt::PassCred,
};
use nix::unistd::{self, ForkResult, Pid};

use crate::exec::cause::Cause;
use crate::exec::cgroup::{BaseGroup, Group, GroupError};
use crate::exec::launch::{LaunchError, REPORT_FAILED, REPORT_LEN_MAX, REPORT_READY, Start, run_order_or_exit};
use crate::exec::namespace::{self, Record, User};
use crate::exec::plan::LaunchPlan;

/// How the processes of an instance are held together.
#[derive(Debug)]
pub(super) enum Grouping {
    /// By a control group each, under this one.
    Groups(BaseGroup),
    /// By a PID namespace each.
    Namespaces {
        /// Why not by control groups.
        why: String,
        /// Where their inits are written down.
        data_dir: PathBuf,
    },
}

impl Grouping {
    /// Tries whether groups can really be made and entered here: what may be written says little about what the kernel lets
    /// a process move between.
    pub(super) fn find(data_dir: &Path) -> Self {
        match Self::try_groups(data_dir) {
            Ok(base) => Self::Groups(base),
            Err(error) => Self::Namespaces { why: error.to_string(), data_dir: data_dir.to_owned() },
        }
    }

    fn try_groups(data_dir: &Path) -> Result<BaseGroup, GroupError> {
        let base = BaseGroup::make(data_dir)?;
        let probe = base.child("probe")?;
        let entered = enter_in_child(&probe);
        let removed = probe.remove();
        if let Err(error) = entered {
            let _ = base.remove(data_dir);
            return Err(error);
        }
        removed.map(|()| base)
    }
}

/// Has a child of this process enter `group`, and end.
fn enter_in_child(group: &Group) -> Result<(), GroupError> {
    let failed = |errno| GroupError::Probe { cause: io::Error::from(errno) };
    // SAFETY: the keeper has one thread.
    match unsafe { unistd::fork() }.map_err(failed)? {
        ForkResult::Child => {
            let code = match group.enter() {
                Ok(()) => 0,
                Err(GroupError::Enter { cause, .. }) => cause.raw_os_error().unwrap_or(libc::EIO),
                Err(_) => libc::EIO,
            };
            // SAFETY: ends this process at once, without the keeper's exit handlers.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match wait_for(child).map_err(failed)? {
            status if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(()),
            status => Err(failed(Errno::from_raw(libc::WEXITSTATUS(status)))),
        },
    }
}

fn wait_for(child: Pid) -> nix::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: writes the status to a local.
        match Errno::result(unsafe { libc::waitpid(child.as_raw(), &raw mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The next ended child of this process, with its wait status, if one has ended.
pub(super) fn next_ended() -> Option<(Pid, i32)> {
    let mut status = 0;
    // SAFETY: writes the status to a local.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (Pid::from_raw(pid), status))
}

/// What holds the processes of one run together.
#[derive(Debug)]
pub(super) enum Tree {
    /// A control group.
    Group {
        group: Group,
        /// Ready (EPOLLPRI) when the group empties.
        events: File,
    },
    /// A PID namespace, whose init is the keeper's child.
    Namespace {
        /// Where the init writes the program's wait status.
        status: File,
        /// Says to a later keeper that the init was there.
        record: Record,
    },
}

/// A run that was forked.
#[derive(Debug)]
pub(super) struct Spawned {
    /// The keeper's child: the program, or the init of its namespace.
    pub(super) child: Pid,
    pub(super) tree: Tree,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) report: Report,
}

/// Forks the run of `plan`. What becomes of it comes through the report.
pub(super) fn spawn(
    plan: &LaunchPlan,
    grouping: &Grouping,
    open_files: (rlim_t, rlim_t),
) -> Result<Spawned, SpawnError> {
    let (stdout, stdout_write) = pipe(libc::STDOUT_FILENO)?;
    let (stderr, stderr_write) = pipe(libc::STDERR_FILENO)?;
    let (report, report_write) = Report::pair().map_err(|e| SpawnError::Report(e.into()))?;
    let start = Start {
        plan,
        group: None,
        parent: unistd::getpid(),
        stdout: &stdout_write,
        stderr: &stderr_write,
        report: &report_write,
        open_files,
    };
    match grouping {
        Grouping::Groups(base) => {
            let group = base.instance(&plan.instance, &plan.run).map_err(LaunchError::from)?;
            let events = match group.events() {
                Ok(events) => events,
                Err(error) => {
                    let _ = group.remove();
                    return Err(LaunchError::from(error).into());
                }
            };
            // SAFETY: the keeper has one thread.
            match unsafe { unistd::fork() } {
                Ok(ForkResult::Child) => {
                    drop(report);
                    run_order_or_exit(&Start { group: Some(&group), ..start })
                }
                Ok(ForkResult::Parent { child }) => {
                    Ok(Spawned { child, tree: Tree::Group { group, events }, stdout, stderr, report })
                }
                Err(e) => {
                    let _ = group.remove();
                    Err(LaunchError::Fork(e.into()).into())
                }
            }
        }
        Grouping::Namespaces { why, data_dir } => {
            let (status, status_write) = pipe(libc::STDIN_FILENO)?;
            let user = User::current();
            // SAFETY: the keeper has one thread.
            match unsafe { namespace::fork_into_namespace() } {
                Ok(None) => {
                    // The init tells by the other end of the report whether the keeper lives; its own copy would hide that.
                    drop(report);
                    namespace::init(&start, user, &status_write)
                }
                Ok(Some(child)) => {
                    let record = Record::write(data_dir, child);
                    Ok(Spawned { child, tree: Tree::Namespace { status, record }, stdout, stderr, report })
                }
                Err(cause) => Err(SpawnError::NoTree { cause, why: why.clone() }),
            }
        }
    }
}

/// Why a run could not even be forked.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("{cause}, and no control group can be used either: {why}")]
    NoTree { cause: LaunchError, why: String },
    #[error("cannot make a pipe for descriptor {number}: {cause}")]
    Pipe { number: i32, cause: Cause },
    #[error("cannot make a socket for the report of the start: {0}")]
    Report(Cause),
}

/// A pipe whose read end never waits.
fn pipe(number: i32) -> Result<(File, OwnedFd), SpawnError> {
    let failed = |e: Errno| SpawnError::Pipe { number, cause: e.into() };
    let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok((File::from(read), write))
}

/// The wait status that the init of a namespace handed on, if it came to that.
pub(super) fn handed_on(mut status: &File) -> Option<i32> {
    let mut raw = [0; 4];
    status.read_exact(&mut raw).ok().map(|()| i32::from_ne_bytes(raw))
}

/// Where a child says how its start goes.
#[derive(Debug)]
pub(super) struct Report(OwnedFd);

/// What a child has said.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Reported {
    /// This process is about to become the program.
    Ready(Pid),
    /// The start has failed.
    Failed(String),
    /// Nothing more will come: the program runs, unless it was said to have failed.
    Closed,
    /// Nothing yet.
    Nothing,
}

impl Report {
    fn pair() -> nix::Result<(Self, OwnedFd)> {
        let (near, far) = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        fcntl(&near, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        setsockopt(&near, PassCred, &true)?;
        Ok((Self(near), far))
    }

    /// The next word, without waiting.
    pub(super) fn next(&self) -> Reported {
        let mut buffer = [0; REPORT_LEN_MAX];
        let mut control = nix::cmsg_space!(UnixCredentials);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, sender) = match socket::recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags)
        {
            Err(Errno::EAGAIN | Errno::EINTR) => return Reported::Nothing,
            Err(_) => return Reported::Closed,
            Ok(message) => {
                let sender = message.cmsgs().ok().and_then(|mut parts| {
                    parts.find_map(|part| match part {
                        ControlMessageOwned::ScmCredentials(sender) => Some(Pid::from_raw(sender.pid())),
                        _ => None,
                    })
                });
                (message.bytes, sender)
            }
        };
        match (&buffer[..len], sender) {
            ([REPORT_READY], Some(pid)) => Reported::Ready(pid),
            ([REPORT_FAILED, text @ ..], _) => Reported::Failed(String::from_utf8_lossy(text).into_owned()),
            _ => Reported::Closed,
        }
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
