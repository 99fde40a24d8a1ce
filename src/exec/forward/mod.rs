//! Ports of the host's loopback for an instance that has no network but a loopback of its own. Shell.
//!
//! The program connects to `127.0.0.1:PORT` or `[::1]:PORT` inside; the keeper holds the listening ends of these, which were made in
//! there, and carries what comes in to the same port of the host. Each instance has one [`Forward`], which is one descriptor to
//! wait on for the keeper's loop: an epoll of its own (epolls may be nested, epoll(7)), with a timer in it. It never waits, starts
//! no process, has no thread, and everything in it has a limit, since the programs at both ends are strangers.

mod connection;
mod datagrams;

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::rlim_t;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use connection::{Connection, Progress, Side};
use datagrams::Datagrams;

/// Most connections of one instance at once: a program with a thousand of them to its database is one that leaks them. Further ones
/// are reset.
const CONNECTIONS_MAX: usize = 1024;

/// The share of the keeper's descriptors, in quarters, from which on no connection is taken any more: what is left is for starting
/// instances. The kernel gives the lowest free number, so that a number says how many there are.
const DESCRIPTORS_QUARTERS: rlim_t = 3;

/// How many events are seen to before the keeper's other instances get their turn.
const EVENTS_MAX: usize = 64;

/// How many connections are accepted at a turn, for the same reason.
const ACCEPTS_MAX: usize = 64;

/// How long nothing is accepted after that has failed for want of memory or descriptors: it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How long connections outlast their instance at most, to deliver what it had sent. The kernel gives an orphaned socket about as
/// long.
const LINGER_MAX: Duration = Duration::from_secs(60);

/// What is carried for one instance.
#[derive(Debug)]
pub(crate) struct Forward {
    epoll: Epoll,
    timer: TimerFd,
    /// When the timer rings, if it is set.
    rings_at: Option<Instant>,
    /// The first descriptor's number that is one too many.
    descriptors_end: rlim_t,
    listeners: Vec<TcpListener>,
    /// By numbers that are never used again.
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    datagrams: Datagrams,
    /// Until when nothing is accepted.
    paused_until: Option<Instant>,
    /// Whether it was told that there are too many connections, and there still are.
    is_full: bool,
    /// The instance has ended; by when all is closed.
    ends_at: Option<Instant>,
}

/// What became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Timer,
    Listener(usize),
    Connection(u64, Side),
    /// A socket that the program sends datagrams to.
    Port(usize),
    /// The host's side of one that sends them.
    Peer(u64),
}

impl Token {
    /// The number for epoll: the kind in the low three bits.
    fn number(self) -> u64 {
        let (kind, number) = match self {
            Self::Timer => (0, 0),
            Self::Listener(number) => (1, number as u64),
            Self::Connection(number, Side::Inner) => (2, number),
            Self::Connection(number, Side::Outer) => (3, number),
            Self::Port(number) => (4, number as u64),
            Self::Peer(number) => (5, number),
        };
        number << 3 | kind
    }

    fn from_number(number: u64) -> Option<Self> {
        let (kind, number) = (number & 7, number >> 3);
        let index = usize::try_from(number).ok()?;
        Some(match kind {
            0 => Self::Timer,
            1 => Self::Listener(index),
            2 => Self::Connection(number, Side::Inner),
            3 => Self::Connection(number, Side::Outer),
            4 => Self::Port(index),
            5 => Self::Peer(number),
            _ => return None,
        })
    }
}

impl Forward {
    /// Nothing yet, for a process that may have this many descriptors.
    pub(crate) fn new(descriptors_max: rlim_t) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, Token::Timer.number()))?;
        Ok(Self {
            epoll,
            timer,
            rings_at: None,
            descriptors_end: descriptors_max / 4 * DESCRIPTORS_QUARTERS,
            listeners: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            datagrams: Datagrams::default(),
            paused_until: None,
            is_full: false,
            ends_at: None,
        })
    }

    /// Carries what comes in on these sockets too: listening ones, and bound ones for datagrams.
    pub(crate) fn add(&mut self, sockets: Vec<OwnedFd>) -> nix::Result<()> {
        for socket in sockets {
            let token = match getsockopt(&socket, sockopt::SockType)? {
                SockType::Stream => {
                    let listener = TcpListener::from(socket);
                    listener.set_nonblocking(true).map_err(errno)?;
                    self.listeners.push(listener);
                    Token::Listener(self.listeners.len() - 1)
                }
                _ => Token::Port(self.datagrams.add(UdpSocket::from(socket)).map_err(errno)?),
            };
            let fd = match token {
                Token::Listener(index) => self.listeners[index].as_fd(),
                Token::Port(index) => self.datagrams.port(index),
                _ => unreachable!("these two are made above"),
            };
            self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.number()))?;
        }
        Ok(())
    }

    /// Sees to what has become ready, without waiting.
    pub(crate) fn serve(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        // Interrupted: what is ready stays so.
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            match Token::from_number(event.data()) {
                Some(Token::Timer) => self.ring(),
                Some(Token::Listener(index)) => self.accept(index),
                Some(Token::Connection(number, side)) => self.carry(number, side),
                Some(Token::Port(index)) => self.datagrams.carry_out(index, &self.epoll, self.descriptors_end),
                Some(Token::Peer(number)) => self.datagrams.carry_back(number),
                None => {}
            }
        }
        self.set_timer();
    }

    /// The instance has ended: nothing new is taken, and what it had sent is still delivered.
    pub(crate) fn end(&mut self) {
        self.listeners.clear();
        self.datagrams.end(&self.epoll, self.descriptors_end);
        self.paused_until = None;
        self.ends_at = Some(Instant::now() + LINGER_MAX);
        self.set_timer();
    }

    /// Whether nothing is left of an ended instance's.
    pub(crate) fn is_over(&self) -> bool {
        self.ends_at.is_some_and(|at| self.connections.is_empty() || Instant::now() >= at)
    }

    // Connections.

    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get(index) else { return };
            match listener.accept() {
                Ok((stream, _)) => self.take(stream, index),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // A connection that broke before it was taken, and others of its kind (accept(2)).
                Err(e) if !is_shortage(&e) => {}
                Err(error) => return self.pause(&error),
            }
        }
    }

    /// Carries a new connection, if there is room for one.
    fn take(&mut self, stream: TcpStream, index: usize) {
        let number = rlim_t::from(stream.as_raw_fd().unsigned_abs());
        if self.connections.len() >= CONNECTIONS_MAX || number >= self.descriptors_end {
            if !self.is_full {
                tracing::warn!(held = self.connections.len(), "too many forwarded connections; resetting new ones");
            }
            self.is_full = true;
            return connection::reset(&stream);
        }
        self.is_full = false;
        let Ok(port) = self.listeners[index].local_addr() else { return connection::reset(&stream) };
        let mut connection = match Connection::new(stream, port) {
            Ok(connection) => connection,
            Err((stream, error)) => {
                tracing::debug!(%port, %error, "cannot connect to the host's port");
                return connection::reset(&stream);
            }
        };
        self.next_connection += 1;
        let number = self.next_connection;
        match connection.watch(&self.epoll, |side| Token::Connection(number, side).number()) {
            Ok(()) => drop(self.connections.insert(number, connection)),
            Err(error) => {
                tracing::warn!(%error, "cannot wait on a forwarded connection");
                connection.reset();
            }
        }
    }

    /// Moves what a connection has.
    fn carry(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let token = |side| Token::Connection(number, side).number();
        let progress = connection.go_on(side).and_then(|progress| {
            connection.watch(&self.epoll, token)?;
            Ok(progress)
        });
        match progress {
            Ok(Progress::Goes) => return,
            Ok(Progress::Done) => {}
            Err(error) => {
                tracing::debug!(%error, "a forwarded connection broke");
                connection.reset();
            }
        }
        connection.forget(&self.epoll);
        self.connections.remove(&number);
    }

    /// Stops accepting for a while.
    fn pause(&mut self, error: &io::Error) {
        tracing::warn!(%error, "cannot accept forwarded connections for now");
        for listener in &self.listeners {
            // Waited on, or paused already.
            let _ = self.epoll.delete(listener);
        }
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    // Time.

    fn ring(&mut self) {
        let now = Instant::now();
        self.rings_at = None;
        // A timer that is not read stays ready.
        let _ = nix::unistd::read(&self.timer, &mut [0; 8]);
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
            for (index, listener) in self.listeners.iter().enumerate() {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener(index).number());
                if let Err(error) = self.epoll.add(listener, event) {
                    tracing::error!(%error, "cannot wait on a forwarded port any more");
                }
            }
        }
        self.datagrams.forget_silent(now, &self.epoll);
    }

    /// Sets the timer to what comes next, unless it rings before that anyway.
    fn set_timer(&mut self) {
        let next = [self.paused_until, self.datagrams.next_silent(), self.ends_at].into_iter().flatten().min();
        let Some(at) = next.filter(|at| self.rings_at.is_none_or(|rings| rings > *at)) else { return };
        // At once would mean never (timerfd_create(2)).
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        match self.timer.set(once, TimerSetTimeFlags::empty()) {
            Ok(()) => self.rings_at = Some(at),
            Err(error) => tracing::error!(%error, "cannot set the timer of forwarded ports"),
        }
    }
}

impl AsFd for Forward {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Whether the host has run out of what a socket takes, which does not pass at once.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests;
