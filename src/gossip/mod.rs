//! Who is here, and how news travels.
//!
//! Pure: `message` is what members say to one another; `membership` is SWIM; `dissemination` spreads news at once; `sync` repairs
//! what that missed. Shell: `transport`, the only place that knows a socket.

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod dissemination;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod membership;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod message;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod sync;
