//! One member of the cluster: the pure engine, and the wiring that lets it act.
//!
//! `engine` decides, `runtime` carries out, `handle` is the door for requests, `shells` are the traits between. The shells that
//! belong to the node itself stand here too: `store` (the database), `clock`, `lock`. `layout` knows where files stand.

pub mod clock;
pub mod engine;
pub mod handle;
pub mod identity;
pub mod layout;
pub mod lock;
pub mod runtime;
pub mod shells;
pub mod store;
