//! Content by its hash.
//!
//! Pure: `image` names a binary by service, tag and platform; `plan` says who should hold which blob. Shells: the store and
//! the fetching of one blob from many peers.

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod image;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod plan;
