//! Lines of a log as a stream: history, and then, if asked for, what comes. Shell.
//!
//! The stream is pulled: it reads only when the one before was taken, so a slow reader slows nobody but itself, and holds no more
//! than a batch. History and live are one reader that goes on, so there is no seam between them. New output is looked for by
//! asking the files; nothing is registered anywhere, and a follower costs the writer nothing.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::Stream as FuturesStream;
use futures::stream;

use super::LogLine;
use super::frame::Stream;
use super::reader::{Entry, LogReader};
use crate::ids::RunId;

/// How often a follower looks for more: a delay that people hardly see, at ten cheap looks a second.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Most entries read at once, and so held for a slow reader.
const BATCH_MAX: usize = 256;

/// Most bytes of lines read at once: 256 lines of the longest kind would be 16 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the oldest line that is kept.
    Beginning,
    /// With the last so many lines.
    Tail(usize),
    /// With the first line that is not older than this, in nanoseconds since 1970-01-01T00:00:00Z.
    Since(u64),
    /// With the line after the one of this number.
    After(u64),
}

/// Which lines of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogQuery {
    /// Where to begin.
    pub from: Start,
    /// Whether to wait for more when all that is there was given.
    pub follow: bool,
    /// No line after this time, in nanoseconds since 1970-01-01T00:00:00Z; following ends then.
    pub until_ns: Option<u64>,
    /// Lines of this run only.
    pub run: Option<RunId>,
    /// Lines of this stream only.
    pub stream: Option<Stream>,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { from: Start::Beginning, follow: false, until_ns: None, run: None, stream: None }
    }
}

impl LogQuery {
    fn wants(&self, line: &LogLine) -> bool {
        self.run.is_none_or(|run| run == line.run)
            && self.stream.is_none_or(|stream| stream == line.stream)
            && self.until_ns.is_none_or(|until| line.at_ns <= until)
            && !matches!(self.from, Start::Since(since) if line.at_ns < since)
    }

    fn is_past_until(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.until_ns.is_some_and(|until| now > u128::from(until))
    }
}

/// The lines of the log in `dir` that `query` asks for, in the order of their numbers, with a word where rotation was faster
/// than the reader. Without `follow` the stream ends with what is there, an unfinished last line included; a following stream
/// gives a line once it is whole. An error is the last item.
pub fn lines(dir: &Path, query: LogQuery) -> impl FuturesStream<Item = io::Result<Entry>> + Send + use<> {
    let reader = match query.from {
        Start::After(seq) => LogReader::after(dir, seq),
        Start::Beginning | Start::Tail(_) | Start::Since(_) => LogReader::open(dir),
    };
    let cursor = Cursor { reader, query, is_started: false, batch: VecDeque::new(), is_at_end: false };
    stream::unfold(Some(cursor), |cursor| async {
        let (item, cursor) = next(cursor?).await?;
        Some((item, cursor))
    })
}

struct Cursor {
    reader: LogReader,
    query: LogQuery,
    /// Whether the tail that was asked for has been found.
    is_started: bool,
    batch: VecDeque<Entry>,
    /// Whether the last look found nothing more.
    is_at_end: bool,
}

/// The next item, with the cursor unless it is the last.
async fn next(mut cursor: Cursor) -> Option<(io::Result<Entry>, Option<Cursor>)> {
    loop {
        if let Some(entry) = cursor.batch.pop_front() {
            return Some((Ok(entry), Some(cursor)));
        }
        if cursor.is_at_end {
            if !cursor.query.follow || cursor.query.is_past_until() {
                return None;
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
        let read = tokio::task::spawn_blocking(move || cursor.read_batch().map(|()| cursor)).await;
        match read.expect("reading a log does not panic, and nobody aborts it") {
            Ok(read) => cursor = read,
            Err(error) => return Some((Err(error), None)),
        }
    }
}

impl Cursor {
    fn read_batch(&mut self) -> io::Result<()> {
        match self.query.from {
            Start::Tail(count) if !self.is_started => self.read_tail(count)?,
            _ => self.read_some()?,
        }
        self.is_started = true;
        if self.is_at_end && !self.query.follow {
            let unfinished: Vec<LogLine> = self.reader.unfinished().filter(|line| self.query.wants(line)).collect();
            self.batch.extend(unfinished.into_iter().map(Entry::Line));
            if let Start::Tail(count) = self.query.from {
                let surplus = self.batch.len().saturating_sub(count);
                self.batch.drain(..surplus);
            }
        }
        Ok(())
    }

    fn read_some(&mut self) -> io::Result<()> {
        let mut bytes = 0;
        while self.batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match self.next_wanted()? {
                Some(entry) => {
                    bytes += if let Entry::Line(line) = &entry { line.bytes.len() } else { 0 };
                    self.batch.push_back(entry);
                }
                None => {
                    self.is_at_end = true;
                    return Ok(());
                }
            }
        }
        self.is_at_end = false;
        Ok(())
    }

    /// Reads all that is there and keeps the end of it.
    fn read_tail(&mut self, count: usize) -> io::Result<()> {
        while let Some(entry) = self.next_wanted()? {
            self.batch.push_back(entry);
            if self.batch.len() > count {
                self.batch.pop_front();
            }
        }
        self.is_at_end = true;
        Ok(())
    }

    fn next_wanted(&mut self) -> io::Result<Option<Entry>> {
        loop {
            match self.reader.next_entry()? {
                Some(Entry::Line(line)) if !self.query.wants(&line) => {}
                entry => return Ok(entry),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt;

    use super::super::writer::LogWriter;
    use super::*;

    const RUN: RunId = RunId([1; 16]);
    const LATER: RunId = RunId([2; 16]);

    /// Longest wait for a line that must come.
    const WAIT_MAX: Duration = Duration::from_secs(20);

    async fn texts(dir: &Path, query: LogQuery) -> Vec<String> {
        let entries: Vec<_> = lines(dir, query).collect().await;
        let text = |entry: io::Result<Entry>| match entry.unwrap() {
            Entry::Line(line) => String::from_utf8(line.bytes).unwrap(),
            Entry::Missed(count) => format!("missed {count}"),
        };
        entries.into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn a_query_gives_what_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append(RUN, Stream::Stdout, b"a\nb\n");
        writer.append(RUN, Stream::Stderr, b"oops\n");
        writer.end(RUN);
        let border = LogReader::open(dir.path()).read_all().unwrap().last().unwrap().at_ns;
        writer.append(LATER, Stream::Stdout, b"c\nunfin");
        let query = LogQuery::default;
        assert_eq!(texts(dir.path(), query()).await, ["a", "b", "oops", "c", "unfin"]);
        assert_eq!(texts(dir.path(), LogQuery { from: Start::Tail(2), ..query() }).await, ["c", "unfin"]);
        assert_eq!(texts(dir.path(), LogQuery { from: Start::Tail(0), ..query() }).await, [""; 0]);
        assert_eq!(texts(dir.path(), LogQuery { from: Start::After(3), ..query() }).await, ["c", "unfin"]);
        let since = LogQuery { from: Start::Since(border + 1), ..query() };
        assert_eq!(texts(dir.path(), since).await, ["c", "unfin"]);
        let until = LogQuery { until_ns: Some(border), follow: true, ..query() };
        assert_eq!(texts(dir.path(), until).await, ["a", "b", "oops"]);
        assert_eq!(texts(dir.path(), LogQuery { run: Some(LATER), ..query() }).await, ["c", "unfin"]);
        assert_eq!(texts(dir.path(), LogQuery { stream: Some(Stream::Stderr), ..query() }).await, ["oops"]);
        assert_eq!(texts(&dir.path().join("none"), query()).await, [""; 0]);
    }

    #[tokio::test]
    async fn following_has_no_seam() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let writer = std::thread::spawn(move || {
            let mut writer = LogWriter::with_limit(&path, 20_000).unwrap();
            for i in 1..=3000 {
                writer.append(RUN, Stream::Stdout, format!("{i}").as_bytes());
                writer.append(RUN, Stream::Stdout, b"\n");
                if i % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        // More than is kept is written meanwhile: some lines may be missed, but each is accounted for.
        let mut stream = pin!(lines(dir.path(), LogQuery { follow: true, ..LogQuery::default() }));
        let mut last = 0;
        while last < 3000 {
            let entry = tokio::time::timeout(WAIT_MAX, stream.next()).await.expect("a line comes").unwrap().unwrap();
            match entry {
                Entry::Missed(count) => last += count,
                Entry::Line(line) => {
                    // A reader that comes after the first segments were removed begins with what is there.
                    assert!(line.seq == last + 1 || last == 0, "{} after {last}", line.seq);
                    let number = line.seq.to_string();
                    // After a hole the beginning of the line may have been in it.
                    assert!(if line.cut {
                        number.as_bytes().ends_with(&line.bytes)
                    } else {
                        number.as_bytes() == line.bytes
                    });
                    last = line.seq;
                }
            }
        }
        writer.join().unwrap();
    }
}
