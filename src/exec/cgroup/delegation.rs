//! Controllers of version 2, handed down to the groups of instances. Shell.
//!
//! A group has a controller's files only where the group above it has the controller in its `cgroup.subtree_control`, and that one
//! only where it holds no processes itself; the root alone may do both (Documentation/admin-guide/cgroup-v2.rst, "no internal process
//! constraint"). Where the group that the keeper was started in holds nobody but narun's own processes, they are moved into a leaf of
//! it, [`LEAF_NAME`]. Processes of anybody else are never moved: then the base group is made beneath the root, where that is
//! allowed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd;

use super::error::GroupError;
use super::files::{make, make_all, read, remove_tree, write};
use super::group::members;
use super::hierarchy::{Controller, Hierarchy};
use crate::exec::cause::why;

/// The leaf for nodes and keepers. It is no instance's: those stand beneath groups with another name. All nodes of a group share it.
pub(super) const LEAF_NAME: &str = "narun.node";

/// How often it is looked whether a group that was emptied is empty. A process may fork while it is moved, so that its child is found
/// the next time; those of narun fork a few times in their lives.
const EMPTYING_ROUNDS_MAX: usize = 8;

/// What helps where a group has not got a controller.
const HINT: &str =
    "with systemd, `Delegate=yes` and `DelegateSubgroup=narun.node` give narun a group that it may divide";

/// A base group of version 2.
#[derive(Debug)]
pub(super) struct Delegated {
    /// Its folder.
    pub(super) base: PathBuf,
    /// The controllers that it could not be given, and why.
    pub(super) lacking: BTreeMap<Controller, String>,
}

/// Makes the base group `name` where its groups can have the wanted controllers, or as many as possible: beneath the keeper's own
/// group, or else beneath the root. Fails where it cannot be made at all.
pub(super) fn make_base(unified: &Hierarchy, name: &str, wanted: &[Controller]) -> Result<Delegated, GroupError> {
    let home = home(&unified.own_folder());
    let here = make_beneath(&home, &[&home], name, wanted);
    let lacks = |made: &Result<Delegated, GroupError>| made.as_ref().map_or(usize::MAX, |made| made.lacking.len());
    if lacks(&here) == 0 || home == unified.top() {
        return here;
    }
    let there = make_beneath(unified.top(), &[unified.top()], name, wanted);
    let (better, worse) = if lacks(&there) < lacks(&here) { (there, here) } else { (here, there) };
    if let Ok(worse) = worse {
        remove_tree(&worse.base)?;
    }
    better
}

/// Makes the base group `name` beneath the group that a specification names, with all groups that are missing above it; gives
/// those too that were made.
pub(super) fn make_base_in(
    unified: &Hierarchy,
    parent: &Path,
    name: &str,
    wanted: &[Controller],
) -> Result<(Delegated, Vec<PathBuf>), GroupError> {
    let made = make_all(parent)?;
    let mut way: Vec<&Path> = parent.ancestors().take_while(|path| path.starts_with(unified.top())).collect();
    way.reverse();
    Ok((make_beneath(parent, &way, name, wanted)?, made))
}

/// The group that narun was given: its leaf is narun's own doing.
pub(super) fn home(own: &Path) -> PathBuf {
    match own.parent() {
        Some(parent) if own.ends_with(LEAF_NAME) => parent.to_owned(),
        _ => own.to_owned(),
    }
}

/// Makes `parent/name`, and hands the controllers down along `way`, which ends with the parent.
fn make_beneath(parent: &Path, way: &[&Path], name: &str, wanted: &[Controller]) -> Result<Delegated, GroupError> {
    let base = parent.join(name);
    make(&base)?;
    let mut lacking = BTreeMap::new();
    for controller in wanted {
        let handed = way.iter().copied().chain([base.as_path()]).try_for_each(|group| hand_down(group, *controller));
        if let Err(reason) = handed {
            lacking.insert(*controller, reason);
        }
    }
    Ok(Delegated { base, lacking })
}

/// Gives a controller to all groups right beneath `group`; or says why it cannot be given.
fn hand_down(group: &Path, controller: Controller) -> Result<(), String> {
    let (file, name) = (group.join("cgroup.subtree_control"), controller.name());
    let lists = |file: &Path| read(file).is_some_and(|text| text.split_whitespace().any(|word| word == name));
    if lists(&file) {
        return Ok(());
    }
    if !lists(&group.join("cgroup.controllers")) {
        return Err(format!("the cgroup `{}` was not given the controller `{name}`; {HINT}", group.display()));
    }
    // Not left to the kernel to refuse: it takes `cpu` and `pids` for a group with processes, and makes a threaded one of it,
    // beneath which no process can be put into a group.
    if !is_root(group) {
        empty(group)?;
    }
    write(&file, &format!("+{name}"))
        .map_err(|cause| format!("cannot write `+{name}` to `{}`: {}; {HINT}", file.display(), why(&cause)))
}

/// Whether a group is the hierarchy's root, which alone has no type. In a container the topmost one that is seen need not be it.
fn is_root(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

/// Moves narun's processes out of a group, into its leaf, if it holds no others.
fn empty(group: &Path) -> Result<(), String> {
    let leaf = group.join(LEAF_NAME);
    for _ in 0..EMPTYING_ROUNDS_MAX {
        let members = members(group);
        if members.is_empty() {
            return Ok(());
        }
        if let Some(stranger) = members.iter().find(|pid| !is_narun(**pid)) {
            let name = read(Path::new(&format!("/proc/{stranger}/comm"))).unwrap_or_default();
            return Err(format!(
                "the cgroup `{}` holds processes that are not narun's, such as {stranger} (`{}`), so that groups beneath it can \
                 have no controllers; {HINT}",
                group.display(),
                name.trim_end(),
            ));
        }
        make(&leaf).map_err(|error| error.to_string())?;
        for pid in members {
            match write(&leaf.join("cgroup.procs"), &pid.to_string()) {
                // It has ended meanwhile.
                Err(cause) if cause.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved.map_err(|cause| {
                    format!("cannot move process {pid} into the cgroup `{}`: {}", leaf.display(), why(&cause))
                })?,
            }
        }
    }
    Err(format!("the cgroup `{}` cannot be emptied: its processes fork while they are moved", group.display()))
}

/// Whether a process is a node or a keeper: this one, the one that started it, or another of the same program.
fn is_narun(pid: i32) -> bool {
    let program = |who: &str| fs::metadata(format!("/proc/{who}/exe")).map(|file| (file.dev(), file.ino()));
    let same = || Ok::<_, std::io::Error>(program(&pid.to_string())? == program("self")?);
    pid == unistd::getpid().as_raw() || pid == unistd::getppid().as_raw() || same().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_is_not_home() {
        assert_eq!(
            home(Path::new("/sys/fs/cgroup/system.slice/narun.service/narun.node")),
            Path::new("/sys/fs/cgroup/system.slice/narun.service")
        );
        assert_eq!(home(Path::new("/sys/fs/cgroup")), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_controller_that_a_group_lacks_is_named_with_the_group() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "pids\n").unwrap();
        assert_eq!(hand_down(dir.path(), Controller::Pids), Ok(()));
        let reason = hand_down(dir.path(), Controller::Memory).unwrap_err();
        let path = dir.path().display();
        assert_eq!(reason, format!("the cgroup `{path}` was not given the controller `memory`; {HINT}"));
        hand_down(dir.path(), Controller::Cpu).unwrap();
        let asked = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert!(asked.starts_with("+cpu"), "{asked}");
    }

    #[test]
    fn nobody_elses_processes_are_moved() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.procs"), format!("{}\n1\n", std::process::id())).unwrap();
        let reason = empty(dir.path()).unwrap_err();
        assert!(reason.contains("are not narun's, such as 1 ("), "{reason}");
        assert!(!dir.path().join(LEAF_NAME).exists());
    }
}
