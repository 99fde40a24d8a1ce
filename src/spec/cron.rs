//! What a cron spec says beside what it runs: when, where, and what becomes of runs that overlap, fail or are missed. Pure.
//!
//! Here the fields are read and written; they are carried out by whoever fires slots. None of them is part of what a running
//! instance depends on: a revision that changes them disturbs no run.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::mistake::Mistake;
use super::schedule::{Schedule, ScheduleError, Zone};
use super::tree::{self, Fields, Node};

/// How late a run may start where its specification does not say, in seconds.
pub(super) const STARTING_DEADLINE_SECONDS: u64 = 60;

/// How many runs are remembered where the specification does not say.
pub(super) const HISTORY_LIMIT: u64 = 20;

/// Most runs of one spec that are remembered: the ledger of every voter holds them.
pub const HISTORY_LIMIT_MAX: u64 = 1_000;

/// How far back `catchUp: all` reaches where the specification does not say: a day.
pub(super) const CATCH_UP_WINDOW_SECONDS: u64 = 86_400;

/// The pause before a failed run is tried again the first time where the specification does not say, in seconds: what predecessors
/// waited before every retry.
pub(super) const RETRY_BACKOFF_SECONDS: u64 = 2;

/// Longest first pause before a retry, in seconds. What is to be tried again after more than an hour wants a schedule.
pub const RETRY_BACKOFF_SECONDS_MAX: u64 = 3_600;

/// Pauses between retries double up to this one, or stay as they are if the first is longer already.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);

/// When a cron spec runs and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CronSpec {
    /// The expression as written; with the zone and the spec's name it was parsed and has a next slot.
    pub schedule: String,
    /// The zone that the expression is read in.
    pub timezone: Zone,
    /// Who runs a slot.
    pub scope: CronScope,
    /// What becomes of runs that overlap, fail or are missed.
    pub policy: CronPolicy,
}

/// Who runs a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum CronScope {
    /// One node of those that are eligible: one run a slot.
    #[default]
    Cluster,
    /// Every eligible node for itself: one run a slot and node.
    Node,
}

/// What becomes of runs that overlap, fail or are missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CronPolicy {
    /// What happens at a slot while an earlier run still runs.
    pub concurrency: Concurrency,
    /// Which of the missed slots are run late.
    pub catch_up: CatchUp,
    /// How late after its slot a run may start, in seconds; a slot that is later than that counts as missed. At least 1.
    pub starting_deadline_seconds: u64,
    /// What becomes of a run whose node is lost.
    pub on_node_loss: OnNodeLoss,
    /// Whether no slot is fired for now.
    pub suspend: bool,
    /// How many runs are remembered, from 1 to [`HISTORY_LIMIT_MAX`].
    pub history_limit: u32,
    /// How often a failed run is tried again.
    pub max_retries: u32,
    /// The pause before the first retry, in seconds; see [`retry_pause`](Self::retry_pause).
    pub retry_backoff_seconds: u64,
    /// After how many seconds a run is ended; 0: never.
    pub timeout_seconds: u64,
}

/// What happens at a slot while an earlier run of the same spec still runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Concurrency {
    /// The slot is not run, which is recorded.
    #[default]
    Skip,
    /// Both run.
    Allow,
    /// The earlier run is ended, then the slot is run.
    Replace,
}

/// Which of the slots that were missed, for want of a quorum or of an eligible node, are run late.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CatchUp {
    /// The last of them.
    #[default]
    Latest,
    /// None.
    None,
    /// All of them, in order, as far back as this.
    All {
        /// At least 1.
        window_seconds: u64,
    },
}

/// What becomes of a run whose node is lost while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnNodeLoss {
    /// It has failed.
    #[default]
    Fail,
    /// It gets another attempt on another node; the two may overlap.
    Rerun,
}

impl Default for CronPolicy {
    fn default() -> Self {
        Self {
            concurrency: Concurrency::default(),
            catch_up: CatchUp::default(),
            starting_deadline_seconds: STARTING_DEADLINE_SECONDS,
            on_node_loss: OnNodeLoss::default(),
            suspend: false,
            history_limit: HISTORY_LIMIT as u32,
            max_retries: 0,
            retry_backoff_seconds: RETRY_BACKOFF_SECONDS,
            timeout_seconds: 0,
        }
    }
}

impl CronPolicy {
    /// How long to wait before the retry with this number, counted from 1; doubles from one to the next. Chance is not in it:
    /// whoever waits adds that.
    pub fn retry_pause(&self, retry: u32) -> Duration {
        let first = Duration::from_secs(self.retry_backoff_seconds);
        let doubled = 1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
        first.saturating_mul(doubled).min(RETRY_PAUSE_MAX.max(first))
    }
}

impl CronSpec {
    /// The slots of the spec called `name`. Fails for what was not checked, as every part of a specification is.
    pub fn slots(&self, name: &str) -> Result<Schedule, ScheduleError> {
        Schedule::parse(&self.schedule, self.timezone, name)
    }
}

/// The words of a choice with what they mean, the default first, as in the table of fields.
const SCOPES: [(&str, CronScope); 2] = [("cluster", CronScope::Cluster), ("node", CronScope::Node)];
const CONCURRENCIES: [(&str, Concurrency); 3] =
    [("skip", Concurrency::Skip), ("allow", Concurrency::Allow), ("replace", Concurrency::Replace)];
const LOSSES: [(&str, OnNodeLoss); 2] = [("fail", OnNodeLoss::Fail), ("rerun", OnNodeLoss::Rerun)];

/// Who runs a slot.
pub(super) fn scope(top: &Fields) -> CronScope {
    meant(&SCOPES, text(top, "cronScope"))
}

/// What the fields say, older spellings included. Values that a field may not have count as not given: they were told.
pub(super) fn policy(top: &Fields) -> CronPolicy {
    let otherwise = CronPolicy::default();
    let either = |name: &str, older: &str| whole(top, name).or_else(|| whole(top, older));
    let flag = |name: &str| matches!(tree::field(top, name), Some(Node::Flag(true, _)));
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    CronPolicy {
        concurrency: match flag("cronAllowConcurrent") {
            true => Concurrency::Allow,
            false => meant(&CONCURRENCIES, text(top, "concurrencyPolicy")),
        },
        catch_up: match text(top, "catchUp") {
            Some("none") => CatchUp::None,
            Some("all") => {
                CatchUp::All { window_seconds: whole(top, "catchUpWindowSeconds").unwrap_or(CATCH_UP_WINDOW_SECONDS) }
            }
            _ => CatchUp::Latest,
        },
        starting_deadline_seconds: whole(top, "startingDeadlineSeconds").unwrap_or(otherwise.starting_deadline_seconds),
        on_node_loss: meant(&LOSSES, text(top, "onNodeLoss")),
        suspend: flag("suspend"),
        history_limit: whole(top, "historyLimit").map_or(otherwise.history_limit, narrow),
        max_retries: either("jobMaxRetries", "cronMaxRetries").map_or(otherwise.max_retries, narrow),
        retry_backoff_seconds: whole(top, "jobRetryBackoffSeconds").unwrap_or(otherwise.retry_backoff_seconds),
        timeout_seconds: either("jobTimeoutSeconds", "cronTimeoutSeconds").unwrap_or(otherwise.timeout_seconds),
    }
}

/// Older spellings, and what they stand for.
const OLDER: [(&str, &str); 3] = [
    ("cronMaxRetries", "jobMaxRetries"),
    ("cronTimeoutSeconds", "jobTimeoutSeconds"),
    ("cronAllowConcurrent", "concurrencyPolicy"),
];

/// The rules between these fields.
pub(super) fn between_fields(top: &Fields, mistakes: &mut Vec<Mistake>) {
    let is_given = |name: &str| tree::field(top, name).is_some();
    for (older, name) in OLDER {
        if is_given(older) && is_given(name) {
            let meaning = match older {
                "cronAllowConcurrent" => "means `concurrencyPolicy: allow`; give one of them".to_owned(),
                _ => format!("means the same as `{name}`; give one of them"),
            };
            mistakes.push(Mistake::new(older, meaning));
        }
    }
    let policy = policy(top);
    if whole(top, "catchUpWindowSeconds").is_some_and(|seconds| seconds != CATCH_UP_WINDOW_SECONDS)
        && !matches!(policy.catch_up, CatchUp::All { .. })
    {
        mistakes.push(Mistake::new("catchUpWindowSeconds", "needs `catchUp: all`"));
    }
    if policy.retry_backoff_seconds != RETRY_BACKOFF_SECONDS && policy.max_retries == 0 {
        mistakes.push(Mistake::new("jobRetryBackoffSeconds", "needs `jobMaxRetries`, which is 0"));
    }
}

/// The fields that ask for something, in the order of the table.
pub(super) fn write(cron: &CronSpec) -> Map<String, Value> {
    let CronSpec { schedule, timezone, scope, policy } = cron;
    let CronPolicy {
        concurrency,
        catch_up,
        starting_deadline_seconds,
        on_node_loss,
        suspend,
        history_limit,
        max_retries,
        retry_backoff_seconds,
        timeout_seconds,
    } = policy;
    let otherwise = CronPolicy::default();
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value, says_something: bool| {
        if says_something {
            fields.insert(name.to_owned(), value);
        }
    };
    put("runMode", json!("cron"), true);
    put("cronSchedule", json!(schedule), true);
    put("cronScope", json!(word(&SCOPES, *scope)), *scope != CronScope::default());
    put("timezone", json!(timezone.name()), *timezone != Zone::UTC);
    put("jobMaxRetries", json!(max_retries), *max_retries != otherwise.max_retries);
    put(
        "jobRetryBackoffSeconds",
        json!(retry_backoff_seconds),
        *retry_backoff_seconds != otherwise.retry_backoff_seconds,
    );
    put("jobTimeoutSeconds", json!(timeout_seconds), *timeout_seconds != otherwise.timeout_seconds);
    put("concurrencyPolicy", json!(word(&CONCURRENCIES, *concurrency)), *concurrency != otherwise.concurrency);
    match catch_up {
        CatchUp::Latest => {}
        CatchUp::None => put("catchUp", json!("none"), true),
        CatchUp::All { window_seconds } => {
            put("catchUp", json!("all"), true);
            put("catchUpWindowSeconds", json!(window_seconds), *window_seconds != CATCH_UP_WINDOW_SECONDS);
        }
    }
    put(
        "startingDeadlineSeconds",
        json!(starting_deadline_seconds),
        *starting_deadline_seconds != otherwise.starting_deadline_seconds,
    );
    put("onNodeLoss", json!(word(&LOSSES, *on_node_loss)), *on_node_loss != otherwise.on_node_loss);
    put("suspend", json!(true), *suspend);
    put("historyLimit", json!(history_limit), *history_limit != otherwise.history_limit);
    fields
}

fn meant<T: Copy + Default>(words: &[(&str, T)], text: Option<&str>) -> T {
    words.iter().find(|(word, _)| Some(*word) == text).map(|(_, value)| *value).unwrap_or_default()
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, other)| *other == value);
    found.map(|(word, _)| *word).expect("every value has a word")
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    tree::field(fields, name).and_then(Node::text)
}

fn whole(fields: &Fields, name: &str) -> Option<u64> {
    match tree::field(fields, name) {
        Some(Node::Whole(number, _)) => u64::try_from(*number).ok(),
        _ => None,
    }
}
