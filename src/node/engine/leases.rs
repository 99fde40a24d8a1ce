//! Who is wanted for each lease of the ledger, and who can vote in it. Pure: every node works it out, and the leader's word counts.
//!
//! The eligible nodes of a lease come in an order of their own for each, by rendezvous hashing (Thaler and Ravishankar, 1998): ten thousand
//! leases spread evenly, and a node that comes or goes moves only its share. Who has no session gets none, which the leader knows
//! better than gossip does; here those who are down are only put last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::cluster::Standing;
use super::effect::Effect;
use super::out::Out;
use super::services::Service;
use crate::ids::{NodeKey, ServiceName};
use crate::ledger::command::{JobKey, LeaseKey};
use crate::ledger::office::{Wanted, Wants};
use crate::ledger::time::Slot;
use crate::ledger::voters::{Candidate, DEAD_FOR};
use crate::spec::{CronScope, RunMode};
use crate::time::Mono;

/// How many nodes are named for one lease at most: the first with a session gets it, and when one dies the order is made anew.
const NODES_MAX: usize = 8;

/// How many of them keep the binary ready to be run: one more than can be lost before it has been fetched anew.
const READY_MAX: usize = 2;

/// How often the ledger is told at most: ten thousand deploys one after the other are not ten thousand lists of ten thousand.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The first version that has a ledger: earlier ones cannot vote.
const FIRST_VERSION: (u64, u64) = (0, 4);

/// What was worked out, and what the ledger was told of it.
#[derive(Debug)]
pub(super) struct Leases {
    wanted: BTreeMap<LeaseKey, Wanted>,
    /// Of what was told last; 0: nothing was.
    version: u64,
    is_changed: bool,
    /// Not again before then.
    pause: Mono,
    candidates: Vec<Known>,
    /// Members are other than before, or fare otherwise.
    pub(super) members_changed: bool,
    /// When somebody has been down for [`DEAD_FOR`].
    candidates_due: Option<Mono>,
}

/// A member, as the ledger was told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    node: NodeKey,
    down_since: Option<Mono>,
    is_dead: bool,
    can_vote: bool,
}

impl Default for Leases {
    /// Nothing is known, and nothing was told.
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            version: 0,
            is_changed: false,
            pause: Mono(0),
            candidates: Vec::new(),
            members_changed: true,
            candidates_due: None,
        }
    }
}

impl Leases {
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let told = (self.is_changed && self.version > 0).then_some(self.pause);
        [told, self.candidates_due].into_iter().flatten().min()
    }

    /// All leases of a service and its jobs.
    fn of<'a>(&'a self, name: &'a ServiceName) -> impl Iterator<Item = (&'a LeaseKey, &'a Wanted)> {
        let first = LeaseKey::Cron(JobKey { name: name.clone(), node: None });
        let jobs = self.wanted.range(first..).take_while(move |(key, _)| match key {
            LeaseKey::Cron(job) => job.name == *name,
            LeaseKey::Singleton(_) => false,
        });
        jobs.chain(self.wanted.get_key_value(&LeaseKey::Singleton(name.clone())))
    }

    fn replace(&mut self, name: &ServiceName, wanted: BTreeMap<LeaseKey, Wanted>) {
        if self.of(name).eq(&wanted) {
            return;
        }
        let before: Vec<LeaseKey> = self.of(name).map(|(key, _)| key.clone()).collect();
        for key in before {
            self.wanted.remove(&key);
        }
        self.wanted.extend(wanted);
        self.is_changed = true;
    }

    /// Whether a node is among those that may have a lease.
    pub(super) fn is_wanted(&self, lease: &LeaseKey, node: &NodeKey) -> bool {
        self.wanted.get(lease).is_some_and(|wanted| wanted.nodes.contains(node))
    }

    /// Whether a node may have to run a job of this name at any moment.
    pub(super) fn is_ready(&self, name: &ServiceName, node: &NodeKey) -> bool {
        self.of(name).any(|(_, wanted)| wanted.nodes.iter().take(READY_MAX).any(|ready| ready == node))
    }
}

impl Engine {
    /// Works out the leases of one service anew.
    pub(super) fn settle_leases(&mut self, name: &ServiceName) {
        let wanted = match self.services.get(name) {
            Some(service) => self.leases_of(service),
            // What it is cannot be read here; that it is there is known, and nothing of it is to be forgotten.
            None if self.services.unreadable().contains(name) => {
                let job = JobKey { name: name.clone(), node: None };
                [(LeaseKey::Cron(job), Wanted::default())].into()
            }
            None => BTreeMap::new(),
        };
        self.leases.replace(name, wanted);
    }

    fn leases_of(&self, service: &Service) -> BTreeMap<LeaseKey, Wanted> {
        let begin = Slot::at(service.deployed_first());
        let RunMode::Cron(cron) = &service.current.spec.mode else {
            if !service.current.spec.singleton || !service.wants_instances() {
                return BTreeMap::new();
            }
            let nodes = self.eligible(service).into_iter().take(NODES_MAX).collect();
            return [(LeaseKey::Singleton(service.name.clone()), Wanted { nodes, begin })].into();
        };
        let eligible = self.eligible(service);
        let job = |node| LeaseKey::Cron(JobKey { name: service.name.clone(), node });
        match cron.scope {
            CronScope::Cluster => {
                let nodes = eligible.into_iter().take(NODES_MAX).collect();
                [(job(None), Wanted { nodes, begin })].into()
            }
            CronScope::Node => {
                eligible.into_iter().map(|node| (job(Some(node)), Wanted { nodes: vec![node], begin })).collect()
            }
        }
    }

    /// The members that can run a service and may be given something to run, the one that should have its lease first.
    fn eligible(&self, service: &Service) -> Vec<NodeKey> {
        let seed = first_eight(blake3::hash(service.name.as_str().as_bytes()).as_bytes());
        let members = self.cluster.members().iter();
        let members = members.filter(|(key, member)| self.bar(service, key, member).is_none());
        let now = self.now.mono;
        let mut ranked: Vec<(bool, u64, NodeKey)> = members
            .map(|(key, _)| (self.cluster.standing(now, key) != Standing::Good, score(seed, key), *key))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., key)| key).collect()
    }

    /// Tells the ledger what is other than it was told last.
    pub(super) fn tell_ledger(&mut self, out: &mut Out) {
        self.tell_candidates(out);
        let now = self.now.mono;
        // Before this node knows what happened while it was away, it would take what it has not heard of for deleted.
        let is_news = self.leases.is_changed || self.leases.version == 0;
        if !self.caught_up || !is_news || self.leases.pause > now {
            return;
        }
        self.leases.version += 1;
        self.leases.is_changed = false;
        self.leases.pause = now + TELL_EVERY;
        out.act(Effect::Wants(Arc::new(Wants { version: self.leases.version, leases: self.leases.wanted.clone() })));
    }

    fn tell_candidates(&mut self, out: &mut Out) {
        let now = self.now.mono;
        let is_due = self.leases.candidates_due.is_some_and(|due| due <= now);
        if !std::mem::take(&mut self.leases.members_changed) && !is_due {
            return;
        }
        let known = |(node, _): (&NodeKey, _)| {
            let down_since = self.cluster.down_since(node);
            let is_dead = down_since.is_some_and(|since| now.since(since) >= DEAD_FOR);
            Known { node: *node, down_since, is_dead, can_vote: self.can_vote(node) }
        };
        let candidates: Vec<Known> = self.cluster.members().iter().map(known).collect();
        let waiting = candidates.iter().filter(|one| !one.is_dead).filter_map(|one| one.down_since);
        self.leases.candidates_due = waiting.map(|since| since + DEAD_FOR).min();
        if candidates == self.leases.candidates {
            return;
        }
        let told = candidates.iter().map(|one| Candidate {
            node: one.node,
            down_for: one.down_since.map(|since| now.since(since)),
            can_vote: one.can_vote,
        });
        out.act(Effect::Candidates(told.collect()));
        self.leases.candidates = candidates;
    }

    /// Whether a member can vote: it carries work, so that it is meant to be up, its version has a ledger, and it is not about to leave.
    fn can_vote(&self, node: &NodeKey) -> bool {
        let has_ledger = self.known.facts(node).is_some_and(|facts| version_of(&facts.version) >= FIRST_VERSION);
        let carries_work = self.cluster.members().get(node).is_some_and(|member| member.role.carries_work());
        has_ledger && carries_work && !(*node == self.me && self.is_leaving())
    }
}

/// Major and minor number; what is none comes before all.
fn version_of(text: &str) -> (u64, u64) {
    let mut numbers = text.split('.').map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn first_eight(bytes: &[u8; 32]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight of thirty-two"))
}

/// The node with the least score comes first. Keys and hashes are even as they are; the last step of SplitMix64 (Steele, Lea and Flood,
/// 2014) makes every bit of the one matter to every bit of the other.
fn score(seed: u64, node: &NodeKey) -> u64 {
    let mut mixed = seed ^ first_eight(&node.0);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeKey {
        NodeKey(*blake3::hash(&[number]).as_bytes())
    }

    fn first(name: usize, nodes: impl Iterator<Item = u8>) -> NodeKey {
        let seed = first_eight(blake3::hash(format!("job-{name}").as_bytes()).as_bytes());
        nodes.map(node).min_by_key(|node| score(seed, node)).unwrap()
    }

    #[test]
    fn leases_spread_evenly_and_few_move_when_a_node_goes() {
        let mut counts: BTreeMap<NodeKey, u32> = BTreeMap::new();
        let mut moved = 0;
        for name in 0..10_000 {
            let before = first(name, 0..10);
            *counts.entry(before).or_default() += 1;
            let after = first(name, 0..9);
            moved += u32::from(after != before);
            assert!(after == before || before == node(9), "only what the lost node had is moved");
        }
        // A thousand each, and one in thirty more or less is what chance gives.
        assert!(counts.len() == 10 && counts.values().all(|count| (880..1_120).contains(count)), "{counts:?}");
        assert_eq!(moved, counts[&node(9)]);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version_of("0.10.2") > version_of("0.4.0"));
        assert!(version_of("0.3.9") < FIRST_VERSION && version_of("") < FIRST_VERSION);
        assert_eq!(version_of("1.2-rc"), (1, 0));
    }
}
