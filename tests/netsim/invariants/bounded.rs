//! Queues and traffic stay within limits. The disk and the network look after their own queues and sizes.

use crate::world::World;

/// Most runs that a keeper of these worlds may hold: instances there are few, and an exit is acknowledged soon.
const HELD_MAX: usize = 200;

/// Most messages a node of these worlds may send in a second, over a minute: probing costs a few, anti-entropy a few, and a
/// change goes to each other node once or twice.
const SENT_PER_SECOND_MAX: u64 = 400;

/// Nothing grows without bound.
pub(crate) fn all_along(world: &World) {
    for host in &world.hosts {
        let held = host.keeper.held();
        if held > HELD_MAX {
            world.trace.violated("bounded", &format!("the keeper of {} holds {held} runs", host.name));
        }
    }
    for host in world.up() {
        let overlooked = world.view(host).overlooked;
        if overlooked > 0 {
            world.trace.violated(
                "an incremental settle equals one over everything",
                &format!("n{host}: {overlooked} times not"),
            );
        }
    }
    let (sent, seconds) = world.fabric.sent();
    let allowed = SENT_PER_SECOND_MAX * world.hosts.len() as u64 * (seconds + 60);
    if sent > allowed {
        world.trace.violated("bounded", &format!("{sent} messages in {seconds} s"));
    }
}
