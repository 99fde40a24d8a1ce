//! How fast the simulator is: one fixed world, without faults, with users who go on wishing. `benches/run.sh` runs it.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::network::Mode;
use crate::random;
use crate::workload;
use crate::world::{Plan, World, simulate};

/// As many hosts as in the cluster whose real nodes are measured.
const HOSTS: usize = 10;

/// Long enough that founding the cluster does not count for much.
const SPAN: Duration = Duration::from_secs(300);

const SEED: u64 = 1;

/// Users who ask for something now and then, as in the random worlds.
async fn wishes(mut world: World) {
    world.found(HOSTS).await;
    let mut stream = random::stream(SEED, "workload");
    let start = Instant::now();
    while start.elapsed() < SPAN {
        workload::random_wish(&world, &mut stream);
        world.run_for(Duration::from_millis(stream.random_range(50..4_000))).await;
    }
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let plan = Plan { seed: SEED, hosts: HOSTS, mode: Mode::Streams, skew_minutes: 0, has_ledger: false };
    let began = std::time::Instant::now();
    simulate(plan, "cargo test --test netsim speed -- --ignored --nocapture", wishes);
    let node_seconds = SPAN.as_secs_f64() * HOSTS as f64;
    let rate = node_seconds / began.elapsed().as_secs_f64();
    eprintln!("simulated node-seconds per second: {rate:.0}");
    assert!(rate > 1.0, "the simulator is slower than the world: {rate}");
}
