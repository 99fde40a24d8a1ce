//! The order of a start: what stands between the fork and the program. Shell.
//!
//! [`run_order`] runs in the keeper's child and *is* the order; nothing else prepares an instance's process. The keeper has one
//! thread, so its child may allocate like any other program. Every step has an error of its own, which crosses to the keeper on
//! the report socket; that the program runs shows itself by the socket being closed, since exec closes it.
//!
//! The child has borrowed the keeper's memory where it can ([`borrow`](super::borrow)), and then the order is [tried](try_order): it waits for
//! nothing and says nothing of what fails, since the keeper has it run anew, in a fork, whatever the matter was. For that it can be run
//! twice, and at the exec it holds no memory that nobody would give back.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Pid};

use super::cause::Cause;
use super::cgroup::{Group, GroupError};
use super::ignored::Ignored;
use super::plan::LaunchPlan;
use super::program::{Binary, Invocation, Program};
use super::sandbox::capabilities::{self, CapabilityError};
use super::sandbox::cgroupfs::{self, CgroupfsError};
use super::sandbox::identity::{self, IdentityError};
use super::sandbox::landlock::{self, LandlockError};
use super::sandbox::seccomp::Filter;
use super::sandbox::work_dir::{self, WorkDirError};
use super::sandbox::{mounts, namespaces, network};
use crate::confinement::{Capabilities, Enforced};

/// The exit code of a child that never became its program. The keeper knows the reason from the report; the code is for those
/// who read traces, and is the one that shells use.
pub(crate) const EXIT_NOT_STARTED: i32 = 127;

/// Files that an instance makes are readable by all and writable by their owner, unless the program says otherwise.
const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// On the report socket: this child (by the sender's credentials) is about to become the program.
pub(crate) const REPORT_READY: u8 = 1;
/// On the report socket: the start has failed, the error's text follows.
pub(crate) const REPORT_FAILED: u8 = 2;
/// On the report socket: what of its confinement the program has; sent only when there is something to say.
pub(crate) const REPORT_ENFORCED: u8 = 3;
/// On the report socket: these sockets, which come along, stand in the instance's network. What comes in on them is to be carried to
/// the host's loopback.
pub(crate) const REPORT_PORTS: u8 = 4;
/// Longest report, in bytes; the text is cut there. Paths are its long part, and there are two at most.
pub(crate) const REPORT_LEN_MAX: usize = 16 * 1024;

/// All that a start needs.
pub(crate) struct Start<'a> {
    /// What to start.
    pub(crate) plan: &'a LaunchPlan,
    /// How it is called.
    pub(crate) invocation: &'a Invocation,
    /// Whether a step may wait, as for a file system that is far away.
    pub(crate) may_wait: bool,
    /// The control group to be in, if there is one.
    pub(crate) group: Option<&'a Group>,
    /// Whether the keeper's child is in the group of version 2 by its birth.
    pub(crate) is_born_in_group: bool,
    /// The namespaces that were made for it.
    pub(crate) spaces: CloneFlags,
    /// The user to map, where a user namespace is one of them.
    pub(crate) user: Option<namespaces::User>,
    /// Whether an init above has [settled](settle) it in all of this.
    pub(crate) is_settled: bool,
    /// The process that must not be survived.
    pub(crate) parent: Pid,
    /// Where standard output goes.
    pub(crate) stdout: &'a OwnedFd,
    /// Where standard error goes.
    pub(crate) stderr: &'a OwnedFd,
    /// Where the report goes.
    pub(crate) report: &'a OwnedFd,
    /// The limit of open files that the keeper itself was started with; it has raised its own since.
    pub(crate) open_files: (rlim_t, rlim_t),
    /// The mount namespace for one that could leave its group, or why there is none; none where it cannot.
    pub(crate) closed_groups: Option<&'a Result<BorrowedFd<'a>, CgroupfsError>>,
    /// The binary, where the keeper has opened it.
    pub(crate) binary: Option<&'a Binary>,
    /// The filter of calls for what is kept of the capabilities.
    pub(crate) filter: &'a Filter,
    /// The signals that the keeper ignores.
    pub(crate) ignored: Ignored,
    /// What the keeper itself may do: no more than that can be kept, whatever a namespace of its own makes of it.
    pub(crate) capabilities: Capabilities,
}

/// Why a program could not be started: one variant for each step of the order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    EnterGroup(#[from] GroupError),
    #[error("cannot make namespaces of its own ({names}): {cause}{hint}")]
    Namespaces { names: String, cause: Cause, hint: &'static str },
    #[error("cannot map the user in the user namespace (`{path}`): {cause}")]
    MapUser { path: &'static str, cause: Cause },
    #[error("cannot fork: {0}")]
    Fork(Cause),
    #[error("cannot ask for the parent-death signal: {0}")]
    ParentDeath(Cause),
    #[error("the keeper has died")]
    ParentGone,
    #[error("cannot begin a session: {0}")]
    Session(Cause),
    #[error("cannot open the network namespace `{}`: {cause}", path.display())]
    OpenNetwork { path: PathBuf, cause: Cause },
    #[error("`{}` is not a network namespace", .0.display())]
    NoNetwork(PathBuf),
    #[error("cannot join the network namespace `{}`: only root may, and this is user {uid}", path.display())]
    NetworkOfOthers { path: PathBuf, uid: u32 },
    #[error("cannot join the network namespace `{}`: {cause}", path.display())]
    JoinNetwork { path: PathBuf, cause: Cause },
    #[error("cannot bring up the loopback: {0}")]
    Loopback(Cause),
    #[error("cannot listen on {protocol} `{address}` for the host's port: {cause}")]
    ListenFor { protocol: &'static str, address: SocketAddr, cause: Cause },
    #[error("cannot hand the forwarded ports to the keeper: {0}")]
    HandOver(Cause),
    #[error("cannot part the mounts from the host's: {0}")]
    PrivateMounts(Cause),
    #[error("cannot mount {what} on `{}`: {cause}", at.display())]
    Mount { what: &'static str, at: PathBuf, cause: Cause },
    #[error("cannot keep `{}` in reach beneath an empty file system: {cause}", path.display())]
    KeepInReach { path: PathBuf, cause: Cause },
    #[error("cannot set up descriptor {number}: {cause}")]
    Descriptor { number: i32, cause: Cause },
    #[error("cannot mark descriptors to be closed: {0}")]
    CloseOthers(Cause),
    #[error(transparent)]
    WorkDir(#[from] WorkDirError),
    #[error("cannot reset the signal mask: {0}")]
    SignalMask(Cause),
    #[error("cannot restore the limit of open files: {0}")]
    OpenFiles(Cause),
    #[error("cannot forbid core dumps: {0}")]
    CoreDumps(Cause),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot close the memory of a starting program to others: {0}")]
    Dumpable(Cause),
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    #[error("cannot give up new privileges: {0}")]
    NoNewPrivileges(Cause),
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    #[error("cannot open the binary `{}`: {cause}", path.display())]
    OpenBinary { path: PathBuf, cause: Cause },
    #[error("the binary `{}` is not a regular file", .0.display())]
    NotRegular(PathBuf),
    #[error("the binary `{}` is writable by others (mode {mode:o}): what was verified may have changed", path.display())]
    WritableByOthers { path: PathBuf, mode: u32 },
    #[error("cannot run the interpreter `{name}`: not found in PATH `{search}`")]
    NoInterpreter { name: String, search: String },
    #[error("cannot run the interpreter `{name}`: {cause}")]
    RunInterpreter { name: String, cause: Cause },
    #[error("cannot run `{}`: its first line names the interpreter `{interpreter}`, which is not there", path.display())]
    NoShebang { path: PathBuf, interpreter: String },
    #[error("cannot run `{}`: it is neither a program for this machine nor a script that begins with `#!`", .0.display())]
    Format(PathBuf),
    #[error("cannot run `{}`: {cause}", path.display())]
    Run { path: PathBuf, cause: Cause },
    #[error(
        "cannot run `{}`: Landlock refuses it\nhint: a program that is not static needs the loader and the libraries of \
         `landlock: {{shared: true}}`",
        path.display()
    )]
    RunRestricted { path: PathBuf },
    #[error("{what} holds a zero byte, which no program can be given")]
    ZeroByte { what: String },
}

/// Does everything that there is to do in the child, and becomes the program. Returns only when a step has failed. The page of
/// `sandbox` says what each step is for.
pub(crate) fn run_order(start: &Start<'_>) -> Result<Infallible, LaunchError> {
    let (plan, confinement) = (start.plan, &start.plan.confinement);
    let mut enforced = Enforced::default();
    let user = identity::asked(confinement, plan.identity.as_ref())?;
    let kept = capabilities_to_keep(start, &mut enforced)?;
    if !start.is_settled {
        settle(start)?;
    }
    die_with(start.parent)?;
    unistd::setsid().map_err(|e| LaunchError::Session(e.into()))?;
    report_ready(start);
    descriptors(start)?;
    umask(UMASK);
    or_left_out(start, &mut enforced, network::network(start))?;
    enter_closed_groups(start, &mut enforced);
    work_dir::enter(&plan.work_dir, user)?;
    or_left_out(start, &mut enforced, mounts::mounts(start))?;
    close_own_groups(start, &mut enforced);
    start.ignored.reset();
    resource_limits(start)?;
    if let Some(user) = user {
        identity::take_on(user)?;
        // A change of user clears both.
        prctl::set_dumpable(false).map_err(|e| LaunchError::Dumpable(e.into()))?;
        die_with(start.parent)?;
        work_dir::is_within_reach(&plan.work_dir, &user.name)?;
    }
    capabilities::keep_only(kept)?;
    prctl::set_no_new_privs().map_err(|e| LaunchError::NoNewPrivileges(e.into()))?;
    let opened;
    let binary = match start.binary {
        Some(binary) => binary,
        None => {
            opened = Binary::open(plan)?;
            &opened
        }
    };
    let program = Program::find(plan, start.invocation, binary)?;
    restrict(start, &program, &mut enforced)?;
    filter_calls(start, &mut enforced);
    report_enforced(start, enforced);
    unblock_signals()?;
    program.begin(start.may_wait)
}

/// What the keeper's child does first, be it the program or its init: it goes where it belongs.
pub(crate) fn settle(start: &Start<'_>) -> Result<(), LaunchError> {
    if let Some(group) = start.group {
        if !start.is_born_in_group {
            group.enter()?;
        }
        group.enter_others()?;
    }
    start.user.map_or(Ok(()), namespaces::User::map)
}

/// A step that failed fails the start, unless its specification would rather go without.
fn or_left_out(start: &Start<'_>, enforced: &mut Enforced, step: Result<(), LaunchError>) -> Result<(), LaunchError> {
    match step {
        Err(error) if start.plan.confinement.best_effort => {
            enforced.missing.push(error.to_string());
            Ok(())
        }
        step => step,
    }
}

/// Runs the order as the last thing that this process does: reports why it failed, if it does, and exits.
pub(crate) fn run_order_or_exit(start: &Start<'_>) -> ! {
    exit_with_report(start.report, || run_order(start))
}

/// Runs the order in a child that has borrowed the keeper's memory. If a step fails, notes in `has_failed`, which the keeper reads, that it
/// is to be run anew, and ends.
pub(crate) fn try_order(start: &Start<'_>, has_failed: &Cell<bool>) -> ! {
    // Neither a panic nor an error leaves anything behind: both are dropped here, before the keeper goes on.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_order(start).map_err(drop)));
    has_failed.set(true);
    // SAFETY: ends this process at once; unlike `exit` it runs no handlers, which belong to the keeper.
    unsafe { libc::_exit(EXIT_NOT_STARTED) }
}

/// Runs `deed`, sends its error to the keeper, and exits. Nothing unwinds out of here: above stands the keeper's own loop, of
/// which this process is a copy.
pub(crate) fn exit_with_report(report: &OwnedFd, deed: impl FnOnce() -> Result<Infallible, LaunchError>) -> ! {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deed));
    let error = match outcome {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the start panicked; the keeper's log has the place".to_owned(),
    };
    let mut packet = vec![REPORT_FAILED];
    packet.extend_from_slice(error.as_bytes());
    packet.truncate(REPORT_LEN_MAX);
    // When the keeper is gone there is nobody to tell.
    let _ = send(report.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
    // SAFETY: ends this process at once; unlike `exit` it runs no handlers, which belong to the keeper.
    unsafe { libc::_exit(EXIT_NOT_STARTED) }
}

/// Asks for SIGKILL on the death of the parent, then looks whether it had died before.
fn die_with(parent: Pid) -> Result<(), LaunchError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| LaunchError::ParentDeath(e.into()))?;
    if unistd::getppid() != parent {
        return Err(LaunchError::ParentGone);
    }
    Ok(())
}

/// The kernel adds the sender's process number to this packet, translated into the keeper's PID namespace.
fn report_ready(start: &Start<'_>) {
    // A keeper that is gone has been noticed a step ago, or will take this process along.
    let _ = send(start.report.as_raw_fd(), &[REPORT_READY], MsgFlags::MSG_NOSIGNAL);
}

/// 0 is /dev/null, 1 and 2 are the pipes, all others close on exec.
fn descriptors(start: &Start<'_>) -> Result<(), LaunchError> {
    let failed = |number| move |e: Errno| LaunchError::Descriptor { number, cause: e.into() };
    let null = File::open("/dev/null").map_err(|e| LaunchError::Descriptor { number: 0, cause: e.into() })?;
    unistd::dup2_stdin(null.as_fd()).map_err(failed(0))?;
    unistd::dup2_stdout(start.stdout.as_fd()).map_err(failed(1))?;
    unistd::dup2_stderr(start.stderr.as_fd()).map_err(failed(2))?;
    close_others_on_exec()
}

fn close_others_on_exec() -> Result<(), LaunchError> {
    // SAFETY: only marks descriptors close-on-exec; every one stays usable by its owner until then.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop).map_err(|e| LaunchError::CloseOthers(e.into()))
}

/// What is kept of the keeper's capabilities.
fn capabilities_to_keep(start: &Start<'_>, enforced: &mut Enforced) -> Result<Capabilities, CapabilityError> {
    let (kept, lacking) = capabilities_of(start.plan, start.capabilities);
    if !lacking.is_empty() {
        let error = CapabilityError::Lacking(lacking);
        if !start.plan.confinement.best_effort {
            return Err(error);
        }
        enforced.missing.push(error.to_string());
    }
    Ok(kept)
}

/// What a plan's program keeps of the keeper's capabilities, and the names of those that are not there to be kept.
pub(crate) fn capabilities_of(plan: &LaunchPlan, own: Capabilities) -> (Capabilities, Vec<&'static str>) {
    capabilities::to_keep(plan.confinement.capabilities, runs_as_root(plan), own)
}

fn runs_as_root(plan: &LaunchPlan) -> bool {
    plan.identity.as_ref().map_or_else(|| unistd::geteuid().is_root(), |user| user.uid == 0)
}

/// Whether a program could leave its control group: root alone could, and one that keeps SYS_ADMIN was given the host.
pub(crate) fn could_leave_its_group(plan: &LaunchPlan, own: Capabilities) -> bool {
    let kept = capabilities_of(plan, own).0;
    runs_as_root(plan) && !Capabilities::named("SYS_ADMIN").is_some_and(|admin| kept.has(admin))
}

/// Has one that could leave its control group see the mounts in which it cannot. To be done before the working directory is
/// entered, since it leads to the root of those mounts. Nobody has asked for this, so that where it cannot be had the program
/// runs all the same, and it is told.
fn enter_closed_groups(start: &Start<'_>, enforced: &mut Enforced) {
    let entered = match start.closed_groups {
        Some(Ok(namespace)) if !has_own_mounts(start) => cgroupfs::enter(*namespace).map_err(|e| e.to_string()),
        Some(Err(error)) if !has_own_mounts(start) => Err(error.to_string()),
        _ => return,
    };
    enforced.missing.extend(entered.err());
}

/// The same in mounts of its own.
fn close_own_groups(start: &Start<'_>, enforced: &mut Enforced) {
    if start.closed_groups.is_some() && has_own_mounts(start) {
        enforced.missing.extend(cgroupfs::make_read_only().err().map(|error| error.to_string()));
    }
}

fn has_own_mounts(start: &Start<'_>) -> bool {
    start.spaces.contains(CloneFlags::CLONE_NEWNS)
}

/// The limits of files as the keeper found them, and no core dumps: what is in a program's memory, secrets too, is written nowhere.
fn resource_limits(start: &Start<'_>) -> Result<(), LaunchError> {
    /// Less than the smallest dump, so that no file is written; and unlike 0 it keeps the kernel from handing the dump to a
    /// program as well (core(5), "Piping core dumps to a program").
    const CORE: rlim_t = 1;
    let (soft, hard) = start.open_files;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(|e| LaunchError::OpenFiles(e.into()))?;
    // An ordinary user whose limit is 0 cannot raise it; whoever set it so has seen to the rest.
    if getrlimit(Resource::RLIMIT_CORE).is_ok_and(|(_, hard)| hard >= CORE) {
        setrlimit(Resource::RLIMIT_CORE, CORE, CORE).map_err(|e| LaunchError::CoreDumps(e.into()))?;
    }
    Ok(())
}

fn restrict(start: &Start<'_>, program: &Program<'_>, enforced: &mut Enforced) -> Result<(), LandlockError> {
    let confinement = &start.plan.confinement;
    let Some(landlock) = &confinement.landlock else { return Ok(()) };
    let asked = landlock::Asked {
        landlock,
        is_strict: confinement.require_strict,
        is_best_effort: confinement.best_effort,
        work_dir: &start.plan.work_dir,
        binary: program.binary(),
        interpreters: &program.interpreters(),
        may_wait: start.may_wait,
    };
    landlock::restrict(&asked, enforced)
}

/// Nobody has asked for the filter, so that a kernel without it runs programs all the same, and it is told.
fn filter_calls(start: &Start<'_>, enforced: &mut Enforced) {
    if let Err(error) = start.filter.install() {
        enforced.missing.push(error.to_string());
    }
}

/// Says what of its confinement the program will have.
fn report_enforced(start: &Start<'_>, mut enforced: Enforced) {
    if enforced == Enforced::default() {
        return;
    }
    loop {
        let mut packet = vec![REPORT_ENFORCED];
        minicbor::encode(&enforced, &mut packet).expect("encoding into memory does not fail");
        if packet.len() <= REPORT_LEN_MAX {
            // A keeper that is gone takes this process along.
            let _ = send(start.report.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
            return;
        }
        // Dozens of lines with paths of the greatest length: the end of them is told as a number.
        let left_out = enforced.missing.split_off(enforced.missing.len() / 2).len();
        enforced.missing.push(format!("and {left_out} more"));
    }
}

/// Nothing stays blocked: the keeper blocks what it reads from its signalfd, and all while a child has its memory. So this comes last:
/// a signal that ends the child ends it when it is at nothing.
fn unblock_signals() -> Result<(), LaunchError> {
    SigSet::empty().thread_set_mask().map_err(|e| LaunchError::SignalMask(e.into()))
}
