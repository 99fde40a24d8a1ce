//! The ledger as the engine has it: questions go out, answers come back as inputs. Shell.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::engine::input::{Input, LedgerEvent};
use super::shells::Agreement;
use crate::ids::NodeKey;
use crate::ledger::office::Wants;
use crate::ledger::question::{Answer, Question, Standing};
use crate::ledger::raft::Ledger;
use crate::ledger::voters::Candidate;

/// How often a node that is not in the group asks who is: for people to read, and to know whether this node can leave.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Carries the engine's questions to the ledger. The engine asks one at a time about each job, so that it bounds their number.
pub struct Questions {
    ledger: Ledger,
    inputs: mpsc::Sender<Input>,
}

impl Questions {
    /// Answers go to `inputs`.
    pub fn new(ledger: Ledger, inputs: mpsc::Sender<Input>) -> Self {
        Self { ledger, inputs }
    }
}

impl Agreement for Questions {
    fn ask(&mut self, id: u64, question: Question) {
        let (ledger, inputs) = (self.ledger.clone(), self.inputs.clone());
        // It ends within the time that an answer may take.
        tokio::spawn(async move {
            let answer = ledger.ask(question).await;
            // Fails only when the node is stopping.
            let _ = inputs.send(Input::Ledger(LedgerEvent::Answered { id, answer })).await;
        });
    }

    fn wants(&mut self, wants: Arc<Wants>) {
        self.ledger.wants(wants);
    }

    fn members(&mut self, members: Arc<[Candidate]>) {
        self.ledger.members(members);
    }
}

/// Tells the engine who votes and who leads, whenever that is other than before, until the node stops.
pub async fn watch(me: NodeKey, ledger: Ledger, inputs: mpsc::Sender<Input>) {
    let mut own = ledger.standing();
    let mut told = Standing::default();
    loop {
        let mut standing = own.borrow_and_update().clone();
        // Who was a voter and is none any more does not hear of it by itself.
        if !standing.voters.contains(&me)
            && let Answer::Standing(theirs) = ledger.ask(Question::Standing).await
        {
            standing = theirs;
        }
        // How far the log has come is no news.
        standing.applied = 0;
        if standing != told && !standing.voters.is_empty() {
            told = standing.clone();
            if inputs.send(Input::Ledger(LedgerEvent::Standing(standing))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            biased;
            changed = own.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
