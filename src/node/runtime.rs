//! The loop round one engine. Wiring: it decides nothing.
//!
//! One task owns the engine. It gathers inputs into a batch, hands them over with the time, and carries out the turn that comes
//! back: ungated effects at once, the changes to the disk, gated effects when the disk confirms, in order. It never waits for
//! a commit. The same loop runs in the binary and in `tests/netsim/`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::crdt::trust::Gone;

use super::engine::Engine;
use super::engine::effect::{Effect, Pending, Refusal, Response, Turn};
use super::engine::input::Input;
use super::engine::view::View;
use super::handle::Command;
use super::shells::{Agreement, Blobs, Clock, Disk, DiskError, Network, Processes};

/// Most inputs in one batch: large enough that a burst costs one settle, small enough that a turn stays short.
pub const BATCH_MAX: usize = 256;

/// How many inputs may wait. Shells that fill it wait in turn, and the network drops messages, which gossip repairs.
pub const INPUTS_MAX: usize = 4096;

/// The world of one node.
pub struct World<N, D, P, B, L, C> {
    /// Carries messages.
    pub network: N,
    /// Makes changes durable.
    pub disk: D,
    /// Owns processes.
    pub processes: P,
    /// Holds blobs.
    pub blobs: B,
    /// Agrees with other nodes.
    pub ledger: L,
    /// Tells the time.
    pub clock: C,
}

/// What runs into and out of the loop, beside the world.
pub struct Doors {
    /// What the shells report.
    pub inputs: mpsc::Receiver<Input>,
    /// What people ask for.
    pub commands: mpsc::Receiver<Command>,
    /// Where the newest view is shown.
    pub view: watch::Sender<Arc<View>>,
}

/// Runs `engine` until all senders of commands are gone, until the node is no member any more and that is on the disk (then it
/// says why), or until the disk fails: then nothing that was promised since the last confirmation has left the node.
pub async fn run<N, D, P, B, L, C>(
    engine: Engine,
    world: World<N, D, P, B, L, C>,
    doors: Doors,
) -> Result<Option<Gone>, DiskError>
where
    N: Network,
    D: Disk,
    P: Processes,
    B: Blobs,
    L: Agreement,
    C: Clock,
{
    let mut runtime =
        Runtime { engine, world, waiting: VecDeque::new(), replies: BTreeMap::new(), next_request: 0, gone: None };
    runtime.run(doors).await
}

struct Runtime<N, D, P, B, L, C> {
    engine: Engine,
    world: World<N, D, P, B, L, C>,
    /// Gated effects, oldest first: one entry for each batch of changes that the disk has and has not confirmed.
    waiting: VecDeque<Pending>,
    replies: BTreeMap<u64, oneshot::Sender<Result<Response, Refusal>>>,
    next_request: u64,
    /// Set once the node is to end.
    gone: Option<Gone>,
}

impl<N: Network, D: Disk, P: Processes, B: Blobs, L: Agreement, C: Clock> Runtime<N, D, P, B, L, C> {
    async fn run(&mut self, mut doors: Doors) -> Result<Option<Gone>, DiskError> {
        let mut batch = vec![Input::Tick];
        // A request, and how many inputs had been reported before it came. It is handed over after those: a deploy is asked for once the
        // store has said that it holds the binary. Later inputs do not hold it up.
        let mut asked: Option<(Input, usize)> = None;
        loop {
            let turn = self.engine.handle(self.world.clock.now(), std::mem::take(&mut batch));
            self.carry_out(turn);
            doors.view.send_if_modified(|shown| self.show(shown));

            let deadline = self.engine.next_deadline();
            tokio::select! {
                biased;
                committed = self.world.disk.confirmed() => {
                    let pending = self.waiting.pop_front().expect("the disk confirmed more batches than it was handed");
                    for effect in pending.release(&committed?) {
                        self.perform(effect);
                    }
                    if self.gone.is_some() {
                        return Ok(self.gone.take());
                    }
                }
                command = doors.commands.recv(), if asked.is_none() => match command {
                    Some(command) => asked = Some((self.number(command), doors.inputs.len())),
                    None => return Ok(None),
                },
                Some(input) = doors.inputs.recv() => {
                    batch.push(input);
                    asked = asked.map(|(request, before)| (request, before.saturating_sub(1)));
                }
                () = self.world.clock.wait_until(deadline) => batch.push(Input::Tick),
            }
            while batch.len() < BATCH_MAX {
                let Ok(input) = doors.inputs.try_recv() else { break };
                batch.push(input);
                asked = asked.map(|(request, before)| (request, before.saturating_sub(1)));
            }
            batch.extend(asked.take_if(|(_, before)| *before == 0).map(|(request, _)| request));
        }
    }

    /// Gives a request its number, and remembers where its answer goes.
    fn number(&mut self, command: Command) -> Input {
        let id = self.next_request;
        self.next_request += 1;
        self.replies.insert(id, command.reply);
        Input::Request { id, request: command.request }
    }

    fn carry_out(&mut self, turn: Turn) {
        for effect in turn.now {
            self.perform(effect);
        }
        let mut pending = turn.pending;
        if !pending.is_empty() {
            self.world.disk.commit(pending.take_changes());
            self.waiting.push_back(pending);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let World { network, processes, blobs, ledger, .. } = &mut self.world;
        match effect {
            Effect::Send { to, bytes } => network.send(to, bytes),
            Effect::Members(members) => network.members(members),
            Effect::Reply { id, response } => {
                if let Some(reply) = self.replies.remove(&id) {
                    // The asker may have gone away; its request was carried out all the same.
                    let _ = reply.send(response);
                }
            }
            Effect::Launch(plan) => processes.launch(*plan),
            Effect::Signal { run, signal } => processes.signal(run, signal),
            Effect::Kill { run } => processes.kill(run),
            Effect::Acknowledge { run } => processes.acknowledge(run),
            Effect::Extend { run, until } => processes.extend(run, until),
            Effect::Fetch { hash, size, from } => blobs.fetch(hash, size, from),
            Effect::MakeExecutable(hash) => blobs.make_executable(hash),
            Effect::Sweep(hash) => blobs.sweep(hash),
            Effect::AskLedger { id, question } => ledger.ask(id, question),
            Effect::Wants(wants) => ledger.wants(wants),
            Effect::Candidates(members) => ledger.members(members),
            Effect::AskStanding(member) => network.ask_standing(member),
            Effect::End(gone) => self.gone = Some(gone),
        }
    }

    /// Shows the newest view, if it is another one.
    fn show(&mut self, shown: &mut Arc<View>) -> bool {
        let newest = self.engine.view();
        let changed = !Arc::ptr_eq(shown, &newest);
        *shown = newest;
        changed
    }
}
