//! The disk format of a log: a segment is a header and frames. Pure.
//!
//! ```text
//! segment  "narunlog" | version u8
//! frame    length u32 | check u32 | time u64 | line u64 | continues u32 x 2 | stream u8 | run 16 bytes | bytes
//! ```
//!
//! Numbers are little endian. `length` counts what follows `check`; `check` is the first four bytes of the BLAKE3 hash of just
//! that, so that a frame torn by a crash, or not yet written whole, is told from a good one.

use crate::ids::RunId;

/// What a segment begins with; the last byte is the version of the format.
pub const SEGMENT_HEADER: [u8; 9] = *b"narunlog\x01";

/// Most bytes in one frame: what one read of a pipe gives (its default capacity, pipe(7)).
pub const CHUNK_LEN_MAX: usize = 64 * 1024;

const PREFIX_LEN: usize = 8;
const FIXED_LEN: usize = 8 + 8 + 4 + 4 + 1 + 16;

/// Longest frame on disk.
pub const FRAME_LEN_MAX: usize = PREFIX_LEN + FIXED_LEN + CHUNK_LEN_MAX;

/// Where a chunk came from. The numbers stand in the disk format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stream {
    /// The program's standard output.
    Stdout = 1,
    /// The program's standard error.
    Stderr = 2,
    /// What narun itself has to say in between, such as how much output was lost on a full disk.
    Narun = 3,
}

impl Stream {
    /// The word in output and queries.
    pub fn word(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Narun => "narun",
        }
    }
}

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Its bytes came from this stream.
    Chunk(Stream),
    /// The unfinished lines of this run end here: the run is over, or bytes between were lost. No bytes.
    Break,
}

impl Kind {
    const BREAK: u8 = 4;

    fn number(self) -> u8 {
        match self {
            Kind::Chunk(stream) => stream as u8,
            Kind::Break => Self::BREAK,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Kind::Chunk(Stream::Stdout),
            2 => Kind::Chunk(Stream::Stderr),
            3 => Kind::Chunk(Stream::Narun),
            Self::BREAK => Kind::Break,
            _ => return None,
        })
    }
}

/// How long the unfinished lines of a run are, in bytes: standard output's and standard error's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Open {
    /// Of standard output.
    pub stdout: u32,
    /// Of standard error.
    pub stderr: u32,
}

impl Open {
    /// The length that belongs to `stream`; what narun says comes in whole lines.
    pub fn of(&mut self, stream: Stream) -> Option<&mut u32> {
        match stream {
            Stream::Stdout => Some(&mut self.stdout),
            Stream::Stderr => Some(&mut self.stderr),
            Stream::Narun => None,
        }
    }
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// When the bytes were read, in nanoseconds since 1970-01-01T00:00:00Z.
    pub at_ns: u64,
    /// The number of the first line that ends in this frame or after it.
    pub line: u64,
    /// The lines of the run that are unfinished when the frame begins.
    pub open: Open,
    /// What it says.
    pub kind: Kind,
    /// The run that wrote.
    pub run: RunId,
    /// The chunk, at most [`CHUNK_LEN_MAX`].
    pub bytes: &'a [u8],
}

/// What stands at a place in a segment.
#[derive(PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// A good frame, and its length on disk.
    Frame(Frame<'a>, usize),
    /// The beginning of a frame; the rest is not there (yet).
    Partial,
    /// Bytes that are no frame: torn by a crash, being written just now, or damaged.
    Bad,
    /// A good frame of a kind that a later version of the format has; it can be passed over.
    Unknown(usize),
}

impl Frame<'_> {
    /// Appends the frame's form on disk to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.bytes.len() <= CHUNK_LEN_MAX, "a chunk of {} bytes", self.bytes.len());
        let start = out.len();
        let length = u32::try_from(FIXED_LEN + self.bytes.len()).expect("a frame is far below 4 GiB");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.at_ns.to_le_bytes());
        out.extend_from_slice(&self.line.to_le_bytes());
        out.extend_from_slice(&self.open.stdout.to_le_bytes());
        out.extend_from_slice(&self.open.stderr.to_le_bytes());
        out.push(self.kind.number());
        out.extend_from_slice(&self.run.0);
        out.extend_from_slice(self.bytes);
        let check = check(&out[start + PREFIX_LEN..]);
        out[start + 4..start + PREFIX_LEN].copy_from_slice(&check);
    }

    /// Reads what `data` begins with.
    pub fn parse(data: &[u8]) -> Parsed<'_> {
        let Some((prefix, rest)) = data.split_at_checked(PREFIX_LEN) else {
            return Parsed::Partial;
        };
        let length = u32_at(prefix, 0) as usize;
        if !(FIXED_LEN..=FIXED_LEN + CHUNK_LEN_MAX).contains(&length) {
            return Parsed::Bad;
        }
        let Some(body) = rest.get(..length) else {
            return Parsed::Partial;
        };
        if check(body) != prefix[4..] {
            return Parsed::Bad;
        }
        let Some(kind) = Kind::from_number(body[24]) else {
            return Parsed::Unknown(PREFIX_LEN + length);
        };
        let mut run = [0; 16];
        run.copy_from_slice(&body[25..41]);
        let frame = Frame {
            at_ns: u64_at(body, 0),
            line: u64_at(body, 8),
            open: Open { stdout: u32_at(body, 16), stderr: u32_at(body, 20) },
            kind,
            run: RunId(run),
            bytes: &body[FIXED_LEN..],
        };
        Parsed::Frame(frame, PREFIX_LEN + length)
    }
}

fn check(body: &[u8]) -> [u8; 4] {
    let hash = blake3::hash(body);
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame {
            at_ns: 1_700_000_000_000_000_001,
            line: 42,
            open: Open { stdout: 3, stderr: 70_000 },
            kind: Kind::Chunk(Stream::Stderr),
            run: RunId([9; 16]),
            bytes,
        }
    }

    #[test]
    fn a_frame_survives_the_disk() {
        for bytes in [&b""[..], b"line\n", &[0xff; CHUNK_LEN_MAX]] {
            let mut disk = Vec::new();
            frame(bytes).encode(&mut disk);
            let len = disk.len();
            disk.extend_from_slice(b"what follows");
            assert_eq!(Frame::parse(&disk), Parsed::Frame(frame(bytes), len));
            assert!(len <= FRAME_LEN_MAX);
        }
    }

    #[test]
    fn a_torn_frame_is_partial_and_a_changed_one_is_bad() {
        let mut disk = Vec::new();
        frame(b"some output").encode(&mut disk);
        for len in 0..disk.len() {
            assert_eq!(Frame::parse(&disk[..len]), Parsed::Partial, "cut at {len}");
        }
        for at in 4..disk.len() {
            disk[at] ^= 1;
            assert_eq!(Frame::parse(&disk), Parsed::Bad, "changed at {at}");
            disk[at] ^= 1;
        }
        assert_eq!(Frame::parse(&[0; 100]), Parsed::Bad, "zeros that a crash left");
    }

    #[test]
    fn a_kind_of_a_later_version_can_be_passed_over() {
        let mut disk = Vec::new();
        frame(b"x").encode(&mut disk);
        disk[PREFIX_LEN + 24] = 77;
        let check = check(&disk[PREFIX_LEN..]);
        disk[4..8].copy_from_slice(&check);
        assert_eq!(Frame::parse(&disk), Parsed::Unknown(disk.len()));
    }
}
