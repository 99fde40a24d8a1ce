//! A town: hosts, what users want of them, and an agenda of what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep_until;

use super::book::{Book, Moment, Of};
use super::catalog::{Catalog, View};
use super::fabric::{Fabric, Weather};
use super::faults::{self, Fault};
use super::host::{Death, Host, Input};
use super::{DISK_PAUSE_US, Terms, node};
use crate::ledger::machine::Machine;
use crate::ledger::question::Standing;
use crate::ledger::voters::Candidate;

/// How often members hear how others fare, in milliseconds.
const NEWS_EVERY: Moment = 500;

/// How long a host is left alone after something was done to it, as far as the checker is concerned: it has to come back to itself.
const AFTERMATH: Moment = 1_500;

/// When users have deployed their jobs, and when the first fault may come.
const DEPLOYED_AT: Moment = 3_000;
const FAULTS_FROM: Moment = 9_000;

/// How often all voters are looked at, each hundredth of a second, until they have applied the same entries.
const SETTLED_WITHIN: usize = 500;

/// What is on the agenda.
enum Event {
    News,
    Deploy,
    Fault,
    Start { host: usize, life: u64 },
    GoOn { host: usize, life: u64 },
    Heal { cut: u64 },
    Clear,
    DiskWell { host: usize },
    ClockWell { host: usize },
    Watch { host: usize, life: u64, down: Moment, until: Moment },
    Hear { host: usize, view: Arc<View> },
    Back { job: usize },
    Uncordon { host: usize },
    Free { job: usize },
    Gone { host: usize },
}

pub(super) struct Town {
    terms: Terms,
    pub(super) hosts: Vec<Host>,
    pub(super) catalog: Catalog,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) fabric: Arc<Fabric>,
    random: StdRng,
    agenda: BTreeMap<(Moment, u64), Event>,
    noted: u64,
    cuts: BTreeMap<u64, BTreeSet<(usize, usize)>>,
    drained: BTreeSet<usize>,
    constrained: BTreeMap<usize, BTreeSet<usize>>,
    /// How long hosts stay down that have died between two steps, and whether their power goes with them.
    fuses: BTreeMap<usize, (bool, Moment)>,
    deaths: (UnboundedSender<Death>, UnboundedReceiver<Death>),
    is_calm: bool,
}

impl Town {
    pub(super) async fn found(terms: Terms) -> Self {
        let mut random = StdRng::seed_from_u64(terms.seed);
        let fabric = Fabric::new(random.random());
        let book = Arc::new(Mutex::new(Book::default()));
        // One more than there are members: it joins when another one leaves.
        let hosts = (0..=terms.members).map(|number| Host::new(number, random.random(), &fabric, &book)).collect();
        let catalog = Catalog::new(terms.jobs, terms.members + 1, &mut random);
        let mut town = Self {
            terms,
            hosts,
            catalog,
            book,
            fabric,
            random,
            agenda: BTreeMap::new(),
            noted: 0,
            cuts: BTreeMap::new(),
            drained: BTreeSet::new(),
            constrained: BTreeMap::new(),
            fuses: BTreeMap::new(),
            deaths: unbounded_channel(),
            is_calm: false,
        };
        for number in 0..terms.members {
            town.hosts[number].is_member = true;
            town.start(number).await;
        }
        let founder = &town.hosts[0].process.as_ref().expect("it runs").ledger;
        founder.found().await.expect("it is empty");
        town.lock().members.push((0, terms.members));
        town.note(0, Event::News);
        town.note(DEPLOYED_AT, Event::Deploy);
        town.note(FAULTS_FROM, Event::Fault);
        town
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        u64::try_from(self.fabric.began.elapsed().as_millis()).expect("a trial ends")
    }

    fn note(&mut self, after: Moment, event: Event) {
        self.noted += 1;
        self.agenda.insert((self.now() + after, self.noted), event);
    }

    /// Lives on until a moment.
    pub(super) async fn live_until(&mut self, end: Moment) {
        loop {
            let due = self.agenda.first_key_value().map_or(end, |((due, _), _)| *due).min(end);
            tokio::select! {
                biased;
                death = self.deaths.1.recv() => self.bury(death.expect("this town holds a sender")).await,
                () = sleep_until(self.fabric.began + Duration::from_millis(due)) => {
                    while self.agenda.first_key_value().is_some_and(|((due, _), _)| *due <= self.now()) {
                        let (_, event) = self.agenda.pop_first().expect("there is one");
                        self.happen(event).await;
                    }
                    if self.now() >= end {
                        return;
                    }
                }
            }
        }
    }

    /// No more faults; all that was done is undone.
    pub(super) async fn calm_down(&mut self) {
        self.is_calm = true;
        let pending = std::mem::take(&mut self.agenda);
        for ((due, number), event) in pending {
            match event {
                Event::News | Event::Hear { .. } => drop(self.agenda.insert((due, number), event)),
                Event::Fault => {}
                // Its power would go at a later write.
                Event::Watch { host, life, .. } if self.hosts[host].life != life => {}
                Event::Watch { host, .. } => self.crash(host, true, 0).await,
                other => self.happen(other).await,
            }
        }
        for number in 0..self.hosts.len() {
            if let Some(process) = &self.hosts[number].process {
                *process.fuse.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        // What has died in this very moment.
        while let Ok(death) = self.deaths.1.try_recv() {
            self.bury(death).await;
        }
        let due: Vec<_> = self.agenda.extract_if(.., |_, event| matches!(event, Event::Start { .. })).collect();
        for (_, event) in due {
            self.happen(event).await;
        }
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::News => {
                self.spread_news();
                if std::env::var_os("NARUN_TRIAL_TELL").is_some_and(|how| how == "2") {
                    self.tell();
                }
                self.note(NEWS_EVERY, Event::News);
            }
            Event::Deploy => {
                let now = self.now();
                self.catalog.deploy(now);
                self.publish();
            }
            Event::Fault => {
                let fault = faults::draw(&mut self.random, self.hosts.len(), self.catalog.jobs.len());
                self.commit(fault).await;
                let (least, most) = self.terms.calm_ms;
                let pause = self.random.random_range(least..most);
                self.note(pause, Event::Fault);
            }
            Event::Start { host, life } => {
                let of = &self.hosts[host];
                if of.life == life && of.process.is_none() && of.is_member {
                    self.start(host).await;
                }
            }
            Event::GoOn { host, life } => self.go_on(host, life),
            Event::Heal { cut } => {
                self.cuts.remove(&cut);
                self.lay_cuts();
            }
            Event::Clear => self.fabric.lock().weather = Weather::default(),
            Event::DiskWell { host } => self.hosts[host].disk_pause.store(DISK_PAUSE_US, Ordering::Relaxed),
            Event::ClockWell { host } => self.set_clock(host, 0),
            Event::Watch { host, life, down, until } => {
                let of = &self.hosts[host];
                if of.life == life && of.process.is_some() {
                    if !of.disk.has_power() {
                        self.crash(host, true, down).await;
                    } else if self.now() < until {
                        self.note(20, Event::Watch { host, life, down, until });
                    } else {
                        self.crash(host, true, down).await;
                    }
                }
            }
            Event::Hear { host, view } => self.hear(host, view),
            Event::Back { job } => {
                if self.catalog.jobs[job].now().spec.is_none() {
                    let spec = self.catalog.revised(job, &mut self.random);
                    let now = self.now();
                    self.catalog.change(job, now, Some(spec));
                    self.publish();
                }
            }
            Event::Uncordon { host } => {
                self.drained.remove(&host);
                self.publish();
            }
            Event::Free { job } => {
                self.constrained.remove(&job);
                self.publish();
            }
            Event::Gone { host } => {
                if self.hosts[host].process.is_some() {
                    self.trouble(Of::Host(host), Moment::MAX >> 1);
                    let fabric = self.fabric.clone();
                    self.hosts[host].crash(&fabric, true).await;
                }
            }
        }
    }

    /// Something is done.
    async fn commit(&mut self, fault: Fault) {
        self.lock().count(fault.name());
        if std::env::var_os("NARUN_TRIAL_TELL").is_some() {
            println!("{:>7} {fault:?}", self.now());
        }
        match fault {
            Fault::Crash { host, down } => self.crash(host, false, down).await,
            Fault::PowerCut { host, down } => self.crash(host, true, down).await,
            Fault::TornWrite { host, operations, down } => {
                if self.hosts[host].process.is_some() {
                    self.hosts[host].disk.cut_after(operations);
                    let (life, until) = (self.hosts[host].life, self.now() + 3_000);
                    self.trouble(Of::Host(host), 3_500 + down);
                    self.note(20, Event::Watch { host, life, down, until });
                }
            }
            Fault::Step { host, steps, with_power, down } => {
                if let Some(process) = &self.hosts[host].process {
                    *process.fuse.lock().unwrap_or_else(PoisonError::into_inner) = Some(steps);
                    self.fuses.insert(host, (with_power, down));
                }
            }
            Fault::Blackout { down } => {
                for host in 0..self.hosts.len() {
                    self.crash(host, true, down).await;
                }
            }
            Fault::Cut { ways, span } => {
                self.trouble(Of::Ways(ways.clone()), span);
                self.noted += 1;
                let cut = self.noted;
                self.cuts.insert(cut, ways);
                self.lay_cuts();
                self.note(span, Event::Heal { cut });
            }
            Fault::Pause { host, span } => {
                let of = &mut self.hosts[host];
                if let Some(process) = of.process.as_ref().filter(|_| !of.is_paused) {
                    process.gate.shut();
                    of.is_paused = true;
                    of.down_since = Some(of.clock.moment());
                    let life = of.life;
                    self.trouble(Of::Host(host), span);
                    self.note(span, Event::GoOn { host, life });
                }
            }
            Fault::Clock { host, ahead, span } => {
                if self.hosts[host].clock.ahead() == 0 {
                    self.trouble(Of::Host(host), span);
                    self.trouble(Of::Clock, span);
                    self.set_clock(host, ahead);
                    self.note(span, Event::ClockWell { host });
                }
            }
            Fault::Weather { weather, span } => {
                self.trouble(Of::Weather, span);
                self.fabric.lock().weather = weather;
                self.note(span, Event::Clear);
            }
            Fault::SlowDisk { host, pause, span } => {
                self.trouble(Of::Host(host), span + pause / 500);
                self.hosts[host].disk_pause.store(pause, Ordering::Relaxed);
                self.note(span, Event::DiskWell { host });
            }
            Fault::Redeploy { job } => {
                if self.catalog.jobs[job].now().spec.is_some() {
                    let (spec, now) = (self.catalog.revised(job, &mut self.random), self.now());
                    self.catalog.change(job, now, Some(spec));
                    self.publish();
                }
            }
            Fault::Delete { job, back_after } => {
                if self.catalog.jobs[job].now().spec.is_some() {
                    let now = self.now();
                    self.catalog.change(job, now, None);
                    self.publish();
                    self.note(back_after, Event::Back { job });
                }
            }
            Fault::Drain { host, span } => {
                if self.drained.insert(host) {
                    self.publish();
                    self.note(span, Event::Uncordon { host });
                }
            }
            Fault::Constrain { job, to, span } => {
                if self.constrained.insert(job, to).is_none() {
                    self.note(span, Event::Free { job });
                }
                self.publish();
            }
            Fault::Succeed => self.succeed().await,
        }
    }

    /// A member leaves, and the host that was none joins.
    async fn succeed(&mut self) {
        let Some(comes) = (0..self.hosts.len()).find(|host| self.hosts[*host].life == 0) else { return };
        let goes = self.random.random_range(0..self.terms.members);
        self.hosts[comes].is_member = true;
        self.start(comes).await;
        self.hosts[goes].is_member = false;
        self.spread_news();
        self.publish();
        // It hears of its removal, and ends.
        self.note(3_000, Event::Gone { host: goes });
    }

    fn trouble(&mut self, of: Of, span: Moment) {
        let now = self.now();
        self.lock().trouble(of, now, now + span + AFTERMATH);
    }

    async fn start(&mut self, host: usize) {
        let (fabric, book, deaths) = (self.fabric.clone(), self.book.clone(), self.deaths.0.clone());
        let every = self.terms.snapshot_every;
        self.hosts[host].start((&fabric, &book), every, &deaths).await;
        self.spread_news();
    }

    /// A process ends, or a host, and comes back after a while.
    async fn crash(&mut self, host: usize, with_power: bool, down: Moment) {
        if self.hosts[host].process.is_none() {
            return;
        }
        self.trouble(Of::Host(host), down);
        let fabric = self.fabric.clone();
        self.hosts[host].crash(&fabric, with_power).await;
        self.fuses.remove(&host);
        let life = self.hosts[host].life;
        let after = if self.is_calm { 0 } else { down };
        self.note(after, Event::Start { host, life });
        self.spread_news();
    }

    async fn bury(&mut self, death: Death) {
        let (with_power, down) = self.fuses.remove(&death.host).unwrap_or((false, 0));
        if self.hosts[death.host].life == death.life {
            self.crash(death.host, with_power, down).await;
        }
    }

    fn go_on(&mut self, host: usize, life: u64) {
        let of = &mut self.hosts[host];
        if let Some(process) = of.process.as_ref().filter(|_| of.life == life && of.is_paused) {
            (of.is_paused, of.down_since) = (false, None);
            process.gate.open();
        }
    }

    fn lay_cuts(&self) {
        let ways = self.cuts.values().flatten();
        self.fabric.lock().cut = ways.map(|(from, to)| (node(*from), node(*to))).collect();
    }

    fn set_clock(&mut self, host: usize, ahead: i64) {
        self.hosts[host].clock.set_ahead(ahead);
        if let Some(process) = &self.hosts[host].process {
            // Fails where the node has just died.
            let _ = process.inbox.send(Input::ClockStepped);
        }
    }

    /// Every host hears of the catalog in its own time, some much later.
    fn publish(&mut self) {
        let (drained, constrained) = (self.drained.clone(), self.constrained.clone());
        let members: Vec<bool> = self.hosts.iter().map(|host| host.is_member).collect();
        let may_have = |job: usize, host: usize| {
            members[host] && !drained.contains(&host) && constrained.get(&job).is_none_or(|to| to.contains(&host))
        };
        let now = self.now();
        let view = self.catalog.publish(now, may_have);
        for host in 0..self.hosts.len() {
            let late = self.random.random_range(0..12) == 0;
            let after = self.random.random_range(if late { 5_000..super::VIEW_LAG } else { 5..2_000 });
            self.note(after, Event::Hear { host, view: view.clone() });
        }
    }

    fn hear(&mut self, host: usize, view: Arc<View>) {
        let of = &self.hosts[host];
        {
            let mut known = of.view.lock().unwrap_or_else(PoisonError::into_inner);
            if known.version >= view.version {
                return;
            }
            *known = view.clone();
        }
        if let Some(process) = &of.process {
            process.ledger.wants(view.wants.clone());
            let names = self.catalog.jobs.iter().map(|job| job.key.name.clone()).collect();
            // Fails where the node has just died.
            let _ = process.inbox.send(Input::Specs(names));
        }
    }

    /// Prints how everybody sees the group.
    fn tell(&self) {
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else { continue };
            let standing = process.ledger.standing().borrow().clone();
            let machine = process.ledger.machine();
            let sessions: Vec<_> = machine.sessions().map(|(_, node)| self.numbers(&[node])).collect();
            println!(
                "{:>7} host {number}: voters {:?} learners {:?} leader {:?} term {} applied {} time {} sessions {sessions:?}",
                self.now(),
                self.numbers(&standing.voters),
                self.numbers(&standing.learners),
                standing.leader.map(|leader| self.numbers(&[leader])),
                standing.term,
                standing.applied,
                machine.time().0,
            );
        }
    }

    /// Everybody hears how the members fare, as far as one can see.
    fn spread_news(&mut self) {
        let cut: BTreeSet<(usize, usize)> = self.cuts.values().flatten().copied().collect();
        let sees = |a: usize, b: usize| !cut.contains(&(a, b)) && !cut.contains(&(b, a));
        let members: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].is_member).collect();
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else { continue };
            let candidate = |other: &usize| {
                let of = &self.hosts[*other];
                let is_reached = number == *other
                    || sees(number, *other)
                    || members.iter().any(|third| {
                        self.hosts[*third].down_since.is_none() && sees(number, *third) && sees(*third, *other)
                    });
                let down_for =
                    of.down_since.filter(|_| number != *other).map(|since| Duration::from_millis(self.now() - since));
                let down_for = if is_reached { down_for } else { down_for.or(Some(Duration::ZERO)) };
                Candidate { node: of.key, down_for, can_vote: true }
            };
            process.ledger.members(members.iter().map(candidate).collect());
        }
        let leader = self.leader();
        let standing = leader.as_ref().map(|(_, standing)| standing);
        let (now, count) = (self.now(), members.len());
        let voters = standing.map(|standing| self.numbers(&standing.voters));
        let mut book = self.lock();
        if let Some((leader, _)) = leader
            && book.leaders.last().is_none_or(|(_, before)| *before != leader)
        {
            book.leaders.push((now, leader));
        }
        if let Some(voters) = voters {
            book.see_voters(now, voters);
        }
        if book.members.last().is_none_or(|(_, before)| *before != count) {
            book.members.push((now, count));
        }
    }

    fn numbers(&self, nodes: &[crate::ids::NodeKey]) -> BTreeSet<usize> {
        (0..self.hosts.len()).filter(|host| nodes.contains(&self.hosts[*host].key)).collect()
    }

    /// Whoever leads by its own word.
    fn leaders(&self) -> BTreeSet<usize> {
        let leads = |host: &usize| {
            let process = self.hosts[*host].process.as_ref();
            process.is_some_and(|process| process.ledger.standing().borrow().leader == Some(self.hosts[*host].key))
        };
        (0..self.hosts.len()).filter(leads).collect()
    }

    /// The one of these with the latest term.
    pub(super) fn leader(&self) -> Option<(usize, Standing)> {
        let standing = |host: usize| {
            let process = self.hosts[host].process.as_ref().expect("it leads");
            (host, process.ledger.standing().borrow().clone())
        };
        self.leaders().into_iter().map(standing).max_by_key(|(_, standing)| standing.term)
    }

    /// The machines of all who vote, once all is calm.
    pub(super) fn machines(&self) -> Vec<(usize, Machine)> {
        let voters = self.leader().map(|(_, standing)| self.numbers(&standing.voters)).unwrap_or_default();
        let machine = |host: usize| {
            let process = self.hosts[host].process.as_ref()?;
            Some((host, process.ledger.machine()))
        };
        voters.into_iter().filter_map(machine).collect()
    }

    /// The same, once all of them have applied the same entries, which they do within moments; or as they are.
    pub(super) async fn settled_machines(&mut self) -> Vec<(usize, Machine)> {
        for _ in 0..SETTLED_WITHIN {
            let machines = self.machines();
            let applied: BTreeSet<u64> = machines.iter().map(|(_, machine)| machine.applied()).collect();
            if applied.len() == 1 {
                return machines;
            }
            let next = self.now() + 10;
            self.live_until(next).await;
        }
        self.machines()
    }

    /// All that was sent, started and ended, in one number.
    pub(super) fn trace(&self) -> String {
        let mut trace = blake3::Hasher::new();
        trace.update(self.fabric.trace().0.as_bytes());
        for start in &self.lock().starts {
            let end = start.end.map(|end| end.at).unwrap_or_default();
            trace.update(&start.attempt.0).update(&start.at.to_be_bytes()).update(&end.to_be_bytes());
        }
        trace.finalize().to_hex().to_string()
    }

    /// Everything ends.
    pub(super) async fn end(mut self) {
        let fabric = self.fabric.clone();
        for host in &mut self.hosts {
            host.crash(&fabric, true).await;
        }
        self.fabric.close_all();
    }
}
