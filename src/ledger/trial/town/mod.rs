//! A town: hosts, what users want of them, and an agenda of what is done to them.
//!
//! `deeds` is how each fault is made, `sights` what can be seen of the group, by its members and by whoever tries it.

mod deeds;
mod sights;

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
use super::host::{Death, Host, Input};
use super::{DISK_PAUSE_US, Terms, node};

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
        town.note_fault(FAULTS_FROM);
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

    /// The next fault comes at that moment or soon after it, as the life leans.
    fn note_fault(&mut self, earliest: Moment) {
        let moment = self.terms.leaning.moment(&mut self.random, earliest);
        self.note(moment - self.now(), Event::Fault);
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
                let target = self.target();
                let fault = self.terms.leaning.draw(&mut self.random, &target);
                self.commit(fault).await;
                let (least, most) = self.terms.calm_ms;
                let earliest = self.now() + self.random.random_range(least..most);
                self.note_fault(earliest);
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
