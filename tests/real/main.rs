//! Tests with real processes, sockets and files.

mod host;
mod keeper;
