//! What was acknowledged is kept: through the crash of the node that took it, and in the end everywhere. What was deleted does
//! not come back.

use narun::node::engine::view::View;

use crate::journal::Journal;
use crate::world::World;

/// The node on `host` was started on what its disk held and has heard nothing yet: it knows all that it acknowledged.
pub(crate) fn after_a_restart(world: &World, host: usize) {
    if let Err(text) = keeps(&world.journal, &[host], &world.view(host)) {
        world.trace.violated("acknowledged writes survive a crash", &format!("n{host} {text}"));
    }
}

/// Every node knows all that any node acknowledged that is not dead, and nothing that nobody asked for.
pub(crate) fn kept_everywhere(world: &World) -> Result<(), String> {
    let up = world.up();
    for host in &up {
        let view = world.view(*host);
        keeps(&world.journal, &up, &view).map_err(|text| format!("n{host} {text}"))?;
        whole(&world.journal, &view).map_err(|text| format!("n{host} {text}"))?;
    }
    Ok(())
}

fn keeps(journal: &Journal, at: &[usize], view: &View) -> Result<(), String> {
    for (service, mark) in journal.owed(at) {
        let shown = view.services.iter().find(|shown| shown.name == service);
        let shown = shown.ok_or_else(|| format!("does not know `{service}`, deployed as {mark}"))?;
        if !shown.history.iter().any(|revision| revision.spec.tag == mark) {
            return Err(format!("knows `{service}` and not its deploy {mark}"));
        }
    }
    for service in journal.buried(at) {
        if view.services.iter().any(|shown| shown.name == service) {
            return Err(format!("shows `{service}`, which was deleted"));
        }
    }
    Ok(())
}

/// Each revision is, whole, what one user asked for: never a mixture of two.
fn whole(journal: &Journal, view: &View) -> Result<(), String> {
    let deployments = journal.deployments();
    for service in view.services.iter() {
        for revision in &service.history {
            let spec = &revision.spec;
            let same = deployments.get(&spec.tag).is_some_and(|deployment| {
                let images: Vec<_> = revision.images.iter().map(|image| image.hash).collect();
                deployment.service == service.name && deployment.args() == spec.args && images == [deployment.blob]
            });
            if !same {
                return Err(format!("shows {} {}, which nobody asked for: {spec:?}", service.name, revision.id));
            }
        }
    }
    Ok(())
}
