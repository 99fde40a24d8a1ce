//! What a life is drawn towards. Some of what hurts takes two or three things at once, which come together seldom where all is drawn evenly.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::book::Moment;
use super::fabric::Weather;
use super::faults::{self, Fault, Target};

/// Of so many faults of a life that is drawn anywhere, one is what another one would draw; and of so many of another one, one is anything.
/// That is less, since much of what they are drawn towards needs peace to come to something.
const ONE_OF: u32 = 4;
const STRAY_ONE_OF: u32 = 40;

/// How long after a slot is due its claim is under way as a rule, in milliseconds.
const CLAIMED_AFTER: Range<Moment> = 2..11;

/// What a life is drawn towards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Leaning {
    /// Nothing: all kinds of faults come evenly.
    Nowhere,
    /// The same, and now and then what the others are drawn towards.
    Anywhere,
    /// What was said is heard again, when it is not true any more.
    Echoes,
    /// Leaders, most of all, are struck in the very moments in which slots are claimed, and all have peace between that.
    Claims,
    /// Nodes stand still in these moments, and wake with what they were granted.
    Stalls,
    /// Most are away for longer than runs may be late, and the others are well.
    Outages,
    /// One calendar at a time is wrong, for longer than runs may be late, and all else is well.
    Clocks,
    /// Users change their minds, for long enough that all of it is carried out.
    Users,
}

impl Leaning {
    pub(super) const ALL: [Self; 8] = [
        Self::Anywhere,
        Self::Nowhere,
        Self::Echoes,
        Self::Claims,
        Self::Stalls,
        Self::Outages,
        Self::Clocks,
        Self::Users,
    ];

    /// That of a seed.
    pub(super) fn of(seed: u64) -> Self {
        usize::try_from(seed % 13).ok().and_then(|place| Self::ALL.get(place).copied()).unwrap_or(Self::Anywhere)
    }

    /// How long nothing is done between two faults, in milliseconds, where that is not the life's to say: long enough for each of them to
    /// do what it can before the next one excuses it.
    pub(super) fn calm_ms(self) -> Option<(Moment, Moment)> {
        match self {
            Self::Nowhere | Self::Anywhere => None,
            Self::Echoes => Some((4_000, 9_000)),
            Self::Claims => Some((6_000, 9_000)),
            Self::Stalls => Some((4_000, 8_000)),
            Self::Outages => Some((15_000, 45_000)),
            Self::Clocks => Some((25_000, 40_000)),
            Self::Users => Some((300, 2_000)),
        }
    }

    /// How long faults come in a brief life, in milliseconds.
    pub(super) fn lasts(self) -> Moment {
        match self {
            // So many of its faults take so long, one after the other.
            Self::Clocks => 90_000,
            // What users do takes its time.
            Self::Users => 75_000,
            _ => 50_000,
        }
    }

    /// What is done next.
    pub(super) fn draw(self, random: &mut StdRng, target: &Target) -> Fault {
        let leaning = match self {
            Self::Nowhere => self,
            Self::Anywhere if random.random_range(0..ONE_OF) == 0 => Self::ALL[random.random_range(0..Self::ALL.len())],
            Self::Anywhere => Self::Nowhere,
            _ if random.random_range(0..STRAY_ONE_OF) == 0 => Self::Nowhere,
            _ => self,
        };
        match leaning {
            Self::Nowhere | Self::Anywhere => faults::draw(random, target),
            Self::Echoes => echoes(random, target),
            Self::Claims => strike(random, target),
            Self::Stalls => stall(random, target),
            Self::Outages => outage(random, target),
            Self::Clocks => wrong_clock(random, target),
            Self::Users => change_of_mind(random, target),
        }
    }

    /// When that is, if it is not to be before then.
    pub(super) fn moment(self, random: &mut StdRng, from: Moment) -> Moment {
        match self {
            // Slots are due at whole seconds.
            Self::Claims | Self::Stalls => from.next_multiple_of(1_000) + random.random_range(CLAIMED_AFTER),
            _ => from,
        }
    }
}

/// Messages are doubled far more than lost, and now and then one more attempt fails with its node.
fn echoes(random: &mut StdRng, target: &Target) -> Fault {
    if random.random_range(0..6) == 0 {
        return Fault::Crash { host: target.any(random), down: random.random_range(50..3_000) };
    }
    let slow = (random.random_range(0..20), Duration::from_millis(random.random_range(10..1_500)));
    let weather = Weather { lost: random.random_range(0..5), doubled: random.random_range(70..100), slow };
    Fault::Weather { weather, span: random.random_range(8_000..20_000) }
}

/// One of them is struck, and most often that is the leader.
fn strike(random: &mut StdRng, target: &Target) -> Fault {
    let host = target.leader.filter(|_| random.random_range(0..4) > 0).unwrap_or_else(|| target.member(random));
    match random.random_range(0..10) {
        0..3 => Fault::Crash { host, down: random.random_range(500..5_000) },
        3..6 => Fault::PowerCut { host, down: random.random_range(500..5_000) },
        6 => Fault::Cut { ways: faults::alone(host, target.hosts), span: random.random_range(2_000..5_000) },
        _ => Fault::Pause { host, span: random.random_range(2_000..5_000) },
    }
}

/// One that does not lead stands still: the leader grants what it has claimed, and then takes it for lost. One at a time does as a rule, so
/// that somebody is left to make another attempt.
fn stall(random: &mut StdRng, target: &Target) -> Fault {
    let host = target.member(random);
    let host = if target.leader == Some(host) { target.member(random) } else { host };
    let span = if random.random_range(0..4) == 0 { 11_000..16_000 } else { 4_500..7_500 };
    Fault::Pause { host, span: random.random_range(span) }
}

/// So many members are away that the others are no majority.
fn outage(random: &mut StdRng, target: &Target) -> Fault {
    let mut staying = target.members.clone();
    let count = staying.len() / 2 + 1;
    let hosts = (0..count).map(|_| staying.swap_remove(random.random_range(0..staying.len()))).collect();
    Fault::Outage { hosts, with_power: random.random(), down: random.random_range(25_000..45_000) }
}

/// More often than not it is behind: then nothing is due by it, where nobody takes notice.
fn wrong_clock(random: &mut StdRng, target: &Target) -> Fault {
    let by: i64 =
        if random.random() { random.random_range(2_500..30_000) } else { random.random_range(30_000..600_000) };
    let ahead = if random.random_range(0..6) == 0 { by } else { -by };
    Fault::Clock { host: target.member(random), ahead, span: random.random_range(22_000..38_000) }
}

/// Jobs are changed, deleted and sent elsewhere.
fn change_of_mind(random: &mut StdRng, target: &Target) -> Fault {
    let job = random.random_range(0..target.jobs);
    match random.random_range(0..20) {
        0..3 => Fault::Redeploy { job },
        3..11 => Fault::Delete { job, back_after: random.random_range(1_000..60_000) },
        11..13 => Fault::Drain { host: target.member(random), span: random.random_range(10_000..60_000) },
        _ => {
            let to = [target.member(random)].into();
            Fault::Constrain { job, to, span: random.random_range(20_000..60_000) }
        }
    }
}
