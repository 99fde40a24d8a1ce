//! Tests with real processes, sockets and files.

mod belonging;
mod blobs;
mod cluster;
mod copies;
mod crashes;
mod deploy;
mod host;
mod hostile;
mod hosts;
mod instances;
mod keeper;
mod membership;
mod netns;
mod nodes;
mod output;
mod skip;
mod sockets;
mod surface;
