//! A few nodes in one process, on a network and disks of the test's own, in simulated time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::crdt::document::RevisionId;
use crate::database;
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::command::{Claim, Command, Decide, JobKey, LeaseKey, Reply, SessionId};
use crate::ledger::office::{Wanted, Wants};
use crate::ledger::question::{Answer, Question, Standing};
use crate::ledger::raft::gate::Gate;
use crate::ledger::raft::runtime::scope;
use crate::ledger::raft::store::faulty::Disk;
use crate::ledger::raft::store::recover::recover_in;
use crate::ledger::raft::store::{Store, Writing};
use crate::ledger::raft::{Ledger, Running, Settings, Stopped};
use crate::ledger::run::{OnNodeLoss, Overlap, Trigger};
use crate::ledger::time::Slot;
use crate::ledger::trial::fabric::Fabric;
use crate::ledger::voters::Candidate;
use crate::time::{Mono, Now, Wall};

/// The calendar's time at the beginning of every test.
const EPOCH: Wall = Wall(1_700_000_000_000);

/// How often members are told how others fare.
const NEWS_EVERY: Duration = Duration::from_millis(500);

pub(super) fn node(number: usize) -> NodeKey {
    NodeKey([u8::try_from(number + 1).unwrap(); 32])
}

pub(super) fn job(number: usize) -> JobKey {
    JobKey { name: ServiceName::new(&format!("job-{number}")).unwrap(), node: None }
}

/// A host: its disk outlives its process.
struct Host {
    disk: Disk,
    process: Option<Process>,
    down_since: Option<Instant>,
    /// It is no member any more.
    is_removed: bool,
    /// How far its clock is ahead.
    ahead: Duration,
    starts: u64,
}

struct Process {
    ledger: Ledger,
    running: Running,
    writing: Writing,
}

/// All of it.
pub(super) struct Town {
    pub(super) fabric: Arc<Fabric>,
    hosts: Vec<Host>,
    seed: u64,
    snapshot_every: u64,
    renewing: BTreeMap<usize, JoinHandle<()>>,
    news: Instant,
}

impl Town {
    /// So many nodes, the first of which has founded the ledger. Nobody has been told of members yet.
    pub(super) async fn new(nodes: usize, seed: u64) -> Self {
        Self::with_snapshots(nodes, seed, 4_096).await
    }

    pub(super) async fn with_snapshots(nodes: usize, seed: u64, snapshot_every: u64) -> Self {
        let fabric = Fabric::new(seed);
        let host = |number| Host {
            disk: Disk::new(seed + number),
            process: None,
            down_since: None,
            is_removed: false,
            ahead: Duration::ZERO,
            starts: 0,
        };
        let hosts = (0..nodes as u64).map(host).collect();
        let (renewing, news) = (BTreeMap::new(), Instant::now());
        let mut town = Self { fabric, hosts, seed, snapshot_every, renewing, news };
        for number in 0..nodes {
            town.start(number).await;
        }
        town.ledger(0).found().await.unwrap();
        town.spread_news();
        town
    }

    pub(super) fn ledger(&self, number: usize) -> &Ledger {
        &self.hosts[number].process.as_ref().expect("it runs").ledger
    }

    /// Starts a host's process, with what is on its disk.
    pub(super) async fn start(&mut self, number: usize) {
        let (fabric, seed, snapshot_every) = (self.fabric.clone(), self.seed, self.snapshot_every);
        let host = &mut self.hosts[number];
        host.disk.restart(None);
        host.starts += 1;
        host.down_since = None;
        let store = Store::open_on(host.disk.clone(), Path::new("ledger.redb")).unwrap();
        let mut pace = StdRng::seed_from_u64(seed ^ (number as u64) << 8 ^ host.starts);
        let (log, machines, writing) =
            store.run_in_task(Box::new(move || Duration::from_micros(pace.random_range(100..2_000))));
        let own = node(number);
        let settings = Settings {
            snapshot_every,
            entries_kept: snapshot_every / 4,
            ..Settings::new(own, seed.wrapping_mul(31).wrapping_add(number as u64 * 7 + host.starts))
        };
        let (began, ahead) = (fabric.began, host.ahead);
        let clock = Arc::new(move || {
            let mono = u64::try_from(began.elapsed().as_millis()).unwrap();
            Now { mono: Mono(mono), wall: EPOCH.plus(ahead + began.elapsed()) }
        });
        let wire = fabric.port(own);
        let (ledger, running) = Ledger::start(settings, (log, machines), wire, clock).await.unwrap();
        fabric.open(own, ledger.clone(), Gate::default());
        host.process = Some(Process { ledger, running, writing });
        self.spread_news();
    }

    /// A host whose process is stopped makes a new group out of what it has.
    pub(super) fn recover(&mut self, number: usize) {
        let now = EPOCH.plus(self.fabric.began.elapsed());
        let disk = &self.hosts[number].disk;
        disk.restart(None);
        let name = Path::new("ledger.redb");
        let database = database::open_on(disk.clone(), name).unwrap();
        recover_in(&database, name, node(number), now).unwrap();
    }

    /// The power of a host goes.
    pub(super) async fn crash(&mut self, number: usize) {
        self.fabric.close(node(number));
        self.stop_renewing(number);
        let host = &mut self.hosts[number];
        let Process { ledger, running, writing } = host.process.take().expect("it runs");
        host.disk.cut();
        host.down_since = Some(Instant::now());
        drop((ledger, writing));
        running.stop().await;
        self.spread_news();
    }

    /// A process ends as it should.
    pub(super) async fn stop(&mut self, number: usize) {
        self.fabric.close(node(number));
        self.stop_renewing(number);
        let host = &mut self.hosts[number];
        let Process { ledger, running, writing } = host.process.take().expect("it runs");
        host.down_since = Some(Instant::now());
        running.stop().await;
        drop(ledger);
        writing.ended().await;
    }

    /// A host is no member any more.
    pub(super) fn remove(&mut self, number: usize) {
        self.hosts[number].is_removed = true;
        self.spread_news();
    }

    /// A host's disk fails while its process runs; gives back how the ledger ended.
    pub(super) async fn fail_disk(&mut self, number: usize) -> Result<(), Stopped> {
        let host = &mut self.hosts[number];
        host.disk.cut();
        let process = host.process.as_mut().expect("it runs");
        let open = Command::Open { node: node(number), life: 99 };
        let answer = process.ledger.ask(Question::Propose(open)).await;
        assert!(matches!(answer, Answer::Unknown | Answer::NotLeader { .. }), "{answer:?}");
        process.running.ended().await
    }

    /// Nothing goes between these and the others any more.
    pub(super) fn cut_off(&self, alone: &[usize]) {
        let is_alone = |number: &usize| alone.contains(number);
        let mut state = self.fabric.lock();
        for one in 0..self.hosts.len() {
            for other in (0..self.hosts.len()).filter(|other| is_alone(&one) != is_alone(other)) {
                state.cut.insert((node(one), node(other)));
            }
        }
    }

    /// Everything goes again.
    pub(super) fn heal(&self) {
        self.fabric.lock().cut.clear();
    }

    /// Tells every node who is a member and how they fare.
    pub(super) fn spread_news(&mut self) {
        self.news = Instant::now();
        let candidate = |(number, host): (usize, &Host)| Candidate {
            node: node(number),
            down_for: host.down_since.map(|since| since.elapsed()),
            can_vote: true,
        };
        let members = self.hosts.iter().enumerate().filter(|(_, host)| !host.is_removed);
        let members: Arc<[Candidate]> = members.map(candidate).collect();
        for ledger in self.fabric.ledgers() {
            ledger.members(members.clone());
        }
    }

    /// Lets time pass.
    pub(super) async fn pass(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.wait_a_little().await;
        }
    }

    async fn wait_a_little(&mut self) {
        if self.news.elapsed() >= NEWS_EVERY {
            self.spread_news();
        }
        sleep(Duration::from_millis(10)).await;
    }

    /// Waits until something holds, and says how long that took.
    pub(super) async fn until(&mut self, what: &str, within: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !holds(self) {
            let standings: Vec<Standing> = self.running().map(|number| self.standing(number)).collect();
            assert!(began.elapsed() < within, "not within {within:?}: {what}; {standings:#?}");
            self.wait_a_little().await;
        }
        began.elapsed()
    }

    pub(super) fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|number| self.hosts[*number].process.is_some())
    }

    pub(super) fn standing(&self, number: usize) -> Standing {
        self.ledger(number).standing().borrow().clone()
    }

    /// The node that leads by its own word, and by that of every one of `among`.
    pub(super) fn leader_of(&self, among: &[usize]) -> Option<usize> {
        let leader = self.standing(among[0]).leader?;
        let all_agree = among.iter().all(|number| self.standing(*number).leader == Some(leader));
        among.iter().copied().find(|number| all_agree && node(*number) == leader)
    }

    /// Waits until so many vote, all know it and one leads.
    pub(super) async fn until_voters(&mut self, voters: usize) -> usize {
        let agreed = |town: &Self| {
            let running: Vec<usize> = town.running().collect();
            let standing = town.standing(running[0]);
            let in_group: Vec<usize> =
                running.into_iter().filter(|number| standing.voters.contains(&node(*number))).collect();
            let counts = |number: &usize| town.standing(*number).voters.len() == voters;
            let is_settled = in_group.iter().all(counts) && standing.learners.is_empty() && !in_group.is_empty();
            if is_settled { town.leader_of(&in_group) } else { None }
        };
        self.until(&format!("{voters} voters"), Duration::from_secs(30), |town| agreed(town).is_some()).await;
        agreed(self).unwrap()
    }

    /// Opens a session and keeps it alive from now on.
    pub(super) async fn open(&mut self, number: usize) -> SessionId {
        let (ledger, life) = (self.ledger(number).clone(), self.hosts[number].starts);
        let command = Command::Open { node: node(number), life };
        let session = match ledger.ask(Question::Propose(command)).await {
            Answer::Applied { reply: Reply::Opened(session), .. } => session,
            other => panic!("node {number} gets no session: {other:?}"),
        };
        self.renew_from_now(number, session);
        session
    }

    /// A session for every node: without a majority of the voters no clock is known to be right, and no lease is given.
    pub(super) async fn open_all(&mut self) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for number in 0..self.hosts.len() {
            sessions.push(self.open(number).await);
        }
        sessions
    }

    /// Keeps a session alive from now on.
    pub(super) fn renew_from_now(&mut self, number: usize, session: SessionId) {
        let ledger = self.ledger(number).clone();
        let (began, ahead) = (self.fabric.began, self.hosts[number].ahead);
        let renewing = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(500)).await;
                let wall = EPOCH.plus(ahead + began.elapsed());
                ledger.ask_within(Question::Renew { session, known: 0, wall }, Duration::from_millis(450)).await;
            }
        });
        self.stop_renewing(number);
        self.renewing.insert(number, renewing);
    }

    pub(super) fn stop_renewing(&mut self, number: usize) {
        if let Some(renewing) = self.renewing.remove(&number) {
            renewing.abort();
        }
    }

    /// Wants these jobs' leases to be held by the nodes in this order, whatever the job.
    pub(super) fn want(&self, version: u64, jobs: std::ops::Range<usize>, order: impl Fn(usize) -> Vec<usize>) {
        let lease = |number: usize| {
            let nodes = order(number).into_iter().map(node).collect();
            (LeaseKey::Cron(job(number)), Wanted { nodes, begin: Slot::at(EPOCH) })
        };
        let wants = Arc::new(Wants { version, leases: jobs.map(lease).collect() });
        for ledger in self.fabric.ledgers() {
            ledger.wants(wants.clone());
        }
    }

    /// Who holds a job's lease, as a node has it applied.
    pub(super) fn holder(&self, number: usize, of: usize) -> Option<NodeKey> {
        self.ledger(number).shared.machines.applied().machine.account(&job(of))?.holder
    }

    /// Whether two nodes' machines are the same.
    pub(super) fn is_same(&self, one: usize, other: usize) -> bool {
        let mine = self.ledger(one).shared.machines.applied().machine.clone();
        mine == self.ledger(other).shared.machines.applied().machine
    }

    /// What has been sent so far, in one number, and how many messages that were.
    pub(super) fn trace(&self) -> (String, u64) {
        self.fabric.trace()
    }

    /// The operations of a host's disk so far.
    pub(super) fn disk_operations(&self, number: usize) -> u64 {
        self.hosts[number].disk.operations()
    }

    /// The last entry in a node's snapshot.
    pub(super) fn snapshot(&self, number: usize) -> Option<u64> {
        let metrics = self.ledger(number).shared.raft.metrics();
        metrics.borrow_watched().snapshot.map(|last| last.index)
    }

    /// Whose session that is, as a node has it applied.
    pub(super) fn session(&self, number: usize, session: SessionId) -> Option<NodeKey> {
        self.ledger(number).shared.machines.applied().machine.session(session)
    }

    /// The last entry that a node has applied, also while it is starting.
    pub(super) fn applied(&self, number: usize) -> u64 {
        self.ledger(number).shared.machines.applied().last.map_or(0, |last| last.index)
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for renewing in self.renewing.values() {
            renewing.abort();
        }
        self.fabric.close_all();
    }
}

/// The slot of a job that comes so many seconds after the first.
pub(super) fn slot(number: u64) -> Slot {
    Slot(EPOCH.0 / 1_000 + number)
}

/// A claim of a slot by a holder that knows the one before.
pub(super) fn claim(of: usize, session: SessionId, number: u64, by: u8) -> Question {
    let mut run = [by; 16];
    run[..8].copy_from_slice(&number.to_be_bytes());
    let claim = Claim {
        run: RunId(run),
        trigger: Trigger::Slot(slot(number)),
        scheduled: slot(number).wall(),
        revision: RevisionId { number: 1, hash: [1; 4] },
        overlap: Overlap::Allow,
        attempts_max: 1,
        on_node_loss: OnNodeLoss::Fail,
        history_limit: 20,
    };
    Question::Propose(Command::Decide(Decide {
        job: job(of),
        session,
        cursor: slot(number - 1),
        gaps: Vec::new(),
        claim: Some(claim),
        upto: slot(number),
    }))
}

/// Runs a test in a scope of random numbers of its own, as openraft wants it.
pub(super) async fn seeded<T>(seed: u64, test: impl Future<Output = T>) -> T {
    scope(seed, test).await
}
