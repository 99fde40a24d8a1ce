//! What a host's disk holds of the ledger: bytes under redb. What was not synced is lost when the host loses power.
//!
//! It loses all of that or nothing: which sectors of a write survive is looked at beside the storage (`ledger/raft/store/torn`), and redb
//! writes what belongs to one commit in an order that is another one at each run.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::life::Life;

/// The disk; cheap to clone. It outlives the process and the host's power.
#[derive(Clone, Default)]
pub(crate) struct LedgerDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What survives.
    durable: Vec<u8>,
    /// What a process sees.
    seen: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Operation>,
    fails: bool,
    /// Counts the processes that had it open: what an earlier one still does reaches nothing.
    opened: u64,
}

enum Operation {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl LedgerDisk {
    /// The disk, as one run of a node's process has it open.
    pub(crate) fn open(&self, life: Arc<Life>) -> Opened {
        let mut state = self.lock();
        state.opened += 1;
        state.fails = false;
        Opened { disk: self.clone(), life, number: state.opened }
    }

    /// The process ended: the system writes what it was given. Where the host lost power that is lost, unless `is_kept`.
    pub(crate) fn crash(&self, is_kept: bool) {
        let mut state = self.lock();
        state.opened += 1;
        state.fails = false;
        if is_kept {
            state.sync();
        }
        state.unsynced.clear();
        state.seen = state.durable.clone();
    }

    /// The next sync fails.
    pub(crate) fn fail_next(&self) {
        self.lock().fails = true;
    }

    /// It is a good disk again.
    pub(crate) fn repair(&self) {
        self.lock().fails = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn sync(&mut self) {
        for operation in std::mem::take(&mut self.unsynced) {
            match operation {
                Operation::SetLen(len) => self.durable.resize(len, 0),
                Operation::Write(at, bytes) => {
                    let end = at + bytes.len();
                    if self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    self.durable[at..end].copy_from_slice(&bytes);
                }
            }
        }
    }

    fn range(&self, offset: u64, len: usize) -> io::Result<Range<usize>> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if offset + len > self.seen.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(offset..offset + len) }
    }
}

/// The disk under one run of a node's process.
pub(crate) struct Opened {
    disk: LedgerDisk,
    life: Arc<Life>,
    number: u64,
}

impl Opened {
    /// The disk, if the process that opened it lives.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.opened != self.number || self.life.is_over() {
            return Err(io::Error::other("the process has ended"));
        }
        Ok(state)
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        out.copy_from_slice(&state.seen[state.range(offset, out.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, len) = (self.state()?, usize::try_from(len).map_err(io::Error::other)?);
        state.seen.resize(len, 0);
        state.unsynced.push(Operation::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if state.fails {
            return Err(io::Error::other("no space left"));
        }
        state.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let at = state.range(offset, data.len())?;
        state.unsynced.push(Operation::Write(at.start, data.to_vec()));
        state.seen[at].copy_from_slice(data);
        Ok(())
    }
}
