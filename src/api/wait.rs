//! How far a revision has come: what `--wait` waits for. Pure.
//!
//! A revision has arrived when every instance that it wants is ready at it and its binaries stand on as many nodes as they
//! should. It has failed when one of those instances was given up, or when another revision took its place.

use std::collections::BTreeMap;

use crate::ids::{NodeName, ServiceName};
use crate::node::engine::view::{InstanceState, InstanceView, RevisionView, ServiceView, View};
use crate::spec::RunMode;

/// What is to be said of a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It has arrived.
    Done,
    /// Something is missing yet.
    Waiting,
    /// It will not arrive.
    Failed,
}

impl Verdict {
    /// The word in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

/// How far a revision has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// In a word.
    pub verdict: Verdict,
    /// How many instances are wanted.
    pub desired: u32,
    /// How many of those are ready.
    pub ready: u32,
    /// What is missing, or what failed.
    pub reasons: Vec<String>,
}

impl Progress {
    fn failed(reason: String) -> Self {
        Self { verdict: Verdict::Failed, desired: 0, ready: 0, reasons: vec![reason] }
    }
}

/// How far revision `revision` of `name` has come in `view`.
pub fn progress(view: &View, name: &ServiceName, revision: u32) -> Progress {
    let Some(service) = view.service(name.as_str()) else {
        return Progress::failed(format!("service `{name}` was deleted"));
    };
    let current = &service.current;
    if current.number > revision {
        let (number, author) = (current.number, &current.author);
        return Progress::failed(format!(
            "revision {revision} of `{name}` was replaced by revision {number} from `{author}`"
        ));
    }
    let mut reasons = Vec::new();
    if current.number < revision {
        reasons.push(format!("revision {revision} has not come to this node"));
    }
    let instances = || view.instances.iter().filter(|instance| instance.service == *name);
    if current.stopped {
        let left = instances().filter(|instance| has_process(instance.state));
        reasons.extend(left.map(|instance| format!("instance {} is {}", place(instance), instance.state.word())));
        return finish(0, 0, reasons, Vec::new());
    }
    reasons.extend(missing_copies(view, name, current));
    if matches!(current.spec.mode, RunMode::Cron(_)) {
        return finish(0, 0, reasons, Vec::new());
    }

    let mut given_up = Vec::new();
    let mut ready: BTreeMap<&NodeName, u32> = BTreeMap::new();
    for instance in instances().filter(|instance| instance.wanted) {
        if is_ready(instance) {
            *ready.entry(&instance.node).or_default() += 1;
        } else if instance.current && is_given_up(instance) {
            given_up.push(describe(instance));
        } else {
            reasons.push(describe(instance));
        }
    }
    reasons.extend(short(view, service, &ready));
    let desired = service.wanted.iter().map(|wanted| wanted.desired).sum();
    finish(desired, ready.values().sum(), reasons, given_up)
}

fn finish(desired: u32, ready: u32, missing: Vec<String>, failed: Vec<String>) -> Progress {
    let (verdict, reasons) = match (missing.is_empty(), failed.is_empty()) {
        (_, false) => (Verdict::Failed, failed),
        (false, true) => (Verdict::Waiting, missing),
        (true, true) => (Verdict::Done, Vec::new()),
    };
    Progress { verdict, desired, ready, reasons }
}

/// Whether an instance counts for its service: it is up, long enough, as the current revision wants it; or it has ended well, and
/// its service wants no more of it.
pub(super) fn is_ready(instance: &InstanceView) -> bool {
    let counts = matches!(instance.state, InstanceState::Running | InstanceState::Finished);
    instance.current && instance.ready && counts
}

/// Whether nothing more is done for an instance that has failed.
fn is_given_up(instance: &InstanceView) -> bool {
    match instance.state {
        InstanceState::CrashLoop => true,
        InstanceState::Finished => !instance.ready,
        _ => false,
    }
}

/// Whether a process of the instance may exist.
pub(super) fn has_process(state: InstanceState) -> bool {
    matches!(state, InstanceState::Starting | InstanceState::Running | InstanceState::Stopping)
}

/// Rows of the wanted state for which no node has an instance to show, not even a pending one.
fn short(view: &View, service: &ServiceView, ready: &BTreeMap<&NodeName, u32>) -> Vec<String> {
    let on = |node: &NodeName| {
        let of_service = view.instances.iter().filter(|instance| instance.service == service.name);
        of_service.filter(|instance| instance.wanted && instance.node == *node).count()
    };
    let mut reasons = Vec::new();
    for wanted in &service.wanted {
        match &wanted.node {
            None if wanted.desired > 0 => {
                let why = wanted.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                reasons.push(format!("no node can take {} of the instances{why}", wanted.desired));
            }
            None => {}
            Some(node) => {
                let listed = on(node);
                let up = ready.get(node).copied().unwrap_or_default();
                if up < wanted.desired && listed < wanted.desired as usize {
                    reasons.push(format!("{up} of {} instances are ready on node `{node}`", wanted.desired));
                }
            }
        }
    }
    reasons
}

fn missing_copies(view: &View, name: &ServiceName, revision: &RevisionView) -> Vec<String> {
    let wanted = view.copies.wanted;
    let copies = revision.images.iter().map(|image| (image, view.copies.of(&image.hash).len()));
    copies
        .filter(|(_, count)| (*count as u64) < u64::from(wanted))
        .map(|(image, count)| {
            format!("{count} of {wanted} copies of `{}` stand", image.object_name(name, &revision.spec.tag))
        })
        .collect()
}

fn place(instance: &InstanceView) -> String {
    format!("`{}-{}` on node `{}`", instance.service, instance.index, instance.node)
}

fn describe(instance: &InstanceView) -> String {
    let mut text = format!("instance {} is {}", place(instance), instance.state.word());
    match (instance.state, instance.current, instance.ready) {
        (InstanceState::Running, false, _) => text.push_str(&format!(" at revision {}", instance.revision)),
        (InstanceState::Running, true, false) => text.push_str(", but not yet for long enough"),
        _ => {}
    }
    if let Some(error) = &instance.error {
        text.push_str(&format!(": {error}"));
    }
    text
}
