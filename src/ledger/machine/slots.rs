//! Which slot has a run: the heart of the ledger. Pure.

use super::state::Job;
use super::{Entry, Machine};
use crate::ids::{NodeKey, RunId};
use crate::ledger::command::{Claim, Decide, JobKey, Refused, Reply};
use crate::ledger::question::Asked;
use crate::ledger::run::{Fence, Gap, GapReason, Overlap, RunStatus, Trigger};
use crate::ledger::time::Slot;
use crate::time::Wall;

/// How many gaps one command may name: slots in a row that were missed for one reason are one gap, and reasons change seldom.
const GAPS_MAX: usize = 256;

/// How many runs of one job may be open, under `concurrencyPolicy: allow` and `replace`; a slot beyond that is skipped. One that is due each
/// minute gets there if it takes an hour, and then it only gets worse.
const OPEN_MAX: usize = 64;

/// How many requests for runs of one job may wait: people make them one by one.
const ASKED_MAX: usize = 32;

impl Machine {
    /// The holder decides slots.
    pub(super) fn decide(&mut self, entry: Entry, decide: &Decide) -> Result<Reply, Refused> {
        let node = self.node_of(decide.session)?;
        let job = self.job(&decide.job)?;
        if job.holder != Some(decide.session) && !bug!(LeaseNotTakenAway) {
            return Err(Refused::NotHolder);
        }
        if job.cursor != decide.cursor && !bug!(CursorIgnored) {
            return Err(Refused::Cursor(job.cursor));
        }
        job.check(decide)?;
        self.change(entry, &decide.job, |job| job.decide(entry, decide, node)).ok_or(Refused::NoJob)
    }

    /// Somebody asks for a run out of turn.
    pub(super) fn ask(&mut self, entry: Entry, key: &JobKey, request: [u8; 16], at: Wall) -> Result<Reply, Refused> {
        let job = self.job(key)?;
        if job.retired.is_some() {
            return Err(Refused::NoJob);
        }
        let is_waiting = job.asked.iter().any(|asked| asked.request == request);
        let is_taken = job.runs().any(|run| run.trigger == Trigger::Asked(request));
        if is_waiting || is_taken {
            return Ok(Reply::Done);
        }
        if job.asked.len() >= ASKED_MAX {
            return Err(Refused::Full);
        }
        self.change(entry, key, |job| job.asked.push(Asked { request, at }));
        Ok(Reply::Done)
    }
}

impl Job {
    /// Whether what is to be decided makes sense: slots in order after the cursor, and none left out before `upto`.
    fn check(&self, decide: &Decide) -> Result<(), Refused> {
        if decide.gaps.len() > GAPS_MAX {
            return Err(Refused::Malformed);
        }
        let mut last = if bug!(CursorIgnored) { decide.cursor } else { self.cursor };
        for gap in &decide.gaps {
            let slots = gap.last.0.saturating_sub(gap.first.0).saturating_add(1);
            let is_sound = gap.first > last && gap.last >= gap.first && (1..=slots).contains(&gap.count);
            if !is_sound {
                return Err(Refused::Malformed);
            }
            last = gap.last;
        }
        let is_sound = match &decide.claim {
            Some(claim) => self.is_sound(claim, last, decide.upto),
            None => !decide.gaps.is_empty() && decide.upto == last,
        };
        if is_sound { Ok(()) } else { Err(Refused::Malformed) }
    }

    fn is_sound(&self, claim: &Claim, last: Slot, upto: Slot) -> bool {
        let is_new = bug!(CursorIgnored) || self.runs().all(|run| run.id != claim.run);
        let is_for = match claim.trigger {
            Trigger::Slot(slot) => slot > last && slot == upto,
            Trigger::Asked(request) => upto == last && self.asked.iter().any(|asked| asked.request == request),
        };
        is_new && is_for && claim.attempts_max > 0
    }

    /// Decides, after all was checked.
    fn decide(&mut self, entry: Entry, decide: &Decide, node: NodeKey) -> Reply {
        for gap in &decide.gaps {
            self.record_gap(gap.clone());
            self.cursor = gap.last;
        }
        let Some(claim) = &decide.claim else { return Reply::Done };
        self.limit_history(claim.history_limit);
        let reply = match self.in_the_way(entry, claim.overlap) {
            Some(open) => self.skip(claim, open),
            None => self.claim(entry, claim, node),
        };
        if !bug!(CaughtUpTwice) || decide.gaps.is_empty() {
            self.cursor = decide.upto;
        }
        reply
    }

    /// The open run for which there can be no other now. Those that are to be replaced are told to end, and are not in the way.
    fn in_the_way(&mut self, entry: Entry, overlap: Overlap) -> Option<RunId> {
        if overlap == Overlap::Replace {
            self.give_up_waiting(entry, RunStatus::Replaced);
            for run in &mut self.open {
                run.is_replaced = true;
            }
        }
        let has_room = (overlap != Overlap::Skip || bug!(SkipIgnored)) && self.open.len() < OPEN_MAX;
        self.open.first().filter(|_| !has_room).map(|run| run.id)
    }

    /// A slot is skipped for good; a request waits for its turn.
    fn skip(&mut self, claim: &Claim, open: RunId) -> Reply {
        if let Trigger::Slot(slot) = claim.trigger {
            self.record_gap(Gap { first: slot, last: slot, count: 1, reason: GapReason::Skipped(open) });
        }
        Reply::Skipped(open)
    }

    fn claim(&mut self, entry: Entry, claim: &Claim, node: NodeKey) -> Reply {
        if let Trigger::Asked(request) = claim.trigger {
            self.asked.retain(|asked| asked.request != request);
        }
        let fence = Fence(if bug!(FenceReused) { entry.index & !7 } else { entry.index });
        self.open.push(claim.granted(fence, node, entry.time));
        Reply::Granted(fence)
    }
}
