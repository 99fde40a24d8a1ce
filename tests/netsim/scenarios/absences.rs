//! Hosts that come back after a long time.

use super::*;

use narun::crdt::catalog::DocKey;
use narun::gossip::sync::REPAIR_BYTES_MAX;
use narun::ids::BlobHash;
use narun::node::engine::effect::Table;

use crate::wish::{anywhere, on};
use crate::workload::submit;

/// For how long all that agree must do so before histories end, and the minute in which they look.
const AGREED: Duration = Duration::from_secs(3_600 + 180);

/// How long the one who comes back may take to know everything again.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(30);

/// One world: what happens here takes hours, of which each costs seconds.
fn one_world<F: Future<Output = ()>>(name: &str, hosts: usize, mode: Mode, story: impl FnOnce(World) -> F) {
    let replay = format!("cargo test --test netsim {name} -- --nocapture");
    simulate(Plan { seed: 1, hosts, mode, skew_minutes: 2, has_ledger: false }, &replay, story);
}

fn row(world: &World, host: usize, table: Table, service: &str) -> Option<Vec<u8>> {
    let key = DocKey::service(&service_name(service));
    world.hosts[host].platter().table(table).remove(key.as_bytes())
}

fn shows(world: &World, host: usize, service: &str) -> bool {
    world.view(host).services.iter().any(|shown| shown.name == service_name(service))
}

#[test]
fn a_host_that_was_off_for_eight_days_brings_nothing_back_and_loses_nothing() {
    let name = "a_host_that_was_off_for_eight_days_brings_nothing_back_and_loses_nothing";
    one_world(name, 4, Mode::Streams, async |mut world| {
        let (away, late) = (2, 3);
        world.found(3).await;
        deployed(&mut world, 0, Deployment::new("old", "o", anywhere(2))).await;
        deployed(&mut world, 1, Deployment::new("busy", "b", anywhere(1))).await;
        at_rest(&mut world, &[]).await;
        world.run_for(Duration::from_secs(70)).await;
        // What it writes while it is cut off, nobody hears of before it goes.
        let key = world.hosts[away].key;
        world.fabric.partition(&[key]);
        world.run_for(Duration::from_secs(15)).await;
        deployed(&mut world, away, Deployment::new("mine", "m", on(&[0], 1))).await;
        world.kill(away).await;

        done(&mut world, 0, Wish::Delete(service_name("old"))).await;
        for number in 0..110 {
            let replicas = number % 2 + 1;
            done(&mut world, 1, Wish::Scale { service: service_name("busy"), node: None, replicas }).await;
        }
        world.run_for(Duration::from_secs(70)).await;
        let long = row(&world, 1, Table::Catalog, "busy").map_or(0, |row| row.len());
        for host in [0, 1] {
            world.kill(host).await;
        }
        world.pass(Duration::from_secs(8 * 24 * 3_600)).await;
        world.fabric.heal_all();
        for host in [0, 1] {
            world.start(host).await;
        }
        world.run_for(AGREED).await;
        for host in [0, 1] {
            assert!(row(&world, host, Table::Catalog, "old").is_none(), "n{host} still has the tombstone");
            assert!(row(&world, host, Table::Forgotten, "old").is_some(), "n{host} remembers it");
            let short = row(&world, host, Table::Catalog, "busy").map_or(0, |row| row.len());
            assert!(2 * short < long, "n{host} has ended no history: {short} of {long} bytes");
            assert!(!world.hosts[host].shelf.holds(&BlobHash::of(b"o")), "n{host} keeps a binary that nothing names");
        }

        // One who joins now has never heard of what was deleted, and it is the first whom the other meets.
        world.join(late, 0).await;
        at_rest(&mut world, &[away]).await;
        for other in [0, 1] {
            world.fabric.cut(key, world.hosts[other].key);
            world.fabric.cut(world.hosts[other].key, key);
        }
        world.start(away).await;
        watch(&mut world, Duration::from_secs(20), |world| {
            assert!(!shows(world, late, "old"), "what was deleted is back");
        })
        .await;
        world.fabric.heal_all();
        watch(&mut world, Duration::from_secs(60), |world| {
            assert!(![0, 1, late].into_iter().any(|host| shows(world, host, "old")), "what was deleted is back");
        })
        .await;
        at_rest(&mut world, &[]).await;
        assert!((0..4).all(|host| !shows(&world, host, "old") && shows(&world, host, "mine")));
        assert!(row(&world, away, Table::Forgotten, "old").is_some());
    });
}

/// How many services are deployed while a host is away.
const CHANGED: usize = 500;

#[test]
fn one_who_was_away_catches_up_and_nobody_is_flooded() {
    one_world("one_who_was_away_catches_up_and_nobody_is_flooded", 5, Mode::Streams, async |mut world| {
        let away = 4;
        world.found(5).await;
        at_rest(&mut world, &[]).await;
        world.kill(away).await;
        for number in 0..CHANGED {
            let host = number % away;
            let deployment = Deployment::new(&format!("s{number}"), &format!("m{number}"), on(&[host], 1));
            // One binary for all: what is looked at here is what is said of them.
            submit(&world, host, Wish::Deploy(Deployment { blob: BlobHash::of(b"one"), ..deployment }), 1);
            if host == 0 {
                world.run_for(Duration::from_millis(100)).await;
            }
        }
        let all_taken = |world: &World| match world.journal.acknowledged() {
            CHANGED => Ok(()),
            count => Err(format!("{count} of them")),
        };
        world.until(REST, "all deploys are taken", all_taken).await;
        at_rest(&mut world, &[away]).await;
        let sizes = |table| world.hosts[0].platter().table(table).values().map(|row| row.len() as u64).sum::<u64>();
        let all = sizes(Table::Catalog) + sizes(Table::Roster);
        let key = world.hosts[away].key;
        for (from, to) in (0..away).flat_map(|other| [(other, away), (away, other)]) {
            world.fabric.take_carried(world.hosts[from].key, world.hosts[to].key);
        }
        world.start(away).await;
        let begun = tokio::time::Instant::now();
        world.until(CAUGHT_UP_WITHIN, "caught up", invariants::convergence::catalogs_agree).await;
        world.until(CAUGHT_UP_WITHIN, "caught up", invariants::convergence::rosters_agree).await;
        let took = begun.elapsed();
        world.run_for(Duration::from_secs(20)).await;
        let (mut given, mut taken) = (0, 0);
        for other in 0..away {
            let (to, from) = (
                world.fabric.take_carried(world.hosts[other].key, key),
                world.fabric.take_carried(key, world.hosts[other].key),
            );
            eprintln!("n{other}: sent {to:?}, got {from:?}");
            // Room beyond the budget: the last document that fitted, and the names that stand around each.
            assert!(to.longest <= (REPAIR_BYTES_MAX + (64 << 10)) as u64, "a message of {} bytes", to.longest);
            given += to.bytes;
            taken = taken.max(from.bytes);
        }
        eprintln!("{CHANGED} documents and records, {all} bytes on disk: caught up in {took:?}, given {given} bytes");
        assert!(given <= all * 3 / 2, "it was told more than it lacked, once: {given} of {all} bytes");
        assert!(taken <= all / 4, "it told another {taken} bytes, and had nothing to tell");
    });
}
