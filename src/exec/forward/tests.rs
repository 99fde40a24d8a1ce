//! The parts that need no network of their own; `tests/real/spaces.rs` has the whole.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

/// A connection between a program and a host, both played by the test, and what carries it.
struct Carried {
    epoll: Epoll,
    connection: Option<Connection>,
    program: TcpStream,
}

impl Carried {
    /// The program has connected to `port`.
    fn to(port: std::net::SocketAddr) -> Self {
        let inside = TcpListener::bind("127.0.0.1:0").unwrap();
        let program = TcpStream::connect(inside.local_addr().unwrap()).unwrap();
        program.set_nonblocking(true).unwrap();
        let (taken, _) = inside.accept().unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let mut connection = Connection::new(taken, port).map_err(|(_, e)| e).unwrap();
        connection.watch(&epoll, token).unwrap();
        Self { epoll, connection: Some(connection), program }
    }

    /// Carries until nothing is ready for a while; whether the connection still stands.
    fn carry(&mut self) -> bool {
        let mut events = [EpollEvent::empty(); 4];
        while let Some(connection) = &mut self.connection {
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(50u8)).unwrap();
            if ready == 0 {
                return true;
            }
            for event in &events[..ready] {
                let Some(Token::Connection(_, side)) = Token::from_number(event.data()) else { panic!("{event:?}") };
                match connection.go_on(side) {
                    Ok(Progress::Goes) => connection.watch(&self.epoll, token).unwrap(),
                    Ok(Progress::Done) => {
                        self.connection = None;
                        return false;
                    }
                    Err(_) => {
                        connection.reset();
                        self.connection = None;
                        return false;
                    }
                }
            }
        }
        false
    }
}

fn token(side: Side) -> u64 {
    Token::Connection(1, side).number()
}

fn host() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// All that can be read without waiting; whether the end was reached.
fn read_all(stream: &mut TcpStream) -> (usize, bool) {
    let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (total, true),
            Ok(len) => total += len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (total, false),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn tokens_survive_epoll() {
    let sides = [Side::Inner, Side::Outer].map(|side| Token::Connection(9, side));
    for token in [Token::Timer, Token::Listener(3), Token::Port(4), Token::Peer(5)].into_iter().chain(sides) {
        assert_eq!(Token::from_number(token.number()), Some(token));
    }
    assert_eq!(Token::from_number(7), None);
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let (listener, address) = host();
    let mut carried = Carried::to(address);
    carried.program.write_all(b"question").unwrap();
    carried.program.shutdown(Shutdown::Write).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert!(carried.carry());
    server.set_nonblocking(true).unwrap();
    assert_eq!(read_all(&mut server), (8, true));
    server.write_all(b"long answer").unwrap();
    assert!(carried.carry());
    assert_eq!(read_all(&mut carried.program), (11, false));
    drop(server);
    assert!(!carried.carry(), "both directions have ended");
    assert_eq!(read_all(&mut carried.program), (0, true));
}

#[test]
fn a_reader_that_does_not_read_slows_the_writer_and_costs_one_buffer() {
    let (listener, address) = host();
    let mut carried = Carried::to(address);
    let (mut server, _) = listener.accept().unwrap();
    let mut sent = 0;
    let chunk = [b'x'; 1 << 16];
    // Until all the buffers of the kernel and one of ours are full.
    loop {
        match carried.program.write(&chunk) {
            Ok(len) => sent += len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                assert!(carried.carry());
                let mut fds = [PollFd::new(carried.program.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::ZERO).unwrap() == 0 {
                    break;
                }
            }
            Err(e) => panic!("{e}"),
        }
        assert!(sent < 1 << 28, "nothing stops the writer");
    }
    server.set_nonblocking(true).unwrap();
    let mut received = 0;
    while received < sent {
        received += read_all(&mut server).0;
        assert!(carried.carry());
    }
    assert_eq!(received, sent);
}

#[test]
fn a_connection_that_breaks_is_reset_at_its_other_end() {
    let (listener, address) = host();
    let mut carried = Carried::to(address);
    let (server, _) = listener.accept().unwrap();
    assert!(carried.carry());
    connection::reset(&server);
    drop(server);
    assert!(!carried.carry());
    let error = carried.program.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_port_that_is_served_on_the_other_loopback_alone_is_found() {
    let (listener, mut address) = host();
    address.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
    let mut carried = Carried::to(address);
    assert!(carried.carry());
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"found").unwrap();
    assert!(carried.carry());
    assert_eq!(read_all(&mut carried.program), (5, false));
}

#[test]
fn a_port_that_nobody_serves_breaks_the_connection() {
    let (listener, address) = host();
    drop(listener);
    let mut carried = Carried::to(address);
    assert!(!carried.carry());
    let error = carried.program.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
