//! Tests with real processes, sockets and files.

mod host;
mod keeper;

#[path = "../shared/skip.rs"]
mod skip;
