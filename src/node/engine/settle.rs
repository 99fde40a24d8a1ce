//! From all that is known to what should be. Pure, level-triggered: settling twice does nothing the second time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::Standing;
use super::copies::Need;
use super::demand::Use;
use super::eligibility::Fit;
use super::input::BlobEvent;
use super::instances::{Concerns, Surroundings};
use super::out::Out;
use super::placement::{Candidate, Drain, Seat, seats};
use super::services::{Rev, Service};
use super::{Dirty, Engine};
use crate::blobs::image::Image;
use crate::blobs::plan::Holders;
use crate::crdt::roster::{Facts, Holdings, Report, Subject};
use crate::exec::plan::ProcessEvent;
use crate::gossip::sync;
use crate::ids::{BlobHash, NodeKey, ServiceName};
use crate::spec::Placement;

/// How often one service may be settled in one turn. Each time but the first follows from this node's own report having
/// changed; a handful is enough for everything, more is a rule that contradicts itself.
const ROUNDS_MAX: usize = 16;

impl Engine {
    pub(super) fn settle(&mut self, out: &mut Out) {
        self.settle_gossip(out);
        self.settle_cluster(out);
        self.settle_time();
        self.look_at_singletons();
        self.settle_services(out);
        self.settle_jobs(out);
        if self.dirty.copies {
            // Attempts may wait for binaries that nothing else here needs.
            self.settle_services(out);
        }
        self.settle_singletons(out);
        self.settle_handover(out);
        self.tell_ledger(out);
        self.settle_housekeeping(out);
        for (to, id) in self.acks.ask_again(self.now.mono, self.cluster.connected()) {
            if let Some(message) = self.dissemination.ask_to_acknowledge(&id) {
                out.send(to, &message);
            }
        }
        for (request, refusal) in self.acks.tick(self.now.mono) {
            out.reply(request, Err(refusal));
        }
        self.show();
    }

    /// Settles over everything that is known, whatever was marked as changed, right after a settle over what was: it finds nothing to
    /// do. If it does, a mark is missing somewhere; that is counted, shown, and what was overlooked is made good.
    pub(super) fn settle_everything(&mut self, out: &mut Out) {
        let mut found = Out::default();
        let names = self.services.iter().map(|service| &service.name);
        let names = names.chain(self.known.reported_services()).chain(self.instances.services()).cloned().collect();
        self.dirty = Dirty { services: names, cluster: true, copies: true, view: true, ..Dirty::default() };
        self.settle_cluster(&mut found);
        self.settle_services(&mut found);
        let shows_other = self.show();
        if shows_other || !found.is_empty() {
            self.overlooked += 1;
            self.dirty.problems = true;
            self.show();
        }
        out.append(found);
    }

    fn settle_gossip(&mut self, out: &mut Out) {
        let now = self.now.mono;
        let connected = self.cluster.connected();
        self.membership.tick(now);
        for (to, message) in self.membership.take_outbox() {
            if connected.contains(&to) {
                out.send(to, &message);
            }
        }
        for (to, message) in self.dissemination.tick(now, connected) {
            out.send(to, &message);
        }
        if let Some(peer) = self.rounds.begin(now, &mut self.rng, connected) {
            out.send(peer, &sync::roots(&self.catalog, &self.roster));
        }
    }

    fn settle_cluster(&mut self, out: &mut Out) {
        for signed in self.take_early() {
            self.take_record(self.me, &signed, out);
        }
        let due = self.cluster.take_due(self.now.mono);
        // SWIM does not speak of every suspicion: once a minute they are looked at anyway.
        let looks = due || self.dirty.cluster || self.housekeeping.is_due(self.now.mono);
        let changed =
            (self.membership.take_changed() || looks) && self.cluster.observe(self.now, self.membership.believed());
        if looks && self.cluster.is_member(&self.me) {
            self.say(Subject::facts(), Some(&self.facts()), out);
        }
        if changed || due || self.dirty.cluster {
            let standings = self.cluster.standings(self.now.mono);
            self.dirty.cluster |= standings != self.standings;
            self.standings = standings;
            // A suspicion shows, and changes nothing about who runs what.
            self.dirty.nodes = true;
            self.dirty.instances = true;
            self.dirty.holders = true;
        }
        if std::mem::take(&mut self.dirty.cluster) {
            self.leases.members_changed = true;
            self.dirty.copies = true;
            self.dirty.view = true;
            self.dirty.services.extend(self.services.iter().map(|service| service.name.clone()));
            self.settle_peers(out);
        }
    }

    /// What this node says of itself: it changes with its settings.
    fn facts(&self) -> Facts {
        Facts {
            addresses: self.config.addresses.clone(),
            platform: self.config.platform.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.settings.over(&self.me, &self.config.labels),
            started_at: self.started_at,
            capacity: Some(self.config.capacity.clone()),
        }
    }

    /// Services whose time has come.
    fn settle_time(&mut self) {
        let now = self.now.mono;
        if !self.caught_up && !self.cluster.may_hear_more(now) {
            self.catch_up();
        }
        // Taken out whether or not they can be settled now: a time that is over must not be waited for again.
        let due = self.deadlines.extract_if(.., |_, due| *due <= now).map(|(name, _)| name);
        self.dirty.services.extend(due);
        self.dirty.copies |= self.copies.take_due(now);
    }

    fn settle_services(&mut self, out: &mut Out) {
        let mut rounds: BTreeMap<ServiceName, usize> = BTreeMap::new();
        self.settle_drains();
        while !self.dirty.services.is_empty() || self.dirty.copies {
            let dirty = std::mem::take(&mut self.dirty.services);
            for name in &dirty {
                let round = rounds.entry(name.clone()).or_default();
                *round += 1;
                assert!(*round <= ROUNDS_MAX, "settling `{name}` does not end");
                self.settle_leases(name);
                self.settle_seats(name);
                self.settle_demand(name);
            }
            if std::mem::take(&mut self.dirty.copies) {
                self.settle_copies(out);
            }
            if self.instances.is_known() {
                for name in &dirty {
                    self.settle_instances(name, out);
                }
            }
            self.settle_drains();
        }
    }

    fn settle_seats(&mut self, name: &ServiceName) {
        let service = self.services.get(name).filter(|service| service.wants_instances());
        let Some(service) = service else {
            if self.seats.remove(name).is_some() {
                self.seats_changed(name);
            }
            return;
        };
        let seats = if service.current.spec.singleton { self.singleton_seats(service) } else { self.seats_of(service) };
        if self.seats.get(name) != Some(&seats) {
            self.seats.insert(name.clone(), seats);
            self.seats_changed(name);
        }
    }

    fn seats_of(&self, service: &Service) -> Vec<Seat> {
        let now = self.now.mono;
        let candidate = |(key, member): (&NodeKey, &crate::crdt::admission::Admission)| Candidate {
            key: *key,
            name: member.name.clone(),
            standing: self.cluster.standing(now, key),
            fit: self.fit(service, key),
            drain: self.drain_of(key),
        };
        let candidates: Vec<_> = self.cluster.members().iter().map(candidate).collect();
        let boot_of = |key: &NodeKey| if *key == self.me { self.boot } else { self.cluster.boot(key) };
        let incumbents = self.known.incumbents(&service.name, service.current.launch_hash, boot_of);
        seats(&service.name, &service.current.spec.placement, &candidates, &incumbents)
    }

    /// Other binaries may be needed here, and other numbers are shown.
    fn seats_changed(&mut self, name: &ServiceName) {
        self.dirty.copies = true;
        self.dirty.rows.insert(name.clone());
    }

    /// Which blobs the kept revisions of a service name, and which of them are run here.
    fn settle_demand(&mut self, name: &ServiceName) {
        let is_mine = |service: &Service| {
            let seats = self.seats.get(&service.name).into_iter().flatten();
            seats.into_iter().any(|seat| seat.is_of(&self.me)) || self.leases.is_ready(&service.name, &self.me)
        };
        let uses = |service: &Service| -> Vec<Use> {
            let is_mine = is_mine(service);
            let runs = |rev: &Rev, image: &Image| {
                is_mine && rev.id == service.current.id && image.platform.runs_on(&self.config.platform)
            };
            let images =
                service.history.iter().flat_map(|rev| rev.revision.images.iter().map(move |image| (rev, image)));
            let uses = images.map(|(rev, image)| Use {
                hash: image.hash,
                size: image.size,
                author: rev.revision.author,
                to_run: runs(rev, image),
            });
            uses.collect()
        };
        let uses = self.services.get(name).map(uses).unwrap_or_default();
        self.demand.set(name, uses);
    }

    fn settle_copies(&mut self, out: &mut Out) {
        let now = self.now.mono;
        let holders: BTreeSet<NodeKey> = {
            let standing = |key: &NodeKey| self.cluster.standing(now, key) > Standing::Gone;
            let members = self.cluster.members().iter().filter(|(_, member)| member.role.carries_work());
            members.map(|(key, _)| *key).filter(standing).collect()
        };
        let needs = self.needs();
        let (spared, open): (BTreeSet<NodeKey>, BTreeSet<NodeKey>) =
            holders.into_iter().partition(|node| self.drain_of(node) != Drain::No);
        for effect in self.copies.settle(now, self.me, &needs, &Holders { open, spared }) {
            out.act(effect);
        }
        if self.copies.is_known() && self.cluster.is_member(&self.me) {
            let holdings = Holdings { blobs: self.copies.held().collect() };
            // What this node says that it holds changes who is to be asked, here as elsewhere: no other round is needed for it.
            self.say(Subject::holdings(), Some(&holdings), out);
            self.dirty.copies = false;
        }
    }

    /// All blobs that kept revisions name.
    fn needs(&self) -> BTreeMap<BlobHash, Need> {
        let mut needs: BTreeMap<BlobHash, Need> = BTreeMap::new();
        for (hash, uses) in self.demand.blobs() {
            let holders = uses.authors().copied().collect();
            needs.insert(*hash, Need { size: uses.size(), to_run: uses.is_to_run(), holders });
        }
        for (_, rev) in self.awaited() {
            for image in rev.revision.images.iter().filter(|image| image.platform.runs_on(&self.config.platform)) {
                needs.entry(image.hash).or_default().to_run = true;
            }
        }
        for (hash, need) in &mut needs {
            need.holders.extend(self.known.holders(hash));
            need.holders.retain(|node| self.cluster.connected().contains(node));
        }
        needs
    }

    fn settle_instances(&mut self, name: &ServiceName, out: &mut Out) {
        self.deadlines.remove(name);
        if self.services.unreadable().contains(name) {
            return;
        }
        let waits = !self.caught_up && self.may_be_elsewhere(name);
        if !waits {
            self.settle_processes(name, out);
        }
        let report: Option<Report> = self.instances.report(name);
        if report.is_none() && waits {
            // What this node said in its last life stays said: it is its claim to get these instances back.
            return;
        }
        self.say(Subject::service(name), report.as_ref(), out);
    }

    /// Whether the instances of a service may have been taken over by other nodes while this one was away.
    fn may_be_elsewhere(&self, name: &ServiceName) -> bool {
        let service = self.services.get(name);
        service.is_none_or(|service| matches!(service.current.spec.placement, Placement::Cluster { .. }))
    }

    fn settle_processes(&mut self, name: &ServiceName, out: &mut Out) {
        let now = self.now.mono;
        let empty = Vec::new();
        let (cluster, copies) = (&self.cluster, &self.copies);
        let lingering = self.lingering(name);
        let around = Surroundings {
            now: self.now,
            me: self.me,
            config: &self.config,
            known: &self.known,
            seats: self.seats.get(name).unwrap_or(&empty),
            is_gone: &|node| cluster.standing(now, node) == Standing::Gone,
            lingering: &lingering,
            lease: self.lease_of(name),
            is_executable: &|image: &Image| copies.is_executable(&image.hash),
            trouble: &|image: &Image| copies.trouble(&image.hash),
        };
        self.instances.settle(name, self.services.get(name), &around, &mut self.rng, out);
        if let Some(deadline) = self.instances.next_deadline(name) {
            self.deadlines.insert(name.clone(), deadline.max(now + Duration::from_millis(1)));
        }
    }

    /// The indices that belong on other nodes, and go on here, if they run, until they are ready there. So it is where this node is
    /// drained, or is not eligible any more: nothing is wrong with the instances, and their service is not to miss them.
    fn lingering(&self, name: &ServiceName) -> BTreeSet<u32> {
        let leaves = |service: &&Service| {
            let is_drained = self.drain_of(&self.me) != Drain::No;
            // Of a singleton there are never two.
            let is_movable = service.is_movable() && !service.current.spec.singleton;
            is_movable && (is_drained || matches!(self.fit(service, &self.me), Fit::Unfit(_)))
        };
        let Some(service) = self.services.get(name).filter(leaves) else { return BTreeSet::new() };
        let hash = service.current.launch_hash;
        let is_there = |node: &NodeKey, index| {
            let boot_of = |key: &NodeKey| self.cluster.boot(key);
            let stands = self.cluster.standing(self.now.mono, node) == Standing::Good;
            stands && self.known.is_ready(name, node, index, hash, boot_of)
        };
        let elsewhere = |seat: &&Seat| seat.node.is_some_and(|node| node != self.me && !is_there(&node, seat.index));
        self.seats.get(name).into_iter().flatten().filter(elsewhere).map(|seat| seat.index).collect()
    }

    pub(super) fn apply_process(&mut self, event: ProcessEvent, out: &mut Out) {
        let Some(event) = self.apply_attempt(event, out) else { return };
        let (known, me) = (&self.known, self.me);
        let before = |name: &ServiceName| known.report(name, &me).cloned();
        match self.instances.apply(self.now, event, before, out) {
            Concerns::All => {
                self.dirty.services.extend(self.services.iter().map(|service| service.name.clone()));
                self.dirty.services.extend(self.instances.services().cloned());
            }
            Concerns::One(name) => {
                self.dirty.services.insert(name);
            }
            Concerns::Nobody => {}
        }
    }

    pub(super) fn apply_blob(&mut self, event: BlobEvent) {
        let hash = match &event {
            BlobEvent::Holding(_) => None,
            BlobEvent::Stored(hash, _)
            | BlobEvent::FetchFailed(hash, _)
            | BlobEvent::Executable(hash)
            | BlobEvent::ExecutableFailed(hash, _) => Some(*hash),
        };
        self.copies.apply(self.now.mono, event, &mut self.rng);
        self.dirty.copies = true;
        let concerned = self.services.iter().filter(|service| match hash {
            Some(hash) => service.current.revision.images.iter().any(|image| image.hash == hash),
            None => true,
        });
        self.dirty.services.extend(concerned.map(|service| service.name.clone()));
    }
}
