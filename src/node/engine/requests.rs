//! What users ask for. Pure: everything is checked before anything is changed.

use super::Engine;
use super::effect::{Refusal, RefusalCode, Response};
use super::eligibility::held_against;
use super::input::{Deploy, Request};
use super::out::Out;
use super::services::Service;
use super::tickets::Grant;
use crate::blobs::image::Image;
use crate::crdt::catalog::DocKey;
use crate::crdt::revision::Revision;
use crate::crdt::roster::{InstanceReport, State};
use crate::crdt::ticket::Ticket;
use crate::ids::{NodeName, ServiceName};
use crate::spec::{NamedPlace, Place, Placement, REPLICAS_MAX, RunMode, ServiceSpec};
use crate::time::Mono;

/// Most services in one cluster.
pub(super) const SERVICES_MAX: usize = 10_000;

pub(super) type Answer = Result<Response, Refusal>;

impl Engine {
    pub(super) fn apply_request(&mut self, id: u64, request: Request, out: &mut Out) {
        let response = match request {
            Request::Deploy(deploy) => match self.deploy(id, *deploy, out) {
                Some(answer) => answer,
                None => return,
            },
            Request::Delete { service } => self.delete(&service, out),
            Request::Scale { service, node, replicas } => self.scale(&service, node.as_ref(), replicas, out),
            Request::Stop { service } => self.stop(&service, out),
            Request::Start { service } => self.start(&service, out),
            Request::Restart { service } => self.restart(&service, out),
            Request::Suspend { service, suspended } => self.suspend(&service, suspended, out),
            Request::LabelNode { node, set, remove } => self.label_node(&node, set, &remove, out),
            Request::DrainNode { node } => self.drain_node(&node, out),
            Request::UncordonNode { node } => self.uncordon_node(&node, out),
            Request::CreateTicket { ttl, uses, role, secret } => {
                self.create_ticket(Grant { ttl, uses, role }, secret, out)
            }
            Request::RevokeTicket { ticket } => {
                self.dirty.view = true;
                self.tickets.revoke(&ticket, out).map(|()| Response::Revoked)
            }
            Request::Admit(admit) => self.admit(&admit, out),
            Request::Standing { key } => self.standing_of(&key),
            Request::RemoveNode { node } => self.remove(&node, out),
            Request::Leave => match self.leave_in_order(id, out) {
                Some(answer) => answer,
                None => return,
            },
            Request::OwnRuns { cron } => Ok(Response::OwnRuns(self.jobs.own_runs(&cron))),
        };
        out.reply(id, response);
    }

    /// None: the answer comes once enough nodes have it.
    fn deploy(&mut self, id: u64, deploy: Deploy, out: &mut Out) -> Option<Answer> {
        let Deploy { mut spec, images, acks, acks_timeout, dry_run } = deploy;
        if let Err(refusal) = self.check_deploy(&mut spec, &images, acks, dry_run) {
            return Some(Err(refusal));
        }
        let known = self.services.get(&spec.name);
        let stored = spec.to_stored();
        let same = known.filter(|known| {
            let revision = &known.current.revision;
            revision.spec == stored && same_images(&revision.images, &images) && !revision.stopped
        });
        if let Some(same) = same {
            return Some(Ok(Response::Revised { revision: same.current.revision.number, changed: false }));
        }
        if dry_run {
            let next = known.map_or(0, |known| known.current.revision.number) + 1;
            return Some(Ok(Response::Revised { revision: next, changed: true }));
        }
        let draft = Draft { images, stopped: false, generation: known.map_or(0, generation), cause: "deploy" };
        let (response, news) = self.revise(&spec, draft, acks > 1, out);
        if acks > 1 {
            let deadline: Mono = self.now.mono + acks_timeout;
            self.acks.wait(self.now.mono, id, news, acks, deadline, response);
            return None;
        }
        Some(Ok(response))
    }

    fn check_deploy(&self, spec: &mut ServiceSpec, images: &[Image], acks: u32, dry_run: bool) -> Result<(), Refusal> {
        let invalid = |message: String| Refusal::new(RefusalCode::Invalid, message);
        if images.is_empty() {
            return Err(invalid(format!("`{}` has no binary", spec.name)));
        }
        for (at, image) in images.iter().enumerate() {
            if let Some(other) = images[..at].iter().find(|other| other.platform == image.platform) {
                let (one, two) = (&other.file_name, &image.file_name);
                return Err(invalid(format!("`{one}` and `{two}` are both for {}", image.platform))
                    .hint("deploy one binary for each platform"));
            }
            // A dry run comes before the upload, so that nothing is carried over for a deploy that is refused.
            if !dry_run && !self.copies.holds(&image.hash) {
                let text = format!("the binary `{}` is not in this node's store", image.file_name);
                return Err(Refusal::new(RefusalCode::NotFound, text).hint("upload it first; `narun deploy` does"));
            }
        }
        if self.services.get(&spec.name).is_none() && self.services.iter().count() >= SERVICES_MAX {
            return Err(Refusal::new(RefusalCode::Limit, format!("there are {SERVICES_MAX} services already")));
        }
        if acks == 0 || acks as usize > self.cluster.members().len() {
            let members = self.cluster.members().len();
            return Err(invalid(format!("{acks} nodes cannot acknowledge this: the cluster has {members}")));
        }
        spec.resolve_local(&self.config.name).map_err(|mistake| invalid(mistake.to_string()))?;
        self.check_places(spec, images)
    }

    /// Every named node is a member, has a binary, and is not known to lack what the constraints ask for.
    fn check_places(&self, spec: &ServiceSpec, images: &[Image]) -> Result<(), Refusal> {
        let Placement::Named(places) = &spec.placement else { return Ok(()) };
        for place in places {
            let Place::Node(name) = &place.node else { continue };
            // What is wrong is the specification, not a path of the API.
            let member = self.member(name).map_err(|refusal| Refusal { code: RefusalCode::Invalid, ..refusal })?;
            if !member.role.carries_work() {
                let text = format!("node `{name}` is a member to operate the cluster from, and runs nothing");
                return Err(Refusal::new(RefusalCode::Invalid, text).hint("leave it out"));
            }
            let Some(facts) = self.known.facts(&member.key) else { continue };
            let held = held_against(&spec.constraints, &facts.labels, &facts.platform, facts.capacity.as_ref());
            if !held.unmet.is_empty() {
                let text = format!("node `{name}` does not meet the constraint `{}`", held.unmet.join("`, `"));
                return Err(Refusal::new(RefusalCode::Invalid, text).hint(format!(
                    "`narun node info {name}` shows what it has; leave the node out, or the constraint"
                )));
            }
            if !images.iter().any(|image| image.platform.runs_on(&facts.platform)) {
                let platform = &facts.platform;
                return Err(Refusal::new(
                    RefusalCode::Invalid,
                    format!("no binary for node `{name}`, which is {platform}"),
                )
                .hint("add a binary for that platform, or leave the node out"));
            }
        }
        Ok(())
    }

    fn existing(&self, name: &ServiceName) -> Result<&Service, Refusal> {
        if self.services.unreadable().contains(name) {
            let text = format!("`{name}` was written by a newer version of narun, which this node cannot read");
            return Err(Refusal::new(RefusalCode::Unavailable, text).hint("upgrade narun on this node"));
        }
        self.services.get(name).ok_or_else(|| no_such_service(name))
    }

    fn delete(&mut self, name: &ServiceName, out: &mut Out) -> Answer {
        let key = DocKey::service(name);
        let Some(delta) = self.catalog.delete(&key, self.actor(), self.now.wall) else {
            return Ok(Response::Deleted { existed: false });
        };
        self.document_changed(&key, out);
        self.spread_document(delta, out);
        Ok(Response::Deleted { existed: true })
    }

    fn scale(&mut self, name: &ServiceName, node: Option<&NodeName>, replicas: u32, out: &mut Out) -> Answer {
        let service = self.existing(name)?;
        if service.current.spec.mode != RunMode::Service {
            let text = format!("`{name}` is a cron spec: it has no replicas");
            return Err(Refusal::new(RefusalCode::Invalid, text).hint(
                "`concurrencyPolicy: allow` lets its runs overlap, and `cronScope: node` runs it on every node",
            ));
        }
        if replicas == 0 {
            return Err(Refusal::new(RefusalCode::Invalid, format!("`{name}` cannot be scaled to 0"))
                .hint(format!("`narun service stop {name}` stops it and keeps its specification")));
        }
        if u64::from(replicas) > REPLICAS_MAX {
            let text = format!("`{name}` cannot be scaled to {replicas}: at most {REPLICAS_MAX} is allowed");
            return Err(Refusal::new(RefusalCode::Invalid, text));
        }
        let mut spec = (*service.current.spec).clone();
        rescale(&mut spec.placement, name, node, replicas)?;
        let stopped = service.current.revision.stopped;
        let draft = Draft { stopped, ..Draft::like(service, "scale") };
        if spec == *service.current.spec {
            return Ok(unchanged(service));
        }
        Ok(self.revise(&spec, draft, false, out).0)
    }

    fn stop(&mut self, name: &ServiceName, out: &mut Out) -> Answer {
        let service = self.existing(name)?;
        if service.current.revision.stopped {
            return Ok(unchanged(service));
        }
        let (spec, draft) = (service.current.spec.clone(), Draft { stopped: true, ..Draft::like(service, "stop") });
        Ok(self.revise(&spec, draft, false, out).0)
    }

    fn start(&mut self, name: &ServiceName, out: &mut Out) -> Answer {
        let service = self.existing(name)?;
        // What was given up: too many failures, or one where its policy allows none.
        let is_given_up = |one: &InstanceReport| match one.state() {
            State::CrashLoop => true,
            State::Finished => !one.ready,
            _ => false,
        };
        let is_service = service.current.spec.mode == RunMode::Service;
        let paused = is_service && self.known.reports(name).any(|(_, report)| report.instances.iter().any(is_given_up));
        if !service.current.revision.stopped && !paused {
            return Ok(unchanged(service));
        }
        let generation = generation(service) + u32::from(paused);
        let (spec, draft) = (service.current.spec.clone(), Draft { generation, ..Draft::like(service, "start") });
        Ok(self.revise(&spec, Draft { stopped: false, ..draft }, false, out).0)
    }

    fn restart(&mut self, name: &ServiceName, out: &mut Out) -> Answer {
        let service = self.existing(name)?;
        if service.current.spec.mode != RunMode::Service {
            let text = format!("`{name}` is a cron spec: each of its runs is a start of its own");
            return Err(Refusal::new(RefusalCode::Invalid, text).hint(format!("`narun cron run {name}` runs it now")));
        }
        if service.current.revision.stopped {
            return Err(Refusal::new(RefusalCode::Conflict, format!("`{name}` is stopped"))
                .hint(format!("`narun service start {name}` starts it")));
        }
        let generation = generation(service) + 1;
        let (spec, draft) = (service.current.spec.clone(), Draft { generation, ..Draft::like(service, "restart") });
        Ok(self.revise(&spec, draft, false, out).0)
    }

    fn suspend(&mut self, name: &ServiceName, suspended: bool, out: &mut Out) -> Answer {
        let service = self.existing(name)?;
        let mut spec = (*service.current.spec).clone();
        let RunMode::Cron(cron) = &mut spec.mode else {
            let text = format!("`{name}` is a service: it has no slots to be fired");
            let verb = if suspended { "stop" } else { "start" };
            return Err(Refusal::new(RefusalCode::Invalid, text).hint(format!("use `narun service {verb} {name}`")));
        };
        // A pause leaves a stop as it is: whoever undoes one of them does not undo the other by accident.
        let stopped = suspended && service.current.revision.stopped;
        if cron.policy.suspend == suspended && service.current.revision.stopped == stopped {
            return Ok(unchanged(service));
        }
        cron.policy.suspend = suspended;
        let draft = Draft { stopped, ..Draft::like(service, if suspended { "pause" } else { "resume" }) };
        Ok(self.revise(&spec, draft, false, out).0)
    }

    /// Writes a revision.
    fn revise(
        &mut self,
        spec: &ServiceSpec,
        draft: Draft,
        acknowledge: bool,
        out: &mut Out,
    ) -> (Response, crate::gossip::message::NewsId) {
        let key = DocKey::service(&spec.name);
        // What was deleted and is there again has no past: its slots count from now on.
        let alive = self.catalog.get(&key).filter(|entry| entry.content().deleted_at.is_none());
        let parent = alive.and_then(|entry| entry.content().current);
        let revision = Revision {
            number: 0,
            parent,
            spec: spec.to_stored(),
            images: draft.images,
            stopped: draft.stopped,
            generation: draft.generation,
            author: self.me,
            author_name: self.config.name.to_string(),
            at: self.now.wall,
            cause: draft.cause.to_owned(),
        };
        let (id, delta) =
            self.catalog.put_revision(&key, self.actor(), |number| Revision { number, ..revision }.encode());
        self.document_changed(&key, out);
        let news = self.spread_document_and(delta, acknowledge, out);
        (Response::Revised { revision: id.number, changed: true }, news)
    }

    fn create_ticket(&mut self, grant: Grant, secret: [u8; 32], out: &mut Out) -> Answer {
        let expires = self.tickets.create(self.now.wall, &secret, grant, out)?;
        self.dirty.view = true;
        Ok(Response::Ticket(Ticket {
            cluster: self.config.founding.cluster(),
            maker: self.me,
            addresses: self.config.addresses.clone(),
            secret,
            expires,
            uses: grant.uses,
        }))
    }
}

/// What a new revision has beside its specification.
struct Draft {
    images: Vec<Image>,
    stopped: bool,
    generation: u32,
    cause: &'static str,
}

impl Draft {
    fn like(service: &Service, cause: &'static str) -> Self {
        Self { images: service.current.revision.images.clone(), stopped: false, generation: generation(service), cause }
    }
}

fn generation(service: &Service) -> u32 {
    service.current.revision.generation
}

fn same_images(one: &[Image], other: &[Image]) -> bool {
    let content = |images: &[Image]| {
        let mut content: Vec<_> = images.iter().map(|image| (image.platform.clone(), image.hash)).collect();
        content.sort();
        content
    };
    content(one) == content(other)
}

fn unchanged(service: &Service) -> Response {
    Response::Revised { revision: service.current.revision.number, changed: false }
}

fn no_such_service(name: &ServiceName) -> Refusal {
    Refusal::new(RefusalCode::NotFound, format!("there is no service `{name}`")).hint("see `narun service list`")
}

fn rescale(placement: &mut Placement, name: &ServiceName, node: Option<&NodeName>, wanted: u32) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal::new(RefusalCode::Invalid, message));
    match (placement, node) {
        (Placement::Cluster { replicas } | Placement::EachNode { replicas }, None) => *replicas = wanted,
        (Placement::Cluster { .. } | Placement::EachNode { .. }, Some(node)) => {
            return invalid(format!("`{name}` names no nodes: it cannot be scaled on `{node}` alone"));
        }
        (Placement::Named(places), Some(node)) => {
            let at_node = |place: &&mut NamedPlace| place.node == Place::Node(node.clone());
            match places.iter_mut().find(at_node) {
                Some(place) => place.replicas = wanted,
                None => return invalid(format!("`{name}` does not name the node `{node}`")),
            }
        }
        (Placement::Named(places), None) => match &mut places[..] {
            [place] => place.replicas = wanted,
            _ => {
                let text = format!("`{name}` names several nodes");
                return Err(Refusal::new(RefusalCode::Invalid, text).hint("say which one with `--node`"));
            }
        },
    }
    Ok(())
}
