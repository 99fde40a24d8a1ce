//! Whole towns on trial, in simulated time: real duties over a real ledger, on a network, disks and keepers that a seed maltreats.
//!
//! `town` is who lives there, `faults` and `leaning` what is done to them, `book` what really happened, and `checker` holds that against what was
//! promised. One seed feeds all of it: the same one is the same life, to the last message. A life goes: nodes start, users deploy their
//! jobs, faults come, all is well again; then everything is looked at.
//!
//! A seed that fails says how to live it again: `NARUN_TRIAL_SEED`. `NARUN_TRIAL_TELL` prints what is done, `NARUN_TRIAL_SLOTS` says how
//! many slots are tried.

// Figures are for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod book;
mod catalog;
mod checker;
pub(in crate::ledger) mod fabric;
mod faults;
mod host;
mod keeper;
mod leaning;
mod tests;
mod town;

use self::book::Moment;
use self::checker::{Evidence, Verdict};
use self::leaning::Leaning;
use self::town::Town;
use super::bugs::{Bug, Switch};
use super::raft::runtime::scope;
use crate::ids::NodeKey;
use crate::time::Wall;

/// The calendar's time at the beginning of every trial, in milliseconds.
const EPOCH: Wall = Wall(1_800_000_000_000);

/// The longest pause of a disk to which nothing was done, in microseconds.
const DISK_PAUSE_US: u64 = 2_000;

/// How long a host may take to hear of what users have changed, in milliseconds.
const VIEW_LAG: Moment = 15_000;

/// A host's key.
fn node(number: usize) -> NodeKey {
    NodeKey([u8::try_from(number + 1).expect("a small town"); 32])
}

/// What a trial is like.
#[derive(Clone, Copy, Debug)]
struct Terms {
    seed: u64,
    members: usize,
    jobs: usize,
    /// How long it takes, in milliseconds, the calm at the end not counted.
    lasts: Moment,
    /// How long all is calm then, in milliseconds: longer than any deadline, and than whatever follows upon a fault.
    calm_at_end: Moment,
    /// How long nothing is done between two faults, in milliseconds.
    calm_ms: (Moment, Moment),
    snapshot_every: u64,
    leaning: Leaning,
}

impl Terms {
    /// Those of a seed.
    fn of(seed: u64) -> Self {
        let place = |of: u64| usize::try_from(seed / of).expect("a small number");
        let members = [3, 3, 5, 5, 5, 6][place(1) % 6];
        let calm_ms = [(200, 6_000), (1_000, 12_000), (5_000, 25_000)][place(6) % 3];
        Self {
            seed,
            members,
            jobs: 40,
            lasts: 180_000,
            calm_at_end: 60_000,
            calm_ms,
            snapshot_every: 300 + 100 * (seed % 5),
            leaning: Leaning::Nowhere,
        }
        .leaning_to(Leaning::of(seed))
    }

    /// Shorter and smaller ones, in which most goes wrong that can.
    fn brief(seed: u64, leaning: Leaning) -> Self {
        let members = if seed % 3 == 2 { 5 } else { 3 };
        // What a life is drawn towards shall have something to meet.
        let jobs = if leaning == Leaning::Nowhere { 10 } else { 20 };
        let (lasts, calm_ms) = (leaning.lasts(), (200, 4_000));
        Self { members, jobs, lasts, calm_at_end: 45_000, calm_ms, ..Self::of(seed) }.leaning_to(leaning)
    }

    /// The same, drawn towards something.
    fn leaning_to(self, leaning: Leaning) -> Self {
        Self { leaning, calm_ms: leaning.calm_ms().unwrap_or(self.calm_ms), ..self }
    }
}

/// What a trial came to.
struct Outcome {
    verdict: Verdict,
    /// All messages, starts and ends, in one number.
    trace: String,
    faults: std::collections::BTreeMap<&'static str, u64>,
    /// Milliseconds of simulated time.
    lasted: Moment,
}

/// Lives one life, with a bug or without.
fn live(terms: Terms, bug: Option<Bug>) -> Outcome {
    let _switch = Switch::on(bug);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without threads");
    runtime.block_on(scope(terms.seed, async {
        let mut town = Town::found(terms).await;
        town.live_until(terms.lasts).await;
        town.calm_down().await;
        town.live_until(terms.lasts + terms.calm_at_end).await;
        let machines = town.settled_machines().await;
        let (trace, lasted) = (town.trace(), town.now());
        let (verdict, faults) = {
            let book = town.lock();
            let (catalog, hosts) = (&town.catalog, town.hosts.len());
            let evidence = Evidence { book: &book, catalog, machines: &machines, hosts, end: lasted };
            (checker::check(&evidence), book.faults.clone())
        };
        town.end().await;
        Outcome { verdict, trace, faults, lasted }
    }))
}
