//! Who is here, and how news travels.
//!
//! Pure: `message` is what members say to one another; `membership` is SWIM; `dissemination` spreads news at once; `sync` repairs
//! what that missed. Shells: `transport`, the only place that knows a socket, and `join`, the door for strangers.
//!
//! # How news travels
//!
//! 1. News (a document's change, a node's record) goes out at once, in two hops: keys lie on a ring, the author hands the news to one random
//!    member of each of twenty stretches, and that one tells the others of its stretch. Small news takes two such ways. (`dissemination`)
//! 2. A tenth of a second later each node tells the news' name to three others, spaced evenly on the ring. Who lacks it asks.
//! 3. Every ten seconds, and after each new connection, two members compare the roots of their hash trees, and, where those differ, go down to
//!    buckets, to items, to what is lacking, in repairs of at most 256 KiB. (`sync`)
//!
//! Among 300 nodes, with links of 0.2 to 80 ms and one message in a hundred lost, 99 in 100 have a change after 130 ms, everybody has it
//! within a second, and a node gets one copy too many. Two members that agree exchange 75 bytes.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod message;

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod dissemination;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod membership;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod sync;

pub mod join;
pub mod transport;
