//! A node that is the ledger's only voter hands that on before it leaves: else the ledger would leave with it. Pure.

use std::time::Duration;

use super::Engine;
use super::effect::{Refusal, RefusalCode};
use super::out::Out;
use super::requests::Answer;
use crate::time::Mono;

/// How long the next voter has to catch up and to vote: it takes a second or two, and longer over a slow link.
const WITHIN: Duration = Duration::from_secs(30);

/// A request to leave that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    request: u64,
    by: Mono,
}

impl Engine {
    /// Leaves, at once or after the ledger was handed on. None: the answer comes later.
    pub(super) fn leave_in_order(&mut self, id: u64, out: &mut Out) -> Option<Answer> {
        if self.handover.is_some() {
            return Some(Err(Refusal::new(RefusalCode::Conflict, "this node is about to leave already")));
        }
        if self.jobs.only_voter() != Some(self.me) || self.cluster.connected().is_empty() {
            return self.leave(id, out);
        }
        self.handover = Some(Handover { request: id, by: self.now.mono + WITHIN });
        self.leases.members_changed = true;
        None
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.handover.is_some()
    }

    pub(super) fn handover_deadline(&self) -> Option<Mono> {
        self.handover.as_ref().map(|handover| handover.by)
    }

    pub(super) fn settle_handover(&mut self, out: &mut Out) {
        let Some(Handover { request, by }) = self.handover else { return };
        if self.jobs.only_voter() != Some(self.me) {
            self.handover = None;
            if let Some(answer) = self.leave(request, out) {
                out.reply(request, answer);
            }
        } else if by <= self.now.mono {
            self.handover = None;
            self.leases.members_changed = true;
            let text = format!(
                "this node is the only voter of the ledger, and no other one could take its place within {} s",
                WITHIN.as_secs()
            );
            out.reply(
                request,
                Err(Refusal::new(RefusalCode::Unavailable, text).hint(
                    "see `narun node list`: a member that runs services has to be up, in reach, and of this version",
                )),
            );
        }
    }
}
