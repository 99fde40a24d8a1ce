//! Lines of output from all nodes, as a stream of JSON lines. Wiring.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use data_encoding::BASE64;
use futures::StreamExt;

use crate::ids::{NodeName, ServiceName};
use crate::node::engine::effect::Refusal;
use crate::node::logs::{LogItem, LogQuery, LogRecord, Stream, parse_instance};

use super::ApiState;
use super::error::{ApiError, Params, invalid};
use super::wire::{self, LogEvent, LogLine};

/// Longest text to look for: a line is not longer.
const GREP_LEN_MAX: usize = 64 * 1024;

/// `GET /v1/logs`: one JSON object a line, the last of them `end`
pub(super) async fn query(
    State(state): State<ApiState>,
    Params(asked): Params<wire::Logs>,
) -> Result<Response, ApiError> {
    let query = query_of(&asked)?;
    let unknown = query.service.clone().or_else(|| query.instance.as_ref().map(|instance| instance.service.clone()));
    let unknown = unknown.filter(|name| state.node.view().service(name.as_str()).is_none());
    // Logs outlive their service: this is worth a word and no refusal.
    let notice = unknown.map(|name| LogEvent::Notice {
        message: format!("no service `{name}` in the catalog; showing what is kept of its output"),
    });
    let items = state.logs.query(query)?.filter_map(async |item| event_of(item));
    let events = futures::stream::iter(notice).chain(items).chain(futures::stream::iter([LogEvent::End]));
    let lines = events.map(|event| {
        let mut line = serde_json::to_vec(&event).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok::<_, std::io::Error>(Bytes::from(line))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn query_of(asked: &wire::Logs) -> Result<LogQuery, Refusal> {
    let instance = asked.instance.as_deref().map(|text| {
        parse_instance(text)
            .ok_or_else(|| invalid(format!("`{text}` is no instance: one is named `<service>-<index>`")))
    });
    let stream = asked.stream.as_deref().map(|word| {
        Stream::of_word(word).ok_or_else(|| invalid(format!("`{word}` is no stream: `stdout`, `stderr` or `narun`")))
    });
    let run = asked.run.as_deref().map(|digits| match digits {
        "" => Err(invalid("a run is named by the first digits of its identifier, or all of them")),
        _ if digits.len() <= 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            Ok(digits.to_ascii_lowercase())
        }
        _ => Err(invalid(format!("`{digits}` is no run: its identifier has hexadecimal digits, 32 at most"))),
    });
    if asked.grep.as_ref().is_some_and(|text| text.len() > GREP_LEN_MAX) {
        return Err(invalid(format!("the text to look for has more than {GREP_LEN_MAX} bytes")));
    }
    Ok(LogQuery {
        service: asked.app.as_deref().map(ServiceName::new).transpose().map_err(invalid)?,
        node: asked.node.as_deref().map(NodeName::new).transpose().map_err(invalid)?,
        instance: instance.transpose()?,
        run: run.transpose()?,
        stream: stream.transpose()?,
        since_ns: asked.since_ns,
        until_ns: asked.until_ns,
        tail: asked.tail,
        grep: asked.grep.clone(),
        follow: asked.follow,
    })
}

/// What a caller sees of an item; positions are between nodes.
fn event_of(item: LogItem) -> Option<LogEvent> {
    match item {
        LogItem::Line(record) => Some(LogEvent::Line(line_of(record))),
        LogItem::Missed(node, instance, lines) => {
            Some(LogEvent::Missed { node_id: node.to_string(), instance_id: instance.to_string(), lines })
        }
        LogItem::Notice(message) => Some(LogEvent::Notice { message }),
        LogItem::Live => Some(LogEvent::Live),
        LogItem::Position(..) => None,
    }
}

fn line_of(record: LogRecord) -> LogLine {
    let line = record.line;
    let (message, message_base64) = match String::from_utf8(line.bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let bytes = error.into_bytes();
            (String::from_utf8_lossy(&bytes).into_owned(), Some(BASE64.encode(&bytes)))
        }
    };
    LogLine {
        timestamp: time_of(line.at_ns),
        app_name: record.instance.service.to_string(),
        instance_id: record.instance.to_string(),
        node_id: record.node.to_string(),
        run_id: line.run.to_string(),
        stream: line.stream.word().to_owned(),
        seq: line.seq,
        message,
        message_base64,
        cut: line.cut,
    }
}

/// RFC 3339 in UTC, with nanoseconds.
fn time_of(at_ns: u64) -> String {
    let nanos = i64::try_from(at_ns).unwrap_or(i64::MAX);
    DateTime::<Utc>::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}
