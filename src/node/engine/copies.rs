//! The blobs of this node: which are here, which must be fetched, which may go. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::effect::Effect;
use super::input::BlobEvent;
use crate::blobs::plan::{Holders, keepers};
use crate::exec::backoff::Backoff;
use crate::ids::{BlobHash, NodeKey};
use crate::time::Mono;

/// How long a blob that nothing refers to stays: an upload comes before the revision that names it, and a service that was
/// deleted by mistake is soon deployed again.
const SWEEP_AFTER: Duration = Duration::from_secs(15 * 60);

/// What the rest of the cluster has to do with one blob.
#[derive(Clone, Debug, Default)]
pub(super) struct Need {
    /// Its size in bytes.
    pub(super) size: u64,
    /// Whether an instance of this node runs it now or is to.
    pub(super) to_run: bool,
    /// Members that hold it, or brought it.
    pub(super) holders: BTreeSet<NodeKey>,
}

#[derive(Debug)]
struct Fetch {
    backoff: Backoff,
    /// Whom the store was told to ask; empty while no fetch is under way.
    asked: BTreeSet<NodeKey>,
    not_before: Mono,
    error: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Executable {
    Asked,
    Ready,
    Failed { again_at: Mono, error: String },
}

/// How long to wait after an executable could not be made: the disk is full or a folder was taken away.
const EXECUTABLE_AGAIN: Duration = Duration::from_secs(5);

/// This node's blobs.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// False until the store has said what it holds.
    known: bool,
    /// Up to when deadlines were looked at.
    looked_at: Mono,
    held: BTreeMap<BlobHash, u64>,
    unreferenced_since: BTreeMap<BlobHash, Mono>,
    fetches: BTreeMap<BlobHash, Fetch>,
    executables: BTreeMap<BlobHash, Executable>,
}

impl Copies {
    /// Takes in what the store reports.
    pub(super) fn apply(&mut self, now: Mono, event: BlobEvent, rng: &mut ChaCha8Rng) {
        match event {
            BlobEvent::Holding(blobs) => {
                self.known = true;
                self.held.extend(blobs);
            }
            BlobEvent::Stored(hash, size) => {
                self.held.insert(hash, size);
                self.fetches.remove(&hash);
                self.unreferenced_since.remove(&hash);
            }
            BlobEvent::FetchFailed(hash, error) => {
                if let Some(fetch) = self.fetches.get_mut(&hash) {
                    fetch.asked.clear();
                    fetch.not_before = now + fetch.backoff.next_delay(rng);
                    fetch.error = Some(error);
                }
            }
            BlobEvent::Executable(hash) => {
                self.executables.insert(hash, Executable::Ready);
            }
            BlobEvent::ExecutableFailed(hash, error) => {
                self.executables.insert(hash, Executable::Failed { again_at: now + EXECUTABLE_AGAIN, error });
            }
        }
    }

    /// Whether a blob is whole here.
    pub(super) fn holds(&self, hash: &BlobHash) -> bool {
        self.held.contains_key(hash)
    }

    /// All blobs that are whole here, in order.
    pub(super) fn held(&self) -> impl Iterator<Item = BlobHash> {
        self.held.keys().copied()
    }

    /// Whether the store has said what it holds.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether a verified executable is here.
    pub(super) fn is_executable(&self, hash: &BlobHash) -> bool {
        self.executables.get(hash) == Some(&Executable::Ready)
    }

    /// Why it is not.
    pub(super) fn trouble(&self, hash: &BlobHash) -> Option<String> {
        if let Some(Executable::Failed { error, .. }) = self.executables.get(hash) {
            return Some(error.clone());
        }
        let fetch = self.fetches.get(hash)?;
        match &fetch.error {
            Some(error) => Some(format!("cannot fetch the binary: {error}")),
            None if fetch.asked.is_empty() => Some("no reachable node holds the binary".to_owned()),
            None => None,
        }
    }

    /// Fetches, makes and sweeps what is due. `needs` are all blobs that kept revisions name; `nodes` are the members that can
    /// hold copies, this one (`me`) among them.
    pub(super) fn settle(
        &mut self,
        now: Mono,
        me: NodeKey,
        needs: &BTreeMap<BlobHash, Need>,
        nodes: &Holders,
    ) -> Vec<Effect> {
        if !self.known {
            return Vec::new();
        }
        let mut effects = Vec::new();
        for (hash, need) in needs {
            if self.holds(hash) {
                effects.extend(self.settle_executable(now, hash, need));
            } else if need.to_run || keepers(hash, nodes).contains(&me) {
                effects.extend(self.settle_fetch(now, hash, need));
            } else {
                self.fetches.remove(hash);
            }
        }
        self.fetches.retain(|hash, _| needs.contains_key(hash));
        effects.extend(self.sweep(now, needs));
        effects
    }

    fn settle_executable(&mut self, now: Mono, hash: &BlobHash, need: &Need) -> Option<Effect> {
        let due = match self.executables.get(hash) {
            None => true,
            Some(Executable::Failed { again_at, .. }) => *again_at <= now,
            Some(Executable::Asked | Executable::Ready) => false,
        };
        (need.to_run && due).then(|| {
            self.executables.insert(*hash, Executable::Asked);
            Effect::MakeExecutable(*hash)
        })
    }

    fn settle_fetch(&mut self, now: Mono, hash: &BlobHash, need: &Need) -> Option<Effect> {
        let fetch = self.fetches.entry(*hash).or_insert_with(|| Fetch {
            backoff: Backoff::default(),
            asked: BTreeSet::new(),
            not_before: now,
            error: None,
        });
        let news = need.holders.difference(&fetch.asked).next().is_some();
        let waiting = fetch.asked.is_empty() && now < fetch.not_before;
        if !news || waiting {
            return None;
        }
        fetch.asked.extend(&need.holders);
        Some(Effect::Fetch { hash: *hash, size: need.size, from: need.holders.iter().copied().collect() })
    }

    fn sweep(&mut self, now: Mono, needs: &BTreeMap<BlobHash, Need>) -> Vec<Effect> {
        self.unreferenced_since.retain(|hash, _| !needs.contains_key(hash));
        for hash in self.held.keys().filter(|hash| !needs.contains_key(*hash)) {
            self.unreferenced_since.entry(*hash).or_insert(now);
        }
        let due: Vec<BlobHash> = self
            .unreferenced_since
            .iter()
            .filter(|(_, since)| now.since(**since) >= SWEEP_AFTER)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in &due {
            self.held.remove(hash);
            self.unreferenced_since.remove(hash);
            self.executables.remove(hash);
        }
        due.into_iter().map(Effect::Sweep).collect()
    }

    /// Whether [`Copies::settle`] has got something to do since this was asked last for no other reason than time.
    pub(super) fn take_due(&mut self, now: Mono) -> bool {
        let due = self.next_deadline(self.looked_at).is_some_and(|due| due <= now);
        self.looked_at = now;
        due
    }

    /// When [`Copies::settle`] has something to do without anything happening.
    pub(super) fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let fetches = self.fetches.values().filter(|fetch| fetch.asked.is_empty()).map(|fetch| fetch.not_before);
        let executables = self.executables.values().filter_map(|executable| match executable {
            Executable::Failed { again_at, .. } => Some(*again_at),
            Executable::Asked | Executable::Ready => None,
        });
        let sweeps = self.unreferenced_since.values().map(|since| *since + SWEEP_AFTER);
        fetches.chain(executables).chain(sweeps).filter(|due| *due > now).min()
    }
}
