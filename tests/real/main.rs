//! Tests with real processes, sockets and files.

mod blobs;
mod cluster;
mod deploy;
mod host;
mod instances;
mod keeper;
mod membership;
mod output;
mod skip;
mod surface;
