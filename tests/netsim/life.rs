//! One run of one node's process: it can be paused, and it can end at a chosen point.
//!
//! Shells ask [`Life::acts`] before each deed. From the moment it is over, nothing that the loop still does reaches the world,
//! so a crash can be placed between any two effects of one turn, although the loop itself is not touched.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use narun::crdt::trust::Gone;
use narun::ledger::raft::runtime::{Gate, behind};
use narun::node::shells::DiskError;

/// Where a node's process is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fuse {
    /// As soon as the next batch was handed to the disk; that batch is lost, or is found on the disk afterwards.
    NextCommit {
        /// Whether the batch reaches the disk.
        survives: bool,
    },
    /// When the next batch is on the disk, and the loop has not heard of it.
    NextConfirmation,
    /// After so many more effects.
    Effects(u32),
}

/// How a node's process ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was killed, or its fuse burnt down.
    Crashed,
    /// Its loop returned.
    Returned(Result<Option<Gone>, DiskError>),
}

/// One run of one node's process.
#[derive(Default)]
pub(crate) struct Life(Mutex<State>);

#[derive(Default)]
struct State {
    over: bool,
    stalled: bool,
    forges: bool,
    fuse: Option<Fuse>,
    waker: Option<Waker>,
    /// Tasks of the process that wait for it to go on.
    held: Vec<Waker>,
}

impl Life {
    /// A process that runs.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it still can do anything; one step of a fuse that counts effects.
    pub(crate) fn acts(&self) -> bool {
        let mut state = self.lock();
        if let Some(Fuse::Effects(left)) = &mut state.fuse {
            if *left == 0 {
                state.end();
            } else {
                *left -= 1;
            }
        }
        !state.over
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Ends it here and now.
    pub(crate) fn end(&self) {
        self.lock().end();
    }

    /// Pauses it, as SIGSTOP would, or lets it go on.
    pub(crate) fn stall(&self, stalled: bool) {
        let mut state = self.lock();
        state.stalled = stalled;
        state.wake();
    }

    /// Whether it is paused.
    pub(crate) fn is_stalled(&self) -> bool {
        self.lock().stalled
    }

    /// Waits until the process is not paused.
    pub(crate) async fn open(&self) {
        poll_fn(|context| self.poll_open(context)).await;
    }

    /// Runs something that belongs to the process: it stands still with it.
    pub(crate) fn gated<F: Future>(self: &Arc<Self>, future: F) -> impl Future<Output = F::Output> + use<F> {
        behind(self.clone(), future)
    }

    /// Whether it lies about others from now on.
    pub(crate) fn set_forges(&self, forges: bool) {
        self.lock().forges = forges;
    }

    /// Whether it lies about others.
    pub(crate) fn forges(&self) -> bool {
        self.lock().forges
    }

    /// Sets where it is to end.
    pub(crate) fn light(&self, fuse: Fuse) {
        self.lock().fuse = Some(fuse);
    }

    /// Takes the fuse out.
    pub(crate) fn extinguish(&self) {
        self.lock().fuse = None;
    }

    /// The fuse that burns.
    pub(crate) fn fuse(&self) -> Option<Fuse> {
        self.lock().fuse
    }

    /// Runs `node` for as long as this life lasts.
    pub(crate) async fn live(self: Arc<Self>, node: impl Future<Output = Result<Option<Gone>, DiskError>>) -> End {
        let mut node = pin!(node);
        poll_fn(|context| {
            {
                let mut state = self.lock();
                if state.over {
                    return Poll::Ready(End::Crashed);
                }
                state.waker = Some(context.waker().clone());
                if state.stalled {
                    return Poll::Pending;
                }
            }
            match node.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(End::Returned(result)),
                Poll::Pending if self.is_over() => Poll::Ready(End::Crashed),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Gate for Life {
    fn poll_open(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.stalled && !state.over {
            state.held.push(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl State {
    fn end(&mut self) {
        self.over = true;
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().chain(self.held.drain(..)).for_each(Waker::wake);
    }
}
