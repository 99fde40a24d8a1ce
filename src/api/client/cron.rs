//! Cron specs and the ledger, from the client's end. A shell.

use super::{Client, ClientError, escaped, query_text};
use crate::api::wire::Revised;
use crate::api::wire::cron::{CronHistory, HistoryWanted, Ledger, RunAsked, RunNow};

impl Client {
    /// What became of a cron spec.
    pub async fn cron_history(&self, name: &str, wanted: &HistoryWanted) -> Result<CronHistory, ClientError> {
        let limit = wanted.limit.map(|limit| limit.to_string());
        let pairs = [("node", &wanted.node), ("limit", &limit)];
        let pairs: Vec<_> = pairs.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?))).collect();
        self.get(&format!("{}?{}", path(name, "history"), query_text(&pairs))).await
    }

    /// Asks for a run of a cron spec out of turn.
    pub async fn cron_run(&self, name: &str, run: &RunNow) -> Result<RunAsked, ClientError> {
        self.post(&path(name, "run"), run).await
    }

    /// Lets no slot of a cron spec be fired.
    pub async fn cron_pause(&self, name: &str) -> Result<Revised, ClientError> {
        self.post(&path(name, "pause"), &()).await
    }

    /// Undoes that, and a stop too.
    pub async fn cron_resume(&self, name: &str) -> Result<Revised, ClientError> {
        self.post(&path(name, "resume"), &()).await
    }

    /// How the ledger stands.
    pub async fn ledger(&self) -> Result<Ledger, ClientError> {
        self.get("/v1/ledger").await
    }
}

fn path(name: &str, verb: &str) -> String {
    format!("/v1/cron/{}/{verb}", escaped(name))
}
