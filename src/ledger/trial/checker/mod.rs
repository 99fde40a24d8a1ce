//! Holds what really happened against what was promised, and against what the ledger says at the end.
//!
//! What happened is the book's: programs that ran, and what was done to hosts and ways. Of narun's own words only the last are looked
//! at: what every machine says when all is calm again.

mod calm;
mod ends;
mod slots;
mod starts;

use std::collections::{BTreeMap, BTreeSet};

use super::EPOCH;
use super::book::{Book, Moment, Start};
use super::catalog::{Catalog, Job};
use crate::ids::RunId;
use crate::ledger::machine::Machine;
use crate::ledger::question::Account;
use crate::ledger::run::Run;
use crate::ledger::time::Slot;

/// All that is known when a trial is over.
pub(super) struct Evidence<'a> {
    pub(super) book: &'a Book,
    pub(super) catalog: &'a Catalog,
    /// Of every voter.
    pub(super) machines: &'a [(usize, Machine)],
    pub(super) hosts: usize,
    pub(super) end: Moment,
}

/// What a trial has shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// Promises that were broken.
    pub(super) wrongs: Vec<String>,
    /// Slots that were decided; those that had a run; those for which a run in time was promised, whatever happened elsewhere.
    pub(super) slots: u64,
    pub(super) runs: u64,
    pub(super) promised: u64,
    /// Runs that are recorded as lost, and programs that were started.
    pub(super) lost: u64,
    pub(super) starts: u64,
    /// Slots within ten seconds of a fault.
    pub(super) near: u64,
}

impl Verdict {
    /// Adds another one's figures.
    pub(super) fn add(&mut self, other: &Self) {
        self.slots += other.slots;
        self.runs += other.runs;
        self.promised += other.promised;
        self.lost += other.lost;
        self.starts += other.starts;
        self.near += other.near;
    }
}

/// One job, with all that is known of it.
struct Case<'a> {
    evidence: &'a Evidence<'a>,
    job: &'a Job,
    account: &'a Account,
    /// Its starts, in the order in which they happened.
    starts: Vec<&'a Start>,
    runs: BTreeMap<RunId, &'a Run>,
}

/// When a slot is due.
fn due(slot: Slot) -> Moment {
    slot.wall().0.saturating_sub(EPOCH.0)
}

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict { wrongs: evidence.book.wrongs.clone(), ..Verdict::default() };
    check_group(evidence, &mut verdict.wrongs);
    let Some((_, machine)) = evidence.machines.first() else {
        verdict.wrongs.push("nobody leads when all is calm".into());
        return verdict;
    };
    starts::check_fences(evidence.book, &mut verdict.wrongs);
    for job in &evidence.catalog.jobs {
        let Some(account) = machine.account(&job.key) else {
            verdict.wrongs.push(format!("{}: the ledger does not know it", job.key.name));
            continue;
        };
        let starts = evidence.book.starts.iter().filter(|start| start.job == job.key).collect();
        let runs = account.runs.iter().map(|run| (run.id, run)).collect();
        let case = Case { evidence, job, account: &account, starts, runs };
        let mut wrongs = Vec::new();
        starts::check(&case, &mut wrongs);
        ends::check(&case, &mut wrongs);
        slots::check(&case, &mut verdict, &mut wrongs);
        verdict.wrongs.extend(wrongs.into_iter().map(|wrong| format!("{}: {wrong}", job.key.name)));
    }
    verdict
}

/// All machines are the same, and no failure has made the majority smaller.
fn check_group(evidence: &Evidence<'_>, wrongs: &mut Vec<String>) {
    for ((one, first), (other, next)) in evidence.machines.iter().zip(evidence.machines.iter().skip(1)) {
        if first != next {
            let applied = (first.applied(), next.applied());
            wrongs.push(format!("voters {one} and {other} have different machines, after entries {applied:?}"));
        }
    }
    let members = &evidence.book.members;
    for ((_, before), (at, after)) in evidence.book.voters.iter().zip(evidence.book.voters.iter().skip(1)) {
        let left = members.windows(2).any(|pair| pair[1].1 < pair[0].1 && pair[1].0 <= *at);
        // While one set follows another, both are seen together.
        let is_joint = before.len() % 2 == 0;
        if after.len() < before.len() && !left && !is_joint {
            wrongs.push(format!("at {at} the voters became fewer, though no member had left: {before:?}, {after:?}"));
        }
    }
}

impl Case<'_> {
    /// The host of a node.
    fn host(&self, node: crate::ids::NodeKey) -> Option<usize> {
        (0..self.evidence.hosts).find(|host| super::node(*host) == node)
    }

    /// Hosts that were wanted for the job all the time between two moments, if nothing of it was changed.
    fn wanted(&self, from: Moment, until: Moment) -> BTreeSet<usize> {
        let mut wanted: Option<BTreeSet<usize>> = None;
        for (number, chapter) in self.job.chapters.iter().enumerate() {
            let next = self.job.chapters.get(number + 1).map_or(Moment::MAX, |next| next.from);
            if chapter.from <= until && next > from {
                let nodes: BTreeSet<usize> = chapter.nodes.iter().copied().collect();
                wanted = Some(wanted.map_or(nodes.clone(), |wanted| &wanted & &nodes));
            }
        }
        wanted.unwrap_or_default()
    }

    /// Whether anything of the job was changed between two moments.
    fn is_changed(&self, from: Moment, until: Moment) -> bool {
        self.job.chapters.iter().any(|chapter| (from..=until).contains(&chapter.from))
    }
}
