//! One member of the cluster: the pure engine, and the wiring that lets it act.

pub mod config;
pub mod engine;
pub mod handle;
pub mod layout;
pub mod logs;
pub mod runtime;
pub mod shells;
