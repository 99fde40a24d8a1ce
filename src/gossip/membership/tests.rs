//! Many memberships over a network in memory that is late, loses, and breaks.

use rand::RngExt;

use super::*;

fn key(node: usize) -> NodeKey {
    NodeKey([node.to_be_bytes(); 4].concat().try_into().expect("four words of eight bytes"))
}

fn index(key: &NodeKey) -> usize {
    usize::from_be_bytes(key.0[..8].try_into().expect("eight bytes"))
}

/// One thing that happens to one node.
enum Event {
    Wake,
    Connected(usize),
    Broken(usize),
    Message { from: usize, message: Message },
}

/// A death that somebody believed in, of one who lived.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct FalseDeath {
    believer: usize,
    of: usize,
    at: Mono,
}

/// Some nodes, and what is on its way between them.
struct Net {
    nodes: Vec<Membership>,
    boots: Vec<u64>,
    /// False: its process is gone.
    runs: Vec<bool>,
    /// Until when each is paused.
    paused: Vec<Mono>,
    /// Between whom connections stand, the lesser first.
    links: BTreeSet<(usize, usize)>,
    /// From whom to whom nothing comes through, although the connection stands.
    mute: BTreeSet<(usize, usize)>,
    lost: f64,
    events: BTreeMap<(Mono, u64), (usize, Event)>,
    made: u64,
    wake_at: Vec<Option<Mono>>,
    now: Mono,
    rng: ChaCha8Rng,
    sent_messages: u64,
    sent_bytes: u64,
    /// Deaths believed in, of nodes that ran then.
    false_deaths: Vec<FalseDeath>,
    /// How long the longest false death was believed in.
    longest: Duration,
    open: BTreeMap<(usize, usize), Mono>,
}

impl Net {
    fn new(count: usize, seed: u64) -> Self {
        let all: BTreeSet<NodeKey> = (0..count).map(key).collect();
        let start = Mono(5_000);
        let node = |node: usize| {
            let mut membership = Membership::new(key(node), 1, seed * 1_000 + node as u64);
            membership.set_members(start, all.clone());
            membership
        };
        Self {
            nodes: (0..count).map(node).collect(),
            boots: vec![1; count],
            runs: vec![true; count],
            paused: vec![Mono(0); count],
            links: BTreeSet::new(),
            mute: BTreeSet::new(),
            lost: 0.0,
            events: BTreeMap::new(),
            made: 0,
            wake_at: vec![None; count],
            now: start,
            rng: ChaCha8Rng::seed_from_u64(seed),
            sent_messages: 0,
            sent_bytes: 0,
            false_deaths: Vec::new(),
            longest: Duration::ZERO,
            open: BTreeMap::new(),
        }
    }

    /// A full mesh, some seconds old.
    fn settled(count: usize, seed: u64) -> Self {
        let mut net = Self::new(count, seed);
        for a in 0..count {
            for b in a + 1..count {
                net.connect(a, b);
            }
        }
        net.run(Duration::from_secs(5));
        net.assert_all_alive();
        net
    }

    fn post(&mut self, after: Duration, to: usize, event: Event) {
        self.made += 1;
        self.events.insert((self.now + after, self.made), (to, event));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(1..40))
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.links.insert((a.min(b), a.max(b))) {
            let after = self.latency();
            self.post(after, a, Event::Connected(b));
            self.post(after, b, Event::Connected(a));
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            let after = self.latency();
            self.post(after, a, Event::Broken(b));
            self.post(after, b, Event::Broken(a));
        }
    }

    /// Its process ends, and all its connections break.
    fn kill(&mut self, node: usize) {
        self.runs[node] = false;
        for other in 0..self.nodes.len() {
            if other != node {
                self.disconnect(node, other);
            }
        }
    }

    /// It starts again, and connects to everybody.
    fn restart(&mut self, node: usize) {
        self.boots[node] += 1;
        self.runs[node] = true;
        self.nodes[node] = Membership::new(key(node), self.boots[node], self.boots[node]);
        let all = (0..self.nodes.len()).map(key).collect();
        self.nodes[node].set_members(self.now, all);
        self.wake_at[node] = None;
        for other in (0..self.nodes.len()).filter(|other| *other != node && self.runs[*other]).collect::<Vec<_>>() {
            self.connect(node, other);
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        for node in 0..self.nodes.len() {
            self.arrange(node);
        }
        while let Some(((at, _), _)) = self.events.first_key_value()
            && *at <= end
        {
            let ((at, made), (to, event)) = self.events.pop_first().expect("it was looked at just now");
            self.now = at;
            if self.paused[to] > at {
                // It waits in the inbox, in order.
                self.events.insert((self.paused[to], made), (to, event));
                continue;
            }
            self.deliver(to, event);
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, event: Event) {
        if !self.runs[to] {
            return;
        }
        let (now, node) = (self.now, &mut self.nodes[to]);
        match event {
            Event::Wake => self.wake_at[to] = None,
            Event::Connected(from) => node.connect(now, key(from)),
            Event::Broken(from) => node.break_off(now, key(from)),
            Event::Message { from, message: Message::Swim(bytes) } => assert!(node.receive(now, key(from), &bytes)),
            Event::Message { from, message: Message::Hello { life, incarnation, you } } => {
                node.receive_hello(now, key(from), life, incarnation, you);
            }
            Event::Message { message, .. } => panic!("not a membership's message: {message:?}"),
        }
        node.tick(now);
        let changed = node.take_changed();
        let outbox = node.take_outbox();
        if changed {
            self.look(to);
        }
        for (other, message) in outbox {
            let other = index(&other);
            let linked = self.links.contains(&(to.min(other), to.max(other)));
            if !linked {
                continue;
            }
            self.sent_messages += 1;
            self.sent_bytes += message.encode().len() as u64;
            if !self.mute.contains(&(to, other)) && !self.rng.random_bool(self.lost) {
                let after = self.latency();
                self.post(after, other, Event::Message { from: to, message });
            }
        }
        self.arrange(to);
    }

    /// Sees to it that a node is woken when it wants to be.
    fn arrange(&mut self, node: usize) {
        let Some(due) = self.nodes[node].next_deadline() else { return };
        if self.wake_at[node].is_none_or(|at| due < at) {
            self.wake_at[node] = Some(due);
            self.post(due.since(self.now), node, Event::Wake);
        }
    }

    /// Looks for members that one node takes for dead although they run.
    fn look(&mut self, believer: usize) {
        for of in (0..self.nodes.len()).filter(|of| *of != believer) {
            let down = self.runs[of] && self.liveness(believer, of) == Some(Liveness::Down);
            if down && !self.open.contains_key(&(believer, of)) {
                self.open.insert((believer, of), self.now);
                self.false_deaths.push(FalseDeath { believer, of, at: self.now });
            } else if !down && let Some(since) = self.open.remove(&(believer, of)) {
                self.longest = self.longest.max(self.now.since(since));
            }
        }
    }

    fn liveness(&self, viewer: usize, of: usize) -> Option<Liveness> {
        self.nodes[viewer].believed().get(&key(of)).map(|believed| believed.liveness)
    }

    fn all_believe(&self, of: usize, wanted: Liveness) -> bool {
        let viewers = (0..self.nodes.len()).filter(|viewer| *viewer != of && self.runs[*viewer]);
        viewers.into_iter().all(|viewer| self.liveness(viewer, of) == Some(wanted))
    }

    fn assert_all_alive(&self) {
        for viewer in (0..self.nodes.len()).filter(|viewer| self.runs[*viewer]) {
            for of in (0..self.nodes.len()).filter(|of| *of != viewer && self.runs[*of]) {
                assert_eq!(self.liveness(viewer, of), Some(Liveness::Alive), "{viewer} of {of} at {:?}", self.now);
            }
        }
    }

    /// How long it takes until `holds`.
    fn until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Net) -> bool) -> Duration {
        let start = self.now;
        while !holds(self) {
            assert!(self.now.since(start) < limit, "after {limit:?} not yet so: {what}");
            self.run(Duration::from_millis(20));
        }
        self.now.since(start)
    }
}

#[test]
fn a_killed_member_is_known_to_be_down_everywhere_within_three_seconds() {
    for (count, seed) in [(3, 1), (10, 2), (100, 3)] {
        let mut net = Net::settled(count, seed);
        net.kill(1);
        let took = net.until(Duration::from_secs(3), "down everywhere", |net| net.all_believe(1, Liveness::Down));
        eprintln!("{count} nodes: a broken connection is a death after {took:?}");
        assert_eq!(net.false_deaths, []);
        net.restart(1);
        let took = net.until(Duration::from_secs(1), "alive again", |net| net.all_believe(1, Liveness::Alive));
        eprintln!("{count} nodes: a restart is known after {took:?}");
        assert!((0..count).filter(|n| *n != 1).all(|n| net.nodes[n].believed()[&key(1)].boot() == 2));
    }
}

#[test]
fn a_member_that_falls_silent_is_known_to_be_down_everywhere_within_ten_seconds() {
    let mut net = Net::settled(100, 4);
    net.runs[7] = false;
    let took = net.until(Duration::from_secs(10), "down everywhere", |net| net.all_believe(7, Liveness::Down));
    eprintln!("a silent death is known after {took:?}");
    assert_eq!(net.false_deaths, []);
}

#[test]
fn one_broken_link_is_one_accusation_and_no_death() {
    for (count, seed) in [(4, 5), (10, 6), (100, 7)] {
        let mut net = Net::settled(count, seed);
        net.disconnect(0, 1);
        net.run(Duration::from_secs(120));
        assert_eq!(net.false_deaths, [], "{count} nodes");
        for (viewer, of) in [(0, 1), (1, 0)] {
            let believed = net.nodes[viewer].believed()[&key(of)];
            assert_eq!((believed.liveness, believed.boot()), (Liveness::Alive, 1));
            // One for the break, and at most a few for probes that three others could not carry out in time.
            assert!(believed.incarnation <= 3, "{count} nodes: accused again and again: {believed:?}");
        }
    }
}

#[test]
fn a_one_way_cut_kills_nobody() {
    let mut net = Net::settled(10, 8);
    net.mute.insert((0, 1));
    net.run(Duration::from_secs(120));
    assert_eq!(net.false_deaths, []);
}

#[test]
fn a_member_with_a_flapping_link_stays_alive() {
    let mut net = Net::settled(10, 9);
    for _ in 0..30 {
        net.disconnect(0, 1);
        net.run(Duration::from_millis(1_700));
        net.connect(0, 1);
        net.run(Duration::from_millis(1_300));
    }
    assert_eq!(net.false_deaths, []);
}

#[test]
fn at_one_percent_loss_nobody_is_taken_for_dead() {
    let mut net = Net::settled(100, 10);
    net.lost = 0.01;
    net.run(Duration::from_secs(300));
    assert_eq!(net.false_deaths, []);
}

#[test]
fn at_a_fifth_lost_every_false_death_is_refuted_within_ten_seconds() {
    let mut net = Net::settled(30, 11);
    net.lost = 0.2;
    let span = Duration::from_secs(300);
    net.run(span);
    let hours = 30.0 * span.as_secs_f64() / 3600.0;
    let rate = net.false_deaths.len() as f64 / hours;
    eprintln!("20 % loss: {rate:.1} false deaths in a node's hour, the longest of {:?}", net.longest);
    net.lost = 0.0;
    net.run(Duration::from_secs(10));
    net.assert_all_alive();
    assert!(net.longest < Duration::from_secs(10), "{:?}", net.longest);
}

/// Lifeguard's experiment: a quarter of the nodes stands still for seconds, again and again.
#[test]
fn nodes_that_stall_take_no_healthy_member_for_dead() {
    let (count, stalled) = (32, 8);
    for seed in 12..15 {
        let mut net = Net::settled(count, seed);
        for _ in 0..20 {
            for node in 0..stalled {
                let pause = Duration::from_millis(net.rng.random_range(500..9_000));
                net.paused[node] = net.now + pause;
            }
            let span = Duration::from_millis(net.rng.random_range(1_000..10_000));
            net.run(span);
        }
        let of_healthy: Vec<_> = net.false_deaths.iter().filter(|death| death.of >= stalled).collect();
        eprintln!(
            "stalls: {} deaths of healthy nodes, {} of stalled ones",
            of_healthy.len(),
            net.false_deaths.len() - of_healthy.len()
        );
        assert!(of_healthy.is_empty(), "{of_healthy:?}");
        net.run(Duration::from_secs(60));
        net.assert_all_alive();
    }
}

/// A node that was paused for so long that all its connections broke believes nothing bad of the others, and says nothing bad.
#[test]
fn a_node_that_slept_until_all_its_connections_broke_accuses_nobody() {
    let mut net = Net::settled(20, 16);
    net.paused[3] = net.now + Duration::from_secs(15);
    net.run(Duration::from_secs(10));
    for other in (0..20).filter(|other| *other != 3) {
        net.disconnect(3, other);
    }
    net.run(Duration::from_secs(6));
    for other in (0..20).filter(|other| *other != 3) {
        net.connect(3, other);
    }
    net.run(Duration::from_secs(5));
    net.assert_all_alive();
    assert!(net.false_deaths.iter().all(|death| death.of == 3), "{:?}", net.false_deaths);
}

#[test]
fn who_says_that_all_are_dead_is_not_believed() {
    let mut net = Net::settled(20, 17);
    for of in 1..20 {
        let now = net.now;
        net.nodes[0].say(now, key(of), State::Down);
        net.look(0);
    }
    net.run(Duration::from_secs(15));
    net.assert_all_alive();
    assert!(net.false_deaths.iter().all(|death| death.believer == 0), "{:?}", net.false_deaths);
    assert_eq!(net.false_deaths.len(), 19);
}

#[test]
fn after_an_hour_apart_both_sides_hold_each_other_alive_within_seconds() {
    for (count, away) in [(12, 4), (6, 1)] {
        let mut net = Net::settled(count, 18);
        let across: Vec<_> = (0..away).flat_map(|a| (away..count).map(move |b| (a, b))).collect();
        for (a, b) in &across {
            net.disconnect(*a, *b);
        }
        net.run(Duration::from_secs(300));
        assert!(across.iter().all(|(a, b)| net.liveness(*a, *b) == Some(Liveness::Down)));
        assert!(across.iter().all(|(a, b)| net.liveness(*b, *a) == Some(Liveness::Down)));
        net.run(Duration::from_secs(3_600));
        for (a, b) in &across {
            net.connect(*a, *b);
        }
        net.run(Duration::from_secs(3));
        net.assert_all_alive();
        net.run(Duration::from_secs(60));
        net.assert_all_alive();
    }
}

#[test]
fn three_hundred_that_join_at_once_know_one_another_within_seconds() {
    let mut net = Net::new(300, 19);
    for a in 0..300 {
        for b in a + 1..300 {
            net.connect(a, b);
        }
    }
    net.run(Duration::from_secs(2));
    net.assert_all_alive();
    net.run(Duration::from_secs(18));
    net.assert_all_alive();
    assert_eq!(net.false_deaths, []);
    let each = net.sent_bytes / 300;
    eprintln!("a wave of 300: {each} bytes a node in 20 s");
    assert!(each < 400 << 10, "{each} bytes a node");
}

#[test]
fn an_idle_member_of_a_hundred_sends_less_than_a_kilobyte_a_second() {
    let mut net = Net::settled(100, 20);
    net.run(Duration::from_secs(30));
    (net.sent_bytes, net.sent_messages) = (0, 0);
    net.run(Duration::from_secs(120));
    let (bytes, messages) = (net.sent_bytes / 120 / 100, net.sent_messages as f64 / 12_000.0);
    eprintln!("idle: {bytes} bytes and {messages:.1} messages a second");
    assert!(bytes < 1_000, "{bytes} bytes a second");
}

#[test]
fn bytes_that_make_no_sense_and_words_in_anothers_name_change_nothing() {
    let mut net = Net::settled(3, 21);
    let before = net.nodes[0].believed().clone();
    let now = net.now;
    for garbage in [&b""[..], b"\xff\xff\xff"] {
        assert!(!net.nodes[0].receive(now, key(1), garbage));
    }
    net.nodes[2].say(now, key(1), State::Down);
    net.nodes[2].tick(now + GOSSIP_DELAY);
    let outbox = net.nodes[2].take_outbox();
    let packet = outbox.into_iter().find_map(|(to, message)| match message {
        Message::Swim(bytes) if to == key(0) => Some(bytes),
        _ => None,
    });
    let packet = packet.expect("what has changed is told at once");
    assert!(!net.nodes[0].receive(now, key(1), &packet), "node 2 speaks for itself alone");
    assert_eq!(*net.nodes[0].believed(), before);
}

#[test]
fn an_old_greeting_revives_nobody() {
    let mut net = Net::settled(10, 22);
    let old = net.nodes[1].foca.identity().life;
    net.kill(1);
    net.run(Duration::from_secs(5));
    let now = net.now;
    net.nodes[0].receive_hello(now, key(1), old, 7, None);
    assert_eq!(net.liveness(0, 1), Some(Liveness::Down));
    net.nodes[0].receive_hello(now, key(1), old + 1, 0, None);
    assert_eq!(net.liveness(0, 1), Some(Liveness::Alive));
}

#[test]
fn who_is_no_member_is_not_spoken_of_and_who_no_longer_is_is_forgotten() {
    let mut net = Net::settled(5, 23);
    let without: BTreeSet<NodeKey> = (0..4).map(key).collect();
    let now = net.now;
    net.nodes[0].set_members(now, without);
    assert!(!net.nodes[0].believed().contains_key(&key(4)));
    // The others go on speaking of it.
    net.run(Duration::from_secs(120));
    assert!(!net.nodes[0].believed().contains_key(&key(4)));
    assert_eq!(net.nodes[0].foca.iter_membership_state().count(), 3);
}
