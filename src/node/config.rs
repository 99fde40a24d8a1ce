//! What the user says about this host's node when it is started. Pure, plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::crdt::ticket::Ticket;
use crate::ids::NodeName;

/// Where a node listens for other nodes when it is not told.
pub const LISTEN_DEFAULT: &str = "0.0.0.0:7470";

/// How to run this host's node.
pub struct StartOptions {
    /// Where all that the node holds stands.
    pub data_dir: PathBuf,
    /// The name that was asked for. A node keeps the name that it was admitted under: another one is refused.
    pub name: Option<NodeName>,
    /// The name to take where none was asked for: this host's.
    pub name_default: NodeName,
    /// Where to listen for other nodes, `HOST:PORT`; none: where it listened before, else [`LISTEN_DEFAULT`].
    pub listen: Option<String>,
    /// Where others reach it, `HOST:PORT`, best first; empty: what the node finds out about itself.
    pub advertise: Vec<String>,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
    /// The API's socket; none: `narun.sock` in the data directory.
    pub api_socket: Option<PathBuf>,
    /// Called once, when the node serves.
    pub announce: Announce,
}

/// How to become a member, and then to run.
pub struct JoinOptions {
    /// How to run.
    pub start: StartOptions,
    /// What lets it in.
    pub ticket: Ticket,
}

/// Tells the user that the node serves.
pub type Announce = Box<dyn FnOnce(&Ready) + Send>;

/// A node that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Its name.
    pub name: NodeName,
    /// Where it listens for other nodes.
    pub listen: String,
    /// Where its API answers.
    pub api_socket: PathBuf,
    /// How it came to be.
    pub origin: Origin,
}

/// How a node came to be what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It founded a cluster of one just now; with this ticket others join.
    Founded(Ticket),
    /// It became a member just now.
    Joined,
    /// It was a member before.
    Resumed,
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions")
            .field("data_dir", &self.data_dir)
            .field("name", &self.name)
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("labels", &self.labels)
            .field("api_socket", &self.api_socket)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinOptions").field("start", &self.start).field("ticket", &self.ticket).finish()
    }
}
