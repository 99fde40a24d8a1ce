//! Where narun had all that it needs, whatever was done elsewhere.

use std::collections::BTreeSet;

use super::Evidence;
use crate::ledger::trial::book::{Moment, Of};

/// A set of hosts that were up from one moment to the other, all of the time and with all ways between them, and that have a majority of
/// the voters: if there is one, the largest. Every other host was cut off from all of them or from none.
pub(super) fn sound_majority(evidence: &Evidence<'_>, from: Moment, until: Moment) -> Option<BTreeSet<usize>> {
    let book = evidence.book;
    let troubles: Vec<_> = book.troubles.iter().filter(|trouble| trouble.is_in(from, until)).collect();
    if troubles.iter().any(|trouble| matches!(trouble.of, Of::Weather)) {
        return None;
    }
    // Who votes has to be known, and to stay.
    let changes = book.voters.iter().any(|(at, _)| (from.saturating_sub(1_000)..=until).contains(at));
    let voters = book.voters.iter().rev().find(|(at, _)| *at <= from).map(|(_, voters)| voters)?;
    if changes {
        return None;
    }
    let is_up = |host: &usize| !troubles.iter().any(|trouble| matches!(&trouble.of, Of::Host(of) if of == host));
    let up: Vec<usize> = (0..evidence.hosts).filter(is_up).collect();
    let cuts: Vec<_> = troubles
        .iter()
        .filter_map(|trouble| match &trouble.of {
            Of::Ways(ways) => Some(ways),
            _ => None,
        })
        .collect();
    let is_whole = |set: &BTreeSet<usize>| {
        cuts.iter().all(|ways| {
            let inside = ways.iter().any(|(a, b)| set.contains(a) && set.contains(b));
            // Towards each of the others, all ways or none.
            let others = (0..evidence.hosts).filter(|host| !set.contains(host));
            let is_clean = |other: usize| {
                let cut = set.iter().flat_map(|one| [(*one, other), (other, *one)]);
                let count = cut.filter(|way| ways.contains(way)).count();
                count == 0 || count == 2 * set.len()
            };
            !inside && others.into_iter().all(is_clean)
        })
    };
    let sets = (1_u32..1 << up.len()).map(|bits| -> BTreeSet<usize> {
        up.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1).map(|(_, host)| *host).collect()
    });
    let has_majority = |set: &BTreeSet<usize>| set.intersection(voters).count() > voters.len() / 2;
    sets.filter(|set| has_majority(set) && is_whole(set)).max_by_key(BTreeSet::len)
}
