//! The node's side of the keeper: finds it or starts it, and is the node's [`Processes`]. Shell.
//!
//! One task owns the socket. It sends what the node asks for and reports what the keeper says. A connection that breaks is made
//! again without the node noticing: the keeper's table says what happened meanwhile. Only when the keeper itself is gone the
//! node is told, after everything that it had held has ended; then a new one is started.
//!
//! *A launch is answered once*: by `Launched` or `LaunchFailed`, however often the connection broke in between. To that end the task
//! remembers launches until they are answered, and sends them again; the keeper knows runs that it has seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::message::{Event, Request, VERSION_NEWEST, VERSION_OLDEST};
use super::socket::{self, Socket};
use super::{KeeperError, sweep_leftovers};
use crate::exec::cause::why;
use crate::exec::plan::{Kept, LaunchPlan, ProcessEvent};
use crate::ids::RunId;
use crate::node::engine::input::Input;
use crate::node::layout::Layout;
use crate::node::shells::Processes;

/// How long a keeper may take from its start to its first word: it has to end what an earlier one left.
const START_WAIT_MAX: Duration = Duration::from_secs(15);

/// How long a living keeper may take to answer a greeting. It never waits for anything but its disk.
const HELLO_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a keeper that is being started is tried.
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);

/// The first pause between two attempts to get a keeper going, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a host that cannot start a process, say for lack of memory, may be well again by then.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long a keeper that has closed its connection may take to be gone: it has nothing left to do.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Longest log of the keeper itself, in bytes: it holds a line for each start and end, and begins anew with a new keeper.
const LOG_LEN_MAX: u64 = 1024 * 1024;

/// How much of the keeper's own log is quoted when it does not start, in bytes.
const QUOTE_LEN_MAX: usize = 1024;

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

/// The node's door to its keeper. When all clones are dropped the task ends; keeper and instances go on.
///
/// What waits for the keeper is bounded by the engine's own table: it asks a few things of each run, and launches none anew
/// before it has heard of the last. So the channel has no limit of its own, since one could only be kept by losing a kill.
#[derive(Clone, Debug)]
pub struct KeeperClient {
    asks: mpsc::UnboundedSender<Ask>,
}

#[derive(Debug)]
enum Ask {
    Request(Request),
    Shutdown { grace: Duration, done: oneshot::Sender<()> },
}

impl KeeperClient {
    /// Connects to the keeper of the data directory, or starts `exe keeper --data-dir …` when there is none. What it reports goes
    /// into `inputs`, beginning with [`ProcessEvent::Holding`], which comes again only after [`ProcessEvent::KeeperLost`]. The
    /// task ends with the last clone of the client, with `inputs`, or after [`Self::shutdown`].
    pub async fn connect_or_start(
        layout: &Layout,
        exe: PathBuf,
        inputs: mpsc::Sender<Input>,
    ) -> Result<(Self, JoinHandle<()>), ClientError> {
        let place = Place { data_dir: layout.root().to_owned(), log: layout.keeper_log(), exe };
        let (link, kept) = place.connect_or_start().await?;
        let (asks, queue) = mpsc::unbounded_channel();
        let mut task = Task {
            place,
            inputs,
            queue,
            waiting: VecDeque::new(),
            launches: BTreeMap::new(),
            kills: BTreeSet::new(),
            leaving: None,
        };
        let task = tokio::spawn(async move { task.run(link, kept).await });
        Ok((Self { asks }, task))
    }

    /// Ends every instance (SIGTERM, `grace`, SIGKILL to the whole tree) and then the keeper, and waits until all are gone.
    pub async fn shutdown(&self, grace: Duration) {
        let (done, gone) = oneshot::channel();
        if self.asks.send(Ask::Shutdown { grace, done }).is_ok() {
            // An error says that the task has ended, as it does after a shutdown.
            let _ = gone.await;
        }
    }

    fn ask(&self, request: Request) {
        // The task ends before its client only when the node is stopping.
        let _ = self.asks.send(Ask::Request(request));
    }
}

impl Processes for KeeperClient {
    fn launch(&mut self, plan: LaunchPlan) {
        self.ask(Request::Launch { plan: Box::new(plan) });
    }

    fn signal(&mut self, run: RunId, signal: i32) {
        self.ask(Request::Signal { run, signal });
    }

    fn kill(&mut self, run: RunId) {
        self.ask(Request::Kill { run });
    }

    fn acknowledge(&mut self, run: RunId) {
        self.ask(Request::Acknowledge { run });
    }
}

/// A connection that was greeted.
type Link = AsyncFd<Socket>;

/// The task between client and keeper.
struct Task {
    place: Place,
    inputs: mpsc::Sender<Input>,
    queue: mpsc::UnboundedReceiver<Ask>,
    /// Taken out of the queue while there was no keeper to send to.
    waiting: VecDeque<Ask>,
    /// Launches without an answer yet: sent again over a new connection.
    launches: BTreeMap<RunId, Box<LaunchPlan>>,
    /// Kills whose runs are not over yet: sent again as well.
    kills: BTreeSet<RunId>,
    /// Somebody waits for the keeper to be gone.
    leaving: Option<oneshot::Sender<()>>,
}

/// Why the task stops serving a connection, or stops altogether.
enum Stop {
    /// The connection broke.
    Broken(io::Error),
    /// Nobody is there any more to work for.
    NotNeeded,
}

impl Task {
    async fn run(&mut self, mut link: Link, kept: Vec<Kept>) {
        let mut holding = ProcessEvent::Holding(kept);
        loop {
            if self.tell(holding).await.is_err() {
                return;
            }
            loop {
                match self.serve(&link).await {
                    Stop::NotNeeded => return,
                    Stop::Broken(_) if self.leaving.is_some() => return self.leave().await,
                    Stop::Broken(error) => tracing::warn!(%error, "lost the connection to the keeper"),
                }
                match self.reconnect().await {
                    Ok(Some((again, kept))) => {
                        link = again;
                        if self.catch_up(kept).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            if self.tell_lost().await.is_err() {
                return;
            }
            match self.start_anew().await {
                Some((new, kept)) => (link, holding) = (new, ProcessEvent::Holding(kept)),
                None => return,
            }
        }
    }

    /// Carries requests one way and events the other, until it cannot.
    async fn serve(&mut self, link: &Link) -> Stop {
        let mut unsent = None;
        loop {
            if unsent.is_none() {
                unsent = self.waiting.pop_front().map(|ask| self.note(ask));
            }
            tokio::select! {
                event = link.async_io(Interest::READABLE, Socket::receive) => match event {
                    Ok(Some(event)) => {
                        if self.report(event).await.is_err() {
                            return Stop::NotNeeded;
                        }
                    }
                    Ok(None) => return Stop::Broken(io::ErrorKind::UnexpectedEof.into()),
                    Err(e) => return Stop::Broken(e),
                },
                sent = send(link, unsent.as_ref()), if unsent.is_some() => match sent {
                    Ok(()) => unsent = None,
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                        if self.refuse(unsent.take(), &e).await.is_err() {
                            return Stop::NotNeeded;
                        }
                    }
                    Err(e) => return Stop::Broken(e),
                },
                ask = self.queue.recv(), if unsent.is_none() => match ask {
                    Some(ask) => self.waiting.push_back(ask),
                    None => return Stop::NotNeeded,
                },
            }
        }
    }

    /// Remembers what must not get lost on the way, and gives the request to send.
    fn note(&mut self, ask: Ask) -> Request {
        match &ask {
            Ask::Request(Request::Launch { plan }) => drop(self.launches.insert(plan.run, plan.clone())),
            Ask::Request(Request::Kill { run }) => drop(self.kills.insert(*run)),
            _ => {}
        }
        match ask {
            Ask::Request(request) => request,
            Ask::Shutdown { grace, done } => {
                self.leaving = Some(done);
                Request::Shutdown { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) }
            }
        }
    }

    /// A request that can never be sent: only a plan can be too long.
    async fn refuse(&mut self, request: Option<Request>, error: &io::Error) -> Result<(), Gone> {
        let Some(Request::Launch { plan }) = request else { return Ok(()) };
        self.launches.remove(&plan.run);
        let error = format!("cannot hand the launch plan to the keeper: {error}");
        self.tell(ProcessEvent::LaunchFailed { run: plan.run, error }).await
    }

    async fn tell(&self, event: ProcessEvent) -> Result<(), Gone> {
        self.inputs.send(Input::Process(event)).await.map_err(|_| Gone)
    }

    /// Hands an event on.
    async fn report(&mut self, event: Event) -> Result<(), Gone> {
        let event = match event {
            Event::Launched { run, pid, at } => {
                self.launches.remove(&run);
                ProcessEvent::Launched { run, pid, at }
            }
            Event::LaunchFailed { run, error } => {
                self.launches.remove(&run);
                self.kills.remove(&run);
                ProcessEvent::LaunchFailed { run, error }
            }
            Event::Exited { run, ended } => {
                self.kills.remove(&run);
                ProcessEvent::Exited { run, ended }
            }
            // The greeting is over.
            Event::Welcome { .. } | Event::Refused { .. } | Event::Holding { .. } => return Ok(()),
        };
        self.tell(event).await
    }

    /// Connects to the same keeper again. None when it is gone, and all that it held has ended.
    async fn reconnect(&mut self) -> Result<Option<(Link, Vec<Kept>)>, Gone> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.place.connect().await {
                Ok(Some(connected)) => return Ok(Some(connected)),
                Ok(None) => match self.place.sweep().await {
                    Ok(swept) => {
                        tracing::error!(swept, "the keeper is gone, and its instances with it");
                        return Ok(None);
                    }
                    // It lives without its socket: it is about to end, or has just begun.
                    Err(KeeperError::Running(_)) => {}
                    Err(error) => tracing::error!(%error, "cannot clean up after the keeper"),
                },
                Err(error) => tracing::warn!(%error, "cannot reach the keeper"),
            }
            self.pause(&mut pause).await?;
        }
    }

    /// Reports over a new connection what was missed on the old one, and asks again for what may have been lost.
    async fn catch_up(&mut self, kept: Vec<Kept>) -> Result<(), Gone> {
        for Kept { plan, pid, started_at, ended } in kept {
            let run = plan.run;
            if self.launches.remove(&run).is_some() {
                self.tell(ProcessEvent::Launched { run, pid, at: started_at }).await?;
            }
            if let Some(ended) = ended {
                // Told before, perhaps; but then the acknowledgement was lost, and is sent again for this.
                self.kills.remove(&run);
                self.tell(ProcessEvent::Exited { run, ended }).await?;
            }
        }
        let launches = self.launches.values().map(|plan| Request::Launch { plan: plan.clone() });
        let kills = self.kills.iter().map(|run| Request::Kill { run: *run });
        let again: Vec<Ask> = launches.chain(kills).map(Ask::Request).collect();
        for ask in again.into_iter().rev() {
            self.waiting.push_front(ask);
        }
        Ok(())
    }

    /// Tells that the keeper is gone. Whatever was asked of it can not come true any more, and each launch gets its answer.
    async fn tell_lost(&mut self) -> Result<(), Gone> {
        while let Ok(ask) = self.queue.try_recv() {
            self.waiting.push_back(ask);
        }
        let mut unanswered: BTreeSet<RunId> = std::mem::take(&mut self.launches).into_keys().collect();
        self.kills.clear();
        for ask in std::mem::take(&mut self.waiting) {
            match ask {
                Ask::Request(Request::Launch { plan }) => drop(unanswered.insert(plan.run)),
                Ask::Request(_) => {}
                shutdown @ Ask::Shutdown { .. } => self.waiting.push_back(shutdown),
            }
        }
        for run in unanswered {
            let error = "the keeper ended before it could start it".to_owned();
            self.tell(ProcessEvent::LaunchFailed { run, error }).await?;
        }
        self.tell(ProcessEvent::KeeperLost).await
    }

    /// Starts a new keeper, however long it takes; none when nobody needs one any more.
    async fn start_anew(&mut self) -> Option<(Link, Vec<Kept>)> {
        let mut pause = RETRY_FIRST;
        loop {
            if self.waiting.iter().any(|ask| matches!(ask, Ask::Shutdown { .. })) {
                // Nothing runs, and whoever waits for that learns it by the queue being dropped.
                return None;
            }
            match self.place.connect_or_start().await {
                Ok(connected) => return Some(connected),
                Err(error) => tracing::error!(%error, "cannot start a keeper"),
            }
            self.pause(&mut pause).await.ok()?;
        }
    }

    /// Waits for a while, the next time for longer; ends early when there is somebody to be let go.
    async fn pause(&mut self, pause: &mut Duration) -> Result<(), Gone> {
        let until = Instant::now() + *pause;
        *pause = (*pause * 2).min(RETRY_LONGEST);
        while let Ok(ask) = timeout_at(until, self.queue.recv()).await {
            let ask = ask.ok_or(Gone)?;
            let is_shutdown = matches!(ask, Ask::Shutdown { .. });
            self.waiting.push_back(ask);
            if is_shutdown {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The keeper was told to end and has closed the connection: waits until its process is gone.
    async fn leave(&mut self) {
        let deadline = Instant::now() + LEAVE_WAIT_MAX;
        while let Err(error) = self.place.sweep().await {
            if Instant::now() >= deadline {
                tracing::error!(%error, "the keeper does not end");
                break;
            }
            sleep(CONNECT_INTERVAL).await;
        }
        if let Some(done) = self.leaving.take() {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }
}

/// Nobody listens any more.
struct Gone;

/// Sends one request; waits while the keeper's buffer is full.
async fn send(link: &Link, request: Option<&Request>) -> io::Result<()> {
    match request {
        Some(request) => link.async_io(Interest::WRITABLE, |socket| socket.send(request)).await,
        None => Ok(()),
    }
}

/// Where the keeper is, and how one is started.
struct Place {
    data_dir: PathBuf,
    log: PathBuf,
    exe: PathBuf,
}

impl Place {
    fn socket(&self) -> PathBuf {
        self.data_dir.join(socket::SOCKET_NAME)
    }

    async fn connect_or_start(&self) -> Result<(Link, Vec<Kept>), ClientError> {
        match self.connect().await? {
            Some(connected) => Ok(connected),
            None => self.start().await,
        }
    }

    /// Connects and greets; none when nobody listens.
    async fn connect(&self) -> Result<Option<(Link, Vec<Kept>)>, ClientError> {
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
            Ok(kept) => Ok(Some((link, kept?))),
            Err(_) => Err(ClientError::Silent(self.socket())),
        }
    }

    async fn greet(&self, link: &Link) -> Result<Vec<Kept>, ClientError> {
        let failed = |cause| ClientError::Connect { path: self.socket(), cause };
        let refused = |reason| ClientError::Refused { path: self.socket(), reason };
        let hello = Request::Hello { oldest: VERSION_OLDEST, newest: VERSION_NEWEST };
        send(link, Some(&hello)).await.map_err(failed)?;
        let mut all = Vec::new();
        loop {
            match link.async_io(Interest::READABLE, Socket::receive).await.map_err(failed)? {
                Some(Event::Holding { kept, last }) => {
                    all.extend(kept);
                    if last {
                        return Ok(all);
                    }
                }
                Some(Event::Refused { reason }) => return Err(refused(reason)),
                Some(_) => {}
                None => return Err(refused(format!("it closed the connection; `{}` may say why", self.log.display()))),
            }
        }
    }

    /// Starts a keeper that outlives this process, and connects to it.
    async fn start(&self) -> Result<(Link, Vec<Kept>), ClientError> {
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
    async fn sweep(&self) -> Result<usize, KeeperError> {
        let data_dir = self.data_dir.clone();
        let swept = tokio::task::spawn_blocking(move || sweep_leftovers(&data_dir)).await;
        swept.expect("sweeping does not panic")
    }
}
