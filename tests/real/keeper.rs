//! The keeper with real processes: what the node can rely on, whatever the programs do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use narun::exec::keeper::{LOCK_NAME, sweep_leftovers};
use narun::exec::logs::{LogLine, LogReader, Stream};
use narun::exec::plan::ProcessEvent;
use narun::node::shells::Processes;

use crate::host::{self, Host, eventually, lives};
use crate::skip::skip;

/// The lines of a file that an instance writes to, once there are `count`.
async fn pids(path: &std::path::Path, count: usize) -> Vec<i32> {
    eventually("process numbers in a file", || {
        let text = fs::read_to_string(path).ok()?;
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() >= count).then_some(pids)
    })
    .await
}

/// A script whose descendants try to get away: in a session of their own, orphaned, deaf to signals; each writes its number to
/// `pids` in its working directory. The number is that of /proc, which a PID namespace of its own does not change.
const RUNAWAYS: &str = r#"
    export ME='read pid rest < /proc/self/stat; echo $pid >> pids'
    eval "$ME"
    sh -c 'eval "$ME"; trap "" TERM HUP INT; (eval "$ME"; sleep 600) & wait' &
    setsid sh -c 'eval "$ME"; sleep 600' &
    (setsid sh -c '(trap "" TERM; eval "$ME"; sleep 600) & exit 0' &)
"#;

/// How many process numbers [`RUNAWAYS`] writes.
const RUNAWAYS_COUNT: usize = 5;

#[tokio::test]
async fn exit_codes_and_signals_are_reported_exactly() {
    let mut host = Host::new();
    let mut node = host.node().await;
    assert_eq!(node.held, []);
    let plan = host.script("seven", "echo out; echo err >&2; exit 7");
    assert_eq!(node.run(&plan).await, (Some(7), None));
    assert_eq!(host.text(&plan, Stream::Stdout), ["out"]);
    assert_eq!(host.text(&plan, Stream::Stderr), ["err"]);
    let plan = host.script("fine", "exit 0");
    assert_eq!(node.run(&plan).await, (Some(0), None));
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGRTMIN() + 3] {
        let plan = host.script("dies", &format!("kill -{signal} $$; sleep 60"));
        assert_eq!(node.run(&plan).await, (None, Some(signal)), "signal {signal}");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_first_process_alone() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("polite", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    node.launch(&plan).await;
    eventually("the trap is set", || (host.text(&plan, Stream::Stdout) == ["ready"]).then_some(())).await;
    node.client.signal(plan.run, libc::SIGTERM);
    let ended = node.exit(&plan).await;
    assert_eq!((ended.code, ended.signal), (Some(3), None));
    assert_eq!(host.text(&plan, Stream::Stdout), ["ready", "bye"]);
}

#[tokio::test]
async fn killing_leaves_no_descendant() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("runaway", &format!("{RUNAWAYS}\nsleep 600"));
    node.launch(&plan).await;
    let pids = pids(&plan.work_dir.join("pids"), RUNAWAYS_COUNT).await;
    assert!(pids.iter().all(|pid| lives(*pid)), "{pids:?}");
    node.client.kill(plan.run);
    let ended = node.exit(&plan).await;
    assert_eq!((ended.code, ended.signal), (None, Some(libc::SIGKILL)));
    // Not later: the exit was reported after the last of them.
    assert_eq!(pids.iter().filter(|pid| lives(**pid)).count(), 0);
}

#[tokio::test]
async fn a_natural_exit_leaves_no_descendant_either() {
    let mut host = Host::new();
    let mut node = host.node().await;
    // It ends once all have written their numbers.
    let wait = format!("while [ $(wc -l < pids) -lt {RUNAWAYS_COUNT} ]; do sleep 0.02; done; exit 5");
    let plan = host.script("runaway", &format!("{RUNAWAYS}\n{wait}"));
    assert_eq!(node.run(&plan).await, (Some(5), None));
    let pids = pids(&plan.work_dir.join("pids"), RUNAWAYS_COUNT).await;
    assert_eq!(pids.iter().filter(|pid| lives(**pid)).count(), 0);
}

#[tokio::test]
async fn instances_exits_and_output_outlive_the_node() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let stays = host
        .script("stays", "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; while :; do sleep 0.05; done");
    let ends = host.script("ends", "while [ ! -e go ]; do sleep 0.02; done; echo in the gap; exit 9");
    let (stays_pid, ends_pid) = (node.launch(&stays).await, node.launch(&ends).await);
    node.vanish().await;

    fs::write(stays.work_dir.join("go"), "").unwrap();
    fs::write(ends.work_dir.join("go"), "").unwrap();
    eventually("the program to end", || (!lives(ends_pid)).then_some(())).await;
    eventually("output while no node is there", || (host.text(&stays, Stream::Stdout) == ["one", "two"]).then_some(()))
        .await;

    let mut node = host.node().await;
    assert_eq!(node.held.len(), 2, "{:#?}", node.held);
    let found = |plan: &narun::exec::plan::LaunchPlan| node.held.iter().find(|kept| kept.plan == *plan).cloned();
    let (found_stays, found_ends) = (found(&stays).unwrap(), found(&ends).unwrap());
    assert_eq!((found_stays.pid.cast_signed(), found_stays.ended), (stays_pid, None));
    // Its process had ended; the keeper may have been about to see to what that leaves.
    let ended = match found_ends.ended {
        Some(ended) => ended,
        None => node.exit(&ends).await,
    };
    assert_eq!((ended.code, ended.signal), (Some(9), None));
    assert_eq!(host.text(&ends, Stream::Stdout), ["in the gap"]);

    // Until it is acknowledged, and no longer.
    node.client.acknowledge(ends.run);
    node.client.acknowledge(stays.run);
    let other = host.script("other", "exit 0");
    node.run(&other).await;
    node.vanish().await;
    let node = host.node().await;
    let runs: Vec<_> = node.held.iter().map(|kept| kept.plan.run).collect();
    assert_eq!(runs, [stays.run, other.run], "a running instance cannot be acknowledged away");
}

#[tokio::test]
async fn a_run_is_started_once_however_often_it_is_asked_for() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("once", "echo started; while [ ! -e go ]; do sleep 0.02; done");
    let pid = node.launch(&plan).await;
    node.client.launch(plan.clone());
    node.client.launch(plan.clone());
    fs::write(plan.work_dir.join("go"), "").unwrap();
    node.exit(&plan).await;
    node.client.launch(plan.clone());
    let other = host.script("other", "exit 0");
    node.run(&other).await;
    let answers = node.count(|event| matches!(event, ProcessEvent::Launched { run, pid: of, .. } if *run == plan.run && of.cast_signed() == pid));
    assert_eq!(answers, 4);
    assert_eq!(host.text(&plan, Stream::Stdout), ["started"]);
}

#[tokio::test]
async fn ten_thousand_lines_are_kept_exactly_and_in_order() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("lines", "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo line $i; done");
    assert_eq!(node.run(&plan).await, (Some(0), None));
    let lines = host.log(&plan);
    assert_eq!(lines.len(), 10_000);
    for (i, line) in (1u64..).zip(&lines) {
        assert_eq!((line.seq, &line.bytes[..], line.cut), (i, format!("line {i}").as_bytes(), false));
    }
}

#[tokio::test]
async fn output_of_any_shape_survives() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("partial", "printf 'whole\\nno newline'");
    node.run(&plan).await;
    assert_eq!(host.text(&plan, Stream::Stdout), ["whole", "no newline"]);

    let plan = host.script("binary", r"printf '\000\377\r\n\033[1mbold\n'");
    node.run(&plan).await;
    let bytes: Vec<_> = host.log(&plan).into_iter().map(|line| line.bytes).collect();
    assert_eq!(bytes, [b"\x00\xff\r".to_vec(), b"\x1b[1mbold".to_vec()]);

    let plan = host.script("long", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo after");
    node.run(&plan).await;
    let lines = host.log(&plan);
    let (last, long) = lines.split_last().unwrap();
    assert_eq!(last.bytes, b"after");
    assert_eq!(long.iter().map(|line| line.bytes.len()).sum::<usize>(), 1_000_000);
    assert_eq!(long.iter().filter(|line| !line.cut).count(), 1, "only the last piece is not cut");

    let plan = host.script("closes", "exec 1>&-; echo still here >&2; sleep 0.2; exit 4");
    assert_eq!(node.run(&plan).await, (Some(4), None));
    assert_eq!(host.text(&plan, Stream::Stderr), ["still here"]);
}

#[tokio::test]
async fn a_full_disk_costs_output_and_nothing_else() {
    if !host::is_root() {
        return skip("a_full_disk_costs_output_and_nothing_else", "only root can mount a small file system");
    }
    let mut host = Host::new();
    let (_keeper, logs) = host.start_keeper_with_small_disk("1m");
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    fs::write(logs.join("ballast"), vec![0; 400_000]).unwrap();
    let mut node = host.node().await;
    let script = "echo before; head -c 3000000 /dev/zero | tr '\\0' x; touch filled\n\
                  while [ ! -e go ]; do sleep 0.02; done; echo; echo after; exit 3";
    let plan = host.script("noisy", script);
    node.launch(&plan).await;
    // The program does not wait for the disk.
    eventually("it has written all", || plan.work_dir.join("filled").exists().then_some(())).await;
    fs::remove_file(logs.join("ballast")).unwrap();
    fs::write(plan.work_dir.join("go"), "").unwrap();
    assert_eq!(node.exit(&plan).await.code, Some(3));
    let lines = LogReader::open(&logs.join(plan.instance.to_string())).read_all().unwrap();
    let text = |line: &LogLine| String::from_utf8_lossy(&line.bytes).into_owned();
    assert_eq!(lines.first().map(text), Some("before".to_owned()));
    assert_eq!(lines.last().map(text), Some("after".to_owned()));
    // One notice, or some: a shorter chunk may have fitted in between.
    let notices = lines.iter().filter(|line| line.stream == Stream::Narun).map(text);
    let lost: usize = notices
        .map(|notice| {
            let bytes = notice.strip_suffix(" bytes of output lost: no space left on device");
            bytes.unwrap_or_else(|| panic!("{notice}")).parse::<usize>().unwrap()
        })
        .sum();
    assert!(lost > 0);
    let kept: usize = lines.iter().filter(|line| line.bytes.starts_with(b"x")).map(|line| line.bytes.len()).sum();
    assert_eq!(kept + lost, 3_000_000, "every byte is kept or counted");
}

#[tokio::test]
async fn output_that_ends_with_the_program_is_not_lost() {
    let mut host = Host::new();
    let mut node = host.node().await;
    for _ in 0..20 {
        // As much as a pipe holds, so that the program ends before the keeper has read it.
        let plan = host.script("burst", "head -c 65000 /dev/zero | tr '\\0' y; kill -9 $$");
        assert_eq!(node.run(&plan).await, (None, Some(libc::SIGKILL)));
        assert_eq!(host.text(&plan, Stream::Stdout).iter().map(String::len).sum::<usize>(), 65_000);
    }
}

#[tokio::test]
async fn a_launch_that_fails_says_at_which_step() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let root = host.layout.root().display().to_string();

    let plan = host.plan("missing", host.layout.root().join("none"));
    let error = node.launch_failing(&plan).await;
    assert_eq!(error, format!("cannot open the binary `{root}/none`: no such file or directory"));

    let binary = host.file("text", "neither this nor that");
    let plan = host.plan("text", &binary);
    let error = node.launch_failing(&plan).await;
    let what = "it is neither a program for this machine nor a script that begins with `#!`";
    assert_eq!(error, format!("cannot run `{}`: {what}", binary.display()));

    let binary = host.file("orphan", "#!/opt/no/such/python\n");
    let plan = host.plan("orphan", &binary);
    let error = node.launch_failing(&plan).await;
    let what = "its first line names the interpreter `/opt/no/such/python`, which is not there";
    assert_eq!(error, format!("cannot run `{}`: {what}", binary.display()));

    let mut plan = host.script("interpreter", "exit 0");
    plan.interpreter = Some("no-such-python3".to_owned());
    plan.env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let error = node.launch_failing(&plan).await;
    assert_eq!(error, "cannot run the interpreter `no-such-python3`: not found in PATH `/usr/bin:/bin`");
    plan.run.0[0] = 200;
    plan.interpreter = Some("/no/such/python3".to_owned());
    let error = node.launch_failing(&plan).await;
    assert_eq!(error, "cannot run the interpreter `/no/such/python3`: no such file or directory");

    let mut plan = host.script("workdir", "exit 0");
    plan.work_dir = plan.binary.join("beneath-a-file");
    let error = node.launch_failing(&plan).await;
    assert_eq!(error, format!("cannot make the working directory `{}`: not a directory", plan.work_dir.display()));

    let plan = host.script("writable", "exit 0");
    fs::set_permissions(&plan.binary, fs::Permissions::from_mode(0o777)).unwrap();
    let error = node.launch_failing(&plan).await;
    assert!(error.contains("is writable by others (mode 777)"), "{error}");

    let mut plan = host.script("log", "exit 0");
    plan.log_dir = plan.binary.join("beneath-a-file");
    let error = node.launch_failing(&plan).await;
    assert!(error.starts_with(&format!("cannot make the log folder `{}`", plan.log_dir.display())), "{error}");

    let mut plan = host.script("zero", "exit 0");
    plan.args = vec!["a\0b".to_owned()];
    assert_eq!(node.launch_failing(&plan).await, "argument 1 holds a zero byte, which no program can be given");

    // Nothing of all that is left behind.
    node.vanish().await;
    assert_eq!(host.node().await.held, []);
}

#[tokio::test]
async fn a_program_sees_its_plan_and_nothing_else() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = host.plan("clean", "/usr/bin/env");
    plan.env = vec![("NARUN_X".into(), "a=b c".into()), ("ONLY".into(), String::new())];
    assert_eq!(node.run(&plan).await, (Some(0), None));
    assert_eq!(host.text(&plan, Stream::Stdout), ["NARUN_X=a=b c", "ONLY="]);

    let script = r#"
        pwd; umask; ls /proc/self/fd | sort | tr '\n' ' '; echo
        readlink /proc/self/fd/0
        grep -E '^(SigBlk|SigIgn|NoNewPrivs):' /proc/self/status | tr '\t' ' '
        ulimit -n
        read pid name state parent group session rest < /proc/self/stat; [ $session = $pid ] && echo session
        for a in "$@"; do echo "[$a]"; done
    "#;
    let mut plan = host.script("tidy", script);
    plan.args = vec!["one".into(), String::new(), "two words".into()];
    node.run(&plan).await;
    let lines = host.text(&plan, Stream::Stdout);
    // `ls` itself opens the folder as descriptor 3.
    let limit =
        String::from_utf8(std::process::Command::new("sh").args(["-c", "ulimit -n"]).output().unwrap().stdout).unwrap();
    let mut expected: Vec<String> = vec![plan.work_dir.display().to_string()];
    expected.extend(["0022", "0 1 2 3 ", "/dev/null"].map(str::to_owned));
    expected.extend(["SigBlk: 0000000000000000", "SigIgn: 0000000000000000", "NoNewPrivs: 1"].map(str::to_owned));
    expected.extend([limit.trim().to_owned(), "session".to_owned()]);
    expected.extend(["[one]", "[]", "[two words]"].map(str::to_owned));
    assert_eq!(lines, expected);
    assert_eq!(fs::metadata(&plan.work_dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn an_interpreter_gets_the_binary_and_the_arguments() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let binary = host.file("program", "import sys; print(sys.argv[1:], flush=True); sys.exit(6)");
    let mut plan = host.plan("python", &binary);
    plan.interpreter = Some("python3".to_owned());
    plan.args = vec!["-x".into(), "y".into()];
    assert_eq!(node.run(&plan).await, (Some(6), None), "{:?}", host.log(&plan));
    assert_eq!(host.text(&plan, Stream::Stdout), ["['-x', 'y']"]);
}

#[tokio::test]
async fn a_large_environment_crosses_to_the_keeper_and_back() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = host.script("large", "echo ${#BIG0} ${#BIG11}; while :; do sleep 0.05; done");
    plan.env.extend((0..12).map(|i| (format!("BIG{i}"), "v".repeat(100_000))));
    node.launch(&plan).await;
    eventually("its output", || (host.text(&plan, Stream::Stdout) == ["100000 100000"]).then_some(())).await;
    node.vanish().await;
    let node = host.node().await;
    assert_eq!(node.held.len(), 1);
    assert!(node.held[0].plan == plan, "the plan came back as it was");
}

#[tokio::test]
async fn many_instances_are_found_again() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let binary = host.file("many", "#!/bin/sh\nexec sleep 600\n");
    let mut plans = Vec::new();
    for i in 0..60 {
        let plan = host.plan(&format!("many-{i}"), &binary);
        node.client.launch(plan.clone());
        plans.push(plan);
    }
    for plan in &plans {
        node.when(|event| matches!(event, ProcessEvent::Launched { run, .. } if *run == plan.run).then_some(())).await;
    }
    node.vanish().await;
    let node = host.node().await;
    assert_eq!(node.held.len(), 60);
    node.client.shutdown(Duration::from_secs(5)).await;
    assert!(node.held.iter().all(|kept| !lives(kept.pid.cast_signed())));
}

#[tokio::test]
async fn shutdown_ends_everything_politely_first() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let polite = host.script("polite", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
    let deaf = host.script("deaf", &format!("trap '' TERM\n{RUNAWAYS}\necho ready; while :; do sleep 0.02; done"));
    node.launch(&polite).await;
    node.launch(&deaf).await;
    let pids = pids(&deaf.work_dir.join("pids"), RUNAWAYS_COUNT).await;
    for plan in [&polite, &deaf] {
        eventually("the trap is set", || (host.text(plan, Stream::Stdout) == ["ready"]).then_some(())).await;
    }
    let keeper = host.keeper_pid().unwrap();
    let begun = Instant::now();
    node.client.shutdown(Duration::from_millis(500)).await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "the deaf one got its grace");
    eventually("the keeper's process to be gone", || (!lives(keeper)).then_some(())).await;
    assert_eq!(pids.iter().filter(|pid| lives(**pid)).count(), 0);
    assert_eq!(host.text(&polite, Stream::Stdout), ["ready", "bye"]);
    assert_eq!(node.exit(&polite).await.code, Some(0));
    assert_eq!(node.exit(&deaf).await.signal, Some(libc::SIGKILL));
    assert!(!host.layout.keeper_socket().exists());
    // The next one begins with nothing.
    assert_eq!(host.node().await.held, []);
}

#[tokio::test]
async fn shutdown_is_carried_out_whatever_becomes_of_the_connection() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("some", "sleep 600");
    let pid = node.launch(&plan).await;
    // Nobody takes the events any more, the connection breaks, and two ask at once.
    let client = node.deaf();
    host.interrupt();
    let grace = Duration::from_secs(5);
    tokio::join!(client.shutdown(grace), client.shutdown(grace));
    assert!(!lives(pid));
    host.is_swept().await;

    let node = host.node().await;
    host.kill_keeper();
    node.client.shutdown(grace).await;
    // No keeper was started anew.
    host.is_swept().await;
}

#[tokio::test]
async fn a_killed_keeper_takes_its_instances_along_and_is_replaced() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("victim", &format!("{RUNAWAYS}\nsleep 600"));
    node.launch(&plan).await;
    let pids = pids(&plan.work_dir.join("pids"), RUNAWAYS_COUNT).await;
    let keeper = host.keeper_pid().unwrap();
    host.kill_keeper();
    node.when(|event| matches!(event, ProcessEvent::KeeperLost).then_some(())).await;
    assert_eq!(pids.iter().filter(|pid| lives(**pid)).count(), 0, "they are gone when the loss is reported");
    node.when(|event| matches!(event, ProcessEvent::Holding(kept) if kept.is_empty()).then_some(())).await;
    eventually("another keeper", || host.keeper_pid().filter(|pid| *pid != keeper)).await;
    let plan = host.script("next", "exit 2");
    assert_eq!(node.run(&plan).await, (Some(2), None));
}

#[tokio::test]
async fn leftovers_of_a_killed_keeper_are_swept_without_a_new_one() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("victim", &format!("{RUNAWAYS}\nsleep 600"));
    node.launch(&plan).await;
    let pids = pids(&plan.work_dir.join("pids"), RUNAWAYS_COUNT).await;
    node.vanish().await;
    assert!(sweep_leftovers(host.layout.root()).is_err(), "a living keeper is not swept");
    assert!(pids.iter().all(|pid| lives(*pid)));
    host.kill_keeper();
    host.is_swept().await;
    assert_eq!(pids.iter().filter(|pid| lives(**pid)).count(), 0);
}

#[tokio::test]
async fn without_its_node_a_keeper_stops_what_others_take_over() {
    let mut host = Host::new();
    let mut keeper = host.start_keeper(&["--orphan-grace-ms", "700"]);
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let mut moves = host.script("moves", "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
    moves.replaceable = true;
    let stays = host.script("stays", "while :; do sleep 0.05; done");
    let (moves_pid, stays_pid) = (node.launch(&moves).await, node.launch(&stays).await);
    eventually("the trap is set", || (host.text(&moves, Stream::Stdout) == ["ready"]).then_some(())).await;
    // As long as the node is there nothing happens, however long that is.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(lives(moves_pid));
    node.vanish().await;
    eventually("the re-placeable one to be stopped", || (!lives(moves_pid)).then_some(())).await;
    eventually("its last words", || (host.text(&moves, Stream::Stdout) == ["ready", "told"]).then_some(())).await;
    assert!(lives(stays_pid));
    let mut node = host.node().await;
    let ended = match node.held.iter().find(|kept| kept.plan.run == moves.run).unwrap().ended {
        Some(ended) => ended,
        None => node.exit(&moves).await,
    };
    assert_eq!(ended.code, Some(0));
    node.client.shutdown(Duration::from_secs(5)).await;
    assert!(!lives(stays_pid));
    assert!(keeper.wait().unwrap().success());
}

#[tokio::test]
async fn sigterm_ends_a_keeper_in_order() {
    let mut host = Host::new();
    let mut keeper = host.start_keeper(&[]);
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let plan = host.script("some", "sleep 600");
    let pid = node.launch(&plan).await;
    // SAFETY: the keeper is this test's own child.
    unsafe { libc::kill(keeper.id().cast_signed(), libc::SIGTERM) };
    assert!(keeper.wait().unwrap().success());
    assert!(!lives(pid));
    assert_eq!(node.exit(&plan).await.signal, Some(libc::SIGTERM));
}

#[tokio::test]
async fn there_is_one_keeper_for_a_data_directory() {
    let host = Host::new();
    let _node = host.node().await;
    let status = host.start_keeper(&[]).wait().unwrap();
    assert!(!status.success());
    let log = fs::read_to_string(host.layout.keeper_log()).unwrap();
    assert!(log.contains("a keeper is running already for"), "{log}");
}

#[tokio::test]
async fn a_keeper_that_cannot_start_is_reported_with_its_last_words() {
    let host = Host::new();
    fs::create_dir(host.layout.root().join(LOCK_NAME)).unwrap();
    let (inputs, _events) = tokio::sync::mpsc::channel(10);
    let exe = host::exe();
    let started = narun::exec::keeper::client::KeeperClient::connect_or_start(&host.layout, exe, inputs).await;
    let error = started.expect_err("no keeper can start").to_string();
    assert!(error.contains("the keeper ended at once (exit status: 1)"), "{error}");
    assert!(error.contains("cannot lock"), "{error}");
    fs::remove_dir(host.layout.root().join(LOCK_NAME)).unwrap();
}

#[tokio::test]
async fn a_data_directory_may_have_a_very_long_path() {
    let part = "a-rather-long-name-of-a-folder/";
    let mut host = Host::beneath(&part.repeat(8));
    assert!(host.layout.keeper_socket().as_os_str().len() > 200);
    let mut node = host.node().await;
    let plan = host.script("deep", "echo here");
    assert_eq!(node.run(&plan).await, (Some(0), None));
    assert_eq!(host.text(&plan, Stream::Stdout), ["here"]);
}

#[tokio::test]
async fn an_instance_cannot_speak_with_the_keeper() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let program = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.connect('{}')\n\
         s.settimeout(20)\nprint('answer', s.recv(100), flush=True)\n",
        host.layout.keeper_socket().display()
    );
    let binary = host.file("intruder", &program);
    let mut plan = host.plan("intruder", &binary);
    plan.interpreter = Some("python3".to_owned());
    assert_eq!(node.run(&plan).await, (Some(0), None), "{:?}", host.log(&plan));
    assert_eq!(host.text(&plan, Stream::Stdout), ["answer b''"], "the connection was closed without a word");
    // The node's own connection stands as before.
    let plan = host.script("after", "exit 0");
    assert_eq!(node.run(&plan).await, (Some(0), None));
}

#[tokio::test]
async fn a_static_busybox_runs_by_descriptor() {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::metadata(path).is_ok()) else {
        return skip("a_static_busybox_runs_by_descriptor", "no busybox is installed (package busybox-static)");
    };
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = host.plan("sh", busybox);
    plan.args = vec!["-c".into(), "echo from $0; exit 8".into()];
    assert_eq!(node.run(&plan).await, (Some(8), None));
}

#[tokio::test]
async fn a_broken_connection_is_made_again_unnoticed() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plans = Vec::new();
    for i in 0..10 {
        // A rival's connection takes the place of the node's, whatever is under way on it.
        let plan = host.script(&format!("quick-{i}"), &format!("echo {i}; exit {i}"));
        node.client.launch(plan.clone());
        host.interrupt();
        plans.push(plan);
    }
    for (i, plan) in (0..).zip(&plans) {
        assert_eq!(node.exit(plan).await.code, Some(i));
        let answers = |event: &ProcessEvent| match event {
            ProcessEvent::Launched { run, .. } | ProcessEvent::LaunchFailed { run, .. } => *run == plan.run,
            _ => false,
        };
        assert!(node.count(answers) >= 1, "the launch was answered");
        assert_eq!(host.text(plan, Stream::Stdout), [i.to_string()], "it ran once");
    }
    assert_eq!(node.count(|event| matches!(event, ProcessEvent::Holding(_))), 1);
    assert_eq!(node.count(|event| matches!(event, ProcessEvent::KeeperLost)), 0);
}

#[tokio::test]
async fn trees_are_held_together_by_what_this_user_may_use() {
    let host = Host::new();
    let _node = host.node().await;
    let log = fs::read_to_string(host.layout.keeper_log()).unwrap();
    let expected = if host::is_unprivileged() { "PID namespaces" } else { "control groups" };
    if host::is_root() && !host::is_unprivileged() && !log.contains(expected) {
        return skip(
            "trees_are_held_together_by_what_this_user_may_use",
            "no cgroup2 hierarchy can be written here, though this is root",
        );
    }
    assert!(log.contains(expected), "{log}");
}

/// All tests of this file again, as a user who may write to no control group.
#[test]
fn all_of_this_holds_for_an_unprivileged_user() {
    host::again_unprivileged("keeper::", "keeper::killing_leaves_no_descendant");
}
