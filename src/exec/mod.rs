//! Processes on this host.
//!
//! Pure: `plan` is the fully resolved launch plan that crosses to the keeper and knows no specification; `supervisor` is the state
//! table of one instance; `backoff` says when to try again. Shells: `keeper` is the process that owns the others, and its client;
//! `launch` the one function that is the order of a start; `cgroup` and `namespace` hold a whole tree of processes together, with
//! `pidfd` under them; `logs` are the files that keep output. `cause` words what the system says.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod backoff;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod plan;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod supervisor;

pub mod keeper;
pub mod logs;

pub(crate) mod cause;
pub(crate) mod cgroup;
pub(crate) mod launch;
pub(crate) mod namespace;
pub(crate) mod pidfd;
