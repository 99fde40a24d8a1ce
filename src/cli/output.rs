//! Standard output, and only that. A shell.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::failure::Failure;

/// Where results go.
pub(crate) struct Output {
    sink: BufWriter<Box<dyn Write>>,
    /// Whether the user wants JSON.
    pub(crate) json: bool,
}

impl Output {
    /// This process's standard output.
    pub(crate) fn standard() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// Results for somebody else.
    pub(super) fn to(sink: Box<dyn Write>) -> Self {
        Self { sink: BufWriter::new(sink), json: false }
    }

    /// Writes a text that has its own line breaks.
    pub(crate) fn text(&mut self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.sink.write_all(text.as_ref()).map_err(|error| cannot_write(&error))
    }

    /// Writes a value as JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        self.text(json)?;
        self.text("\n")
    }

    /// Writes an answer: its JSON or its text for people, as the user wishes.
    pub(crate) fn answer(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.value(value) } else { self.text(text()) }
    }

    /// Brings everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.sink.flush().map_err(|error| cannot_write(&error))
    }
}

fn cannot_write(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NoReader,
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    }
}

/// Says something to the user that is no result.
pub(crate) fn note(text: impl std::fmt::Display) {
    // Standard error may be closed; the command goes on all the same.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
