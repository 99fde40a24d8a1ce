//! One forwarded connection: what is read at one end is written at the other, in both directions at once. Shell.
//!
//! Each direction holds what its reader does not take yet, and reads no more until that is gone: so a slow reader slows the
//! writer and costs one buffer at most. The end of one direction is handed on as such (shutdown(2)) and leaves the other open. A
//! connection that breaks at one end is reset at the other, never ended as if all had been said.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};

/// How much is read at a time, and so what a direction holds at most.
const BUFFER_LEN: usize = 64 * 1024;

/// How many buffers a direction moves before other connections get their turn.
const BUFFERS_A_TURN: usize = 4;

/// The two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Towards the program.
    Inner,
    /// Towards the host.
    Outer,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// More may come.
    Goes,
    /// Both directions have ended.
    Done,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    inner: End,
    outer: End,
    /// What the host's end is being connected to, until it is.
    connecting: Option<Vec<SocketAddr>>,
}

/// One end of it.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    /// What was read at the other end and is not written here yet, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Whether nothing more is to be read here.
    is_read: bool,
    /// Whether the other side's end was handed on to it.
    is_shut: bool,
    /// What is waited for.
    interest: EpollFlags,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        let interest = EpollFlags::empty();
        Self { stream, pending: Vec::new(), written: 0, is_read: false, is_shut: false, interest }
    }

    /// Writes what waits; whether all is written.
    fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.pending.len() {
            match self.stream.write(&self.pending[self.written..]) {
                Ok(len) => self.written += len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        // An idle connection holds no buffer.
        self.pending = Vec::new();
        self.written = 0;
        Ok(true)
    }

    /// Writes what it takes of `bytes`, and keeps the rest.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = loop {
            match self.stream.write(bytes) {
                Ok(len) => break len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        self.pending = bytes[written..].to_vec();
        self.written = 0;
        Ok(())
    }

    /// Says that nothing more will be written here.
    fn shut(&mut self) -> io::Result<()> {
        if self.is_shut {
            return Ok(());
        }
        self.is_shut = true;
        match self.stream.shutdown(Shutdown::Write) {
            // Both directions were over before: the other side has gone, which was what it was to be told.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    fn watch(&mut self, epoll: &Epoll, interest: EpollFlags, token: u64) -> io::Result<()> {
        let had = std::mem::replace(&mut self.interest, interest);
        let mut event = EpollEvent::new(interest, token);
        match (had.is_empty(), interest.is_empty()) {
            _ if had == interest => Ok(()),
            (true, _) => epoll.add(&self.stream, event),
            // What nothing is expected of is not waited on: the kernel would tell of a hang-up again and again.
            (false, true) => epoll.delete(&self.stream),
            (false, false) => epoll.modify(&self.stream, &mut event),
        }?;
        Ok(())
    }
}

impl Connection {
    /// Begins to carry the program's `stream`, which it has made to `port`, to the host.
    pub(super) fn new(stream: TcpStream, port: SocketAddr) -> Result<Self, (TcpStream, io::Error)> {
        let mut addresses = candidates(port);
        let begun = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
        match begun.and_then(|()| begin_any(&mut addresses)) {
            Ok(outer) => Ok(Self { inner: End::new(stream), outer: End::new(outer), connecting: Some(addresses) }),
            Err(error) => Err((stream, error)),
        }
    }

    /// Does what can be done now that `side` is ready.
    pub(super) fn go_on(&mut self, side: Side) -> io::Result<Progress> {
        if let Some(others) = &mut self.connecting {
            if side == Side::Inner {
                return Ok(Progress::Goes);
            }
            if let Some(error) = self.outer.stream.take_error()? {
                if others.is_empty() {
                    return Err(error);
                }
                // The old socket is closed, and waited on no more by that.
                self.outer = End::new(begin_any(others)?);
                return Ok(Progress::Goes);
            }
            self.connecting = None;
            self.outer.stream.set_nodelay(true)?;
        }
        carry(&mut self.inner, &mut self.outer)?;
        carry(&mut self.outer, &mut self.inner)?;
        Ok(if self.inner.is_shut && self.outer.is_shut { Progress::Done } else { Progress::Goes })
    }

    /// Has `epoll` wait for what comes next, under these numbers.
    pub(super) fn watch(&mut self, epoll: &Epoll, token: impl Fn(Side) -> u64) -> io::Result<()> {
        let (inner, outer) = if self.connecting.is_some() {
            (EpollFlags::empty(), EpollFlags::EPOLLOUT)
        } else {
            (expected(&self.inner, &self.outer), expected(&self.outer, &self.inner))
        };
        self.inner.watch(epoll, inner, token(Side::Inner))?;
        self.outer.watch(epoll, outer, token(Side::Outer))
    }

    /// Has `epoll` wait no more. Closing alone would not do: a child that is just being forked has the sockets too, until it execs.
    pub(super) fn forget(&mut self, epoll: &Epoll) {
        for end in [&mut self.inner, &mut self.outer] {
            // It was waited on; at worst it is not.
            let _ = end.watch(epoll, EpollFlags::empty(), 0);
        }
    }

    /// Breaks it at both ends.
    pub(super) fn reset(&self) {
        reset(&self.inner.stream);
        reset(&self.outer.stream);
    }
}

/// What is to be waited for at `end`.
fn expected(end: &End, other: &End) -> EpollFlags {
    let mut interest = EpollFlags::empty();
    interest.set(EpollFlags::EPOLLIN, !end.is_read && other.pending.is_empty());
    interest.set(EpollFlags::EPOLLOUT, !end.pending.is_empty());
    interest
}

/// Moves bytes one way, as long as both ends go along and it is its turn.
fn carry(from: &mut End, to: &mut End) -> io::Result<()> {
    let mut buffer = [0; BUFFER_LEN];
    for _ in 0..BUFFERS_A_TURN {
        if !to.flush()? {
            return Ok(());
        }
        if from.is_read {
            return to.shut();
        }
        match from.stream.read(&mut buffer) {
            Ok(0) => from.is_read = true,
            Ok(len) => to.put(&buffer[..len])?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    // The end itself must not wait for a turn: nothing would announce it again.
    if from.is_read && to.flush()? { to.shut() } else { Ok(()) }
}

/// The host's port on both loopbacks, first the one that the program has chosen. A name such as `localhost` is often both, and a
/// program that finds the first one refused would try the second; here the refusal comes too late for that.
fn candidates(port: SocketAddr) -> Vec<SocketAddr> {
    let other = match port.ip() {
        IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    vec![SocketAddr::new(other, port.port()), SocketAddr::new(port.ip(), port.port())]
}

/// Begins to connect to the last of `addresses` that can be tried, and takes it and those after it away.
fn begin_any(addresses: &mut Vec<SocketAddr>) -> io::Result<TcpStream> {
    loop {
        let Some(address) = addresses.pop() else { return Err(io::ErrorKind::ConnectionRefused.into()) };
        match begin(address) {
            Err(_) if !addresses.is_empty() => {}
            result => return result,
        }
    }
}

fn begin(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(e) => Err(e.into()),
    }
}

/// Closing the stream will reset it: its other side sees a connection that broke (SO_LINGER in socket(7)).
pub(super) fn reset(stream: &TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    // Without it the other side sees an ordinary end.
    let _ = setsockopt(stream, sockopt::Linger, &at_once);
}
