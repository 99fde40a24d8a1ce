//! The machine as bytes: a version, then CBOR (RFC 8949) maps with integer keys. Pure.
//!
//! Measured (`tests/size.rs`): see ARCHITECTURE.md.

use std::collections::BTreeSet;

use super::Machine;
use super::index::Index;
use super::state::State;

/// The form of the bytes. Fields that are added keep it; a reader passes over those that it does not know.
const VERSION: u8 = 1;

/// The machine as it was at one log index. It shares its jobs with the machine, so that it is made in a few milliseconds and encoded
/// elsewhere, while the machine goes on.
#[derive(Clone, Debug)]
pub struct Frozen {
    state: State,
}

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There are none.
    #[error("the ledger's snapshot is empty")]
    Empty,
    /// A later narun wrote it.
    #[error("the ledger's snapshot has format {0}, which this version cannot read: expected {VERSION}")]
    Version(u8),
    /// It is damaged.
    #[error("the ledger's snapshot is damaged: {0}")]
    Damaged(#[source] minicbor::decode::Error),
    /// It says what no machine says.
    #[error("the ledger's snapshot contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Machine {
    /// A copy for a snapshot.
    pub fn freeze(&self) -> Frozen {
        Frozen { state: self.state.clone() }
    }

    /// Reads a snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (version, body) = bytes.split_first().ok_or(SnapshotError::Empty)?;
        if *version != VERSION {
            return Err(SnapshotError::Version(*version));
        }
        let state: State = minicbor::decode(body).map_err(SnapshotError::Damaged)?;
        #[cfg(test)]
        let state = with_bugs(state);
        check(&state).map_err(SnapshotError::Contradiction)?;
        let index = Index::build(&state);
        Ok(Self { state, index })
    }
}

/// What is left of a snapshot while a bug is on.
#[cfg(test)]
fn with_bugs(mut state: State) -> State {
    for job in state.jobs.values_mut().map(std::sync::Arc::make_mut) {
        if bug!(SnapshotForgetsClaims) {
            job.cursor.0 -= 60;
        }
        if bug!(SnapshotForgetsRuns) {
            job.open.clear();
        }
    }
    state
}

impl Frozen {
    /// The index of the last entry in it.
    pub fn applied(&self) -> u64 {
        self.state.applied
    }

    /// The bytes of the snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        // Writing to memory fails at nothing, and every type in it encodes whatever it holds.
        minicbor::encode(&self.state, &mut bytes).unwrap_or_else(|error| unreachable!("the machine's state: {error}"));
        bytes
    }
}

/// What holds in every machine, and what later commands rely on.
fn check(state: &State) -> Result<(), &'static str> {
    let is_past = |index: u64| index <= state.applied;
    let nodes: BTreeSet<_> = state.sessions.values().map(|session| session.node).collect();
    if nodes.len() != state.sessions.len() {
        return Err("a node has two sessions");
    }
    if !state.sessions.keys().all(|session| is_past(session.0)) {
        return Err("a session is of later than the snapshot");
    }
    let holders = state.jobs.values().filter_map(|job| job.holder).chain(state.singletons.values().copied());
    if !holders.into_iter().all(|session| state.sessions.contains_key(&session)) {
        return Err("a lease is held by a session that is over");
    }
    for job in state.jobs.values() {
        if job.open.iter().any(|run| run.end.is_some()) || job.ended.iter().any(|run| run.end.is_none()) {
            return Err("a run is in the wrong place");
        }
        if !job.runs().all(|run| is_past(run.fence.0)) {
            return Err("a fence is of later than the snapshot");
        }
        let ids: BTreeSet<_> = job.runs().map(|run| run.id).collect();
        if ids.len() != job.runs().count() {
            return Err("two runs have one name");
        }
    }
    Ok(())
}
