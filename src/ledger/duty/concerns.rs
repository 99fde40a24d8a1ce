//! What renewals say of the jobs that concern this node. Pure.

use std::collections::BTreeSet;

use super::{Duty, Job};
use crate::ledger::command::{JobKey, LeaseKey};
use crate::ledger::question::{Concern, Concerns};
use crate::ledger::run::Fence;
use crate::time::Mono;

impl Duty {
    /// What concerns this node has changed.
    pub(super) fn take(&mut self, asked: Mono, concerns: Concerns) {
        if concerns.is_whole {
            let told: BTreeSet<&JobKey> = concerns.jobs.iter().map(|concern| &concern.job).collect();
            let gone: Vec<JobKey> = self.jobs.keys().filter(|key| !told.contains(key)).cloned().collect();
            for key in gone {
                self.drop_job(&key, concerns.upto);
            }
            self.singletons.clear();
        }
        for lease in concerns.gone {
            match lease {
                LeaseKey::Cron(key) => self.drop_job(&key, concerns.upto),
                LeaseKey::Singleton(_) => {
                    self.singletons.remove(&lease);
                }
            }
        }
        for lease in concerns.singletons {
            // It was given at this index or before, and whoever gets it next gets it later.
            self.singletons.entry(lease).or_insert(Fence(concerns.upto));
        }
        for concern in concerns.jobs {
            self.take_job(concern, concerns.upto);
        }
        self.calm_down(asked, concerns.upto);
        (self.known, self.is_to_sweep) = (concerns.upto, true);
    }

    /// A renewal that was asked for at `asked` said all up to `upto`, of jobs that did not change, too.
    fn calm_down(&mut self, asked: Mono, upto: u64) {
        let (answered, next) = (self.session.answered(), self.session.next_round());
        for key in std::mem::take(&mut self.restless) {
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            if job.upto > upto {
                // This was said before what this node has heard since: the next renewal says more.
                if job.pending.put_off(answered, next) {
                    self.session.hurry();
                }
            } else {
                // What is granted stood when this was asked, and what did not change is known to be as it was.
                for grant in job.grants.values_mut() {
                    grant.at = grant.at.max(asked);
                }
                if job.pending.forget_told(answered) || !job.grants.is_empty() {
                    self.dirty.insert(key.clone());
                }
            }
            if !(job.pending.is_empty(answered) && job.grants.is_empty()) {
                self.restless.insert(key);
            }
        }
    }

    fn take_job(&mut self, concern: Concern, upto: u64) {
        let key = concern.job;
        self.dirty.insert(key.clone());
        let job = self.jobs.entry(key.clone()).or_default();
        // This was said before what this node has heard since.
        if upto < job.upto {
            return;
        }
        job.upto = upto;
        (job.is_held, job.cursor) = (concern.is_held, concern.cursor);
        (job.open, job.asked) = (concern.open, concern.asked);
        job.find_grants(self.me);
        if !job.grants.is_empty() {
            self.restless.insert(key.clone());
        }
        job.grants.retain(|run, _| job.open.iter().any(|open| open.id == *run));
        job.retries.retain(|run, _| job.open.iter().any(|open| open.id == *run));
        job.hoped.retain(|run, _| job.open.iter().any(|open| open.id == *run));
    }

    /// A job is not this node's concern any more; what it still runs of it ends when it ends. A claim that is under way may be granted all
    /// the same, and then nobody else carries it out: until that is known, the job is not forgotten.
    fn drop_job(&mut self, key: &JobKey, upto: u64) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.upto <= upto) else { return };
        self.dirty.insert(key.clone());
        if !job.pending.is_empty(self.session.answered()) {
            (job.is_held, job.upto) = (false, upto);
            job.open.clear();
            job.asked.clear();
        } else {
            self.jobs.remove(key);
        }
    }

    /// Forgets a job that is nobody's concern here, once what was asked about it is answered.
    pub(super) fn forget_if_dropped(&mut self, key: &JobKey) {
        let answered = self.session.answered();
        let is_over = |job: &Job| !job.is_held && job.open.is_empty() && job.pending.is_empty(answered);
        if self.jobs.get(key).is_some_and(is_over) {
            self.jobs.remove(key);
        }
    }
}
