//! What a user of the simulated cluster may ask for. Pure.

use std::fmt;
use std::time::Duration;

use narun::blobs::image::{Image, Platform};
use narun::confinement::Confinement;
use narun::ids::{BlobHash, NodeName, ServiceName};
use narun::node::engine::input::{Deploy, Request};
use narun::spec::schedule::Zone;
use narun::spec::{
    Constraints, CronPolicy, CronScope, CronSpec, EnvVar, NamedPlace, OnNodeLoss, Place, Placement, Restart, RunMode,
    ServiceSpec, Supervision,
};

use crate::program::Program;
use crate::stamps;

/// Most runs that are remembered of a spec: all of those of a world of some minutes.
const HISTORY_LIMIT_MAX: u32 = narun::spec::HISTORY_LIMIT_MAX as u32;

/// A wish.
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "a scenario has a handful of them")]
pub(crate) enum Wish {
    /// A new revision.
    Deploy(Deployment),
    /// Other numbers.
    Scale {
        /// Of which service.
        service: ServiceName,
        /// On which node, where the specification names several.
        node: Option<NodeName>,
        /// How many.
        replicas: u32,
    },
    /// Forget it.
    Delete(ServiceName),
    /// Stop its instances.
    Stop(ServiceName),
    /// Undo the stop.
    Start(ServiceName),
    /// Replace its instances.
    Restart(ServiceName),
}

/// A deploy.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Deployment {
    /// Of which service.
    pub(crate) service: ServiceName,
    /// Tells it from every other deploy: it is the tag, and stands in the arguments.
    pub(crate) mark: String,
    /// What the instances do.
    pub(crate) program: Program,
    /// Where they belong.
    pub(crate) placement: Placement,
    /// What a node must have.
    pub(crate) constraints: Constraints,
    /// When instances are started again.
    pub(crate) restart: Restart,
    /// When it runs, if it is a cron spec.
    pub(crate) cron: Option<CronSpec>,
    /// The binary.
    pub(crate) blob: BlobHash,
    /// Its size in bytes.
    pub(crate) size: u64,
}

impl Deployment {
    /// A deploy of `service` with a binary of its own that stays up.
    pub(crate) fn new(service: &str, mark: &str, placement: Placement) -> Self {
        Self {
            service: service_name(service),
            mark: mark.to_owned(),
            program: Program::Runs,
            placement,
            constraints: Constraints::default(),
            restart: Restart::Always,
            cron: None,
            blob: BlobHash::of(mark.as_bytes()),
            size: 200_000,
        }
    }

    /// The same with another program.
    pub(crate) fn program(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// The same, started again then only.
    pub(crate) fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// The same with a binary of that many bytes.
    pub(crate) fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// The same on nodes with that label only.
    pub(crate) fn labelled(mut self, key: &str, value: &str) -> Self {
        self.constraints.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same as a cron spec, with a slot at every so many seconds of the minute.
    pub(crate) fn every(mut self, seconds: u64) -> Self {
        let policy = CronPolicy { history_limit: HISTORY_LIMIT_MAX, ..CronPolicy::default() };
        let schedule = format!("*/{seconds} * * * * *");
        self.cron = Some(CronSpec { schedule, timezone: Zone::UTC, scope: CronScope::Cluster, policy });
        self
    }

    /// The same, each node for itself.
    pub(crate) fn on_each_node(mut self) -> Self {
        if let Some(cron) = &mut self.cron {
            cron.scope = CronScope::Node;
        }
        self
    }

    /// The same under another policy.
    pub(crate) fn policy(mut self, change: impl FnOnce(&mut CronPolicy)) -> Self {
        if let Some(cron) = &mut self.cron {
            change(&mut cron.policy);
        }
        self
    }

    /// The arguments that its instances are to be started with.
    pub(crate) fn args(&self) -> Vec<String> {
        self.program.args(&self.mark)
    }

    fn spec(&self) -> ServiceSpec {
        let spec = ServiceSpec {
            name: self.service.clone(),
            tag: self.mark.clone(),
            command: None,
            args: self.args(),
            env: self.env(),
            placement: self.placement.clone(),
            constraints: self.constraints.clone(),
            singleton: false,
            confinement: Confinement::default(),
            supervision: Supervision { restart: self.restart, ..Supervision::default() },
            mode: self.cron.clone().map_or(RunMode::Service, RunMode::Cron),
        };
        // A node takes what it is given: whoever reads a file has looked at it. The others would not understand it.
        let read = ServiceSpec::from_stored(&spec.to_stored());
        assert_eq!(read.as_ref(), Ok(&spec), "the simulator's specifications are sound");
        spec
    }

    /// What the stamps are judged by.
    fn env(&self) -> Vec<EnvVar> {
        let Some(cron) = &self.cron else { return Vec::new() };
        let each_node = (cron.scope == CronScope::Node).then_some(stamps::EACH_NODE);
        let reruns = (cron.policy.on_node_loss == OnNodeLoss::Rerun).then_some(stamps::RERUNS);
        let var = |(name, value): (&str, &str)| EnvVar { name: name.to_owned(), value: value.to_owned() };
        each_node.into_iter().chain(reruns).map(var).collect()
    }

    fn image(&self) -> Image {
        let file_name = format!("{}.bin", self.service);
        Image { platform: Platform::new("linux", "amd64"), hash: self.blob, size: self.size, file_name }
    }
}

impl Wish {
    /// The service that it is about.
    pub(crate) fn service(&self) -> &ServiceName {
        match self {
            Self::Deploy(Deployment { service, .. }) | Self::Scale { service, .. } => service,
            Self::Delete(service) | Self::Stop(service) | Self::Start(service) | Self::Restart(service) => service,
        }
    }

    /// Whether it is a deletion.
    pub(crate) fn deletes(&self) -> bool {
        matches!(self, Self::Delete(_))
    }

    /// As a node is asked. `acks` and how long to wait for them count for a deploy.
    pub(crate) fn request(&self, acks: u32) -> Request {
        match self.clone() {
            Self::Deploy(deployment) => Request::Deploy(Box::new(Deploy {
                spec: deployment.spec(),
                images: vec![deployment.image()],
                acks,
                acks_timeout: Duration::from_secs(20),
                dry_run: false,
            })),
            Self::Scale { service, node, replicas } => Request::Scale { service, node, replicas },
            Self::Delete(service) => Request::Delete { service },
            Self::Stop(service) => Request::Stop { service },
            Self::Start(service) => Request::Start { service },
            Self::Restart(service) => Request::Restart { service },
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(Deployment { service, mark, program, placement, .. }) => {
                write!(f, "deploy {service} as {mark} ({program:?}, {placement:?})")
            }
            Self::Scale { service, node, replicas } => write!(f, "scale {service} to {replicas} at {node:?}"),
            Self::Delete(service) => write!(f, "delete {service}"),
            Self::Stop(service) => write!(f, "stop {service}"),
            Self::Start(service) => write!(f, "start {service}"),
            Self::Restart(service) => write!(f, "restart {service}"),
        }
    }
}

/// A service's name, out of a word that is one.
pub(crate) fn service_name(word: &str) -> ServiceName {
    ServiceName::new(word).expect("the simulator's services have good names")
}

/// So many instances anywhere.
pub(crate) fn anywhere(replicas: u32) -> Placement {
    Placement::Cluster { replicas }
}

/// So many instances on every node.
pub(crate) fn everywhere(replicas: u32) -> Placement {
    Placement::EachNode { replicas }
}

/// So many instances on each of these hosts.
pub(crate) fn on(hosts: &[usize], replicas: u32) -> Placement {
    let node = |host: &usize| NodeName::new(&format!("n{host}")).expect("hosts have good names");
    let place = |host| NamedPlace { node: Place::Node(node(host)), replicas };
    Placement::Named(hosts.iter().map(place).collect())
}
