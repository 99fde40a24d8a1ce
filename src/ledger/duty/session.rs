//! This node's session with the ledger: opened, renewed, opened again. Pure.

use std::time::Duration;

use super::{Act, Duty, Topic};
use crate::ledger::command::{Command, Reply, SessionId};
use crate::ledger::office::SESSION_TTL;
use crate::ledger::question::{Answer, Question};
use crate::time::{Mono, Now};

/// How often a session is renewed: four times within what the leader gives it.
const RENEW_EVERY: Duration = Duration::from_millis(500);

/// For how long after a renewal was asked for that was answered the session lives for sure: the leader gives it its full time from the moment at which
/// it heard of it, and half a second is for what has to end by then.
const SURE_FOR: Duration = SESSION_TTL.saturating_sub(Duration::from_millis(500));

/// How long to wait before a question is asked again that found no leader: an election takes about as long.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Presence.
#[derive(Debug)]
pub(super) struct Session {
    life: u64,
    id: Option<SessionId>,
    /// When it is opened or renewed next, while that is not under way.
    due: Option<Mono>,
    is_hurried: bool,
    /// This node leaves.
    is_closed: bool,
    /// When the last renewal was asked for that was answered.
    renewed: Option<Mono>,
    /// How many renewals were asked for, and the last of them that was answered.
    rounds: u64,
    answered: u64,
}

impl Session {
    /// None yet.
    pub(super) fn new(life: u64) -> Self {
        Self {
            life,
            id: None,
            due: Some(Mono(0)),
            is_hurried: false,
            is_closed: false,
            renewed: None,
            rounds: 0,
            answered: 0,
        }
    }

    /// Its number, while it is open as far as is known.
    pub(super) fn id(&self) -> Option<SessionId> {
        self.id
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.due.filter(|_| !self.is_closed)
    }

    /// The last renewal that was answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// The first renewal that is asked for from now on.
    pub(super) fn next_round(&self) -> u64 {
        self.rounds + 1
    }

    /// Something is to be known soon: it is renewed at once, or once more when it was.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
        self.due = self.due.map(|_| Mono(0));
    }

    /// It is to end now, and no other one is to begin. Gives back its number, if it was open.
    pub(super) fn close(&mut self) -> Option<SessionId> {
        self.is_closed = true;
        self.due = None;
        self.renewed = None;
        self.id.take()
    }

    /// See [`Duty::sure_until`].
    pub(super) fn sure_until(&self) -> Option<Mono> {
        self.id.and(self.renewed).map(|asked| asked + SURE_FOR)
    }

    /// It is over.
    pub(super) fn lose(&mut self) {
        self.id = None;
        self.hurry();
    }
}

impl Duty {
    pub(super) fn settle_session(&mut self, now: Now, acts: &mut Vec<Act>) {
        if self.session.is_closed || self.session.due.is_none_or(|due| due > now.mono) {
            return;
        }
        (self.session.due, self.session.is_hurried) = (None, false);
        match self.session.id {
            None => {
                let open = Command::Open { node: self.me, life: self.session.life };
                self.ask(Topic::Open, Question::Propose(open), acts);
            }
            Some(session) => {
                self.session.rounds += 1;
                let question = Question::Renew { session, known: self.known, wall: now.wall };
                self.ask(Topic::Renew(now.mono), question, acts);
            }
        }
    }

    pub(super) fn opened(&mut self, now: Now, answer: &Answer) {
        if let Answer::Applied { reply: Reply::Opened(id), .. } = answer {
            self.session.id = Some(*id);
            // All that concerns it is asked for from the beginning: another session holds other leases.
            self.known = 0;
            self.session.renewed = None;
            self.session.due = Some(now.mono);
        } else {
            self.session.due = Some(now.mono + ASK_AGAIN);
        }
    }

    pub(super) fn renewed(&mut self, now: Now, asked: Mono, answer: Answer) {
        let next = match answer {
            Answer::Renewed(concerns) => {
                // One is under way at a time.
                self.session.answered = self.session.rounds;
                self.session.renewed = Some(asked);
                self.take(asked, concerns);
                if self.session.is_hurried { Duration::ZERO } else { RENEW_EVERY }
            }
            Answer::NoSession => {
                self.session.id = None;
                Duration::ZERO
            }
            _ => ASK_AGAIN,
        };
        self.session.due = Some(now.mono + next);
    }
}
