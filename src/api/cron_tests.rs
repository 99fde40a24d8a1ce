//! Cron specs at the API, with a ledger that is a stand-in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use super::doors::LedgerDoor;
use super::tests::{Api, keys, name, node, refused, revised, revision, view};
use super::wire::cron::{HistoryWanted, RunNow};
use crate::crdt::document::RevisionId;
use crate::ids::{NodeKey, RunId};
use crate::ledger::command::{Command, JobKey, Refused, Reply};
use crate::ledger::question::{Account, Answer, Asked, Question, Standing};
use crate::ledger::run::{Fence, Gap, GapReason, OnNodeLoss, Run, RunEnd, RunStatus, Trigger};
use crate::ledger::time::{LedgerTime, Slot};
use crate::node::engine::effect::{Refusal, Response};
use crate::node::engine::input::Request;
use crate::node::engine::view::{NodeStatus, OwnRun, ServiceView, View};
use crate::time::Wall;

/// The keys of the nodes `n1` and `n2`.
pub(crate) const N1: NodeKey = NodeKey([b'1'; 32]);
pub(crate) const N2: NodeKey = NodeKey([b'2'; 32]);

/// What a ledger holds, and what it was asked. A run that is asked for ends at once.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) accounts: BTreeMap<JobKey, Account>,
    pub(crate) standing: Standing,
    /// How the next run ends; none: nobody takes it.
    pub(crate) outcome: Option<RunEnd>,
    /// How many answers are lost on the way, from now on.
    pub(crate) lost: u32,
    pub(crate) asked: Vec<Question>,
}

/// A ledger in memory; none: nobody in reach leads or votes.
pub(crate) struct FakeLedger(pub(crate) Mutex<Option<Held>>);

impl FakeLedger {
    pub(crate) fn holding(held: Held) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(held))))
    }

    pub(crate) fn asked(&self) -> Vec<Question> {
        self.0.lock().unwrap().as_mut().map(|held| std::mem::take(&mut held.asked)).unwrap_or_default()
    }
}

impl LedgerDoor for FakeLedger {
    fn ask(&self, question: Question) -> BoxFuture<'_, Answer> {
        let mut held = self.0.lock().unwrap();
        let answer = match held.as_mut() {
            None => Answer::NotLeader { leader: None },
            Some(held) => held.answer(question),
        };
        async move { answer }.boxed()
    }

    fn standing(&self) -> Standing {
        Standing::default()
    }
}

impl Held {
    fn answer(&mut self, question: Question) -> Answer {
        self.asked.push(question.clone());
        match question {
            Question::History { job } => Answer::History(self.accounts.get(&job).cloned()),
            Question::Standing => Answer::Standing(self.standing.clone()),
            Question::Propose(Command::Ask { job, request, at }) => {
                let reply = self.take(&job, request, at);
                match self.lost.checked_sub(1) {
                    Some(lost) => {
                        self.lost = lost;
                        Answer::Unknown
                    }
                    None => Answer::Applied { index: 9, reply },
                }
            }
            Question::Propose(_) | Question::Renew { .. } => Answer::NotAllowed,
        }
    }

    fn take(&mut self, job: &JobKey, request: [u8; 16], at: Wall) -> Reply {
        let Some(account) = self.accounts.get_mut(job) else { return Reply::Refused(Refused::NoJob) };
        let trigger = Trigger::Asked(request);
        match &self.outcome {
            _ if account.runs.iter().any(|run| run.trigger == trigger) => {}
            None => account.asked.push(Asked { request, at }),
            Some(end) => account.runs.insert(0, Run { trigger, scheduled: at, end: Some(end.clone()), ..run(60) }),
        }
        Reply::Done
    }
}

pub(crate) fn ended(status: RunStatus, code: Option<i32>) -> RunEnd {
    RunEnd { status, at: Wall(70_000), code, signal: None, error: None }
}

/// A run of the slot at that second, on `n1`, claimed and not started.
pub(crate) fn run(second: u64) -> Run {
    Run {
        id: RunId([0xab; 16]),
        trigger: Trigger::Slot(Slot(second)),
        scheduled: Wall(second * 1_000),
        revision: RevisionId { number: 1, hash: [1; 4] },
        node: Some(N1),
        fence: Fence(9),
        attempt: 1,
        attempts_max: 1,
        on_node_loss: OnNodeLoss::Fail,
        claimed: LedgerTime(5),
        started: None,
        is_started: false,
        orphaned: None,
        is_replaced: false,
        end: None,
        last_failure: None,
        reruns: 0,
    }
}

pub(crate) fn job(node: Option<NodeKey>) -> JobKey {
    JobKey { name: name("nightly"), node }
}

pub(crate) fn account() -> Account {
    Account {
        cursor: Slot(240),
        holder: Some(N1),
        runs: vec![Run { end: Some(ended(RunStatus::Success, Some(0))), ..run(60) }],
        gaps: vec![Gap { first: Slot(120), last: Slot(240), count: 3, reason: GapReason::Missed }],
        last_success: Some(RunId([0xab; 16])),
        as_of: None,
        asked: Vec::new(),
    }
}

/// The view of the API's tests, with a cron spec beside the service.
pub(crate) fn with_cron(fields: &str) -> View {
    let mut view = view();
    let current = revision(1, &format!("{{name: nightly, tag: v1, cronSchedule: '0 2 * * *', {fields}}}"));
    let cron = ServiceView { name: name("nightly"), current: current.clone(), history: vec![current], wanted: vec![] };
    Arc::make_mut(&mut view.services).insert(0, Arc::new(cron));
    view
}

pub(crate) fn held() -> Held {
    let standing = Standing { voters: vec![N1], leader: Some(N1), ..Standing::default() };
    Held { accounts: BTreeMap::from([(job(None), account())]), standing, ..Held::default() }
}

/// An engine that knows two runs of its own, one of them from the keeper alone; and one that knows none.
pub(crate) fn own(_: &Request) -> Result<Response, Refusal> {
    let done = Run { end: Some(ended(RunStatus::Success, Some(0))), ..run(60) };
    let open = Run { is_started: true, started: Some(Wall(120_000)), ..run(120) };
    Ok(Response::OwnRuns(vec![OwnRun { run: done, is_told: true }, OwnRun { run: open, is_told: false }]))
}

fn idle(_: &Request) -> Result<Response, Refusal> {
    Ok(Response::OwnRuns(Vec::new()))
}

async fn started(view: View, held: Held) -> (Api, Arc<FakeLedger>) {
    let ledger = FakeLedger::holding(held);
    (Api::start_with(view, revised, ledger.clone()).await, ledger)
}

fn everything() -> HistoryWanted {
    HistoryWanted::default()
}

#[tokio::test]
async fn a_history_has_runs_and_gaps_newest_first() {
    let (api, _) = started(with_cron(""), held()).await;
    let found = api.client.cron_history("nightly", &everything()).await.unwrap();
    let rows: Vec<_> = found.rows.iter().map(|row| (row.status.as_str(), row.count)).collect();
    assert_eq!(rows, [("missed", 3), ("success", 1)]);
    assert_eq!(found.rows[1].node.as_deref(), Some("n1"));
    assert_eq!((found.jobs[0].holder.as_deref(), found.jobs[0].known), (Some("n1"), true));
    assert_eq!(found.barred.iter().map(|barred| barred.node.as_str()).collect::<Vec<_>>(), ["n2"], "it is down");
    let one = HistoryWanted { limit: Some(1), node: None };
    assert_eq!(api.client.cron_history("nightly", &one).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn the_keys_around_cron_are_a_contract() {
    let (api, _) = started(with_cron(""), held()).await;
    let get = async |path: &str| api.raw(&format!("GET {path} HTTP/1.0\r\nhost: n\r\n\r\n")).await.1;
    let history: Value = get("/v1/cron/nightly/history").await;
    assert_eq!(keys(&history), ["service", "jobs", "rows", "barred", "only_node"]);
    assert_eq!(history["only_node"], Value::Null);
    assert_eq!(
        keys(&history["jobs"][0]),
        ["node", "known", "holder", "decided_until", "last_success", "asked", "as_of"]
    );
    assert_eq!(keys(&history["barred"][0]), ["node", "reason"]);
    assert_eq!(
        keys(&history["rows"][0]).join(" "),
        "run_id scheduled_at started_at ended_at status exit_code attempts error attempts_max node trigger count \
         last_scheduled_at revision request"
    );
    let ledger = get("/v1/ledger").await;
    assert_eq!(keys(&ledger), ["voters", "learners", "leader", "quorum", "in_reach", "fires", "why"]);
    assert_eq!(keys(&ledger["voters"][0]), ["node", "status"]);
    assert_eq!(get("/v1/status").await["cron_fires"], true);
}

#[tokio::test]
async fn a_history_that_may_be_old_says_how_old() {
    let mut held = held();
    held.accounts.get_mut(&job(None)).unwrap().as_of = Some(Wall(5_000));
    let (api, _) = started(with_cron(""), held).await;
    let found = api.client.cron_history("nightly", &everything()).await.unwrap();
    assert_eq!(found.jobs[0].as_of.as_deref(), Some("1970-01-01T00:00:05.000Z"));
}

#[tokio::test]
async fn with_nobody_in_reach_the_reason_is_named() {
    let nobody = || Arc::new(FakeLedger(Mutex::new(None)));
    let api = Api::start_with(with_cron("cronScope: node"), own, nobody()).await;
    let n2 = HistoryWanted { node: Some("n2".into()), limit: None };
    let words = refused(api.client.cron_history("nightly", &n2).await.unwrap_err());
    assert_eq!(words.code, "unavailable");
    assert!(words.message.contains("`nightly` cannot be told: no voter of the ledger has answered"), "{words:?}");
    let api = Api::start_with(with_cron(""), idle, nobody()).await;
    let words = refused(api.client.cron_history("gone", &everything()).await.unwrap_err());
    assert!(words.message.contains("`gone` cannot be told: no voter"), "the ledger may know it: {words:?}");
    let words = refused(api.client.cron_run("nightly", &RunNow::default()).await.unwrap_err());
    assert!(words.message.contains("no run of `nightly` was asked for: no voter"), "{words:?}");
    let status = api.client.status().await.unwrap();
    assert!(!status.cron_fires && status.ledger.why.is_some());
}

#[tokio::test]
async fn with_nobody_in_reach_a_node_tells_of_its_own_runs_and_says_so() {
    for fields in ["", "cronScope: node"] {
        let ledger = Arc::new(FakeLedger(Mutex::new(None)));
        let api = Api::start_with(with_cron(fields), own, ledger).await;
        let found = api.client.cron_history("nightly", &everything()).await.unwrap();
        assert_eq!((found.only_node.as_deref(), found.jobs.len()), (Some("n1"), 0));
        let rows: Vec<_> = found.rows.iter().map(|row| (row.status.as_str(), row.trigger.as_str())).collect();
        assert_eq!(rows, [("running", ""), ("success", "slot")]);
        assert_eq!(found.rows[0].node.as_deref(), Some("n1"));
        assert_eq!(found.barred.iter().map(|barred| barred.node.as_str()).collect::<Vec<_>>(), ["n2"]);
        assert!(matches!(&api.asked()[..], [Request::OwnRuns { cron }] if *cron == name("nightly")));
        let one = HistoryWanted { limit: Some(1), node: None };
        assert_eq!(api.client.cron_history("nightly", &one).await.unwrap().rows.len(), 1);
    }
    let ledger = Arc::new(FakeLedger(Mutex::new(None)));
    let api = Api::start_with(view(), own, ledger).await;
    let found = api.client.cron_history("nightly", &everything()).await.unwrap();
    assert_eq!(found.rows.len(), 2, "its spec is deleted, and its runs are known");
}

#[tokio::test]
async fn each_node_has_its_own_series_under_that_scope() {
    let on = |node: NodeKey| {
        let run = Run { node: Some(node), ..account().runs[0].clone() };
        (job(Some(node)), Account { runs: vec![run], holder: Some(node), ..account() })
    };
    let each = || Held { accounts: BTreeMap::from([on(N1), on(N2)]), ..held() };
    let (api, ledger) = started(with_cron("cronScope: node"), each()).await;
    let found = api.client.cron_history("nightly", &everything()).await.unwrap();
    assert_eq!((found.jobs.len(), found.rows.len()), (2, 4));
    assert_eq!(found.rows[0].node.as_deref(), Some("n1"), "a gap is that of its node");
    let n2 = HistoryWanted { node: Some("n2".into()), limit: None };
    let found = api.client.cron_history("nightly", &n2).await.unwrap();
    assert!(found.rows.iter().all(|row| row.node.as_deref() == Some("n2")), "{found:?}");

    ledger.asked();
    let words = refused(api.client.cron_run("nightly", &RunNow::default()).await.unwrap_err());
    assert!(words.message.contains("`cronScope: node`") && words.hint.unwrap().contains("--node"));
    assert!(ledger.asked().is_empty());
    api.client.cron_run("nightly", &RunNow { node: Some("n2".into()) }).await.unwrap();
    let asked = ledger.asked();
    assert!(matches!(&asked[..], [Question::Propose(Command::Ask { job: asked, .. })] if *asked == job(Some(N2))));
}

#[tokio::test]
async fn a_run_is_asked_for_once_however_often_the_answer_is_lost() {
    let outcome = Some(ended(RunStatus::Success, Some(0)));
    let (api, ledger) = started(with_cron(""), Held { outcome, lost: 2, ..held() }).await;
    let asked = api.client.cron_run("nightly", &RunNow::default()).await.unwrap();
    assert_eq!(ledger.asked().len(), 3);
    let found = api.client.cron_history("nightly", &everything()).await.unwrap();
    let mine: Vec<_> = found.rows.iter().filter(|row| row.request.as_ref() == Some(&asked.request)).collect();
    assert!(matches!(&mine[..], [row] if row.trigger == "asked" && row.status == "success"), "{mine:?}");

    let (api, _) = started(with_cron(""), Held { lost: 9, ..held() }).await;
    let words = refused(api.client.cron_run("nightly", &RunNow::default()).await.unwrap_err());
    assert_eq!(words.code, "timed_out");
}

#[tokio::test]
async fn what_cannot_be_run_or_told_is_refused_by_name() {
    let (api, ledger) = started(with_cron(""), Held { accounts: BTreeMap::new(), ..held() }).await;
    let run = RunNow::default();
    let words = refused(api.client.cron_run("nightly", &run).await.unwrap_err());
    assert!(words.message.contains("no node holds its lease") && words.hint.unwrap().contains("narun why nightly"));
    ledger.asked();
    let on_a_node = RunNow { node: Some("n1".into()) };
    for (service, run, code, told) in [
        ("web", &run, "invalid", "`web` is a service"),
        ("nihgtly", &run, "not_found", "no service `nihgtly`"),
        ("nightly", &on_a_node, "invalid", "`cronScope: cluster`"),
        ("nightly", &RunNow { node: Some("n7".into()) }, "not_found", "no node `n7`"),
    ] {
        let words = refused(api.client.cron_run(service, run).await.unwrap_err());
        assert_eq!(words.code, code);
        assert!(words.message.contains(told), "{words:?}");
    }
    assert!(ledger.asked().is_empty(), "the ledger is not troubled with it");
    let words = refused(api.client.cron_history("web", &everything()).await.unwrap_err());
    assert!(words.message.contains("`web` is a service"));
    assert!(refused(api.client.cron_history("gone", &everything()).await.unwrap_err()).code == "not_found");
    let idle = api.client.cron_history("nightly", &everything()).await.unwrap();
    assert_eq!((idle.jobs[0].known, idle.rows.len()), (false, 0));
}

#[tokio::test]
async fn what_was_deleted_is_told_while_the_ledger_remembers_it() {
    let (api, _) = started(view(), held()).await;
    let found = api.client.cron_history("nightly", &everything()).await.unwrap();
    assert_eq!((found.rows.len(), found.barred.len()), (2, 0));
}

#[tokio::test]
async fn pause_and_resume_reach_the_engine() {
    let (api, _) = started(with_cron(""), held()).await;
    let answer = api.client.cron_pause("nightly").await.unwrap();
    assert_eq!((answer.service.as_str(), answer.changed), ("nightly", true));
    api.client.cron_resume("nightly").await.unwrap();
    let asked = api.asked();
    assert!(
        matches!(&asked[..], [Request::Suspend { suspended: true, .. }, Request::Suspend { suspended: false, .. }]),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_paused_spec_says_so_wherever_it_is_shown() {
    let (api, _) = started(with_cron("suspend: true"), held()).await;
    assert!(api.client.service("nightly").await.unwrap().revision.suspended);
    let status = api.client.status().await.unwrap();
    assert!(status.services.iter().any(|count| count.service == "nightly" && count.stopped));
    assert!(!api.client.service("web").await.unwrap().revision.suspended);
}

#[tokio::test]
async fn a_node_that_does_not_vote_asks_how_the_ledger_stands() {
    let standing = Standing { voters: vec![N1, N2], learners: vec![N2], leader: Some(N1), ..Standing::default() };
    let (api, ledger) = started(with_cron(""), Held { standing, ..held() }).await;
    let found = api.client.ledger().await.unwrap();
    assert_eq!(ledger.asked(), [Question::Standing]);
    assert_eq!((found.quorum, found.in_reach, found.fires), (2, 1, false));
    assert_eq!((found.leader.as_deref(), found.learners), (Some("n1"), vec!["n2".to_owned()]));
    assert_eq!(node("n2", NodeStatus::Down).key, N2);
}
