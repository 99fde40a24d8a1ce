//! A disk without power: what was not synced is lost, kept or torn, sector by sector, at any operation. For tests.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

/// What a disk writes whole or not at all.
const SECTOR_LEN: usize = 512;

/// A disk that outlives the process. Its clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Whose it is: after a later process has taken it over, this handle fails.
    life: u64,
}

struct Platter {
    life: u64,
    /// What survives.
    durable: Vec<u8>,
    /// What a process sees.
    seen: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Operation>,
    /// Writes, changes of length and syncs, since the power came back.
    operations: u64,
    /// The operation at which the power goes.
    cut_at: Option<u64>,
    has_power: bool,
    random: StdRng,
}

enum Operation {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// An empty disk; what is lost at a cut follows from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let platter = Platter {
            life: 0,
            durable: Vec::new(),
            seen: Vec::new(),
            unsynced: Vec::new(),
            operations: 0,
            cut_at: None,
            has_power: true,
            random: StdRng::seed_from_u64(seed),
        };
        Self { platter: Arc::new(Mutex::new(platter)), life: 0 }
    }

    /// The disk for the next process of its host; whatever is left of the one before cannot use it any more.
    pub(crate) fn taken_over(&self) -> Self {
        self.restart(None);
        let mut platter = self.lock();
        platter.life += 1;
        Self { platter: self.platter.clone(), life: platter.life }
    }

    /// The process is killed: what it has written it has handed to the kernel, which brings it to the disk.
    pub(crate) fn kill(&self) {
        let mut platter = self.lock();
        platter.sync();
        platter.has_power = false;
    }

    /// Whether it can be used.
    pub(crate) fn has_power(&self) -> bool {
        self.lock().has_power
    }

    /// Another disk with what is safe on this one.
    pub(crate) fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        copy.lock().durable = self.lock().durable.clone();
        copy.restart(None);
        copy
    }

    /// The power goes now.
    pub(crate) fn cut(&self) {
        self.lock().cut();
    }

    /// The power is back, until the operation `cut_at`.
    pub(crate) fn restart(&self, cut_at: Option<u64>) {
        let mut platter = self.lock();
        platter.cut();
        platter.seen = platter.durable.clone();
        (platter.operations, platter.cut_at, platter.has_power) = (0, cut_at, true);
    }

    /// The power goes after so many operations more.
    pub(crate) fn cut_after(&self, operations: u64) {
        let mut platter = self.lock();
        platter.cut_at = Some(platter.operations + operations);
    }

    /// How many operations there were since the power came back.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts bytes where they belong, and room before them where there is none.
fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Platter {
    /// Whether there is power for one more operation of the process of that life.
    fn step(&mut self, life: u64) -> io::Result<()> {
        if self.life != life {
            return Err(io::Error::other("another process has the disk"));
        }
        if self.has_power {
            self.operations += 1;
            if self.cut_at == Some(self.operations) {
                self.cut();
            }
        }
        self.check(life)
    }

    fn sync(&mut self) {
        for operation in std::mem::take(&mut self.unsynced) {
            match operation {
                Operation::SetLen(len) => self.durable.resize(len, 0),
                Operation::Write(at, bytes) => put(&mut self.durable, at, &bytes),
            }
        }
    }

    fn check(&self, life: u64) -> io::Result<()> {
        if self.has_power && self.life == life { Ok(()) } else { Err(io::Error::other("the power is gone")) }
    }

    fn cut(&mut self) {
        if !self.has_power {
            return;
        }
        self.has_power = false;
        let unsynced = std::mem::take(&mut self.unsynced);
        // How much of it had come to the disk: nothing, all, the first operations, or any sectors.
        let (whole, likely) = match self.random.random_range(0..4_u32) {
            0 => (0, 0.0),
            1 => (unsynced.len(), 1.0),
            2 => (self.random.random_range(0..=unsynced.len()), 0.0),
            _ => (0, self.random.random_range(0.05..0.95)),
        };
        for (number, operation) in unsynced.into_iter().enumerate() {
            match operation {
                Operation::SetLen(len) => {
                    if number < whole || self.random.random_bool(likely) {
                        self.durable.resize(len, 0);
                    }
                }
                Operation::Write(at, bytes) => {
                    let mut from = 0;
                    while from < bytes.len() {
                        // To the next boundary between sectors.
                        let upto = (from + SECTOR_LEN - (at + from) % SECTOR_LEN).min(bytes.len());
                        // The first one that is not whole is torn.
                        let is_kept = number < whole || (number == whole && self.random.random_bool(0.5));
                        if is_kept && whole > 0 || self.random.random_bool(likely) {
                            put(&mut self.durable, at + from, &bytes[from..upto]);
                        }
                        from = upto;
                    }
                }
            }
        }
    }
}

fn range(offset: u64, len: usize, end: usize) -> io::Result<std::ops::Range<usize>> {
    let offset = usize::try_from(offset).map_err(io::Error::other)?;
    if offset + len > end { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(offset..offset + len) }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.lock();
        platter.check(self.life)?;
        Ok(platter.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.lock();
        platter.check(self.life)?;
        out.copy_from_slice(&platter.seen[range(offset, out.len(), platter.seen.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut platter, len) = (self.lock(), usize::try_from(len).map_err(io::Error::other)?);
        platter.step(self.life)?;
        platter.seen.resize(len, 0);
        platter.unsynced.push(Operation::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.step(self.life)?;
        platter.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        platter.check(self.life)?;
        let at = range(offset, data.len(), platter.seen.len())?;
        // Before it is cut: an operation that finds no power may have been under way.
        platter.unsynced.push(Operation::Write(at.start, data.to_vec()));
        platter.step(self.life)?;
        platter.seen[at].copy_from_slice(data);
        Ok(())
    }
}
