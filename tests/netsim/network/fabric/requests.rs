//! Requests from one node's ledger to another's, over the connections that messages go over.
//!
//! A request is under way by itself: whoever asked may give up, or end, and it arrives all the same. Nobody can tell then whether it
//! did, and that is what the asker is told ([`Broken::Lost`]).

use std::time::Duration;

use rand::RngExt;
use tokio::sync::oneshot;

use narun::ids::NodeKey;
use narun::ledger::raft::Ledger;
use narun::ledger::raft::network::Broken;

use super::{Fabric, Mode, Weather};

/// How often what is held up by a cut looks whether it can go on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the asker of something that was dropped is left in the dark: longer than anybody waits for an answer.
const DARK_FOR: Duration = Duration::from_secs(10);

impl Fabric {
    /// A node's ledger answers from now on.
    pub(crate) fn attach_ledger(&self, key: NodeKey, ledger: Ledger) {
        if let Some(port) = self.lock().ports.get_mut(&key) {
            port.ledger = Some(ledger);
        }
    }

    /// Nobody is there any more. A world ends with this: its ledgers hold the network that holds them.
    pub(crate) fn clear(&self) {
        let ports = std::mem::take(&mut self.lock().ports);
        drop(ports);
    }

    /// Sends a request. What is given back hears the answer, or ends without one.
    pub(crate) fn request(
        &self,
        from: NodeKey,
        to: NodeKey,
        request: Vec<u8>,
    ) -> Result<oneshot::Receiver<Vec<u8>>, Broken> {
        let mut state = self.lock();
        let connection = if state.wires.contains_key(&(from, to)) { state.pair(from, to).connection } else { None };
        let Some(connection) = connection else { return Err(Broken::Unreached("there is no connection".into())) };
        let doubled = state.mode == Mode::Datagrams && {
            let Weather { doubled_per_mille, .. } = state.weather;
            state.stream.random_range(0..1_000) < doubled_per_mille
        };
        drop(state);
        let (answer, answered) = oneshot::channel();
        if doubled {
            tokio::spawn(self.clone().deliver_request(from, to, connection, request.clone(), oneshot::channel().0));
        }
        tokio::spawn(self.clone().deliver_request(from, to, connection, request, answer));
        Ok(answered)
    }

    async fn deliver_request(
        self,
        from: NodeKey,
        to: NodeKey,
        connection: u64,
        request: Vec<u8>,
        answer: oneshot::Sender<Vec<u8>>,
    ) {
        if !self.pass(from, to, connection).await {
            return;
        }
        let port = {
            let state = self.lock();
            let port = state.ports.get(&to).filter(|port| port.members.contains(&from) && !port.life.is_over());
            port.and_then(|port| Some((port.ledger.clone()?, port.life.clone())))
        };
        let Some((ledger, life)) = port else { return };
        let response = life.gated(ledger.serve(from, &request)).await;
        drop(ledger);
        if life.acts() {
            self.trace.record(&self.name(&to), &format!("to {}: answer", self.name(&from)), &response);
            if self.pass(to, from, connection).await {
                // Who asked may have given up.
                let _ = answer.send(response);
            }
        }
    }

    /// Lets something cross a connection. False: it came to nothing.
    async fn pass(&self, from: NodeKey, to: NodeKey, connection: u64) -> bool {
        let (after, lost) = {
            let mut state = self.lock();
            let Weather { lost_per_mille, .. } = state.weather;
            let lost = state.mode == Mode::Datagrams && state.stream.random_range(0..1_000) < lost_per_mille;
            (state.latency(from, to), lost)
        };
        if lost {
            tokio::time::sleep(DARK_FOR).await;
            return false;
        }
        tokio::time::sleep(after).await;
        loop {
            {
                let mut state = self.lock();
                if state.pair(from, to).connection != Some(connection) {
                    return false;
                }
                if !state.wire(from, to).cut {
                    return true;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
