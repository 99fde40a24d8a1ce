//! The order of a start: what stands between the fork and the program. Shell.
//!
//! [`run_order`] runs in the keeper's forked child and *is* the order; nothing else prepares an instance's process. The keeper has one
//! thread, so its child may allocate like any other program. Every step has an error of its own, which crosses to the keeper on
//! the report socket; that the program runs shows itself by the socket being closed, since exec closes it.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, AccessFlags, Pid};

use super::cause::Cause;
use super::cgroup::{Group, GroupError};
use super::plan::LaunchPlan;

/// The exit code of a child that never became its program. The keeper knows the reason from the report; the code is for those
/// who read traces, and is the one that shells use.
pub(crate) const EXIT_NOT_STARTED: i32 = 127;

/// Files that an instance makes are readable by all and writable by their owner, unless the program says otherwise.
const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// Longest first line of a script that is looked at to name its interpreter in an error: what the kernel reads (execve(2)).
const SHEBANG_LEN_MAX: u64 = 256;

/// How often and how soon a program's file that is busy (ETXTBSY) is tried again. Whoever wrote it has closed it, but a child that
/// was forked meanwhile has its copy of the descriptor until it execs, which takes milliseconds.
const BUSY_TRIES: u32 = 100;
/// See [`BUSY_TRIES`].
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// On the report socket: this child (by the sender's credentials) is about to become the program.
pub(crate) const REPORT_READY: u8 = 1;
/// On the report socket: the start has failed, the error's text follows.
pub(crate) const REPORT_FAILED: u8 = 2;
/// Longest report, in bytes; the text is cut there. Paths are its long part, and there are two at most.
pub(crate) const REPORT_LEN_MAX: usize = 16 * 1024;

/// All that a start needs.
pub(crate) struct Start<'a> {
    /// What to start.
    pub(crate) plan: &'a LaunchPlan,
    /// The control group to be in; none in a PID namespace.
    pub(crate) group: Option<&'a Group>,
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
}

/// Why a program could not be started: one variant for each step of the order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    EnterGroup(#[from] GroupError),
    #[error("cannot make a PID namespace: {0}")]
    Namespace(Cause),
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
    #[error("cannot set up descriptor {number}: {cause}")]
    Descriptor { number: i32, cause: Cause },
    #[error("cannot mark descriptors to be closed: {0}")]
    CloseOthers(Cause),
    #[error("cannot make the working directory `{}`: {cause}", path.display())]
    MakeWorkDir { path: PathBuf, cause: Cause },
    #[error("cannot enter the working directory `{}`: {cause}", path.display())]
    EnterWorkDir { path: PathBuf, cause: Cause },
    #[error("cannot reset the signal mask: {0}")]
    SignalMask(Cause),
    #[error("cannot restore the limit of open files: {0}")]
    OpenFiles(Cause),
    #[error("cannot give up new privileges: {0}")]
    NoNewPrivileges(Cause),
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
    #[error("{what} holds a zero byte, which no program can be given")]
    ZeroByte { what: String },
}

/// Does everything that there is to do in the child, and becomes the program. Returns only when a step has failed.
pub(crate) fn run_order(start: &Start<'_>) -> Result<Infallible, LaunchError> {
    let plan = start.plan;
    if let Some(group) = start.group {
        group.enter()?;
    }
    die_with(start.parent)?;
    unistd::setsid().map_err(|e| LaunchError::Session(e.into()))?;
    report_ready(start);
    descriptors(start)?;
    umask(UMASK);
    enter_work_dir(&plan.work_dir)?;
    reset_signals()?;
    let (soft, hard) = start.open_files;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(|e| LaunchError::OpenFiles(e.into()))?;
    prctl::set_no_new_privs().map_err(|e| LaunchError::NoNewPrivileges(e.into()))?;
    become_program(plan)
}

/// Runs the order as the last thing that this process does: reports why it failed, if it does, and exits.
pub(crate) fn run_order_or_exit(start: &Start<'_>) -> ! {
    exit_with_report(start.report, || run_order(start))
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

fn enter_work_dir(path: &Path) -> Result<(), LaunchError> {
    let make = DirBuilder::new().recursive(true).mode(0o700).create(path);
    make.map_err(|e| LaunchError::MakeWorkDir { path: path.to_owned(), cause: e.into() })?;
    unistd::chdir(path).map_err(|e| LaunchError::EnterWorkDir { path: path.to_owned(), cause: e.into() })
}

/// Every disposition to its default and nothing blocked: the keeper blocks what it reads from its signalfd, Rust's runtime
/// ignores SIGPIPE, and whoever started us may have ignored more; exec would hand all of it on.
fn reset_signals() -> Result<(), LaunchError> {
    /// As the kernel has it: handler, flags, restorer and mask, of which zeros mean SIG_DFL.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_LEN: usize = 8;
    for number in 1..=libc::SIGRTMAX() {
        // The C library's own call refuses the two signals that it keeps to itself, which may be ignored like any other.
        // SAFETY: installs no handler. Fails for SIGKILL and SIGSTOP alone, which have no other disposition anyway.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), std::ptr::null::<u64>(), MASK_LEN) };
    }
    SigSet::empty().thread_set_mask().map_err(|e| LaunchError::SignalMask(e.into()))
}

fn become_program(plan: &LaunchPlan) -> Result<Infallible, LaunchError> {
    let binary = open_binary(&plan.binary)?;
    let env = environment(plan)?;
    if let Some(name) = &plan.interpreter {
        let path = find_interpreter(name, plan)?;
        let argv = arguments([name.as_bytes(), plan.binary.as_os_str().as_bytes()], plan)?;
        let e = exec_unless_busy(|| unistd::execve(&path, &argv, &env));
        return Err(LaunchError::RunInterpreter { name: name.clone(), cause: e.into() });
    }
    let argv = arguments([plan.instance.service.as_str().as_bytes()], plan)?;
    let mut head = [0; 2];
    let is_script = binary.read_at(&mut head, 0).is_ok_and(|len| len == 2) && &head == b"#!";
    let path = text(plan.binary.as_os_str().as_bytes(), || "the binary's path".to_owned())?;
    let errno = exec_unless_busy(|| {
        if is_script {
            // By path: the script's interpreter opens it again, and the descriptor is closed by then.
            unistd::execve(&path, &argv, &env)
        } else {
            unistd::fexecve(binary.as_fd(), &argv, &env)
        }
    });
    let path = plan.binary.clone();
    Err(match errno {
        Errno::ENOEXEC => LaunchError::Format(path),
        Errno::ENOENT if is_script => LaunchError::NoShebang { interpreter: shebang(&binary), path },
        errno => LaunchError::Run { path, cause: errno.into() },
    })
}

/// Execs, and returns only why it could not.
fn exec_unless_busy(exec: impl Fn() -> nix::Result<Infallible>) -> Errno {
    let mut tries = 0;
    loop {
        let Err(errno) = exec();
        tries += 1;
        if errno != Errno::ETXTBSY || tries >= BUSY_TRIES {
            return errno;
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

/// Opens the verified binary and makes sure that it is a file which nobody else can have changed.
fn open_binary(path: &Path) -> Result<File, LaunchError> {
    let failed = |e: io::Error| LaunchError::OpenBinary { path: path.to_owned(), cause: e.into() };
    // Not blocking, so that a pipe in the binary's place is refused instead of waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(LaunchError::NotRegular(path.to_owned()));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(LaunchError::WritableByOthers { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    Ok(file)
}

/// The interpreter's path: as written when it has a slash, else the first program of that name in the plan's PATH. Empty
/// entries, which a shell takes for the working directory, are passed over.
fn find_interpreter(name: &str, plan: &LaunchPlan) -> Result<CString, LaunchError> {
    let what = || "the interpreter".to_owned();
    if name.contains('/') {
        return text(name.as_bytes(), what);
    }
    let search = plan.env.iter().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value);
    let found =
        search.split(':').filter(|folder| !folder.is_empty()).map(|folder| Path::new(folder).join(name)).find(|path| {
            fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
                && unistd::access(path, AccessFlags::X_OK).is_ok()
        });
    match found {
        Some(path) => text(path.as_os_str().as_bytes(), what),
        None => Err(LaunchError::NoInterpreter { name: name.to_owned(), search: search.to_owned() }),
    }
}

fn arguments<const N: usize>(first: [&[u8]; N], plan: &LaunchPlan) -> Result<Vec<CString>, LaunchError> {
    let all = first.into_iter().chain(plan.args.iter().map(String::as_bytes));
    all.enumerate().map(|(i, argument)| text(argument, || format!("argument {i}"))).collect()
}

fn environment(plan: &LaunchPlan) -> Result<Vec<CString>, LaunchError> {
    plan.env
        .iter()
        .map(|(name, value)| text(format!("{name}={value}").as_bytes(), || format!("the variable `{name}`")))
        .collect()
}

fn text(bytes: &[u8], what: impl FnOnce() -> String) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| LaunchError::ZeroByte { what: what() })
}

/// The interpreter that a script's first line names; for the error's text.
fn shebang(script: &File) -> String {
    let mut line = Vec::new();
    let mut reader = BufReader::new(script.take(SHEBANG_LEN_MAX));
    // What cannot be read any more is left out: the error being described is another one.
    let _ = reader.read_until(b'\n', &mut line);
    let words = String::from_utf8_lossy(line.strip_prefix(b"#!").unwrap_or(&line)).into_owned();
    OsString::from_vec(words.split_whitespace().next().unwrap_or_default().into()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        fs::write(&path, "#! /opt/none/python3 -u\nprint(1)\n").unwrap();
        assert_eq!(shebang(&File::open(&path).unwrap()), "/opt/none/python3");
    }

    #[test]
    fn only_a_regular_file_that_others_cannot_write_is_run() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        assert!(matches!(open_binary(&path), Err(LaunchError::OpenBinary { .. })));
        assert!(matches!(open_binary(dir.path()), Err(LaunchError::NotRegular(_))));
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o757)).unwrap();
        assert!(matches!(open_binary(&path), Err(LaunchError::WritableByOthers { mode: 0o757, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        assert!(open_binary(&path).is_ok());
        let pipe = dir.path().join("pipe");
        unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(matches!(open_binary(&pipe), Err(LaunchError::NotRegular(_))));
    }
}
