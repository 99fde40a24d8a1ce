//! narun runs services and scheduled jobs on your own machines, without a broker or a control plane.
//!
//! Start reading at `ARCHITECTURE.md`, then `node::engine`: all that narun decides is decided there, in pure code. Everything
//! else either carries that out (shells) or speaks with people (`api`, `cli`).

#[cfg(not(target_os = "linux"))]
compile_error!("narun runs on Linux only: it needs cgroup v2, pidfds and SOCK_SEQPACKET sockets");

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod capacity;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod confinement;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod ids;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod time;

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod spec;

pub mod database;

pub mod blobs;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod crdt;
pub mod exec;
pub mod gossip;
pub mod ledger;

pub mod node;

pub mod api;
pub mod cli;

pub mod decoders;

#[cfg(test)]
#[path = "../tests/shared/skip.rs"]
mod skip;
