//! Namespaces of an instance's own (namespaces(7)): which ones it is forked into, and who its user is in there. Shell.
//!
//! They are made by the fork itself, so that no process ever stands half in them. A user other than root makes them in a user
//! namespace of his own, where he is mapped onto himself and nobody else is (user_namespaces(7)).

use std::fs::File;
use std::io::Write;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{self, Gid, Uid};

use crate::confinement::{Confinement, Network};
use crate::exec::cause::Cause;
use crate::exec::launch::LaunchError;

/// The namespaces that can be made, with their names.
const NAMES: [(CloneFlags, &str); 5] = [
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWPID, "pid"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWNS, "mount"),
    (CloneFlags::CLONE_NEWNET, "network"),
];

/// What is asked for, each by its name with the namespaces that it takes. Those for processes and for IPC take mounts of their own,
/// since `/proc` and `/dev/mqueue` show those of the namespace in which they were mounted.
pub(crate) fn asked(confinement: &Confinement) -> Vec<(&'static str, CloneFlags)> {
    let namespaces = confinement.namespaces;
    let alone = matches!(confinement.network, Network::Loopback(_));
    let all = [
        (namespaces.pid, "pid", CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS),
        (namespaces.ipc, "ipc", CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNS),
        (namespaces.mount, "mount", CloneFlags::CLONE_NEWNS),
        (alone, "network", CloneFlags::CLONE_NEWNET),
    ];
    all.into_iter().filter(|(is_asked, ..)| *is_asked).map(|(_, name, flags)| (name, flags)).collect()
}

/// With what this user needs in order to make namespaces at all.
pub(crate) fn with_user(flags: CloneFlags) -> CloneFlags {
    if flags.is_empty() || unistd::geteuid().is_root() { flags } else { flags | CloneFlags::CLONE_NEWUSER }
}

/// The names of these namespaces.
pub(crate) fn names(flags: CloneFlags) -> String {
    NAMES.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// Why a fork into namespaces failed.
pub(crate) fn refused(flags: CloneFlags, errno: Errno) -> LaunchError {
    if flags.is_empty() {
        return LaunchError::Fork(errno.into());
    }
    // What clone(2) says of ENOSPC has nothing to do with disks.
    let hint = if errno == Errno::ENOSPC { ": a limit in `/proc/sys/user` is reached" } else { "" };
    LaunchError::Namespaces { names: names(flags), cause: Cause::from(errno), hint }
}

/// Who a process is, taken before it is in a user namespace: inside, that is not mapped yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    uid: Uid,
    gid: Gid,
}

impl User {
    /// Who runs this process.
    pub(crate) fn current() -> Self {
        Self { uid: unistd::geteuid(), gid: unistd::getegid() }
    }

    /// Maps him onto himself, and nobody else, in the new user namespace that this process was forked into.
    pub(crate) fn map(self) -> Result<(), LaunchError> {
        let write = |path: &'static str, text: String| {
            let result = File::options().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
            result.map_err(|e| LaunchError::MapUser { path, cause: e.into() })
        };
        // The files of a process that may not be dumped belong to root (proc(5)); the keeper's child is born so.
        let was_dumpable = nix::sys::prctl::get_dumpable().unwrap_or(true);
        let dumpable = |path: &'static str, is: bool| {
            nix::sys::prctl::set_dumpable(is).map_err(|e| LaunchError::MapUser { path, cause: e.into() })
        };
        dumpable("/proc/self/uid_map", true)?;
        let Self { uid, gid } = self;
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        dumpable("/proc/self/gid_map", was_dumpable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confinement::Namespaces;

    #[test]
    fn what_is_asked_for_becomes_namespaces() {
        assert_eq!(asked(&Confinement::default()), []);
        let all = Confinement {
            namespaces: Namespaces { pid: true, ipc: true, mount: true },
            network: Network::Loopback(Vec::new()),
            ..Confinement::default()
        };
        let flags = asked(&all).into_iter().fold(CloneFlags::empty(), |flags, (_, more)| flags | more);
        assert_eq!(names(flags), "pid, ipc, mount, network");
        let joins = Confinement { network: Network::Join("/run/netns/a".to_owned()), ..Confinement::default() };
        assert_eq!(asked(&joins), []);
    }

    #[test]
    fn a_limit_is_not_taken_for_a_full_disk() {
        let error = refused(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID, Errno::ENOSPC).to_string();
        let words = "cannot make namespaces of its own (user, pid): no space left on device";
        assert_eq!(error, format!("{words}: a limit in `/proc/sys/user` is reached"));
    }
}
