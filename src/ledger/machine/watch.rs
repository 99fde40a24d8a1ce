//! What changed for one node, by log index, so that a renewal is answered with that alone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::command::LeaseKey;

/// How many things that are no longer its concern a node can be told of one by one: a node that renews its session each half second
/// loses few between two of them, and one that lost everything is told the whole.
const GONE_MAX: usize = 1_024;

/// What changed for one node.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Watch {
    /// Changes up to here are not all known.
    floor: u64,
    /// What is its concern or was, and when that changed last.
    marks: BTreeMap<LeaseKey, Mark>,
    /// What is its concern, by the index of its last change.
    changed: BTreeMap<u64, BTreeSet<LeaseKey>>,
    /// What is not its concern any more, by the index at which it ceased to be.
    gone: BTreeMap<u64, BTreeSet<LeaseKey>>,
    /// How many of these there are.
    gone_count: usize,
}

/// When something changed.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Mark {
    at: u64,
    is_concern: bool,
}

impl Watch {
    /// Nothing was its concern up to `floor`, as far as is known.
    pub(super) fn since(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    /// Something changed, and is the node's concern from now on or is it no more.
    pub(super) fn note(&mut self, at: u64, lease: &LeaseKey, is_concern: bool) {
        let before = self.marks.insert(lease.clone(), Mark { at, is_concern });
        if let Some(before) = before {
            let of = if before.is_concern { &mut self.changed } else { &mut self.gone };
            remove(of, before.at, lease);
            self.gone_count -= usize::from(!before.is_concern);
        }
        let into = if is_concern { &mut self.changed } else { &mut self.gone };
        into.entry(at).or_default().insert(lease.clone());
        self.gone_count += usize::from(!is_concern);
        if self.gone_count > GONE_MAX {
            self.drop_oldest();
        }
    }

    /// Forgets those that ceased to be a concern at the lowest index, all of them: an index is known whole or not at all.
    fn drop_oldest(&mut self) {
        let Some((at, leases)) = self.gone.pop_first() else { return };
        self.gone_count -= leases.len();
        for lease in leases {
            self.marks.remove(&lease);
        }
        self.floor = self.floor.max(at);
    }

    /// What changed up to `floor` is not known one by one.
    pub(super) fn forget_before(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    /// Whether nothing is its concern.
    pub(super) fn is_idle(&self) -> bool {
        self.changed.is_empty()
    }

    /// Whether all changes after `since` are known.
    pub(super) fn reaches(&self, since: u64) -> bool {
        since >= self.floor
    }

    /// Its concerns that changed after `since`.
    pub(super) fn changed(&self, since: u64) -> impl Iterator<Item = &LeaseKey> {
        after(&self.changed, since)
    }

    /// What ceased to be its concern after `since`.
    pub(super) fn gone(&self, since: u64) -> impl Iterator<Item = &LeaseKey> {
        after(&self.gone, since)
    }
}

fn after(sets: &BTreeMap<u64, BTreeSet<LeaseKey>>, since: u64) -> impl Iterator<Item = &LeaseKey> {
    use std::ops::Bound::{Excluded, Unbounded};
    sets.range((Excluded(since), Unbounded)).flat_map(|(_, leases)| leases)
}

fn remove(sets: &mut BTreeMap<u64, BTreeSet<LeaseKey>>, at: u64, lease: &LeaseKey) {
    if let Some(set) = sets.get_mut(&at) {
        set.remove(lease);
        if set.is_empty() {
            sets.remove(&at);
        }
    }
}
