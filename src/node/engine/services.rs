//! What the catalog's documents say about services, in checked words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::view::RevisionStatus;
use crate::crdt::document::{Content, RevisionId};
use crate::crdt::revision::Revision;
use crate::ids::{BlobHash, ServiceName};
use crate::spec::{RunMode, ServiceSpec};
use crate::time::Wall;

/// A revision with its specification read.
#[derive(Clone, PartialEq, Debug)]
pub struct Rev {
    /// Its name in the document.
    pub id: RevisionId,
    /// What was written.
    pub revision: Revision,
    /// What it asks for.
    pub spec: Arc<ServiceSpec>,
    /// What a running instance must have been started under to satisfy it.
    pub launch_hash: BlobHash,
    /// What became of it.
    pub status: RevisionStatus,
}

impl Rev {
    /// Whether it is a cron spec that is not to run: suspended by its field, or stopped.
    pub fn is_suspended(&self) -> bool {
        match &self.spec.mode {
            RunMode::Cron(cron) => cron.policy.suspend || self.revision.stopped,
            RunMode::Service => false,
        }
    }
}

/// A service that is not deleted.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The revision that is carried out.
    pub current: Rev,
    /// All kept revisions that could be read, newest first.
    pub history: Vec<Rev>,
}

impl Service {
    /// Whether its instances are to be up at all.
    pub fn wants_instances(&self) -> bool {
        self.current.spec.mode == RunMode::Service && !self.current.revision.stopped
    }

    /// The current revision and those that it came from, newest first, as far as they are kept.
    fn line(&self) -> impl Iterator<Item = &Rev> {
        let parent = |rev: &&Rev| {
            let parent = rev.revision.parent.filter(|parent| parent.number < rev.id.number)?;
            self.history.iter().find(|older| older.id == parent)
        };
        std::iter::successors(Some(&self.current), parent)
    }

    /// When it was deployed first, after its last deletion if there was one; as far as its revisions are kept.
    pub fn deployed_first(&self) -> Wall {
        self.line().last().map_or(self.current.revision.at, |rev| rev.revision.at)
    }

    /// When it was resumed, if it was suspended or deleted before: slots until then fell into that.
    pub fn resumed_at(&self) -> Option<Wall> {
        let line: Vec<&Rev> = self.line().collect();
        let is_resumed = |pair: &&[&Rev]| !pair[0].is_suspended() && pair[1].is_suspended();
        let was_deleted = |first: &&&Rev| first.revision.parent.is_none() && first.id.number > 1;
        let resumed = line.windows(2).find(is_resumed).map(|pair| pair[0]);
        resumed.or_else(|| line.last().filter(was_deleted).copied()).map(|rev| rev.revision.at)
    }

    /// All blobs that its kept revisions name, with their sizes.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobHash, u64)> {
        self.history.iter().flat_map(|rev| rev.revision.images.iter().map(|image| (image.hash, image.size)))
    }
}

/// All services.
#[derive(Clone, Debug, Default)]
pub struct Services {
    readable: BTreeMap<ServiceName, Service>,
    unreadable: BTreeSet<ServiceName>,
}

impl Services {
    /// Takes over what a document says now; nothing when there is no document.
    pub fn update(&mut self, name: &ServiceName, content: Option<&Content>) {
        self.readable.remove(name);
        self.unreadable.remove(name);
        let Some(content) = content.filter(|content| content.deleted_at.is_none()) else { return };
        match read(name, content) {
            Some(service) => {
                self.readable.insert(name.clone(), service);
            }
            None => {
                self.unreadable.insert(name.clone());
            }
        }
    }

    /// A service.
    pub fn get(&self, name: &ServiceName) -> Option<&Service> {
        self.readable.get(name)
    }

    /// All services, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.readable.values()
    }

    /// Services whose current revision was written by a later version: their instances are left as they are.
    pub fn unreadable(&self) -> &BTreeSet<ServiceName> {
        &self.unreadable
    }
}

fn read(name: &ServiceName, content: &Content) -> Option<Service> {
    let past = ancestors(content);
    let mut history: Vec<Rev> = Vec::new();
    for (id, body) in content.revisions.iter().rev() {
        let Ok(revision) = minicbor::decode::<Revision>(body) else { continue };
        let Ok(spec) = ServiceSpec::from_stored(&revision.spec) else { continue };
        let status = match content.current {
            Some(current) if current == *id => RevisionStatus::Current,
            _ if past.contains(id) => RevisionStatus::Past,
            _ => RevisionStatus::Superseded,
        };
        let launch_hash = revision.launch_hash(&spec);
        history.push(Rev { id: *id, revision, spec: Arc::new(spec), launch_hash, status });
    }
    let current = history.iter().find(|rev| rev.status == RevisionStatus::Current)?.clone();
    Some(Service { name: name.clone(), current, history })
}

/// The revisions that led to the current one. Where the chain is broken because old revisions were dropped, all older ones
/// count as past.
fn ancestors(content: &Content) -> BTreeSet<RevisionId> {
    let mut past = BTreeSet::new();
    let mut next = content.current;
    while let Some(id) = next {
        let Some(body) = content.revisions.get(&id) else {
            past.extend(content.revisions.keys().filter(|older| older.number < id.number));
            break;
        };
        past.insert(id);
        let parent = minicbor::decode::<Revision>(body).ok().and_then(|revision| revision.parent);
        // A parent is older than its child; anything else was made up and must not send us in a circle.
        next = parent.filter(|parent| parent.number < id.number);
        if next.is_none() {
            // What was deleted in between, and what nobody knows the way to.
            past.extend(content.revisions.keys().filter(|older| older.number < id.number));
        }
    }
    past
}
