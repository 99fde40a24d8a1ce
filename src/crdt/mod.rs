//! What the cluster agrees on without asking.
//!
//! Pure throughout. `catalog` holds one Automerge document for each named thing that users asked for; `roster` holds signed
//! single-writer records of what nodes report; `tree` is the hash tree by which two nodes find out cheaply what differs;
//! `admission` is what is said of members, `trust` who follows from that to be one, `ticket` who may become one.

pub mod admission;
pub mod catalog;
pub mod document;
pub mod revision;
pub mod roster;
pub mod ticket;
pub mod tree;
pub mod trust;
