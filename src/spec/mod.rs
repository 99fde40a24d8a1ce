//! What a user may ask for: validated words. Pure.
//!
//! A [`ServiceSpec`] is to be had by parsing and checking alone, so that whoever holds one holds a good one. The CLI and the node
//! run the same code; the node runs it again, because a client is not to be trusted.
//!
//! `written` reads what users write (YAML or JSON), with `tree` (the text as it stands), `fields` (the table of all that may be
//! written), `words` (rules for single texts), `check` (the one held against the other) and `mistake` (all that is wrong, told at
//! once), `execution` (the fields of sandbox, limits and supervision) and `cron` (those of when it runs); `flags` reads the options of `narun deploy` by the same rules; `stored` writes; `schema` publishes the table as JSON
//! schema. Beside them, `schedule` knows due times, and `platform` tells a program's platform from the first bytes of its file.

pub mod platform;
pub mod schedule;

mod check;
mod cron;
mod execution;
mod fields;
mod flags;
mod mistake;
mod schema;
mod stored;
mod tree;
mod words;
mod written;

#[cfg(test)]
mod tests;

pub use cron::{
    CatchUp, Concurrency, CronPolicy, CronScope, CronSpec, HISTORY_LIMIT_MAX, OnNodeLoss, RETRY_BACKOFF_SECONDS_MAX,
};
pub use execution::{Restart, Supervision};
pub use fields::{
    ARGS_AND_ENV_LEN_MAX, ARGS_MAX, ENV_MAX, PLACES_MAX, REPLICAS_MAX, RETRIES_MAX, SECONDS_MAX, STRING_LEN_MAX,
    TAG_LEN_MAX,
};
pub use flags::Flags;
pub use mistake::{Mistake, Mistakes};
pub use schema::json_schema;
pub use stored::StoredError;
pub use tree::WRITTEN_LEN_MAX;

use std::collections::BTreeMap;

use crate::capacity::CgroupLayout;
use crate::confinement::Confinement;
use crate::ids::{NodeName, ServiceName};

/// A service or cron spec that was checked in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSpec {
    /// The name that the cluster knows it by.
    pub name: ServiceName,
    /// The version label of the binary, chosen by the user.
    pub tag: String,
    /// The interpreter to run the binary with; none: the binary itself is run.
    pub command: Option<String>,
    /// Arguments after the binary.
    pub args: Vec<String>,
    /// Variables beside the documented `NARUN_*` ones, in the order written; names are unique.
    pub env: Vec<EnvVar>,
    /// Where its instances belong.
    pub placement: Placement,
    /// What a node must have to run any of them.
    pub constraints: Constraints,
    /// At most one instance at any time, under a lease of the ledger.
    pub singleton: bool,
    /// What holds its processes.
    pub confinement: Confinement,
    /// How its processes are looked after.
    pub supervision: Supervision,
    /// Whether it stays up or runs at due times.
    pub mode: RunMode,
}

/// One environment variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnvVar {
    /// Not empty; without `=` and NUL.
    pub name: String,
    /// May be empty, may hold `=`; without NUL.
    pub value: String,
}

/// Which nodes run how many instances.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    /// `nodes: [{name, replicas}]` with node names: indices count per node. Each place occurs once.
    Named(Vec<NamedPlace>),
    /// `replicas: N`, or `nodes: [{name: any, replicas: N}]`: indices count over the cluster, narun chooses the nodes.
    Cluster {
        /// At least 1.
        replicas: u32,
    },
    /// `nodes: [{name: all, replicas: N}]`: N instances on every node; indices count per node.
    EachNode {
        /// At least 1.
        replicas: u32,
    },
}

/// A number of instances on one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPlace {
    /// The node.
    pub node: Place,
    /// At least 1.
    pub replicas: u32,
}

/// A node by name, or the one that takes the deploy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The node that answers the API; resolved to its name before the revision is stored.
    Local,
    /// The node of that name.
    Node(NodeName),
}

/// What a node must have; by default nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Constraints {
    /// Labels with exactly these values.
    pub labels: BTreeMap<String, String>,
    /// This operating system, as `linux`.
    pub os: Option<String>,
    /// This processor, as `amd64`.
    pub arch: Option<String>,
    /// At least so many processors.
    pub cores_min: u32,
    /// At least so much memory, in MiB.
    pub memory_min_mb: u64,
    /// At least this version of Landlock's interface.
    pub landlock_min: u32,
    /// These control groups.
    pub cgroup: Option<CgroupLayout>,
}

/// Checks a label as it is given to a node. Fails with what is wrong with it.
pub fn check_label(key: &str, value: &str) -> Result<(), String> {
    words::label_key(key).map_err(|wrong| format!("the label's key {wrong}"))?;
    words::label_value(value).map_err(|wrong| format!("the value of the label `{key}`: {wrong}"))
}

/// Whether a spec stays up or runs at due times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunMode {
    /// Its instances are kept running.
    Service,
    /// It is run at each slot of its schedule.
    Cron(CronSpec),
}

impl ServiceSpec {
    /// Puts the name of the node that takes the deploy in the place of `local`. Fails, and changes nothing, where that node is
    /// also placed by its name: two counts for one node cannot both be meant.
    pub fn resolve_local(&mut self, name: &NodeName) -> Result<(), Mistakes> {
        let Placement::Named(places) = &mut self.placement else { return Ok(()) };
        let Some(local) = places.iter().position(|place| place.node == Place::Local) else { return Ok(()) };
        let node = Place::Node(name.clone());
        if places.iter().any(|place| place.node == node) {
            let message = format!("`local` is the node `{name}` here, which `nodes` names too; name it once");
            return Err(Mistake::new(format!("nodes[{local}].name"), message).into());
        }
        places[local].node = node;
        Ok(())
    }
}
