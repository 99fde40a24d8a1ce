//! One named thing as an Automerge document. Pure.
//!
//! ROOT keys: `r/<n>-<hash8>` holds an immutable revision as one scalar of bytes, `current` names the one that counts,
//! `deleted_at` marks a tombstone. Fields stand on ROOT because two nodes that create a nested map at once would lose one map
//! whole. Two deploys on two sides of a partition both write `current`: Automerge's own order picks the same one everywhere.
//!
//! Automerge cannot drop history, so a long one is ended by *compaction*: a new document under a greater [`Epoch`], made by
//! a rule that gives every node the same bytes. Documents of different epochs never merge; the greater one wins, and what only
//! the loser holds is added again ([`Document::adopt`]).

use std::collections::BTreeMap;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ChangeHash, LoadOptions, ROOT, ReadDoc, ScalarValue, Value};

use super::tree::Version;
use crate::ids::NodeKey;
use crate::time::Wall;

/// How many revisions of a thing are kept: enough to see what was changed lately and to go back a few steps.
pub const REVISIONS_MAX: usize = 20;

/// Largest document that is taken from a peer, in bytes: 20 revisions of the largest specification fit (its arguments and
/// environment together have 192 KiB at most).
pub const DOCUMENT_LEN_MAX: usize = 6 << 20;

/// How often a document was compacted, and out of what. The greater one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Epoch {
    /// 0 for a document that never was compacted.
    #[n(0)]
    pub number: u64,
    /// The hash of the heads that were compacted.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub basis: [u8; 32],
}

/// Who writes: a node in one of its lives. Never used again after a restart, since Automerge cannot merge two histories of one
/// actor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor {
    /// The node.
    pub key: NodeKey,
    /// Its boot counter, durable before the first word.
    pub boot: u64,
}

impl Actor {
    fn id(self) -> ActorId {
        let mut bytes = self.key.0.to_vec();
        bytes.extend_from_slice(&self.boot.to_be_bytes());
        ActorId::from(bytes)
    }
}

/// Names a revision inside of its document: number and the hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RevisionId {
    /// One more than the highest that its author had seen.
    #[n(0)]
    pub number: u32,
    /// The first four bytes of the hash of its body.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub hash: [u8; 4],
}

impl RevisionId {
    fn new(number: u32, body: &[u8]) -> Self {
        let hash = blake3::hash(body);
        Self { number, hash: std::array::from_fn(|at| hash.as_bytes()[at]) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, hash) = text.split_once('-')?;
        let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
        Some(Self { number: number.parse().ok()?, hash: hash.try_into().ok()? })
    }
}

impl std::fmt::Display for RevisionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.number, data_encoding::HEXLOWER.encode(&self.hash))
    }
}

/// What a document says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    /// The kept revisions' bodies.
    pub revisions: BTreeMap<RevisionId, Vec<u8>>,
    /// The one that counts.
    pub current: Option<RevisionId>,
    /// Since when the thing is deleted, by the clock of the node that took the deletion.
    pub deleted_at: Option<Wall>,
}

impl Content {
    /// Whether the writers of this have seen a revision: it is kept, or older than all that are, and so was dropped on purpose.
    fn has_seen(&self, id: &RevisionId) -> bool {
        self.revisions.contains_key(id) || self.revisions.keys().next().is_some_and(|lowest| id < lowest)
    }
}

/// What a later version of narun has written into a document, and this one cannot read.
#[derive(Default)]
struct Unread {
    scalars: BTreeMap<String, ScalarValue>,
    /// Whether there is also what is no scalar, and cannot be copied as one.
    has_nested: bool,
}

/// A document that was loaded to be read or changed.
#[derive(Clone, Debug)]
pub struct Document {
    epoch: Epoch,
    doc: Automerge,
}

/// Bytes that are no document, or no change to one.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Automerge could not make sense of them.
    #[error("damaged document: {0}")]
    Damaged(#[from] automerge::AutomergeError),
    /// They are more than anything that narun writes.
    #[error("a document of {0} bytes is larger than {DOCUMENT_LEN_MAX}")]
    TooLarge(usize),
}

impl Default for Document {
    fn default() -> Self {
        Self { epoch: Epoch::default(), doc: Automerge::new() }
    }
}

impl Document {
    /// The document in `bytes`, as [`Document::save`] made them.
    pub fn load(epoch: Epoch, bytes: &[u8]) -> Result<Self, DocumentError> {
        check_len(bytes)?;
        let doc = Automerge::load_with_options(bytes, LoadOptions::new())?;
        Ok(Self { epoch, doc })
    }

    /// The whole document.
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// The changes that a holder of `heads` lacks; all of them for one who has nothing.
    pub fn save_after(&self, heads: &[ChangeHash]) -> Vec<u8> {
        self.doc.save_after(heads)
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest changes.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads = self.doc.get_heads();
        heads.sort_unstable();
        heads
    }

    /// How many changes the history holds.
    pub fn history_len(&self) -> usize {
        self.doc.get_changes_meta(&[]).len()
    }

    /// What it says.
    pub fn content(&self) -> Content {
        self.read().0
    }

    /// What it says, and what this version cannot read of it: what a later one wrote beside.
    fn read(&self) -> (Content, Unread) {
        let (mut content, mut unread) = (Content::default(), Unread::default());
        for key in self.doc.keys(ROOT) {
            let Ok(Some((value, _))) = self.doc.get(ROOT, key.as_str()) else { continue };
            let Value::Scalar(value) = value else {
                unread.has_nested = true;
                continue;
            };
            match (key.as_str(), value.as_ref()) {
                ("current", ScalarValue::Str(id)) => content.current = RevisionId::parse(id),
                ("deleted_at", ScalarValue::Uint(at)) => content.deleted_at = Some(Wall(*at)),
                (_, ScalarValue::Bytes(body)) if let Some(id) = parse_revision_key(&key) => {
                    content.revisions.insert(id, body.clone());
                }
                _ => drop(unread.scalars.insert(key, value.into_owned())),
            }
        }
        (content, unread)
    }

    /// Adds a revision, makes it the current one, revives a deleted thing, and drops the oldest revisions beyond
    /// [`REVISIONS_MAX`]. `body` is given the new number.
    pub fn put_revision(&mut self, actor: Actor, body: impl FnOnce(u32) -> Vec<u8>) -> RevisionId {
        let content = self.content();
        let number = content.revisions.keys().map(|id| id.number).max().unwrap_or(0).saturating_add(1);
        let body = body(number);
        let id = RevisionId::new(number, &body);
        let surplus = (content.revisions.len() + 1).saturating_sub(REVISIONS_MAX);
        let dropped: Vec<RevisionId> = content.revisions.keys().take(surplus).copied().collect();
        self.edit(actor, |tx| {
            for old in dropped {
                tx.delete(ROOT, revision_key(old))?;
            }
            if content.deleted_at.is_some() {
                tx.delete(ROOT, "deleted_at")?;
            }
            tx.put(ROOT, revision_key(id), ScalarValue::Bytes(body))?;
            tx.put(ROOT, "current", id.to_string())
        });
        id
    }

    /// Marks the thing as deleted.
    pub fn delete(&mut self, actor: Actor, at: Wall) {
        self.edit(actor, |tx| tx.put(ROOT, "deleted_at", ScalarValue::Uint(at.0)));
    }

    /// Applies changes or a whole document of the same epoch. What cannot be applied yet for want of earlier changes is kept
    /// for later. True if anything is new.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<bool, DocumentError> {
        check_len(bytes)?;
        let before = self.doc.get_heads();
        self.doc.load_incremental(bytes)?;
        Ok(self.doc.get_heads() != before)
    }

    /// Whether all of these changes are in it. Changes that build on what it lacks are not.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let mut probe = self.clone();
        matches!(probe.apply(bytes), Ok(false)) && probe.doc.get_missing_deps(&[]).is_empty()
    }

    /// The same content without its history, under the next epoch. Every node makes the same bytes out of the same heads. None
    /// where a later version has written what this one would lose.
    pub fn compacted(&self) -> Option<Document> {
        let (content, unread) = self.read();
        if unread.has_nested {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        for head in self.heads() {
            hasher.update(&head.0);
        }
        let basis = *hasher.finalize().as_bytes();
        let epoch = Epoch { number: self.epoch.number + 1, basis };
        let mut new = Document { epoch, doc: Automerge::new() };
        // The writer is the rule, not a node: so that two nodes that compact at once do not make two histories.
        new.edit_as(ActorId::from(basis.to_vec()), |tx| {
            write_content(tx, &content)?;
            unread.scalars.into_iter().try_for_each(|(key, value)| tx.put(ROOT, key, value))
        });
        Some(new)
    }

    /// Takes over `winner`, a document of a greater epoch, and adds again what only this one holds. True if anything had to
    /// be added.
    pub fn adopt(&mut self, winner: Document, actor: Actor) -> bool {
        assert!(winner.epoch > self.epoch, "only a greater epoch is adopted");
        let ((ours, unread), theirs) = (self.read(), winner.content());
        let mut unread = unread.scalars;
        unread.retain(|key, _| matches!(winner.doc.get(ROOT, key.as_str()), Ok(None)));
        *self = winner;
        let unseen: Vec<RevisionId> = ours.revisions.keys().filter(|id| !theirs.has_seen(id)).copied().collect();
        // Deleted with all in view that the winner knows of: nobody has deployed it again.
        let is_last_word = theirs.deleted_at.is_none() && theirs.revisions.keys().all(|id| ours.has_seen(id));
        let deleted_at = ours.deleted_at.filter(|_| is_last_word);
        if unseen.is_empty() && deleted_at.is_none() && unread.is_empty() {
            return false;
        }
        // Written on the losing side while it was cut off: it counts as if it had been written at the same time.
        let current = ours.current.filter(|id| unseen.contains(id) && Some(*id) > theirs.current);
        self.edit(actor, |tx| {
            for id in &unseen {
                tx.put(ROOT, revision_key(*id), ScalarValue::Bytes(ours.revisions[id].clone()))?;
            }
            if let Some(current) = current {
                tx.put(ROOT, "current", current.to_string())?;
            }
            if let Some(at) = deleted_at {
                tx.put(ROOT, "deleted_at", ScalarValue::Uint(at.0))?;
            }
            unread.into_iter().try_for_each(|(key, value)| tx.put(ROOT, key, value))
        });
        true
    }

    fn edit<E>(&mut self, actor: Actor, write: E)
    where
        E: FnOnce(&mut automerge::transaction::Transaction<'_>) -> Result<(), automerge::AutomergeError>,
    {
        self.edit_as(actor.id(), write);
    }

    fn edit_as<E>(&mut self, actor: ActorId, write: E)
    where
        E: FnOnce(&mut automerge::transaction::Transaction<'_>) -> Result<(), automerge::AutomergeError>,
    {
        self.doc.set_actor(actor);
        let mut tx = self.doc.transaction();
        write(&mut tx).expect("scalars can always be written to the root of a document");
        // Time 0: the stamp of a change says nothing that a revision does not say, and no clock is read here.
        tx.commit_with(CommitOptions::default().with_time(0));
    }
}

fn write_content<T: Transactable>(tx: &mut T, content: &Content) -> Result<(), automerge::AutomergeError> {
    for (id, body) in &content.revisions {
        tx.put(ROOT, revision_key(*id), ScalarValue::Bytes(body.clone()))?;
    }
    if let Some(current) = content.current {
        tx.put(ROOT, "current", current.to_string())?;
    }
    if let Some(at) = content.deleted_at {
        tx.put(ROOT, "deleted_at", ScalarValue::Uint(at.0))?;
    }
    Ok(())
}

fn revision_key(id: RevisionId) -> String {
    format!("r/{id}")
}

fn parse_revision_key(key: &str) -> Option<RevisionId> {
    RevisionId::parse(key.strip_prefix("r/")?)
}

fn check_len(bytes: &[u8]) -> Result<(), DocumentError> {
    if bytes.len() > DOCUMENT_LEN_MAX { Err(DocumentError::TooLarge(bytes.len())) } else { Ok(()) }
}

/// What two nodes must agree on of a document: its epoch and heads.
pub fn version(epoch: &Epoch, heads: &[ChangeHash]) -> Version {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&epoch.number.to_be_bytes());
    hasher.update(&epoch.basis);
    for head in heads {
        hasher.update(&head.0);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn actor(node: u8, boot: u64) -> Actor {
        Actor { key: NodeKey([node; 32]), boot }
    }

    fn put(doc: &mut Document, node: u8, body: &[u8]) -> RevisionId {
        doc.put_revision(actor(node, 1), |_| body.to_vec())
    }

    #[test]
    fn revisions_are_numbered_and_the_last_one_counts() {
        let mut doc = Document::default();
        put(&mut doc, 1, b"a");
        let second = put(&mut doc, 1, b"b");
        assert_eq!(second.number, 2);
        let content = doc.content();
        assert_eq!(content.current, Some(second));
        assert_eq!(content.revisions[&second], b"b");
        assert_eq!(content.revisions.len(), 2);
    }

    #[test]
    fn only_the_last_revisions_are_kept() {
        let mut doc = Document::default();
        for n in 0..50_u8 {
            put(&mut doc, 1, &[n]);
        }
        let content = doc.content();
        assert_eq!(content.revisions.len(), REVISIONS_MAX);
        assert_eq!(content.revisions.keys().next().unwrap().number, 31);
    }

    #[test]
    fn two_writers_at_once_get_one_winner_and_both_keep_both() {
        let mut left = Document::default();
        put(&mut left, 1, b"base");
        let mut right = Document::load(left.epoch(), &left.save()).unwrap();
        put(&mut left, 1, b"left");
        put(&mut right, 2, b"right");
        left.apply(&right.save()).unwrap();
        right.apply(&left.save_after(&[])).unwrap();
        assert_eq!(left.content(), right.content());
        assert_eq!(left.heads(), right.heads());
        assert_eq!(left.content().revisions.len(), 3);
    }

    #[test]
    fn a_deploy_after_a_deletion_revives() {
        let mut doc = Document::default();
        put(&mut doc, 1, b"a");
        doc.delete(actor(1, 1), Wall(5));
        assert_eq!(doc.content().deleted_at, Some(Wall(5)));
        let revived = put(&mut doc, 1, b"b");
        assert_eq!(doc.content().deleted_at, None);
        assert_eq!(revived.number, 2);
    }

    #[test]
    fn a_change_that_comes_too_early_waits_for_the_one_before_it() {
        let mut source = Document::default();
        put(&mut source, 1, b"a");
        let first = source.save();
        let heads = source.heads();
        put(&mut source, 1, b"b");
        let second = source.save_after(&heads);

        let mut late = Document::default();
        assert!(!late.apply(&second).unwrap());
        assert!(late.apply(&first).unwrap());
        assert_eq!(late.content(), source.content());
    }

    #[test]
    fn compaction_is_the_same_everywhere_and_keeps_the_content() {
        let mut one = Document::default();
        for n in 0..30_u8 {
            put(&mut one, 1, &[n]);
        }
        let two = Document::load(one.epoch(), &one.save()).unwrap();
        let (a, b) = (one.compacted(), two.compacted());
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.save(), b.save());
        assert_eq!(a.epoch(), b.epoch());
        assert_eq!(a.content(), one.content());
        assert_eq!(a.history_len(), 1);
    }

    #[test]
    fn a_revision_of_the_losing_epoch_is_added_again() {
        let mut cut_off = Document::default();
        put(&mut cut_off, 1, b"a");
        let winner = cut_off.compacted().unwrap();
        let unseen = put(&mut cut_off, 1, b"written while cut off");
        assert!(cut_off.adopt(winner.clone(), actor(1, 2)));
        assert_eq!(cut_off.epoch(), winner.epoch());
        let content = cut_off.content();
        assert_eq!(content.revisions[&unseen], b"written while cut off");
        assert_eq!(content.current, Some(unseen));
    }

    #[test]
    fn adopting_an_epoch_that_has_everything_adds_nothing() {
        let mut doc = Document::default();
        put(&mut doc, 1, b"a");
        let winner = doc.compacted().unwrap();
        assert!(!doc.adopt(winner.clone(), actor(1, 2)));
        assert_eq!(doc.heads(), winner.heads());
    }

    #[test]
    fn a_deletion_that_the_cut_off_side_did_not_see_stands() {
        let mut cut_off = Document::default();
        put(&mut cut_off, 1, b"a");
        let mut other = cut_off.clone();
        other.delete(actor(2, 1), Wall(9));
        let winner = other.compacted().unwrap();
        put(&mut cut_off, 1, b"b");
        cut_off.adopt(winner, actor(1, 2));
        assert_eq!(cut_off.content().deleted_at, Some(Wall(9)));
    }

    #[test]
    fn a_deletion_of_the_losing_epoch_stands_unless_the_thing_was_deployed_again() {
        let mut cut_off = Document::default();
        put(&mut cut_off, 1, b"a");
        let mut other = cut_off.clone();
        cut_off.delete(actor(1, 1), Wall(9));
        let mut again = cut_off.clone();
        assert!(again.adopt(other.compacted().unwrap(), actor(1, 2)));
        assert_eq!(again.content().deleted_at, Some(Wall(9)));
        // The winner knows of a deploy that who deleted had not seen.
        put(&mut other, 2, b"b");
        assert!(!cut_off.adopt(other.compacted().unwrap(), actor(1, 2)));
        assert_eq!(cut_off.content().deleted_at, None);
    }

    #[test]
    fn what_a_later_version_wrote_outlives_compaction_or_prevents_it() {
        let mut doc = Document::default();
        put(&mut doc, 1, b"a");
        doc.edit(actor(2, 1), |tx| tx.put(ROOT, "colour", "blue"));
        let colour = |doc: &Document| doc.read().1.scalars.get("colour").cloned();
        let winner = doc.compacted().unwrap();
        assert_eq!(colour(&winner), Some(ScalarValue::Str("blue".into())));
        doc.edit(actor(2, 1), |tx| tx.put(ROOT, "shape", 3_u64));
        let mut adopted = doc.clone();
        assert!(adopted.adopt(winner, actor(1, 2)));
        assert_eq!(adopted.read().1.scalars.get("shape"), Some(&ScalarValue::Uint(3)));
        doc.edit(actor(2, 1), |tx| tx.put_object(ROOT, "parts", automerge::ObjType::Map).map(drop));
        assert!(doc.compacted().is_none());
    }

    proptest! {
        /// Commutative, associative, idempotent: whatever the order and however often, the same content.
        #[test]
        fn merging_in_any_order_gives_the_same(
            writes in proptest::collection::vec((0_u8..3, any::<u8>(), any::<bool>()), 1..12),
            order in any::<u64>(),
        ) {
            let mut replicas = [Document::default(), Document::default(), Document::default()];
            for (at, (node, body, delete)) in writes.iter().enumerate() {
                let doc = &mut replicas[usize::from(*node)];
                if *delete && doc.content().current.is_some() {
                    doc.delete(actor(*node, 1), Wall(at as u64));
                } else {
                    put(doc, *node, &[*body, at as u8]);
                }
            }
            let saved: Vec<Vec<u8>> = replicas.iter().map(Document::save).collect();
            let merge = |order: &[usize]| {
                let mut doc = Document::default();
                for at in order {
                    doc.apply(&saved[*at]).unwrap();
                }
                (doc.content(), doc.heads())
            };
            let wanted = merge(&[0, 1, 2]);
            let orders = [[1, 0, 2], [2, 1, 0], [0, 2, 1], [2, 0, 1], [1, 2, 0]];
            prop_assert_eq!(&merge(&orders[(order % 5) as usize]), &wanted);
            prop_assert_eq!(&merge(&[0, 0, 1, 2, 1, 2, 0]), &wanted);
        }

        #[test]
        fn no_bytes_make_loading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Document::load(Epoch::default(), &bytes).is_err() || bytes.is_empty());
            let mut doc = Document::default();
            put(&mut doc, 1, b"a");
            let before = doc.content();
            let _ = doc.apply(&bytes);
            prop_assert_eq!(doc.content(), before);
        }
    }
}
