//! Cron specs on this node: its duty to the ledger, and its runs beside the keeper. Pure.
//!
//! `ledger::duty` decides what is asked and what is run; here its words become effects, and those of the ledger and the keeper become its
//! inputs. Each attempt takes a *lane*, the lowest free index of its spec on this node, so that it has a log and a working directory as
//! an instance has: one after the other the runs of a spec are in lane 0, and only those that overlap need more.

mod attempts;
mod firing;
mod own;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::Engine;
use super::effect::Effect;
use super::input::LedgerEvent;
use super::out::Out;
use super::services::Service;
use super::view::OwnRun;
use crate::ids::{NodeKey, ServiceName};
use crate::ledger::command::LeaseKey;
use crate::ledger::duty::{Act, Duty, JobSpec, Specs};
use crate::ledger::question::Standing;
use crate::ledger::time::Slot;
use crate::spec::RunMode;
use crate::time::{Mono, Now, Wall};

use attempts::Attempts;
use firing::Firing;
use own::Own;

/// How often the duty may be settled in one turn. Each time but the first follows from an attempt that could not be started.
const ROUNDS_MAX: usize = 16;

/// This node's part in what cron specs do.
#[derive(Debug)]
pub(super) struct Jobs {
    duty: Duty,
    specs: Table,
    attempts: Attempts,
    own: Own,
    /// Who votes and who leads, as it was heard last.
    standing: Standing,
    firing: Firing,
    /// The wall clock against the boot clock, in milliseconds, as the duty's alarms are set by it.
    offset: Option<i128>,
}

/// Cron specs by name, as they are carried out.
#[derive(Debug, Default)]
struct Table(BTreeMap<ServiceName, JobSpec>);

impl Specs for Table {
    fn job(&self, name: &ServiceName) -> Option<&JobSpec> {
        self.0.get(name)
    }
}

/// How far the two clocks may drift apart before it counts as a step of the wall clock, in milliseconds.
const STEP_MIN: i128 = 100;

impl Jobs {
    /// In this life of the node's process.
    pub(super) fn new(me: NodeKey, life: u64, now: Mono) -> Self {
        Self {
            duty: Duty::new(me, life),
            specs: Table::default(),
            attempts: Attempts::default(),
            own: Own::default(),
            standing: Standing::default(),
            firing: Firing::new(now),
            offset: None,
        }
    }

    /// What this node does for the ledger.
    pub(super) fn duty(&self) -> &Duty {
        &self.duty
    }

    /// What this process knows of this node's runs of a spec, in no order.
    pub(super) fn own_runs(&self, cron: &ServiceName) -> Vec<OwnRun> {
        self.own.of(cron, &self.duty)
    }

    /// Takes over what a spec asks for now; none where it is no cron spec, or not there.
    pub(super) fn set_spec(&mut self, name: &ServiceName, service: Option<&Service>) {
        match service.and_then(spec_of) {
            Some(spec) => drop(self.specs.0.insert(name.clone(), spec)),
            None if self.specs.0.remove(name).is_none() => return,
            None => {}
        }
        self.duty.spec_changed(name);
    }

    /// The only voter, where there is one.
    pub(super) fn only_voter(&self) -> Option<NodeKey> {
        match self.standing.voters[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        [self.duty.next_deadline(), self.attempts.next_deadline(), self.firing.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn look_at_clock(&mut self, now: Now) {
        let offset = i128::from(now.wall.0) - i128::from(now.mono.0);
        // A slow drift adds up: it is measured against what the alarms were set by.
        if self.offset.is_some_and(|before| (before - offset).abs() < STEP_MIN) {
            return;
        }
        if self.offset.replace(offset).is_some() {
            self.duty.clock_stepped();
        }
    }
}

/// A cron spec as it is carried out.
fn spec_of(service: &Service) -> Option<JobSpec> {
    let RunMode::Cron(cron) = &service.current.spec.mode else { return None };
    // Every part of a stored specification was checked when it was read.
    let schedule = cron.slots(service.name.as_str()).ok()?;
    let mut policy = cron.policy;
    policy.suspend = service.current.is_suspended();
    let suspended_until = service.resumed_at().map_or(Slot(0), Slot::at);
    Some(JobSpec { schedule, policy, revision: service.current.id, suspended_until })
}

impl Engine {
    pub(super) fn apply_ledger(&mut self, event: LedgerEvent) {
        match event {
            LedgerEvent::Answered { id, answer } => {
                self.jobs.firing.heard(self.now, &answer);
                self.jobs.duty.answered(self.now, id, answer);
            }
            LedgerEvent::Standing(standing) => {
                self.jobs.standing = standing;
                self.dirty.problems = true;
            }
        }
    }

    /// A node that cannot run anything holds no lease: its session ends if that lasts. And none begins while something runs under a lease
    /// of the last one.
    pub(super) fn may_ask_ledger(&self) -> bool {
        self.instances.is_known() && !self.singletons.waits()
    }

    /// Asks, launches and stops what is due.
    pub(super) fn settle_jobs(&mut self, out: &mut Out) {
        if self.jobs.firing.settle(self.now.mono) {
            self.dirty.problems = true;
        }
        if !self.may_ask_ledger() {
            return;
        }
        self.jobs.look_at_clock(self.now);
        for _ in 0..ROUNDS_MAX {
            let acts = self.jobs.duty.settle(self.now, &self.jobs.specs, &mut self.rng);
            for act in acts {
                self.carry_out(act, out);
            }
            if !self.launch_waiting(out) {
                break;
            }
        }
        if self.jobs.attempts.take_new_waiting() {
            self.dirty.copies = true;
        }
        self.jobs.attempts.kill_overdue(self.now.mono, out);
    }

    /// Lets go of a lease.
    pub(super) fn release(&mut self, lease: &LeaseKey, out: &mut Out) {
        if let Some(act) = self.jobs.duty.release(lease) {
            self.carry_out(act, out);
        }
    }

    /// Nothing is asked of the ledger any more but to give this node's leases to others.
    pub(super) fn close_session(&mut self, out: &mut Out) {
        if let Some(act) = self.jobs.duty.close() {
            self.carry_out(act, out);
        }
    }

    fn carry_out(&mut self, act: Act, out: &mut Out) {
        match act {
            Act::Ask { id, question } => out.act(Effect::AskLedger { id, question }),
            Act::Launch { job, attempt, run } => {
                self.jobs.own.begun(job.name.clone(), attempt, &run);
                self.jobs.attempts.begin(self.now.mono, job.name, attempt, run);
            }
            Act::Stop { attempt } => self.jobs.attempts.stop(self.now.mono, attempt, out),
            Act::Acknowledge { attempt } => {
                self.jobs.attempts.forget(attempt);
                out.act(Effect::Acknowledge { run: attempt });
            }
        }
    }

    /// Why no slot fires from this node, since when, and what to do about it; none while it has nothing to fire either.
    pub(super) fn why_nothing_fires(&self) -> Option<(String, &'static str)> {
        let since: Wall = self.jobs.firing.silent_since(self.now).filter(|_| !self.jobs.specs.0.is_empty())?;
        let voters = &self.jobs.standing.voters;
        let is_away = |node: &&NodeKey| **node != self.me && !self.cluster.connected().contains(*node);
        let name = |node: &NodeKey| self.name_of(node).map_or_else(|| node.short(), ToString::to_string);
        let away: Vec<String> = voters.iter().filter(is_away).map(name).collect();
        let cause = match (voters.is_empty(), away.is_empty()) {
            (true, _) => "no voter of the ledger was found yet".to_owned(),
            (false, true) => "its voters have no leader yet".to_owned(),
            (false, false) if away.len() * 2 >= voters.len() => {
                format!("{} of its {} voters are out of reach: {}", away.len(), voters.len(), away.join(", "))
            }
            (false, false) => format!("its leader does not answer; out of reach: {}", away.join(", ")),
        };
        let text = format!("no cron slot fires from this node: the ledger has not answered since {since}: {cause}");
        let hint = "slots wait for a majority of the voters and are caught up by their policy; services run on; bring the voters back, \
                    or see `narun ledger recover --help` if they are lost for good";
        Some((text, hint))
    }
}
