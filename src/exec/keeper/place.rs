//! Where a keeper is found, and how one is started. Shell.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::message::{Event, Request, VERSION_NEWEST, VERSION_OLDEST};
use super::socket::{self, Socket};
use super::{KeeperError, sweep_leftovers};
use crate::exec::cause::why;
use crate::exec::plan::Kept;

/// How long a keeper may take from its start to its first word: it has to end what an earlier one left.
const START_WAIT_MAX: Duration = Duration::from_secs(15);

/// How long a living keeper may take to answer a greeting. It never waits for anything but its disk.
const HELLO_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a keeper that is being started is tried.
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);

/// Longest log of the keeper itself, in bytes: it holds a line for each start and end, and begins anew with a new keeper.
const LOG_LEN_MAX: u64 = 1024 * 1024;

/// How much of the keeper's own log is quoted when it does not start, in bytes.
const QUOTE_LEN_MAX: usize = 1024;

/// A connection to a keeper.
pub(super) type Link = AsyncFd<Socket>;

/// A connection that was greeted.
pub(super) struct Connected {
    pub(super) link: Link,
    /// The version of the messages that both speak.
    pub(super) version: u32,
    /// What the keeper holds.
    pub(super) kept: Vec<Kept>,
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is there and cannot be used.
    #[error("cannot connect to the keeper at `{path}`: {}", why(cause))]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A keeper lives and does not answer.
    #[error("the keeper at `{0}` does not answer")]
    Silent(PathBuf),
    /// A keeper lives and does not want this node.
    #[error("the keeper at `{path}` refuses this node: {reason}")]
    Refused {
        /// Which socket.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// Its own log cannot be opened.
    #[error("cannot open `{path}`: {}", why(cause))]
    Log {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start the keeper `{exe}`: {}", why(cause))]
    Spawn {
        /// Which program.
        exe: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It was started and ended.
    #[error("the keeper ended at once ({status}); its last words in `{log}`:\n{words}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Where it writes.
        log: PathBuf,
        /// The end of that.
        words: String,
    },
    /// It was started and cannot be reached.
    #[error("the keeper was started and cannot be reached at `{path}` within {START_WAIT_MAX:?}")]
    TooSlow {
        /// Which socket.
        path: PathBuf,
    },
    /// What a dead keeper left cannot be ended.
    #[error(transparent)]
    Sweep(#[from] KeeperError),
}

/// Sends one request; waits while the keeper's buffer is full.
pub(super) async fn send(link: &Link, request: Option<&Request>) -> io::Result<()> {
    match request {
        Some(request) => link.async_io(Interest::WRITABLE, |socket| socket.send(request)).await,
        None => Ok(()),
    }
}

/// Where the keeper is, and how one is started.
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) exe: PathBuf,
}

impl Place {
    fn socket(&self) -> PathBuf {
        self.data_dir.join(socket::SOCKET_NAME)
    }

    pub(super) async fn connect_or_start(&self) -> Result<Connected, ClientError> {
        match self.connect().await? {
            Some(connected) => Ok(connected),
            None => self.start().await,
        }
    }

    /// Connects and greets; none when nobody listens.
    pub(super) async fn connect(&self) -> Result<Option<Connected>, ClientError> {
        let failed = |cause| ClientError::Connect { path: self.socket(), cause };
        let socket = match socket::connect(&self.data_dir) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            socket => socket.map_err(failed)?,
        };
        // SAFETY: the socket owns its descriptor, and always gives the same one.
        let link = unsafe { AsyncFd::register(socket) }.map_err(|e| failed(e.into_parts().1))?;
        match timeout(HELLO_WAIT_MAX, self.greet(&link)).await {
            Ok(greeted) => {
                let (version, kept) = greeted?;
                Ok(Some(Connected { link, version, kept }))
            }
            Err(_) => Err(ClientError::Silent(self.socket())),
        }
    }

    /// Settles the version, and hears what is held.
    async fn greet(&self, link: &Link) -> Result<(u32, Vec<Kept>), ClientError> {
        let failed = |cause| ClientError::Connect { path: self.socket(), cause };
        let refused = |reason| ClientError::Refused { path: self.socket(), reason };
        let hello = Request::Hello { oldest: VERSION_OLDEST, newest: VERSION_NEWEST };
        send(link, Some(&hello)).await.map_err(failed)?;
        let mut version = VERSION_OLDEST;
        let mut all = Vec::new();
        loop {
            match link.async_io(Interest::READABLE, Socket::receive).await.map_err(failed)? {
                Some(Event::Holding { kept, last }) => {
                    all.extend(kept);
                    if last {
                        return Ok((version, all));
                    }
                }
                Some(Event::Welcome { version: settled }) => version = settled,
                Some(Event::Refused { reason }) => return Err(refused(reason)),
                Some(_) => {}
                None => return Err(refused(format!("it closed the connection; `{}` may say why", self.log.display()))),
            }
        }
    }

    /// Starts a keeper that outlives this process, and connects to it.
    async fn start(&self) -> Result<Connected, ClientError> {
        let mut child = self.spawn()?;
        let deadline = Instant::now() + START_WAIT_MAX;
        loop {
            if let Some(connected) = self.connect().await? {
                // The child is reaped by tokio when it ends, though nobody holds it any more.
                return Ok(connected);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(ClientError::Ended { status, log: self.log.clone(), words: self.last_words() });
            }
            if Instant::now() >= deadline {
                return Err(ClientError::TooSlow { path: self.socket() });
            }
            sleep(CONNECT_INTERVAL).await;
        }
    }

    fn spawn(&self) -> Result<Child, ClientError> {
        let failed = |cause| ClientError::Log { path: self.log.clone(), cause };
        let log = File::options().create(true).append(true).mode(0o600).open(&self.log).map_err(failed)?;
        if log.metadata().map_err(failed)?.len() > LOG_LEN_MAX {
            log.set_len(0).map_err(failed)?;
        }
        let mut command = Command::new(&self.exe);
        command.arg("keeper").arg("--data-dir").arg(&self.data_dir);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        // SAFETY: setsid is safe between fork and exec, and nothing else runs there. With a session of its own the keeper has
        // no terminal: a Ctrl-C that ends the node does not reach it.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        command.spawn().map_err(|cause| ClientError::Spawn { exe: self.exe.clone(), cause })
    }

    /// The end of the keeper's log.
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(QUOTE_LEN_MAX)..];
        String::from_utf8_lossy(tail).trim_end().to_owned()
    }

    /// Ends what a keeper that is gone has left. It may have to wait, so it does not do so on the node's threads.
    pub(super) async fn sweep(&self) -> Result<usize, KeeperError> {
        let data_dir = self.data_dir.clone();
        let swept = tokio::task::spawn_blocking(move || sweep_leftovers(&data_dir)).await;
        swept.expect("sweeping does not panic")
    }
}
