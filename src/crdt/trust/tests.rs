use proptest::prelude::*;

use super::*;
use crate::crdt::roster::tests::HashSignatures;

fn key(node: u8) -> NodeKey {
    NodeKey([node; 32])
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn name_of(node: u8) -> NodeName {
    name(&format!("n{node}"))
}

fn founding() -> Founding {
    Founding { founder: key(0), name: name_of(0), at: Wall(1), nonce: [1; 16] }
}

fn admission(by: u8, node: u8, name: NodeName, at: u64) -> Admission {
    let (cluster, ticket, addresses) = (founding().cluster(), String::new(), Vec::new());
    Admission { cluster, key: key(node), name, by: key(by), ticket, at: Wall(at), addresses, role: Role::MEMBER }
}

fn admit(by: u8, node: u8) -> Signed {
    Signed::new(&HashSignatures(key(by)), ADMISSION_DOMAIN, &admission(by, node, name_of(node), 2))
}

/// `by` removes `node`, and names whom it knows to have been let in by it.
fn remove(by: u8, node: u8, stay: &[u8]) -> Signed {
    let removal = Removal {
        cluster: founding().cluster(),
        key: key(node),
        name: name_of(node),
        by: key(by),
        by_name: name_of(by),
        at: Wall(9),
        admissions: stay.iter().map(|one| admission(node, *one, name_of(*one), 2)).collect(),
    };
    Signed::new(&HashSignatures(key(by)), REMOVAL_DOMAIN, &removal)
}

fn trust(statements: &[Signed]) -> Trust {
    let mut trust = Trust::new(&founding());
    for signed in statements {
        assert!(trust.take(&HashSignatures(key(0)), signed));
    }
    trust
}

fn verdict(statements: &[Signed]) -> Verdict {
    trust(statements).verdict().clone()
}

fn members(statements: &[Signed]) -> Vec<u8> {
    trust(statements).verdict().members.keys().map(|key| key.0[0]).collect()
}

#[test]
fn a_chain_to_the_founder_admits_in_any_order_of_news() {
    assert_eq!(members(&[admit(1, 2), admit(0, 1), admit(2, 3)]), [0, 1, 2, 3]);
    assert_eq!(members(&[admit(1, 2), admit(2, 3)]), [0], "the chain is broken");
}

#[test]
fn nobody_can_speak_for_another() {
    let mut trust = Trust::new(&founding());
    let mut forged = admit(0, 1);
    forged.signature = HashSignatures(key(5)).sign(&forged.body);
    assert!(!trust.take(&HashSignatures(key(0)), &forged));
    let for_another_purpose = Signed::new(&HashSignatures(key(0)), "narun/record/1", &admission(0, 1, name_of(1), 2));
    assert!(!trust.take(&HashSignatures(key(0)), &for_another_purpose));
    let mut elsewhere = admission(0, 1, name_of(1), 2);
    elsewhere.cluster = ClusterId([9; 32]);
    assert!(!trust.take(&HashSignatures(key(0)), &Signed::new(&HashSignatures(key(0)), ADMISSION_DOMAIN, &elsewhere)));
    assert_eq!(trust.verdict().members.len(), 1);
}

#[test]
fn a_removed_node_is_out_for_good_and_whom_it_let_in_stays_if_named() {
    let statements = [admit(0, 1), admit(1, 2), admit(1, 3), admit(0, 4)];
    assert_eq!(members(&[&statements[..], &[remove(4, 1, &[2])]].concat()), [0, 2, 4]);
    let verdict = verdict(&[&statements[..], &[remove(4, 1, &[2])]].concat());
    assert_eq!(verdict.gone[&key(1)].cause, GoneCause::Removed { by: name_of(4), at: Wall(9) });
    assert_eq!(verdict.gone[&key(3)].cause, GoneCause::Unvouched { by: name_of(1) });
    let again = [&statements[..], &[remove(4, 1, &[2, 3]), admit(0, 1)]].concat();
    assert_eq!(members(&again), [0, 2, 3, 4], "another admission of a removed key is worth nothing");
    let by_the_removed = [&statements[..], &[remove(0, 1, &[2, 3]), admit(1, 5), remove(1, 4, &[])]].concat();
    assert_eq!(members(&by_the_removed), [0, 2, 3, 4], "nor is what a removed node says");
}

#[test]
fn the_founder_can_be_removed_too() {
    let statements = [admit(0, 1), admit(0, 2), admit(1, 3), remove(2, 0, &[1, 2])];
    assert_eq!(members(&statements), [1, 2, 3]);
}

#[test]
fn nobody_names_himself_into_the_cluster() {
    let statements = [admit(0, 1), remove(7, 1, &[7])];
    assert_eq!(members(&statements), [0, 1], "whom nobody let in cannot remove anybody either");
    let named_by_a_member = [admit(0, 1), admit(0, 2), remove(2, 1, &[7]), remove(7, 0, &[1, 2])];
    assert_eq!(members(&named_by_a_member), [2, 7]);
}

#[test]
fn of_two_that_remove_one_another_the_higher_rank_stays() {
    let statements = [admit(0, 1), admit(1, 2), remove(2, 1, &[2]), remove(1, 2, &[])];
    assert_eq!(members(&statements), [0, 1]);
    let of_one_rank = [admit(0, 1), admit(0, 2), remove(2, 1, &[]), remove(1, 2, &[])];
    assert_eq!(members(&of_one_rank), [0, 1]);
}

#[test]
fn who_leaves_goes_by_its_own_word_and_what_it_said_before_stays_said() {
    let statements = [admit(0, 1), admit(1, 2), admit(0, 3), remove(1, 3, &[]), remove(1, 1, &[2])];
    assert_eq!(members(&statements), [0, 2]);
    assert_eq!(trust(&statements).verdict().gone[&key(1)].cause, GoneCause::Left(Wall(9)));
}

#[test]
fn of_two_with_one_name_the_first_stays() {
    let named = |by: u8, node: u8, at: u64| {
        Signed::new(&HashSignatures(key(by)), ADMISSION_DOMAIN, &admission(by, node, name("web"), at))
    };
    let statements = [admit(0, 1), named(0, 7, 20), named(1, 6, 10)];
    assert_eq!(members(&statements), [0, 1, 6]);
    let verdict = verdict(&statements);
    assert_eq!(verdict.gone[&key(7)].cause, GoneCause::NameTaken { by: key(6), at: Wall(10) });
}

#[test]
fn a_proof_convinces_one_who_knows_the_founder_alone() {
    let statements = [admit(0, 1), admit(1, 2), admit(2, 3), admit(0, 4), admit(4, 5), remove(3, 4, &[])];
    let proof = trust(&statements).proof(&key(4));
    assert!(trust(&proof).verdict().gone.contains_key(&key(4)));
    let unvouched = trust(&statements).proof(&key(5));
    assert!(trust(&unvouched).verdict().gone.contains_key(&key(5)));
}

#[test]
fn a_thousand_statements_are_judged_in_the_same_way_at_once() {
    let many: Vec<Signed> = (0..200).map(|node| admit(node, node + 1)).collect();
    assert_eq!(members(&many).len(), 201);
}

proptest! {
    /// The verdict hangs on the set of statements: not on their order, nor on how often they came.
    #[test]
    fn order_does_not_matter(
        moves in proptest::collection::vec((0..8_u8, 0..8_u8, any::<bool>(), 0..8_u8), 0..24),
        seed in any::<u64>(),
    ) {
        let statements: Vec<Signed> = moves
            .iter()
            .filter(|(by, node, admits, _)| !admits || by != node)
            .map(|(by, node, admits, stays)| if *admits { admit(*by, *node) } else { remove(*by, *node, &[*stays]) })
            .collect();
        let mut shuffled = [&statements[..], &statements[..]].concat();
        let mut state = seed;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, (state >> 33) as usize % (at + 1));
        }
        let found = verdict(&statements);
        prop_assert_eq!(&verdict(&shuffled), &found);
        // Nor on whether it was asked for in between.
        let mut asked_often = Trust::new(&founding());
        for signed in &shuffled {
            asked_often.take(&HashSignatures(key(0)), signed);
            asked_often.verdict();
        }
        prop_assert_eq!(asked_often.verdict(), &found);
        // Nobody is both, and a key that a member has removed is none.
        prop_assert!(found.members.keys().all(|key| !found.gone.contains_key(key)));
        for key in found.gone.keys() {
            let convinced = verdict(&trust(&statements).proof(key));
            prop_assert!(!convinced.members.contains_key(key), "no proof against {key:?}");
        }
    }

    #[test]
    fn no_bytes_are_a_statement(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut trust = Trust::new(&founding());
        let taken = trust.take(&HashSignatures(key(0)), &Signed { body, signature: Vec::new() });
        prop_assert!(!taken);
    }
}
