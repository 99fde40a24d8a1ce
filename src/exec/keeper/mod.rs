//! The keeper: the small process that owns all instances of a node, so that the node itself may die and come back. Shell.
//!
//! It forks, reaps, holds the read ends of the pipes and writes what comes out of them, and keeps each exit until the node has
//! acknowledged it. It has one thread and waits in one place. It decides nothing: it restarts nothing and knows no
//! specification. The one thing it does unasked is to stop, when its node stays away, those instances that other nodes take
//! over by then.
//!
//! *The table is the truth*: every run is in it from before its fork until after its acknowledgement, and whatever a node asks
//! twice is answered from it. What the keeper holds dies with it: first processes carry a parent-death signal, and the rest is swept
//! by whoever comes next ([`sweep_leftovers`], and every keeper before it begins).
//!
//! A keeper outlives upgrades of its node, so the two settle on a version of their messages when they meet (`message`). A newer node
//! goes on with an older keeper for as long as that holds anything: it has it start what version 1 can carry out, a program with no
//! sandbox or limits of its own, and refuses other starts with the reason. As soon as the older keeper holds nothing the node has it
//! end, and starts one of its own version in its place (`client`).

mod message;
mod socket;

mod peer;
mod report;
mod spawn;

mod escape;
mod instance;
mod node;
mod serve;

mod place;

pub mod client;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};

#[cfg(test)]
pub(crate) use message::samples;
pub(crate) use message::understands;

use super::cause::why;
use super::cgroup::{self, GroupError};
use super::ignored::Ignored;
use super::namespace::{self, SweepError};
use super::sandbox::cgroupfs::Closed;
use super::sandbox::seccomp::LastFilter;
use spawn::{Grouping, Means};

/// Longest time that instances may take to end when the node is ended with them, whatever their specifications grant (a year is
/// allowed): a host that goes down does not wait for longer.
pub const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(3600);

/// How long a node may be away before its keeper stops the instances that other nodes take over. They do so 10 s after they hold
/// this node for down, which takes them 10 s at most; so by this time, and not long before, somebody else runs them.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(20);

/// Locked by the living keeper; holds its process number.
pub const LOCK_NAME: &str = "keeper.pid";

/// What a keeper can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long its node may be away before re-placeable instances are stopped.
    pub orphan_grace: Duration,
    /// The newest version of the protocol that it speaks: for tests of how a newer node meets an older keeper.
    pub speak_at_most: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { orphan_grace: ORPHAN_GRACE, speak_at_most: message::VERSION_NEWEST }
    }
}

/// Why a keeper cannot work, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The data directory is not there.
    #[error("cannot use the data directory `{path}`: {}", why(cause))]
    DataDir {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Its lock cannot be taken.
    #[error("cannot lock `{path}`: {}", why(cause))]
    Lock {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is one already.
    #[error("a keeper is running already for `{0}`")]
    Running(PathBuf),
    /// What an earlier keeper left cannot be cleaned up.
    #[error("cannot clean up after an earlier keeper: {0}")]
    SweepGroups(#[from] GroupError),
    /// The same.
    #[error("cannot clean up after an earlier keeper: {0}")]
    SweepNamespaces(#[from] SweepError),
    /// The process cannot be set up.
    #[error("cannot {step}: {cause}")]
    Setup {
        /// Which step.
        step: &'static str,
        /// Why.
        cause: Errno,
    },
    /// The socket cannot be made.
    #[error("cannot listen on `{path}`: {}", why(cause))]
    Listen {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Waiting failed, which cannot be repaired.
    #[error("cannot wait for events: {0}")]
    Wait(Errno),
    /// Processes are still there though they were killed: they hang in the kernel.
    #[error("instances did not end after they were killed: {}", .0.join(", "))]
    Stuck(Vec<String>),
}

fn setup(step: &'static str) -> impl FnOnce(Errno) -> KeeperError {
    move |cause| KeeperError::Setup { step, cause }
}

/// Is the keeper of `data_dir` until it is told to end, by its node or by SIGTERM; all its instances have ended then. Must be
/// called by a process with one thread, which it takes over: signals, limits, umask.
pub fn run(data_dir: &Path, options: Options) -> Result<(), KeeperError> {
    let data_dir =
        fs::canonicalize(data_dir).map_err(|cause| KeeperError::DataDir { path: data_dir.to_owned(), cause })?;
    let mut lock = lock(&data_dir)?;
    // The number is for people and scripts; the lock alone counts.
    let _ = lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
    let swept = sweep(&data_dir)?;
    if swept > 0 {
        tracing::warn!(swept, "ended what an earlier keeper has left");
    }

    // Its memory, environment and descriptors are closed to its own user, as which instances may run, and never dumped.
    prctl::set_dumpable(false).map_err(setup("close its memory to others"))?;
    std::env::set_current_dir("/").map_err(|cause| KeeperError::DataDir { path: "/".into(), cause })?;
    umask(Mode::from_bits_truncate(0o077));
    prctl::set_child_subreaper(true).map_err(setup("become the one who reaps orphans"))?;
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_err(setup("read the limit of open files"))?;
    // Five descriptors an instance: the limit for ordinary programs is soon reached.
    setrlimit(Resource::RLIMIT_NOFILE, open_files.1, open_files.1).map_err(setup("raise the limit of open files"))?;
    let signals = take_over_signals().map_err(setup("take over signals"))?;
    let grouping = Grouping::find(&data_dir);
    match &grouping {
        Grouping::Groups { by_birth, .. } => tracing::info!(by_birth, "instances are held together by control groups"),
        Grouping::Namespaces { why, .. } => tracing::info!(%why, "instances are held together by PID namespaces"),
    }
    let listener = socket::listen(&data_dir)
        .map_err(|cause| KeeperError::Listen { path: data_dir.join(socket::SOCKET_NAME), cause })?;

    let means = Means {
        grouping,
        open_files,
        ignored: Ignored::read(),
        closed_groups: Closed::prepared(),
        last_filter: LastFilter::default(),
    };
    let mut keeper = serve::Keeper::new(serve::Setup { listener, signals, means, options })?;
    let outcome = keeper.serve();
    // From here on a new keeper may begin, once the lock is free.
    let _ = fs::remove_file(data_dir.join(socket::SOCKET_NAME));
    if let Grouping::Groups { base, .. } = keeper.grouping()
        && let Err(error) = base.remove(&data_dir)
    {
        tracing::warn!(%error, "left a control group behind");
    }
    drop(lock);
    outcome
}

/// Ends all that a keeper of `data_dir` which is gone has left running, and waits until it has ended. Gives the number of
/// instances found. Fails with [`KeeperError::Running`] when the keeper lives.
pub fn sweep_leftovers(data_dir: &Path) -> Result<usize, KeeperError> {
    let _lock = lock(data_dir)?;
    sweep(data_dir)
}

/// Both kinds of leftovers: the mode of the keeper before need not have been that of the next.
fn sweep(data_dir: &Path) -> Result<usize, KeeperError> {
    Ok(cgroup::sweep(data_dir)? + namespace::sweep(data_dir)?)
}

/// Takes the keeper's lock; it is free again when the file is closed, however its holder ended.
fn lock(data_dir: &Path) -> Result<File, KeeperError> {
    let path = data_dir.join(LOCK_NAME);
    let open = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = open.map_err(|cause| KeeperError::Lock { path: path.clone(), cause })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(KeeperError::Running(data_dir.to_owned())),
        Err(TryLockError::Error(cause)) => Err(KeeperError::Lock { path, cause }),
    }
}

/// Children that end and requests to end come through a descriptor; a terminal that closes means nothing to a keeper.
fn take_over_signals() -> nix::Result<SignalFd> {
    // SAFETY: installs no handler of ours.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    // SAFETY: the same. When the program that started us ignored it, ended children would vanish unseen.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    let mut mask = SigSet::empty();
    for number in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        mask.add(number);
    }
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
