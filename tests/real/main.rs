//! Tests with real processes, sockets and files.

mod cluster;
mod deploy;
mod host;
mod instances;
mod keeper;
mod membership;
mod skip;
