//! Whether this node hears of the ledger: without its word nothing fires here. Pure.

use std::time::Duration;

use crate::ledger::question::Answer;
use crate::time::{Mono, Now, Wall};

/// How long the ledger may be silent before that is told: an election takes a second or two.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// When the ledger was heard last.
#[derive(Debug)]
pub(super) struct Firing {
    heard: Mono,
    /// As it was told last.
    is_silent: bool,
}

impl Firing {
    pub(super) fn new(now: Mono) -> Self {
        Self { heard: now, is_silent: false }
    }

    /// Something was answered.
    pub(super) fn heard(&mut self, now: Now, answer: &Answer) {
        match answer {
            Answer::NotLeader { .. } | Answer::Unknown | Answer::NotAllowed => {}
            _ => self.heard = now.mono,
        }
    }

    /// True where it has become silent, or is not any more.
    pub(super) fn settle(&mut self, now: Mono) -> bool {
        let is_silent = now.since(self.heard) >= SILENCE_MAX;
        std::mem::replace(&mut self.is_silent, is_silent) != is_silent
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        (!self.is_silent).then_some(self.heard + SILENCE_MAX)
    }

    /// Since when, if it is silent.
    pub(super) fn silent_since(&self, now: Now) -> Option<Wall> {
        self.is_silent.then(|| Wall(now.wall.0.saturating_sub(millis(now.mono.since(self.heard)))))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
