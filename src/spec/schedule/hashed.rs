//! `H`: a value out of the hash of the spec's name, so that many specs that are due "once an hour" do not all start at once. Pure.
//!
//! The notation is Jenkins' (its cron trigger's help): `H` is one value of the field, `H(a-b)` one from a to b, `H/n` every n-th from a
//! hashed start, `H(a-b)/n` the same within a to b. Days of the month are drawn from 1 to 28, which every month has. The draw
//! depends on the name and the field alone, and is the same in every version: see the test that pins it.

/// What the hash is keyed with. Another text would move every such slot of every cluster.
const CONTEXT: &str = "narun schedule H 1";

/// The number drawn for a field of the spec called `name`.
pub(super) fn draw(name: &str, field: &str) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(field.as_bytes()).update(b"\0").update(name.as_bytes());
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

/// What stands for `H` with the values from `first` to `last`: a number, or, with a step, a range with that step.
pub(super) fn written(draw: u64, first: u32, last: u32, step: Option<u32>) -> String {
    let count = last.saturating_sub(first).saturating_add(1);
    // The remainder is below a number of 32 bits.
    let drawn = |below: u32| first + u32::try_from(draw % u64::from(below.max(1))).unwrap_or_default();
    match step {
        None => drawn(count).to_string(),
        // A step beyond the range still hits it once.
        Some(step) => format!("{}-{last}/{step}", drawn(step.min(count))),
    }
}
