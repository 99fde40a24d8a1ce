//! Which node runs which instance of a service. Pure: every node computes the same from the same knowledge.
//!
//! Named places are as named. Instances that narun places go by rendezvous hashing (Thaler and Ravishankar, 1998) over the
//! eligible nodes, the least loaded first, so that replicas spread; whoever reports an index keeps it while it stands, so that a
//! node that comes back takes nothing away.

use std::collections::BTreeMap;

use super::cluster::Standing;
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
    /// Whether there is a binary for its platform; false while its platform is not known.
    pub eligible: bool,
    /// Whether its platform is not known yet. What it reports it keeps all the same: it could not run it otherwise.
    pub unknown: bool,
}

/// Who reports an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incumbent {
    /// The node.
    pub node: NodeKey,
    /// Whether the process is up there.
    pub running: bool,
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
                let node = candidates.iter().find(|candidate| candidate.name == *name).map(|candidate| candidate.key);
                seats.extend((0..place.replicas).map(|index| Seat { index, name: Some(name.clone()), node }));
            }
            seats
        }
        Placement::EachNode { replicas } => {
            let eligible = candidates.iter().filter(|candidate| candidate.eligible);
            let seat = |candidate: &Candidate, index| Seat {
                index,
                name: Some(candidate.name.clone()),
                node: Some(candidate.key),
            };
            eligible.flat_map(|candidate| (0..*replicas).map(move |index| seat(candidate, index))).collect()
        }
        Placement::Cluster { replicas } => spread(service, *replicas, candidates, incumbents),
    };
    seats.sort();
    seats
}

fn spread(
    service: &ServiceName,
    replicas: u32,
    candidates: &[Candidate],
    incumbents: &BTreeMap<u32, Vec<Incumbent>>,
) -> Vec<Seat> {
    let mut load: BTreeMap<NodeKey, u32> = BTreeMap::new();
    let mut kept: BTreeMap<u32, &Candidate> = BTreeMap::new();
    for index in 0..replicas {
        let claims = incumbents.get(&index).map_or(&[][..], |claims| &claims[..]);
        let standing = claims.iter().filter_map(|claim| {
            let candidate = candidates.iter().find(|candidate| candidate.key == claim.node)?;
            let suited = candidate.eligible || candidate.unknown;
            (suited && candidate.standing > Standing::Gone).then_some((claim, candidate))
        });
        // Where two nodes run one index after a partition, both see the same one stay.
        let best = standing.max_by_key(|(claim, candidate)| {
            (claim.running, candidate.standing, score(service, index, &candidate.key))
        });
        if let Some((_, candidate)) = best {
            kept.insert(index, candidate);
            *load.entry(candidate.key).or_default() += 1;
        }
    }
    let waits = candidates.iter().any(|candidate| candidate.standing == Standing::Unheard);
    let open = |candidate: &&Candidate| candidate.eligible && candidate.standing == Standing::Good && !waits;
    let open: Vec<&Candidate> = candidates.iter().filter(open).collect();
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::NamedPlace;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn candidate(n: u8) -> Candidate {
        Candidate {
            key: NodeKey([n; 32]),
            name: name(&format!("n{n}")),
            standing: Standing::Good,
            eligible: true,
            unknown: false,
        }
    }

    fn web() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    fn reports(seats: &[Seat]) -> BTreeMap<u32, Vec<Incumbent>> {
        let mut incumbents: BTreeMap<u32, Vec<Incumbent>> = BTreeMap::new();
        for seat in seats {
            if let Some(node) = seat.node {
                incumbents.entry(seat.index).or_default().push(Incumbent { node, running: true });
            }
        }
        incumbents
    }

    fn counts(seats: &[Seat]) -> BTreeMap<NodeKey, usize> {
        let mut counts = BTreeMap::new();
        for seat in seats {
            *counts.entry(seat.node.unwrap()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn named_places_are_as_named_even_when_the_node_is_unknown() {
        let places = vec![
            NamedPlace { node: Place::Node(name("n2")), replicas: 2 },
            NamedPlace { node: Place::Node(name("elsewhere")), replicas: 1 },
        ];
        let seats = seats(&web(), &Placement::Named(places), &[candidate(1), candidate(2)], &BTreeMap::new());
        assert_eq!(seats.len(), 3);
        assert_eq!(seats.iter().filter(|seat| seat.node == Some(NodeKey([2; 32]))).count(), 2);
        assert_eq!(seats.iter().filter(|seat| seat.node.is_none()).count(), 1);
    }

    #[test]
    fn a_node_of_the_wrong_platform_gets_nothing() {
        let mut other = candidate(2);
        other.eligible = false;
        let seats = seats(&web(), &Placement::EachNode { replicas: 1 }, &[candidate(1), other], &BTreeMap::new());
        assert_eq!(seats.len(), 1);
    }

    #[test]
    fn of_two_that_run_one_index_every_node_keeps_the_same() {
        let incumbents = BTreeMap::from([(
            0,
            vec![
                Incumbent { node: NodeKey([1; 32]), running: true },
                Incumbent { node: NodeKey([2; 32]), running: true },
            ],
        )]);
        let one = seats(&web(), &Placement::Cluster { replicas: 1 }, &[candidate(1), candidate(2)], &incumbents);
        let other = seats(&web(), &Placement::Cluster { replicas: 1 }, &[candidate(2), candidate(1)], &incumbents);
        assert_eq!(one, other);
    }

    #[test]
    fn a_node_that_has_just_started_places_nothing_new_before_it_has_heard_of_all() {
        let unheard = Candidate { standing: Standing::Unheard, ..candidate(2) };
        let incumbents = BTreeMap::from([(1, vec![Incumbent { node: NodeKey([2; 32]), running: true }])]);
        let placement = Placement::Cluster { replicas: 2 };
        let placed = seats(&web(), &placement, &[candidate(1), unheard], &incumbents);
        assert_eq!(placed.iter().map(|seat| seat.node).collect::<Vec<_>>(), [None, Some(NodeKey([2; 32]))]);
    }

    #[test]
    fn who_runs_an_index_keeps_it_while_its_platform_is_not_known() {
        let stranger = Candidate { eligible: false, unknown: true, ..candidate(2) };
        let incumbents = BTreeMap::from([(0, vec![Incumbent { node: NodeKey([2; 32]), running: true }])]);
        let placement = Placement::Cluster { replicas: 2 };
        let placed = seats(&web(), &placement, &[candidate(1), stranger], &incumbents);
        assert_eq!(
            placed.iter().map(|seat| seat.node).collect::<Vec<_>>(),
            [Some(NodeKey([2; 32])), Some(NodeKey([1; 32]))]
        );
    }

    proptest! {
        #[test]
        fn replicas_spread_evenly(nodes in 1_u8..9, replicas in 1_u32..40) {
            let candidates: Vec<_> = (1..=nodes).map(candidate).collect();
            let placed = seats(&web(), &Placement::Cluster { replicas }, &candidates, &BTreeMap::new());
            prop_assert_eq!(placed.len(), replicas as usize);
            let counts = counts(&placed);
            let (most, fewest) = (counts.values().max().unwrap(), counts.values().min().unwrap());
            prop_assert!(most - fewest <= 1 || replicas < u32::from(nodes));
        }

        #[test]
        fn only_the_instances_of_a_lost_node_move(nodes in 2_u8..9, replicas in 1_u32..40, lost in 0_u8..9) {
            let mut candidates: Vec<_> = (1..=nodes).map(candidate).collect();
            let before = seats(&web(), &Placement::Cluster { replicas }, &candidates, &BTreeMap::new());
            let lost = usize::from(lost % nodes);
            candidates[lost].standing = Standing::Grace;
            let grace = seats(&web(), &Placement::Cluster { replicas }, &candidates, &reports(&before));
            prop_assert_eq!(&grace, &before, "nothing moves within the grace");
            candidates[lost].standing = Standing::Gone;
            let after = seats(&web(), &Placement::Cluster { replicas }, &candidates, &reports(&before));
            for (old, new) in before.iter().zip(&after) {
                if old.node == Some(candidates[lost].key) {
                    prop_assert_ne!(old.node, new.node);
                } else {
                    prop_assert_eq!(old, new);
                }
            }
            candidates[lost].standing = Standing::Good;
            let back = seats(&web(), &Placement::Cluster { replicas }, &candidates, &reports(&after));
            prop_assert_eq!(back, after, "who comes back takes nothing away");
        }
    }
}
