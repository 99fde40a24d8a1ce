//! Random commands by nodes that know little and late, against a record that is kept by what the machine answered alone.
//!
//! The record is naive on purpose: it knows sessions, holders and cursors, what was decided of each slot, and which attempt of each run
//! is the current one, in plain maps that are searched from end to end.

mod acts;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index as Pick;

use self::acts::{Act, act};
use self::record::{Became, Known, Record};
use super::watching::Listener;
use super::*;

const NODES: u8 = 3;
pub(super) const JOBS: usize = 3;

/// A node, with what it thinks.
#[derive(Default)]
struct Actor {
    session: SessionId,
    life: u64,
    listener: Listener,
}

#[derive(Default)]
struct World {
    log: Log,
    /// Was read from a snapshot at some time, and has been given the same commands since.
    twin: Machine,
    actors: BTreeMap<u8, Actor>,
    record: Record,
    runs: u8,
}

/// The jobs, by number; the last one is node 1's own.
pub(super) fn job_of(number: usize) -> JobKey {
    let own = (number == 2).then(|| node(1));
    JobKey { node: own, ..job(["a", "b", "own"][number]) }
}

impl World {
    fn give(&mut self, command: Command) -> Reply {
        let stamped = Stamped {
            at: LedgerTime::default() + self.log.now,
            command: command.clone(),
            wall: Wall(1_000_000).plus(self.log.now),
        };
        let reply = self.log.give(command);
        assert_eq!(self.twin.apply(self.log.machine.applied(), &stamped), reply, "{stamped:?}");
        reply
    }

    fn actor(&mut self, who: u8) -> &mut Actor {
        self.actors.entry(who).or_default()
    }

    fn act(&mut self, act: &Act) {
        match act.clone() {
            Act::Open { who, is_new_life } => self.open(who, is_new_life),
            Act::Close { who } => self.close(who),
            Act::Grant { job, who, is_taken } => self.grant(&job_of(job), who, is_taken),
            Act::Release { who, job } => self.release(who, &job_of(job)),
            Act::GrantSingleton { who } => self.grant_singleton(who),
            Act::ReleaseSingleton { who } => self.release_singleton(who),
            Act::Listen { who } => self.listen(who),
            Act::Decide { who, job, is_informed, gap, claim } => {
                self.decide(who, &job_of(job), is_informed, gap, claim);
            }
            Act::ClaimAsked { who, job, overlap } => self.claim_asked(who, &job_of(job), overlap),
            Act::Ask { job, request } => self.ask(&job_of(job), request),
            Act::Started { job, run, is_stale } => self.started(&job_of(job), run, is_stale),
            Act::Ended { job, run, is_stale, status, again } => self.ended(&job_of(job), run, is_stale, status, again),
            Act::Attempt { who, job, run, is_stale } => self.attempt(who, &job_of(job), run, is_stale),
            Act::Retire { job } => self.retire(&job_of(job)),
            Act::Forget { job } => self.forget(&job_of(job)),
            Act::Pass { span_ms } => {
                self.log.now += Duration::from_millis(span_ms);
                assert_eq!(self.give(Command::Tick), Reply::Done);
            }
            Act::Reload => self.twin = Machine::decode(&self.log.machine.freeze().encode()).unwrap(),
        }
        self.check();
    }

    fn open(&mut self, who: u8, is_new_life: bool) {
        let actor = self.actor(who);
        actor.life += u64::from(is_new_life);
        let life = actor.life;
        let reply = self.give(Command::Open { node: node(who), life });
        let session = match self.record.sessions.get(&who) {
            Some((session, of)) if *of == life => *session,
            before => {
                before.map(|(session, _)| *session).into_iter().for_each(|session| self.record.close(session));
                SessionId(self.log.machine.applied())
            }
        };
        assert_eq!(reply, Reply::Opened(session));
        self.record.sessions.insert(who, (session, life));
        self.actor(who).session = session;
    }

    fn close(&mut self, who: u8) {
        let session = self.actor(who).session;
        let reply = self.give(Command::Close { session });
        let expected = if self.record.is_open(session) { Reply::Done } else { Reply::Refused(Refused::NoSession) };
        assert_eq!(reply, expected);
        self.record.close(session);
    }

    fn grant(&mut self, job: &JobKey, who: u8, is_taken: bool) {
        let session = self.actor(who).session;
        let is_known = self.record.cursors.contains_key(job);
        // The moment of a deploy: after all that was ever decided, where the ledger has forgotten the job; else one that is wrong.
        let decided = self.record.slots.get(job).and_then(|slots| slots.keys().last()).copied();
        let begin = if is_known { Slot(103) } else { Slot(decided.unwrap_or(BEGIN.0)) };
        let to = (!is_taken).then_some(session);
        let reply = self.give(Command::Grant { lease: LeaseKey::Cron(job.clone()), to, begin });
        let expected = match to {
            None if is_known => Reply::Done,
            None => Reply::Refused(Refused::NoJob),
            Some(session) if !self.record.is_open(session) => Reply::Refused(Refused::NoSession),
            Some(_) if job.node.is_some_and(|own| own != node(who)) => Reply::Refused(Refused::Malformed),
            Some(_) => Reply::Done,
        };
        assert_eq!(reply, expected);
        if reply != Reply::Done {
            return;
        }
        self.record.holders.remove(job);
        if let Some(session) = to {
            self.record.holders.insert(job.clone(), session);
            let cursor = *self.record.cursors.entry(job.clone()).or_insert(begin);
            if self.record.retired.remove(job) && cursor < begin {
                (cursor.0 + 1..=begin.0).for_each(|slot| self.record.became(job, slot, Became::Nothing));
                self.record.cursors.insert(job.clone(), begin);
            }
        }
    }

    fn release(&mut self, who: u8, job: &JobKey) {
        let session = self.actor(who).session;
        let reply = self.give(Command::Release { lease: LeaseKey::Cron(job.clone()), session });
        let expected = match self.record.holders.get(job) {
            _ if !self.record.is_open(session) => Reply::Refused(Refused::NoSession),
            Some(holder) if *holder == session => Reply::Done,
            _ => Reply::Refused(Refused::NotHolder),
        };
        assert_eq!(reply, expected);
        if reply == Reply::Done {
            self.record.holders.remove(job);
        }
    }

    fn grant_singleton(&mut self, who: u8) {
        let session = self.actor(who).session;
        let reply = self.give(Command::Grant { lease: singleton("db"), to: Some(session), begin: BEGIN });
        let expected = match self.record.singleton {
            _ if !self.record.is_open(session) => Reply::Refused(Refused::NoSession),
            Some(holder) if holder != session => Reply::Refused(Refused::Held),
            _ => Reply::Done,
        };
        assert_eq!(reply, expected);
        if reply == Reply::Done {
            self.record.singleton = Some(session);
        }
    }

    fn release_singleton(&mut self, who: u8) {
        let session = self.actor(who).session;
        if self.give(Command::Release { lease: singleton("db"), session }) == Reply::Done {
            assert_eq!(self.record.singleton.take(), Some(session));
        }
    }

    /// What a node was told bit by bit is the whole, by the machine and by its twin.
    fn listen(&mut self, who: u8) {
        let (mut of_twin, mut whole) = (Listener::default(), Listener::default());
        let machine = &self.log.machine;
        let actor = self.actors.entry(who).or_default();
        std::mem::swap(&mut of_twin, &mut actor.listener);
        let mut listener =
            Listener { known: of_twin.known, jobs: of_twin.jobs.clone(), singletons: of_twin.singletons.clone() };
        of_twin.listen(&self.twin, &node(who));
        listener.listen(machine, &node(who));
        whole.listen(machine, &node(who));
        assert_eq!(listener, whole);
        assert_eq!(of_twin, whole);
        actor.listener = listener;
    }

    fn draw(&mut self) -> RunId {
        self.runs += 1;
        run_id(self.runs)
    }

    fn decide(
        &mut self,
        who: u8,
        job: &JobKey,
        is_informed: bool,
        gap: u64,
        claim_as: Option<(Overlap, OnNodeLoss, u32)>,
    ) {
        if is_informed {
            self.listen(who);
        }
        let actor = self.actor(who);
        let (session, known) = (actor.session, actor.listener.jobs.get(job).map(|concern| concern.cursor));
        let cursor = known.unwrap_or(BEGIN);
        let last = cursor.0 + gap;
        let gaps: Vec<Gap> = (gap > 0).then(|| missed(cursor.0 + 1, last)).into_iter().collect();
        let claim = claim_as.map(|(overlap, on_node_loss, attempts_max)| {
            let one = claim(last + 1, 1);
            Claim { run: self.draw(), overlap, on_node_loss, attempts_max, history_limit: 1_000, ..one }
        });
        let upto = if claim.is_some() { Slot(last + 1) } else { Slot(last) };
        let decide = Decide { job: job.clone(), session, cursor, gaps, claim: claim.clone(), upto };
        let open = self.log.machine.account(job).map(|account| account.runs).unwrap_or_default();
        let in_the_way = open.iter().rev().find(|run| run.end.is_none()).map(|run| run.id);
        let reply = self.give(Command::Decide(decide));

        if let Some(refused) = self.refusal(job, session, cursor) {
            assert_eq!(reply, Reply::Refused(refused));
            return;
        }
        match (&claim, in_the_way) {
            (None, _) if gap == 0 => return assert_eq!(reply, Reply::Refused(Refused::Malformed)),
            (None, _) => assert_eq!(reply, Reply::Done),
            (Some(claim), Some(run)) if claim.overlap == Overlap::Skip => assert_eq!(reply, Reply::Skipped(run)),
            (Some(claim), _) => self.granted(job, claim, &reply),
        }
        (cursor.0 + 1..=last).for_each(|slot| self.record.became(job, slot, Became::Gap));
        if let Some(claim) = &claim {
            let what = if matches!(reply, Reply::Granted(_)) { Became::Run(claim.run) } else { Became::Gap };
            self.record.became(job, upto.0, what);
        }
        self.record.cursors.insert(job.clone(), upto);
    }

    /// Why whoever decides may not, by the record.
    fn refusal(&self, job: &JobKey, session: SessionId, cursor: Slot) -> Option<Refused> {
        let actual = self.record.cursors.get(job).copied();
        match actual {
            _ if !self.record.is_open(session) => Some(Refused::NoSession),
            None => Some(Refused::NoJob),
            _ if self.record.holders.get(job) != Some(&session) => Some(Refused::NotHolder),
            Some(actual) if actual != cursor => Some(Refused::Cursor(actual)),
            Some(_) => None,
        }
    }

    fn granted(&mut self, job: &JobKey, claim: &Claim, reply: &Reply) {
        let Reply::Granted(fence) = reply else { panic!("{reply:?} for {claim:?} of {job:?}") };
        self.record.fence(*fence);
        let known = Known {
            fences: vec![*fence],
            ended: BTreeSet::new(),
            attempts_max: claim.attempts_max,
            on_node_loss: claim.on_node_loss,
            end: None,
        };
        assert!(self.record.runs.insert(claim.run, known).is_none());
    }

    fn claim_asked(&mut self, who: u8, job: &JobKey, overlap: Overlap) {
        self.listen(who);
        let actor = self.actor(who);
        let Some(concern) = actor.listener.jobs.get(job) else { return };
        let Some(asked) = concern.asked.first().cloned() else { return };
        let (session, cursor) = (actor.session, concern.cursor);
        let run = self.draw();
        let claim = Claim { run, overlap, trigger: Trigger::Asked(asked.request), history_limit: 1_000, ..claim(0, 1) };
        let decide =
            Decide { job: job.clone(), session, cursor, gaps: Vec::new(), claim: Some(claim.clone()), upto: cursor };
        let reply = self.give(Command::Decide(decide));
        match self.refusal(job, session, cursor) {
            Some(refused) => assert_eq!(reply, Reply::Refused(refused)),
            None if matches!(reply, Reply::Skipped(_)) => assert_eq!(overlap, Overlap::Skip),
            None => self.granted(job, &claim, &reply),
        }
    }

    fn ask(&mut self, job: &JobKey, request: u8) {
        let reply = self.give(Command::Ask { job: job.clone(), request: [request; 16], at: Wall(1) });
        let is_there = self.record.cursors.contains_key(job) && !self.record.retired.contains(job);
        assert_eq!(reply, if is_there { Reply::Done } else { Reply::Refused(Refused::NoJob) });
    }

    /// Some run of the job, and one of the fences that it has had.
    fn pick(&self, job: &JobKey, pick: Pick, is_stale: bool) -> Option<(RunId, Fence)> {
        let runs = self.log.machine.account(job)?.runs;
        let run = pick.get(runs.get(..).filter(|runs| !runs.is_empty())?).id;
        let fences = &self.record.runs[&run].fences;
        Some((run, if is_stale { fences[0] } else { *fences.last()? }))
    }

    fn is_current(&self, run: RunId, fence: Fence) -> bool {
        let known = &self.record.runs[&run];
        known.end.is_none() && known.fences.last() == Some(&fence)
    }

    fn started(&mut self, job: &JobKey, pick: Pick, is_stale: bool) {
        let Some((run, fence)) = self.pick(job, pick, is_stale) else { return };
        let is_current = self.is_current(run, fence);
        let reply = self.give(Command::Started { job: job.clone(), run, fence, at: Wall(1) });
        assert!(is_current || reply == Reply::Refused(Refused::PassedOver), "{reply:?}");
    }

    fn ended(&mut self, job: &JobKey, pick: Pick, is_stale: bool, status: RunStatus, again: bool) {
        let Some((run, fence)) = self.pick(job, pick, is_stale) else { return };
        let (is_current, end) = (self.is_current(run, fence), ended_as(status));
        let reply = self.give(Command::Ended { job: job.clone(), run, fence, end: end.clone(), again });
        let known = self.record.runs.get_mut(&run).unwrap();
        if is_current {
            assert_eq!(reply, Reply::Done);
            known.ended.insert(fence);
        } else {
            let is_repeated = known.fences.last() == Some(&fence) && known.end == Some(end);
            let expected = if is_repeated { Reply::Done } else { Reply::Refused(Refused::PassedOver) };
            assert_eq!(reply, expected);
        }
    }

    fn attempt(&mut self, who: u8, job: &JobKey, pick: Pick, is_stale: bool) {
        let Some((run, fence)) = self.pick(job, pick, is_stale) else { return };
        let (session, is_current) = (self.actor(who).session, self.is_current(run, fence));
        let Reply::Granted(later) = self.give(Command::Attempt { job: job.clone(), run, fence, session }) else {
            return;
        };
        assert!(is_current && self.record.is_open(session));
        self.record.fence(later);
        let known = self.record.runs.get_mut(&run).unwrap();
        let is_over = known.ended.contains(&fence);
        assert!(is_over || known.on_node_loss == OnNodeLoss::Rerun, "attempts overlap on nobody's word");
        known.fences.push(later);
        let reruns = if known.on_node_loss == OnNodeLoss::Rerun { 3 } else { 0 };
        assert!(known.fences.len() as u32 <= known.attempts_max + reruns);
    }

    fn retire(&mut self, job: &JobKey) {
        let reply = self.give(Command::Retire { job: job.clone() });
        if self.record.cursors.contains_key(job) {
            assert_eq!(reply, Reply::Done);
            self.record.holders.remove(job);
            self.record.retired.insert(job.clone());
        } else {
            assert_eq!(reply, Reply::Refused(Refused::NoJob));
        }
    }

    fn forget(&mut self, job: &JobKey) {
        let account = self.log.machine.account(job);
        if self.give(Command::Forget { job: job.clone() }) == Reply::Done {
            assert!(self.record.retired.remove(job));
            assert!(account.unwrap().runs.iter().all(|run| run.end.is_some()));
            self.record.cursors.remove(job);
        }
    }

    /// What holds after each command.
    fn check(&mut self) {
        assert_eq!(self.twin, self.log.machine);
        check_index(&self.log.machine);
        check_index(&self.twin);
        for number in 0..JOBS {
            let job = job_of(number);
            let account = self.log.machine.account(&job);
            assert_eq!(account.as_ref().map(|account| account.cursor), self.record.cursors.get(&job).copied());
            let holder = self.log.machine.holder(&LeaseKey::Cron(job.clone()));
            assert_eq!(holder, self.record.holders.get(&job).copied());
            for run in account.into_iter().flat_map(|account| account.runs) {
                self.check_run(&run);
            }
        }
        assert_eq!(self.log.machine.holder(&singleton("db")), self.record.singleton);
    }

    fn check_run(&mut self, run: &Run) {
        let known = self.record.runs.get_mut(&run.id).unwrap();
        assert_eq!(known.fences.last(), Some(&run.fence));
        assert_eq!(known.fences.len() as u32, run.attempt);
        if known.end.is_some() {
            assert_eq!(known.end, run.end, "an end is final");
        }
        known.end = run.end.clone();
        if run.end.is_none() && !run.is_waiting() {
            let is_here = run.node.is_some_and(|node| self.log.machine.session_of(&node).is_some());
            assert_ne!(is_here, run.orphaned.is_some(), "{run:?}");
        }
        let time = self.log.machine.time();
        assert!(run.orphaned.is_none_or(|since| time < since + ORPHAN_GRACE), "{run:?}");
    }

    /// Every slot up to the cursor is in a run or in a gap, as it was decided.
    fn check_histories(&self) {
        for job in self.record.cursors.keys() {
            let account = self.log.machine.account(job).unwrap();
            let remembered = account.runs.iter().filter_map(|run| match run.trigger {
                Trigger::Slot(slot) => Some((slot.0, Became::Run(run.id))),
                Trigger::Asked(_) => None,
            });
            let gaps = account.gaps.iter().flat_map(|gap| (gap.first.0..=gap.last.0).map(|slot| (slot, Became::Gap)));
            let mut found = BTreeMap::new();
            for (slot, became) in remembered.chain(gaps) {
                assert_eq!(found.insert(slot, became), None, "slot {slot} is in two places");
            }
            let of_this = |slot: &u64| found.keys().next().is_some_and(|first| slot >= first);
            let decided = self.record.slots.get(job).into_iter().flatten();
            let decided = decided.filter(|(slot, became)| **became != Became::Nothing && of_this(slot));
            assert_eq!(decided.map(|(slot, became)| (*slot, *became)).collect::<BTreeMap<_, _>>(), found);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_slot_is_decided_twice_whoever_says_what_and_when(acts in proptest::collection::vec(act(), 1..160)) {
        let mut world = World::default();
        for who in 1..=NODES {
            world.act(&Act::Open { who, is_new_life: true });
        }
        for act in &acts {
            world.act(act);
        }
        world.check_histories();
    }
}
