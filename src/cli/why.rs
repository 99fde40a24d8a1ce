//! `narun why`: what stands in the way of a service, an instance or a node, and what to do. Wiring, and its pure text; that of cron specs is in
//! `why_cron`.
//!
//! It finds nothing out by itself: every cause was recorded by the node that it concerns, and is put into words here.

use clap::Args;
use serde::Serialize;

use crate::api::client::{Client, ClientError};
use crate::api::wire::cron::{CronHistory, HistoryWanted};
use crate::api::wire::{Instance, Node, Problem, Service, Status};

use super::cron;
use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;
use super::service_text::last_exit;
use super::why_cron;
use super::words;

/// Say why something does not run, or runs otherwise than asked for, and what to do
///
/// THING is a service, a cron spec, an instance (`web-0`), or a node. JSON: a list of subject, kind (service, cron, instance or node),
/// state, well, message, hint.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun why web\n  narun why nightly\n  narun why web-0\n  narun why n1")]
pub(crate) struct Why {
    /// A service, a cron spec, an instance or a node
    thing: String,
}

/// One thing that is to be said.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    /// What it is about.
    pub(super) subject: String,
    /// `service`, `cron`, `instance` or `node`.
    pub(super) kind: &'static str,
    /// In a word.
    pub(super) state: String,
    /// Whether it is as it should be.
    pub(super) well: bool,
    /// What is so, and why.
    pub(super) message: String,
    /// What to do; none where nothing is to be done.
    pub(super) hint: Option<String>,
}

/// What is known of the cluster.
struct Known<'a> {
    status: &'a Status,
    services: &'a [Service],
    /// What became of the thing's slots, where it is a cron spec, or why that is not known.
    history: Option<Result<CronHistory, String>>,
}

impl Why {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let client = reach.client()?;
        let (status, services) = (client.status().await?, client.services().await?);
        let cron = services.iter().find(|service| service.service == self.thing && service.revision.mode == "cron");
        let history = match cron {
            Some(cron) => Some(history(&client, &cron.service).await?),
            None => None,
        };
        let findings = findings(&self.thing, &Known { status: &status, services: &services, history });
        if findings.is_empty() {
            let refusal = Failure::failed(format!("no service, instance or node `{}`", self.thing));
            return Err(refusal.hint("`narun service list` and `narun node list` show what there is"));
        }
        output.answer(&findings, || text(&findings))
    }
}

/// What became of a cron spec, or what the node says to that: the rest can be told without it.
async fn history(client: &Client, cron: &str) -> Result<Result<CronHistory, String>, Failure> {
    match client.cron_history(cron, &HistoryWanted::default()).await {
        Ok(history) => Ok(Ok(history)),
        Err(ClientError::Refused(words)) => Ok(Err(words.message)),
        Err(error) => Err(error.into()),
    }
}

/// All that is to be said about a name.
fn findings(thing: &str, known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(service) = known.services.iter().find(|service| service.service == thing) {
        findings.extend(of_service(service, known));
    }
    let instances = known.services.iter().flat_map(|service| &service.instances);
    for instance in instances.filter(|instance| instance.instance == thing) {
        findings.push(of_instance(instance, known));
    }
    if let Some(node) = known.status.nodes.iter().find(|node| node.name == thing) {
        findings.extend(of_node(node, known));
    }
    findings
}

/// The service itself, what is wrong with it as a whole, and each of its instances that is not as it should be.
fn of_service(service: &Service, known: &Known<'_>) -> Vec<Finding> {
    let name = &service.service;
    let finding = |state: &str, well, message: String, hint: Option<&str>| Finding {
        subject: name.clone(),
        kind: "service",
        state: state.to_owned(),
        well,
        message,
        hint: hint.map(str::to_owned),
    };
    if let ("cron", Some(history)) = (service.revision.mode.as_str(), &known.history) {
        let cron = why_cron::Known { service, ledger: &known.status.ledger, history, now: cron::now() };
        return [known.problems(name, "cron"), why_cron::findings(&cron)].concat();
    }
    if service.revision.stopped {
        let (author, at) = (&service.revision.author, words::seconds(&service.revision.at));
        let hint = format!("`narun service start {name}` starts it");
        return vec![finding("stopped", true, format!("stopped by its user, on node {author} at {at}"), Some(&hint))];
    }
    let count = known.status.services.iter().find(|count| count.service == *name);
    let (ready, desired) = count.map_or((0, 0), |count| (count.ready, count.desired));
    let well = ready >= desired;
    let message = format!("{ready} of {} ready", words::count(desired as usize, "instance"));
    let mut findings = vec![finding(if well { "as wanted" } else { "short" }, well, message, None)];
    findings.extend(known.problems(name, "service"));
    findings.extend(service.instances.iter().map(|one| of_instance(one, known)).filter(|finding| !finding.well));
    findings
}

impl Known<'_> {
    /// What the node that was asked holds against a thing as a whole.
    fn problems(&self, subject: &str, kind: &'static str) -> Vec<Finding> {
        let own = self.status.problems.iter().filter(|problem| problem.subject == subject);
        own.map(|Problem { subject, message, hint }| Finding {
            subject: subject.clone(),
            kind,
            state: "problem".to_owned(),
            well: false,
            message: message.clone(),
            hint: Some(hint.clone()).filter(|hint| !hint.is_empty()),
        })
        .collect()
    }

    /// Since when a node is what it is.
    fn since(&self, node: &str) -> String {
        let found = self.status.nodes.iter().find(|found| found.name == node);
        found.map_or_else(|| "an unknown time".to_owned(), |node| words::seconds(&node.since))
    }
}

fn of_instance(instance: &Instance, known: &Known<'_>) -> Finding {
    let Instance { instance: name, service, node, .. } = instance;
    let error = instance.error.as_deref();
    let because = |what: &str| match error {
        Some(error) => format!("{what}: {error}"),
        None => what.to_owned(),
    };
    let output = format!("`narun logs --instance {name} --tail 20` shows its last output");
    let restarts = words::count(instance.restarts as usize, "restart");
    let (well, message, hint) = match instance.state.as_str() {
        "running" if !instance.wanted => (
            false,
            "runs where its service does not want it: it is on its way elsewhere, or about to be stopped".into(),
            None,
        ),
        "running" if !instance.current => {
            let message = format!("runs revision {}: it is replaced once all before it are ready", instance.revision);
            (false, message, Some(format!("`narun why {service}` shows what it waits for")))
        }
        "running" if !instance.ready => (false, "runs, but not yet for long enough to count as ready".into(), None),
        "running" => (true, ran(instance), None),
        "finished" if instance.ready => {
            let at = instance.exit.as_ref().map(|exit| words::seconds(&exit.at)).unwrap_or_default();
            let message = format!("has ended with code 0 at {at}, after which its restart policy wants no other start");
            (true, message, Some(format!("`narun service restart {service}` runs it again")))
        }
        "finished" => {
            let what = "has failed, and its restart policy is `never`";
            (false, because(what), Some(format!("{output}; `narun service restart {service}` runs it again")))
        }
        "pending" => {
            let message = format!("node {node}, which is {}, has not said anything of it yet", instance.node_status);
            (false, message, Some(format!("`narun why {node}` shows how that node is")))
        }
        "fetching" => {
            let hint =
                "`narun list-images` shows which nodes hold the binary; it is fetched as soon as one is in reach";
            (false, because("waits for its binary"), error.map(|_| hint.to_owned()))
        }
        "starting" => (false, "is being started".into(), None),
        "stopping" => (false, "was asked to stop, and is killed when its grace is over".into(), None),
        "backoff" => {
            let at = instance.retry_at.as_deref().map(words::seconds);
            let until = at.map(|at| format!(" until {at}")).unwrap_or_default();
            let what = format!("waits{until} to be started again, after {restarts}");
            (false, because(&what), Some(format!("it is tried again by itself; {output}")))
        }
        "crash-loop" => {
            let hint = format!("{output}; `narun service start {service}` tries it again once the cause is removed");
            (false, because(&format!("was given up after {restarts}")), Some(hint))
        }
        "unreachable" => {
            let message =
                format!("node {node} is down since {}: nobody knows whether it still runs", known.since(node));
            (false, message, Some(format!("`narun why {node}` shows how that node is")))
        }
        "stopped" => {
            let hint = format!("`narun node info {node}` shows the node's labels, and whether it is drained");
            (false, because(&format!("must not run on node {node} for now")), Some(hint))
        }
        // A state that a later node has a word for.
        other => (false, because(&format!("is {other}")), None),
    };
    let subject = format!("{name} on {node}");
    Finding { subject, kind: "instance", state: instance.state.clone(), well, message, hint }
}

/// What is to be said of an instance that is as it should be.
fn ran(instance: &Instance) -> String {
    let since = instance.started_at.as_deref().map(words::seconds).unwrap_or_default();
    let mut text = format!("runs since {since}");
    if instance.restarts > 0 {
        let restarts = words::count(instance.restarts as usize, "restart");
        text.push_str(&format!(", after {restarts}; it ended last with {}", last_exit(instance)));
    }
    for missing in &instance.enforced.missing {
        text.push_str(&format!("; not enforced: {missing}"));
    }
    text
}

fn of_node(node: &Node, known: &Known<'_>) -> Vec<Finding> {
    let name = &node.name;
    let since = words::seconds(&node.since);
    let finding = |state: &str, well, message: String, hint: Option<String>| Finding {
        subject: name.clone(),
        kind: "node",
        state: state.to_owned(),
        well,
        message,
        hint,
    };
    let runs = words::count(node.instances as usize, "instance");
    let mut findings = vec![match node.status.as_str() {
        "alive" => finding("alive", true, format!("answers since {since}, and runs {runs}"), None),
        "suspect" => {
            finding("suspect", false, format!("has not answered since {since}, and has a moment to refute that"), None)
        }
        "down" => {
            let hint = "see whether the host is up and can be reached; `narun start` there resumes it";
            finding("down", false, format!("out of reach since {since}"), Some(hint.to_owned()))
        }
        other => finding(other, false, "not heard of since the node that was asked has started".to_owned(), None),
    }];
    if node.role == "operator-only" {
        let message = "is a member to operate the cluster from, and runs nothing".to_owned();
        findings.push(finding("operator-only", true, message, None));
    }
    if let Some(drain) = &node.drain {
        let at = words::seconds(&drain.since);
        let message = format!("{}, as asked at node {} at {at}: it gets nothing new", drain.state, drain.asked_at);
        findings.push(finding(&drain.state, true, message, Some(format!("`narun node uncordon {name}` ends that"))));
        let left = drain.left.iter();
        findings.extend(left.map(|left| {
            let message = format!("{} is still there: {}", left.instance, left.reason);
            finding(&drain.state, false, message, None)
        }));
    }
    // That it is down was said above.
    let told = known.problems(name, "node").into_iter();
    findings.extend(told.filter(|problem| node.status != "down" || !problem.message.starts_with("out of reach")));
    let here = known.services.iter().flat_map(|service| &service.instances).filter(|one| one.node == *name);
    findings.extend(here.map(|one| of_instance(one, known)).filter(|finding| !finding.well));
    findings
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { subject, message, hint, .. } in findings {
        out += &format!("{subject}: {message}\n");
        if let Some(hint) = hint {
            out += &format!("  {hint}\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::node_text::tests::node;
    use super::super::service_text::tests::{instance, web};
    use super::*;
    use crate::api::wire::cron::Ledger;
    use crate::api::wire::{Drain, Enforced, Left, ServiceCount};

    fn told(thing: &str, instances: Vec<Instance>, nodes: Vec<Node>) -> String {
        let service = Service { instances, ..web() };
        let status = Status {
            node: Some("n1".into()),
            key: String::new(),
            cluster: String::new(),
            boot: 1,
            version: "0.1.0".into(),
            nodes,
            services: vec![ServiceCount {
                service: "web".into(),
                mode: "service".into(),
                stopped: false,
                desired: 3,
                running: 1,
                ready: 1,
            }],
            problems: vec![
                Problem { subject: "web".into(), message: "1 instances have no node".into(), hint: "add one".into() },
                Problem { subject: "n2".into(), message: "out of reach since then".into(), hint: "see".into() },
            ],
            cron_fires: false,
            network: [].into(),
            ledger: Ledger::default(),
        };
        text(&findings(thing, &Known { status: &status, services: &[service], history: None }))
    }

    fn nodes() -> Vec<Node> {
        vec![node("n1", "alive"), node("n2", "down")]
    }

    fn failing(state: &str, error: &str) -> Instance {
        let error = Some(error.to_owned()).filter(|error| !error.is_empty());
        Instance { state: state.into(), ready: false, restarts: 5, error, ..instance("web-1", "n1", true) }
    }

    #[test]
    fn a_service_says_what_is_missing_and_why() {
        let waits = Instance {
            retry_at: Some("2026-11-21T10:31:00.250Z".into()),
            ..failing("backoff", "cannot join the network namespace `/run/netns/a`: no such file or directory")
        };
        assert_eq!(
            told("web", vec![instance("web-0", "n1", true), waits], nodes()),
            "\
web: 1 of 3 instances ready
web: 1 instances have no node
  add one
web-1 on n1: waits until 2026-11-21T10:31:00Z to be started again, after 5 restarts: cannot join the network namespace \
`/run/netns/a`: no such file or directory
  it is tried again by itself; `narun logs --instance web-1 --tail 20` shows its last output
"
        );
    }

    #[test]
    fn each_state_of_an_instance_has_its_cause() {
        for (one, words) in [
            (failing("crash-loop", "exited with code 3"), "given up after 5 restarts: exited with code 3\n"),
            (failing("crash-loop", ""), "`narun service start web` tries it again"),
            (failing("finished", "exited with code 3"), "restart policy is `never`: exited with code 3\n"),
            (failing("fetching", "no node in reach holds it"), "waits for its binary: no node in reach holds it\n"),
            (failing("stopped", "the node is drained"), "must not run on node n1 for now: the node is drained\n"),
            (failing("pending", ""), "node n1, which is alive, has not said anything of it yet\n"),
            (failing("later", "who knows"), "is later: who knows\n"),
            (Instance { node: "n2".into(), ..failing("unreachable", "") }, "n2 is down since 2026-11-21T10:00:00Z"),
            (Instance { current: false, ..instance("web-1", "n1", true) }, "runs revision 2: it is replaced once"),
            (Instance { state: "finished".into(), ..instance("web-1", "n1", true) }, "has ended with code 0 at 2026"),
        ] {
            let text = told("web-1", vec![one], nodes());
            assert!(text.contains(words), "`{words}` is not in: {text}");
        }
        let weakened = Instance {
            enforced: Enforced { landlock_abi: Some(2), missing: vec!["TCP rules need version 4".into()] },
            ..instance("web-1", "n1", true)
        };
        assert_eq!(
            told("web-1", vec![weakened], nodes()),
            "web-1 on n1: runs since 2026-11-21T10:30:00Z, after 1 restart; it ended last with signal 9; not enforced: TCP rules \
             need version 4\n"
        );
    }

    #[test]
    fn a_node_says_since_when_it_is_down_or_drained() {
        assert_eq!(
            told("n2", Vec::new(), nodes()),
            "\
n2: out of reach since 2026-11-21T10:00:00Z
  see whether the host is up and can be reached; `narun start` there resumes it
"
        );
        let left = vec![Left { instance: "web-0".into(), reason: "no other node can take it".into() }];
        let drain =
            Drain { state: "draining".into(), since: "2026-11-21T09:00:00.000Z".into(), asked_at: "n2".into(), left };
        assert_eq!(
            told("n1", Vec::new(), vec![Node { drain: Some(drain), ..node("n1", "alive") }]),
            "\
n1: answers since 2026-11-21T10:00:00Z, and runs 3 instances
n1: draining, as asked at node n2 at 2026-11-21T09:00:00Z: it gets nothing new
  `narun node uncordon n1` ends that
n1: web-0 is still there: no other node can take it
"
        );
        assert_eq!(told("n3", Vec::new(), nodes()), "");
    }

    #[test]
    fn what_is_stopped_says_who_stopped_it() {
        let mut service = web();
        service.revision.stopped = true;
        let status: Status = serde_json::from_value(serde_json::json!({
            "node": null, "key": "", "cluster": "", "boot": 1, "version": "", "nodes": [], "services": [], "problems": [],
            "cron_fires": false,
        }))
        .unwrap();
        let known = Known { status: &status, services: &[service], history: None };
        assert_eq!(
            text(&findings("web", &known)),
            "web: stopped by its user, on node n1 at 2026-11-21T10:30:00Z\n  `narun service start web` starts it\n"
        );
    }
}
