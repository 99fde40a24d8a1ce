//! Who is to hold which lease, and which jobs are deleted. Pure.
//!
//! It goes through all leases when something has changed on which they depend, and remembers which of them have to move; a round in
//! which nothing has changed looks at those alone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clocks::{Clock, Clocks};
use super::presence::Presences;
use super::{PROPOSE_AGAIN, Wanted, Wants, is_to_propose};
use crate::ids::NodeKey;
use crate::ledger::command::{Command, JobKey, LeaseKey, SessionId};
use crate::ledger::machine::Machine;
use crate::time::Mono;

/// How many leases are moved in one round: the 10,000 of a whole cluster within half a second, in batches of some hundred kilobytes.
const GRANTS_MAX: usize = 2_000;

/// How long a spec has to be away before its job is taken for deleted: what this node knows of the catalog may be behind when it
/// begins to lead.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// What is still to be done.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    /// What the leases were last held against.
    seen: Option<Seen>,
    /// When that was.
    scanned: Mono,
    /// Leases that are not where they should be, and when a move was proposed last.
    astray: BTreeMap<LeaseKey, Option<Mono>>,
    /// Jobs without a spec: since when, and when their end was proposed last.
    absent: BTreeMap<JobKey, (Mono, Option<Mono>)>,
}

/// All that it depends on who should hold what. The leases themselves change with every move.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Seen {
    wants: u64,
    sessions: u64,
    closing: usize,
    clocks: u64,
    leases: u64,
}

impl Assignment {
    /// What is to be proposed now.
    pub(super) fn due(
        &mut self,
        now: Mono,
        machine: &Machine,
        wants: &Wants,
        presences: &Presences,
        clocks: &Clocks,
    ) -> Vec<Command> {
        if wants.version == 0 {
            return Vec::new();
        }
        let choice = Choice { machine, presences, clocks };
        let seen = Seen {
            wants: wants.version,
            sessions: machine.sessions_changed(),
            closing: presences.closing(),
            clocks: clocks.version(),
            leases: machine.leases_changed(),
        };
        if self.is_stale(now, &seen) {
            self.scan(now, wants, &choice);
            self.seen = Some(seen);
        }
        let mut commands = self.moves(now, wants, &choice);
        commands.extend(self.retirements(now, machine));
        commands
    }

    /// When all leases were looked at last.
    #[cfg(test)]
    pub(super) fn scanned(&self) -> Mono {
        self.scanned
    }

    /// Whether all leases have to be looked at. While moves are under way, that only the leases have changed says nothing new.
    fn is_stale(&self, now: Mono, seen: &Seen) -> bool {
        let Some(before) = self.seen else { return true };
        let is_other = before != Seen { leases: before.leases, ..*seen };
        let are_moves_over = self.astray.is_empty() || now.since(self.scanned) >= PROPOSE_AGAIN;
        is_other || (before.leases != seen.leases && are_moves_over)
    }

    fn scan(&mut self, now: Mono, wants: &Wants, choice: &Choice<'_>) {
        self.scanned = now;
        let astray = wants.leases.iter().filter(|(lease, wanted)| choice.of(lease, wanted).is_some());
        self.astray = astray.map(|(lease, _)| (lease.clone(), self.astray.get(lease).copied().flatten())).collect();
        let mut absent = BTreeMap::new();
        for job in choice.machine.jobs() {
            if choice.machine.has_spec(job) && !wants.leases.contains_key(&LeaseKey::Cron(job.clone())) {
                absent.insert(job.clone(), self.absent.get(job).copied().unwrap_or((now, None)));
            }
        }
        self.absent = absent;
    }

    /// The next moves. What has arrived meanwhile is astray no more.
    fn moves(&mut self, now: Mono, wants: &Wants, choice: &Choice<'_>) -> Vec<Command> {
        let mut grants = Vec::new();
        self.astray.retain(|lease, proposed| {
            let Some(wanted) = wants.leases.get(lease) else { return false };
            let Some(to) = choice.of(lease, wanted) else { return false };
            if grants.len() < GRANTS_MAX && is_to_propose(proposed, now) {
                let begin = choice.clocks.begin(wanted.begin, now);
                grants.push(Command::Grant { lease: lease.clone(), to, begin });
            }
            true
        });
        grants
    }

    fn retirements(&mut self, now: Mono, machine: &Machine) -> Vec<Command> {
        self.absent.retain(|job, _| machine.has_spec(job));
        let due = self.absent.iter_mut().filter_map(|(job, (since, proposed))| {
            let is_due = now.since(*since) >= ABSENT_FOR && is_to_propose(proposed, now);
            is_due.then(|| Command::Retire { job: job.clone() })
        });
        due.take(GRANTS_MAX).collect()
    }
}

/// Who should hold a lease, by all that is known now.
struct Choice<'a> {
    machine: &'a Machine,
    presences: &'a Presences,
    clocks: &'a Clocks,
}

impl Choice<'_> {
    /// To whom the lease should go; none where it is well where it is.
    fn of(&self, lease: &LeaseKey, wanted: &Wanted) -> Option<Option<SessionId>> {
        let holder = self.machine.holder(lease);
        let best = wanted.nodes.iter().find_map(|node| self.fit(node, holder));
        let is_well = match (lease, holder, best) {
            (_, holder, Some(best)) if holder == Some(best) => true,
            // Its holder has to let go first, or to be lost.
            (LeaseKey::Singleton(_), Some(_), _) => true,
            (_, Some(_), _) if bug!(LeaseNeverMoved) => true,
            (_, _, Some(_)) => false,
            // Nobody is fit for it. Whoever has it keeps it and records what is missed, unless that one cannot tell what time it is.
            (_, Some(holder), None) => {
                self.machine.session(holder).is_none_or(|node| self.clocks.of(&node) != Clock::Off)
            }
            (_, None, None) => true,
        };
        (!is_well).then_some(best)
    }

    /// The session of a node that may hold leases. Before a clock was heard of, it keeps what it has and gets nothing.
    fn fit(&self, node: &NodeKey, holder: Option<SessionId>) -> Option<SessionId> {
        let session = self.machine.session_of(node).filter(|session| self.presences.is_here(*session))?;
        let is_fit = match self.clocks.of(node) {
            Clock::Good => true,
            Clock::Unknown => holder == Some(session),
            Clock::Off => false,
        };
        is_fit.then_some(session)
    }
}
