//! Who may speak to the socket. A shell that reads `/proc`, and the pure rule beside it.
//!
//! The socket's mode keeps other users out. An instance may run as the node's own user: it is told by its control group, or by
//! a PID namespace that is not the node's (cgroups(7), pid_namespaces(7), SO_PEERCRED in unix(7)).

use std::fs;
use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use crate::node::engine::effect::{Refusal, RefusalCode};

/// What the names of instances' control groups begin with, before the hash of the data directory.
const GROUP_PREFIX: &str = "narun-";

/// Hexadecimal digits of that hash.
const GROUP_DIGITS: usize = 16;

/// The process at the other end of a connection, judged when it connected: its number may be another process's later.
#[derive(Clone, Debug)]
pub struct Caller(Result<(), Refusal>);

impl Caller {
    pub(super) fn verdict(self) -> Result<(), Refusal> {
        self.0
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let pid = stream.io().peer_cred().ok().and_then(|peer| peer.pid());
        Self(match pid {
            Some(pid) => peer_allowed(pid),
            None => Err(not_allowed("the caller's process is not known")),
        })
    }
}

/// Whether the process may use this node's sockets: refused for instances, and for whoever cannot be told from one.
pub fn peer_allowed(pid: i32) -> Result<(), Refusal> {
    // The kernel says 0 for a process that cannot be seen from here: it stands in another PID namespace.
    if pid <= 0 {
        return Err(not_allowed("the caller stands in another PID namespace"));
    }
    let unknown = |error: io::Error| not_allowed(&format!("the caller, process {pid}, cannot be looked at: {error}"));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(unknown)?;
    if in_instance_group(&groups) {
        return Err(not_allowed(&format!("the caller, process {pid}, belongs to an instance")));
    }
    let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).map_err(unknown)?;
    if namespace != fs::read_link("/proc/self/ns/pid").map_err(unknown)? {
        return Err(not_allowed("the caller stands in another PID namespace"));
    }
    Ok(())
}

fn not_allowed(reason: &str) -> Refusal {
    Refusal::new(RefusalCode::NotAllowed, format!("this process may not use the node's socket: {reason}"))
}

/// Whether the text of a `/proc/<pid>/cgroup` shows an instance's group: a path with a part `narun-<16 hex digits>` that goes
/// on after it.
fn in_instance_group(cgroup: &str) -> bool {
    cgroup.lines().any(|line| {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        let mut parts = path.split('/').peekable();
        std::iter::from_fn(|| parts.next().map(|part| (part, parts.peek().is_some())))
            .any(|(part, goes_on)| goes_on && is_group_root(part))
    })
}

fn is_group_root(part: &str) -> bool {
    let digits = part.strip_prefix(GROUP_PREFIX).unwrap_or_default();
    digits.len() == GROUP_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_told_by_its_control_group() {
        assert!(in_instance_group("0::/user.slice/narun-0123456789abcdef/web-0-aabbccdd\n"));
        assert!(in_instance_group("4:memory:/\n0::/narun-0123456789abcdef/web-0-aabbccdd\n"));
        assert!(in_instance_group("1:name=x:y:/narun-0123456789abcdef/a:b\n"));
        for outside in [
            "",
            "0::/\n",
            "0::/system.slice/narun.service\n",
            "0::/narun-0123456789abcdef\n",
            "0::/narun-0123456789abcde/web-0\n",
            "0::/narun-0123456789abcdeg/web-0\n",
            "0::/my-narun-0123456789abcdef/web-0\n",
        ] {
            assert!(!in_instance_group(outside), "{outside:?}");
        }
    }

    #[test]
    fn this_process_is_allowed_and_one_that_is_gone_is_not() {
        peer_allowed(std::process::id().try_into().unwrap()).unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let refusal = peer_allowed(gone.id().try_into().unwrap()).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NotAllowed);
        assert_eq!(peer_allowed(0).unwrap_err().code, RefusalCode::NotAllowed);
    }
}
