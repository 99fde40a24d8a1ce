//! Cron specs as the ledger has them: what became of their slots, runs out of turn, pause and resume. Wiring.
//!
//! The catalog says what a cron spec is, the ledger what became of it: a history is asked of the ledger. Only where no voter of it can be
//! reached is it what this node knows of its own runs. Invariant: an answer that may be old says how old, and one that is not the
//! ledger's whose it is.

mod barred;
mod rows;

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use data_encoding::HEXLOWER;
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::ids::{NodeKey, NodeName, ServiceName};
use crate::ledger::command::{Command, JobKey, Refused, Reply};
use crate::ledger::question::{Account, Answer, Question};
use crate::node::clock::SystemClock;
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::Request;
use crate::node::engine::view::{NodeView, OwnRun, RevisionView, ServiceView, View};
use crate::node::shells::Clock;
use crate::spec::{CronScope, RunMode};

use super::ApiState;
use super::error::{ApiError, Body, Params, invalid};
use super::ledger::{ledger, name_of};
use super::services::{find, revise, service_name, unexpected};
use super::wire::Revised;
use super::wire::cron::{CronHistory, CronJob, HistoryWanted, RunAsked, RunNow};

/// How many nodes' series of one spec are asked for at once: each is one message to a voter.
const JOBS_AT_ONCE: usize = 16;

/// How often a request for a run is put anew where its fate is not known. It has a number: the ledger takes it once.
const RUN_TURNS: usize = 3;

/// Not again after this: each turn takes up to [`ASK_WITHIN`](crate::ledger::raft::ASK_WITHIN), and whoever asks has given the whole 15 s.
const RUN_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// `GET /v1/cron/{name}/history`
pub(super) async fn history(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Params(wanted): Params<HistoryWanted>,
) -> Result<Json<CronHistory>, ApiError> {
    let view = state.node.view();
    let name = service_name(&name)?;
    // What was deleted is remembered by the ledger for a day.
    let there = find(&view, name.as_str());
    let node = wanted.node.as_deref().map(|node| member(&view, node)).transpose()?;
    let jobs = match &there {
        Ok(service) => jobs_of(&view, service, node)?,
        Err(_) => vec![JobKey { name: name.clone(), node: node.map(|node| node.key) }],
    };
    let asked = jobs.into_iter().map(|job| account(&state, job));
    let accounts: Result<Vec<(JobKey, Option<Account>)>, Answer> =
        futures::stream::iter(asked).buffered(JOBS_AT_ONCE).try_collect().await;
    let mut history = match accounts {
        Ok(accounts) => told(&view, &name, &there, &accounts)?,
        Err(answer) => own(&state, &view, &name, there.is_ok(), node, &answer).await?,
    };
    history.rows.truncate(wanted.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX));
    if let Ok(service) = there {
        history.barred = barred::barred(&view, service);
    }
    Ok(Json(history))
}

/// A history as the ledger tells it.
fn told(
    view: &View,
    name: &ServiceName,
    there: &Result<&ServiceView, Refusal>,
    accounts: &[(JobKey, Option<Account>)],
) -> Result<CronHistory, Refusal> {
    if let Err(refusal) = there
        && accounts.iter().all(|(_, account)| account.is_none())
    {
        return Err(refusal.clone());
    }
    let name_of = |key: &NodeKey| name_of(view, key);
    let mut history = CronHistory { service: name.to_string(), ..CronHistory::default() };
    for (job, account) in accounts {
        let node = job.node.as_ref().map(name_of);
        history.jobs.push(job_of(node.clone(), account.as_ref(), &name_of));
        let rows = account.iter().flat_map(|account| rows::rows(account, &name_of));
        history.rows.extend(rows.map(|mut row| {
            row.node = row.node.or_else(|| node.clone());
            row
        }));
    }
    // Stable, so that each node's own order stays where two were due at once. Text of one form sorts as the time does.
    history.rows.sort_by(|one, other| other.scheduled_at.cmp(&one.scheduled_at));
    Ok(history)
}

/// A history as this node alone can tell it, which no voter has answered. Refused with that where it was not asked about this node, or
/// knows nothing of the name.
async fn own(
    state: &ApiState,
    view: &View,
    name: &ServiceName,
    is_there: bool,
    node: Option<&NodeView>,
    answer: &Answer,
) -> Result<CronHistory, Refusal> {
    let is_silent = matches!(answer, Answer::NotLeader { .. } | Answer::Unknown);
    let runs = if is_silent && node.is_none_or(|node| node.is_me) { Some(own_runs(state, name).await?) } else { None };
    match runs.filter(|runs| is_there || !runs.is_empty()) {
        Some(runs) => Ok(CronHistory {
            service: name.to_string(),
            rows: rows::own_rows(&runs, &|key| name_of(view, key)),
            only_node: Some(view.me.name.as_ref().map_or_else(|| view.me.key.short(), ToString::to_string)),
            ..CronHistory::default()
        }),
        None => {
            let why = unanswered(state, answer).await;
            let text = format!("the history of `{name}` cannot be told: {why}");
            Err(Refusal::new(RefusalCode::Unavailable, text).hint(LEDGER_HINT))
        }
    }
}

async fn own_runs(state: &ApiState, name: &ServiceName) -> Result<Vec<OwnRun>, Refusal> {
    match state.node.request(Request::OwnRuns { cron: name.clone() }).await? {
        Response::OwnRuns(runs) => Ok(runs),
        other => Err(unexpected(&other)),
    }
}

/// `POST /v1/cron/{name}/run`
pub(super) async fn run(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Body(asked): Body<RunNow>,
) -> Result<Json<RunAsked>, ApiError> {
    let view = state.node.view();
    let service = find(&view, &name)?;
    let node = asked.node.as_deref().map(|node| member(&view, node)).transpose()?;
    if scope(service)? == CronScope::Node && node.is_none() {
        let text = format!("`{name}` has `cronScope: node`: each node runs it for itself");
        return Err(Refusal::new(RefusalCode::Invalid, text).hint("say which node with `--node NAME`").into());
    }
    let job = jobs_of(&view, service, node)?.remove(0);
    let mut request = [0; 16];
    getrandom::fill(&mut request).map_err(|error| {
        let text = format!("the system gives no random bytes for a request's number: {error}");
        Refusal::new(RefusalCode::Unavailable, text)
    })?;
    let command = Command::Ask { job, request, at: SystemClock.now().wall };
    let again_until = Instant::now() + RUN_AGAIN_WITHIN;
    let mut answer = Answer::Unknown;
    for _ in 0..RUN_TURNS {
        answer = state.ledger.ask(Question::Propose(command.clone())).await;
        if answer != Answer::Unknown || Instant::now() >= again_until {
            break;
        }
    }
    match answer {
        Answer::Applied { reply: Reply::Done, .. } => Ok(Json(RunAsked {
            service: name,
            node: node.map(|node| node.name.to_string()),
            request: HEXLOWER.encode(&request),
        })),
        answer => Err(not_asked(&state, &name, &answer).await.into()),
    }
}

/// `POST /v1/cron/{name}/pause`
pub(super) async fn pause(state: State<ApiState>, name: Path<String>) -> Result<Json<Revised>, ApiError> {
    suspend(state, name, true).await
}

/// `POST /v1/cron/{name}/resume`
pub(super) async fn resume(state: State<ApiState>, name: Path<String>) -> Result<Json<Revised>, ApiError> {
    suspend(state, name, false).await
}

async fn suspend(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    suspended: bool,
) -> Result<Json<Revised>, ApiError> {
    let service = service_name(&name)?;
    revise(&state, service.clone(), Request::Suspend { service, suspended }).await
}

/// Who runs a slot; refused for what has no slots.
fn scope(service: &ServiceView) -> Result<CronScope, Refusal> {
    match &service.current.spec.mode {
        RunMode::Cron(cron) => Ok(cron.scope),
        RunMode::Service => {
            let text = format!("`{}` is a service: only cron specs have slots and runs", service.name);
            Err(Refusal::new(RefusalCode::Invalid, text).hint(format!("see `narun service info {}`", service.name)))
        }
    }
}

/// The series of slots that a spec has; at least one.
fn jobs_of(view: &View, service: &ServiceView, node: Option<&NodeView>) -> Result<Vec<JobKey>, Refusal> {
    let key = |node: Option<NodeKey>| JobKey { name: service.name.clone(), node };
    match (scope(service)?, node) {
        (CronScope::Cluster, None) => Ok(vec![key(None)]),
        (CronScope::Cluster, Some(_)) => {
            let text = format!("`{}` has `cronScope: cluster`: one node runs it for all", service.name);
            Err(Refusal::new(RefusalCode::Invalid, text).hint("leave `--node` out"))
        }
        (CronScope::Node, Some(node)) => Ok(vec![key(Some(node.key))]),
        (CronScope::Node, None) => Ok(view.nodes.iter().map(|node| key(Some(node.key))).collect()),
    }
}

fn member<'a>(view: &'a View, name: &str) -> Result<&'a NodeView, Refusal> {
    let name = NodeName::new(name).map_err(invalid)?;
    super::nodes::find(view, name.as_str())
}

/// What the ledger knows of a job; none: nothing. Fails with an answer that is none.
async fn account(state: &ApiState, job: JobKey) -> Result<(JobKey, Option<Account>), Answer> {
    match state.ledger.ask(Question::History { job: job.clone() }).await {
        Answer::History(account) => Ok((job, account)),
        answer => Err(answer),
    }
}

const LEDGER_HINT: &str = "`narun status` shows who votes in the ledger and who of them is down";

/// Why no run was asked for.
async fn not_asked(state: &ApiState, name: &str, answer: &Answer) -> Refusal {
    match answer {
        Answer::Applied { reply: Reply::Refused(Refused::NoJob), .. } => {
            let text = format!("the ledger does not know `{name}` yet: no node holds its lease");
            Refusal::new(RefusalCode::Unavailable, text).hint(format!("`narun why {name}` says what it waits for"))
        }
        Answer::Applied { reply: Reply::Refused(Refused::Full), .. } => {
            let text = format!("too many runs of `{name}` were asked for and not begun");
            Refusal::new(RefusalCode::Limit, text).hint(format!("`narun why {name}` says what they wait for"))
        }
        Answer::Unknown => {
            let text =
                format!("it is not known whether the run of `{name}` was asked for: the ledger has not answered");
            Refusal::new(RefusalCode::TimedOut, text).hint(format!("`narun cron history {name}` shows it if so"))
        }
        answer => {
            let why = unanswered(state, answer).await;
            let text = format!("no run of `{name}` was asked for: {why}");
            Refusal::new(RefusalCode::Unavailable, text).hint(LEDGER_HINT)
        }
    }
}

/// Why a question had no answer that fits it.
async fn unanswered(state: &ApiState, answer: &Answer) -> String {
    match answer {
        Answer::NotLeader { .. } | Answer::Unknown => {
            let why = ledger(state).await.why;
            why.unwrap_or_else(|| "the ledger's voters do not answer this node".to_owned())
        }
        other => {
            tracing::error!(?other, "the ledger's answer does not fit the question");
            "the ledger answered something else than was asked; see this node's log".to_owned()
        }
    }
}

fn job_of(node: Option<String>, account: Option<&Account>, name_of: &dyn Fn(&NodeKey) -> String) -> CronJob {
    let Some(account) = account else { return CronJob { node, ..CronJob::default() } };
    CronJob {
        node,
        known: true,
        holder: account.holder.as_ref().map(name_of),
        decided_until: Some(account.cursor.to_string()),
        last_success: account.last_success.map(|run| run.to_string()),
        asked: account.asked.len() as u64,
        as_of: account.as_of.map(|at| at.to_string()),
    }
}

/// Whether a revision lets none of its slots be fired.
pub(super) fn is_suspended(revision: &RevisionView) -> bool {
    match &revision.spec.mode {
        RunMode::Cron(cron) => revision.stopped || cron.policy.suspend,
        RunMode::Service => false,
    }
}
