//! Who is alive: SWIM with suspicion and incarnations, by `foca`. Pure.
//!
//! This wraps foca's own pure code: bytes and due timers go in, bytes to send come out. Only keys that the catalog admits are
//! spoken with; what SWIM says about others is not looked at. The rules are those of the paper (Das, Gupta, Motivala: SWIM,
//! 2002, with the suspicion mechanism of its section 4.2).

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{
    Config, Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, Runtime, State, Timer,
    TimerToken,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::ids::NodeKey;
use crate::time::Mono;

/// How often a member is probed: a death is noticed after half of this in the mean, in a cluster of any size.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

/// How long a direct answer may take before others are asked to probe: far above what a busy host needs.
const PROBE_RTT: Duration = Duration::from_millis(500);

/// How long a suspect has to refute before it is taken for dead: long enough for three rounds of gossip through a loaded host.
const SUSPECT_TO_DOWN: Duration = Duration::from_secs(3);

/// How long a dead member's state is remembered, so that old news of it being alive does not revive it.
const REMEMBER_DOWN: Duration = Duration::from_secs(3600);

/// Largest packet, in bytes. Streams carry more than datagrams do, so that a membership of hundreds fits in few.
const PACKET_LEN_MAX: usize = 16 << 10;

/// A member in one of its lives: what foca tells apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct SwimId {
    key: [u8; 32],
    /// The boot counter in the upper bits: a restarted node overrules what was said of it before.
    incarnation: u64,
}

/// Room for refutations between two boots.
const BOOT_SHIFT: u32 = 24;

impl foca::Identity for SwimId {
    type Addr = [u8; 32];

    fn renew(&self) -> Option<Self> {
        Some(Self { key: self.key, incarnation: self.incarnation + 1 })
    }

    fn addr(&self) -> [u8; 32] {
        self.key
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// What SWIM thinks of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer, and may still refute.
    Suspect,
    /// It is taken for dead.
    Down,
}

/// SWIM on one node.
pub struct Membership {
    foca: Foca<SwimId, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
    timers: BTreeMap<(Mono, u64), Timer<SwimId>>,
    timers_made: u64,
    /// What foca stamps its timers with at present. It takes no notice of those with another stamp, also of one that ends a
    /// suspicion, once it has renewed its identity: the suspect would stay one for ever.
    token: TimerToken,
    /// Whom we are connected to and have announced ourselves to without an answer yet.
    greeted: BTreeMap<NodeKey, Mono>,
    outbox: Vec<(NodeKey, Vec<u8>)>,
    changed: bool,
}

/// How long an announcement may stay without effect before it is made again: one that is lost is never repeated by foca.
const GREET_AGAIN: Duration = Duration::from_secs(1);

struct Collect<'a> {
    now: Mono,
    timers: &'a mut BTreeMap<(Mono, u64), Timer<SwimId>>,
    timers_made: &'a mut u64,
    token: &'a mut TimerToken,
    outbox: &'a mut Vec<(NodeKey, Vec<u8>)>,
    changed: &'a mut bool,
}

impl Runtime<SwimId> for Collect<'_> {
    fn notify(&mut self, _: Notification<'_, SwimId>) {
        *self.changed = true;
    }

    fn send_to(&mut self, to: SwimId, data: &[u8]) {
        self.outbox.push((NodeKey(to.key), data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<SwimId>, after: Duration) {
        if let Timer::ProbeRandomMember(token) = &event {
            *self.token = *token;
        }
        *self.timers_made += 1;
        self.timers.insert((self.now + after, *self.timers_made), event);
    }
}

macro_rules! with_foca {
    ($self:ident, $now:expr, |$foca:ident, $runtime:ident| $body:expr) => {{
        let Membership { foca: $foca, timers, timers_made, token, outbox, changed, .. } = $self;
        let mut $runtime = Collect { now: $now, timers, timers_made, token, outbox, changed };
        $body
    }};
}

impl Membership {
    /// SWIM for this node in this life.
    pub fn new(me: NodeKey, boot: u64, seed: u64) -> Self {
        let identity = SwimId { key: me.0, incarnation: boot << BOOT_SHIFT };
        let foca = Foca::new(identity, config(), ChaCha8Rng::seed_from_u64(seed), PostcardCodec);
        Self {
            foca,
            timers: BTreeMap::new(),
            timers_made: 0,
            token: TimerToken::default(),
            greeted: BTreeMap::new(),
            outbox: Vec::new(),
            changed: true,
        }
    }

    /// Takes in bytes of a member; false when they made no sense.
    pub fn receive(&mut self, now: Mono, bytes: &[u8]) -> bool {
        with_foca!(self, now, |foca, runtime| foca.handle_data(bytes, &mut runtime).is_ok())
    }

    /// Announces this node to connected members that do not count it alive yet, and fires due timers.
    pub fn tick(&mut self, now: Mono, connected: &BTreeSet<NodeKey>) {
        let active: BTreeSet<[u8; 32]> = self.foca.iter_members().map(|member| member.id().key).collect();
        self.greeted.retain(|key, _| connected.contains(key) && !active.contains(&key.0));
        for key in connected.iter().filter(|key| !active.contains(&key.0)) {
            if self.greeted.get(key).is_none_or(|at| now.since(*at) >= GREET_AGAIN) {
                self.greeted.insert(*key, now);
                let unknown_life = SwimId { key: key.0, incarnation: 0 };
                // Failing to announce is failing to encode a few numbers: there is nothing to be done about it here.
                let _ = with_foca!(self, now, |foca, runtime| foca.announce(unknown_life, &mut runtime));
            }
        }
        while let Some(((due, _), _)) = self.timers.first_key_value()
            && *due <= now
        {
            let (_, mut timer) = self.timers.pop_first().expect("it was looked at just now");
            if let Timer::ChangeSuspectToDown { token, .. } = &mut timer {
                *token = self.token;
            }
            // A timer that no longer applies is an error in foca's words and harmless.
            let _ = with_foca!(self, now, |foca, runtime| foca.handle_timer(timer, &mut runtime));
        }
    }

    /// What is to be sent, and to whom.
    pub fn take_outbox(&mut self) -> Vec<(NodeKey, Vec<u8>)> {
        std::mem::take(&mut self.outbox)
    }

    /// Whether anything may have changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When [`Membership::tick`] wants to be called.
    pub fn next_deadline(&self) -> Option<Mono> {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        let greeting = self.greeted.values().map(|at| *at + GREET_AGAIN).min();
        [timer, greeting].into_iter().flatten().min()
    }

    /// What is thought of each member that was ever heard of, and in which of its lives, by its boot counter; where it was heard
    /// of in several, the last one counts.
    pub fn liveness(&self) -> BTreeMap<NodeKey, (Liveness, u64)> {
        let mut newest: BTreeMap<NodeKey, (u64, Liveness)> = BTreeMap::new();
        for member in self.foca.iter_membership_state() {
            let (key, found) = (NodeKey(member.id().key), (member.id().incarnation, liveness(member)));
            let known = newest.entry(key).or_insert(found);
            if known.0 <= found.0 {
                *known = found;
            }
        }
        newest.into_iter().map(|(key, (life, liveness))| (key, (liveness, life >> BOOT_SHIFT))).collect()
    }
}

fn liveness(member: &Member<SwimId>) -> Liveness {
    match member.state() {
        State::Alive => Liveness::Alive,
        State::Suspect => Liveness::Suspect,
        State::Down => Liveness::Down,
    }
}

fn config() -> Config {
    let some = |number| NonZeroUsize::new(number).expect("written as a number above zero");
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: some(3),
        max_transmissions: NonZeroU8::new(10).expect("ten is above zero"),
        suspect_to_down_after: SUSPECT_TO_DOWN,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: some(PACKET_LEN_MAX),
        notify_down_members: true,
        // A random member now and then, so that two halves that lost sight of one another meet again.
        periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: some(1) }),
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: Duration::from_secs(5),
            num_members: some(2),
        }),
        periodic_gossip: Some(PeriodicParams { frequency: Duration::from_millis(500), num_members: some(3) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: u8) -> NodeKey {
        NodeKey([node; 32])
    }

    /// Runs some nodes over a network that delivers at once to whoever is `up`.
    fn run(nodes: &mut BTreeMap<NodeKey, Membership>, up: &BTreeSet<NodeKey>, from: Mono, to: Mono) {
        let mut now = from;
        while now < to {
            let mut mail = Vec::new();
            for (key, node) in nodes.iter_mut().filter(|(key, _)| up.contains(*key)) {
                let mut others = up.clone();
                others.remove(key);
                node.tick(now, &others);
                mail.extend(node.take_outbox());
            }
            while let Some((to, bytes)) = mail.pop() {
                if up.contains(&to) {
                    let node = nodes.get_mut(&to).unwrap();
                    assert!(node.receive(now, &bytes));
                    mail.extend(node.take_outbox());
                }
            }
            now = now + Duration::from_millis(50);
        }
    }

    #[test]
    fn members_find_one_another_and_notice_a_death_and_a_return() {
        let keys: BTreeSet<NodeKey> = (1..=5).map(key).collect();
        let mut nodes: BTreeMap<_, _> = keys.iter().map(|k| (*k, Membership::new(*k, 1, 7))).collect();
        run(&mut nodes, &keys, Mono(0), Mono(5_000));
        for (me, node) in &nodes {
            let seen = node.liveness();
            for other in keys.iter().filter(|other| *other != me) {
                assert_eq!(seen.get(other), Some(&(Liveness::Alive, 1)), "{me:?} sees {other:?}");
            }
        }

        let mut survivors = keys.clone();
        survivors.remove(&key(3));
        run(&mut nodes, &survivors, Mono(5_000), Mono(20_000));
        for survivor in &survivors {
            assert_eq!(nodes[survivor].liveness().get(&key(3)), Some(&(Liveness::Down, 1)));
        }

        nodes.insert(key(3), Membership::new(key(3), 2, 8));
        run(&mut nodes, &keys, Mono(20_000), Mono(30_000));
        for survivor in &survivors {
            assert_eq!(nodes[survivor].liveness().get(&key(3)), Some(&(Liveness::Alive, 2)));
        }
        assert_eq!(nodes[&key(3)].liveness().len(), 4);
    }

    #[test]
    fn bytes_that_make_no_sense_change_nothing() {
        let mut node = Membership::new(key(1), 1, 1);
        for garbage in [&b""[..], b"\xff\xff\xff"] {
            assert!(!node.receive(Mono(0), garbage));
        }
        assert!(node.liveness().is_empty());
    }
}
