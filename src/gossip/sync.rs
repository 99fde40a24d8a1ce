//! Anti-entropy: two nodes find what differs between them and move only that. Pure.
//!
//! A round: *roots* (equal: that was all) → *bucket hashes* of the trees that differ → the sender's *states* in the buckets that
//! differ → a *repair* with what the other lacks, and a *want* for what oneself lacks → the other's *repair*. Each repair keeps
//! to a budget; where there is more, the receiver begins the next round at once, so that one who was away for long catches up as
//! fast as it can take things in, and no faster.
//!
//! A round begins every ten seconds with a random member, and soon with each that was connected to just now, one after the other:
//! when the halves of a cluster meet, whoever got what it lacked from one agrees with the next, and that costs 75 bytes. Begun
//! with all at once, every one of them would send the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;

use super::message::{Message, RecordState, Tombstone, Which};
use crate::crdt::catalog::{Catalog, DocKey, DocState, Forgotten};
use crate::crdt::roster::{Roster, Stamp, parse_record_key};
use crate::crdt::tree::HashTree;
use crate::ids::NodeKey;
use crate::time::Mono;

/// How often each node begins a round with a random member.
pub const SYNC_PERIOD: Duration = Duration::from_secs(10);

/// How many bytes of documents and records one repair carries, unless a single document is larger.
pub const REPAIR_BYTES_MAX: usize = 256 << 10;

/// How many states one message carries: of buckets beyond that, the next round speaks.
pub const STATES_MAX: usize = 2_000;

/// How long after the beginning of one round the next may begin, with another member that was connected to just now: most of a
/// round is over by then.
pub const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// For how long after the beginning of a round another one, which comes from the same member, is taken for one that crossed it on
/// its way: nobody is further away.
pub const CROSSING: Duration = Duration::from_millis(500);

/// With whom rounds are begun, and when.
#[derive(Debug)]
pub struct Rounds {
    /// Connected to, and not spoken to since; the oldest first.
    met: VecDeque<NodeKey>,
    begun: Option<Mono>,
    /// With whom a round was begun last, and when, while that has not been answered.
    open: Option<(NodeKey, Mono)>,
    next: Mono,
}

impl Rounds {
    /// The first round is due at once.
    pub fn new(now: Mono) -> Self {
        Self { met: VecDeque::new(), begun: None, open: None, next: now }
    }

    /// A connection stands: a round with that member is due soon.
    pub fn connected(&mut self, now: Mono, peer: NodeKey) {
        if !self.met.contains(&peer) {
            self.met.push_back(peer);
        }
        self.next = self.next.min(self.begun.map_or(now, |begun| (begun + ROUND_PAUSE).max(now)));
    }

    /// With whom to begin a round now, if one is due and anybody is connected.
    pub fn begin(&mut self, now: Mono, rng: &mut ChaCha8Rng, connected: &BTreeSet<NodeKey>) -> Option<NodeKey> {
        if now < self.next {
            return None;
        }
        self.met.retain(|peer| connected.contains(peer));
        let peer = self.met.pop_front().or_else(|| connected.iter().choose(rng).copied());
        if let Some(peer) = peer {
            self.begun = Some(now);
            self.open = Some((peer, now));
        }
        // Spread by a tenth, so that nodes that started together do not stay in step.
        let period = SYNC_PERIOD.mul_f64(rng.random_range(0.9..1.1));
        self.next = now + if self.met.is_empty() { period } else { ROUND_PAUSE };
        peer
    }

    /// A member begins a round: whether that one goes on. Where both have begun one at the same time, as they do when they meet, it
    /// is that of the lesser key, or everything would cross twice.
    pub fn goes_on(&mut self, now: Mono, me: NodeKey, peer: NodeKey) -> bool {
        self.met.retain(|met| *met != peer);
        let crossed = self.open.is_some_and(|(with, at)| with == peer && now.since(at) < CROSSING);
        !(crossed && me < peer)
    }

    /// A member answers the round that was begun with it.
    pub fn answered(&mut self, peer: &NodeKey) {
        self.open.take_if(|(with, _)| with == peer);
    }

    /// When [`Rounds::begin`] wants to be called.
    pub fn next_deadline(&self) -> Mono {
        self.next
    }
}

/// The beginning of a round.
pub fn roots(catalog: &Catalog, roster: &Roster) -> Message {
    Message::Roots { catalog: catalog.tree().root(), roster: roster.tree().root() }
}

/// Answers the beginning of a round: nothing when all is equal.
pub fn compare_roots(catalog: &Catalog, roster: &Roster, theirs: (&[u8; 32], &[u8; 32])) -> Vec<Message> {
    let mut answers = Vec::new();
    if catalog.tree().root() != *theirs.0 {
        answers.push(Message::Buckets { which: Which::Catalog, hashes: catalog.tree().bucket_hashes() });
    }
    if roster.tree().root() != *theirs.1 {
        answers.push(Message::Buckets { which: Which::Roster, hashes: roster.tree().bucket_hashes() });
    }
    answers
}

/// Answers bucket hashes: this node's states in the buckets that differ.
pub fn compare_buckets(catalog: &Catalog, roster: &Roster, which: Which, theirs: &[u8]) -> Option<Message> {
    match which {
        Which::Catalog => {
            let buckets = within_limit(catalog.tree(), theirs);
            let states = buckets
                .iter()
                .flat_map(|b| catalog.tree().items(*b))
                .filter_map(|(key, _)| DocKey::from_bytes(key).map(|key| catalog.state(&key)));
            let states = states.collect();
            (!buckets.is_empty()).then_some(Message::Documents { buckets, states })
        }
        Which::Roster => {
            let buckets = within_limit(roster.tree(), theirs);
            let states = buckets.iter().flat_map(|b| roster.tree().items(*b)).map(|(key, _)| record_state(roster, key));
            let states = states.collect();
            (!buckets.is_empty()).then_some(Message::Records { buckets, states })
        }
    }
}

/// The differing buckets, as many as have their states in one message.
fn within_limit(tree: &HashTree, theirs: &[u8]) -> Vec<u8> {
    let mut states = 0;
    let fits = |bucket: &u8| {
        let first = states == 0;
        states += tree.items(*bucket).count();
        first || states <= STATES_MAX
    };
    tree.differing(theirs).into_iter().take_while(fits).collect()
}

/// Which documents a node gives away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// All that the other lacks.
    Everything,
    /// Only changes to what the other has: of the rest it may be that everybody but this node knows that it was deleted.
    WhatBothHold,
}

/// Answers the other's documents: what it lacks, what this node lacks, and what this node has forgotten.
pub fn compare_documents(catalog: &Catalog, buckets: &[u8], theirs: &[DocState], offer: Offer) -> Vec<Message> {
    let known: BTreeSet<&DocKey> = theirs.iter().map(|state| &state.key).collect();
    let mut repair = Repair { offer, ..Repair::default() };
    let mut wanted = Vec::new();
    let mut forgotten = Vec::new();
    for state in theirs {
        if catalog.get(&state.key).is_none()
            && let Some(tombstone) = tombstone(catalog, &state.key)
        {
            // It may have been written to since: its holder looks whether it has, and sends it then.
            forgotten.push(tombstone);
        } else if catalog.state(&state.key) != *state {
            wanted.push(catalog.state(&state.key));
            repair.add_document(catalog, state);
        }
    }
    for (key, _) in buckets.iter().flat_map(|bucket| catalog.tree().items(*bucket)) {
        if let Some(key) = DocKey::from_bytes(key).filter(|key| !known.contains(key)) {
            repair.add_document(catalog, &DocState::nothing(key));
        }
    }
    let mut answers = repair.into_message().into_iter().collect::<Vec<_>>();
    if !wanted.is_empty() {
        answers.push(Message::Want { documents: wanted, records: Vec::new() });
    }
    if !forgotten.is_empty() {
        answers.push(Message::Forgotten(forgotten));
    }
    answers
}

/// What a node says of documents that it does not offer: that it has them, so that it is told which of them were deleted.
pub fn withheld(catalog: &Catalog, buckets: &[u8], theirs: &[DocState]) -> Option<Message> {
    let known: BTreeSet<&DocKey> = theirs.iter().map(|state| &state.key).collect();
    let items = buckets.iter().flat_map(|bucket| catalog.tree().items(*bucket));
    let keys = items.filter_map(|(key, _)| DocKey::from_bytes(key)).filter(|key| !known.contains(key));
    let states: Vec<DocState> = keys.map(|key| catalog.state(&key)).collect();
    (!states.is_empty()).then_some(Message::Documents { buckets: Vec::new(), states })
}

/// Answers the other's records: what it lacks, and what this node lacks.
pub fn compare_records(roster: &Roster, buckets: &[u8], theirs: &[RecordState]) -> Vec<Message> {
    let known: BTreeMap<&[u8], Stamp> = theirs.iter().map(|state| (&state.key[..], state.stamp)).collect();
    let mut repair = Repair::default();
    for (key, _) in buckets.iter().flat_map(|bucket| roster.tree().items(*bucket)) {
        repair.add_record(
            roster,
            &RecordState { key: key.clone(), stamp: known.get(&key[..]).copied().unwrap_or_default() },
        );
    }
    let wanted: Vec<_> =
        theirs.iter().filter(|theirs| is_newer(roster, theirs)).map(|state| record_state(roster, &state.key)).collect();
    let mut answers = repair.into_message().into_iter().collect::<Vec<_>>();
    if !wanted.is_empty() {
        answers.push(Message::Want { documents: Vec::new(), records: wanted });
    }
    answers
}

/// Whether another node has newer records than this one.
pub fn lacks_records(roster: &Roster, theirs: &[RecordState]) -> bool {
    theirs.iter().any(|theirs| is_newer(roster, theirs))
}

fn is_newer(roster: &Roster, theirs: &RecordState) -> bool {
    record_state(roster, &theirs.key).stamp < theirs.stamp
}

/// What this node remembers of a document that it has forgotten.
pub fn tombstone(catalog: &Catalog, key: &DocKey) -> Option<Tombstone> {
    let Forgotten { version, revisions, .. } = catalog.forgotten(key)?;
    Some(Tombstone { key: key.clone(), version: *version, revisions: revisions.clone() })
}

/// Answers a want.
pub fn supply(
    catalog: &Catalog,
    roster: &Roster,
    documents: &[DocState],
    records: &[RecordState],
    offer: Offer,
) -> Option<Message> {
    let mut repair = Repair { offer, ..Repair::default() };
    for state in documents {
        repair.add_document(catalog, state);
    }
    for state in records {
        repair.add_record(roster, state);
    }
    repair.into_message()
}

fn record_state(roster: &Roster, key: &[u8]) -> RecordState {
    let stamp = parse_record_key(key).and_then(|(node, subject)| roster.stamp(&node, &subject));
    RecordState { key: key.to_vec(), stamp: stamp.unwrap_or_default() }
}

/// A repair that is being filled up to its budget.
struct Repair {
    offer: Offer,
    documents: Vec<crate::crdt::catalog::DocDelta>,
    records: Vec<crate::crdt::admission::Signed>,
    bytes: usize,
    more: bool,
}

impl Default for Repair {
    fn default() -> Self {
        Self { offer: Offer::Everything, documents: Vec::new(), records: Vec::new(), bytes: 0, more: false }
    }
}

impl Repair {
    fn add_document(&mut self, catalog: &Catalog, theirs: &DocState) {
        let is_held_by_both = !theirs.heads.is_empty();
        if !(is_held_by_both || self.offer == Offer::Everything) || self.is_full() {
            return;
        }
        if let Some(delta) = catalog.since(theirs) {
            self.bytes += delta.changes.len();
            self.documents.push(delta);
        }
    }

    fn add_record(&mut self, roster: &Roster, theirs: &RecordState) {
        let Some((node, subject)) = parse_record_key(&theirs.key) else { return };
        if roster.stamp(&node, &subject).is_none_or(|stamp| stamp <= theirs.stamp) || self.is_full() {
            return;
        }
        if let Some(signed) = roster.signed(&node, &subject) {
            self.bytes += signed.body.len();
            self.records.push(signed.clone());
        }
    }

    fn is_full(&mut self) -> bool {
        self.more |= self.bytes >= REPAIR_BYTES_MAX;
        self.more
    }

    fn into_message(self) -> Option<Message> {
        let Self { documents, records, more, .. } = self;
        (!documents.is_empty() || !records.is_empty()).then_some(Message::Repair { documents, records, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::document::Actor;
    use crate::crdt::roster::tests::HashSignatures;
    use crate::crdt::roster::{Holdings, Subject};
    use crate::ids::ServiceName;

    struct Side {
        key: NodeKey,
        catalog: Catalog,
        roster: Roster,
    }

    impl Side {
        fn new(node: u8) -> Self {
            Self { key: NodeKey([node; 32]), catalog: Catalog::default(), roster: Roster::default() }
        }

        fn actor(&self) -> Actor {
            Actor { key: self.key, boot: 1 }
        }

        fn put(&mut self, name: &str, body: &[u8]) {
            let key = DocKey::service(&ServiceName::new(name).unwrap());
            let actor = self.actor();
            self.catalog.put_revision(&key, actor, |_| body.to_vec());
        }

        fn say(&mut self, version: u64) {
            let stamp = Stamp { boot: 1, version };
            self.roster.write(&HashSignatures(self.key), Subject::holdings(), stamp, Some(&Holdings { blobs: vec![] }));
        }

        fn answer(&mut self, message: Message) -> Vec<Message> {
            match message {
                Message::Roots { catalog, roster } => compare_roots(&self.catalog, &self.roster, (&catalog, &roster)),
                Message::Buckets { which, hashes } => {
                    compare_buckets(&self.catalog, &self.roster, which, &hashes).into_iter().collect()
                }
                Message::Documents { buckets, states } => {
                    compare_documents(&self.catalog, &buckets, &states, Offer::Everything)
                }
                Message::Records { buckets, states } => compare_records(&self.roster, &buckets, &states),
                Message::Want { documents, records } => {
                    supply(&self.catalog, &self.roster, &documents, &records, Offer::Everything).into_iter().collect()
                }
                Message::Repair { documents, records, more } => {
                    let actor = self.actor();
                    for delta in &documents {
                        self.catalog.merge(delta, actor).unwrap();
                    }
                    for signed in &records {
                        self.roster.take(&HashSignatures(self.key), signed);
                    }
                    if more { vec![roots(&self.catalog, &self.roster)] } else { vec![] }
                }
                Message::Forgotten(_) => vec![],
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Plays one round and gives back how many messages and bytes crossed.
    fn round(a: &mut Side, b: &mut Side) -> (usize, usize) {
        let mut mail = std::collections::VecDeque::from([(false, roots(&a.catalog, &a.roster))]);
        let (mut messages, mut bytes) = (0, 0);
        while let Some((to_a, message)) = mail.pop_front() {
            messages += 1;
            assert!(messages < 10_000, "the round does not end");
            let encoded = message.encode();
            bytes += encoded.len();
            if let Message::Repair { documents, .. } = &message {
                let largest = documents.iter().map(|delta| delta.changes.len()).max().unwrap_or(0);
                let room = REPAIR_BYTES_MAX + largest + 200 * documents.len();
                assert!(encoded.len() <= room, "a repair of {} bytes", encoded.len());
            }
            let side = if to_a { &mut *a } else { &mut *b };
            mail.extend(side.answer(Message::decode(&encoded).unwrap()).into_iter().map(|answer| (!to_a, answer)));
        }
        (messages, bytes)
    }

    fn equal(a: &Side, b: &Side) -> bool {
        a.catalog.tree().root() == b.catalog.tree().root() && a.roster.tree().root() == b.roster.tree().root()
    }

    #[test]
    fn equal_nodes_find_out_with_one_small_message() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        for n in 0..50 {
            a.put(&format!("s{n}"), &[n]);
        }
        round(&mut a, &mut b);
        let (messages, bytes) = round(&mut a, &mut b);
        assert_eq!(messages, 1);
        assert!(bytes < 100, "{bytes} bytes");
    }

    #[test]
    fn both_get_what_they_lack_in_one_round() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        for n in 0..40 {
            a.put(&format!("a{n}"), &[n]);
            b.put(&format!("b{n}"), &[n]);
        }
        a.put("both", b"from a");
        b.put("both", b"from b");
        a.say(1);
        b.say(1);
        round(&mut a, &mut b);
        assert!(equal(&a, &b));
        assert_eq!(a.catalog.tree().len(), 81);
        assert_eq!(a.roster.tree().len(), 2);
    }

    #[test]
    fn one_change_among_many_moves_little() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        for n in 0..500 {
            a.put(&format!("s{n}"), &[7; 400]);
        }
        round(&mut a, &mut b);
        assert!(equal(&a, &b));
        b.put("s7", b"changed");
        b.say(5);
        let (_, bytes) = round(&mut a, &mut b);
        assert!(equal(&a, &b));
        assert!(bytes < 8_000, "{bytes} bytes for one change");
    }

    #[test]
    fn one_who_was_away_catches_up_within_the_budget_of_each_message() {
        let (mut a, mut b) = (Side::new(1), Side::new(2));
        for n in 0..60_u8 {
            // Bytes that cannot be compressed, or they would all fit into one repair.
            let mut body = vec![0; 20_000];
            blake3::Hasher::new().update(&[n]).finalize_xof().fill(&mut body);
            a.put(&format!("s{n}"), &body);
        }
        let (messages, bytes) = round(&mut a, &mut b);
        assert!(equal(&a, &b));
        assert!(bytes > 4 * REPAIR_BYTES_MAX, "it took several repairs: {bytes} bytes in {messages} messages");
    }

    #[test]
    fn rounds_with_many_who_connect_at_once_begin_one_after_the_other() {
        use rand::SeedableRng;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let peers: BTreeSet<NodeKey> = (1..=50).map(|n| NodeKey([n; 32])).collect();
        let mut rounds = Rounds::new(Mono(0));
        assert_eq!(rounds.begin(Mono(0), &mut rng, &BTreeSet::new()), None, "nobody is there");
        for peer in &peers {
            rounds.connected(Mono(1_000), *peer);
        }
        assert_eq!(rounds.next_deadline(), Mono(1_000), "the first one waits for nothing");
        let mut begun = Vec::new();
        while begun.len() < peers.len() {
            let now = rounds.next_deadline();
            begun.push((now, rounds.begin(now, &mut rng, &peers).expect("somebody is connected")));
        }
        assert!(begun.windows(2).all(|pair| pair[1].0.since(pair[0].0) == ROUND_PAUSE));
        assert_eq!(begun.iter().map(|(_, peer)| *peer).collect::<BTreeSet<_>>(), peers);
        let last = begun.last().expect("there were fifty").0;
        assert!(rounds.next_deadline().since(last) >= SYNC_PERIOD.mul_f64(0.9));
    }

    #[test]
    fn of_two_rounds_that_cross_one_goes_on() {
        use rand::SeedableRng;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (lesser, greater) = (NodeKey([1; 32]), NodeKey([2; 32]));
        let mut begun = |with: NodeKey| {
            let mut rounds = Rounds::new(Mono(0));
            rounds.connected(Mono(0), with);
            assert_eq!(rounds.begin(Mono(0), &mut rng, &BTreeSet::from([with])), Some(with));
            rounds
        };
        let (mut of_lesser, mut of_greater) = (begun(greater), begun(lesser));
        assert!(!of_lesser.goes_on(Mono(20), lesser, greater));
        assert!(of_greater.goes_on(Mono(20), greater, lesser));
        // What comes after the answer, or later, is a round of its own.
        assert!(of_lesser.goes_on(Mono(600), lesser, greater));
        of_lesser.answered(&greater);
        assert!(of_lesser.goes_on(Mono(30), lesser, greater));
        // Whoever was begun with by the other need not begin.
        let mut met = Rounds::new(Mono(0));
        met.connected(Mono(0), lesser);
        assert!(met.goes_on(Mono(0), greater, lesser));
        assert!(met.met.is_empty());
    }

    #[test]
    fn garbage_is_answered_without_harm() {
        let mut a = Side::new(1);
        a.put("web", b"x");
        a.answer(Message::Buckets { which: Which::Catalog, hashes: vec![1, 2, 3] });
        a.answer(Message::Records {
            buckets: vec![9, 9],
            states: vec![RecordState { key: vec![1], stamp: Stamp::default() }],
        });
        a.answer(Message::Want {
            documents: vec![],
            records: vec![RecordState { key: vec![], stamp: Stamp::default() }],
        });
        let web = DocKey::checked("service/web").unwrap();
        let odd = DocState { key: web, epoch: Default::default(), heads: vec![1, 2, 3] };
        a.answer(Message::Documents { buckets: vec![], states: vec![odd] });
    }
}
