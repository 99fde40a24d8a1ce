//! `narun keeper`: the process that owns a node's instances. Started by the node, never by people.

use clap::Args;

use super::failure::Failure;
use super::reach::Reach;

/// Own processes for the node of `--data-dir`.
#[derive(Args, Debug)]
pub(crate) struct Keeper {}

impl Keeper {
    /// Runs until its node ends it. Called before any thread or runtime exists: the keeper forks.
    pub(crate) fn run(self, reach: &Reach) -> Result<(), Failure> {
        let data_dir = reach.data_dir()?;
        Err(Failure::failed(format!("the keeper of {} is not part of this build", data_dir.display())))
    }
}
