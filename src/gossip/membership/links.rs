//! What this node's own connections say about members, and whom it asks over them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Believed;
use crate::ids::NodeKey;
use crate::time::Mono;

/// How long after the last connection to a member broke another may take its place before that is evidence: the transport dials
/// again within this time when somebody answers.
pub(super) const BROKEN_WINDOW: Duration = Duration::from_secs(1);

/// How soon a question is repeated at first: far above the time that an answer needs.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How far apart questions become: a process that hangs may do so for long, and is to be told within this time of its recovery.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(16);

/// A member in reach that is not known to be well, and is asked.
#[derive(Clone, Debug)]
struct Question {
    /// What others say of it, where that is worse than what this node believes.
    said: Option<Believed>,
    due: Mono,
    wait: Duration,
}

/// The connections of one node.
#[derive(Default, Debug)]
pub(super) struct Links {
    standing: BTreeSet<NodeKey>,
    broken: BTreeMap<NodeKey, Mono>,
    questions: BTreeMap<NodeKey, Question>,
}

impl Links {
    /// Whether a connection to it stands.
    pub(super) fn stands(&self, key: &NodeKey) -> bool {
        self.standing.contains(key)
    }

    /// A connection stands.
    pub(super) fn connect(&mut self, key: NodeKey) {
        self.broken.remove(&key);
        self.standing.insert(key);
    }

    /// The last connection broke.
    pub(super) fn break_off(&mut self, now: Mono, key: NodeKey) {
        self.questions.remove(&key);
        if self.standing.remove(&key) {
            self.broken.insert(key, now);
        }
    }

    /// Forgets a node that is no member any more.
    pub(super) fn forget(&mut self, key: &NodeKey) {
        self.standing.remove(key);
        self.broken.remove(key);
        self.questions.remove(key);
    }

    /// Whose connections broke a while ago and did not come back. Nobody's, if more broke at one time than stand: then it is more
    /// likely this node that is cut off, and probing decides.
    pub(super) fn take_missing(&mut self, now: Mono) -> Vec<NodeKey> {
        let over = |at: &Mono| now.since(*at) >= BROKEN_WINDOW;
        if !self.broken.values().any(over) {
            return Vec::new();
        }
        if self.broken.len() > self.standing.len() {
            self.broken.clear();
            return Vec::new();
        }
        self.broken.extract_if(.., |_, at| over(at)).map(|(key, _)| key).collect()
    }

    /// Gives connections that broke the whole window again: this node was stalled, and does not know what it missed.
    pub(super) fn postpone(&mut self, now: Mono) {
        for at in self.broken.values_mut() {
            *at = now;
        }
    }

    /// From now on a member in reach is asked how it is, until [`Links::settle`]. `said` is what others say of it.
    pub(super) fn question(&mut self, now: Mono, key: NodeKey, said: Option<Believed>) {
        if !self.standing.contains(&key) {
            return;
        }
        let begun = Question { said: None, due: now, wait: ASK_AGAIN };
        let question = self.questions.entry(key).or_insert(begun);
        if said.as_ref().is_some_and(|said| question.said.as_ref().is_none_or(|known| said.outweighs(known))) {
            *question = Question { said, due: now, wait: ASK_AGAIN };
        }
    }

    /// The same, unless it has said how it is by the time of the second question.
    pub(super) fn question_later(&mut self, now: Mono, key: NodeKey) {
        if self.standing.contains(&key) {
            let begun = Question { said: None, due: now + ASK_AGAIN, wait: ASK_AGAIN };
            self.questions.entry(key).or_insert(begun);
        }
    }

    /// A member is known alive, in that life and incarnation: it need not be asked any more, unless what others say of it is not refuted
    /// by that.
    pub(super) fn settle(&mut self, key: &NodeKey, believed: &Believed) {
        let open = |question: &Question| question.said.as_ref().is_some_and(|said| !believed.refutes(said));
        if !self.questions.get(key).is_some_and(open) {
            self.questions.remove(key);
        }
    }

    /// Who is to be asked now, and what is said of them.
    pub(super) fn take_questions(&mut self, now: Mono) -> Vec<(NodeKey, Option<Believed>)> {
        let mut asked = Vec::new();
        for (key, question) in self.questions.iter_mut().filter(|(_, question)| question.due <= now) {
            question.due = now + question.wait;
            question.wait = (question.wait * 2).min(ASK_AGAIN_MAX);
            asked.push((*key, question.said));
        }
        asked
    }

    /// When there is something to be done.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let missing = self.broken.values().map(|at| *at + BROKEN_WINDOW).min();
        let question = self.questions.values().map(|question| question.due).min();
        [missing, question].into_iter().flatten().min()
    }
}
