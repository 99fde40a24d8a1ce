//! The output of instances, asked for at any node and gathered from all. Plain data and two small doors.
//!
//! Each line is kept on the node where it was written. Whoever asks gets one stream: `gather` asks the node itself and every
//! other member (`serve` answers there, in the frames of `wire`), and `merge` puts the answers in the order of their times.
//! Nothing here holds a log or opens a file: that is `exec::logs`, met through [`LocalLogs`].
//!
//! A slow reader slows only itself: every stream is pulled, and between two tasks stands a short bounded queue.

pub mod disk;
pub mod gather;
pub mod local;
pub mod merge;
pub mod serve;
pub mod wire;

#[cfg(test)]
mod cluster_tests;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::ids::{InstanceId, NodeKey, NodeName, RunId, ServiceName};

/// How many items may wait between a reader of logs and its asker: enough that neither waits for the other on each line, few
/// enough that lines of the greatest length fit into some megabytes.
pub(crate) const ITEMS_MAX: usize = 64;

/// Most lines that `tail` may ask for: it is kept in memory where the lines are filtered.
pub const TAIL_MAX: u64 = 100_000;

/// Where a line was written to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Stream {
    /// Standard output.
    #[n(1)]
    Stdout,
    /// Standard error.
    #[n(2)]
    Stderr,
    /// What narun itself notes between the lines: a start, an end, a loss.
    #[n(3)]
    Narun,
}

impl Stream {
    /// The word in lines, JSON and queries.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Narun => "narun",
        }
    }

    /// The stream of that word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::Narun].into_iter().find(|stream| stream.word() == word)
    }
}

/// Which lines are asked for; everything that is given must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LogQuery {
    /// Of this service.
    #[n(0)]
    pub service: Option<ServiceName>,
    /// On this node.
    #[n(1)]
    pub node: Option<NodeName>,
    /// Of this instance.
    #[n(2)]
    pub instance: Option<InstanceId>,
    /// Of the runs whose identifier begins with these hexadecimal digits. The last digits of a whole identifier are not looked at, see
    /// [`RUN_DIGITS`].
    #[n(3)]
    pub run: Option<String>,
    /// Written to this stream.
    #[n(4)]
    pub stream: Option<Stream>,
    /// Not older than this, in nanoseconds since 1970.
    #[n(5)]
    pub since_ns: Option<u64>,
    /// Older than this, in nanoseconds since 1970.
    #[n(6)]
    pub until_ns: Option<u64>,
    /// Of each instance the last so many lines for which the rest holds, at most [`TAIL_MAX`].
    #[n(7)]
    pub tail: Option<u64>,
    /// Holding this text.
    #[n(8)]
    pub grep: Option<String>,
    /// Whether to go on with what is written from now on.
    #[n(9)]
    pub follow: bool,
}

impl LogQuery {
    /// Whether lines of this instance may be meant.
    pub fn wants_instance(&self, instance: &InstanceId) -> bool {
        self.service.as_ref().is_none_or(|service| *service == instance.service)
            && self.instance.as_ref().is_none_or(|wanted| wanted == instance)
    }

    /// Whether this line of a wanted instance is meant.
    pub fn wants_line(&self, line: &LocalLine) -> bool {
        self.stream.is_none_or(|stream| stream == line.stream)
            && self.since_ns.is_none_or(|since| line.at_ns >= since)
            && self.until_ns.is_none_or(|until| line.at_ns < until)
            && self.run.as_ref().is_none_or(|digits| is_of_run(line.run, digits))
            && self.grep.as_ref().is_none_or(|text| holds(&line.bytes, text.as_bytes()))
    }

    /// Whether single lines are picked, so that a reader cannot count `tail` by itself.
    pub(crate) fn picks_lines(&self) -> bool {
        self.stream.is_some()
            || self.run.is_some()
            || self.grep.is_some()
            || self.since_ns.is_some()
            || self.until_ns.is_some()
    }
}

/// So many digits of an identifier tell a run. All attempts of a cron run have them in common and differ in those after them, which
/// hold the attempt's fence (`ledger::duty`): whoever names the run means all of them.
const RUN_DIGITS: usize = 24;

fn is_of_run(run: RunId, digits: &str) -> bool {
    let digits = digits.get(..RUN_DIGITS).unwrap_or(digits);
    run.to_string().starts_with(digits)
}

fn holds(line: &[u8], text: &[u8]) -> bool {
    text.is_empty() || line.windows(text.len()).any(|window| window == text)
}

/// One line of one instance on one node.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LogRecord {
    /// Where it was written.
    #[n(0)]
    pub node: NodeName,
    /// By which instance.
    #[n(1)]
    pub instance: InstanceId,
    /// The line itself.
    #[n(2)]
    pub line: LocalLine,
}

/// A line as its node keeps it.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LocalLine {
    /// Its place among the lines of its instance on its node: grows from line to line, over every restart.
    #[n(0)]
    pub seq: u64,
    /// When it was read off the pipe, in nanoseconds since 1970, by its node's clock.
    #[n(1)]
    pub at_ns: u64,
    /// By which start of the instance.
    #[n(2)]
    pub run: RunId,
    /// To which stream.
    #[n(3)]
    pub stream: Stream,
    /// Without its line break. It need not be text.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// True: the line was longer than a line may be, and goes on in the next record.
    #[n(5)]
    pub cut: bool,
}

/// What comes back for a query.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum LogItem {
    /// A line.
    #[n(0)]
    Line(#[n(0)] LogRecord),
    /// Everything up to this place of this instance was looked at: where to go on after a break.
    #[n(1)]
    Position(#[n(0)] InstanceId, #[n(1)] u64),
    /// So many lines are gone: the reader was slower than the rotation of the log.
    #[n(2)]
    Missed(#[n(0)] NodeName, #[n(1)] InstanceId, #[n(2)] u64),
    /// Something that the asker should know, such as a node that cannot be reached.
    #[n(3)]
    Notice(#[n(0)] String),
    /// What was written before the query has come; from here on it is live. Only where the query follows.
    #[n(4)]
    Live,
}

/// Where to begin in the log of one instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At the oldest line that is kept.
    Beginning,
    /// At the last so many lines.
    Tail(u64),
    /// At the first line not older than this, in nanoseconds since 1970.
    Since(u64),
    /// At the first line after the one of this sequence number.
    After(u64),
}

/// What a log of this node's disk gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalItem {
    /// The next line.
    Line(LocalLine),
    /// So many lines are gone.
    Missed(u64),
    /// All that stood there when the reading began was given. Comes once where the reading follows, never otherwise.
    CaughtUp,
    /// The log cannot be read any further, and why.
    Failed(String),
}

/// The logs on this node's disk.
pub trait LocalLogs: Send + Sync + 'static {
    /// All instances that have a log here.
    fn instances(&self) -> BoxFuture<'_, Vec<InstanceId>>;
    /// The lines of one log, in order. Without `follow` the stream ends with the last line that stands there; with it, it does
    /// not end by itself. A stream that is not read costs nothing.
    fn lines(&self, instance: &InstanceId, start: Start, follow: bool) -> BoxStream<'static, LocalItem>;
}

/// A stream of bytes to a peer.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The way to the other members' logs.
pub trait LogPeers: Send + Sync + 'static {
    /// Opens a stream of [`wire::PROTOCOL`] to a member. Fails with the reason, for people.
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>>;
}

/// An instance by its name, `<service>-<index>`; none if the text is none.
pub fn parse_instance(text: &str) -> Option<InstanceId> {
    let (service, index) = text.rsplit_once('-')?;
    let digits_only = index.bytes().all(|byte| byte.is_ascii_digit());
    let index = index.parse().ok().filter(|_| digits_only)?;
    Some(InstanceId { service: ServiceName::new(service).ok()?, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_known_by_its_name() {
        let id = parse_instance("my-app-12").unwrap();
        assert_eq!((id.service.as_str(), id.index), ("my-app", 12));
        for wrong in ["web", "web-", "-1", "web-x", "web-+1", "We b-1", ""] {
            assert_eq!(parse_instance(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_run_is_named_with_all_its_attempts() {
        let mut attempt = [0xab; 16];
        attempt[12..].copy_from_slice(&[1, 2, 3, 4]);
        let run = RunId([0xab; 16]).to_string();
        for (digits, is_its) in
            [(&run[..], true), (&run[..24], true), (&run[..3], true), (&run[2..], true), ("abac", false)]
        {
            assert_eq!(is_of_run(RunId(attempt), digits), is_its, "{digits}");
        }
        let mut other = RunId([0xab; 16]);
        other.0[11] = 0;
        assert!(!is_of_run(other, &run));
    }

    #[test]
    fn every_condition_of_a_query_must_hold() {
        let line = LocalLine {
            seq: 7,
            at_ns: 100,
            run: RunId([0xab; 16]),
            stream: Stream::Stderr,
            bytes: b"a \xff needle".to_vec(),
            cut: false,
        };
        let all = LogQuery::default();
        assert!(all.wants_line(&line));
        let fitting = LogQuery {
            run: Some("abab".into()),
            stream: Some(Stream::Stderr),
            since_ns: Some(100),
            until_ns: Some(101),
            grep: Some("needle".into()),
            ..all
        };
        assert!(fitting.wants_line(&line));
        for other in [
            LogQuery { run: Some("abac".into()), ..fitting.clone() },
            LogQuery { stream: Some(Stream::Stdout), ..fitting.clone() },
            LogQuery { since_ns: Some(101), ..fitting.clone() },
            LogQuery { until_ns: Some(100), ..fitting.clone() },
            LogQuery { grep: Some("Needle".into()), ..fitting },
        ] {
            assert!(!other.wants_line(&line), "{other:?}");
        }
    }
}
