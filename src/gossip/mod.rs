//! Who is here, and how news travels.
//!
//! Pure: `message` is what members say to one another; `membership` is SWIM; `dissemination` spreads news at once; `sync` repairs
//! what that missed. Shells: `transport`, the only place that knows a socket, and `join`, the door for strangers.
//!
//! # Who is here
//!
//! Who is a *member* follows from signed admissions and removals in the catalog (`crdt/trust`); gossip never changes it. How each member *fares* is
//! what `membership` finds out:
//!
//! 1. Two members that connect say hello: in which life, and in which incarnation they are. That alone makes a restarted or healed
//!    member alive, at once and for twenty bytes.
//! 2. Once a second each member probes one other, half a second later through three more. Who does not answer is *suspect*; so is, after a
//!    second, whose connection broke and did not come back. A node whose connections all break at once accuses nobody for it.
//! 3. The suspicion goes round in milliseconds. Whoever is connected to the suspect asks it; it refutes with a greater incarnation. Whoever has heard
//!    no refutation in three seconds (1.5 if its own connection broke) takes it for *down*.
//! 4. Nobody takes another's word that a member is down to whom its own connection stands: it asks. Who learns that somebody takes it for
//!    down renews its life, which overrules everything that was said of the last one.
//! 5. A node that was woken late, misses answers or had to refute stretches steps 2 and 3 by up to nine times, and does not act on what
//!    became due while it slept before it has read what came meanwhile.
//!
//! So a killed process is down everywhere after 2.6 s, a host that fell silent after seven to ten, a stalled node kills nobody, and one broken
//! link harms nobody.
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
