//! Who is here, and how news travels.
//!
//! Pure: `message` is what members say to one another; `membership` is SWIM; `dissemination` spreads news at once; `sync` repairs
//! what that missed. Shell: `transport`, the only place that knows a socket.

pub mod dissemination;
pub mod membership;
pub mod message;
pub mod sync;
