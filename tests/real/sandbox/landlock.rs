//! What Landlock's rules open, and what stays closed.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};

use narun::confinement::{Group, Landlock, Modes, PathRule};

use super::{begins, expect, landlock_abi, probe};
use crate::host::Host;
use crate::skip::skip;

/// Whether the kernel has this version; says so where it does not.
fn has(abi: u32, test: &str) -> bool {
    let is = landlock_abi().is_some_and(|version| version >= abi);
    if !is {
        skip(test, &format!("the kernel's Landlock is older than ABI {abi}"));
    }
    is
}

fn rule(path: &str, letters: &str) -> PathRule {
    PathRule { path: path.to_owned(), modes: Modes::of_letters(letters) }
}

/// A folder of the data directory with files that everybody may do anything with.
fn folder(host: &Host, name: &str) -> String {
    let path = host.layout.root().join(name);
    fs::create_dir_all(path.join("sub")).unwrap();
    for file in ["file", "sub/file"] {
        fs::write(path.join(file), "content").unwrap();
    }
    fs::copy("/bin/true", path.join("tool")).unwrap();
    fs::set_permissions(path.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn files_and_directories_are_opened_by_their_modes() {
    if !has(3, "files_and_directories_are_opened_by_their_modes") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let [read, write, run, make, closed] = ["r", "w", "x", "c", "closed"].map(|name| folder(&host, name));
    let mut plan = probe(&mut host, "modes", &[]);
    let paths = vec![
        rule(&read, "r"),
        rule(&write, "rw"),
        rule(&run, "rx"),
        rule(&make, "rwc"),
        rule(&format!("{closed}/file"), "rw"),
    ];
    plan.confinement.landlock = Some(Landlock { paths, ..begins() });
    let outcomes = [
        (format!("read:{read}/file"), "ok"),
        (format!("read:{read}/sub/file"), "ok"),
        (format!("list:{read}"), "ok"),
        (format!("write:{read}/file"), "EACCES"),
        (format!("truncate:{read}/file"), "EACCES"),
        (format!("create:{read}/new"), "EACCES"),
        (format!("remove:{read}/file"), "EACCES"),
        (format!("exec:{read}/tool"), "EACCES"),
        (format!("write:{write}/file"), "ok"),
        (format!("truncate:{write}/file"), "ok"),
        (format!("create:{write}/new"), "EACCES"),
        (format!("remove:{write}/file"), "EACCES"),
        (format!("exec:{write}/tool"), "EACCES"),
        (format!("exec:{run}/tool"), "ok"),
        (format!("write:{run}/tool"), "EACCES"),
        (format!("create:{make}/new"), "ok"),
        (format!("mkdir:{make}/folder"), "ok"),
        (format!("link:{make}/link"), "ok"),
        (format!("move:{make}/new>{make}/sub/newer"), "ok"),
        (format!("remove:{make}/sub/newer"), "ok"),
        (format!("read:{make}/link/etc/passwd"), "EACCES"),
        (format!("move:{make}/file>{write}/moved"), "EACCES"),
        (format!("read:{closed}/file"), "ok"),
        (format!("write:{closed}/file"), "ok"),
        (format!("list:{closed}"), "EACCES"),
        (format!("read:{closed}/sub/file"), "EACCES"),
        ("read:/etc/passwd".to_owned(), "EACCES"),
        ("list:/".to_owned(), "EACCES"),
    ];
    let outcomes: Vec<_> = outcomes.iter().map(|(word, outcome)| (word.as_str(), *outcome)).collect();
    expect(&host, &mut node, plan, &outcomes).await;
}

#[tokio::test]
async fn the_working_directory_is_open_but_for_execution() {
    if !has(2, "the_working_directory_is_open_but_for_execution") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = probe(&mut host, "own", &[]);
    plan.confinement.landlock = Some(begins());
    fs::create_dir_all(&plan.work_dir).unwrap();
    fs::copy("/bin/true", plan.work_dir.join("tool")).unwrap();
    let outcomes = [
        ("create:new", "ok"),
        ("write:new", "ok"),
        ("read:new", "ok"),
        ("truncate:new", "ok"),
        ("mkdir:folder", "ok"),
        ("move:new>folder/new", "ok"),
        ("list:.", "ok"),
        ("exec:tool", "EACCES"),
        ("list:..", "EACCES"),
    ];
    expect(&host, &mut node, plan.clone(), &outcomes).await;

    let mut plan = probe(&mut host, "own", &[]);
    plan.confinement.landlock = Some(Landlock { paths: vec![rule(".", "x")], ..begins() });
    expect(&host, &mut node, plan, &[("exec:tool", "ok"), ("create:newer", "ok")]).await;
}

#[tokio::test]
async fn each_group_opens_its_files_and_no_others() {
    if !has(1, "each_group_opens_its_files_and_no_others") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let name = format!("/tmp/narun-test-{}-{:?}", std::process::id(), host.layout.root().file_name().unwrap());
    let temporary = format!("create:{name}");
    let samples = [
        (Group::Stdio, "read:/dev/urandom"),
        (Group::Stdio, "write:/dev/full"),
        (Group::Stdio, "read:/etc/localtime"),
        (Group::Tty, "list:/usr/share/terminfo"),
        (Group::Tmp, temporary.as_str()),
        (Group::Vminfo, "read:/proc/meminfo"),
        (Group::Vminfo, "read:/proc/self/status"),
        (Group::Dns, "read:/etc/hosts"),
        (Group::Dns, "read:/etc/resolv.conf"),
        (Group::Certs, "read:/etc/ssl/certs/ca-certificates.crt"),
    ];
    let there = |word: &str| fs::metadata(word.split_once(':').unwrap().1).is_ok() || word == temporary;
    for group in Group::ALL {
        let mut plan = probe(&mut host, "group", &[]);
        plan.confinement.landlock = Some(Landlock { groups: vec![Group::Shared, group], ..Landlock::default() });
        let outcome = |of: Group, word: &str| match (of == group, word) {
            (false, _) => "EACCES",
            // The device itself says so.
            (true, "write:/dev/full") => "ENOSPC",
            (true, _) => "ok",
        };
        let expected: Vec<_> = samples
            .into_iter()
            .filter(|(_, word)| there(word))
            .map(|(of, word)| (word, outcome(of, word)))
            .chain([("write:/dev/null", "ok")])
            .collect();
        expect(&host, &mut node, plan, &expected).await;
        // What is there already could be found out, though not made.
        assert_eq!(fs::remove_file(&name).is_ok(), group == Group::Tmp);
    }

    // Without the first of them no dynamic program begins, and it is said why.
    let mut plan = probe(&mut host, "nothing", &["list:."]);
    plan.confinement.landlock = Some(Landlock::default());
    let error = node.launch_failing(&plan).await;
    assert!(error.contains("Landlock refuses it\nhint: ") && error.contains("shared"), "{error}");
}

#[tokio::test]
async fn ports_are_restricted_where_rules_are_given() {
    if !has(4, "ports_are_restricted_where_rules_are_given") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        port(&listener)
    };
    let words = [
        format!("connect:{}", port(&open)),
        format!("connect:{}", port(&other)),
        format!("bind:{free}"),
        "bind:0".to_owned(),
    ];
    for (bind_ports, connect_ports, outcomes) in [
        (None, None, ["ok", "ok", "ok", "ok"]),
        (Some(vec![free]), Some(vec![port(&open)]), ["ok", "EACCES", "ok", "EACCES"]),
        (Some(vec![]), None, ["ok", "ok", "EACCES", "EACCES"]),
        (None, Some(vec![]), ["EACCES", "EACCES", "ok", "ok"]),
    ] {
        let mut plan = probe(&mut host, "ports", &[]);
        plan.confinement.landlock = Some(Landlock { bind_ports, connect_ports, ..begins() });
        let expected: Vec<_> = words.iter().map(String::as_str).zip(outcomes).collect();
        expect(&host, &mut node, plan, &expected).await;
    }
}

#[tokio::test]
async fn signals_and_abstract_sockets_stay_inside_where_asked_for() {
    if !has(6, "signals_and_abstract_sockets_stay_inside_where_asked_for") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let name = format!("narun-test-{}", host.layout.root().display());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let connect = format!("abstract:{name}");
    for (is_scoped, outcome) in [(false, "ok"), (true, "EPERM")] {
        let mut plan = probe(&mut host, "scopes", &[]);
        let landlock = Landlock { scope_signals: is_scoped, scope_abstract_sockets: is_scoped, ..begins() };
        plan.confinement.landlock = Some(landlock);
        expect(&host, &mut node, plan, &[("parent:", outcome), (&connect, outcome)]).await;
    }
}

#[tokio::test]
async fn what_is_enforced_is_told_and_strictness_is_met_by_a_new_kernel() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let Some(abi) = landlock_abi() else {
        return skip("what_is_enforced_is_told_and_strictness_is_met_by_a_new_kernel", "the kernel has no Landlock");
    };
    let mut plan = probe(&mut host, "plain", &[]);
    node.run(&plan).await;
    assert_eq!(node.enforced(&plan).await.landlock_abi, None, "it was not asked for");

    plan = probe(&mut host, "told", &[]);
    plan.confinement.landlock = Some(begins());
    node.run(&plan).await;
    let enforced = node.enforced(&plan).await;
    assert_eq!(enforced.landlock_abi, Some(abi.min(9)));
    let lacks = enforced.missing.iter().filter(|line| line.contains("needs Landlock ABI")).count();
    assert_eq!(lacks, [2, 3, 5].into_iter().filter(|needed| *needed > abi).count(), "{enforced:?}");

    plan = probe(&mut host, "strict", &[]);
    let all = Landlock { bind_ports: Some(vec![]), scope_signals: true, ..begins() };
    plan.confinement.landlock = Some(all);
    plan.confinement.require_strict = true;
    if abi >= 6 {
        assert_eq!(node.run(&plan).await, (Some(0), None));
    } else {
        let error = node.launch_failing(&plan).await;
        assert!(error.contains("needs Landlock ABI 6"), "{error}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_fails_the_start_or_is_told() {
    if !has(1, "a_path_that_is_not_there_fails_the_start_or_is_told") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let paths = || vec![rule("/no/such/place", "r")];
    let mut plan = probe(&mut host, "missing", &["list:."]);
    plan.confinement.landlock = Some(Landlock { paths: paths(), ..begins() });
    let error = node.launch_failing(&plan).await;
    let expected = "cannot open `/no/such/place` to the program by Landlock: no such file or directory";
    assert_eq!(error, expected);

    let mut plan = probe(&mut host, "missing", &["list:."]);
    plan.confinement.landlock = Some(Landlock { paths: paths(), ..begins() });
    plan.confinement.best_effort = true;
    assert_eq!(node.run(&plan).await, (Some(0), None));
    let missing = node.enforced(&plan).await.missing;
    assert!(missing.iter().any(|line| line == expected), "{missing:?}");

    let mut plan = probe(&mut host, "meaningless", &["list:."]);
    plan.confinement.landlock = Some(Landlock { paths: vec![rule("/etc/passwd", "c")], ..begins() });
    let error = node.launch_failing(&plan).await;
    assert!(error.contains("`/etc/passwd`") && error.contains("mode `c`"), "{error}");
}

#[tokio::test]
async fn a_link_that_an_earlier_run_left_opens_nothing_outside() {
    if !has(1, "a_link_that_an_earlier_run_left_opens_nothing_outside") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let outside = folder(&host, "outside");
    let mut plan = probe(&mut host, "links", &[]);
    fs::create_dir_all(plan.work_dir.join("real")).unwrap();
    symlink(&outside, plan.work_dir.join("out")).unwrap();
    symlink("real", plan.work_dir.join("in")).unwrap();
    for path in ["out".to_owned(), plan.work_dir.join("out").to_str().unwrap().to_owned(), "../x".to_owned()] {
        let mut again = probe(&mut host, "links", &[]);
        again.confinement.landlock = Some(Landlock { paths: vec![rule(&path, "r")], ..begins() });
        let error = node.launch_failing(&again).await;
        let refused = error.ends_with("it leads out of the working directory") || error.contains("no such file");
        assert!(refused, "{path}: {error}");
    }
    plan.confinement.landlock = Some(Landlock { paths: vec![rule("in", "rx")], ..begins() });
    let read = format!("read:{outside}/file");
    expect(&host, &mut node, plan, &[("list:in", "ok"), (&read, "EACCES")]).await;
}

#[tokio::test]
async fn a_script_is_run_by_the_interpreter_of_its_first_line() {
    if !has(1, "a_script_is_run_by_the_interpreter_of_its_first_line") {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    for first in ["#!/usr/bin/python3", "#!/usr/bin/env python3", "#! /usr/bin/env -S python3 -B"] {
        let binary = host.file("script", &format!("{first}\nprint('here')\n"));
        let mut plan = host.plan("script", binary);
        plan.env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        plan.confinement.landlock = Some(begins());
        assert_eq!(node.run(&plan).await, (Some(0), None), "{first}: {:?}", host.log(&plan));
    }
}
