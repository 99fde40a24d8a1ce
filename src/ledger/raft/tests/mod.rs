//! The ledger as a whole: openraft, disks and desks of several nodes, in simulated time.

// Figures are for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod recovered;
mod town;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::command::{Command, Refused, Reply};
use crate::ledger::office::SESSION_TTL;
use crate::ledger::question::{Answer, Question};
use crate::time::Wall;

use super::types::{ELECTION_MAX, ELECTION_MIN};
use town::{Town, claim, job, node, seeded};

const SECOND: Duration = Duration::from_secs(1);

/// Most that lies between the loss of a leader and the next one's first answer: nobody hears it for the election time, half of the
/// voters may have drawn the same one, and an office begins with a tick.
const ELECTED_WITHIN: Duration = Duration::from_secs(3);

fn is_granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Applied { reply: Reply::Granted(_), .. })
}

#[tokio::test(start_paused = true)]
async fn one_node_claims_alone() {
    seeded(1, async {
        let mut town = Town::new(1, 1).await;
        town.until_voters(1).await;
        let session = town.open(0).await;
        town.want(1, 0..1, |_| vec![0]);
        town.until("the lease is held", SECOND, |town| town.holder(0, 0) == Some(node(0))).await;
        let first = town.ledger(0).ask(claim(0, session, 1, 1)).await;
        assert!(is_granted(&first), "{first:?}");
        let again = town.ledger(0).ask(claim(0, session, 1, 2)).await;
        assert!(matches!(again, Answer::Applied { reply: Reply::Refused(Refused::Cursor(_)), .. }), "{again:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_is_founded_once() {
    seeded(1, async {
        let mut town = Town::new(1, 1).await;
        town.until_voters(1).await;
        assert!(town.ledger(0).found().await.is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn five_members_claim_from_everywhere_each_slot_once() {
    seeded(2, async {
        let mut town = Town::new(5, 2).await;
        let took = town.until("five voters", 10 * SECOND, |town| town.standing(0).voters.len() == 5).await;
        assert!(took < 5 * SECOND, "{took:?} until five vote");
        town.until_voters(5).await;
        let sessions = town.open_all().await;
        town.want(1, 0..20, |job| (0..5).map(|turn| (job + turn) % 5).collect());
        town.until("all leases are held", 3 * SECOND, |town| {
            (0..20).all(|job| town.holder(0, job) == Some(node(job % 5)))
        })
        .await;
        let mut fences = BTreeSet::new();
        for second in 1..=5 {
            // All holders at once, and with each of them somebody who holds nothing of it.
            let asked = (0..20).flat_map(|job| {
                let (holder, other) = (job % 5, (job + 1) % 5);
                [(holder, true), (other, false)].map(|(number, is_holder)| (job, number, is_holder))
            });
            let asked = asked.map(|(job, number, is_holder)| {
                let question = claim(job, sessions[number], second, u8::try_from(number).unwrap());
                let ledger = town.ledger(number).clone();
                async move { (is_holder, ledger.ask(question).await) }
            });
            for (is_holder, answer) in futures::future::join_all(asked).await {
                match answer {
                    Answer::Applied { index, reply: Reply::Granted(fence) } if is_holder => {
                        assert_eq!(fence.0, index);
                        assert!(fences.insert(fence), "a fence was given out twice");
                    }
                    Answer::Applied { reply: Reply::Refused(Refused::NotHolder | Refused::Cursor(_)), .. } => {
                        assert!(!is_holder, "the holder was refused");
                    }
                    other => panic!("holder {is_holder}: {other:?}"),
                }
            }
            town.pass(SECOND).await;
        }
        assert_eq!(fences.len(), 100);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_is_followed_by_another_and_grants_nothing() {
    seeded(3, async {
        let mut town = Town::new(5, 3).await;
        let old = town.until_voters(5).await;
        let others: Vec<usize> = (0..5).filter(|number| *number != old).collect();
        let holder = others[0];
        let sessions = town.open_all().await;
        let (mine, theirs) = (sessions[old], sessions[holder]);
        town.want(1, 0..1, |_| vec![old, holder]);
        town.until("the leader holds the lease", 2 * SECOND, |town| town.holder(old, 0) == Some(node(old))).await;

        town.cut_off(&[old]);
        // What the old leader takes now it cannot commit; what it is asked a little later it does not take.
        let (doubtful, refused) = (town.ledger(old).ask(claim(0, mine, 1, 1)), async {
            tokio::time::sleep(ELECTION_MAX + 2 * ELECTION_MIN).await;
            town.ledger(old).ask_within(claim(0, mine, 1, 2), SECOND).await
        });
        let (doubtful, refused) = futures::join!(doubtful, refused);
        assert_eq!(doubtful, Answer::Unknown);
        assert!(matches!(refused, Answer::NotLeader { .. } | Answer::Unknown), "{refused:?}");
        assert_ne!(town.standing(old).leader, Some(node(old)), "nobody says that it leads without a majority");

        town.until("another leads", ELECTED_WITHIN, |town| town.leader_of(&others).is_some()).await;
        town.until("the lease is handed over", 2 * SESSION_TTL, |town| town.holder(holder, 0) == Some(node(holder)))
            .await;
        let granted = town.ledger(holder).ask(claim(0, theirs, 1, 3)).await;
        assert!(is_granted(&granted), "{granted:?}");

        town.heal();
        town.until("all agree", 5 * SECOND, |town| town.leader_of(&[0, 1, 2, 3, 4]).is_some()).await;
        town.until("all have the same", 5 * SECOND, |town| (0..5).all(|number| town.is_same(number, holder))).await;
        let late = town.ledger(old).ask(claim(0, mine, 1, 4)).await;
        assert!(!is_granted(&late), "a second run of the slot was granted: {late:?}");
        let Answer::History(Some(account)) = town.ledger(old).ask(Question::History { job: job(0) }).await else {
            panic!("no history");
        };
        assert_eq!(account.runs.len(), 1, "{account:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_hears_no_leader_says_how_old_its_history_is() {
    seeded(13, async {
        let mut town = Town::new(3, 13).await;
        let leader = town.until_voters(3).await;
        let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let sessions = town.open_all().await;
        town.want(1, 0..1, |_| vec![other]);
        town.until("the lease is held", 4 * SECOND, |town| town.holder(other, 0) == Some(node(other))).await;
        let asked = Command::Ask { job: job(0), request: [7; 16], at: Wall(1) };
        let answer = town.ledger(away).ask(Question::Propose(asked)).await;
        assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
        town.until("all have the same", 5 * SECOND, |town| (0..3).all(|number| town.is_same(number, leader))).await;
        let account = async |town: &Town, number| match town.ledger(number).ask(Question::History { job: job(0) }).await
        {
            Answer::History(Some(account)) => account,
            answer => panic!("no history: {answer:?}"),
        };
        let found = account(&town, away).await;
        assert_eq!((found.as_of, found.asked.len(), found.holder), (None, 1, Some(node(other))));

        town.cut_off(&[away]);
        town.until("it names no leader", 5 * SECOND, |town| town.standing(away).leader.is_none()).await;
        let first = account(&town, away).await.as_of.expect("it hears nobody");
        let granted = town.ledger(other).ask(claim(0, sessions[other], 1, 1)).await;
        assert!(is_granted(&granted), "{granted:?}");
        let later = account(&town, away).await;
        assert_eq!((later.as_of, later.runs.len()), (Some(first), 0), "it stands still");
        assert_eq!(account(&town, other).await.as_of, None);

        town.heal();
        town.until("all agree", 5 * SECOND, |town| town.leader_of(&[0, 1, 2]).is_some()).await;
        town.until("all have the same", 5 * SECOND, |town| town.is_same(away, other)).await;
        let healed = account(&town, away).await;
        assert_eq!((healed.as_of, healed.runs.len()), (None, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_is_there_within_the_election_time() {
    seeded(4, async {
        let mut slowest = Duration::ZERO;
        for seed in 0..10 {
            let mut town = Town::new(3, 40 + seed).await;
            let old = town.until_voters(3).await;
            town.crash(old).await;
            let others: Vec<usize> = town.running().collect();
            slowest = slowest
                .max(town.until("another leads", ELECTED_WITHIN, |town| town.leader_of(&others).is_some()).await);
        }
        println!("ten leaders died; another led after {slowest:?} at most");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_voter_is_replaced_after_a_minute_and_not_before() {
    seeded(5, async {
        let mut town = Town::new(4, 5).await;
        town.until_voters(3).await;
        let voters = town.standing(0).voters;
        let dead = (0..4).find(|number| *number != 0 && voters.contains(&node(*number))).unwrap();
        let spare = (0..4).find(|number| !voters.contains(&node(*number))).unwrap();
        town.crash(dead).await;
        town.pass(55 * SECOND).await;
        assert!(town.standing(spare).voters.is_empty(), "it was replaced too early");
        town.until("it is replaced", 15 * SECOND, |town| town.standing(spare).voters.contains(&node(spare))).await;
        let leader = town.until_voters(3).await;
        assert!(!town.standing(leader).voters.contains(&node(dead)));
        // With the new one, another may fail.
        let next = town.running().find(|number| ![leader, spare].contains(number)).unwrap();
        town.crash(next).await;
        town.open(spare).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_replaced_while_it_was_away_tells_nothing_old() {
    seeded(14, async {
        let mut town = Town::new(4, 14).await;
        town.until_voters(3).await;
        let voters = town.standing(0).voters;
        let replaced = (0..4).find(|number| *number != 0 && voters.contains(&node(*number))).unwrap();
        let spare = (0..4).find(|number| !voters.contains(&node(*number))).unwrap();
        town.crash(replaced).await;
        town.until("it is replaced", 90 * SECOND, |town| town.standing(spare).voters.contains(&node(spare))).await;
        let mut sessions = BTreeMap::new();
        for number in town.running().collect::<Vec<_>>() {
            sessions.insert(number, town.open(number).await);
        }
        town.want(1, 0..1, |_| vec![spare]);
        town.until("the lease is held", 4 * SECOND, |town| town.holder(spare, 0) == Some(node(spare))).await;
        let granted = town.ledger(spare).ask(claim(0, sessions[&spare], 1, 1)).await;
        assert!(is_granted(&granted), "{granted:?}");

        town.start(replaced).await;
        town.pass(5 * SECOND).await;
        assert_eq!(town.standing(replaced).leader, None, "nobody tells it who leads");
        let back = town.ledger(replaced);
        let Answer::History(Some(account)) = back.ask(Question::History { job: job(0) }).await else {
            panic!("no history");
        };
        assert_eq!((account.as_of, account.runs.len()), (None, 1), "{account:?}");
        let Answer::Standing(standing) = back.ask(Question::Standing).await else { panic!("no standing") };
        assert!(standing.leader.is_some() && !standing.voters.contains(&node(replaced)), "{standing:?}");
        // It is no wall either before who asks it first.
        let session = town.open(replaced).await;
        town.want(2, 0..1, |_| vec![replaced]);
        town.until("the lease has moved", 4 * SECOND, |town| town.holder(spare, 0) == Some(node(replaced))).await;
        let granted = town.ledger(replaced).ask(claim(0, session, 2, 1)).await;
        assert!(is_granted(&granted), "{granted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_no_member_any_more_hands_over() {
    seeded(12, async {
        let mut town = Town::new(4, 12).await;
        let old = town.until_voters(3).await;
        town.remove(old);
        let others: Vec<usize> = (0..4).filter(|number| *number != old).collect();
        let has_gone = |town: &Town| {
            let leader = town.leader_of(&others);
            leader.is_some_and(|leader| !town.standing(leader).voters.contains(&node(old)))
        };
        town.until("another leads, and the removed one does not vote", 10 * SECOND, has_gone).await;
        assert_eq!(town.standing(others[0]).voters.len(), 3);
        town.open(others[0]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_ends_the_ledger_and_says_so() {
    seeded(13, async {
        let mut town = Town::new(1, 13).await;
        town.until_voters(1).await;
        let ended = town.fail_disk(0).await;
        assert!(ended.is_err_and(|stopped| stopped.to_string().contains("the ledger has stopped")));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_hosts_lose_their_power_and_nothing_that_was_granted() {
    seeded(6, async {
        let mut town = Town::with_snapshots(3, 6, 40).await;
        town.until_voters(3).await;
        let sessions = town.open_all().await;
        town.pass(25 * SECOND).await;
        for round in 0..4 {
            town.want(1, 0..4, |_| vec![1]);
            town.until("the lease is held", 4 * SECOND, |town| town.holder(1, round) == Some(node(1))).await;
            // Who leads now has heard the voters' clocks.
            town.pass(SECOND).await;
            for number in 1..=25 {
                let answer = town.ledger(1).ask(claim(round, sessions[1], number, 1)).await;
                assert!(is_granted(&answer), "slot {number}: {answer:?}");
            }
            for number in 0..3 {
                if round == 1 { town.stop(number).await } else { town.crash(number).await }
            }
            town.pass(SECOND).await;
            for number in 0..3 {
                town.start(number).await;
            }
            town.until_voters(3).await;
            for round in 0..=round {
                let asked = town.ledger(2).ask(Question::History { job: job(round) }).await;
                let Answer::History(Some(account)) = asked else { panic!("no history: {asked:?}") };
                assert_eq!((account.cursor, account.runs.len()), (town::slot(25), 25), "round {round}");
            }
            // The sessions live on: every leader gives them their full time.
            for (number, session) in (0..).zip(&sessions) {
                town.renew_from_now(number, *session);
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_what_it_had_sent_gives_its_name_to_nothing_else() {
    seeded(14, async {
        for seed in 0..16 {
            let mut town = Town::new(3, 140 + seed).await;
            let leader = town.until_voters(3).await;
            let (follower, away) = ((leader + 1) % 3, (leader + 2) % 3);
            town.crash(away).await;
            let term = town.standing(leader).term;
            let open = move |life| Question::Propose(Command::Open { node: node(leader), life });
            let ledger = town.ledger(leader).clone();
            let asked = tokio::spawn(seeded(seed, async move { ledger.ask(open(1)).await }));
            // Somewhere between the sending, the follower's disk and its own.
            tokio::time::sleep(Duration::from_micros(500 * (seed + 1))).await;
            asked.abort();
            town.crash(leader).await;
            town.start(leader).await;
            let both = [leader, follower];
            town.until("one leads", 10 * SECOND, |town| town.leader_of(&both).is_some()).await;
            assert!(town.standing(leader).term > term, "it leads without having been elected");
            let answer = town.ledger(leader).ask(open(2)).await;
            assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
            town.until("both hold the same", SECOND, |town| town.is_same(leader, follower)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_away_is_sent_a_snapshot() {
    seeded(7, async {
        let mut town = Town::with_snapshots(3, 7, 64).await;
        town.until_voters(3).await;
        let leader = town.leader_of(&[0, 1, 2]).unwrap();
        let away = (leader + 1) % 3;
        town.cut_off(&[away]);
        for life in 0..300 {
            let command = Command::Open { node: node(leader), life };
            let answer = town.ledger(leader).ask(Question::Propose(command)).await;
            assert!(matches!(answer, Answer::Applied { reply: Reply::Opened(_), .. }), "{answer:?}");
        }
        assert!(!town.is_same(leader, away));
        town.heal();
        town.until("it has caught up", 10 * SECOND, |town| town.is_same(leader, away)).await;
        let snapshot = town.snapshot(away);
        assert!(snapshot > Some(200), "it came by snapshot, not by entries: {snapshot:?}");
        town.crash(away).await;
        town.start(away).await;
        assert!(town.applied(away) > 200, "it is on its disk");
        town.until("it has caught up again", 5 * SECOND, |town| town.is_same(leader, away)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_has_its_full_time_under_a_new_leader() {
    seeded(8, async {
        let mut town = Town::new(3, 8).await;
        let old = town.until_voters(3).await;
        let (one, two) = ((old + 1) % 3, (old + 2) % 3);
        let session = town.open_all().await[one];
        town.want(1, 0..1, |_| vec![one]);
        town.until("the lease is held", 2 * SECOND, |town| town.holder(two, 0) == Some(node(one))).await;
        // Its last sign of life is almost a life ago when the leader dies.
        town.stop_renewing(one);
        town.pass(SESSION_TTL - SECOND / 2).await;
        town.crash(old).await;
        town.until("another leads", ELECTED_WITHIN, |town| town.leader_of(&[one, two]).is_some()).await;
        let is_open = |town: &Town| town.session(two, session) == Some(node(one));
        assert!(is_open(&town));
        town.pass(SESSION_TTL - SECOND / 4).await;
        assert!(is_open(&town), "the new leader closed it before its time");
        let took = town.until("it is closed", SECOND, |town| !is_open(town)).await;
        println!("closed {:?} after a new leader was there", SESSION_TTL - SECOND / 4 + took);
    })
    .await;
}

/// Everything that a test of a few seconds does, as one number.
async fn lived(seed: u64) -> (String, u64) {
    seeded(seed, async {
        let mut town = Town::with_snapshots(5, seed, 64).await;
        let old = town.until_voters(5).await;
        town.open_all().await;
        town.want(1, 0..30, |job| (0..5).map(|turn| (job + turn) % 5).collect());
        town.pass(3 * SECOND).await;
        town.cut_off(&[old]);
        town.pass(4 * SECOND).await;
        town.heal();
        town.crash((old + 1) % 5).await;
        town.pass(2 * SECOND).await;
        town.start((old + 1) % 5).await;
        town.pass(2 * SECOND).await;
        town.trace()
    })
    .await
}

#[test]
fn one_seed_is_one_life() {
    let live = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(lived(seed))
    };
    let mut lives = BTreeSet::new();
    for seed in 11..15 {
        let (life, messages) = live(seed);
        assert_eq!(live(seed), (life.clone(), messages), "the same seed, and another life");
        assert!(lives.insert(life), "another seed, and the same life");
        println!("seed {seed}: {messages} messages");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_for_another() {
    seeded(9, async {
        let mut town = Town::new(3, 9).await;
        town.until_voters(3).await;
        let session = town.open(1).await;
        let other = Command::Open { node: node(1), life: 99 };
        assert_eq!(town.ledger(2).ask(Question::Propose(other)).await, Answer::NotAllowed);
        assert_eq!(town.ledger(2).ask(Question::Propose(Command::Close { session })).await, Answer::NotAllowed);
        assert_eq!(town.ledger(2).ask(Question::Propose(Command::Tick)).await, Answer::NotAllowed);
        let wall = crate::time::Wall(0);
        assert_eq!(town.ledger(2).ask(Question::Renew { session, known: 0, wall }).await, Answer::NoSession);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn five_hundred_claims_share_a_few_syncs() {
    seeded(10, async {
        let mut town = Town::new(3, 10).await;
        let leader = town.until_voters(3).await;
        let session = town.open_all().await[leader];
        town.want(1, 0..500, |_| vec![leader]);
        town.until("all leases are held", 5 * SECOND, |town| (0..500).all(|job| town.holder(leader, job).is_some()))
            .await;
        let before = town.disk_operations(leader);
        let asked = (0..500).map(|job| town.ledger(leader).ask(claim(job, session, 1, 1)));
        let began = tokio::time::Instant::now();
        let answers = futures::future::join_all(asked).await;
        assert!(answers.iter().all(is_granted));
        let syncs = town.disk_operations(leader) - before;
        println!("500 claims in {:?} of simulated time, {syncs} operations of the disk", began.elapsed());
        assert!(syncs < 400, "{syncs} operations of the disk for 500 claims");
    })
    .await;
}
