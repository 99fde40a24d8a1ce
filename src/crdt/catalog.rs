//! Everything that users asked for: one [`Document`] for each named thing. Pure.
//!
//! The catalog holds documents as bytes with what they say beside them; Automerge itself is loaded only while a document is
//! read or changed. It keeps a [`HashTree`] over (key, epoch, heads) for anti-entropy.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use automerge::ChangeHash;

use super::document::{Actor, Content, Document, DocumentError, Epoch, RevisionId, version};
use super::tree::{HashTree, Version};
use crate::ids::{NodeKey, ServiceName};
use crate::time::Wall;

/// Longest key of a document, in bytes: the longest kind, a `/` and the longest name, twice over.
const KEY_LEN_MAX: usize = 160;

/// Of how many forgotten tombstones something is remembered: 250 bytes each, and more names than a cluster gives up in the months
/// that a node may be away.
pub const FORGOTTEN_MAX: usize = 10_000;

/// First byte of a stored row: the version of its form.
const ROW_VERSION: u8 = 1;

/// Names a document: `<kind>/<name>`. Kinds that this version does not know are kept and passed on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct DocKey(#[n(0)] String);

impl DocKey {
    /// The document of a service.
    pub fn service(name: &ServiceName) -> Self {
        Self(format!("service/{name}"))
    }

    /// The document that admits a node.
    pub fn admission(key: &NodeKey) -> Self {
        Self(format!("admission/{key}"))
    }

    /// The document that removes a node.
    pub fn removal(key: &NodeKey) -> Self {
        Self(format!("removal/{key}"))
    }

    /// The document of what users ask of a node.
    pub fn node(key: &NodeKey) -> Self {
        Self(format!("node/{key}"))
    }

    /// The service that this is the document of, if it is one.
    pub fn as_service(&self) -> Option<ServiceName> {
        ServiceName::new(self.0.strip_prefix("service/")?).ok()
    }

    /// The node that this document admits, if it is an admission.
    pub fn as_admission(&self) -> Option<NodeKey> {
        self.0.strip_prefix("admission/")?.parse().ok()
    }

    /// The node that this document removes, if it is a removal.
    pub fn as_removal(&self) -> Option<NodeKey> {
        self.0.strip_prefix("removal/")?.parse().ok()
    }

    /// The node whose settings this document holds, if it is one.
    pub fn as_node(&self) -> Option<NodeKey> {
        self.0.strip_prefix("node/")?.parse().ok()
    }

    /// The key as bytes, as it stands in tables and trees.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// A key from outside: none when it is not `<kind>/<name>`, or too long, or a name of a known kind is no name.
    pub fn checked(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let key = Self(text.to_owned());
        let well_formed = match kind {
            "service" => key.as_service().is_some(),
            "admission" => key.as_admission().is_some(),
            "removal" => key.as_removal().is_some(),
            "node" => key.as_node().is_some(),
            _ => !kind.is_empty() && !name.is_empty(),
        };
        (text.len() <= KEY_LEN_MAX && well_formed).then_some(key)
    }

    /// A key from outside, as bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::checked(std::str::from_utf8(bytes).ok()?)
    }
}

impl fmt::Debug for DocKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DocKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// News of one document, as it crosses: changes, or the whole of it.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct DocDelta {
    /// Which document.
    #[n(0)]
    pub key: DocKey,
    /// Of which epoch.
    #[n(1)]
    pub epoch: Epoch,
    /// Automerge's bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub changes: Vec<u8>,
}

/// What a node has of a document.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct DocState {
    /// Which document.
    #[n(0)]
    pub key: DocKey,
    /// Its epoch.
    #[n(1)]
    pub epoch: Epoch,
    /// Its newest changes, 32 bytes each; empty for a node that has nothing of it.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub heads: Vec<u8>,
}

impl DocState {
    /// What stands for having nothing of a document.
    pub fn nothing(key: DocKey) -> Self {
        Self { key, epoch: Epoch::default(), heads: Vec::new() }
    }

    fn heads(&self) -> Vec<ChangeHash> {
        self.heads.chunks_exact(32).map(|hash| ChangeHash(hash.try_into().expect("chunks of 32"))).collect()
    }
}

/// A document as the catalog holds it.
#[derive(Clone, Debug)]
pub struct Entry {
    epoch: Epoch,
    heads: Vec<ChangeHash>,
    bytes: Vec<u8>,
    content: Content,
}

impl Entry {
    fn of(document: &Document) -> Self {
        Self { epoch: document.epoch(), heads: document.heads(), bytes: document.save(), content: document.content() }
    }

    fn document(&self) -> Document {
        Document::load(self.epoch, &self.bytes).expect("the catalog holds only documents that were loaded before")
    }

    /// What it says.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Its version, as it stands in the tree.
    pub fn version(&self) -> Version {
        version(&self.epoch, &self.heads)
    }
}

/// What came of merging news into the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merged {
    /// It was known already, or must wait for earlier changes that anti-entropy will bring.
    Nothing,
    /// The document changed and must be stored.
    Changed,
    /// It changed, and revisions of a losing epoch were added again: this must be spread.
    Resubmitted(DocDelta),
    /// The news is about an older epoch than ours: its sender lacks what we have.
    Outdated,
    /// It is about what was deleted and forgotten here, and says nothing that was not known then: its sender has not heard of it.
    Forgotten,
}

/// What is remembered of a tombstone that every member held, so that nobody who slept through all of that brings it back.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Forgotten {
    /// In which version it was forgotten.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub version: Version,
    /// The revisions that it had kept, in order.
    #[n(1)]
    pub revisions: Vec<RevisionId>,
    /// When it was forgotten here.
    #[n(2)]
    pub at: Wall,
}

impl Forgotten {
    /// Whether a document of these contents was known whole when it was forgotten. Numbers alone tell nothing: whoever has never
    /// heard of the thing counts from one again.
    fn has_seen(&self, content: &Content) -> bool {
        let is_kept = |id: &RevisionId| self.revisions.binary_search(id).is_ok();
        !content.revisions.is_empty() && content.revisions.keys().all(is_kept)
    }

    /// The same in the eyes of one who was away for long, and has nothing that is newer than what is gone: what is lower than all
    /// that was kept had been dropped before.
    fn has_outlived(&self, content: &Content) -> bool {
        let lowest = self.revisions.first();
        let seen =
            |id: &RevisionId| self.revisions.binary_search(id).is_ok() || lowest.is_some_and(|lowest| id < lowest);
        !content.revisions.is_empty() && content.revisions.keys().all(seen)
    }

    fn of_row(row: &[u8]) -> Option<Self> {
        if let Ok(version) = Version::try_from(row) {
            // As it was written before revisions were remembered.
            return Some(Self { version, revisions: Vec::new(), at: Wall(0) });
        }
        let (version, body) = row.split_first()?;
        (*version == ROW_VERSION).then(|| minicbor::decode(body).ok())?
    }

    /// The row that holds it on disk.
    pub fn row(&self) -> Vec<u8> {
        let mut row = vec![ROW_VERSION];
        minicbor::encode(self, &mut row).expect("encoding into memory cannot fail");
        row
    }
}

/// All documents.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    entries: BTreeMap<DocKey, Entry>,
    /// Tombstones that every member held, and that need not be kept any more: they must not come back by anti-entropy.
    forgotten: BTreeMap<DocKey, Forgotten>,
    tree: HashTree,
}

impl Catalog {
    /// Takes in a row of the catalog's table; fails when it is damaged.
    pub fn restore(&mut self, key: &[u8], row: &[u8]) -> Result<(), RowError> {
        let damaged = || RowError(String::from_utf8_lossy(key).into_owned());
        let key = DocKey::from_bytes(key).ok_or_else(damaged)?;
        let (version, body) = row.split_first().ok_or_else(damaged)?;
        if *version != ROW_VERSION {
            return Err(damaged());
        }
        let row: Row = minicbor::decode(body).map_err(|_| damaged())?;
        let document = Document::load(row.epoch, &row.bytes).map_err(|_| damaged())?;
        self.store(key, &document);
        Ok(())
    }

    /// Takes in a row of the table of forgotten tombstones.
    pub fn restore_forgotten(&mut self, key: &[u8], row: &[u8]) {
        if let (Some(key), Some(forgotten)) = (DocKey::from_bytes(key), Forgotten::of_row(row)) {
            self.forgotten.insert(key, forgotten);
        }
    }

    /// The row that holds a document on disk.
    pub fn row(&self, key: &DocKey) -> Option<Vec<u8>> {
        let entry = self.entries.get(key)?;
        let mut row = vec![ROW_VERSION];
        minicbor::encode(Row { epoch: entry.epoch, bytes: entry.bytes.clone() }, &mut row)
            .expect("encoding into memory cannot fail");
        Some(row)
    }

    /// A document.
    pub fn get(&self, key: &DocKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All documents, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&DocKey, &Entry)> {
        self.entries.iter()
    }

    /// The tree over all documents.
    pub fn tree(&self) -> &HashTree {
        &self.tree
    }

    /// Adds a revision to a document, which is made if it is new. Gives back what to spread.
    pub fn put_revision(
        &mut self,
        key: &DocKey,
        actor: Actor,
        body: impl FnOnce(u32) -> Vec<u8>,
    ) -> (RevisionId, DocDelta) {
        let mut id = None;
        let delta = self.edit(key, |document| id = Some(document.put_revision(actor, body)));
        (id.expect("edit calls its argument"), delta)
    }

    /// Marks a document as deleted. None when there is nothing to delete.
    pub fn delete(&mut self, key: &DocKey, actor: Actor, at: Wall) -> Option<DocDelta> {
        let alive = self.entries.get(key).is_some_and(|entry| entry.content.deleted_at.is_none());
        alive.then(|| self.edit(key, |document| document.delete(actor, at)))
    }

    /// Takes in news from elsewhere.
    pub fn merge(&mut self, delta: &DocDelta, actor: Actor) -> Result<Merged, DocumentError> {
        let key = &delta.key;
        let Some(entry) = self.entries.get(key) else { return self.merge_new(delta) };
        if delta.epoch < entry.epoch {
            return Ok(Merged::Outdated);
        }
        let mut document = entry.document();
        if delta.epoch > document.epoch() {
            let winner = Document::load(delta.epoch, &delta.changes)?;
            if winner.heads().is_empty() {
                return Ok(Merged::Nothing);
            }
            let won = winner.heads();
            let resubmitted = document.adopt(winner, actor);
            let merged =
                if resubmitted { Merged::Resubmitted(delta_of(key, &document, &won)) } else { Merged::Changed };
            self.store(key.clone(), &document);
            return Ok(merged);
        }
        if !document.apply(&delta.changes)? {
            return Ok(Merged::Nothing);
        }
        self.store(key.clone(), &document);
        Ok(Merged::Changed)
    }

    fn merge_new(&mut self, delta: &DocDelta) -> Result<Merged, DocumentError> {
        let mut document = Document::load(delta.epoch, &[])?;
        document.apply(&delta.changes)?;
        let heads = document.heads();
        if heads.is_empty() {
            return Ok(Merged::Nothing);
        }
        let is_known =
            |known: &Forgotten| known.version == version(&delta.epoch, &heads) || known.has_seen(&document.content());
        if self.forgotten.get(&delta.key).is_some_and(is_known) {
            return Ok(Merged::Forgotten);
        }
        self.store(delta.key.clone(), &document);
        Ok(Merged::Changed)
    }

    /// What a document would say after this news; none where the news changes nothing, or cannot be read.
    pub fn merged_content(&self, delta: &DocDelta) -> Option<Content> {
        let entry = self.entries.get(&delta.key);
        let epoch = entry.map_or(delta.epoch, |entry| entry.epoch);
        match delta.epoch.cmp(&epoch) {
            Ordering::Less => None,
            Ordering::Greater => Some(Document::load(delta.epoch, &delta.changes).ok()?.content()),
            Ordering::Equal => {
                let mut document = match entry {
                    Some(entry) => entry.document(),
                    None => Document::load(epoch, &[]).ok()?,
                };
                document.apply(&delta.changes).ok()?.then(|| document.content())
            }
        }
    }

    /// Whether all of this news is in the catalog.
    pub fn contains(&self, delta: &DocDelta) -> bool {
        let entry = self.entries.get(&delta.key).filter(|entry| entry.epoch == delta.epoch);
        entry.is_some_and(|entry| entry.document().contains(&delta.changes))
    }

    /// What this node has of a document.
    pub fn state(&self, key: &DocKey) -> DocState {
        match self.entries.get(key) {
            Some(entry) => DocState {
                key: key.clone(),
                epoch: entry.epoch,
                heads: entry.heads.iter().flat_map(|head| head.0).collect(),
            },
            None => DocState::nothing(key.clone()),
        }
    }

    /// What a node lacks of a document that has it in the state `theirs`: changes, or all of it when the epochs differ. None
    /// when there is nothing that it lacks.
    pub fn since(&self, theirs: &DocState) -> Option<DocDelta> {
        let entry = self.entries.get(&theirs.key)?;
        if theirs.epoch > entry.epoch {
            return None;
        }
        let (known, same_epoch) = (theirs.heads(), theirs.epoch == entry.epoch);
        if same_epoch && known == entry.heads {
            return None;
        }
        let changes =
            if same_epoch && !known.is_empty() { entry.document().save_after(&known) } else { entry.bytes.clone() };
        (!changes.is_empty()).then(|| DocDelta { key: theirs.key.clone(), epoch: entry.epoch, changes })
    }

    /// Ends a document's history; gives back what to spread. None when that would lose something.
    pub fn compact(&mut self, key: &DocKey) -> Option<DocDelta> {
        let document = self.entries.get(key)?.document().compacted()?;
        self.store(key.clone(), &document);
        Some(delta_of(key, &document, &[]))
    }

    /// How many changes a document's history holds.
    pub fn history_len(&self, key: &DocKey) -> usize {
        self.entries.get(key).map_or(0, |entry| entry.document().history_len())
    }

    /// Drops a tombstone for good: it does not come back by itself. Gives back what is remembered of it, or none when the document
    /// is no tombstone.
    pub fn forget(&mut self, key: &DocKey, at: Wall) -> Option<&Forgotten> {
        let entry = self.entries.get(key).filter(|entry| entry.content.deleted_at.is_some())?;
        let revisions = entry.content.revisions.keys().copied().collect();
        let forgotten = Forgotten { version: entry.version(), revisions, at };
        Some(self.drop_entry(key, forgotten))
    }

    /// Drops a document that others have deleted and forgotten, if it says nothing that they had not known. One who `was_away` for
    /// long also drops what is older than all that they had kept. Gives back what is remembered of it.
    pub fn forget_as(&mut self, key: &DocKey, theirs: Forgotten, was_away: bool) -> Option<&Forgotten> {
        // Of admissions and removals nobody is rid by somebody's word.
        let entry = self.entries.get(key).filter(|_| key.as_admission().is_none() && key.as_removal().is_none())?;
        let is_same = entry.content.deleted_at.is_some() && entry.version() == theirs.version;
        // A version that remembers no revisions says nothing of them.
        let tells = !theirs.revisions.is_empty();
        let content = &entry.content;
        let is_known = tells && (theirs.has_seen(content) || (was_away && theirs.has_outlived(content)));
        (is_same || is_known).then(|| self.drop_entry(key, theirs))
    }

    fn drop_entry(&mut self, key: &DocKey, forgotten: Forgotten) -> &Forgotten {
        self.entries.remove(key);
        self.tree.remove(key.as_bytes());
        self.forgotten.insert(key.clone(), forgotten);
        &self.forgotten[key]
    }

    /// What is remembered of a tombstone that was forgotten.
    pub fn forgotten(&self, key: &DocKey) -> Option<&Forgotten> {
        self.forgotten.get(key)
    }

    /// Lets go of the oldest of what is remembered of tombstones, beyond [`FORGOTTEN_MAX`]. Gives back their keys.
    pub fn drop_oldest_forgotten(&mut self) -> Vec<DocKey> {
        let surplus = self.forgotten.len().saturating_sub(FORGOTTEN_MAX);
        if surplus == 0 {
            return Vec::new();
        }
        let mut oldest: Vec<(Wall, DocKey)> =
            self.forgotten.iter().map(|(key, known)| (known.at, key.clone())).collect();
        oldest.sort_unstable();
        oldest.truncate(surplus);
        for (_, key) in &oldest {
            self.forgotten.remove(key);
        }
        oldest.into_iter().map(|(_, key)| key).collect()
    }

    fn edit(&mut self, key: &DocKey, change: impl FnOnce(&mut Document)) -> DocDelta {
        let mut document = self.entries.get(key).map(Entry::document).unwrap_or_default();
        let before = document.heads();
        change(&mut document);
        self.store(key.clone(), &document);
        delta_of(key, &document, &before)
    }

    fn store(&mut self, key: DocKey, document: &Document) {
        let entry = Entry::of(document);
        self.tree.set(key.as_bytes(), entry.version());
        self.forgotten.remove(&key);
        self.entries.insert(key, entry);
    }
}

fn delta_of(key: &DocKey, document: &Document, before: &[ChangeHash]) -> DocDelta {
    DocDelta { key: key.clone(), epoch: document.epoch(), changes: document.save_after(before) }
}

#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Row {
    #[n(0)]
    epoch: Epoch,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

/// A row of the database that is no document.
#[derive(Debug, thiserror::Error)]
#[error("the catalog's row `{0}` is damaged")]
pub struct RowError(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(node: u8) -> Actor {
        Actor { key: NodeKey([node; 32]), boot: 1 }
    }

    fn key(name: &str) -> DocKey {
        DocKey::service(&ServiceName::new(name).unwrap())
    }

    fn put(catalog: &mut Catalog, node: u8, name: &str, body: &[u8]) -> DocDelta {
        catalog.put_revision(&key(name), actor(node), |_| body.to_vec()).1
    }

    #[test]
    fn news_of_a_write_makes_both_equal() {
        let (mut a, mut b) = (Catalog::default(), Catalog::default());
        for body in [b"one", b"two"] {
            let delta = put(&mut a, 1, "web", body);
            assert_eq!(b.merge(&delta, actor(2)).unwrap(), Merged::Changed);
            assert_eq!(b.merge(&delta, actor(2)).unwrap(), Merged::Nothing);
        }
        assert_eq!(a.tree().root(), b.tree().root());
        assert_eq!(a.get(&key("web")).unwrap().content(), b.get(&key("web")).unwrap().content());
    }

    #[test]
    fn only_what_is_lacking_crosses() {
        let (mut a, mut b) = (Catalog::default(), Catalog::default());
        let delta = put(&mut a, 1, "web", &[7; 5000]);
        b.merge(&delta, actor(2)).unwrap();
        put(&mut a, 1, "web", b"small");
        let delta = a.since(&b.state(&key("web"))).unwrap();
        assert!(delta.changes.len() < 500, "{} bytes crossed", delta.changes.len());
        b.merge(&delta, actor(2)).unwrap();
        assert_eq!(a.tree().root(), b.tree().root());
        assert_eq!(a.since(&b.state(&key("web"))), None);
        assert_eq!(b.since(&a.state(&key("web"))), None);
    }

    #[test]
    fn a_row_survives_the_disk_and_a_damaged_one_is_named() {
        let mut catalog = Catalog::default();
        put(&mut catalog, 1, "web", b"one");
        let row = catalog.row(&key("web")).unwrap();
        let mut again = Catalog::default();
        again.restore(key("web").as_bytes(), &row).unwrap();
        assert_eq!(again.tree().root(), catalog.tree().root());
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 0xff;
            if let Err(error) = again.restore(key("web").as_bytes(), &damaged) {
                assert!(error.to_string().contains("service/web"));
            }
        }
        assert!(again.restore(key("web").as_bytes(), &[]).is_err());
    }

    #[test]
    fn a_forgotten_tombstone_does_not_come_back_but_a_new_deploy_does() {
        let (mut a, mut b) = (Catalog::default(), Catalog::default());
        b.merge(&put(&mut a, 1, "web", b"one"), actor(2)).unwrap();
        assert_eq!(a.forget(&key("web"), Wall(2)), None, "what lives is not forgotten");
        let mut asleep = b.clone();
        b.merge(&a.delete(&key("web"), actor(1), Wall(1)).unwrap(), actor(2)).unwrap();
        let row = a.forget(&key("web"), Wall(2)).unwrap().row();
        let mut restarted = Catalog::default();
        restarted.restore_forgotten(key("web").as_bytes(), &row);
        for a in [&mut a, &mut restarted] {
            for other in [&b, &asleep] {
                let whole = other.since(&a.state(&key("web"))).unwrap();
                assert_eq!(a.merge(&whole, actor(1)).unwrap(), Merged::Forgotten);
            }
        }
        let forgotten = a.forgotten(&key("web")).unwrap().clone();
        let mut wrote = asleep.clone();
        put(&mut wrote, 3, "web", b"unseen");
        assert_eq!(wrote.forget_as(&key("web"), forgotten.clone(), true), None, "nobody has seen what it wrote");
        assert!(
            asleep.forget_as(&key("web"), forgotten, false).is_some(),
            "one who slept through it lets go of it, too"
        );
        assert!(asleep.tree().is_empty());
        put(&mut b, 2, "web", b"two");
        let whole = b.since(&a.state(&key("web"))).unwrap();
        assert_eq!(a.merge(&whole, actor(1)).unwrap(), Merged::Changed);
        assert_eq!(a.get(&key("web")).unwrap().content().deleted_at, None);
    }

    #[test]
    fn who_was_away_for_long_lets_go_of_what_had_been_dropped_since_and_others_do_not() {
        let mut cluster = Catalog::default();
        put(&mut cluster, 1, "web", b"first");
        let mut asleep = cluster.clone();
        for n in 0..40_u8 {
            put(&mut cluster, 1, "web", &[n]);
        }
        cluster.delete(&key("web"), actor(1), Wall(1)).unwrap();
        let forgotten = cluster.forget(&key("web"), Wall(2)).unwrap().clone();
        let mut anew = Catalog::default();
        put(&mut anew, 2, "web", b"deployed by one who never heard of the old one");
        assert_eq!(anew.forget_as(&key("web"), forgotten.clone(), false), None);
        assert_eq!(asleep.forget_as(&key("web"), forgotten.clone(), false), None);
        assert!(asleep.forget_as(&key("web"), forgotten, true).is_some());
    }

    #[test]
    fn what_is_remembered_of_the_forgotten_is_bounded() {
        let mut catalog = Catalog::default();
        for n in 0..FORGOTTEN_MAX as u64 + 3 {
            let forgotten = Forgotten { version: [0; 32], revisions: vec![], at: Wall(n) };
            catalog.restore_forgotten(format!("service/s{n}").as_bytes(), &forgotten.row());
        }
        assert_eq!(catalog.drop_oldest_forgotten(), [key("s0"), key("s1"), key("s2")]);
        assert!(catalog.drop_oldest_forgotten().is_empty());
    }

    #[test]
    fn epochs_meet_and_nothing_is_lost() {
        let (mut a, mut b) = (Catalog::default(), Catalog::default());
        for n in 0..30_u8 {
            b.merge(&put(&mut a, 1, "web", &[n]), actor(2)).unwrap();
        }
        let compacted = a.compact(&key("web")).unwrap();
        put(&mut b, 2, "web", b"cut off");
        let Merged::Resubmitted(again) = b.merge(&compacted, actor(2)).unwrap() else {
            panic!("nothing was added again")
        };
        assert_eq!(a.merge(&again, actor(1)).unwrap(), Merged::Changed);
        assert_eq!(a.tree().root(), b.tree().root());
        let content = a.get(&key("web")).unwrap().content();
        assert_eq!(content.revisions[&content.current.unwrap()], b"cut off");
        assert_eq!(a.history_len(&key("web")), 2);
    }

    #[test]
    fn keys_from_outside_are_checked() {
        assert!(DocKey::checked("service/web").is_some());
        assert!(DocKey::checked("setting/retention").is_some(), "kinds of later versions are kept");
        for bad in ["", "service", "service/", "service/../x", "admission/zz", "node/n1", "/x"] {
            assert!(DocKey::checked(bad).is_none(), "{bad}");
        }
        assert!(DocKey::checked(&format!("kind/{}", "x".repeat(300))).is_none());
    }
}
