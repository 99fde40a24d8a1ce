//! The keeper's side of a start: the pipes, the group, the fork. Shell.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::resource::rlim_t;
use nix::unistd::{self, Pid};

use super::report::Report;
use crate::confinement::Network;
use crate::exec::borrow;
use crate::exec::cause::Cause;
use crate::exec::cgroup::{self, BaseGroup, Group, GroupError};
use crate::exec::clone;
use crate::exec::ignored::Ignored;
use crate::exec::launch::{LaunchError, Start, capabilities_of, could_leave_its_group, run_order_or_exit, try_order};
use crate::exec::namespace::{self, Record};
use crate::exec::plan::LaunchPlan;
use crate::exec::program::{Binary, Invocation};
use crate::exec::sandbox::capabilities;
use crate::exec::sandbox::cgroupfs::Closed;
use crate::exec::sandbox::namespaces::{self, User};
use crate::exec::sandbox::seccomp::LastFilter;

/// How the processes of an instance are held together.
#[derive(Debug)]
pub(super) enum Grouping {
    /// By a control group each.
    Groups {
        /// Above them.
        base: BaseGroup,
        /// Whether children can be born in their groups; else they move there themselves.
        by_birth: bool,
    },
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
            Ok((base, by_birth)) => Self::Groups { base, by_birth },
            Err(error) => Self::Namespaces { why: error.to_string(), data_dir: data_dir.to_owned() },
        }
    }

    fn try_groups(data_dir: &Path) -> Result<(BaseGroup, bool), GroupError> {
        let base = BaseGroup::make(data_dir)?;
        let probe = base.child("probe")?;
        let by_birth = is_born_in(&probe);
        let entered = if by_birth { Ok(()) } else { enter_in_child(&probe) };
        let removed = probe.remove();
        if let Err(error) = entered {
            let _ = base.remove(data_dir);
            return Err(error);
        }
        removed.map(|()| (base, by_birth))
    }
}

/// Whether a child of this process can be born in `group`: older kernels and some policies of seccomp have no clone3.
fn is_born_in(group: &Group) -> bool {
    let Ok(directory) = group.directory() else { return false };
    // SAFETY: the keeper has one thread.
    match unsafe { clone::fork(CloneFlags::empty(), Some(directory.as_fd())) } {
        Ok(None) => end(0),
        Ok(Some(child)) => wait_for(child).is_ok(),
        Err(_) => false,
    }
}

/// Has a child of this process enter `group`, and end.
fn enter_in_child(group: &Group) -> Result<(), GroupError> {
    let failed = |errno| GroupError::Probe { cause: io::Error::from(errno) };
    // SAFETY: the keeper has one thread.
    match unsafe { clone::fork(CloneFlags::empty(), None) }.map_err(failed)? {
        None => end(match group.enter() {
            Ok(()) => 0,
            Err(GroupError::Enter { cause, .. }) => cause.raw_os_error().unwrap_or(libc::EIO),
            Err(_) => libc::EIO,
        }),
        Some(child) => match wait_for(child).map_err(failed)? {
            status if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(()),
            status => Err(failed(Errno::from_raw(libc::WEXITSTATUS(status)))),
        },
    }
}

/// Ends a child that only tried something.
fn end(code: i32) -> ! {
    // SAFETY: ends this process at once, without the keeper's exit handlers.
    unsafe { libc::_exit(code) }
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

/// What holds the processes of one run together: one of these at least.
#[derive(Debug)]
pub(super) struct Tree {
    /// A control group.
    pub(super) group: Option<Watched>,
    /// A PID namespace, whose init is the keeper's child.
    pub(super) init: Option<Init>,
}

/// The control group of a run.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) group: Group,
    /// Ready (EPOLLPRI) when the group empties.
    pub(super) events: File,
}

/// What the keeper knows of an init.
#[derive(Debug)]
pub(super) struct Init {
    /// Where it writes the program's wait status.
    pub(super) status: File,
    /// Says to a later keeper that it was there, where no group does.
    pub(super) record: Option<Record>,
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
    /// What of its limits and namespaces was asked for and left out, since it need not have all, a line each.
    pub(super) missing: Vec<String>,
}

/// What the keeper starts programs with.
pub(super) struct Means {
    pub(super) grouping: Grouping,
    /// The limit of open files that the keeper was started with.
    pub(super) open_files: (rlim_t, rlim_t),
    /// The signals that it ignores.
    pub(super) ignored: Ignored,
    pub(super) closed_groups: Closed,
    pub(super) last_filter: LastFilter,
}

/// Forks the run of `plan`. What becomes of it comes through the report.
pub(super) fn spawn(plan: &LaunchPlan, means: &mut Means) -> Result<Spawned, SpawnError> {
    let Means { grouping, open_files, ignored, closed_groups, last_filter } = means;
    let capabilities = capabilities::own().map_err(LaunchError::from)?;
    let could_leave = matches!(grouping, Grouping::Groups { .. }) && could_leave_its_group(plan, capabilities);
    let closed_groups = could_leave.then(|| closed_groups.namespace());
    let (stdout, stdout_write) = pipe(libc::STDOUT_FILENO)?;
    let (stderr, stderr_write) = pipe(libc::STDERR_FILENO)?;
    let invocation = Invocation::of(plan)?;
    let (report, report_write) = Report::pair().map_err(|e| SpawnError::Report(e.into()))?;
    let (held, watched, mut missing) = match grouping {
        Grouping::Groups { base, .. } => {
            let watched = watched(base, plan)?;
            let missing = watched.group.missing().to_vec();
            (CloneFlags::empty(), Some(watched), missing)
        }
        Grouping::Namespaces { why, .. } => {
            let missing = cgroup::without_groups(plan, why).map_err(LaunchError::from)?;
            (CloneFlags::CLONE_NEWPID, None, missing)
        }
    };
    let start = Start {
        plan,
        invocation: &invocation,
        may_wait: true,
        group: None,
        is_born_in_group: false,
        spaces: CloneFlags::empty(),
        user: None,
        is_settled: false,
        parent: unistd::getpid(),
        stdout: &stdout_write,
        stderr: &stderr_write,
        report: &report_write,
        open_files: *open_files,
        binary: None,
        filter: last_filter.of(capabilities_of(plan, capabilities).0),
        ignored: *ignored,
        closed_groups: closed_groups.as_ref(),
        capabilities,
    };
    let forked = match borrow_run(&start, grouping, watched.as_ref(), &report) {
        Ok(Some(child)) => Ok(Forked { child, status: None, report, missing: Vec::new() }),
        Ok(None) => fork_run(&start, held, grouping, watched.as_ref(), report),
        Err(error) => Err(error),
    };
    match forked {
        Ok(Forked { child, status, report, missing: spaces }) => {
            missing.extend(spaces);
            let init = status.map(|status| Init { status, record: record(grouping, child) });
            Ok(Spawned { child, tree: Tree { group: watched, init }, stdout, stderr, report, missing })
        }
        Err(error) => {
            if let Some(Watched { group, .. }) = watched {
                // It is empty, and the next sweep removes what cannot be removed now.
                let _ = group.remove();
            }
            Err(error)
        }
    }
}

/// Makes the group of a run.
fn watched(base: &BaseGroup, plan: &LaunchPlan) -> Result<Watched, LaunchError> {
    let group = base.instance(plan)?;
    match group.events() {
        Ok(events) => Ok(Watched { group, events }),
        Err(error) => {
            let _ = group.remove();
            Err(error.into())
        }
    }
}

/// Where there is no group to tell of it, an init is written down.
fn record(grouping: &Grouping, init: Pid) -> Option<Record> {
    match grouping {
        Grouping::Groups { .. } => None,
        Grouping::Namespaces { data_dir, .. } => Some(Record::write(data_dir, init)),
    }
}

struct Forked {
    child: Pid,
    /// There where the child is an init.
    status: Option<File>,
    report: Report,
    missing: Vec<String>,
}

/// Tries the run in a child that borrows the keeper's memory, where that can be done; none where it cannot, or has not come to anything.
fn borrow_run(
    outputs: &Start<'_>,
    grouping: &Grouping,
    watched: Option<&Watched>,
    report: &Report,
) -> Result<Option<Pid>, SpawnError> {
    let (Grouping::Groups { by_birth: true, .. }, Some(Watched { group, .. })) = (grouping, watched) else {
        return Ok(None);
    };
    if !borrow::IS_KNOWN || !could_borrow(outputs.plan) {
        return Ok(None);
    }
    // A script's interpreter may be anywhere, and what is wrong with a binary is said by the fork.
    let Some(binary) = Binary::open(outputs.plan).ok().filter(|binary| !binary.is_script) else { return Ok(None) };
    let directory = group.directory().map_err(LaunchError::from)?;
    let start =
        Start { group: Some(group), is_born_in_group: true, may_wait: false, binary: Some(&binary), ..*outputs };
    let has_failed = Cell::new(false);
    // SAFETY: the keeper has one thread. The order gives back what it allocates, and touches nothing of the keeper's but the note.
    let child = unsafe { borrow::fork(Some(directory.as_fd()), &|| try_order(&start, &has_failed)) };
    // Whatever the matter is, a fork will do, or say it.
    let Ok(child) = child else { return Ok(None) };
    let instance = &outputs.plan.instance;
    if !has_failed.get() {
        tracing::debug!(%instance, "started in borrowed memory");
        return Ok(Some(child));
    }
    tracing::debug!(%instance, "not started in borrowed memory, to be forked");
    // It has ended, so that this does not wait; and nothing that it has said holds.
    let _ = wait_for(child);
    report.forget();
    Ok(None)
}

/// Whether the start of a plan can be trusted not to hold up the keeper, which waits for it where its memory is borrowed: that nobody
/// who could not do so to the keeper can stop it, and that it is not made to wait for long. What the kernel opens itself on the way
/// (loaders of libraries) is the host's own.
fn could_borrow(plan: &LaunchPlan) -> bool {
    /// With less a start could use up its share of a period (100 ms), and would wait for the next: it takes a millisecond of the ten.
    const CPU_MILLICORES_MIN: u32 = 100;
    let confinement = &plan.confinement;
    let limits = &confinement.limits;
    // Another user's processes could stop it as soon as it is that user's (kill(2)).
    confinement.user.is_none()
        // The child of a namespace's init is a fork anyway, and a network's file may be anywhere.
        && namespaces::asked(confinement).is_empty()
        && confinement.network == Network::Host
        // A group of others', whose share of the processors they may have used up.
        && limits.cgroup_parent.is_none()
        && (limits.cpu_millicores == 0 || limits.cpu_millicores >= CPU_MILLICORES_MIN)
        // It may be anywhere.
        && plan.interpreter.is_none()
}

/// Forks into the namespaces that hold the tree (`held`), and into those that the plan asks for.
fn fork_run(
    outputs: &Start<'_>,
    held: CloneFlags,
    grouping: &Grouping,
    watched: Option<&Watched>,
    report: Report,
) -> Result<Forked, SpawnError> {
    let by_birth = matches!(grouping, Grouping::Groups { by_birth: true, .. });
    let group = watched.map(|watched| &watched.group);
    let directory = group.filter(|_| by_birth).map(Group::directory).transpose().map_err(LaunchError::from)?;
    let asked = namespaces::asked(&outputs.plan.confinement);
    let wanted = asked.iter().fold(held, |all, (_, flags)| all | *flags);
    let needs_init = |spaces: CloneFlags| spaces.contains(CloneFlags::CLONE_NEWPID);
    let status = needs_init(wanted).then(|| pipe(libc::STDIN_FILENO)).transpose()?;
    let user = User::current();
    let mut report = Some(report);
    let mut fork = |spaces: CloneFlags| {
        let all = namespaces::with_user(spaces);
        // SAFETY: the keeper has one thread.
        let forked = unsafe { clone::fork(all, directory.as_ref().map(AsFd::as_fd)) };
        let child = forked.map_err(|errno| namespaces::refused(all, errno))?;
        if child.is_none() {
            // The child tells by the other end of the report whether the keeper lives; its own copy would hide that.
            drop(report.take());
            let user = all.contains(CloneFlags::CLONE_NEWUSER).then_some(user);
            let start = Start { group, is_born_in_group: by_birth, spaces, user, ..*outputs };
            match &status {
                Some((_, status)) if needs_init(spaces) => namespace::init(&start, status),
                _ => run_order_or_exit(&start),
            }
        }
        Ok(child)
    };
    let (mut spaces, mut missing) = (wanted, Vec::new());
    let forked = match fork(wanted) {
        Err(_) if outputs.plan.confinement.best_effort && wanted != held => {
            (spaces, missing) = possible(held, &asked);
            fork(spaces)
        }
        forked => forked,
    };
    let child = match (forked, grouping) {
        (Ok(child), _) => child.expect("the child does not come back"),
        (Err(cause), Grouping::Namespaces { why, .. }) if wanted == held => {
            return Err(SpawnError::NoTree { cause, why: why.clone() });
        }
        (Err(cause), _) => return Err(cause.into()),
    };
    let status = status.filter(|_| needs_init(spaces)).map(|(status, _)| status);
    Ok(Forked { child, status, report: report.expect("only a child drops it"), missing })
}

/// Tries one by one what can be had of namespaces; gives those, beside `held`, and a line for each of the others.
fn possible(held: CloneFlags, asked: &[(&'static str, CloneFlags)]) -> (CloneFlags, Vec<String>) {
    let (mut spaces, mut missing) = (held, Vec::new());
    for (name, flags) in asked {
        // SAFETY: the keeper has one thread.
        match unsafe { clone::fork(namespaces::with_user(spaces | *flags), None) } {
            Ok(None) => end(0),
            Ok(Some(child)) => {
                // Whatever has become of it: that it was forked is the answer.
                let _ = wait_for(child);
                spaces |= *flags;
            }
            Err(errno) => missing.push(format!("a {name} namespace of its own: {}", Cause::from(errno))),
        }
    }
    (spaces, missing)
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
