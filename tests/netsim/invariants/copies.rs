//! After healing, every binary of a kept revision lies whole on as many nodes as it should.

use crate::world::World;

/// How many members hold each binary: enough that the loss of any two nodes loses none.
const COPIES: usize = 3;

/// Every binary that a kept revision names is on that many hosts, or on all that are up.
pub(crate) fn of_every_binary(world: &World) -> Result<(), String> {
    let up = world.up();
    let Some(view) = up.first().map(|host| world.view(*host)) else { return Ok(()) };
    // While hosts are dead, a copy that is theirs by right is not made elsewhere: they hold it, or fetch it when they return.
    let members = world.hosts.iter().filter(|host| host.belongs()).count();
    let absent = members - up.len();
    let wanted = COPIES.min(members).saturating_sub(absent).max(1);
    for image in view.services.iter().flat_map(|service| &service.history).flat_map(|revision| &revision.images) {
        let holders = up.iter().filter(|host| world.hosts[**host].shelf.holds(&image.hash)).count();
        if holders < wanted {
            return Err(format!("`{}` of `{}` is on {holders} hosts", image.hash.short(), image.file_name));
        }
    }
    Ok(())
}
