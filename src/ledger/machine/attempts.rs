//! What is said of attempts: started, ended, the next one. Pure.
//!
//! A word counts while its fence is that of the run's current attempt, and no longer.

use super::state::Job;
use super::{Entry, Machine};
use crate::ids::RunId;
use crate::ledger::command::{JobKey, Refused, Reply, SessionId};
use crate::ledger::run::{Fence, Run, RunEnd, RunStatus};
use crate::time::Wall;

impl Machine {
    /// The current attempt was started.
    pub(super) fn started(
        &mut self,
        entry: Entry,
        key: &JobKey,
        run: RunId,
        fence: Fence,
        at: Wall,
    ) -> Result<Reply, Refused> {
        let job = self.job(key)?;
        let position = job.current(&run, fence).ok_or(Refused::PassedOver)?;
        let run = &job.open[position];
        // Its node was lost, and what it starts now is the attempt that somebody else is to make.
        if run.node.is_none() && run.last_failure.is_none() {
            return Err(Refused::PassedOver);
        }
        let is_started = !run.is_waiting();
        if run.is_started != is_started || run.started.is_none() {
            self.change(entry, key, |job| {
                let run = &mut job.open[position];
                run.is_started = is_started;
                run.started.get_or_insert(at);
            });
        }
        Ok(Reply::Done)
    }

    /// The current attempt has ended.
    pub(super) fn ended(
        &mut self,
        entry: Entry,
        key: &JobKey,
        run: RunId,
        fence: Fence,
        end: &RunEnd,
        again: bool,
    ) -> Result<Reply, Refused> {
        let job = self.job(key)?;
        let end = end.shortened();
        let Some(position) = job.current(&run, fence) else {
            let is_said = |run: &Run| run.fence == fence && run.end.as_ref() == Some(&end);
            let is_known = job.ended.iter().any(|ended| ended.id == run && is_said(ended));
            return if is_known { Ok(Reply::Done) } else { Err(Refused::PassedOver) };
        };
        let is_followed = again && job.may_follow(&job.open[position], &end);
        if is_followed && job.open[position].last_failure.is_some() {
            return Ok(Reply::Done);
        }
        self.change(entry, key, |job| match is_followed {
            true => job.await_next(position, end),
            false => job.finish(position, end),
        });
        Ok(Reply::Done)
    }

    /// Somebody makes the next attempt.
    pub(super) fn attempt(
        &mut self,
        entry: Entry,
        key: &JobKey,
        run: RunId,
        fence: Fence,
        session: SessionId,
    ) -> Result<Reply, Refused> {
        let node = self.node_of(session)?;
        let job = self.job(key)?;
        let position = job.current(&run, fence).ok_or(Refused::PassedOver)?;
        let run = &job.open[position];
        let is_own = run.node.map_or(job.holder == Some(session), |own| own == node);
        if !is_own {
            return Err(Refused::NotHolder);
        }
        if !run.is_waiting() {
            return Err(Refused::NotEnded);
        }
        // A run without attempts left does not wait for one; only a snapshot from elsewhere could say otherwise.
        if run.attempt >= run.attempts_allowed() {
            return Err(Refused::NoAttemptLeft);
        }
        let fence = if bug!(RetryUnderOldFence) { fence } else { Fence(entry.index) };
        self.change(entry, key, |job| {
            let run = &mut job.open[position];
            run.node = Some(node);
            run.fence = fence;
            run.attempt += 1;
            run.claimed = entry.time;
            run.last_failure = None;
        });
        Ok(Reply::Granted(fence))
    }
}

impl Job {
    /// Whether another attempt may follow one that ended like this.
    fn may_follow(&self, run: &Run, end: &RunEnd) -> bool {
        end.status != RunStatus::Success && run.has_attempt_left() && self.retired.is_none()
    }

    fn await_next(&mut self, position: usize, end: RunEnd) {
        let run = &mut self.open[position];
        run.last_failure = Some(end);
        (run.is_started, run.orphaned) = (false, None);
    }
}
