//! One member of the cluster: the pure engine, and the wiring that lets it act.

pub mod engine;
pub mod handle;
pub mod identity;
pub mod layout;
pub mod runtime;
pub mod shells;
