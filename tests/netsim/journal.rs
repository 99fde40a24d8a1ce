//! What users asked for and what they were answered: what the cluster owes them follows from this alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use narun::ids::{NodeKey, ServiceName};
use narun::node::engine::effect::{Refusal, RefusalCode, Response};
use narun::node::engine::view::View;

use crate::trace::Trace;
use crate::wish::{Deployment, Wish};

/// The journal of one world; cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    admitted: BTreeSet<NodeKey>,
    removed: BTreeSet<NodeKey>,
}

/// One wish.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// At which host it was made.
    pub(crate) host: usize,
    /// What was asked for.
    pub(crate) wish: Wish,
    /// When.
    pub(crate) begun: Instant,
    /// Which deploys of that service its node had heard of by then, by their marks.
    pub(crate) saw: BTreeSet<String>,
    /// What came of it, and when.
    pub(crate) done: Option<(Instant, Outcome)>,
}

/// What came of a wish.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Outcome {
    /// It was carried out and is durable.
    Acknowledged(Response),
    /// Nothing was changed.
    Refused(Refusal),
    /// The node ended or took too long: it may have been carried out.
    Unknown,
}

impl Entry {
    /// Whether the user was told that it is done.
    pub(crate) fn is_acknowledged(&self) -> bool {
        matches!(self.done, Some((_, Outcome::Acknowledged(_))))
    }

    /// Whether it certainly changed nothing.
    fn is_void(&self) -> bool {
        matches!(self.done, Some((_, Outcome::Refused(_))))
    }

    /// Whether it was over before `later` began, in the eyes of the node that took both.
    fn precedes(&self, later: &Entry) -> bool {
        self.host == later.host && self.done.as_ref().is_some_and(|(at, _)| *at <= later.begun)
    }

    fn deployment(&self) -> Option<&Deployment> {
        match &self.wish {
            Wish::Deploy(deployment) => Some(deployment),
            _ => None,
        }
    }
}

impl Journal {
    /// An empty journal.
    pub(crate) fn new(trace: Trace) -> Self {
        Self { inner: Arc::default(), trace }
    }

    /// A node's membership was taken away, or given up.
    pub(crate) fn strike(&self, key: NodeKey) {
        self.lock().removed.insert(key);
    }

    /// Whose membership ended.
    pub(crate) fn removed(&self) -> BTreeSet<NodeKey> {
        self.lock().removed.clone()
    }

    /// Somebody was let in, or may have been.
    pub(crate) fn admit(&self, key: NodeKey) {
        self.lock().admitted.insert(key);
    }

    /// Who was ever let in, or may have been.
    pub(crate) fn admitted(&self) -> BTreeSet<NodeKey> {
        self.lock().admitted.clone()
    }

    /// A wish is made at a node that shows `view`. Gives back its number.
    pub(crate) fn begin(&self, host: usize, wish: Wish, view: &View) -> usize {
        let service = view.services.iter().find(|service| service.name == *wish.service());
        let history = service.map(|service| service.history.as_slice()).unwrap_or_default();
        let saw = history.iter().map(|revision| revision.spec.tag.clone()).collect();
        self.trace.record(&format!("n{host}"), &format!("asked to {wish}"), &[]);
        let mut inner = self.lock();
        inner.entries.push(Entry { host, wish, begun: Instant::now(), saw, done: None });
        inner.entries.len() - 1
    }

    /// It was answered; none: the asker gave up.
    pub(crate) fn end(&self, number: usize, answer: Option<Result<Response, Refusal>>) {
        let outcome = match answer {
            Some(Ok(response)) => Outcome::Acknowledged(response),
            // A node that is stopping cannot say what became of it; one that timed out has it on its own disk.
            None | Some(Err(Refusal { code: RefusalCode::Unavailable | RefusalCode::TimedOut, .. })) => {
                Outcome::Unknown
            }
            Some(Err(refusal)) => Outcome::Refused(refusal),
        };
        let mut inner = self.lock();
        let entry = &mut inner.entries[number];
        let text = match &outcome {
            Outcome::Acknowledged(response) => format!("{response:?}"),
            Outcome::Refused(refusal) => format!("refused: {refusal}"),
            Outcome::Unknown => "no answer".to_owned(),
        };
        self.trace.record(&format!("n{}", entry.host), &format!("{}: {text}", entry.wish), &[]);
        entry.done = Some((Instant::now(), outcome));
    }

    /// All wishes, oldest first.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// How many wishes were carried out.
    pub(crate) fn acknowledged(&self) -> usize {
        self.lock().entries.iter().filter(|entry| entry.is_acknowledged()).count()
    }

    /// All deploys that were ever asked for, by mark.
    pub(crate) fn deployments(&self) -> BTreeMap<String, Deployment> {
        let entries = self.entries();
        let deployments = entries.iter().filter_map(Entry::deployment);
        deployments.map(|deployment| (deployment.mark.clone(), deployment.clone())).collect()
    }

    /// Which deploys must be found wherever all is known: those acknowledged, of services that nobody can have deleted since.
    /// Only what was acknowledged at the hosts `at` counts.
    pub(crate) fn owed(&self, at: &[usize]) -> Vec<(ServiceName, String)> {
        let entries = self.entries();
        let mut owed = Vec::new();
        for entry in entries.iter().filter(|entry| entry.is_acknowledged() && at.contains(&entry.host)) {
            let Some(deployment) = entry.deployment() else { continue };
            let spoilt = entries.iter().any(|other| {
                let deletes = matches!(&other.wish, Wish::Delete(service) if *service == deployment.service);
                deletes && !other.is_void() && !other.precedes(entry)
            });
            if !spoilt {
                owed.push((deployment.service.clone(), deployment.mark.clone()));
            }
        }
        owed
    }

    /// Which services must not be found: those whose deletion was acknowledged by a node that knew all that was ever written
    /// about them. Only what was acknowledged at the hosts `at` counts.
    pub(crate) fn buried(&self, at: &[usize]) -> BTreeSet<ServiceName> {
        let entries = self.entries();
        let mut buried = BTreeSet::new();
        for entry in entries.iter().filter(|entry| entry.is_acknowledged() && at.contains(&entry.host)) {
            let Wish::Delete(service) = &entry.wish else { continue };
            let writes = entries.iter().filter(|other| other.wish.service() == service && !other.wish.deletes());
            let knew = |write: &Entry| {
                let seen = write.deployment().is_some_and(|deployment| entry.saw.contains(&deployment.mark));
                write.is_void() || write.precedes(entry) || seen
            };
            if writes.into_iter().all(knew) {
                buried.insert(service.clone());
            }
        }
        buried
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wish::{anywhere, service_name};

    /// A wish at a host that is answered at once, a second after the one before.
    async fn done(journal: &Journal, host: usize, wish: Wish, answer: Option<Response>) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let number = journal.begin(host, wish, &View::default());
        journal.end(number, answer.map(Ok));
    }

    fn deploy(mark: &str) -> Wish {
        Wish::Deploy(Deployment::new("web", mark, anywhere(1)))
    }

    fn revised() -> Option<Response> {
        Some(Response::Revised { revision: 1, changed: true })
    }

    fn deleted() -> Option<Response> {
        Some(Response::Deleted { existed: true })
    }

    fn owed(journal: &Journal) -> Vec<String> {
        journal.owed(&[0, 1]).into_iter().map(|(_, mark)| mark).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_is_owed_and_what_was_not_is_not() {
        let journal = Journal::new(Trace::new());
        done(&journal, 0, deploy("a"), revised()).await;
        done(&journal, 1, deploy("b"), None).await;
        done(&journal, 1, deploy("c"), revised()).await;
        assert_eq!(owed(&journal), ["a", "c"]);
        assert_eq!(journal.owed(&[1]).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_may_have_come_later_excuses_and_an_earlier_one_at_the_same_node_does_not() {
        let journal = Journal::new(Trace::new());
        done(&journal, 0, deploy("a"), revised()).await;
        done(&journal, 0, Wish::Delete(service_name("web")), deleted()).await;
        assert!(owed(&journal).is_empty());
        assert_eq!(journal.buried(&[0, 1]).len(), 1);
        done(&journal, 0, deploy("b"), revised()).await;
        assert_eq!(owed(&journal), ["b"]);
        assert!(journal.buried(&[0, 1]).is_empty(), "it was deployed again");
        done(&journal, 1, Wish::Delete(service_name("web")), None).await;
        assert!(owed(&journal).is_empty(), "nobody knows whether that was carried out");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_at_a_node_that_did_not_know_all_buries_nothing() {
        let journal = Journal::new(Trace::new());
        done(&journal, 0, deploy("a"), revised()).await;
        done(&journal, 1, Wish::Delete(service_name("web")), deleted()).await;
        assert!(journal.buried(&[0, 1]).is_empty());
    }
}
