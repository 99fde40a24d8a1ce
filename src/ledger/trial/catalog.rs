//! What users asked for in a trial: jobs, changed and deleted on the way, and who may have them. Each host hears of it in its own time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::EPOCH;
use super::book::Moment;
use super::keeper::Habit;
use crate::crdt::document::RevisionId;
use crate::ids::ServiceName;
use crate::ledger::command::{JobKey, LeaseKey};
use crate::ledger::duty::{JobSpec, Specs};
use crate::ledger::office::{Wanted, Wants};
use crate::ledger::time::Slot;
use crate::spec::schedule::{Schedule, Zone};
use crate::spec::{CatchUp, Concurrency, CronPolicy, OnNodeLoss};

/// How much history is kept: more than a trial makes, so that the checker sees all of it.
const HISTORY_LIMIT: u32 = 1_000;

/// The catalog as one host knows it.
#[derive(Default)]
pub(super) struct View {
    pub(super) version: u64,
    specs: BTreeMap<ServiceName, JobSpec>,
    pub(super) habits: BTreeMap<ServiceName, Habit>,
    pub(super) wants: Arc<Wants>,
}

impl Specs for View {
    fn job(&self, name: &ServiceName) -> Option<&JobSpec> {
        self.specs.get(name)
    }
}

/// The truth.
pub(super) struct Catalog {
    pub(super) jobs: Vec<Job>,
    version: u64,
}

/// A job, and all that it ever was.
pub(super) struct Job {
    pub(super) key: JobKey,
    habit: Habit,
    pub(super) chapters: Vec<Chapter>,
    /// The order in which hosts are wanted for it.
    order: Vec<usize>,
    begin: Slot,
}

/// What a job was from one moment to the next.
#[derive(Clone)]
pub(super) struct Chapter {
    pub(super) from: Moment,
    /// None: it was deleted.
    pub(super) spec: Option<JobSpec>,
    /// Who is wanted for it.
    pub(super) nodes: Vec<usize>,
}

impl Job {
    /// What it is now.
    pub(super) fn now(&self) -> &Chapter {
        self.chapters.last().expect("a job has a chapter")
    }

    /// Its specification of a revision.
    pub(super) fn revision(&self, revision: RevisionId) -> Option<&JobSpec> {
        self.chapters.iter().filter_map(|chapter| chapter.spec.as_ref()).find(|spec| spec.revision == revision)
    }
}

fn policy(random: &mut StdRng, is_long: bool) -> CronPolicy {
    let catch_up = match random.random_range(0..10) {
        0..4 => CatchUp::Latest,
        4..8 => CatchUp::None,
        _ => CatchUp::All { window_seconds: 20 },
    };
    CronPolicy {
        concurrency: match random.random_range(0..4) {
            0 => Concurrency::Allow,
            1 => Concurrency::Replace,
            _ => Concurrency::Skip,
        },
        catch_up,
        starting_deadline_seconds: random.random_range(15..30),
        on_node_loss: if random.random_range(0..10) < 4 { OnNodeLoss::Rerun } else { OnNodeLoss::Fail },
        suspend: false,
        history_limit: HISTORY_LIMIT,
        max_retries: random.random_range(0..3),
        retry_backoff_seconds: 1,
        timeout_seconds: if is_long { [0, 4][random.random_range(0..2)] } else { 0 },
    }
}

fn schedule(random: &mut StdRng) -> Schedule {
    let every = [1, 1, 2, 2, 3, 5][random.random_range(0..6)];
    let expression = format!("*/{every} * * * * *");
    Schedule::parse(&expression, Zone::UTC, "job").expect("it is an expression")
}

/// The second that a moment lies in.
pub(super) fn slot_of(moment: Moment) -> Slot {
    Slot::at(EPOCH.plus(Duration::from_millis(moment)))
}

impl Catalog {
    pub(super) fn new(jobs: usize, hosts: usize, random: &mut StdRng) -> Self {
        let job = |number: usize| {
            let is_long = random.random_range(0..10) < 3;
            let runs_for = if is_long { 500..14_000 } else { 20..500 };
            let failures = [0, 0, 10, 40][random.random_range(0..4)];
            let revision = RevisionId { number: 1, hash: [0; 4] };
            let policy = policy(random, is_long);
            let spec = JobSpec { schedule: schedule(random), policy, revision, suspended_until: Slot(0) };
            let name = ServiceName::new(&format!("job-{number}")).expect("it is a name");
            Job {
                key: JobKey { name, node: None },
                habit: Habit { runs_for, failures },
                chapters: vec![Chapter { from: 0, spec: Some(spec), nodes: Vec::new() }],
                order: (0..hosts).map(|turn| (number + turn) % hosts).collect(),
                begin: Slot::at(EPOCH),
            }
        };
        Self { jobs: (0..jobs).map(job).collect(), version: 0 }
    }

    /// All jobs are deployed.
    pub(super) fn deploy(&mut self, now: Moment) {
        for job in &mut self.jobs {
            job.begin = slot_of(now);
            job.chapters[0].from = now;
        }
    }

    /// A job is changed, or deleted, or deployed again, from now on.
    pub(super) fn change(&mut self, number: usize, now: Moment, spec: Option<JobSpec>) {
        let job = &mut self.jobs[number];
        // A revision changes nothing about when its job began.
        if spec.is_some() && job.now().spec.is_none() {
            job.begin = slot_of(now);
        }
        let nodes = job.now().nodes.clone();
        job.chapters.push(Chapter { from: now, spec, nodes });
    }

    /// The next revision of a job.
    pub(super) fn revised(&self, number: usize, random: &mut StdRng) -> JobSpec {
        let job = &self.jobs[number];
        let last = job.chapters.iter().rev().find_map(|chapter| chapter.spec.as_ref()).expect("it was deployed once");
        let revision = RevisionId { number: last.revision.number + 1, hash: [0; 4] };
        let is_long = job.habit.runs_for.end > 1_000;
        let schedule = if random.random_range(0..3) == 0 { schedule(random) } else { last.schedule.clone() };
        JobSpec { schedule, policy: policy(random, is_long), revision, suspended_until: Slot(0) }
    }

    /// Who may have which job has changed, or the jobs themselves have: what every host is to hear.
    pub(super) fn publish(&mut self, now: Moment, may_have: impl Fn(usize, usize) -> bool) -> Arc<View> {
        self.version += 1;
        let mut view = View { version: self.version, ..View::default() };
        let mut wants = Wants { version: self.version, leases: BTreeMap::new() };
        for (number, job) in self.jobs.iter_mut().enumerate() {
            let nodes: Vec<usize> = job.order.iter().copied().filter(|host| may_have(number, *host)).collect();
            let last = job.chapters.last_mut().expect("a job has a chapter");
            if last.nodes != nodes {
                if last.from == now {
                    last.nodes = nodes;
                } else {
                    let spec = last.spec.clone();
                    job.chapters.push(Chapter { from: now, spec, nodes });
                }
            }
            let Chapter { spec, nodes, .. } = job.now();
            if let Some(spec) = spec {
                view.specs.insert(job.key.name.clone(), spec.clone());
                let wanted = Wanted { nodes: nodes.iter().map(|host| super::node(*host)).collect(), begin: job.begin };
                wants.leases.insert(LeaseKey::Cron(job.key.clone()), wanted);
            }
            view.habits.insert(job.key.name.clone(), job.habit.clone());
        }
        view.wants = Arc::new(wants);
        Arc::new(view)
    }
}
