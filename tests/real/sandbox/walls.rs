//! What stands between an instance and narun itself.

use std::fs;

use narun::exec::logs::Stream;

use super::{PROBE, capabilities, expect, probe};
use crate::cluster::{self, Cluster};
use crate::host::{Host, eventually, is_root, lives};
use crate::skip::skip;

/// A group of the cgroup2 hierarchy that is nobody's instance.
fn root_group() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    });
    mounts.find(|(_, kind)| kind == "cgroup2").map(|(path, _)| path)
}

#[tokio::test]
async fn narun_shows_its_memory_and_environment_to_no_instance() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let keeper = host.keeper_pid().unwrap();
    let plan = probe(&mut host, "curious", &[]);
    let words = ["environ", "mem", "maps"].map(|file| format!("read:/proc/{keeper}/{file}"));
    let mut expected: Vec<_> = words.iter().map(|word| (word.as_str(), "EACCES")).collect();
    let descriptors = format!("follow:/proc/{keeper}/fd/0");
    expected.push((&descriptors, "EACCES"));
    expect(&host, &mut node, plan, &expected).await;
}

#[tokio::test]
async fn no_core_is_dumped_and_only_three_descriptors_are_handed_on() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let script = "import os, resource\n\
        print(resource.getrlimit(resource.RLIMIT_CORE)[0] <= 1)\n\
        print([n for n in range(1024) if os.path.exists(f'/proc/self/fd/{n}')])\n\
        os.abort()\n";
    let binary = host.file("dumps", script);
    let mut plan = host.plan("dumps", binary);
    plan.interpreter = Some(super::PYTHON.to_owned());
    plan.env.push(("PYTHONUNBUFFERED".to_owned(), "1".to_owned()));
    assert_eq!(node.run(&plan).await, (None, Some(libc::SIGABRT)));
    assert_eq!(host.text(&plan, Stream::Stdout), ["True", "[0, 1, 2]"]);
    let left: Vec<_> = fs::read_dir(&plan.work_dir).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn root_cannot_leave_its_control_group() {
    let Some(root) = root_group().filter(|_| is_root()) else {
        return skip("root_cannot_leave_its_control_group", "it needs root and a cgroup2 hierarchy");
    };
    let mut host = Host::new();
    let mut node = host.node().await;
    let enter = format!("enter:{root}");
    let plan = probe(&mut host, "leaver", &[]);
    expect(&host, &mut node, plan.clone(), &[(&enter, "EROFS")]).await;
    assert!(node.enforced(&plan).await.missing.is_empty());
    // One that may administer the host may: it was given the host.
    let mut plan = probe(&mut host, "admin", &[]);
    plan.confinement.capabilities = capabilities(&["SYS_ADMIN", "DAC_OVERRIDE"]);
    expect(&host, &mut node, plan, &[(&enter, "ok")]).await;
}

#[tokio::test]
async fn what_has_left_its_control_group_neither_speaks_to_the_keeper_nor_stays() {
    let Some(root) = root_group().filter(|_| is_root()) else {
        return skip(
            "what_has_left_its_control_group_neither_speaks_nor_stays",
            "it needs root and a cgroup2 hierarchy",
        );
    };
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = probe(&mut host, "talker", &[]);
    plan.confinement.capabilities = capabilities(&["SYS_ADMIN", "DAC_OVERRIDE"]);
    let (enter, speak) = (format!("enter:{root}"), format!("keeper:{}", host.layout.keeper_socket().display()));
    expect(&host, &mut node, plan, &[(&speak, "ECONNREFUSED"), (&enter, "ok"), (&speak, "ECONNREFUSED")]).await;

    // Two that run on, in sessions of their own, one the other's child; a third instance is none of their business.
    let bystander = host.script("bystander", "(setsid sleep 600 & echo $! > pid); exec sleep 600");
    node.launch(&bystander).await;
    let script = format!(
        "(setsid sh -c 'echo 0 > {root}/cgroup.procs; sleep 600 & echo $! > child; echo $$ > parent; wait' &)\n\
         while [ ! -s parent ]; do sleep 0.02; done\n\
         while [ ! -e go ]; do sleep 0.02; done; exit 3"
    );
    let mut plan = host.script("runaway", &script);
    plan.confinement.capabilities = capabilities(&["SYS_ADMIN", "DAC_OVERRIDE"]);
    node.launch(&plan).await;
    let number = |file: std::path::PathBuf| fs::read_to_string(file).ok()?.trim().parse::<i32>().ok();
    let parent = eventually("the runaway", || number(plan.work_dir.join("parent"))).await;
    let child = number(plan.work_dir.join("child")).unwrap();
    assert!(lives(parent) && lives(child));
    fs::write(plan.work_dir.join("go"), "").unwrap();
    assert_eq!(node.exit(&plan).await.code, Some(3));
    eventually("both to be ended", || (!lives(parent) && !lives(child)).then_some(())).await;
    let orphan = number(bystander.work_dir.join("pid")).unwrap();
    assert!(lives(orphan), "an orphan in a living instance's group is left alone");
}

#[test]
fn an_instance_is_turned_away_at_the_nodes_socket_wherever_it_stands() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let script = cluster.file("probe.py", PROBE);
    let ask = format!("node:{}", node.data_dir().join("narun.sock").display());
    let root = root_group().filter(|_| is_root());
    let leave = root.as_ref().map(|root| format!("enter:{root}"));
    let words: Vec<&str> =
        [Some(ask.as_str()), leave.as_deref(), leave.as_ref().map(|_| ask.as_str())].into_iter().flatten().collect();
    let args: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let capabilities = if leave.is_some() { "capabilities: [SYS_ADMIN, DAC_OVERRIDE]\n" } else { "" };
    let spec = format!(
        "name: caller\ntag: v1\nnodes: [{{name: n1, replicas: 1}}]\ncommand: /usr/bin/python3\nrestart: never\n{capabilities}args: [{}]\n",
        args.join(", ")
    );
    let spec = cluster.file("spec.yaml", &spec);
    node.ok(&["deploy", "--config", &spec, &script]);
    let said = cluster::eventually("what it was told", || {
        let lines = node.messages(&["--app", "caller", "--stream", "stdout"]);
        (lines.len() >= words.len()).then_some(lines)
    });
    let expected = words.iter().map(|word| {
        let outcome = if word.starts_with("enter:") { "ok" } else { "ECONNREFUSED" };
        format!("{word} {outcome}")
    });
    assert_eq!(said[..words.len()], expected.collect::<Vec<_>>());
}
