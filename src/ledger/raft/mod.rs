//! The shell of the ledger: openraft over the mesh and redb. Shell.
//!
//! Every node runs it. One that neither votes nor learns holds an empty log, and takes its questions to one that does. Whoever asks
//! goes through [`Ledger`]: a question is answered here, or by the leader, or by a voter that hands it on to the leader.
//!
//! What never happens: a proposal is made twice by one question. Where it may have been made and its fate is not known, the answer is
//! [`Answer::Unknown`], and the asker reads what became of it.
//!
//! Tasks: openraft's own; the desk (`desk`), which ends with [`Running`]; one for each change of the voters (`group`), which ends
//! with the desk. All of them in one scope of random numbers ([`runtime::scope`]).

mod desk;
mod forms;
#[cfg(test)]
pub(in crate::ledger) mod gate;
mod group;
pub mod network;
mod ordered;
pub mod runtime;
mod serve;
mod sound;
pub mod store;
pub mod streams;
pub mod types;
mod ways;
pub mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::ids::NodeKey;
use crate::time::Now;

use super::command::JobKey;
use super::office::Wants;
use super::question::{Account, Answer, Question, Standing};
use super::voters::Candidate;

use desk::{Desk, Outcome, Visit};
use network::{Broken, Channel, Network, Wire};
use runtime::scope;
use serve::Ear;
use store::{Log, Machines};
use types::TypeConfig;
use ways::{Round, Ways};
use wire::{QUESTION_LEN_MAX, Request, Response};

pub(crate) use wire::understands;

/// How long a question goes round before the answer is that nobody leads: longer than an election takes.
pub const ASK_WITHIN: Duration = Duration::from_secs(5);

/// How long a leader waits for a majority to have a command on the disk.
const COMMIT_WITHIN: Duration = Duration::from_secs(2);

/// How long another node may take to answer: it may hand the question on to the leader.
const ANSWER_WITHIN: Duration = Duration::from_millis(2_500);

/// The same for what changes nothing but a session's life, half of which that is: then another node is asked. A leader whose words are lost on one
/// way is heard by others.
const RENEWED_WITHIN: Duration = Duration::from_secs(1);

/// And how long whoever hands such a question on waits for the leader: so short that whoever asked hears that it was in vain, and does not take it
/// for lost on the way.
const HANDED_ON_WITHIN: Duration = Duration::from_millis(500);

/// Pause before a question is put anew.
const PAUSE: Duration = Duration::from_millis(50);

/// How long others are asked for something newer, where what was answered is old: a voter that was replaced while it was away hears of nothing
/// any more, and does not know that.
const NEWER_WITHIN: Duration = Duration::from_secs(1);

/// How many may wait at the desk. It hands proposals on without waiting for them, so that this many are some milliseconds of work.
const VISITS_MAX: usize = 4_096;

/// Both clocks of this host.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// What a node's ledger is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub own: NodeKey,
    /// Where openraft's random numbers come from: another one at each start, or a simulator's.
    pub seed: u64,
    /// See [`types::SNAPSHOT_EVERY`].
    pub snapshot_every: u64,
    /// See [`types::ENTRIES_KEPT`].
    pub entries_kept: u64,
}

impl Settings {
    /// The settings of an ordinary node.
    pub fn new(own: NodeKey, seed: u64) -> Self {
        Self { own, seed, snapshot_every: types::SNAPSHOT_EVERY, entries_kept: types::ENTRIES_KEPT }
    }
}

/// The ledger cannot go on: its disk failed, most likely. The node must not either, since it does not know what it has promised.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the ledger has stopped: {0}")]
pub struct Stopped(pub String);

/// Why there is no new ledger.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the ledger is not founded here: {0}")]
pub struct NotFounded(String);

/// The way to the ledger, for whoever asks on this node. Dropping the last one closes the database.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    own: NodeKey,
    seed: u64,
    clock: Clock,
    raft: Raft<TypeConfig, Machines>,
    machines: Machines,
    ear: Arc<Ear>,
    wire: Arc<dyn Wire>,
    desk: mpsc::Sender<Visit>,
    wants: watch::Sender<Arc<Wants>>,
    members: watch::Sender<Arc<[Candidate]>>,
    standing: watch::Receiver<Standing>,
    ways: Mutex<Ways>,
}

/// What runs. It has to be stopped; dropping it leaves openraft running.
pub struct Running {
    raft: Raft<TypeConfig, Machines>,
    desk: JoinHandle<Result<(), Stopped>>,
    end: CancellationToken,
}

impl Running {
    /// Waits until the ledger ends: because it was stopped, or because it cannot go on. Cancelling the wait loses nothing.
    pub async fn ended(&mut self) -> Result<(), Stopped> {
        (&mut self.desk).await.unwrap_or_else(|error| Err(Stopped(error.to_string())))
    }

    /// Stops it. What was confirmed is on the disk.
    pub async fn stop(self) {
        self.end.cancel();
        // It fails where openraft has panicked, which was reported where it happened.
        let _ = self.raft.shutdown().await;
        // Whoever waited for its end has taken that already.
        if !self.desk.is_finished() {
            let _ = self.desk.await;
        }
    }
}

impl Ledger {
    /// Starts the ledger of this node over an open database.
    pub async fn start(
        settings: Settings,
        (log, machines): (Log, Machines),
        wire: Arc<dyn Wire>,
        clock: Clock,
    ) -> Result<(Self, Running), Stopped> {
        let stopped = |error: &dyn std::fmt::Display| Stopped(error.to_string());
        let Settings { own, seed, snapshot_every, entries_kept } = settings;
        let config = types::config(snapshot_every, entries_kept).validate().map_err(|error| stopped(&error))?;
        let network = Network { wire: wire.clone() };
        let raft = scope(seed, Raft::new(own, Arc::new(config), network, log, machines.clone())).await;
        let raft = raft.map_err(|error| stopped(&error))?;
        let (desk, visits) = mpsc::channel(VISITS_MAX);
        let (wants, wanted) = watch::channel(Arc::default());
        let (members, known) = watch::channel(Arc::from([]));
        let (standing, stands) = watch::channel(Standing::default());
        let end = CancellationToken::new();
        let ear = Arc::new(Ear::new(raft.clone(), clock.clone()));
        let task = Desk {
            own,
            raft: raft.clone(),
            machines: machines.clone(),
            ear: ear.clone(),
            clock: clock.clone(),
            visits,
            wants: wanted,
            members: known,
            standing,
            end: end.clone(),
        };
        let running = Running { raft: raft.clone(), desk: runtime::spawn(scope(!seed, task.run())), end };
        let shared = Shared {
            own,
            seed,
            clock,
            raft,
            machines,
            ear,
            wire,
            desk,
            wants,
            members,
            standing: stands,
            ways: Mutex::default(),
        };
        Ok((Self { shared: Arc::new(shared) }, running))
    }

    /// Founds a ledger with this node as its only voter. Only the founder of a cluster does that, once: two that are founded would be
    /// two ledgers for ever.
    pub async fn found(&self) -> Result<(), NotFounded> {
        let alone = BTreeMap::from([(self.shared.own, ())]);
        let founded = scope(self.shared.seed, self.shared.raft.initialize(alone)).await;
        founded.map_err(|error| NotFounded(error.to_string()))
    }

    /// Who is wanted for which lease, from now on. Told to every node: whoever leads uses it.
    pub fn wants(&self, wants: Arc<Wants>) {
        self.shared.wants.send_replace(wants);
    }

    /// All members that are not removed, from now on, and how they fare.
    pub fn members(&self, members: Arc<[Candidate]>) {
        self.shared.members.send_replace(members);
    }

    /// Who votes and who leads, as this node sees it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.clone()
    }

    /// What this node has applied.
    #[cfg(test)]
    pub(in crate::ledger) fn machine(&self) -> super::machine::Machine {
        self.shared.machines.applied().machine.clone()
    }

    /// Asks within [`ASK_WITHIN`].
    pub async fn ask(&self, question: Question) -> Answer {
        self.ask_within(question, ASK_WITHIN).await
    }

    /// Asks whoever can answer, until somebody does or the time is over: then it is [`Answer::NotLeader`], and nothing was done, or
    /// [`Answer::Unknown`].
    pub async fn ask_within(&self, question: Question, within: Duration) -> Answer {
        let deadline = Instant::now() + within;
        scope(self.shared.seed, self.shared.ask_round(&question, deadline)).await
    }

    /// Answers another node's request. The transport has proven who it is, and that it is a member.
    pub async fn serve(&self, from: NodeKey, request: &[u8]) -> Vec<u8> {
        let response = match wire::decode(request) {
            Ok(Request::Ask { .. }) if request.len() > QUESTION_LEN_MAX => {
                Response::Refused(format!("a question of {} bytes, and {QUESTION_LEN_MAX} is the most", request.len()))
            }
            Ok(Request::Ask { question, by }) => {
                Response::Answered(scope(self.shared.seed, self.shared.answer(from, &question, by)).await)
            }
            Ok(request) => scope(self.shared.seed, self.shared.ear.answer(from, request)).await,
            Err(error) => Response::Refused(format!("it cannot be read: {error}")),
        };
        wire::encode(&response)
    }
}

/// Keeps the newer of two answers that are old, and asks on for a short time only.
fn keep_newer(old: &mut Option<Answer>, answer: Answer, deadline: &mut Instant) {
    if old.is_none() {
        *deadline = (*deadline).min(Instant::now() + NEWER_WITHIN);
    }
    if old.as_ref().is_none_or(|old| old.knows_up_to() < answer.knows_up_to()) {
        *old = Some(answer);
    }
}

/// Who leads, as far as is known, where no answer can be given here.
struct Elsewhere(Option<NodeKey>);

impl Shared {
    async fn ask_round(&self, question: &Question, mut deadline: Instant) -> Answer {
        let (mut round, mut old) = (Round::default(), None);
        loop {
            let (question, believed) = (&self.of_now(question), self.leader());
            let leader = match self.here(self.own, question, deadline).await {
                Ok(answer) if !answer.is_old() => return answer,
                Ok(answer) => {
                    keep_newer(&mut old, answer, &mut deadline);
                    None
                }
                Err(Elsewhere(leader)) => leader.filter(|leader| *leader != self.own),
            };
            let others = self.others(leader);
            let target = self.ways().next(&mut round, leader, &others, Instant::now());
            if let Some(to) = target {
                let answered = self.there(to, question, None, deadline);
                let answered = match question {
                    // It does no harm if it is heard twice: a new leader is asked at once.
                    Question::Renew { .. } => tokio::select! {
                        biased;
                        answered = answered => answered,
                        () = self.another_leads(believed) => continue,
                    },
                    _ => answered.await,
                };
                match self.learn(to, answered, question, &mut round) {
                    Some(answer) if answer.is_old() => keep_newer(&mut old, answer, &mut deadline),
                    Some(answer) => return answer,
                    None => {}
                }
            }
            if Instant::now() + PAUSE >= deadline {
                return old.unwrap_or(Answer::NotLeader { leader });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What another node's answer says of whom to ask, and what of the question, if it says anything of that.
    fn learn(
        &self,
        from: NodeKey,
        answered: Result<Answer, Broken>,
        question: &Question,
        round: &mut Round,
    ) -> Option<Answer> {
        let mut ways = self.ways();
        // One that cannot be reached is as far away as one that does not answer: it may take as long to find that out.
        ways.note(from, answered.is_ok(), Instant::now());
        match answered {
            Ok(Answer::NotLeader { leader }) => {
                let leader = leader.filter(|leader| ![from, self.own].contains(leader));
                leader.into_iter().for_each(|leader| round.told(leader));
                ways.remember(leader);
                None
            }
            Ok(answer) => {
                ways.remember(Some(from).filter(|_| !answer.is_old()));
                Some(answer)
            }
            Err(broken) => {
                ways.remember(None);
                let is_in_doubt = matches!((broken, question), (Broken::Lost(_), Question::Propose(_)));
                is_in_doubt.then_some(Answer::Unknown)
            }
        }
    }

    /// The question as it is put now. A clock is judged by when its time arrives: one that waited for a leader to be elected would look slow.
    fn of_now(&self, question: &Question) -> Question {
        match question {
            Question::Renew { session, known, .. } => {
                Question::Renew { session: *session, known: *known, wall: (self.clock)().wall }
            }
            other => other.clone(),
        }
    }

    /// Answers another node, or lets the leader do so.
    async fn answer(&self, from: NodeKey, question: &Question, by: Option<NodeKey>) -> Answer {
        let deadline = Instant::now() + COMMIT_WITHIN;
        // Only who is in the group hands questions on: it is believed when it says who asked.
        if by.is_some() && !self.is_in_group(&from) {
            return Answer::NotAllowed;
        }
        match self.here(by.unwrap_or(from), question, deadline).await {
            Ok(answer) => answer,
            Err(Elsewhere(Some(leader))) if by.is_none() && leader != self.own && leader != from => {
                match self.there(leader, question, Some(from), deadline).await {
                    // One that was replaced while it was away hands on nothing any more: whoever asks is to go there itself.
                    Ok(Answer::NotAllowed) => Answer::NotLeader { leader: Some(leader) },
                    Ok(answer) => answer,
                    Err(Broken::Lost(_)) if matches!(question, Question::Propose(_)) => Answer::Unknown,
                    Err(Broken::Lost(_) | Broken::Unreached(_)) => Answer::NotLeader { leader: None },
                }
            }
            Err(Elsewhere(leader)) => Answer::NotLeader { leader },
        }
    }

    /// Answers from here, where this node can.
    async fn here(&self, asker: NodeKey, question: &Question, deadline: Instant) -> Result<Answer, Elsewhere> {
        match question {
            Question::History { job } if self.is_in_group(&self.own) => {
                return match self.account(job) {
                    // What it does not know others may.
                    None if !self.is_current() => Err(Elsewhere(None)),
                    account => Ok(Answer::History(account)),
                };
            }
            Question::Standing if self.is_in_group(&self.own) => {
                return Ok(Answer::Standing(self.standing.borrow().clone()));
            }
            Question::History { .. } | Question::Standing => return Err(Elsewhere(self.leader())),
            Question::Propose(_) | Question::Renew { .. } => {}
        }
        let (outcome, said) = oneshot::channel();
        let visit = Visit { asker, question: question.clone(), outcome };
        let visited = timeout_at(deadline, async {
            self.desk.send(visit).await.ok()?;
            said.await.ok()
        });
        // Without an outcome the desk has ended, or is late: nothing was proposed for somebody who has gone.
        match visited.await.ok().flatten() {
            Some(Outcome::Said(answer)) => Ok(answer),
            Some(Outcome::Proposed(proposed)) => self.applied(proposed, deadline).await,
            Some(Outcome::NotLeading) => Err(Elsewhere(self.leader())),
            None if matches!(question, Question::Propose(_)) => Ok(Answer::Unknown),
            None => Err(Elsewhere(self.leader())),
        }
    }

    /// What becomes of a proposal.
    async fn applied(&self, proposed: desk::Proposed, deadline: Instant) -> Result<Answer, Elsewhere> {
        let deadline = deadline.min(Instant::now() + COMMIT_WITHIN);
        match timeout_at(deadline, proposed).await {
            Ok(Ok(Ok(applied))) => Ok(Answer::Applied { index: applied.log_id.index, reply: applied.data }),
            // The only one that means that it never came into the log.
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(to)))) => Err(Elsewhere(to.leader_id)),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Ok(Answer::Unknown),
        }
    }

    async fn there(
        &self,
        to: NodeKey,
        question: &Question,
        by: Option<NodeKey>,
        deadline: Instant,
    ) -> Result<Answer, Broken> {
        let within = match question {
            Question::Propose(_) => ANSWER_WITHIN,
            _ if by.is_some() => HANDED_ON_WITHIN,
            _ => RENEWED_WITHIN,
        };
        let within = within.min(deadline.saturating_duration_since(Instant::now()));
        let request = wire::encode(&Request::Ask { question: question.clone(), by });
        let response = self.wire.ask(to, Channel::Question, request, within).await?;
        match wire::decode(&response) {
            Ok(Response::Answered(answer)) => Ok(answer),
            Ok(Response::Refused(cause)) => Err(Broken::Unreached(cause)),
            Ok(other) => Err(Broken::Lost(format!("no answer to a question: {other:?}"))),
            Err(error) => Err(Broken::Lost(error.to_string())),
        }
    }

    /// What became of a job, as far as this voter knows, and how far that is.
    fn account(&self, job: &JobKey) -> Option<Account> {
        let applied = self.machines.applied();
        let account = applied.machine.account(job)?;
        let as_of = || self.ear.heard_at().unwrap_or(applied.machine.wall());
        Some(Account { as_of: (!self.is_current()).then(as_of), ..account })
    }

    /// Whether this voter leads or hears a leader: what it has applied is what there is.
    fn is_current(&self) -> bool {
        self.standing.borrow().leader == Some(self.own) || self.ear.hears_leader()
    }

    fn leader(&self) -> Option<NodeKey> {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().current_leader
    }

    /// Whether a node votes or learns, as far as this one knows.
    fn is_in_group(&self, node: &NodeKey) -> bool {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().membership_config.get_node(node).is_some()
    }

    /// Those who may know, beside the leader: the other voters, where this node knows them, or the members that are up.
    fn others(&self, leader: Option<NodeKey>) -> Vec<NodeKey> {
        let metrics = self.raft.metrics();
        let voters: Vec<NodeKey> = metrics.borrow_watched().membership_config.membership().voter_ids().collect();
        let is_other = |node: &NodeKey| *node != self.own;
        if voters.iter().any(|voter| is_other(voter) && Some(*voter) != leader) {
            return voters.into_iter().filter(is_other).collect();
        }
        let members = self.members.borrow();
        members.iter().filter(|one| one.down_for.is_none()).map(|one| one.node).filter(is_other).collect()
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until this node knows of a leader other than this one.
    async fn another_leads(&self, than: Option<NodeKey>) {
        let mut metrics = self.raft.metrics();
        let is_other = |leader: Option<NodeKey>| leader.is_some() && leader != than;
        while !is_other(metrics.borrow_watched().current_leader) {
            if metrics.changed().await.is_err() {
                // Raft has stopped.
                std::future::pending::<()>().await;
            }
        }
    }
}
