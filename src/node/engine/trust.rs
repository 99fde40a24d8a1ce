//! Who is a member, as this node has heard: admissions, removals, leaving, and being gone oneself. Pure.
//!
//! Admissions and removals are documents of the catalog, so that all nodes come to hold the same ones. Whatever changes, the
//! verdict is made anew from all of them. A node that finds itself removed says so durably, ends its instances and itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::effect::{Effect, Peer, Refusal, RefusalCode, Response, Table};
use super::input::Admit;
use super::out::Out;
use super::requests::Answer;
use crate::crdt::admission::{ADMISSION_DOMAIN, Admission, REMOVAL_DOMAIN, Removal, Signed, Welcome};
use crate::crdt::catalog::{DocDelta, DocKey};
use crate::crdt::document::{REVISIONS_MAX, RevisionId};
use crate::crdt::roster::{Subject, record_key};
use crate::crdt::trust::{ADMISSIONS_MAX, Gone, Trust};
use crate::gossip::message::{Message, News, NewsId};
use crate::ids::{NodeKey, NodeName};
use crate::time::Mono;

/// The row that says that this node is no member any more, and why.
pub(super) const GONE: &[u8] = b"gone";

/// How often a member is asked why it does not let this node in: often enough that a removed node ends within seconds of
/// reaching anybody, seldom enough to be nothing at the door.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How long a node that leaves waits until another member has written that down: a disk that is busy with something else
/// takes several seconds for that.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// Most records kept that came before the admission of the node they speak of: those of a wave of joins. What is dropped
/// anti-entropy brings again.
const EARLY_MAX: usize = 1_024;

/// What this node knows of who belongs to the cluster, beside the members themselves.
pub(super) struct Belonging {
    trust: Trust,
    /// Who was a member once.
    gone: BTreeMap<NodeKey, Gone>,
    /// Records of nodes whose admission has not come yet.
    early: BTreeMap<Vec<u8>, Signed>,
    /// When a member that does not let this node in may be asked again why.
    ask_again: Mono,
    /// Set once this node is no member any more; with the news of its own leaving while others have not written it down.
    end: Option<End>,
}

struct End {
    gone: Gone,
    /// The request to leave; while it is not answered, this node still has something to say.
    leaving: Option<u64>,
    told: bool,
}

impl Belonging {
    pub(super) fn new(trust: Trust, now: Mono) -> Self {
        Self { trust, gone: BTreeMap::new(), early: BTreeMap::new(), ask_again: now + ASK_EVERY, end: None }
    }
}

impl Engine {
    /// Takes in what an admission's or removal's document says.
    pub(super) fn statements_changed(&mut self, key: &DocKey, out: &mut Out) {
        self.read_statements(key);
        self.refresh_members(out);
    }

    /// All revisions count, not only the current one: two nodes may have removed a third at once.
    pub(super) fn read_statements(&mut self, key: &DocKey) {
        let content = self.catalog.get(key).map(|entry| entry.content());
        for body in content.into_iter().flat_map(|content| content.revisions.values()) {
            if let Ok(signed) = minicbor::decode::<Signed>(body) {
                self.belonging.trust.take(&*self.config.signatures, &signed);
            }
        }
    }

    /// What was said at the door when this node joined.
    pub(super) fn read_welcome(&mut self) {
        let welcome = self.config.welcome.iter();
        for signed in welcome.flat_map(|welcome| welcome.admissions.iter().chain(&welcome.removals)) {
            self.belonging.trust.take(&*self.config.signatures, signed);
        }
    }

    /// Whether news of an admission or removal holds a statement that nobody signed, or takes one back: it is refused before it
    /// is merged, so that only who made it up is blamed, and not who passes it on.
    pub(super) fn is_made_up(&self, delta: &DocDelta) -> bool {
        if delta.key.as_admission().is_none() && delta.key.as_removal().is_none() {
            return false;
        }
        let Some(merged) = self.catalog.merged_content(delta) else { return false };
        let known = self.catalog.get(&delta.key).map(|entry| &entry.content().revisions);
        let is_signed = |body: &Vec<u8>| {
            let signed = minicbor::decode::<Signed>(body);
            signed.is_ok_and(|signed| self.belonging.trust.is_signed(&*self.config.signatures, &signed))
        };
        // The oldest of many are dropped by the document itself.
        let is_kept = |known: &BTreeMap<RevisionId, Vec<u8>>| {
            known.len() >= REVISIONS_MAX || known.keys().all(|id| merged.revisions.contains_key(id))
        };
        merged.deleted_at.is_some() || !known.is_none_or(is_kept) || !merged.revisions.values().all(is_signed)
    }

    /// Works out anew who is admitted.
    pub(super) fn refresh_members(&mut self, out: &mut Out) {
        let verdict = self.belonging.trust.verdict();
        let changed = self.cluster.set_members(self.now, &verdict.members);
        if self.belonging.gone != verdict.gone {
            let before = std::mem::replace(&mut self.belonging.gone, verdict.gone.clone());
            let is_new = |key: &&NodeKey| **key != self.me && !before.contains_key(*key);
            let newly: Vec<NodeKey> = self.belonging.gone.keys().filter(is_new).copied().collect();
            for key in newly {
                self.forget_node(&key, out);
            }
        }
        if let Some(gone) = self.belonging.gone.get(&self.me)
            && self.belonging.end.is_none()
        {
            self.begin_end(gone.clone(), None, out);
        }
        if changed {
            self.membership.set_members(self.now.mono, self.cluster.members().keys().copied().collect());
            self.dirty.cluster = true;
            self.dirty.view = true;
        }
    }

    /// The same out of what the disk held: what follows from a removal was written down with it.
    pub(super) fn refresh_restored(&mut self) {
        let verdict = self.belonging.trust.verdict();
        for key in verdict.gone.keys() {
            self.roster.remove_node(key);
            self.known.forget(key);
        }
        self.belonging.gone.clone_from(&verdict.gone);
        self.cluster.set_members(self.now, &verdict.members);
        self.membership.set_members(self.now.mono, self.cluster.members().keys().copied().collect());
    }

    /// Drops all that a node ever reported.
    fn forget_node(&mut self, key: &NodeKey, out: &mut Out) {
        let subjects: Vec<Subject> = self.roster.subjects_of(key).cloned().collect();
        self.dirty.services.extend(subjects.iter().filter_map(Subject::as_service));
        self.dirty.copies = true;
        for subject in subjects {
            out.remove(Table::Roster, &record_key(key, &subject));
        }
        self.roster.remove_node(key);
        self.known.forget(key);
        self.refused.retain(|(node, _), _| node != key);
    }

    /// Keeps a record until the node that it speaks of is admitted; one of a node that is gone is dropped.
    pub(super) fn keep_early(&mut self, key: &NodeKey, subject: &Subject, signed: &Signed) {
        let room = self.belonging.early.len() < EARLY_MAX;
        if room && !self.belonging.gone.contains_key(key) {
            self.belonging.early.insert(record_key(key, subject), signed.clone());
        }
    }

    /// The records that were kept for nodes which are members now.
    pub(super) fn take_early(&mut self) -> Vec<Signed> {
        let cluster = &self.cluster;
        let is_due = |key: &Vec<u8>, _: &mut Signed| {
            key.first_chunk::<32>().is_some_and(|node| cluster.is_member(&NodeKey(*node)))
        };
        self.belonging.early.extract_if(.., is_due).map(|(_, signed)| signed).collect()
    }

    /// Whether a key was a member's once.
    pub(super) fn is_gone(&self, key: &NodeKey) -> bool {
        self.belonging.gone.contains_key(key)
    }

    pub(super) fn admit(&mut self, admit: &Admit, out: &mut Out) -> Answer {
        if let Some(member) = self.cluster.members().get(&admit.key) {
            // It asked before, and the answer was lost: the use was burnt then.
            if member.name == admit.name {
                return Ok(self.welcome(admit));
            }
            let text = format!("this node is a member already, under the name `{}`", member.name);
            return Err(Refusal::new(RefusalCode::Conflict, text).hint("`narun start` resumes it"));
        }
        if let Some(gone) = self.belonging.gone.get(&admit.key) {
            return Err(Refusal::new(RefusalCode::NotAllowed, gone)
                .hint("a key that was removed never comes back: join with an empty data directory"));
        }
        if let Some(other) = self.cluster.by_name(&admit.name) {
            let text = format!("a node named `{}` is a member already, since {}", admit.name, other.at);
            return Err(Refusal::new(RefusalCode::Conflict, text).hint(
                "choose another name with `--name`; if that node is gone for good, `narun node remove` frees its name",
            ));
        }
        let members_max = self.config.members_max;
        if self.cluster.members().len() >= members_max {
            return Err(Refusal::new(RefusalCode::Limit, format!("the cluster has {members_max} members already")));
        }
        if self.belonging.trust.admissions_made() >= ADMISSIONS_MAX {
            let text = format!("the cluster has let in {ADMISSIONS_MAX} nodes, and remembers each of them");
            return Err(Refusal::new(RefusalCode::Limit, text).hint("found a new cluster, and move over to it"));
        }
        let (ticket, role) = self.tickets.redeem(self.now.wall, &admit.secret, out)?;
        let admission = Admission {
            cluster: self.config.founding.cluster(),
            key: admit.key,
            name: admit.name.clone(),
            by: self.me,
            ticket,
            at: self.now.wall,
            addresses: admit.addresses.clone(),
            role,
        };
        let signed = Signed::new(&*self.config.signatures, ADMISSION_DOMAIN, &admission);
        self.state(&DocKey::admission(&admit.key), &signed, out);
        Ok(self.welcome(admit))
    }

    fn welcome(&self, admit: &Admit) -> Response {
        let members = self.peers_now().filter(|(key, _)| *key != admit.key);
        let members = members.map(|(key, addresses)| Peer { key, addresses: addresses.to_vec() }).collect();
        let (admissions, removals) = self.belonging.trust.signed();
        Response::Admitted(Box::new(Welcome {
            founding: self.config.founding.clone(),
            name: admit.name.clone(),
            admissions,
            members,
            removals,
        }))
    }

    /// Takes a member's membership away.
    pub(super) fn remove(&mut self, name: &NodeName, out: &mut Out) -> Answer {
        let Some(member) = self.cluster.by_name(name).cloned() else {
            if self.belonging.gone.values().any(|gone| gone.name == *name) {
                return Ok(Response::Removed { existed: false });
            }
            return Err(Refusal::new(RefusalCode::NotFound, format!("there is no node `{name}` in this cluster"))
                .hint("`narun node list` shows all nodes"));
        };
        if member.key == self.me {
            return Err(Refusal::new(RefusalCode::Conflict, format!("`{name}` is this node itself"))
                .hint("`narun leave` takes it out of the cluster; or ask another node to remove it"));
        }
        let delta = self.write_removal(member.key, &member.name, out);
        self.spread_document(delta.clone(), out);
        // It is to hear of it from us before we cut it off.
        let news = Message::News { news: News::Document(delta).encode(), acknowledge: false };
        if self.cluster.connected().contains(&member.key) {
            out.send_when_durable(member.key, &news);
        }
        self.refresh_members(out);
        Ok(Response::Removed { existed: true })
    }

    /// Writes a removal down, without telling it or drawing the conclusion yet.
    fn write_removal(&mut self, key: NodeKey, name: &NodeName, out: &mut Out) -> DocDelta {
        // What hung on the word of the removed node hangs on ours from now on.
        for theirs in self.belonging.trust.removals_by(&key) {
            let ours = Removal { by: self.me, by_name: self.config.name.clone(), ..theirs };
            let signed = Signed::new(&*self.config.signatures, REMOVAL_DOMAIN, &ours);
            self.state(&DocKey::removal(&ours.key), &signed, out);
        }
        let removal = Removal {
            cluster: self.config.founding.cluster(),
            key,
            name: name.clone(),
            by: self.me,
            by_name: self.config.name.clone(),
            at: self.now.wall,
            admissions: self.belonging.trust.admissions_by(&key),
        };
        let signed = Signed::new(&*self.config.signatures, REMOVAL_DOMAIN, &removal);
        let body = minicbor::to_vec(&signed).expect("encoding into memory cannot fail");
        let document = DocKey::removal(&key);
        let (_, delta) = self.catalog.put_revision(&document, self.actor(), |_| body);
        self.store_document(&document, out);
        self.read_statements(&document);
        delta
    }

    /// Says something of a member in a document, and draws the conclusion.
    fn state(&mut self, document: &DocKey, signed: &Signed, out: &mut Out) -> NewsId {
        let body = minicbor::to_vec(signed).expect("encoding into memory cannot fail");
        let (_, delta) = self.catalog.put_revision(document, self.actor(), |_| body);
        self.document_changed(document, out);
        self.spread_document(delta, out)
    }

    /// Takes this node out of the cluster for good. None: the answer comes once another member has written it down.
    pub(super) fn leave(&mut self, id: u64, out: &mut Out) -> Option<Answer> {
        if self.cluster.members().len() == 1 {
            return Some(Err(Refusal::new(RefusalCode::Conflict, "this node is the only member of its cluster")
                .hint("`narun stop` ends it; its data directory can be deleted then")));
        }
        if self.cluster.connected().is_empty() {
            let text = "no other member can be reached: nobody would hear that this node leaves";
            return Some(Err(Refusal::new(RefusalCode::Unavailable, text).hint(
                "`narun stop` ends it; `narun node remove` at another member takes it out of the cluster afterwards",
            )));
        }
        let name = self.config.name.clone();
        let delta = self.write_removal(self.me, &name, out);
        // Told once, to all: who has heard of it takes nothing more from this node.
        let news = News::Document(delta).encode();
        let connected = self.cluster.connected();
        let (news, outbox) = self.dissemination.tell(self.now.mono, &mut self.rng, connected, news, true);
        for (to, message) in outbox {
            out.send_when_durable(to, &message);
        }
        // Its leases go to others now, not when its session is missed.
        self.close_session(out);
        let deadline = self.now.mono + LEAVE_WITHIN;
        self.acks.wait(self.now.mono, id, news, 2, deadline, Response::Left);
        let gone = self.belonging.trust.verdict().gone.get(&self.me).cloned();
        self.begin_end(gone.expect("this node has just said so"), Some(id), out);
        None
    }

    fn begin_end(&mut self, gone: Gone, leaving: Option<u64>, out: &mut Out) {
        let row = minicbor::to_vec(&gone).expect("encoding into memory cannot fail");
        out.put(Table::Meta, GONE, row);
        self.belonging.end = Some(End { gone, leaving, told: false });
    }

    /// Ends the node once it is no member any more, and in case that it leaves, once its asker has been answered.
    pub(super) fn settle_end(&mut self, out: &mut Out) {
        let is_waited_for = |request: u64| self.acks.is_waited_for(request);
        if let Some(end) = &mut self.belonging.end
            && !end.told
            && !end.leaving.is_some_and(is_waited_for)
        {
            end.told = true;
            out.act_when_durable(Effect::End(end.gone.clone()));
        }
    }

    /// Whether this node is no member any more and has nothing left to say.
    pub(super) fn is_over(&self) -> bool {
        self.belonging.end.as_ref().is_some_and(|end| end.told || end.leaving.is_none())
    }

    /// A member's node takes this one for a stranger. It has not heard of its admission yet, or it knows of a removal.
    pub(super) fn shut_out_by(&mut self, member: NodeKey, out: &mut Out) {
        let now = self.now.mono;
        if now >= self.belonging.ask_again && self.cluster.is_member(&member) {
            self.belonging.ask_again = now + ASK_EVERY;
            out.act(Effect::AskStanding(member));
        }
    }

    /// What a member answered to that: statements, to be believed as far as they are signed.
    pub(super) fn hear_standing(&mut self, statements: &[Signed], out: &mut Out) {
        let mut trust = self.belonging.trust.clone();
        for signed in statements {
            trust.take(&*self.config.signatures, signed);
        }
        // They count if they say that this node is gone; otherwise gossip brings what there is to know.
        if let Some(gone) = trust.verdict().gone.get(&self.me).cloned()
            && self.belonging.end.is_none()
        {
            self.begin_end(gone, None, out);
        }
    }

    /// What shows a key that was a member's once how it stands.
    pub(super) fn standing_of(&self, key: &NodeKey) -> Answer {
        if self.belonging.gone.contains_key(key) {
            return Ok(Response::Standing(self.belonging.trust.proof(key)));
        }
        Err(Refusal::new(RefusalCode::NotAllowed, "this node is not known here"))
    }
}

/// The row that says that a node is gone, out of its database.
pub(super) fn gone_row(row: &[u8]) -> Option<Gone> {
    minicbor::decode(row).ok()
}
