//! Hostile peers against a real node: garbage, floods, strangers, and members that lie.
//!
//! The attackers live in the test: narun's own transport with keys of their own, made to say anything, and bare TCP. After each
//! attack the node must be up, its memory bounded, its catalog and its members as before; it must answer and take a deploy; and what
//! was done to it must stand in `narun status` under its own name.

mod floods;
mod strangers;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use narun::crdt::ticket::Ticket;
use narun::gossip::join;
use narun::gossip::transport::{Protocol, Stream, Transport, TransportConfig};
use narun::ids::{NodeKey, NodeName};
use narun::node::engine::effect::Peer;
use narun::node::engine::input::{Input, NetworkEvent};
use narun::node::identity::Identity;
use tokio::sync::mpsc;

use crate::cluster::{Cluster, Node, WAIT_MAX, eventually, text};

/// How much memory an attack may cost: the queues of all the attackers of a test at their limits, with room.
const GROWTH_MAX: u64 = 192 << 20;

/// A node under attack.
struct Victim {
    cluster: Cluster,
    key: NodeKey,
    address: SocketAddr,
    members: Vec<(String, String)>,
    memory: u64,
    deploys: u32,
}

impl Victim {
    fn start() -> Self {
        let cluster = Cluster::start(1);
        let me = cluster[0].json(&["node", "info", "n1"]);
        let key = data_encoding::HEXLOWER.decode(text(&me["key"]).as_bytes()).expect("a key in hexadecimal");
        let key = NodeKey(key.try_into().expect("thirty-two bytes"));
        let address = text(&me["addresses"][0]).parse().expect("an address");
        let memory = memory(&cluster[0]);
        Self { members: cluster[0].members(), cluster, key, address, memory, deploys: 0 }
    }

    fn node(&self) -> &Node {
        &self.cluster[0]
    }

    fn peer(&self) -> Peer {
        Peer { key: self.key, addresses: vec![self.address.to_string()] }
    }

    fn ticket(&self, uses: u32) -> Ticket {
        let made = self.node().ok(&["ticket", "create", "--uses", &uses.to_string()]);
        made.trim().parse().expect("a ticket")
    }

    /// How often this happened, by `narun status`.
    fn counted(&self, name: &str) -> u64 {
        self.node().json(&["status"])["network"][name].as_u64().unwrap_or(0)
    }

    fn until_counted(&self, name: &str, least: u64) {
        eventually(&format!("{least} {name}"), || (self.counted(name) >= least).then_some(()));
    }

    /// What `narun status` says is wrong with this member.
    fn problems_of(&self, name: &str) -> Vec<String> {
        let status = self.node().json(&["status"]);
        let problems = status["problems"].as_array().expect("a list").iter();
        problems.filter(|problem| problem["subject"] == name).map(|problem| text(&problem["message"])).collect()
    }

    /// The node is as it was, and does its work.
    fn is_well(&mut self) {
        let asked = Instant::now();
        assert_eq!(self.node().members().len(), self.members.len(), "{:?}", self.node().members());
        assert!(asked.elapsed() < Duration::from_secs(10), "it answered after {:?}", asked.elapsed());
        self.deploys += 1;
        let tag = format!("v{}", self.deploys);
        let sleeper = self.cluster.script("sleeper", &format!("# {tag}\nexec sleep 600"));
        self.node().ok(&["deploy", "--name", "web", "--tag", &tag, "--node", "n1", &sleeper]);
        self.node().running("web", 1);
        let grown = memory(self.node()).saturating_sub(self.memory);
        assert!(grown < GROWTH_MAX, "it takes {} MiB more than before", grown >> 20);
        assert!(!self.node().log().contains("panicked"), "{}", self.node().log());
    }
}

/// The resident memory of a node, in bytes.
fn memory(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("the node lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kilobytes << 10
}

/// Somebody with a key.
struct Attacker {
    transport: Transport,
    inputs: mpsc::Receiver<Input>,
}

impl Attacker {
    /// Somebody who dials the victim, whoever the victim thinks that is.
    async fn of(identity: Identity, victim: &Victim) -> Self {
        let (sender, inputs) = mpsc::channel(4096);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = TransportConfig { identity, listen };
        let transport = Transport::start(config, sender).await.expect("a transport on loopback");
        transport.set_members(vec![victim.peer()]);
        Self { transport, inputs }
    }

    async fn stranger(victim: &Victim) -> Self {
        Self::of(Identity::generate(), victim).await
    }

    /// A member, let in by a ticket as everybody is, and connected.
    async fn member(victim: &mut Victim, name: &str) -> Self {
        let identity = Identity::generate();
        let node_name = NodeName::new(name).expect("a good name");
        let ticket = victim.ticket(1);
        join::knock(&identity, &ticket, &node_name, &[]).await.expect("the ticket is good");
        let mut attacker = Self::of(identity, victim).await;
        attacker.connected().await;
        victim.members = victim.node().members();
        attacker
    }

    async fn connected(&mut self) {
        let connected =
            async { while !matches!(self.inputs.recv().await, Some(Input::Network(NetworkEvent::Connected(_)))) {} };
        tokio::time::timeout(WAIT_MAX, connected).await.expect("the victim greets a member");
    }

    /// A stream, if it is let have one.
    async fn open(&self, victim: &Victim, protocol: Protocol) -> Option<Stream> {
        self.transport.open(victim.key, protocol).await.ok()
    }

    fn send(&self, victim: &Victim, bytes: Vec<u8>) {
        self.transport.network().send(victim.key, bytes);
    }

    /// The next message of the victim that `wanted` makes something of.
    async fn message<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(Input::Network(NetworkEvent::Message { bytes, .. })) = self.inputs.recv().await
                    && let Some(found) = wanted(&bytes)
                {
                    return found;
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, found).await.expect("the victim says so")
    }
}

/// Runs an attack; the commands that a test gives in between block, which does not hold the attackers up.
fn attack(attack: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(attack);
    runtime.shutdown_background();
}
