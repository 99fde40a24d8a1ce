//! What all nodes' ends share: who is on the network, what is cut, and which connections stand.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use narun::ids::NodeKey;
use narun::ledger::raft::Ledger;
use narun::node::engine::effect::Response;
use narun::node::engine::input::{Input, NetworkEvent, Request};
use narun::node::handle::NodeHandle;

use crate::life::Life;
use crate::random::Stream;
use crate::trace::Trace;

use super::wire::{Parcel, Wire, dial_after, give_up_after};
use super::{Mode, Weather, word};

/// Largest message that a node may send: the binary's frame limit.
const MESSAGE_LEN_MAX: usize = 4 << 20;

/// How long the other ends of a connection bear its silence before they cut it: as in the binary's transport.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How soon a receiver whose inputs were full is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// How soon a node that was not let in dials again.
const DIAL_AGAIN: Duration = Duration::from_secs(2);

/// How a node went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// Its process ended: the system closes its connections, and the other ends hear of it.
    Process,
    /// Its host lost power: the other ends hear nothing.
    Host,
}

/// The network; cheap to clone.
#[derive(Clone)]
pub(crate) struct Fabric {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

struct State {
    mode: Mode,
    weather: Weather,
    stream: Stream,
    names: BTreeMap<NodeKey, String>,
    ports: BTreeMap<NodeKey, Port>,
    wires: BTreeMap<(NodeKey, NodeKey), Wire>,
    pairs: BTreeMap<(NodeKey, NodeKey), Pair>,
    connections: u64,
    pauses: u64,
    sent: u64,
    bytes: u64,
    /// By direction.
    carried: BTreeMap<(NodeKey, NodeKey), Carried>,
    dropped: u64,
    begun: Instant,
}

/// What was sent in one direction.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Carried {
    /// Bytes of all messages.
    pub(crate) bytes: u64,
    /// The longest message.
    pub(crate) longest: u64,
}

/// A node that is on the network.
struct Port {
    inputs: mpsc::Sender<Input>,
    /// The door of the node, for strangers.
    door: NodeHandle,
    life: Arc<Life>,
    /// What answers requests, once there is one.
    ledger: Option<Ledger>,
    members: BTreeSet<NodeKey>,
    /// Its process is paused, for the time that has this number.
    paused: Option<u64>,
}

/// Two nodes, the lesser key first.
#[derive(Default)]
struct Pair {
    connection: Option<u64>,
    dialling: bool,
}

fn pair_of(a: NodeKey, b: NodeKey) -> (NodeKey, NodeKey) {
    (a.min(b), a.max(b))
}

impl Fabric {
    /// A network between these hosts, all of it whole.
    pub(crate) fn new(hosts: Vec<(NodeKey, String)>, mode: Mode, mut stream: Stream, trace: Trace) -> Self {
        let keys: Vec<NodeKey> = hosts.iter().map(|(key, _)| *key).collect();
        let mut wires = BTreeMap::new();
        let mut pairs = BTreeMap::new();
        for a in &keys {
            for b in keys.iter().filter(|b| *b != a) {
                wires.insert((*a, *b), Wire::new(stream.random_range(0.02..1.0)));
                pairs.insert(pair_of(*a, *b), Pair::default());
            }
        }
        let state = State {
            mode,
            weather: Weather::FAIR,
            stream,
            names: hosts.into_iter().collect(),
            ports: BTreeMap::new(),
            wires,
            pairs,
            connections: 0,
            pauses: 0,
            sent: 0,
            bytes: 0,
            carried: BTreeMap::new(),
            dropped: 0,
            begun: Instant::now(),
        };
        Self { state: Arc::new(Mutex::new(state)), trace }
    }

    /// The host's name, for the record.
    pub(crate) fn name(&self, key: &NodeKey) -> String {
        self.lock().names.get(key).cloned().unwrap_or_else(|| key.short())
    }

    /// A node's process came up. It takes no connections before it said who its members are.
    pub(crate) fn attach(&self, key: NodeKey, inputs: mpsc::Sender<Input>, door: NodeHandle, life: Arc<Life>) {
        self.lock()
            .ports
            .insert(key, Port { inputs, door, life, ledger: None, members: BTreeSet::new(), paused: None });
    }

    /// A node went.
    pub(crate) fn detach(&self, key: NodeKey, death: Death) {
        let mut state = self.lock();
        state.ports.remove(&key);
        let others: Vec<NodeKey> = state.names.keys().copied().filter(|other| *other != key).collect();
        for other in others {
            let Some(connection) = state.pair(key, other).connection.take() else { continue };
            state.wire(other, key).clear();
            state.wire(other, key).shown = None;
            let silent = death == Death::Host || state.wire(key, other).cut;
            if silent {
                state.wire(key, other).clear();
                let after = give_up_after(&mut state.stream);
                self.tell_broken_after(key, other, connection, after);
            } else {
                self.tell_broken(&mut state, key, other, connection);
            }
        }
    }

    /// A node's process was paused, or goes on. What is sent to it waits; after a while its connections are cut, and it makes no
    /// new ones before it goes on.
    pub(crate) fn pause(&self, key: NodeKey, paused: bool) {
        let mut state = self.lock();
        let others: Vec<NodeKey> = state.names.keys().copied().filter(|other| *other != key).collect();
        state.pauses += 1;
        let pause = state.pauses;
        match state.ports.get_mut(&key) {
            Some(port) if port.paused.is_some() != paused => port.paused = paused.then_some(pause),
            _ => return,
        }
        if !paused {
            for other in others {
                self.consider(&mut state, key, other);
            }
            return;
        }
        let fabric = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SILENCE_MAX).await;
            let mut state = fabric.lock();
            if state.ports.get(&key).is_some_and(|port| port.paused == Some(pause)) {
                for other in others {
                    fabric.sever(&mut state, key, other);
                }
            }
        });
    }

    /// A node said who its members are.
    pub(super) fn members(&self, key: NodeKey, members: &BTreeSet<NodeKey>) {
        let mut state = self.lock();
        let all: BTreeSet<NodeKey> = state.names.keys().copied().collect();
        let Some(port) = state.ports.get_mut(&key) else { return };
        let before = std::mem::replace(&mut port.members, members.clone());
        // What it says first is news to all. In a wave of joins it says more, once for each that joins: only what is new is looked at.
        let (came, went) = match before.is_empty() {
            true => (members.clone(), &all - members),
            false => (members - &before, &before - members),
        };
        let is_host = |other: &NodeKey| *other != key && all.contains(other);
        for other in came.into_iter().filter(is_host) {
            self.consider(&mut state, key, other);
        }
        for other in went.into_iter().filter(is_host) {
            self.hang_up(&mut state, key, other);
        }
    }

    /// A stranger knocks at a node's door and asks how it stands; the answer comes to its inputs.
    pub(super) fn ask_standing(&self, key: NodeKey, of: NodeKey) {
        let mut state = self.lock();
        let Some(asker) = state.ports.get(&key).map(|port| port.inputs.clone()) else { return };
        let Some(door) = state.ports.get(&of).map(|port| port.door.clone()) else { return };
        if state.wire(key, of).cut || state.wire(of, key).cut {
            return;
        }
        let (there, back) = (state.latency(key, of), state.latency(of, key));
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            if let Ok(Response::Standing(statements)) = door.request(Request::Standing { key }).await {
                tokio::time::sleep(back).await;
                // The asker may have ended in the meantime.
                let _ = asker.send(Input::Network(NetworkEvent::Standing(statements))).await;
            }
        });
    }

    /// Sends one message over the connection, if there is one.
    pub(crate) fn send(&self, from: NodeKey, to: NodeKey, bytes: Vec<u8>) {
        let mut state = self.lock();
        if bytes.len() > MESSAGE_LEN_MAX {
            self.trace.violated("bounded", &format!("{} sends a message of {} bytes", from.short(), bytes.len()));
        }
        state.sent += 1;
        let len = bytes.len() as u64;
        state.bytes += len;
        let carried = state.carried.entry((from, to)).or_default();
        *carried = Carried { bytes: carried.bytes + len, longest: carried.longest.max(len) };
        let known = state.wires.contains_key(&(from, to));
        if !known || state.pair(from, to).connection.is_none() {
            state.dropped += 1;
            return;
        }
        match state.mode {
            Mode::Streams => {
                let after = state.latency(from, to);
                match state.wire(from, to).push(NetworkEvent::Message { from, bytes }, after) {
                    Some(due) => self.alarm(from, to, due),
                    None => state.dropped += 1,
                }
            }
            Mode::Datagrams => self.throw(&mut state, from, to, &bytes),
        }
    }

    /// Cuts one direction.
    pub(crate) fn cut(&self, from: NodeKey, to: NodeKey) {
        let mut state = self.lock();
        let wire = state.wire(from, to);
        if wire.cut {
            return;
        }
        wire.cut = true;
        wire.changes += 1;
        let changes = wire.changes;
        self.trace.record("", &format!("cut {} -> {}", state.names[&from], state.names[&to]), &[]);
        let after = give_up_after(&mut state.stream);
        let fabric = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut state = fabric.lock();
            if state.wire(from, to).changes == changes {
                state.wire(from, to).clear();
                fabric.alarm(from, to, Instant::now());
                fabric.sever(&mut state, from, to);
            }
        });
    }

    /// Heals one direction.
    pub(crate) fn heal(&self, from: NodeKey, to: NodeKey) {
        let mut state = self.lock();
        let wire = state.wire(from, to);
        if !wire.cut {
            return;
        }
        wire.cut = false;
        wire.changes += 1;
        self.trace.record("", &format!("heal {} -> {}", state.names[&from], state.names[&to]), &[]);
        self.alarm(from, to, Instant::now());
        self.consider(&mut state, from, to);
    }

    /// Cuts every link between a host of `side` and one that is not.
    pub(crate) fn partition(&self, side: &[NodeKey]) {
        for (a, b) in self.directions() {
            if side.contains(&a) != side.contains(&b) {
                self.cut(a, b);
            }
        }
    }

    /// Heals everything, and clears the weather.
    pub(crate) fn heal_all(&self) {
        for (a, b) in self.directions() {
            self.heal(a, b);
        }
        self.set_weather(Weather::FAIR);
    }

    /// From now on the network is like this.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.trace.record("", &format!("{weather:?}"), &[]);
        self.lock().weather = weather;
    }

    /// How the network is now.
    pub(crate) fn weather(&self) -> Weather {
        self.lock().weather
    }

    /// Whether two nodes are connected and bytes pass in both directions.
    pub(crate) fn passes(&self, a: NodeKey, b: NodeKey) -> bool {
        let mut state = self.lock();
        state.pair(a, b).connection.is_some() && !state.wire(a, b).cut && !state.wire(b, a).cut
    }

    /// How many messages were sent, and in how many seconds.
    pub(crate) fn sent(&self) -> (u64, u64) {
        let state = self.lock();
        (state.sent, state.begun.elapsed().as_secs())
    }

    /// How many bytes of messages were sent.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// What was sent in one direction since this was asked last.
    pub(crate) fn take_carried(&self, from: NodeKey, to: NodeKey) -> Carried {
        self.lock().carried.remove(&(from, to)).unwrap_or_default()
    }

    /// How many messages found no connection or no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn directions(&self) -> Vec<(NodeKey, NodeKey)> {
        self.lock().wires.keys().copied().collect()
    }

    /// One node closes its connection to another: what it has sent still arrives.
    fn hang_up(&self, state: &mut State, key: NodeKey, other: NodeKey) {
        if let Some(connection) = state.pair(key, other).connection.take() {
            state.wire(other, key).clear();
            self.tell_broken(state, key, other, connection);
            self.tell_broken(state, other, key, connection);
        }
        self.consider(state, other, key);
    }

    /// One node dials another that takes it for a stranger, again and again.
    fn shut_out(&self, state: &mut State, one: NodeKey, other: NodeKey) {
        if !state.is_shut_out(one, other) || state.pair(one, other).dialling {
            return;
        }
        state.pair(one, other).dialling = true;
        let fabric = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DIAL_AGAIN).await;
            let mut state = fabric.lock();
            state.pair(one, other).dialling = false;
            if state.is_shut_out(one, other) {
                let parcel = Parcel { due: Instant::now(), event: NetworkEvent::ShutOut(other) };
                // One more try comes if there was no room.
                let _ = fabric.deliver(&state, one, parcel);
            }
            fabric.consider(&mut state, one, other);
        });
    }

    /// Dials, if the two want each other and nothing stands between them.
    fn consider(&self, state: &mut State, a: NodeKey, b: NodeKey) {
        self.shut_out(state, a, b);
        self.shut_out(state, b, a);
        if !state.can_connect(a, b) || state.pair(a, b).dialling {
            return;
        }
        state.pair(a, b).dialling = true;
        let after = dial_after(&mut state.stream);
        let fabric = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut state = fabric.lock();
            state.pair(a, b).dialling = false;
            if state.can_connect(a, b) {
                fabric.connect(&mut state, a, b);
            } else {
                // One of them has heard meanwhile that the other is no member: whoever has not goes on dialling.
                fabric.shut_out(&mut state, a, b);
                fabric.shut_out(&mut state, b, a);
            }
        });
    }

    fn connect(&self, state: &mut State, a: NodeKey, b: NodeKey) {
        state.connections += 1;
        let connection = state.connections;
        state.pair(a, b).connection = Some(connection);
        for (from, to) in [(a, b), (b, a)] {
            if let Some(stale) = state.wire(from, to).shown {
                self.tell_broken(state, from, to, stale);
            }
            state.wire(from, to).shown = Some(connection);
            let after = state.latency(from, to);
            if let Some(due) = state.wire(from, to).push(NetworkEvent::Connected(from), after) {
                self.alarm(from, to, due);
            }
        }
    }

    /// Breaks the connection; both ends hear of it.
    fn sever(&self, state: &mut State, a: NodeKey, b: NodeKey) {
        let Some(connection) = state.pair(a, b).connection.take() else { return };
        for (from, to) in [(a, b), (b, a)] {
            state.wire(from, to).clear();
            self.tell_broken(state, from, to, connection);
        }
        self.consider(state, a, b);
    }

    /// Tells `to` that its connection to `from` broke, unless it has heard so or of a newer one.
    fn tell_broken(&self, state: &mut State, from: NodeKey, to: NodeKey, connection: u64) {
        if state.wire(from, to).shown != Some(connection) {
            return;
        }
        state.wire(from, to).shown = None;
        let after = state.latency(from, to);
        if let Some(due) = state.wire(from, to).push(NetworkEvent::Broken(from), after) {
            self.alarm(from, to, due);
        }
    }

    fn tell_broken_after(&self, from: NodeKey, to: NodeKey, connection: u64, after: Duration) {
        let fabric = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut state = fabric.lock();
            fabric.tell_broken(&mut state, from, to, connection);
        });
    }

    /// Looks at the wire when something is due on it.
    fn alarm(&self, from: NodeKey, to: NodeKey, due: Instant) {
        let fabric = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            fabric.drain(from, to);
        });
    }

    /// Hands over what has arrived.
    fn drain(&self, from: NodeKey, to: NodeKey) {
        let mut state = self.lock();
        while let Some(parcel) = state.wire(from, to).pop() {
            if let Err(parcel) = self.deliver(&state, to, parcel) {
                state.wire(from, to).unpop(parcel);
                self.alarm(from, to, Instant::now() + RETRY);
                return;
            }
        }
    }

    /// Hands one over; gives it back if the receiver has no room.
    fn deliver(&self, state: &State, to: NodeKey, parcel: Parcel) -> Result<(), Parcel> {
        let Some(port) = state.ports.get(&to).filter(|port| !port.life.is_over()) else { return Ok(()) };
        let Parcel { due, event } = parcel;
        let (what, from, bytes): (_, _, &[u8]) = match &event {
            NetworkEvent::Connected(from) => ("connected", from, &[]),
            NetworkEvent::Broken(from) => ("broken", from, &[]),
            NetworkEvent::ShutOut(from) => ("not let in", from, &[]),
            NetworkEvent::Standing(_) => unreachable!("an answer at a door is no parcel"),
            NetworkEvent::Message { from, bytes } => (word(bytes), from, bytes),
        };
        if !port.members.contains(from) && matches!(event, NetworkEvent::Message { .. }) {
            return Ok(());
        }
        let line = format!("from {}: {what}", state.names[from]);
        match port.inputs.try_reserve() {
            Ok(place) => {
                self.trace.record(&state.names[&to], &line, bytes);
                place.send(Input::Network(event));
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(Parcel { due, event }),
            Err(TrySendError::Closed(())) => Ok(()),
        }
    }

    /// Sends a datagram: it is its own task, asleep until it is due.
    fn throw(&self, state: &mut State, from: NodeKey, to: NodeKey, bytes: &[u8]) {
        let Weather { lost_per_mille, doubled_per_mille, .. } = state.weather;
        let lost = state.stream.random_range(0..1_000) < lost_per_mille;
        let doubled = state.stream.random_range(0..1_000) < doubled_per_mille;
        for _ in 0..if lost { 0 } else { 1 + u32::from(doubled) } {
            let after = state.latency(from, to);
            let (fabric, bytes) = (self.clone(), bytes.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let mut state = fabric.lock();
                if !state.wire(from, to).cut {
                    let parcel = Parcel { due: Instant::now(), event: NetworkEvent::Message { from, bytes } };
                    // A datagram that finds no room is lost, as on any system.
                    let _ = fabric.deliver(&state, to, parcel);
                }
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn wire(&mut self, from: NodeKey, to: NodeKey) -> &mut Wire {
        self.wires.get_mut(&(from, to)).expect("every pair of hosts has its wires from the start")
    }

    fn pair(&mut self, a: NodeKey, b: NodeKey) -> &mut Pair {
        self.pairs.get_mut(&pair_of(a, b)).expect("every pair of hosts is known from the start")
    }

    fn latency(&mut self, from: NodeKey, to: NodeKey) -> Duration {
        let wire = &self.wires[&(from, to)];
        wire.latency(&mut self.stream, &self.weather)
    }

    /// Whether both are there, nothing is cut, and one holds the other for a member but not the other way round.
    fn is_shut_out(&mut self, one: NodeKey, other: NodeKey) -> bool {
        let lives = |key: NodeKey| self.ports.get(&key).filter(|port| !port.life.is_over());
        let wants = |from: NodeKey, to: NodeKey| lives(from).is_some_and(|port| port.members.contains(&to));
        // Before a node has said anything it listens to nobody.
        let up = lives(other).is_some_and(|port| !port.members.is_empty());
        let shut = up && wants(one, other) && !wants(other, one);
        shut && !self.wire(one, other).cut && !self.wire(other, one).cut
    }

    /// Whether both are there, hold each other for members, and nothing is cut.
    fn can_connect(&mut self, a: NodeKey, b: NodeKey) -> bool {
        let admits = |one: NodeKey, other: NodeKey| {
            let takes = |port: &Port| port.paused.is_none() && !port.life.is_over() && port.members.contains(&other);
            self.ports.get(&one).is_some_and(takes)
        };
        let both = admits(a, b) && admits(b, a);
        both && self.pair(a, b).connection.is_none() && !self.wire(a, b).cut && !self.wire(b, a).cut
    }
}
