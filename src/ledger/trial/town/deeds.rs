//! How each fault is made.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rand::RngExt;

use super::{Event, Town};
use crate::ledger::trial::book::Of;
use crate::ledger::trial::faults::Fault;

impl Town {
    /// Something is done.
    pub(super) async fn commit(&mut self, fault: Fault) {
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
            Fault::Outage { hosts, with_power, down } => {
                for host in hosts {
                    self.crash(host, with_power, down).await;
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
}
