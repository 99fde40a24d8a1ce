//! How the rest of the program speaks with the engine: typed requests in, a watched view out. Wiring.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::engine::effect::{Refusal, RefusalCode, Response};
use super::engine::input::Request;
use super::engine::view::View;

/// How many requests may wait for the engine. It takes 256 inputs a turn and a turn lasts milliseconds, so a full queue means
/// that the node is overloaded; those who ask then wait their turn.
pub const COMMANDS_MAX: usize = 256;

/// A request with the way back for its answer.
#[derive(Debug)]
pub struct Command {
    /// What is asked for.
    pub request: Request,
    /// Where the answer goes; the asker may have gone away.
    pub reply: oneshot::Sender<Result<Response, Refusal>>,
}

/// The door to one node's engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
}

impl NodeHandle {
    /// A handle over the two ends that the runtime serves.
    pub fn new(commands: mpsc::Sender<Command>, view: watch::Receiver<Arc<View>>) -> Self {
        Self { commands, view }
    }

    /// Asks for a change and waits for the answer, which comes once the change is durable. Refused with `unavailable` when the
    /// node is stopping.
    pub async fn request(&self, request: Request) -> Result<Response, Refusal> {
        let stopping = || Refusal::new(RefusalCode::Unavailable, "this node is stopping");
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { request, reply }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Waits until there is a view at all, or the node stops: before its first turn, the engine shows nothing of what it knows.
    pub async fn shows(&self) {
        // Handles never mark a view as seen, so that this is over at once where there was one.
        let _ = self.view.clone().changed().await;
    }

    /// Waits until `wanted` makes something of a view, and gives that back; none when the node stops first.
    pub async fn when<T>(&self, mut wanted: impl FnMut(&View) -> Option<T>) -> Option<T> {
        let mut view = self.view.clone();
        loop {
            if let Some(found) = wanted(&view.borrow_and_update()) {
                return Some(found);
            }
            view.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn nothing_is_shown_before_the_first_view_and_every_handle_is_told_of_it() {
        let (commands, _asked) = mpsc::channel(1);
        let (show, view) = watch::channel(Arc::new(View::default()));
        let handle = NodeHandle::new(commands, view);
        assert_eq!(handle.shows().now_or_never(), None);
        show.send_replace(Arc::new(View::default()));
        assert_eq!(handle.shows().now_or_never(), Some(()));
        assert_eq!(handle.clone().shows().now_or_never(), Some(()), "also where somebody has waited before");
    }

    #[test]
    fn a_node_that_ends_before_its_first_view_keeps_nobody_waiting() {
        let (commands, _asked) = mpsc::channel(1);
        let (show, view) = watch::channel(Arc::new(View::default()));
        let handle = NodeHandle::new(commands, view);
        drop(show);
        assert_eq!(handle.shows().now_or_never(), Some(()));
    }
}
