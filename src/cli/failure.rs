//! How a command ends when it does not end well. Pure, but for the report itself.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::api::client::ClientError;

/// Refused, or failed.
const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// No node was reached.
const EXIT_NO_NODE: u8 = 3;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What clap says: wrong words, and also help and versions that were asked for.
    Clap(clap::Error),
    /// A text with the exit code that belongs to it.
    Said {
        /// One of the codes above.
        code: u8,
        /// What went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Nobody reads standard output any more, as with `| head`: no reason to complain.
    NoReader,
}

impl Failure {
    /// Refused, or failed.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self::Said { code: EXIT_FAILED, message: message.to_string(), hint: None }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::Said { code: EXIT_USAGE, message: message.to_string(), hint: None }
    }

    /// The same with a hint.
    pub(crate) fn hint(mut self, text: impl Display) -> Self {
        if let Self::Said { hint, .. } = &mut self {
            *hint = Some(text.to_string());
        }
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Clap(error) if error.use_stderr() => EXIT_USAGE,
            Self::Clap(_) | Self::NoReader => 0,
            Self::Said { code, .. } => *code,
        }
    }

    /// What is said on standard error; nothing where clap speaks for itself.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Clap(_) | Self::NoReader => String::new(),
            Self::Said { message, hint: None, .. } => format!("error: {message}\n"),
            Self::Said { message, hint: Some(hint), .. } => format!("error: {message}\nhint: {hint}\n"),
        }
    }

    /// Says what is to be said and gives the exit code. What cannot be said is lost: there is no other place to say it.
    pub(crate) fn report(&self) -> ExitCode {
        if let Self::Clap(error) = self {
            let _ = error.print();
        }
        let text = self.text();
        let mut stderr = std::io::stderr().lock();
        let text = match text.strip_prefix("error:") {
            Some(rest) if coloured(stderr.is_terminal()) => format!("\x1b[1;31merror:\x1b[0m{rest}"),
            _ => text,
        };
        let _ = stderr.write_all(text.as_bytes());
        ExitCode::from(self.code())
    }
}

/// Whether to use colour: on a terminal, unless NO_COLOR says no (https://no-color.org).
fn coloured(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoNode { cause, .. } => {
                let hint = match cause.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        "the node belongs to another user; use that user, or sudo".to_owned()
                    }
                    _ => "is it running? `narun start` runs this host's node; --data-dir or --api name another one"
                        .to_owned(),
                };
                Self::Said { code: EXIT_NO_NODE, message, hint: Some(hint) }
            }
            ClientError::Refused(words) => Self::Said { code: EXIT_FAILED, message, hint: words.hint },
            ClientError::TimedOut(_) => Self::failed(message).hint("--timeout gives it more time"),
            ClientError::Broken(_) => Self::failed(message),
        }
    }
}
