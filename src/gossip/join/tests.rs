//! A real door and real knocks, on the loopback interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::*;
use crate::crdt::admission::{ADMISSION_DOMAIN, Admission, Founding, Role, Signed, Welcome};
use crate::crdt::ticket::Ticket;
use crate::gossip::transport::{OpenError, Protocol, Transport, TransportConfig};
use crate::node::engine::effect::{Peer, RefusalCode};
use crate::node::engine::input::Admit;
use crate::node::identity::Identity;
use crate::time::Wall;

const SECRET: [u8; 32] = [9; 32];
const PATIENCE: Duration = Duration::from_secs(30);

struct Maker {
    identity: Identity,
    founding: Founding,
    transport: Transport,
    /// How often the decision was asked for.
    asked: Arc<AtomicUsize>,
    door: AbortHandle,
}

fn founding(identity: &Identity) -> Founding {
    Founding { founder: identity.key(), name: NodeName::new("first").unwrap(), at: Wall(1), nonce: [1; 16] }
}

fn welcome(identity: &Identity, founding: &Founding, admit: &Admit) -> Welcome {
    let admission = Admission {
        cluster: founding.cluster(),
        key: admit.key,
        name: admit.name.clone(),
        by: identity.key(),
        ticket: "t".to_owned(),
        at: Wall(2),
        addresses: admit.addresses.clone(),
        role: Role::MEMBER,
    };
    let admissions = vec![Signed::new(identity, ADMISSION_DOMAIN, &admission)];
    let (name, members, removals) = (admit.name.clone(), Vec::new(), Vec::new());
    Welcome { founding: founding.clone(), name, admissions, members, removals }
}

impl Maker {
    /// A node that admits whoever shows the secret, and says what `answer` makes of its welcome.
    async fn start(answer: impl Fn(Welcome) -> Welcome + Send + Sync + 'static) -> Self {
        let identity = Identity::generate();
        let founding = founding(&identity);
        let config = TransportConfig { identity: identity.clone(), listen: "127.0.0.1:0".parse().unwrap() };
        let transport = Transport::start(config, mpsc::channel(16).0).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let door = {
            let (transport, identity, founding) = (transport.clone(), identity.clone(), founding.clone());
            let (asked, answer) = (asked.clone(), Arc::new(answer));
            tokio::spawn(async move {
                let cluster = founding.cluster();
                serve(&transport, cluster, move |asked_for| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let (identity, founding, answer) = (identity.clone(), founding.clone(), answer.clone());
                    async move {
                        let Asked::Admit(admit) = asked_for else {
                            return Err(Refusal::new(RefusalCode::NotAllowed, "this node is not known here"));
                        };
                        if admit.secret != SECRET {
                            let refusal = Refusal::new(RefusalCode::NotAllowed, "this ticket is used up");
                            return Err(refusal.hint("make another with `narun ticket create`"));
                        }
                        Ok(Answer::Welcome(Box::new(answer(welcome(&identity, &founding, &admit)))))
                    }
                })
                .await;
            })
            .abort_handle()
        };
        let maker = Self { identity, founding, transport, asked, door };
        maker.until_open().await;
        maker
    }

    /// The door is registered by a task.
    async fn until_open(&self) {
        let visitor = self.visitor().await;
        while visitor.open(self.identity.key(), Protocol::Join).await.is_err() {
            tokio::task::yield_now().await;
        }
        visitor.stop().await;
    }

    async fn visitor(&self) -> Transport {
        let visitor = Transport::outward(&Identity::generate()).await.unwrap();
        visitor.set_members(vec![Peer { key: self.identity.key(), addresses: vec![self.address()] }]);
        visitor
    }

    fn address(&self) -> String {
        self.transport.listen_address().to_string()
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            cluster: self.founding.cluster(),
            maker: self.identity.key(),
            addresses: vec![self.address()],
            secret: SECRET,
            expires: Wall(u64::MAX),
            uses: 1,
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.door.abort();
    }
}

async fn knock_as(name: &str, ticket: &Ticket) -> Result<Welcome, JoinError> {
    let addresses = ["10.0.0.9:7000".to_owned()];
    let (identity, name) = (Identity::generate(), NodeName::new(name).unwrap());
    let knocking = super::knock(&identity, ticket, &name, &addresses);
    timeout(PATIENCE, knocking).await.expect("a knock has a deadline of its own")
}

#[tokio::test]
async fn a_ticket_lets_a_stranger_in() {
    let maker = Maker::start(|welcome| welcome).await;
    let welcome = knock_as("second", &maker.ticket()).await.unwrap();
    assert_eq!(welcome.name.as_str(), "second");
    assert_eq!(welcome.founding, maker.founding);
    assert_eq!(maker.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_secret_is_shown_to_nobody_but_the_maker() {
    let (maker, other) = (Maker::start(|welcome| welcome).await, Maker::start(|welcome| welcome).await);
    let mut ticket = maker.ticket();
    ticket.addresses = vec![other.address()];
    let error = knock_as("second", &ticket).await.unwrap_err();
    assert!(matches!(&error, JoinError::WrongNode { address, .. } if *address == other.address()), "{error}");
    let expected = format!("the node at `{}` is not the one that made this ticket", other.address());
    assert_eq!(error.to_string(), expected);
    assert_eq!(other.asked.load(Ordering::SeqCst), 0);

    // A wrong node at one address does not keep the joiner from the maker at another.
    ticket.addresses.push(maker.address());
    knock_as("second", &ticket).await.unwrap();
}

#[tokio::test]
async fn each_address_that_does_not_answer_is_told_with_its_cause() {
    let maker = Maker::start(|welcome| welcome).await;
    let mut ticket = maker.ticket();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    ticket.addresses = vec![closed.clone(), "nonsense".to_owned()];
    let error = knock_as("second", &ticket).await.unwrap_err();
    assert!(matches!(&error, JoinError::Unreachable(failures) if failures.len() == 2), "{error}");
    let text = error.to_string();
    assert!(text.contains(&closed) && text.contains("refused") && text.contains("`nonsense`"), "{text}");
    ticket.addresses.clear();
    let error = knock_as("second", &ticket).await.unwrap_err();
    assert!(matches!(&error, JoinError::Unreachable(failures) if failures.is_empty()), "{error}");
}

#[tokio::test]
async fn a_refusal_comes_with_the_maker_s_words() {
    let maker = Maker::start(|welcome| welcome).await;
    let mut ticket = maker.ticket();
    ticket.secret = [0; 32];
    let error = knock_as("second", &ticket).await.unwrap_err();
    assert!(matches!(&error, JoinError::Refused { code, .. } if code == "not_allowed"), "{error}");
    assert_eq!(error.to_string(), "refused: this ticket is used up\nhint: make another with `narun ticket create`");
}

#[tokio::test]
async fn a_ticket_of_another_cluster_is_refused_before_anything_is_decided() {
    let maker = Maker::start(|welcome| welcome).await;
    let mut ticket = maker.ticket();
    ticket.cluster = ClusterId([5; 32]);
    let error = knock_as("second", &ticket).await.unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
    assert_eq!(maker.asked.load(Ordering::SeqCst), 0);
    assert_eq!(maker.transport.counters().door_other_cluster, 1);
}

#[tokio::test]
async fn a_welcome_that_does_not_check_out_is_refused() {
    let maker = Maker::start(|mut welcome| {
        welcome.founding.nonce = [2; 16];
        welcome
    })
    .await;
    let error = knock_as("second", &maker.ticket()).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherCluster { .. }), "{error}");

    let maker = Maker::start(|mut welcome| {
        welcome.admissions[0].signature[0] ^= 1;
        welcome
    })
    .await;
    let error = knock_as("second", &maker.ticket()).await.unwrap_err();
    assert!(matches!(error, JoinError::NotAdmitted), "{error}");
}

/// What comes back when these bytes are sent to the door.
async fn sent_to(maker: &Maker, bytes: &[u8]) -> Result<Answer, JoinError> {
    let visitor = maker.visitor().await;
    let mut stream = visitor.open(maker.identity.key(), Protocol::Join).await.unwrap();
    // The door may close before all is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap_or(0);
    let body = answer.get(4..).unwrap_or_default();
    minicbor::decode(body).map_err(|error| JoinError::Garbled(error.to_string()))
}

#[tokio::test]
async fn garbage_at_the_door_is_counted_and_harms_nothing() {
    let maker = Maker::start(|welcome| welcome).await;
    let began = maker.transport.counters();
    let garbage = [&[0, 0, 0, 5][..], b"hello"].concat();
    let answer = sent_to(&maker, &garbage).await.unwrap();
    assert!(matches!(answer, Answer::Refused(refused) if refused.code == "invalid"));
    let long = (REQUEST_LEN_MAX as u32 + 1).to_be_bytes();
    let answer = sent_to(&maker, &long).await.unwrap();
    assert!(matches!(answer, Answer::Refused(refused) if refused.message.contains("too long")));
    let answer = sent_to(&maker, &[0, 0]).await.unwrap();
    assert!(matches!(answer, Answer::Refused(refused) if refused.code == "invalid"));
    let counters = maker.transport.counters();
    assert_eq!(counters.door_oversized, 1);
    assert!(counters.door_garbled >= began.door_garbled + 2);

    let bad_name = Request {
        cluster: maker.founding.cluster(),
        secret: Some(SECRET),
        name: "any".to_owned(),
        addresses: Vec::new(),
        version: String::new(),
    };
    let body = minicbor::to_vec(&bad_name).unwrap();
    let framed = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    let answer = sent_to(&maker, &framed).await.unwrap();
    assert!(matches!(answer, Answer::Refused(refused) if refused.message.contains("reserved")));
    assert_eq!(maker.asked.load(Ordering::SeqCst), 0);
    knock_as("second", &maker.ticket()).await.unwrap();
}

#[tokio::test]
async fn many_knocks_at_once_are_slowed_and_told_so() {
    let maker = Maker::start(|welcome| welcome).await;
    let ticket = maker.ticket();
    let (mut welcome, mut busy) = (0, 0);
    while busy == 0 {
        let knocks = (0..8).map(|index| {
            let ticket = &ticket;
            async move { knock_as(&format!("n{index}"), ticket).await }
        });
        for knock in futures::future::join_all(knocks).await {
            match knock {
                Ok(_) => welcome += 1,
                Err(JoinError::Refused { code, .. }) if code == "unavailable" => busy += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(welcome < 1000, "the rate is not limited");
    }
    assert!(maker.transport.counters().door_pestered >= busy, "they all come from one address");
}

#[tokio::test]
async fn a_node_without_a_door_says_so() {
    let maker = Maker::start(|welcome| welcome).await;
    let ticket = maker.ticket();
    maker.door.abort();
    let visitor = maker.visitor().await;
    // The offer ends with the task.
    loop {
        match visitor.open(maker.identity.key(), Protocol::Join).await {
            Err(OpenError::Unsupported(_)) => break,
            _ => tokio::task::yield_now().await,
        }
    }
    assert!(matches!(knock_as("second", &ticket).await.unwrap_err(), JoinError::NoDoor));
}
