//! Whom a node asks where it cannot answer itself. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::NodeKey;

/// For how long others are asked before a node that did not answer: what is sent to it may be lost on the way, and not what they send.
const UNHEARD_FOR: Duration = Duration::from_secs(10);

/// What is known of those who were asked before.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Which did not answer in time, and when.
    unheard: BTreeMap<NodeKey, Instant>,
    /// The last one that gave an answer, or that was said to lead.
    contact: Option<NodeKey>,
}

/// Whom one question was put to already.
#[derive(Debug, Default)]
pub(super) struct Round {
    asked: BTreeSet<NodeKey>,
    /// Who was said to lead, by those.
    told: BTreeSet<NodeKey>,
    /// Who led when the first of them was asked, as far as this node knew.
    leader: Option<NodeKey>,
}

impl Ways {
    /// Whether a node answered.
    pub(super) fn note(&mut self, node: NodeKey, is_heard: bool, now: Instant) {
        self.unheard.retain(|_, at| now - *at < UNHEARD_FOR);
        if is_heard {
            self.unheard.remove(&node);
        } else {
            self.unheard.insert(node, now);
        }
    }

    /// This one gave an answer, or is said to lead; none: the last one did not.
    pub(super) fn remember(&mut self, contact: Option<NodeKey>) {
        self.contact = contact;
    }

    /// Whom to ask next: who leads as far as this node knows, the last one that gave an answer, and the others, one after the other, those last
    /// that did not answer lately; then all of them again. What a node knows of the leader may be old, and the leader may not hear it.
    pub(super) fn next(
        &self,
        round: &mut Round,
        leader: Option<NodeKey>,
        others: &[NodeKey],
        now: Instant,
    ) -> Option<NodeKey> {
        round.follow(leader);
        let mut ways: Vec<NodeKey> = leader.into_iter().chain(self.contact).chain(others.iter().copied()).collect();
        // In this order otherwise.
        ways.sort_by_key(|way| self.unheard.get(way).is_some_and(|at| now - *at < UNHEARD_FOR));
        let fresh = ways.iter().find(|way| !round.asked.contains(way)).copied();
        let next = fresh.or_else(|| {
            *round = Round { leader, ..Round::default() };
            ways.first().copied()
        })?;
        round.asked.insert(next);
        Some(next)
    }
}

impl Round {
    /// A node that was asked says who leads: that one is asked once more.
    pub(super) fn told(&mut self, leader: NodeKey) {
        if self.told.insert(leader) {
            self.asked.remove(&leader);
        }
    }

    /// Another one leads than before: what was asked is old.
    fn follow(&mut self, leader: Option<NodeKey>) {
        if self.leader != leader {
            *self = Self { leader, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeKey {
        NodeKey([number; 32])
    }

    struct Asker {
        ways: Ways,
        round: Round,
        leader: Option<NodeKey>,
        now: Instant,
    }

    impl Asker {
        fn new(leader: Option<u8>) -> Self {
            Self { ways: Ways::default(), round: Round::default(), leader: leader.map(node), now: Instant::now() }
        }

        /// Whom this many turns ask, of voters 1 to 4.
        fn asks(&mut self, turns: usize) -> Vec<u8> {
            let others: Vec<NodeKey> = (1..=4).map(node).collect();
            let mut next =
                || self.ways.next(&mut self.round, self.leader, &others, self.now).expect("there are others");
            (0..turns).map(|_| next().0[0]).collect()
        }
    }

    #[test]
    fn the_leader_is_asked_first_and_everybody_once_before_anybody_again() {
        assert_eq!(Asker::new(Some(3)).asks(6), [3, 1, 2, 4, 3, 1]);
        assert_eq!(Asker::new(None).asks(5), [1, 2, 3, 4, 1]);
    }

    #[test]
    fn those_that_do_not_answer_come_last_whenever_that_was_noticed() {
        let mut asker = Asker::new(Some(3));
        for expected in [3, 1, 2, 4] {
            assert_eq!(asker.asks(1), [expected]);
            asker.ways.note(node(expected), expected == 2, asker.now);
        }
        assert_eq!(asker.asks(4), [2, 3, 1, 4]);
        // The next question begins with who was heard.
        asker.round = Round::default();
        assert_eq!(asker.asks(2), [2, 3]);
        // Until that was long ago.
        (asker.round, asker.now) = (Round::default(), asker.now + UNHEARD_FOR);
        assert_eq!(asker.asks(2), [3, 1]);
    }

    #[test]
    fn a_new_leader_is_asked_at_once_whoever_was_asked_before() {
        let mut asker = Asker::new(Some(3));
        assert_eq!(asker.asks(2), [3, 1]);
        asker.leader = Some(node(1));
        assert_eq!(asker.asks(2), [1, 2]);
    }

    #[test]
    fn who_is_said_to_lead_is_asked_once_more_and_no_two_send_a_question_to_and_fro() {
        let mut asker = Asker::new(None);
        assert_eq!(asker.asks(2), [1, 2]);
        asker.round.told(node(1));
        asker.ways.remember(Some(node(1)));
        assert_eq!(asker.asks(1), [1]);
        asker.round.told(node(2));
        asker.ways.remember(Some(node(2)));
        assert_eq!(asker.asks(1), [2]);
        asker.round.told(node(1));
        asker.ways.remember(Some(node(1)));
        assert_eq!(asker.asks(2), [3, 4]);
    }
}
