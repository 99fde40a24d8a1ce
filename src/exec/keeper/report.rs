//! What a child says of its start, as the keeper hears it. Shell; `launch` has the other end.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, setsockopt,
    sockopt::PassCred,
};
use nix::unistd::Pid;

use crate::confinement::Enforced;
use crate::exec::launch::{REPORT_ENFORCED, REPORT_FAILED, REPORT_LEN_MAX, REPORT_PORTS, REPORT_READY};
use crate::exec::sandbox::network::PORTS_PART;

/// Where a child says how its start goes.
#[derive(Debug)]
pub(super) struct Report(OwnedFd);

/// What a child has said.
#[derive(Debug)]
pub(super) enum Reported {
    /// This process is about to become the program.
    Ready(Pid),
    /// This is what the program will have of its confinement.
    Enforced(Enforced),
    /// The start has failed.
    Failed(String),
    /// On these sockets the program reaches ports of the host; or why they have not arrived.
    Ports(nix::Result<Vec<OwnedFd>>),
    /// Nothing more will come: the program runs, unless it was said to have failed.
    Closed,
    /// Nothing yet.
    Nothing,
}

impl Report {
    pub(super) fn pair() -> nix::Result<(Self, OwnedFd)> {
        let (near, far) = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        fcntl(&near, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        setsockopt(&near, PassCred, &true)?;
        Ok((Self(near), far))
    }

    /// Takes back what was said so far, by a child that was reaped since.
    pub(super) fn forget(&self) {
        while !matches!(self.next(), Reported::Nothing | Reported::Closed) {}
    }

    /// The next word, without waiting.
    pub(super) fn next(&self) -> Reported {
        let mut buffer = [0; REPORT_LEN_MAX];
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; PORTS_PART]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (mut sender, mut sockets) = (None, Vec::new());
        let received = socket::recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags);
        let (len, is_cut) = match &received {
            Err(Errno::EAGAIN | Errno::EINTR) => return Reported::Nothing,
            Err(_) => return Reported::Closed,
            Ok(message) => {
                for part in message.cmsgs().into_iter().flatten() {
                    match part {
                        ControlMessageOwned::ScmCredentials(who) => sender = Some(Pid::from_raw(who.pid())),
                        ControlMessageOwned::ScmRights(fds) => {
                            // SAFETY: the kernel has just made these descriptors for us; nobody else knows of them.
                            sockets.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                        }
                        _ => {}
                    }
                }
                (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC))
            }
        };
        match (&buffer[..len], sender) {
            ([REPORT_READY], Some(pid)) => Reported::Ready(pid),
            ([REPORT_ENFORCED, bytes @ ..], _) => match minicbor::decode(bytes) {
                Ok(enforced) => Reported::Enforced(enforced),
                Err(_) => Reported::Closed,
            },
            ([REPORT_FAILED, text @ ..], _) => Reported::Failed(String::from_utf8_lossy(text).into_owned()),
            // The kernel leaves out what would not fit into the keeper's table of descriptors.
            ([REPORT_PORTS], _) => Reported::Ports(if is_cut { Err(Errno::EMFILE) } else { Ok(sockets) }),
            _ => Reported::Closed,
        }
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
