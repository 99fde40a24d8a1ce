//! Forwarded datagrams: a table of who has sent lately, so that answers find back. Shell.
//!
//! Each address that the program sends from gets a socket of its own on the host's side, connected to the port there: what comes back
//! on it is for that address. Nobody says when a conversation is over, so it is forgotten when it has been silent for a while. Datagrams
//! that cannot be delivered are dropped, as on any network.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::rlim_t;

use super::Token;

/// Most conversations of one instance at once; the one that has been silent longest makes room for a new one.
const PEERS_MAX: usize = 256;

/// How long a conversation may be silent: twice what routers give those that were answered (RFC 4787 asks for two minutes between
/// strangers, but both sides are of one host here and can ask again).
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Longest datagram (udp(7)).
const DATAGRAM_LEN_MAX: usize = 65_535;

/// How many datagrams are moved at a time before others get their turn.
const DATAGRAMS_A_TURN: usize = 32;

/// The forwarded ports for datagrams of one instance.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    ports: Vec<UdpSocket>,
    /// By numbers that are never used again.
    peers: BTreeMap<u64, Peer>,
    /// Their numbers, by port and the address that the program sends from.
    numbers: BTreeMap<(usize, SocketAddr), u64>,
    next_peer: u64,
}

/// One address that the program sends from.
#[derive(Debug)]
struct Peer {
    port: usize,
    address: SocketAddr,
    /// Connected to the host's port.
    socket: UdpSocket,
    heard_at: Instant,
}

impl Datagrams {
    /// Takes a bound socket; gives its index.
    pub(super) fn add(&mut self, socket: UdpSocket) -> io::Result<usize> {
        socket.set_nonblocking(true)?;
        self.ports.push(socket);
        Ok(self.ports.len() - 1)
    }

    /// The socket of a port.
    pub(super) fn port(&self, index: usize) -> BorrowedFd<'_> {
        self.ports[index].as_fd()
    }

    /// Carries what the program has sent to the host.
    pub(super) fn carry_out(&mut self, index: usize, epoll: &Epoll, descriptors_end: rlim_t) {
        let mut buffer = [0; DATAGRAM_LEN_MAX];
        for _ in 0..DATAGRAMS_A_TURN {
            let Some(port) = self.ports.get(index) else { return };
            let Ok((len, from)) = port.recv_from(&mut buffer) else { return };
            let Some(number) = self.peer(index, from, epoll, descriptors_end) else { continue };
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            peer.heard_at = Instant::now();
            // That an earlier datagram was refused is told by the next call, which sends nothing then.
            if peer.socket.send(&buffer[..len]).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                let _ = peer.socket.send(&buffer[..len]);
            }
        }
    }

    /// Carries what the program had sent before it ended, and nothing more.
    pub(super) fn end(&mut self, epoll: &Epoll, descriptors_end: rlim_t) {
        for index in 0..self.ports.len() {
            self.carry_out(index, epoll, descriptors_end);
        }
        *self = Self::default();
    }

    /// Carries what the host has answered to the program.
    pub(super) fn carry_back(&mut self, number: u64) {
        let mut buffer = [0; DATAGRAM_LEN_MAX];
        for _ in 0..DATAGRAMS_A_TURN {
            let Some(peer) = self.peers.get_mut(&number) else { return };
            match peer.socket.recv(&mut buffer) {
                Ok(len) => {
                    peer.heard_at = Instant::now();
                    // A program that does not read loses what it does not read.
                    let _ = self.ports[peer.port].send_to(&buffer[..len], peer.address);
                }
                // Nobody listens there at the moment; telling has cleared it.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    /// The conversation of this address, or a new one; none when there can be none.
    fn peer(&mut self, port: usize, from: SocketAddr, epoll: &Epoll, descriptors_end: rlim_t) -> Option<u64> {
        if let Some(number) = self.numbers.get(&(port, from)) {
            return Some(*number);
        }
        if self.peers.len() >= PEERS_MAX
            && let Some((number, _)) = self.peers.iter().min_by_key(|(_, peer)| peer.heard_at)
        {
            let number = *number;
            self.forget(number, epoll);
        }
        let socket = match self.connected(port) {
            Ok(socket) if rlim_t::from(socket.as_raw_fd().unsigned_abs()) < descriptors_end => socket,
            Ok(_) => return None,
            Err(error) => {
                tracing::debug!(%from, %error, "cannot make a socket for forwarded datagrams");
                return None;
            }
        };
        self.next_peer += 1;
        let number = self.next_peer;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, Token::Peer(number).number())).ok()?;
        self.numbers.insert((port, from), number);
        self.peers.insert(number, Peer { port, address: from, socket, heard_at: Instant::now() });
        Some(number)
    }

    /// A socket of the host, connected to its port.
    fn connected(&self, port: usize) -> io::Result<UdpSocket> {
        let to = self.ports[port].local_addr()?;
        let any = match to.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        Ok(socket)
    }

    fn forget(&mut self, number: u64, epoll: &Epoll) {
        if let Some(peer) = self.peers.remove(&number) {
            // Closing alone would not do while a child that is just being forked has the socket too.
            let _ = epoll.delete(&peer.socket);
            self.numbers.remove(&(peer.port, peer.address));
        }
    }

    /// Forgets whoever has been silent for too long.
    pub(super) fn forget_silent(&mut self, now: Instant, epoll: &Epoll) {
        let silent = self.peers.iter().filter(|(_, peer)| now >= peer.heard_at + SILENCE_MAX);
        for number in silent.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.forget(number, epoll);
        }
    }

    /// When the next one is to be forgotten, if it stays silent.
    pub(super) fn next_silent(&self) -> Option<Instant> {
        self.peers.values().map(|peer| peer.heard_at + SILENCE_MAX).min()
    }
}
