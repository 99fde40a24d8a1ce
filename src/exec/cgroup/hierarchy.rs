//! Which hierarchies of control groups a host has, where each is mounted, and where a process stands in it. Pure.
//!
//! A host has one hierarchy of version 2, or several of version 1, or both: then a controller belongs to the hierarchy of version 1 that
//! is mounted with it, and to version 2 where there is none (cgroups(7)). Read from the texts of /proc/PID/cgroup and
//! /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// What can be limited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// The number of processes and threads.
    Pids,
}

impl Controller {
    /// All that narun uses.
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// The kernel's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Cpu => "processor time",
            Self::Pids => "processes",
        })
    }
}

/// Whose files a group has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    /// A hierarchy for each controller, or a few.
    One,
    /// One hierarchy for all.
    Two,
}

/// A mounted hierarchy, as one process sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    point: PathBuf,
    /// Which group is seen there: in a container the mount may show a part of the hierarchy only.
    root: PathBuf,
    /// The group of the process.
    own: PathBuf,
}

impl Hierarchy {
    /// The folder of the group that the process is in.
    pub(crate) fn own_folder(&self) -> PathBuf {
        // What is not beneath the root was not taken for a hierarchy.
        plain_join(&self.point, self.own.strip_prefix(&self.root).unwrap_or(Path::new("")))
    }

    /// The folder of the group at `path`, as /proc/PID/cgroup shows it; none where it is not shown here.
    pub(crate) fn folder(&self, path: &str) -> Option<PathBuf> {
        let beneath = Path::new(path).strip_prefix(&self.root).ok()?;
        is_plain(beneath).then(|| plain_join(&self.point, beneath))
    }

    /// The folder that shows the topmost group.
    pub(crate) fn top(&self) -> &Path {
        &self.point
    }

    /// The folder of the group that a specification calls `parent`: a path from the hierarchy's root, with or without a slash
    /// before it, or with the mount's own path before it. None where it leads out of the hierarchy.
    pub(crate) fn named(&self, parent: &str) -> Option<PathBuf> {
        let path = Path::new(parent);
        let path = path.strip_prefix(&self.point).unwrap_or(path);
        let path = path.strip_prefix("/").unwrap_or(path);
        is_plain(path).then(|| plain_join(&self.point, path))
    }
}

/// All hierarchies that narun may use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hierarchies {
    /// That of version 2.
    pub(crate) unified: Option<Hierarchy>,
    /// Those of version 1, each with the controllers that it has.
    legacy: Vec<(Vec<Controller>, Hierarchy)>,
}

impl Hierarchies {
    /// As the process of these two texts sees them.
    pub(crate) fn parse(proc_cgroup: &str, mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some(mount) = Mount::parse(line) else { continue };
            match mount.kind {
                "cgroup2" if found.unified.is_none() => {
                    found.unified = path_in_hierarchy(proc_cgroup).and_then(|own| mount.seen_from(own));
                }
                "cgroup" => {
                    let controllers: Vec<_> =
                        Controller::ALL.into_iter().filter(|one| has(mount.options, one.name())).collect();
                    let Some(first) = controllers.first() else { continue };
                    if found.legacy(*first).is_none()
                        && let Some(hierarchy) =
                            path_of_controller(proc_cgroup, first.name()).and_then(|own| mount.seen_from(own))
                    {
                        found.legacy.push((controllers, hierarchy));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The hierarchy of version 1 that has the controller, if one has.
    pub(crate) fn legacy(&self, controller: Controller) -> Option<&Hierarchy> {
        self.legacy.iter().find(|(controllers, _)| controllers.contains(&controller)).map(|(_, hierarchy)| hierarchy)
    }
}

/// The path in the cgroup2 hierarchy of the process whose /proc/PID/cgroup this is.
pub(crate) fn path_in_hierarchy(proc_cgroup: &str) -> Option<&str> {
    proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The path in the hierarchy of version 1 that has this controller.
pub(crate) fn path_of_controller<'a>(proc_cgroup: &'a str, controller: &str) -> Option<&'a str> {
    proc_cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        has(fields.next()?, controller).then(|| fields.next())?
    })
}

/// A mounted file system out of a line of mountinfo.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (unescape(left.next()?).into(), unescape(left.next()?).into());
        Some(Self { root, point, kind: right.next()?, options: right.nth(1).unwrap_or("") })
    }

    /// The hierarchy as the process in the group `own` sees it; none when that group is not shown here.
    fn seen_from(&self, own: &str) -> Option<Hierarchy> {
        let own = PathBuf::from(own);
        let beneath = own.strip_prefix(&self.root).ok()?;
        is_plain(beneath).then(|| Hierarchy { point: self.point.clone(), root: self.root.clone(), own: own.clone() })
    }
}

/// A group outside of the reader's cgroup namespace is shown with `..` (cgroup_namespaces(7)), and cannot be reached.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}

/// Joined without a slash at the end where there is nothing to join.
fn plain_join(folder: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { folder.to_owned() } else { folder.join(rest) }
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|one| one == word)
}

/// mountinfo writes a space, tab, newline or backslash of a path as three octal digits.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    const HYBRID_OWN: &str = "9:name=systemd:/init\n4:memory:/box/a:b\n2:cpu,cpuacct:/\n0::/a/b\n";

    fn folder(hierarchy: Option<&Hierarchy>) -> Option<String> {
        hierarchy.map(|found| found.own_folder().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_hybrid_host_has_controllers_on_both() {
        let found = Hierarchies::parse(HYBRID_OWN, HYBRID_MOUNTS);
        assert_eq!(folder(found.unified.as_ref()).as_deref(), Some("/sys/fs/cgroup/unified/a/b"));
        assert_eq!(folder(found.legacy(Controller::Memory)).as_deref(), Some("/sys/fs/cgroup/memory/box/a:b"));
        assert_eq!(folder(found.legacy(Controller::Cpu)).as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.legacy(Controller::Pids), None, "which version 2 may have");
    }

    #[test]
    fn a_host_of_one_version_has_only_that() {
        let two =
            "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let found = Hierarchies::parse("0::/system.slice/narun.service\n", two);
        let own = Some("/sys/fs/cgroup/system.slice/narun.service");
        assert_eq!(folder(found.unified.as_ref()).as_deref(), own);
        assert!(Controller::ALL.into_iter().all(|controller| found.legacy(controller).is_none()));

        let one = "36 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let found = Hierarchies::parse("8:pids:/user.slice\n", one);
        assert_eq!(found.unified, None);
        assert_eq!(folder(found.legacy(Controller::Pids)).as_deref(), Some("/sys/fs/cgroup/pids/user.slice"));
    }

    #[test]
    fn a_mount_that_shows_a_part_is_entered_from_there() {
        let part = "41 31 0:38 /pod /mnt/my\\040groups rw - cgroup2 none rw\n";
        let own = |path: &str| folder(Hierarchies::parse(&format!("0::{path}\n"), part).unified.as_ref());
        assert_eq!(own("/pod/x").as_deref(), Some("/mnt/my groups/x"));
        assert_eq!(own("/pod").as_deref(), Some("/mnt/my groups"));
        assert_eq!(own("/elsewhere"), None);
        assert_eq!(own("/pod/../x"), None);
    }

    #[test]
    fn a_parent_may_be_named_in_three_ways_and_leads_nowhere_else() {
        let found = Hierarchies::parse(HYBRID_OWN, HYBRID_MOUNTS);
        let unified = found.unified.unwrap();
        for name in ["batch/low", "/batch/low", "/sys/fs/cgroup/unified/batch/low"] {
            assert_eq!(unified.named(name), Some("/sys/fs/cgroup/unified/batch/low".into()), "{name}");
        }
        assert_eq!(unified.named("/"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(unified.named("../../etc"), None);
    }

    #[test]
    fn the_group_path_is_the_line_of_version_two() {
        assert_eq!(path_in_hierarchy("4:memory:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!(path_in_hierarchy("4:memory:/x\n"), None);
        assert_eq!(path_of_controller(HYBRID_OWN, "cpuacct"), Some("/"));
        assert_eq!(path_of_controller(HYBRID_OWN, "pids"), None);
    }
}
