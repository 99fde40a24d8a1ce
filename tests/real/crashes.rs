//! A node that is killed again and again while it is written to: what it acknowledged is there afterwards, everywhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use narun::crdt::document::REVISIONS_MAX;

use crate::cluster::{Cluster, Node, eventually, narun_at, text};

/// How often the node is killed.
const KILLS: u32 = 30;

/// Longest life of the node, counted from when it was started or from when it served: several writes fit into it, and short ones
/// end while the database is being opened.
const LIFE_MAX_MS: u64 = 600;

/// How many services each writer deploys by turns: each gets so many revisions that all that were acknowledged are kept.
const SERVICES: u64 = 4;

/// What a writer was told is on disk. Nobody else writes to what it writes to.
#[derive(Debug, Default)]
struct Written {
    /// What each revision of each service was made with: a tag, or a number of instances.
    revisions: BTreeMap<String, BTreeMap<u64, String>>,
    /// The last value of its label; they only grow.
    label: u64,
    acknowledged: u32,
    /// What was said where it was not.
    refused: Vec<String>,
}

impl Written {
    /// Keeps the answer to a command, if it was a good one.
    fn take(&mut self, data_dir: &Path, words: &[&str]) -> Option<Value> {
        let answer = narun_at(data_dir, &[words, &["-o", "json"]].concat());
        if answer.code != 0 {
            self.refused.push(format!("{words:?}: {}", answer.stderr));
            return None;
        }
        self.acknowledged += 1;
        Some(serde_json::from_str(&answer.stdout).expect("an answer in JSON"))
    }

    fn revised(&mut self, data_dir: &Path, service: &str, made_with: String, words: &[&str]) {
        if let Some(answer) = self.take(data_dir, words) {
            let revision = answer["revision"].as_u64().expect("a number");
            self.revisions.entry(service.to_owned()).or_default().insert(revision, made_with);
        }
    }

    /// Writes to a node until the end: in each round a deploy, a scale, and a label.
    ///
    /// How many were acknowledged is counted in `acknowledged` as it goes.
    fn write(name: &str, data_dir: &Path, program: &str, over: &AtomicBool, acknowledged: &AtomicU32) -> Self {
        let mut written = Self::default();
        for round in 1_u64.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let (service, tag) = (format!("{name}-{}", round % SERVICES), format!("round-{round}"));
            let deploy = ["deploy", "--name", &service, "--tag", &tag, "--node", "any", "--acks", "1", program];
            written.revised(data_dir, &service, tag.clone(), &deploy);
            let (service, replicas) = (format!("{name}-scaled"), (1 + round % 3).to_string());
            written.revised(data_dir, &service, replicas.clone(), &["service", "scale", &service, &replicas]);
            if written.take(data_dir, &["node", "label", name, &format!("round={round}")]).is_some() {
                written.label = round;
            }
            acknowledged.store(written.acknowledged, Ordering::Relaxed);
        }
        written
    }

    /// Checks that a node has all of it.
    fn is_on(&self, node: &Node, name: &str) {
        for (service, revisions) in &self.revisions {
            let history = node.json(&["service", "history", service]);
            let made_with = |row: &Value| match text(&row["cause"]).as_str() {
                "scale" => replicas(&text(&row["spec"])),
                _ => text(&row["tag"]),
            };
            let rows = history.as_array().expect("a list").iter();
            let kept: BTreeMap<_, _> =
                rows.map(|row| (row["revision"].as_u64().expect("a number"), made_with(row))).collect();
            let newest = *kept.keys().last().expect("a revision");
            assert!(newest >= *revisions.keys().last().expect("one"), "{service} fell back: {history:#}");
            let oldest = (newest + 1).saturating_sub(REVISIONS_MAX as u64);
            for (revision, made_with) in revisions.range(oldest..) {
                assert_eq!(kept.get(revision), Some(made_with), "revision {revision} of {service} at {}", node.name);
            }
        }
        let label = text(&node.json(&["node", "info", name])["labels"]["round"]);
        let label: u64 = label.parse().unwrap_or_else(|_| panic!("no label: {label:?}"));
        assert!(label >= self.label, "the label fell back from {} to {label} at {}", self.label, node.name);
    }
}

/// How many instances a specification asks for.
fn replicas(spec: &str) -> String {
    let replicas = spec.lines().find_map(|line| line.trim().strip_prefix("replicas: "));
    replicas.unwrap_or_else(|| panic!("no number of instances: {spec}")).to_owned()
}

/// Ends the writers, also where the test has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_a_node_acknowledged_before_it_was_killed_is_on_all() {
    let mut cluster = Cluster::start(3);
    let program = cluster.sleeper();
    for name in ["n1", "n2"] {
        let service = format!("{name}-scaled");
        cluster[0].ok(&["deploy", "--name", &service, "--tag", "v1", "--node", "any", &program, "--wait"]);
        for node in &cluster.nodes {
            node.running(&service, 1);
        }
    }
    let data_dirs = [0, 1].map(|at| cluster[at].data_dir().to_owned());
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    let acknowledged = ["n1", "n2"].map(|_| AtomicU32::new(0));
    let [at_other, at_killed] = std::thread::scope(|scope| {
        let writers = [("n1", 0), ("n2", 1)].map(|(name, at)| {
            let (program, over, data_dir, acknowledged) = (&program, &over, &data_dirs[at], &acknowledged[at]);
            scope.spawn(move || Written::write(name, data_dir, program, over, acknowledged))
        });
        let over = Over(&over);
        let killed = &mut cluster[1];
        for kill in 0..KILLS {
            // Every other life begins to count when the node has taken something, however long that takes on a busy machine. The others end
            // at any moment, some of them while the database is being opened.
            if kill % 2 == 0 {
                killed.serves();
                let before = acknowledged[1].load(Ordering::Relaxed);
                eventually("a round of writes", || (acknowledged[1].load(Ordering::Relaxed) > before).then_some(()));
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..LIFE_MAX_MS)));
            assert!(killed.is_up(), "it has ended by itself: {}", killed.log());
            killed.crash();
            killed.spawn(&["start"]);
        }
        killed.serves();
        drop(over);
        writers.map(|writer| writer.join().expect("it did not panic"))
    });
    eprintln!(
        "{KILLS} kills in {:.1} s: {} writes to the killed node were acknowledged and {} not, {} to another one",
        begun.elapsed().as_secs_f64(),
        at_killed.acknowledged,
        at_killed.refused.len(),
        at_other.acknowledged,
    );
    for told in &at_killed.refused {
        let gone = ["no node answers", "the node's answer broke off"].iter().any(|words| told.contains(words));
        assert!(gone, "not for want of a node: {told}");
    }
    assert!(at_killed.acknowledged >= KILLS / 2 && at_killed.label > 0, "hardly anything was written: {at_killed:?}");
    assert_eq!(at_other.refused, Vec::<String>::new(), "a node that lives takes every write");

    cluster.settled();
    let services = cluster[1].json(&["service", "list"]);
    let services: Vec<_> = services.as_array().expect("a list").iter().map(|row| text(&row["service"])).collect();
    for node in &cluster.nodes {
        for service in &services {
            eventually("the same history everywhere", || {
                let words = ["service", "history", service, "-o", "json"];
                (node.run(&words).stdout == cluster[1].run(&words).stdout).then_some(())
            });
        }
        eventually("nothing to be wrong", || {
            let status = node.json(&["status"]);
            let as_wanted = |service: &Value| service["ready"] == service["desired"];
            let all_run = status["services"].as_array().expect("a list").iter().all(as_wanted);
            (all_run && status["problems"] == serde_json::json!([])).then_some(())
        });
        at_killed.is_on(node, "n2");
        at_other.is_on(node, "n1");
    }
}
