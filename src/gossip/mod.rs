//! Who is here, and how news travels.
//!
//! Pure: `message` is what members say to one another; `membership` is SWIM; `dissemination` spreads news at once; `sync` repairs
//! what that missed. Shells: `transport`, the only place that knows a socket, and `join`, the door for strangers.

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
