//! What is done to a town, drawn from its seed.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;

use super::book::Moment;
use super::fabric::Weather;

/// One fault. Spans are in milliseconds.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A node's process ends; its keeper goes on.
    Crash { host: usize, down: Moment },
    /// A host loses its power.
    PowerCut { host: usize, down: Moment },
    /// The same, so many operations of its disk from now.
    TornWrite { host: usize, operations: u64, down: Moment },
    /// The same, so many steps of the node from now; the power goes with it, or the process alone.
    Step { host: usize, steps: u32, with_power: bool, down: Moment },
    /// All hosts lose their power.
    Blackout { down: Moment },
    /// These lose it, or their processes end, all at once.
    Outage { hosts: BTreeSet<usize>, with_power: bool, down: Moment },
    /// Nothing goes these ways.
    Cut { ways: BTreeSet<(usize, usize)>, span: Moment },
    /// A node's process stands still.
    Pause { host: usize, span: Moment },
    /// A calendar is wrong, by so many milliseconds.
    Clock { host: usize, ahead: i64, span: Moment },
    /// Messages are lost, doubled and late.
    Weather { weather: Weather, span: Moment },
    /// A disk takes its time, in microseconds.
    SlowDisk { host: usize, pause: u64, span: Moment },
    /// A job is changed.
    Redeploy { job: usize },
    /// A job is deleted, and is there again after that.
    Delete { job: usize, back_after: Moment },
    /// A host is not to have jobs.
    Drain { host: usize, span: Moment },
    /// Only these may have a job.
    Constrain { job: usize, to: BTreeSet<usize>, span: Moment },
    /// A member leaves for good, and another host joins.
    Succeed,
}

impl Fault {
    /// What it is called in figures.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::PowerCut { .. } => "power cut",
            Self::TornWrite { .. } => "torn write",
            Self::Step { .. } => "crash between two steps",
            Self::Blackout { .. } => "blackout",
            Self::Outage { .. } => "outage",
            Self::Cut { .. } => "cut",
            Self::Pause { .. } => "pause",
            Self::Clock { .. } => "wrong clock",
            Self::Weather { .. } => "bad weather",
            Self::SlowDisk { .. } => "slow disk",
            Self::Redeploy { .. } => "redeploy",
            Self::Delete { .. } => "delete",
            Self::Drain { .. } => "drain",
            Self::Constrain { .. } => "constrain",
            Self::Succeed => "succession",
        }
    }
}

/// To what something may be done.
pub(super) struct Target {
    pub(super) hosts: usize,
    pub(super) jobs: usize,
    /// Those of the hosts that belong to the group.
    pub(super) members: Vec<usize>,
    /// Whoever leads by its own word.
    pub(super) leader: Option<usize>,
}

impl Target {
    /// Any host, be it a member or not.
    pub(super) fn any(&self, random: &mut StdRng) -> usize {
        random.random_range(0..self.hosts)
    }

    pub(super) fn member(&self, random: &mut StdRng) -> usize {
        self.members[random.random_range(0..self.members.len())]
    }
}

/// Draws one, all kinds of them evenly.
pub(super) fn draw(random: &mut StdRng, target: &Target) -> Fault {
    let hosts = target.hosts;
    let host = target.any(random);
    let job = random.random_range(0..target.jobs);
    match random.random_range(0..100) {
        0..10 => Fault::Crash { host, down: random.random_range(50..6_000) },
        10..17 => Fault::PowerCut { host, down: random.random_range(200..15_000) },
        17..20 => {
            let operations = random.random_range(1..60);
            Fault::TornWrite { host, operations, down: random.random_range(200..10_000) }
        }
        20..32 => {
            let (steps, with_power) = (random.random_range(0..60), random.random_range(0..3) == 0);
            Fault::Step { host, steps, with_power, down: random.random_range(50..8_000) }
        }
        32..34 => Fault::Blackout { down: random.random_range(500..4_000) },
        34..52 => Fault::Cut { ways: ways(random, hosts), span: random.random_range(500..20_000) },
        52..64 => {
            let span = if random.random_range(0..6) == 0 { 20_000..90_000 } else { 300..15_000 };
            Fault::Pause { host, span: random.random_range(span) }
        }
        64..72 => {
            let ahead =
                if random.random() { random.random_range(500..600_000) } else { random.random_range(500..5_000) };
            let ahead = if random.random() { ahead } else { -ahead };
            Fault::Clock { host, ahead, span: random.random_range(2_000..30_000) }
        }
        72..79 => {
            let slow = (random.random_range(0..30), std::time::Duration::from_millis(random.random_range(10..4_000)));
            let weather = Weather { lost: random.random_range(0..25), doubled: random.random_range(0..40), slow };
            Fault::Weather { weather, span: random.random_range(1_000..15_000) }
        }
        79..84 => {
            let pause = random.random_range(20_000..800_000);
            Fault::SlowDisk { host, pause, span: random.random_range(1_000..15_000) }
        }
        84..88 => Fault::Redeploy { job },
        88..91 => Fault::Delete { job, back_after: random.random_range(1_000..60_000) },
        91..95 => Fault::Drain { host, span: random.random_range(2_000..40_000) },
        95..98 => {
            let to = (0..hosts).filter(|_| random.random_range(0..2) == 0).chain([host]).collect();
            Fault::Constrain { job, to, span: random.random_range(5_000..60_000) }
        }
        _ => Fault::Succeed,
    }
}

/// One way: the others do not hear these.
fn apart(one: &BTreeSet<usize>, other: &BTreeSet<usize>) -> BTreeSet<(usize, usize)> {
    one.iter().flat_map(|a| other.iter().filter(move |b| *b != a).map(move |b| (*a, *b))).collect()
}

fn both(one: &BTreeSet<usize>, other: &BTreeSet<usize>) -> BTreeSet<(usize, usize)> {
    apart(one, other).into_iter().chain(apart(other, one)).collect()
}

/// One host and all others do not hear each other.
pub(super) fn alone(host: usize, hosts: usize) -> BTreeSet<(usize, usize)> {
    both(&[host].into(), &(0..hosts).collect())
}

/// Partitions of every shape.
fn ways(random: &mut StdRng, hosts: usize) -> BTreeSet<(usize, usize)> {
    let some: BTreeSet<usize> = (0..hosts).filter(|_| random.random()).collect();
    let others: BTreeSet<usize> = (0..hosts).filter(|host| !some.contains(host)).collect();
    let one = random.random_range(0..hosts);
    match random.random_range(0..6) {
        // Two halves.
        0 | 1 => both(&some, &others),
        // One alone.
        2 => alone(one, hosts),
        // A bridge: two halves that do not see one another, and one that sees both.
        3 => {
            let without = |side: BTreeSet<usize>| side.into_iter().filter(|host| *host != one).collect();
            both(&without(some), &without(others))
        }
        // One way: some are heard by nobody else, or hear nobody else.
        4 => apart(&some, &others),
        // Any ways.
        _ => (0..hosts)
            .flat_map(|a| (0..hosts).map(move |b| (a, b)))
            .filter(|(a, b)| a != b && random.random_range(0..4) == 0)
            .collect(),
    }
}
