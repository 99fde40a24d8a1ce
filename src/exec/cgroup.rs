//! Control groups of version 2: one for each instance, so that none of its descendants can get away. Shell.
//!
//! Only the core of the hierarchy is used (membership, `cgroup.kill`, `cgroup.events`), which works wherever a cgroup2 file
//! system is mounted, with controllers or without. All groups of one data directory stand under one group of its own,
//! `narun-<hash of the directory>`, beneath the group that the keeper was started in. The rules come from the kernel's
//! Documentation/admin-guide/cgroup-v2.rst.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use super::cause::why;
use crate::ids::{InstanceId, RunId};

/// Where the keeper writes down its base group, for whoever has to clean up after it.
const RECORD_NAME: &str = "keeper.cgroup";

/// What every base group's name begins with; sixteen hexadecimal digits follow.
const BASE_PREFIX: &str = "narun-";

/// How long a killed group may take to empty before it is given up on. Only a process that hangs in the kernel takes longer
/// than milliseconds, and waiting would not help it.
const SWEEP_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a sweep looks again.
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// Why no group can be used, or one could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A file that says where groups are cannot be read.
    #[error("cannot read `{path}`: {}", why(cause))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is no hierarchy.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// The kernel is too old.
    #[error("`{0}` has no `cgroup.kill`: the kernel is older than 5.14")]
    NoKill(PathBuf),
    /// A group cannot be made.
    #[error("cannot make the cgroup `{path}`: {}", why(cause))]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No process can be put into a group.
    #[error("cannot move a process into the cgroup `{path}`: {}", why(cause))]
    Enter {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Whether processes can be moved at all was tried, in vain.
    #[error("cannot move a process into a new cgroup: {}", why(cause))]
    Probe {
        /// Why.
        cause: io::Error,
    },
    /// The processes of a group cannot be killed.
    #[error("cannot kill the processes of the cgroup `{path}`: {}", why(cause))]
    Kill {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The processes of a group do not end.
    #[error("the processes of the cgroup `{0}` did not end within {SWEEP_WAIT_MAX:?} after they were killed")]
    Stuck(PathBuf),
    /// A group cannot be removed.
    #[error("cannot remove the cgroup `{path}`: {}", why(cause))]
    Remove {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The record of the base group cannot be written.
    #[error("cannot write `{path}`: {}", why(cause))]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The group of one data directory.
#[derive(Debug)]
pub(crate) struct BaseGroup {
    path: PathBuf,
}

impl BaseGroup {
    /// Makes the group of `data_dir` beneath this process's own and records it. Fails where no hierarchy is mounted or this
    /// process may not write to it; whether processes can be moved is known only after [`Group::enter`].
    pub(crate) fn make(data_dir: &Path) -> Result<Self, GroupError> {
        let path = own_group()?.join(base_name(data_dir));
        make_group(&path)?;
        if !path.join("cgroup.kill").exists() {
            let _ = fs::remove_dir(&path);
            return Err(GroupError::NoKill(path));
        }
        let record = data_dir.join(RECORD_NAME);
        fs::write(&record, path.as_os_str().as_bytes()).map_err(|cause| GroupError::Record { path: record, cause })?;
        Ok(Self { path })
    }

    /// A group for one run of an instance.
    pub(crate) fn instance(&self, instance: &InstanceId, run: &RunId) -> Result<Group, GroupError> {
        self.child(&format!("{instance}-{}", HEXLOWER.encode(&run.0[..4])))
    }

    /// A group of any name.
    pub(crate) fn child(&self, name: &str) -> Result<Group, GroupError> {
        let path = self.path.join(name);
        make_group(&path)?;
        Ok(Group { path })
    }

    /// Removes the group and its record, once all of its groups are gone.
    pub(crate) fn remove(&self, data_dir: &Path) -> Result<(), GroupError> {
        remove_tree(&self.path)?;
        let _ = fs::remove_file(data_dir.join(RECORD_NAME));
        Ok(())
    }
}

/// The group of one run.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    /// Moves the calling process in; all that it forks from now on is in too.
    pub(crate) fn enter(&self) -> Result<(), GroupError> {
        let enter = || File::options().write(true).open(self.path.join("cgroup.procs"))?.write_all(b"0");
        enter().map_err(|cause| GroupError::Enter { path: self.path.clone(), cause })
    }

    /// Kills every process in the group and beneath it; forks cannot outrun it.
    pub(crate) fn kill(&self) -> Result<(), GroupError> {
        let kill = || File::options().write(true).open(self.path.join("cgroup.kill"))?.write_all(b"1");
        kill().map_err(|cause| GroupError::Kill { path: self.path.clone(), cause })
    }

    /// Whether a living process is in the group or beneath it.
    pub(crate) fn is_populated(&self) -> Result<bool, GroupError> {
        populated(&self.path)
    }

    /// The file that becomes ready with EPOLLPRI when the group empties.
    pub(crate) fn events(&self) -> Result<File, GroupError> {
        let path = self.path.join("cgroup.events");
        File::open(&path).map_err(|cause| GroupError::Read { path, cause })
    }

    /// Removes the empty group, with groups that its processes may have made beneath it.
    pub(crate) fn remove(&self) -> Result<(), GroupError> {
        remove_tree(&self.path)
    }
}

/// Kills and removes all that an earlier keeper of `data_dir` has left in its groups, and waits until it is gone. The caller
/// holds the keeper's lock, so no keeper lives. A data directory without any leftovers is none.
pub(crate) fn sweep(data_dir: &Path) -> Result<usize, GroupError> {
    let mut swept = 0;
    for base in recorded(data_dir).into_iter().chain(own_group().ok().map(|own| own.join(base_name(data_dir)))) {
        if !base.join("cgroup.procs").exists() {
            continue;
        }
        let group = Group { path: base };
        if group.is_populated()? {
            swept += children(&group.path)?.len();
            group.kill()?;
        }
        let deadline = Instant::now() + SWEEP_WAIT_MAX;
        while group.is_populated()? {
            if Instant::now() > deadline {
                return Err(GroupError::Stuck(group.path));
            }
            std::thread::sleep(SWEEP_INTERVAL);
        }
        group.remove()?;
    }
    Ok(swept)
}

/// The base group that a keeper of `data_dir` wrote down. A record that names anything else than a group of this very data
/// directory is passed over: what it names is killed.
fn recorded(data_dir: &Path) -> Option<PathBuf> {
    let text = fs::read(data_dir.join(RECORD_NAME)).ok()?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(&text));
    (path.is_absolute() && path.file_name()?.as_bytes() == base_name(data_dir).as_bytes()).then_some(path)
}

/// The base group's name: the same for every path that leads to this directory.
fn base_name(data_dir: &Path) -> String {
    let path = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!("{BASE_PREFIX}{}", HEXLOWER.encode(&blake3::hash(path.as_os_str().as_bytes()).as_bytes()[..8]))
}

/// Whether a process of the group path `theirs` (as /proc/PID/cgroup shows it) stands in an instance's group, seen from a
/// process in the group path `ours`. What lies above us both does not count: all of this narun may itself be an instance.
pub(crate) fn in_instance(ours: &str, theirs: &str) -> bool {
    let beneath =
        theirs.strip_prefix(ours.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    beneath.unwrap_or(theirs).split('/').any(|name| {
        let digits = name.strip_prefix(BASE_PREFIX);
        digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// The path in the cgroup2 hierarchy of the process whose /proc/PID/cgroup this is.
pub(crate) fn path_in_hierarchy(proc_cgroup: &str) -> Option<&str> {
    proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The folder of the group that this process is in.
fn own_group() -> Result<PathBuf, GroupError> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(|cause| GroupError::Read { path: PathBuf::from(path), cause });
    let (cgroup, mountinfo) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let path = path_in_hierarchy(&cgroup).ok_or(GroupError::NotMounted)?;
    mounted_at(&mountinfo, path).ok_or(GroupError::NotMounted)
}

/// Where the group `path` is to be found in the file system, by the text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
fn mounted_at(mountinfo: &str, path: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = left.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        // In a container the mount may show a part of the hierarchy only.
        let beneath = Path::new(path).strip_prefix(&root).ok()?;
        Some(Path::new(&point).join(beneath))
    })
}

/// mountinfo writes a space, tab, newline or backslash of a path as three octal digits.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

fn make_group(path: &Path) -> Result<(), GroupError> {
    match fs::create_dir(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            Err(GroupError::Make { path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

fn populated(path: &Path) -> Result<bool, GroupError> {
    let file = path.join("cgroup.events");
    let mut text = String::new();
    match File::open(&file).and_then(|mut events| events.read_to_string(&mut text)) {
        Ok(_) => Ok(text.lines().any(|line| line == "populated 1")),
        // The group itself is gone, and with it all that was in it.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(libc::ENODEV) => {
            Ok(false)
        }
        Err(cause) => Err(GroupError::Read { path: file, cause }),
    }
}

fn children(path: &Path) -> Result<Vec<PathBuf>, GroupError> {
    let read = |cause| GroupError::Read { path: path.to_owned(), cause };
    let mut groups = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

fn remove_tree(path: &Path) -> Result<(), GroupError> {
    if !path.exists() {
        return Ok(());
    }
    for child in children(path)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(GroupError::Remove { path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_at(hybrid, "/"), Some("/sys/fs/cgroup/unified/".into()));
        assert_eq!(mounted_at(hybrid, "/a/b"), Some("/sys/fs/cgroup/unified/a/b".into()));
        let part = "41 31 0:38 /pod /mnt/my\\040groups rw - cgroup2 none rw\n";
        assert_eq!(mounted_at(part, "/pod/x"), Some("/mnt/my groups/x".into()));
        assert_eq!(mounted_at(part, "/elsewhere"), None);
        assert_eq!(mounted_at("31 23 0:28 / /sys/fs/cgroup rw - cgroup none rw,cpu\n", "/"), None);
    }

    #[test]
    fn the_group_path_is_the_line_of_version_two() {
        assert_eq!(path_in_hierarchy("4:memory:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!(path_in_hierarchy("4:memory:/x\n"), None);
    }

    #[test]
    fn who_stands_in_an_instance_is_seen() {
        let base = "/narun-0123456789abcdef";
        assert!(in_instance("/", &format!("{base}/web-0-aabbccdd")));
        assert!(in_instance(
            "/system.slice/narun.service",
            &format!("/system.slice/narun.service{base}/web-0-aabbccdd")
        ));
        assert!(in_instance("/other", &format!("{base}/web-0-aabbccdd")));
        assert!(!in_instance("/", "/user.slice"));
        assert!(!in_instance("/", "/narun-demo/x"));
        // A narun that is an instance itself still lets its own people in.
        let nested = format!("{base}/web-0-aabbccdd");
        assert!(!in_instance(&nested, &nested));
        assert!(in_instance(&nested, &format!("{nested}{base}/x")));
    }

    #[test]
    fn a_record_that_names_a_foreign_group_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECORD_NAME), "/sys/fs/cgroup/system.slice").unwrap();
        assert_eq!(recorded(dir.path()), None);
        let own = format!("/sys/fs/cgroup/{}", base_name(dir.path()));
        fs::write(dir.path().join(RECORD_NAME), &own).unwrap();
        assert_eq!(recorded(dir.path()), Some(own.into()));
    }
}
