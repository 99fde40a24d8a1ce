//! What a later version of narun says passes through nodes of this one unharmed.

use super::*;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};

use narun::crdt::admission::Signed;
use narun::crdt::catalog::{DocDelta, DocKey};
use narun::crdt::document::{Actor, Document, Epoch, RevisionId};
use narun::crdt::revision::Revision;
use narun::crdt::roster::{RECORD_DOMAIN, Stamp};
use narun::gossip::message::{Message, News, Stretch};
use narun::ids::NodeKey;
use narun::node::engine::effect::Table;

use crate::signatures::SimSignatures;
use crate::wish::anywhere;

/// A document's row: a version byte before this.
#[derive(minicbor::Decode)]
#[cbor(map)]
struct Row {
    #[n(0)]
    epoch: Epoch,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

/// A record with a field more than this version knows.
#[derive(minicbor::Encode)]
#[cbor(map)]
struct LaterRecord {
    #[n(0)]
    node: NodeKey,
    #[n(1)]
    subject: &'static str,
    #[n(2)]
    stamp: Stamp,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    content: Vec<u8>,
    #[n(40)]
    mood: &'static str,
}

/// The same CBOR map with one field more.
fn with_another_field(map: &[u8]) -> Vec<u8> {
    let (head, fields) = map.split_first().expect("a map has a head");
    assert!((0xa0..0xb7).contains(head), "a small map: {head:#x}");
    [&[head + 1], fields, &[0x18, 99, 0x63], b"new"].concat()
}

fn document(world: &World, host: usize, key: &DocKey) -> Option<(Epoch, Vec<u8>)> {
    let row = world.hosts[host].platter().table(Table::Catalog).remove(key.as_bytes())?;
    let row: Row = minicbor::decode(&row[1..]).expect("a row of a document");
    Some((row.epoch, row.bytes))
}

fn body(bytes: &[u8], epoch: Epoch, id: &RevisionId) -> Option<Vec<u8>> {
    Document::load(epoch, bytes).expect("a document").content().revisions.remove(id)
}

/// What a node of a later version would say to one of this version, to be passed on to all.
fn said(news: &News) -> Vec<u8> {
    let everybody = Stretch { from: NodeKey([0; 32]), to: NodeKey([255; 32]) };
    Message::Relay { news: news.encode(), stretch: everybody }.encode()
}

#[test]
fn what_a_later_version_says_reaches_the_third_as_it_was_said() {
    scenario("what_a_later_version_says_reaches_the_third_as_it_was_said", 4, async |mut world| {
        let (later, ordinary, third, fourth) = (3, 1, 2, 0);
        deployed(&mut world, 0, Deployment::new("web", "a", anywhere(1))).await;
        at_rest(&mut world, &[]).await;
        let key = world.hosts[later].key;
        let actor = Actor { key, boot: 900 };

        // A service with a field more in its revision, and a key more beside it.
        let web = DocKey::service(&service_name("web"));
        let (epoch, bytes) = document(&world, 0, &web).expect("web is there");
        let mut changed = Document::load(epoch, &bytes).expect("a document");
        let current = changed.content();
        let revision = &current.revisions[&current.current.expect("it has a current one")];
        let mut revision: Revision = minicbor::decode(revision).expect("a revision");
        let id = changed.put_revision(actor, |number| {
            revision.number = number;
            with_another_field(&revision.encode())
        });
        let revised = changed.content().revisions.remove(&id).expect("it was put there");
        let mut coloured = AutoCommit::load(&changed.save()).expect("a document");
        coloured.put(ROOT, "colour", "blue").expect("a scalar");
        let web_news = News::Document(DocDelta { key: web.clone(), epoch, changes: coloured.save() });

        // A kind of document that this version has no word for.
        let future = DocKey::checked("future/x").expect("a key of an unknown kind");
        let mut unheard = Document::default();
        let future_id = unheard.put_revision(actor, |_| b"in words to come".to_vec());
        let future_news =
            News::Document(DocDelta { key: future.clone(), epoch: unheard.epoch(), changes: unheard.save() });

        // A record on a subject, and with a field, that this version does not know.
        let stamp = Stamp { boot: 1, version: 900_000 };
        let record = LaterRecord { node: key, subject: "weather", stamp, content: vec![1, 2, 3], mood: "fair" };
        let signed = Signed::new(&SimSignatures(key), RECORD_DOMAIN, &record);
        let signed_row = minicbor::to_vec(&signed).expect("encoding into memory cannot fail");
        let record_key = [&key.0[..], b"weather"].concat();

        let holds = |world: &World, host: usize| -> Result<(), String> {
            let missing = |what: &str| format!("n{host} has not {what}");
            let roster = world.hosts[host].platter().table(Table::Roster);
            if roster.get(&record_key) != Some(&signed_row) {
                return Err(missing("the very record"));
            }
            let (epoch, bytes) = document(world, host, &future).ok_or_else(|| missing("the unknown document"))?;
            if body(&bytes, epoch, &future_id).as_deref() != Some(&b"in words to come"[..]) {
                return Err(missing("what stands in it"));
            }
            let (epoch, bytes) = document(world, host, &web).ok_or_else(|| missing("web"))?;
            let coloured = AutoCommit::load(&bytes).expect("a document");
            let colour = coloured.get(ROOT, "colour").expect("it can be read");
            if colour.is_none_or(|(value, _)| value.as_str() != Some("blue")) {
                return Err(missing("the unknown key"));
            }
            let same = body(&bytes, epoch, &id).as_ref() == Some(&revised);
            if same { Ok(()) } else { Err(missing("the revision as it was written")) }
        };

        // The later one reaches the ordinary one alone, which reaches the fourth by news, and the third only after a restart.
        let key_of = |world: &World, host: usize| world.hosts[host].key;
        for (a, b) in [(later, third), (later, fourth), (ordinary, third), (third, fourth)] {
            world.fabric.cut(key_of(&world, a), key_of(&world, b));
            world.fabric.cut(key_of(&world, b), key_of(&world, a));
        }
        world.run_for(Duration::from_secs(15)).await;
        for news in [&web_news, &future_news, &News::Record(signed.clone())] {
            // Twice: some of what is said here is lost on its way.
            for _ in 0..2 {
                world.send_as(later, ordinary, said(news));
            }
        }
        for host in [ordinary, fourth] {
            world.until(Duration::from_secs(20), "told", |world| holds(world, host)).await;
        }
        assert!(holds(&world, third).is_err(), "the third was cut off from both");
        world.kill(ordinary).await;
        world.kill(fourth).await;
        world.start(ordinary).await;
        world.fabric.heal(key_of(&world, ordinary), key_of(&world, third));
        world.fabric.heal(key_of(&world, third), key_of(&world, ordinary));
        world.until(Duration::from_secs(40), "given", |world| holds(world, third)).await;
        world.heal(&[]).await;
        at_rest(&mut world, &[]).await;
        for host in [ordinary, third, fourth] {
            holds(&world, host).unwrap_or_else(|complaint| panic!("{complaint}"));
        }
        assert!(world.up().iter().all(|host| world.view(*host).problems.is_empty()), "nobody takes it for a mistake");
    });
}
