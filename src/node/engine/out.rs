//! What a turn gathers while inputs are applied and the node settles. Pure.

use super::effect::{Change, Effect, Pending, Refusal, Response, Table, Turn};
use crate::gossip::message::Message;
use crate::ids::NodeKey;

/// A turn that is being made.
#[derive(Debug, Default)]
pub(super) struct Out {
    now: Vec<Effect>,
    changes: Vec<Change>,
    gated: Vec<Effect>,
}

impl Out {
    /// To be done at once.
    pub(super) fn act(&mut self, effect: Effect) {
        self.now.push(effect);
    }

    /// The same with as many as there are.
    pub(super) fn act_all(&mut self, effects: impl IntoIterator<Item = Effect>) {
        self.now.extend(effects);
    }

    /// To be done once this turn's changes are durable.
    pub(super) fn act_when_durable(&mut self, effect: Effect) {
        self.gated.push(effect);
    }

    /// To be said at once.
    pub(super) fn send(&mut self, to: NodeKey, message: &Message) {
        self.now.push(Effect::Send { to, bytes: message.encode() });
    }

    /// To be said once this turn's changes are durable.
    pub(super) fn send_when_durable(&mut self, to: NodeKey, message: &Message) {
        self.gated.push(Effect::Send { to, bytes: message.encode() });
    }

    /// To be written.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.changes.push(Change { table, key: key.to_vec(), value: Some(value) });
    }

    /// To be removed.
    pub(super) fn remove(&mut self, table: Table, key: &[u8]) {
        self.changes.push(Change { table, key: key.to_vec(), value: None });
    }

    /// An answer that promises something, or may: it waits for the disk.
    pub(super) fn reply(&mut self, id: u64, response: Result<Response, Refusal>) {
        self.gated.push(Effect::Reply { id, response });
    }

    /// Whether nothing was asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.changes.is_empty() && self.gated.is_empty()
    }

    /// Takes over what another one gathered.
    pub(super) fn append(&mut self, mut other: Out) {
        self.now.append(&mut other.now);
        self.changes.append(&mut other.changes);
        self.gated.append(&mut other.gated);
    }

    /// The turn.
    pub(super) fn into_turn(self) -> Turn {
        Turn { now: self.now, pending: Pending::new(self.changes, self.gated) }
    }
}
