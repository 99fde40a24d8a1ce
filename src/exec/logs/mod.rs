//! The output of instances, kept in segment files on the node where it was written.
//!
//! Pure: `frame` is the disk format, `lines` makes lines out of chunks. Shells: `writer` appends (only the keeper does, so there is one writer an
//! instance), `reader` reads what is there, `follow` waits for more. Writer and readers share nothing but the files.
//!
//! A log is a folder of segments, `<number of the first line, 20 digits>.seg`. Each begins with [`frame::SEGMENT_HEADER`] and holds
//! frames; a frame holds a chunk as it came out of a pipe, whatever its bytes are, and says how many lines ended before it and how
//! long the line is that it continues. So a reader that starts at any segment numbers and cuts lines as every other one does, and
//! *the number of a line never depends on who reads it*: from 1, growing by 1, over rotation and over restarts.

pub mod frame;
pub mod lines;

pub mod writer;

pub mod reader;

pub mod follow;

pub use follow::{LogQuery, Start, lines};
pub use frame::Stream;
pub use lines::LogLine;
pub use reader::{Entry, LogReader};

/// Size at which a new segment is begun, in bytes: rotation drops whole segments, so this is the grain in which history is lost.
pub const SEGMENT_LEN_MAX: u64 = 8 * 1024 * 1024;

/// Most segments of one instance, 64 MiB in all: days of an ordinary service's output, and a hundred noisy ones fit a small disk.
pub const SEGMENTS_MAX: usize = 8;

/// Longest line in bytes, as in most log collectors; a longer one is cut into pieces of this length, each marked as cut.
pub const LINE_LEN_MAX: usize = 64 * 1024;

/// A segment's file name.
fn segment_name(first_line: u64) -> String {
    format!("{first_line:020}.seg")
}

/// The segments in a log folder by the numbers of their first lines. A folder that is not there is an empty log.
fn segments(dir: &std::path::Path) -> std::io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut firsts = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".seg")).filter(|digits| digits.len() == 20);
        // Anything else in the folder is not ours.
        firsts.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}
