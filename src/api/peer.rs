//! Who may speak to the socket. A shell that reads `/proc`, and the pure rule beside it.
//!
//! The socket's mode keeps other users out. An instance may run as the node's own user: it is told by its control group, or by
//! a PID namespace that is not the node's (cgroups(7), pid_namespaces(7), SO_PEERCRED in unix(7)).

use std::fs;
use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use crate::exec::cgroup;
use crate::node::engine::effect::{Refusal, RefusalCode};

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
    let groups = |who: &str| fs::read_to_string(format!("/proc/{who}/cgroup"));
    let (ours, theirs) = (groups("self").map_err(unknown)?, groups(&pid.to_string()).map_err(unknown)?);
    if is_instance(&ours, &theirs) {
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

/// Whether a process with the text `theirs` in `/proc/<pid>/cgroup` stands in an instance's group, seen from a node with `ours`.
fn is_instance(ours: &str, theirs: &str) -> bool {
    let path = |text| cgroup::path_in_hierarchy(text).unwrap_or("/");
    cgroup::in_instance(path(ours), path(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// A process that waits in another namespace or group, and ends with this value.
    struct Elsewhere(std::process::Child);

    impl Elsewhere {
        /// Starts `command`, which says a line when it is there.
        fn start(command: &[&str]) -> Self {
            let mut child = std::process::Command::new(command[0])
                .args(&command[1..])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
            assert_eq!(line, "there\n");
            Self(child)
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
    fn a_process_in_another_pid_namespace_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            crate::skip::skip("making a PID namespace needs root");
            return;
        }
        let elsewhere = Elsewhere::start(&["unshare", "--pid", "--fork", "sh", "-c", "echo there; read end"]);
        let outside = elsewhere.0.id();
        let inside = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).unwrap();
        let pid = inside.trim().parse().unwrap();
        let refusal = peer_allowed(pid).unwrap_err();
        assert!(refusal.message.contains("PID namespace"), "{refusal}");
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
        let elsewhere = Elsewhere::start(&["sh", "-c", &script]);
        let refusal = peer_allowed(elsewhere.0.id().try_into().unwrap()).map_err(|refusal| refusal.message);
        drop(elsewhere);
        fs::remove_dir(format!("{base}/web-0")).and_then(|()| fs::remove_dir(&base)).unwrap();
        assert!(refusal.unwrap_err().contains("belongs to an instance"));
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
