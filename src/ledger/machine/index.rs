//! What is worked out from the machine's state, so that no command and no question goes through all jobs. Pure.
//!
//! It is never written down: a snapshot's reader builds it anew. Each change of a job goes through [`Index::change`], which
//! compares what the job was with what it is; nobody else has to remember what depends on what.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Job, State};
use super::watch::Watch;
use crate::ids::{NodeKey, RunId, ServiceName};
use crate::ledger::command::{JobKey, LeaseKey, SessionId};
use crate::ledger::time::LedgerTime;

/// Everything by what it is asked for.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Index {
    /// The open session of each node.
    pub(super) sessions: BTreeMap<NodeKey, SessionId>,
    /// What each session holds.
    pub(super) leases: BTreeMap<SessionId, BTreeSet<LeaseKey>>,
    /// Jobs with an open run on each node.
    pub(super) runs: BTreeMap<NodeKey, BTreeSet<JobKey>>,
    /// Runs whose node is away, and since when.
    pub(super) orphans: BTreeSet<(LedgerTime, JobKey, RunId)>,
    /// Jobs whose spec is deleted, and since when.
    pub(super) retired: BTreeSet<(LedgerTime, JobKey)>,
    /// What changed for each node.
    pub(super) watches: BTreeMap<NodeKey, Watch>,
    /// When a session was last opened or closed, and a lease last given or taken away, as log indices.
    pub(super) sessions_changed: u64,
    pub(super) leases_changed: u64,
}

/// What of a job the index depends on.
#[derive(Default, PartialEq)]
pub(super) struct Facets {
    holder: Option<(SessionId, Option<NodeKey>)>,
    nodes: BTreeSet<NodeKey>,
    orphans: BTreeSet<(LedgerTime, RunId)>,
    retired: Option<LedgerTime>,
}

impl Facets {
    /// Those of `job`, where `node_of` knows whose the open sessions are.
    pub(super) fn of(job: &Job, node_of: impl Fn(SessionId) -> Option<NodeKey>) -> Self {
        Self {
            holder: job.holder.map(|session| (session, node_of(session))),
            nodes: job.open.iter().filter_map(|run| run.node).collect(),
            orphans: job.open.iter().filter_map(|run| Some((run.orphaned?, run.id))).collect(),
            retired: job.retired,
        }
    }

    /// Whose concern the job is: its holder's, and that of everyone who has a run of it.
    fn concerned(&self) -> BTreeSet<NodeKey> {
        let holder = self.holder.and_then(|(_, node)| node);
        self.nodes.iter().copied().chain(holder).collect()
    }
}

impl Index {
    /// The index of a state that nothing else is known of.
    pub(super) fn build(state: &State) -> Self {
        let mut index = Self { sessions_changed: state.applied, leases_changed: state.applied, ..Self::default() };
        for (id, session) in &state.sessions {
            index.sessions.insert(session.node, *id);
        }
        let node_of = |session: SessionId| state.sessions.get(&session).map(|session| session.node);
        for (key, job) in &state.jobs {
            index.change(state.applied, key, &Facets::default(), &Facets::of(job, node_of));
        }
        for (name, session) in &state.singletons {
            index.give(state.applied, *session, node_of(*session), name);
        }
        for watch in index.watches.values_mut() {
            watch.forget_before(state.applied);
        }
        index
    }

    /// A job has changed at log index `at`: what it was, and what it is.
    pub(super) fn change(&mut self, at: u64, key: &JobKey, before: &Facets, after: &Facets) {
        if before.holder != after.holder {
            let lease = LeaseKey::Cron(key.clone());
            if let Some((session, _)) = before.holder {
                take(&mut self.leases, &session, &lease);
            }
            if let Some((session, _)) = after.holder {
                self.leases.entry(session).or_default().insert(lease);
            }
            self.leases_changed = at;
        }
        for node in before.nodes.difference(&after.nodes) {
            take(&mut self.runs, node, key);
        }
        for node in after.nodes.difference(&before.nodes) {
            self.runs.entry(*node).or_default().insert(key.clone());
        }
        for (since, run) in before.orphans.difference(&after.orphans) {
            self.orphans.remove(&(*since, key.clone(), *run));
        }
        for (since, run) in after.orphans.difference(&before.orphans) {
            self.orphans.insert((*since, key.clone(), *run));
        }
        if before.retired != after.retired {
            before.retired.map(|since| self.retired.remove(&(since, key.clone())));
            after.retired.map(|since| self.retired.insert((since, key.clone())));
        }
        let (was, is) = (before.concerned(), after.concerned());
        for node in was.union(&is) {
            self.note(at, *node, &LeaseKey::Cron(key.clone()), is.contains(node));
        }
    }

    /// A singleton was given to a session.
    pub(super) fn give(&mut self, at: u64, session: SessionId, node: Option<NodeKey>, name: &ServiceName) {
        let lease = LeaseKey::Singleton(name.clone());
        if let Some(node) = node {
            self.note(at, node, &lease, true);
        }
        self.leases.entry(session).or_default().insert(lease);
        self.leases_changed = at;
    }

    /// A singleton was taken from a session.
    pub(super) fn take(&mut self, at: u64, session: SessionId, node: Option<NodeKey>, name: &ServiceName) {
        let lease = LeaseKey::Singleton(name.clone());
        if let Some(node) = node {
            self.note(at, node, &lease, false);
        }
        take(&mut self.leases, &session, &lease);
        self.leases_changed = at;
    }

    /// A node has a session.
    pub(super) fn open(&mut self, at: u64, node: NodeKey, session: SessionId) {
        self.sessions.insert(node, session);
        self.sessions_changed = at;
    }

    /// A node's session is over, and everything was taken from it.
    pub(super) fn close(&mut self, at: u64, node: &NodeKey) {
        self.sessions.remove(node);
        self.sessions_changed = at;
        self.drop_idle(node);
    }

    /// Something changed for a node, of which nothing was known before if it has no watch.
    fn note(&mut self, at: u64, node: NodeKey, lease: &LeaseKey, is_concern: bool) {
        let watch = self.watches.entry(node).or_insert_with(|| Watch::since(at.saturating_sub(1)));
        watch.note(at, lease, is_concern);
        self.drop_idle(&node);
    }

    /// Forgets what changed for a node that is not here and whom nothing concerns, so that nodes which left cost nothing.
    fn drop_idle(&mut self, node: &NodeKey) {
        if !self.sessions.contains_key(node) && self.watches.get(node).is_some_and(Watch::is_idle) {
            self.watches.remove(node);
        }
    }
}

/// Takes one out of a set, and the set out of the map when it is empty.
fn take<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, key: &K, one: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(one);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
