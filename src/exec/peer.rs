//! Who may speak to narun's sockets, the node's and the keeper's: not an instance. A shell that reads `/proc`.
//!
//! The sockets' modes keep other users out. An instance may run as narun's own user, and is told by any of three things: it
//! stands in an instance's control group (cgroups(7)), or in a PID namespace of its own (pid_namespaces(7)), or it descends from the
//! keeper. The last holds for one that has left its group, too: the keeper is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)), so
//! that whatever is orphaned beneath it becomes its child. Who cannot be told from an instance is refused.
//!
//! Everything is read from files that stay readable where the memory of a process is closed to its user, as narun's own is.

use std::fs;
use std::io;

use super::cause::why;
use super::cgroup;

/// How often a family tree is climbed anew when it changes meanwhile: a parent ends now and then, and hardly twice in a row.
const CLIMBS_MAX: u32 = 5;

/// Most ancestors that are looked at. Nobody has as many; a family tree that changes all the time might never end.
const ANCESTORS_MAX: u32 = 4096;

/// Why a process may not speak.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The kernel shows no number of it: its PID namespace is not beneath ours.
    #[error("it stands in another PID namespace")]
    Unseen,
    #[error("process {pid} cannot be looked at: {}", why(cause))]
    Look { pid: i32, cause: io::Error },
    #[error("process {0} stands in another PID namespace")]
    Namespace(i32),
    #[error("process {0} belongs to an instance: it stands in the control group of one")]
    Group(i32),
    #[error("process {0} belongs to an instance: it descends from the keeper")]
    Descendant(i32),
    #[error("process {0} cannot be told from an instance: its ancestors change all the time")]
    Restless(i32),
}

/// Whether the process `pid` may use the sockets of a narun whose keeper is `keeper`, where that is known.
pub(crate) fn check(pid: i32, keeper: Option<i32>) -> Result<(), PeerError> {
    if pid <= 0 {
        return Err(PeerError::Unseen);
    }
    let read = |who: &str, file: &str| {
        fs::read_to_string(format!("/proc/{who}/{file}")).map_err(|cause| PeerError::Look { pid, cause })
    };
    let them = pid.to_string();
    if is_instance(&read("self", "cgroup")?, &read(&them, "cgroup")?) {
        return Err(PeerError::Group(pid));
    }
    if depth(&read("self", "status")?) != depth(&read(&them, "status")?) {
        return Err(PeerError::Namespace(pid));
    }
    match keeper {
        Some(keeper) => descends_not(pid, keeper),
        None => Ok(()),
    }
}

/// Whether a process with the text `theirs` in `/proc/<pid>/cgroup` stands in an instance's group, seen from one with `ours`.
fn is_instance(ours: &str, theirs: &str) -> bool {
    let path = |text| cgroup::path_in_hierarchy(text).unwrap_or("/");
    cgroup::in_instance(path(ours), path(theirs))
}

/// In how many PID namespaces a process has a number, by the text of `/proc/<pid>/status`, counted from the one that /proc is of.
/// A process that we see has as many as we do if it stands in ours, and more if it stands beneath.
fn depth(status: &str) -> usize {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.map_or(0, |numbers| numbers.split_whitespace().count())
}

fn descends_not(pid: i32, keeper: i32) -> Result<(), PeerError> {
    for _ in 0..CLIMBS_MAX {
        match climb(pid, keeper) {
            Ok(true) => return Err(PeerError::Descendant(pid)),
            Ok(false) => return Ok(()),
            // Either it is gone itself, which the next climb says again, or an ancestor went while we were on the way.
            Err(Changed) => {}
        }
    }
    Link::of(pid).map_err(|cause| PeerError::Look { pid, cause })?;
    Err(PeerError::Restless(pid))
}

/// The family tree changed while it was looked at.
struct Changed;

/// Whether `keeper` is among the ancestors of `pid`, or is it.
fn climb(pid: i32, keeper: i32) -> Result<bool, Changed> {
    let mut at = pid;
    let mut link = Link::of(at).map_err(|_| Changed)?;
    for _ in 0..ANCESTORS_MAX {
        if at == keeper {
            return Ok(true);
        }
        // The first process has no parent; a parent in another namespace has no number here.
        if link.parent <= 0 {
            return Ok(false);
        }
        let parent = Link::of(link.parent).map_err(|_| Changed)?;
        // Nobody is older than its parent but one that was given its number afterwards, or one that was adopted: then the
        // adopter is older still. So a younger one has only the number.
        if parent.born > link.born {
            return Err(Changed);
        }
        at = link.parent;
        link = parent;
    }
    Err(Changed)
}

/// A process in its family tree.
struct Link {
    parent: i32,
    /// When it began, in the kernel's ticks.
    born: u64,
}

impl Link {
    /// From fields 4 and 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
    fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let link = || {
            // The second field, the program's name, may hold spaces and parentheses.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            Some(Self { parent: fields.nth(1)?.parse().ok()?, born: fields.nth(17)?.parse().ok()? })
        };
        link().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn own() -> i32 {
        std::process::id().try_into().unwrap()
    }

    /// A process that waits until this value ends.
    struct Elsewhere(Child);

    impl Elsewhere {
        /// Starts `command`, and gives the first line that it says, as soon as it is there.
        fn start(command: &[&str]) -> (Self, String) {
            let mut command_line = Command::new(command[0]);
            command_line.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command_line.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            (Self(child), line.trim().to_owned())
        }

        fn pid(&self) -> i32 {
            self.0.id().try_into().unwrap()
        }
    }

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            // It waits for the end of its input.
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }

    #[test]
    fn an_instance_is_told_by_its_control_group() {
        let node = "4:memory:/\n0::/system.slice/narun.service\n";
        assert!(is_instance(node, "0::/system.slice/narun.service/narun-0123456789abcdef/web-0-aabbccdd\n"));
        assert!(is_instance(node, "4:memory:/x\n0::/narun-0123456789abcdef/web-0-aabbccdd\n"));
        for outside in
            [node, "0::/\n", "", "0::/user.slice\n", "0::/narun-0123456789abcde/web-0\n", "0::/narun-demo/x\n"]
        {
            assert!(!is_instance(node, outside), "{outside:?}");
        }
        let nested = "0::/narun-0123456789abcdef/narun-0-aabbccdd\n";
        assert!(!is_instance(nested, nested), "a node that is itself an instance still serves those beside it");
    }

    #[test]
    fn a_process_in_another_pid_namespace_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            crate::skip::skip("making a PID namespace needs root");
            return;
        }
        let (elsewhere, _) = Elsewhere::start(&["unshare", "--pid", "--fork", "sh", "-c", "echo there; read end"]);
        let outside = elsewhere.pid();
        let inside = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).unwrap();
        assert!(matches!(check(inside.trim().parse().unwrap(), None), Err(PeerError::Namespace(_))));
        check(outside, None).unwrap();
    }

    #[test]
    fn a_process_in_an_instances_group_is_refused() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|mount| {
            let mut parts = mount.split(' ').skip(1);
            Some((parts.next()?, parts.next()?)).filter(|(_, kind)| *kind == "cgroup2").map(|(path, _)| path)
        });
        let base = root.map(|root| format!("{root}/narun-{:016x}", std::process::id()));
        let made = base.as_ref().map(|base| fs::create_dir_all(format!("{base}/web-0")));
        let (Some(base), Some(Ok(()))) = (base, made) else {
            crate::skip::skip("no cgroup2 hierarchy can be written to");
            return;
        };
        let script = format!("echo $$ > {base}/web-0/cgroup.procs; echo there; read end");
        let (elsewhere, _) = Elsewhere::start(&["sh", "-c", &script]);
        let checked = check(elsewhere.pid(), None);
        drop(elsewhere);
        fs::remove_dir(format!("{base}/web-0")).and_then(|()| fs::remove_dir(&base)).unwrap();
        assert!(matches!(checked, Err(PeerError::Group(_))), "{checked:?}");
    }

    #[test]
    fn a_descendant_of_the_keeper_is_refused_however_deep() {
        // This process in the keeper's place.
        let (elsewhere, grandchild) = Elsewhere::start(&["sh", "-c", "sh -c 'echo $$; read end'; true"]);
        let grandchild = grandchild.parse().unwrap();
        assert_ne!(grandchild, elsewhere.pid());
        for pid in [grandchild, elsewhere.pid(), own()] {
            assert!(matches!(check(pid, Some(own())), Err(PeerError::Descendant(of)) if of == pid));
        }
        // Beside it, and above it.
        check(own(), Some(elsewhere.pid())).unwrap();
        check(grandchild, Some(i32::MAX)).unwrap();
    }

    #[test]
    fn this_process_is_allowed_and_one_that_is_gone_is_not() {
        check(own(), None).unwrap();
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let pid = gone.id().try_into().unwrap();
        assert!(matches!(check(pid, None), Err(PeerError::Look { .. })));
        assert!(matches!(descends_not(pid, own()), Err(PeerError::Look { .. })));
        assert!(matches!(check(0, None), Err(PeerError::Unseen)));
    }
}
