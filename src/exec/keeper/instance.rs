//! One run in the keeper's table: from its fork to its acknowledgement. Shell.
//!
//! ```text
//! Starting --report closed--> Running --child reaped--> Ending --tree empty, pipes drained--> Over
//!     \--report failed, child reaped--> (out of the table)
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::epoll::EpollFlags;
use nix::sys::resource::rlim_t;
use nix::unistd::Pid;

use super::report::{Report, Reported};
use super::spawn::{self, Means, SpawnError, Spawned, Tree, Watched};
use crate::confinement::Enforced;
use crate::exec::cause::Cause;
use crate::exec::forward::Forward;
use crate::exec::logs::frame::{CHUNK_LEN_MAX, Stream};
use crate::exec::logs::writer::LogWriter;
use crate::exec::pidfd::PidFd;
use crate::exec::plan::{Ended, Kept, LaunchPlan, Stop};
use crate::time::Wall;

/// Most bytes read from a pipe once the tree is gone: the largest capacity that a program may give its pipe by default
/// (pipe(7), /proc/sys/fs/pipe-max-size). What a stranger to the tree, who was handed the pipe, goes on to write is not waited for.
const DRAIN_MAX: usize = 1024 * 1024;

/// A descriptor of a run that the keeper waits on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Stdout,
    Stderr,
    Report,
    Group,
    Forward,
}

impl Part {
    pub(super) const ALL: [Part; 5] = [Part::Stdout, Part::Stderr, Part::Report, Part::Group, Part::Forward];

    /// The stream that comes out of it.
    fn stream(self) -> Option<Stream> {
        match self {
            Part::Stdout => Some(Stream::Stdout),
            Part::Stderr => Some(Stream::Stderr),
            Part::Report | Part::Group | Part::Forward => None,
        }
    }

    /// What to wait for.
    pub(super) fn interest(self) -> EpollFlags {
        match self {
            // By edge: the file counts as changed until it is read through this very descriptor, which never happens.
            Part::Group => EpollFlags::EPOLLPRI | EpollFlags::EPOLLET,
            _ => EpollFlags::EPOLLIN,
        }
    }
}

/// How far a run has come.
#[derive(Debug)]
enum Stage {
    /// Forked; not known yet whether the program runs.
    Starting {
        /// The start has failed; what is left is to reap the child.
        failure: Option<String>,
    },
    /// The program runs.
    Running,
    /// The first process has ended; what is left of its tree was killed.
    Ending(Ended),
    /// Over, and not acknowledged.
    Over(Ended),
}

/// What has come of a run.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum News {
    /// The program runs.
    Launched,
    /// It could not be started, and nothing is left.
    Failed(String),
    /// It is over: its tree is gone. The pipes are to be drained.
    Over(Ended),
}

/// One run.
#[derive(Debug)]
pub(super) struct Instance {
    plan: LaunchPlan,
    number: u64,
    child: Pid,
    /// Whether the child was reaped: its number may be another process's since.
    is_reaped: bool,
    /// The first process, once it has reported that it is about to become the program.
    program: Option<Pid>,
    /// None as well when it had ended before it could be looked at.
    pidfd: Option<PidFd>,
    tree: Tree,
    stdout: Option<File>,
    stderr: Option<File>,
    report: Option<Report>,
    /// What carries its ports to the host's, where it has any.
    forward: Option<Forward>,
    /// How many descriptors this process may have.
    descriptors_max: rlim_t,
    stage: Stage,
    started_at: Wall,
    /// What of its confinement it has.
    enforced: Enforced,
    /// A signal for a program that does not run yet.
    early_signal: Option<i32>,
}

impl Instance {
    /// Forks a run. `number` is the one that its descriptors are waited on with.
    pub(super) fn start(plan: LaunchPlan, number: u64, means: &mut Means) -> Result<Self, SpawnError> {
        let Spawned { child, tree, stdout, stderr, report, missing } = spawn::spawn(&plan, means)?;
        Ok(Self {
            plan,
            number,
            child,
            is_reaped: false,
            program: None,
            pidfd: None,
            tree,
            stdout: Some(stdout),
            stderr: Some(stderr),
            report: Some(report),
            forward: None,
            descriptors_max: means.open_files.1,
            stage: Stage::Starting { failure: None },
            started_at: wall_now(),
            enforced: Enforced { missing, ..Enforced::default() },
            early_signal: None,
        })
    }

    /// The plan that it was started by.
    pub(super) fn plan(&self) -> &LaunchPlan {
        &self.plan
    }

    /// The number that its descriptors are waited on with.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The keeper's child that stands for it.
    pub(super) fn child(&self) -> Pid {
        self.child
    }

    /// The first process, and since when; none before the program runs.
    pub(super) fn launched(&self) -> Option<(u32, Wall)> {
        let program = self.program.filter(|_| !matches!(self.stage, Stage::Starting { .. }))?;
        Some((program.as_raw().unsigned_abs(), self.started_at))
    }

    /// What of its confinement it has.
    pub(super) fn enforced(&self) -> &Enforced {
        &self.enforced
    }

    /// How it ended, if it is over.
    pub(super) fn over(&self) -> Option<Ended> {
        match self.stage {
            Stage::Over(ended) => Some(ended),
            _ => None,
        }
    }

    /// What the node is told that finds it again; none before the program runs.
    pub(super) fn kept(&self) -> Option<Kept> {
        let (pid, started_at) = self.launched()?;
        Some(Kept { plan: self.plan.clone(), pid, started_at, ended: self.over(), enforced: self.enforced.clone() })
    }

    /// Whether a process with this path in the cgroup2 hierarchy stands in its group.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.tree.group.as_ref().is_some_and(|watched| watched.group.holds(path))
    }

    /// Whether something of it may still run.
    pub(super) fn is_alive(&self) -> bool {
        self.over().is_none()
    }

    /// The descriptor of a part, while there is one.
    pub(super) fn part(&self, part: Part) -> Option<BorrowedFd<'_>> {
        match part {
            Part::Stdout => self.stdout.as_ref().map(AsFd::as_fd),
            Part::Stderr => self.stderr.as_ref().map(AsFd::as_fd),
            Part::Report => self.report.as_ref().map(AsFd::as_fd),
            Part::Group => self.tree.group.as_ref().filter(|_| self.is_alive()).map(|watched| watched.events.as_fd()),
            Part::Forward => self.forward.as_ref().map(AsFd::as_fd),
        }
    }

    /// Closes a part, which must not be waited on any more.
    pub(super) fn close(&mut self, part: Part) {
        match part {
            Part::Stdout => self.stdout = None,
            Part::Stderr => self.stderr = None,
            Part::Report => self.report = None,
            Part::Group => {}
            Part::Forward => self.forward = None,
        }
    }

    /// Moves one read's worth of output into the log; whether more may come.
    pub(super) fn copy_output(&mut self, part: Part, log: &mut LogWriter) -> bool {
        let mut buffer = [0; CHUNK_LEN_MAX];
        matches!(self.copy_once(part, log, &mut buffer), Copied::Bytes(_) | Copied::NothingYet)
    }

    /// Moves what is left in the pipes into the log, and closes it for this run.
    pub(super) fn drain(&mut self, log: &mut LogWriter) {
        let mut buffer = [0; CHUNK_LEN_MAX];
        for part in [Part::Stdout, Part::Stderr] {
            let mut drained = 0;
            while drained < DRAIN_MAX {
                match self.copy_once(part, log, &mut buffer) {
                    Copied::Bytes(len) => drained += len,
                    Copied::NothingYet | Copied::End => break,
                }
            }
        }
        log.end(self.plan.run);
    }

    fn copy_once(&mut self, part: Part, log: &mut LogWriter, buffer: &mut [u8]) -> Copied {
        let pipe = match part {
            Part::Stdout => &mut self.stdout,
            Part::Stderr => &mut self.stderr,
            Part::Report | Part::Group | Part::Forward => return Copied::End,
        };
        let (Some(pipe), Some(stream)) = (pipe, part.stream()) else { return Copied::End };
        match pipe.read(buffer) {
            Ok(0) => Copied::End,
            Ok(len) => {
                log.append(self.plan.run, stream, &buffer[..len]);
                Copied::Bytes(len)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Copied::NothingYet,
            // A pipe does not fail to be read; if it did, there would be nothing more to get out of it.
            Err(_) => Copied::End,
        }
    }

    /// Reads what the child has reported so far.
    pub(super) fn read_report(&mut self) -> Option<News> {
        loop {
            let Stage::Starting { failure } = &mut self.stage else { return None };
            match self.report.as_ref().map_or(Reported::Closed, Report::next) {
                Reported::Ready(pid) => {
                    self.program = Some(pid);
                    self.pidfd = PidFd::open(pid).ok();
                }
                Reported::Enforced(enforced) => {
                    self.enforced.landlock_abi = enforced.landlock_abi;
                    self.enforced.missing.extend(enforced.missing);
                }
                Reported::Failed(error) => *failure = Some(error),
                Reported::Ports(sockets) => {
                    if let Err(errno) =
                        sockets.and_then(|sockets| forward(&mut self.forward, sockets, self.descriptors_max))
                    {
                        *failure = Some(format!("cannot forward its ports: {}", Cause::from(errno)));
                        self.kill_tree();
                    }
                }
                Reported::Nothing => return None,
                Reported::Closed if failure.is_some() => return None,
                Reported::Closed if self.program.is_none() => {
                    *failure = Some("it was killed before it could start".to_owned());
                    return None;
                }
                Reported::Closed => break,
            }
        }
        self.stage = Stage::Running;
        self.started_at = wall_now();
        if let Some(signal) = self.early_signal.take() {
            self.signal(signal);
        }
        Some(News::Launched)
    }

    /// Whether the report has been read to its end.
    pub(super) fn report_is_over(&self) -> bool {
        !matches!(self.stage, Stage::Starting { failure: None })
    }

    /// Its child has ended with this wait status, and was reaped. What is left of its tree is killed.
    pub(super) fn reaped(&mut self, status: i32) {
        let status = self.tree.init.as_ref().and_then(|init| spawn::handed_on(&init.status)).unwrap_or(status);
        self.is_reaped = true;
        self.pidfd = None;
        self.kill_tree();
        if !matches!(self.stage, Stage::Starting { .. }) {
            self.stage = Stage::Ending(ended(status));
        }
    }

    /// Whether its tree has gone by now; then it is over, or has failed.
    pub(super) fn finish(&mut self) -> Option<News> {
        if let Some(Watched { group, .. }) = &self.tree.group {
            match group.is_populated() {
                Ok(true) => {
                    group.kill_strays();
                    return None;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(instance = %self.plan.instance, %error, "cannot see whether a tree has gone");
                }
            }
            // The groups count them, and are about to go.
            if let Stage::Ending(ended) = &mut self.stage {
                ended.oom_kills = group.oom_kills();
            }
            if let Err(error) = group.remove() {
                tracing::warn!(instance = %self.plan.instance, %error, "left a control group behind");
            }
        }
        if let Some(record) = self.tree.init.as_ref().and_then(|init| init.record.as_ref()) {
            record.remove();
        }
        match &mut self.stage {
            Stage::Starting { failure } => Some(News::Failed(failure.take().unwrap_or_default())),
            Stage::Ending(ended) => {
                let ended = *ended;
                self.stage = Stage::Over(ended);
                Some(News::Over(ended))
            }
            Stage::Running | Stage::Over(_) => None,
        }
    }

    /// Carries what waits on its ports.
    pub(super) fn serve_ports(&mut self) {
        if let Some(forward) = &mut self.forward {
            forward.serve();
        }
    }

    /// Its connections to the host, once it has ended: what it sent before is still to be delivered.
    pub(super) fn take_forward(&mut self) -> Option<Forward> {
        self.forward.take()
    }

    /// Whether its child was reaped and its tree is awaited.
    pub(super) fn is_ending(&self) -> bool {
        self.is_reaped && self.is_alive()
    }

    /// Sends a signal to the first process; one that is still starting gets it when the program runs.
    pub(super) fn signal(&mut self, number: i32) {
        match (&self.stage, &self.pidfd) {
            (Stage::Starting { .. }, _) => self.early_signal = Some(number),
            (Stage::Running, Some(pidfd)) => {
                if let Err(error) = pidfd.signal(number) {
                    tracing::warn!(instance = %self.plan.instance, number, %error, "cannot send a signal");
                }
            }
            _ => {}
        }
    }

    /// Asks it to stop in the way of its plan. Gives when its tree is to be killed: after the plan's grace, or `grace_max` if that is
    /// shorter; none when it was killed at once.
    pub(super) fn stop(&mut self, now: Instant, grace_max: Duration) -> Option<Instant> {
        let Stop { signal, grace_ms } = self.plan.stop;
        if signal == libc::SIGKILL {
            self.kill_tree();
            return None;
        }
        self.signal(signal);
        Some(now + Duration::from_millis(grace_ms).min(grace_max))
    }

    /// Kills every process of it.
    pub(super) fn kill_tree(&mut self) {
        if let Some(Watched { group, .. }) = &self.tree.group
            && let Err(error) = group.kill()
        {
            tracing::warn!(instance = %self.plan.instance, %error, "cannot kill a tree");
        }
        // The child too: it may not have entered its group yet, and the death of an init is the death of its namespace.
        if !self.is_reaped {
            // SAFETY: the child was not reaped, so the number is still its own.
            unsafe { libc::kill(self.child.as_raw(), libc::SIGKILL) };
        }
    }
}

/// Has `sockets` carried too.
fn forward(to: &mut Option<Forward>, sockets: Vec<OwnedFd>, descriptors_max: rlim_t) -> nix::Result<()> {
    let forward = match to.take() {
        Some(forward) => forward,
        None => Forward::new(descriptors_max)?,
    };
    to.insert(forward).add(sockets)
}

enum Copied {
    Bytes(usize),
    NothingYet,
    End,
}

/// From a wait status (wait(2)).
fn ended(status: i32) -> Ended {
    Ended {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        at: wall_now(),
        oom_kills: 0,
    }
}

fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
