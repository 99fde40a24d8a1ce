//! What the user said about this node, kept so that a plain `narun start` resumes with it. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::node::config::{LISTEN_DEFAULT, StartOptions};
use crate::node::engine::Stored;
use crate::node::engine::effect::{Change, Table};

/// The row that holds them.
const ROW: &[u8] = b"options";

/// The options that outlast a start.
#[derive(Clone, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Options {
    /// Where to listen, `HOST:PORT`.
    #[n(0)]
    pub(super) listen: String,
    /// Where others reach it; empty: what the node finds out.
    #[n(1)]
    pub(super) advertise: Vec<String>,
    /// Labels by key.
    #[n(2)]
    pub(super) labels: BTreeMap<String, String>,
}

impl Options {
    /// What is said now, and where nothing is said, what was said before. Fails with the row's name when it is damaged.
    pub(super) fn merge(stored: &Stored, said: &StartOptions) -> Result<Self, &'static str> {
        let before: Option<Self> = match stored.get(&(Table::Meta, ROW.to_vec())) {
            Some(row) => Some(minicbor::decode(row).map_err(|_| "the row `options` is damaged")?),
            None => None,
        };
        let (listen, advertise, labels) = match before {
            Some(before) => (before.listen, before.advertise, before.labels),
            None => (LISTEN_DEFAULT.to_owned(), Vec::new(), BTreeMap::new()),
        };
        Ok(Self {
            listen: said.listen.clone().unwrap_or(listen),
            advertise: if said.advertise.is_empty() { advertise } else { said.advertise.clone() },
            labels: if said.labels.is_empty() { labels } else { said.labels.clone() },
        })
    }

    /// With the port that the system chose where it was left to it: others remember this node there.
    pub(super) fn listening_at(mut self, address: SocketAddr) -> Self {
        self.listen = address.to_string();
        self
    }

    /// The row that keeps them.
    pub(super) fn row(&self) -> Change {
        let value = minicbor::to_vec(self).expect("encoding into memory cannot fail");
        Change { table: Table::Meta, key: ROW.to_vec(), value: Some(value) }
    }
}
