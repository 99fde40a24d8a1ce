//! Whether a node can run a service: its binaries and its constraints held against what the node reports; and whether it can hold a
//! lease of one. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::Engine;
use super::placement::Drain;
use super::services::Service;
use crate::blobs::image::{Image, Platform};
use crate::capacity::Capacity;
use crate::crdt::admission::{Admission, Role};
use crate::crdt::roster::Facts;
use crate::ids::{NodeKey, NodeName};
use crate::spec::{Constraints, NamedPlace, Place, Placement, ServiceSpec};

/// Whether a node can run a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It can.
    Fits,
    /// The node has not told enough of itself yet. What it reports to run it keeps: it could not run it otherwise.
    Unknown,
    /// It cannot; each reason once, at least one.
    Unfit(Vec<Obstacle>),
}

/// One reason why a node cannot run a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Obstacle {
    /// It is a member to operate the cluster from.
    Role,
    /// There is no binary for its platform.
    NoBinary(Platform),
    /// It does not have what this constraint asks for: the constraint as it is written.
    Unmet(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role => f.write_str("it runs nothing: it is there to operate the cluster from"),
            Self::NoBinary(platform) => write!(f, "there is no binary for {platform}"),
            Self::Unmet(constraint) => write!(f, "the constraint `{constraint}` is not met"),
        }
    }
}

/// Why a node cannot hold a lease of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Bar {
    /// It is a member to operate the cluster from.
    Role,
    /// The specification names other nodes.
    NotNamed,
    /// It is drained.
    Drained,
    /// It has not told enough of itself yet.
    Untold,
    /// It cannot run the service; at least one reason.
    Unfit(Vec<Obstacle>),
}

/// What is to be run, as far as it matters where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// What is asked for.
    pub(crate) spec: &'a ServiceSpec,
    /// Its binaries.
    pub(crate) images: &'a [Image],
}

/// A member, as far as it matters what it can run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) name: &'a NodeName,
    pub(crate) role: Role,
    pub(crate) is_drained: bool,
    /// None before it has reported.
    pub(crate) told: Option<Told<'a>>,
}

/// What a node reports of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) capacity: Option<&'a Capacity>,
}

impl<'a> From<&'a Facts> for Told<'a> {
    fn from(facts: &'a Facts) -> Self {
        Self { platform: &facts.platform, labels: &facts.labels, capacity: facts.capacity.as_ref() }
    }
}

impl Engine {
    /// Whether a member can run a service.
    pub(super) fn fit(&self, service: &Service, node: &NodeKey) -> Fit {
        let role = self.cluster.members().get(node).map(|member| member.role);
        fit(Work::of(service), role.unwrap_or(Role::MEMBER), self.known.facts(node).map(Told::from))
    }

    /// Why a member cannot hold a lease of a service; none: it can.
    pub(super) fn bar(&self, service: &Service, node: &NodeKey, member: &Admission) -> Option<Bar> {
        let told = self.known.facts(node).map(Told::from);
        let is_drained = self.drain_of(node) != Drain::No;
        bar(Work::of(service), Worker { name: &member.name, role: member.role, is_drained, told })
    }
}

impl<'a> Work<'a> {
    fn of(service: &'a Service) -> Self {
        Self { spec: &service.current.spec, images: &service.current.revision.images }
    }
}

/// Why a node cannot hold a lease of a service; none: it can. The one place that knows it, for the engine and for those who tell of it.
pub(crate) fn bar(work: Work<'_>, node: Worker<'_>) -> Option<Bar> {
    if !node.role.carries_work() {
        return Some(Bar::Role);
    }
    if let Placement::Named(places) = &work.spec.placement {
        let is_it = |place: &NamedPlace| matches!(&place.node, Place::Node(name) if name == node.name);
        if !places.iter().any(is_it) {
            return Some(Bar::NotNamed);
        }
    }
    if node.is_drained {
        return Some(Bar::Drained);
    }
    match fit(work, node.role, node.told) {
        Fit::Fits => None,
        Fit::Unknown => Some(Bar::Untold),
        Fit::Unfit(obstacles) => Some(Bar::Unfit(obstacles)),
    }
}

fn fit(work: Work<'_>, role: Role, told: Option<Told<'_>>) -> Fit {
    if !role.carries_work() {
        return Fit::Unfit(vec![Obstacle::Role]);
    }
    let Some(Told { platform, labels, capacity }) = told else { return Fit::Unknown };
    let mut obstacles = Vec::new();
    if !work.images.iter().any(|image| image.platform.runs_on(platform)) {
        obstacles.push(Obstacle::NoBinary(platform.clone()));
    }
    let held = held_against(&work.spec.constraints, labels, platform, capacity);
    obstacles.extend(held.unmet.into_iter().map(Obstacle::Unmet));
    match (obstacles.is_empty(), held.all_known) {
        (false, _) => Fit::Unfit(obstacles),
        (true, true) => Fit::Fits,
        (true, false) => Fit::Unknown,
    }
}

/// Constraints held against a node.
pub(super) struct Held {
    /// Those that are known not to be met, as they are written.
    pub(super) unmet: Vec<String>,
    /// Whether the node has told all that the constraints ask for.
    pub(super) all_known: bool,
}

/// Holds constraints against what a node reports.
pub(super) fn held_against(
    constraints: &Constraints,
    labels: &BTreeMap<String, String>,
    platform: &Platform,
    capacity: Option<&Capacity>,
) -> Held {
    let Constraints { labels: asked, os, arch, cores_min, memory_min_mb, landlock_min, cgroup } = constraints;
    let mut unmet = Vec::new();
    let mut all_known = true;
    for (key, value) in asked {
        if labels.get(key) != Some(value) {
            unmet.push(format!("labels.{key}: {value}"));
        }
    }
    for (name, asked, has) in [("os", os, &platform.os), ("arch", arch, &platform.arch)] {
        if let Some(asked) = asked.as_ref().filter(|asked| *asked != has) {
            unmet.push(format!("{name}: {asked}"));
        }
    }
    let mut least = |name: &str, asked: u64, has: Option<u64>| match has {
        _ if asked == 0 => {}
        None => all_known = false,
        Some(has) if has < asked => unmet.push(format!("{name}: {asked}")),
        Some(_) => {}
    };
    least("coresMin", u64::from(*cores_min), capacity.map(|capacity| u64::from(capacity.cores)));
    least("memoryMinMB", *memory_min_mb, capacity.map(|capacity| capacity.memory_bytes >> 20));
    least("landlockMin", u64::from(*landlock_min), capacity.map(|capacity| u64::from(capacity.landlock_abi)));
    if let Some(asked) = cgroup {
        match capacity {
            None => all_known = false,
            Some(capacity) if capacity.cgroup != *asked => unmet.push(format!("cgroup: {}", asked.word())),
            Some(_) => {}
        }
    }
    Held { unmet, all_known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::CgroupLayout;
    use crate::capacity::tests::some_capacity;
    use crate::spec::ServiceSpec;

    fn unmet(constraints: &str) -> Vec<String> {
        let spec = ServiceSpec::parse(&format!("{{name: web, tag: v1, constraints: {constraints}}}")).unwrap();
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let platform = Platform::new("linux", "amd64");
        let capacity = Capacity { cgroup: CgroupLayout::Hybrid, ..some_capacity() };
        held_against(&spec.constraints, &labels, &platform, Some(&capacity)).unmet
    }

    #[test]
    fn each_constraint_is_met_or_told() {
        for met in [
            "{}",
            "{labels: {zone: a}}",
            "{os: linux}",
            "{arch: amd64}",
            "{platform: linux/amd64}",
            "{coresMin: 4}",
            "{memoryMinMB: 8192}",
            "{landlockMin: 6}",
            "{cgroup: hybrid}",
        ] {
            assert_eq!(unmet(met), Vec::<String>::new(), "{met}");
        }
        for (asked, told) in [
            ("{labels: {zone: b}}", "labels.zone: b"),
            ("{labels: {disk: ssd}}", "labels.disk: ssd"),
            ("{labels: {zone: A}}", "labels.zone: A"),
            ("{os: darwin}", "os: darwin"),
            ("{arch: arm64}", "arch: arm64"),
            ("{platform: linux/arm64}", "arch: arm64"),
            ("{coresMin: 5}", "coresMin: 5"),
            ("{memoryMinMB: 8193}", "memoryMinMB: 8193"),
            ("{landlockMin: 7}", "landlockMin: 7"),
            ("{cgroup: v2}", "cgroup: v2"),
        ] {
            assert_eq!(unmet(asked), [told]);
        }
        assert_eq!(unmet("{labels: {zone: b, disk: x}, coresMin: 64}").len(), 3, "every one of them is told");
    }

    #[test]
    fn a_node_that_tells_too_little_is_neither_fit_nor_unfit() {
        let spec = ServiceSpec::parse("{name: web, tag: v1, constraints: {os: linux, coresMin: 1}}").unwrap();
        let held = |os: &str| held_against(&spec.constraints, &BTreeMap::new(), &Platform::new(os, "amd64"), None);
        assert!(held("linux").unmet.is_empty() && !held("linux").all_known);
        assert_eq!(held("darwin").unmet, ["os: linux"], "what is known counts all the same");
    }
}
