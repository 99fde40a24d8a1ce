//! The desk: the one task that holds office while this node leads. Shell over `ledger::office` and `ledger::voters`.
//!
//! Input: what nodes ask (through [`super::Ledger`]), ticks, and openraft's metrics. Output: answers, proposals, changes of the
//! voters, the watched [`Standing`]. It decides nothing that the pure parts could decide, and never waits for a commit: an answer
//! to a proposal goes straight from openraft to whoever asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft::alias::OneshotReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{Raft, ReadPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::ids::NodeKey;
use crate::ledger::command::{Command, SessionId, Stamped};
use crate::ledger::office::{self, Office, Wants};
use crate::ledger::question::{Answer, Question, Standing};
use crate::ledger::voters::Candidate;
use crate::time::{Now, Wall};

use super::group::Group;
use super::serve::Ear;
use super::store::Machines;
use super::types::TypeConfig;
use super::{Clock, Stopped};

/// How often the office is looked after: a session that is over is noticed within a tenth of its life.
const TICK: Duration = Duration::from_millis(200);

/// How often a leader with a wrong clock tries to hand over.
const RESIGN_EVERY: Duration = Duration::from_secs(5);

/// What openraft will say to a proposal.
pub(super) type Proposed = OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>;

/// Somebody who asks.
pub(super) struct Visit {
    pub(super) asker: NodeKey,
    pub(super) question: Question,
    pub(super) outcome: oneshot::Sender<Outcome>,
}

/// What becomes of a visit at once.
pub(super) enum Outcome {
    /// That is the answer.
    Said(Answer),
    /// It is proposed; the answer follows.
    Proposed(Proposed),
    /// This node does not lead; nothing was done.
    NotLeading,
}

/// What the task stands on.
pub(super) struct Desk {
    pub(super) own: NodeKey,
    pub(super) raft: Raft<TypeConfig, Machines>,
    pub(super) machines: Machines,
    pub(super) ear: Arc<Ear>,
    pub(super) clock: Clock,
    pub(super) visits: mpsc::Receiver<Visit>,
    pub(super) wants: watch::Receiver<Arc<Wants>>,
    pub(super) members: watch::Receiver<Arc<[Candidate]>>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) end: CancellationToken,
}

/// This node's term of office.
struct Term {
    number: u64,
    office: Office,
    /// What the office proposed in the last round, until it is answered: a round waits for the one before, so that nothing is
    /// proposed twice while a disk is slow.
    round: Vec<Proposed>,
    resigned: Option<tokio::time::Instant>,
}

impl Desk {
    /// Until `end`, or until openraft has stopped by itself.
    pub(super) async fn run(mut self) -> Result<(), Stopped> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut group = Group::new(self.raft.clone());
        let mut term: Option<Term> = None;
        let end = self.end.clone();
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    self.has_stopped()?;
                    self.tick(&mut term, &mut group).await;
                }
                visit = self.visits.recv() => match visit {
                    Some(visit) => self.receive(&mut term, visit).await,
                    None => return Ok(()),
                },
            }
        }
    }

    fn has_stopped(&self) -> Result<(), Stopped> {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().running_state.clone().map_err(|fatal| Stopped(fatal.to_string()))
    }

    /// Takes office where this node has begun to lead, and leaves it where it does not lead any more.
    async fn look_at_term(&self, term: &mut Option<Term>) {
        let (number, is_leader) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.state.is_leader())
        };
        if !is_leader {
            *term = None;
            return;
        }
        if term.as_ref().is_some_and(|term| term.number == number) {
            return;
        }
        *term = None;
        if !self.is_believed().await {
            return;
        }
        let applied = self.machines.applied();
        // Before the first entry of its own term is applied, a leader does not know all that was committed before.
        if applied.last.is_some_and(|last| *last.leader_id == number) {
            let office = Office::begin((self.clock)().mono, &applied.machine);
            *term = Some(Term { number, office, round: Vec::new(), resigned: None });
        }
    }

    /// Whether a majority has answered lately. A leader that is cut off goes on believing in itself; nobody else has to.
    async fn is_believed(&self) -> bool {
        self.raft.get_read_log_id(ReadPolicy::LeaseRead).await.is_ok()
    }

    async fn receive(&self, term: &mut Option<Term>, visit: Visit) {
        self.look_at_term(term).await;
        let outcome = match term {
            None => Outcome::NotLeading,
            Some(term) => match visit.question {
                Question::Propose(command) => self.propose_for(term, visit.asker, command).await,
                Question::Renew { session, known, wall } => {
                    Outcome::Said(self.renew(term, visit.asker, session, known, wall))
                }
                // Any voter answers these, without a visit.
                Question::History { .. } | Question::Standing => Outcome::Said(Answer::NotAllowed),
            },
        };
        // Fails where nobody waits any more; what was proposed goes on.
        let _ = visit.outcome.send(outcome);
    }

    fn renew(&self, term: &mut Term, asker: NodeKey, session: SessionId, known: u64, wall: Wall) -> Answer {
        let (now, applied) = ((self.clock)(), self.machines.applied());
        let is_own = applied.machine.session(session) == Some(asker);
        if is_own && term.office.renew(session, wall, now, &applied.machine) {
            Answer::Renewed(applied.machine.concerns(&asker, known))
        } else {
            Answer::NoSession
        }
    }

    async fn propose_for(&self, term: &mut Term, asker: NodeKey, command: Command) -> Outcome {
        let now = (self.clock)();
        if !self.machines.applied().machine.is_allowed(&asker, &command) {
            return Outcome::Said(Answer::NotAllowed);
        }
        let calendar = term.office.calendar(now.mono);
        if office::is_early(&command, calendar) {
            return Outcome::Said(Answer::Early { wall: calendar.unwrap_or(now.wall) });
        }
        match self.propose(term, now, command).await {
            Some(proposed) => Outcome::Proposed(proposed),
            None => Outcome::NotLeading,
        }
    }

    /// Stamps a command and gives it to the log; none where Raft has stopped.
    async fn propose(&self, term: &mut Term, now: Now, command: Command) -> Option<Proposed> {
        let at = term.office.stamp(now.mono, &self.machines.applied().machine);
        let (responder, proposed) = ProgressResponder::complete_only();
        let given = self.raft.client_write_ff(Stamped { at, wall: now.wall, command }, Some(responder)).await;
        given.is_ok().then_some(proposed)
    }

    async fn tick(&mut self, term: &mut Option<Term>, group: &mut Group) {
        self.look_at_term(term).await;
        if term.is_some() && !self.is_believed().await {
            // Whoever is believed again later takes office anew: until then nobody could renew a session.
            *term = None;
        }
        match term {
            None => group.leave_alone(),
            Some(term) => {
                let voters = group.voters();
                self.look_after(term, &voters).await;
                self.resign_if_clock_is_wrong(term, &voters).await;
                let members = self.members.borrow_and_update().clone();
                group.look_after(&members, &self.own);
            }
        }
        self.publish(term.is_some());
    }

    /// Proposes what is due, once all of the round before is answered.
    async fn look_after(&self, term: &mut Term, voters: &BTreeSet<NodeKey>) {
        term.round.retain_mut(|proposed| proposed.now_or_never().is_none());
        if !term.round.is_empty() {
            return;
        }
        let now = (self.clock)();
        let wants = self.wants.borrow().clone();
        let due = term.office.due(now, &self.machines.applied().machine, &wants, voters);
        for command in due {
            let proposed = self.propose(term, now, command).await;
            term.round.extend(proposed);
        }
    }

    async fn resign_if_clock_is_wrong(&self, term: &mut Term, voters: &BTreeSet<NodeKey>) {
        let lately = term.resigned.is_some_and(|at| at.elapsed() < RESIGN_EVERY);
        if lately || term.office.is_clock_good((self.clock)()) {
            return;
        }
        let members = self.members.borrow().clone();
        let is_fit = |node: &&NodeKey| {
            **node != self.own && members.iter().any(|one| one.node == **node && one.down_for.is_none() && one.can_vote)
        };
        let Some(other) = voters.iter().find(is_fit) else { return };
        tracing::warn!(to = %other.short(), "this host's clock is not that of the other voters: another one is to lead");
        term.resigned = Some(tokio::time::Instant::now());
        // Fails only where Raft has stopped, which the next tick says.
        let _ = self.raft.trigger().transfer_leader(*other).await;
    }

    fn publish(&self, leads: bool) {
        let mut found = standing(&self.raft);
        let is_heard = |leader: &NodeKey| if *leader == self.own { leads } else { self.ear.hears_leader() };
        found.leader = found.leader.filter(is_heard);
        self.standing.send_if_modified(|standing| {
            let is_new = *standing != found;
            *standing = found;
            is_new
        });
    }
}

/// What openraft knows of the group.
fn standing(raft: &Raft<TypeConfig, Machines>) -> Standing {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    Standing {
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        leader: metrics.current_leader,
        term: metrics.current_term,
        applied: metrics.last_applied.map_or(0, |last| last.index),
    }
}
