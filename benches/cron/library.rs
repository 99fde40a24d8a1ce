//! Those figures of cron that only the library can be asked for, one JSON object a line. `benches/cron.sh` runs it.
//!
//! `library claims COUNT FOLDER`: three processes, each with a node's transport, a ledger and a database of its own below the folder. Each in
//! turn holds a lease and claims slots, one after the other: that takes from the question to the answer, when a majority has the claim
//! on its disks and it was applied.
//!
//! `library schedules COUNT`: reads so many schedules and finds the next slot of each, as a node does for the specs it knows.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use narun::crdt::document::RevisionId;
use narun::gossip::transport::{Transport, TransportConfig};
use narun::ids::{NodeKey, RunId, ServiceName};
use narun::ledger::command::{self, Claim, Decide, JobKey, LeaseKey, Reply, SessionId};
use narun::ledger::office::{Wanted, Wants};
use narun::ledger::question::{Answer, Question};
use narun::ledger::raft::store::Store;
use narun::ledger::raft::streams::{Streams, serve};
use narun::ledger::raft::{Ledger, Settings};
use narun::ledger::run::{OnNodeLoss, Overlap, RunEnd, RunStatus, Trigger};
use narun::ledger::time::Slot;
use narun::ledger::voters::Candidate;
use narun::node::engine::effect::Peer;
use narun::node::identity::Identity;
use narun::spec::schedule::{Schedule, Zone};
use narun::time::{Mono, Now, Wall};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader as AsyncReader, Lines, Stdin};
use tokio::sync::mpsc;

type Failure = Box<dyn Error + Send + Sync>;

/// How many nodes agree, as in the smallest cluster that survives a death.
const NODES: usize = 3;

/// Longest wait for anything that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often such a thing is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often a session is renewed, as by a node.
const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The slot that counts as decided before the first claim. All of them are long past, so that none is ever early.
const FIRST: u64 = 1_000_000;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["claims", count, folder] => claims(count.parse()?, Path::new(folder)),
        ["schedules", count] => schedules(count.parse()?),
        // Started by `claims`.
        ["node", folder] => tokio::runtime::Runtime::new()?.block_on(node(Path::new(folder))),
        _ => Err("library claims COUNT FOLDER | library schedules COUNT".into()),
    }
}

// ---- Schedules -------------------------------------------------------------------------------------------------------

fn schedules(count: u64) -> Result<(), Failure> {
    let zones = [Zone::UTC, Zone::parse("Europe/Berlin")?, Zone::parse("America/New_York")?];
    // Of every kind that people write; no two alike.
    let written: Vec<(String, Zone, String)> = (0..count)
        .map(|n| {
            let (minute, hour, zone) = (n % 60, n / 60 % 24, zones[usize::try_from(n / 7 % 3).unwrap_or(0)]);
            let expression = match n % 5 {
                0 => format!("{minute} {hour} * * *"),
                1 => format!("{minute} {hour} * * MON-FRI"),
                2 => format!("*/{} {hour} * * *", n % 29 + 2),
                3 => format!("H {hour} L * *"),
                _ => format!("@every {}s", n % 3_600 + 1),
            };
            (expression, zone, format!("spec-{n}"))
        })
        .collect();
    let now = wall();
    let began = Instant::now();
    let mut due = 0_u64;
    let mut loaded = Vec::with_capacity(written.len());
    for (expression, zone, name) in &written {
        let schedule = Schedule::parse(expression, *zone, name)?;
        due += u64::from(schedule.next_after(now).is_some());
        loaded.push(schedule);
    }
    let took = began.elapsed();
    if due != count {
        return Err(format!("{} of {count} schedules are never due", count - due).into());
    }
    println!("{}", json!({"what": "schedules loaded", "count": loaded.len(), "seconds": took.as_secs_f64()}));
    Ok(())
}

fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

// ---- Claims: who starts the nodes ------------------------------------------------------------------------------------

/// A process of this program that is a node.
struct Member {
    child: Child,
    says: BufReader<ChildStdout>,
    hears: ChildStdin,
    peer: String,
}

impl Member {
    fn start(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("node").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (hears, says) = (child.stdin.take(), child.stdout.take());
        let (Some(hears), Some(says)) = (hears, says) else { return Err("a child without pipes".into()) };
        let mut member = Self { child, says: BufReader::new(says), hears, peer: String::new() };
        member.peer = member.hear()?;
        Ok(member)
    }

    fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.says.read_line(&mut line)? {
            0 => Err("a node has ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn bid(&mut self, words: &str) -> Result<String, Failure> {
        writeln!(self.hears, "{words}")?;
        self.hear()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn claims(count: usize, folder: &Path) -> Result<(), Failure> {
    let mut members = Vec::new();
    for number in 0..NODES {
        members.push(Member::start(&folder.join(format!("n{number}")))?);
    }
    let peers: Vec<String> = members.iter().map(|member| member.peer.clone()).collect();
    let peers = peers.join(" ");
    for member in &mut members {
        member.bid(&format!("members {peers}"))?;
    }
    members[0].bid("found")?;
    // All at once: nobody gets a lease before the voters' clocks are known.
    for member in &mut members {
        writeln!(member.hears, "open")?;
    }
    for member in &mut members {
        member.hear()?;
    }
    let mut figures: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    // The first ones are not counted: connections are made and pages touched.
    for round in 0..11 {
        for member in &mut members {
            let told = member.bid(&format!("claim {}", count.div_ceil(10 * NODES)))?;
            let (role, list) = told.split_once(' ').ok_or("a node claimed nothing")?;
            let role = if role == "leads" { "the leader's own" } else { "another voter's" };
            let list: Result<Vec<u64>, _> = list.split(' ').map(str::parse).collect();
            if round > 0 {
                figures.entry(role).or_default().extend(list?);
            }
        }
    }
    let all = figures.values().flatten().copied().collect();
    figures.insert("anybody's", all);
    for (by, mut list) in figures {
        list.sort_unstable();
        let share = |percent: usize| list[(list.len() * percent / 100).min(list.len() - 1)] as f64 / 1_000.0;
        let told = json!({
            "what": "claim through three nodes", "by": by, "p50_ms": share(50), "p99_ms": share(99), "count": list.len(),
        });
        println!("{told}");
    }
    Ok(())
}

// ---- Claims: a node --------------------------------------------------------------------------------------------------

async fn node(folder: &Path) -> Result<(), Failure> {
    let (sender, mut inputs) = mpsc::channel(1_024);
    let identity = Identity::generate();
    let own = identity.key();
    let transport = Transport::start(TransportConfig { identity, listen: "127.0.0.1:0".parse()? }, sender).await?;
    // What the transport reports concerns an engine, and there is none.
    tokio::spawn(async move { while inputs.recv().await.is_some() {} });
    let (log, machines, _thread) = Store::open(&folder.join("ledger.redb"))?.run();
    let wire = Arc::new(Streams::new(transport.clone()));
    let began = Instant::now();
    let clock = Arc::new(move || Now { mono: Mono(0) + began.elapsed(), wall: wall() });
    let seed = u64::from(std::process::id());
    let (ledger, _running) = Ledger::start(Settings::new(own, seed), (log, machines), wire, clock).await?;
    tokio::spawn(serve(transport.clone(), ledger.clone()));
    println!("{own}={}", transport.listen_address());
    let orders = AsyncReader::new(tokio::io::stdin()).lines();
    let seat = Seat { own, transport, ledger, session: None, claimed: FIRST };
    seat.obey(orders).await
}

struct Seat {
    own: NodeKey,
    transport: Transport,
    ledger: Ledger,
    session: Option<SessionId>,
    /// The last slot that it has claimed.
    claimed: u64,
}

impl Seat {
    async fn obey(mut self, mut orders: Lines<AsyncReader<Stdin>>) -> Result<(), Failure> {
        while let Some(order) = orders.next_line().await? {
            let words: Vec<&str> = order.split(' ').collect();
            match words[..] {
                ["members", ref peers @ ..] => {
                    self.members(peers)?;
                    println!("done");
                }
                ["found"] => {
                    self.ledger.found().await?;
                    println!("done");
                }
                ["open"] => {
                    self.open().await?;
                    println!("done");
                }
                ["claim", count] => println!("{}", self.claims(count.parse()?).await?),
                _ => return Err(format!("no order: `{order}`").into()),
            }
        }
        Ok(())
    }

    /// All members, each of which is wanted for the lease of the job that bears its key.
    fn members(&self, written: &[&str]) -> Result<(), Failure> {
        let mut peers = Vec::new();
        for one in written {
            let (key, address) = one.split_once('=').ok_or("a member is KEY=ADDRESS")?;
            peers.push(Peer { key: key.parse()?, addresses: vec![address.to_owned()] });
        }
        let candidate = |peer: &Peer| Candidate { node: peer.key, down_for: None, can_vote: true };
        self.ledger.members(peers.iter().map(candidate).collect());
        let mut leases = BTreeMap::new();
        for peer in &peers {
            let wanted = Wanted { nodes: vec![peer.key], begin: Slot(FIRST) };
            leases.insert(LeaseKey::Cron(job(&peer.key)?), wanted);
        }
        self.ledger.wants(Arc::new(Wants { version: 1, leases }));
        self.transport.set_members(peers);
        Ok(())
    }

    /// Waits until all vote, and this one has a session and its lease; keeps the session from then on.
    async fn open(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut standing = self.ledger.standing();
        let all_vote = standing.wait_for(|standing| standing.voters.len() == NODES && standing.leader.is_some());
        tokio::time::timeout(PATIENCE, all_vote).await??;
        let session = loop {
            match self.propose(command::Command::Open { node: self.own, life: 1 }).await {
                Ok((_, Reply::Opened(session))) => break session,
                answer if Instant::now() > deadline => return Err(format!("no session: {answer:?}").into()),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        self.session = Some(session);
        loop {
            let asked = self.ledger.ask(Question::Renew { session, known: 0, wall: wall() }).await;
            if matches!(&asked, Answer::Renewed(concerns) if concerns.jobs.iter().any(|job| job.is_held)) {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("no lease: {asked:?}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let ledger = self.ledger.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                ledger.ask(Question::Renew { session, known: u64::MAX, wall: wall() }).await;
            }
        });
        Ok(())
    }

    async fn propose(&self, command: command::Command) -> Result<(u64, Reply), Failure> {
        match self.ledger.ask(Question::Propose(command)).await {
            Answer::Applied { index, reply } => Ok((index, reply)),
            other => Err(format!("not applied: {other:?}").into()),
        }
    }

    /// Claims so many slots; gives back in what role, and how many microseconds each took.
    async fn claims(&mut self, count: usize) -> Result<String, Failure> {
        let leads = self.ledger.standing().borrow().leader == Some(self.own);
        let mut told = if leads { "leads".to_owned() } else { "follows".to_owned() };
        for _ in 0..count {
            told.push_str(&format!(" {}", self.claim().await?.as_micros()));
        }
        Ok(told)
    }

    async fn claim(&mut self) -> Result<Duration, Failure> {
        let session = self.session.ok_or("no session is open")?;
        let (job, cursor, slot) = (job(&self.own)?, Slot(self.claimed), Slot(self.claimed + 1));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&slot.0.to_be_bytes());
        id[8..].copy_from_slice(&self.own.0[..8]);
        let run = RunId(id);
        let claim = Claim {
            run,
            trigger: Trigger::Slot(slot),
            scheduled: slot.wall(),
            revision: RevisionId { number: 1, hash: [1; 4] },
            overlap: Overlap::Allow,
            attempts_max: 1,
            on_node_loss: OnNodeLoss::Fail,
            history_limit: 20,
        };
        let decide = Decide { job: job.clone(), session, cursor, gaps: Vec::new(), claim: Some(claim), upto: slot };
        let began = Instant::now();
        let (_, reply) = self.propose(command::Command::Decide(decide)).await?;
        let took = began.elapsed();
        let Reply::Granted(fence) = reply else { return Err(format!("not granted: {reply:?}").into()) };
        self.claimed = slot.0;
        // What a run goes on to say is not measured, and keeps the ledger as small as it is for a node.
        let end = RunEnd { status: RunStatus::Success, at: wall(), code: Some(0), signal: None, error: None };
        self.propose(command::Command::Ended { job, run, fence, end, again: false }).await?;
        Ok(took)
    }
}

fn job(node: &NodeKey) -> Result<JobKey, Failure> {
    Ok(JobKey { name: ServiceName::new(&format!("job-{}", node.short()))?, node: None })
}
