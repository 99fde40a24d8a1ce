//! What really happened in a trial: programs that ran, and what was done to hosts and network. None of it is narun's own word.

use std::collections::BTreeSet;

use crate::ids::RunId;
use crate::ledger::command::JobKey;
use crate::ledger::run::Run;
use crate::time::Wall;

/// Milliseconds since a trial began.
pub(super) type Moment = u64;

/// The whole of it, in the order in which it happened.
#[derive(Default)]
pub(super) struct Book {
    pub(super) starts: Vec<Start>,
    pub(super) troubles: Vec<Trouble>,
    /// Which host lost its power when, and with it what its keeper held of programs that had ended.
    pub(super) power_cuts: Vec<(usize, Moment)>,
    /// Who votes, whenever that was found to be another set than before.
    pub(super) voters: Vec<(Moment, BTreeSet<usize>)>,
    /// Who led, whenever that was found to be another one than before.
    pub(super) leaders: Vec<(Moment, usize)>,
    /// How many members there were, whenever that changed.
    pub(super) members: Vec<(Moment, usize)>,
    /// How often each kind of fault was made.
    pub(super) faults: std::collections::BTreeMap<&'static str, u64>,
    /// What must not happen, and was seen on the spot.
    pub(super) wrongs: Vec<String>,
}

/// A program that was started.
pub(super) struct Start {
    pub(super) job: JobKey,
    /// What the node was granted: the run, the attempt and its fence.
    pub(super) run: Run,
    /// What the keeper calls it.
    pub(super) attempt: RunId,
    pub(super) host: usize,
    pub(super) at: Moment,
    pub(super) end: Option<End>,
}

/// How a program ended.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) at: Moment,
    /// By the clock of its host.
    pub(super) wall: Wall,
    pub(super) code: Option<i32>,
    pub(super) cause: Cause,
}

/// Why a program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// It was done.
    Itself,
    /// Its node stopped it.
    Stopped,
    /// Its host lost its power.
    Power,
}

/// Something was done to hosts or to the network.
pub(super) struct Trouble {
    pub(super) of: Of,
    pub(super) from: Moment,
    pub(super) until: Moment,
}

/// What was in trouble.
pub(super) enum Of {
    /// A host: it was down, stood still, had a slow disk or a wrong clock.
    Host(usize),
    /// Ways from one host to another.
    Ways(BTreeSet<(usize, usize)>),
    /// Everything that was sent.
    Weather,
    /// A calendar. That of a leader says what is due, and when the ledger has given up a run.
    Clock,
}

impl Trouble {
    /// Whether some of it was between these moments.
    pub(super) fn is_in(&self, from: Moment, until: Moment) -> bool {
        self.from <= until && self.until >= from
    }
}

impl Book {
    pub(super) fn trouble(&mut self, of: Of, from: Moment, until: Moment) {
        self.troubles.push(Trouble { of, from, until });
    }

    /// A fault was made.
    pub(super) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// What is seen of who votes.
    pub(super) fn see_voters(&mut self, at: Moment, voters: BTreeSet<usize>) {
        if self.voters.last().is_none_or(|(_, before)| *before != voters) {
            self.voters.push((at, voters));
        }
    }
}
