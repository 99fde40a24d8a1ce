//! A node and a ledger of its own, for tests: the real machine and office, without Raft.

use std::time::Duration;

use super::effect::{Effect, Refusal, Response};
use super::input::{BlobEvent, Input, LedgerEvent};
use super::tests::{BINARY, Node};
use crate::exec::plan::{Ended, LaunchPlan, ProcessEvent};
use crate::ids::{RunId, ServiceName};
use crate::ledger::command::{Command, JobKey, Stamped};
use crate::ledger::machine::Machine;
use crate::ledger::office::{Office, Wants};
use crate::ledger::question::{Account, Answer, Question};
use crate::ledger::voters::Candidate;
use crate::time::Mono;

/// How far the time goes in one step.
pub(super) const STEP: Duration = Duration::from_millis(50);

/// A node, and the ledger that it asks.
pub(super) struct Town {
    pub(super) node: Node,
    pub(super) machine: Machine,
    office: Office,
    index: u64,
    pub(super) wants: Wants,
    pub(super) members: Vec<Candidate>,
    /// Whether nobody answers.
    pub(super) is_dark: bool,
    /// Whether executables can be made.
    pub(super) has_binary: bool,
    pub(super) launched: Vec<LaunchPlan>,
    pub(super) signals: Vec<(RunId, i32)>,
    pub(super) killed: Vec<RunId>,
    pub(super) forgotten: Vec<RunId>,
    pub(super) extended: Vec<(RunId, Mono)>,
}

pub(super) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

impl Town {
    pub(super) fn new(node: Node) -> Self {
        let machine = Machine::default();
        let office = Office::begin(node.now.mono, &machine);
        Self {
            node,
            machine,
            office,
            index: 0,
            wants: Wants::default(),
            members: Vec::new(),
            is_dark: false,
            has_binary: true,
            launched: Vec::new(),
            signals: Vec::new(),
            killed: Vec::new(),
            forgotten: Vec::new(),
            extended: Vec::new(),
        }
    }

    /// One node that has a binary, and this spec.
    pub(super) fn with(yaml: &str) -> Self {
        let mut town = Self::new(Node::founder());
        town.node.deploy(yaml).unwrap();
        town
    }

    pub(super) fn wait(&mut self, span: Duration) {
        let until = self.node.now.mono + span;
        while self.node.now.mono < until {
            self.node.wait(STEP);
            self.settle();
        }
    }

    /// Answers all that is asked, and notes all that is done.
    pub(super) fn settle(&mut self) {
        let now = self.node.now;
        if self.is_dark {
            self.office.beat(now.mono);
        } else {
            for command in self.office.due(now, &self.machine, &self.wants, &[self.node.engine.me].into()) {
                self.apply(command);
            }
        }
        loop {
            let asked = self.node.take(|effect| match effect {
                Effect::AskLedger { id, question } => Some((*id, question.clone())),
                _ => None,
            });
            self.note();
            if asked.is_empty() {
                return;
            }
            for (id, question) in asked {
                let answer = self.answer(question);
                self.node.input(Input::Ledger(LedgerEvent::Answered { id, answer }));
            }
        }
    }

    fn note(&mut self) {
        let wants = self.node.take(|effect| match effect {
            Effect::Wants(wants) => Some(Wants::clone(wants)),
            _ => None,
        });
        self.wants = wants.into_iter().last().unwrap_or_else(|| self.wants.clone());
        let members = self.node.take(|effect| match effect {
            Effect::Candidates(members) => Some(members.to_vec()),
            _ => None,
        });
        self.members = members.into_iter().last().unwrap_or_else(|| self.members.clone());
        if self.has_binary {
            let made = self.node.take(|effect| matches!(effect, Effect::MakeExecutable(_)).then_some(()));
            made.iter().for_each(|()| self.node.input(Input::Blob(BlobEvent::Executable(BINARY))));
        }
        let launched = self.node.take(|effect| match effect {
            Effect::Launch(plan) => Some(LaunchPlan::clone(plan)),
            _ => None,
        });
        for plan in launched {
            self.launched.push(plan.clone());
            let at = self.node.now.wall;
            let enforced = crate::confinement::Enforced::default();
            self.node.input(Input::Process(ProcessEvent::Launched { run: plan.run, pid: 7, at, enforced }));
        }
        self.signals.extend(self.node.take(|effect| match effect {
            Effect::Signal { run, signal } => Some((*run, *signal)),
            _ => None,
        }));
        self.killed.extend(self.node.take(|effect| match effect {
            Effect::Kill { run } => Some(*run),
            _ => None,
        }));
        self.extended.extend(self.node.take(|effect| match effect {
            Effect::Extend { run, until } => Some((*run, *until)),
            _ => None,
        }));
        self.forgotten.extend(self.node.take(|effect| match effect {
            Effect::Acknowledge { run } => Some(*run),
            _ => None,
        }));
    }

    fn answer(&mut self, question: Question) -> Answer {
        let now = self.node.now;
        if self.is_dark {
            return Answer::NotLeader { leader: None };
        }
        match question {
            Question::Renew { session, known, wall } => match self.office.renew(session, wall, now, &self.machine) {
                true => Answer::Renewed(self.machine.concerns(&self.node.engine.me, known)),
                false => Answer::NoSession,
            },
            Question::Propose(command) => {
                let reply = self.apply(command);
                Answer::Applied { index: self.index, reply }
            }
            Question::History { .. } | Question::Standing => unreachable!("an engine does not ask that"),
        }
    }

    fn apply(&mut self, command: Command) -> crate::ledger::command::Reply {
        self.index += 1;
        let now = self.node.now;
        let at = self.office.stamp(now.mono, &self.machine);
        self.machine.apply(self.index, &Stamped { at, command, wall: now.wall })
    }

    /// A program ends.
    pub(super) fn end(&mut self, run: RunId, code: i32) {
        let ended = Ended { code: Some(code), signal: None, at: self.node.now.wall, oom_kills: 0 };
        self.node.input(Input::Process(ProcessEvent::Exited { run, ended }));
        self.settle();
    }

    pub(super) fn answers_to(&mut self, request: u64) -> Vec<Result<Response, Refusal>> {
        self.node.take(|effect| match effect {
            Effect::Reply { id, response } if *id == request => Some(response.clone()),
            _ => None,
        })
    }

    pub(super) fn account(&self, job: &str) -> Account {
        self.machine.account(&JobKey { name: name(job), node: None }).unwrap()
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.node.engine.view().problems.iter().map(|problem| problem.message.clone()).collect()
    }
}
