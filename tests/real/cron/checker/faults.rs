//! What was wrong, where and when, and what that leaves of a majority. Pure.

use std::collections::BTreeSet;

use super::Millis;

/// What was wrong.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    /// A node did nothing: it was stopped, dead, or had ended for want of room on its disk.
    Down(String),
    /// Nothing went from these nodes to those.
    Cut { from: Vec<String>, to: Vec<String> },
}

/// One fault.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) from: Millis,
    pub(crate) until: Millis,
}

/// All of them, among these nodes, all of which vote.
#[derive(Clone, Default, Debug)]
pub(crate) struct Faults {
    pub(crate) nodes: Vec<String>,
    pub(crate) all: Vec<Fault>,
}

impl Faults {
    /// Whether nothing was wrong in this time, nor so shortly before it that it may still have been out of order.
    pub(crate) fn is_calm(&self, from: Millis, until: Millis, settle: Millis) -> bool {
        !self.all.iter().any(|fault| fault.from <= until && from <= fault.until + settle)
    }

    /// Whether something was wrong with this node in this time, or so shortly before.
    pub(crate) fn touched(&self, node: &str, from: Millis, until: Millis, settle: Millis) -> bool {
        self.all.iter().any(|fault| {
            fault.from <= until && from <= fault.until + settle && self.touches(fault).iter().any(|name| name == node)
        })
    }

    /// The nodes that a fault is a fault of: of a cut, those on the side that has no majority; both sides where none has.
    fn touches(&self, fault: &Fault) -> Vec<String> {
        let Kind::Cut { from, to } = &fault.kind else {
            let Kind::Down(node) = &fault.kind else { return Vec::new() };
            return vec![node.clone()];
        };
        let majority = self.nodes.len() / 2 + 1;
        let is_great = |side: &Vec<String>| side.len() >= majority;
        match (is_great(from), is_great(to)) {
            (true, false) => to.clone(),
            (false, true) => from.clone(),
            _ => from.iter().chain(to).cloned().collect(),
        }
    }

    /// The longest time within these moments in which one node could lead all along: it was up, and heard a majority that heard it. With a
    /// `node`, that one was up too, and heard and was heard by whoever could lead.
    pub(crate) fn longest_majority(&self, from: Millis, until: Millis, node: Option<&str>) -> Millis {
        let mut moments: BTreeSet<Millis> = BTreeSet::from([from, until]);
        moments.extend(self.all.iter().flat_map(|fault| [fault.from, fault.until]));
        let moments: Vec<Millis> = moments.into_iter().filter(|moment| (from..=until).contains(moment)).collect();
        let mut longest = 0;
        for leader in &self.nodes {
            let mut length = 0;
            for pair in moments.windows(2) {
                let [begun, ended] = pair else { continue };
                // Between two moments nothing changes.
                let could =
                    self.could_lead(leader, *begun) && node.is_none_or(|node| self.are_linked(leader, node, *begun));
                length = if could { length + (ended - begun) } else { 0 };
                longest = longest.max(length);
            }
        }
        longest
    }

    fn could_lead(&self, leader: &str, moment: Millis) -> bool {
        let followers = self.nodes.iter().filter(|node| self.are_linked(leader, node, moment)).count();
        followers > self.nodes.len() / 2
    }

    /// Whether both are up and hear one another, just after a moment.
    fn are_linked(&self, one: &str, other: &str, moment: Millis) -> bool {
        let has = |side: &[String], name: &str| side.iter().any(|node| node == name);
        let active = self.all.iter().filter(|fault| fault.from <= moment && moment < fault.until);
        !active.into_iter().any(|fault| match &fault.kind {
            Kind::Down(node) => node == one || node == other,
            Kind::Cut { from, to } => (has(from, one) && has(to, other)) || (has(from, other) && has(to, one)),
        })
    }
}
