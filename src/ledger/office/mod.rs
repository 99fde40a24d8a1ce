//! What a leader does beside the log: how long sessions live, who gets which lease, what the time is. Pure.
//!
//! Nothing of it is agreed upon, and nothing of it has to be: an office that is wrong delays runs and moves leases for no reason,
//! but what it proposes goes through the log like all else, and no slot has two runs for it.
//!
//! Each node that becomes leader begins a new one. `presence` is who was heard of, `clocks` whose calendar can be trusted, and
//! `assignment` who gets which lease, and which jobs there are.

mod assignment;
mod clocks;
mod presence;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::assignment::Assignment;
use self::clocks::Clocks;
use self::presence::Presences;
use super::command::{Command, LeaseKey, SessionId};
use super::machine::Machine;
use super::time::{LedgerTime, Slot};
use crate::ids::NodeKey;
use crate::time::{Mono, Now, Wall};

pub use self::presence::SESSION_TTL;

/// How far ahead of the leader's clock a slot may be when it is decided: as far as a node's clock may be off that holds leases.
pub const EARLY_MAX: Duration = Duration::from_secs(2);

/// After how long something is proposed again that was not applied: a busy disk commits in less, and what is applied twice does nothing.
const PROPOSE_AGAIN: Duration = Duration::from_secs(1);

/// How many jobs are forgotten in one round: they are in nobody's way.
const FORGETS_MAX: usize = 500;

/// Who is wanted where, as the engine works it out from catalog and roster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// Another one for every other content; 0 while nothing is known: then no lease is moved, and no job taken for deleted.
    pub version: u64,
    /// Every lease that there is to be. A job of which it is not here was deleted.
    pub leases: BTreeMap<LeaseKey, Wanted>,
}

/// Who is wanted for one lease.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The eligible nodes, the one that should have it first.
    pub nodes: Vec<NodeKey>,
    /// For a job that the ledger does not know, or that was deleted and is there again, the moment at which its spec was deployed, by the
    /// clock of the node that took it.
    pub begin: Slot,
}

/// One leader's term of office.
#[derive(Debug)]
pub struct Office {
    /// The ledger's time at one moment of this host's.
    base: (Mono, LedgerTime),
    presences: Presences,
    clocks: Clocks,
    assignment: Assignment,
    /// When the machine was last offered to pass the time, and to forget.
    ticked: Option<Mono>,
    forgot: Option<Mono>,
}

impl Office {
    /// Takes office, with all that was committed before applied to `machine`. Every session gets a full [`SESSION_TTL`].
    pub fn begin(now: Mono, machine: &Machine) -> Self {
        Self {
            base: (now, machine.time()),
            presences: Presences::begin(now, machine),
            clocks: Clocks::default(),
            assignment: Assignment::default(),
            ticked: None,
            forgot: None,
        }
    }

    /// The ledger's time, to be stamped on a command: that of the last command before this office, and what has passed since.
    pub fn stamp(&self, now: Mono, machine: &Machine) -> LedgerTime {
        let (began, base) = self.base;
        (base + now.since(began)).max(machine.time())
    }

    /// A node was heard of, with its wall clock: its session goes on. False if it is over, or about to be.
    pub fn renew(&mut self, session: SessionId, wall: Wall, now: Now, machine: &Machine) -> bool {
        let Some(node) = machine.session(session) else { return false };
        let is_renewed = self.presences.renew(session, now.mono);
        if is_renewed {
            self.clocks.note(node, wall, now.mono);
        }
        is_renewed
    }

    /// The host runs; to be called every 200 ms, whether or not there is room for proposals. Where it was not for half a second, the
    /// host stood still, what nodes said meanwhile was not heard, and all sessions get a full [`SESSION_TTL`].
    pub fn beat(&mut self, now: Mono) {
        self.presences.beat(now);
    }

    /// What is to be proposed now; to be called every 200 ms while nothing of the last round is under way. It costs little when nothing
    /// has changed, and is a [`Office::beat`] as well.
    pub fn due(&mut self, now: Now, machine: &Machine, wants: &Wants, voters: &BTreeSet<NodeKey>) -> Vec<Command> {
        let (mono, time) = (now.mono, self.stamp(now.mono, machine));
        self.presences.beat(mono);
        self.presences.follow(mono, machine);
        self.clocks.keep(|node| machine.session_of(node).is_some());
        self.clocks.judge(voters, mono.since(self.base.0));

        let mut commands = self.presences.overdue(mono);
        if machine.is_due(time) && is_to_propose(&mut self.ticked, mono) {
            commands.push(Command::Tick);
        }
        commands.extend(self.assignment.due(mono, machine, wants, &self.presences, &self.clocks));
        let mut forgettable = machine.forgettable(time).take(FORGETS_MAX).peekable();
        if forgettable.peek().is_some() && is_to_propose(&mut self.forgot, mono) {
            commands.extend(forgettable.map(|job| Command::Forget { job: job.clone() }));
        }
        commands
    }

    /// What time it is for the slots of all, by the voters' clocks; none while those of a majority are not known yet.
    pub fn calendar(&self, now: Mono) -> Option<Wall> {
        self.clocks.calendar(now)
    }

    /// Whether this host's own clock is near enough to the voters' for it to lead; where nothing is known of them, it is.
    pub fn is_clock_good(&self, now: Now) -> bool {
        self.clocks.is_near_median(now.wall, now.mono)
    }
}

/// Whether a command decides slots that are not due yet by that calendar ([`Office::calendar`]), or of which nobody can tell. The machine makes
/// sure that no slot after `upto` is in it.
pub fn is_early(command: &Command, calendar: Option<Wall>) -> bool {
    let Command::Decide(decide) = command else { return false };
    let is_due = |wall: Wall| decide.upto.wall() <= wall.plus(EARLY_MAX);
    !bug!(EarlyClaimTaken) && !calendar.is_some_and(is_due)
}

/// Whether something that is due is proposed now: it was not, or so long ago that it came to nothing.
fn is_to_propose(proposed: &mut Option<Mono>, now: Mono) -> bool {
    let is_waited_for = proposed.is_some_and(|at| now.since(at) < PROPOSE_AGAIN);
    if !is_waited_for {
        *proposed = Some(now);
    }
    !is_waited_for
}
