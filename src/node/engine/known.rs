//! What members report, decoded. Pure: a cache over the roster, kept up to date record by record.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::Incumbent;
use crate::crdt::roster::{CatalogReport, Facts, Holdings, InstanceReport, Record, Report, State, Subject};
use crate::ids::{BlobHash, NodeKey, ServiceName};

/// Reports by what they are about.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: BTreeMap<NodeKey, Facts>,
    holdings: BTreeMap<NodeKey, BTreeSet<BlobHash>>,
    /// The same the other way round.
    holders: BTreeMap<BlobHash, BTreeSet<NodeKey>>,
    catalogs: BTreeMap<NodeKey, CatalogReport>,
    /// With the life in which each was said.
    reports: BTreeMap<ServiceName, BTreeMap<NodeKey, (u64, Report)>>,
    /// The services that each node reports instances of.
    services_of: BTreeMap<NodeKey, BTreeSet<ServiceName>>,
    /// The latest life in which each node has spoken.
    boots: BTreeMap<NodeKey, u64>,
}

/// What a record was about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum About {
    Facts,
    Holdings,
    Catalog,
    Service(ServiceName),
    /// Something that a later version reports.
    Unknown,
}

impl Known {
    /// Takes over a record. What cannot be read is taken for nothing said.
    pub(super) fn take(&mut self, record: &Record) -> About {
        let node = record.node;
        let boot = self.boots.entry(node).or_default();
        *boot = (*boot).max(record.stamp.boot);
        if record.subject == Subject::facts() {
            set(&mut self.facts, node, decode(record));
            About::Facts
        } else if record.subject == Subject::holdings() {
            let blobs = decode::<Holdings>(record).map(|holdings| holdings.blobs.into_iter().collect());
            self.take_holdings(node, blobs.unwrap_or_default());
            About::Holdings
        } else if record.subject == Subject::catalog() {
            set(&mut self.catalogs, node, decode::<CatalogReport>(record));
            About::Catalog
        } else if let Some(service) = record.subject.as_service() {
            let reports = self.reports.entry(service.clone()).or_default();
            let report = decode::<Report>(record).filter(|report| !report.instances.is_empty());
            let services = self.services_of.entry(node).or_default();
            match &report {
                Some(_) => services.insert(service.clone()),
                None => services.remove(&service),
            };
            set(reports, node, report.map(|report| (record.stamp.boot, report)));
            if reports.is_empty() {
                self.reports.remove(&service);
            }
            About::Service(service)
        } else {
            About::Unknown
        }
    }

    /// Forgets all that a node reported.
    pub(super) fn forget(&mut self, node: &NodeKey) {
        self.facts.remove(node);
        self.take_holdings(*node, BTreeSet::new());
        self.catalogs.remove(node);
        self.boots.remove(node);
        self.services_of.remove(node);
        self.reports.retain(|_, reports| {
            reports.remove(node);
            !reports.is_empty()
        });
    }

    fn take_holdings(&mut self, node: NodeKey, blobs: BTreeSet<BlobHash>) {
        let before = self.holdings.remove(&node).unwrap_or_default();
        for gone in before.difference(&blobs) {
            if let Some(holders) = self.holders.get_mut(gone) {
                holders.remove(&node);
                if holders.is_empty() {
                    self.holders.remove(gone);
                }
            }
        }
        for new in blobs.difference(&before) {
            self.holders.entry(*new).or_default().insert(node);
        }
        if !blobs.is_empty() {
            self.holdings.insert(node, blobs);
        }
    }

    /// A node's facts.
    pub(super) fn facts(&self, node: &NodeKey) -> Option<&Facts> {
        self.facts.get(node)
    }

    /// Which nodes hold a blob whole.
    pub(super) fn holders(&self, hash: &BlobHash) -> impl Iterator<Item = &NodeKey> {
        self.holders.get(hash).into_iter().flatten()
    }

    /// All blobs that some node holds whole, and which nodes do.
    pub(super) fn all_holders(&self) -> impl Iterator<Item = (&BlobHash, &BTreeSet<NodeKey>)> {
        self.holders.iter()
    }

    /// What a node reports of the catalog.
    pub(super) fn catalog(&self, node: &NodeKey) -> Option<&CatalogReport> {
        self.catalogs.get(node)
    }

    /// What nodes report on a service.
    pub(super) fn reports(&self, service: &ServiceName) -> impl Iterator<Item = (&NodeKey, &Report)> {
        self.reports.get(service).into_iter().flatten().map(|(node, (_, report))| (node, report))
    }

    /// What one node reports on a service.
    pub(super) fn report(&self, service: &ServiceName, node: &NodeKey) -> Option<&Report> {
        self.reports.get(service)?.get(node).map(|(_, report)| report)
    }

    /// The services that one node reports instances of.
    pub(super) fn services_of(&self, node: &NodeKey) -> impl Iterator<Item = &ServiceName> {
        self.services_of.get(node).into_iter().flatten()
    }

    /// The services that anybody reports instances of.
    pub(super) fn reported_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.reports.keys()
    }

    /// Whether a node says, in its present life, that an instance started under this hash is ready. `boot_of` as below.
    pub(super) fn is_ready(
        &self,
        service: &ServiceName,
        node: &NodeKey,
        index: u32,
        launch_hash: BlobHash,
        boot_of: impl Fn(&NodeKey) -> u64,
    ) -> bool {
        let Some((boot, report)) = self.reports.get(service).and_then(|reports| reports.get(node)) else {
            return false;
        };
        let is_of_this_life = *boot >= self.boots.get(node).copied().unwrap_or(0).max(boot_of(node));
        let counts = |one: &InstanceReport| matches!(one.state(), State::Running | State::Finished);
        let is_up = |one: &InstanceReport| one.ready && counts(one) && one.launch_hash == launch_hash;
        is_of_this_life && report.instances.iter().any(|one| one.index == index && is_up(one))
    }

    /// Who has which index of a service that is to run under a launch hash. `boot_of` is the latest life of a node that was heard of otherwise: what a node said in an
    /// earlier one is a claim to get its instances back, weaker than that of a node that runs them.
    pub(super) fn incumbents(
        &self,
        service: &ServiceName,
        launch_hash: BlobHash,
        boot_of: impl Fn(&NodeKey) -> u64,
    ) -> BTreeMap<u32, Vec<Incumbent>> {
        let mut incumbents: BTreeMap<u32, Vec<Incumbent>> = BTreeMap::new();
        for (node, (boot, report)) in self.reports.get(service).into_iter().flatten() {
            let spoken = self.boots.get(node).copied().unwrap_or(0);
            let is_of_this_life = *boot >= spoken.max(boot_of(node));
            for instance in report.instances.iter().filter(|instance| instance.state() != State::Stopping) {
                let running = instance.state() == State::Running && is_of_this_life;
                let finished = instance.state() == State::Finished && instance.launch_hash == launch_hash;
                incumbents.entry(instance.index).or_default().push(Incumbent { node: *node, running, finished });
            }
        }
        incumbents
    }
}

fn decode<T: for<'b> minicbor::Decode<'b, ()>>(record: &Record) -> Option<T> {
    minicbor::decode(&record.content).ok()
}

fn set<T>(map: &mut BTreeMap<NodeKey, T>, node: NodeKey, value: Option<T>) {
    match value {
        Some(value) => {
            map.insert(node, value);
        }
        None => {
            map.remove(&node);
        }
    }
}
