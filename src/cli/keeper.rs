//! `narun keeper`: the process that owns a node's instances. Started by the node, never by people.

use std::io;
use std::time::Duration;

use clap::Args;

use crate::exec::keeper::{self, Options};

use super::failure::Failure;
use super::reach::Reach;

/// Own processes for the node of `--data-dir`.
#[derive(Args, Debug)]
pub(crate) struct Keeper {
    /// How long instances that other nodes take over go on without their node
    #[arg(long, value_name = "MILLISECONDS")]
    orphan_grace_ms: Option<u64>,
    /// Behave like a keeper that knows no later version of the protocol
    #[arg(long, value_name = "VERSION", hide = true)]
    speak_at_most: Option<u32>,
    /// How much to tell in its log
    #[arg(long, value_name = "LEVEL", default_value = "info", hide = true)]
    log: tracing::Level,
}

impl Keeper {
    /// Runs until its node ends it. Called before any thread or runtime exists: the keeper forks.
    pub(crate) fn run(self, reach: &Reach) -> Result<(), Failure> {
        let mut options = Options::default();
        if let Some(millis) = self.orphan_grace_ms {
            options.orphan_grace = Duration::from_millis(millis);
        }
        if let Some(version) = self.speak_at_most {
            options.speak_at_most = version;
        }
        // Standard error is the keeper's log, and nobody else speaks in this process.
        let _ = tracing_subscriber::fmt().with_max_level(self.log).with_writer(io::stderr).with_ansi(false).try_init();
        keeper::run(&reach.data_dir()?, options).map_err(Failure::failed)
    }
}
