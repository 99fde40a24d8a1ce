//! The keeper's table of runs: what is done to one at a start, at output, at an end. Shell.

use std::path::PathBuf;

use nix::sys::epoll::{Epoll, EpollEvent};

use super::{INSTANCES_MAX, Keeper, Token};
use crate::confinement::Confinement;
use crate::exec::keeper::instance::{Instance, News, Part};
use crate::exec::keeper::message::{Event, VERSION_CONFINES};
use crate::exec::keeper::spawn::Grouping;
use crate::exec::logs::writer::{LogWriter, OpenError};
use crate::exec::plan::{LaunchPlan, Stop};
use crate::ids::RunId;

impl Keeper {
    pub(super) fn launch(&mut self, mut plan: LaunchPlan) {
        let run = plan.run;
        if self.setup.options.speak_at_most < VERSION_CONFINES {
            // As a keeper that passes over fields that it does not know.
            plan = LaunchPlan { confinement: Confinement::default(), identity: None, stop: Stop::default(), ..plan };
        }
        if let Some(instance) = self.instances.get(&run) {
            // Asked twice: answered from the table, or later when the start has come to something.
            let (launched, over, enforced) = (instance.launched(), instance.over(), instance.enforced().clone());
            if let Some((pid, at)) = launched {
                self.tell(Event::Launched { run, pid, at, enforced });
            }
            if let Some(ended) = over {
                self.tell(Event::Exited { run, ended });
            }
            return;
        }
        if let Err(error) = self.try_launch(plan) {
            self.tell(Event::LaunchFailed { run, error });
        }
    }

    fn try_launch(&mut self, plan: LaunchPlan) -> Result<(), String> {
        if self.ending_by.is_some() {
            return Err("the keeper is ending".to_owned());
        }
        if self.instances.len() >= INSTANCES_MAX {
            return Err(format!("this host holds {INSTANCES_MAX} instances already, which is the limit"));
        }
        let (run, log_dir) = (plan.run, plan.log_dir.clone());
        if plan.lease_until.is_some_and(|until| until <= super::boot_clock()) {
            return Err("its lease was over before it could start".to_owned());
        }
        self.open_log(&log_dir).map_err(|e| e.to_string())?;
        self.next_number += 1;
        let number = self.next_number;
        let instance = match Instance::start(plan, number, &mut self.setup.means) {
            Ok(instance) => instance,
            Err(error) => {
                self.close_log(&log_dir);
                return Err(error.to_string());
            }
        };
        for part in Part::ALL {
            Self::wait_on(&self.epoll, &instance, number, part);
        }
        self.leases.extend(instance.plan().lease_until.map(|until| (run, until)));
        self.numbers.insert(number, run);
        self.children.insert(instance.child(), run);
        self.instances.insert(run, instance);
        Ok(())
    }

    fn wait_on(epoll: &Epoll, instance: &Instance, number: u64, part: Part) {
        let token = Token::Instance(number, part).number();
        if let Some(fd) = instance.part(part)
            && let Err(error) = epoll.add(fd, EpollEvent::new(part.interest(), token))
        {
            // Out of kernel memory or of watches (epoll(7)). Its end is noticed all the same, and drains its pipes.
            tracing::error!(instance = %instance.plan().instance, ?part, %error, "cannot wait on a descriptor");
        }
    }

    fn open_log(&mut self, dir: &PathBuf) -> Result<(), OpenError> {
        if let Some((_, users)) = self.logs.get_mut(dir) {
            *users += 1;
            return Ok(());
        }
        self.logs.insert(dir.clone(), (LogWriter::open(dir)?, 1));
        Ok(())
    }

    fn close_log(&mut self, dir: &PathBuf) {
        if let Some((_, users)) = self.logs.get_mut(dir) {
            *users -= 1;
            if *users == 0 {
                self.logs.remove(dir);
            }
        }
    }

    pub(super) fn serve_instance(&mut self, number: u64, part: Part) {
        let Some(run) = self.numbers.get(&number).copied() else { return self.serve_lingering(number) };
        match part {
            Part::Stdout | Part::Stderr => self.copy_output(run, part),
            Part::Report => self.read_report(run),
            Part::Forward => {
                if let Some(instance) = self.instances.get_mut(&run) {
                    instance.serve_ports();
                }
            }
            // What empties a group is looked at below, for all that are ending.
            Part::Group => {}
        }
    }

    /// Connections that outlast their instance.
    fn serve_lingering(&mut self, number: u64) {
        let Some(forward) = self.lingering.get_mut(&number) else { return };
        forward.serve();
        if forward.is_over() {
            self.lingering.remove(&number);
        }
    }

    fn copy_output(&mut self, run: RunId, part: Part) {
        let Some(instance) = self.instances.get_mut(&run) else { return };
        let Some((log, _)) = self.logs.get_mut(&instance.plan().log_dir) else { return };
        if !instance.copy_output(part, log) {
            Self::close_part(&self.epoll, instance, part);
        }
    }

    pub(super) fn read_report(&mut self, run: RunId) {
        let Some(instance) = self.instances.get_mut(&run) else { return };
        let news = instance.read_report();
        if instance.report_is_over() {
            Self::close_part(&self.epoll, instance, Part::Report);
        }
        if news == Some(News::Launched)
            && let Some((pid, at)) = instance.launched()
        {
            tracing::info!(instance = %instance.plan().instance, %run, pid, "launched");
            let enforced = instance.enforced().clone();
            if let Some((number, _)) = self.numbers.iter().find(|(_, numbered)| **numbered == run) {
                Self::wait_on(&self.epoll, instance, *number, Part::Forward);
            }
            self.tell(Event::Launched { run, pid, at, enforced });
        }
    }

    /// Closes the books on a run whose child was reaped, if its tree has gone.
    pub(super) fn finish(&mut self, run: RunId) {
        let Some(instance) = self.instances.get_mut(&run) else { return };
        let Some(news) = instance.finish() else { return };
        if let Some((log, _)) = self.logs.get_mut(&instance.plan().log_dir) {
            instance.drain(log);
        }
        let number = self.numbers.iter().find(|(_, numbered)| **numbered == run).map(|(number, _)| *number);
        if let (Some(mut forward), Some(number)) = (instance.take_forward(), number) {
            forward.end();
            if !forward.is_over() {
                self.lingering.insert(number, forward);
            }
        }
        for part in Part::ALL {
            Self::close_part(&self.epoll, instance, part);
        }
        let (log_dir, name) = (instance.plan().log_dir.clone(), instance.plan().instance.to_string());
        let number = instance.number();
        self.close_log(&log_dir);
        self.leases.remove(&run);
        self.numbers.remove(&number);
        self.ending.remove(&run);
        // Out of a PID namespace nothing gets.
        if matches!(self.setup.means.grouping, Grouping::Groups { .. }) {
            self.escapees.look();
        }
        match news {
            News::Over(ended) => {
                tracing::info!(instance = name, %run, code = ended.code, signal = ended.signal, "exited");
                self.tell(Event::Exited { run, ended });
            }
            News::Failed(error) => {
                tracing::warn!(instance = name, %run, error, "launch failed");
                self.instances.remove(&run);
                self.tell(Event::LaunchFailed { run, error });
            }
            News::Launched => unreachable!("only a report says that a program runs"),
        }
    }

    fn close_part(epoll: &Epoll, instance: &mut Instance, part: Part) {
        if let Some(fd) = instance.part(part) {
            // Not waited on in the first place, at worst.
            let _ = epoll.delete(fd);
        }
        instance.close(part);
    }

    pub(super) fn acknowledge(&mut self, run: RunId) {
        if self.instances.get(&run).is_some_and(|instance| !instance.is_alive()) {
            self.instances.remove(&run);
        }
    }
}
