//! When the ledger had to work: while which hosts were up, in reach of one another and a majority of its voters.
//!
//! It is looked at from outside, at every step of the world: what the hosts' processes, links, disks and clocks are, and who votes. What a
//! node believes of the others is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use narun::ids::ServiceName;
use narun::ledger::time::Slot;

use crate::clock::EPOCH_MS;
use crate::disk::Speed;
use crate::network::Weather;
use crate::world::World;

/// Most hosts of a world that is looked at: every set of them is.
const HOSTS_MAX: usize = 8;

/// How far apart clocks may be that count as right: less than what costs a node its leases.
const APART_MAX_MS: i64 = 1_000;

/// How far from a fault a slot is still near it.
const NEAR: Duration = Duration::from_secs(10);

/// For how long some hosts were all that it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The hosts, a bit each.
    hosts: u32,
    /// Since the world began.
    from: Duration,
    to: Duration,
    state: State,
}

/// What stays as it is during a span.
#[derive(Clone, Copy, PartialEq, Debug)]
struct State {
    /// How far the clock of one of the hosts is ahead.
    ahead_ms: i64,
    /// Which hosts of all take nothing on, a bit each.
    drained: u32,
}

/// All such spans of a world.
#[derive(Default)]
pub(crate) struct Calm {
    open: BTreeMap<u32, Span>,
    closed: Vec<Span>,
    /// How far the voters' calendar may have been ahead, in milliseconds, and since when.
    calendars: Vec<(Duration, i64)>,
    /// Which hosts took a spec for suspended, a bit each, and since when.
    suspended: BTreeMap<ServiceName, Vec<(Duration, u32)>>,
    /// When something was broken, since the world began.
    faults: BTreeSet<Duration>,
}

impl Calm {
    /// Something happened to a host that is over at once.
    pub(crate) fn disturb(&mut self, host: usize) {
        let closed = self.open.extract_if(.., |hosts, _| hosts & (1 << host) != 0);
        self.closed.extend(closed.map(|(_, span)| span));
    }

    /// Something is broken now.
    pub(crate) fn fault(&mut self, now: Duration) {
        self.faults.insert(now);
    }

    /// Whether a slot was due, by a clock that is right, within [`NEAR`] of a fault.
    pub(crate) fn is_near_fault(&self, slot: Slot) -> bool {
        let due = Duration::from_millis(slot.wall().0.saturating_sub(EPOCH_MS as u64));
        self.faults.range(due.saturating_sub(NEAR)..=due + NEAR).next().is_some()
    }

    /// Looks at how things stand.
    pub(crate) fn look(world: &mut World) {
        if !world.plan.has_ledger || world.hosts.len() > HOSTS_MAX {
            return;
        }
        let now = world.stamps.now();
        let good = good_sets(world);
        let ahead_ms = calendar_ahead_ms(world);
        if world.calm.calendars.last().is_none_or(|(_, before)| *before != ahead_ms) {
            world.calm.calendars.push((now, ahead_ms));
        }
        let mut suspended = takes_for_suspended(world);
        let calm = &mut world.calm;
        for (service, changes) in &mut calm.suspended {
            let hosts = suspended.remove(service).unwrap_or(0);
            if changes.last().is_none_or(|(_, before)| *before != hosts) {
                changes.push((now, hosts));
            }
        }
        calm.suspended.extend(suspended.into_iter().map(|(service, hosts)| (service, vec![(now, hosts)])));
        let is_over = |hosts: &u32, span: &mut Span| good.get(hosts) != Some(&span.state);
        let over = calm.open.extract_if(.., is_over);
        calm.closed.extend(over.map(|(_, span)| span));
        for (hosts, state) in good {
            calm.open.entry(hosts).or_insert(Span { hosts, from: now, to: now, state }).to = now;
        }
    }

    /// Whether some hosts, `host` among them and not drained if it is given, were all that it takes from when a slot of `service` was due, less `before`,
    /// until `after` it, and knew of no suspension.
    pub(crate) fn was(
        &self,
        service: &ServiceName,
        slot: Slot,
        host: Option<usize>,
        before: Duration,
        after: Duration,
    ) -> bool {
        self.open.values().chain(&self.closed).any(|span| {
            let is_in = host.is_none_or(|host| span.hosts & !span.state.drained & (1 << host) != 0);
            let due_ms = slot.0 as i64 * 1_000 - EPOCH_MS - span.state.ahead_ms;
            let Ok(due) = u64::try_from(due_ms).map(Duration::from_millis) else { return false };
            let is_whole = span.from <= due.saturating_sub(before) && due + after <= span.to;
            let may_run = !self.was_suspended(service, span.hosts, due.saturating_sub(before), due + after);
            is_in && is_whole && may_run && !self.was_due_before(slot, due)
        })
    }

    /// Whether one of `hosts` took a spec for suspended at any time between these two: a node that is cut off may be the only one that was told
    /// otherwise.
    fn was_suspended(&self, service: &ServiceName, hosts: u32, from: Duration, to: Duration) -> bool {
        let Some(changes) = self.suspended.get(service) else { return false };
        let ends = changes.iter().skip(1).map(|(since, _)| *since).chain([Duration::MAX]);
        changes.iter().zip(ends).any(|((since, those), end)| those & hosts != 0 && *since <= to && from < end)
    }

    /// Whether a slot had come by the voters' calendar long before `due`, since that was ahead: what became of it was decided then.
    fn was_due_before(&self, slot: Slot, due: Duration) -> bool {
        let ends = self.calendars.iter().skip(1).map(|(since, _)| *since).chain([due]);
        self.calendars.iter().zip(ends).any(|((since, ahead_ms), end)| {
            let shown_ms = EPOCH_MS + end.min(due).as_millis() as i64 + ahead_ms;
            *since < due && *ahead_ms > APART_MAX_MS && shown_ms >= slot.0 as i64 * 1_000
        })
    }
}

/// Every set of hosts that is all that it takes, and how things are with it.
fn good_sets(world: &World) -> BTreeMap<u32, State> {
    let mut sets = BTreeMap::new();
    let is_slow = world.up().iter().any(|host| world.hosts[*host].platter().speed() != Speed::Ordinary);
    if is_slow || world.fabric.weather() != Weather::FAIR {
        return sets;
    }
    let groups = voters(world);
    let is_in = |hosts: u32, host: usize| hosts & (1 << host) != 0;
    let those = |is: &dyn Fn(usize) -> bool| {
        (0..world.hosts.len()).filter(|host| is(*host)).fold(0_u32, |bits, host| bits | 1 << host)
    };
    let well = those(&|host| is_well(world, host));
    let drained = those(&|host| is_in(well, host) && is_drained(world, host));
    let passes = |from: usize, to: usize| from == to || world.fabric.passes(world.hosts[from].key, world.hosts[to].key);
    let reach: Vec<u32> = (0..world.hosts.len()).map(|from| those(&|to| passes(from, to))).collect();
    let ahead: Vec<i64> = world.hosts.iter().map(|host| host.clock.ahead_ms()).collect();
    for hosts in (1..1_u32 << world.hosts.len()).filter(|hosts| hosts & !well == 0 && hosts & !drained != 0) {
        let of_set = || (0..world.hosts.len()).filter(|host| is_in(hosts, *host));
        let is_whole = of_set().all(|host| hosts & !reach[host] == 0);
        let has_majority = |group: &Group| (hosts & group.hosts).count_ones() as usize > group.size / 2;
        let apart =
            of_set().map(|host| ahead[host]).max().unwrap_or(0) - of_set().map(|host| ahead[host]).min().unwrap_or(0);
        if is_whole && apart <= APART_MAX_MS && !groups.is_empty() && groups.iter().all(has_majority) {
            let first = hosts.trailing_zeros() as usize;
            sets.insert(hosts, State { ahead_ms: ahead[first], drained });
        }
    }
    sets
}

/// How far the median of the voters' clocks may be ahead for a leader that has heard of a majority of them: of the fastest ones that run; of two in the
/// middle, the slower one. The voters by who knows most: one that was replaced while it was away goes on taking itself for one.
fn calendar_ahead_ms(world: &World) -> i64 {
    let ledgers = world.hosts.iter().filter_map(|host| host.running.as_ref()?.ledger.as_ref());
    let standings = ledgers.map(|ledger| ledger.standing().borrow().clone());
    let voters = standings.max_by_key(|standing| standing.applied).map(|standing| standing.voters).unwrap_or_default();
    let runs = |host: &&crate::host::Host| voters.contains(&host.key) && host.running.is_some();
    let mut ahead: Vec<i64> = world.hosts.iter().filter(runs).map(|host| host.clock.ahead_ms()).collect();
    ahead.sort_unstable();
    let fastest = &ahead[ahead.len().saturating_sub(voters.len() / 2 + 1)..];
    fastest.get(fastest.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Voters: which hosts they are, a bit each, and how many.
#[derive(PartialEq)]
struct Group {
    hosts: u32,
    size: usize,
}

/// Which hosts take which specs for suspended, a bit each.
fn takes_for_suspended(world: &World) -> BTreeMap<ServiceName, u32> {
    let mut suspended = BTreeMap::new();
    for host in world.up() {
        for service in world.view(host).services.iter().filter(|service| service.current.stopped) {
            *suspended.entry(service.name.clone()).or_default() |= 1 << host;
        }
    }
    suspended
}

/// The voters, by every node that runs and thinks that it is one.
fn voters(world: &World) -> Vec<Group> {
    let mut groups = Vec::new();
    for (number, host) in world.hosts.iter().enumerate() {
        let Some(ledger) = host.running.as_ref().and_then(|running| running.ledger.as_ref()) else { continue };
        let standing = ledger.standing();
        let voters = &standing.borrow().voters;
        let is_voter = |(_, host): &(usize, &crate::host::Host)| voters.contains(&host.key);
        let hosts = world.hosts.iter().enumerate().filter(is_voter).fold(0, |bits, (number, _)| bits | 1 << number);
        let group = Group { hosts, size: voters.len() };
        if hosts & (1 << number) != 0 && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

fn is_well(world: &World, host: usize) -> bool {
    let running = world.hosts[host].running.as_ref();
    running.is_some_and(|running| !running.life.is_stalled() && !running.life.forges() && !running.life.is_over())
}

/// As the node itself shows it.
pub(crate) fn is_drained(world: &World, host: usize) -> bool {
    let key = world.hosts[host].key;
    world.view(host).nodes.iter().any(|node| node.key == key && node.drain.is_some())
}
