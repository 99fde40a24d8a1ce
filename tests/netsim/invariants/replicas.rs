//! After healing, exactly the wanted replicas run: right nodes, right revision, none missing, none too many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use narun::exec::plan::Kept;
use narun::ids::{InstanceId, ServiceName};
use narun::node::engine::view::{InstanceState, InstanceView, ServiceView, View};
use narun::spec::{Place, Placement, RunMode};

use crate::program::Program;
use crate::world::World;

/// What lives on all hosts, by service: host and run.
fn living(world: &World) -> BTreeMap<ServiceName, Vec<(usize, Kept)>> {
    let mut living: BTreeMap<ServiceName, Vec<(usize, Kept)>> = BTreeMap::new();
    for (host, it) in world.hosts.iter().enumerate() {
        for kept in it.keeper.living() {
            living.entry(kept.plan.instance.service.clone()).or_default().push((host, kept));
        }
    }
    living
}

/// The keepers hold what the catalog wants. The catalogs are known to agree.
pub(crate) fn run_as_wanted(world: &World) -> Result<(), String> {
    let mut living = living(world);
    let up = world.up();
    let Some(view) = up.first().map(|host| world.view(*host)) else { return Ok(()) };
    let drained = drained(world, &view);
    for service in view.services.iter() {
        let runs = living.remove(&service.name).unwrap_or_default();
        if is_cron(service) {
            continue;
        }
        check(world, service, &runs, &drained).map_err(|text| format!("`{}`: {text}", service.name))?;
    }
    match living.first_key_value() {
        Some((service, runs)) => Err(format!("`{service}` is unknown to all, and {} of it live", runs.len())),
        None => Ok(()),
    }
}

/// Runs of cron specs come and go, each on its own.
fn is_cron(service: &ServiceView) -> bool {
    matches!(service.current.spec.mode, RunMode::Cron(_))
}

fn check(
    world: &World,
    service: &ServiceView,
    runs: &[(usize, Kept)],
    drained: &BTreeSet<usize>,
) -> Result<(), String> {
    let open = world.up().iter().any(|host| !drained.contains(host));
    let spec = &service.current.spec;
    let program = Program::of_args(&spec.args).ok_or_else(|| format!("strange arguments {:?}", spec.args))?;
    if service.current.stopped {
        return if runs.is_empty() { Ok(()) } else { Err(format!("stopped, and {} live", runs.len())) };
    }
    // What nobody who is up holds cannot be started anywhere, until its holder comes back.
    let images = &service.current.images;
    let held = world.up().iter().any(|host| images.iter().all(|image| world.hosts[*host].shelf.holds(&image.hash)));
    let complete = program.stays() && held;
    // A revision that does not stay up is not rolled out beyond the index at which it failed.
    if complete && open {
        under_one_revision(runs, &spec.args)?;
    }
    let places: BTreeSet<(usize, u32)> = runs.iter().map(|(host, kept)| (*host, kept.plan.instance.index)).collect();
    if let Placement::Cluster { replicas } = spec.placement {
        let indices: Vec<u32> = places.iter().map(|(_, index)| *index).collect();
        let distinct: BTreeSet<u32> = indices.iter().copied().collect();
        let wanted: BTreeSet<u32> = (0..replicas).collect();
        let exact = indices.len() == distinct.len() && distinct == wanted;
        // What a drained host runs goes on there until it is ready elsewhere, which a program that fails never is.
        let once = indices.len() == distinct.len() || !drained.is_empty();
        let some = once && distinct.is_subset(&wanted);
        return complain(if complete && open { exact } else { some }, &places, &format!("0..{replicas} once each"));
    }
    let (wanted, left): (BTreeSet<_>, BTreeSet<_>) =
        wanted_places(world, &spec.placement).into_iter().partition(|(host, _)| !drained.contains(host));
    // What is bound to a drained host is stopped once that has gone which can: nowhere, where all hosts are drained.
    let may = if open { wanted.clone() } else { &wanted | &left };
    let right = if complete { wanted.is_subset(&places) && places.is_subset(&may) } else { places.is_subset(&may) };
    complain(right, &places, &format!("{wanted:?}"))
}

/// The hosts that are drained, as one of those that are up shows it.
fn drained(world: &World, view: &View) -> BTreeSet<usize> {
    let keys: BTreeSet<_> = view.nodes.iter().filter(|node| node.drain.is_some()).map(|node| node.key).collect();
    (0..world.hosts.len()).filter(|host| keys.contains(&world.hosts[*host].key)).collect()
}

fn under_one_revision(runs: &[(usize, Kept)], args: &[String]) -> Result<(), String> {
    for (host, kept) in runs {
        if kept.plan.args != args {
            return Err(format!("{} on n{host} runs {:?}, not {args:?}", kept.plan.instance, kept.plan.args));
        }
    }
    let hashes: BTreeSet<_> = runs.iter().map(|(_, kept)| kept.plan.launch_hash).collect();
    if hashes.len() > 1 { Err("its instances were not all started under one hash".to_owned()) } else { Ok(()) }
}

fn complain(right: bool, places: &BTreeSet<(usize, u32)>, wanted: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("live (host, index) {places:?}, wanted {wanted}")) }
}

/// Host and index of each instance of a placement that counts per node, on the hosts that are up.
fn wanted_places(world: &World, placement: &Placement) -> BTreeSet<(usize, u32)> {
    let mut wanted = BTreeSet::new();
    for host in world.up() {
        let replicas = match placement {
            Placement::EachNode { replicas } => *replicas,
            Placement::Cluster { .. } => 0,
            Placement::Named(places) => {
                let here = places.iter().find(|place| place.node == Place::Node(world.hosts[host].name.clone()));
                here.map_or(0, |place| place.replicas)
            }
        };
        wanted.extend((0..replicas).map(|index| (host, index)));
    }
    wanted
}

/// Every node shows every run of what stays up as running on its host, by its run; and nothing as running that does not.
pub(crate) fn are_shown_everywhere(world: &World) -> Result<(), String> {
    let up = world.up();
    let Some(view) = up.first().map(|host| world.view(*host)) else { return Ok(()) };
    let stays = |service: &&Arc<ServiceView>| Program::of_args(&service.current.spec.args).is_some_and(Program::stays);
    let services = view.services.iter().filter(|service| !is_cron(service));
    let steady: BTreeSet<&ServiceName> = services.filter(stays).map(|service| &service.name).collect();
    let mut wanted = BTreeSet::new();
    for host in &world.hosts {
        for Kept { plan, .. } in host.keeper.living() {
            if steady.contains(&plan.instance.service) {
                wanted.insert((plan.instance, host.key, Some(plan.run)));
            }
        }
    }
    let runs: BTreeSet<_> = up.iter().map(|host| world.hosts[*host].key).collect();
    for host in &up {
        let view = world.view(*host);
        let running = view.instances.iter().filter(|it| it.state == InstanceState::Running);
        let theirs = running.filter(|it| steady.contains(&it.service) && runs.contains(&it.node_key));
        let id = |it: &InstanceView| InstanceId { service: it.service.clone(), index: it.index };
        let shown = theirs.map(|it| (id(it), it.node_key, it.run)).collect();
        if wanted != shown {
            let missing = wanted.difference(&shown).next();
            let ghost = shown.difference(&wanted).next();
            return Err(format!("n{host} does not show {missing:?} running, and shows {ghost:?}"));
        }
    }
    Ok(())
}
