//! After healing, every binary of a kept revision lies whole on as many nodes as it should.

use crate::world::World;

/// How many members hold each binary: enough that the loss of any two nodes loses none.
const COPIES: usize = 3;

/// Every binary that a kept revision names is on that many hosts that are up, or on as many fewer as hosts are dead: a copy that
/// is theirs by right is not made elsewhere. What only the dead hold comes back with them.
pub(crate) fn of_every_binary(world: &World) -> Result<(), String> {
    let up = world.up();
    let Some(view) = up.first().map(|host| world.view(*host)) else { return Ok(()) };
    let members = (0..world.hosts.len()).filter(|host| world.is_member(*host)).count();
    let wanted = COPIES.min(members).saturating_sub(members.saturating_sub(up.len())).max(1);
    for image in view.services.iter().flat_map(|service| &service.history).flat_map(|revision| &revision.images) {
        let holders: Vec<usize> =
            (0..world.hosts.len()).filter(|host| world.hosts[*host].shelf.holds(&image.hash)).collect();
        let live = holders.iter().filter(|host| up.contains(host)).count();
        let asleep = live == 0 && !holders.is_empty();
        if live < wanted && !asleep {
            return Err(format!("`{}` of `{}` is on {live} hosts", image.hash.short(), image.file_name));
        }
    }
    Ok(())
}
