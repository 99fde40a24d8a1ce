//! Who may speak with the keeper: a process of the same user that is not an instance. Shell.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd;

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("cannot ask who connects: {0}")]
    Unknown(nix::Error),
    #[error("it is user {theirs}, expected {ours}")]
    User { ours: u32, theirs: u32 },
    #[error(transparent)]
    Foreign(#[from] crate::exec::peer::PeerError),
}

/// Checks the process at the other end of a connection. This one is the keeper.
pub(super) fn check(socket: impl AsFd) -> Result<(), PeerError> {
    let peer = getsockopt(&socket, PeerCredentials).map_err(PeerError::Unknown)?;
    let ours = unistd::geteuid().as_raw();
    if peer.uid() != ours {
        return Err(PeerError::User { ours, theirs: peer.uid() });
    }
    Ok(crate::exec::peer::check(peer.pid(), Some(unistd::getpid().as_raw()))?)
}
