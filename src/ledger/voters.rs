//! Who votes in the ledger: one node, three or five. Pure.
//!
//! How many there should be follows from the number of members, and members are only added and removed by signed statements: a
//! node that is down counts. So no failure, and no rumour of one, ever makes the majority smaller; a dead voter is *replaced*, after
//! [`DEAD_FOR`], by one that is alive. Two members have one voter: with two, either's failure would stop the ledger, and with one
//! only that one's.
//!
//! The number is odd: an even one bears no more failures than the odd one below it, and has one voter more to wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NodeKey;

/// How long a voter has to be down before another takes its place (decisions.md): a restart of its host takes less.
pub const DEAD_FOR: Duration = Duration::from_secs(60);

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Who.
    pub node: NodeKey,
    /// For how long it has been down; none while it is up.
    pub down_for: Option<Duration>,
    /// Whether it can vote at all: its version has a ledger, its clock is near the others'.
    pub can_vote: bool,
}

impl Candidate {
    fn is_alive(&self) -> bool {
        self.down_for.is_none()
    }
}

/// One change of the voters, to be made as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Who is to vote too; they have to be caught up first.
    pub join: BTreeSet<NodeKey>,
    /// Who is not to vote any more.
    pub leave: BTreeSet<NodeKey>,
}

/// The next change of the voters, if there is one to be made. `members` are all who are not removed, `own` is the leader, which asks.
pub fn next(members: &[Candidate], current: &BTreeSet<NodeKey>, own: &NodeKey) -> Option<Change> {
    let members = members.iter().filter(|one| one.is_alive() || !bug!(VotersFromGossip));
    let group = Group { members: members.map(|one| (one.node, one)).collect(), current, own };
    let changes = [group.growth(), group.shrinking(), group.replacement()];
    changes.into_iter().flatten().find(|change| group.is_safe(change))
}

/// How many should vote, of so many members.
fn target(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

struct Group<'a> {
    members: BTreeMap<NodeKey, &'a Candidate>,
    current: &'a BTreeSet<NodeKey>,
    own: &'a NodeKey,
}

/// Why a voter should be one no longer, the weightiest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Flaw {
    None,
    Down,
    Unfit,
    Dead,
    Removed,
}

impl Group<'_> {
    /// To the target, or as near as those who are alive allow, all at once: three come after one, never two.
    fn growth(&self) -> Option<Change> {
        let (now, spares) = (self.current.len(), self.spares());
        let wanted = (now + 1..=target(self.members.len())).rev();
        let size = wanted.filter(|size| size % 2 == 1).find(|size| size - now <= spares.len())?;
        Some(Change { join: spares.into_iter().take(size - now).collect(), leave: BTreeSet::new() })
    }

    /// To the target, since members were removed by decision.
    fn shrinking(&self) -> Option<Change> {
        let surplus = self.current.len().checked_sub(target(self.members.len())).filter(|surplus| *surplus > 0)?;
        let leave = self.by_flaw().into_iter().rev().take(surplus).map(|(.., node)| node).collect();
        Some(Change { join: BTreeSet::new(), leave })
    }

    /// One voter that is gone for good, for one that is alive.
    fn replacement(&self) -> Option<Change> {
        let (flaw, _, node) = self.by_flaw().pop()?;
        let spare = self.spares().into_iter().next()?;
        (flaw >= Flaw::Unfit).then(|| Change { join: [spare].into(), leave: [node].into() })
    }

    /// Who could vote and does not.
    fn spares(&self) -> Vec<NodeKey> {
        let spares = self.members.values().filter(|one| one.is_alive() && one.can_vote);
        spares.map(|one| one.node).filter(|node| !self.current.contains(node)).collect()
    }

    /// The voters, those who should go first last; the leader stays where another one will do.
    fn by_flaw(&self) -> Vec<(Flaw, bool, NodeKey)> {
        let mut voters: Vec<_> = self.current.iter().map(|node| (self.flaw(node), node != self.own, *node)).collect();
        voters.sort_unstable();
        voters
    }

    fn flaw(&self, node: &NodeKey) -> Flaw {
        match self.members.get(node) {
            None => Flaw::Removed,
            Some(one) if one.down_for.is_some_and(|span| span >= DEAD_FOR) => Flaw::Dead,
            Some(one) if !one.can_vote => Flaw::Unfit,
            Some(one) if !one.is_alive() => Flaw::Down,
            Some(_) => Flaw::None,
        }
    }

    /// Whether a majority of those who vote now is alive, which has to agree to the change, and a majority of those who vote then.
    fn is_safe(&self, change: &Change) -> bool {
        let then: BTreeSet<_> = self.current.union(&change.join).copied().collect();
        let then: BTreeSet<_> = then.difference(&change.leave).copied().collect();
        self.has_majority(self.current) && self.has_majority(&then)
    }

    fn has_majority(&self, voters: &BTreeSet<NodeKey>) -> bool {
        let is_alive = |node: &&NodeKey| self.members.get(*node).is_some_and(|one| one.is_alive());
        voters.iter().filter(is_alive).count() > voters.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeKey {
        NodeKey([number; 32])
    }

    fn nodes(numbers: &[u8]) -> BTreeSet<NodeKey> {
        numbers.iter().map(|number| node(*number)).collect()
    }

    fn up(number: u8) -> Candidate {
        Candidate { node: node(number), down_for: None, can_vote: true }
    }

    fn down(number: u8, seconds: u64) -> Candidate {
        Candidate { down_for: Some(Duration::from_secs(seconds)), ..up(number) }
    }

    /// The change that node 1 makes, as leader.
    fn by_first(members: &[Candidate], current: &[u8]) -> Option<Change> {
        next(members, &nodes(current), &node(1))
    }

    fn change(join: &[u8], leave: &[u8]) -> Option<Change> {
        Some(Change { join: nodes(join), leave: nodes(leave) })
    }

    #[test]
    fn two_members_have_one_voter() {
        assert_eq!(by_first(&[up(1)], &[1]), None);
        assert_eq!(by_first(&[up(1), up(2)], &[1]), None);
    }

    #[test]
    fn the_third_member_makes_three_voters_and_the_fifth_five() {
        assert_eq!(by_first(&[1, 2, 3].map(up), &[1]), change(&[2, 3], &[]));
        assert_eq!(by_first(&[1, 2, 3, 4].map(up), &[1, 2, 3]), None);
        assert_eq!(by_first(&[1, 2, 3, 4, 5].map(up), &[1, 2, 3]), change(&[4, 5], &[]));
        assert_eq!(by_first(&[1, 2, 3, 4, 5, 6, 7, 8].map(up), &[1, 2, 3, 4, 5]), None);
    }

    #[test]
    fn it_grows_as_far_as_there_are_members_alive() {
        assert_eq!(by_first(&[up(1), up(2), down(3, 1)], &[1]), None, "never two");
        let members = [up(1), up(2), up(3), down(4, 1), down(5, 1)];
        assert_eq!(by_first(&members, &[1]), change(&[2, 3], &[]));
        assert_eq!(by_first(&members, &[1, 2, 3]), None);
    }

    #[test]
    fn a_dead_voter_is_replaced_after_a_minute_by_one_that_is_alive() {
        assert_eq!(by_first(&[up(1), up(2), down(3, 59), up(4)], &[1, 2, 3]), None);
        assert_eq!(by_first(&[up(1), up(2), down(3, 60), up(4)], &[1, 2, 3]), change(&[4], &[3]));
        assert_eq!(by_first(&[up(1), up(2), down(3, 60), down(4, 1)], &[1, 2, 3]), None);
        let blind = Candidate { can_vote: false, ..up(4) };
        assert_eq!(by_first(&[up(1), up(2), down(3, 60), blind], &[1, 2, 3]), None);
    }

    #[test]
    fn dead_voters_are_replaced_one_by_one() {
        let members = [up(1), up(2), up(3), down(4, 90), down(5, 70), up(6), up(7)];
        let first = by_first(&members, &[1, 2, 3, 4, 5]).unwrap();
        assert_eq!((first.join.len(), first.leave.len()), (1, 1));
        assert_eq!(by_first(&members, &[1, 2, 3, 4, 6]), change(&[7], &[4]));
    }

    #[test]
    fn nothing_is_done_without_a_majority() {
        let members = [up(1), down(2, 600), down(3, 600), up(4), up(5)];
        assert_eq!(by_first(&members, &[1, 2, 3]), None);
    }

    #[test]
    fn deaths_never_make_the_majority_smaller() {
        let members = [up(1), up(2), up(3), down(4, 9_999), down(5, 9_999)];
        assert_eq!(by_first(&members, &[1, 2, 3, 4, 5]), None);
    }

    #[test]
    fn a_removed_member_is_replaced_or_the_set_shrinks() {
        assert_eq!(by_first(&[1, 2, 4].map(up), &[1, 2, 3]), change(&[4], &[3]));
        assert_eq!(by_first(&[1, 2].map(up), &[1, 2, 3]), change(&[], &[2, 3]));
        assert_eq!(by_first(&[1, 2, 3, 4].map(up), &[1, 2, 3, 4, 5]), change(&[], &[4, 5]));
        assert_eq!(by_first(&[up(1), up(2), down(4, 1)], &[1, 2, 3]), None, "there is nobody in its place yet");
    }

    #[test]
    fn who_cannot_vote_makes_room_and_the_leader_goes_last() {
        let blind = Candidate { can_vote: false, ..up(2) };
        assert_eq!(by_first(&[up(1), blind, up(3), up(4)], &[1, 2, 3]), change(&[4], &[2]));
        assert_eq!(next(&[1, 2].map(up), &nodes(&[1, 2, 3]), &node(2)), change(&[], &[1, 3]));
    }

    fn candidate(number: u8) -> impl Strategy<Value = Candidate> {
        let down_for = proptest::option::weighted(0.3, (0..200_u64).prop_map(Duration::from_secs));
        (down_for, proptest::bool::weighted(0.9)).prop_map(move |(down_for, can_vote)| Candidate {
            node: node(number),
            down_for,
            can_vote,
        })
    }

    fn members() -> impl Strategy<Value = Vec<Candidate>> {
        (1..10_u8).prop_flat_map(|count| (1..=count).map(candidate).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn changes_are_safe_and_come_to_an_end(members in members(), current in proptest::collection::btree_set(1..12_u8, 1..7)) {
            let mut voters: BTreeSet<NodeKey> = current.into_iter().map(node).collect();
            let own = *voters.first().unwrap();
            let is_alive = |node: &NodeKey| members.iter().any(|one| one.node == *node && one.down_for.is_none());
            let alive = |of: &BTreeSet<NodeKey>| of.iter().filter(|node| is_alive(node)).count();
            let mut changes = 0;
            while let Some(change) = next(&members, &voters, &own) {
                prop_assert!(alive(&voters) > voters.len() / 2);
                prop_assert!(change.join.is_disjoint(&voters) && change.leave.is_subset(&voters));
                prop_assert!(change.join.iter().all(is_alive));
                let size = voters.len();
                voters.extend(change.join);
                voters.retain(|node| !change.leave.contains(node));
                prop_assert!(alive(&voters) > voters.len() / 2);
                prop_assert!(voters.len() >= size.min(target(members.len())), "it shrinks to its target alone");
                changes += 1;
                prop_assert!(changes < 10);
            }
        }
    }
}
