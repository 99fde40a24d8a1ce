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
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
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
        while let Some(entry) = self.next_entry()? {
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
        if segment.file.metadata()?.len() > segment.at {
            // What is left here is damaged: the numbers of the lines to come tell how much that was.
            self.assembler.forget_unfinished();
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
                    if first != self.assembler.next() {
                        // Segments between were removed, and with them the ends of unfinished lines.
                        self.assembler.forget_unfinished();
                    }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::super::writer::LogWriter;
    use super::super::{LINE_LEN_MAX, SEGMENTS_MAX, Stream};
    use super::*;
    use crate::ids::RunId;

    const RUN: RunId = RunId([1; 16]);

    fn texts(lines: &[LogLine]) -> Vec<(u64, String)> {
        lines.iter().map(|line| (line.seq, String::from_utf8_lossy(&line.bytes).into_owned())).collect()
    }

    fn all(dir: &Path) -> Vec<(u64, String)> {
        texts(&LogReader::open(dir).read_all().unwrap())
    }

    fn line(seq: u64, text: &str) -> (u64, String) {
        (seq, text.to_owned())
    }

    #[test]
    fn a_log_that_is_not_there_is_empty_and_can_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-0");
        let mut reader = LogReader::open(&path);
        assert_eq!(reader.next_entry().unwrap(), None);
        LogWriter::open(&path).unwrap().append(RUN, Stream::Stdout, b"now\n");
        assert!(matches!(reader.next_entry().unwrap(), Some(Entry::Line(line)) if line.bytes == b"now"));
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn numbers_go_on_over_restarts_of_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RUN, Stream::Stdout, b"one\ntwo");
        // The keeper was killed here: nobody ended the line.
        drop(writer);
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RunId([2; 16]), Stream::Stdout, b"three\n");
        writer.end(RunId([2; 16]));
        assert_eq!(all(dir.path()), [line(1, "one"), line(2, "two"), line(3, "three")]);
        let mut reader = LogReader::after(dir.path(), 2);
        assert_eq!(texts(&reader.read_all().unwrap()), [line(3, "three")]);
    }

    #[test]
    fn an_unfinished_line_is_shown_at_the_end_and_given_whole_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RUN, Stream::Stdout, b"done\nnot ye");
        let mut reader = LogReader::open(dir.path());
        let lines = reader.read_all().unwrap();
        assert_eq!(texts(&lines), [line(1, "done"), line(1, "not ye")]);
        assert!(lines[1].cut);
        writer.append(RUN, Stream::Stdout, b"t\n");
        let whole = Entry::Line(LogReader::after(dir.path(), 1).read_all().unwrap().remove(0));
        assert_eq!(reader.next_entry().unwrap(), Some(whole.clone()));
        assert!(matches!(whole, Entry::Line(line) if line.bytes == b"not yet" && !line.cut && line.seq == 2));
    }

    #[test]
    fn a_torn_frame_is_cut_off_and_nothing_before_it_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        LogWriter::open(dir.path()).unwrap().append(RUN, Stream::Stdout, b"first\n");
        let path = dir.path().join(segment_name(1));
        let good = fs::read(&path).unwrap();
        LogWriter::open(dir.path()).unwrap().append(RUN, Stream::Stdout, b"second\n");
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let before = if len < good.len() { 0 } else { 1 };
            assert_eq!(all(dir.path()).len(), before, "read when cut at {len}");
            LogWriter::open(dir.path()).unwrap().append(RUN, Stream::Stdout, b"third\n");
            let after = all(dir.path());
            assert_eq!(after.last(), Some(&line(before as u64 + 1, "third")), "written when cut at {len}");
        }
    }

    #[test]
    fn damage_in_an_old_segment_costs_no_more_than_the_rest_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::with_limit(dir.path(), 1000).unwrap();
        for i in 0..60 {
            writer.append(RUN, Stream::Stdout, format!("line {i}\n").as_bytes());
        }
        let firsts = segments(dir.path()).unwrap();
        assert!(firsts.len() >= 3, "{firsts:?}");
        let second = File::options().write(true).open(dir.path().join(segment_name(firsts[1]))).unwrap();
        second.write_all_at(b"?", 200).unwrap();
        let mut reader = LogReader::open(dir.path());
        let (mut lines, mut missed) = (0, 0);
        while let Some(entry) = reader.next_entry().unwrap() {
            match entry {
                Entry::Line(_) => lines += 1,
                Entry::Missed(count) => missed += count,
            }
        }
        assert_eq!(lines + missed, 60);
        assert!(missed > 0 && missed <= firsts[2] - firsts[1], "{missed}");
    }

    #[test]
    fn rotation_keeps_the_newest_and_a_reader_under_it_learns_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::with_limit(dir.path(), 10_000).unwrap();
        let mut number = 0u64;
        let mut write = |writer: &mut LogWriter, lines: u32| {
            for _ in 0..lines {
                number += 1;
                writer.append(RUN, Stream::Stdout, format!("{number} {}\n", "x".repeat(100)).as_bytes());
            }
            number
        };
        write(&mut writer, 10);
        let mut reader = LogReader::open(dir.path());
        let mut seen = 0;
        while let Some(Entry::Line(line)) = reader.next_entry().unwrap() {
            seen = line.seq;
        }
        assert_eq!(seen, 10);
        // Ten segments' worth while the reader sleeps. Its own segment it still has, though the file was removed.
        let last = write(&mut writer, 700);
        assert_eq!(segments(dir.path()).unwrap().len(), SEGMENTS_MAX);
        let mut missed = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            match entry {
                Entry::Missed(count) => {
                    assert!(missed == 0 && count > 0, "missed once, in one go");
                    missed = count;
                    seen += count;
                }
                Entry::Line(line) => {
                    assert_eq!(line.seq, seen + 1);
                    assert!(
                        line.bytes.starts_with(format!("{} ", line.seq).as_bytes()),
                        "the number is the line's own"
                    );
                    seen = line.seq;
                }
            }
        }
        assert_eq!(seen, last);
        assert!(missed > 0);
    }

    #[test]
    fn a_reader_that_keeps_up_sees_every_line_once_over_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::with_limit(dir.path(), 3000).unwrap();
        let mut reader = LogReader::open(dir.path());
        let mut seen = 0;
        for i in 0..2000u64 {
            // In two halves, so that unfinished lines stand at every kind of border.
            writer.append(RUN, Stream::Stdout, format!("line {i}").as_bytes());
            if i % 7 == 0 {
                writer.append(RUN, Stream::Stderr, b"other\n");
            }
            writer.append(RUN, Stream::Stdout, b", whole\n");
            while let Some(entry) = reader.next_entry().unwrap() {
                let Entry::Line(line) = entry else { panic!("nothing is missed") };
                seen += 1;
                assert_eq!(line.seq, seen);
                assert!(!line.cut);
            }
        }
        assert_eq!(seen, 2000 + 2000_u64.div_ceil(7));
    }

    #[test]
    fn a_line_without_end_is_kept_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RUN, Stream::Stdout, &vec![b'x'; 3 * LINE_LEN_MAX + 5]);
        writer.end(RUN);
        let lines = LogReader::open(dir.path()).read_all().unwrap();
        let shown: Vec<_> = lines.iter().map(|line| (line.seq, line.bytes.len(), line.cut)).collect();
        let full = LINE_LEN_MAX;
        assert_eq!(shown, [(1, full, true), (2, full, true), (3, full, true), (4, 5, false)]);
    }
}
