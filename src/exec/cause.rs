//! System errors in the words of our messages. Pure.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// A system error in the words of our messages: lower case, without its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cause(pub(crate) Errno);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.desc();
        let mut chars = text.chars();
        match (chars.next(), chars.clone().next()) {
            // A word is lowered, an abbreviation is not.
            (Some(first), Some(second)) if second.is_lowercase() => {
                write!(f, "{}{}", first.to_ascii_lowercase(), chars.as_str())
            }
            _ => f.write_str(text),
        }
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl Cause {
    /// The system's error behind one of the standard library; none when the library has made it up itself.
    fn behind(error: &io::Error) -> Option<Self> {
        error.raw_os_error().map(|number| Self(Errno::from_raw(number)))
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::behind(&error).unwrap_or(Self(Errno::UnknownErrno))
    }
}

/// Why a call of the standard library failed, in our words.
pub(crate) fn why(error: &io::Error) -> String {
    Cause::behind(error).map_or_else(|| error.to_string(), |cause| cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_read_like_the_rest_of_the_sentence() {
        assert_eq!(Cause(Errno::EACCES).to_string(), "permission denied");
        assert_eq!(Cause(Errno::EIO).to_string(), "I/O error");
        assert_eq!(Cause::from(io::Error::from_raw_os_error(libc::ENOENT)).to_string(), "no such file or directory");
        assert_eq!(why(&io::Error::other("made up")), "made up");
    }
}
