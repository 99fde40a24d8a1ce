//! Which node runs which instance of a service. Pure: every node computes the same from the same knowledge.
//!
//! Named places are as named. Instances that narun places go by rendezvous hashing (Thaler and Ravishankar, 1998) over the
//! eligible nodes, the least loaded first, so that replicas spread; whoever reports an index keeps it while it stands, so that a
//! node that comes back takes nothing away. A drained node gets nothing, and keeps an index only while no other node can take it. What
//! has run to its end where it was, and is not to run again, stays there whatever becomes of the node: elsewhere it would run anew.

use std::collections::BTreeMap;
use std::fmt;

use super::cluster::Standing;
use super::eligibility::{Fit, Obstacle};
use crate::ids::{NodeKey, NodeName, ServiceName};
use crate::spec::{Place, Placement};

/// A member as placement sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its key.
    pub key: NodeKey,
    /// Its name.
    pub name: NodeName,
    /// Whether it keeps and gets instances.
    pub standing: Standing,
    /// Whether it can run the service.
    pub fit: Fit,
    /// Whether its user wants it empty.
    pub drain: Drain,
}

/// How far a node is drained.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Drain {
    /// Nothing that other nodes could run is left: what is bound to it is stopped.
    Empty,
    /// Its instances are to go to other nodes; those that cannot wait until the others have gone.
    Moving,
    /// It is not drained.
    No,
}

/// Who reports an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incumbent {
    /// The node.
    pub node: NodeKey,
    /// Whether the process is up there.
    pub running: bool,
    /// Whether it has run there to its end, and is not to run again.
    pub finished: bool,
}

/// A wanted instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seat {
    /// Its index.
    pub index: u32,
    /// The node's name; none when no node can take it.
    pub name: Option<NodeName>,
    /// The node; none when no member has that name.
    pub node: Option<NodeKey>,
    /// Why the node must not run it for now, although it is named.
    pub withheld: Option<Withheld>,
}

/// Why a named node must not run an instance for now.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Withheld {
    /// It is drained.
    Drained,
    /// It does not meet these constraints any more.
    Unmet(Vec<Obstacle>),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained => f.write_str("the node is drained"),
            Self::Unmet(obstacles) => {
                let told: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
                f.write_str(&told.join("; "))
            }
        }
    }
}

impl Seat {
    /// Whether this node is to run it now.
    pub fn is_of(&self, node: &NodeKey) -> bool {
        self.node == Some(*node) && self.withheld.is_none()
    }
}

/// All wanted instances of a service, by index and node name.
pub fn seats(
    service: &ServiceName,
    placement: &Placement,
    candidates: &[Candidate],
    incumbents: &BTreeMap<u32, Vec<Incumbent>>,
) -> Vec<Seat> {
    let mut seats = match placement {
        Placement::Named(places) => {
            let mut seats = Vec::new();
            for place in places {
                let Place::Node(name) = &place.node else { continue };
                let node = candidates.iter().find(|candidate| candidate.name == *name);
                seats.extend((0..place.replicas).map(|index| Seat {
                    index,
                    name: Some(name.clone()),
                    node: node.map(|node| node.key),
                    withheld: node.and_then(|node| withheld(node, index, incumbents)),
                }));
            }
            seats
        }
        Placement::EachNode { replicas } => {
            let seat = |candidate: &Candidate, index| Seat {
                index,
                name: Some(candidate.name.clone()),
                node: Some(candidate.key),
                withheld: None,
            };
            let fitting = candidates.iter().filter(|candidate| candidate.fit == Fit::Fits);
            let each = fitting.flat_map(|candidate| (0..*replicas).map(move |index| (candidate, index)));
            each.filter(|(candidate, index)| !is_drained_of(candidate, *index, incumbents))
                .map(|(candidate, index)| seat(candidate, index))
                .collect()
        }
        Placement::Cluster { replicas } => spread(service, *replicas, candidates, incumbents),
    };
    seats.sort();
    seats
}

fn withheld(node: &Candidate, index: u32, incumbents: &BTreeMap<u32, Vec<Incumbent>>) -> Option<Withheld> {
    if let Fit::Unfit(obstacles) = &node.fit {
        // That a binary is missing is said by the node itself, which waits for one.
        let unmet: Vec<_> = obstacles.iter().filter(|it| matches!(it, Obstacle::Unmet(_))).cloned().collect();
        if !unmet.is_empty() {
            return Some(Withheld::Unmet(unmet));
        }
    }
    is_drained_of(node, index, incumbents).then_some(Withheld::Drained)
}

/// Whether an index has run to its end on a node.
fn is_finished_at(node: &NodeKey, index: u32, incumbents: &BTreeMap<u32, Vec<Incumbent>>) -> bool {
    incumbents.get(&index).is_some_and(|claims| claims.iter().any(|claim| claim.finished && claim.node == *node))
}

/// Whether a drain keeps a node from running an index that cannot go elsewhere: it starts nothing new, and stops what it has last.
fn is_drained_of(node: &Candidate, index: u32, incumbents: &BTreeMap<u32, Vec<Incumbent>>) -> bool {
    if is_finished_at(&node.key, index, incumbents) {
        return false;
    }
    let has_it = || incumbents.get(&index).is_some_and(|claims| claims.iter().any(|claim| claim.node == node.key));
    match node.drain {
        Drain::No => false,
        Drain::Moving => !has_it(),
        Drain::Empty => true,
    }
}

fn spread(
    service: &ServiceName,
    replicas: u32,
    candidates: &[Candidate],
    incumbents: &BTreeMap<u32, Vec<Incumbent>>,
) -> Vec<Seat> {
    let waits = candidates.iter().any(|candidate| candidate.standing == Standing::Unheard);
    let is_open = |candidate: &&Candidate| {
        let fits = candidate.fit == Fit::Fits && candidate.drain == Drain::No;
        fits && candidate.standing == Standing::Good && !waits
    };
    let open: Vec<&Candidate> = candidates.iter().filter(is_open).collect();
    let mut load: BTreeMap<NodeKey, u32> = BTreeMap::new();
    let mut kept: BTreeMap<u32, &Candidate> = BTreeMap::new();
    for index in 0..replicas {
        let claims = incumbents.get(&index).map_or(&[][..], |claims| &claims[..]);
        let finished = candidates.iter().find(|candidate| is_finished_at(&candidate.key, index, incumbents));
        if let Some(candidate) = finished {
            kept.insert(index, candidate);
            continue;
        }
        let standing = claims.iter().filter_map(|claim| {
            let candidate = candidates.iter().find(|candidate| candidate.key == claim.node)?;
            let suited = !matches!(candidate.fit, Fit::Unfit(_));
            (suited && candidate.standing > Standing::Gone).then_some((claim, candidate))
        });
        // Where two nodes run one index after a partition, both see the same one stay. Who takes over from a drained node has
        // the index from its first word on, though the other still runs it.
        let best = standing.max_by_key(|(claim, candidate)| {
            (candidate.drain == Drain::No, claim.running, candidate.standing, score(service, index, &candidate.key))
        });
        if let Some((_, candidate)) = best
            && (candidate.drain == Drain::No || open.is_empty())
        {
            kept.insert(index, candidate);
            *load.entry(candidate.key).or_default() += 1;
        }
    }
    let mut seats = Vec::new();
    for index in 0..replicas {
        let chosen = kept.get(&index).copied().or_else(|| {
            let emptiest = open.iter().min_by_key(|candidate| {
                let load = load.get(&candidate.key).copied().unwrap_or(0);
                (load, std::cmp::Reverse(score(service, index, &candidate.key)))
            });
            emptiest.inspect(|candidate| *load.entry(candidate.key).or_default() += 1).copied()
        });
        seats.push(Seat {
            index,
            name: chosen.map(|candidate| candidate.name.clone()),
            node: chosen.map(|candidate| candidate.key),
            withheld: None,
        });
    }
    seats
}

/// How much a node is the one for an index: the same everywhere, and independent of the other nodes.
fn score(service: &ServiceName, index: u32, node: &NodeKey) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(service.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(&index.to_be_bytes());
    hasher.update(&node.0);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
