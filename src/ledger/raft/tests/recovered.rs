//! The majority is lost for good, and what is left goes on.

use super::town::{Town, claim, node, seeded};
use super::{ELECTED_WITHIN, SECOND, is_granted};
use crate::ledger::command::{Refused, Reply};
use crate::ledger::question::Answer;

fn fence(answer: &Answer) -> u64 {
    match answer {
        Answer::Applied { reply: Reply::Granted(fence), .. } => fence.0,
        other => panic!("it was not granted: {other:?}"),
    }
}

/// Three voters, a job that the first node holds, and a claim.
async fn three(seed: u64) -> (Town, u64) {
    let mut town = Town::new(3, seed).await;
    town.until_voters(3).await;
    let session = town.open_all().await[0];
    town.want(1, 0..1, |_| vec![0, 1, 2]);
    town.until("the lease is held", SECOND, |town| town.holder(0, 0) == Some(node(0))).await;
    let answer = town.ledger(0).ask(claim(0, session, 1, 1)).await;
    (town, fence(&answer))
}

async fn recovered(town: &mut Town) {
    town.stop(0).await;
    town.recover(0);
    town.start(0).await;
    town.until("it leads alone", ELECTED_WITHIN, |town| town.leader_of(&[0]) == Some(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_survivor_goes_on_alone_with_all_that_it_knew() {
    seeded(11, async {
        let (mut town, before) = three(11).await;
        town.crash(1).await;
        town.crash(2).await;
        recovered(&mut town).await;
        assert_eq!(town.standing(0).voters, [node(0)]);
        let session = town.open(0).await;
        town.want(2, 0..1, |_| vec![0, 1, 2]);
        town.until("the lease is held", ELECTED_WITHIN, |town| town.holder(0, 0) == Some(node(0))).await;
        let again = town.ledger(0).ask(claim(0, session, 1, 2)).await;
        assert!(matches!(again, Answer::Applied { reply: Reply::Refused(Refused::Cursor(_)), .. }), "{again:?}");
        let next = town.ledger(0).ask(claim(0, session, 2, 3)).await;
        assert!(fence(&next) > before + (1 << 31), "{next:?} after {before}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lost_voters_that_come_back_follow_whatever_they_did_meanwhile() {
    seeded(12, async {
        let (mut town, _) = three(12).await;
        // What was taken for lost was only out of reach, and goes on without this node.
        town.cut_off(&[0]);
        town.until("the others have a leader", ELECTED_WITHIN, |town| town.leader_of(&[1, 2]).is_some()).await;
        recovered(&mut town).await;
        let session = town.open(1).await;
        town.want(2, 0..2, |_| vec![1, 2]);
        town.until("the lease is held there", ELECTED_WITHIN, |town| town.holder(1, 1) == Some(node(1))).await;
        assert!(is_granted(&town.ledger(1).ask(claim(1, session, 1, 9)).await));
        town.heal();
        town.until("all follow the one", 30 * SECOND, |town| {
            (0..3)
                .all(|number| town.standing(number).leader == Some(node(0)) && town.standing(number).voters.len() == 3)
        })
        .await;
        town.until("they hold the same", 30 * SECOND, |town| town.is_same(0, 1) && town.is_same(0, 2)).await;
    })
    .await;
}
