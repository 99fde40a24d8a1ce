//! Those who are no members.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use libp2p::core::upgrade::OutboundConnectionUpgrade;
use libp2p::noise;
use narun::gossip::join;
use narun::gossip::transport::{
    HANDSHAKES_FROM_ONE_MAX, Protocol, STRANGER_STAY_MAX, STRANGERS_FROM_ONE_MAX, Transport,
};
use narun::ids::NodeName;
use narun::node::identity::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{Attacker, Victim, attack};
use crate::cluster::{WAIT_MAX, eventually};

/// multistream-select's first words and the only security protocol: what a stranger may know of every libp2p port.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
const NOISE: &[u8] = b"\x07/noise\n";

#[test]
fn garbage_before_the_handshake_is_dropped() {
    let mut victim = Victim::start();
    for garbage in [&[0xff; 4096][..], b"GET / HTTP/1.1\r\n\r\n", HEADER, &[HEADER, b"\x03no\n"].concat()] {
        let mut stream = TcpStream::connect(victim.address).expect("the port is open");
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(garbage);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.len() < 64, "a stranger is told nothing: {:?}", String::from_utf8_lossy(&said));
    }
    // Of the four, some were no multistream at all; the others left their time run out.
    eventually("all four to be counted", || {
        (victim.counted("handshakes_failed") + victim.counted("handshakes_slow") >= 4).then_some(())
    });
    victim.is_well();
}

#[test]
fn garbage_after_the_handshake_is_dropped() {
    let mut victim = Victim::start();
    attack(async {
        for _ in 0..20 {
            let mut stream = tokio::net::TcpStream::connect(victim.address).await.unwrap();
            stream.write_all(&[HEADER, NOISE].concat()).await.unwrap();
            let mut agreed = vec![0; HEADER.len() + NOISE.len()];
            stream.read_exact(&mut agreed).await.unwrap();
            assert_eq!(agreed, [HEADER, NOISE].concat());
            let handshake = noise::Config::new(&libp2p::identity::Keypair::generate_ed25519()).unwrap();
            let (_, mut secret) = handshake.upgrade_outbound(stream.compat(), "/noise").await.unwrap();
            // Not one more word of libp2p's.
            let _ = futures::AsyncWriteExt::write_all(&mut secret, &[0x5a; 8192]).await;
            let _ = futures::AsyncWriteExt::flush(&mut secret).await;
            let mut said = Vec::new();
            let _ = futures::AsyncReadExt::read_to_end(&mut secret, &mut said).await;
            assert!(said.len() < 64, "{said:?}");
        }
    });
    victim.until_counted("handshakes_failed", 20);
    victim.is_well();
}

#[test]
fn half_open_connections_by_the_thousand_harm_nothing() {
    let mut victim = Victim::start();
    let silent: Vec<TcpStream> = (0..3000).filter_map(|_| TcpStream::connect(victim.address).ok()).collect();
    assert!(silent.len() > 2000, "{}", silent.len());
    victim.until_counted("handshakes_crowded", 100);
    victim.until_counted("handshakes_hurried", 1000);
    let open = std::fs::read_dir(format!("/proc/{}/fd", victim.node().pid())).expect("the node lives").count();
    assert!(open < HANDSHAKES_FROM_ONE_MAX + 200, "it holds {open} files open");
    victim.is_well();
    victim.until_counted("handshakes_slow", HANDSHAKES_FROM_ONE_MAX as u64);
    drop(silent);
    // And the door opens for those who mean it.
    attack(async {
        Attacker::member(&mut victim, "n2").await;
    });
}

#[test]
fn a_key_that_is_not_admitted_gets_no_stream_but_the_door_s() {
    let mut victim = Victim::start();
    attack(async {
        for protocol in [Protocol::Gossip, Protocol::Blobs, Protocol::Logs, Protocol::Life, Protocol::Api] {
            let stranger = Attacker::stranger(&victim).await;
            if let Some(mut stream) = stranger.open(&victim, protocol).await {
                let mut said = Vec::new();
                // An error, such as a broken connection, is an end without a word as well.
                let _ = tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut said)).await.expect("it is cut");
                assert_eq!(said, b"", "{protocol:?}");
            }
            stranger.transport.stop().await;
        }
    });
    victim.until_counted("strangers_trespassing", 4);
    victim.is_well();
}

#[test]
fn a_ticket_for_one_admits_one_of_two_that_come_at_once() {
    let mut victim = Victim::start();
    attack(async {
        let ticket = victim.ticket(1);
        let (one, two) = (Identity::generate(), Identity::generate());
        let names = ["n2", "n3"].map(|name| NodeName::new(name).unwrap());
        let knocks =
            tokio::join!(join::knock(&one, &ticket, &names[0], &[]), join::knock(&two, &ticket, &names[1], &[]));
        let (lucky, loser, error) = match knocks {
            (Ok(_), Err(error)) => ((&one, &names[0]), &two, error),
            (Err(error), Ok(_)) => ((&two, &names[1]), &one, error),
            other => panic!("not exactly one: {other:?}"),
        };
        assert!(error.to_string().contains("used up"), "{error}");
        // The member may ask again, in case its welcome was lost; the other one may not, whoever's name it takes.
        join::knock(lucky.0, &ticket, lucky.1, &[]).await.expect("it is a member already");
        let stolen = join::knock(loser, &ticket, lucky.1, &[]).await.expect_err("the ticket is used up");
        assert!(stolen.to_string().contains("refused"), "{stolen}");
        victim.members = victim.node().members();
        assert_eq!(victim.members.len(), 2, "{:?}", victim.members);
    });
    victim.is_well();
}

#[test]
fn a_flood_of_knocks_is_slowed_and_the_door_opens_afterwards() {
    let mut victim = Victim::start();
    attack(async {
        let good = victim.ticket(1);
        let mut forged = good.clone();
        forged.secret = [7; 32];
        let deadline = Instant::now() + WAIT_MAX;
        while victim.counted("door_pestered") < 5 {
            assert!(Instant::now() < deadline, "the door was never too busy");
            let knocks = (0..12).map(|_| async {
                let name = NodeName::new("n9").unwrap();
                join::knock(&Identity::generate(), &forged, &name, &[]).await.expect_err("the secret is wrong");
            });
            futures::future::join_all(knocks).await;
        }
        victim.is_well();
        let (mine, name) = (Identity::generate(), NodeName::new("n2").unwrap());
        loop {
            match join::knock(&mine, &good, &name, &[]).await {
                Ok(_) => break,
                Err(error) => assert!(Instant::now() < deadline, "never let in: {error}"),
            }
        }
    });
    assert_eq!(victim.node().members().len(), 2);
}

#[test]
fn who_dawdles_at_the_door_is_sent_away() {
    let mut victim = Victim::start();
    attack(async {
        let mut dawdlers = Vec::new();
        for _ in 0..STRANGERS_FROM_ONE_MAX + 4 {
            let stranger = Transport::outward(&Identity::generate()).await.expect("a transport");
            stranger.set_members(vec![victim.peer()]);
            if let Ok(mut stream) = stranger.open(victim.key, Protocol::Join).await {
                // The beginning of a request, and then a byte now and then.
                let _ = stream.write_all(&[0, 0, 1]).await;
                let _ = stream.flush().await;
                dawdlers.push((stranger, stream));
            }
        }
        victim.until_counted("strangers_crowded", 1);
        victim.is_well();
        let began = Instant::now();
        for (_, stream) in &mut dawdlers {
            let mut said = Vec::new();
            let _ = tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut said)).await.expect("it is cut");
        }
        assert!(began.elapsed() < STRANGER_STAY_MAX + Duration::from_secs(10), "{:?}", began.elapsed());
    });
    eventually("the dawdlers to be counted", || {
        (victim.counted("strangers_overdue") + victim.counted("door_slow") >= 10).then_some(())
    });
}
