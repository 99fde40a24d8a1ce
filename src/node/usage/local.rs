//! What this node's own instances use. Shell.

use crate::exec::cgroup::Reader;
use crate::ids::{InstanceId, RunId, ServiceName};
use crate::node::engine::view::View;

use super::InstanceUsage;
use super::wire::INSTANCES_MAX;

/// Reads the figures of all instances of a service that run on this node. Fails with the reason where none can be read.
pub(super) async fn own(view: &View, service: &ServiceName) -> Result<Vec<InstanceUsage>, String> {
    let running = running(view, service);
    if running.is_empty() {
        return Ok(Vec::new());
    }
    // A handful of small files for each; the node's threads have other things to do meanwhile.
    let read = tokio::task::spawn_blocking(move || {
        let reader = Reader::new().map_err(|error| error.to_string())?;
        let usage = |(instance, run, pid): (InstanceId, RunId, u32)| InstanceUsage {
            index: instance.index,
            run,
            usage: reader.usage(pid, &instance, &run),
        };
        Ok(running.into_iter().map(usage).collect())
    });
    read.await.unwrap_or_else(|_| Err("this node is stopping".to_owned()))
}

fn running(view: &View, service: &ServiceName) -> Vec<(InstanceId, RunId, u32)> {
    let own = view.nodes.iter().find(|node| node.is_me).map(|node| node.key);
    let here = view.instances.iter().filter(|one| one.service == *service && Some(one.node_key) == own);
    let running = here.filter_map(|one| {
        let instance = InstanceId { service: one.service.clone(), index: one.index };
        Some((instance, one.run?, one.pid?))
    });
    running.take(INSTANCES_MAX).collect()
}
