//! News to everybody at once: pushed to a few, and pulled by those whom no push reached. Pure.
//!
//! Who hears something new pushes it on to a few random members and tells a few others its name a moment later; who hears a
//! name that it does not know asks for the news. What still slips through is repaired by anti-entropy (`sync`). (Demers et
//! al., Epidemic algorithms for replicated database maintenance, 1987; Leitão, Pereira, Rodrigues: Epidemic broadcast trees, 2007.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::message::{Message, NewsId};
use crate::ids::NodeKey;
use crate::time::Mono;

/// To how many members the author of news pushes it.
const FANOUT_ORIGIN: usize = 6;

/// To how many members news is pushed on by who hears it for the first time. With 3, all but about one in twenty are reached
/// by pushes alone (1 - e^-3).
const FANOUT_RELAY: usize = 3;

/// To how many others its name is told: a name is 16 bytes, and who was pushed to does not ask.
const FANOUT_NAMES: usize = 5;

/// How long names are gathered before they are told: most members have been pushed to by then and need not ask.
const NAMES_DELAY: Duration = Duration::from_millis(100);

/// How long somebody who was asked for news has to send it before another is asked.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// How many names of news are remembered, so that none is relayed twice: minutes of the highest rate that a cluster of 300 has.
const SEEN_MAX: usize = 16_384;

/// How many bytes of news are kept for those who ask.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// How many news may be asked for at once; beyond, anti-entropy brings them.
const ASKED_MAX: usize = 1_024;

/// What one node knows of the news that go round.
#[derive(Debug, Default)]
pub struct Dissemination {
    seen: BTreeSet<NewsId>,
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
    /// Who else has told us the name.
    sources: VecDeque<NodeKey>,
}

/// Messages with their receivers.
pub type Outbox = Vec<(NodeKey, Message)>;

impl Dissemination {
    /// Spreads news of this node's own. With `acknowledge`, every connected member gets it and says when it is on its disk.
    pub fn tell(
        &mut self,
        now: Mono,
        rng: &mut ChaCha8Rng,
        peers: &BTreeSet<NodeKey>,
        news: Vec<u8>,
        acknowledge: bool,
    ) -> (NewsId, Outbox) {
        let id = NewsId::of(&news);
        self.remember(id, &news);
        self.name_later(now, id);
        let fanout = if acknowledge { peers.len() } else { FANOUT_ORIGIN };
        (id, push(rng, peers, &[], fanout, &news, acknowledge))
    }

    /// Whether this news has not come yet.
    pub fn is_new(&self, news: &[u8]) -> bool {
        !self.seen.contains(&NewsId::of(news))
    }

    /// This news was refused: it is neither passed on nor named to anybody, and not looked at again.
    pub fn refuse(&mut self, news: &[u8]) {
        let id = NewsId::of(news);
        self.asked.remove(&id);
        self.see(id);
    }

    /// Takes in news from a member, once it was found good. True with what to relay when it was not known.
    pub fn receive(
        &mut self,
        now: Mono,
        rng: &mut ChaCha8Rng,
        peers: &BTreeSet<NodeKey>,
        from: NodeKey,
        news: &[u8],
    ) -> Option<(NewsId, Outbox)> {
        let id = NewsId::of(news);
        if self.seen.contains(&id) {
            return None;
        }
        self.asked.remove(&id);
        self.remember(id, news);
        self.name_later(now, id);
        Some((id, push(rng, peers, &[from], FANOUT_RELAY, news, false)))
    }

    /// A member told names: asks it for those that are not known.
    pub fn heard(&mut self, now: Mono, from: NodeKey, names: &[NewsId]) -> Option<Message> {
        let mut wanted = Vec::new();
        let mut room = ASKED_MAX.saturating_sub(self.asked.len());
        for id in names.iter().filter(|id| !self.seen.contains(*id)) {
            match self.asked.get_mut(id) {
                Some(asked) if asked.sources.len() < FANOUT_NAMES && !asked.sources.contains(&from) => {
                    asked.sources.push_back(from);
                }
                Some(_) => {}
                None if room > 0 => {
                    room -= 1;
                    self.asked.insert(*id, Asked { again_at: now + ASK_TIMEOUT, sources: VecDeque::new() });
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

    /// A member asks for news: those that are still kept.
    pub fn asked(&self, names: &[NewsId]) -> Vec<Message> {
        let kept = names.iter().filter_map(|id| self.kept.get(id));
        kept.map(|news| Message::News { news: news.clone(), acknowledge: false }).collect()
    }

    /// Tells names that are due, and asks others for what did not come.
    pub fn tick(&mut self, now: Mono, rng: &mut ChaCha8Rng, peers: &BTreeSet<NodeKey>) -> Outbox {
        let mut outbox = Outbox::new();
        if self.names_due.is_some_and(|due| due <= now) {
            self.names_due = None;
            let names: Vec<NewsId> = std::mem::take(&mut self.names).into_iter().collect();
            for peer in choose(rng, peers, &[], FANOUT_NAMES) {
                outbox.push((peer, Message::Heard(names.clone())));
            }
        }
        let late: Vec<NewsId> = self.asked.iter().filter(|(_, a)| a.again_at <= now).map(|(id, _)| *id).collect();
        for id in late {
            let asked = self.asked.get_mut(&id).expect("it was found just now");
            match asked.sources.pop_front() {
                Some(other) => {
                    asked.again_at = now + ASK_TIMEOUT;
                    outbox.push((other, Message::Ask(vec![id])));
                }
                None => {
                    self.asked.remove(&id);
                }
            }
        }
        outbox
    }

    /// When [`Dissemination::tick`] wants to be called.
    pub fn next_deadline(&self) -> Option<Mono> {
        let asked = self.asked.values().map(|asked| asked.again_at).min();
        [self.names_due, asked].into_iter().flatten().min()
    }

    fn name_later(&mut self, now: Mono, id: NewsId) {
        self.names.insert(id);
        self.names_due.get_or_insert(now + NAMES_DELAY);
    }

    fn see(&mut self, id: NewsId) {
        if self.seen.insert(id) {
            self.seen_order.push_back(id);
            if self.seen_order.len() > SEEN_MAX
                && let Some(oldest) = self.seen_order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
    }

    fn remember(&mut self, id: NewsId, news: &[u8]) {
        self.see(id);
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

fn push(
    rng: &mut ChaCha8Rng,
    peers: &BTreeSet<NodeKey>,
    except: &[NodeKey],
    fanout: usize,
    news: &[u8],
    acknowledge: bool,
) -> Outbox {
    let receivers = choose(rng, peers, except, fanout);
    receivers.into_iter().map(|peer| (peer, Message::News { news: news.to_vec(), acknowledge })).collect()
}

fn choose(rng: &mut ChaCha8Rng, peers: &BTreeSet<NodeKey>, except: &[NodeKey], count: usize) -> Vec<NodeKey> {
    let candidates: Vec<NodeKey> = peers.iter().filter(|peer| !except.contains(peer)).copied().collect();
    candidates.sample(rng, count.min(candidates.len())).copied().collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    struct Net {
        nodes: BTreeMap<NodeKey, Dissemination>,
        rng: ChaCha8Rng,
        reached: BTreeSet<NodeKey>,
        pushes: usize,
    }

    impl Net {
        fn new(count: u8) -> Self {
            let nodes = (0..count).map(|n| (NodeKey([n; 32]), Dissemination::default())).collect();
            Self { nodes, rng: ChaCha8Rng::seed_from_u64(3), reached: BTreeSet::new(), pushes: 0 }
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
                        self.pushes += 1;
                        let relayed = node.receive(now, &mut self.rng, &peers, from, &news);
                        relayed.map_or_else(Vec::new, |(_, outbox)| {
                            self.reached.insert(to);
                            outbox
                        })
                    }
                    Message::Heard(names) => node.heard(now, from, &names).map(|ask| (from, ask)).into_iter().collect(),
                    Message::Ask(names) => node.asked(&names).into_iter().map(|news| (from, news)).collect(),
                    other => panic!("unexpected {other:?}"),
                };
                mail.extend(answers.into_iter().map(|(next, message)| (to, next, message)));
            }
        }

        fn run(&mut self, lost: &mut dyn FnMut(&mut ChaCha8Rng) -> bool) {
            let origin = NodeKey([0; 32]);
            let peers = self.peers_of(&origin);
            let node = self.nodes.get_mut(&origin).unwrap();
            let (_, outbox) = node.tell(Mono(0), &mut self.rng, &peers, b"news".to_vec(), false);
            self.reached.insert(origin);
            self.deliver(Mono(0), origin, outbox, lost);
            for step in 1..40 {
                for key in self.nodes.keys().copied().collect::<Vec<_>>() {
                    let peers = self.peers_of(&key);
                    let node = self.nodes.get_mut(&key).unwrap();
                    let outbox = node.tick(Mono(step * 100), &mut self.rng, &peers);
                    self.deliver(Mono(step * 100), key, outbox, lost);
                }
            }
        }
    }

    #[test]
    fn news_reach_nearly_everybody_without_a_flood() {
        let mut net = Net::new(100);
        net.run(&mut |_| false);
        assert!(net.reached.len() >= 99, "{} of 100 reached", net.reached.len());
        assert!(net.pushes <= 400, "{} pushes", net.pushes);
    }

    #[test]
    fn a_small_cluster_is_reached_whole_despite_loss() {
        use rand::RngExt;
        let mut net = Net::new(5);
        net.run(&mut |rng| rng.random_bool(0.2));
        assert_eq!(net.reached.len(), 5);
    }

    #[test]
    fn the_same_news_is_relayed_once() {
        let mut node = Dissemination::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let peers: BTreeSet<_> = (1..9).map(|n| NodeKey([n; 32])).collect();
        let from = NodeKey([1; 32]);
        let (_, relayed) = node.receive(Mono(0), &mut rng, &peers, from, b"x").unwrap();
        assert_eq!(relayed.len(), FANOUT_RELAY);
        assert!(relayed.iter().all(|(to, _)| *to != from));
        assert!(node.receive(Mono(1), &mut rng, &peers, from, b"x").is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut node = Dissemination::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for n in 0..SEEN_MAX as u32 + 100 {
            node.tell(Mono(0), &mut rng, &BTreeSet::new(), [&n.to_be_bytes()[..], &[0; 1000]].concat(), false);
        }
        assert_eq!(node.seen.len(), SEEN_MAX);
        assert!(node.kept_bytes <= KEPT_BYTES_MAX);
        assert_eq!(node.kept.len(), node.kept_order.len());
    }
}
