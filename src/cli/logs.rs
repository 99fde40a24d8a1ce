//! `narun logs`: the output of instances, from all nodes. Wiring; the form of a line is pure.

use chrono::{DateTime, Utc};
use clap::Args;
use data_encoding::BASE64;
use futures::{FutureExt, StreamExt};

use crate::api::wire::{self, LogEvent, LogLine};
use crate::node::logs::TAIL_MAX;

use super::failure::Failure;
use super::output::{Output, note};
use super::reach::Reach;
use super::words;

/// Show the output of instances, from all nodes
///
/// Prints what is kept, in the order of time, and ends; -f goes on with what is written from now on. Every filter that is
/// given must hold. A line is `[time] [instance] [stdout|stderr] message`. With --raw or -o json each line is a JSON object
/// with the keys timestamp, app_name, instance_id, node_id, run_id, stream, seq, message, and where they apply message_base64
/// (the bytes, where they are no UTF-8) and cut (a line that was too long goes on in the next one).
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  narun logs --app web --since 10m
  narun logs --app web --stream stderr --grep panic --tail 50 -f
  narun logs --run 3fa9c1d2e0
  narun logs --node n2 --raw | jq -r .message")]
pub(crate) struct Logs {
    /// Of this service
    #[arg(long, value_name = "SERVICE")]
    app: Option<String>,
    /// On this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Of this instance, such as `web-0`
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Of one start of an instance, or of all attempts of one cron run, by the first digits of its identifier
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Written to this stream: stdout, stderr, or narun for narun's own marks
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr", "narun"])]
    stream: Option<String>,
    /// Not older than this: a moment (RFC 3339), or how long ago
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Older than this: a moment (RFC 3339), or how long ago
    #[arg(long, value_name = "WHEN", conflicts_with = "follow")]
    until: Option<String>,
    /// Of each instance the last N lines for which the rest holds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=TAIL_MAX))]
    tail: Option<u64>,
    /// Holding this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    grep: Option<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    raw: bool,
}

impl Logs {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let query = self.query(Utc::now())?;
        let form = match (self.raw || output.json, std::io::IsTerminal::is_terminal(&std::io::stdout())) {
            (true, _) => Form::Raw,
            (false, true) => Form::Terminal,
            (false, false) => Form::Plain,
        };
        let mut events = reach.client()?.logs(&query).await?;
        loop {
            // What is there is written in one go; before a pause all of it is brought to the reader.
            let next = match events.next().now_or_never() {
                Some(next) => next,
                None => {
                    output.flush()?;
                    events.next().await
                }
            };
            match next {
                Some(Ok(LogEvent::Line(line))) => output.text(form.line(&line)?)?,
                Some(Ok(LogEvent::Missed { node_id, instance_id, lines })) => {
                    let lost = words::count(usize::try_from(lines).unwrap_or(usize::MAX), "line");
                    note(format!(
                        "narun: {lost} of `{instance_id}` on node `{node_id}` are gone: they were rotated away"
                    ));
                }
                Some(Ok(LogEvent::Notice { message })) => note(format!("narun: {message}")),
                Some(Ok(LogEvent::Live)) => {}
                Some(Ok(LogEvent::End)) | None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    fn query(&self, now: DateTime<Utc>) -> Result<wire::Logs, Failure> {
        let moment = |option: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let moment = words::moment(text, now).map_err(|wrong| Failure::usage(format!("`{option}`: {wrong}")))?;
            let nanos = moment.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok());
            nanos.map(Some).ok_or_else(|| Failure::usage(format!("`{option}`: `{text}` lies outside of all logs")))
        };
        Ok(wire::Logs {
            app: self.app.clone(),
            node: self.node.clone(),
            instance: self.instance.clone(),
            run: self.run.clone(),
            stream: self.stream.clone(),
            since_ns: moment("--since", &self.since)?,
            until_ns: moment("--until", &self.until)?,
            tail: self.tail,
            grep: self.grep.clone(),
            follow: self.follow,
        })
    }
}

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// As it is.
    Plain,
    /// So that it cannot move the cursor, clear the screen or write over other lines.
    Terminal,
    /// As JSON.
    Raw,
}

impl Form {
    fn line(self, line: &LogLine) -> Result<Vec<u8>, Failure> {
        if self == Self::Raw {
            let mut json =
                serde_json::to_vec(line).map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
            json.push(b'\n');
            return Ok(json);
        }
        let mut text = format!("[{}] [{}] [{}] ", line.timestamp, line.instance_id, line.stream).into_bytes();
        match self {
            Self::Terminal => text.extend(terminal_view(&line.message).into_bytes()),
            _ => match line.message_base64.as_ref().and_then(|bytes| BASE64.decode(bytes.as_bytes()).ok()) {
                Some(bytes) => text.extend(bytes),
                None => text.extend(line.message.bytes()),
            },
        }
        text.push(b'\n');
        Ok(text)
    }
}

/// A message whose control characters are shown instead of obeyed: all but tabs and the sequences for colours (ESC [ … m, ECMA-48
/// 8.3.117), after which the colour is put back.
fn terminal_view(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    let mut coloured = false;
    while let Some(character) = rest.chars().next() {
        if let Some(sequence) = colour(rest) {
            out.push_str(sequence);
            rest = &rest[sequence.len()..];
            coloured = true;
            continue;
        }
        match character {
            '\t' => out.push('\t'),
            control if control.is_control() => out.extend(control.escape_default()),
            other => out.push(other),
        }
        rest = &rest[character.len_utf8()..];
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// The colour sequence that a text begins with.
fn colour(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("\x1b[")?;
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    digits[end..].starts_with('m').then(|| &text[.."\x1b[".len() + end + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> LogLine {
        LogLine {
            timestamp: "2026-11-21T10:30:00.000000001Z".into(),
            app_name: "web".into(),
            instance_id: "web-0".into(),
            node_id: "n1".into(),
            run_id: "cd".repeat(16),
            stream: "stderr".into(),
            seq: 7,
            message: message.into(),
            message_base64: None,
            cut: false,
        }
    }

    fn shown(form: Form, line: &LogLine) -> String {
        String::from_utf8_lossy(&form.line(line).unwrap()).into_owned()
    }

    #[test]
    fn a_line_has_the_form_that_scripts_know() {
        let plain = shown(Form::Plain, &line("hello\tworld\r"));
        assert_eq!(plain, "[2026-11-21T10:30:00.000000001Z] [web-0] [stderr] hello\tworld\r\n");
        let bytes = LogLine { message_base64: Some("//4=".into()), ..line("\u{fffd}\u{fffd}") };
        assert!(Form::Plain.line(&bytes).unwrap().ends_with(b"] \xff\xfe\n"), "bytes pass as they are");
    }

    #[test]
    fn a_terminal_is_not_obeyed() {
        for (message, view) in [
            ("10%\r20%", "10%\\r20%"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\x1b[1;31mred", "\x1b[1;31mred\x1b[0m"),
            ("\x1b[31", "\\u{1b}[31"),
            ("tab\tü\u{9b}2J", "tab\tü\\u{9b}2J"),
        ] {
            assert_eq!(terminal_view(message), view, "{message:?}");
        }
    }

    #[test]
    fn raw_lines_are_json_with_known_keys() {
        let text = shown(Form::Raw, &line("hello"));
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["timestamp", "app_name", "instance_id", "node_id", "run_id", "stream", "seq", "message"]);
        let cut = LogLine { cut: true, message_base64: Some("//4=".into()), ..line("") };
        assert!(shown(Form::Raw, &cut).contains(r#""message_base64":"//4=","cut":true"#));
    }
}
