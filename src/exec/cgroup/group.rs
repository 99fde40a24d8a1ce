//! The groups of one run: one in the hierarchy of version 2, which holds its processes together, and one in each hierarchy of
//! version 1 that limits it. Shell.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::base::Base;
use super::error::GroupError;
use super::files::{is_gone, make, make_all, read, remove_tree, write};
use super::hierarchy::{Controller, Version};
use super::memory::{self, Share};
use super::sweep;
use crate::confinement::Limits;

/// The groups of one run.
#[derive(Debug)]
pub(crate) struct Group {
    /// That of version 2.
    path: PathBuf,
    /// Those of version 1.
    others: Vec<PathBuf>,
    /// Which of them counts its memory.
    memory: Option<(Version, PathBuf)>,
    /// What the base group keeps for it.
    share: RefCell<Option<Share>>,
    /// What was asked for and does not hold, a line each.
    pub(super) missing: Vec<String>,
}

impl Group {
    /// Makes the group of version 2 at `path`, without limits.
    pub(super) fn make(path: PathBuf) -> Result<Self, GroupError> {
        make(&path)?;
        Ok(Self { path, others: Vec::new(), memory: None, share: RefCell::default(), missing: Vec::new() })
    }

    /// Limits it by one controller, in the group of that name in the controller's hierarchy. Where that fails nothing is left of it.
    pub(super) fn limit(
        &mut self,
        controller: Controller,
        base: &Base,
        name: &str,
        limits: &Limits,
    ) -> Result<(), GroupError> {
        let asks_nothing = controller.settings(limits, Version::Two).is_empty();
        if asks_nothing {
            return Ok(());
        }
        let (version, folder) = base.of(controller)?;
        let path = folder.join(name);
        // Several controllers may share a hierarchy.
        let is_new = version == Version::One && !self.others.contains(&path);
        if is_new {
            base.made.borrow_mut().extend(make_beneath(folder, &path)?);
            self.others.push(path.clone());
        }
        let written = set(controller, &path, version, limits);
        if written.is_err() && is_new {
            self.others.pop();
            remove_tree(&path)?;
        }
        written?;
        if controller == Controller::Memory {
            if version == Version::Two && limits.memory_low > 0 {
                self.share = RefCell::new(Some(base.protection.share(limits.memory_low)));
            }
            self.memory = Some((version, path));
        }
        Ok(())
    }

    /// What was asked for and does not hold, a line each.
    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The folder of the group of version 2, for a child that begins its life there (clone3(2), CLONE_INTO_CGROUP).
    pub(crate) fn directory(&self) -> Result<OwnedFd, GroupError> {
        let open = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&self.path);
        open.map(OwnedFd::from).map_err(|cause| GroupError::Enter { path: self.path.clone(), cause })
    }

    /// Moves the calling process into the group of version 2; all that it forks from now on is in too.
    pub(crate) fn enter(&self) -> Result<(), GroupError> {
        write(&self.path.join("cgroup.procs"), "0")
            .map_err(|cause| GroupError::Enter { path: self.path.clone(), cause })
    }

    /// Moves the calling thread, which must be the only one of its process, into the groups of version 1. By `tasks`: a thread that
    /// moves itself does not wait for the forks of the whole host, as a move of a process does (kernel/cgroup/cgroup.c,
    /// cgroup_procs_write_start).
    pub(crate) fn enter_others(&self) -> Result<(), GroupError> {
        self.others.iter().try_for_each(|path| {
            write(&path.join("tasks"), "0").map_err(|cause| GroupError::Enter { path: path.clone(), cause })
        })
    }

    /// Kills every process in the group and beneath it; forks cannot outrun it.
    pub(crate) fn kill(&self) -> Result<(), GroupError> {
        write(&self.path.join("cgroup.kill"), "1").map_err(|cause| GroupError::Kill { path: self.path.clone(), cause })
    }

    /// Kills processes that have left the group of version 2, as those of root can, and not those of version 1.
    pub(crate) fn kill_strays(&self) {
        for path in &self.others {
            sweep::kill_members(path);
        }
    }

    /// Whether a living process is in one of the groups or beneath it.
    pub(crate) fn is_populated(&self) -> Result<bool, GroupError> {
        Ok(populated(&self.path)? || self.others.iter().any(|path| sweep::has_members(path)))
    }

    /// Whether a process with this path in the hierarchy (as /proc/PID/cgroup shows it) stands in the group or beneath it: told by
    /// the last two names, since where the hierarchy is mounted says little about where a path in it begins.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let last = |path: &Path| -> Option<[std::ffi::OsString; 2]> {
            Some([path.parent()?.file_name()?.to_owned(), path.file_name()?.to_owned()])
        };
        last(&self.path).is_some_and(|own| Path::new(path).ancestors().any(|at| last(at).as_ref() == Some(&own)))
    }

    /// The file that becomes ready with EPOLLPRI when the group empties.
    pub(crate) fn events(&self) -> Result<File, GroupError> {
        let path = self.path.join("cgroup.events");
        File::open(&path).map_err(|cause| GroupError::Read { path, cause })
    }

    /// How many of its processes the kernel killed because it had used up its memory.
    pub(crate) fn oom_kills(&self) -> u32 {
        let kills = self.memory.as_ref().and_then(|(version, path)| memory::oom_kills(path, *version));
        u32::try_from(kills.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// Removes the empty groups, with groups that its processes may have made beneath them. All are tried; gives the first error.
    pub(crate) fn remove(&self) -> Result<(), GroupError> {
        drop(self.share.take());
        let removed: Vec<_> = std::iter::once(&self.path).chain(&self.others).map(|path| remove_tree(path)).collect();
        removed.into_iter().collect()
    }
}

/// Makes a group of version 1, and where it is the first of its base group, that too; gives what was missing above that.
fn make_beneath(base: &Path, path: &Path) -> Result<Vec<PathBuf>, GroupError> {
    match make(path) {
        Err(GroupError::Make { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            let mut made = make_all(base)?;
            made.pop();
            make(path).map(|()| made)
        }
        made => made.map(|()| Vec::new()),
    }
}

fn set(controller: Controller, path: &Path, version: Version, limits: &Limits) -> Result<(), GroupError> {
    for setting in controller.settings(limits, version) {
        let path = path.join(setting.file);
        match write(&path, &setting.value) {
            Err(cause) if setting.is_needed => {
                return Err(GroupError::Set { controller, path, value: setting.value, cause });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a living process is in a group of version 2 or beneath it.
pub(super) fn populated(path: &Path) -> Result<bool, GroupError> {
    let file = path.join("cgroup.events");
    let mut text = String::new();
    match File::open(&file).and_then(|mut events| events.read_to_string(&mut text)) {
        Ok(_) => Ok(text.lines().any(|line| line == "populated 1")),
        // The group itself is gone, and with it all that was in it.
        Err(cause) if is_gone(&cause) => Ok(false),
        Err(cause) => Err(GroupError::Read { path: file, cause }),
    }
}

/// Whether a group of version 2 is at this path, and not one of version 1.
pub(super) fn is_unified(path: &Path) -> bool {
    path.join("cgroup.events").exists()
}

/// The processes of a group.
pub(super) fn members(path: &Path) -> Vec<i32> {
    let text = read(&path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_holds_what_is_in_it_and_beneath() {
        let group = Group {
            path: "/sys/fs/cgroup/unified/narun-0123456789abcdef/web-0-aabbccdd".into(),
            others: Vec::new(),
            memory: None,
            share: RefCell::default(),
            missing: Vec::new(),
        };
        for inside in ["/narun-0123456789abcdef/web-0-aabbccdd", "/pod/narun-0123456789abcdef/web-0-aabbccdd/x/y"] {
            assert!(group.holds(inside), "{inside}");
        }
        for outside in
            ["/", "", "/web-0-aabbccdd", "/narun-0123456789abcdef/web-0", "/narun-0123456789abcdef/x/web-0-aabbccdd"]
        {
            assert!(!group.holds(outside), "{outside}");
        }
    }
}
