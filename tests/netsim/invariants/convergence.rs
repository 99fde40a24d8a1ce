//! After healing, all nodes agree.

use std::collections::BTreeMap;

use narun::ids::ServiceName;
use narun::node::engine::view::{NodeStatus, RevisionStatus, View};

use crate::world::World;

/// Every node that runs shows every other member alive, the dead ones down, and nobody else.
pub(crate) fn members_see_one_another(world: &World, dead: &[usize]) -> Result<(), String> {
    for host in world.up() {
        let view = world.view(host);
        for (other, it) in world.hosts.iter().enumerate() {
            let shown = view.nodes.iter().find(|node| node.key == it.key);
            if !world.is_member(other) {
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

fn said(view: &View) -> BTreeMap<ServiceName, Said> {
    let service = |service: &narun::node::engine::view::ServiceView| {
        let history = service.history.iter().map(|revision| (revision.id.clone(), word(revision.status)));
        let current = &service.current;
        (service.name.clone(), (current.id.clone(), current.stopped, history.collect()))
    };
    view.services.iter().map(service).collect()
}

fn word(status: RevisionStatus) -> RevisionStatusWord {
    match status {
        RevisionStatus::Current => "current",
        RevisionStatus::Past => "past",
        RevisionStatus::Superseded => "superseded",
    }
}
