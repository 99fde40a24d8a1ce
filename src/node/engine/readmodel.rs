//! From what the engine knows to what people see. Pure.

mod moves;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::placement::Seat;
use super::services::{Rev, Service};
use super::view::{
    CopiesView, InstanceState, InstanceView, Me, NodeStatus, NodeView, Problem, RevisionView, ServiceView, View,
    WantedView,
};
use crate::blobs::plan::COPIES;
use crate::confinement::Enforced;
use crate::crdt::admission::Admission;
use crate::crdt::roster::{Facts, InstanceReport, State};
use crate::ids::{BlobHash, NodeKey, NodeName, ServiceName};

/// The newest view. Sections that did not change stay the same allocation.
#[derive(Debug)]
pub(super) struct ReadModel {
    view: Arc<View>,
}

impl ReadModel {
    pub(super) fn new(me: Arc<Me>) -> Self {
        Self { view: Arc::new(View { me, ..View::default() }) }
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Shows this from now on. True if it is something else than before.
    fn update(&mut self, new: View) -> bool {
        let old = &*self.view;
        let view = View {
            me: old.me.clone(),
            nodes: new.nodes,
            services: new.services,
            instances: keep(&old.instances, new.instances),
            copies: keep(&old.copies, new.copies),
            tickets: keep(&old.tickets, new.tickets),
            problems: keep(&old.problems, new.problems),
            overlooked: new.overlooked,
        };
        let same = Arc::ptr_eq(&old.nodes, &view.nodes)
            && Arc::ptr_eq(&old.services, &view.services)
            && Arc::ptr_eq(&old.instances, &view.instances)
            && Arc::ptr_eq(&old.copies, &view.copies)
            && Arc::ptr_eq(&old.tickets, &view.tickets)
            && Arc::ptr_eq(&old.problems, &view.problems)
            && old.overlooked == view.overlooked;
        if !same {
            self.view = Arc::new(view);
        }
        !same
    }
}

/// Whether a row shows what a member said of itself.
fn shows(row: &NodeView, member: &Admission, facts: Option<&Facts>) -> bool {
    let Some(facts) = facts else {
        return row.started_at.is_none() && row.role == member.role && row.addresses == member.addresses;
    };
    row.started_at == Some(facts.started_at)
        && row.role == member.role
        && row.os.as_deref() == Some(&facts.platform.os)
        && row.arch.as_deref() == Some(&facts.platform.arch)
        && row.version.as_deref() == Some(&facts.version)
        && row.addresses == facts.addresses
        && row.labels.iter().map(|(key, value)| (key, value)).eq(&facts.labels)
        && row.capacity == facts.capacity
}

fn keep<T: PartialEq>(old: &Arc<T>, new: Arc<T>) -> Arc<T> {
    if Arc::ptr_eq(old, &new) || *old == new { old.clone() } else { new }
}

impl Engine {
    /// Builds anew those sections of the view that may have changed. True if one of them did.
    pub(super) fn show(&mut self) -> bool {
        let dirty = &mut self.dirty;
        let all = std::mem::take(&mut dirty.view);
        let rows = std::mem::take(&mut dirty.rows);
        let some_instances = std::mem::take(&mut dirty.instances) || all || !rows.is_empty();
        // Nodes show how many instances they run.
        let some_nodes = std::mem::take(&mut dirty.nodes) || some_instances;
        let some_holders = std::mem::take(&mut dirty.holders) || all;
        let some_tickets = std::mem::take(&mut dirty.tickets) || all;
        let some_problems = std::mem::take(&mut dirty.problems);
        if !(some_nodes || some_holders || some_tickets || some_problems) {
            return false;
        }
        let mut view = View::clone(&self.read_model.view);
        view.overlooked = self.overlooked;
        if some_instances {
            view.instances = Arc::new(self.instance_views());
        }
        if some_nodes {
            view.nodes = self.node_views(&view.nodes, &view.instances);
        }
        if some_holders {
            view.copies = Arc::new(self.copies_view());
        }
        if all {
            view.services = self.service_rows(&view.services);
        } else {
            self.renew_rows(&mut view.services, &rows);
        }
        if some_tickets {
            view.tickets = Arc::new(self.tickets.view(self.now.wall));
        }
        view.problems = Arc::new(self.problems(&view.nodes, &view.services, &view.instances));
        self.read_model.update(view)
    }

    pub(super) fn name_of(&self, key: &NodeKey) -> Option<&NodeName> {
        self.cluster.members().get(key).map(|member| &member.name)
    }

    /// All members by name. Rows that are as they were stay the same allocation, and so does the whole: in a large cluster there is
    /// much to look at, and little that is new.
    fn node_views(&self, before: &Arc<Vec<Arc<NodeView>>>, instances: &[InstanceView]) -> Arc<Vec<Arc<NodeView>>> {
        let mut running: BTreeMap<NodeKey, u32> = BTreeMap::new();
        for instance in instances.iter().filter(|instance| instance.state == InstanceState::Running) {
            *running.entry(instance.node_key).or_default() += 1;
        }
        let mut nodes: Vec<(&NodeKey, &Admission)> = self.cluster.members().iter().collect();
        nodes.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        let mut known = before.iter().peekable();
        let mut rows = Vec::with_capacity(nodes.len());
        for (key, member) in nodes {
            let facts = self.known.facts(key);
            let (status, since) = self.cluster.status(key);
            let instances_here = running.get(key).copied().unwrap_or(0);
            let drain = self.drain_view(key, instances);
            while known.next_if(|row| row.name < member.name).is_some() {}
            let same = known.next_if(|row| row.name == member.name).filter(|row| {
                row.key == *key
                    && (row.status, row.since, row.instances) == (status, since, instances_here)
                    && row.drain == drain
                    && shows(row, member, facts)
            });
            let view = || NodeView {
                key: *key,
                name: member.name.clone(),
                status,
                since,
                is_me: *key == self.me,
                role: member.role,
                os: facts.map(|facts| facts.platform.os.clone()),
                arch: facts.map(|facts| facts.platform.arch.clone()),
                version: facts.map(|facts| facts.version.clone()),
                addresses: facts.map_or_else(|| member.addresses.clone(), |facts| facts.addresses.clone()),
                labels: facts.map_or_else(Vec::new, |facts| facts.labels.clone().into_iter().collect()),
                joined_at: member.at,
                started_at: facts.map(|facts| facts.started_at),
                instances: instances_here,
                capacity: facts.and_then(|facts| facts.capacity.clone()),
                drain: drain.clone(),
            };
            rows.push(same.cloned().unwrap_or_else(|| Arc::new(view())));
        }
        let is_same = rows.len() == before.len() && rows.iter().zip(&**before).all(|(a, b)| Arc::ptr_eq(a, b));
        if is_same { before.clone() } else { Arc::new(rows) }
    }

    /// All services by name. Rows that are as they were stay the same allocation, and so does the whole.
    fn service_rows(&self, before: &Arc<Vec<Arc<ServiceView>>>) -> Arc<Vec<Arc<ServiceView>>> {
        let mut known = before.iter().peekable();
        let row = |service: &Service| {
            let new = self.service_view(service);
            while known.next_if(|row| row.name < new.name).is_some() {}
            known.next_if(|row| ***row == new).cloned().unwrap_or_else(|| Arc::new(new))
        };
        let rows: Vec<Arc<ServiceView>> = self.services.iter().map(row).collect();
        let is_same = rows.len() == before.len() && rows.iter().zip(&**before).all(|(a, b)| Arc::ptr_eq(a, b));
        if is_same { before.clone() } else { Arc::new(rows) }
    }

    /// Some of them anew: of ten thousand, one is what a deploy changes.
    fn renew_rows(&self, rows: &mut Arc<Vec<Arc<ServiceView>>>, names: &BTreeSet<ServiceName>) {
        for name in names {
            let new = self.services.get(name).map(|service| self.service_view(service));
            match (rows.binary_search_by(|row| row.name.cmp(name)), new) {
                (Ok(place), Some(new)) if *rows[place] == new => {}
                (Ok(place), Some(new)) => Arc::make_mut(rows)[place] = Arc::new(new),
                (Ok(place), None) => drop(Arc::make_mut(rows).remove(place)),
                (Err(place), Some(new)) => Arc::make_mut(rows).insert(place, Arc::new(new)),
                (Err(_), None) => {}
            }
        }
    }

    fn service_view(&self, service: &Service) -> ServiceView {
        let mut desired: BTreeMap<Option<NodeName>, u32> = BTreeMap::new();
        for seat in self.seats.get(&service.name).into_iter().flatten() {
            *desired.entry(seat.name.clone()).or_default() += 1;
        }
        let wanted = |(node, desired): (Option<NodeName>, u32)| {
            let why = node.is_none().then(|| self.obstacles(service, None));
            WantedView { node, desired, why }
        };
        ServiceView {
            name: service.name.clone(),
            current: revision_view(&service.current),
            history: service.history.iter().map(revision_view).collect(),
            wanted: desired.into_iter().map(wanted).collect(),
        }
    }

    fn instance_views(&self) -> Vec<InstanceView> {
        let wanting = self.seats.keys();
        let names: BTreeSet<&ServiceName> = self.known.reported_services().chain(wanting).collect();
        names.into_iter().flat_map(|name| self.instance_views_of(name)).collect()
    }

    fn instance_views_of(&self, name: &ServiceName) -> Vec<InstanceView> {
        let service = self.services.get(name);
        let mut seats: BTreeMap<(u32, NodeKey), &Seat> = BTreeMap::new();
        for seat in self.seats.get(name).into_iter().flatten() {
            seats.extend(seat.node.map(|node| ((seat.index, node), seat)));
        }
        let mut views = Vec::new();
        for (key, report) in self.known.reports(name) {
            let Some(node) = self.name_of(key) else { continue };
            for instance in &report.instances {
                let mut view = self.blank_instance(name, instance.index, *key, node.clone());
                fill(&mut view, instance);
                view.wanted = seats.remove(&(instance.index, *key)).is_some();
                view.current = service.is_some_and(|service| service.current.launch_hash == instance.launch_hash);
                views.push(view);
            }
        }
        for ((index, key), seat) in seats {
            let Some(node) = self.name_of(&key) else { continue };
            let mut view = self.blank_instance(name, index, key, node.clone());
            view.wanted = true;
            view.current = true;
            view.revision = service.map_or(0, |service| service.current.revision.number);
            if let Some(withheld) = &seat.withheld {
                view.state = InstanceState::Stopped;
                view.error = Some(withheld.to_string());
            }
            views.push(view);
        }
        views.sort_by(|a, b| (a.index, &a.node).cmp(&(b.index, &b.node)));
        views
    }

    fn blank_instance(&self, service: &ServiceName, index: u32, node_key: NodeKey, node: NodeName) -> InstanceView {
        InstanceView {
            service: service.clone(),
            index,
            node_key,
            node,
            node_status: self.cluster.status(&node_key).0,
            state: InstanceState::Pending,
            ready: false,
            revision: 0,
            current: false,
            wanted: false,
            run: None,
            pid: None,
            started_at: None,
            restarts: 0,
            exit: None,
            error: None,
            retry_at: None,
            enforced: Enforced::default(),
        }
    }

    fn copies_view(&self) -> CopiesView {
        // A node that is down can hold nothing now: waiting for it would be waiting for its repair.
        let counts = |key: &NodeKey, member: &Admission| {
            member.role.carries_work() && self.cluster.status(key).0 != NodeStatus::Down
        };
        let members = self.cluster.members().iter().filter(|(key, member)| counts(key, member)).count();
        let named = |(hash, keys): (&BlobHash, &BTreeSet<NodeKey>)| {
            let mut names: Vec<NodeName> = keys.iter().filter_map(|key| self.name_of(key).cloned()).collect();
            names.sort();
            (*hash, names)
        };
        CopiesView {
            wanted: u32::try_from(members.min(COPIES)).unwrap_or(u32::MAX),
            holders: self.known.all_holders().map(named).collect(),
        }
    }

    fn problems(
        &self,
        nodes: &[Arc<NodeView>],
        services: &[Arc<ServiceView>],
        instances: &[InstanceView],
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut tell = |subject: &dyn std::fmt::Display, message: String, hint: &str| {
            problems.push(Problem { subject: subject.to_string(), message, hint: hint.to_owned() });
        };
        for node in nodes.iter().filter(|node| node.status == NodeStatus::Down) {
            let text = format!("out of reach since {}", node.since);
            tell(&node.name, text, "see whether the host is up and can be reached; `narun start` there resumes it");
        }
        for name in self.services.unreadable() {
            let text = "written by a newer version of narun; its instances here are left as they are".to_owned();
            tell(name, text, "upgrade narun on this node");
        }
        for service in services {
            let unplaced: u32 =
                service.wanted.iter().filter(|wanted| wanted.node.is_none()).map(|wanted| wanted.desired).sum();
            if unplaced > 0 {
                let why = service.wanted.iter().find_map(|wanted| wanted.why.as_deref()).unwrap_or_default();
                let text = format!("{unplaced} instances have no node that can run them: {why}");
                tell(
                    &service.name,
                    text,
                    "add a node or a binary, label or uncordon a node, or deploy with other constraints",
                );
            }
            for wanted in &service.wanted {
                let Some(node) = &wanted.node else { continue };
                if nodes.binary_search_by(|known| known.name.cmp(node)).is_err() {
                    tell(
                        &service.name,
                        format!("names the node `{node}`, which is no member"),
                        "join it, or deploy without it",
                    );
                }
            }
        }
        for one in instances.iter().filter(|one| one.wanted) {
            let Some(error) = &one.error else { continue };
            let id = format!("{}-{} on {}", one.service, one.index, one.node);
            let hint = match one.state {
                InstanceState::Stopped => "`narun node info` shows the node's labels, and whether it is drained",
                InstanceState::CrashLoop | InstanceState::Finished => {
                    "it is not tried again before `service start`, `service restart` or a new deploy"
                }
                _ => "it is tried again by itself; `narun logs` may tell more",
            };
            let text = match one.state {
                InstanceState::Stopped => format!("stopped: {error}"),
                state => format!("{}, {} restarts: {error}", state.word(), one.restarts),
            };
            tell(&id, text, hint);
        }
        if let Some((text, hint)) = self.why_nothing_fires() {
            tell(&self.config.name, text, hint);
        }
        if self.overlooked > 0 {
            let text = format!("found by looking at everything what it had overlooked, {} times", self.overlooked);
            tell(
                &self.config.name,
                text,
                "this is a mistake in narun: report it with the version and what was asked for",
            );
        }
        for ((key, kind), count) in &self.refused {
            if let Some(name) = self.name_of(key) {
                tell(name, format!("sent {count} {kind}"), "look at that host: its narun is damaged, or is not narun");
            }
        }
        problems
    }
}

fn revision_view(rev: &Rev) -> RevisionView {
    RevisionView {
        number: rev.revision.number,
        id: rev.id.to_string(),
        spec: rev.spec.clone(),
        images: rev.revision.images.clone(),
        stopped: rev.revision.stopped,
        author: rev.revision.author_name.clone(),
        at: rev.revision.at,
        cause: rev.revision.cause.clone(),
        status: rev.status,
    }
}

fn fill(view: &mut InstanceView, report: &InstanceReport) {
    view.state = match report.state() {
        State::Fetching => InstanceState::Fetching,
        State::Starting => InstanceState::Starting,
        State::Running => InstanceState::Running,
        State::Stopping => InstanceState::Stopping,
        State::Backoff => InstanceState::Backoff,
        State::CrashLoop => InstanceState::CrashLoop,
        State::Finished => InstanceState::Finished,
    };
    view.ready = report.ready;
    view.revision = report.revision;
    view.run = report.run;
    view.pid = report.pid;
    view.started_at = report.started_at;
    view.restarts = report.restarts;
    view.exit = report.exit;
    view.error.clone_from(&report.error);
    view.retry_at = report.retry_at;
    view.enforced.clone_from(&report.enforced);
    if view.node_status == NodeStatus::Down && view.state != InstanceState::Finished {
        // What a node said last is not what is so: nobody can be told of an instance there that it runs.
        view.state = InstanceState::Unreachable;
        view.ready = false;
    }
}
