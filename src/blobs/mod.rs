//! Content by its hash.
//!
//! Pure: `image` names a binary by service, tag and platform; `plan` says who should hold which blob. Shells: `store` holds blobs
//! durably and `import` takes them in, `executable` makes verified programs of them, `fetch` gets one from several members at
//! once, `provide` gives them to members, `shell` does both for the runtime.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod image;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod plan;

pub mod executable;
pub mod fetch;
pub mod provide;
pub mod shell;
pub mod store;

mod import;
mod wire;

pub(crate) use provide::understands_request;
