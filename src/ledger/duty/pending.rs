//! Which questions about a job are under way, or have done something that is not known here yet. Pure.

use std::collections::BTreeMap;

use crate::ids::RunId;

/// What a question about a job concerns: each is asked about by one question at a time, whatever is asked about the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    /// What becomes of its slots.
    Slots,
    /// What becomes of a run.
    Run(RunId),
}

/// What is not settled about a job.
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<Subject, State>);

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    /// A question is under way.
    Asked,
    /// It was answered, and this renewal of the session says what it has done.
    Told(u64),
}

impl Pending {
    /// A question is under way.
    pub(super) fn ask(&mut self, subject: Subject) {
        self.0.insert(subject, State::Asked);
    }

    /// It was answered, and what it has done is known.
    pub(super) fn settle(&mut self, subject: Subject) {
        self.0.remove(&subject);
    }

    /// It was answered, and what it has done will be known when that renewal is answered.
    pub(super) fn await_renewal(&mut self, subject: Subject, round: u64) {
        self.0.insert(subject, State::Told(round));
    }

    /// What waits for renewals up to `answered` is known now. True: something did.
    pub(super) fn forget_told(&mut self, answered: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|_, state| !state.is_over(answered));
        self.0.len() < before
    }

    /// What waits for renewals up to `answered` waits for another one. True: something does.
    pub(super) fn put_off(&mut self, answered: u64, next: u64) -> bool {
        let over = self.0.values_mut().filter(|state| state.is_over(answered));
        over.map(|state| *state = State::Told(next)).count() > 0
    }

    /// Whether a question is under way.
    pub(super) fn is_asked(&self, subject: Subject) -> bool {
        self.0.get(&subject) == Some(&State::Asked)
    }

    /// Whether all is known about this, renewals up to `answered` having been answered.
    pub(super) fn is_settled(&self, subject: Subject, answered: u64) -> bool {
        self.0.get(&subject).is_none_or(|state| state.is_over(answered))
    }

    /// Whether all is known about all runs.
    pub(super) fn are_runs_settled(&self, answered: u64) -> bool {
        self.0.iter().all(|(subject, state)| *subject == Subject::Slots || state.is_over(answered))
    }

    /// Whether all is known about everything.
    pub(super) fn is_empty(&self, answered: u64) -> bool {
        self.0.values().all(|state| state.is_over(answered))
    }
}

impl State {
    fn is_over(self, answered: u64) -> bool {
        matches!(self, Self::Told(round) if round <= answered)
    }
}
