//! Whose session was renewed, and whose is over. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::is_to_propose;
use crate::ledger::command::{Command, SessionId};
use crate::ledger::machine::Machine;
use crate::time::Mono;

/// How long a session lives without being renewed (decisions.md): four renewals.
pub const SESSION_TTL: Duration = Duration::from_secs(2);

/// How late a beat may be before this host is taken to have stood still: two and a half of them. What came meanwhile was not read, so that nobody
/// can be blamed for not having renewed.
const STALL: Duration = Duration::from_millis(500);

/// Who was heard of when.
#[derive(Debug)]
pub(super) struct Presences {
    sessions: BTreeMap<SessionId, Presence>,
    /// The machine's sessions as they were at this log index.
    followed: Option<u64>,
    /// When this host was last known to run.
    beat: Mono,
}

#[derive(Debug)]
struct Presence {
    renewed: Mono,
    /// When its end was proposed last.
    closing: Option<Mono>,
}

impl Presences {
    /// Every session begins anew.
    pub(super) fn begin(now: Mono, machine: &Machine) -> Self {
        let mut presences = Self { sessions: BTreeMap::new(), followed: None, beat: now };
        presences.follow(now, machine);
        presences
    }

    /// A node was heard of. False where the end of its session is under way.
    pub(super) fn renew(&mut self, session: SessionId, now: Mono) -> bool {
        let presence = self.sessions.entry(session).or_insert(Presence { renewed: now, closing: None });
        if presence.closing.is_none() {
            presence.renewed = now;
        }
        presence.closing.is_none()
    }

    /// The host runs. Where it did not for a while, all sessions begin anew.
    pub(super) fn beat(&mut self, now: Mono) {
        if now.since(self.beat) > STALL {
            self.sessions.values_mut().for_each(|presence| presence.renewed = now);
        }
        self.beat = now;
    }

    /// Takes over what the machine says: sessions that are new are heard of now, those that are over are forgotten.
    pub(super) fn follow(&mut self, now: Mono, machine: &Machine) {
        if self.followed != Some(machine.sessions_changed()) {
            self.followed = Some(machine.sessions_changed());
            self.sessions.retain(|session, _| machine.session(*session).is_some());
            for (session, _) in machine.sessions() {
                self.sessions.entry(session).or_insert(Presence { renewed: now, closing: None });
            }
        }
    }

    /// The ends of those that were not renewed.
    pub(super) fn overdue(&mut self, now: Mono) -> Vec<Command> {
        let overdue = self.sessions.iter_mut().filter_map(|(session, presence)| {
            let is_over = presence.closing.is_some() || now.since(presence.renewed) > SESSION_TTL;
            (is_over && is_to_propose(&mut presence.closing, now)).then_some(Command::Close { session: *session })
        });
        overdue.collect()
    }

    /// Whether a session is open, and its end not under way.
    pub(super) fn is_here(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|presence| presence.closing.is_none())
    }

    /// How many are on their way out.
    pub(super) fn closing(&self) -> usize {
        self.sessions.values().filter(|presence| presence.closing.is_some()).count()
    }
}
