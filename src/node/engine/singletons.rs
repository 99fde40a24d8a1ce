//! Services with `singleton: true`: one instance at most, under a lease of the ledger. Pure.
//!
//! Who holds the lease for sure runs the instance, nobody else does. The keeper kills it when the lease is over, unless this node has put
//! that off after a renewal: so it ends in time even where the node hangs, is dead, or is cut off. The next holder gets the lease
//! when the session of the last one is over, half a second after that at least, or when it was let go of, after the instance has gone.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::Engine;
use super::effect::Effect;
use super::known::Known;
use super::out::Out;
use super::placement::Seat;
use super::services::Service;
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::command::LeaseKey;
use crate::ledger::run::Fence;
use crate::time::Mono;

/// What was done about singletons last.
#[derive(Debug, Default)]
pub(super) struct Singletons {
    /// Those that were held for sure.
    held: BTreeSet<ServiceName>,
    /// Until when the keeper was told that leases go on.
    told: Option<Mono>,
    /// Runs of an earlier life of this process, which are to end before this one has a session: with it, their lease goes to anybody.
    former: BTreeSet<RunId>,
}

impl Singletons {
    /// The keeper holds a run that was started under a lease of an earlier life.
    pub(super) fn found(&mut self, run: RunId) {
        self.former.insert(run);
    }

    /// A run is over.
    pub(super) fn ended(&mut self, run: &RunId) {
        self.former.remove(run);
    }

    /// The keeper is lost, and all that it held.
    pub(super) fn lost(&mut self) {
        self.former.clear();
    }

    /// Whether something of an earlier life is still to end.
    pub(super) fn waits(&self) -> bool {
        !self.former.is_empty()
    }
}

impl Engine {
    /// Until when this node may run a singleton, and with which fence; none where it may not.
    pub(super) fn lease_of(&self, name: &ServiceName) -> Option<(Mono, Fence)> {
        let lease = LeaseKey::Singleton(name.clone());
        let fence = *self.jobs.duty().singletons().get(&lease)?;
        let until = self.jobs.duty().sure_until().filter(|until| *until > self.now.mono)?;
        self.leases.is_wanted(&lease, &self.me).then_some((until, fence))
    }

    /// The one seat of a singleton: here, if this node holds the lease, else where it is said to run.
    pub(super) fn singleton_seats(&self, service: &Service) -> Vec<Seat> {
        let node = match self.lease_of(&service.name) {
            Some(_) => Some(self.me),
            None => running_elsewhere(&self.known, &service.name, &self.me),
        };
        let name = node.and_then(|node| self.name_of(&node)).cloned();
        vec![Seat { index: 0, name, node, withheld: None }]
    }

    /// Looks again at services whose lease has come or gone.
    pub(super) fn look_at_singletons(&mut self) {
        let held: BTreeSet<ServiceName> = {
            let names = self.jobs.duty().singletons().keys().filter_map(|lease| match lease {
                LeaseKey::Singleton(name) => Some(name),
                LeaseKey::Cron(_) => None,
            });
            names.filter(|name| self.lease_of(name).is_some()).cloned().collect()
        };
        if held != self.singletons.held {
            self.dirty.services.extend(held.symmetric_difference(&self.singletons.held).cloned());
            self.singletons.held = held;
        }
    }

    /// Tells the keeper how long leases go on, and lets go of those that are to be another node's.
    pub(super) fn settle_singletons(&mut self, out: &mut Out) {
        let sure = self.jobs.duty().sure_until();
        if self.singletons.told != sure {
            self.singletons.told = sure;
            let runs = self.singletons.held.iter().flat_map(|name| self.instances.runs_of(name));
            for run in runs {
                out.act_all(sure.map(|until| Effect::Extend { run, until }));
            }
        }
        let leases: Vec<LeaseKey> = self.jobs.duty().singletons().keys().cloned().collect();
        for lease in leases {
            let LeaseKey::Singleton(name) = &lease else { continue };
            if !self.leases.is_wanted(&lease, &self.me) && !self.instances.has(name) {
                self.release(&lease, out);
            }
        }
    }

    /// When a lease is not sure any more.
    pub(super) fn singletons_deadline(&self) -> Option<Mono> {
        self.jobs.duty().sure_until().filter(|until| !self.singletons.held.is_empty() && *until > self.now.mono)
    }
}

fn running_elsewhere(known: &Known, name: &ServiceName, me: &NodeKey) -> Option<NodeKey> {
    let reports = known.reports(name).filter(|(node, _)| *node != me);
    reports.filter(|(_, report)| report.instances.iter().any(|one| one.pid.is_some())).map(|(node, _)| *node).next()
}
