//! The machine, as openraft uses it: what was applied, and its snapshots. Shell.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::alias::SnapshotMetaOf;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use redb::Database;

use crate::ledger::command::Reply;
use crate::ledger::machine::{Frozen, Machine};
use crate::ledger::raft::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

use super::rows::{self, Write};
use super::writer::Jobs;

/// What the log adds up to.
#[derive(Default)]
pub struct Applied {
    /// The machine.
    pub machine: Machine,
    /// The last entry that is in it.
    pub last: Option<LogId>,
    /// The last set of voters that was committed.
    pub membership: StoredMembership,
}

/// The machine of this node, and the way to its snapshots.
#[derive(Clone)]
pub struct Machines {
    applied: Arc<Mutex<Applied>>,
    path: PathBuf,
    database: Arc<Database>,
    jobs: Jobs,
}

impl Machines {
    pub(super) fn new(
        snapshot: Option<(SnapshotMeta, Machine)>,
        path: &Path,
        database: Arc<Database>,
        jobs: Jobs,
    ) -> Self {
        let applied = snapshot.map_or_else(Applied::default, |(covers, machine)| Applied {
            machine,
            last: covers.last_log_id,
            membership: covers.last_membership,
        });
        Self { applied: Arc::new(Mutex::new(applied)), path: path.to_owned(), database, jobs }
    }

    /// What is applied now.
    pub fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftStateMachine<TypeConfig> for Machines {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = {
                let mut applied = self.applied();
                let reply = match entry.payload {
                    EntryPayload::Blank => Reply::Done,
                    EntryPayload::Normal(stamped) => applied.machine.apply(entry.log_id.index, &stamped),
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Reply::Done
                    }
                };
                applied.last = Some(entry.log_id);
                reply
            };
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let applied = self.applied();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() };
        Builder { meta, machine: applied.machine.freeze(), jobs: self.jobs.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: Bytes) -> Result<(), io::Error> {
        // It comes from a leader, and was checked when it arrived (`raft::serve`): nothing of a peer's is read here that may be wrong.
        let machine = Machine::decode(&snapshot).map_err(|error| io::Error::other(error.to_string()))?;
        self.jobs.write_through(vec![Write::Snapshot(meta.clone(), snapshot)]).await?;
        *self.applied() = Applied { machine, last: meta.last_log_id, membership: meta.last_membership.clone() };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let found = rows::read_snapshot(&self.database);
        let found = found.map_err(|cause| io::Error::other(format!("{}: {cause}", self.path.display())))?;
        Ok(found.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Makes one snapshot, beside what is applied meanwhile.
pub struct Builder {
    meta: SnapshotMeta,
    machine: Frozen,
    jobs: Jobs,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    /// On the disk when it returns: openraft purges the log next.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = self.meta.clone();
        let snapshot = Bytes::from(self.machine.encode());
        self.jobs.write_through(vec![Write::Snapshot(meta.clone(), snapshot.clone())]).await?;
        Ok(Snapshot { meta, snapshot })
    }
}
