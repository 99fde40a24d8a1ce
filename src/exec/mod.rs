//! Processes on this host.
//!
//! Pure: `plan` is the fully resolved launch plan that crosses to the keeper and knows no specification; `supervisor` is the
//! state table of one instance; `backoff` says when to try again. Shells: the keeper that owns the processes; `launch`, the one
//! function that is the order of a start; control groups and PID namespaces, which hold trees together; the log files.

pub mod plan;

pub mod keeper;

pub(crate) mod launch;
pub(crate) mod namespace;

pub(crate) mod cause;
pub(crate) mod cgroup;
pub(crate) mod pidfd;

pub mod logs;
