//! How nodes ask one another for lines: one question, then frames of items until the end. Pure.
//!
//! Every frame is a length (four bytes, big-endian) and a CBOR value. An answer that stops without [`Frame::End`] was broken
//! off, and the asker goes on from the last positions that it heard of.

use crate::ids::InstanceId;

use super::{LogItem, LogQuery};

/// The protocol's name on a connection between members.
pub const PROTOCOL: &str = "/narun/logs/1";

/// Longest frame. A line is cut far below this; the largest frame is a question with the positions of all instances of a node,
/// of which ten thousand fit.
pub const FRAME_LEN_MAX: usize = 1024 * 1024;

/// The question.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Question {
    /// Which lines.
    #[n(0)]
    pub query: LogQuery,
    /// What was heard already, where an earlier answer broke off.
    #[n(1)]
    pub positions: Vec<Position>,
    /// True: the asker had all history, so that of an instance without a position everything is new.
    #[n(2)]
    pub had_history: bool,
}

/// How far the asker has come with one instance.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Position {
    /// Which instance.
    #[n(0)]
    pub instance: InstanceId,
    /// The sequence number of the last line that it needs no more.
    #[n(1)]
    pub seq: u64,
}

/// One frame of an answer.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Frame {
    /// The next item.
    #[n(0)]
    Item(#[n(0)] LogItem),
    /// That was all.
    #[n(1)]
    End,
}

/// A message that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length before it is not one.
    #[error("a frame of {0} bytes was announced, and {FRAME_LEN_MAX} is the most")]
    TooLong(usize),
    /// It is not what belongs here.
    #[error("a frame cannot be read: {0}")]
    Malformed(String),
}

/// A value as a frame, its length before it.
pub fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    minicbor::encode(value, &mut bytes).expect("encoding into memory cannot fail");
    let len = u32::try_from(bytes.len() - 4).expect("a frame is far below four gigabytes");
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// The length that these four bytes announce.
pub fn frame_len(header: [u8; 4]) -> Result<usize, WireError> {
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len > FRAME_LEN_MAX { Err(WireError::TooLong(len)) } else { Ok(len) }
}

/// The value of a frame, its length taken off.
pub fn decode<T: for<'b> minicbor::Decode<'b, ()>>(body: &[u8]) -> Result<T, WireError> {
    minicbor::decode(body).map_err(|error| WireError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{LocalLine, LogRecord, Stream};
    use super::*;
    use crate::ids::{NodeName, RunId, ServiceName};

    fn instance() -> InstanceId {
        InstanceId { service: ServiceName::new("web").unwrap(), index: 2 }
    }

    #[test]
    fn frames_survive_the_wire() {
        let line = LocalLine {
            seq: 9,
            at_ns: 1,
            run: RunId([3; 16]),
            stream: Stream::Stderr,
            bytes: vec![0, 255, 10],
            cut: true,
        };
        let node = NodeName::new("n1").unwrap();
        for frame in [
            Frame::Item(LogItem::Line(LogRecord { node: node.clone(), instance: instance(), line })),
            Frame::Item(LogItem::Position(instance(), 4)),
            Frame::Item(LogItem::Missed(node, instance(), 12)),
            Frame::Item(LogItem::Notice("hello".into())),
            Frame::Item(LogItem::Live),
            Frame::End,
        ] {
            let bytes = encode(&frame);
            let len = frame_len(bytes[..4].try_into().unwrap()).unwrap();
            assert_eq!(len, bytes.len() - 4);
            assert_eq!(decode::<Frame>(&bytes[4..]).unwrap(), frame);
        }
    }

    #[test]
    fn a_question_survives_the_wire() {
        let question = Question {
            query: LogQuery { grep: Some("x".into()), tail: Some(3), follow: true, ..LogQuery::default() },
            positions: vec![Position { instance: instance(), seq: 77 }],
            had_history: true,
        };
        assert_eq!(decode::<Question>(&encode(&question)[4..]).unwrap(), question);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        assert_eq!(frame_len(*b"GET "), Err(WireError::TooLong(0x4745_5420)));
    }

    proptest! {
        #[test]
        fn no_bytes_can_trip_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Frame>(&bytes);
            let _ = decode::<Question>(&bytes);
        }
    }
}
