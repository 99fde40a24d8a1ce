//! The log, as openraft uses it. Shell.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::ledger::raft::types::{Entry, LogId, TypeConfig, Vote};

use super::rows::{LogContents, Write, encode};
use super::writer::Jobs;

/// Most bytes of entries in one message to a voter, but for a single entry: with what comes round them they fit a frame
/// (`raft::wire::FRAME_LEN_MAX`).
pub const APPEND_LEN_MAX: usize = 1 << 20;

/// Vote and log: in memory as they will be on the disk once the writer has done all that it was handed.
#[derive(Clone)]
pub struct Log {
    held: Arc<Mutex<LogContents>>,
    jobs: Jobs,
}

/// Reads the log, from other tasks.
#[derive(Clone)]
pub struct Reader {
    held: Arc<Mutex<LogContents>>,
}

fn lock(held: &Mutex<LogContents>) -> MutexGuard<'_, LogContents> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    pub(super) fn new(contents: LogContents, jobs: Jobs) -> Self {
        Self { held: Arc::new(Mutex::new(contents)), jobs }
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let held = lock(&self.held);
        let last = held.entries.last_key_value().map(|(_, (entry, _))| entry.log_id);
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: last.or(held.purged) })
    }

    async fn get_log_reader(&mut self) -> Reader {
        Reader { held: self.held.clone() }
    }

    /// A vote is on the disk before anybody is told of it.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        lock(&self.held).vote = Some(*vote);
        self.jobs.write_through(vec![Write::Vote(*vote)]).await
    }

    /// Goes to the disk with the next append: a sync of its own would double the cost of a claim. After a crash the machine then
    /// stands a little earlier than it did, until a leader says what is committed.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        lock(&self.held).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.held).committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let writes = {
            let mut held = lock(&self.held);
            // Behind the entries that it names: those were handed over before it was known to be committed.
            let committed = held.committed.map(Write::Committed);
            let rows = entries.into_iter().map(|entry| {
                let (index, row) = (entry.index(), encode(&entry));
                held.entries.insert(index, (entry, row.len()));
                (index, row)
            });
            [Write::Append(rows.collect())].into_iter().chain(committed).collect()
        };
        self.jobs.append(writes, flushed).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        lock(&self.held).entries.split_off(&from);
        self.jobs.write(vec![Write::Truncate(from)]).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut held = lock(&self.held);
            held.entries = held.entries.split_off(&(upto.index + 1));
            held.purged = Some(upto);
        }
        self.jobs.write(vec![Write::Purge(upto)]).await
    }
}

impl RaftLogReader<TypeConfig> for Reader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let held = lock(&self.held);
        Ok(held.entries.range(range).map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(lock(&self.held).vote)
    }

    /// As many as fit a message, and at least one.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(fitting(&lock(&self.held).entries, start, end))
    }
}

fn fitting(entries: &BTreeMap<u64, (Entry, usize)>, start: u64, end: u64) -> Vec<Entry> {
    let mut room = APPEND_LEN_MAX;
    let mut found = Vec::new();
    for (entry, len) in entries.range(start..end).map(|(_, held)| held) {
        if *len > room && !found.is_empty() {
            break;
        }
        room = room.saturating_sub(*len);
        found.push(entry.clone());
    }
    found
}
