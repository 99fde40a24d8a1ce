//! The keeper's side of the connection to its node. Shell.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::message::{Event, Request};
use super::socket::Socket;

/// Most events that wait for a slow node: two for each instance that a keeper can hold. A node that lets more gather is cut off; it
/// loses nothing, since it finds all in the table when it connects again.
const QUEUE_MAX: usize = 2 * super::serve::INSTANCES_MAX;

/// A connected node.
#[derive(Debug)]
pub(super) struct Node {
    socket: Socket,
    queue: VecDeque<Event>,
    /// Whether the versions were settled: before that nothing else is said.
    pub(super) is_greeted: bool,
}

impl Node {
    /// The node at the other end of `socket`.
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, queue: VecDeque::new(), is_greeted: false }
    }

    /// Queues an event; [`Self::flush`] sends it.
    pub(super) fn tell(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    /// Sends what the socket takes. Gives whether something is left for when it takes more; fails when the connection is broken
    /// or the node too slow.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while let Some(event) = self.queue.front() {
            match self.socket.send(event) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if self.queue.len() > QUEUE_MAX {
            return Err(io::Error::other(format!("the node lets more than {QUEUE_MAX} events wait")));
        }
        Ok(!self.queue.is_empty())
    }

    /// The next request, if one has come; fails when the connection is broken or was closed.
    pub(super) fn receive(&self) -> io::Result<Option<Request>> {
        match self.socket.receive() {
            Ok(Some(request)) => Ok(Some(request)),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
