//! A gate before all tasks of one simulated process: while it is shut they stand still, as those of a process that was sent SIGSTOP
//! (signal(7)) or of a host that sleeps, while time goes on for everybody else. For tests.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::runtime;

/// The gate of one process.
#[derive(Clone, Default)]
pub(in crate::ledger) struct Gate {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// Tasks that were to go on meanwhile.
    waiting: Vec<Waker>,
}

impl Gate {
    /// Nothing behind it goes on.
    pub(in crate::ledger) fn shut(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_shut = true;
    }

    /// Everything goes on.
    pub(in crate::ledger) fn open(&self) {
        let waiting = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_shut = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl runtime::Gate for Gate {
    fn poll_open(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_shut {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        Poll::Pending
    }
}

/// Runs a future behind a gate, and all that it starts.
pub(in crate::ledger) fn behind<F: Future>(gate: Gate, future: F) -> impl Future<Output = F::Output> {
    runtime::behind(Arc::new(gate), future)
}
