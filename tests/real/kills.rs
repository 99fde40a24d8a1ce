//! A node that is killed at random moments while its instances run, crash and are redeployed. What happened is known from stamps that
//! the instances write themselves, past narun: nobody was started, ended or forgotten without a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::cluster::{Cluster, Instance, Node, eventually, narun_at, text};
use crate::host::lives;

/// How often the node is killed; `NARUN_KILLS` says otherwise.
const KILLS: u32 = 30;

/// Longest life of the node, counted from when it was started or from when it served.
const LIFE_MAX_MS: u64 = 700;

/// How many instances there are of each kind: a hundred together.
const STEADY: usize = 60;
const CRASHING: usize = 20;
const REDEPLOYED: usize = 20;

/// Says what it does to a file of its own: `start RUN TAG PID`, `line RUN N` after it has printed N, `exit RUN CODE` right before that. What
/// crashes does so after some seconds, a different time each, until it is told to be calm: fewer times than its budget allows.
const PROGRAM: &str = r#"
    mine="STAMPS/$NARUN_INSTANCE_ID"
    echo "start $NARUN_RUN_ID $TAG $$" >> "$mine"
    n=0
    while :; do
        n=$((n + 1))
        echo "$n"
        echo "line $NARUN_RUN_ID $n" >> "$mine"
        if [ "$KIND" = crashing ] && [ $n -ge $((2 + NARUN_REPLICA_INDEX % 5)) ] && [ ! -e STAMPS/calm ]; then
            echo "exit $NARUN_RUN_ID $((1 + n))" >> "$mine"
            exit $((1 + n))
        fi
        sleep 1
    done
"#;

/// What an instance says of itself.
#[derive(Debug, Default)]
struct Stamps {
    /// Run, tag and process of each start, in order.
    starts: Vec<(String, u64, i32)>,
    /// Run and code of each exit by itself, in order.
    exits: Vec<(String, u64)>,
    /// How many lines each run has printed at least.
    lines: BTreeMap<String, u64>,
}

impl Stamps {
    fn read(folder: &Path, instance: &str) -> Self {
        let mut stamps = Self::default();
        for line in fs::read_to_string(folder.join(instance)).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            match (words[0], number(2)) {
                ("start", Some(tag)) => {
                    let pid = i32::try_from(number(3).unwrap_or_default()).unwrap_or_default();
                    stamps.starts.push((words[1].to_owned(), tag, pid));
                }
                ("exit", Some(code)) => stamps.exits.push((words[1].to_owned(), code)),
                ("line", Some(n)) => drop(stamps.lines.insert(words[1].to_owned(), n)),
                // Cut off by the end of its writer.
                _ => {}
            }
        }
        stamps
    }
}

/// The deploy of one of the three services.
fn words<'a>(service: &'a str, replicas: &'a str, env: &'a [String; 2], program: &'a str) -> Vec<&'a str> {
    let [kind, tag] = env;
    vec!["deploy", "--name", service, "--tag", "v1", "--replicas", replicas, "--env", kind, "--env", tag, program]
}

fn env(kind: &str, tag: u64) -> [String; 2] {
    [format!("KIND={kind}"), format!("TAG={tag}")]
}

/// Deploys one service again and again, each time under the next number; gives the first one that was not used.
fn redeploy(data_dir: &Path, program: &str, over: &AtomicBool) -> u64 {
    let mut tag = 1;
    while !over.load(Ordering::Relaxed) {
        let env = env("redeployed", tag);
        tag += 1;
        if narun_at(data_dir, &words("redeployed", &REDEPLOYED.to_string(), &env, program)).code == 0 {
            // Time to get somewhere with it: one index after another is replaced, a second each.
            std::thread::sleep(Duration::from_secs(3));
        }
    }
    tag
}

/// Ends the thread that deploys, also where the test has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_node_killed_at_random_moments_disturbs_and_forgets_nothing() {
    let kills = std::env::var("NARUN_KILLS").ok().map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let mut cluster = Cluster::start(1);
    let stamps = cluster.dir().join("stamps");
    fs::create_dir(&stamps).unwrap();
    let program = cluster.script("stamps", &PROGRAM.replace("STAMPS", stamps.to_str().unwrap()));
    for (kind, count) in [("steady", STEADY), ("crashing", CRASHING), ("redeployed", REDEPLOYED)] {
        cluster[0].ok(&words(kind, &count.to_string(), &env(kind, 0), &program));
    }
    cluster[0].running("steady", STEADY);
    let begun = Instant::now();
    let mut random = ChaCha8Rng::seed_from_u64(u64::from(kills));
    let over = AtomicBool::new(false);
    let data_dir = cluster[0].data_dir().to_owned();
    let tag = std::thread::scope(|scope| {
        let deploys = scope.spawn(|| redeploy(&data_dir, &program, &over));
        let over = Over(&over);
        let killed = &mut cluster[0];
        for kill in 0..kills {
            // Every other life begins to count when the node serves, however long that takes on a busy machine.
            if kill % 2 == 0 {
                killed.serves();
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..LIFE_MAX_MS)));
            assert!(killed.is_up(), "it has ended by itself: {}", killed.log());
            killed.crash();
            killed.spawn(&["start"]);
            // A budget of restarts lasts for a while only.
            if kill == kills.min(KILLS) * 3 / 4 {
                fs::write(stamps.join("calm"), "").unwrap();
            }
        }
        killed.serves();
        drop(over);
        deploys.join().expect("it did not panic")
    });
    eprintln!("{kills} kills in {:.1} s; {tag} deploys", begun.elapsed().as_secs_f64());

    // One whose answer was lost with the node may have been taken all the same: another one, that was not.
    let node = &cluster[0];
    node.ok(&words("redeployed", &REDEPLOYED.to_string(), &env("redeployed", tag), &program));
    let all: Vec<Instance> = ["steady", "crashing", "redeployed"]
        .into_iter()
        .zip([STEADY, CRASHING, REDEPLOYED])
        .flat_map(|(service, count)| node.running(service, count))
        .collect();
    let (mut exits, mut replaced) = (0, 0);
    for one in &all {
        let said = Stamps::read(&stamps, &one.name);
        let told = format!("{one:#?}\n{said:#?}");
        match one.name.split('-').next() {
            Some("steady") => {
                assert_eq!((said.starts.len(), one.restarts), (1, 0), "a start that nobody asked for: {told}");
            }
            Some("crashing") => {
                assert_eq!(said.starts.len(), said.exits.len() + 1, "a start that nobody asked for: {told}");
                assert_eq!(one.restarts, said.exits.len() as u64, "each exit is counted: {told}");
                let last = said.exits.last().map(|(_, code)| *code);
                assert_eq!(one.exit["code"].as_u64(), last, "the last exit code: {told}");
                exits += said.exits.len();
            }
            _ => {
                let tags: Vec<u64> = said.starts.iter().map(|(_, tag, _)| *tag).collect();
                assert!(tags.is_sorted_by(|one, next| one < next), "started twice at one revision: {told}");
                assert_eq!(tags.last(), Some(&tag), "{told}");
                replaced += tags.len() - 1;
            }
        }
        assert_eq!(said.starts.last().map(|(_, _, pid)| *pid), one.pid, "{told}");
    }
    eprintln!("{exits} exits, {replaced} replacements");
    assert!(exits > 0 && replaced > 0, "nothing happened");
    let alive: BTreeSet<i32> = all.iter().map(Instance::pid).collect();
    let started = all.iter().flat_map(|one| Stamps::read(&stamps, &one.name).starts);
    let orphans: Vec<i32> = started.map(|(_, _, pid)| pid).filter(|pid| lives(*pid) && !alive.contains(pid)).collect();
    assert_eq!(orphans, [0; 0], "left behind");
    for service in ["steady", "crashing", "redeployed"] {
        no_line_is_lost(node, service, &stamps);
    }
}

/// Each run's lines are all there, in order, once.
fn no_line_is_lost(node: &Node, service: &str, folder: &Path) {
    // What was said by now is in the log by the time that it is asked for: the keeper reads it as soon as it can.
    let said = |instance: &Instance| Stamps::read(folder, &instance.name).lines;
    let said: BTreeMap<String, u64> = node.instances(service).iter().flat_map(said).collect();
    eventually(&format!("every line of {service}"), || {
        let mut kept: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in node.ok(&["logs", "--raw", "--app", service]).lines() {
            let line: Value = serde_json::from_str(line).expect("JSON on each line");
            let n = text(&line["message"]).parse().unwrap_or_else(|_| panic!("a line that nobody wrote: {line}"));
            kept.entry(text(&line["run_id"])).or_default().push(n);
        }
        for (run, lines) in &kept {
            let expected: Vec<u64> = (1..=lines.len() as u64).collect();
            assert_eq!(*lines, expected, "lines of run {run} of {service} are missing, double or out of order");
        }
        said.iter().all(|(run, n)| kept.get(run).is_some_and(|lines| lines.len() as u64 >= *n)).then_some(())
    });
}
