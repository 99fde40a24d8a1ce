//! A hash tree over named items: how two nodes find out cheaply what differs. Pure.
//!
//! 256 buckets by the first byte of the hash of an item's key. A bucket's hash is the sum of its items' hashes (addition in
//! four lanes of 64 bits, so that an item is put in and taken out in one step and their order does not matter), the root is the
//! hash of the sum of all items, so that it costs the same however many there are. Members build these for themselves: the sum is not meant to withstand someone who looks for collisions.

use std::collections::BTreeMap;

/// How many buckets there are: with 8 bytes each they cross in 2 KiB, and ten thousand items lie 40 to a bucket.
pub const BUCKETS: usize = 256;

/// How many bytes of a bucket's hash cross the wire: enough to tell buckets apart, since the root has been compared in full.
pub const BUCKET_HASH_LEN: usize = 8;

/// The state of one item, as far as two nodes must agree on it.
pub type Version = [u8; 32];

type Lanes = [u64; 4];

/// Items by key, with hashes over them that are kept up to date.
#[derive(Clone, Debug)]
pub struct HashTree {
    sum: Lanes,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    sum: Lanes,
    items: BTreeMap<Vec<u8>, Version>,
}

impl Default for HashTree {
    fn default() -> Self {
        Self { sum: Lanes::default(), buckets: vec![Bucket::default(); BUCKETS] }
    }
}

impl HashTree {
    /// Sets the version of an item.
    pub fn set(&mut self, key: &[u8], version: Version) {
        self.remove(key);
        let bucket = &mut self.buckets[usize::from(bucket_of(key))];
        let hash = item_hash(key, &version);
        add(&mut bucket.sum, hash);
        add(&mut self.sum, hash);
        bucket.items.insert(key.to_vec(), version);
    }

    /// Takes an item out; nothing happens when there is none.
    pub fn remove(&mut self, key: &[u8]) {
        let bucket = &mut self.buckets[usize::from(bucket_of(key))];
        if let Some(version) = bucket.items.remove(key) {
            let hash = item_hash(key, &version);
            subtract(&mut bucket.sum, hash);
            subtract(&mut self.sum, hash);
        }
    }

    /// One hash for everything: equal on two nodes that hold the same items.
    pub fn root(&self) -> Version {
        *blake3::hash(&bytes(&self.sum)).as_bytes()
    }

    /// [`BUCKETS`] shortened hashes, one after the other.
    pub fn bucket_hashes(&self) -> Vec<u8> {
        self.buckets.iter().flat_map(|bucket| bucket.short_hash()).collect()
    }

    /// Which buckets differ from those of another node; every one, if its answer has not the right length.
    pub fn differing(&self, theirs: &[u8]) -> Vec<u8> {
        let well_formed = theirs.len() == BUCKETS * BUCKET_HASH_LEN;
        let differs = |(at, bucket): &(usize, &Bucket)| {
            !well_formed || theirs[at * BUCKET_HASH_LEN..][..BUCKET_HASH_LEN] != bucket.short_hash()
        };
        self.buckets.iter().enumerate().filter(differs).map(|(at, _)| at as u8).collect()
    }

    /// The items of a bucket, by key.
    pub fn items(&self, bucket: u8) -> impl Iterator<Item = (&Vec<u8>, &Version)> {
        self.buckets[usize::from(bucket)].items.iter()
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.items.len()).sum()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bucket {
    fn short_hash(&self) -> [u8; BUCKET_HASH_LEN] {
        let hash = blake3::hash(&bytes(&self.sum));
        std::array::from_fn(|at| hash.as_bytes()[at])
    }
}

/// The bucket that a key belongs to.
pub fn bucket_of(key: &[u8]) -> u8 {
    blake3::hash(key).as_bytes()[0]
}

fn item_hash(key: &[u8], version: &Version) -> Lanes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(version);
    hasher.update(key);
    let hash = hasher.finalize();
    std::array::from_fn(|lane| {
        let bytes: [u8; 8] = std::array::from_fn(|at| hash.as_bytes()[lane * 8 + at]);
        u64::from_le_bytes(bytes)
    })
}

fn bytes(lanes: &Lanes) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, lane) in bytes.chunks_exact_mut(8).zip(lanes) {
        place.copy_from_slice(&lane.to_le_bytes());
    }
    bytes
}

fn add(sum: &mut Lanes, item: Lanes) {
    for (lane, value) in sum.iter_mut().zip(item) {
        *lane = lane.wrapping_add(value);
    }
}

fn subtract(sum: &mut Lanes, item: Lanes) {
    for (lane, value) in sum.iter_mut().zip(item) {
        *lane = lane.wrapping_sub(value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(items: &BTreeMap<Vec<u8>, u8>) -> HashTree {
        let mut tree = HashTree::default();
        for (key, version) in items {
            tree.set(key, [*version; 32]);
        }
        tree
    }

    fn items() -> impl Strategy<Value = BTreeMap<Vec<u8>, u8>> {
        proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..4), any::<u8>(), 0..60)
    }

    proptest! {
        #[test]
        fn the_root_tells_whether_the_items_are_equal(a in items(), b in items()) {
            prop_assert_eq!(tree(&a).root() == tree(&b).root(), a == b);
        }

        #[test]
        fn the_way_to_the_items_does_not_matter(a in items(), b in items()) {
            let mut wandered = tree(&b);
            for key in b.keys() {
                wandered.remove(key);
            }
            prop_assert!(wandered.is_empty());
            for (key, version) in a.iter().rev() {
                wandered.set(key, [version.wrapping_add(1); 32]);
                wandered.set(key, [*version; 32]);
            }
            prop_assert_eq!(wandered.root(), tree(&a).root());
            prop_assert_eq!(wandered.len(), a.len());
        }

        #[test]
        fn differing_buckets_hold_all_that_differs(a in items(), b in items()) {
            let (ours, theirs) = (tree(&a), tree(&b));
            let differing = ours.differing(&theirs.bucket_hashes());
            for (key, version) in &a {
                if b.get(key) != Some(version) {
                    prop_assert!(differing.contains(&bucket_of(key)));
                }
            }
            prop_assert!(ours.differing(&ours.bucket_hashes()).is_empty());
        }

        #[test]
        fn garbage_for_buckets_differs_everywhere(a in items(), garbage in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(tree(&a).differing(&garbage).len(), BUCKETS);
        }
    }
}
