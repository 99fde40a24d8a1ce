//! What goes wrong, and when: a schedule drawn from the seed.

use std::time::Duration;

use rand::RngExt;

use crate::disk::Speed;
use crate::life::Fuse;
use crate::network::Weather;
use crate::random::{self, Stream};
use crate::world::World;

/// One thing that goes wrong, or that is put right again.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Fault {
    /// The node's process is killed; its instances stay.
    Crash(usize),
    /// The host loses power.
    Kill(usize),
    /// The node's process ends at that point.
    Light(usize, Fuse),
    /// The node is started again, if it does not run.
    Start(usize),
    /// All hosts lose power at once.
    KillAll,
    /// The node's process is paused.
    Stall(usize),
    /// It goes on.
    GoOn(usize),
    /// These hosts and the others are cut from one another.
    Partition(Vec<usize>),
    /// Nothing comes through in this direction.
    Cut(usize, usize),
    /// All links are whole, and the weather fair.
    Heal,
    /// The network is like this.
    Weather(Weather),
    /// The wall clock is stepped: it is off by so many milliseconds.
    Clock(usize, i64),
    /// Every sync takes that long.
    Disk(usize, Speed),
    /// The next sync fails, and with it the node.
    DiskFails(usize),
    /// The keeper dies, and with it all instances.
    Keeper(usize),
    /// The host sends wrong bytes of its blobs, or right ones again.
    Corrupts(usize, bool),
    /// The node alters what others say before it passes it on, or is honest again.
    Forges(usize, bool),
}

impl Fault {
    /// Whether it breaks something; else something is whole again.
    fn breaks(&self) -> bool {
        let is_whole = matches!(
            self,
            Self::Start(_)
                | Self::GoOn(_)
                | Self::Heal
                | Self::Weather(Weather::FAIR)
                | Self::Disk(_, Speed::Ordinary)
                | Self::Corrupts(_, false)
                | Self::Forges(_, false)
        );
        !is_whole
    }
}

/// A schedule: when, counted from its start, and what. In order.
pub(crate) type Schedule = Vec<(Duration, Fault)>;

/// Draws a schedule for `hosts` hosts that is over after `span`: what is broken is put right by then at the latest, when the
/// world is healed.
pub(crate) fn schedule(stream: &mut Stream, hosts: usize, span: Duration) -> Schedule {
    let mut schedule = Schedule::new();
    let end_ms = span.as_millis() as u64;
    let mut at_ms = stream.random_range(500..4_000);
    while at_ms < end_ms {
        let at = Duration::from_millis(at_ms);
        let host = stream.random_range(0..hosts);
        let later = at + random::millis(stream, 300, 20_000);
        schedule.extend(draw(stream, hosts, host, at, later));
        at_ms += stream.random_range(500..9_000);
    }
    schedule.sort_by_key(|(at, _)| *at);
    schedule
}

fn draw(stream: &mut Stream, hosts: usize, host: usize, at: Duration, later: Duration) -> Schedule {
    match stream.random_range(0..21) {
        0..3 => vec![(at, Fault::Crash(host)), (later, Fault::Start(host))],
        3..5 => vec![(at, Fault::Kill(host)), (later, Fault::Start(host))],
        5..8 => vec![(at, Fault::Light(host, fuse(stream))), (later, Fault::Start(host))],
        8 => {
            let starts = (0..hosts).map(|host| (later + random::millis(stream, 0, 3_000), Fault::Start(host)));
            starts.chain([(at, Fault::KillAll)]).collect()
        }
        9..11 => vec![(at, Fault::Stall(host)), (later, Fault::GoOn(host))],
        11..13 => {
            let side = (0..hosts).filter(|_| stream.random_bool(0.5)).collect();
            vec![(at, Fault::Partition(side)), (later, Fault::Heal)]
        }
        13..15 => {
            let other = (host + stream.random_range(1..hosts)) % hosts;
            vec![(at, Fault::Cut(host, other)), (later, Fault::Heal)]
        }
        15 => vec![(at, Fault::Weather(Weather::FOUL)), (later, Fault::Weather(Weather::FAIR))],
        16 => vec![(at, Fault::Clock(host, stream.random_range(-600_000..600_000)))],
        17 => vec![(at, Fault::Disk(host, Speed::Slow)), (later, Fault::Disk(host, Speed::Ordinary))],
        18 if stream.random_bool(0.5) => vec![(at, Fault::DiskFails(host)), (later, Fault::Start(host))],
        18 => vec![(at, Fault::Keeper(host))],
        19 => vec![(at, Fault::Forges(host, true)), (later, Fault::Forges(host, false))],
        _ => vec![(at, Fault::Corrupts(host, true)), (later, Fault::Corrupts(host, false))],
    }
}

fn fuse(stream: &mut Stream) -> Fuse {
    match stream.random_range(0..4) {
        0 => Fuse::NextCommit { survives: false },
        1 => Fuse::NextCommit { survives: true },
        2 => Fuse::NextConfirmation,
        _ => Fuse::Effects(stream.random_range(0..40)),
    }
}

/// Does it to the world.
pub(crate) async fn strike(world: &mut World, fault: Fault) {
    let key = |world: &World, host: usize| world.hosts[host].key;
    if fault.breaks() {
        world.calm.fault(world.stamps.now());
    }
    match fault {
        Fault::Crash(host) => world.crash(host).await,
        Fault::Kill(host) => world.kill(host).await,
        Fault::Light(host, fuse) => world.light(host, fuse),
        Fault::Start(host) => {
            if !world.runs(host) && world.hosts[host].belongs() {
                world.start(host).await;
            }
        }
        Fault::KillAll => {
            for host in 0..world.hosts.len() {
                world.kill(host).await;
            }
        }
        Fault::Stall(host) => world.stall(host, true),
        Fault::GoOn(host) => world.stall(host, false),
        Fault::Partition(side) => {
            let side: Vec<_> = side.into_iter().map(|host| key(world, host)).collect();
            world.fabric.partition(&side);
        }
        Fault::Cut(from, to) => world.fabric.cut(key(world, from), key(world, to)),
        Fault::Heal => world.fabric.heal_all(),
        Fault::Weather(weather) => world.fabric.set_weather(weather),
        Fault::Clock(host, skew_ms) => world.hosts[host].clock.set_skew(skew_ms),
        Fault::Disk(host, speed) => world.hosts[host].platter().set_speed(speed),
        Fault::DiskFails(host) => {
            world.hosts[host].platter().fail_next();
            if let Some(disk) = &world.hosts[host].ledger_disk {
                disk.fail_next();
            }
        }
        Fault::Keeper(host) => {
            world.hosts[host].keeper.die(true);
            world.calm.disturb(host);
        }
        Fault::Forges(host, forges) => world.forge(host, forges),
        Fault::Corrupts(host, corrupts) => world.hosts[host].shelf.set_corrupts(corrupts),
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_many_seeds_give_every_fault() {
        let draw = |seed| schedule(&mut random::stream(seed, "faults"), 4, Duration::from_secs(60));
        assert_eq!(draw(3), draw(3));
        let kinds: std::collections::BTreeSet<String> = (0..200)
            .flat_map(draw)
            .map(|(_, fault)| format!("{fault:?}").split(['(', ' ']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds.len(), 17, "{kinds:?}");
        assert!(draw(3).is_sorted_by_key(|(at, _)| *at));
    }
}
