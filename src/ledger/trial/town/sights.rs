//! What can be seen of a group: by its members, who hear how the others fare, and by whoever tries it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{SETTLED_WITHIN, Town};
use crate::ids::NodeKey;
use crate::ledger::machine::Machine;
use crate::ledger::question::Standing;
use crate::ledger::trial::faults::Target;
use crate::ledger::voters::Candidate;

impl Town {
    /// To what a fault may be done now.
    pub(super) fn target(&self) -> Target {
        Target {
            hosts: self.hosts.len(),
            jobs: self.catalog.jobs.len(),
            members: self.members(),
            leader: self.leader().map(|(leader, _)| leader),
        }
    }

    fn members(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].is_member).collect()
    }

    /// Prints how everybody sees the group.
    pub(super) fn tell(&self) {
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else { continue };
            let standing = process.ledger.standing().borrow().clone();
            let machine = process.ledger.machine();
            let sessions: Vec<_> = machine.sessions().map(|(_, node)| self.numbers(&[node])).collect();
            println!(
                "{:>7} host {number}: voters {:?} learners {:?} leader {:?} term {} applied {} time {} sessions {sessions:?}",
                self.now(),
                self.numbers(&standing.voters),
                self.numbers(&standing.learners),
                standing.leader.map(|leader| self.numbers(&[leader])),
                standing.term,
                standing.applied,
                machine.time().0,
            );
        }
    }

    /// Everybody hears how the members fare, as far as one can see.
    pub(super) fn spread_news(&mut self) {
        let cut: BTreeSet<(usize, usize)> = self.cuts.values().flatten().copied().collect();
        let sees = |a: usize, b: usize| !cut.contains(&(a, b)) && !cut.contains(&(b, a));
        let members = self.members();
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else { continue };
            let candidate = |other: &usize| {
                let of = &self.hosts[*other];
                let is_reached = number == *other
                    || sees(number, *other)
                    || members.iter().any(|third| {
                        self.hosts[*third].down_since.is_none() && sees(number, *third) && sees(*third, *other)
                    });
                let down_for =
                    of.down_since.filter(|_| number != *other).map(|since| Duration::from_millis(self.now() - since));
                let down_for = if is_reached { down_for } else { down_for.or(Some(Duration::ZERO)) };
                Candidate { node: of.key, down_for, can_vote: true }
            };
            process.ledger.members(members.iter().map(candidate).collect());
        }
        let leader = self.leader();
        let standing = leader.as_ref().map(|(_, standing)| standing);
        let (now, count) = (self.now(), members.len());
        let voters = standing.map(|standing| self.numbers(&standing.voters));
        let mut book = self.lock();
        if let Some((leader, _)) = leader
            && book.leaders.last().is_none_or(|(_, before)| *before != leader)
        {
            book.leaders.push((now, leader));
        }
        if let Some(voters) = voters {
            book.see_voters(now, voters);
        }
        if book.members.last().is_none_or(|(_, before)| *before != count) {
            book.members.push((now, count));
        }
    }

    fn numbers(&self, nodes: &[NodeKey]) -> BTreeSet<usize> {
        (0..self.hosts.len()).filter(|host| nodes.contains(&self.hosts[*host].key)).collect()
    }

    /// Whoever leads by its own word.
    fn leaders(&self) -> BTreeSet<usize> {
        let leads = |host: &usize| {
            let process = self.hosts[*host].process.as_ref();
            process.is_some_and(|process| process.ledger.standing().borrow().leader == Some(self.hosts[*host].key))
        };
        (0..self.hosts.len()).filter(leads).collect()
    }

    /// The one of these with the latest term.
    fn leader(&self) -> Option<(usize, Standing)> {
        let standing = |host: usize| {
            let process = self.hosts[host].process.as_ref().expect("it leads");
            (host, process.ledger.standing().borrow().clone())
        };
        self.leaders().into_iter().map(standing).max_by_key(|(_, standing)| standing.term)
    }

    /// The machines of all who vote, once all is calm.
    fn machines(&self) -> Vec<(usize, Machine)> {
        let voters = self.leader().map(|(_, standing)| self.numbers(&standing.voters)).unwrap_or_default();
        let machine = |host: usize| {
            let process = self.hosts[host].process.as_ref()?;
            Some((host, process.ledger.machine()))
        };
        voters.into_iter().filter_map(machine).collect()
    }

    /// The same, once all of them have applied the same entries, which they do within moments; or as they are.
    pub(in crate::ledger::trial) async fn settled_machines(&mut self) -> Vec<(usize, Machine)> {
        for _ in 0..SETTLED_WITHIN {
            let machines = self.machines();
            let applied: BTreeSet<u64> = machines.iter().map(|(_, machine)| machine.applied()).collect();
            if applied.len() == 1 {
                return machines;
            }
            let next = self.now() + 10;
            self.live_until(next).await;
        }
        self.machines()
    }
}
