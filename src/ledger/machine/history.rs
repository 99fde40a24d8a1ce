//! What is remembered of a job's runs and slots. Pure.

use super::Entry;
use super::state::Job;
use crate::ledger::run::{Gap, RunEnd, RunStatus};

/// How many ended runs and how many gaps one job may keep, whatever its claims ask for: the greatest `historyLimit` that a spec may have.
const HISTORY_MAX: u32 = 1_000;

impl Job {
    /// An open run has ended.
    pub(super) fn finish(&mut self, position: usize, end: RunEnd) {
        let mut run = self.open.remove(position);
        if end.status == RunStatus::Success {
            self.last_success = Some(run.id);
        }
        (run.orphaned, run.last_failure) = (None, None);
        run.end = Some(end);
        self.ended.push_back(run);
        self.cut();
    }

    /// The ledger itself ends an open run, of which nobody says anything more.
    pub(super) fn give_up(&mut self, entry: Entry, position: usize, status: RunStatus) {
        self.finish(position, RunEnd { status, at: entry.wall, code: None, signal: None, error: None });
    }

    /// Ends all runs of which no attempt is under way.
    pub(super) fn give_up_waiting(&mut self, entry: Entry, status: RunStatus) {
        while let Some(position) = self.open.iter().position(|run| run.is_waiting()) {
            self.give_up(entry, position, status);
        }
    }

    /// Slots had no run. What follows upon the last gap, for the same reason, is one gap with it.
    pub(super) fn record_gap(&mut self, gap: Gap) {
        if bug!(GapsDropped) {
            return;
        }
        match self.gaps.back_mut() {
            Some(last) if last.last == self.cursor && last.reason == gap.reason => {
                last.last = gap.last;
                last.count = last.count.saturating_add(gap.count);
            }
            _ => self.gaps.push_back(gap),
        }
        self.cut();
    }

    /// How much is remembered from now on: at least the last of each, so that nothing is ended without a record.
    pub(super) fn limit_history(&mut self, limit: u32) {
        self.history_limit = limit.clamp(1, HISTORY_MAX);
        self.cut();
    }

    fn cut(&mut self) {
        let limit = self.history_limit as usize;
        self.ended.drain(..self.ended.len().saturating_sub(limit));
        self.gaps.drain(..self.gaps.len().saturating_sub(limit));
    }
}
