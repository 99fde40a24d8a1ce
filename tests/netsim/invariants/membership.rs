//! Members are known by admission alone: nobody appears whom no member let in.

use std::sync::Arc;

use crate::world::World;

/// No node shows a member that was never let in, or two of one name.
pub(crate) fn only_by_admission(world: &mut World) {
    let mut admitted = None;
    for host in world.up() {
        let view = world.view(host);
        // Looking at what was looked at already is what large worlds would do most of the time.
        if world.looked_at.get(&host).is_some_and(|before| Arc::ptr_eq(before, &view.nodes)) {
            continue;
        }
        world.looked_at.insert(host, view.nodes.clone());
        let admitted = admitted.get_or_insert_with(|| world.journal.admitted());
        for node in view.nodes.iter().filter(|node| !admitted.contains(&node.key)) {
            let text = format!("n{host} shows {} ({}), whom nobody let in", node.name, node.key.short());
            world.trace.violated("members by admission", &text);
        }
        if let Some(pair) = view.nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            world.trace.violated("members by admission", &format!("n{host} shows two nodes `{}`", pair[0].name));
        }
    }
}
