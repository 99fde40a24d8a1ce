//! What a user of the simulated cluster may ask for. Pure.

use std::fmt;
use std::time::Duration;

use narun::blobs::image::{Image, Platform};
use narun::ids::{BlobHash, NodeName, ServiceName};
use narun::node::engine::input::{Deploy, Request};
use narun::spec::{Constraints, NamedPlace, Place, Placement, RunMode, ServiceSpec};

use crate::program::Program;

/// A wish.
#[derive(Clone, PartialEq, Debug)]
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
            blob: BlobHash::of(mark.as_bytes()),
            size: 200_000,
        }
    }

    /// The same with another program.
    pub(crate) fn program(mut self, program: Program) -> Self {
        self.program = program;
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

    /// The arguments that its instances are to be started with.
    pub(crate) fn args(&self) -> Vec<String> {
        self.program.args(&self.mark)
    }

    fn spec(&self) -> ServiceSpec {
        ServiceSpec {
            name: self.service.clone(),
            tag: self.mark.clone(),
            command: None,
            args: self.args(),
            env: Vec::new(),
            placement: self.placement.clone(),
            constraints: self.constraints.clone(),
            mode: RunMode::Service,
        }
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
