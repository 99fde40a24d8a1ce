//! Which blobs services ask for: kept service by service, so that a change of one does not go through ten thousand. Pure.

use std::collections::BTreeMap;

use crate::ids::{BlobHash, NodeKey, ServiceName};

/// What one kept revision of a service asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Use {
    /// Which blob.
    pub(super) hash: BlobHash,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Who brought it.
    pub(super) author: NodeKey,
    /// Whether this node runs it now or is to.
    pub(super) to_run: bool,
}

/// What all services ask for of one blob.
#[derive(Debug, Default)]
pub(super) struct Uses {
    size: u64,
    count: usize,
    to_run: usize,
    authors: BTreeMap<NodeKey, usize>,
}

/// What all services ask for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    services: BTreeMap<ServiceName, Vec<Use>>,
    blobs: BTreeMap<BlobHash, Uses>,
}

impl Demand {
    /// A service asks for this now, and for nothing else.
    pub(super) fn set(&mut self, name: &ServiceName, uses: Vec<Use>) {
        let before = self.services.get(name).map_or(&[][..], Vec::as_slice);
        if before == uses {
            return;
        }
        for gone in self.services.remove(name).into_iter().flatten() {
            self.remove(&gone);
        }
        for new in &uses {
            self.blobs.entry(new.hash).or_default().add(new);
        }
        if !uses.is_empty() {
            self.services.insert(name.clone(), uses);
        }
    }

    /// All blobs that are asked for.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (&BlobHash, &Uses)> {
        self.blobs.iter()
    }

    fn remove(&mut self, gone: &Use) {
        let Some(uses) = self.blobs.get_mut(&gone.hash) else { return };
        uses.count -= 1;
        uses.to_run -= usize::from(gone.to_run);
        if let Some(count) = uses.authors.get_mut(&gone.author) {
            *count -= 1;
        }
        uses.authors.retain(|_, count| *count > 0);
        if uses.count == 0 {
            self.blobs.remove(&gone.hash);
        }
    }
}

impl Uses {
    fn add(&mut self, new: &Use) {
        self.size = new.size;
        self.count += 1;
        self.to_run += usize::from(new.to_run);
        *self.authors.entry(new.author).or_default() += 1;
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether this node runs it now or is to.
    pub(super) fn is_to_run(&self) -> bool {
        self.to_run > 0
    }

    /// Who brought it.
    pub(super) fn authors(&self) -> impl Iterator<Item = &NodeKey> {
        self.authors.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn of(blob: u8, author: u8, to_run: bool) -> Use {
        Use { hash: BlobHash([blob; 32]), size: u64::from(blob), author: NodeKey([author; 32]), to_run }
    }

    fn shown(demand: &Demand) -> Vec<(u8, bool, Vec<u8>)> {
        let blobs = demand.blobs();
        blobs
            .map(|(hash, uses)| (hash.0[0], uses.is_to_run(), uses.authors().map(|author| author.0[0]).collect()))
            .collect()
    }

    #[test]
    fn a_blob_is_asked_for_as_long_as_one_service_asks_for_it() {
        let mut demand = Demand::default();
        demand.set(&name("a"), vec![of(1, 7, true), of(2, 7, false)]);
        demand.set(&name("b"), vec![of(1, 8, false), of(1, 7, false)]);
        assert_eq!(shown(&demand), [(1, true, vec![7, 8]), (2, false, vec![7])]);
        demand.set(&name("a"), vec![]);
        assert_eq!(shown(&demand), [(1, false, vec![7, 8])]);
        demand.set(&name("b"), vec![of(1, 7, false)]);
        assert_eq!(shown(&demand), [(1, false, vec![7])]);
        demand.set(&name("b"), vec![]);
        assert_eq!((shown(&demand).len(), demand.services.len()), (0, 0));
    }
}
