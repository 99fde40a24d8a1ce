//! Processes on this host.
//!
//! Pure: `plan` is the fully resolved launch plan that crosses to the keeper and knows no specification; `supervisor` is the
//! state table of one instance; `backoff` says when to try again. Shells: the keeper that owns the processes, the one function
//! that is the order of a start, the control groups, the log files.

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod backoff;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod plan;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod supervisor;
