//! Tests with real processes, sockets and files.

mod blobs;
mod cluster;
mod deploy;
mod host;
mod instances;
mod keeper;
mod membership;
mod nodes;
mod output;
mod skip;
mod surface;
