//! Who is alive: SWIM with suspicion and incarnations, by `foca`; local health, broken connections and greetings, by this module. Pure.
//!
//! `foca` picks whom to probe, directly and through three others, and lets what it hears of members ride on the packets that go
//! anyway (Das, Gupta, Motivala: SWIM, 2002). This module owns foca's timers and reads every packet before foca does, and so adds
//! what foca has not:
//!
//! - **Local health** (`health`): a node that misses answers, has to refute its own death or is woken late takes so many times longer
//!   over every accusation (Lifeguard, 2018). What became due while it was stalled waits until it has read what came meanwhile.
//! - **Links** (`links`): a connection that broke and did not come back is an accusation, once. A member that is suspected or was
//!   said to be down is *asked* by everyone who is connected to it, and answers with a [`Message::Hello`]; so is a member that was
//!   held for dead when the connection comes back.
//! - **Everyone judges for himself.** foca lets only the accuser wait; here each node that hears of a suspicion waits for the
//!   refutation itself, and nobody takes another's word that a member is down whom it is connected to. So a node that was paused can
//!   tell everybody that all are dead, and is not believed. foca does not carry who accused whom, so that Lifeguard's
//!   speeding up by the number of accusers is left out: asking directly takes its place.
//! - **Only members** are spoken of, and everyone for himself: a packet's sender must be the one at the other end of the connection.
//!
//! A suspicion is refuted by a greater incarnation; a death, which foca never takes back, by a *renewed life*: the boot counter with
//! the number of renewals below it. So a restart overrules every death before it, and an old greeting revives nobody.
//!
//! An idle member of 100 sends what `tests` measure: about 300 bytes a second in 2 messages. A wave of 300 joins costs each 76 KB.

mod health;
mod links;
mod packet;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{
    Config, Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, Runtime, State, Timer,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::message::Message;
use crate::ids::NodeKey;
use crate::time::Mono;
use health::{Health, LATE};
use links::Links;
use packet::{Packet, SwimId};

/// How often a member is probed: a silent death is noticed after half of this in the mean, in a cluster of any size.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

/// How long a direct answer may take before others are asked to probe: far above what a busy host needs.
const PROBE_RTT: Duration = Duration::from_millis(500);

/// How long a suspect has to refute before it is taken for dead: long enough for three rounds of gossip through a loaded host.
const SUSPECT_TO_DOWN: Duration = Duration::from_secs(3);

/// The same where this node has seen itself that the connection broke: long enough to hear from those who still reach it, and short
/// enough that a killed process is known to be down 2.5 s after its death.
const BROKEN_TO_DOWN: Duration = Duration::from_millis(1_500);

/// How long a stalled node reads what came meanwhile before it accuses anybody: several batches of inputs, and an answer to a question.
const STALL_GRACE: Duration = Duration::from_secs(2);

/// How long changes are gathered before they are told: one packet carries the whole of a wave of joins, and a death still
/// crosses a cluster of 300 within half a second.
const GOSSIP_DELAY: Duration = Duration::from_millis(50);

/// How long a dead member's state is remembered, so that old news of it being alive does not revive it.
const REMEMBER_DOWN: Duration = Duration::from_secs(3600);

/// Largest packet, in bytes: some hundred members, so that a wave of joins fits in few.
const PACKET_LEN_MAX: usize = 4 << 10;

/// How often each piece of news of a member is sent on by each node that hears it: with six, one in 400 is reached by none of
/// them, and those are connected to the member itself.
const TRANSMISSIONS_MAX: u8 = 6;

/// How often a random member is asked for a part of all that it knows: the repair of what gossip missed, and most of an idle
/// member's traffic if it were more often.
const REPAIR_PERIOD: Duration = Duration::from_secs(30);

/// What SWIM thinks of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Liveness {
    /// It answers.
    #[n(0)]
    Alive,
    /// It did not answer, and may still refute.
    #[n(1)]
    Suspect,
    /// It is taken for dead.
    #[n(2)]
    Down,
}

/// What is thought of a member, in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Believed {
    /// The boot counter, and how often it renewed itself since.
    #[n(0)]
    pub life: u64,
    /// How often it has refuted in that life.
    #[n(1)]
    pub incarnation: u16,
    /// How it fares.
    #[n(2)]
    pub liveness: Liveness,
}

impl Believed {
    /// The boot counter of that life.
    pub fn boot(&self) -> u64 {
        packet::boot_of(self.life)
    }

    /// Whether this, heard of a member that is alive, shows that it knew of `said` and is alive all the same.
    fn refutes(&self, said: &Believed) -> bool {
        let later = self.life == said.life && self.incarnation > said.incarnation;
        self.life > said.life || (later && said.liveness != Liveness::Down)
    }

    /// Whether it takes more to refute this than `other`.
    fn outweighs(&self, other: &Believed) -> bool {
        let weight = |it: &Believed| (it.life, it.liveness == Liveness::Down, it.incarnation);
        weight(self) > weight(other)
    }
}

/// The probe that is under way.
struct Probe {
    target: NodeKey,
    answered: bool,
}

/// SWIM on one node.
pub struct Membership {
    me: NodeKey,
    /// This node's own incarnation, which foca keeps to itself.
    incarnation: u16,
    foca: Foca<SwimId, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
    timers: BTreeMap<(Mono, u64), Timer<SwimId>>,
    timers_made: u64,
    probe: Option<Probe>,
    /// Who is admitted, without this node: nobody else is spoken of.
    members: BTreeSet<NodeKey>,
    /// What foca holds of each of them, kept beside it so that it need not be searched.
    believed: BTreeMap<NodeKey, Believed>,
    /// When each suspect will have had its time to refute.
    suspects: BTreeMap<NodeKey, Mono>,
    links: Links,
    health: Health,
    /// When changes are to be told.
    gossip_at: Option<Mono>,
    /// What [`Membership::next_deadline`] said after the last tick: if the next one comes much later, this node was stalled.
    promised: Option<Mono>,
    outbox: Vec<(NodeKey, Message)>,
    changed: bool,
}

/// What foca asks for while it is called, and whom it may have changed its mind about.
struct Collect<'a> {
    now: Mono,
    stretch: u32,
    timers: &'a mut BTreeMap<(Mono, u64), Timer<SwimId>>,
    timers_made: &'a mut u64,
    probe: &'a mut Option<Probe>,
    outbox: &'a mut Vec<(NodeKey, Message)>,
    touched: &'a mut BTreeSet<NodeKey>,
}

impl Runtime<SwimId> for Collect<'_> {
    fn notify(&mut self, notification: Notification<'_, SwimId>) {
        match notification {
            Notification::MemberUp(id) | Notification::MemberDown(id) | Notification::Rename(_, id) => {
                self.touched.insert(NodeKey(id.key));
            }
            _ => {}
        }
    }

    fn send_to(&mut self, to: SwimId, data: &[u8]) {
        self.outbox.push((NodeKey(to.key), Message::Swim(data.to_vec())));
    }

    fn submit_after(&mut self, event: Timer<SwimId>, after: Duration) {
        let after = match &event {
            // Every suspect has its time here, whoever accused it: `Membership::suspects`.
            Timer::ChangeSuspectToDown { .. } => return,
            Timer::SendIndirectProbe { probed_id, .. } => {
                *self.probe = Some(Probe { target: NodeKey(probed_id.key), answered: false });
                after * self.stretch
            }
            Timer::ProbeRandomMember(_) => after * self.stretch,
            Timer::RemoveDown(_)
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => after,
        };
        *self.timers_made += 1;
        self.timers.insert((self.now + after, *self.timers_made), event);
    }
}

/// Calls foca, and then takes over what it thinks of those in `touched` and those whom it says it has changed its mind about. foca's
/// own errors tell that a timer or an update no longer applies; what members send was checked before.
macro_rules! with_foca {
    ($self:ident, $now:expr, $touched:expr, |$foca:ident, $runtime:ident| $body:expr) => {{
        let mut touched: BTreeSet<NodeKey> = $touched;
        let Membership { foca: $foca, timers, timers_made, probe, outbox, health, .. } = $self;
        let stretch = health.stretch();
        let touching = &mut touched;
        let mut $runtime = Collect { now: $now, stretch, timers, timers_made, probe, outbox, touched: touching };
        let result = $body;
        // A renewed node probes again at once, not only when the next packet comes.
        let _ = $foca.apply_many(std::iter::empty(), false, &mut $runtime);
        $self.take_over($now, &touched);
        result
    }};
}

impl Membership {
    /// SWIM for this node in this life.
    pub fn new(me: NodeKey, boot: u64, seed: u64) -> Self {
        let foca = Foca::new(SwimId::at_boot(me, boot), config(), ChaCha8Rng::seed_from_u64(seed), PostcardCodec);
        Self {
            me,
            incarnation: 0,
            foca,
            timers: BTreeMap::new(),
            timers_made: 0,
            probe: None,
            members: BTreeSet::new(),
            believed: BTreeMap::new(),
            suspects: BTreeMap::new(),
            links: Links::default(),
            health: Health::default(),
            gossip_at: None,
            promised: None,
            outbox: Vec::new(),
            changed: true,
        }
    }

    /// Who is admitted. Those who no longer are, are forgotten.
    pub fn set_members(&mut self, now: Mono, members: BTreeSet<NodeKey>) {
        let gone: Vec<NodeKey> = self.members.difference(&members).copied().collect();
        self.members = members;
        self.members.remove(&self.me);
        for key in gone {
            self.links.forget(&key);
            self.suspects.remove(&key);
            let Some(believed) = self.believed.remove(&key) else { continue };
            let id = SwimId { key: key.0, life: believed.life };
            let down = Member::new(id.clone(), believed.incarnation, State::Down);
            with_foca!(self, now, BTreeSet::new(), |foca, runtime| {
                // It was admitted a moment ago, so foca knows this life, and neither call can fail.
                let _ = foca.apply_many(std::iter::once(down), false, &mut runtime);
                let _ = foca.handle_timer(Timer::RemoveDown(id), &mut runtime);
            });
            self.changed = true;
        }
    }

    /// A connection to a member stands: it is greeted, and asked how it is if this node does not know it to be well.
    pub fn connect(&mut self, now: Mono, key: NodeKey) {
        if !self.members.contains(&key) {
            return;
        }
        self.links.connect(key);
        match self.believed.get(&key).map(|believed| believed.liveness) {
            Some(Liveness::Suspect | Liveness::Down) => self.links.question(now, key, None),
            // It greets this node as well, and only if that is lost it is asked.
            None => self.links.question_later(now, key),
            Some(Liveness::Alive) => {}
        }
        if self.believed.get(&key).is_none_or(|believed| believed.liveness == Liveness::Alive) {
            self.hello(key, None);
        }
    }

    /// The last connection to a member broke.
    pub fn break_off(&mut self, now: Mono, key: NodeKey) {
        self.links.break_off(now, key);
    }

    /// Takes in a packet of a member; false when it made no sense, or spoke in another's name. A stranger's is passed over.
    pub fn receive(&mut self, now: Mono, from: NodeKey, bytes: &[u8]) -> bool {
        let Some(mut packet) = Packet::decode(bytes).filter(|packet| packet.header.src.key == from.0) else {
            return false;
        };
        if !self.members.contains(&from) {
            return true;
        }
        self.note_answer(&packet);
        let said = std::mem::take(&mut packet.updates);
        let told = said.len();
        let mut renews = false;
        for update in said {
            let weighed = self.weigh(now, update);
            renews |= weighed.as_ref().is_some_and(|update| update.id() == self.foca.identity());
            packet.updates.extend(weighed);
        }
        let sender = Member::new(packet.header.src.clone(), packet.header.src_incarnation, State::Alive);
        let touched = std::iter::once(&sender).chain(&packet.updates).filter(|member| self.is_news(member));
        let touched = touched.map(|member| NodeKey(member.id().key)).collect();
        let softened = packet.encode();
        let bytes = if told == 0 { bytes } else { &softened };
        renews |= packet.header.message == foca::Message::TurnUndead;
        let good = with_foca!(self, now, touched, |foca, runtime| foca.handle_data(bytes, &mut runtime).is_ok());
        if renews {
            self.read_own_incarnation(now);
        }
        good
    }

    /// Takes in a member's greeting: its own life and incarnation, and what it thinks of this node.
    pub fn receive_hello(&mut self, now: Mono, from: NodeKey, life: u64, incarnation: u16, you: Option<Believed>) {
        if let Some(said) = you {
            let me = self.foca.identity().clone();
            if said.life == me.life && said.liveness != Liveness::Alive {
                let said = Member::new(me, said.incarnation, packet::state(said.liveness));
                if let Some(said) = self.weigh(now, said) {
                    self.apply(now, said);
                    self.read_own_incarnation(now);
                }
            }
        }
        let alive = Member::new(SwimId { key: from.0, life }, incarnation, State::Alive);
        if self.members.contains(&from) && self.is_news(&alive) {
            self.apply(now, alive);
        }
        if you.is_some() {
            self.hello(from, None);
        }
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Mono) {
        self.notice_stall(now);
        for key in self.links.take_missing(now) {
            self.accuse(now, key);
        }
        let over: Vec<NodeKey> = self.suspects.iter().filter(|(_, due)| **due <= now).map(|(key, _)| *key).collect();
        for key in over {
            self.suspects.remove(&key);
            if self.believed.get(&key).is_some_and(|believed| believed.liveness == Liveness::Suspect) {
                self.say(now, key, State::Down);
            }
        }
        while let Some(((due, _), _)) = self.timers.first_key_value()
            && *due <= now
        {
            let (_, timer) = self.timers.pop_first().expect("it was looked at just now");
            self.fire(now, timer);
        }
        for (key, said) in self.links.take_questions(now) {
            let known = self.believed.get(&key).copied();
            let unheard = Believed { life: 0, incarnation: 0, liveness: Liveness::Down };
            let worst = match (said, known) {
                (Some(said), Some(known)) if !said.outweighs(&known) => known,
                (Some(said), _) => said,
                (None, known) => known.unwrap_or(unheard),
            };
            self.hello(key, Some(worst));
        }
        if self.gossip_at.is_some_and(|at| at <= now) {
            self.gossip_at = None;
            let _ = with_foca!(self, now, BTreeSet::new(), |foca, runtime| foca.gossip(&mut runtime));
        }
        self.promised = self.next_deadline();
    }

    /// What is to be sent, and to whom.
    pub fn take_outbox(&mut self) -> Vec<(NodeKey, Message)> {
        std::mem::take(&mut self.outbox)
    }

    /// Whether [`Membership::believed`] shows anything else since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When [`Membership::tick`] wants to be called.
    pub fn next_deadline(&self) -> Option<Mono> {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        let suspect = self.suspects.values().min().copied();
        [timer, suspect, self.links.next_deadline(), self.gossip_at].into_iter().flatten().min()
    }

    /// What is thought of each member that was ever heard of, in the last of its lives that was heard of.
    pub fn believed(&self) -> &BTreeMap<NodeKey, Believed> {
        &self.believed
    }

    /// How many times longer than usual this node takes over accusations at present, for what speaks against itself: 1 is perfect
    /// health.
    pub fn stretch(&self) -> u32 {
        self.health.stretch()
    }

    /// What of one update foca is to see.
    fn weigh(&mut self, now: Mono, update: Member<SwimId>) -> Option<Member<SwimId>> {
        let key = NodeKey(update.id().key);
        if key == self.me {
            if update.id() != self.foca.identity() {
                // Of an earlier life, which is over; or of a later one, which nobody has seen.
                return None;
            }
            let refuted = match update.state() {
                State::Alive => false,
                State::Suspect => update.incarnation() >= self.incarnation,
                State::Down => true,
            };
            if !refuted {
                return None;
            }
            self.health.doubted();
            return Some(update);
        }
        if !self.members.contains(&key) {
            return None;
        }
        let known = self.believed.get(&key).copied().filter(|known| known.life == update.id().life);
        let Some(known) = known.filter(|known| known.liveness != Liveness::Down) else { return Some(update) };
        if update.state() != State::Down || !self.links.stands(&key) {
            return Some(update);
        }
        // Somebody has taken it for dead, and nothing but a new life of its own will change that mind. This node asks it.
        let said = Believed { life: known.life, incarnation: update.incarnation(), liveness: Liveness::Down };
        self.links.question(now, key, Some(said));
        if update.incarnation() < known.incarnation {
            return None;
        }
        let due = now + SUSPECT_TO_DOWN;
        self.suspects.entry(key).and_modify(|at| *at = (*at).min(due)).or_insert(due);
        Some(Member::new(update.id().clone(), update.incarnation(), State::Suspect))
    }

    /// Whether foca may think otherwise of a member when it has heard this.
    fn is_news(&self, member: &Member<SwimId>) -> bool {
        let heard = (member.id().life, member.incarnation(), packet::liveness(member.state()));
        let known = self.believed.get(&NodeKey(member.id().key));
        known.is_none_or(|known| (known.life, known.incarnation, known.liveness) != heard)
    }

    /// Takes over what foca thinks of these members.
    fn take_over(&mut self, now: Mono, touched: &BTreeSet<NodeKey>) {
        if touched.is_empty() {
            return;
        }
        let of_them = |member: &&Member<SwimId>| touched.contains(&NodeKey(member.id().key));
        let members: Vec<Member<SwimId>> = self.foca.iter_membership_state().filter(of_them).cloned().collect();
        for member in members {
            let key = NodeKey(member.id().key);
            if !self.members.contains(&key) || !self.is_news(&member) {
                continue;
            }
            let (life, incarnation) = (member.id().life, member.incarnation());
            let believed = Believed { life, incarnation, liveness: packet::liveness(member.state()) };
            let before = self.believed.insert(key, believed);
            self.changed = true;
            self.gossip_at.get_or_insert(now + GOSSIP_DELAY);
            match believed.liveness {
                Liveness::Alive => {
                    self.suspects.remove(&key);
                    self.links.settle(&key, &believed);
                }
                Liveness::Suspect => {
                    // It refuted what it was suspected of before, and its time begins anew.
                    if before.is_some_and(|before| believed.refutes(&before)) {
                        self.suspects.remove(&key);
                    }
                    let due = now + SUSPECT_TO_DOWN * self.health.stretch();
                    self.suspects.entry(key).or_insert(due);
                    self.links.question(now, key, Some(believed));
                }
                Liveness::Down => {
                    self.suspects.remove(&key);
                    self.links.question(now, key, Some(believed));
                }
            }
        }
    }

    /// The connection to it did not come back.
    fn accuse(&mut self, now: Mono, key: NodeKey) {
        if self.health.is_poor() {
            return;
        }
        self.say(now, key, State::Suspect);
        if let Some(due) = self.suspects.get_mut(&key) {
            *due = (*due).min(now + BROKEN_TO_DOWN);
            // Whoever still reaches it has little time to say so.
            self.gossip_at = Some(now);
        }
    }

    /// Says of a member what this node has found out by itself.
    fn say(&mut self, now: Mono, key: NodeKey, state: State) {
        let Some(believed) = self.believed.get(&key).filter(|believed| believed.liveness != Liveness::Down) else {
            return;
        };
        let id = SwimId { key: key.0, life: believed.life };
        self.apply(now, Member::new(id, believed.incarnation, state));
    }

    fn apply(&mut self, now: Mono, member: Member<SwimId>) {
        let touched = BTreeSet::from([NodeKey(member.id().key)]);
        // Failing to apply is failing to encode a few numbers: there is nothing to be done about it here.
        let _ = with_foca!(self, now, touched, |foca, runtime| {
            foca.apply_many(std::iter::once(member), true, &mut runtime)
        });
    }

    fn fire(&mut self, now: Mono, timer: Timer<SwimId>) {
        let ends = matches!(timer, Timer::ProbeRandomMember(_));
        let probe = if ends { self.probe.take() } else { None };
        let missed = probe.filter(|probe| !probe.answered).map(|probe| probe.target);
        // A timer that no longer applies is an error in foca's words and harmless.
        let _ = with_foca!(self, now, missed.into_iter().collect(), |foca, runtime| {
            foca.handle_timer(timer, &mut runtime)
        });
        // That a member does not answer to whom no connection stands says nothing of this node. It is doubted afterwards: one
        // missed answer does not slow down the suspicion that follows from it, a second one slows down the next.
        if missed.is_some_and(|target| self.links.stands(&target)) {
            self.health.doubted();
        }
    }

    /// Whether a packet answers the probe that is under way.
    fn note_answer(&mut self, packet: &Packet) {
        let answers = match &packet.header.message {
            foca::Message::Ack(_) => Some(&packet.header.src),
            foca::Message::ForwardedAck { origin, .. } => Some(origin),
            _ => None,
        };
        if let (Some(id), Some(probe)) = (answers, &mut self.probe)
            && id.key == probe.target.0
            && !probe.answered
        {
            probe.answered = true;
            self.health.answered();
        }
    }

    /// A tick that comes long after the time that was asked for means that this node stood still. It has not yet read what came
    /// meanwhile, so that nothing that became due meanwhile may accuse anybody now.
    fn notice_stall(&mut self, now: Mono) {
        let late = self.promised.map_or(Duration::ZERO, |promised| now.since(promised));
        if late < LATE {
            return;
        }
        self.health.stalled(late);
        let earliest = now + STALL_GRACE;
        let accuses =
            |timer: &Timer<SwimId>| matches!(timer, Timer::SendIndirectProbe { .. } | Timer::ProbeRandomMember(_));
        let postponed: Vec<_> =
            self.timers.extract_if(.., |(due, _), timer| *due < earliest && accuses(timer)).collect();
        self.timers.extend(postponed.into_iter().map(|((_, made), timer)| ((earliest, made), timer)));
        for due in self.suspects.values_mut() {
            *due = (*due).max(earliest);
        }
        self.links.postpone(now);
    }

    /// Reads this node's incarnation off a packet: foca shows it nowhere else.
    fn read_own_incarnation(&mut self, now: Mono) {
        let sent = self.outbox.len();
        let nobody = SwimId { key: self.me.0, life: 0 };
        let _ = with_foca!(self, now, BTreeSet::new(), |foca, runtime| foca.announce(nobody, &mut runtime));
        let mut made = self.outbox.split_off(sent);
        if let Some((_, Message::Swim(bytes))) = made.pop()
            && let Some((_, incarnation)) = packet::sender(&bytes)
        {
            self.incarnation = incarnation;
        }
    }

    /// Says that this node is alive, and what it thinks of the other, if that is to be answered.
    fn hello(&mut self, to: NodeKey, you: Option<Believed>) {
        let (life, incarnation) = (self.foca.identity().life, self.incarnation);
        self.outbox.push((to, Message::Hello { life, incarnation, you }));
    }
}

fn config() -> Config {
    let some = |number| NonZeroUsize::new(number).expect("written as a number above zero");
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: some(3),
        max_transmissions: NonZeroU8::new(TRANSMISSIONS_MAX).expect("written as a number above zero"),
        suspect_to_down_after: SUSPECT_TO_DOWN,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: some(PACKET_LEN_MAX),
        // Whoever is held for dead and in reach is asked instead.
        notify_down_members: false,
        periodic_announce_to_down_members: None,
        periodic_announce: Some(PeriodicParams { frequency: REPAIR_PERIOD, num_members: some(1) }),
        periodic_gossip: Some(PeriodicParams { frequency: Duration::from_millis(500), num_members: some(3) }),
    }
}
