//! The keeper's loop: one thread, one wait, one table. Shell.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use super::escape::Escapees;
use super::instance::{Instance, Part};
use super::message::{self, Event, Request};
use super::node::Node;
use super::spawn::{Grouping, Means, next_ended};
use super::{KeeperError, Options, SHUTDOWN_GRACE_MAX, peer, socket};
use crate::exec::forward::Forward;
use crate::exec::logs::writer::LogWriter;
use crate::exec::plan::Kept;
use crate::ids::RunId;
use crate::time::Mono;

/// Most runs in the table. Each takes five descriptors, and the usual hard limit of them is 20,000 or more.
pub(super) const INSTANCES_MAX: usize = 4096;

/// How many events one wait gives at most; the rest comes with the next.
const EVENTS_MAX: usize = 256;

/// How many requests of the node are served before the instances' output gets its turn.
const REQUESTS_MAX: usize = 64;

/// How many instances are told in one message: few enough that most such messages fit a packet.
const HOLDING_PART: usize = 8;

/// How long a killed tree may take to go before a keeper that is ending gives it up: only a process that hangs in the kernel
/// takes longer than milliseconds.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// How soon a tree whose end was missed is looked at again. The kernel tells when a group empties; this is for kernels that
/// do so too early.
const TREE_RECHECK: Duration = Duration::from_millis(100);

/// What a keeper is made of.
pub(super) struct Setup {
    pub(super) listener: OwnedFd,
    pub(super) signals: SignalFd,
    pub(super) means: Means,
    pub(super) options: Options,
}

/// The keeper.
pub(super) struct Keeper {
    setup: Setup,
    epoll: Epoll,
    node: Option<Node>,
    instances: BTreeMap<RunId, Instance>,
    /// The runs whose child was not reaped yet, by the child's number.
    children: BTreeMap<Pid, RunId>,
    /// The runs whose child was reaped and whose tree is awaited.
    ending: BTreeSet<RunId>,
    /// The runs that are to be killed if they have not ended by then.
    kills: BTreeSet<(Instant, RunId)>,
    /// When the leases of runs end that have one.
    leases: BTreeMap<RunId, Mono>,
    /// The runs by the numbers that their descriptors are waited on with; numbers are never used again.
    numbers: BTreeMap<u64, RunId>,
    next_number: u64,
    escapees: Escapees,
    /// Connections of instances that are over, by the same numbers: what was sent is still to be delivered.
    lingering: BTreeMap<u64, Forward>,
    /// Open logs by their folders, with how many runs write there.
    logs: BTreeMap<PathBuf, (LogWriter, usize)>,
    /// Since when no node is connected.
    alone_since: Option<Instant>,
    /// The keeper is ending; by when all must be over.
    ending_by: Option<Instant>,
}

/// What became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Signals,
    Listener,
    Node,
    Instance(u64, Part),
}

impl Token {
    /// The number for epoll: the kind or part in the low three bits.
    fn number(self) -> u64 {
        match self {
            Token::Signals => 0,
            Token::Listener => 1,
            Token::Node => 2,
            Token::Instance(number, part) => number << 3 | (3 + part as u64),
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(match number & 7 {
            0 => Token::Signals,
            1 => Token::Listener,
            2 => Token::Node,
            kind => Token::Instance(number >> 3, *Part::ALL.get(usize::try_from(kind - 3).ok()?)?),
        })
    }
}

impl Keeper {
    pub(super) fn new(setup: Setup) -> Result<Self, KeeperError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(KeeperError::Wait)?;
        let wait_on = |fd: &dyn AsFd, token: Token| {
            epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token.number())).map_err(KeeperError::Wait)
        };
        wait_on(&setup.signals, Token::Signals)?;
        wait_on(&setup.listener, Token::Listener)?;
        Ok(Self {
            setup,
            epoll,
            node: None,
            instances: BTreeMap::new(),
            children: BTreeMap::new(),
            ending: BTreeSet::new(),
            kills: BTreeSet::new(),
            leases: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            escapees: Escapees::default(),
            lingering: BTreeMap::new(),
            logs: BTreeMap::new(),
            alone_since: Some(Instant::now()),
            ending_by: None,
        })
    }

    /// How instances are held together.
    pub(super) fn grouping(&self) -> &Grouping {
        &self.setup.means.grouping
    }

    /// Serves until told to end and all instances are over.
    pub(super) fn serve(&mut self) -> Result<(), KeeperError> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let timeout = self.next_deadline().map_or(EpollTimeout::NONE, timeout_until);
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(e) => return Err(KeeperError::Wait(e)),
            };
            for event in &events[..ready] {
                match Token::from_number(event.data()) {
                    Some(Token::Signals) => self.read_signals(),
                    Some(Token::Listener) => self.accept(),
                    Some(Token::Node) => self.serve_node(),
                    Some(Token::Instance(number, part)) => self.serve_instance(number, part),
                    None => {}
                }
            }
            self.act_on_time(Instant::now());
            self.escapees.end(self.instances.values());
            self.flush_node();
            if let Some(outcome) = self.ended() {
                return outcome;
            }
        }
    }

    /// Whether a keeper that is ending may go.
    fn ended(&self) -> Option<Result<(), KeeperError>> {
        let by = self.ending_by?;
        let alive = || self.instances.values().filter(|instance| instance.is_alive());
        if alive().next().is_none() && self.escapees.are_gone() {
            return Some(Ok(()));
        }
        let names = || alive().map(|instance| instance.plan().instance.to_string()).collect();
        (Instant::now() >= by).then(|| Err(KeeperError::Stuck(names())))
    }

    // Time.

    fn next_deadline(&self) -> Option<Instant> {
        let orphaned = self.alone_since.map(|since| since + self.setup.options.orphan_grace);
        let kill = self.kills.first().map(|(at, _)| *at);
        let recheck = (!self.ending.is_empty()).then(|| Instant::now() + TREE_RECHECK);
        let lease = self.leases.values().min().map(|until| Instant::now() + until.since(boot_clock()));
        [kill, orphaned, self.ending_by, recheck, lease].into_iter().flatten().min()
    }

    fn act_on_time(&mut self, now: Instant) {
        if self.alone_since.is_some_and(|since| now >= since + self.setup.options.orphan_grace) {
            self.alone_since = None;
            self.stop_replaceable(now);
        }
        while let Some((at, run)) = self.kills.first().copied().filter(|(at, _)| now >= *at) {
            self.kills.remove(&(at, run));
            // What is over has nothing left that could be killed.
            if let Some(instance) = self.instances.get_mut(&run).filter(|instance| instance.is_alive()) {
                instance.kill_tree();
            }
        }
        self.end_leases();
        for run in self.ending.clone() {
            self.finish(run);
        }
    }

    /// Somebody else may run these from now on.
    fn end_leases(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let now = boot_clock();
        for (run, _) in self.leases.extract_if(.., |_, until| *until <= now) {
            if let Some(instance) = self.instances.get_mut(&run).filter(|instance| instance.is_alive()) {
                tracing::warn!(instance = %instance.plan().instance, "killed: its lease is over");
                instance.kill_tree();
            }
        }
    }

    /// The node has been away for so long that other nodes run these by now.
    fn stop_replaceable(&mut self, now: Instant) {
        for (run, instance) in &mut self.instances {
            if instance.plan().replaceable && instance.is_alive() {
                tracing::warn!(instance = %instance.plan().instance, "stopped: the node is away and others take over");
                self.kills.extend(instance.stop(now, Duration::MAX).map(|at| (at, *run)));
            }
        }
    }

    /// Ends all instances, each in the way of its plan and within `grace_max`; the keeper ends when they have.
    fn shut_down(&mut self, grace_max: Duration) {
        let now = Instant::now();
        tracing::info!(instances = self.instances.len(), ?grace_max, "ending");
        for (run, instance) in self.instances.iter_mut().filter(|(_, instance)| instance.is_alive()) {
            self.kills.extend(instance.stop(now, grace_max).map(|at| (at, *run)));
        }
        let last = self.kills.last().map_or(now, |(at, _)| *at);
        self.ending_by.get_or_insert(last + KILL_WAIT_MAX);
    }

    // Signals.

    fn read_signals(&mut self) {
        // Several signals of one number arrive as one, so that all ended children are reaped whatever was read.
        while let Ok(Some(signal)) = self.setup.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            if number == libc::SIGTERM || number == libc::SIGINT {
                self.shut_down(SHUTDOWN_GRACE_MAX);
            }
        }
        while let Some((child, status)) = next_ended() {
            let run = self.children.remove(&child);
            // Any other child is an orphan out of some instance's tree.
            self.escapees.reaped(child);
            if let Some(run) = run {
                self.read_report(run);
                if let Some(instance) = self.instances.get_mut(&run) {
                    instance.reaped(status);
                    self.ending.insert(run);
                }
                self.finish(run);
            }
        }
    }

    // The node.

    fn accept(&mut self) {
        loop {
            let socket = match socket::accept(&self.setup.listener) {
                Ok(Some(socket)) => socket,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    return;
                }
            };
            if let Err(error) = peer::check(&socket) {
                tracing::warn!(%error, "refused a connection");
                continue;
            }
            // A node that connects anew may do so before its broken connection was noticed here.
            self.drop_node("another connection took its place");
            let interest = EpollEvent::new(EpollFlags::EPOLLIN, Token::Node.number());
            match self.epoll.add(&socket, interest) {
                Ok(()) => self.node = Some(Node::new(socket)),
                Err(error) => tracing::warn!(%error, "cannot wait on a connection"),
            }
        }
    }

    fn drop_node(&mut self, why: &str) {
        if let Some(node) = self.node.take() {
            tracing::info!(why, "the node's connection has ended");
            let _ = self.epoll.delete(&node);
            if node.is_greeted {
                self.alone_since = Some(Instant::now());
            }
        }
    }

    fn serve_node(&mut self) {
        for _ in 0..REQUESTS_MAX {
            let Some(node) = &self.node else { return };
            match node.receive() {
                Ok(Some(request)) => self.obey(request),
                Ok(None) => return,
                Err(error) => return self.drop_node(&error.to_string()),
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if let Some(node) = self.node.as_mut().filter(|node| node.is_greeted) {
            node.tell(event);
        }
    }

    fn flush_node(&mut self) {
        let Some(node) = &mut self.node else { return };
        let left = match node.flush() {
            Ok(left) => left,
            Err(error) => return self.drop_node(&error.to_string()),
        };
        let write = if left { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let mut interest = EpollEvent::new(EpollFlags::EPOLLIN | write, Token::Node.number());
        if let Err(error) = self.epoll.modify(&*node, &mut interest) {
            self.drop_node(&error.to_string());
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Hello { oldest, newest } => self.greet(oldest, newest),
            _ if !self.node.as_ref().is_some_and(|node| node.is_greeted) => self.drop_node("it did not say hello"),
            Request::Launch { plan } => self.launch(*plan),
            Request::Signal { run, signal } => {
                if let Some(instance) = self.instances.get_mut(&run) {
                    instance.signal(signal);
                }
            }
            Request::Kill { run } => {
                if let Some(instance) = self.instances.get_mut(&run).filter(|instance| instance.is_alive()) {
                    instance.kill_tree();
                }
            }
            Request::Acknowledge { run } => self.acknowledge(run),
            Request::Extend { run, until } => {
                if let Some(lease) = self.leases.get_mut(&run) {
                    *lease = until;
                }
            }
            Request::List => self.list(),
            Request::Shutdown { grace_ms } => self.shut_down(Duration::from_millis(grace_ms)),
        }
    }

    fn greet(&mut self, oldest: u32, newest: u32) {
        let Some(node) = &mut self.node else { return };
        let own = self.setup.options.speak_at_most;
        let Some(version) = message::agree(oldest, newest, own) else {
            let reason = format!(
                "this keeper speaks the versions {} to {own}, the node {oldest} to {newest}",
                message::VERSION_OLDEST,
            );
            node.tell(Event::Refused { reason });
            return;
        };
        node.is_greeted = true;
        node.tell(Event::Welcome { version });
        self.alone_since = None;
        self.list();
    }

    fn list(&mut self) {
        let mut kept: Vec<Kept> = self.instances.values().filter_map(Instance::kept).collect();
        loop {
            let rest = kept.split_off(kept.len().min(HOLDING_PART));
            let last = rest.is_empty();
            self.tell(Event::Holding { kept, last });
            if last {
                return;
            }
            kept = rest;
        }
    }
}

/// This host's boot clock, as the node reads it.
fn boot_clock() -> Mono {
    let time =
        nix::time::ClockId::CLOCK_BOOTTIME.now().unwrap_or_else(|errno| unreachable!("a clock of Linux: {errno}"));
    Mono(u64::try_from(std::time::Duration::from(time).as_millis()).unwrap_or(u64::MAX))
}

/// How long epoll may wait: rounded up, so that it does not wake a little too early and spin.
fn timeout_until(deadline: Instant) -> EpollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_micros().div_ceil(1000).min(60_000);
    EpollTimeout::try_from(u32::try_from(millis).unwrap_or(60_000)).unwrap_or(EpollTimeout::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_epoll() {
        let instances = Part::ALL.map(|part| Token::Instance(77, part));
        for token in [Token::Signals, Token::Listener, Token::Node].into_iter().chain(instances) {
            assert_eq!(Token::from_number(token.number()), Some(token));
        }
        // All eight kinds are taken.
        assert_eq!(Token::from_number(7), Some(Token::Instance(0, Part::Forward)));
    }
}
