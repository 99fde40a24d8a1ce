//! What the machine tells: to nodes what concerns them, to people what became of a job, to the office what there is. Pure.

use super::Machine;
use super::state::Job;
use super::watch::Watch;
use crate::ids::NodeKey;
use crate::ledger::command::{Command, JobKey, LeaseKey, SessionId};
use crate::ledger::question::{Account, Concern, Concerns};
use crate::ledger::time::LedgerTime;
use crate::time::Wall;

impl Machine {
    /// The index of the last entry that was applied.
    pub fn applied(&self) -> u64 {
        self.state.applied
    }

    /// The ledger's time.
    pub fn time(&self) -> LedgerTime {
        self.state.time
    }

    /// Whose session that is, while it is open.
    pub fn session(&self, session: SessionId) -> Option<NodeKey> {
        self.state.sessions.get(&session).map(|session| session.node)
    }

    /// The open session of a node.
    pub fn session_of(&self, node: &NodeKey) -> Option<SessionId> {
        self.index.sessions.get(node).copied()
    }

    /// All open sessions, and whose they are.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, NodeKey)> {
        self.state.sessions.iter().map(|(id, session)| (*id, session.node))
    }

    /// Who holds a lease.
    pub fn holder(&self, lease: &LeaseKey) -> Option<SessionId> {
        match lease {
            LeaseKey::Cron(key) => self.state.jobs.get(key)?.holder,
            LeaseKey::Singleton(name) => self.state.singletons.get(name).copied(),
        }
    }

    /// All jobs, those without a spec too.
    pub fn jobs(&self) -> impl Iterator<Item = &JobKey> {
        self.state.jobs.keys()
    }

    /// Whether there is such a job, and its spec is not deleted.
    pub fn has_spec(&self, key: &JobKey) -> bool {
        self.job(key).is_ok_and(|job| job.retired.is_none())
    }

    /// The index of the last entry with which a session began or ended.
    pub fn sessions_changed(&self) -> u64 {
        self.index.sessions_changed
    }

    /// The index of the last entry with which a lease was given or taken away.
    pub fn leases_changed(&self) -> u64 {
        self.index.leases_changed
    }

    /// Whether the machine itself does something with the next command, since it waited for that time.
    pub fn is_due(&self, time: LedgerTime) -> bool {
        self.index.orphans.first().is_some_and(|(since, ..)| *since + super::ORPHAN_GRACE <= time)
    }

    /// Jobs that may be forgotten by then.
    pub fn forgettable(&self, time: LedgerTime) -> impl Iterator<Item = &JobKey> {
        let old = self.index.retired.iter().take_while(move |(since, _)| *since + super::FORGET_AFTER <= time);
        old.map(|(_, key)| key).filter(move |key| self.job(key).is_ok_and(|job| job.is_forgettable(time)))
    }

    /// Whether a node may give this command: it speaks for its own session and for runs of its own, or of nobody. What only a leader
    /// gives, no node may; a command on what the machine does not know is for the machine to refuse.
    pub fn is_allowed(&self, from: &NodeKey, command: &Command) -> bool {
        let is_own_session = |id: SessionId| self.session(id).is_none_or(|node| node == *from);
        match command {
            Command::Open { node, .. } => node == from,
            Command::Close { session } | Command::Release { session, .. } | Command::Attempt { session, .. } => {
                is_own_session(*session)
            }
            Command::Decide(decide) => is_own_session(decide.session),
            Command::Started { job, run, .. } | Command::Ended { job, run, .. } => {
                let run = self.job(job).ok().and_then(|job| job.runs().find(|one| one.id == *run));
                run.and_then(|run| run.node).is_none_or(|node| node == *from)
            }
            Command::Ask { .. } => true,
            Command::Grant { .. } | Command::Retire { .. } | Command::Forget { .. } | Command::Tick => false,
        }
    }

    /// What became of a job.
    pub fn account(&self, key: &JobKey) -> Option<Account> {
        let job = self.job(key).ok()?;
        let newest_first = job.open.iter().rev().chain(job.ended.iter().rev());
        Some(Account {
            cursor: job.cursor,
            holder: job.holder.and_then(|session| self.session(session)),
            runs: newest_first.cloned().collect(),
            gaps: job.gaps.iter().rev().cloned().collect(),
            last_success: job.last_success,
            as_of: None,
            asked: job.asked.clone(),
        })
    }

    /// When the last entry was stamped, by the clock of the leader of that time.
    pub fn wall(&self) -> Wall {
        self.state.wall
    }

    /// What changed for a node after log index `since`. With 0, or where that is too long ago, all there is. Where this machine has not
    /// come as far as `since`: nothing.
    pub fn concerns(&self, node: &NodeKey, since: u64) -> Concerns {
        let upto = self.state.applied;
        if since > upto {
            return Concerns { upto, ..Concerns::default() };
        }
        let Some(watch) = self.index.watches.get(node) else {
            return Concerns { upto, is_whole: true, ..Concerns::default() };
        };
        if since > 0 && watch.reaches(since) {
            self.tell(node, watch, since, false)
        } else {
            self.tell(node, watch, 0, true)
        }
    }

    fn tell(&self, node: &NodeKey, watch: &Watch, since: u64, is_whole: bool) -> Concerns {
        let mut concerns = Concerns { upto: self.state.applied, is_whole, ..Concerns::default() };
        let lost = watch.gone(0).filter(|_| bug!(LeaseNotTakenAway));
        for lease in watch.changed(since).chain(lost) {
            match lease {
                LeaseKey::Cron(key) => concerns.jobs.extend(self.job(key).ok().map(|job| self.concern(node, key, job))),
                LeaseKey::Singleton(_) => concerns.singletons.push(lease.clone()),
            }
        }
        if !is_whole && !bug!(LeaseNotTakenAway) {
            concerns.gone = watch.gone(since).cloned().collect();
        }
        concerns
    }

    fn concern(&self, node: &NodeKey, key: &JobKey, job: &Job) -> Concern {
        Concern {
            job: key.clone(),
            is_held: job.holder.is_some() && (job.holder == self.session_of(node) || bug!(LeaseNotTakenAway)),
            cursor: job.cursor,
            open: job.open.clone(),
            asked: job.asked.clone(),
        }
    }
}
