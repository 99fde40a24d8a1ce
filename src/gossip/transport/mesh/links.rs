//! Connections and links: how they come to stand, who is on the other end of them, and how they end. Shell.
//!
//! Every link begins with a greeting in which both processes say which they are (`greeting.rs`). Where a second process comes with
//! the key of one that is connected, it is put on *trial*: the first is asked for a sign of life, and the second waits.

use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::ids::NodeKey;
use crate::node::engine::input::NetworkEvent;

use super::super::address::{peer_id, root_cause};
use super::super::counters::count;
use super::super::dial::HEAD_START;
use super::super::frames::{self, ReadEnd, Unread, Unwelcome};
use super::super::gate::Arrival;
use super::super::greeting::{CopyFound, Life, SIGN_OF_LIFE_MAX, SignOfLife};
use super::super::handler::OpenRequest;
use super::super::{Displaced, OUTBOX_MAX, OpenError, Protocol, Stream};
use super::{CONNECTIONS_OF_ONE_MAX, Done, Link, Member, Mesh, Refused, chance};

/// A process that came with the key of one that is connected.
#[derive(Debug)]
pub(super) struct Trial {
    connection: ConnectionId,
    life: Life,
    /// Its link, not yet answered.
    stream: Stream,
}

/// Connections and links.
impl Mesh {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<Arrival>) {
        match event {
            SwarmEvent::Behaviour(arrival) => self.on_arrival(arrival),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.on_established(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let cause = cause.map_or_else(|| "closed".to_owned(), |cause| root_cause(&cause));
                self.on_closed(peer_id, connection_id, &cause);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer), error } => {
                self.on_dial_failed(connection_id, peer, &error);
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "the listening socket was closed: members can no longer dial this node");
            }
            // Failed handshakes are counted at the gate; the rest is news of our own doing.
            _ => {}
        }
    }

    /// Also called for a stranger's connection when the stranger has become a member.
    pub(super) fn on_established(&mut self, peer: PeerId, connection: ConnectionId) {
        let gossips = self.ends.inputs.is_some();
        let Some((key, member)) = self.member_of(peer) else { return };
        if member.connections.len() >= CONNECTIONS_OF_ONE_MAX {
            count(&self.ends.tally.members_crowded);
            self.ends.swarm.close_connection(connection);
            return;
        }
        member.connections.insert(connection, None);
        member.dial.reached();
        let waiting = std::mem::take(&mut member.waiting);
        // A question at the door comes alone: where this node is a stranger, the attempt at a link would end the connection.
        let knocks = waiting.iter().any(|request| request.protocol == Protocol::Join);
        let link = gossips && !knocks && member.link == Link::None;
        for request in waiting {
            self.ends.swarm.behaviour_mut().open(peer, connection, request);
        }
        if link {
            self.greet(key, peer, connection);
        }
    }

    fn greet(&mut self, key: NodeKey, peer: PeerId, connection: ConnectionId) {
        let (reply, opened) = oneshot::channel();
        let request = OpenRequest { protocol: Protocol::Gossip, slot: None, reply };
        self.ends.swarm.behaviour_mut().open(peer, connection, request);
        if let Some(member) = self.members.get_mut(&key) {
            member.link = Link::Greeting(connection);
        }
        let life = self.ends.life;
        self.tasks.spawn(async move {
            let broken = |cause: &str| Err(Unwelcome::Broken(cause.to_owned()));
            let opened = opened.await;
            let newer = matches!(opened, Ok(Err(OpenError::Newer(_))));
            let greeted = match opened {
                Ok(Ok(mut stream)) => frames::introduce(&mut stream, life).await.map(|theirs| (stream, theirs)),
                Ok(Err(error)) => broken(&error.to_string()),
                Err(_) => broken("the connection was closed"),
            };
            let refused = match &greeted {
                Err(_) if newer => Some(Refused::Newer),
                // Its gate drops the streams of strangers without a word.
                Err(Unwelcome::Broken(_)) => Some(Refused::Stranger),
                _ => None,
            };
            Done::Greeted { key, connection, greeted, refused }
        });
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, cause: &str) {
        let own = self.ends.identity.key();
        let now = Instant::now();
        let Some((key, member)) = self.member_of(peer) else { return };
        if member.connections.remove(&connection).is_none() {
            return;
        }
        member.trial.take_if(|trial| trial.connection == connection);
        let linked = matches!(member.link, Link::Greeting(on) | Link::Up(on) if on == connection);
        if linked {
            member.link = Link::None;
        }
        let other = member.connections.keys().last().copied();
        if other.is_none() {
            if std::mem::take(&mut member.connected) {
                tracing::info!(peer = %key.short(), cause, "disconnected");
                self.news.push_back(NetworkEvent::Broken(key));
            }
            // The other side notices at the same moment: one of the two goes first, as at the beginning.
            let at = if own < key { now } else { now + HEAD_START };
            if let Some(member) = self.members.get_mut(&key) {
                member.dial.pause(at, chance());
            }
        }
        if linked {
            self.outboxes().remove(&key);
            if let Some(other) = other {
                self.greet(key, peer, other);
            }
        }
    }

    /// Closes a connection, and takes it for closed at once: on a dead link the closing itself may hang for minutes.
    fn close(&mut self, key: NodeKey, connection: ConnectionId, cause: &str) {
        self.ends.swarm.close_connection(connection);
        if let Some(peer) = self.members.get(&key).map(|member| member.peer) {
            self.on_closed(peer, connection, cause);
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { from, connection, protocol, stream } = arrival;
        let stream = match self.members.get_mut(&from).map(|member| member.slots_in.take(protocol)) {
            Some(Some(slot)) => stream.holding(Some(slot)),
            Some(None) => return count(&self.ends.tally.streams_crowded),
            // A stranger, of whom the gate lets one stream pass.
            None => stream,
        };
        match protocol {
            Protocol::Gossip if self.ends.inputs.is_some() => self.hear(from, connection, stream),
            Protocol::Life => self.give_life(stream),
            _ => {
                if !self.ends.acceptors.hand_over(protocol, from, stream) {
                    count(&self.ends.tally.streams_dropped);
                }
            }
        }
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Resolved { key, found, failures } => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.dial.resolved(Instant::now(), found, failures);
                }
            }
            Done::Greeted { key, connection, greeted, refused } => {
                if refused == Some(Refused::Newer) {
                    self.tell_of_newer(key);
                }
                if refused == Some(Refused::Stranger) && self.members.contains_key(&key) {
                    self.news.push_back(NetworkEvent::ShutOut(key));
                }
                self.on_greeted(key, connection, greeted);
            }
            Done::Heard { key, connection, stream, hello } => self.on_heard(key, connection, stream, hello),
            Done::Tried { key, connection, sign } => self.on_tried(key, connection, sign),
            Done::TurnedAway { key, connection } => self.close(key, connection, "a copy"),
            Done::Served => {}
            Done::Farewell { key } => self.part(key),
            Done::Written { key, connection, cause } => {
                self.part(key);
                if self.members.get(&key).is_some_and(|member| member.link == Link::Up(connection)) {
                    self.close(key, connection, &cause);
                }
            }
            Done::Read { key, connection, end } => {
                if self.readers.get(&key).is_some_and(|(on, _)| *on == connection) {
                    self.readers.remove(&key);
                }
                self.on_read(key, connection, &end);
            }
        }
    }

    /// Cuts one who is no member any more, now that all has been said.
    fn part(&mut self, key: NodeKey) {
        if !self.members.contains_key(&key)
            && let Some(peer) = peer_id(&key)
        {
            // An error says that there was no connection.
            let _ = self.ends.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_read(&mut self, key: NodeKey, connection: ConnectionId, end: &ReadEnd) {
        match end {
            // Where the connection broke with it, libp2p says so.
            ReadEnd::Closed => {}
            ReadEnd::Silent => {
                count(&self.ends.tally.members_silent);
                self.close(key, connection, "silent for too long");
            }
            ReadEnd::Oversized(length) => {
                tracing::warn!(peer = %key.short(), length, "frame too long: closing the connection");
                count(&self.ends.tally.frames_oversized);
                self.strike(key, "frame too long");
            }
            ReadEnd::Pressing => {
                tracing::warn!(peer = %key.short(), "sent too much for too long: closing the connection");
                count(&self.ends.tally.members_pressing);
                self.strike(key, "sent too much for too long");
            }
        }
    }

    /// A member broke a limit: it is cut, and neither let in nor dialled for a while.
    fn strike(&mut self, key: NodeKey, cause: &str) {
        let until = self.ends.swarm.behaviour_mut().strike(key, Instant::now());
        let connections = self.members.get(&key).map(|member| member.connections.keys().copied().collect::<Vec<_>>());
        for connection in connections.unwrap_or_default() {
            self.close(key, connection, cause);
        }
        if let Some(member) = self.members.get_mut(&key) {
            member.dial.wait_until(until);
        }
    }
}

/// Links that this node opens.
impl Mesh {
    fn on_greeted(&mut self, key: NodeKey, connection: ConnectionId, greeted: Result<(Stream, Life), Unwelcome>) {
        let Some(member) = self.members.get_mut(&key).filter(|member| member.link == Link::Greeting(connection)) else {
            return;
        };
        let (stream, life) = match greeted {
            Ok(greeted) => greeted,
            Err(Unwelcome::Broken(cause)) => {
                // Mostly a member that has not heard of our admission yet.
                tracing::debug!(peer = %key.short(), cause, "not greeted");
                return self.close(key, connection, "not greeted");
            }
            Err(Unwelcome::Copy(found)) => {
                self.hear_of_another(key, &found);
                return self.close(key, connection, "taken for a copy");
            }
        };
        if member.rival_of(connection, life).is_some() {
            // It will introduce itself on a link of its own, and be put on trial.
            return self.close(key, connection, "another process answers there");
        }
        member.connections.insert(connection, Some(life));
        member.link = Link::Up(connection);
        member.dial.greeted();
        self.ends.notices.send_if_modified(|notices| notices.newer.remove(&key));
        if !std::mem::replace(&mut member.connected, true) {
            tracing::info!(peer = %key.short(), "connected");
            self.news.push_back(NetworkEvent::Connected(key));
        }
        let (sender, outbox) = mpsc::channel(OUTBOX_MAX);
        self.outboxes().insert(key, sender);
        let rest = self.rest.clone();
        self.tasks.spawn(async move {
            let (reader, writer) = stream.split();
            let written = frames::write(reader, writer, outbox, &rest).await;
            let cause = written.err().map_or_else(|| "ended here".to_owned(), |error| error.to_string());
            Done::Written { key, connection, cause }
        });
    }

    /// Whoever runs this node is told of members that speak a newer version of the protocol, until they are heard to speak ours.
    fn tell_of_newer(&mut self, key: NodeKey) {
        let known = self.members.contains_key(&key);
        if known && self.ends.notices.send_if_modified(|notices| notices.newer.insert(key)) {
            count(&self.ends.tally.members_newer);
            tracing::warn!(peer = %key.short(), "speaks a newer version of narun's protocol: upgrade narun on this node");
        }
    }

    /// A member says that this process is a copy. It is believed only where another process with this node's key has signed that.
    fn hear_of_another(&mut self, by: NodeKey, found: &CopyFound) {
        let identity = &self.ends.identity;
        if !found.sign.is_of(identity, &identity.key(), self.ends.life) {
            tracing::warn!(peer = %by.short(), "calls this node a copy and cannot prove it");
            return count(&self.ends.tally.copies_unproven);
        }
        let addresses = found.shown_addresses();
        tracing::error!(peer = %by.short(), ?addresses, "another process runs with this node's key");
        self.ends.notices.send_modify(|notices| notices.displaced = Some(Displaced { by, addresses }));
    }
}

/// Links that members open.
impl Mesh {
    fn hear(&mut self, key: NodeKey, connection: ConnectionId, mut stream: Stream) {
        self.tasks.spawn(async move {
            let hello = frames::hear_hello(&mut stream).await;
            Done::Heard { key, connection, stream, hello }
        });
    }

    fn on_heard(&mut self, key: NodeKey, connection: ConnectionId, stream: Stream, hello: Result<Life, Unread>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        if !member.connections.contains_key(&connection) {
            return;
        }
        let life = match hello {
            Ok(life) => life,
            // The member notices as well, and begins anew.
            Err(Unread::Broken) => return,
            Err(Unread::Garbled) => {
                tracing::warn!(peer = %key.short(), "the first frame of its link makes no sense: closing the connection");
                count(&self.ends.tally.greetings_garbled);
                return self.strike(key, "garbled greeting");
            }
        };
        match member.rival_of(connection, life) {
            None => self.welcome(key, connection, life, stream),
            Some(_) if member.trial.is_some() => self.close(key, connection, "another newcomer is on trial"),
            Some(standing) => {
                let peer = member.peer;
                member.trial = Some(Trial { connection, life, stream });
                self.try_newcomer(key, peer, standing, (connection, life));
            }
        }
    }

    fn welcome(&mut self, key: NodeKey, connection: ConnectionId, life: Life, stream: Stream) {
        let Some(inputs) = self.ends.inputs.clone() else { return };
        let Some(member) = self.members.get_mut(&key) else { return };
        member.connections.insert(connection, Some(life));
        if member.link == Link::None {
            // It let this node in after all, on a connection on which there was only a question at its door.
            let peer = member.peer;
            self.greet(key, peer, connection);
        }
        let (own, tally, rest) = (self.ends.life, self.ends.tally.clone(), self.rest.clone());
        let reader = self.tasks.spawn(async move {
            let end = frames::read(key, stream, own, inputs, &tally, &rest).await;
            Done::Read { key, connection, end }
        });
        // The member opens a second link only when it has given up the first.
        if let Some((_, replaced)) = self.readers.insert(key, (connection, reader)) {
            replaced.abort();
        }
    }

    /// Asks the process on `standing` whether it lives.
    fn try_newcomer(&mut self, key: NodeKey, peer: PeerId, standing: ConnectionId, newcomer: (ConnectionId, Life)) {
        let (reply, opened) = oneshot::channel();
        let request = OpenRequest { protocol: Protocol::Life, slot: None, reply };
        self.ends.swarm.behaviour_mut().open(peer, standing, request);
        let (connection, life) = newcomer;
        let identity = self.ends.identity.clone();
        self.tasks.spawn(async move {
            let asking = async {
                let mut stream = opened.await.ok()?.ok()?;
                let sign = frames::ask_for_life(&mut stream, life).await.ok()??;
                sign.is_of(&identity, &key, life).then_some(sign)
            };
            let sign = timeout(SIGN_OF_LIFE_MAX, asking).await.ok().flatten();
            Done::Tried { key, connection, sign }
        });
    }

    fn on_tried(&mut self, key: NodeKey, connection: ConnectionId, sign: Option<SignOfLife>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        // It may have gone away in the meantime, or another one have come.
        let Some(trial) = member.trial.take_if(|trial| trial.connection == connection) else { return };
        let Some(sign) = sign else {
            let old = member.connections.iter().filter(|(_, life)| life.is_some_and(|life| life != trial.life));
            let old: Vec<ConnectionId> = old.map(|(connection, _)| *connection).collect();
            tracing::info!(peer = %key.short(), "another process has taken its place");
            self.welcome(key, connection, trial.life, trial.stream);
            for connection in old {
                self.close(key, connection, "another process has taken its place");
            }
            return;
        };
        let addresses = member.addresses.clone();
        tracing::warn!(peer = %key.short(), ?addresses, "a second process came with its key while it lives: refused");
        count(&self.ends.tally.copies_refused);
        self.tasks.spawn(async move {
            frames::turn_away(trial.stream, CopyFound { sign, addresses }).await;
            Done::TurnedAway { key, connection }
        });
    }

    /// Shows a member that asks that this process lives.
    fn give_life(&mut self, stream: Stream) {
        let (identity, life) = (self.ends.identity.clone(), self.ends.life);
        self.tasks.spawn(async move {
            frames::give_life(stream, |asked| SignOfLife::give(&identity, life, asked)).await;
            Done::Served
        });
    }
}

impl Member {
    /// A connection on which another process than `life` speaks.
    fn rival_of(&self, connection: ConnectionId, life: Life) -> Option<ConnectionId> {
        let mut others = self.connections.iter().filter(|(other, _)| **other != connection);
        others.find(|(_, other)| other.is_some_and(|other| other != life)).map(|(other, _)| *other)
    }
}
