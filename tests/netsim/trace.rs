//! What happened, in order: a hash over all of it, the last lines of it for people, and what was found to be wrong.
//!
//! Everything that crosses the border between a node and its world is recorded here with the virtual time. Two runs of one
//! seed have the same hash, or something in the engine or in the world is not determined by the seed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

/// How many lines a failure prints: some seconds of a small world.
const TAIL_LEN: usize = 400;

/// Set to anything: every line is printed when it happens.
const PRINT_VARIABLE: &str = "NARUN_SIM_TRACE";

/// The record of one world; cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    start: Instant,
    hasher: blake3::Hasher,
    events: u64,
    tail: VecDeque<String>,
    print: bool,
    violations: Vec<String>,
}

impl Trace {
    /// An empty record that begins now.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            start: Instant::now(),
            hasher: blake3::Hasher::new(),
            events: 0,
            tail: VecDeque::new(),
            print: std::env::var_os(PRINT_VARIABLE).is_some(),
            violations: Vec::new(),
        })))
    }

    /// Adds what `host` did or met. `bytes` go into the hash; of them the lines show only the length.
    pub(crate) fn record(&self, host: &str, what: &str, bytes: &[u8]) {
        let mut inner = self.lock();
        let at = inner.start.elapsed().as_millis() as u64;
        inner.events += 1;
        inner.hasher.update(&at.to_le_bytes());
        for part in [host.as_bytes(), what.as_bytes(), bytes] {
            inner.hasher.update(&(part.len() as u64).to_le_bytes());
            inner.hasher.update(part);
        }
        let size = if bytes.is_empty() { String::new() } else { format!(" ({} B)", bytes.len()) };
        inner.line(format!("{:>4}.{:03} {host:<4} {what}{size}", at / 1000, at % 1000));
    }

    /// Notes that an invariant does not hold. The world ends at its next step.
    pub(crate) fn violated(&self, invariant: &str, what: &str) {
        let text = format!("{invariant}: {what}");
        self.record("", &format!("VIOLATED {text}"), &[]);
        self.lock().violations.push(text);
    }

    /// What was found to be wrong so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The hash over everything so far, and of how many events.
    pub(crate) fn digest(&self) -> (blake3::Hash, u64) {
        let inner = self.lock();
        (inner.hasher.finalize(), inner.events)
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<String> = self.lock().tail.iter().cloned().collect();
        lines.join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // One thread: poisoned means that a check panicked while it recorded, and its text still wants to be seen.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn line(&mut self, line: String) {
        if self.print {
            eprintln!("{line}");
        }
        if self.tail.len() == TAIL_LEN {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}
