//! What the pretend programs do: it stands in their arguments, so that a specification says it.

/// A pretend program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// Runs until it is told to stop.
    Runs,
    /// Runs, and does not hear SIGTERM.
    Stubborn,
    /// Ends by itself.
    Ends {
        /// Its exit code.
        code: i32,
        /// After so many milliseconds.
        after_ms: u64,
    },
    /// Cannot be started.
    Fails,
}

impl Program {
    /// As arguments, with a mark that tells one deploy from another.
    pub(crate) fn args(self, mark: &str) -> Vec<String> {
        let words = match self {
            Self::Runs => "runs".to_owned(),
            Self::Stubborn => "stubborn".to_owned(),
            Self::Ends { code, after_ms } => format!("ends {code} {after_ms}"),
            Self::Fails => "fails".to_owned(),
        };
        words.split(' ').map(str::to_owned).chain([format!("mark={mark}")]).collect()
    }

    /// Out of arguments that [`args`](Self::args) made; none for all others.
    pub(crate) fn of_args(args: &[String]) -> Option<Self> {
        let words: Vec<&str> = args.iter().map(String::as_str).take_while(|word| !word.starts_with("mark=")).collect();
        match words[..] {
            ["runs"] => Some(Self::Runs),
            ["stubborn"] => Some(Self::Stubborn),
            ["fails"] => Some(Self::Fails),
            ["ends", code, after_ms] => Some(Self::Ends { code: code.parse().ok()?, after_ms: after_ms.parse().ok()? }),
            _ => None,
        }
    }

    /// Whether it stays up when it is left alone.
    pub(crate) fn stays(self) -> bool {
        matches!(self, Self::Runs | Self::Stubborn)
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_program_survives_its_arguments() {
        for program in [Program::Runs, Program::Stubborn, Program::Ends { code: 3, after_ms: 250 }, Program::Fails] {
            assert_eq!(Program::of_args(&program.args("7")), Some(program));
        }
        assert_eq!(Program::of_args(&["--port".into(), "80".into()]), None);
    }
}
