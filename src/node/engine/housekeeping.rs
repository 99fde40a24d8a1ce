//! Ending histories that nobody needs any more. Pure.
//!
//! Automerge keeps every change, and a tombstone must outlive everybody who has not seen the deletion. Both may go once every
//! member that was not removed has reported the same catalog, for an hour, in which nobody was out of reach: what one said who is
//! cut off tells nothing of what is written on its side. Who is away for a week is not waited for (`absence`).

use std::time::Duration;

use super::Engine;
use super::effect::Table;
use super::out::Out;
use super::view::NodeStatus;
use crate::crdt::catalog::DocKey;
use crate::crdt::roster::{CatalogReport, Subject};
use crate::crdt::tree::Version;
use crate::ids::NodeKey;
use crate::time::Mono;

/// How often a node looks, and how often it reports what it holds at most: one record a minute is nothing, one for each change
/// would be a storm.
const EVERY: Duration = Duration::from_secs(60);

/// For so many services each minute all that is known is settled again; with more it is not done each minute, for it takes some ten
/// milliseconds for a thousand.
const SETTLED_A_MINUTE: usize = 1_000;

/// For how long all must have reported the same.
const AGREED_FOR: Duration = Duration::from_secs(3600);

/// How often a node says what it holds where that has not changed: a sign that it was there, of 200 bytes, and a day is little
/// beside the week after which it counts as away.
const REPORT_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How many changes a document's history may hold: above that, it is compacted. 20 revisions are kept anyway.
const HISTORY_MAX: usize = 100;

/// How old a tombstone must be.
const TOMBSTONE_KEPT: Duration = Duration::from_secs(24 * 3600);

/// When to look, and since when all agree.
#[derive(Debug)]
pub(super) struct Housekeeping {
    next: Mono,
    /// In how many minutes all is settled again.
    settles_in: usize,
    agreed: Option<(Version, Mono)>,
}

impl Housekeeping {
    pub(super) fn new(now: Mono) -> Self {
        Self { next: now + EVERY, settles_in: 1, agreed: None }
    }

    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.next <= now
    }

    pub(super) fn next_deadline(&self) -> Mono {
        self.next
    }
}

impl Engine {
    pub(super) fn settle_housekeeping(&mut self, out: &mut Out) {
        let now = self.now.mono;
        if !self.housekeeping.is_due(now) {
            return;
        }
        self.housekeeping.next = now + EVERY;
        // Time alone makes a ticket worthless; nothing else here needs a minute's notice.
        self.dirty.tickets = true;
        self.show();
        self.housekeeping.settles_in -= 1;
        if self.housekeeping.settles_in == 0 {
            self.housekeeping.settles_in = self.services.iter().count() / SETTLED_A_MINUTE + 1;
            self.settle_everything(out);
        }
        let root = self.catalog.tree().root();
        self.report_catalog(root, out);

        let agree = self.cluster.members().keys().all(|key| self.is_away(key) || self.agrees(key, root));
        self.housekeeping.agreed = match self.housekeeping.agreed {
            _ if !agree => None,
            Some((agreed, since)) if agreed == root => Some((agreed, since)),
            _ => Some((root, now)),
        };
        if self.housekeeping.agreed.is_some_and(|(_, since)| now.since(since) >= AGREED_FOR) {
            self.compact_histories(out);
            self.forget_tombstones(out);
        }
    }

    fn report_catalog(&mut self, root: Version, out: &mut Out) {
        let now = self.now.wall;
        let said = self.known.catalog(&self.me).and_then(|report| report.at.filter(|_| report.root == root));
        // A clock that was put back does not keep a node from speaking.
        let recent = said.filter(|at| *at <= now && now.since(*at) < REPORT_AGAIN);
        self.say(Subject::catalog(), Some(&CatalogReport { root, at: Some(recent.unwrap_or(now)) }), out);
    }

    fn agrees(&self, key: &NodeKey, root: Version) -> bool {
        let in_reach = matches!(self.cluster.status(key).0, NodeStatus::Alive | NodeStatus::Suspect);
        in_reach && self.known.catalog(key).is_some_and(|report| report.root == root)
    }

    fn compact_histories(&mut self, out: &mut Out) {
        let keys: Vec<DocKey> = self.catalog.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            if self.catalog.history_len(&key) > HISTORY_MAX
                && let Some(delta) = self.catalog.compact(&key)
            {
                self.document_changed(&key, out);
                self.spread_document(delta, out);
            }
        }
    }

    fn forget_tombstones(&mut self, out: &mut Out) {
        let wall = self.now.wall;
        let old = |key: &DocKey| {
            let deleted_at = self.catalog.get(key).and_then(|entry| entry.content().deleted_at);
            deleted_at.is_some_and(|at| wall.since(at) >= TOMBSTONE_KEPT)
        };
        let keys: Vec<DocKey> = self.catalog.iter().map(|(key, _)| key).filter(|key| old(key)).cloned().collect();
        for key in keys {
            if let Some(forgotten) = self.catalog.forget(&key, wall) {
                let row = forgotten.row();
                self.document_forgotten(&key, row, out);
            }
        }
        for key in self.catalog.drop_oldest_forgotten() {
            out.remove(Table::Forgotten, key.as_bytes());
        }
    }
}
