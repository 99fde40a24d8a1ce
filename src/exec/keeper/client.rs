//! The node's side of the keeper: finds it or starts it, and is the node's [`Processes`]. Shell.
//!
//! One task owns the socket. It sends what the node asks for and reports what the keeper says. A connection that breaks is made
//! again without the node noticing: the keeper's table says what happened meanwhile. Only when the keeper itself is gone the
//! node is told, after everything that it had held has ended; then a new one is started.
//!
//! *A launch is answered once*: by `Launched` or `LaunchFailed`, however often the connection broke in between. To that end the task
//! remembers launches until they are answered, and sends them again; the keeper knows runs that it has seen.
//!
//! *A keeper of an older version* is asked for nothing that it would silently leave out, and is replaced, without the node noticing,
//! as soon as it holds nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::KeeperError;
use super::message::{Event, Request, VERSION_CONFINES, VERSION_LEASES, VERSION_NEWEST};
pub use super::place::ClientError;
use super::place::{Connected, Link, Place, send};
use super::socket::Socket;
use crate::confinement::Confinement;
use crate::exec::plan::{Identity, Kept, LaunchPlan, ProcessEvent};
use crate::exec::sandbox::identity::{self, LookUpError};
use crate::ids::RunId;
use crate::node::engine::input::Input;
use crate::node::layout::Layout;
use crate::node::shells::Processes;
use crate::time::Mono;

/// The first pause between two attempts to get a keeper going, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// Longest grace that a keeper of version 1, which gives all instances the same, is told to give them at its end.
const GRACE_FOR_ALL: Duration = Duration::from_secs(10);
/// The longest pause: a host that cannot start a process, say for lack of memory, may be well again by then.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// The node's door to its keeper. When all clones are dropped the task ends; keeper and instances go on.
///
/// What waits for the keeper is bounded by the engine's own table: it asks a few things of each run, and launches none anew
/// before it has heard of the last. So the channel has no limit of its own, since one could only be kept by losing a kill.
#[derive(Clone, Debug)]
pub struct KeeperClient {
    asks: mpsc::UnboundedSender<Ask>,
    keeper: watch::Receiver<Option<i32>>,
}

#[derive(Debug)]
enum Ask {
    Request(Request),
    Shutdown { grace_max: Duration, done: oneshot::Sender<()> },
}

impl KeeperClient {
    /// Connects to the keeper of the data directory, or starts `exe keeper --data-dir …` when there is none. What it reports goes
    /// into `inputs`, beginning with [`ProcessEvent::Holding`], which comes again only after [`ProcessEvent::KeeperLost`]. The
    /// task ends with the last clone of the client, or after [`Self::shutdown`]; events that nobody takes any more are dropped.
    pub async fn connect_or_start(
        layout: &Layout,
        exe: PathBuf,
        inputs: mpsc::Sender<Input>,
    ) -> Result<(Self, JoinHandle<()>), ClientError> {
        let place = Place { data_dir: layout.root().to_owned(), log: layout.keeper_log(), exe };
        let connected = place.connect_or_start().await?;
        let (asks, queue) = mpsc::unbounded_channel();
        let (number, keeper) = watch::channel(connected.link.get_ref().peer());
        let (found, look_ups) = mpsc::unbounded_channel();
        let mut task = Task {
            place,
            inputs,
            number,
            queue,
            found,
            look_ups,
            nameless: BTreeMap::new(),
            waiting: VecDeque::new(),
            launches: BTreeMap::new(),
            kills: BTreeSet::new(),
            leaving: None,
            version: connected.version,
            held: BTreeSet::new(),
        };
        let task = tokio::spawn(async move { task.run(connected).await });
        Ok((Self { asks, keeper }, task))
    }

    /// The process number of the keeper, while one is known: whatever descends from it is an instance.
    pub fn keeper(&self) -> watch::Receiver<Option<i32>> {
        self.keeper.clone()
    }

    /// Ends every instance in the way of its plan (its signal, its grace or `grace_max` if that is shorter, SIGKILL to the whole
    /// tree) and then the keeper, and waits until all are gone.
    pub async fn shutdown(&self, grace_max: Duration) {
        let (done, gone) = oneshot::channel();
        if self.asks.send(Ask::Shutdown { grace_max, done }).is_ok() {
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

    fn extend(&mut self, run: RunId, until: Mono) {
        self.ask(Request::Extend { run, until });
    }
}

/// The task between client and keeper.
struct Task {
    place: Place,
    inputs: mpsc::Sender<Input>,
    number: watch::Sender<Option<i32>>,
    queue: mpsc::UnboundedReceiver<Ask>,
    /// Where look-ups of users say what they have found; as many as launches are under way.
    found: mpsc::UnboundedSender<Found>,
    look_ups: mpsc::UnboundedReceiver<Found>,
    /// Launches whose users are being looked up.
    nameless: BTreeMap<RunId, Box<LaunchPlan>>,
    /// Taken out of the queue, and not yet sent.
    waiting: VecDeque<Ask>,
    /// Launches without an answer yet: sent again over a new connection.
    launches: BTreeMap<RunId, Box<LaunchPlan>>,
    /// Kills whose runs are not over yet: sent again as well.
    kills: BTreeSet<RunId>,
    /// The keeper is to end; these wait for it to be gone.
    leaving: Option<Leaving>,
    /// The version of the messages that is spoken with this keeper.
    version: u32,
    /// What the keeper holds, as far as it has been heard of.
    held: BTreeSet<RunId>,
}

/// What a look-up has found.
type Found = (RunId, Result<Identity, LookUpError>);

/// A shutdown under way.
struct Leaving {
    grace_max: Duration,
    waiters: Vec<oneshot::Sender<()>>,
}

/// Why the task does not serve a connection any more.
enum Stop {
    /// The connection broke.
    Broken(io::Error),
    /// The keeper is of an older version, and holds nothing.
    Outdated,
    /// All clients are gone.
    NotNeeded,
}

/// All clients are gone.
struct NotNeeded;

impl Task {
    async fn run(&mut self, connected: Connected) {
        let Connected { mut link, kept, .. } = connected;
        self.holds(&kept);
        let mut holding = ProcessEvent::Holding(kept);
        loop {
            self.tell(holding).await;
            // As long as this keeper lives, or one that took the place of it while it held nothing.
            loop {
                match self.serve(&link).await {
                    Stop::NotNeeded => return,
                    Stop::Outdated => match self.replace(&link).await {
                        Ok(Some(new)) => {
                            link = self.met(new).0;
                            continue;
                        }
                        Ok(None) => return self.let_go(),
                        Err(NotNeeded) => return,
                    },
                    Stop::Broken(_) if self.leaving.is_some() => {}
                    Stop::Broken(error) => tracing::warn!(%error, "lost the connection to the keeper"),
                }
                match self.reconnect().await {
                    Ok(Some(again)) => {
                        let kept;
                        (link, kept) = self.met(again);
                        self.catch_up(kept).await;
                    }
                    Ok(None) => break,
                    Err(NotNeeded) => return,
                }
            }
            self.tell_lost().await;
            match self.start_anew().await {
                Ok(Some(new)) => {
                    let kept;
                    (link, kept) = self.met(new);
                    holding = ProcessEvent::Holding(kept);
                }
                Ok(None) => return self.let_go(),
                Err(NotNeeded) => return,
            }
        }
    }

    /// Takes note of the keeper at the other end of a new connection.
    fn met(&mut self, connected: Connected) -> (Link, Vec<Kept>) {
        let Connected { link, version, kept } = connected;
        self.version = version;
        self.holds(&kept);
        (link, kept)
    }

    fn holds(&mut self, kept: &[Kept]) {
        self.held = kept.iter().map(|kept| kept.plan.run).collect();
    }

    /// Whether the keeper is to be replaced by one of this program's version.
    fn is_outdated(&self) -> bool {
        let holds_nothing = self.held.is_empty() && self.launches.is_empty() && self.nameless.is_empty();
        self.version < VERSION_NEWEST && holds_nothing && self.leaving.is_none()
    }

    /// Has a keeper end that holds nothing, and starts another one. None when the keeper was told to end meanwhile.
    async fn replace(&mut self, link: &Link) -> Result<Option<Connected>, NotNeeded> {
        tracing::info!(
            version = self.version,
            "the keeper is of an older version and holds nothing: another one takes its place"
        );
        if send(link, Some(&Request::Shutdown { grace_ms: 0 })).await.is_err() {
            // It has not heard that. It is told over the next connection, unless it is gone.
            return match self.reconnect().await? {
                Some(again) => Ok(Some(again)),
                None => self.start_anew().await,
            };
        }
        let mut pause = RETRY_FIRST;
        while let Err(error) = self.place.sweep().await {
            if !matches!(error, KeeperError::Running(_)) {
                tracing::error!(%error, "cannot clean up after the keeper");
                break;
            }
            self.pause(&mut pause).await?;
        }
        self.start_anew().await
    }

    /// Carries requests one way and events the other, until it cannot.
    async fn serve(&mut self, link: &Link) -> Stop {
        self.number.send_replace(link.get_ref().peer());
        let mut unsent = None;
        loop {
            if unsent.is_none() && self.waiting.is_empty() && self.is_outdated() {
                return Stop::Outdated;
            }
            while unsent.is_none()
                && let Some(ask) = self.waiting.pop_front()
            {
                unsent = match self.look_up_first(ask).await {
                    Some(Ask::Request(Request::Launch { plan })) if self.is_beyond_keeper(&plan) => {
                        self.refuse_launch(plan.run).await;
                        continue;
                    }
                    Some(ask) => Some(self.note(ask)),
                    None => continue,
                };
            }
            tokio::select! {
                event = link.async_io(Interest::READABLE, Socket::receive) => match event {
                    Ok(Some(event)) => self.report(event).await,
                    Ok(None) => return Stop::Broken(io::ErrorKind::UnexpectedEof.into()),
                    Err(e) => return Stop::Broken(e),
                },
                sent = send(link, unsent.as_ref()), if unsent.is_some() => match sent {
                    Ok(()) => unsent = None,
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => self.refuse(unsent.take(), &e).await,
                    Err(e) => return Stop::Broken(e),
                },
                Some((run, found)) = self.look_ups.recv() => self.looked_up(run, found).await,
                ask = self.queue.recv(), if unsent.is_none() => match ask {
                    Some(ask) => self.waiting.push_back(ask),
                    None => return Stop::NotNeeded,
                },
            }
        }
    }

    /// Has the user of a launch looked up, which may take its time, and gives everything else back. A launch that is to end
    /// before its user is known has failed.
    async fn look_up_first(&mut self, ask: Ask) -> Option<Ask> {
        match ask {
            Ask::Request(Request::Launch { plan }) if plan.identity.is_none() && plan.confinement.user.is_some() => {
                let (run, user) = (plan.run, plan.confinement.user.clone().unwrap_or_default());
                self.nameless.insert(run, plan);
                let found = self.found.clone();
                // It ends by itself; a client that has gone meanwhile does not listen any more.
                tokio::task::spawn_blocking(move || drop(found.send((run, identity::look_up(&user)))));
                None
            }
            Ask::Request(Request::Kill { run } | Request::Signal { run, .. }) if self.nameless.contains_key(&run) => {
                self.nameless.remove(&run);
                let error = "it was to end before it could start".to_owned();
                self.tell(ProcessEvent::LaunchFailed { run, error }).await;
                None
            }
            ask => Some(ask),
        }
    }

    /// A user was looked up: its launch goes on, unless it has been answered.
    async fn looked_up(&mut self, run: RunId, found: Result<Identity, LookUpError>) {
        let Some(mut plan) = self.nameless.remove(&run) else { return };
        match found {
            Ok(identity) => {
                plan.take_identity(identity);
                self.waiting.push_back(Ask::Request(Request::Launch { plan }));
            }
            Err(error) => self.tell(ProcessEvent::LaunchFailed { run, error: error.to_string() }).await,
        }
    }

    /// Remembers what must not get lost on the way, and gives the request to send.
    fn note(&mut self, ask: Ask) -> Request {
        match ask {
            Ask::Request(request) => {
                match &request {
                    Request::Launch { plan } => drop(self.launches.insert(plan.run, plan.clone())),
                    Request::Kill { run } => drop(self.kills.insert(*run)),
                    // Only what has ended is acknowledged.
                    Request::Acknowledge { run } => drop(self.held.remove(run)),
                    _ => {}
                }
                request
            }
            Ask::Shutdown { grace_max, done } => {
                let leaving = self.leaving.get_or_insert(Leaving { grace_max, waiters: Vec::new() });
                leaving.waiters.push(done);
                self.shutdown(grace_max)
            }
        }
    }

    fn shutdown(&self, grace_max: Duration) -> Request {
        let grace = if self.version < VERSION_CONFINES { grace_max.min(GRACE_FOR_ALL) } else { grace_max };
        Request::Shutdown { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Whether a plan asks for what this keeper would leave out without a word.
    fn is_beyond_keeper(&self, plan: &LaunchPlan) -> bool {
        let asks_much = plan.confinement != Confinement::default() || plan.identity.is_some();
        self.version < VERSION_CONFINES && asks_much || self.version < VERSION_LEASES && plan.lease_until.is_some()
    }

    async fn refuse_launch(&self, run: RunId) {
        let error = "the keeper of this node's processes was started by an older version of narun, which knows no sandbox, no \
                     limits and no leases; it is replaced once it holds nothing: `narun stop` and `narun start` on this node do that now, and end \
                     the instances that it holds"
            .to_owned();
        self.tell(ProcessEvent::LaunchFailed { run, error }).await;
    }

    /// A request that can never be sent: only a plan can be too long.
    async fn refuse(&mut self, request: Option<Request>, error: &io::Error) {
        if let Some(Request::Launch { plan }) = request {
            self.launches.remove(&plan.run);
            let error = format!("cannot hand the launch plan to the keeper: {error}");
            self.tell(ProcessEvent::LaunchFailed { run: plan.run, error }).await;
        }
    }

    async fn tell(&self, event: ProcessEvent) {
        // A node that is stopping does not listen any more, but may still wait for its instances to end.
        let _ = self.inputs.send(Input::Process(event)).await;
    }

    /// Hands an event on.
    async fn report(&mut self, event: Event) {
        let event = match event {
            Event::Launched { run, pid, at, enforced } => {
                self.launches.remove(&run);
                self.held.insert(run);
                ProcessEvent::Launched { run, pid, at, enforced }
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
            Event::Welcome { .. } | Event::Refused { .. } | Event::Holding { .. } => return,
        };
        self.tell(event).await;
    }

    /// Connects to the same keeper again. None when it is gone, and all that it held has ended.
    async fn reconnect(&mut self) -> Result<Option<Connected>, NotNeeded> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.place.connect().await {
                Ok(Some(connected)) => return Ok(Some(connected)),
                Ok(None) => match self.place.sweep().await {
                    Ok(swept) => {
                        if self.leaving.is_none() {
                            tracing::error!(swept, "the keeper is gone, and its instances with it");
                        }
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
    async fn catch_up(&mut self, kept: Vec<Kept>) {
        let known: BTreeSet<RunId> = kept.iter().map(|kept| kept.plan.run).collect();
        self.kills.retain(|run| known.contains(run) || self.launches.contains_key(run));
        for Kept { plan, pid, started_at, ended, enforced } in kept {
            let run = plan.run;
            if self.launches.remove(&run).is_some() {
                self.tell(ProcessEvent::Launched { run, pid, at: started_at, enforced }).await;
            }
            if let Some(ended) = ended {
                // Told before, perhaps; but then the acknowledgement was lost, and is sent again for this.
                self.kills.remove(&run);
                self.tell(ProcessEvent::Exited { run, ended }).await;
            }
        }
        let launches = self.launches.values().map(|plan| Request::Launch { plan: plan.clone() });
        let kills = self.kills.iter().map(|run| Request::Kill { run: *run });
        let leaving = self.leaving.iter().map(|leaving| self.shutdown(leaving.grace_max));
        let again: VecDeque<Ask> = launches.chain(kills).chain(leaving).map(Ask::Request).collect();
        let later = std::mem::replace(&mut self.waiting, again);
        self.waiting.extend(later);
    }

    /// Tells that the keeper is gone. Whatever was asked of it cannot come true any more, and each launch gets its answer.
    async fn tell_lost(&mut self) {
        self.number.send_replace(None);
        while let Ok(ask) = self.queue.try_recv() {
            self.waiting.push_back(ask);
        }
        self.kills.clear();
        for ask in std::mem::take(&mut self.waiting) {
            // What has no answer to get comes to nothing.
            let _ = self.note(ask);
        }
        let nameless = std::mem::take(&mut self.nameless).into_keys();
        for run in std::mem::take(&mut self.launches).into_keys().chain(nameless) {
            let error = "the keeper ended before it could start it".to_owned();
            self.tell(ProcessEvent::LaunchFailed { run, error }).await;
        }
        self.kills.clear();
        self.tell(ProcessEvent::KeeperLost).await;
    }

    /// Starts a new keeper, however long it takes; none when the keeper was told to end.
    async fn start_anew(&mut self) -> Result<Option<Connected>, NotNeeded> {
        let mut pause = RETRY_FIRST;
        while self.leaving.is_none() {
            match self.place.connect_or_start().await {
                Ok(connected) => return Ok(Some(connected)),
                Err(error) => tracing::error!(%error, "cannot start a keeper"),
            }
            self.pause(&mut pause).await?;
        }
        Ok(None)
    }

    /// Waits for a while, the next time for longer; ends early on a shutdown. What is asked for meanwhile waits.
    async fn pause(&mut self, pause: &mut Duration) -> Result<(), NotNeeded> {
        let until = Instant::now() + *pause;
        *pause = (*pause * 2).min(RETRY_LONGEST);
        while let Ok(ask) = timeout_at(until, self.queue.recv()).await {
            match ask.ok_or(NotNeeded)? {
                shutdown @ Ask::Shutdown { .. } => {
                    let _ = self.note(shutdown);
                    return Ok(());
                }
                ask @ Ask::Request(_) => self.waiting.push_back(ask),
            }
        }
        Ok(())
    }

    /// The keeper is gone, as was asked for.
    fn let_go(&mut self) {
        for waiter in self.leaving.take().into_iter().flat_map(|leaving| leaving.waiters) {
            // Whoever waited may have given up.
            let _ = waiter.send(());
        }
    }
}
