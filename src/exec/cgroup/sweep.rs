//! What a keeper leaves behind that was killed: its groups, in all hierarchies, and the record that says where they are. Shell.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::Pid;

use super::error::GroupError;
use super::files::{children, remove_tree, write};
use super::group::{is_unified, members, populated};
use super::hierarchy::Controller;
use super::{RECORD_NAME, SWEEP_INTERVAL, SWEEP_WAIT_MAX, base_name, delegation, hierarchies};
use crate::exec::pidfd::PidFd;

/// How deep it is looked for processes beneath a group: deeper than anybody divides theirs.
const DEPTH_MAX: usize = 16;

/// The file in which a keeper writes down its base groups, a line each, for whoever has to clean up after it. The kernel allows no
/// line break in a group's name.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    folders: BTreeSet<PathBuf>,
}

impl Record {
    /// An empty one for this data directory.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(RECORD_NAME), folders: BTreeSet::new() }
    }

    /// Writes down these too.
    pub(super) fn add<'a>(&mut self, folders: impl Iterator<Item = &'a Path>) -> Result<(), GroupError> {
        let before = self.folders.len();
        self.folders.extend(folders.map(Path::to_owned));
        if self.folders.len() == before {
            return Ok(());
        }
        let lines: Vec<&[u8]> = self.folders.iter().map(|folder| folder.as_os_str().as_bytes()).collect();
        fs::write(&self.path, lines.join(&b"\n"[..]))
            .map_err(|cause| GroupError::Record { path: self.path.clone(), cause })
    }

    /// What a keeper of this data directory wrote down. A line that names anything else than a group of this very data
    /// directory is passed over: what it names is killed.
    pub(super) fn read(data_dir: &Path) -> Vec<PathBuf> {
        let text = fs::read(data_dir.join(RECORD_NAME)).unwrap_or_default();
        let name = base_name(data_dir);
        let paths = text.split(|byte| *byte == b'\n').map(|line| PathBuf::from(OsStr::from_bytes(line)));
        paths.filter(|path| path.is_absolute() && path.file_name() == Some(OsStr::new(&name))).collect()
    }

    /// Removes it.
    pub(super) fn remove(data_dir: &Path) {
        let _ = fs::remove_file(data_dir.join(RECORD_NAME));
    }
}

/// Kills and removes all that an earlier keeper of `data_dir` has left in its groups, and waits until it is gone; gives how many
/// instances it found. The caller holds the keeper's lock, so no keeper lives. A data directory without any leftovers is none.
pub(crate) fn sweep(data_dir: &Path) -> Result<usize, GroupError> {
    let mut bases: BTreeSet<PathBuf> = Record::read(data_dir).into_iter().collect();
    bases.extend(usual_bases(data_dir));
    let (unified, legacy): (Vec<_>, Vec<_>) =
        bases.into_iter().filter(|base| base.join("cgroup.procs").exists()).partition(|base| is_unified(base));
    let mut swept = 0;
    for base in &unified {
        if populated(base)? {
            swept += children(base)?.len();
            let kill = write(&base.join("cgroup.kill"), "1");
            kill.map_err(|cause| GroupError::Kill { path: base.clone(), cause })?;
        }
        wait_until(base, || Ok(!populated(base)?))?;
        remove_tree(base)?;
    }
    for base in &legacy {
        wait_until(base, || {
            kill_members(base);
            Ok(!has_members(base))
        })?;
        remove_tree(base)?;
    }
    Ok(swept)
}

/// Where a keeper that is started like this process would make its base groups.
fn usual_bases(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(found) = hierarchies() else { return Vec::new() };
    let unified =
        found.unified.iter().flat_map(|unified| [delegation::home(&unified.own_folder()), unified.top().to_owned()]);
    let legacy = Controller::ALL.into_iter().filter_map(|controller| Some(found.legacy(controller)?.own_folder()));
    unified.chain(legacy).map(|folder| folder.join(base_name(data_dir))).collect()
}

fn wait_until(base: &Path, mut is_over: impl FnMut() -> Result<bool, GroupError>) -> Result<(), GroupError> {
    let deadline = Instant::now() + SWEEP_WAIT_MAX;
    while !is_over()? {
        if Instant::now() > deadline {
            return Err(GroupError::Stuck(base.to_owned()));
        }
        std::thread::sleep(SWEEP_INTERVAL);
    }
    Ok(())
}

/// Whether a process is in a group of version 1 or beneath it.
pub(super) fn has_members(path: &Path) -> bool {
    walk(path, DEPTH_MAX, &mut |group| !members(group).is_empty())
}

/// Kills what is in a group of version 1 and beneath it, one by one: that version has no better way.
pub(super) fn kill_members(path: &Path) {
    walk(path, DEPTH_MAX, &mut |group| {
        for pid in members(group) {
            kill_member(group, pid);
        }
        false
    });
}

/// Kills a process if it is still in the group: its number may have become another's since it was read.
fn kill_member(group: &Path, pid: i32) {
    let Ok(process) = PidFd::open(Pid::from_raw(pid)) else { return };
    if members(group).contains(&pid)
        && let Err(error) = process.signal(libc::SIGKILL)
    {
        tracing::warn!(pid, group = %group.display(), %error, "cannot kill a process");
    }
}

/// Goes through a group and those beneath it until `visit` says that it has seen enough.
fn walk(path: &Path, depth: usize, visit: &mut impl FnMut(&Path) -> bool) -> bool {
    if visit(path) {
        return true;
    }
    // What is gone has no groups beneath it.
    let beneath = if depth == 0 { Vec::new() } else { children(path).unwrap_or_default() };
    beneath.iter().any(|child| walk(child, depth - 1, visit))
}

/// Adds up something of all processes in a group and beneath it.
pub(super) fn sum(path: &Path, mut of: impl FnMut(i32) -> u64) -> u64 {
    let mut total = 0_u64;
    walk(path, DEPTH_MAX, &mut |group| {
        total = members(group).into_iter().fold(total, |total, pid| total.saturating_add(of(pid)));
        false
    });
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_groups_of_its_own_data_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        let name = base_name(dir.path());
        let own = [PathBuf::from(format!("/sys/fs/cgroup/{name}")), format!("/sys/fs/cgroup/cpu/a b/{name}").into()];
        let mut record = Record::new(dir.path());
        record.add([Path::new("/sys/fs/cgroup/system.slice")].into_iter()).unwrap();
        assert_eq!(Record::read(dir.path()), [] as [PathBuf; 0]);
        record.add(own.iter().map(PathBuf::as_path)).unwrap();
        assert_eq!(Record::read(dir.path()), [own[1].clone(), own[0].clone()]);
        // As it was written before there were several.
        fs::write(dir.path().join(RECORD_NAME), own[0].as_os_str().as_bytes()).unwrap();
        assert_eq!(Record::read(dir.path()), own[..1]);
    }
}
