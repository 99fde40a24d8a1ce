//! The way from a shell to the loop: what is put in comes out in order, and waits when the loop's inputs are full.

use tokio::sync::mpsc;

use narun::node::engine::input::Input;

/// One shell's way to one run of a node's process.
#[derive(Clone)]
pub(crate) struct Outbox(mpsc::UnboundedSender<Input>);

impl Outbox {
    /// A way to `inputs`; it ends with the process.
    pub(crate) fn new(inputs: mpsc::Sender<Input>) -> Self {
        // No bound is needed: a shell speaks of what its host holds, once for each thing that the loop asked of it.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(input) = receiver.recv().await {
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
        });
        Self(sender)
    }

    /// Puts one in; nobody hears it when the process is gone.
    pub(crate) fn put(&self, input: Input) {
        let _ = self.0.send(input);
    }
}
