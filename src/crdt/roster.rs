//! What nodes report: signed single-writer records. Pure.
//!
//! Each node speaks only of itself. A record is stamped (boot counter, version) and replaced whole: the newest stamp wins, no
//! history is kept. Records are relayed as the very bytes that were signed, so that nobody on the way can alter one and
//! fields that this version does not know survive.

use std::collections::BTreeMap;
use std::fmt;

use super::admission::{Signatures, Signed};
use super::tree::{HashTree, Version};
use crate::blobs::image::Platform;
use crate::capacity::Capacity;
use crate::confinement::Enforced;
use crate::exec::plan::Ended;
use crate::ids::{BlobHash, NodeKey, RunId, ServiceName};
use crate::time::Wall;

/// The purpose of these signatures.
pub const RECORD_DOMAIN: &str = "narun/record/1";

/// Largest record taken from a peer, in bytes: the report of 1,000 instances of one service with their errors fits twice.
pub const RECORD_LEN_MAX: usize = 512 << 10;

/// What a record is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Subject(#[n(0)] String);

impl Subject {
    /// A node's [`Facts`].
    pub fn facts() -> Self {
        Self("facts".into())
    }

    /// A node's [`Holdings`].
    pub fn holdings() -> Self {
        Self("holdings".into())
    }

    /// A node's [`CatalogReport`].
    pub fn catalog() -> Self {
        Self("catalog".into())
    }

    /// A node's [`Report`] on its instances of one service.
    pub fn service(name: &ServiceName) -> Self {
        Self(format!("service/{name}"))
    }

    /// The service that this is a report on, if it is one.
    pub fn as_service(&self) -> Option<ServiceName> {
        ServiceName::new(self.0.strip_prefix("service/")?).ok()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The newest stamp wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Stamp {
    /// The writer's boot counter.
    #[n(0)]
    pub boot: u64,
    /// Counted from 1 in each boot, over all of the writer's records.
    #[n(1)]
    pub version: u64,
}

/// A record, once its signature was checked.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Record {
    /// Who speaks, and of whom.
    #[n(0)]
    pub node: NodeKey,
    /// What about.
    #[n(1)]
    pub subject: Subject,
    /// When, in the writer's own count.
    #[n(2)]
    pub stamp: Stamp,
    /// What it says, encoded; empty: there is nothing to be said any more.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub content: Vec<u8>,
}

/// What a node is.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Facts {
    /// Where it can be reached, `HOST:PORT`, best first.
    #[n(0)]
    pub addresses: Vec<String>,
    /// What its programs must be made for.
    #[n(1)]
    pub platform: Platform,
    /// Its version of narun.
    #[n(2)]
    pub version: String,
    /// Its labels.
    #[n(3)]
    pub labels: BTreeMap<String, String>,
    /// When it was started.
    #[n(4)]
    pub started_at: Wall,
    /// What its host offers; none from a version that did not tell.
    #[n(5)]
    pub capacity: Option<Capacity>,
}

/// Which blobs a node holds whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Holdings {
    /// Their hashes, in order.
    #[n(0)]
    pub blobs: Vec<BlobHash>,
}

/// What a node holds of the catalog. When all members report the same, history and tombstones may go.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct CatalogReport {
    /// The root of its hash tree.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub root: Version,
    /// When it was said; said anew once a day, so that everybody knows for how long a node has not been heard of. None from a
    /// version that did not tell.
    #[n(1)]
    pub at: Option<Wall>,
}

/// A node's instances of one service.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Report {
    /// By index.
    #[n(0)]
    pub instances: Vec<InstanceReport>,
}

/// The states of an instance on its node.
///
/// A state that came after the first six is told twice ([`State::told`]): as the nearest of those, and in a field of its own, which
/// readers that do not know its number pass over. Any other way a node of an earlier version could not read the whole report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum State {
    /// The binary is not here yet.
    #[n(0)]
    Fetching,
    /// The keeper was asked to start it.
    #[n(1)]
    Starting,
    /// It runs.
    #[n(2)]
    Running,
    /// It was asked to stop.
    #[n(3)]
    Stopping,
    /// It ended or could not be started; the next try is due later.
    #[n(4)]
    Backoff,
    /// It failed too often.
    #[n(5)]
    CrashLoop,
    /// It ended by itself and is not to be started again.
    #[n(6)]
    Finished,
}

/// The number of [`State::Finished`].
const FINISHED: u32 = 6;

impl State {
    /// How it is told: as one of the first six, and by its own number where it is none of them. `ready` says whether an instance
    /// in this state counts for its service.
    pub fn told(self, ready: bool) -> (State, Option<u32>) {
        match self {
            // A rollout of an earlier version goes on over the one and stops at the other, as ours does.
            State::Finished if ready => (State::Backoff, Some(FINISHED)),
            State::Finished => (State::CrashLoop, Some(FINISHED)),
            _ => (self, None),
        }
    }
}

/// One instance.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct InstanceReport {
    /// Its index.
    #[n(0)]
    pub index: u32,
    /// Its state, or the nearest that the first version had a word for; [`Self::state`] is the true one.
    #[n(1)]
    pub nearest: State,
    /// True: it has been up for long enough, or has finished as it should.
    #[n(2)]
    pub ready: bool,
    /// The number of the revision that it was started by.
    #[n(3)]
    pub revision: u32,
    /// Which revisions its start satisfies.
    #[n(4)]
    pub launch_hash: BlobHash,
    /// Its current or last start.
    #[n(5)]
    pub run: Option<RunId>,
    /// Its first process, while it runs.
    #[n(6)]
    pub pid: Option<u32>,
    /// When it was started last.
    #[n(7)]
    pub started_at: Option<Wall>,
    /// How often it was started again after it ended by itself.
    #[n(8)]
    pub restarts: u32,
    /// How its last start ended, if one has.
    #[n(9)]
    pub exit: Option<Ended>,
    /// Why it does not run.
    #[n(10)]
    pub error: Option<String>,
    /// What of its confinement it has, while it runs.
    #[n(11)]
    #[cbor(default)]
    pub enforced: Enforced,
    /// The number of its state, where the first version had no word for it.
    #[n(12)]
    pub later: Option<u32>,
    /// When it is tried again, while it waits for that.
    #[n(13)]
    pub retry_at: Option<Wall>,
}

impl InstanceReport {
    /// Its state, as far as this version has a word for it.
    pub fn state(&self) -> State {
        match self.later {
            Some(FINISHED) => State::Finished,
            _ => self.nearest,
        }
    }
}

/// What came of taking in a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is news.
    New(Record),
    /// As new or newer was known.
    Stale,
    /// Its signature is not that of the node it speaks of, or it is malformed: it was altered on its way.
    Forged,
}

#[derive(Clone, Debug)]
struct Held {
    record: Record,
    signed: Signed,
}

/// All records, by node and subject.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    held: BTreeMap<(NodeKey, Subject), Held>,
    tree: HashTree,
}

/// The key of a record in tables and trees.
pub fn record_key(node: &NodeKey, subject: &Subject) -> Vec<u8> {
    [&node.0[..], subject.0.as_bytes()].concat()
}

/// The node and subject in a record's key.
pub fn parse_record_key(key: &[u8]) -> Option<(NodeKey, Subject)> {
    let (node, subject) = key.split_first_chunk::<32>()?;
    Some((NodeKey(*node), Subject(std::str::from_utf8(subject).ok()?.to_owned())))
}

/// A stamp as it stands in the tree: the stamp itself, so that two nodes see at once who has the newer record.
pub fn stamp_version(stamp: Stamp) -> Version {
    let mut version = [0; 32];
    version[..8].copy_from_slice(&stamp.boot.to_be_bytes());
    version[8..16].copy_from_slice(&stamp.version.to_be_bytes());
    version
}

impl Roster {
    /// Takes in a record from a peer or from the disk, if it is signed by the node that it speaks of and is news.
    pub fn take(&mut self, signatures: &dyn Signatures, signed: &Signed) -> Taken {
        if signed.body.len() > RECORD_LEN_MAX {
            return Taken::Forged;
        }
        let Ok(record) = minicbor::decode::<Record>(&signed.body) else { return Taken::Forged };
        if self.is_stale(&record) {
            return Taken::Stale;
        }
        if !signed.is_by(signatures, RECORD_DOMAIN, &record.node) {
            return Taken::Forged;
        }
        self.hold(record.clone(), signed.clone());
        Taken::New(record)
    }

    fn is_stale(&self, record: &Record) -> bool {
        let known = self.held.get(&(record.node, record.subject.clone()));
        let outdated = known.is_some_and(|held| held.record.stamp >= record.stamp);
        outdated || (record.content.is_empty() && self.boot_of(&record.node) > record.stamp.boot)
    }

    /// Writes a record of this node. None when that is what it says already.
    pub fn write<T: minicbor::Encode<()>>(
        &mut self,
        signatures: &dyn Signatures,
        subject: Subject,
        stamp: Stamp,
        content: Option<&T>,
    ) -> Option<Signed> {
        let content = content
            .map_or_else(Vec::new, |content| minicbor::to_vec(content).expect("encoding into memory cannot fail"));
        let node = signatures.key();
        let known = self.held.get(&(node, subject.clone())).map(|held| &held.record);
        let said = match known {
            Some(record) => record.content == content && record.stamp.boot == stamp.boot,
            None => content.is_empty(),
        };
        if said {
            return None;
        }
        assert!(known.is_none_or(|record| record.stamp < stamp), "stamps of a node only grow");
        let record = Record { node, subject, stamp, content };
        let signed = Signed::new(signatures, RECORD_DOMAIN, &record);
        self.hold(record, signed.clone());
        Some(signed)
    }

    fn hold(&mut self, record: Record, signed: Signed) {
        let (node, stamp) = (record.node, record.stamp);
        let is_facts = record.subject == Subject::facts();
        self.tree.set(&record_key(&node, &record.subject), stamp_version(stamp));
        self.held.insert((node, record.subject.clone()), Held { record, signed });
        if is_facts {
            self.drop_emptied(&node, stamp.boot);
        }
    }

    /// Once a node has spoken in a new life, what it had ceased to speak of in earlier ones need not be remembered: everybody
    /// refuses such records from then on.
    fn drop_emptied(&mut self, node: &NodeKey, boot: u64) {
        let emptied = |held: &Held| held.record.content.is_empty() && held.record.stamp.boot < boot;
        let gone: Vec<Subject> =
            self.of(node).filter(|held| emptied(held)).map(|held| held.record.subject.clone()).collect();
        for subject in gone {
            self.tree.remove(&record_key(node, &subject));
            self.held.remove(&(*node, subject));
        }
    }

    fn of(&self, node: &NodeKey) -> impl Iterator<Item = &Held> {
        let node = *node;
        self.held
            .range((node, Subject(String::new()))..)
            .take_while(move |((owner, _), _)| *owner == node)
            .map(|(_, held)| held)
    }

    fn boot_of(&self, node: &NodeKey) -> u64 {
        self.held.get(&(*node, Subject::facts())).map_or(0, |held| held.record.stamp.boot)
    }

    /// Forgets all that a node ever said.
    pub fn remove_node(&mut self, node: &NodeKey) {
        let subjects: Vec<Subject> = self.of(node).map(|held| held.record.subject.clone()).collect();
        for subject in subjects {
            self.tree.remove(&record_key(node, &subject));
            self.held.remove(&(*node, subject));
        }
    }

    /// What a node has said something about.
    pub fn subjects_of(&self, node: &NodeKey) -> impl Iterator<Item = &Subject> {
        self.of(node).map(|held| &held.record.subject)
    }

    /// A record as it was signed.
    pub fn signed(&self, node: &NodeKey, subject: &Subject) -> Option<&Signed> {
        self.held.get(&(*node, subject.clone())).map(|held| &held.signed)
    }

    /// A record's stamp.
    pub fn stamp(&self, node: &NodeKey, subject: &Subject) -> Option<Stamp> {
        self.held.get(&(*node, subject.clone())).map(|held| held.record.stamp)
    }

    /// What a node says about a subject; none when it says nothing, or in words of a later version.
    pub fn read<T: for<'b> minicbor::Decode<'b, ()>>(&self, node: &NodeKey, subject: &Subject) -> Option<T> {
        let held = self.held.get(&(*node, subject.clone()))?;
        if held.record.content.is_empty() {
            return None;
        }
        minicbor::decode(&held.record.content).ok()
    }

    /// Whose records there are, and about what.
    pub fn subjects(&self) -> impl Iterator<Item = (&NodeKey, &Subject)> {
        self.held.keys().map(|(node, subject)| (node, subject))
    }

    /// The tree over all records.
    pub fn tree(&self) -> &HashTree {
        &self.tree
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Signatures that need no keys: a keyed hash that every node can check, and so could forge; good enough for tests.
    pub(crate) struct HashSignatures(pub(crate) NodeKey);

    impl Signatures for HashSignatures {
        fn key(&self) -> NodeKey {
            self.0
        }

        fn sign(&self, bytes: &[u8]) -> Vec<u8> {
            blake3::keyed_hash(&self.0.0, bytes).as_bytes().to_vec()
        }

        fn verify(&self, key: &NodeKey, bytes: &[u8], signature: &[u8]) -> bool {
            blake3::keyed_hash(&key.0, bytes).as_bytes() == signature
        }
    }

    fn signatures(node: u8) -> HashSignatures {
        HashSignatures(NodeKey([node; 32]))
    }

    fn stamp(boot: u64, version: u64) -> Stamp {
        Stamp { boot, version }
    }

    fn record(node: u8, subject: &Subject, stamp: Stamp, content: &[u8]) -> Signed {
        let record = Record { node: NodeKey([node; 32]), subject: subject.clone(), stamp, content: content.to_vec() };
        Signed::new(&signatures(node), RECORD_DOMAIN, &record)
    }

    #[test]
    fn an_altered_record_is_forged_and_a_stale_one_ignored() {
        let (me, subject) = (signatures(9), Subject::holdings());
        let mut roster = Roster::default();
        assert!(matches!(roster.take(&me, &record(1, &subject, stamp(1, 2), b"new")), Taken::New(_)));
        assert_eq!(roster.take(&me, &record(1, &subject, stamp(1, 1), b"old")), Taken::Stale);
        let mut altered = record(1, &subject, stamp(1, 3), b"true");
        let end = altered.body.len() - 1;
        altered.body[end] ^= 1;
        assert_eq!(roster.take(&me, &altered), Taken::Forged);
        let mut for_another_purpose = record(1, &subject, stamp(1, 3), b"true");
        for_another_purpose.signature = me.sign(&for_another_purpose.body);
        assert_eq!(roster.take(&me, &for_another_purpose), Taken::Forged);
    }

    #[test]
    fn facts_of_a_version_that_tells_less_are_read() {
        #[derive(minicbor::Encode)]
        #[cbor(map)]
        struct Before(
            #[n(0)] Vec<String>,
            #[n(1)] Platform,
            #[n(2)] String,
            #[n(3)] BTreeMap<String, String>,
            #[n(4)] Wall,
        );
        let platform = Platform::new("linux", "amd64");
        let before = Before(vec!["10.0.0.1:1".into()], platform.clone(), "0.1.0".into(), BTreeMap::new(), Wall(7));
        let facts: Facts = minicbor::decode(&minicbor::to_vec(&before).unwrap()).unwrap();
        assert_eq!((facts.platform, facts.started_at, facts.capacity), (platform, Wall(7), None));
    }

    fn finished() -> InstanceReport {
        let (nearest, later) = State::Finished.told(true);
        InstanceReport {
            index: 3,
            nearest,
            later,
            ready: true,
            revision: 7,
            launch_hash: BlobHash([1; 32]),
            run: Some(RunId([2; 16])),
            pid: None,
            started_at: Some(Wall(5)),
            restarts: 0,
            exit: Some(Ended { code: Some(0), signal: None, at: Wall(6), oom_kills: 0 }),
            error: None,
            enforced: Enforced::default(),
            retry_at: None,
        }
    }

    #[test]
    fn a_version_with_six_states_reads_a_report_with_the_seventh() {
        /// As the first version had them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Decode)]
        #[cbor(index_only)]
        enum Six {
            #[n(4)]
            Backoff,
            #[n(5)]
            CrashLoop,
        }
        #[derive(minicbor::Decode)]
        #[cbor(map)]
        struct Before(#[n(0)] u32, #[n(1)] Six, #[n(2)] bool);
        #[derive(minicbor::Decode)]
        #[cbor(map)]
        struct ReportBefore(#[n(0)] Vec<Before>);

        let well = finished();
        let (nearest, later) = State::Finished.told(false);
        let ill = InstanceReport { index: 4, nearest, later, ready: false, ..finished() };
        let bytes = minicbor::to_vec(Report { instances: vec![well.clone(), ill.clone()] }).unwrap();
        let before: ReportBefore = minicbor::decode(&bytes).unwrap();
        let read: Vec<_> = before.0.iter().map(|Before(index, state, ready)| (*index, *state, *ready)).collect();
        assert_eq!(read, [(3, Six::Backoff, true), (4, Six::CrashLoop, false)]);
        let now: Report = minicbor::decode(&bytes).unwrap();
        assert_eq!(now.instances, [well, ill]);
        assert!(now.instances.iter().all(|one| one.state() == State::Finished));
    }

    #[test]
    fn a_state_of_a_later_version_is_read_as_the_nearest_of_ours() {
        // The report of an instance, as its fields stand in it, with `later` set to a number that nobody has given out.
        let mut bytes = Vec::new();
        let mut e = minicbor::Encoder::new(&mut bytes);
        e.map(1).unwrap().u8(0).unwrap().array(1).unwrap().map(7).unwrap();
        e.u8(0).unwrap().u8(3).unwrap().u8(1).unwrap().u8(4).unwrap().u8(2).unwrap().bool(false).unwrap();
        e.u8(3).unwrap().u8(7).unwrap().u8(4).unwrap().bytes(&[1; 32]).unwrap().u8(8).unwrap().u8(0).unwrap();
        e.u8(12).unwrap().u8(99).unwrap();
        let report: Report = minicbor::decode(&bytes).unwrap();
        let [one] = &report.instances[..] else { panic!("one instance: {report:?}") };
        assert_eq!((one.state(), one.index, one.revision), (State::Backoff, 3, 7));
    }

    #[test]
    fn saying_the_same_again_is_no_news() {
        let me = signatures(1);
        let mut roster = Roster::default();
        let holdings = Holdings { blobs: vec![BlobHash([5; 32])] };
        assert!(roster.write(&me, Subject::holdings(), stamp(1, 1), Some(&holdings)).is_some());
        assert!(roster.write(&me, Subject::holdings(), stamp(1, 2), Some(&holdings)).is_none());
        assert!(
            roster.write(&me, Subject::holdings(), stamp(2, 1), Some(&holdings)).is_some(),
            "a new life speaks anew"
        );
        assert_eq!(roster.read::<Holdings>(&me.key(), &Subject::holdings()), Some(holdings));
    }

    #[test]
    fn an_emptied_record_goes_with_the_next_life() {
        let me = signatures(1);
        let web = Subject::service(&ServiceName::new("web").unwrap());
        let mut roster = Roster::default();
        roster.write(&me, web.clone(), stamp(1, 1), Some(&Report::default()));
        let emptied = roster.write::<Report>(&me, web.clone(), stamp(1, 2), None).unwrap();
        assert_eq!(roster.read::<Report>(&me.key(), &web), None);
        assert_eq!(roster.tree().len(), 1);
        let facts = CatalogReport { root: [0; 32], at: None };
        roster.write(&me, Subject::facts(), stamp(2, 1), Some(&facts));
        assert_eq!(roster.tree().len(), 1, "the emptied record is gone");
        assert_eq!(roster.take(&signatures(3), &emptied), Taken::Stale, "and stays gone");
    }

    proptest! {
        /// The newest stamp wins, in whatever order and however often records come.
        #[test]
        fn order_does_not_matter(
            records in proptest::collection::vec((0_u8..3, 0_u64..3, 0_u64..6), 1..20),
            shuffle in any::<u64>(),
        ) {
            let me = signatures(9);
            let signed: Vec<Signed> = records
                .iter()
                .map(|(node, boot, version)| {
                    // One stamp has one content: a node never says two things under one stamp.
                    record(*node, &Subject::holdings(), stamp(*boot, *version), &[*boot as u8, *version as u8])
                })
                .collect();
            let build = |order: &[usize]| {
                let mut roster = Roster::default();
                for at in order {
                    roster.take(&me, &signed[*at]);
                }
                roster.tree().root()
            };
            let forwards: Vec<usize> = (0..signed.len()).collect();
            let mut shuffled = forwards.clone();
            shuffled.rotate_left((shuffle as usize) % signed.len());
            shuffled.extend(forwards.iter().rev());
            prop_assert_eq!(build(&forwards), build(&shuffled));
        }

        #[test]
        fn no_bytes_are_taken_for_a_record(body in proptest::collection::vec(any::<u8>(), 0..200), signature in any::<[u8; 32]>()) {
            let signed = Signed { body, signature: signature.to_vec() };
            prop_assert_eq!(Roster::default().take(&signatures(1), &signed), Taken::Forged);
        }
    }
}
