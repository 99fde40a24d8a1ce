//! The members, and what is thought of each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::view::NodeStatus;
use crate::crdt::admission::Admission;
use crate::gossip::membership::{Believed, Liveness};
use crate::ids::{NodeKey, NodeName};
use crate::time::{Mono, Now, Wall};

/// How long a node must be down before its instances are placed elsewhere: a restart of the host's network or of a slow node
/// is over by then, and two instances of one index are rarer than a late move is harmful.
pub const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// How long a node that has just started waits to hear of the others before it takes them for down.
const BOOT_GRACE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Seen {
    status: NodeStatus,
    since: Mono,
    since_wall: Wall,
    /// The latest life of it that SWIM has heard of.
    boot: u64,
}

/// How far a node counts when instances are placed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// Its instances are to be moved.
    Gone,
    /// It keeps what it has, and gets nothing new.
    Grace,
    /// This node has just started and not heard of it yet: it keeps what it has, and nothing new is placed anywhere, since this
    /// node cannot know what others have placed in the meantime.
    Unheard,
    /// It keeps what it has, and gets new ones.
    Good,
}

/// The members of the cluster as one of them sees it.
pub struct Cluster {
    me: NodeKey,
    started: Mono,
    members: BTreeMap<NodeKey, Admission>,
    connected: BTreeSet<NodeKey>,
    /// What is thought of each of them.
    seen: BTreeMap<NodeKey, Seen>,
    /// When somebody's standing changes next for no other reason than time.
    due: Option<Mono>,
}

impl Cluster {
    /// A cluster of which only this node is known.
    pub fn new(me: NodeKey, now: Now) -> Self {
        Self {
            me,
            started: now.mono,
            members: BTreeMap::new(),
            connected: BTreeSet::new(),
            seen: BTreeMap::new(),
            due: None,
        }
    }

    /// Who is admitted. True if that is another set than before.
    pub fn set_members(&mut self, now: Now, members: &BTreeMap<NodeKey, Admission>) -> bool {
        // Both are in the order of their keys: a wave of joins in a large cluster asks for this often.
        let mut new = Vec::new();
        let mut before = self.members.iter().peekable();
        let mut gone = Vec::new();
        for member in members {
            while let Some((key, _)) = before.next_if(|known| known.0 < member.0) {
                gone.push(*key);
            }
            if before.next_if(|known| known.0 == member.0).is_none_or(|known| known.1 != member.1) {
                new.push(member);
            }
        }
        gone.extend(before.map(|(key, _)| *key));
        if new.is_empty() && gone.is_empty() {
            return false;
        }
        for key in &gone {
            self.members.remove(key);
            self.connected.remove(key);
            self.seen.remove(key);
        }
        for (key, admission) in new {
            self.members.insert(*key, admission.clone());
            let status = if *key == self.me { NodeStatus::Alive } else { NodeStatus::Unknown };
            self.seen.entry(*key).or_insert(Seen { status, since: now.mono, since_wall: now.wall, boot: 0 });
        }
        self.due = self.find_due(now.mono);
        true
    }

    /// Takes over what SWIM thinks. True if anybody's status changed.
    pub fn observe(&mut self, now: Now, believed: &BTreeMap<NodeKey, Believed>) -> bool {
        let mut changed = false;
        let mut believed = believed.iter().peekable();
        for (key, seen) in &mut self.seen {
            while believed.next_if(|one| one.0 < key).is_some() {}
            let believed = believed.next_if(|one| one.0 == key).map(|(_, believed)| believed);
            let boot = believed.map_or(0, Believed::boot);
            changed |= seen.boot < boot;
            seen.boot = seen.boot.max(boot);
            if *key == self.me {
                continue;
            }
            let status = match believed.map(|believed| believed.liveness) {
                Some(Liveness::Alive) => NodeStatus::Alive,
                Some(Liveness::Suspect) => NodeStatus::Suspect,
                Some(Liveness::Down) => NodeStatus::Down,
                None if seen.status == NodeStatus::Unknown
                    && now.mono.since(self.started.max(seen.since)) >= BOOT_GRACE =>
                {
                    NodeStatus::Down
                }
                None => seen.status,
            };
            if status != seen.status {
                // To be suspected and to refute it is not a new beginning of being alive.
                let keeps_since = matches!(
                    (seen.status, status),
                    (NodeStatus::Alive, NodeStatus::Suspect) | (NodeStatus::Suspect, NodeStatus::Alive)
                );
                let (since, since_wall) =
                    if keeps_since { (seen.since, seen.since_wall) } else { (now.mono, now.wall) };
                *seen = Seen { status, since, since_wall, boot: seen.boot };
                changed = true;
            }
        }
        if changed {
            self.due = self.find_due(now.mono);
        }
        changed
    }

    /// A connection stands.
    pub fn connect(&mut self, key: NodeKey) {
        if self.members.contains_key(&key) {
            self.connected.insert(key);
        }
    }

    /// The last connection broke.
    pub fn disconnect(&mut self, key: &NodeKey) {
        self.connected.remove(key);
    }

    /// Members that can be sent to.
    pub fn connected(&self) -> &BTreeSet<NodeKey> {
        &self.connected
    }

    /// Whether there is still a chance to hear of the others soon: this node started a moment ago, and is not alone.
    pub fn may_hear_more(&self, now: Mono) -> bool {
        self.members.len() > 1 && now.since(self.started) < BOOT_GRACE
    }

    /// All members, this node among them.
    pub fn members(&self) -> &BTreeMap<NodeKey, Admission> {
        &self.members
    }

    /// Whether this key is admitted.
    pub fn is_member(&self, key: &NodeKey) -> bool {
        self.members.contains_key(key)
    }

    /// The member of that name.
    pub fn by_name(&self, name: &NodeName) -> Option<&Admission> {
        self.members.values().find(|admission| admission.name == *name)
    }

    /// What is thought of a member, and since when.
    pub fn status(&self, key: &NodeKey) -> (NodeStatus, Wall) {
        self.seen.get(key).map_or((NodeStatus::Unknown, Wall(0)), |seen| (seen.status, seen.since_wall))
    }

    /// The latest life of a node that was heard of, by its boot counter.
    pub fn boot(&self, key: &NodeKey) -> u64 {
        self.seen.get(key).map_or(0, |seen| seen.boot)
    }

    /// How far a member counts in placement.
    pub fn standing(&self, now: Mono, key: &NodeKey) -> Standing {
        self.seen.get(key).map_or(Standing::Gone, |seen| self.standing_of(now, seen))
    }

    /// How far each member counts, and its latest life.
    pub fn standings(&self, now: Mono) -> Vec<(NodeKey, Standing, u64)> {
        self.seen.iter().map(|(key, seen)| (*key, self.standing_of(now, seen), seen.boot)).collect()
    }

    fn standing_of(&self, now: Mono, seen: &Seen) -> Standing {
        match seen.status {
            NodeStatus::Alive | NodeStatus::Suspect => Standing::Good,
            NodeStatus::Unknown if now.since(self.started) < BOOT_GRACE => Standing::Unheard,
            NodeStatus::Unknown => Standing::Grace,
            NodeStatus::Down if now.since(seen.since) < REPLACE_AFTER => Standing::Grace,
            NodeStatus::Down => Standing::Gone,
        }
    }

    /// Since when a member is down; none while it is not.
    pub fn down_since(&self, key: &NodeKey) -> Option<Mono> {
        self.seen.get(key).filter(|seen| seen.status == NodeStatus::Down).map(|seen| seen.since)
    }

    /// Whether somebody's standing changed since this was asked last for no other reason than time.
    pub fn take_due(&mut self, now: Mono) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = self.find_due(now);
        }
        is_due
    }

    /// When somebody's standing changes for no other reason than time.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.due
    }

    fn find_due(&self, now: Mono) -> Option<Mono> {
        let due = |seen: &Seen| match seen.status {
            NodeStatus::Down => Some(seen.since + REPLACE_AFTER),
            NodeStatus::Unknown => Some(self.started.max(seen.since) + BOOT_GRACE),
            NodeStatus::Alive | NodeStatus::Suspect => None,
        };
        self.seen.values().filter_map(due).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::admission::Role;
    use crate::ids::ClusterId;

    fn admission(key: NodeKey, name: &str) -> Admission {
        let (cluster, name) = (ClusterId([1; 32]), NodeName::new(name).unwrap());
        Admission {
            cluster,
            key,
            name,
            by: key,
            ticket: String::new(),
            at: Wall(0),
            addresses: Vec::new(),
            role: Role::MEMBER,
        }
    }

    #[test]
    fn one_that_was_never_heard_of_is_down_after_its_grace_and_stays_down() {
        let now = |seconds: u64| Now { mono: Mono(seconds * 1_000), wall: Wall(seconds * 1_000) };
        let [me, other] = [1, 2].map(|byte| NodeKey([byte; 32]));
        let mut cluster = Cluster::new(me, now(1));
        cluster.set_members(now(1), &BTreeMap::from([(me, admission(me, "n1")), (other, admission(other, "n2"))]));
        let believed = BTreeMap::new();
        assert!(!cluster.observe(now(10), &believed));
        assert_eq!(cluster.status(&other).0, NodeStatus::Unknown);
        assert!(cluster.observe(now(11), &believed));
        for second in [11, 12, 20, 21, 60] {
            assert!(!cluster.observe(now(second), &believed), "at {second} s");
            assert_eq!(cluster.status(&other), (NodeStatus::Down, Wall(11_000)));
        }
        assert_eq!(cluster.standing(now(21).mono, &other), Standing::Gone);
    }
}
