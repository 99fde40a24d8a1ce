//! Changes of the voters, as `ledger::voters` asks for them. Shell: one at a time, in a task of its own.
//!
//! Who joins learns first: it votes when it is caught up. A change that does not come to its end is given up, and asked for again.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{AsyncRuntime, ChangeMembers, Raft};
use tokio::task::JoinHandle;

use crate::ids::NodeKey;
use crate::ledger::voters::{self, Candidate, Change};

use super::runtime::Steady;
use super::store::Machines;
use super::types::TypeConfig;

/// How long a node may take to catch up: with a large snapshot over a slow link. After that another one is tried.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

/// How long the two steps of a change (both sets of voters, then the new one) may take. Where they take longer, the majority is lost.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);

/// The group, from its leader's side.
pub(super) struct Group {
    raft: Raft<TypeConfig, Machines>,
    change: Option<JoinHandle<()>>,
}

/// Who is in the group.
struct Roll {
    voters: BTreeSet<NodeKey>,
    learners: BTreeSet<NodeKey>,
    /// A change was begun by a leader that did not end it.
    is_joint: bool,
}

impl Group {
    pub(super) fn new(raft: Raft<TypeConfig, Machines>) -> Self {
        Self { raft, change: None }
    }

    /// Who votes; while one set follows another, the later one.
    pub(super) fn voters(&self) -> BTreeSet<NodeKey> {
        self.roll().voters
    }

    fn roll(&self) -> Roll {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let sets = membership.get_joint_config();
        Roll {
            voters: sets.last().cloned().unwrap_or_default(),
            learners: membership.learner_ids().collect(),
            is_joint: sets.len() > 1,
        }
    }

    /// This node does not lead: whoever does goes on with it.
    pub(super) fn leave_alone(&mut self) {
        if let Some(change) = self.change.take() {
            change.abort();
        }
    }

    /// Begins the next change, if there is one to be made and none under way.
    pub(super) fn look_after(&mut self, members: &[Candidate], own: &NodeKey) {
        if self.change.as_ref().is_some_and(|change| !change.is_finished()) || members.is_empty() {
            return;
        }
        let roll = self.roll();
        let change = match voters::next(members, &roll.voters, own) {
            // Before a change, the one that another leader left is brought to its end.
            _ if roll.is_joint => Change::default(),
            Some(change) => change,
            None if roll.learners.is_empty() => return,
            None => Change::default(),
        };
        let raft = self.raft.clone();
        let task = async move {
            if let Err(cause) = carry_out(&raft, roll, change).await {
                tracing::warn!(%cause, "the voters could not be changed");
            }
        };
        // Through openraft's runtime: what it starts draws its random numbers from the seed.
        self.change = Some(Steady::spawn(task));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.leave_alone();
    }
}

/// Makes one change. One that is empty only tidies up: one set of voters, and no learners.
async fn carry_out(raft: &Raft<TypeConfig, Machines>, roll: Roll, change: Change) -> Result<(), String> {
    for node in &change.join {
        let added = tokio::time::timeout(CATCH_UP_WITHIN, raft.add_learner(*node, (), true)).await;
        let failed = match added {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("{} did not catch up within {} s", node.short(), CATCH_UP_WITHIN.as_secs()),
        };
        let learners = ChangeMembers::RemoveNodes(change.join.clone());
        // Whatever comes of it, what failed first is said; learners that stay are removed by the next round.
        let _ = tokio::time::timeout(CHANGE_WITHIN, raft.change_membership(learners, false)).await;
        return Err(failed);
    }
    let kept: BTreeSet<NodeKey> = roll.voters.union(&change.join).copied().collect();
    let wanted: BTreeSet<NodeKey> = kept.difference(&change.leave).copied().collect();
    let changes = match change == Change::default() && !roll.is_joint {
        true => ChangeMembers::RemoveNodes(roll.learners),
        false => ChangeMembers::ReplaceAllVoters(wanted.clone()),
    };
    match tokio::time::timeout(CHANGE_WITHIN, raft.change_membership(changes, false)).await {
        Ok(Ok(_)) => {
            let names: Vec<String> = wanted.iter().map(NodeKey::short).collect();
            tracing::info!(voters = %names.join(" "), "the ledger's voters were changed");
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no majority within {} s", CHANGE_WITHIN.as_secs())),
    }
}
