//! Tests that cannot run here say so loudly.

#[path = "../shared/skip.rs"]
mod shared;

/// Says that a test was not run, and why; in CI that is a failure.
pub(crate) fn skip(test: &str, why: &str) {
    shared::skip(&format!("{test}: {why}"));
}
