//! What openraft runs on: tokio, with random numbers from a seed and with ordered watches. Shell.
//!
//! In simulated time many nodes share one thread, and one of them may be paused as SIGSTOP pauses a process. Whatever it has started
//! stands still then: all of it runs behind one [`Gate`]. In the binary there is none.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use tokio::task::JoinHandle;

use super::ordered::OrderedWatch;

type Below = DeterministicRng<TokioRuntime>;

/// See the module.
#[derive(Debug)]
pub struct Steady(Below);

/// Runs a future in which openraft is started or called; its random numbers follow from `seed`.
pub fn scope<F: Future>(seed: u64, future: F) -> impl Future<Output = F::Output> {
    Below::scope(seed, future)
}

/// Whether a simulated process may go on.
pub trait Gate: Send + Sync {
    /// Ready while it may. Else it wakes the task of `context` once it may again.
    fn poll_open(&self, context: &mut Context<'_>) -> Poll<()>;
}

tokio::task_local! {
    static GATE: Arc<dyn Gate>;
}

/// Runs a future behind a gate, and with it whatever [`spawn`] or openraft start from within it.
pub fn behind<F: Future>(gate: Arc<dyn Gate>, future: F) -> impl Future<Output = F::Output> {
    GATE.scope(gate.clone(), async move {
        let mut future = pin!(future);
        poll_fn(|context| {
            ready!(gate.poll_open(context));
            future.as_mut().poll(context)
        })
        .await
    })
}

/// Starts a task, behind the gate of whoever starts it.
pub fn spawn<F: Future<Output: Send> + Send + 'static>(future: F) -> JoinHandle<F::Output> {
    match GATE.try_with(Arc::clone) {
        Ok(gate) => tokio::spawn(behind(gate, future)),
        Err(_) => tokio::spawn(future),
    }
}

impl AsyncRuntime for Steady {
    type JoinError = <Below as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Below as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Below as AsyncRuntime>::Sleep;
    type Instant = <Below as AsyncRuntime>::Instant;
    type TimeoutError = <Below as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Below as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Below as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Below as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <Below as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Below as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match GATE.try_with(Arc::clone) {
            Ok(gate) => Below::spawn(behind(gate, future)),
            Err(_) => Below::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Below::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Below::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Below::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Below::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Below::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Below::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Below::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Below::spawn_blocking(work)
    }
}
