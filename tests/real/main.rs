//! Tests with real processes, sockets and files.

mod belonging;
mod blobs;
mod cluster;
mod copies;
mod deploy;
mod host;
mod hostile;
mod instances;
mod keeper;
mod membership;
mod nodes;
mod output;
mod skip;
mod sockets;
mod surface;
