//! What is wrong with a specification, told all at once. Pure.

use std::fmt;

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The field, as `env[2].name`, or the option, as `--replicas`; empty where the whole text is meant.
    pub path: String,
    /// What was found and what was wanted.
    pub message: String,
}

impl Mistake {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "`{}`: {}", self.path, self.message) }
    }
}

/// Most mistakes that are told. A person mends these first; a text that has more is no specification, and whoever sends it shall not
/// make a node write a book about it.
pub(super) const MISTAKES_MAX: usize = 100;

/// Everything that is wrong with a specification. Never empty; prints one mistake a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes as an error, or `Ok` where there is none.
    pub(super) fn check(mut mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() {
            return Ok(());
        }
        if mistakes.len() > MISTAKES_MAX {
            mistakes.truncate(MISTAKES_MAX);
            mistakes.push(Mistake::new("", format!("there are more; the first {MISTAKES_MAX} are told")));
        }
        Err(Self(mistakes))
    }

    /// Each mistake, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// The same mistakes, each rewritten by `rewrite`.
    pub(super) fn map(self, rewrite: impl FnMut(Mistake) -> Mistake) -> Self {
        Self(self.0.into_iter().map(rewrite).collect())
    }

    /// These mistakes and `more`.
    pub(super) fn and(mut self, more: Vec<Mistake>) -> Self {
        self.0.extend(more);
        self
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, mistake) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
