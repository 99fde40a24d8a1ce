//! One member of the cluster: the pure engine, and the wiring that lets it act.

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod engine;
pub mod handle;
pub mod layout;
pub mod runtime;
pub mod shells;
