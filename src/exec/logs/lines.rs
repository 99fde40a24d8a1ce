//! Chunks into lines. Pure.
//!
//! Both sides use the one rule of [`scan`]: the writer to count, the reader to cut. That is why they agree.

use std::collections::BTreeMap;

use super::LINE_LEN_MAX;
use super::frame::{Frame, Kind, Open, Stream};
use crate::ids::RunId;

/// One line of output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// The line's number in the instance's log, from 1. The unfinished line at the end of a history has the number of the last
    /// whole line before it, so that reading on after it gives it again, whole.
    pub seq: u64,
    /// When its last byte was read, in nanoseconds since 1970-01-01T00:00:00Z.
    pub at_ns: u64,
    /// Where it came from.
    pub stream: Stream,
    /// The run that wrote it.
    pub run: RunId,
    /// Its bytes, without the newline; not always text.
    pub bytes: Vec<u8>,
    /// Whether this is a piece of a longer line, of which more follows or has been lost.
    pub cut: bool,
}

/// Where the pieces of a chunk end. `open` is the length of the unfinished line before it, and after it at the end.
pub(super) fn scan(bytes: &[u8], open: &mut u32, mut piece: impl FnMut(&[u8], End)) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = LINE_LEN_MAX - *open as usize;
        let window = &rest[..rest.len().min(room + 1)];
        if let Some(newline) = window.iter().position(|byte| *byte == b'\n') {
            piece(&rest[..newline], End::Newline);
            rest = &rest[newline + 1..];
            *open = 0;
        } else if rest.len() > room {
            piece(&rest[..room], End::Full);
            rest = &rest[room..];
            *open = 0;
        } else {
            piece(rest, End::Open);
            *open += u32::try_from(rest.len()).expect("at most LINE_LEN_MAX");
            rest = &[];
        }
    }
}

/// Why a piece ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The line is over.
    Newline,
    /// It is as long as a line may be, and goes on.
    Full,
    /// The chunk is over, the line is not.
    Open,
}

/// The lines of one log, out of its frames in order.
#[derive(Default, Debug)]
pub(super) struct Assembler {
    unfinished: BTreeMap<(RunId, Stream), Unfinished>,
    /// The number that the next line gets.
    next: u64,
}

#[derive(Default, Debug)]
struct Unfinished {
    bytes: Vec<u8>,
    at_ns: u64,
    /// How many bytes of the line's beginning are not there: it was removed by rotation before this reader came.
    missing: usize,
}

impl Assembler {
    /// The number that the next line gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes in one frame; gives each line that ends in it to `line`.
    pub(super) fn push(&mut self, frame: &Frame<'_>, mut line: impl FnMut(LogLine)) {
        self.next = frame.line;
        match frame.kind {
            Kind::Chunk(stream) => self.chunk(frame, stream, &mut line),
            Kind::Break => self.end(frame, &mut line),
        }
    }

    fn chunk(&mut self, frame: &Frame<'_>, stream: Stream, line: &mut impl FnMut(LogLine)) {
        let mut open = frame.open;
        let mut whole = 0;
        let open = open.of(stream).unwrap_or(&mut whole);
        let unfinished = self.unfinished.entry((frame.run, stream)).or_default();
        if unfinished.missing + unfinished.bytes.len() != *open as usize {
            // The frames before are gone: what is there of the line is its end.
            *unfinished = Unfinished { bytes: Vec::new(), at_ns: frame.at_ns, missing: *open as usize };
        }
        let next = &mut self.next;
        scan(frame.bytes, open, |piece, end| {
            unfinished.bytes.extend_from_slice(piece);
            unfinished.at_ns = frame.at_ns;
            if end == End::Open {
                return;
            }
            let bytes = std::mem::take(&mut unfinished.bytes);
            let cut = std::mem::take(&mut unfinished.missing) > 0 || end == End::Full;
            line(LogLine { seq: *next, at_ns: frame.at_ns, stream, run: frame.run, bytes, cut });
            *next += 1;
        });
    }

    /// The unfinished lines of a run end as they are.
    fn end(&mut self, frame: &Frame<'_>, line: &mut impl FnMut(LogLine)) {
        for (stream, open) in [(Stream::Stdout, frame.open.stdout), (Stream::Stderr, frame.open.stderr)] {
            let unfinished = self.unfinished.remove(&(frame.run, stream)).unwrap_or_default();
            if open == 0 {
                continue;
            }
            if !unfinished.bytes.is_empty() {
                let Unfinished { bytes, at_ns, missing } = unfinished;
                line(LogLine { seq: self.next, at_ns, stream, run: frame.run, bytes, cut: missing > 0 });
            }
            self.next += 1;
        }
    }

    /// The lines that are unfinished as of now, as they are.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = LogLine> {
        let lines = self.unfinished.iter().filter(|(_, unfinished)| !unfinished.bytes.is_empty());
        lines.map(|((run, stream), Unfinished { bytes, at_ns, .. })| LogLine {
            seq: self.next.saturating_sub(1),
            at_ns: *at_ns,
            stream: *stream,
            run: *run,
            bytes: bytes.clone(),
            cut: true,
        })
    }

    /// Forgets unfinished lines: frames were lost, and what follows does not continue them.
    pub(super) fn forget_unfinished(&mut self) {
        self.unfinished.clear();
    }
}

/// How many lines a frame ends, and what it leaves unfinished: the writer's half of the rule.
pub(super) fn count(frame: &Frame<'_>) -> (u64, Open) {
    let mut open = frame.open;
    let mut lines = 0;
    match frame.kind {
        Kind::Chunk(stream) => {
            let mut whole = 0;
            scan(frame.bytes, open.of(stream).unwrap_or(&mut whole), |_, end| lines += u64::from(end != End::Open));
        }
        Kind::Break => {
            lines = u64::from(open.stdout > 0) + u64::from(open.stderr > 0);
            open = Open::default();
        }
    }
    (lines, open)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RUN: RunId = RunId([1; 16]);

    /// Frames as a writer makes them, pushed into an assembler from `skip` on.
    fn assemble(chunks: &[(Stream, Vec<u8>)], skip: usize) -> Vec<LogLine> {
        let (mut assembler, mut lines) = (Assembler::default(), Vec::new());
        let (mut next, mut open) = (1, Open::default());
        let breaking = (Kind::Break, &Vec::new());
        let all = chunks.iter().map(|(stream, bytes)| (Kind::Chunk(*stream), bytes)).chain([breaking]);
        for (i, (kind, bytes)) in all.enumerate() {
            let frame = Frame { at_ns: i as u64, line: next, open, kind, run: RUN, bytes };
            let (ended, after) = count(&frame);
            (next, open) = (next + ended, after);
            if i >= skip {
                assembler.push(&frame, |line| lines.push(line));
                assert_eq!(assembler.next(), next, "reader and writer count alike");
            }
        }
        lines
    }

    #[test]
    fn streams_do_not_mix_and_bytes_are_kept() {
        let chunks = [
            (Stream::Stdout, b"he".to_vec()),
            (Stream::Stderr, b"\xff\x00\r\n".to_vec()),
            (Stream::Stdout, b"llo\n\nlast".to_vec()),
        ];
        let lines = assemble(&chunks, 0);
        let shown: Vec<_> = lines.iter().map(|line| (line.seq, line.stream, &line.bytes[..], line.cut)).collect();
        let expected: [(u64, Stream, &[u8], bool); 4] = [
            (1, Stream::Stderr, b"\xff\x00\r", false),
            (2, Stream::Stdout, b"hello", false),
            (3, Stream::Stdout, b"", false),
            (4, Stream::Stdout, b"last", false),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_long_line_is_cut_and_one_of_the_longest_length_is_not() {
        let whole = [vec![b'x'; LINE_LEN_MAX], b"\n".to_vec()].concat();
        let lines = assemble(&[(Stream::Stdout, whole)], 0);
        assert_eq!(lines.iter().map(|line| (line.bytes.len(), line.cut)).collect::<Vec<_>>(), [(LINE_LEN_MAX, false)]);
        let longer = [vec![b'x'; 2 * LINE_LEN_MAX + 1], b"\n".to_vec()].concat();
        let lines = assemble(&[(Stream::Stdout, longer)], 0);
        let shown: Vec<_> = lines.iter().map(|line| (line.bytes.len(), line.cut)).collect();
        assert_eq!(shown, [(LINE_LEN_MAX, true), (LINE_LEN_MAX, true), (1, false)]);
    }

    fn chunks() -> impl Strategy<Value = Vec<(Stream, Vec<u8>)>> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
        let short = proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n'), 1 => any::<u8>()], 1..40);
        let long = (LINE_LEN_MAX - 3..LINE_LEN_MAX + 3).prop_map(|len| vec![b'z'; len]);
        proptest::collection::vec((stream, prop_oneof![20 => short, 1 => long]), 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn every_byte_comes_out_once_and_in_order(chunks in chunks()) {
            let lines = assemble(&chunks, 0);
            prop_assert!(lines.iter().enumerate().all(|(i, line)| line.seq == i as u64 + 1), "numbers have no gaps");
            for stream in [Stream::Stdout, Stream::Stderr] {
                let wrote: Vec<u8> = chunks.iter().filter(|(s, _)| *s == stream).flat_map(|(_, b)| b.clone()).collect();
                let mut read: Vec<u8> = Vec::new();
                for line in lines.iter().filter(|line| line.stream == stream) {
                    read.extend(&line.bytes);
                    if !line.cut {
                        read.push(b'\n');
                    }
                }
                if !wrote.ends_with(b"\n") && read.len() == wrote.len() + 1 {
                    read.pop();
                }
                prop_assert_eq!(read, wrote);
            }
        }

        #[test]
        fn who_starts_later_gives_lines_the_same_numbers(chunks in chunks(), skip in 0usize..30) {
            let all = assemble(&chunks, 0);
            let late = assemble(&chunks, skip.min(chunks.len()));
            for line in late.iter().filter(|line| !line.cut) {
                prop_assert!(all.contains(line), "{:?} is no line of the whole", line.seq);
            }
            prop_assert!(late.windows(2).all(|two| two[0].seq < two[1].seq));
        }
    }
}
