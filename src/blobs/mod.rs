//! Content by its hash.
//!
//! Pure: `image` names a binary by service, tag and platform; `plan` says who should hold which blob. Shells: the store and
//! the fetching of one blob from many peers.

pub mod image;

pub mod store;
// What the store is asked for: to take blobs in, make programs of them, fetch them from other nodes and give them to those.
pub mod executable;
pub mod fetch;
mod import;
pub mod provide;
pub mod shell;
mod wire;
