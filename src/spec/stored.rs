//! The forms that narun itself writes: stored bytes, YAML for people, and the bytes that say what a running instance depends
//! on. Pure.
//!
//! The stored form is the written form as JSON with a version in front, every field in one fixed order and none that says
//! nothing: equal specifications have equal bytes. Reading it back runs every check again, for the bytes come from peers.

use serde_json::{Map, Value, json};

use super::mistake::Mistakes;
use super::tree::{Node, WRITTEN_LEN_MAX};
use super::{Constraints, Place, Placement, RunMode, ServiceSpec, cron, execution};

/// The version that this program writes, and the only one so far. It is raised when a field changes its meaning; a field that is
/// only new is refused by older programs as it is.
const VERSION: u64 = 1;

/// Longest stored form: JSON needs at most six bytes for one of the text.
const STORED_LEN_MAX: usize = 6 * WRITTEN_LEN_MAX;

/// Why bytes are no stored specification.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoredError {
    /// Longer than any specification can be.
    #[error("a stored specification of {0} bytes is longer than any can be")]
    TooLong(usize),
    /// Not the text of a JSON object with a version.
    #[error("not a stored specification: {0}")]
    Malformed(String),
    /// Written by a version of narun that knows more.
    #[error("stored in format {0}, this version of narun reads format {VERSION}; upgrade this node")]
    Newer(u64),
    /// Well-formed, and no specification that this version takes.
    #[error("a stored specification that this version of narun does not take: {0}")]
    Mistakes(#[from] Mistakes),
}

impl ServiceSpec {
    /// The canonical bytes: equal for equal specifications, and [`from_stored`](Self::from_stored) reads them back.
    pub fn to_stored(&self) -> Vec<u8> {
        let mut stored = Map::new();
        stored.insert("version".to_owned(), json!(VERSION));
        stored.extend(self.to_written());
        Value::Object(stored).to_string().into_bytes()
    }

    /// Reads what [`to_stored`](Self::to_stored) wrote, with all checks. Fails on a newer format, unknown fields included.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, StoredError> {
        if bytes.len() > STORED_LEN_MAX {
            return Err(StoredError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| StoredError::Malformed(e.to_string()))?;
        let tree = Node::read_json(text).map_err(|e| StoredError::Malformed(e.to_string()))?;
        let Node::Map(mut fields) = tree else {
            return Err(StoredError::Malformed(format!("found {}, wanted a map", tree.described())));
        };
        let version = match fields.first() {
            Some((name, Node::Whole(version, _))) if name == "version" => u64::try_from(*version).unwrap_or(0),
            _ => return Err(StoredError::Malformed("no version stands first".to_owned())),
        };
        match version {
            VERSION => {}
            0 => return Err(StoredError::Malformed("there is no format 0".to_owned())),
            newer => return Err(StoredError::Newer(newer)),
        }
        fields.remove(0);
        Ok(Self::from_tree(&Node::Map(fields))?)
    }

    /// The specification as YAML that [`parse`](Self::parse) reads back.
    pub fn to_yaml(&self) -> String {
        serde_norway::to_string(&self.to_written())
            .expect("plain maps, lists, texts and numbers can be written as YAML")
    }

    /// Canonical bytes of what a running instance depends on: name, tag, command, arguments, environment, what holds it, and whether it runs under a lease. A
    /// revision that changes none of these (another number of replicas, another node, another grace) leaves running instances
    /// alone.
    pub fn launch_hash_input(&self) -> Vec<u8> {
        let env: Vec<_> = self.env.iter().map(|variable| json!([variable.name, variable.value])).collect();
        let mut input = vec![
            json!("launch"),
            json!(VERSION),
            json!(self.name.as_str()),
            json!(self.tag),
            json!(self.command),
            json!(self.args),
            json!(env),
        ];
        // What asks for nothing is left out: so it was before there were such fields.
        let confinement = execution::written_confinement(&self.confinement);
        if !confinement.is_empty() {
            input.push(Value::Object(confinement));
        }
        if self.singleton {
            input.push(json!("singleton"));
        }
        Value::Array(input).to_string().into_bytes()
    }

    /// The fields that say something, in the order in which they are stored and shown.
    fn to_written(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("name", json!(self.name.as_str()));
        put("tag", json!(self.tag));
        if let Some(command) = &self.command {
            put("command", json!(command));
        }
        if !self.args.is_empty() {
            put("args", json!(self.args));
        }
        if !self.env.is_empty() {
            let variable = |variable: &super::EnvVar| json!({ "name": variable.name, "value": variable.value });
            put("env", self.env.iter().map(variable).collect());
        }
        let place = |name: &str, replicas: u32| json!({ "name": name, "replicas": replicas });
        match &self.placement {
            Placement::Cluster { replicas } => put("replicas", json!(replicas)),
            Placement::EachNode { replicas } => put("nodes", json!([place("all", *replicas)])),
            Placement::Named(places) => put(
                "nodes",
                places
                    .iter()
                    .map(|named| match &named.node {
                        Place::Local => place("local", named.replicas),
                        Place::Node(node) => place(node.as_str(), named.replicas),
                    })
                    .collect(),
            ),
        };
        let constraints = self.constraints.to_written();
        if !constraints.is_empty() {
            put("constraints", Value::Object(constraints));
        }
        if self.singleton {
            put("singleton", json!(true));
        }
        fields.extend(execution::write(&self.confinement, &self.supervision));
        if let RunMode::Cron(cron) = &self.mode {
            fields.extend(cron::write(cron));
        }
        fields
    }
}

impl Constraints {
    /// The fields that ask for something.
    fn to_written(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        if !self.labels.is_empty() {
            put("labels", json!(self.labels));
        }
        match (&self.os, &self.arch) {
            (Some(os), Some(arch)) => drop(put("platform", json!(format!("{os}/{arch}")))),
            (Some(os), None) => drop(put("os", json!(os))),
            (None, Some(arch)) => drop(put("arch", json!(arch))),
            (None, None) => {}
        }
        let least = [
            ("coresMin", u64::from(self.cores_min)),
            ("memoryMinMB", self.memory_min_mb),
            ("landlockMin", u64::from(self.landlock_min)),
        ];
        for (name, number) in least.into_iter().filter(|(_, number)| *number != 0) {
            put(name, json!(number));
        }
        if let Some(layout) = self.cgroup {
            put("cgroup", json!(layout.word()));
        }
        fields
    }
}
