//! Every slot of a cron spec has one fate, the ledger knows it, and what ran outside agrees.
//!
//! The ledger's account is held against the stamps that attempts left outside it, and against what the world was like: a slot may have been
//! missed only where nobody could have run it, and a run may be lost only where its node was in trouble.

use std::collections::BTreeMap;
use std::time::Duration;

use narun::ledger::command::JobKey;
use narun::ledger::question::{Account, Answer, Question};
use narun::ledger::run::{GapReason, Run, RunStatus, Trigger};
use narun::ledger::time::Slot;
use narun::spec::{CatchUp, CronScope};
use narun::time::Wall;

use crate::calm::is_drained;
use crate::stamps::Stamp;
use crate::wish::Deployment;
use crate::world::World;

/// How old an open run may be: longer than any pretend program takes, with its retries.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// How far the last slot that was decided may lie behind the clock.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// How long around its slot a node must have been well for a lost run to be narun's fault.
const TROUBLE: Duration = Duration::from_secs(10);

/// How long a voter that does not lead may take to hear of a claim that was granted: an idle leader speaks to it far more often.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// A spec that was deployed, and is there.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// What was asked for.
    pub(crate) deployment: Deployment,
    /// A slot at every so many seconds.
    pub(crate) every: u64,
    /// The clock of the node that took it, when it was asked and when it had answered.
    pub(crate) taken: (Wall, Wall),
    /// Whether it may be suspended; at the audit, whether it is.
    pub(crate) is_suspended: bool,
}

/// What became of slots, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Slots that were looked at.
    pub(crate) slots: u64,
    /// Of these: due within ten seconds of a fault.
    pub(crate) near: u64,
    /// Of these: with a run that ended as it should, or failed by itself.
    pub(crate) ran: u64,
    /// With a run of which nobody knows what became.
    pub(crate) lost: u64,
    /// Without a run: nobody could claim them in time.
    pub(crate) missed: u64,
    /// Without a run: an earlier one was open.
    pub(crate) skipped: u64,
    /// Without a run: the spec was suspended.
    pub(crate) suspended: u64,
}

impl Tally {
    /// Both together.
    pub(crate) fn add(&mut self, other: Tally) {
        self.slots += other.slots;
        self.near += other.near;
        self.ran += other.ran;
        self.lost += other.lost;
        self.missed += other.missed;
        self.skipped += other.skipped;
        self.suspended += other.suspended;
    }
}

/// What the ledger says of a job, asked at a host.
pub(crate) async fn account(world: &mut World, host: usize, job: JobKey) -> Option<Account> {
    let ledger = world.hosts[host].running.as_ref()?.ledger.clone()?;
    let asked = tokio::spawn(async move { ledger.ask(Question::History { job }).await });
    match world.answer(asked).await {
        Answer::History(account) => account,
        other => panic!("n{host} was asked for a history and answered {other:?}"),
    }
}

/// Holds all accounts of `specs` against the world. Everything was healed and quiet for a while.
pub(crate) async fn audit(world: &mut World, specs: &[Spec]) -> Tally {
    let mut tally = Tally::default();
    for spec in specs {
        let scope = spec.deployment.cron.as_ref().map(|cron| cron.scope).unwrap_or_default();
        let series: Vec<Option<usize>> = match scope {
            CronScope::Cluster => vec![None],
            CronScope::Node => world.up().into_iter().map(Some).collect(),
        };
        for host in series {
            let name = spec.deployment.service.clone();
            let job = JobKey { name: name.clone(), node: host.map(|host| world.hosts[host].key) };
            let asked = *world.up().first().expect("the world was healed");
            let at = world.stamps.now();
            let account = account(world, asked, job).await;
            if account.is_none() && host.is_some_and(|host| is_drained(world, host)) {
                continue;
            }
            let Some(account) = account else {
                panic!("the ledger knows nothing of `{name}` at {host:?}");
            };
            match (Audit { world, spec, host, at, account: &account }.run()) {
                Ok(series) => tally.add(series),
                Err(text) => panic!("`{name}` at {host:?}: {text}\n{:#?}", account.gaps),
            }
        }
    }
    tally
}

struct Audit<'a> {
    world: &'a World,
    spec: &'a Spec,
    host: Option<usize>,
    /// When the account was asked for, since the world began: it need not tell of what was claimed since.
    at: Duration,
    account: &'a Account,
}

enum Fate<'a> {
    Run(&'a Run),
    Gap(GapReason),
}

impl Audit<'_> {
    fn run(&self) -> Result<Tally, String> {
        let fates = self.fates()?;
        let Some(first) = fates.keys().next().copied() else {
            // One that was suspended before its first slot, whose slots are written down now and then; or of a node that has been drained since.
            let is_drained = self.host.is_some_and(|host| is_drained(self.world, host));
            let may_be_silent = self.spec.is_suspended || is_drained;
            return if may_be_silent { Ok(Tally::default()) } else { Err("no slot is on record".to_owned()) };
        };
        let begin = Slot(self.spec.taken.1.0 / 1_000 / self.spec.every * self.spec.every + self.spec.every);
        // A node that was not there yet, or not eligible, has no slots before it came.
        if self.host.is_none() && first > begin {
            return Err(format!("the first slot on record is {first}, and {begin} should be"));
        }
        self.is_up_to_date()?;
        self.stamps_are_on_record(&fates)?;
        let mut tally = Tally::default();
        let mut slot = first;
        while slot <= self.account.cursor {
            match fates.get(&slot) {
                Some(fate) => self.look(slot, fate, &mut tally).map_err(|text| format!("{slot}: {text}"))?,
                // Before the deploy nothing was due. A node with a slow clock that made up a majority's time runs some of these slots all the same; one
                // that is drained and comes back begins with the deploy.
                None if self.host.is_some() && slot < begin => {}
                None => return Err(format!("{slot} has no record")),
            }
            slot = Slot(slot.0 + self.spec.every);
        }
        Ok(tally)
    }

    fn fates(&self) -> Result<BTreeMap<Slot, Fate<'_>>, String> {
        let every = self.spec.every;
        let mut fates = BTreeMap::new();
        for run in &self.account.runs {
            let Trigger::Slot(slot) = run.trigger else { continue };
            if slot.0 % every != 0 || fates.insert(slot, Fate::Run(run)).is_some() {
                return Err(format!("{slot} has a run too many: {run:?}"));
            }
        }
        for gap in &self.account.gaps {
            let slots = (gap.first.0..=gap.last.0).filter(|slot| slot % every == 0).map(Slot);
            if slots.clone().count() as u64 != gap.count {
                return Err(format!("a gap is miscounted: {gap:?}"));
            }
            for slot in slots {
                if fates.insert(slot, Fate::Gap(gap.reason)).is_some() {
                    return Err(format!("{slot} has two fates, one of them {gap:?}"));
                }
            }
        }
        Ok(fates)
    }

    fn is_up_to_date(&self) -> Result<(), String> {
        // Where nobody may be given anything to run, nobody decides either, until somebody may.
        let may_run = |host: usize| !is_drained(self.world, host) && self.host.is_none_or(|only| only == host);
        if self.spec.is_suspended || !self.world.up().into_iter().any(may_run) {
            return Ok(());
        }
        // All clocks but the wrong ones.
        let mut clocks: Vec<Wall> = self.world.up().iter().map(|host| self.world.hosts[*host].clock.wall()).collect();
        clocks.sort_unstable();
        let now = clocks[(clocks.len() - 1) / 2];
        let is_wrong = self.host.is_some_and(|host| {
            let own = self.world.hosts[host].clock.wall();
            own.since(now).max(now.since(own)) > Duration::from_secs(1)
        });
        let behind = now.since(self.account.cursor.wall());
        // What is caught up slot by slot, each after the one before, may never be done with it.
        let backlog = self.backlog().unwrap_or_default();
        if !is_wrong && behind > backlog + BEHIND_MAX + Duration::from_secs(self.spec.every) {
            return Err(format!("its slots are decided up to {}, {behind:?} ago", self.account.cursor));
        }
        match self.account.runs.iter().find(|run| run.end.is_none() && now.since(run.scheduled) > OPEN_MAX) {
            Some(run) if !is_wrong => Err(format!("an old run is open: {run:?}")),
            _ => Ok(()),
        }
    }

    /// How far back missed slots are caught up, where all of them are.
    fn backlog(&self) -> Option<Duration> {
        match self.spec.deployment.cron.as_ref()?.policy.catch_up {
            CatchUp::All { window_seconds } => Some(Duration::from_secs(window_seconds)),
            CatchUp::Latest | CatchUp::None => None,
        }
    }

    fn stamps(&self) -> impl Iterator<Item = Stamp> {
        let name = self.host.map(|host| self.world.hosts[host].name.to_string());
        let stamps = self.world.stamps.of(&self.spec.deployment.service);
        stamps.into_iter().filter(move |stamp| name.as_ref().is_none_or(|name| *name == stamp.host))
    }

    fn stamps_are_on_record(&self, fates: &BTreeMap<Slot, Fate>) -> Result<(), String> {
        for stamp in self.stamps() {
            match fates.get(&stamp.slot) {
                Some(Fate::Run(run)) if run.id.to_string() == stamp.run => {}
                Some(Fate::Run(run)) => return Err(format!("{stamp:?} ran, and {run:?} is on record")),
                Some(Fate::Gap(reason)) => return Err(format!("{stamp:?} ran, and {reason:?} is on record")),
                None if stamp.began + TOLD_WITHIN < self.at => {
                    return Err(format!("{stamp:?} ran, and nothing is on record"));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn look(&self, slot: Slot, fate: &Fate, tally: &mut Tally) -> Result<(), String> {
        tally.slots += 1;
        tally.near += u64::from(self.world.calm.is_near_fault(slot));
        let deadline = self.spec.deployment.cron.as_ref().map_or(0, |cron| cron.policy.starting_deadline_seconds);
        let deadline = Duration::from_secs(deadline);
        let service = &self.spec.deployment.service;
        match fate {
            Fate::Gap(GapReason::Missed | GapReason::CaughtUp(_)) => {
                tally.missed += 1;
                // Behind a backlog a slot may come too late by its own.
                let is_due = self.backlog().is_none();
                if is_due && self.world.calm.was(service, slot, self.host, Duration::ZERO, deadline) {
                    return Err("missed, although all that it takes was there until its deadline".to_owned());
                }
            }
            Fate::Gap(GapReason::Skipped(run)) => {
                tally.skipped += 1;
                if !self.account.runs.iter().any(|known| known.id == *run) {
                    return Err(format!("skipped for {run}, which nobody knows"));
                }
            }
            Fate::Gap(GapReason::Suspended) => tally.suspended += 1,
            Fate::Run(run) => {
                let was_started = self.stamps().any(|stamp| stamp.run == run.id.to_string());
                let status = run.end.as_ref().map(|end| end.status);
                let is_lost = status == Some(RunStatus::Lost);
                (tally.lost, tally.ran) = (tally.lost + u64::from(is_lost), tally.ran + u64::from(!is_lost));
                let host = self.world.hosts.iter().position(|host| Some(host.key) == run.node);
                // What is caught up, or tried again, starts later. What never started may have been claimed as late as it was given up.
                let begun = run.started.or(run.end.as_ref().map(|end| end.at));
                let started = begun.map_or(Duration::ZERO, |at| at.since(run.scheduled)).max(deadline);
                if is_lost && self.world.calm.was(service, slot, host, TROUBLE, started + TROUBLE) {
                    return Err(format!("lost, although its node was well: {run:?}"));
                }
                let needs_start = match status {
                    Some(RunStatus::Success | RunStatus::Failure | RunStatus::Timeout) => true,
                    // One whose node was lost may be replaced while it waits for another.
                    Some(RunStatus::Replaced) => run.reruns == 0,
                    _ => false,
                };
                if needs_start && !was_started {
                    return Err(format!("on record as {status:?}, and nothing was ever started: {run:?}"));
                }
            }
        }
        Ok(())
    }
}
