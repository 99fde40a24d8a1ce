//! The verdict on what ran: which slot had no run, which had two, and whether what narun says of them is so. Pure.
//!
//! It shares no code with narun and believes nothing that narun says without a stamp: due times are multiples of a period, worked out here;
//! runs are what they have written of themselves (`stamps`); faults are those that the test made (`faults`). What narun says
//! (`history`) is held against these.
//!
//! *Extra* is a run of something that was not due, a second run of a slot, or an attempt that nobody asked for. *Missing* is a slot without
//! a run that narun does not own up to, or for which it had no good reason: a majority and an eligible node were up, and the
//! node that claimed it was well.

pub(crate) mod faults;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use self::faults::Faults;

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
pub(crate) type Millis = u64;

/// How long after a fault things may still be out of order because of it: a session ends, somebody else takes over, who comes
/// back has to be let in again; on a machine that is busy with other things.
const SETTLE_MS: Millis = 15_000;

/// Longest that a cluster with a majority takes to fire what is due: a slot that could be run for so long may not be missed.
const TAKEOVER_MAX_MS: Millis = 20_000;

/// Longest that nobody leads when something befalls the one who does: an end has nobody to be told to.
const LEADERLESS_MAX_MS: Millis = 6_000;

/// How long a run without a word from its node is waited for before it is given up: a node that was faulted before that may have
/// been the reason.
const WORD_MAX_MS: Millis = 30_000;

/// What is to be fired, in the checker's own words.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// A slot every so many seconds, counted from 1970.
    pub(crate) period: u64,
    /// How late a run may start, in seconds.
    pub(crate) deadline: u64,
    /// Whether runs may lie side by side.
    pub(crate) is_concurrent: bool,
    /// Whether a slot is run on each node.
    pub(crate) is_everywhere: bool,
    /// How many attempts a run needs: all but the last one fail.
    pub(crate) attempts: u32,
    /// Whether a run goes to another node when its own is lost.
    pub(crate) is_rerun: bool,
    /// When it was deployed, in seconds: nothing that was due before may run.
    pub(crate) deployed: u64,
    /// Slots in this time are judged, in seconds.
    pub(crate) judged: RangeInclusive<u64>,
}

/// A series of slots: a plan's, or one node's share in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) node: Option<String>,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{} on {node}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What an attempt wrote of itself, outside of narun.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Stamp {
    pub(crate) spec: String,
    /// The slot in its environment, in seconds.
    pub(crate) slot: u64,
    pub(crate) run: String,
    pub(crate) attempt: u32,
    pub(crate) fence: u64,
    pub(crate) node: String,
    pub(crate) start: Millis,
    /// None: it never came to its end.
    pub(crate) end: Option<Millis>,
}

/// What narun says of a run, or of slots without one.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Told {
    Run {
        id: String,
        slot: u64,
        /// Where its last attempt was, as far as is told.
        node: Option<String>,
        status: String,
        ended: Option<Millis>,
        /// What went wrong, in words; empty where nothing did.
        why: String,
    },
    Gap {
        first: u64,
        count: u64,
        /// `missed`, `skipped`, ...
        status: String,
        /// In words; it names the run for which a slot was skipped, or the slot by which it was made good.
        why: String,
    },
}

/// Everything that is known.
#[derive(Default, Debug)]
pub(crate) struct Evidence {
    pub(crate) plans: Vec<Plan>,
    pub(crate) nodes: Vec<String>,
    pub(crate) stamps: Vec<Stamp>,
    pub(crate) told: BTreeMap<Series, Vec<Told>>,
    pub(crate) faults: Faults,
}

/// What came of it.
#[derive(Default, Debug)]
pub(crate) struct Verdict {
    /// Runs that there should not be.
    pub(crate) extra: Vec<String>,
    /// Slots without a run that narun has no good reason for.
    pub(crate) missing: Vec<String>,
    /// What narun says and is not so.
    pub(crate) untrue: Vec<String>,
    /// How many slots were judged, how many had a run, and how many had none by status.
    pub(crate) slots: usize,
    pub(crate) ran: usize,
    pub(crate) without: BTreeMap<String, usize>,
    /// How late first attempts were, in milliseconds, while nothing was faulty and otherwise; sorted.
    pub(crate) late_in_calm: Vec<Millis>,
    pub(crate) late_in_trouble: Vec<Millis>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.extra.is_empty() && self.missing.is_empty() && self.untrue.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots: {} run", self.slots, self.ran)?;
        for (status, count) in &self.without {
            write!(f, ", {count} {status}")?;
        }
        writeln!(f, "; {} extra, {} missing, {} untrue", self.extra.len(), self.missing.len(), self.untrue.len())?;
        for (when, late) in [("calm", &self.late_in_calm), ("trouble", &self.late_in_trouble)] {
            let share = |percent: usize| late.get((late.len() * percent / 100).min(late.len().saturating_sub(1)));
            if let (Some(p50), Some(p99), Some(max)) = (share(50), share(99), late.last()) {
                writeln!(f, "late in {when}: p50 {p50} ms, p99 {p99} ms, at most {max} ms over {} runs", late.len())?;
            }
        }
        for (what, list) in [("extra", &self.extra), ("missing", &self.missing), ("untrue", &self.untrue)] {
            for complaint in list {
                writeln!(f, "{what}: {complaint}")?;
            }
        }
        Ok(())
    }
}

/// Judges.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    fences(evidence, &mut verdict);
    let known: BTreeSet<_> = evidence.plans.iter().map(|plan| plan.name.as_str()).collect();
    for stamp in evidence.stamps.iter().filter(|stamp| !known.contains(stamp.spec.as_str())) {
        verdict.extra.push(format!("a run of `{}`, which nobody deployed", stamp.spec));
    }
    for plan in &evidence.plans {
        let nodes = match plan.is_everywhere {
            true => evidence.nodes.iter().cloned().map(Some).collect(),
            false => vec![None],
        };
        for node in nodes {
            Case::new(evidence, plan, Series { name: plan.name.clone(), node }).judge(&mut verdict);
        }
    }
    verdict.late_in_calm.sort_unstable();
    verdict.late_in_trouble.sort_unstable();
    verdict
}

/// A fence belongs to one attempt, in the whole cluster.
fn fences(evidence: &Evidence, verdict: &mut Verdict) {
    let mut seen: BTreeMap<u64, &Stamp> = BTreeMap::new();
    for stamp in &evidence.stamps {
        if let Some(other) = seen.insert(stamp.fence, stamp) {
            verdict.extra.push(format!("fence {} was given to {} and to {}", stamp.fence, name(other), name(stamp)));
        }
    }
}

fn name(stamp: &Stamp) -> String {
    format!("attempt {} of run {} of `{}` at {} on {}", stamp.attempt, stamp.run, stamp.spec, stamp.slot, stamp.node)
}

/// What is told of a run, see [`Told::Run`].
#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    id: &'a str,
    status: &'a str,
    node: Option<&'a str>,
    ended: Option<Millis>,
    why: &'a str,
}

/// One series with all that is known of it.
struct Case<'a> {
    plan: &'a Plan,
    series: Series,
    faults: &'a Faults,
    /// By slot, and then by run; attempts in the order of their start.
    ran: BTreeMap<u64, BTreeMap<&'a str, Vec<&'a Stamp>>>,
    told: &'a [Told],
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence, plan: &'a Plan, series: Series) -> Self {
        let mut ran: BTreeMap<u64, BTreeMap<&str, Vec<&Stamp>>> = BTreeMap::new();
        let own = evidence.stamps.iter().filter(|stamp| stamp.spec == plan.name);
        for stamp in own.filter(|stamp| series.node.as_ref().is_none_or(|node| *node == stamp.node)) {
            ran.entry(stamp.slot).or_default().entry(&stamp.run).or_default().push(stamp);
        }
        for attempts in ran.values_mut().flat_map(BTreeMap::values_mut) {
            attempts.sort_by_key(|stamp| stamp.start);
        }
        let told = evidence.told.get(&series).map_or(&[][..], Vec::as_slice);
        Self { plan, series, faults: &evidence.faults, ran, told }
    }

    fn judge(&self, verdict: &mut Verdict) {
        for (slot, runs) in &self.ran {
            self.judge_runs(*slot, runs, verdict);
        }
        self.judge_order(verdict);
        let period = self.plan.period;
        let first = self.plan.judged.start().next_multiple_of(period);
        for slot in (first..=*self.plan.judged.end()).step_by(usize::try_from(period).expect("a small number")) {
            verdict.slots += 1;
            match self.ran.get(&slot) {
                Some(_) => verdict.ran += 1,
                None => self.judge_gap(slot, verdict),
            }
        }
    }

    /// A slot that had a run: it was due, there is one run, and narun knows it.
    fn judge_runs(&self, slot: u64, runs: &BTreeMap<&str, Vec<&Stamp>>, verdict: &mut Verdict) {
        let series = &self.series;
        if !slot.is_multiple_of(self.plan.period) {
            verdict.extra.push(format!("{series}: {slot} was never due"));
        }
        if slot < self.plan.deployed {
            verdict.extra.push(format!("{series}: {slot} was due before it was deployed"));
        }
        if runs.len() > 1 {
            verdict.extra.push(format!("{series}: {slot} was run {} times: {:?}", runs.len(), runs.keys()));
        }
        for (run, attempts) in runs {
            self.judge_attempts(slot, run, attempts, verdict);
            if self.plan.judged.contains(&slot) {
                self.judge_record(slot, run, attempts, verdict);
            }
        }
        let first = runs.values().filter_map(|attempts| attempts.first()).map(|stamp| stamp.start).min();
        let Some(first) = first else { return };
        let Some(late) = first.checked_sub(slot * 1_000) else {
            verdict.extra.push(format!("{series}: {slot} was run before it was due, at {first}"));
            return;
        };
        match self.faults.is_calm(slot * 1_000, first, SETTLE_MS) {
            true => verdict.late_in_calm.push(late),
            false => verdict.late_in_trouble.push(late),
        }
    }

    /// Attempts of one run: as many as the plan has, one after the other, each under a greater fence.
    fn judge_attempts(&self, slot: u64, run: &str, attempts: &[&Stamp], verdict: &mut Verdict) {
        let of = format!("{}: run {run} of {slot}", self.series);
        for pair in attempts.windows(2) {
            let [one, next] = pair else { continue };
            if next.attempt <= one.attempt || next.fence <= one.fence {
                verdict.extra.push(format!(
                    "{of}: attempt {} under fence {} came after attempt {} under fence {}",
                    next.attempt, next.fence, one.attempt, one.fence
                ));
            }
            let may_overlap = self.plan.is_rerun || self.was_faulted(one);
            if !may_overlap && one.end.is_none_or(|end| end > next.start) {
                verdict
                    .extra
                    .push(format!("{of}: attempt {} began before attempt {} was over", next.attempt, one.attempt));
            }
        }
        let lost = attempts.iter().filter(|stamp| self.was_faulted(stamp)).count();
        let allowed = self.plan.attempts as usize + if self.plan.is_rerun { lost } else { 0 };
        if attempts.len() > allowed {
            verdict.extra.push(format!("{of}: {} attempts, and {allowed} are allowed", attempts.len()));
        }
    }

    /// What narun says of a run that there was.
    fn judge_record(&self, slot: u64, run: &str, attempts: &[&Stamp], verdict: &mut Verdict) {
        let of = format!("{}: run {run} of {slot}", self.series);
        let records = self.runs_told_of(slot);
        let [Record { id, status, why, .. }] = records[..] else {
            verdict.untrue.push(format!("{of} has {} records: {records:?}", records.len()));
            return;
        };
        if id != run {
            verdict.untrue.push(format!("{of} is told as run {id}"));
        }
        if let Some(gap) = self.gap_told_of(slot) {
            verdict.untrue.push(format!("{of} is told to have been `{}` as well", gap.0));
        }
        let is_whole =
            attempts.len() == self.plan.attempts as usize && attempts.last().is_some_and(|last| last.end.is_some());
        let is_faulted = attempts.iter().any(|stamp| self.was_faulted(stamp));
        match status {
            "success" if attempts.iter().all(|stamp| stamp.end.is_none()) => {
                verdict.untrue.push(format!("{of} is told to have ended well, and never came to its end"));
            }
            "success" => {}
            _ if is_faulted => {}
            _ if is_whole => verdict.untrue.push(format!("{of} has ended well, and is told as `{status}`")),
            _ => verdict.missing.push(format!(
                "{of} was not brought to its end, `{status}` ({why}), and nothing was wrong with its node"
            )),
        }
    }

    /// A slot that had none: narun says so, and why, and that was so.
    fn judge_gap(&self, slot: u64, verdict: &mut Verdict) {
        let of = format!("{}: {slot}", self.series);
        let records = self.runs_told_of(slot);
        if let [Record { id, status, node, ended, why }] = records[..] {
            *verdict.without.entry(status.to_owned()).or_default() += 1;
            let until = ended.unwrap_or(slot * 1_000) + SETTLE_MS;
            let is_faulted = node.is_none_or(|node| self.faults.touched(node, slot * 1_000, until, WORD_MAX_MS));
            match status {
                "lost" | "failure-to-start" | "failure" | "aborted" if is_faulted => {}
                "success" => {
                    verdict.untrue.push(format!("{of} is told to have been run by {id}, which has left no trace"));
                }
                _ => verdict.missing.push(format!("{of} is `{status}` ({why}), and nothing was wrong with {node:?}")),
            }
            return;
        }
        let Some((status, why)) = self.gap_told_of(slot) else {
            verdict.missing.push(match records.len() {
                0 => format!("{of} has neither a run nor a record"),
                count => format!("{of} has no run, and {count} records"),
            });
            return;
        };
        *verdict.without.entry(status.to_owned()).or_default() += 1;
        if let Some(wrong) = self.is_no_reason(slot, status, why) {
            verdict.missing.push(format!("{of} is `{status}` ({why}), but {wrong}"));
        }
    }

    /// Why what narun says of a slot without a run is no reason, if it is none.
    fn is_no_reason(&self, slot: u64, status: &str, why: &str) -> Option<String> {
        let (due, latest) = (slot * 1_000, (slot + self.plan.deadline) * 1_000);
        match status {
            "skipped" if self.plan.is_concurrent => Some("its runs may lie side by side".to_owned()),
            "skipped" => (!self.was_running(due, why)).then(|| "no run that it names was open then".to_owned()),
            "missed" | "caught-up" if self.faults.is_calm(due, latest, SETTLE_MS) => {
                Some("nothing was wrong at that time".to_owned())
            }
            "missed" | "caught-up" => {
                let node = self.series.node.as_deref();
                let longest = self.faults.longest_majority(due, latest, node);
                (longest >= TAKEOVER_MAX_MS).then(|| format!("there was a majority for {longest} ms of its time"))
            }
            _ => Some("that is no reason that this test knows".to_owned()),
        }
    }

    /// Whether a run of an earlier slot that `why` names was open at a moment, or was not known to have ended: something was wrong with its
    /// node, which could not tell, or with the one that it had to tell, and another one is to be found first.
    fn was_running(&self, moment: Millis, why: &str) -> bool {
        self.told.iter().any(|told| {
            let Told::Run { id, slot, ended, node, .. } = told else { return false };
            let was_silent =
                || node.as_deref().is_none_or(|node| self.faults.touched(node, slot * 1_000, moment, WORD_MAX_MS));
            let was_untold =
                |ended| moment - ended <= LEADERLESS_MAX_MS && !self.faults.is_calm(ended, moment, LEADERLESS_MAX_MS);
            let is_open = ended.is_some_and(|ended| ended >= moment || was_untold(ended));
            is_named(id, why) && slot * 1_000 < moment && (is_open || was_silent())
        })
    }

    /// Fences grow with the slots; where runs may not lie side by side, they do not.
    fn judge_order(&self, verdict: &mut Verdict) {
        let runs: Vec<(u64, &Vec<&Stamp>)> =
            self.ran.iter().flat_map(|(slot, runs)| runs.values().map(|attempts| (*slot, attempts))).collect();
        for pair in runs.windows(2) {
            let [(slot, one), (later, next)] = pair else { continue };
            let (Some(first), Some(last), Some(begun)) = (one.first(), one.last(), next.first()) else { continue };
            if slot < later && first.fence >= begun.fence {
                verdict.extra.push(format!(
                    "{}: {later} was claimed under fence {}, before {slot} under {}",
                    self.series, begun.fence, first.fence
                ));
            }
            let is_apart = self.plan.is_concurrent || self.was_faulted(last);
            if !is_apart && last.end.is_none_or(|end| end > begun.start) {
                verdict.extra.push(format!("{}: the run of {later} began while that of {slot} ran", self.series));
            }
        }
    }

    /// Whether something was wrong with the node of an attempt from its slot until its end was told.
    fn was_faulted(&self, stamp: &Stamp) -> bool {
        let until = stamp.end.unwrap_or(stamp.start + WORD_MAX_MS);
        self.faults.touched(&stamp.node, stamp.slot * 1_000, until, WORD_MAX_MS)
    }

    /// All runs that are told of a slot.
    fn runs_told_of(&self, wanted: u64) -> Vec<Record<'_>> {
        let runs = self.told.iter().filter_map(|told| match told {
            Told::Run { id, slot, node, status, ended, why } if *slot == wanted => {
                Some(Record { id, status, node: node.as_deref(), ended: *ended, why })
            }
            Told::Run { .. } | Told::Gap { .. } => None,
        });
        runs.collect()
    }

    /// What is told of a slot that had no run, and why.
    fn gap_told_of(&self, wanted: u64) -> Option<(&str, &str)> {
        self.told.iter().find_map(|told| match told {
            Told::Gap { first, count, status, why } => {
                let is_in = wanted >= *first && wanted < first + count * self.plan.period;
                is_in.then_some((status.as_str(), why.as_str()))
            }
            Told::Run { .. } => None,
        })
    }
}

/// Whether a text names a run, if only by the first digits of its identifier.
fn is_named(id: &str, text: &str) -> bool {
    text.split_whitespace().any(|word| word.len() >= NAME_LEN_MIN && id.starts_with(word))
}

/// So many digits are enough to tell a few thousand runs apart.
const NAME_LEN_MIN: usize = 8;
