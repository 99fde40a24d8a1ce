//! The runs of this node: launched under a grant, watched, reported, tried again. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pending::Subject;
use super::session::ASK_AGAIN;
use super::{Act, Duty, JobSpec, Topic, earlier};
use crate::exec::plan::Ended;
use crate::ids::{RunId, ServiceName};
use crate::ledger::command::{Command, JobKey, Refused, Reply};
use crate::ledger::question::Answer;
use crate::ledger::run::{Fence, Run, RunEnd, RunStatus};
use crate::time::{Mono, Now, Wall};

/// How long after it was heard of a grant may be carried out: as long as the session lives on which it was given. After that the run may
/// have been recorded as lost, and the ledger is asked first.
const START_WITHIN: Duration = Duration::from_secs(2);

/// By how much the pause before a retry varies, in hundredths: runs that failed together for one cause do not come back together.
const JITTER: u64 = 20;

/// Permission for the current attempt of a run, given to this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) fence: Fence,
    /// When it was last known to stand.
    pub(super) at: Mono,
}

impl Grant {
    fn is_fresh(&self, now: Mono) -> bool {
        now.since(self.at) <= START_WITHIN || bug!(OldGrantCarriedOut)
    }
}

/// One attempt, as this node knows it.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Of which job, once that is known: the keeper does not say.
    job: Option<JobKey>,
    phase: Phase,
    /// Whether the ledger knows that it was started.
    is_told: bool,
    /// Why it is being stopped, if it is.
    stopping: Option<RunStatus>,
}

#[derive(Debug)]
enum Phase {
    /// The keeper was asked to start it.
    Launching,
    /// It was started then.
    Running { since: Mono, at: Wall },
    /// It has ended.
    Ended(RunEnd),
}

/// Whether an attempt may be started that was to be launched, and had to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permit {
    /// It may.
    Stands,
    /// Its grant has not been confirmed for so long that its run may have been recorded as lost: the ledger's next word decides.
    Unconfirmed,
    /// The ledger has closed its run, or given it to others.
    Gone,
}

/// What the keeper calls an attempt: the same for whoever knows the run and the fence, so that a node process finds its attempts again.
/// The first twelve bytes are the run's, so that the lines of all its attempts are found by its name; the fence is mixed into the
/// last four.
pub fn attempt_of(run: RunId, fence: Fence) -> RunId {
    let RunId(mut bytes) = run;
    let low = fence.0.to_be_bytes();
    for (byte, of_fence) in bytes[12..].iter_mut().zip(&low[4..]) {
        *byte ^= of_fence;
    }
    RunId(bytes)
}

impl Duty {
    /// The open runs of that name whose current attempt is this node's, as the ledger told them last.
    pub fn open_here(&self, name: &ServiceName) -> impl Iterator<Item = &Run> {
        let jobs = self.jobs.iter().filter(move |(key, _)| key.name == *name);
        jobs.flat_map(|(_, job)| &job.open).filter(|run| run.node == Some(self.me))
    }

    /// Whether an attempt may be started now that was to be launched before.
    pub fn permit(&self, now: Mono, attempt: &RunId) -> Permit {
        let job = self.attempts.get(attempt).and_then(|attempt| self.jobs.get(attempt.job.as_ref()?));
        let is_it = |run: &&Run| attempt_of(run.id, run.fence) == *attempt;
        let run = job.and_then(|job| job.open.iter().find(is_it));
        let granted =
            job.zip(run).and_then(|(job, run)| job.grants.get(&run.id).filter(|grant| grant.fence == run.fence));
        match granted {
            None => Permit::Gone,
            Some(grant) if grant.is_fresh(now) => Permit::Stands,
            Some(_) => Permit::Unconfirmed,
        }
    }

    /// How an attempt of this node ended; none once the ledger has it, too.
    pub fn end_of_attempt(&self, attempt: &RunId) -> Option<&RunEnd> {
        match &self.attempts.get(attempt)?.phase {
            Phase::Ended(end) => Some(end),
            Phase::Launching | Phase::Running { .. } => None,
        }
    }

    /// The keeper was reached, and holds these attempts: running since then, or ended.
    pub fn holding(&mut self, now: Now, held: impl IntoIterator<Item = (RunId, Wall, Option<Ended>)>) {
        self.is_keeper_known = true;
        for (attempt, at, ended) in held {
            let phase = match ended {
                None => Phase::Running { since: now.mono - now.wall.since(at), at },
                Some(ended) => Phase::Ended(end_of(&ended, None)),
            };
            self.attempts.entry(attempt).or_insert(Attempt { job: None, phase, is_told: false, stopping: None });
        }
        self.is_to_sweep = true;
        self.dirty.extend(self.jobs.keys().cloned());
    }

    /// The keeper and all that it held are lost.
    pub fn keeper_lost(&mut self, now: Now) {
        for attempt in self.attempts.values_mut().filter(|attempt| !matches!(attempt.phase, Phase::Ended(_))) {
            attempt.phase = Phase::Ended(RunEnd {
                status: RunStatus::Lost,
                at: now.wall,
                code: None,
                signal: None,
                error: Some("the process that held it was lost".into()),
            });
        }
        self.dirty.extend(self.jobs.keys().cloned());
    }

    /// An attempt was started.
    pub fn started(&mut self, now: Now, attempt: RunId, at: Wall) {
        if let Some(known) = self.attempts.get_mut(&attempt) {
            known.phase = Phase::Running { since: now.mono, at };
            self.mark(&attempt);
        }
    }

    /// An attempt could not be started.
    pub fn failed_to_start(&mut self, now: Now, attempt: RunId, error: String) {
        if let Some(known) = self.attempts.get_mut(&attempt) {
            let (status, error) = (RunStatus::FailureToStart, Some(error));
            known.phase = Phase::Ended(RunEnd { status, at: now.wall, code: None, signal: None, error });
            self.mark(&attempt);
        }
    }

    /// An attempt has ended.
    pub fn ended(&mut self, attempt: RunId, ended: &Ended) {
        if let Some(known) = self.attempts.get_mut(&attempt) {
            known.phase = Phase::Ended(end_of(ended, known.stopping));
            self.mark(&attempt);
        }
    }

    fn mark(&mut self, attempt: &RunId) {
        self.is_to_sweep = true;
        match self.attempts.get(attempt).and_then(|attempt| attempt.job.clone()) {
            Some(job) => drop(self.dirty.insert(job)),
            None => self.dirty.extend(self.jobs.keys().cloned()),
        }
    }

    /// What comes next for the runs of a job; gives back when there is more to do.
    pub(super) fn settle_runs(
        &mut self,
        now: Now,
        key: &JobKey,
        spec: Option<&JobSpec>,
        rng: &mut ChaCha8Rng,
        acts: &mut Vec<Act>,
    ) -> Option<Mono> {
        let open = self.jobs.get(key).map(|job| job.open.clone()).unwrap_or_default();
        let mut due = None;
        for (place, run) in open.iter().enumerate() {
            let is_mine = run.node == Some(self.me);
            let is_orphan = run.node.is_none() && self.jobs.get(key).is_some_and(|job| job.is_held);
            if run.is_waiting() && (is_mine || is_orphan) {
                due = earlier(due, self.settle_next(now, key, run, spec, rng, acts));
            } else if is_mine && !run.is_waiting() {
                let is_alone = !open[..place].iter().any(|other| other.is_replaced);
                due = earlier(due, self.settle_attempt(now, key, run, is_alone, spec, acts));
            }
        }
        due
    }

    /// Attempts of runs that the ledger has closed: they run on, and when they end nobody is to be told.
    pub(super) fn forget_passed_over(&mut self, acts: &mut Vec<Act>) {
        let has_ended = self.attempts.values().any(|attempt| matches!(attempt.phase, Phase::Ended(_)));
        // Before the ledger was heard, nothing is known of what it has closed.
        if !has_ended || self.known == 0 {
            return;
        }
        let current: BTreeSet<RunId> =
            self.jobs.values().flat_map(|job| &job.open).map(|run| attempt_of(run.id, run.fence)).collect();
        let is_over =
            |id: &RunId, attempt: &mut Attempt| matches!(attempt.phase, Phase::Ended(_)) && !current.contains(id);
        let over = self.attempts.extract_if(.., is_over);
        acts.extend(over.map(|(attempt, _)| Act::Acknowledge { attempt }));
    }

    /// The next attempt of a run whose last one failed.
    fn settle_next(
        &mut self,
        now: Now,
        key: &JobKey,
        run: &Run,
        spec: Option<&JobSpec>,
        rng: &mut ChaCha8Rng,
        acts: &mut Vec<Act>,
    ) -> Option<Mono> {
        let session = self.session.id()?;
        let job = self.jobs.get_mut(key)?;
        let pause = match (&run.last_failure, spec) {
            (Some(_), Some(spec)) => spec.policy.retry_pause(run.attempt),
            _ => Duration::ZERO,
        };
        let due = *job.retries.entry(run.id).or_insert_with(|| {
            let hundredths = rng.random_range(100 - JITTER..=100 + JITTER);
            now.mono + pause * u32::try_from(hundredths).unwrap_or(100) / 100
        });
        if due > now.mono {
            return Some(due);
        }
        if job.may_ask(Subject::Run(run.id), now.mono, self.session.answered()) {
            let next = Command::Attempt { job: key.clone(), run: run.id, fence: run.fence, session };
            let topic = Topic::Next(key.clone(), run.id, run.fence, now.mono);
            self.ask_about(key, Subject::Run(run.id), topic, next, acts);
        }
        None
    }

    pub(super) fn granted_next(
        &mut self,
        now: Now,
        asked: Mono,
        key: &JobKey,
        (run, before): (RunId, Fence),
        answer: &Answer,
    ) {
        let me = self.me;
        let Answer::Applied { index, reply: Reply::Granted(fence) } = answer else {
            if matches!(answer, Answer::Unknown)
                && let Some(job) = self.jobs.get_mut(key)
            {
                job.hoped.insert(run, before);
                job.find_grants(me);
            }
            return self.said(now, key, run, answer);
        };
        let round = self.session.next_round();
        let Some(job) = self.heard(key, Subject::Run(run)) else { return };
        job.grants.insert(run, Grant { fence: *fence, at: asked });
        job.retries.remove(&run);
        // A renewal may have told it before; or what is known later is about other runs.
        if *index <= job.upto {
            if job.open.iter().any(|open| open.id == run && open.fence < *fence) {
                job.pending.await_renewal(Subject::Run(run), round);
                self.session.hurry();
            }
            return;
        }
        if let Some(open) = job.open.iter_mut().find(|open| open.id == run) {
            (open.node, open.fence, open.attempt) = (Some(me), *fence, open.attempt + 1);
            (open.last_failure, open.is_started) = (None, false);
        }
        job.upto = job.upto.max(*index);
    }

    fn settle_attempt(
        &mut self,
        now: Now,
        key: &JobKey,
        run: &Run,
        is_alone: bool,
        spec: Option<&JobSpec>,
        acts: &mut Vec<Act>,
    ) -> Option<Mono> {
        let id = attempt_of(run.id, run.fence);
        let job = self.jobs.get(key)?;
        let may_ask = job.may_ask(Subject::Run(run.id), now.mono, self.session.answered());
        let Some(attempt) = self.attempts.get_mut(&id) else {
            let grant = job.grants.get(&run.id).filter(|grant| grant.fence == run.fence).copied();
            let grant = grant.or(bug!(GrantLaunchedAgain).then_some(Grant { fence: run.fence, at: now.mono }));
            match grant {
                Some(grant) if !grant.is_fresh(now.mono) => {
                    self.session.hurry();
                }
                Some(_) if !is_alone && !bug!(ReplacedNotAwaited) => {}
                Some(_) => {
                    self.attempts.insert(
                        id,
                        Attempt { job: Some(key.clone()), phase: Phase::Launching, is_told: false, stopping: None },
                    );
                    acts.push(Act::Launch { job: key.clone(), attempt: id, run: Box::new(run.clone()) });
                }
                // While a question is under way it may be the answer that permits it.
                None if self.is_keeper_known && !job.is_permit_under_way(run.id) => {
                    let error = "its node was away between claim and start".to_owned();
                    let (status, error) = (RunStatus::Lost, Some(error));
                    let end = RunEnd { status, at: now.wall, code: None, signal: None, error };
                    let phase = Phase::Ended(end);
                    self.attempts.insert(id, Attempt { job: Some(key.clone()), phase, is_told: true, stopping: None });
                    return Some(now.mono);
                }
                None => {}
            }
            return None;
        };
        attempt.job.get_or_insert_with(|| key.clone());
        match &attempt.phase {
            Phase::Launching => None,
            Phase::Running { since, at } => {
                let limit = spec
                    .map(|spec| spec.policy.timeout_seconds)
                    .filter(|seconds| *seconds > 0 && !bug!(TimeoutIgnored));
                let timeout = limit.map(|seconds| *since + Duration::from_secs(seconds));
                let status = match timeout {
                    _ if run.is_replaced => Some(RunStatus::Replaced),
                    Some(due) if due <= now.mono => Some(RunStatus::Timeout),
                    _ => None,
                };
                if let Some(status) = status.filter(|_| attempt.stopping.is_none()) {
                    attempt.stopping = Some(status);
                    acts.push(Act::Stop { attempt: id });
                }
                if !attempt.is_told && may_ask {
                    let (job, at) = (key.clone(), *at);
                    let started = Command::Started { job, run: run.id, fence: run.fence, at };
                    let topic = Topic::Started { job: key.clone(), run: run.id, attempt: id };
                    self.ask_about(key, Subject::Run(run.id), topic, started, acts);
                    return timeout;
                }
                timeout.filter(|_| attempt.stopping.is_none())
            }
            Phase::Ended(end) => {
                if may_ask && !bug!(EndNotRecorded) {
                    let again = end.status == RunStatus::Failure;
                    let (job, end) = (key.clone(), end.clone());
                    let ended = Command::Ended { job, run: run.id, fence: run.fence, end, again };
                    self.ask_about(key, Subject::Run(run.id), Topic::Ended(key.clone(), run.id), ended, acts);
                }
                None
            }
        }
    }

    pub(super) fn said_started(&mut self, now: Now, key: &JobKey, run: RunId, attempt: RunId, answer: &Answer) {
        if let Answer::Applied { .. } = answer
            && let Some(known) = self.attempts.get_mut(&attempt)
        {
            known.is_told = true;
        }
        // Nothing here depends on what the ledger makes of it, as long as it takes it.
        if matches!(answer, Answer::Applied { reply: Reply::Done, .. }) {
            self.heard(key, Subject::Run(run));
        } else {
            self.said(now, key, run, answer);
        }
    }

    /// Something was said of a run: what the ledger makes of it is asked for.
    pub(super) fn said(&mut self, now: Now, key: &JobKey, run: RunId, answer: &Answer) {
        let round = self.session.next_round();
        let Some(job) = self.heard(key, Subject::Run(run)) else { return };
        match answer {
            Answer::NotLeader { .. } | Answer::NotAllowed => job.pause = now.mono + ASK_AGAIN,
            Answer::NoSession | Answer::Applied { reply: Reply::Refused(Refused::NoSession), .. } => {
                self.session.lose();
            }
            _ => {
                job.pending.await_renewal(Subject::Run(run), round);
                self.session.hurry();
            }
        }
    }
}

/// How an attempt ended, in the ledger's words.
fn end_of(ended: &Ended, stopping: Option<RunStatus>) -> RunEnd {
    let status = match (stopping, ended.code) {
        (Some(status), _) => status,
        (None, Some(0)) => RunStatus::Success,
        (None, _) => RunStatus::Failure,
    };
    let error = (ended.oom_kills > 0).then(|| "it used up its memory".to_owned());
    RunEnd { status, at: ended.at, code: ended.code, signal: ended.signal, error }
}
