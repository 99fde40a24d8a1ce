//! Which network an instance has: the host's, one that somebody made, or a loopback and nothing else. Shell.
//!
//! With `nonet` the program connects to a forwarded port on the loopback of its own, where the keeper listens: the sockets are
//! made here, in the instance's network, and handed to the keeper over the report socket. What comes in is carried by
//! [`forward`](crate::exec::forward) to the same port of the host's loopback, and works without any helper process.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{self, AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::unistd;

use crate::confinement::{LocalPort, Network, Protocol};
use crate::exec::launch::{LaunchError, REPORT_PORTS, Start};

/// How many sockets go to the keeper with one packet: the kernel takes 253 (unix(7)), and a round number leaves room.
pub(crate) const PORTS_PART: usize = 128;

/// Gives the instance its network.
pub(crate) fn network(start: &Start<'_>) -> Result<(), LaunchError> {
    match &start.plan.confinement.network {
        Network::Host => Ok(()),
        Network::Join(path) => join(Path::new(path)),
        Network::Loopback(ports) if start.spaces.contains(CloneFlags::CLONE_NEWNET) => {
            bring_up_loopback().map_err(|e| LaunchError::Loopback(e.into()))?;
            hand_over(start.report, &listen(ports)?).map_err(|e| LaunchError::HandOver(e.into()))
        }
        Network::Loopback(_) => Ok(()),
    }
}

/// Enters the network namespace that `path` is bound to.
fn join(path: &Path) -> Result<(), LaunchError> {
    let path_of = || path.to_owned();
    if !unistd::geteuid().is_root() {
        return Err(LaunchError::NetworkOfOthers { path: path_of(), uid: unistd::geteuid().as_raw() });
    }
    // Not blocking, so that a pipe in its place is refused instead of waited for.
    let open = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = open.map_err(|e| LaunchError::OpenNetwork { path: path_of(), cause: e.into() })?;
    // SAFETY: takes no argument and changes nothing; a file that is no namespace refuses it (ioctl_ns(2)).
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind != libc::CLONE_NEWNET {
        return Err(LaunchError::NoNetwork(path_of()));
    }
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| LaunchError::JoinNetwork { path: path_of(), cause: e.into() })
}

/// A new network namespace has a loopback which is down (netdevice(7)).
fn bring_up_loopback() -> nix::Result<()> {
    let any = socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: plain numbers and a name, for which zeros are good values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // SAFETY: the request lives on this stack; the kernel writes the interface's flags into it.
    Errno::result(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    let up = i16::try_from(libc::IFF_UP).expect("the flag is among the lowest");
    // SAFETY: the kernel has just written this field of the union.
    request.ifr_ifru.ifru_flags = unsafe { request.ifr_ifru.ifru_flags } | up;
    // SAFETY: only reads the request.
    Errno::result(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(drop)
}

/// The sockets on which the program finds the host's ports, on both loopbacks.
fn listen(ports: &[LocalPort]) -> Result<Vec<OwnedFd>, LaunchError> {
    let mut sockets = Vec::new();
    for port in ports {
        for host in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let address = SocketAddr::new(host, port.port);
            let bound = match port.protocol {
                Protocol::Tcp => TcpListener::bind(address).and_then(|listener| {
                    // As many as the kernel lets wait: more than the library asks for, which a program with many threads exceeds
                    // at once, and each connection that found no place would wait for a second.
                    socket::listen(&listener, Backlog::MAXCONN)?;
                    Ok(OwnedFd::from(listener))
                }),
                Protocol::Udp => UdpSocket::bind(address).map(OwnedFd::from),
            };
            match bound {
                Ok(socket) => sockets.push(socket),
                Err(e) if host.is_ipv6() && is_missing(&e) => {}
                Err(e) => {
                    let protocol = port.protocol.word();
                    return Err(LaunchError::ListenFor { protocol, address, cause: e.into() });
                }
            }
        }
    }
    Ok(sockets)
}

/// Whether this kernel has no IPv6, or none for new namespaces.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Sends the sockets to the keeper, and keeps none.
fn hand_over(report: &OwnedFd, sockets: &[OwnedFd]) -> nix::Result<()> {
    for part in sockets.chunks(PORTS_PART) {
        let numbers: Vec<RawFd> = part.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let packet = [IoSlice::new(&[REPORT_PORTS])];
        socket::sendmsg::<UnixAddr>(report.as_raw_fd(), &packet, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    }
    Ok(())
}
