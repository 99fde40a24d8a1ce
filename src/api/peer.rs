//! Who may speak to the node's socket: judged once, when a connection is taken. Wiring round `exec::peer`.

use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::exec::peer;
use crate::node::engine::effect::{Refusal, RefusalCode};

/// The socket, with what is needed to tell an instance.
pub struct Doorkeeper {
    listener: UnixListener,
    keeper: watch::Receiver<Option<i32>>,
}

impl Doorkeeper {
    /// At this socket; `keeper` is the process number of the keeper, while there is one.
    pub fn new(listener: UnixListener, keeper: watch::Receiver<Option<i32>>) -> Self {
        Self { listener, keeper }
    }
}

impl Listener for Doorkeeper {
    type Io = UnixStream;
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let caller = match pid {
            Some(pid) => peer::check(pid, *self.keeper.borrow()).map_err(|error| not_allowed(&error.to_string())),
            None => Err(not_allowed("the caller's process is not known")),
        };
        (stream, Caller(caller))
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a socket has no caller of its own"))
    }
}

/// The process at the other end of a connection, judged when it connected: its number may be another process's later.
#[derive(Clone, Debug)]
pub struct Caller(Result<(), Refusal>);

impl Caller {
    pub(super) fn verdict(self) -> Result<(), Refusal> {
        self.0
    }
}

impl Connected<IncomingStream<'_, Doorkeeper>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Doorkeeper>) -> Self {
        stream.remote_addr().clone()
    }
}

fn not_allowed(reason: &str) -> Refusal {
    Refusal::new(RefusalCode::NotAllowed, format!("this process may not use the node's socket: {reason}"))
}
