//! What stands where in `ledger.redb`. Shell over redb.
//!
//! Each row is a format byte and a CBOR map with integer keys.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::database::{FORMAT, StoreError, failure};
use crate::ledger::machine::Machine;
use crate::ledger::raft::forms::Form;
use crate::ledger::raft::types::{Entry, LogId, SnapshotMeta, Vote};

use super::Cause;

/// Rows by name: `format` and those below.
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// Entries by index.
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// The parts of the snapshot, in order.
const SNAPSHOT: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("snapshot");

const FORMAT_ROW: &str = "format";
/// For whom this node has voted.
const VOTE_ROW: &str = "vote";
/// The last entry known to be committed, or an earlier one.
const COMMITTED_ROW: &str = "committed";
/// The last entry that is in the snapshot and not in the log any more.
const PURGED_ROW: &str = "purged";
/// What the snapshot covers.
const SNAPSHOT_ROW: &str = "snapshot";

/// Bytes of one part of a snapshot. redb keeps a value in one run of pages whose length is a power of two: parts of this size leave
/// no large holes in the file.
const PART_LEN: usize = 256 << 10;

/// The version of a row's form, its first byte.
const ROW_FORMAT: u8 = 1;

/// One thing to be written.
pub(super) enum Write {
    /// See [`VOTE_ROW`].
    Vote(Vote),
    /// See [`COMMITTED_ROW`].
    Committed(LogId),
    /// Entries, encoded, by index.
    Append(Vec<(u64, Vec<u8>)>),
    /// Entries from this index on are not there.
    Truncate(u64),
    /// Entries up to this one are in the snapshot.
    Purge(LogId),
    /// The machine, encoded, in place of the snapshot before.
    Snapshot(SnapshotMeta, Bytes),
}

/// Vote and log, as they were found.
#[derive(Default)]
pub(super) struct LogContents {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Entries with the length that they take, encoded.
    pub(super) entries: BTreeMap<u64, (Entry, usize)>,
}

/// All that was found.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) log: LogContents,
    pub(super) snapshot: Option<(SnapshotMeta, Machine)>,
}

/// A value as a row.
pub(super) fn encode<T: Form>(value: &T) -> Vec<u8> {
    let mut row = vec![ROW_FORMAT];
    minicbor::encode(value.form(), &mut row).expect("encoding into memory cannot fail");
    row
}

fn decode<T: Form>(row: &[u8]) -> Result<T, Cause> {
    match row.split_first() {
        Some((&ROW_FORMAT, form)) => {
            let form = minicbor::decode(form).map_err(|error| error.to_string())?;
            T::read(form).map_err(|error| error.to_string())
        }
        Some((version, _)) => Err(format!("a row has format {version}, this narun reads {ROW_FORMAT}")),
        None => Err("a row is empty".to_owned()),
    }
}

/// Writes in one transaction, and returns when it is on the disk. Each row of a claim waits for this: it is one sync and not two, since all
/// pages bear checksums and opening walks over all of them anyway, so that redb need not be spared that (`set_quick_repair`).
pub(super) fn write<'a>(database: &Database, writes: impl Iterator<Item = &'a Write>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut log = transaction.open_table(LOG)?;
        meta.insert(FORMAT_ROW, &[FORMAT][..])?;
        for write in writes {
            match write {
                Write::Vote(vote) => drop(meta.insert(VOTE_ROW, &encode(vote)[..])?),
                Write::Committed(id) => drop(meta.insert(COMMITTED_ROW, &encode(id)[..])?),
                Write::Append(entries) => {
                    for (index, row) in entries {
                        log.insert(index, &row[..])?;
                    }
                }
                Write::Truncate(from) => log.retain_in::<u64, _>(from.., |_, _| false)?,
                Write::Purge(id) => {
                    log.retain_in::<u64, _>(..=id.index, |_, _| false)?;
                    meta.insert(PURGED_ROW, &encode(id)[..])?;
                }
                Write::Snapshot(covers, bytes) => {
                    let mut parts = transaction.open_table(SNAPSHOT)?;
                    parts.retain(|_, _| false)?;
                    for (number, part) in (0..).zip(bytes.chunks(PART_LEN)) {
                        parts.insert(number, part)?;
                    }
                    meta.insert(SNAPSHOT_ROW, &encode(covers)[..])?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Reads everything, and checks that it holds together.
pub(super) fn read(database: &Database, path: &Path) -> Result<Contents, StoreError> {
    let damaged = |cause| StoreError::Damaged { path: path.to_owned(), cause };
    let rows = Rows::load(database).map_err(|error| failure(path, error))?;
    match rows.meta.get(FORMAT_ROW).map(Vec::as_slice) {
        Some([FORMAT]) => {}
        None if rows.meta.is_empty() => return Ok(Contents::default()),
        Some([found]) => return Err(StoreError::Newer { path: path.to_owned(), found: *found }),
        None | Some(_) => return Err(damaged("the row `format` is damaged".to_owned())),
    }
    rows.decode().map_err(damaged)
}

/// The snapshot, as it stands in the database.
pub(super) fn read_snapshot(database: &Database) -> Result<Option<(SnapshotMeta, Bytes)>, Cause> {
    let rows = Rows::load(database).map_err(|error| error.to_string())?;
    let covers = rows.meta.get(SNAPSHOT_ROW).map(|row| decode(row)).transpose()?;
    Ok(covers.map(|covers| (covers, rows.snapshot.into())))
}

/// The rows of all tables.
#[derive(Default)]
struct Rows {
    meta: BTreeMap<String, Vec<u8>>,
    log: Vec<(u64, Vec<u8>)>,
    snapshot: Vec<u8>,
}

impl Rows {
    fn load(database: &Database) -> Result<Self, redb::Error> {
        let mut rows = Self::default();
        let transaction = database.begin_read()?;
        match transaction.open_table(META) {
            Ok(table) => {
                for row in table.iter()? {
                    let (name, value) = row?;
                    rows.meta.insert(name.value().to_owned(), value.value().to_vec());
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(rows),
            Err(error) => return Err(error.into()),
        }
        for row in transaction.open_table(LOG)?.iter()? {
            let (index, value) = row?;
            rows.log.push((index.value(), value.value().to_vec()));
        }
        match transaction.open_table(SNAPSHOT) {
            Ok(table) => {
                for row in table.iter()? {
                    rows.snapshot.extend_from_slice(row?.1.value());
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(rows)
    }

    fn decode(&self) -> Result<Contents, Cause> {
        let purged: Option<LogId> = self.optional(PURGED_ROW)?;
        let mut log = LogContents {
            vote: self.optional(VOTE_ROW)?,
            committed: self.optional(COMMITTED_ROW)?,
            purged,
            entries: BTreeMap::new(),
        };
        for (index, row) in &self.log {
            let entry: Entry = decode(row).map_err(|cause| format!("entry {index}: {cause}"))?;
            if entry.log_id.index != *index {
                return Err(format!("entry {index} says that it is {}", entry.log_id.index));
            }
            let before = log.entries.last_key_value().map(|(last, _)| *last).or(purged.map(|id| id.index));
            if before.is_some_and(|before| before + 1 != *index) {
                return Err(format!("entry {index} stands alone: the one before is missing"));
            }
            log.entries.insert(*index, (entry, row.len()));
        }
        let covers: Option<SnapshotMeta> = self.optional(SNAPSHOT_ROW)?;
        let machine = covers.map(|covers| -> Result<_, Cause> {
            let machine = Machine::decode(&self.snapshot).map_err(|error| format!("the snapshot: {error}"))?;
            Ok((covers, machine))
        });
        Ok(Contents { log, snapshot: machine.transpose()? })
    }

    fn optional<T: Form>(&self, name: &str) -> Result<Option<T>, Cause> {
        let row = self.meta.get(name).map(|row| decode(row));
        row.transpose().map_err(|cause| format!("the row `{name}`: {cause}"))
    }
}
