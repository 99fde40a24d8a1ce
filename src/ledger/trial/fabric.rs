//! The network between simulated hosts: delays, losses, doubles, ways that are cut, by one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout_at};

use crate::ids::NodeKey;
use crate::ledger::raft::Ledger;
use crate::ledger::raft::gate::{Gate, behind};
use crate::ledger::raft::network::{Broken, Channel, Wire};

/// How long a message takes that nothing holds up, in microseconds.
const DELAY_US: Range<u64> = 100..3_000;

/// The network.
pub(in crate::ledger) struct Fabric {
    state: Mutex<State>,
    /// When everything began.
    pub(in crate::ledger) began: Instant,
}

/// What it knows.
pub(in crate::ledger) struct State {
    doors: BTreeMap<NodeKey, Door>,
    /// Which process of a host may speak.
    lives: BTreeMap<NodeKey, u64>,
    /// From whom to whom nothing goes.
    pub(in crate::ledger) cut: BTreeSet<(NodeKey, NodeKey)>,
    /// How it fares with all that is sent.
    pub(in crate::ledger) weather: Weather,
    random: StdRng,
    trace: blake3::Hasher,
    messages: u64,
}

/// What becomes of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ledger) struct Weather {
    /// Of a hundred so many are lost.
    pub(in crate::ledger) lost: u32,
    /// Of a hundred so many come twice, the second time late.
    pub(in crate::ledger) doubled: u32,
    /// Of a hundred so many take as long as that, and less.
    pub(in crate::ledger) slow: (u32, Duration),
}

/// Where a process is spoken to.
#[derive(Clone)]
struct Door {
    ledger: Ledger,
    gate: Gate,
}

impl Fabric {
    pub(in crate::ledger) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            doors: BTreeMap::new(),
            lives: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            random: StdRng::seed_from_u64(seed),
            trace: blake3::Hasher::new(),
            messages: 0,
        };
        Arc::new(Self { state: Mutex::new(state), began: Instant::now() })
    }

    pub(in crate::ledger) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the network of a host's next process.
    pub(in crate::ledger) fn port(self: &Arc<Self>, own: NodeKey) -> Arc<dyn Wire> {
        let mut state = self.lock();
        let life = state.lives.entry(own).or_default();
        *life += 1;
        Arc::new(Port { own, life: *life, fabric: self.clone() })
    }

    /// A process can be spoken to from now on.
    pub(in crate::ledger) fn open(&self, own: NodeKey, ledger: Ledger, gate: Gate) {
        self.lock().doors.insert(own, Door { ledger, gate });
    }

    /// Nothing comes to a process or from it any more.
    pub(in crate::ledger) fn close(&self, own: NodeKey) {
        let mut state = self.lock();
        state.doors.remove(&own);
        *state.lives.entry(own).or_default() += 1;
    }

    /// Nobody can be spoken to any more. Ports hold the fabric, and the fabric the ledgers.
    pub(in crate::ledger) fn close_all(&self) {
        self.lock().doors.clear();
    }

    /// All who can be spoken to.
    pub(in crate::ledger) fn ledgers(&self) -> Vec<Ledger> {
        self.lock().doors.values().map(|door| door.ledger.clone()).collect()
    }

    /// Something happened that is to be the same whenever the seed is.
    pub(in crate::ledger) fn note(&self, from: NodeKey, to: NodeKey, bytes: &[u8]) {
        let at = self.began.elapsed().as_micros();
        let mut state = self.lock();
        state.messages += 1;
        state.trace.update(&at.to_be_bytes()).update(&from.0).update(&to.0).update(bytes);
    }

    /// All that has happened so far, in one number, and how many messages that were.
    pub(in crate::ledger) fn trace(&self) -> (String, u64) {
        let state = self.lock();
        (state.trace.finalize().to_hex().to_string(), state.messages)
    }

    /// Waits for as long as a message takes; none where it does not arrive.
    async fn carry(&self, life: u64, from: NodeKey, to: NodeKey) -> Option<()> {
        let (delay, is_lost) = {
            let mut state = self.lock();
            let Weather { lost, slow: (slow, longest), .. } = state.weather;
            let mut delay = Duration::from_micros(state.random.random_range(DELAY_US));
            if slow > 0 && state.random.random_range(0..100) < slow {
                delay += longest.mul_f64(state.random.random());
            }
            (delay, lost > 0 && state.random.random_range(0..100) < lost)
        };
        sleep(delay).await;
        let state = self.lock();
        let is_cut = state.cut.contains(&(from, to)) || state.lives.get(&from) != Some(&life);
        (!is_cut && !is_lost).then_some(())
    }

    /// Lets a process answer, in a task of its own: who asks may give up, who answers does not know.
    /// None where the answer does not arrive.
    async fn served(self: &Arc<Self>, from: NodeKey, to: NodeKey, request: Vec<u8>) -> Option<Result<Vec<u8>, Broken>> {
        let (door, life) = {
            let state = self.lock();
            (state.doors.get(&to).cloned(), state.lives.get(&to).copied().unwrap_or_default())
        };
        let Some(Door { ledger, gate }) = door else { return Some(Err(Broken::Unreached("nobody is there".into()))) };
        let answer = tokio::spawn(behind(gate, async move { ledger.serve(from, &request).await })).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(Err(Broken::Lost(error.to_string()))),
        };
        self.note(to, from, &answer);
        self.carry(life, to, from).await?;
        Some(Ok(answer))
    }

    /// Now and then a message comes once more.
    fn double(self: &Arc<Self>, from: NodeKey, to: NodeKey, request: &[u8]) {
        let after = {
            let mut state = self.lock();
            let doubled = state.weather.doubled;
            if doubled == 0 || state.random.random_range(0..100) >= doubled {
                return;
            }
            Duration::from_millis(state.random.random_range(1..3_000))
        };
        let (fabric, request) = (self.clone(), request.to_vec());
        tokio::spawn(async move {
            sleep(after).await;
            // Nobody waits for that answer.
            let _ = tokio::time::timeout(after, fabric.served(from, to, request)).await;
        });
    }
}

/// One process's end of the network.
struct Port {
    own: NodeKey,
    life: u64,
    fabric: Arc<Fabric>,
}

impl Wire for Port {
    fn ask(
        &self,
        to: NodeKey,
        _: Channel,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, Broken>> {
        let (own, life, fabric, deadline) = (self.own, self.life, self.fabric.clone(), Instant::now() + within);
        Box::pin(async move {
            fabric.note(own, to, &request);
            // Messages are under way while whoever asked stands still, and the answer is there when it goes on.
            let way = tokio::spawn(async move {
                fabric.carry(life, own, to).await?;
                fabric.double(own, to, &request);
                fabric.served(own, to, request).await
            });
            let asked = timeout_at(deadline, async {
                match way.await {
                    Ok(Some(answer)) => answer,
                    Ok(None) => std::future::pending().await,
                    Err(error) => Err(Broken::Lost(error.to_string())),
                }
            });
            asked.await.unwrap_or_else(|_| Err(Broken::Lost(format!("nothing within {within:?}"))))
        })
    }
}
