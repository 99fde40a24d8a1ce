//! News to everybody at once: handed on along stretches of the ring of keys, and pulled by those whom that missed. Pure.
//!
//! Every node knows all members, so no tree has to be built or kept. Keys lie on a ring; who has news cuts the ring into as many
//! stretches as its fan-out and hands the news to one random member of each, who does the same within its stretch, until a
//! stretch is small enough to be told member by member: two hops for hundreds of nodes, and one copy each. (El-Ansary et al.,
//! Efficient broadcast in structured P2P networks, 2003.) Small news goes round twice, by two cuts of the ring, so that neither
//! a lost message nor a relay that has just died costs anybody time. A moment later each node tells the name of the news to a few
//! others, evenly spaced on the ring; who hears a name that it does not know asks for the news (Leitão, Pereira, Rodrigues:
//! Epidemic broadcast trees, 2007, from where the names come). What still slips through is repaired by anti-entropy (`sync`).
//!
//! Measured by `tests/netsim/spread.rs`, 300 nodes, links of 0.2 to 80 ms, one message in a hundred lost: two cuts take 130 ms (p99)
//! with 1.0 duplicates a delivery and miss nobody. They were chosen by a sketch on the same model of a network: one cut took 160
//! to 200 ms with 0.2 duplicates; pushing to 6 and then 3 random members 346 ms with 2.1, and missed somebody now and then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::seq::{IndexedRandom, IteratorRandom};
use rand_chacha::ChaCha8Rng;

use super::message::{Message, NewsId, Stretch};
use crate::ids::NodeKey;
use crate::time::Mono;

/// Into how many stretches a ring is cut: about the root of 300, so that two hops reach everybody, and no node sends more than
/// a few dozen copies. A cluster of no more than this is told member by member.
const FANOUT_MAX: usize = 20;

/// How many copies of large news a node sends.
const FANOUT_MIN: usize = 4;

/// How many bytes a node sends at once for one piece of news: larger news gets a smaller fan-out, as far as [`FANOUT_MIN`].
const BURST_BYTES: usize = 512 << 10;

/// How often small news goes round.
const ROUNDS: u8 = 2;

/// Up to how many bytes news counts as small: records and revisions do; sending them twice costs less than waiting does.
const SMALL_BYTES: usize = 4 << 10;

/// To how many others a name is told: it is 16 bytes, and who has the news does not ask. With 3, who was missed hears of it
/// though a message is lost and another of the three was missed as well.
const NAMES_FANOUT: usize = 3;

/// How long names are gathered before they are told: nearly every member has the news by then and need not ask.
const NAMES_DELAY: Duration = Duration::from_millis(100);

/// How long somebody who was asked for news has to send it before another is asked: a round trip over a slow link.
const ASK_TIMEOUT: Duration = Duration::from_millis(200);

/// How often a piece of news is asked for; then anti-entropy has to bring it.
const ASKS_MAX: u32 = 5;

/// How many bytes of news one question is answered with: the rest is asked for again, or comes from others.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How many names of news are remembered, so that none is taken in twice: minutes of the highest rate that a cluster of 300 has.
const SEEN_MAX: usize = 16_384;

/// How many bytes of news are kept for those who ask.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// How many news may be asked for at once; beyond, anti-entropy brings them.
const ASKED_MAX: usize = 1_024;

/// What one node knows of the news that go round.
#[derive(Debug)]
pub struct Dissemination {
    me: NodeKey,
    /// With how often it may still be passed on when another member asks for that.
    seen: BTreeMap<NewsId, u8>,
    seen_order: VecDeque<NewsId>,
    kept: BTreeMap<NewsId, Vec<u8>>,
    kept_order: VecDeque<NewsId>,
    kept_bytes: usize,
    names: BTreeSet<NewsId>,
    names_due: Option<Mono>,
    asked: BTreeMap<NewsId, Asked>,
}

#[derive(Debug)]
struct Asked {
    again_at: Mono,
    asks: u32,
    /// Who has told us the name; the front one was asked last.
    sources: VecDeque<NodeKey>,
}

/// Messages with their receivers.
pub type Outbox = Vec<(NodeKey, Message)>;

impl Dissemination {
    /// A node that has heard of nothing.
    pub fn new(me: NodeKey) -> Self {
        Self {
            me,
            seen: BTreeMap::new(),
            seen_order: VecDeque::new(),
            kept: BTreeMap::new(),
            kept_order: VecDeque::new(),
            kept_bytes: 0,
            names: BTreeSet::new(),
            names_due: None,
            asked: BTreeMap::new(),
        }
    }

    /// Spreads news of this node's own. With `acknowledge`, every connected member gets it and says when it is on its disk.
    pub fn tell(
        &mut self,
        now: Mono,
        rng: &mut ChaCha8Rng,
        peers: &BTreeSet<NodeKey>,
        news: Vec<u8>,
        acknowledge: bool,
    ) -> (NewsId, Outbox) {
        let id = self.receive(now, &news);
        let mut outbox = Outbox::new();
        if acknowledge {
            outbox.extend(peers.iter().map(|peer| (*peer, Message::News { news: news.clone(), acknowledge })));
        } else {
            // In a small cluster the second time would take the same way as the first.
            let rounds = if news.len() <= SMALL_BYTES && peers.len() > FANOUT_MAX { ROUNDS } else { 1 };
            for _ in 0..rounds {
                let Some(start) = peers.iter().choose(rng) else { break };
                hand_out(rng, peers, &Stretch { from: *start, to: *start }, &[], &news, &mut outbox);
            }
        }
        (id, outbox)
    }

    /// Whether this news has not come yet.
    pub fn is_new(&self, news: &[u8]) -> bool {
        !self.seen.contains_key(&NewsId::of(news))
    }

    /// This news was refused: it is neither passed on nor named to anybody, and not looked at again.
    pub fn refuse(&mut self, news: &[u8]) {
        let id = NewsId::of(news);
        self.asked.remove(&id);
        self.see(id);
    }

    /// Takes in news once it was found good: from now on it can be asked for, and its name goes round.
    pub fn receive(&mut self, now: Mono, news: &[u8]) -> NewsId {
        let id = NewsId::of(news);
        self.asked.remove(&id);
        self.see(id);
        self.keep(id, news);
        self.names.insert(id);
        self.names_due.get_or_insert(now + NAMES_DELAY);
        id
    }

    /// Passes news on to the members in a stretch, as `from` asked, whether or not it had come before. Nothing when it was
    /// refused, or was passed on as often as news ever goes round: nobody can make one message into many more than that.
    pub fn relay(
        &mut self,
        rng: &mut ChaCha8Rng,
        peers: &BTreeSet<NodeKey>,
        from: NodeKey,
        news: &[u8],
        stretch: &Stretch,
    ) -> Outbox {
        let id = NewsId::of(news);
        let mut outbox = Outbox::new();
        if let Some(left) = self.seen.get_mut(&id)
            && *left > 0
            && self.kept.contains_key(&id)
        {
            *left -= 1;
            hand_out(rng, peers, stretch, &[from], news, &mut outbox);
        }
        outbox
    }

    /// A member told names: asks it for those that are not known.
    pub fn heard(&mut self, now: Mono, from: NodeKey, names: &[NewsId]) -> Option<Message> {
        let mut wanted = Vec::new();
        let mut room = ASKED_MAX.saturating_sub(self.asked.len());
        for id in names.iter().filter(|id| !self.seen.contains_key(*id)) {
            match self.asked.get_mut(id) {
                Some(asked) if asked.sources.len() < NAMES_FANOUT && !asked.sources.contains(&from) => {
                    asked.sources.push_back(from);
                }
                Some(_) => {}
                None if room > 0 => {
                    room -= 1;
                    let asked = Asked { again_at: now + ASK_TIMEOUT, asks: 1, sources: VecDeque::from([from]) };
                    self.asked.insert(*id, asked);
                    wanted.push(*id);
                }
                None => {}
            }
        }
        (!wanted.is_empty()).then_some(Message::Ask(wanted))
    }

    /// News that a member is to say again whether it is on its disk, if they are still kept.
    pub fn ask_to_acknowledge(&self, id: &NewsId) -> Option<Message> {
        self.kept.get(id).map(|news| Message::News { news: news.clone(), acknowledge: true })
    }

    /// A member asks for news: those that are still kept, as many as one answer holds.
    pub fn asked(&self, names: &[NewsId]) -> Vec<Message> {
        let names: BTreeSet<&NewsId> = names.iter().collect();
        let mut bytes = 0;
        let fits = |news: &&Vec<u8>| {
            let first = bytes == 0;
            bytes += news.len();
            first || bytes <= ANSWER_BYTES_MAX
        };
        let kept = names.into_iter().filter_map(|id| self.kept.get(id)).take_while(fits);
        kept.map(|news| Message::News { news: news.clone(), acknowledge: false }).collect()
    }

    /// Tells names that are due, and asks others for what did not come.
    pub fn tick(&mut self, now: Mono, peers: &BTreeSet<NodeKey>) -> Outbox {
        let mut outbox = Outbox::new();
        if self.names_due.is_some_and(|due| due <= now) {
            self.names_due = None;
            let names: Vec<NewsId> = std::mem::take(&mut self.names).into_iter().collect();
            outbox.extend(self.namesakes(peers).into_iter().map(|peer| (peer, Message::Heard(names.clone()))));
        }
        let mut again: BTreeMap<NodeKey, Vec<NewsId>> = BTreeMap::new();
        self.asked.retain(|id, asked| {
            if asked.again_at > now {
                return true;
            }
            // Whoever was asked last goes to the end, and is asked again when no other is left: the question may have got lost.
            asked.sources.rotate_left(1);
            asked.asks += 1;
            asked.again_at = now + ASK_TIMEOUT;
            if let Some(source) = asked.sources.front().filter(|_| asked.asks <= ASKS_MAX) {
                again.entry(*source).or_default().push(*id);
            }
            asked.asks <= ASKS_MAX
        });
        outbox.extend(again.into_iter().map(|(source, ids)| (source, Message::Ask(ids))));
        outbox
    }

    /// Whom names are told to: spaced evenly on the ring from here on, so that everybody is told by as many as it tells. All of
    /// one stretch may have been missed; those who tell one of them lie in other stretches.
    fn namesakes(&self, peers: &BTreeSet<NodeKey>) -> Vec<NodeKey> {
        let onwards = peers.range(self.me..).chain(peers.range(..self.me));
        let ring: Vec<NodeKey> = onwards.filter(|peer| **peer != self.me).copied().collect();
        let count = NAMES_FANOUT.min(ring.len());
        (1..=count).map(|step| ring[(ring.len() + 1) * step / (count + 1) - 1]).collect()
    }

    /// When [`Dissemination::tick`] wants to be called.
    pub fn next_deadline(&self) -> Option<Mono> {
        let asked = self.asked.values().map(|asked| asked.again_at).min();
        [self.names_due, asked].into_iter().flatten().min()
    }

    fn see(&mut self, id: NewsId) {
        if self.seen.contains_key(&id) {
            return;
        }
        self.seen.insert(id, ROUNDS);
        self.seen_order.push_back(id);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    fn keep(&mut self, id: NewsId, news: &[u8]) {
        if self.kept.insert(id, news.to_vec()).is_none() {
            self.kept_order.push_back(id);
            self.kept_bytes += news.len();
        }
        while self.kept_bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.kept_order.pop_front()
        {
            self.kept_bytes -= self.kept.remove(&oldest).map_or(0, |news| news.len());
        }
    }
}

/// Tells the members in a stretch, or hands each part of it to one of them.
fn hand_out(
    rng: &mut ChaCha8Rng,
    peers: &BTreeSet<NodeKey>,
    stretch: &Stretch,
    except: &[NodeKey],
    news: &[u8],
    outbox: &mut Outbox,
) {
    let Stretch { from, to } = *stretch;
    let wrapped = (from >= to).then(|| peers.range(..to)).into_iter().flatten();
    let upper = if from < to { peers.range(from..to) } else { peers.range(from..) };
    let members: Vec<NodeKey> = upper.chain(wrapped).filter(|peer| !except.contains(peer)).copied().collect();
    let fanout = (BURST_BYTES / news.len().max(1)).clamp(FANOUT_MIN, FANOUT_MAX);
    if members.len() <= fanout {
        outbox.extend(members.iter().map(|peer| (*peer, Message::News { news: news.to_vec(), acknowledge: false })));
        return;
    }
    // The parts lie end to end: a member that is not known here may be known to whoever is given the part that it lies in.
    let bound = |part: usize| members.len() * part / fanout;
    for part in 0..fanout {
        let stretch = Stretch {
            from: if part == 0 { from } else { members[bound(part)] },
            to: if part + 1 == fanout { to } else { members[bound(part + 1)] },
        };
        let relay = members[bound(part)..bound(part + 1)].choose(rng).expect("there are more members than parts");
        outbox.push((*relay, Message::Relay { news: news.to_vec(), stretch }));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    struct Net {
        nodes: BTreeMap<NodeKey, Dissemination>,
        rng: ChaCha8Rng,
        reached: BTreeSet<NodeKey>,
        copies: usize,
    }

    fn key(node: u16) -> NodeKey {
        NodeKey(*blake3::hash(&node.to_be_bytes()).as_bytes())
    }

    impl Net {
        fn new(count: u16) -> Self {
            let nodes = (0..count).map(|n| (key(n), Dissemination::new(key(n)))).collect();
            Self { nodes, rng: ChaCha8Rng::seed_from_u64(3), reached: BTreeSet::new(), copies: 0 }
        }

        fn peers_of(&self, node: &NodeKey) -> BTreeSet<NodeKey> {
            self.nodes.keys().filter(|key| *key != node).copied().collect()
        }

        /// Delivers until nothing is under way; `lost` says of each message whether it gets lost.
        fn deliver(&mut self, now: Mono, from: NodeKey, outbox: Outbox, lost: &mut dyn FnMut(&mut ChaCha8Rng) -> bool) {
            let mut mail: VecDeque<_> = outbox.into_iter().map(|(to, message)| (from, to, message)).collect();
            while let Some((from, to, message)) = mail.pop_front() {
                if lost(&mut self.rng) {
                    continue;
                }
                let peers = self.peers_of(&to);
                let node = self.nodes.get_mut(&to).unwrap();
                let answers: Outbox = match message {
                    Message::News { news, .. } => {
                        self.copies += 1;
                        self.reached.insert(to);
                        node.receive(now, &news);
                        Outbox::new()
                    }
                    Message::Relay { news, stretch } => {
                        self.copies += 1;
                        self.reached.insert(to);
                        node.receive(now, &news);
                        node.relay(&mut self.rng, &peers, from, &news, &stretch)
                    }
                    Message::Heard(names) => node.heard(now, from, &names).map(|ask| (from, ask)).into_iter().collect(),
                    Message::Ask(names) => node.asked(&names).into_iter().map(|news| (from, news)).collect(),
                    other => panic!("unexpected {other:?}"),
                };
                mail.extend(answers.into_iter().map(|(next, message)| (to, next, message)));
            }
        }

        fn tell(&mut self, news: Vec<u8>, lost: &mut dyn FnMut(&mut ChaCha8Rng) -> bool) {
            let origin = key(0);
            let peers = self.peers_of(&origin);
            let node = self.nodes.get_mut(&origin).unwrap();
            let (_, outbox) = node.tell(Mono(0), &mut self.rng, &peers, news, false);
            self.reached.insert(origin);
            self.deliver(Mono(0), origin, outbox, lost);
        }

        /// Lets names go round and questions be asked for four seconds.
        fn settle(&mut self, lost: &mut dyn FnMut(&mut ChaCha8Rng) -> bool) {
            for step in 1..40 {
                for key in self.nodes.keys().copied().collect::<Vec<_>>() {
                    let peers = self.peers_of(&key);
                    let node = self.nodes.get_mut(&key).unwrap();
                    let outbox = node.tick(Mono(step * 100), &peers);
                    self.deliver(Mono(step * 100), key, outbox, lost);
                }
            }
        }
    }

    #[test]
    fn small_news_reach_everybody_twice_and_large_news_once() {
        for (count, len, copies) in
            [(5, 10, 4), (21, 10, 20), (100, 10, 2 * 99), (1_000, 10, 2 * 999), (300, 100_000, 299)]
        {
            let mut net = Net::new(count);
            net.tell(vec![7; len], &mut |_| false);
            assert_eq!(net.reached.len(), usize::from(count), "{count} nodes, {len} bytes");
            // Where there are more than two hops, a copy may go back to one who is on the way to it.
            let more = net.copies - copies;
            assert!(more <= copies / 20, "{count} nodes, {len} bytes: {} copies", net.copies);
        }
    }

    #[test]
    fn nobody_sends_more_of_large_news_than_it_can() {
        let mut net = Net::new(300);
        let peers = net.peers_of(&key(0));
        let node = net.nodes.get_mut(&key(0)).unwrap();
        let (_, outbox) = node.tell(Mono(0), &mut net.rng, &peers, vec![7; 4 << 20], false);
        assert_eq!(outbox.len(), FANOUT_MIN);
    }

    #[test]
    fn who_was_missed_hears_the_name_and_asks() {
        use rand::RngExt;
        for count in [3, 5, 100] {
            let mut net = Net::new(count);
            let mut lost = |rng: &mut ChaCha8Rng| rng.random_bool(0.2);
            net.tell(b"news".to_vec(), &mut lost);
            assert!(count < 100 || net.reached.len() < 100, "something was lost");
            net.settle(&mut lost);
            assert_eq!(net.reached.len(), usize::from(count));
        }
    }

    #[test]
    fn a_part_of_the_cluster_that_a_lost_relay_left_out_is_told_from_the_others() {
        let mut net = Net::new(100);
        let mut sent = 0;
        // The first copy, and all that would have followed from it.
        net.tell(vec![7; SMALL_BYTES + 1], &mut |_| {
            sent += 1;
            sent == 1
        });
        assert!((4..=5).contains(&(100 - net.reached.len())), "a twentieth was left out");
        net.settle(&mut |_| false);
        assert_eq!(net.reached.len(), 100);
    }

    #[test]
    fn news_is_passed_on_as_often_as_it_goes_round_and_refused_news_never() {
        let mut node = Dissemination::new(key(0));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let peers: BTreeSet<_> = (1..9).map(key).collect();
        let ring = Stretch { from: key(3), to: key(3) };
        node.receive(Mono(0), b"good");
        for _ in 0..ROUNDS {
            let told: BTreeSet<_> =
                node.relay(&mut rng, &peers, key(1), b"good", &ring).into_iter().map(|(to, _)| to).collect();
            assert_eq!(told, (2..9).map(key).collect(), "everybody but the one who asked for it");
        }
        assert!(node.relay(&mut rng, &peers, key(1), b"good", &ring).is_empty());
        node.refuse(b"bad");
        assert!(node.relay(&mut rng, &peers, key(1), b"bad", &ring).is_empty());
        assert!(node.relay(&mut rng, &peers, key(1), b"never seen", &ring).is_empty());
    }

    #[test]
    fn a_question_that_is_not_answered_goes_to_others_and_ends() {
        let mut node = Dissemination::new(key(0));
        let peers: BTreeSet<_> = (1..9).map(key).collect();
        let id = NewsId([1; 16]);
        assert_eq!(node.heard(Mono(0), key(1), &[id]), Some(Message::Ask(vec![id])));
        assert_eq!(node.heard(Mono(1), key(2), &[id]), None, "it was asked for just now");
        let mut asked = Vec::new();
        while let Some(due) = node.next_deadline() {
            asked.extend(node.tick(due, &peers).into_iter().map(|(to, _)| to));
        }
        assert_eq!(asked, [key(2), key(1), key(2), key(1)]);
        assert!(node.heard(Mono(5_000), key(3), &[id]).is_some(), "who tells it later is asked anew");
    }

    #[test]
    fn memory_and_answers_are_bounded() {
        let mut node = Dissemination::new(key(0));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut ids = Vec::new();
        for n in 0..SEEN_MAX as u32 + 100 {
            let news = [&n.to_be_bytes()[..], &[0; 1000]].concat();
            ids.push(node.tell(Mono(0), &mut rng, &BTreeSet::new(), news, false).0);
        }
        assert_eq!(node.seen.len(), SEEN_MAX);
        assert!(node.kept_bytes <= KEPT_BYTES_MAX);
        assert_eq!(node.kept.len(), node.kept_order.len());
        assert_eq!(node.asked(&ids).len(), ANSWER_BYTES_MAX / 1004);
        let last = *ids.last().unwrap();
        assert_eq!(node.asked(&[last; 50]).len(), 1);
    }
}
