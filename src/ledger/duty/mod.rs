//! What one node does for the ledger: it keeps a session, decides the slots of the jobs it holds, and carries runs through. Pure.
//!
//! It is told what the ledger answers, what the keeper says and what time it is, and gives back what to ask and what to do. Each settle
//! looks at all that is known of a job and derives what comes next; answers that were lost, or never came, only make that later.
//!
//! What must hold: an attempt is launched only under a fence that this very process was granted, and once. A claim of which it is not known
//! whether it was granted is resolved by looking at the ledger: a run in it that bears the number which this process drew is its own.
//! Whether a second one could be granted never depends on this code; the machine's cursor sees to that.

mod concerns;
mod pending;
mod runs;
mod session;
mod slots;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

pub use self::runs::{Permit, attempt_of};
pub use self::slots::JobSpec;

use self::pending::{Pending, Subject};
use self::runs::{Attempt, Grant};
use self::session::{ASK_AGAIN, Session};
use super::command::{Command, Decide, JobKey, LeaseKey, Refused, Reply};
use super::question::{Answer, Asked, Question};
use super::run::{Fence, OnNodeLoss, Overlap, Run, Trigger};
use super::time::{LedgerTime, Slot};
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::spec::{Concurrency, OnNodeLoss as LossPolicy};
use crate::time::{Mono, Now};

/// The cron specs that there are.
pub trait Specs {
    /// The one of that name; none: it was deleted, or this node has not heard of it yet.
    fn job(&self, name: &ServiceName) -> Option<&JobSpec>;
}

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Act {
    /// Ask the ledger. Every question gets one answer, if only that it is not known.
    Ask {
        /// To be handed back with the answer.
        id: u64,
        /// What.
        question: Question,
    },
    /// Start an attempt.
    Launch {
        /// Of which job.
        job: JobKey,
        /// What the keeper is to call it.
        attempt: RunId,
        /// Of which run: its fence, its number and its slot go into the environment.
        run: Box<Run>,
    },
    /// End an attempt, as its specification says: ask, wait, kill.
    Stop {
        /// Which.
        attempt: RunId,
    },
    /// The keeper may forget an attempt.
    Acknowledge {
        /// Which.
        attempt: RunId,
    },
}

/// One node's part in the ledger.
#[derive(Debug)]
pub struct Duty {
    me: NodeKey,
    session: Session,
    /// Everything that concerns this node is known up to this log index.
    known: u64,
    jobs: BTreeMap<JobKey, Job>,
    singletons: BTreeMap<LeaseKey, Fence>,
    /// What was asked and not answered.
    topics: BTreeMap<u64, Topic>,
    next_id: u64,
    /// Attempts of this node, by what the keeper calls them.
    attempts: BTreeMap<RunId, Attempt>,
    /// False until the keeper has said what it holds: before that nothing can be told to be lost.
    is_keeper_known: bool,
    /// Whether there may be attempts of runs that the ledger has closed.
    is_to_sweep: bool,
    /// Jobs of which something is pending or granted: what a renewal says about them matters even if they did not change.
    restless: BTreeSet<JobKey>,
    /// Jobs to be looked at.
    dirty: BTreeSet<JobKey>,
    /// When jobs are to be looked at again, and the same the other way round.
    alarms: BTreeSet<(Mono, JobKey)>,
    alarm_of: BTreeMap<JobKey, Mono>,
}

/// What a question was about, and when it was asked where that matters: what the answer permits, it permits from then on.
#[derive(Debug)]
enum Topic {
    Open,
    Close,
    /// A singleton's lease.
    Release(LeaseKey),
    Renew(Mono),
    Decide(JobKey, Box<Decide>, Mono),
    /// That an attempt of a run was started.
    Started {
        job: JobKey,
        run: RunId,
        attempt: RunId,
    },
    /// That an attempt of a run has ended.
    Ended(JobKey, RunId),
    /// The next attempt of a run, after the one with that fence.
    Next(JobKey, RunId, Fence, Mono),
}

/// What this node knows of a job, as the ledger told it last and with what it was granted since.
#[derive(Debug, Default)]
struct Job {
    is_held: bool,
    cursor: Slot,
    open: Vec<Run>,
    asked: Vec<Asked>,
    /// The log index up to which that is so.
    upto: u64,
    /// Which questions about it are under way, or have done something that is not known here yet.
    pending: Pending,
    /// Nothing is asked about it before then.
    pause: Mono,
    /// The decision of which it is not known whether it was made, and whether it is to be asked for again if not.
    unclear: Option<(Box<Decide>, bool)>,
    /// Attempts that this process asked for, and of which nothing is known: by run, the fence of the one before.
    hoped: BTreeMap<RunId, Fence>,
    /// What this process was granted, by run.
    grants: BTreeMap<RunId, Grant>,
    /// When the next attempt of a run is due.
    retries: BTreeMap<RunId, Mono>,
}

impl Duty {
    /// A node's part, in the life of this process.
    pub fn new(me: NodeKey, life: u64) -> Self {
        Self {
            me,
            session: Session::new(life),
            known: 0,
            jobs: BTreeMap::new(),
            singletons: BTreeMap::new(),
            topics: BTreeMap::new(),
            next_id: 0,
            attempts: BTreeMap::new(),
            is_keeper_known: false,
            is_to_sweep: false,
            restless: BTreeSet::new(),
            dirty: BTreeSet::new(),
            alarms: BTreeSet::new(),
            alarm_of: BTreeMap::new(),
        }
    }

    /// The singletons whose lease this node holds, as far as it knows, with a fence for each: greater than that of any earlier holder.
    pub fn singletons(&self) -> &BTreeMap<LeaseKey, Fence> {
        &self.singletons
    }

    /// Until when no other node holds this node's leases, whatever becomes of it: its session is not over by then. None without one.
    pub fn sure_until(&self) -> Option<Mono> {
        self.session.sure_until()
    }

    /// This node lets go of a singleton, of which nothing runs here. None where that is under way, or it does not hold it.
    pub fn release(&mut self, lease: &LeaseKey) -> Option<Act> {
        let is_asked = self.topics.values().any(|topic| matches!(topic, Topic::Release(asked) if asked == lease));
        let session = self.session.id().filter(|_| !is_asked && self.singletons.contains_key(lease))?;
        let mut acts = Vec::new();
        let command = Command::Release { lease: lease.clone(), session };
        self.ask(Topic::Release(lease.clone()), Question::Propose(command), &mut acts);
        acts.pop()
    }

    /// Whether this node has a session, as far as it knows.
    pub fn is_present(&self) -> bool {
        self.session.id().is_some()
    }

    /// This node leaves: its session ends, and with it its leases. It opens no other one.
    pub fn close(&mut self) -> Option<Act> {
        let session = self.session.close()?;
        let mut acts = Vec::new();
        self.ask(Topic::Close, Question::Propose(Command::Close { session }), &mut acts);
        acts.pop()
    }

    /// Specs were changed: the jobs of this name are looked at again.
    pub fn spec_changed(&mut self, name: &ServiceName) {
        let first = JobKey { name: name.clone(), node: None };
        let jobs = self.jobs.range(first..).map(|(key, _)| key).take_while(|key| key.name == *name);
        self.dirty.extend(jobs.cloned());
    }

    /// The wall clock was stepped: what was due at a moment of it is due at another one.
    pub fn clock_stepped(&mut self) {
        self.dirty.extend(self.jobs.keys().cloned());
    }

    /// When [`Duty::settle`] wants to be called, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        let alarm = self.alarms.first().map(|(due, _)| *due);
        [alarm, self.session.next_deadline()].into_iter().flatten().min()
    }

    /// Works out what comes next.
    pub fn settle(&mut self, now: Now, specs: &impl Specs, rng: &mut ChaCha8Rng) -> Vec<Act> {
        let mut acts = Vec::new();
        self.settle_session(now, &mut acts);
        while let Some((due, key)) = self.alarms.first().filter(|(due, _)| *due <= now.mono).cloned() {
            self.alarms.remove(&(due, key.clone()));
            self.alarm_of.remove(&key);
            self.dirty.insert(key);
        }
        for key in std::mem::take(&mut self.dirty) {
            self.settle_job(now, &key, specs, rng, &mut acts);
        }
        if std::mem::take(&mut self.is_to_sweep) {
            self.forget_passed_over(&mut acts);
        }
        acts
    }

    /// Takes an answer of the ledger's.
    pub fn answered(&mut self, now: Now, id: u64, answer: Answer) {
        let Some(topic) = self.topics.remove(&id) else { return };
        match topic {
            Topic::Open => self.opened(now, &answer),
            Topic::Close => {}
            // What came of it is seen in the next renewal.
            Topic::Release(_) => self.session.hurry(),
            Topic::Renew(asked) => self.renewed(now, asked, answer),
            Topic::Decide(key, decide, asked) => self.decided(now, asked, &key, decide, &answer),
            Topic::Started { job, run, attempt } => self.said_started(now, &job, run, attempt, &answer),
            Topic::Ended(key, run) => self.said(now, &key, run, &answer),
            Topic::Next(key, run, before, asked) => self.granted_next(now, asked, &key, (run, before), &answer),
        }
    }

    fn ask(&mut self, topic: Topic, question: Question, acts: &mut Vec<Act>) {
        let id = self.next_id;
        self.next_id += 1;
        self.topics.insert(id, topic);
        acts.push(Act::Ask { id, question });
    }

    /// Asks something about a job: one question at a time about each subject.
    fn ask_about(&mut self, key: &JobKey, subject: Subject, topic: Topic, command: Command, acts: &mut Vec<Act>) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.pending.ask(subject);
            self.restless.insert(key.clone());
        }
        self.ask(topic, Question::Propose(command), acts);
    }

    fn settle_job(&mut self, now: Now, key: &JobKey, specs: &impl Specs, rng: &mut ChaCha8Rng, acts: &mut Vec<Act>) {
        self.forget_if_dropped(key);
        let spec = specs.job(&key.name);
        let mut due = self.settle_runs(now, key, spec, rng, acts);
        due = earlier(due, self.settle_slots(now, key, spec, rng, acts));
        let pause = self.jobs.get(key).map(|job| job.pause).filter(|pause| *pause > now.mono);
        due = earlier(due, pause);
        if let Some(before) = self.alarm_of.remove(key) {
            self.alarms.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.alarms.insert((due, key.clone()));
            self.alarm_of.insert(key.clone(), due);
        }
    }

    /// Decides what is due; gives back when there is more to decide.
    fn settle_slots(
        &mut self,
        now: Now,
        key: &JobKey,
        spec: Option<&JobSpec>,
        rng: &mut ChaCha8Rng,
        acts: &mut Vec<Act>,
    ) -> Option<Mono> {
        let (session, job, spec) = (self.session.id()?, self.jobs.get_mut(key)?, spec?);
        let answered = self.session.answered();
        // Where the next run waits for the one before, it is asked for when it is known whether that is over.
        let is_in_doubt = spec.policy.concurrency == Concurrency::Skip && !job.pending.are_runs_settled(answered);
        if !job.is_held || is_in_doubt || !job.may_ask(Subject::Slots, now.mono, answered) {
            return None;
        }
        let decision = match slots::decision(job.cursor, !job.open.is_empty(), &job.asked, spec, now.wall) {
            slots::Verdict::Wait(until) => return until.map(|wall| now.mono + wall.since(now.wall)),
            slots::Verdict::Decide(decision) => decision,
        };
        // Where it is still the same that is to be decided, the same run is claimed again: if that was heard the first time it is refused
        // now, and shows in the ledger. What has become too late meanwhile is not asked for again.
        let unclear = job.unclear.take().filter(|(before, again)| {
            let trigger = before.claim.as_ref().map(|claim| claim.trigger);
            *again && (before.cursor, trigger) == (job.cursor, decision.claim.map(|(trigger, _)| trigger))
        });
        let run = unclear.and_then(|(before, _)| before.claim).map(|claim| claim.run);
        let claim = decision
            .claim
            .map(|(trigger, scheduled)| spec.claim(run.unwrap_or_else(|| RunId(rng.random())), trigger, scheduled));
        let decide =
            Decide { job: key.clone(), session, cursor: job.cursor, gaps: decision.gaps, claim, upto: decision.upto };
        if bug!(StartBeforeClaim)
            && let Some(claim) = &decide.claim
        {
            let run = claim.granted(Fence(job.upto + 1), self.me, LedgerTime::default());
            let attempt = attempt_of(run.id, run.fence);
            acts.push(Act::Launch { job: key.clone(), attempt, run: Box::new(run) });
        }
        let topic = Topic::Decide(key.clone(), Box::new(decide.clone()), now.mono);
        self.ask_about(key, Subject::Slots, topic, Command::Decide(decide), acts);
        None
    }

    fn decided(&mut self, now: Now, asked: Mono, key: &JobKey, decide: Box<Decide>, answer: &Answer) {
        let (me, round) = (self.me, self.session.next_round());
        let Some(job) = self.heard(key, Subject::Slots) else { return };
        // A renewal may have told it before: then more is known of the job than this answer says.
        let is_news = |index: &u64, job: &Job| *index > job.upto;
        match answer {
            Answer::Applied { index, reply: Reply::Granted(fence) } if is_news(index, job) => {
                let Some(claim) = decide.claim.as_ref() else { return };
                job.grants.insert(claim.run, Grant { fence: *fence, at: asked });
                job.cursor = decide.upto;
                job.upto = *index;
                job.asked.retain(|asked| claim.trigger != Trigger::Asked(asked.request));
                if claim.overlap == Overlap::Replace {
                    for run in &mut job.open {
                        run.is_replaced = true;
                    }
                }
                // The ledger knows when; nothing here depends on it.
                job.open.push(claim.granted(*fence, me, LedgerTime::default()));
            }
            Answer::Applied { index, reply: Reply::Done | Reply::Skipped(_) } if is_news(index, job) => {
                (job.cursor, job.upto) = (decide.upto, *index);
            }
            Answer::Applied { reply: reply @ (Reply::Granted(_) | Reply::Done | Reply::Skipped(_)), .. } => {
                let mut is_known = job.cursor >= decide.upto;
                if let (Reply::Granted(fence), Some(claim)) = (reply, decide.claim.as_ref()) {
                    job.grants.insert(claim.run, Grant { fence: *fence, at: asked });
                    is_known &= job.open.iter().any(|open| open.id == claim.run);
                }
                // Or what is known of the job is what an answer about another run said.
                if !is_known {
                    job.pending.await_renewal(Subject::Slots, round);
                    self.session.hurry();
                }
            }
            Answer::Applied { reply: Reply::Refused(Refused::NoSession), .. } => self.session.lose(),
            // Others have decided, or this very decision was heard before: the ledger knows.
            Answer::Applied { .. } => {
                job.unclear = Some((decide, false));
                job.pending.await_renewal(Subject::Slots, round);
                job.find_grants(me);
                self.session.hurry();
            }
            // Not due yet by the voters' clocks, or nobody leads: nothing was done this time. The same may have been claimed before.
            Answer::Early { .. } | Answer::NotLeader { .. } | Answer::NotAllowed => {
                (job.unclear, job.pause) = (Some((decide, true)), now.mono + ASK_AGAIN);
                job.find_grants(me);
                // A leader that has just begun may not know this node's clock yet.
                self.session.hurry();
            }
            _ => {
                job.unclear = Some((decide, true));
                job.pending.await_renewal(Subject::Slots, round);
                job.find_grants(me);
                self.session.hurry();
            }
        }
    }

    /// A question about a job was answered.
    fn heard(&mut self, key: &JobKey, subject: Subject) -> Option<&mut Job> {
        self.dirty.insert(key.clone());
        let job = self.jobs.get_mut(key)?;
        job.pending.settle(subject);
        Some(job)
    }
}

impl Job {
    /// What this process has asked for without hearing of it was granted if it shows in the ledger: nobody else asks under these numbers.
    fn find_grants(&mut self, me: NodeKey) {
        if bug!(UnknownClaimForgotten) {
            return;
        }
        if let Some(claim) = self.unclear.as_ref().and_then(|(decide, _)| decide.claim.as_ref())
            && let Some(run) = self.open.iter().find(|run| run.id == claim.run)
            && run.attempt == 1
        {
            self.grants.insert(run.id, Grant { fence: run.fence, at: Mono(0) });
            self.unclear = None;
        }
        for run in self.open.iter().filter(|run| run.node == Some(me)) {
            if self.hoped.get(&run.id).is_some_and(|before| run.fence > *before) {
                self.hoped.remove(&run.id);
                self.retries.remove(&run.id);
                self.grants.insert(run.id, Grant { fence: run.fence, at: Mono(0) });
            }
        }
    }

    /// Whether a question is under way whose answer may permit the current attempt of a run.
    fn is_permit_under_way(&self, run: RunId) -> bool {
        self.pending.is_asked(Subject::Slots) || self.pending.is_asked(Subject::Run(run))
    }

    /// Whether it is known well enough what the ledger says of it, renewals up to `answered` having been answered.
    fn may_ask(&self, subject: Subject, now: Mono, answered: u64) -> bool {
        self.pause <= now && self.pending.is_settled(subject, answered)
    }
}

impl JobSpec {
    /// A claim for a run of this spec.
    fn claim(&self, run: RunId, trigger: Trigger, scheduled: crate::time::Wall) -> super::command::Claim {
        let policy = &self.policy;
        super::command::Claim {
            run,
            trigger,
            scheduled,
            revision: self.revision,
            overlap: match policy.concurrency {
                Concurrency::Allow => Overlap::Allow,
                Concurrency::Skip => Overlap::Skip,
                Concurrency::Replace => Overlap::Replace,
            },
            attempts_max: policy.max_retries.saturating_add(1),
            on_node_loss: match policy.on_node_loss {
                LossPolicy::Fail => OnNodeLoss::Fail,
                LossPolicy::Rerun => OnNodeLoss::Rerun,
            },
            history_limit: policy.history_limit,
        }
    }
}

fn earlier(a: Option<Mono>, b: Option<Mono>) -> Option<Mono> {
    [a, b].into_iter().flatten().min()
}
