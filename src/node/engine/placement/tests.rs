//! Placement laws: spread, stability, drains, constraints.

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
        fit: Fit::Fits,
        drain: Drain::No,
    }
}

fn unfit(constraint: &str) -> Fit {
    Fit::Unfit(vec![Obstacle::Unmet(constraint.into())])
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn reports(seats: &[Seat]) -> BTreeMap<u32, Vec<Incumbent>> {
    let mut incumbents: BTreeMap<u32, Vec<Incumbent>> = BTreeMap::new();
    for seat in seats {
        if let Some(node) = seat.node {
            incumbents.entry(seat.index).or_default().push(Incumbent { node, running: true, finished: false });
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
    other.fit = unfit("os: plan9");
    let seats = seats(&web(), &Placement::EachNode { replicas: 1 }, &[candidate(1), other], &BTreeMap::new());
    assert_eq!(seats.len(), 1);
}

#[test]
fn of_two_that_run_one_index_every_node_keeps_the_same() {
    let incumbents = BTreeMap::from([(
        0,
        vec![
            Incumbent { node: NodeKey([1; 32]), running: true, finished: false },
            Incumbent { node: NodeKey([2; 32]), running: true, finished: false },
        ],
    )]);
    let one = seats(&web(), &Placement::Cluster { replicas: 1 }, &[candidate(1), candidate(2)], &incumbents);
    let other = seats(&web(), &Placement::Cluster { replicas: 1 }, &[candidate(2), candidate(1)], &incumbents);
    assert_eq!(one, other);
}

#[test]
fn a_node_that_has_just_started_places_nothing_new_before_it_has_heard_of_all() {
    let unheard = Candidate { standing: Standing::Unheard, ..candidate(2) };
    let incumbents = BTreeMap::from([(1, vec![Incumbent { node: NodeKey([2; 32]), running: true, finished: false }])]);
    let placement = Placement::Cluster { replicas: 2 };
    let placed = seats(&web(), &placement, &[candidate(1), unheard], &incumbents);
    assert_eq!(placed.iter().map(|seat| seat.node).collect::<Vec<_>>(), [None, Some(NodeKey([2; 32]))]);
}

#[test]
fn who_runs_an_index_keeps_it_while_its_platform_is_not_known() {
    let stranger = Candidate { fit: Fit::Unknown, ..candidate(2) };
    let incumbents = BTreeMap::from([(0, vec![Incumbent { node: NodeKey([2; 32]), running: true, finished: false }])]);
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

    #[test]
    fn a_drain_moves_the_nodes_own_and_uncordon_takes_nothing_away(
        nodes in 2_u8..9,
        replicas in 1_u32..40,
        drained in 0_u8..9,
    ) {
        let placement = Placement::Cluster { replicas };
        let mut candidates: Vec<_> = (1..=nodes).map(candidate).collect();
        let before = seats(&web(), &placement, &candidates, &BTreeMap::new());
        let drained = usize::from(drained % nodes);
        let key = candidates[drained].key;
        candidates[drained].drain = Drain::Moving;
        let after = seats(&web(), &placement, &candidates, &reports(&before));
        for (old, new) in before.iter().zip(&after) {
            prop_assert!(new.node.is_some_and(|node| node != key));
            if old.node != Some(key) {
                prop_assert_eq!(old, new, "what is elsewhere stays there");
            }
        }
        let of = |node: &Candidate| after.iter().filter(|seat| seat.node == Some(node.key)).count();
        let loads: Vec<usize> = candidates.iter().filter(|node| node.drain == Drain::No).map(of).collect();
        let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
        prop_assert!(spread <= 1, "the others share it: {:?}", loads);

        // While both report an index, every node gives it to the one that takes over.
        let mut both = reports(&before);
        for (index, claims) in reports(&after) {
            let claims = claims.into_iter().map(|claim| Incumbent { running: false, ..claim });
            both.entry(index).or_default().extend(claims);
        }
        let meanwhile = seats(&web(), &placement, &candidates, &both);
        prop_assert_eq!(&meanwhile, &after);

        candidates[drained].drain = Drain::Empty;
        prop_assert_eq!(&seats(&web(), &placement, &candidates, &reports(&after)), &after);
        candidates[drained].drain = Drain::No;
        prop_assert_eq!(&seats(&web(), &placement, &candidates, &reports(&after)), &after, "it takes nothing away");
    }

    #[test]
    fn constraints_choose_the_nodes_and_a_label_moves_only_what_must(
        nodes in 2_u8..9,
        replicas in 1_u32..40,
        unfit_mask in any::<u16>(),
        lost in 0_u8..9,
    ) {
        let placement = Placement::Cluster { replicas };
        let mut candidates: Vec<_> = (1..=nodes).map(candidate).collect();
        for (at, candidate) in candidates.iter_mut().enumerate() {
            if unfit_mask & (1 << at) != 0 {
                candidate.fit = unfit("labels.zone: a");
            }
        }
        let fits = |candidates: &[Candidate], node: Option<NodeKey>| match node {
            Some(node) => candidates.iter().any(|one| one.key == node && one.fit == Fit::Fits),
            None => candidates.iter().all(|one| one.fit != Fit::Fits),
        };
        let before = seats(&web(), &placement, &candidates, &BTreeMap::new());
        prop_assert!(before.iter().all(|seat| fits(&candidates, seat.node)));
        let lost = usize::from(lost % nodes);
        candidates[lost].fit = unfit("labels.zone: a");
        let after = seats(&web(), &placement, &candidates, &reports(&before));
        prop_assert!(after.iter().all(|seat| fits(&candidates, seat.node)));
        for (old, new) in before.iter().zip(&after) {
            prop_assert!(old == new || old.node == Some(candidates[lost].key));
        }
    }
}

#[test]
fn where_no_other_node_can_take_them_instances_stay_on_a_drained_one() {
    let drained = Candidate { drain: Drain::Moving, ..candidate(1) };
    let other = |standing, fit| Candidate { standing, fit, ..candidate(2) };
    let placement = Placement::Cluster { replicas: 2 };
    let incumbents = BTreeMap::from([(0, vec![Incumbent { node: drained.key, running: true, finished: false }])]);
    let placed = |others: &[Candidate]| {
        let candidates = [std::slice::from_ref(&drained), others].concat();
        seats(&web(), &placement, &candidates, &incumbents).iter().map(|seat| seat.node).collect::<Vec<_>>()
    };
    let stays = [Some(drained.key), None];
    assert_eq!(placed(&[]), stays, "it stays, and nothing new comes");
    assert_eq!(placed(&[other(Standing::Gone, Fit::Fits)]), stays);
    assert_eq!(placed(&[other(Standing::Unheard, Fit::Fits)]), stays);
    assert_eq!(placed(&[other(Standing::Good, unfit("os: plan9"))]), stays);
    assert_eq!(placed(&[Candidate { drain: Drain::Empty, ..candidate(2) }]), stays);
    assert_eq!(placed(&[other(Standing::Good, Fit::Fits)]), [Some(candidate(2).key); 2]);
}

#[test]
fn what_is_bound_to_a_drained_node_goes_last_and_nothing_new_comes() {
    let incumbents = BTreeMap::from([(0, vec![Incumbent { node: NodeKey([1; 32]), running: true, finished: false }])]);
    let named = Placement::Named(vec![NamedPlace { node: Place::Node(name("n1")), replicas: 2 }]);
    let placed = |placement: &Placement, drain, fit: Fit| {
        let drained = Candidate { drain, fit, ..candidate(1) };
        let seats = seats(&web(), placement, &[drained, candidate(2)], &incumbents);
        let at = seats.into_iter().filter(|seat| seat.node == Some(NodeKey([1; 32])));
        at.map(|seat| seat.withheld).collect::<Vec<_>>()
    };
    assert_eq!(placed(&named, Drain::No, Fit::Fits), [None, None]);
    assert_eq!(placed(&named, Drain::Moving, Fit::Fits), [None, Some(Withheld::Drained)]);
    assert_eq!(placed(&named, Drain::Empty, Fit::Fits), [Some(Withheld::Drained), Some(Withheld::Drained)]);
    let unmet = || Some(Withheld::Unmet(vec![Obstacle::Unmet("os: plan9".into())]));
    assert_eq!(placed(&named, Drain::No, unfit("os: plan9")), [unmet(), unmet()]);
    let no_binary = Fit::Unfit(vec![Obstacle::NoBinary(crate::blobs::image::Platform::new("linux", "arm64"))]);
    assert_eq!(placed(&named, Drain::No, no_binary), [None, None], "the node itself says that it waits for one");

    let each = Placement::EachNode { replicas: 2 };
    assert_eq!(placed(&each, Drain::Moving, Fit::Fits).len(), 1);
    assert_eq!(placed(&each, Drain::Empty, Fit::Fits).len(), 0);
    assert_eq!(placed(&each, Drain::No, unfit("os: plan9")).len(), 0);
}
