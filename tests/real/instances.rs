//! Instances of programs that nobody here wrote: that they run as asked, go on, come back, move, and end.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::cluster::{Cluster, Instance, Node, eventually, free_port, http_get, program, stays};
use crate::host::lives;
use crate::skip::skip;

/// The process numbers of instances.
fn pids(instances: &[Instance]) -> Vec<i32> {
    instances.iter().map(Instance::pid).collect()
}

/// Waits until an instance's file has this many lines; gives them as numbers.
fn numbers(node: &Node, instance: &str, count: usize) -> Vec<i32> {
    let instance = instance.rsplit_once('-').expect("a name and an index");
    let id = narun::ids::InstanceId {
        service: narun::ids::ServiceName::new(instance.0).unwrap(),
        index: instance.1.parse().unwrap(),
    };
    let path = node.layout.work_dir(&id).join("pids");
    eventually("process numbers in a file", || {
        let text = fs::read_to_string(&path).ok()?;
        let numbers: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (numbers.len() >= count).then_some(numbers)
    })
}

fn kill(pid: i32) {
    // SAFETY: an instance that this test has asked for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[test]
fn busybox_serves_pages_and_runs_scripts() {
    let Some(busybox) = program("busybox") else {
        return skip("busybox_serves_pages_and_runs_scripts", "no busybox is installed (package busybox-static)");
    };
    let cluster = Cluster::start(2);
    let page = cluster.file("index.html", "hello from busybox\n");
    let home = std::path::Path::new(&page).parent().unwrap().to_str().unwrap();
    let port = free_port().to_string();
    let mut words = vec!["deploy", "--name", "busybox-web", "--tag", "v1", "--node", "n2", &busybox, "--wait"];
    for argument in ["httpd", "-f", "-v", "-p", &port, "-h", home] {
        words.extend(["--arg", argument]);
    }
    cluster[0].ok(&words);
    let port = port.parse().unwrap();
    assert_eq!(eventually("a page", || http_get(port, "/index.html")), "hello from busybox\n");
    assert_eq!(cluster[0].running("busybox-web", 1)[0].node, "n2");

    // The environment is what is documented, and nothing else.
    let script = "env | sort; pwd; stat -c %a .; echo \"$#:$1:$2\"; exec sleep 600";
    let words = [
        "deploy",
        "--name",
        "busybox-sh",
        "--tag",
        "v1",
        "--node",
        "n1",
        "--wait",
        "--env",
        "GREETING=hello you",
        "--env",
        "EMPTY=",
        "--env",
        "LANG=de_DE.UTF-8",
        "--arg",
        "sh",
        "--arg",
        "-c",
        "--arg",
        script,
        "--arg",
        "zero",
        "--arg",
        "one two",
        "--arg",
        "",
        &busybox,
    ];
    cluster[0].ok(&words);
    let instance = &cluster[1].running("busybox-sh", 1)[0];
    let lines = eventually("its output", || {
        let lines = cluster[1].messages(&["--app", "busybox-sh", "--stream", "stdout"]);
        lines.iter().any(|line| line.starts_with("2:")).then_some(lines)
    });
    let work_dir = cluster[0]
        .layout
        .work_dir(&narun::ids::InstanceId { service: narun::ids::ServiceName::new("busybox-sh").unwrap(), index: 0 });
    let work_dir = work_dir.to_str().unwrap();
    let user = lines.iter().find(|line| line.starts_with("USER=")).expect("a user").clone();
    let path = lines.iter().find(|line| line.starts_with("PATH=/")).expect("a path").clone();
    let mut expected = vec![
        "EMPTY=".to_owned(),
        "GREETING=hello you".to_owned(),
        format!("HOME={work_dir}"),
        "LANG=de_DE.UTF-8".to_owned(),
        "NARUN_APP_NAME=busybox-sh".to_owned(),
        "NARUN_INSTANCE_ID=busybox-sh-0".to_owned(),
        format!("NARUN_INSTANCE_ROOT={work_dir}"),
        "NARUN_NODE_ARCH=amd64".to_owned(),
        "NARUN_NODE_ID=n1".to_owned(),
        "NARUN_NODE_OS=linux".to_owned(),
        "NARUN_REPLICA_INDEX=0".to_owned(),
        format!("NARUN_RUN_ID={}", instance.run),
        path,
        format!("TMPDIR={work_dir}"),
        user,
    ];
    expected.extend([work_dir, "700", "2:one two:"].map(str::to_owned));
    // The shell itself sets these, whatever it is given.
    let own = |line: &&String| ["PWD=", "SHLVL=", "OLDPWD=", "_="].iter().any(|name| line.starts_with(name));
    let lines: Vec<_> = lines.iter().filter(|line| !own(line)).cloned().collect();
    assert_eq!(lines, expected);
}

#[test]
fn redis_answers() {
    let Some(redis) = program("redis-server") else {
        return skip("redis_answers", "no redis is installed (package redis-server)");
    };
    let cluster = Cluster::start(1);
    let port = free_port().to_string();
    let mut words = vec!["deploy", "--name", "redis", "--tag", "v7", &redis, "--wait"];
    for argument in ["--port", &port, "--bind", "127.0.0.1", "--save", ""] {
        words.extend(["--arg", argument]);
    }
    cluster[0].ok(&words);
    let ask = |request: &str| -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = [0; 256];
        let len = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..len]).into_owned())
    };
    eventually("redis to answer", || ask("PING\r\n").filter(|answer| answer == "+PONG\r\n"));
    assert_eq!(ask("SET here yes\r\n").as_deref(), Some("+OK\r\n"));
    // It is told to end, and ends by itself.
    cluster[0].ok(&["service", "stop", "redis", "--wait"]);
    assert_eq!(ask("PING\r\n"), None);
    let log = cluster[0].messages(&["--app", "redis"]).join("\n");
    assert!(log.contains("bye bye"), "{log}");
}

#[test]
fn python_runs_under_command() {
    if program("python3").is_none() || fs::metadata("/usr/bin/python3").is_err() {
        return skip("python_runs_under_command", "no python3 in /usr/bin (package python3)");
    }
    let cluster = Cluster::start(1);
    let port = free_port();
    let script = cluster.file(
        "server.py",
        "#!/usr/bin/python3\nimport http.server, sys\n\
         http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')\n",
    );
    let spec =
        cluster.file("spec.yaml", format!("name: files\ntag: v1\ncommand: python3\nargs: [\"{port}\"]\nreplicas: 1\n"));
    cluster[0].ok(&["deploy", "--config", &spec, &script, "--wait"]);
    let listing = eventually("a listing", || http_get(port, "/"));
    assert!(listing.contains("Directory listing"), "{listing}");
}

#[test]
fn what_falls_over_comes_back() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    node.ok(&["deploy", "--name", "some", "--tag", "v1", &cluster.sleeper(), "--wait"]);
    let first = node.running("some", 1).remove(0);
    kill(first.pid());
    let second = eventually("another start", || {
        node.instances("some").pop().filter(|next| next.runs() && next.run != first.run)
    });
    assert_eq!((second.restarts, &second.exit["signal"]), (1, &9.into()), "{second:?}");

    // What cannot stay up is given up after a while; what it lacked is put right, and it is tried again.
    let switch = cluster.dir().join("switch");
    let program = cluster.script("fickle", &format!("test -e {} || exit 3\nexec sleep 600", switch.display()));
    node.ok(&["deploy", "--name", "fickle", "--tag", "v1", &program]);
    let given_up = eventually("it to be given up", || {
        let instance = node.instances("fickle").pop()?;
        (instance.restarts >= 5 && instance.pid.is_none() && !instance.error.is_empty()).then_some(instance)
    });
    assert!(given_up.error.contains('3'), "the exit code is told: {given_up:?}");
    assert_eq!(given_up.exit["code"], 3);
    let status = node.ok(&["status"]);
    assert!(status.contains("Problems") && status.contains("fickle"), "{status}");
    fs::write(&switch, "").unwrap();
    node.ok(&["service", "start", "fickle", "--wait"]);
    node.running("fickle", 1);
    eventually("all to be well", || node.ok(&["status"]).contains("Nothing is wrong").then_some(()));
}

#[test]
fn scale_stop_restart_delete_and_replace() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let program = cluster.script("worker", "trap 'exit 0' TERM\nwhile :; do sleep 0.1; done");
    node.ok(&["deploy", "--name", "work", "--tag", "v1", "--replicas", "3", &program, "--wait"]);
    let three = pids(&node.running("work", 3));

    // Down, the highest first, and up: who stays is not disturbed.
    node.ok(&["service", "scale", "work", "2", "--wait"]);
    eventually("two", || (node.instances("work").len() == 2).then_some(()));
    assert_eq!(pids(&node.running("work", 2)), three[..2]);
    assert!(!lives(three[2]));
    node.ok(&["service", "scale", "work", "4", "--wait"]);
    let four = node.running("work", 4);
    assert_eq!(pids(&four)[..2], three[..2]);
    assert_eq!(four.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["work-0", "work-1", "work-2", "work-3"]);
    node.ok(&["service", "scale", "work", "3", "--wait"]);
    let before = node.running("work", 3);

    // Restart and a new revision replace one index at a time, in order: never are two of them away.
    for (words, tag) in [
        (vec!["service", "restart", "work"], "v1"),
        (vec!["deploy", "--name", "work", "--tag", "v2", "--replicas", "3", "--env", "NEW=1", &program], "v2"),
    ] {
        let before: BTreeSet<String> = node.running("work", 3).into_iter().map(|instance| instance.run).collect();
        node.ok(&words);
        let mut fewest = 3;
        eventually("all to be replaced", || {
            let now = node.instances("work");
            // Looked at by what the kernel says: what the node says may be a moment old.
            let up = now.iter().filter(|instance| instance.runs()).count();
            fewest = fewest.min(up);
            let new = now.iter().filter(|i| !before.contains(&i.run) && i.runs() && i.ready && i.current).count();
            let fresh: Vec<_> = now.iter().map(|i| !before.contains(&i.run)).collect();
            assert!(fresh.is_sorted_by(|a, b| a >= b), "out of order: {now:#?}");
            (new == 3).then_some(())
        });
        assert!(fewest >= 2, "{fewest} of 3 ran");
        assert_eq!(node.json(&["service", "info", "work"])["revision"]["tag"], tag);
    }
    assert!(before.iter().all(|instance| !lives(instance.pid())));

    // Stopped, and started.
    let running = pids(&node.running("work", 3));
    node.ok(&["service", "stop", "work", "--wait"]);
    assert!(running.iter().all(|pid| !lives(*pid)));
    node.run(&["service", "restart", "work"]).refused(1, &["`work` is stopped"]);
    assert!(node.ok(&["service", "list"]).contains("0 (stopped)"));
    node.ok(&["service", "start", "work", "--wait"]);
    let running = pids(&node.running("work", 3));

    // Deleted: asked about where nobody can say yes, and no failure the second time.
    node.run(&["service", "delete", "work"]).refused(1, &["-y"]);
    assert_eq!(pids(&node.running("work", 3)), running);
    node.ok(&["service", "delete", "work", "-y"]);
    eventually("the end of all", || running.iter().all(|pid| !lives(*pid)).then_some(()));
    let again = node.run(&["service", "delete", "work", "-y"]);
    assert!(again.stderr.contains("no service `work`"), "{again:?}");
    assert_eq!(again.done(), "");
}

#[test]
fn nothing_that_was_forked_survives_a_stop() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let program = cluster.script(
        "runaways",
        r#"
        export ME='read pid rest < /proc/self/stat; echo $pid >> pids'
        eval "$ME"
        setsid sh -c 'eval "$ME"; trap "" TERM HUP; while :; do sleep 1; done' &
        (setsid sh -c '(eval "$ME"; exec sleep 600) & exit 0' &)
        wait
        exec sleep 600"#,
    );
    node.ok(&["deploy", "--name", "runaways", "--tag", "v1", &program, "--wait"]);
    let all = numbers(node, "runaways-0", 3);
    assert!(all.iter().all(|pid| lives(*pid)));
    node.ok(&["service", "stop", "runaways", "--wait", "--timeout", "40s"]);
    assert_eq!(all.iter().filter(|pid| lives(**pid)).count(), 0);
    // And nothing when the first process ends by itself.
    node.ok(&["service", "start", "runaways", "--wait"]);
    let all = numbers(node, "runaways-0", 6).split_off(3);
    kill(node.running("runaways", 1)[0].pid());
    eventually("all of them to be gone", || all.iter().all(|pid| !lives(*pid)).then_some(()));
}

#[test]
fn instances_outlive_their_node_process() {
    let mut cluster = Cluster::start(1);
    let program = cluster.script("ticks", "n=0\nwhile :; do n=$((n+1)); echo $n; sleep 0.02; done");
    cluster[0].ok(&["deploy", "--name", "ticks", "--tag", "v1", &program, "--wait"]);
    let ends = cluster.dir().join("end");
    let program = cluster.script(
        "ends",
        &format!(
            "test -e {0}.told && exec sleep 600\nuntil test -e {0}; do sleep 0.05; done\n: > {0}.told\nexit 42",
            ends.display()
        ),
    );
    cluster[0].ok(&["deploy", "--name", "ends", "--tag", "v1", &program, "--wait"]);
    let ticks = cluster[0].running("ticks", 1).remove(0);
    let ending = cluster[0].running("ends", 1).remove(0);
    for gentle in [false, true] {
        if gentle {
            cluster[0].signal(libc::SIGTERM);
            cluster[0].ends();
        } else {
            cluster[0].crash();
        }
        assert!(lives(ticks.pid()));
        if !gentle {
            // One ends in the gap, when nobody but the keeper is there.
            fs::write(&ends, "").unwrap();
            eventually("an end in the gap", || (!lives(ending.pid())).then_some(()));
        }
        cluster[0].start();
        let again = cluster[0].running("ticks", 1).remove(0);
        assert_eq!((again.pid(), &again.run, again.restarts), (ticks.pid(), &ticks.run, 0));
        let restarted = cluster[0].running("ends", 1).remove(0);
        let told = format!("gentle: {gentle}, {restarted:?}");
        assert_eq!((&restarted.exit["code"], restarted.restarts), (&42.into(), 1), "{told}");
        assert_ne!(restarted.run, ending.run);
    }
    // Nothing of the output is missing or there twice.
    let messages = cluster[0].messages(&["--app", "ticks"]);
    let expected: Vec<_> = (1..=messages.len()).map(|n| n.to_string()).collect();
    assert_eq!(messages, expected);
}

#[test]
fn what_a_dead_host_ran_is_run_elsewhere() {
    let mut cluster = Cluster::start(3);
    let sleeper = cluster.sleeper();
    cluster[0].ok(&["deploy", "--name", "pinned", "--tag", "v1", "--node", "n3", &sleeper, "--wait"]);
    let spec = cluster.file("spec.yaml", "name: free\ntag: v1\nreplicas: 3\n");
    cluster[0].ok(&["deploy", "--config", &spec, &sleeper, "--wait"]);
    let before = cluster[0].running("free", 3);
    let pinned = cluster[0].running("pinned", 1)[0].pid();
    cluster[2].die();
    assert!(!lives(pinned) && before.iter().filter(|i| i.node == "n3").all(|i| !lives(i.pid())));

    // Seen as down within seconds, moved a grace later.
    let moved = eventually("three on two nodes", || {
        let mut alive = cluster[0].instances("free");
        alive.retain(|instance| instance.node != "n3" && instance.runs());
        (alive.len() == 3).then_some(alive)
    });
    for stayed in before.iter().filter(|instance| instance.node != "n3") {
        assert!(moved.iter().any(|instance| instance.pid() == stayed.pid()), "{stayed:?} was disturbed");
    }
    // Each node finds out by itself, another one perhaps a little later.
    eventually("what was named stays there, on a node that is down", || {
        let list = cluster[1].json(&["service", "list"]);
        let row = list.as_array()?.iter().find(|row| row["service"] == "pinned")?;
        (row["node"] == "n3" && row["node_status"] == "down").then_some(())
    });
    assert!(cluster[1].ok(&["status"]).contains("n3"));

    // The host comes back: what was named runs there again, and nothing runs twice.
    cluster[2].start();
    cluster.settled();
    let back = cluster[0].running("pinned", 1);
    assert_eq!(back[0].node, "n3");
    let all = cluster[2].running("free", 3);
    let indices: BTreeSet<_> = all.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(indices.len(), 3, "{all:#?}");
    let runs = pids(&all);
    stays("three at their places", Duration::from_secs(2), || pids(&cluster[1].running("free", 3)) == runs);
}
