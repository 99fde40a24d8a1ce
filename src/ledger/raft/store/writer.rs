//! The one that writes to `ledger.redb`. Shell.
//!
//! Jobs are written in the order in which they were handed over, all that wait in one commit, and each is told of it afterwards. After
//! the first failure nothing is written any more: what came later would stand behind a hole.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::IOFlushed;
use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::ledger::raft::types::TypeConfig;

use super::rows::{self, Write};

/// How many jobs may wait. All that wait go into one commit, so this is reached only when one sync takes longer than a thousand
/// appends; Raft waits then.
const JOBS_MAX: usize = 1_024;

/// How long a simulated disk takes: asked once before each commit and once after it.
pub type Pace = Box<dyn FnMut() -> Duration + Send>;

/// Some writes, and who is to be told that they are on the disk.
pub(super) struct Job {
    writes: Vec<Write>,
    done: Done,
}

/// Who is told.
enum Done {
    /// Nobody: what follows in the queue is not told before this one is written.
    Nobody,
    /// Raft, of entries.
    Flushed(IOFlushed<TypeConfig>),
    /// Whoever waits.
    Waiting(oneshot::Sender<Result<(), io::Error>>),
}

impl Done {
    fn tell(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Self::Nobody => {}
            Self::Flushed(flushed) => flushed.io_completed(result),
            // Nobody waits any more: Raft is stopping.
            Self::Waiting(waiting) => drop(waiting.send(result)),
        }
    }
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Jobs {
    queue: mpsc::Sender<Job>,
}

/// A queue of jobs, and its end at the writer.
pub(super) fn queue() -> (Jobs, mpsc::Receiver<Job>) {
    let (queue, waiting) = mpsc::channel(JOBS_MAX);
    (Jobs { queue }, waiting)
}

impl Jobs {
    /// Hands over writes that come before all later ones.
    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<(), io::Error> {
        self.hand_over(writes, Done::Nobody).await
    }

    /// Hands over entries; Raft is told when they are on the disk.
    pub(super) async fn append(&self, writes: Vec<Write>, flushed: IOFlushed<TypeConfig>) -> Result<(), io::Error> {
        if bug!(SyncForgotten) {
            flushed.io_completed(Ok(()));
            return self.write(writes).await;
        }
        self.hand_over(writes, Done::Flushed(flushed)).await
    }

    /// Writes, and returns when it is on the disk.
    pub(super) async fn write_through(&self, writes: Vec<Write>) -> Result<(), io::Error> {
        let (done, written) = oneshot::channel();
        self.hand_over(writes, Done::Waiting(done)).await?;
        written.await.map_err(|_| ended())?
    }

    async fn hand_over(&self, writes: Vec<Write>, done: Done) -> Result<(), io::Error> {
        self.queue.send(Job { writes, done }).await.map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::other("what writes the ledger's database has ended")
}

/// Writes until nobody can hand over any more. For a thread of its own.
pub(super) fn serve(database: &Database, mut waiting: mpsc::Receiver<Job>) {
    let mut state = Ok(());
    while let Some(first) = waiting.blocking_recv() {
        let jobs = group(first, &mut waiting);
        state = state.and_then(|()| commit(database, &jobs));
        jobs.into_iter().for_each(|job| job.done.tell(&state));
    }
}

/// The same in a task, on a disk that takes as long as `pace` says.
pub(super) async fn serve_paced(database: Arc<Database>, mut waiting: mpsc::Receiver<Job>, mut pace: Pace) {
    let mut state = Ok(());
    while let Some(first) = waiting.recv().await {
        tokio::time::sleep(pace()).await;
        let jobs = group(first, &mut waiting);
        state = state.and_then(|()| commit(&database, &jobs));
        tokio::time::sleep(pace()).await;
        jobs.into_iter().for_each(|job| job.done.tell(&state));
    }
}

/// The first one and all that wait behind it.
fn group(first: Job, waiting: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut jobs = vec![first];
    while let Ok(job) = waiting.try_recv() {
        jobs.push(job);
    }
    jobs
}

fn commit(database: &Database, jobs: &[Job]) -> Result<(), String> {
    let written = rows::write(database, jobs.iter().flat_map(|job| &job.writes));
    written.map_err(|error| format!("cannot write the ledger's database: {error}"))
}

/// The writer that is a task. Dropping it is a crash of the process, in simulated time.
pub struct Writing {
    task: JoinHandle<()>,
}

impl Writing {
    pub(super) fn new(task: JoinHandle<()>) -> Self {
        Self { task }
    }

    /// Waits until all that was handed over is written and nobody can hand over any more.
    pub async fn ended(mut self) {
        // It fails only by a panic, which was reported where it happened.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
