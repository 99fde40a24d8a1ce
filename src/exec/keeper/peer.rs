//! Who may speak with the keeper: a process of the same user that is not an instance. Shell.
//!
//! Instances run as the same user for now, so the socket's mode alone would let them start and kill one another.

use std::fs;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd;

use crate::exec::cgroup;

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("cannot ask who connects: {0}")]
    Unknown(nix::Error),
    #[error("it is user {theirs}, expected {ours}")]
    User { ours: u32, theirs: u32 },
    #[error("cannot look at process {pid}: {cause}")]
    Look { pid: i32, cause: std::io::Error },
    #[error("process {0} is in another PID namespace")]
    Namespace(i32),
    #[error("process {0} is in the control group of an instance")]
    Instance(i32),
}

/// Checks the process at the other end of a connection.
pub(super) fn check(socket: impl AsFd) -> Result<(), PeerError> {
    let peer = getsockopt(&socket, PeerCredentials).map_err(PeerError::Unknown)?;
    let ours = unistd::geteuid().as_raw();
    if peer.uid() != ours {
        return Err(PeerError::User { ours, theirs: peer.uid() });
    }
    let pid = peer.pid();
    // A process that has no number here is in a namespace that is not beneath ours.
    if pid <= 0 {
        return Err(PeerError::Namespace(pid));
    }
    let look = |cause| PeerError::Look { pid, cause };
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/pid"));
    if namespace(&pid.to_string()).map_err(look)? != namespace("self").map_err(look)? {
        return Err(PeerError::Namespace(pid));
    }
    let groups = |who: &str| fs::read_to_string(format!("/proc/{who}/cgroup"));
    let (ours, theirs) = (groups("self").map_err(look)?, groups(&pid.to_string()).map_err(look)?);
    let path = |text| cgroup::path_in_hierarchy(text).unwrap_or("/").to_owned();
    if cgroup::in_instance(&path(&ours), &path(&theirs)) {
        return Err(PeerError::Instance(pid));
    }
    Ok(())
}
