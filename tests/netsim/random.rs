//! Where chance comes from. Pure.
//!
//! One seed, and out of it one stream for each user of chance: a draw more in the network leaves the faults as they were, so
//! that a failing seed stays alike while the code is being mended.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of chance.
pub(crate) type Stream = ChaCha8Rng;

/// The stream of `label` under `seed`.
pub(crate) fn stream(seed: u64, label: &str) -> Stream {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(label.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A span between `from` and `to` milliseconds, both included.
pub(crate) fn millis(stream: &mut Stream, from: u64, to: u64) -> Duration {
    Duration::from_millis(stream.random_range(from..=to))
}

/// One of `items`, which must not be empty.
pub(crate) fn pick<'a, T>(stream: &mut Stream, items: &'a [T]) -> &'a T {
    &items[stream.random_range(0..items.len())]
}
