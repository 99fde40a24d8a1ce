//! Large clusters: what they do, how long it takes them, and how much they say to one another. They print what they measure.

use super::*;

use narun::crdt::admission::Role;
use narun::node::engine::effect::Response;
use narun::node::engine::input::{Admit, Request};
use tokio::time::Instant;

use crate::host::Host;
use crate::wish::{anywhere, on};
use crate::workload::submit;

/// Set to a number: large worlds have that many nodes. 300 and more are meant for an optimised build.
const NODES_VARIABLE: &str = "NARUN_SIM_NODES";

/// How many nodes a large world has otherwise: what an unoptimised build takes through half a minute in half a minute.
const NODES: usize = 60;

/// How many nodes each half of a cluster has that is torn apart and writes on both sides.
const HALF: usize = 20;

/// How many services each half deploys meanwhile.
const DEPLOYS: usize = 50;

/// How many bytes one node may send in the minute in which the halves meet: the other half's changes, and the reports on them,
/// a few times over; and what it says in any minute.
const HEALING_BYTES_PER_NODE_MAX: u64 = 4 << 20;

/// After how long everybody must know everybody when all join at once.
const JOINED_WITHIN: Duration = Duration::from_secs(30);

/// How often a large world is looked at: looking at all that hundreds of nodes show takes longer than what they do meanwhile.
const LOOK: Duration = Duration::from_secs(1);

fn nodes() -> usize {
    std::env::var(NODES_VARIABLE)
        .map_or(NODES, |text| text.parse().unwrap_or_else(|_| panic!("{NODES_VARIABLE}=`{text}` is not a number")))
}

/// Runs `story` in one world of `hosts` hosts, of which none has been started.
fn large<F: Future<Output = ()>>(name: &str, hosts: usize, mode: Mode, story: impl FnOnce(World) -> F) {
    let replay = format!("{NODES_VARIABLE}={hosts} cargo test --test netsim {name} -- --nocapture");
    simulate(Plan { seed: 1, hosts, mode, skew_minutes: 0, has_ledger: false }, &replay, story);
}

/// Waits until `holds`, for `limit` at most. Gives back after how long it was seen to.
async fn until(
    world: &mut World,
    limit: Duration,
    what: &str,
    holds: impl Fn(&World) -> Result<(), String>,
) -> Duration {
    let begun = Instant::now();
    while let Err(complaint) = holds(world) {
        assert!(begun.elapsed() < limit, "after {limit:?} not yet so: {what}: {complaint}");
        world.run_for(LOOK).await;
    }
    begun.elapsed()
}

async fn rests(world: &mut World) -> Duration {
    until(world, REST, "at rest", |world| invariants::at_rest(world, &[])).await
}

#[test]
fn a_large_cluster_stands_after_a_power_cut_and_carries_out_what_it_is_asked() {
    let name = "a_large_cluster_stands_after_a_power_cut_and_carries_out_what_it_is_asked";
    large(name, nodes(), Mode::Streams, async |mut world| {
        let hosts = world.hosts.len() as u64;
        world.assemble().await;
        let stood = rests(&mut world).await;

        // What a node says when nothing happens.
        world.run_for(Duration::from_secs(10)).await;
        let (before, span) = (world.fabric.bytes(), Duration::from_secs(10));
        world.run_for(span).await;
        let idle = (world.fabric.bytes() - before) / hosts / span.as_secs();

        for number in 0..5 {
            let deployment = Deployment::new(&format!("s{number}"), &format!("m{number}"), anywhere(5));
            deployed(&mut world, number, deployment).await;
        }
        let carried_out = rests(&mut world).await;
        eprintln!(
            "{hosts} nodes: all at rest {stood:?} after their start, 5 deploys carried out within {carried_out:?}; idle, a node sends {idle} B/s"
        );
    });
}

#[test]
fn all_join_at_once_and_everybody_knows_everybody() {
    let name = "all_join_at_once_and_everybody_knows_everybody";
    large(name, nodes(), Mode::Streams, async |mut world| {
        world.found(1).await;
        let secret = [9; 32];
        let uses = world.hosts.len() as u32;
        let ticket = Request::CreateTicket { ttl: Duration::from_secs(600), uses, role: Role::MEMBER, secret };
        assert!(matches!(world.ask(0, ticket).await, Some(Ok(Response::Ticket(_)))));
        let (begun, before) = (Instant::now(), world.fabric.bytes());
        let knock = |joiner: &Host| {
            world.journal.admit(joiner.key);
            let admit = Admit { key: joiner.key, name: joiner.name.clone(), addresses: joiner.addresses(), secret };
            let door = world.handle(0);
            tokio::spawn(async move { door.request(Request::Admit(admit)).await })
        };
        let knocks: Vec<_> = world.hosts[1..].iter().map(knock).collect();
        for (joiner, knock) in (1..).zip(knocks) {
            match world.answer(knock).await {
                Ok(Response::Admitted(welcome)) => world.hosts[joiner].belong(&welcome.founding, Some(&welcome)),
                other => panic!("n{joiner} was not admitted: {other:?}"),
            }
            world.hosts[joiner].start().await;
        }
        until(&mut world, JOINED_WITHIN, "everybody alive", |world| {
            invariants::convergence::members_see_one_another(world, &[])
        })
        .await;
        until(&mut world, JOINED_WITHIN, "equal rosters", invariants::convergence::rosters_agree).await;
        let (took, hosts) = (begun.elapsed(), world.hosts.len() as u64);
        let bytes = (world.fabric.bytes() - before) / hosts;
        eprintln!("{hosts} nodes that join at once: everybody knows everybody after {took:?}; a node sent {bytes} B");
        assert!(took <= JOINED_WITHIN);
    });
}

#[test]
fn two_halves_that_both_wrote_meet_without_a_storm() {
    large("two_halves_that_both_wrote_meet_without_a_storm", 2 * HALF, Mode::Streams, async |mut world| {
        world.assemble().await;
        rests(&mut world).await;
        let side: Vec<_> = world.hosts[..HALF].iter().map(|host| host.key).collect();
        world.fabric.partition(&side);
        world.run_for(Duration::from_secs(20)).await;
        for number in 0..DEPLOYS {
            for (half, host) in [("left", number % HALF), ("right", HALF + number % HALF)] {
                let name = format!("{half}{number}");
                submit(&world, host, Wish::Deploy(Deployment::new(&name, &name, on(&[host], 1))), 1);
            }
            world.run_for(Duration::from_millis(200)).await;
        }
        world.run_for(Duration::from_secs(5)).await;
        let before = world.fabric.bytes();
        world.fabric.heal_all();
        let took = rests(&mut world).await;
        world.run_for(Duration::from_secs(60).saturating_sub(took)).await;
        let bytes = (world.fabric.bytes() - before) / (2 * HALF) as u64;
        eprintln!(
            "two halves of {HALF} nodes with {DEPLOYS} deploys each: at rest {took:?} after healing; a node sent {bytes} B in the \
             minute from then on"
        );
        assert_eq!(world.journal.acknowledged(), 2 * DEPLOYS);
        assert!(bytes <= HEALING_BYTES_PER_NODE_MAX, "{bytes} bytes a node");
    });
}
