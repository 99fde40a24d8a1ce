//! After healing, all nodes agree.

use std::collections::{BTreeMap, BTreeSet};

use narun::ids::ServiceName;
use narun::node::engine::effect::Table;
use narun::node::engine::view::{NodeStatus, NodeView, RevisionStatus, View};

use crate::world::World;

/// Every node that runs shows every other member alive, the dead ones down, and nobody else.
pub(crate) fn members_see_one_another(world: &World, dead: &[usize]) -> Result<(), String> {
    // Asked once: it reads what stands on each disk.
    let is_member: Vec<bool> = (0..world.hosts.len()).map(|host| world.is_member(host)).collect();
    for host in world.up() {
        let view = world.view(host);
        let shown: BTreeMap<_, _> = view.nodes.iter().map(|node| (node.key, node)).collect();
        for (other, it) in world.hosts.iter().enumerate() {
            let shown = shown.get(&it.key);
            if !is_member[other] {
                match shown {
                    Some(_) => return Err(format!("n{host} shows {}, which is no member", it.name)),
                    None => continue,
                }
            }
            let shown = shown.ok_or_else(|| format!("n{host} does not know {}", it.name))?;
            let wanted = if dead.contains(&other) { NodeStatus::Down } else { NodeStatus::Alive };
            if shown.status != wanted {
                return Err(format!("n{host} shows {} {}", it.name, shown.status.word()));
            }
        }
    }
    Ok(())
}

/// All disks hold the same records of the roster.
pub(crate) fn rosters_agree(world: &World) -> Result<(), String> {
    let mut first = None;
    for host in world.up() {
        let roster = world.hosts[host].platter().table(Table::Roster);
        let (other, theirs) = first.get_or_insert_with(|| (host, roster.clone()));
        if *theirs != roster {
            return Err(format!("n{other} holds {} records, n{host} {}", theirs.len(), roster.len()));
        }
    }
    Ok(())
}

/// What one node says of a service: its revisions, which one counts, and what became of the others.
type Said = (String, bool, Vec<(String, RevisionStatusWord)>);
type RevisionStatusWord = &'static str;

/// All nodes show the same services with the same revisions, and the same one of them as current.
pub(crate) fn catalogs_agree(world: &World) -> Result<(), String> {
    let mut first: Option<(usize, BTreeMap<ServiceName, Said>)> = None;
    for host in world.up() {
        let said = said(&world.view(host));
        match &first {
            None => first = Some((host, said)),
            Some((other, theirs)) if *theirs != said => {
                return Err(format!("n{other} says {theirs:?}, n{host} says {said:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// All nodes show the same labels of the nodes that run, and the same nodes as drained.
pub(crate) fn settings_agree(world: &World) -> Result<(), String> {
    let up = world.up();
    let runs: BTreeSet<_> = up.iter().map(|host| world.hosts[*host].key).collect();
    let shown = |host: usize| -> Vec<_> {
        let view = world.view(host);
        let labels = |node: &NodeView| runs.contains(&node.key).then(|| node.labels.clone());
        view.nodes.iter().map(|node| (node.name.clone(), labels(node), node.drain.is_some())).collect()
    };
    let Some(first) = up.first().map(|host| shown(*host)) else { return Ok(()) };
    match up.iter().find(|host| shown(**host) != first) {
        Some(other) => Err(format!("n{} shows {first:?}, n{other} {:?}", up[0], shown(*other))),
        None => Ok(()),
    }
}

fn said(view: &View) -> BTreeMap<ServiceName, Said> {
    let service = |service: &narun::node::engine::view::ServiceView| {
        let history = service.history.iter().map(|revision| (revision.id.clone(), word(revision.status)));
        let current = &service.current;
        (service.name.clone(), (current.id.clone(), current.stopped, history.collect()))
    };
    view.services.iter().map(|row| service(row)).collect()
}

fn word(status: RevisionStatus) -> RevisionStatusWord {
    match status {
        RevisionStatus::Current => "current",
        RevisionStatus::Past => "past",
        RevisionStatus::Superseded => "superseded",
    }
}
