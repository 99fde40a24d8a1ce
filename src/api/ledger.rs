//! Who votes in the ledger, who leads, and whether cron specs are fired with that. Wiring; the judgement is pure.

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use crate::ids::NodeKey;
use crate::ledger::question::{Answer, Question, Standing};
use crate::node::engine::view::{NodeStatus, View};

use super::ApiState;
use super::wire::cron::{Ledger, Voter};

/// How long a node that does not vote asks a voter how the ledger stands: whoever looks at the cluster waits for it, and it is the
/// more needed the less of the cluster answers.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// `GET /v1/ledger`
pub(super) async fn standing(State(state): State<ApiState>) -> Json<Ledger> {
    Json(ledger(&state).await)
}

/// How the ledger stands: from here where this node is in the group, else from whoever is.
pub(super) async fn ledger(state: &ApiState) -> Ledger {
    let own = state.ledger.standing();
    let standing = if own.voters.is_empty() {
        match tokio::time::timeout(ASK_WITHIN, state.ledger.ask(Question::Standing)).await {
            Ok(Answer::Standing(standing)) => standing,
            Ok(_) | Err(_) => own,
        }
    } else {
        own
    };
    judge(&state.node.view(), &standing)
}

/// What follows from who votes, who leads and who is in reach.
fn judge(view: &View, standing: &Standing) -> Ledger {
    let voters: Vec<Voter> = standing.voters.iter().map(|key| voter(view, key)).collect();
    let is_in_reach =
        |voter: &&Voter| [NodeStatus::Alive, NodeStatus::Suspect].map(NodeStatus::word).contains(&&*voter.status);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (quorum, in_reach) = (number(voters.len() / 2 + 1), number(voters.iter().filter(is_in_reach).count()));
    let why = if voters.is_empty() {
        Some("no voter of the ledger has answered this node".to_owned())
    } else if in_reach < quorum {
        Some(format!("{in_reach} of {} voters are in reach, and {quorum} are needed", voters.len()))
    } else if standing.leader.is_none() {
        Some("no voter leads at the moment: they are electing one, or do not reach one another".to_owned())
    } else {
        None
    };
    Ledger {
        quorum: if voters.is_empty() { 0 } else { quorum },
        in_reach,
        voters,
        learners: standing.learners.iter().map(|key| name_of(view, key)).collect(),
        leader: standing.leader.map(|key| name_of(view, &key)),
        fires: why.is_none(),
        why,
    }
}

fn voter(view: &View, key: &NodeKey) -> Voter {
    let status = match view.nodes.iter().find(|node| node.key == *key) {
        Some(node) if node.is_me => NodeStatus::Alive.word(),
        Some(node) => node.status.word(),
        None => "removed",
    };
    Voter { node: name_of(view, key), status: status.to_owned() }
}

/// A node as people call it; of one that is no member any more, the first digits of its key.
pub(super) fn name_of(view: &View, key: &NodeKey) -> String {
    let found = view.nodes.iter().find(|node| node.key == *key);
    found.map_or_else(|| key.short(), |node| node.name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{node, view};

    fn judged(voters: &[u8], leader: Option<u8>) -> Ledger {
        let mut view = view();
        view.nodes = std::sync::Arc::new(
            [("n1", NodeStatus::Alive), ("n2", NodeStatus::Down), ("n3", NodeStatus::Suspect)]
                .map(|(name, status)| std::sync::Arc::new(node(name, status)))
                .into(),
        );
        let key = |digit: &u8| NodeKey([*digit; 32]);
        let standing = Standing {
            voters: voters.iter().map(key).collect(),
            leader: leader.as_ref().map(key),
            ..Standing::default()
        };
        judge(&view, &standing)
    }

    #[test]
    fn a_majority_in_reach_and_a_leader_are_needed_to_fire() {
        let well = judged(b"123", Some(b'3'));
        assert_eq!((well.quorum, well.in_reach, well.fires, well.leader.as_deref()), (2, 2, true, Some("n3")));
        assert_eq!(well.voters[1], Voter { node: "n2".into(), status: "down".into() });
        for (found, why) in [
            (judged(b"123", None), "no voter leads"),
            (judged(b"12x", Some(b'1')), "1 of 3 voters are in reach, and 2 are needed"),
            (judged(b"2", Some(b'2')), "0 of 1 voters are in reach, and 1 are needed"),
            (judged(b"", None), "no voter of the ledger has answered"),
        ] {
            assert!(!found.fires && found.why.as_deref().is_some_and(|told| told.contains(why)), "{found:?}");
        }
        assert_eq!(judged(b"x", None).voters, [Voter { node: "7878787878".into(), status: "removed".into() }]);
    }
}
