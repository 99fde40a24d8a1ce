//! Agreement, where the promises need it: who holds which lease, which slot was claimed by whom, what became of each run.
//!
//! A Raft group of a few voters keeps one log of [`command::Command`]s; [`machine::Machine`] is what they add up to. The machine is
//! pure and the same on every voter. Time in it is [`time::LedgerTime`], which the leader stamps on each command and which only
//! grows: neither a claim nor the end of a session ever depends on a wall clock.
//!
//! Why no slot has two runs: each job has a *cursor*, the last slot that was decided. A [`command::Decide`] names the cursor that its
//! author knew, covers everything up to the slot that it claims, and is refused if the cursor is another. So of two claims of
//! one slot, by whomever and however late, the log has one first, and the other one is refused.
//!
//! Layers: `command`, `run`, `machine`, `office` (what a leader does), `voters` (who votes) and `duty` (what each node does) are pure;
//! `raft` is the shell. `trial` tries them all together, in simulated time.

#[macro_use]
mod bugs;

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod command;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod duty;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod machine;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod office;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod question;
pub mod raft;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod run;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod time;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod voters;

#[cfg(test)]
mod trial;
