//! The world as the runtime sees it: small traits between the pure engine and everything that is not pure.
//!
//! On the real machine they are libp2p, redb, the keeper, the blob store and the system clock; in `tests/netsim/` they are
//! simulated. None of the calls wait: what comes back comes as an [`Input`](super::engine::input::Input) through the sender
//! that the shell was made with, or as a confirmation of the disk.

use std::future::Future;
use std::sync::Arc;

use crate::exec::plan::LaunchPlan;
use crate::ids::{BlobHash, NodeKey, RunId};
use crate::ledger::office::Wants;
use crate::ledger::question::Question;
use crate::ledger::voters::Candidate;
use crate::time::{Mono, Now};

use super::engine::effect::{Change, Committed, Peer};

/// Carries messages between members.
pub trait Network {
    /// Sends one message; it may be lost, and is dropped when the queue to that member is full.
    fn send(&mut self, to: NodeKey, bytes: Vec<u8>);
    /// From now on these are the members: everybody else is refused and cut.
    fn members(&mut self, members: Vec<Arc<Peer>>);
    /// Asks a member, at its door, why it takes this node for a stranger; what it answers comes as
    /// [`NetworkEvent::Standing`](super::engine::input::NetworkEvent::Standing), if anything.
    fn ask_standing(&mut self, member: NodeKey);
}

/// Makes changes durable, in the order given.
pub trait Disk {
    /// Hands over one batch; it is written whole or not at all.
    fn commit(&mut self, changes: Vec<Change>);
    /// Waits for the oldest batch handed over and not yet confirmed to be on the disk; waits for ever when there is none.
    /// Cancelling the wait loses nothing.
    fn confirmed(&mut self) -> impl Future<Output = Result<Committed, DiskError>> + Send;
}

/// A commit failed: the node cannot go on, since it no longer knows what it has promised.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the node's database: {0}")]
pub struct DiskError(pub String);

/// Owns processes.
pub trait Processes {
    /// Starts one.
    fn launch(&mut self, plan: LaunchPlan);
    /// Sends a signal to the first process of a run; nothing happens when there is no such run.
    fn signal(&mut self, run: RunId, signal: i32);
    /// Ends every process of a run.
    fn kill(&mut self, run: RunId);
    /// Lets the keeper forget a run that has ended.
    fn acknowledge(&mut self, run: RunId);
    /// Puts off the end of a run's lease, by the boot clock: then the keeper kills it, whether or not the node is there.
    fn extend(&mut self, run: RunId, until: Mono);
}

/// Holds blobs.
pub trait Blobs {
    /// Fetches a blob from members, best first; a second call for one under way adds its sources.
    fn fetch(&mut self, hash: BlobHash, size: u64, from: Vec<NodeKey>);
    /// Makes the verified executable `bin/<hash>`.
    fn make_executable(&mut self, hash: BlobHash);
    /// Removes a blob.
    fn sweep(&mut self, hash: BlobHash);
}

/// The ledger: what needs agreement among nodes.
pub trait Agreement {
    /// Asks; the one answer comes as [`LedgerEvent::Answered`](super::engine::input::LedgerEvent::Answered) with the same number.
    fn ask(&mut self, id: u64, question: Question);
    /// From now on these nodes are wanted for these leases.
    fn wants(&mut self, wants: Arc<Wants>);
    /// From now on these are the members, some of which vote.
    fn members(&mut self, members: Arc<[Candidate]>);
}

/// Tells the time.
pub trait Clock {
    /// Both clocks.
    fn now(&self) -> Now;
    /// Waits until the boot clock shows `deadline`, or the wall clock was stepped.
    fn wait_until(&self, deadline: Mono) -> impl Future<Output = ()> + Send;
}
