//! How instances are looked after: what follows an exit, how they are stopped, and what a dead keeper costs.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Instance, Node, eventually, stays};
use crate::host::lives;

/// The only instance of a service, once `wanted` says yes to it.
fn instance(node: &Node, service: &str, what: &str, wanted: impl Fn(&Instance) -> bool) -> Instance {
    eventually(&format!("{service} {what}"), || node.instances(service).pop().filter(&wanted))
}

/// Deploys one instance of a script, with these lines in its specification.
fn deploy(cluster: &Cluster, service: &str, spec: &str, script: &str, words: &[&str]) -> crate::cluster::Answer {
    let program = cluster.script(service, script);
    let spec = cluster.file("spec.yaml", format!("name: {service}\ntag: v1\n{spec}\n"));
    cluster[0].run(&[&["deploy", "--config", &spec, &program], words].concat())
}

#[test]
fn a_policy_decides_what_follows_an_exit() {
    let mut cluster = Cluster::start(1);
    let well = deploy(&cluster, "well", "restart: never", "echo done", &["--wait"]);
    well.done();
    let ill = deploy(&cluster, "ill", "restart: never", "exit 3", &["--wait"]);
    ill.refused(1, &["`ill-0` on node `n1` is finished: exited with code 3"]);
    // Fails twice, and then ends as it should.
    let script = "echo >> ../tries; test $(wc -l < ../tries) -ge 3 || exit 4";
    let counted = cluster.dir().join("tries");
    let script = script.replace("../tries", counted.to_str().unwrap());
    deploy(&cluster, "tried", "restart: on-failure", &script, &["--wait"]).done();

    let node = &cluster[0];
    let seen = |node: &Node, service: &str| {
        let one = instance(node, service, "to have finished", |one| one.state == "finished");
        (one.ready, one.restarts, one.exit["code"].clone(), one.run)
    };
    let all = ["well", "ill", "tried"].map(|service| seen(node, service));
    let [(true, 0, well_code, _), (false, 0, ill_code, _), (true, 2, tried_code, _)] = &all else { panic!("{all:?}") };
    assert_eq!([well_code, ill_code, tried_code], [0, 3, 0]);
    let status = node.json(&["status"]);
    let short = |service: &serde_json::Value| service["ready"].as_u64() < service["desired"].as_u64();
    let services = status["services"].as_array().unwrap();
    assert_eq!(services.iter().filter(|one| short(one)).map(|one| &one["service"]).collect::<Vec<_>>(), ["ill"]);
    assert!(status["problems"].to_string().contains("exited with code 3"), "{status:#}");
    let why = node.ok(&["why", "ill"]);
    assert!(why.contains("has failed, and its restart policy is `never`: exited with code 3"), "{why}");

    // Not the node's restart starts them again, only their user's.
    for gentle in [false, true] {
        if gentle {
            cluster[0].signal(libc::SIGTERM);
            cluster[0].ends();
        } else {
            cluster[0].crash();
        }
        cluster[0].start();
        let node = &cluster[0];
        let same = || ["well", "ill", "tried"].map(|service| seen(node, service)) == all;
        stays("finished, all the same runs", Duration::from_secs(1), same);
    }
    let node = &cluster[0];
    node.ok(&["service", "restart", "well", "--wait"]);
    assert_ne!(seen(node, "well").3, all[0].3, "a restart runs it again");
    node.run(&["service", "start", "well"]).done();
    node.run(&["service", "start", "ill", "--wait"]).refused(1, &["exited with code 3"]);
    assert_ne!(seen(node, "ill").3, all[1].3, "and a start what has failed");

    // Another policy holds at once, for what has ended long ago too.
    let program = cluster.script("well", "echo done");
    let before = seen(node, "well").3;
    let spec = cluster.file("spec.yaml", "name: well\ntag: v1\nrestart: always\n");
    let same_binary = node.json(&["service", "info", "well"])["revision"]["images"][0]["hash"].clone();
    node.ok(&["deploy", "--config", &spec, &program]);
    assert_eq!(node.json(&["service", "info", "well"])["revision"]["images"][0]["hash"], same_binary);
    instance(node, "well", "to run again", |one| one.run != before && !one.run.is_empty());
}

#[test]
fn a_crash_loop_is_ended_by_restart_and_by_start() {
    let mut cluster = Cluster::start(1);
    let switch = cluster.dir().join("switch");
    let script = format!("test -e {} || exit 3\nexec sleep 600", switch.display());
    deploy(&cluster, "fickle", "replicas: 1", &script, &["--wait"]).refused(1, &["crash-loop: exited with code 3"]);
    let given_up = |node: &Node| instance(node, "fickle", "to be given up", |one| one.state == "crash-loop");
    let first = given_up(&cluster[0]);
    assert_eq!(first.restarts, 5);
    let why = cluster[0].ok(&["why", "fickle-0"]);
    assert!(why.contains("was given up after 5 restarts: exited with code 3"), "{why}");

    // A restart of the node is not its user's word.
    cluster[0].crash();
    cluster[0].start();
    let node = &cluster[0];
    stays("given up", Duration::from_secs(1), || given_up(node).run == first.run);

    for verb in ["restart", "start"] {
        let before = given_up(node);
        node.run(&["service", verb, "fickle", "--wait"]).refused(1, &["exited with code 3"]);
        let after = given_up(node);
        assert_ne!(after.run, before.run, "`service {verb}` tries it again");
    }
    fs::write(&switch, "").unwrap();
    node.ok(&["service", "restart", "fickle", "--wait"]);
    assert!(node.ok(&["status"]).contains("Nothing is wrong"));
    assert!(node.ok(&["why", "fickle"]).starts_with("fickle: 1 of 1 instance ready"));
}

#[test]
fn an_instance_is_stopped_in_its_own_way() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let script = "trap '' TERM; trap 'echo told; exit 0' INT; echo set; while :; do sleep 0.05; done";
    let stop = |service: &str| {
        let pid = node.running(service, 1)[0].pid();
        eventually("the traps", || node.messages(&["--app", service]).contains(&"set".to_owned()).then_some(()));
        let begun = Instant::now();
        node.ok(&["service", "stop", service, "--wait"]);
        assert!(!lives(pid));
        begun.elapsed()
    };
    deploy(&cluster, "asked", "stopSignal: SIGINT\nstopGraceSeconds: 60", script, &["--wait"]).done();
    assert!(stop("asked") < Duration::from_secs(30), "it was asked by the signal that it hears");
    assert!(node.messages(&["--app", "asked"]).contains(&"told".to_owned()));

    deploy(&cluster, "deaf", "stopGraceSeconds: 1", script, &["--wait"]).done();
    let took = stop("deaf");
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(9), "{took:?}");

    // No grace, and nothing of the tree is left. The change of the signal has replaced nothing.
    let tree = "(setsid sh -c '(trap \"\" TERM; echo $$ > deep; exec sleep 600) & exit 0' &)\n";
    deploy(&cluster, "killed", "stopGraceSeconds: 60", &format!("{tree}{script}"), &["--wait"]).done();
    let before = node.running("killed", 1).remove(0);
    deploy(&cluster, "killed", "stopGraceSeconds: 60\nstopSignal: KILL", &format!("{tree}{script}"), &["--wait"])
        .done();
    let after = node.running("killed", 1).remove(0);
    assert_eq!((after.pid(), &after.run), (before.pid(), &before.run));
    assert!(stop("killed") < Duration::from_secs(30), "it is not asked first");
    assert_eq!(node.messages(&["--app", "killed", "--grep", "told"]), [""; 0]);
}

#[test]
fn the_end_of_a_node_is_each_instances_own() {
    let mut cluster = Cluster::start(1);
    let told = cluster.dir().join("told");
    let script =
        format!("trap 'echo told > {}; exit 0' INT; trap '' TERM; while :; do sleep 0.05; done", told.display());
    deploy(&cluster, "asked", "stopSignal: SIGINT\nstopGraceSeconds: 60", &script, &["--wait"]).done();
    deploy(&cluster, "deaf", "stopGraceSeconds: 1", "trap '' TERM; while :; do sleep 0.05; done", &["--wait"]).done();
    let pids: Vec<i32> = ["asked", "deaf"].iter().map(|service| cluster[0].running(service, 1)[0].pid()).collect();
    let begun = Instant::now();
    cluster[0].signal(libc::SIGINT);
    cluster[0].ends();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(told.exists() && !pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_dead_keeper_leaves_no_orphan_and_all_are_started_again() {
    const COUNT: usize = 50;
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let stamps = cluster.dir().join("stamps");
    // Each with a descendant in a session of its own: what the first process's parent-death signal does not reach.
    let script = format!(
        "echo $$ >> {0}\nsetsid sh -c 'echo $$ >> {0}; trap \"\" TERM HUP; exec sleep 600' &\nexec sleep 600",
        stamps.display()
    );
    deploy(&cluster, "many", &format!("replicas: {COUNT}"), &script, &["--wait"]).done();
    let before = node.running("many", COUNT);
    let numbers = |count: usize| {
        eventually("numbers of all processes", || {
            let text = fs::read_to_string(&stamps).ok()?;
            let numbers: BTreeSet<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            (numbers.len() >= count).then_some(numbers)
        })
    };
    let old = numbers(2 * COUNT);
    let keeper = node.keeper_pid().expect("a keeper");
    // SAFETY: the keeper of this test's node.
    unsafe { libc::kill(keeper, libc::SIGKILL) };
    let after = eventually("all to be started again", || {
        let now = node.instances("many");
        let again = now.iter().filter(|one| one.runs() && one.restarts == 1).count();
        (now.len() == COUNT && again == COUNT).then_some(now)
    });
    let runs = |instances: &[Instance]| instances.iter().map(|one| one.run.clone()).collect::<BTreeSet<_>>();
    assert!(runs(&before).is_disjoint(&runs(&after)));
    assert_eq!(old.iter().filter(|pid| lives(**pid)).count(), 0, "nothing of what the keeper held is left");
    let new = numbers(4 * COUNT);
    assert_eq!(new.iter().filter(|pid| lives(**pid)).count(), 2 * COUNT, "and nothing was started twice");
    assert_ne!(node.keeper_pid(), Some(keeper));
    eventually("all to be well", || node.ok(&["status"]).contains("Nothing is wrong").then_some(()));
}

#[test]
fn what_fell_over_for_the_first_time_is_back_at_once() {
    let cluster = Cluster::start(1);
    let stamps = cluster.dir().join("stamps");
    // By the program's own clock: when it fell, and when it ran again.
    let script = format!(
        "date +%s%N >> {0}\ntest $(wc -l < {0}) -ge 3 && exec sleep 600\nsleep 1\ndate +%s%N >> {0}\nexit 1",
        stamps.display()
    );
    deploy(&cluster, "falls", "replicas: 1", &script, &[]).done();
    let moments: Vec<u64> = eventually("three moments", || {
        let text = fs::read_to_string(&stamps).ok()?;
        let moments: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (moments.len() == 3).then_some(moments)
    });
    let away = Duration::from_nanos(moments[2] - moments[1]);
    eprintln!(
        "away for {:.0} ms, of which 80 to 120 ms are the pause before the first restart",
        away.as_secs_f64() * 1e3
    );
    assert!(away >= Duration::from_millis(80), "no pause at all: {away:?}");
    // The bar of 120 ms is for a release build on a quiet machine; this says that nothing waits for a timer of its own.
    assert!(away < Duration::from_secs(2), "{away:?}");
}
