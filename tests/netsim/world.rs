//! N whole nodes in one thread of virtual time.
//!
//! Every node is the binary's engine in the binary's loop, on simulated shells. The only clock and the only queue of events is
//! tokio's paused runtime; the only chance is the seed's. [`World`] is what scenarios steer by: it starts, ends and pauses
//! nodes, waits, and looks after the invariants at each step.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use narun::crdt::admission::{ADMISSION_DOMAIN, Admission, Founding, Role, Signed, Welcome};
use narun::node::engine::effect::{Peer, Refusal, Response};
use narun::node::engine::input::{Admit, Request};
use narun::node::engine::view::{NodeView, View};
use narun::node::handle::NodeHandle;

use crate::blobs::Shelves;
use crate::calm::Calm;
use crate::host::{Host, Shared, key_of};
use crate::invariants;
use crate::journal::Journal;
use crate::life::{End, Fuse};
use crate::network::{Death, Fabric, Mode, Weather};
use crate::random;
use crate::signatures::SimSignatures;
use crate::stamps::Stamps;
use crate::trace::Trace;

/// How often the world looks after its nodes and its invariants.
const STEP: Duration = Duration::from_millis(50);

/// Longest wait for an answer: a node that is stalled or whose disk is slow answers late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Which world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Where all chance comes from.
    pub(crate) seed: u64,
    /// How many hosts.
    pub(crate) hosts: usize,
    /// What becomes of messages.
    pub(crate) mode: Mode,
    /// How far the wall clocks may be off, in minutes.
    pub(crate) skew_minutes: i64,
    /// Whether the nodes have a ledger: where there are cron specs.
    pub(crate) has_ledger: bool,
}

/// A world.
pub(crate) struct World {
    /// Its hosts.
    pub(crate) hosts: Vec<Host>,
    /// Its network.
    pub(crate) fabric: Fabric,
    /// What happened.
    pub(crate) trace: Trace,
    /// What was asked for, and answered.
    pub(crate) journal: Journal,
    /// What attempts of runs left behind.
    pub(crate) stamps: Stamps,
    /// Which world it is.
    pub(crate) plan: Plan,
    /// When the ledger had to work.
    pub(crate) calm: Calm,
    /// The members that each host showed when they were looked at last.
    pub(crate) looked_at: BTreeMap<usize, Arc<Vec<Arc<NodeView>>>>,
}

/// Runs `body` in a world of its own, on a thread of virtual time. A failure prints what happened last and `replay`, the
/// command that makes it happen again. Gives back the hash of the trace.
pub(crate) fn simulate<F: Future<Output = ()>>(
    plan: Plan,
    replay: &str,
    body: impl FnOnce(World) -> F,
) -> (blake3::Hash, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing of the system");
    let kept: Arc<Mutex<Option<Trace>>> = Arc::default();
    let run = || {
        runtime.block_on(async {
            let world = World::new(plan);
            *kept.lock().expect("nobody panics with it") = Some(world.trace.clone());
            body(world).await;
        });
    };
    let result = catch_unwind(AssertUnwindSafe(run));
    let trace = kept.lock().expect("nobody panics with it").take().expect("a world begins with its trace");
    if let Err(panic) = result {
        eprintln!("{}\n{plan:?}\n\nto see it again:\n    {replay}\n", trace.tail());
        resume_unwind(panic);
    }
    trace.digest()
}

impl World {
    fn new(plan: Plan) -> Self {
        let trace = Trace::new();
        let names: Vec<String> = (0..plan.hosts).map(|n| format!("n{n}")).collect();
        let ends = names.iter().map(|name| (key_of(name), name.clone())).collect();
        let fabric = Fabric::new(ends, plan.mode, random::stream(plan.seed, "network"), trace.clone());
        let shelves = Shelves::default();
        let stamps = Stamps::new(trace.clone());
        let shared = Shared {
            seed: plan.seed,
            has_ledger: plan.has_ledger,
            fabric: fabric.clone(),
            shelves,
            stamps: stamps.clone(),
            trace: trace.clone(),
        };
        let mut skews = random::stream(plan.seed, "skews");
        let mut host = |name: &String| {
            let skew_ms = skews.random_range(-plan.skew_minutes * 60_000..=plan.skew_minutes * 60_000);
            Host::new(name, skew_ms, &shared)
        };
        let hosts = names.iter().map(&mut host).collect();
        let (journal, calm) = (Journal::new(trace.clone()), Calm::default());
        Self { hosts, journal, stamps, fabric, trace, plan, calm, looked_at: BTreeMap::new() }
    }

    /// The first host founds a cluster, and the next ones join it until it has `members`, each at the one before it.
    pub(crate) async fn found(&mut self, members: usize) {
        let founder = &self.hosts[0];
        let (key, at) = (founder.key, founder.clock.wall());
        founder.belong(&Founding { founder: key, name: founder.name.clone(), at, nonce: [7; 16] }, None);
        self.journal.admit(key);
        self.start(0).await;
        for joiner in 1..members {
            self.join(joiner, joiner - 1).await;
        }
    }

    /// All hosts belong to one cluster from the start, each with all admissions on its disk, and are started at once: a cluster
    /// after a power cut. It stands sooner than one that is founded node by node.
    pub(crate) async fn assemble(&mut self) {
        let (founder, at) = (&self.hosts[0], self.hosts[0].clock.wall());
        let founding = Founding { founder: founder.key, name: founder.name.clone(), at, nonce: [7; 16] };
        let by = SimSignatures(founder.key);
        let admission = |host: &Host| {
            let admission = Admission {
                cluster: founding.cluster(),
                key: host.key,
                name: host.name.clone(),
                by: founding.founder,
                ticket: String::new(),
                at,
                addresses: host.addresses(),
                role: Role::MEMBER,
            };
            Signed::new(&by, ADMISSION_DOMAIN, &admission)
        };
        let admissions: Vec<Signed> = self.hosts[1..].iter().map(admission).collect();
        let members: Vec<Peer> =
            self.hosts.iter().map(|host| Peer { key: host.key, addresses: host.addresses() }).collect();
        for host in &self.hosts {
            self.journal.admit(host.key);
            let (name, admissions, members) = (host.name.clone(), admissions.clone(), members.clone());
            host.belong(
                &founding,
                Some(&Welcome { founding: founding.clone(), name, admissions, members, removals: Vec::new() }),
            );
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].start().await;
        }
    }

    /// `joiner` becomes a member by a ticket of `member`, and is started.
    pub(crate) async fn join(&mut self, joiner: usize, member: usize) {
        let secret = *blake3::hash(&joiner.to_be_bytes()).as_bytes();
        let ttl = Duration::from_secs(600);
        let ticket = self.ask(member, Request::CreateTicket { ttl, uses: 1, role: Role::MEMBER, secret }).await;
        assert!(matches!(ticket, Some(Ok(Response::Ticket(_)))), "no ticket: {ticket:?}");
        let Host { key, name, .. } = &self.hosts[joiner];
        self.journal.admit(*key);
        let admit = Admit { key: *key, name: name.clone(), addresses: self.hosts[joiner].addresses(), secret };
        match self.ask(member, Request::Admit(admit)).await {
            Some(Ok(Response::Admitted(welcome))) => {
                self.hosts[joiner].belong(&welcome.founding, Some(&welcome));
            }
            other => panic!("{} was not admitted: {other:?}", self.hosts[joiner].name),
        }
        self.start(joiner).await;
    }

    /// Starts the node of a host, and looks at what it still knows before anything can have reached it.
    pub(crate) async fn start(&mut self, host: usize) {
        self.hosts[host].start().await;
        // Less than the shortest way of a message.
        tokio::time::sleep(Duration::from_millis(1)).await;
        invariants::acknowledged::after_a_restart(self, host);
    }

    /// Ends the node's process alone: its instances stay.
    pub(crate) async fn crash(&mut self, host: usize) {
        self.hosts[host].end(Death::Process).await;
    }

    /// Ends the host, with everything on it but its disk.
    pub(crate) async fn kill(&mut self, host: usize) {
        self.hosts[host].end(Death::Host).await;
    }

    /// Pauses the node's process, or lets it go on.
    pub(crate) fn stall(&self, host: usize, stalled: bool) {
        if let Some(running) = &self.hosts[host].running {
            self.trace.record(self.hosts[host].name.as_str(), if stalled { "stall" } else { "go on" }, &[]);
            running.life.stall(stalled);
            self.fabric.pause(self.hosts[host].key, stalled);
        }
    }

    /// Makes the node alter what others say of themselves before it passes it on, or lets it be honest again.
    pub(crate) fn forge(&self, host: usize, forges: bool) {
        if let Some(running) = &self.hosts[host].running {
            self.trace.record(self.hosts[host].name.as_str(), if forges { "lies" } else { "is honest" }, &[]);
            running.life.set_forges(forges);
        }
    }

    /// Sends a message as if the node on `from` had made it.
    pub(crate) fn send_as(&self, from: usize, to: usize, bytes: Vec<u8>) {
        self.fabric.send(self.hosts[from].key, self.hosts[to].key, bytes);
    }

    /// Makes the node's process end at a chosen point.
    pub(crate) fn light(&self, host: usize, fuse: Fuse) {
        if let Some(running) = &self.hosts[host].running {
            self.trace.record(self.hosts[host].name.as_str(), &format!("{fuse:?}"), &[]);
            running.life.light(fuse);
        }
    }

    /// Whether the node's process runs.
    pub(crate) fn runs(&self, host: usize) -> bool {
        self.hosts[host].running.is_some()
    }

    /// Whether the node of a host is a member, by what users asked for.
    pub(crate) fn is_member(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        host.belongs() && !self.journal.removed().contains(&host.key)
    }

    /// The hosts whose nodes run.
    pub(crate) fn up(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.runs(*host)).collect()
    }

    /// The door to a node.
    pub(crate) fn handle(&self, host: usize) -> NodeHandle {
        self.hosts[host].running.as_ref().expect("only a node that runs has a door").handle.clone()
    }

    /// What a node shows.
    pub(crate) fn view(&self, host: usize) -> Arc<View> {
        self.handle(host).view()
    }

    /// Asks a node and lets the world go on until it has answered; none if it ended or took too long.
    pub(crate) async fn ask(&mut self, host: usize, request: Request) -> Option<Result<Response, Refusal>> {
        let handle = self.handle(host);
        let answer = tokio::spawn(async move {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, handle.request(request)).await;
            answer.ok()
        });
        self.answer(answer).await
    }

    /// Lets the world go on until somebody has heard the answer.
    pub(crate) async fn answer<T>(&mut self, answer: JoinHandle<T>) -> T {
        while !answer.is_finished() {
            self.step(Duration::from_millis(5)).await;
        }
        answer.await.expect("asking does not panic")
    }

    /// Lets the world go on for `span`.
    pub(crate) async fn run_for(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            let left = end - Instant::now();
            self.step(left.min(STEP)).await;
        }
    }

    /// Lets the world go on until `holds`; fails with `what` and its last complaint when that takes longer than `limit`.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        mut holds: impl FnMut(&World) -> Result<(), String>,
    ) {
        let end = Instant::now() + limit;
        loop {
            let Err(complaint) = holds(self) else { return };
            assert!(Instant::now() < end, "after {limit:?} not yet so: {what}: {complaint}");
            self.step(STEP).await;
        }
    }

    /// All links whole, all disks and stores good, nobody paused, and every node runs but those of `dead` hosts.
    pub(crate) async fn heal(&mut self, dead: &[usize]) {
        self.fabric.heal_all();
        self.fabric.set_weather(Weather::FAIR);
        for host in 0..self.hosts.len() {
            self.hosts[host].platter().repair();
            if let Some(disk) = &self.hosts[host].ledger_disk {
                disk.repair();
            }
            self.hosts[host].shelf.set_corrupts(false);
            self.stall(host, false);
            self.forge(host, false);
            if let Some(running) = &self.hosts[host].running {
                running.life.extinguish();
            }
            if !self.runs(host) && !dead.contains(&host) && self.hosts[host].belongs() {
                self.start(host).await;
            }
        }
    }

    /// Lets time go by while no node runs: days, at no cost.
    pub(crate) async fn pass(&mut self, span: Duration) {
        assert!(self.up().is_empty(), "time goes by only where nobody lives in it");
        self.step(span).await;
    }

    async fn step(&mut self, span: Duration) {
        tokio::time::sleep(span).await;
        for host in &mut self.hosts {
            match host.ended().await {
                None | Some(End::Crashed | End::Returned(Err(_) | Ok(Some(_)))) => {}
                Some(End::Returned(Ok(None))) => {
                    panic!("the loop of {} returned although nobody stopped it", host.name)
                }
            }
        }
        invariants::all_along(self);
        let violations = self.trace.violations();
        assert!(violations.is_empty(), "violated:\n{}", violations.join("\n"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.fabric.clear();
    }
}
