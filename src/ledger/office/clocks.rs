//! Whose calendar can be trusted: those near the median of the voters'. Pure.
//!
//! A clock is measured against this host's boot clock, which never jumps, so that a step of the leader's own wall clock looks like
//! what it is and not like a step of everybody else's. The way of a renewal makes a clock look slow by as much as it took, which is far
//! below what matters here: one that takes as long as [`OFF`] comes too late for its session anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NodeKey;
use crate::ledger::time::Slot;
use crate::time::{Mono, Wall};

/// How far from the median a clock may be (decisions.md).
const OFF: Duration = Duration::from_secs(2);

/// How near it has to come to be trusted again: without this, one that is off by just so much would lose and get its leases
/// with each renewal.
const NEAR_AGAIN: Duration = Duration::from_secs(1);

/// How long after an office began the voters' clocks are waited for: twice the time from one renewal to the next. Of two that differ nobody
/// can tell which is wrong, and the third one may yet come.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Milliseconds by which a wall clock is ahead of this host's boot clock.
type Lead = i128;

/// What is thought of a node's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// It was not heard of under this leader, or there is nothing to hold it against.
    Unknown,
    /// It is near the median.
    Good,
    /// It is not.
    Off,
}

/// The clocks of all nodes that were heard of.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    measured: BTreeMap<NodeKey, (Lead, Clock)>,
    median: Option<Lead>,
    /// Whether a majority of the voters' clocks agree, or all are known, or were waited for: before that nobody is judged.
    is_settled: bool,
    /// How often anything that is thought of any clock has changed.
    version: u64,
}

impl Clocks {
    /// What a node's wall clock showed.
    pub(super) fn note(&mut self, node: NodeKey, wall: Wall, now: Mono) {
        self.measured.entry(node).or_insert((0, Clock::Unknown)).0 = lead(wall, now);
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, is_here: impl Fn(&NodeKey) -> bool) {
        self.measured.retain(|node, _| is_here(node));
    }

    /// Judges them all by the median of the voters, once a majority of these was heard of; of two in the middle, by the slower one. `term` is how
    /// long this office has lasted.
    pub(super) fn judge(&mut self, voters: &BTreeSet<NodeKey>, term: Duration) {
        let known = voters.iter().filter_map(|voter| self.measured.get(voter)).map(|(lead, _)| *lead);
        let mut leads: Vec<Lead> = known.collect();
        leads.sort_unstable();
        self.median = if leads.len() > voters.len() / 2 { Some(leads[(leads.len() - 1) / 2]) } else { None };
        let is_near = |lead: &&Lead| self.median.is_some_and(|median| distance(**lead, median) <= OFF.as_millis());
        let do_most_agree = leads.iter().filter(is_near).count() > voters.len() / 2;
        self.is_settled = do_most_agree || leads.len() == voters.len() || term >= HEARD_WITHIN;
        if !self.is_settled {
            return;
        }
        let mut is_changed = false;
        for (lead, clock) in self.measured.values_mut() {
            let judged = self.median.map_or(Clock::Unknown, |median| judged(*clock, *lead, median));
            is_changed |= judged != *clock;
            *clock = judged;
        }
        self.version += u64::from(is_changed);
    }

    /// What is thought of a node's clock.
    pub(super) fn of(&self, node: &NodeKey) -> Clock {
        self.measured.get(node).map_or(Clock::Unknown, |(_, clock)| *clock)
    }

    /// Another number whenever anything else is thought of any.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The voters' calendar, by this host's boot clock, so that a step of its own does not move it. None before a majority was heard of: this
    /// host's own clock may be the wrong one.
    pub(super) fn calendar(&self, now: Mono) -> Option<Wall> {
        self.median.and_then(|median| u64::try_from(median + Lead::from(now.0)).ok()).map(Wall)
    }

    /// When the slots of a spec begin that was deployed at `deployed` by the clock of the node that took it. The ledger hears of a spec after that
    /// moment: where that clock was off, and ahead, the present one is as safe, and the spec is not fired later for it. A clock
    /// that is not off is taken at its word, so that no slot is run from before the deploy that it showed.
    pub(super) fn begin(&self, deployed: Slot, now: Mono) -> Slot {
        match self.calendar(now) {
            Some(calendar) if deployed.wall() > calendar.plus(OFF) => Slot::at(calendar),
            _ => deployed,
        }
    }

    /// Whether a clock that shows this is not off, or nothing is known yet to hold it against.
    pub(super) fn is_near_median(&self, wall: Wall, now: Mono) -> bool {
        let is_near = |median| distance(lead(wall, now), median) <= OFF.as_millis();
        !self.is_settled || self.median.is_none_or(is_near)
    }
}

fn judged(before: Clock, lead: Lead, median: Lead) -> Clock {
    let limit = if before == Clock::Off { NEAR_AGAIN } else { OFF };
    if distance(lead, median) <= limit.as_millis() || bug!(ClocksNotJudged) { Clock::Good } else { Clock::Off }
}

fn lead(wall: Wall, now: Mono) -> Lead {
    Lead::from(wall.0) - Lead::from(now.0)
}

fn distance(one: Lead, other: Lead) -> u128 {
    one.abs_diff(other)
}
