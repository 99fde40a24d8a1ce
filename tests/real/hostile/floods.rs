//! Members that lie, shout or stammer.

use std::time::{Duration, Instant};

use narun::crdt::admission::Signed;
use narun::crdt::roster::Record;
use narun::gossip::message::{Message, News};
use narun::gossip::transport::{BAR_MIN, FRAME_LEN_MAX, Protocol};
use tokio::io::AsyncWriteExt;

use super::{Attacker, Victim, attack, memory};
use crate::cluster::WAIT_MAX;

/// Sends until the node has said that it counted this of the member.
async fn send_until_told(attacker: &Attacker, victim: &Victim, name: &str, bytes: &[u8], told: &str) {
    let deadline = Instant::now() + WAIT_MAX;
    while !victim.problems_of(name).iter().any(|problem| problem.contains(told)) {
        assert!(Instant::now() < deadline, "`{told}` is not told: {:?}", victim.problems_of(name));
        attacker.send(victim, bytes.to_vec());
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_a_member_makes_up_is_refused_and_its_sender_named() {
    let mut victim = Victim::start();
    attack(async {
        let mut liar = Attacker::member(&mut victim, "liar").await;

        // A record of the victim's own, as it sent it.
        let sleeper = victim.cluster.sleeper();
        victim.node().ok(&["deploy", "--name", "first", "--tag", "v1", "--node", "n1", &sleeper]);
        let victims_key = victim.key;
        let record = liar
            .message(|bytes| {
                let Message::News { news, .. } = Message::decode(bytes)? else { return None };
                let News::Record(signed) = minicbor::decode(&news).ok()? else { return None };
                let record: Record = minicbor::decode(&signed.body).ok()?;
                (record.node == victims_key).then_some(signed)
            })
            .await;
        let news = |signed: Signed| Message::News { news: News::Record(signed).encode(), acknowledge: true }.encode();

        send_until_told(&liar, &victim, "liar", b"\xde\xad\xbe\xef", "messages that make no sense").await;
        let swim = Message::Swim(vec![0x5a; 64]).encode();
        send_until_told(&liar, &victim, "liar", &swim, "membership messages that make no sense").await;
        let garbled = Message::News { news: b"\xff\xff".to_vec(), acknowledge: true }.encode();
        send_until_told(&liar, &victim, "liar", &garbled, "news that make no sense").await;
        let mut altered: Record = minicbor::decode(&record.body).unwrap();
        altered.stamp.version += 1_000_000;
        let altered = Signed { body: minicbor::to_vec(&altered).unwrap(), signature: record.signature.clone() };
        send_until_told(&liar, &victim, "liar", &news(altered), "records that were altered").await;

        // Replayed, and of a kind that a later version may have: neither is held against it.
        let before = victim.problems_of("liar");
        for _ in 0..100 {
            liar.send(&victim, news(record.clone()));
            liar.send(&victim, minicbor::to_vec((1000_u32, "later")).unwrap());
        }
        victim.is_well();
        assert_eq!(victim.problems_of("liar"), before);
        let instances = victim.node().running("first", 1);
        assert_eq!(instances.len(), 1, "nothing was accepted");
    });
}

#[test]
fn a_flood_of_messages_is_read_at_a_rate_and_the_node_works_on() {
    let mut victim = Victim::start();
    attack(async {
        let shouter = Attacker::member(&mut victim, "shouter").await;
        let (swim, garbage) = (Message::Swim(vec![0x5a; 200]).encode(), vec![0x5a; 1000]);
        let (began, mut sent, mut largest) = (Instant::now(), 0_u64, 0);
        let mut checked = began;
        // Ten thousand a second and more, as fast as the queue takes them.
        while began.elapsed() < Duration::from_secs(12) {
            for _ in 0..200 {
                shouter.send(&victim, swim.clone());
                shouter.send(&victim, garbage.clone());
                sent += 2;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            if checked.elapsed() > Duration::from_secs(3) {
                victim.is_well();
                largest = largest.max(memory(victim.node()));
                checked = Instant::now();
            }
        }
        eprintln!("{sent} messages sent; the node took at most {} MiB", largest >> 20);
        victim.until_counted("members_held_back", 1);
        victim.is_well();
        assert_eq!(victim.counted("members_pressing"), 0, "that is for those who go on for minutes");
    });
}

#[test]
fn a_member_that_breaks_the_frame_s_limit_is_barred_for_longer_each_time() {
    let mut victim = Victim::start();
    attack(async {
        let mut liar = Attacker::member(&mut victim, "liar").await;
        for strike in 1..=3 {
            let deadline = Instant::now() + WAIT_MAX;
            while victim.counted("frames_oversized") < strike {
                assert!(Instant::now() < deadline, "strike {strike} was not counted");
                // A link of its own making beside the transport's: greeted with any number, it is the same key's.
                if let Some(mut stream) = liar.open(&victim, Protocol::Gossip).await {
                    let hello = minicbor::to_vec(std::collections::BTreeMap::from([(0_u8, Bytes([3; 16]))])).unwrap();
                    let _ = stream.write_u32(hello.len() as u32).await;
                    let _ = stream.write_all(&hello).await;
                    let _ = stream.write_u32(FRAME_LEN_MAX as u32 + 1).await;
                    let _ = stream.flush().await;
                    tokio::time::sleep(BAR_MIN / 10).await;
                }
            }
        }
        victim.until_counted("members_barred", 1);
        victim.is_well();
        while liar.inputs.try_recv().is_ok() {}
        liar.connected().await;
    });
}

/// A byte string; a plain array would be a list of numbers.
struct Bytes([u8; 16]);

impl<C> minicbor::Encode<C> for Bytes {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?;
        Ok(())
    }
}
