//! The form that users write: YAML or JSON to a checked [`ServiceSpec`]. Pure.
//!
//! Reading has three steps, and the mistakes of all of them are told at once: the text becomes a tree (`tree`), each field is
//! held against the table (`check`), and here the rules between fields are checked and the specification is built. A
//! specification is built only where there is no mistake at all.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{ARGS_AND_ENV_LEN_MAX, FIELDS, REPLICAS_MAX, STRING_LEN_MAX};
use super::mistake::{Mistake, Mistakes};
use super::schedule::{ScheduleError, Zone};
use super::tree::{self, Fields, Node};
use super::{
    Constraints, CronScope, CronSpec, EnvVar, NamedPlace, Place, Placement, RunMode, ServiceSpec, check, cron,
    execution,
};
use crate::capacity::CgroupLayout;
use crate::ids::{NodeName, ServiceName};

impl ServiceSpec {
    /// Reads and checks a specification in YAML or JSON. Fails with every mistake that it finds, not only the first.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        Self::from_tree(&Node::read(text).map_err(|e| Mistake::new("", e.to_string()))?)
    }

    /// Checks a tree and builds what it says.
    pub(super) fn from_tree(tree: &Node) -> Result<Self, Mistakes> {
        let Node::Map(top) = tree else {
            let message = format!("found {}, wanted a map of fields, such as `name: web`", tree.described());
            return Err(Mistake::new("", message).into());
        };
        let mut mistakes = Vec::new();
        check::fields(FIELDS, top, "", &mut mistakes);
        let mut rules = Rules { top, mistakes };
        let spec = rules.build();
        rules.between_fields();
        Mistakes::check(rules.mistakes)?;
        Ok(spec.expect("a specification without mistakes can be built"))
    }
}

/// The rules between fields. A value that a field by itself may not have was told before: here it counts as not given.
struct Rules<'a> {
    top: &'a Fields,
    mistakes: Vec<Mistake>,
}

impl<'a> Rules<'a> {
    fn wrong(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(path, message));
    }

    /// The field `name`, if it is given and asks for something.
    fn asked(&self, name: &str) -> Option<&'a Node> {
        let row = FIELDS.iter().find(|row| row.name == name).expect("a field of the table");
        tree::field(self.top, name).filter(|node| !check::asks_nothing(row, node))
    }

    fn list(&self, name: &str) -> &'a [Node] {
        match tree::field(self.top, name) {
            Some(Node::List(list)) => list,
            _ => &[],
        }
    }

    fn build(&mut self) -> Option<ServiceSpec> {
        let cron = self.is_cron();
        let mode = cron.and_then(|cron| self.run_mode(cron));
        let placement = self.placement(cron == Some(true));
        let constraints = self.constraints();
        let env = self.env();
        let args: Vec<String> = self.list("args").iter().filter_map(Node::text).map(str::to_owned).collect();
        self.sizes(&args, &env);
        Some(ServiceSpec {
            name: ServiceName::new(text(self.top, "name")?).ok()?,
            tag: text(self.top, "tag")?.to_owned(),
            command: text(self.top, "command").filter(|command| !command.is_empty()).map(str::to_owned),
            args,
            env,
            placement: placement?,
            constraints,
            singleton: self.asked("singleton").is_some(),
            confinement: execution::confinement(self.top),
            supervision: execution::supervision(self.top),
            mode: mode?,
        })
    }

    /// Whether it is a cron spec; none where `runMode` has a mistake. `cronSchedule` alone means `runMode: cron`: one line of
    /// predecessors had no `runMode`.
    fn is_cron(&self) -> Option<bool> {
        match tree::field(self.top, "runMode").map(Node::text) {
            Some(Some("cron")) => Some(true),
            Some(Some("service")) => Some(false),
            Some(_) => None,
            None => Some(self.asked("cronSchedule").is_some()),
        }
    }

    fn run_mode(&mut self, cron: bool) -> Option<RunMode> {
        if !cron {
            for name in CRON_FIELDS {
                if self.asked(name).is_some() {
                    self.wrong(name, "only a cron spec has it; it needs `runMode: cron`");
                }
            }
            return Some(RunMode::Service);
        }
        let Some(schedule) = self.asked("cronSchedule") else {
            self.wrong("cronSchedule", "missing; `runMode: cron` needs the times to run at");
            return None;
        };
        let cron = CronSpec {
            schedule: schedule.text()?.trim().to_owned(),
            timezone: text(self.top, "timezone").map_or(Ok(Zone::UTC), Zone::parse).ok()?,
            scope: cron::scope(self.top),
            policy: cron::policy(self.top),
        };
        // Whether it ever fires is the one thing that depends on name and zone; all else about the text was told before.
        match cron.slots(text(self.top, "name").unwrap_or_default()) {
            Ok(_) => Some(RunMode::Cron(cron)),
            Err(never @ ScheduleError::NeverFires(_)) => {
                self.wrong("cronSchedule", never.to_string());
                None
            }
            Err(_) => None,
        }
    }

    fn placement(&mut self, cron: bool) -> Option<Placement> {
        let places = self.list("nodes");
        let replicas = tree::field(self.top, "replicas");
        if !places.is_empty() && replicas.is_some() {
            self.wrong("replicas", "`nodes` and `replicas` were both given; `nodes` says how many run on each node");
            return None;
        }
        if cron && let Some(2..) = whole(self.top, "replicas") {
            self.wrong("replicas", ONE_RUN);
        }
        if places.is_empty() {
            let replicas = replicas.map_or(Some(1), |_| whole(self.top, "replicas"))?;
            return Some(Placement::Cluster { replicas: u32::try_from(replicas).ok()? });
        }
        self.named(places, cron)
    }

    fn named(&mut self, places: &[Node], cron: bool) -> Option<Placement> {
        let mut named = Vec::new();
        let mut seen = BTreeSet::new();
        let mut set = None;
        for (position, place) in places.iter().enumerate() {
            let Node::Map(given) = place else { continue };
            let path = format!("nodes[{position}]");
            let replicas = tree::field(given, "replicas").map_or(Some(1), |_| whole(given, "replicas"));
            if cron && replicas > Some(1) {
                self.wrong(format!("{path}.replicas"), ONE_RUN);
            }
            let Some(name) = text(given, "name") else { continue };
            if !seen.insert(name) {
                self.wrong(
                    format!("{path}.name"),
                    format!("`{name}` was given before; each node stands once in `nodes`"),
                );
                continue;
            }
            let replicas = replicas.and_then(|replicas| u32::try_from(replicas).ok());
            match name {
                "any" | "all" if places.len() > 1 => {
                    self.wrong(
                        format!("{path}.name"),
                        format!("`{name}` must stand alone: it says nothing beside other nodes"),
                    );
                }
                "any" => set = replicas.map(|replicas| Placement::Cluster { replicas }),
                "all" if cron && cron::scope(self.top) == CronScope::Cluster => {
                    self.wrong(
                        format!("{path}.name"),
                        "a cron spec runs once for each due time; leave out `nodes` to let any node run it, or give \
                         `cronScope: node` to let each node run it",
                    );
                }
                "all" => set = replicas.map(|replicas| Placement::EachNode { replicas }),
                _ => {
                    let node =
                        if name == "local" { Some(Place::Local) } else { NodeName::new(name).ok().map(Place::Node) };
                    named.extend(node.zip(replicas).map(|(node, replicas)| NamedPlace { node, replicas }));
                }
            }
        }
        Some(set.unwrap_or(Placement::Named(named)))
    }

    fn constraints(&mut self) -> Constraints {
        let Some(Node::Map(given)) = tree::field(self.top, "constraints") else { return Constraints::default() };
        let word = |name: &str| text(given, name).filter(|word| !word.is_empty()).map(str::to_owned);
        let mut constraints = Constraints {
            labels: labels(tree::field(given, "labels")),
            os: word("os"),
            arch: word("arch"),
            cores_min: whole(given, "coresMin").and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            memory_min_mb: whole(given, "memoryMinMB").unwrap_or(0),
            landlock_min: whole(given, "landlockMin").and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            cgroup: word("cgroup")
                .and_then(|word| CgroupLayout::ASKED_FOR.into_iter().find(|layout| layout.word() == word)),
        };
        if let Some((os, arch)) = word("platform").as_deref().and_then(|platform| platform.split_once('/')) {
            for (name, given) in [("os", &constraints.os), ("arch", &constraints.arch)] {
                if given.is_some() {
                    self.wrong(
                        format!("constraints.{name}"),
                        "`constraints.platform` says it already; give one of them",
                    );
                }
            }
            constraints.os = Some(os.to_owned());
            constraints.arch = Some(arch.to_owned());
        }
        constraints
    }

    fn env(&mut self) -> Vec<EnvVar> {
        let mut variables = Vec::new();
        let mut seen = BTreeSet::new();
        for (position, variable) in self.list("env").iter().enumerate() {
            let Node::Map(given) = variable else { continue };
            let value = text(given, "value").unwrap_or_default();
            let secret = text(given, "valueFromSecret").unwrap_or_default();
            if !value.is_empty() && !secret.is_empty() {
                self.wrong(
                    format!("env[{position}]"),
                    "`value` and `valueFromSecret` were both given; wanted one of them",
                );
            }
            let Some(name) = text(given, "name") else { continue };
            if !seen.insert(name) {
                self.wrong(format!("env[{position}].name"), format!("`{}` was given before", tree::shortened(name)));
                continue;
            }
            variables.push(EnvVar { name: name.to_owned(), value: value.to_owned() });
        }
        variables
    }

    fn sizes(&mut self, args: &[String], env: &[EnvVar]) {
        let mut total = 0;
        for arg in args {
            total += arg.len() + 1;
        }
        for (position, variable) in env.iter().enumerate() {
            // With the `=` between the two.
            let len = variable.name.len() + 1 + variable.value.len();
            total += len + 1;
            if len > STRING_LEN_MAX {
                self.wrong(
                    format!("env[{position}]"),
                    format!("name and value are {len} bytes long, wanted at most {STRING_LEN_MAX}"),
                );
            }
        }
        if total > ARGS_AND_ENV_LEN_MAX {
            let message =
                format!("`args` and `env` together are {total} bytes long, wanted at most {ARGS_AND_ENV_LEN_MAX}");
            self.wrong("", message);
        }
    }

    /// The rules between fields. Those of fields that this version refuses anyway are told too, so that no file passes today that
    /// a later version has to refuse.
    fn between_fields(&mut self) {
        execution::between_fields(self.top, &mut self.mistakes);
        cron::between_fields(self.top, &mut self.mistakes);
        let mode = text(self.top, "mode").unwrap_or("exec");
        for name in ["landlock", "jail"] {
            if mode != name && self.asked(name).is_some() {
                self.wrong(name, format!("needs `mode: {name}`"));
            }
        }
        let total: u64 = match self.list("nodes") {
            [] => whole(self.top, "replicas").unwrap_or(1),
            places => places
                .iter()
                .map(|place| in_map(place, "replicas").and_then(as_whole).unwrap_or(1))
                .fold(0, u64::saturating_add),
        };
        if self.asked("singleton").is_some() && self.is_cron() == Some(true) {
            self.wrong("singleton", "is for services; a cron spec has one run a due time, and `concurrencyPolicy`");
        }
        if self.asked("singleton").is_some() && total > 1 {
            self.wrong("singleton", format!("found {total} instances, wanted 1"));
        }
        let is_all = |place: &Node| in_map(place, "name").and_then(Node::text) == Some("all");
        if self.asked("singleton").is_some() && self.list("nodes").iter().any(is_all) {
            self.wrong("singleton", "is one instance in the cluster; `name: all` asks for one on each node");
        }
        if let Some(Node::Map(health)) = tree::field(self.top, "health") {
            let probes = ["http", "tcp", "exec"].into_iter().filter(|name| tree::field(health, name).is_some()).count();
            if probes != 1 {
                self.wrong("health", format!("found {probes} probes, wanted one of `http`, `tcp` and `exec`"));
            }
        }
        self.unique("sockets", "name");
        self.unique("mounts", "path");
    }

    /// Tells entries of the list `name` whose `key` another entry has too.
    fn unique(&mut self, name: &str, key: &str) {
        let mut seen = BTreeSet::new();
        for (position, entry) in self.list(name).iter().enumerate() {
            if let Some(value) = in_map(entry, key).and_then(Node::text)
                && !seen.insert(value)
            {
                self.wrong(
                    format!("{name}[{position}].{key}"),
                    format!("`{}` was given before", tree::shortened(value)),
                );
            }
        }
    }
}

/// Fields that say nothing about a service.
const CRON_FIELDS: [&str; 16] = [
    "cronSchedule",
    "cronScope",
    "timezone",
    "jobMaxRetries",
    "jobRetryBackoffSeconds",
    "jobTimeoutSeconds",
    "cronMaxRetries",
    "cronTimeoutSeconds",
    "cronAllowConcurrent",
    "concurrencyPolicy",
    "catchUp",
    "catchUpWindowSeconds",
    "startingDeadlineSeconds",
    "onNodeLoss",
    "suspend",
    "historyLimit",
];

const ONE_RUN: &str = "a cron spec runs once for each due time, wanted 1";

fn text<'a>(fields: &'a [(String, Node)], name: &str) -> Option<&'a str> {
    tree::field(fields, name).and_then(Node::text)
}

fn labels(given: Option<&Node>) -> BTreeMap<String, String> {
    let Some(Node::Map(given)) = given else { return BTreeMap::new() };
    given.iter().filter_map(|(key, node)| Some((key.clone(), node.text()?.to_owned()))).collect()
}

fn whole(fields: &[(String, Node)], name: &str) -> Option<u64> {
    tree::field(fields, name).and_then(as_whole)
}

fn in_map<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    match node {
        Node::Map(fields) => tree::field(fields, name),
        _ => None,
    }
}

fn as_whole(node: &Node) -> Option<u64> {
    match node {
        Node::Whole(number, _) => u64::try_from(*number).ok(),
        _ => None,
    }
}

// Replica counts are stored in 32 bits.
const _: () = assert!(REPLICAS_MAX <= u32::MAX as u64);
