//! How a node is told to end. Shell.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The node alone: its instances stay with the keeper (SIGTERM: a restart or an upgrade).
    NodeOnly,
    /// Instances, keeper and node (Ctrl-C, `narun stop`).
    Everything,
}

impl Ending {
    /// For the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::NodeOnly => "node only; the keeper holds the instances",
            Self::Everything => "instances, keeper and node",
        }
    }
}

/// Waits for SIGTERM, SIGINT or the word over the API.
pub(super) async fn wait(mut stop_asked: mpsc::Receiver<()>) -> Ending {
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    tokio::select! {
        _ = terminate.recv() => Ending::NodeOnly,
        _ = interrupt.recv() => Ending::Everything,
        Some(()) = stop_asked.recv() => Ending::Everything,
    }
}

fn listen(kind: SignalKind) -> Signal {
    signal(kind).expect("SIGTERM and SIGINT can be listened for on every Linux")
}
