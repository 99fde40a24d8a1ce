//! How far this node may trust its own clock and its own ears. Pure.
//!
//! A node that is starved of its processor, swapped out or paused misses answers that were sent in time, and would take healthy
//! members for dead. So it keeps a score of what speaks against itself, and everything by which it accuses others takes so many
//! times longer. (Dadgar, Phillips, Currey: Lifeguard: Local Health Awareness for More Accurate Failure Detection, 2018.)

use std::time::Duration;

/// The worst score: accusing takes nine times as long then, as in the paper. More would make a node that recovers useless for minutes.
const SCORE_MAX: u32 = 8;

/// From this score on, what this node sees of its own connections is no evidence against others. One missed answer may be
/// anybody's fault.
const SCORE_POOR: u32 = 2;

/// By how much a deadline may be missed before this node holds itself for stalled: several times what a loaded host needs.
pub(super) const LATE: Duration = Duration::from_millis(500);

/// One node's doubt in itself: zero is perfect health.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Health {
    score: u32,
}

impl Health {
    /// A member answered in time.
    pub(super) fn answered(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// A member that should have been heard was not, or this node had to refute that it is gone.
    pub(super) fn doubted(&mut self) {
        self.score = (self.score + 1).min(SCORE_MAX);
    }

    /// This node was woken so much too late. There is no stronger evidence: each second counts as another doubt.
    pub(super) fn stalled(&mut self, late: Duration) {
        let seconds = u32::try_from(late.as_secs()).unwrap_or(SCORE_MAX);
        self.score = self.score.saturating_add(1).saturating_add(seconds).min(SCORE_MAX);
    }

    /// How many times longer accusing others takes.
    pub(super) fn stretch(self) -> u32 {
        1 + self.score
    }

    /// Whether what this node sees by itself counts as evidence.
    pub(super) fn is_poor(self) -> bool {
        self.score >= SCORE_POOR
    }
}
