//! How fast news are everywhere, and at what price: [`Dissemination`] alone, on a heap of events, in links as long as those of
//! the published simulations, where one message in a hundred gets lost. Prints figures and asserts the bars.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use narun::gossip::dissemination::{Dissemination, Outbox};
use narun::gossip::message::Message;
use narun::ids::NodeKey;
use narun::time::Mono;

use crate::host::key_of;
use crate::random::{self, Stream};

/// How many nodes: as many as a full mesh is meant for.
const NODES: usize = 300;

/// How often a random node has something to tell.
const CHANGES: usize = 150;

/// How long one change is: a revision of an ordinary service.
const CHANGE_LEN: usize = 400;

/// How long a message takes, in microseconds: drawn once for each direction of each link.
const LINK_US: std::ops::Range<u64> = 200..80_000;

/// How many messages of a thousand get lost.
const LOST_PER_MILLE: u32 = 10;

/// By then everybody must have it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Largest 99th percentile of the time until a node has it, and the most whole copies that come to a node beyond the first.
const P99_MAX: Duration = Duration::from_millis(400);
const DUPLICATES_MAX: f64 = 4.0;

/// What a message costs beside its own bytes: the length before a frame, and the seal of the encryption.
const FRAME_LEN: u64 = 4 + 16;

enum Event {
    Message(usize, Vec<u8>),
    Tick,
}

struct Net {
    keys: Vec<NodeKey>,
    numbers: BTreeMap<NodeKey, usize>,
    nodes: Vec<Dissemination>,
    peers: Vec<BTreeSet<NodeKey>>,
    links: Vec<Vec<u64>>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    counted: u64,
    stream: Stream,
    now_us: u64,
    copies: u64,
    messages: u64,
    bytes: u64,
}

impl Net {
    fn new(count: usize, seed: u64) -> Self {
        let mut stream = random::stream(seed, "spread");
        let keys: Vec<NodeKey> = (0..count).map(|n| key_of(&format!("n{n}"))).collect();
        let others = |me: &NodeKey| keys.iter().filter(|key| *key != me).copied().collect();
        Self {
            numbers: keys.iter().enumerate().map(|(number, key)| (*key, number)).collect(),
            nodes: keys.iter().map(|key| Dissemination::new(*key)).collect(),
            peers: keys.iter().map(others).collect(),
            links: (0..count).map(|_| (0..count).map(|_| stream.random_range(LINK_US)).collect()).collect(),
            events: BTreeMap::new(),
            counted: 0,
            keys,
            stream,
            now_us: 0,
            copies: 0,
            messages: 0,
            bytes: 0,
        }
    }

    fn mono(&self) -> Mono {
        Mono(self.now_us / 1_000)
    }

    fn at(&mut self, due_us: u64, node: usize, event: Event) {
        self.counted += 1;
        self.events.insert((due_us, self.counted), (node, event));
    }

    fn send(&mut self, from: usize, outbox: Outbox) {
        for (to, message) in outbox {
            let to = self.numbers[&to];
            let bytes = message.encode();
            self.messages += 1;
            self.bytes += bytes.len() as u64 + FRAME_LEN;
            if self.stream.random_range(0..1_000) >= LOST_PER_MILLE {
                self.at(self.now_us + self.links[from][to], to, Event::Message(from, bytes));
            }
        }
        if let Some(due) = self.nodes[from].next_deadline() {
            self.at((due.0 * 1_000).max(self.now_us), from, Event::Tick);
        }
    }

    /// One node tells something new. Gives back after how many microseconds each other node had it.
    fn change(&mut self, number: usize) -> Vec<u64> {
        let author = self.stream.random_range(0..self.keys.len());
        let news: Vec<u8> = (0..CHANGE_LEN).map(|at| (at * 31 + number * 7) as u8 ^ (number >> 3) as u8).collect();
        let (begun, now) = (self.now_us, self.mono());
        let (_, outbox) = self.nodes[author].tell(now, &mut self.stream, &self.peers[author], news.clone(), false);
        self.send(author, outbox);
        let mut reached = BTreeMap::from([(author, 0)]);
        while let Some(((due, _), (node, event))) = self.events.pop_first() {
            self.now_us = due;
            let now = self.mono();
            let outbox = match event {
                Event::Tick => self.nodes[node].tick(now, &self.peers[node]),
                Event::Message(from, bytes) => {
                    let message = Message::decode(&bytes).expect("they are messages");
                    if matches!(message, Message::News { .. } | Message::Relay { .. }) {
                        self.copies += 1;
                        reached.entry(node).or_insert(due - begun);
                    }
                    self.take(now, node, from, message)
                }
            };
            self.send(node, outbox);
        }
        reached.remove(&author);
        reached.into_values().collect()
    }

    /// What the engine does with it, but for looking at what the news say.
    fn take(&mut self, now: Mono, node: usize, from: usize, message: Message) -> Outbox {
        let (it, from) = (&mut self.nodes[node], self.keys[from]);
        match message {
            Message::News { news, .. } => {
                if it.is_new(&news) {
                    it.receive(now, &news);
                }
                Outbox::new()
            }
            Message::Relay { news, stretch } => {
                if it.is_new(&news) {
                    it.receive(now, &news);
                }
                it.relay(&mut self.stream, &self.peers[node], from, &news, &stretch)
            }
            Message::Heard(names) => it.heard(now, from, &names).map(|ask| (from, ask)).into_iter().collect(),
            Message::Ask(names) => it.asked(&names).into_iter().map(|news| (from, news)).collect(),
            other => panic!("nobody sends {other:?} here"),
        }
    }
}

#[test]
fn news_are_everywhere_in_a_blink() {
    let mut net = Net::new(NODES, 1);
    let mut times: Vec<u64> = (0..CHANGES).flat_map(|number| net.change(number)).collect();
    times.sort_unstable();
    let wanted = CHANGES * (NODES - 1);
    let in_time = times.iter().filter(|us| **us <= PATIENCE.as_micros() as u64).count();
    let at = |per_mille: usize| Duration::from_micros(times[(times.len() - 1) * per_mille / 1_000]);
    let delivered = times.len() as f64;
    let duplicates = (net.copies as f64 - delivered) / delivered;
    eprintln!(
        "{CHANGES} changes at random ones of {NODES} nodes: p50 {} ms, p99 {} ms, p99.9 {} ms, last {} ms; {in_time} of {wanted} \
         delivered within {} s; a delivery costs {duplicates:.2} duplicates, {:.1} messages, {:.0} bytes (a change is {CHANGE_LEN})",
        at(500).as_millis(),
        at(990).as_millis(),
        at(999).as_millis(),
        at(1_000).as_millis(),
        PATIENCE.as_secs(),
        net.messages as f64 / delivered,
        net.bytes as f64 / delivered,
    );
    assert_eq!(in_time, wanted, "not everybody had it within {PATIENCE:?}");
    assert!(at(990) <= P99_MAX, "p99 is {:?}", at(990));
    assert!(duplicates <= DUPLICATES_MAX, "{duplicates} duplicates a delivery");
}
