//! Who comes and who goes: hosts join, leave and are removed while everything else goes wrong.
//!
//! One host is the *porter*: it alone lets in and removes, and never goes itself. What several members say of one another on two
//! sides of a partition is decided by rules of their own, with named scenarios (`scenarios/belonging.rs`); here it must follow
//! from what was asked for alone who is a member in the end. What nobody was answered is asked again after healing.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;

use narun::crdt::admission::Role;
use narun::node::engine::effect::Response;
use narun::node::engine::input::{Admit, Request};

use crate::random::{self, Stream};
use crate::world::World;

/// How many members there are at least: below that, nobody goes.
const MEMBERS_MIN: usize = 3;

/// How long healed hosts may take until they answer the porter's last questions.
const WORD_SPREADS: Duration = Duration::from_secs(15);

/// What is still to happen, and what is not known to have happened.
pub(crate) struct Comings {
    stream: Stream,
    porter: usize,
    /// Hosts that have not asked to be let in.
    outside: Vec<usize>,
    /// Asked, and not answered.
    at_the_door: BTreeSet<usize>,
    /// To go, and nobody said that they are gone.
    to_go: BTreeSet<usize>,
}

/// How many hosts a world has beside those that found its cluster: none in most, where nobody goes either.
pub(crate) fn outsiders(seed: u64) -> usize {
    let mut stream = random::stream(seed, "comings");
    if stream.random_bool(0.4) { stream.random_range(1..=2) } else { 0 }
}

impl Comings {
    /// Of a world in which the first `founders` hosts found the cluster.
    pub(crate) fn new(world: &World, founders: usize) -> Self {
        let mut stream = random::stream(world.plan.seed, "goings");
        let porter = stream.random_range(0..founders);
        let outside = (founders..world.hosts.len()).collect();
        Self { stream, porter, outside, at_the_door: BTreeSet::new(), to_go: BTreeSet::new() }
    }

    /// When something happens next, counted from now.
    pub(crate) fn pause(&mut self) -> Duration {
        random::millis(&mut self.stream, 2_000, 15_000)
    }

    /// Somebody comes or goes, if the porter runs and all know of one another.
    pub(crate) async fn happen(&mut self, world: &mut World) {
        if !world.runs(self.porter) || !self.is_known(world) {
            return;
        }
        if self.stream.random_bool(0.5)
            && let Some(joiner) = self.outside.pop()
        {
            self.at_the_door.insert(joiner);
            return self.let_in(world, joiner).await;
        }
        let may_go = |host: &usize| *host != self.porter && world.is_member(*host) && !self.to_go.contains(host);
        let may_go: Vec<usize> = (0..world.hosts.len()).filter(may_go).collect();
        if may_go.len() < MEMBERS_MIN {
            return;
        }
        let host = *random::pick(&mut self.stream, &may_go);
        if self.stream.random_bool(0.4) && world.runs(host) {
            self.leave(world, host).await;
        } else {
            self.to_go.insert(host);
            self.remove(world, host).await;
        }
    }

    /// What is not known to have happened happens now: all that is broken was healed, and the porter runs.
    pub(crate) async fn finish(&mut self, world: &mut World) {
        if self.at_the_door.is_empty() && self.to_go.is_empty() {
            return;
        }
        world.run_for(WORD_SPREADS).await;
        for joiner in self.at_the_door.clone() {
            self.let_in(world, joiner).await;
            assert!(!self.at_the_door.contains(&joiner), "n{joiner} is not let in although all is well");
        }
        for host in self.to_go.clone() {
            self.remove(world, host).await;
            assert!(!self.to_go.contains(&host), "n{host} cannot be removed although all is well");
        }
    }

    /// The host that must not be dead in the end.
    pub(crate) fn porter(&self) -> usize {
        self.porter
    }

    /// Whether all who run know the porter, and the porter knows all members: whose admission nobody has heard of but a member that
    /// goes is no member any more.
    fn is_known(&self, world: &World) -> bool {
        let shows = |host: usize, other: usize| {
            let key = world.hosts[other].key;
            world.view(host).nodes.iter().any(|node| node.key == key)
        };
        let members = (0..world.hosts.len()).filter(|host| world.is_member(*host));
        let up = world.up();
        up.iter().all(|host| shows(*host, self.porter)) && members.into_iter().all(|host| shows(self.porter, host))
    }

    async fn let_in(&mut self, world: &mut World, joiner: usize) {
        let secret = *blake3::hash(&joiner.to_be_bytes()).as_bytes();
        let ticket = Request::CreateTicket { ttl: Duration::from_secs(600), uses: 2, role: Role::MEMBER, secret };
        // A second ticket with this secret is refused, and the first one still good.
        let _ = world.ask(self.porter, ticket).await;
        if !world.runs(self.porter) {
            return;
        }
        let host = &world.hosts[joiner];
        world.journal.admit(host.key);
        let admit = Admit { key: host.key, name: host.name.clone(), addresses: host.addresses(), secret };
        if let Some(Ok(Response::Admitted(welcome))) = world.ask(self.porter, Request::Admit(admit)).await {
            world.hosts[joiner].belong(&welcome.founding, Some(&welcome));
            self.at_the_door.remove(&joiner);
            world.start(joiner).await;
        }
    }

    async fn remove(&mut self, world: &mut World, host: usize) {
        let node = world.hosts[host].name.clone();
        world.trace.record(node.as_str(), "to be removed", &[]);
        if let Some(Ok(Response::Removed { .. })) = world.ask(self.porter, Request::RemoveNode { node }).await {
            world.journal.strike(world.hosts[host].key);
            self.to_go.remove(&host);
        }
    }

    async fn leave(&mut self, world: &mut World, host: usize) {
        world.trace.record(world.hosts[host].name.as_str(), "to leave", &[]);
        match world.ask(host, Request::Leave).await {
            Some(Ok(Response::Left)) => world.journal.strike(world.hosts[host].key),
            // Some may have heard of it. Whoever has begun to leave is to go.
            None => drop(self.to_go.insert(host)),
            Some(answer) => {
                world.trace.record(world.hosts[host].name.as_str(), &format!("{answer:?}"), &[]);
                if !world.runs(host) || !world.hosts[host].belongs() {
                    self.to_go.insert(host);
                }
            }
        }
    }
}
