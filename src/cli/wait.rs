//! `--wait`: until what was asked for is so. Wiring.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::client::Client;
use crate::api::wire::{WaitFor, Waited};

use super::failure::Failure;
use super::output::note;
use super::reach::Reach;
use super::words;

/// How long to wait when nothing is said: a binary that is fetched, started, and up for long enough takes seconds.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// How long one request waits; then the next one does.
const ASK_FOR: Duration = Duration::from_secs(20);

/// Waiting for what was asked for.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct WaitArgs {
    /// Wait until every wanted instance is ready and the binaries stand on as many nodes as they should; fail with the
    /// instances' errors when one is given up, or when --timeout (60s) is over
    #[arg(long)]
    wait: bool,
}

/// What came of the wait, as JSON.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) desired: u32,
    pub(crate) ready: u32,
}

impl WaitArgs {
    /// Waits for `revision` if that is wanted. Fails with what is missing or what failed.
    pub(crate) async fn arrived(
        self,
        reach: &Reach,
        client: &Client,
        service: &str,
        revision: u32,
    ) -> Result<Option<Arrived>, Failure> {
        if !self.wait {
            return Ok(None);
        }
        let within = reach.timeout().unwrap_or(WAIT_DEFAULT);
        let deadline = Instant::now() + within;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout_ms = u64::try_from(left.min(ASK_FOR).as_millis()).unwrap_or(u64::MAX);
            let waited = client.wait(service, &WaitFor { revision, timeout_ms }).await?;
            match waited.outcome.as_str() {
                "done" => return Ok(Some(Arrived { desired: waited.desired, ready: waited.ready })),
                "failed" => return Err(Failure::failed(failed(service, revision, &waited)).hint(logs_hint(service))),
                _ if left.is_zero() || left <= ASK_FOR => {
                    return Err(Failure::failed(late(service, revision, within, &waited)).hint(logs_hint(service)));
                }
                _ => {}
            }
            if said != waited.reasons {
                note(format!("waiting for `{service}`: {}", waited.reasons.join("; ")));
                said = waited.reasons;
            }
        }
    }
}

fn failed(service: &str, revision: u32, waited: &Waited) -> String {
    format!("revision {revision} of `{service}` failed:{}", listed(&waited.reasons))
}

fn late(service: &str, revision: u32, within: Duration, waited: &Waited) -> String {
    let Waited { desired, ready, reasons, .. } = waited;
    let within = words::span(within);
    format!(
        "revision {revision} of `{service}` is not there after {within}, {ready} of {desired} instances are ready:{}",
        listed(reasons)
    )
}

fn listed(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  {reason}")).collect()
}

fn logs_hint(service: &str) -> String {
    format!("the revision stands and narun goes on trying; `narun logs --app {service} --tail 20` shows its output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let waited = Waited {
            outcome: "waiting".into(),
            desired: 3,
            ready: 2,
            reasons: vec!["instance `web-2` on node `n3` is fetching".into()],
        };
        assert_eq!(
            late("web", 4, Duration::from_secs(60), &waited),
            "revision 4 of `web` is not there after 1m, 2 of 3 instances are ready:\n  instance `web-2` on node `n3` is fetching"
        );
        assert!(failed("web", 4, &waited).starts_with("revision 4 of `web` failed:\n  instance"));
    }
}
