//! Long absences: for whom nobody waits any more, and what one does who comes back. Pure.
//!
//! Histories and tombstones end when all members agree. One who is down for over a week would hold that up for ever, and is left out.
//! So it may come back with documents that all others have deleted and forgotten. What it can still tell apart is decided by what
//! documents say, whatever the time: one in which nobody has written since then is let go of, and one with a revision that nobody
//! has seen is a new deploy (`crdt/catalog.rs`). The rest follows from its knowing that it was away: it takes the cluster's state,
//! and offers nothing that others may only lack because they never had to hear of it, until those have spoken who know.

use std::time::Duration;

use super::Engine;
use super::view::NodeStatus;
use crate::gossip::sync::Offer;
use crate::ids::NodeKey;
use crate::time::{Mono, Wall};

/// For how long a member must not have been heard of to count as away: a host that is under repair is back by then, and for that
/// long everybody keeps what was deleted.
pub(super) const ABSENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a node that was away offers nothing that others lack altogether: by then it has begun a round with each of 300 members.
const RETURN: Duration = Duration::from_secs(60);

/// Whether this node was away.
#[derive(Debug, Default)]
pub(super) struct Absence {
    /// It was, and has met nobody since, or not for long.
    was_away: bool,
    /// When it has met everybody.
    over: Option<Mono>,
}

impl Engine {
    /// Looks, after a start, whether this node was away for long: by its own word in its last life.
    pub(super) fn look_back_at_last_life(&mut self) {
        let spoke = self.known.catalog(&self.me).and_then(|report| report.at);
        self.absence.was_away = spoke.is_some_and(|at| self.is_long_ago(at));
    }

    /// A connection is about to stand. Where it is the first one, this node may have been cut off: it was, if it has not heard of
    /// more than half of the members for long.
    pub(super) fn look_back(&mut self) {
        if !self.cluster.connected().is_empty() {
            return;
        }
        let members = self.cluster.members();
        let unheard = members.keys().filter(|key| **key != self.me && self.is_unheard(key)).count();
        self.absence.was_away |= 2 * unheard > members.len();
        if self.absence.was_away {
            self.absence.over.get_or_insert(self.now.mono + RETURN);
        }
    }

    /// Which documents this node gives away.
    pub(super) fn offer(&mut self) -> Offer {
        if self.absence.over.is_some_and(|over| over <= self.now.mono) {
            self.absence = Absence::default();
        }
        if self.absence.was_away { Offer::WhatBothHold } else { Offer::Everything }
    }

    /// Whether a member has been down for so long that nobody waits for it.
    pub(super) fn is_away(&self, key: &NodeKey) -> bool {
        self.cluster.status(key).0 == NodeStatus::Down && self.is_unheard(key)
    }

    /// By a member's own word, which says when it was spoken; one that never said a word, since it was admitted.
    fn is_unheard(&self, key: &NodeKey) -> bool {
        let spoke = match self.known.catalog(key) {
            Some(report) => report.at,
            None => self.cluster.members().get(key).map(|member| member.at),
        };
        spoke.is_some_and(|at| self.is_long_ago(at))
    }

    fn is_long_ago(&self, at: Wall) -> bool {
        self.now.wall.since(at) >= ABSENCE
    }
}
