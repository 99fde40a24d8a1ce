//! What comes from other members. Pure.

use std::fmt;
use std::sync::Arc;

use super::Engine;
use super::effect::{Effect, Peer, Table};
use super::input::NetworkEvent;
use super::known::About;
use super::out::Out;
use crate::crdt::admission::Signed;
use crate::crdt::catalog::{DocDelta, DocKey, DocState, Forgotten, Merged};
use crate::crdt::roster::{Subject, Taken, record_key};
use crate::gossip::message::{Message, News, Stretch, Tombstone, is_of_later_version};
use crate::gossip::sync::{self, Offer};
use crate::ids::{NodeKey, ServiceName};

/// The kinds of what is refused of members, each counted under its own name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Refused {
    NotAMember,
    Message,
    SwimMessage,
    News,
    Document,
    ForgedRecord,
    ForgedStatement,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAMember => "messages of one who is no member",
            Self::Message => "messages that make no sense",
            Self::SwimMessage => "membership messages that make no sense",
            Self::News => "news that make no sense",
            Self::Document => "damaged documents",
            Self::ForgedRecord => "records that were altered",
            Self::ForgedStatement => "admissions or removals that nobody signed",
        })
    }
}

impl Engine {
    pub(super) fn apply_network(&mut self, event: NetworkEvent, out: &mut Out) {
        match event {
            NetworkEvent::Connected(key) => {
                self.look_back();
                self.cluster.connect(key);
                // Binaries that nobody in reach held may be had now.
                self.dirty.copies = true;
                if self.cluster.connected().contains(&key) {
                    self.membership.connect(self.now.mono, key);
                    self.rounds.connected(self.now.mono, key);
                }
            }
            NetworkEvent::Broken(key) => {
                self.cluster.disconnect(&key);
                self.membership.break_off(self.now.mono, key);
            }
            NetworkEvent::ShutOut(key) => self.shut_out_by(key, out),
            NetworkEvent::Standing(statements) => self.hear_standing(&statements, out),
            NetworkEvent::Message { from, bytes } => {
                if !self.cluster.is_member(&from) {
                    // What one says who was cut off a moment ago may still be on its way.
                    if !self.is_gone(&from) {
                        self.refuse(from, Refused::NotAMember);
                    }
                    return;
                }
                match Message::decode(&bytes) {
                    Some(message) => self.receive(from, message, out),
                    None if is_of_later_version::<Message>(&bytes) => {}
                    None => self.refuse(from, Refused::Message),
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, from: NodeKey, kind: Refused) {
        *self.refused.entry((from, kind)).or_default() += 1;
        self.dirty.problems = true;
    }

    fn receive(&mut self, from: NodeKey, message: Message, out: &mut Out) {
        match message {
            Message::Swim(bytes) => {
                if !self.membership.receive(self.now.mono, from, &bytes) {
                    self.refuse(from, Refused::SwimMessage);
                }
            }
            Message::Hello { life, incarnation, you } => {
                self.membership.receive_hello(self.now.mono, from, life, incarnation, you);
            }
            Message::News { news, acknowledge } => self.receive_news(from, &news, acknowledge, out),
            Message::Relay { news, stretch } => self.relay_news(from, &news, &stretch, out),
            Message::Heard(names) => {
                if let Some(ask) = self.dissemination.heard(self.now.mono, from, &names) {
                    out.send(from, &ask);
                }
            }
            Message::Ask(names) => answer(from, self.dissemination.asked(&names), out),
            Message::Acknowledge(id) => {
                for (request, response) in self.acks.acknowledge(id, from) {
                    out.reply(request, Ok(response));
                }
            }
            Message::Roots { catalog, roster } => {
                if roster == self.roster.tree().root() {
                    self.catch_up();
                }
                if self.rounds.goes_on(self.now.mono, self.me, from) {
                    answer(from, sync::compare_roots(&self.catalog, &self.roster, (&catalog, &roster)), out);
                }
            }
            Message::Buckets { which, hashes } => {
                self.rounds.answered(&from);
                answer(from, sync::compare_buckets(&self.catalog, &self.roster, which, &hashes), out);
            }
            Message::Documents { buckets, states } => {
                let offer = self.offer();
                if offer == Offer::WhatBothHold {
                    answer(from, sync::withheld(&self.catalog, &buckets, &states), out);
                }
                answer(from, sync::compare_documents(&self.catalog, &buckets, &states, offer), out);
            }
            Message::Records { buckets, states } => {
                if !sync::lacks_records(&self.roster, &states) {
                    self.catch_up();
                }
                answer(from, sync::compare_records(&self.roster, &buckets, &states), out);
            }
            Message::Want { documents, records } => {
                let offer = self.offer();
                answer(from, sync::supply(&self.catalog, &self.roster, &documents, &records, offer), out);
            }
            Message::Repair { documents, records, more } => self.receive_repair(from, &documents, &records, more, out),
            Message::Forgotten(tombstones) => self.receive_forgotten(from, tombstones, out),
        }
    }

    fn receive_news(&mut self, from: NodeKey, bytes: &[u8], acknowledge: bool, out: &mut Out) {
        if self.dissemination.is_new(bytes) {
            let news = match minicbor::decode::<News>(bytes) {
                Ok(news) => news,
                // Not relayed: anti-entropy carries it on between those who know what it is.
                Err(_) if is_of_later_version::<News>(bytes) => return,
                Err(_) => return self.refuse(from, Refused::News),
            };
            let good = match news {
                News::Document(delta) => self.take_document(from, &delta, out),
                News::Record(signed) => self.take_record(from, &signed, out),
            };
            if !good {
                // Whoever passed it on would be taken for its author.
                return self.dissemination.refuse(bytes);
            }
            self.dissemination.receive(self.now.mono, bytes);
        }
        if acknowledge {
            self.acknowledge_news(from, bytes, out);
        }
    }

    /// Takes in news, and passes them on; before they are on the disk, since what they say was said by others.
    fn relay_news(&mut self, from: NodeKey, bytes: &[u8], stretch: &Stretch, out: &mut Out) {
        self.receive_news(from, bytes, false, out);
        let connected = self.cluster.connected();
        for (to, message) in self.dissemination.relay(&mut self.rng, connected, from, bytes, stretch) {
            out.send(to, &message);
        }
    }

    /// Says that news is on this node's disk, if it is: news that builds on what this node lacks is not kept, and comes again once
    /// it has been given that.
    fn acknowledge_news(&self, from: NodeKey, bytes: &[u8], out: &mut Out) {
        match minicbor::decode::<News>(bytes) {
            Ok(News::Document(delta)) if !self.catalog.contains(&delta) => {
                out.send(from, &sync::roots(&self.catalog, &self.roster));
            }
            Ok(_) => {
                let id = crate::gossip::message::NewsId::of(bytes);
                out.send_when_durable(from, &Message::Acknowledge(id));
            }
            Err(_) => {}
        }
    }

    fn receive_repair(&mut self, from: NodeKey, documents: &[DocDelta], records: &[Signed], more: bool, out: &mut Out) {
        // Admissions first: records of members that they admit may stand beside them.
        for delta in documents {
            self.take_document(from, delta, out);
        }
        for signed in records {
            self.take_record(from, signed, out);
        }
        if more {
            out.send(from, &sync::roots(&self.catalog, &self.roster));
        } else if !records.is_empty() {
            self.catch_up();
        }
    }

    /// This node knows what the others reported while it was away.
    pub(super) fn catch_up(&mut self) {
        if !std::mem::replace(&mut self.caught_up, true) {
            self.dirty.services.extend(self.services.iter().map(|service| service.name.clone()));
            self.dirty.services.extend(self.known.reported_services().cloned());
        }
    }

    /// Takes in changes to a document. False when they are refused.
    fn take_document(&mut self, from: NodeKey, delta: &DocDelta, out: &mut Out) -> bool {
        if DocKey::from_bytes(delta.key.as_bytes()).is_none() {
            self.refuse(from, Refused::Document);
            return false;
        }
        if self.is_made_up(delta) {
            self.refuse(from, Refused::ForgedStatement);
            return false;
        }
        match self.catalog.merge(delta, self.actor()) {
            Err(_) => {
                self.refuse(from, Refused::Document);
                return false;
            }
            Ok(Merged::Nothing) => {}
            Ok(Merged::Changed) => self.document_changed(&delta.key, out),
            Ok(Merged::Resubmitted(again)) => {
                self.document_changed(&delta.key, out);
                self.spread_document(again, out);
            }
            Ok(Merged::Outdated) => {
                let theirs = DocState { key: delta.key.clone(), epoch: delta.epoch, heads: Vec::new() };
                let documents = self.catalog.since(&theirs).into_iter().collect();
                out.send(from, &Message::Repair { documents, records: Vec::new(), more: false });
            }
            Ok(Merged::Forgotten) => {
                let tombstones = sync::tombstone(&self.catalog, &delta.key).into_iter().collect();
                out.send(from, &Message::Forgotten(tombstones));
            }
        }
        true
    }

    /// Takes in a record. False when it was altered on the way.
    pub(super) fn take_record(&mut self, from: NodeKey, signed: &Signed, out: &mut Out) -> bool {
        match self.roster.take(&*self.config.signatures, signed) {
            Taken::Stale => {}
            Taken::Forged => {
                self.refuse(from, Refused::ForgedRecord);
                return false;
            }
            Taken::New(record) if !self.cluster.is_member(&record.node) => {
                // Its admission may be on the way; or its removal, to the one who sent this.
                self.roster.remove_node(&record.node);
                self.keep_early(&record.node, &record.subject, signed);
            }
            Taken::New(record) if record.node == self.me => {
                // An earlier life wrote this and lost it. Looking at it again makes this life say what is true now.
                self.record_known(&record);
            }
            Taken::New(record) => {
                let row = minicbor::to_vec(signed).expect("encoding into memory cannot fail");
                out.put(Table::Roster, &record_key(&record.node, &record.subject), row);
                self.record_known(&record);
            }
        }
        true
    }

    fn record_known(&mut self, record: &crate::crdt::roster::Record) {
        match self.known.take(record) {
            About::Facts => self.dirty.cluster = true,
            About::Holdings => {
                self.dirty.copies = true;
                self.dirty.holders = true;
            }
            About::Service(name) => {
                self.dirty.services.insert(name);
                self.dirty.instances = true;
            }
            About::Catalog | About::Unknown => {}
        }
    }

    fn receive_forgotten(&mut self, from: NodeKey, tombstones: Vec<Tombstone>, out: &mut Out) {
        let was_away = self.offer() == Offer::WhatBothHold;
        let mut newer = Vec::new();
        for Tombstone { key, version, mut revisions } in tombstones {
            revisions.sort_unstable();
            let theirs = Forgotten { version, revisions, at: self.now.wall };
            if let Some(forgotten) = self.catalog.forget_as(&key, theirs, was_away) {
                let row = forgotten.row();
                self.document_forgotten(&key, row, out);
            } else if self.catalog.get(&key).is_some() {
                newer.push(DocState::nothing(key));
            }
        }
        // Whatever this node offers otherwise: of these it is known that they are news.
        answer(from, sync::supply(&self.catalog, &self.roster, &newer, &[], Offer::Everything), out);
    }

    /// Writes a record of this node, and tells it. True if it is news.
    pub(super) fn say<T: minicbor::Encode<()>>(
        &mut self,
        subject: Subject,
        content: Option<&T>,
        out: &mut Out,
    ) -> bool {
        let stamp = crate::crdt::roster::Stamp { boot: self.boot, version: self.stamped + 1 };
        let Some(signed) = self.roster.write(&*self.config.signatures, subject.clone(), stamp, content) else {
            return false;
        };
        self.stamped += 1;
        let row = minicbor::to_vec(&signed).expect("encoding into memory cannot fail");
        out.put(Table::Roster, &record_key(&self.me, &subject), row);
        let record = minicbor::decode(&signed.body).expect("it was encoded just now");
        self.record_known(&record);
        let news = News::Record(signed).encode();
        let connected = self.cluster.connected();
        let (_, outbox) = self.dissemination.tell(self.now.mono, &mut self.rng, connected, news, false);
        for (to, message) in outbox {
            out.send(to, &message);
        }
        true
    }

    /// Tells a change of a document that this node made, once it is durable. Gives back the name of the news.
    pub(super) fn spread_document(&mut self, delta: DocDelta, out: &mut Out) -> crate::gossip::message::NewsId {
        self.spread_document_and(delta, false, out)
    }

    pub(super) fn spread_document_and(
        &mut self,
        delta: DocDelta,
        acknowledge: bool,
        out: &mut Out,
    ) -> crate::gossip::message::NewsId {
        let news = News::Document(delta).encode();
        let connected = self.cluster.connected();
        let (id, outbox) = self.dissemination.tell(self.now.mono, &mut self.rng, connected, news, acknowledge);
        for (to, message) in outbox {
            out.send_when_durable(to, &message);
        }
        id
    }

    /// A document is another one now: stores it and looks at what it says.
    pub(super) fn document_changed(&mut self, key: &DocKey, out: &mut Out) {
        self.store_document(key, out);
        if key.as_admission().is_some() || key.as_removal().is_some() {
            self.statements_changed(key, out);
        } else {
            self.wish_changed(key);
        }
    }

    /// A document was forgotten: stores what is remembered of it.
    pub(super) fn document_forgotten(&mut self, key: &DocKey, row: Vec<u8>, out: &mut Out) {
        out.remove(Table::Catalog, key.as_bytes());
        out.put(Table::Forgotten, key.as_bytes(), row);
        self.wish_changed(key);
    }

    /// What users ask for in a document is other than before.
    fn wish_changed(&mut self, key: &DocKey) {
        if let Some(name) = key.as_service() {
            self.service_changed(&name);
        } else if let Some(node) = key.as_node() {
            self.node_settings_changed(node);
        }
    }

    pub(super) fn store_document(&mut self, key: &DocKey, out: &mut Out) {
        let row = self.catalog.row(key).expect("a document that changed is there");
        out.put(Table::Catalog, key.as_bytes(), row);
    }

    pub(super) fn service_changed(&mut self, name: &ServiceName) {
        let entry = self.catalog.get(&DocKey::service(name));
        self.services.update(name, entry.map(|entry| entry.content()));
        self.jobs.set_spec(name, self.services.get(name));
        self.dirty.services.insert(name.clone());
        self.dirty.copies = true;
        self.dirty.rows.insert(name.clone());
    }

    /// Tells the transport who the members are and where, when that is other than it was told last.
    pub(super) fn settle_peers(&mut self, out: &mut Out) {
        // Both are in the order of their keys. What is as it was is handed on, not copied: in a wave of joins that is nearly all.
        let mut before = self.peers.iter().peekable();
        let mut peers = Vec::with_capacity(self.peers.len() + 1);
        for (key, addresses) in self.peers_now().filter(|(key, _)| *key != self.me) {
            while before.next_if(|peer| peer.key < key).is_some() {}
            let same = before.next_if(|peer| peer.key == key).filter(|peer| peer.addresses == addresses);
            peers.push(same.cloned().unwrap_or_else(|| Arc::new(Peer { key, addresses: addresses.to_vec() })));
        }
        let is_same = |(a, b): (&Arc<Peer>, &Arc<Peer>)| Arc::ptr_eq(a, b);
        if self.peers.len() != peers.len() || !self.peers.iter().zip(&peers).all(is_same) {
            self.peers.clone_from(&peers);
            // Not before the news of a removal has left this node: it is sent when it is durable.
            out.act_when_durable(Effect::Members(peers));
        }
    }

    /// All members with their addresses: by their own word, else by what was said when they were admitted.
    pub(super) fn peers_now(&self) -> impl Iterator<Item = (NodeKey, &[String])> {
        self.cluster.members().iter().map(|(key, member)| {
            let welcomed = || self.welcomed.get(key).filter(|known| !known.is_empty());
            let addresses = match self.known.facts(key) {
                Some(facts) => &facts.addresses,
                None => welcomed().unwrap_or(&member.addresses),
            };
            (*key, &addresses[..])
        })
    }
}

fn answer(to: NodeKey, messages: impl IntoIterator<Item = Message>, out: &mut Out) {
    for message in messages {
        out.send(to, &message);
    }
}
