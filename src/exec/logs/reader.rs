//! Reads the lines of a log, from its beginning or from any line on, as far as they are written. Shell.
//!
//! A reader opens the segments one after the other and keeps the current one open, so that rotation takes nothing from under it: at
//! worst it comes back to find that the next segments are gone, and says how many lines it missed. It never waits and never
//! locks: the writer does not know of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{FRAME_LEN_MAX, Frame, Parsed, SEGMENT_HEADER};
use super::lines::Assembler;
use super::{LogLine, segment_name, segments};

/// How much is read at once: some frames of the longest kind.
const READ_LEN: usize = 4 * FRAME_LEN_MAX;

/// What a reader gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A line.
    Line(LogLine),
    /// So many lines were removed by rotation before they could be read, or are damaged.
    Missed(u64),
}

/// Reads one log.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    after: u64,
    segment: Option<Segment>,
    assembler: Assembler,
    /// The first line that was asked for and not yet accounted for; none until something was read.
    expected: Option<u64>,
    ready: VecDeque<Entry>,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    file: File,
    /// Where the next frame begins.
    at: u64,
}

impl LogReader {
    /// Reads the log in `dir` from its oldest line. The folder need not be there yet.
    pub fn open(dir: &Path) -> Self {
        Self::after(dir, 0)
    }

    /// Reads the log in `dir` from the line after the one with this number.
    pub fn after(dir: &Path, seq: u64) -> Self {
        let (dir, assembler, ready) = (dir.to_owned(), Assembler::default(), VecDeque::new());
        // Where the reader was told to go on from, a hole is something missed; what was removed before it ever came is not.
        let expected = (seq > 0).then_some(seq + 1);
        Self { dir, after: seq, segment: None, assembler, expected, ready }
    }

    /// The next line; none when all that is written was read. May be asked again later.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// The lines that are unfinished at the place where the reader is: the last line of a program that did not end it (yet).
    pub fn unfinished(&self) -> impl Iterator<Item = LogLine> {
        self.assembler.unfinished()
    }

    /// All lines that are there, an unfinished last one too; what was missed is passed over.
    pub fn read_all(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        while let Some(entry) = self.next()? {
            if let Entry::Line(line) = entry {
                lines.push(line);
            }
        }
        lines.extend(self.unfinished());
        Ok(lines)
    }

    /// Reads some more; false when there is nothing more as of now.
    fn read_on(&mut self) -> io::Result<bool> {
        let Some(segment) = &mut self.segment else { return self.open_next(None) };
        match read_frames(segment, &mut self.assembler, |line| {
            take(line, self.after, &mut self.expected, &mut self.ready);
        })? {
            Progress::Frames => return Ok(true),
            Progress::Later => {}
        }
        // The end of this segment, for now or for ever. When there is a next one the writer has left this one; but it may have
        // written some more between our reading and its leaving.
        let first = segment.first;
        if !segments(&self.dir)?.iter().any(|other| *other > first) {
            return Ok(false);
        }
        if read_frames(segment, &mut self.assembler, |line| {
            take(line, self.after, &mut self.expected, &mut self.ready);
        })? == Progress::Frames
        {
            return Ok(true);
        }
        self.open_next(Some(first))
    }

    /// Opens the first segment after `last`; false when there is none.
    fn open_next(&mut self, last: Option<u64>) -> io::Result<bool> {
        loop {
            let firsts = segments(&self.dir)?;
            let next = match last {
                Some(last) => firsts.iter().copied().find(|first| *first > last),
                None => firsts.first().copied(),
            };
            let Some(first) = next else { return Ok(false) };
            match File::open(self.dir.join(segment_name(first))) {
                Ok(file) => {
                    self.segment = Some(Segment { first, file, at: 0 });
                    return Ok(true);
                }
                // Rotation was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Takes in a line, if it was asked for; says first what is missing before it.
fn take(line: LogLine, after: u64, expected: &mut Option<u64>, ready: &mut VecDeque<Entry>) {
    if line.seq <= after {
        return;
    }
    let missed = expected.map_or(0, |expected| line.seq.saturating_sub(expected));
    if missed > 0 {
        ready.push_back(Entry::Missed(missed));
    }
    *expected = Some(line.seq + 1);
    ready.push_back(Entry::Line(line));
}

#[derive(PartialEq, Eq, Debug)]
enum Progress {
    Frames,
    Later,
}

/// Reads the frames that follow, as far as they are whole.
fn read_frames(
    segment: &mut Segment,
    assembler: &mut Assembler,
    mut line: impl FnMut(LogLine),
) -> io::Result<Progress> {
    let mut buffer = vec![0; READ_LEN];
    let len = read_at(&segment.file, &mut buffer, segment.at)?;
    let mut rest = &buffer[..len];
    if segment.at == 0 {
        if rest.len() < SEGMENT_HEADER.len() {
            return Ok(Progress::Later);
        }
        if !rest.starts_with(&SEGMENT_HEADER) {
            let text = "a log segment begins with something else than the header of this version";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        segment.at = SEGMENT_HEADER.len() as u64;
        rest = &rest[SEGMENT_HEADER.len()..];
    }
    let start = segment.at;
    loop {
        let size = match Frame::parse(rest) {
            Parsed::Frame(frame, size) => {
                assembler.push(&frame, &mut line);
                size
            }
            Parsed::Unknown(size) => size,
            // Half-written, torn, or the end of what was read; the caller finds out which by asking again.
            Parsed::Partial | Parsed::Bad => break,
        };
        segment.at += size as u64;
        rest = &rest[size..];
    }
    Ok(if segment.at > start { Progress::Frames } else { Progress::Later })
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}
