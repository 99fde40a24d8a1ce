//! Appends the output of one instance to its segments. Shell; owned by the keeper, one writer a log folder.
//!
//! It never fails: a disk that is full or broken must not end the keeper, which holds every process of the node. What cannot be
//! written is dropped and counted, and as soon as there is room again the log says how much is missing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::frame::{CHUNK_LEN_MAX, Frame, Kind, Open, Parsed, SEGMENT_HEADER, Stream};
use super::{SEGMENT_LEN_MAX, SEGMENTS_MAX, lines, segment_name, segments};
use crate::exec::cause::why;
use crate::ids::RunId;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot make the log folder `{path}`: {}", why(cause))]
    MakeFolder {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The segments cannot be listed.
    #[error("cannot list the log folder `{path}`: {}", why(cause))]
    List {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The newest segment cannot be read, cut or made.
    #[error("cannot open the log segment `{path}`: {}", why(cause))]
    Segment {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A later version of narun wrote it.
    #[error("the log segment `{0}` was written by a later version of narun")]
    Version(PathBuf),
}

/// The one who writes an instance's log.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    segment: File,
    /// How much of the segment is good: a write that fails half-way is cut off again.
    len: u64,
    next: u64,
    open: BTreeMap<RunId, Open>,
    lost: BTreeMap<RunId, Lost>,
    buffer: Vec<u8>,
    limit: u64,
}

#[derive(Debug)]
struct Lost {
    bytes: u64,
    cause: String,
}

impl LogWriter {
    /// Opens the log in `dir`, which is made when it is not there. Goes on where the last writer stopped: a frame that was torn
    /// by a crash is cut off, and the unfinished lines of runs that ended unseen are ended.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::with_limit(dir, SEGMENT_LEN_MAX)
    }

    /// The same with another size of segments.
    pub(super) fn with_limit(dir: &Path, limit: u64) -> Result<Self, OpenError> {
        let firsts = match segments(dir) {
            Ok(firsts) if !firsts.is_empty() => firsts,
            _ => {
                let make = DirBuilder::new().recursive(true).mode(0o700).create(dir);
                make.map_err(|cause| OpenError::MakeFolder { path: dir.to_owned(), cause })?;
                segments(dir).map_err(|cause| OpenError::List { path: dir.to_owned(), cause })?
            }
        };
        let first = firsts.last().copied().unwrap_or(1);
        let path = dir.join(segment_name(first));
        let recovered = recover(&path, first);
        let Recovered { segment, len, next, open } = match recovered {
            Err(cause) if cause.kind() == io::ErrorKind::Unsupported => return Err(OpenError::Version(path)),
            recovered => recovered.map_err(|cause| OpenError::Segment { path, cause })?,
        };
        let dir = dir.to_owned();
        let mut writer = Self { dir, segment, len, next, open, lost: BTreeMap::new(), buffer: Vec::new(), limit };
        let ended: Vec<RunId> = writer.open.keys().copied().collect();
        for run in ended {
            writer.end(run);
        }
        Ok(writer)
    }

    /// Appends what `run` wrote to `stream`.
    pub fn append(&mut self, run: RunId, stream: Stream, bytes: &[u8]) {
        for chunk in bytes.chunks(CHUNK_LEN_MAX) {
            if let Err(e) = self.write_after_gap(run, &[(Kind::Chunk(stream), chunk)]) {
                self.lose(run, chunk.len(), &e);
            }
        }
    }

    /// Notes that `run` is over: its unfinished lines end as they are.
    pub fn end(&mut self, run: RunId) {
        let is_unfinished = self.open.get(&run).is_some_and(|open| *open != Open::default());
        if is_unfinished || self.lost.contains_key(&run) {
            // When even this cannot be written the next writer ends the lines, and what was lost stays untold.
            let _ = self.write_after_gap(run, &[(Kind::Break, &[])]);
        }
        self.open.remove(&run);
        self.lost.remove(&run);
    }

    fn lose(&mut self, run: RunId, len: usize, cause: &io::Error) {
        let lost = self.lost.entry(run).or_insert_with(|| Lost { bytes: 0, cause: why(cause) });
        lost.bytes += len as u64;
    }

    /// Writes `frames`, and before them, if something of `run` is missing, how much: all of it or nothing, so that a disk that
    /// is almost full is not filled with notices.
    fn write_after_gap(&mut self, run: RunId, frames: &[(Kind, &[u8])]) -> io::Result<()> {
        let Some(Lost { bytes, cause }) = self.lost.get(&run) else { return self.write(run, frames) };
        let text = format!("{bytes} bytes of output lost: {cause}\n");
        // What follows the gap must not be glued to what stood before it.
        let mut all: Vec<(Kind, &[u8])> = vec![(Kind::Break, &[]), (Kind::Chunk(Stream::Narun), text.as_bytes())];
        all.extend(frames);
        self.write(run, &all)?;
        self.lost.remove(&run);
        Ok(())
    }

    fn write(&mut self, run: RunId, frames: &[(Kind, &[u8])]) -> io::Result<()> {
        if self.len >= self.limit
            && let Err(e) = self.rotate()
            && self.len >= 2 * self.limit
        {
            // Up to there the old segment serves: without a descriptor to spare, say, output need not be lost at once.
            return Err(e);
        }
        let (mut next, mut open) = (self.next, self.open.get(&run).copied().unwrap_or_default());
        self.buffer.clear();
        for (kind, bytes) in frames {
            let frame = Frame { at_ns: now_ns(), line: next, open, kind: *kind, run, bytes };
            let (lines, after) = lines::count(&frame);
            (next, open) = (next + lines, after);
            frame.encode(&mut self.buffer);
        }
        if frames.len() > 1 {
            self.reserve()?;
        }
        if let Err(e) = self.segment.write_all(&self.buffer) {
            // Half a frame may have been written. Cutting needs no room; when it fails too, the next write at this place does
            // what the cutting should have done.
            let _ = self.segment.set_len(self.len);
            self.segment.seek(SeekFrom::Start(self.len))?;
            return Err(e);
        }
        self.len += self.buffer.len() as u64;
        self.next = next;
        self.open.insert(run, open);
        Ok(())
    }

    /// Makes sure that there is room for the buffer, unseen by readers: of several frames the first must not be read by somebody
    /// while the last turns out not to fit.
    fn reserve(&self) -> io::Result<()> {
        let (at, len) = (i64::try_from(self.len), i64::try_from(self.buffer.len()));
        let (Ok(at), Ok(len)) = (at, len) else { return Err(io::ErrorKind::FileTooLarge.into()) };
        match fallocate(&self.segment, FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len) {
            // A file system that cannot reserve is written to on trust.
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Begins a new segment, and removes the oldest when there are too many.
    fn rotate(&mut self) -> io::Result<()> {
        let firsts = segments(&self.dir)?;
        if firsts.last() == Some(&self.next) {
            // Not one line has ended in the whole segment, so that the next one would have its name: it grows on.
            return Ok(());
        }
        let (segment, len) = create(&self.dir.join(segment_name(self.next)))?;
        (self.segment, self.len) = (segment, len);
        let surplus = (firsts.len() + 1).saturating_sub(SEGMENTS_MAX);
        for first in &firsts[..surplus] {
            // One that cannot be removed now is tried again at the next rotation.
            let _ = fs::remove_file(self.dir.join(segment_name(*first)));
        }
        Ok(())
    }
}

struct Recovered {
    segment: File,
    len: u64,
    next: u64,
    open: BTreeMap<RunId, Open>,
}

/// Opens the newest segment, whose first line has the number `first`, and finds out where it ends.
fn recover(path: &Path, first: u64) -> io::Result<Recovered> {
    let mut file = match File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let (segment, len) = create(path)?;
            return Ok(Recovered { segment, len, next: first, open: BTreeMap::new() });
        }
        file => file?,
    };
    let mut data = Vec::new();
    file.read_to_end(&mut data)?;
    let (mut len, mut next, mut open) = (SEGMENT_HEADER.len(), first, BTreeMap::new());
    if data.len() >= len && data[..len] != SEGMENT_HEADER && data[..len - 1] == SEGMENT_HEADER[..len - 1] {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if data.get(..len) == Some(&SEGMENT_HEADER[..]) {
        loop {
            match Frame::parse(&data[len..]) {
                Parsed::Frame(frame, size) => {
                    let (lines, after) = lines::count(&frame);
                    (len, next) = (len + size, frame.line + lines);
                    open.insert(frame.run, after);
                }
                Parsed::Unknown(size) => len += size,
                Parsed::Partial | Parsed::Bad => break,
            }
        }
    } else {
        // A crash between making the file and writing its header.
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&SEGMENT_HEADER)?;
    }
    if len != data.len() {
        // It ends in a torn frame.
        file.set_len(len as u64)?;
        file.seek(SeekFrom::Start(len as u64))?;
    }
    open.retain(|_, open| *open != Open::default());
    Ok(Recovered { segment: file, len: len as u64, next, open })
}

/// Makes a segment, with its header, or nothing.
fn create(path: &Path) -> io::Result<(File, u64)> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if let Err(e) = file.write_all(&SEGMENT_HEADER) {
        let _ = fs::remove_file(path);
        return Err(e);
    }
    Ok((file, SEGMENT_HEADER.len() as u64))
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{LogReader, SEGMENTS_MAX};
    use super::*;

    const RUN: RunId = RunId([1; 16]);

    #[test]
    fn a_full_disk_loses_output_and_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RUN, Stream::Stdout, b"before\nhalf a li");
        // Every write to this file fails for lack of space, full(4).
        let disk = std::mem::replace(&mut writer.segment, File::options().write(true).open("/dev/full").unwrap());
        writer.append(RUN, Stream::Stdout, b"ne\nlost\n");
        writer.append(RUN, Stream::Stderr, b"lost too\n");
        writer.segment = disk;
        writer.append(RUN, Stream::Stdout, b"after\n");
        let lines = LogReader::open(dir.path()).read_all().unwrap();
        let shown: Vec<_> = lines.iter().map(|line| (line.seq, line.stream, &line.bytes[..])).collect();
        let expected: [(u64, Stream, &[u8]); 4] = [
            (1, Stream::Stdout, b"before"),
            (2, Stream::Stdout, b"half a li"),
            (3, Stream::Narun, b"17 bytes of output lost: no space left on device"),
            (4, Stream::Stdout, b"after"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_log_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(segment_name(1));
        fs::write(&path, b"narunlog\x02and more").unwrap();
        assert!(matches!(LogWriter::open(dir.path()), Err(OpenError::Version(of)) if of == path));
        assert_eq!(fs::read(&path).unwrap(), b"narunlog\x02and more");
    }

    #[test]
    fn two_runs_may_write_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let other = RunId([2; 16]);
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RUN, Stream::Stdout, b"from ");
        writer.append(other, Stream::Stdout, b"of the ");
        writer.append(RUN, Stream::Stdout, b"one\n");
        writer.append(other, Stream::Stdout, b"other\n");
        let lines = LogReader::open(dir.path()).read_all().unwrap();
        let shown: Vec<_> = lines.iter().map(|line| (line.run, &line.bytes[..])).collect();
        assert_eq!(shown, [(RUN, &b"from one"[..]), (other, b"of the other")]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::with_limit(dir.path(), 5000).unwrap();
        for _ in 0..1000 {
            writer.append(RUN, Stream::Stdout, &[b'x'; 200]);
            writer.append(RUN, Stream::Stdout, b"\n");
        }
        let firsts = segments(dir.path()).unwrap();
        assert_eq!(firsts.len(), SEGMENTS_MAX);
        let size: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(size < SEGMENTS_MAX as u64 * 6000, "{size}");
    }
}
