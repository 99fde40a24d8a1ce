//! `narun ledger`: the way out when the majority of the voters is lost for good. Wiring.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::ids::NodeKey;
use crate::ledger::raft::store::recover::Remains;
use crate::node::recovery::Recovery;

use super::confirm::confirmed;
use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;

#[derive(Subcommand, Debug)]
pub(crate) enum Ledger {
    Recover(Recover),
}

impl Ledger {
    pub(crate) fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let Self::Recover(recover) = self;
        recover.run(reach, output)
    }
}

/// Make this host's stopped node the only voter of the ledger, when the majority is lost for good
///
/// Only for that: while a majority may come back, wait for it; cron slots that are missed meanwhile are caught up by their policy.
/// Run it on one host alone, one that voted (`narun status` on any node names the voters), with its node stopped; then start the node,
/// and others vote again within seconds.
///
/// What is kept: every claim, run and history that this node has written down. What cannot be promised any more: a slot that the lost
/// voters let somebody claim in their last moments, and of which this node has not heard, may run a second time; and lost voters
/// that come back in a majority, but where they cannot reach this node, fire slots of their own until they can, and follow it then.
/// `narun node remove` for each of them, once the ledger stands again, keeps them out for good. JSON keys: recovered, log_index, specs,
/// voters_before.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun stop\n  narun ledger recover\n  narun start")]
pub(crate) struct Recover {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Begin with an empty ledger, where no host is left that voted: all cron history is lost
    #[arg(long)]
    anew: bool,
}

impl Recover {
    fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let dir = reach.data_dir()?;
        let recovery = Recovery::of(&dir).map_err(Failure::failed)?;
        let remains = recovery.remains().map_err(Failure::failed)?;
        if remains.is_none() && !self.anew {
            return Err(Failure::failed("this node has nothing of the ledger: it never voted")
                .hint("run this on a host that voted; --anew begins an empty ledger where none is left"));
        }
        if !confirmed(&question(remains.as_ref()), self.yes)? {
            return Err(Failure::failed("the ledger stays as it is"));
        }
        recovery.carry_out().map_err(Failure::failed)?;
        let (index, specs) = remains.as_ref().map_or((0, 0), |remains| (remains.last, remains.jobs));
        let voters: Vec<String> = remains.iter().flat_map(|remains| &remains.voters).map(NodeKey::to_string).collect();
        let answer = json!({ "recovered": true, "log_index": index, "specs": specs, "voters_before": voters });
        output.answer(&answer, || {
            "this node is the only voter of the ledger now; `narun start` runs it, and others vote again within seconds\n".to_owned()
        })
    }
}

fn question(remains: Option<&Remains>) -> String {
    let Some(remains) = remains else {
        return "This begins an empty ledger: what became of earlier slots is lost, and those until now count as decided.".to_owned();
    };
    let voters: Vec<String> = remains.voters.iter().map(NodeKey::short).collect();
    format!(
        "This makes this node the only voter of the ledger, out of what it has: {} specs, log index {}. Voters were {}. If their majority is \
         not lost for good, slots may run twice.",
        remains.jobs,
        remains.last,
        voters.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_is_there_and_what_is_at_stake() {
        let remains = Remains { last: 77, jobs: 2, voters: vec![NodeKey([1; 32]), NodeKey([2; 32])] };
        let text = question(Some(&remains));
        assert!(text.contains("2 specs, log index 77") && text.contains(&NodeKey([2; 32]).short()), "{text}");
        assert!(text.contains("may run twice"), "{text}");
        assert!(question(None).contains("empty ledger"));
    }
}
