//! Who belongs to the cluster: removal, leaving, names that two want.

use super::*;

use narun::crdt::admission::Role;
use narun::crdt::trust::GoneCause;
use narun::node::engine::effect::Refusal;
use narun::node::engine::input::{Admit, Request};

use crate::host::Host;
use crate::wish::{anywhere, everywhere, on};

/// How long the news of a removal may take to all who can hear it, and the end of the removed node with it.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

fn split(world: &World, side: &[usize]) {
    let side: Vec<_> = side.iter().map(|host| world.hosts[*host].key).collect();
    world.fabric.partition(&side);
}

async fn remove(world: &mut World, at: usize, host: usize) {
    let node = world.hosts[host].name.clone();
    let answer = world.ask(at, Request::RemoveNode { node }).await;
    assert_eq!(answer, Some(Ok(Response::Removed { existed: true })));
    world.journal.strike(world.hosts[host].key);
}

/// Waits until no node that runs shows these hosts' nodes, and those have ended and run nothing.
async fn gone(world: &mut World, hosts: &[usize]) {
    world
        .until(HEARD_WITHIN, "gone", |world| {
            for host in hosts {
                let it = &world.hosts[*host];
                if it.gone.is_none() || it.belongs() {
                    return Err(format!("{} has not heard of it", it.name));
                }
                if let Some(other) = world.up().into_iter().find(|other| shows(world, *other, it)) {
                    return Err(format!("n{other} shows {}", it.name));
                }
                assert!(it.keeper.living().is_empty(), "{} is no member and still runs something", it.name);
            }
            Ok(())
        })
        .await;
}

fn shows(world: &World, host: usize, other: &Host) -> bool {
    world.view(host).nodes.iter().any(|node| node.key == other.key)
}

#[test]
fn a_removed_node_is_cut_off_ends_and_its_work_goes_on_elsewhere() {
    scenario("a_removed_node_is_cut_off_ends_and_its_work_goes_on_elsewhere", 5, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "a", anywhere(5))).await;
        at_rest(&mut world, &[]).await;
        // The one that let the next host in: whom it let in stays.
        remove(&mut world, 3, 1).await;
        gone(&mut world, &[1]).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(living(&world, "web").len(), 5);
        assert!(matches!(world.hosts[1].gone.as_ref().map(|gone| &gone.cause), Some(GoneCause::Removed { .. })));
        assert_eq!(world.up(), [0, 2, 3, 4]);
        // It holds through a restart of everything.
        for host in world.up() {
            world.kill(host).await;
        }
        world.heal(&[1]).await;
        at_rest(&mut world, &[]).await;
        assert!(world.up().iter().all(|host| !shows(&world, *host, &world.hosts[1])));
    });
}

#[test]
fn a_node_that_was_removed_while_it_was_away_hears_of_it_when_it_comes_back() {
    scenario("a_node_that_was_removed_while_it_was_away_hears_of_it_when_it_comes_back", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("agent", "a", everywhere(1))).await;
        at_rest(&mut world, &[]).await;
        // Its process alone: the instances go on without it.
        world.crash(2).await;
        remove(&mut world, 0, 2).await;
        world.run_for(Duration::from_secs(5)).await;
        world.start(2).await;
        gone(&mut world, &[2]).await;
        at_rest(&mut world, &[]).await;
    });
}

#[test]
fn the_founder_can_be_removed_and_all_others_stay() {
    scenario("the_founder_can_be_removed_and_all_others_stay", 4, async |mut world| {
        world.kill(0).await;
        remove(&mut world, 3, 0).await;
        at_rest(&mut world, &[0]).await;
        deployed(&mut world, 1, Deployment::new("web", "a", anywhere(3))).await;
        world.start(0).await;
        gone(&mut world, &[0]).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(world.up(), [1, 2, 3]);
    });
}

#[test]
fn a_side_that_was_cut_off_learns_of_a_removal_when_it_heals() {
    scenario("a_side_that_was_cut_off_learns_of_a_removal_when_it_heals", 5, async |mut world| {
        split(&world, &[3, 4]);
        world.run_for(Duration::from_secs(15)).await;
        remove(&mut world, 0, 4).await;
        deployed(&mut world, 3, Deployment::new("web", "m", on(&[4], 2))).await;
        world.run_for(Duration::from_secs(10)).await;
        assert!(shows(&world, 3, &world.hosts[4]), "nobody told n3");
        world.fabric.heal_all();
        gone(&mut world, &[4]).await;
        world.until(REST, "the others agree", crate::invariants::convergence::catalogs_agree).await;
    });
}

#[test]
fn two_that_remove_one_another_on_two_sides_do_not_both_go() {
    scenario("two_that_remove_one_another_on_two_sides_do_not_both_go", 4, async |mut world| {
        split(&world, &[2, 3]);
        world.run_for(Duration::from_secs(15)).await;
        remove(&mut world, 1, 2).await;
        let node = world.hosts[1].name.clone();
        let back = world.ask(2, Request::RemoveNode { node }).await;
        assert_eq!(back, Some(Ok(Response::Removed { existed: true })));
        world.run_for(Duration::from_secs(5)).await;
        world.fabric.heal_all();
        gone(&mut world, &[2]).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(world.up(), [0, 1, 3]);
    });
}

#[test]
fn who_leaves_is_gone_from_everywhere_and_its_name_is_free() {
    scenario("who_leaves_is_gone_from_everywhere_and_its_name_is_free", 4, async |mut world| {
        deployed(&mut world, 0, Deployment::new("web", "a", anywhere(4))).await;
        at_rest(&mut world, &[]).await;
        assert_eq!(world.ask(1, Request::Leave).await, Some(Ok(Response::Left)));
        world.journal.strike(world.hosts[1].key);
        gone(&mut world, &[1]).await;
        at_rest(&mut world, &[]).await;
        assert!(matches!(world.hosts[1].gone.as_ref().map(|gone| &gone.cause), Some(GoneCause::Left(_))));
        assert_eq!(living(&world, "web").len(), 4);
        let again = admission(&mut world, 0, 1).await;
        assert!(again.is_err_and(|refusal| refusal.message.contains("left the cluster")), "the key does not come back");
    });
}

#[test]
fn the_last_member_and_one_that_nobody_hears_cannot_leave() {
    scenario("the_last_member_and_one_that_nobody_hears_cannot_leave", 2, async |mut world| {
        split(&world, &[1]);
        world.run_for(Duration::from_secs(20)).await;
        let alone = world.ask(1, Request::Leave).await;
        assert!(matches!(&alone, Some(Err(refusal)) if refusal.message.contains("no other member")), "{alone:?}");
        world.fabric.heal_all();
        at_rest(&mut world, &[]).await;
        assert_eq!(world.ask(1, Request::Leave).await, Some(Ok(Response::Left)));
        world.journal.strike(world.hosts[1].key);
        gone(&mut world, &[1]).await;
        let last = world.ask(0, Request::Leave).await;
        assert!(matches!(&last, Some(Err(refusal)) if refusal.message.contains("only member")), "{last:?}");
    });
}

/// The host asks to be let in by `member` under its own name, or under another host's.
async fn admission(world: &mut World, member: usize, host: usize) -> Result<Response, Refusal> {
    let secret = [77; 32];
    let ticket = Request::CreateTicket { ttl: Duration::from_secs(60), uses: 1, role: Role::MEMBER, secret };
    world.ask(member, ticket).await.expect("it answers")?;
    let Host { key, name, .. } = &world.hosts[host];
    let admit = Admit { key: *key, name: name.clone(), addresses: world.hosts[host].addresses(), secret };
    world.ask(member, Request::Admit(admit)).await.expect("it answers")
}

#[test]
fn of_two_hosts_let_in_under_one_name_on_two_sides_the_later_one_goes() {
    scenario("of_two_hosts_let_in_under_one_name_on_two_sides_the_later_one_goes", 5, async |mut world| {
        split(&world, &[2, 3, 4]);
        world.run_for(Duration::from_secs(15)).await;
        // Two keys that no host has: what matters is what the others make of them.
        let (first, second) = (crate::host::key_of("first"), crate::host::key_of("second"));
        for (member, key) in [(0, first), (3, second)] {
            world.journal.admit(key);
            let secret = [78; 32];
            let ttl = Duration::from_secs(60);
            let ticket = Request::CreateTicket { ttl, uses: 1, role: Role::MEMBER, secret };
            world.ask(member, ticket).await.expect("it answers").expect("a ticket");
            let name = narun::ids::NodeName::new("twin").expect("a good name");
            let admit = Admit { key, name, addresses: Vec::new(), secret };
            world.ask(member, Request::Admit(admit)).await.expect("it answers").expect("nobody there has that name");
            world.run_for(Duration::from_secs(2)).await;
        }
        world.fabric.heal_all();
        world
            .until(Duration::from_secs(30), "one of them stays", |world| {
                for host in world.up() {
                    let view = world.view(host);
                    let twins: Vec<_> = view.nodes.iter().filter(|node| node.name.as_str() == "twin").collect();
                    if twins.iter().map(|node| node.key).collect::<Vec<_>>() != [first] {
                        return Err(format!("n{host} shows {twins:?}"));
                    }
                }
                Ok(())
            })
            .await;
        // The later one is told why, when it asks, by whoever has heard of both: the side that let it in, before all others.
        let answer = world.ask(3, Request::Standing { key: second }).await;
        assert!(matches!(answer, Some(Ok(Response::Standing(proof))) if !proof.is_empty()));
    });
}
