//! What a node is told of.

use super::*;

/// What a node knows by what it was told, as it asks again and again.
#[derive(Default, PartialEq, Debug)]
pub(super) struct Listener {
    pub(super) known: u64,
    pub(super) jobs: std::collections::BTreeMap<JobKey, Concern>,
    pub(super) singletons: std::collections::BTreeSet<LeaseKey>,
}

impl Listener {
    /// Hears what is new.
    pub(super) fn listen(&mut self, machine: &Machine, node: &NodeKey) {
        let concerns = machine.concerns(node, self.known);
        if concerns.is_whole {
            *self = Self::default();
        }
        self.known = concerns.upto;
        self.jobs.extend(concerns.jobs.into_iter().map(|concern| (concern.job.clone(), concern)));
        self.singletons.extend(concerns.singletons);
        for lease in concerns.gone {
            match lease {
                LeaseKey::Cron(job) => drop(self.jobs.remove(&job)),
                LeaseKey::Singleton(_) => drop(self.singletons.remove(&lease)),
            }
        }
    }
}

#[test]
fn a_holder_is_told_of_its_job_once() {
    let (mut log, job) = (Log::default(), job("backup"));
    log.holder(1, &job);
    let first = log.machine.concerns(&node(1), 0);
    assert!(first.is_whole);
    assert_eq!((first.jobs.len(), first.jobs[0].is_held, first.jobs[0].cursor), (1, true, BEGIN));
    let second = log.machine.concerns(&node(1), first.upto);
    assert_eq!((second.is_whole, second.jobs.len()), (false, 0));
    log.ask(&job, 1);
    assert_eq!(log.machine.concerns(&node(1), first.upto).jobs.len(), 1);
}

#[test]
fn a_job_is_its_runner_s_concern_until_the_run_ends() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    let fence = log.start(&job, session, claim(101, 1));
    let known = log.machine.applied();
    log.holder(2, &job);
    let passed = log.machine.concerns(&node(1), known);
    assert_eq!((passed.jobs.len(), passed.jobs[0].is_held, passed.gone.len()), (1, false, 0));
    log.ended(&job, run_id(1), fence, RunStatus::Success, false);
    let over = log.machine.concerns(&node(1), passed.upto);
    assert_eq!((over.jobs.len(), over.gone), (0, vec![LeaseKey::Cron(job)]));
}

#[test]
fn singletons_come_and_go() {
    let mut log = Log::default();
    let (session, lease, mut listener) = (log.open(1), singleton("db"), Listener::default());
    listener.listen(&log.machine, &node(1));
    log.give(Command::Grant { lease: lease.clone(), to: Some(session), begin: BEGIN });
    listener.listen(&log.machine, &node(1));
    assert_eq!(listener.singletons, [lease.clone()].into());
    log.give(Command::Release { lease, session });
    listener.listen(&log.machine, &node(1));
    assert_eq!(listener.singletons, [].into());
}

#[test]
fn who_lost_too_much_is_told_the_whole() {
    let mut log = Log::default();
    let session = log.open(1);
    let jobs: Vec<JobKey> = (0..1_100).map(|number| job(&format!("job-{number}"))).collect();
    jobs.iter().for_each(|job| assert_eq!(log.grant(job, session), Reply::Done));
    let known = log.machine.applied();
    for job in &jobs[..1_000] {
        log.give(Command::Release { lease: LeaseKey::Cron(job.clone()), session });
    }
    let some = log.machine.concerns(&node(1), known);
    assert_eq!((some.is_whole, some.gone.len(), some.jobs.len()), (false, 1_000, 0));
    for job in &jobs[1_000..1_090] {
        log.give(Command::Release { lease: LeaseKey::Cron(job.clone()), session });
    }
    let all = log.machine.concerns(&node(1), known);
    assert_eq!((all.is_whole, all.gone.len(), all.jobs.len()), (true, 0, 10));
    let rest = log.machine.concerns(&node(1), some.upto);
    assert_eq!((rest.is_whole, rest.gone.len(), rest.jobs.len()), (false, 90, 0));
}

#[test]
fn who_knows_more_than_this_machine_is_told_nothing() {
    let (mut log, job) = (Log::default(), job("backup"));
    log.holder(1, &job);
    let concerns = log.machine.concerns(&node(1), 999);
    assert_eq!((concerns.upto, concerns.is_whole, concerns.jobs.len()), (log.machine.applied(), false, 0));
}

#[test]
fn a_node_that_left_for_good_is_not_remembered() {
    let (mut log, job) = (Log::default(), job("backup"));
    let session = log.holder(1, &job);
    log.start(&job, session, claim(101, 1));
    log.close(session);
    assert!(log.machine.index.watches.contains_key(&node(1)));
    log.pass(ORPHAN_GRACE);
    assert!(log.machine.index.watches.is_empty());
    assert!(log.machine.concerns(&node(1), 1).is_whole);
}
