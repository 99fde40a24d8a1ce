//! One member of the cluster: the pure engine, and the wiring that lets it act.
//!
//! `engine` decides, `runtime` carries out, `handle` is the door for requests, `shells` are the traits between. The shells that
//! belong to the node itself stand here too: `store` (the database), `clock`, `lock`, `identity` (the key), `host` (what this host
//! offers), `agreement` (the ledger as the engine has it), `logs` (what all nodes have kept of output), `usage` (what instances use on all nodes), `recovery` (a new ledger group out of a stopped node). `config` is what the user says, `layout` knows where files stand, and `run` puts it all together.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod engine;
pub mod runtime;

pub mod handle;
pub mod shells;

pub mod agreement;
pub mod clock;
pub mod host;
pub mod identity;
pub mod lock;
pub mod logs;
pub mod recovery;
pub mod store;
pub mod usage;

pub mod config;
pub mod layout;
pub mod run;
