//! How a program's process is made: in the keeper's own memory where that can be done, by a fork where not; and that neither leaves
//! anything in the keeper.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use narun::confinement::{Confinement, Group, Landlock, Limits, Modes, Namespaces, PathRule};
use narun::exec::plan::{LaunchPlan, ProcessEvent};
use narun::node::shells::Processes;

use crate::host::{self, Host, Node, eventually};
use crate::sandbox::landlock_abi;
use crate::skip::skip;

/// A program that the kernel loads by itself.
const TRUE: &str = "/bin/true";

/// What the keeper tells of a start in its own memory, and of one that has come to nothing there.
const BORROWED: &str = "started in borrowed memory";
const FORKED_THEN: &str = "to be forked";

/// A keeper that tells how it starts programs, and its node; none where it has no groups to have children born in.
async fn talkative() -> Option<(Host, Talkative, Node)> {
    let host = Host::new();
    let keeper = Talkative(host.start_keeper(&["--log", "debug"]));
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let node = host.node().await;
    told(&host).contains("by_birth=true").then_some((host, keeper, node))
}

/// Killed with the test, since it is nobody else's child.
struct Talkative(Child);

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn told(host: &Host) -> String {
    fs::read_to_string(host.layout.keeper_log()).expect("the keeper's log")
}

fn times(host: &Host, words: &str) -> usize {
    told(host).matches(words).count()
}

fn rule(path: impl Into<PathBuf>) -> PathRule {
    let path = path.into().into_os_string().into_string().expect("a path that is text");
    PathRule { path, modes: Modes { read: true, write: false, execute: false, create: false } }
}

/// Rules for a program that needs the system's libraries.
fn landlock(paths: Vec<PathRule>) -> Confinement {
    let landlock = Landlock { groups: vec![Group::Shared], paths, ..Landlock::default() };
    Confinement { landlock: Some(landlock), ..Confinement::default() }
}

#[tokio::test]
async fn the_keepers_memory_is_borrowed_where_nothing_can_hold_it_up() {
    let Some((mut host, _keeper, mut node)) = talkative().await else {
        return skip(
            "the_keepers_memory_is_borrowed_where_nothing_can_hold_it_up",
            "no group can be made in which children are born",
        );
    };
    let limited = |cpu_millicores| {
        let limits = Limits { cpu_millicores, ..Limits::default() };
        Confinement { limits, ..Confinement::default() }
    };
    let with_an_init =
        Confinement { namespaces: Namespaces { pid: true, ipc: false, mount: false }, ..Confinement::default() };
    let cases: [(&str, Confinement, bool); 4] = [
        ("plain", Confinement::default(), true),
        ("half-a-processor", limited(500), true),
        ("a-hundredth-of-one", limited(10), false),
        ("with-an-init", with_an_init, false),
    ];
    let mut borrowed = 0;
    for (name, confinement, borrows) in cases {
        let plan = LaunchPlan { confinement, ..host.plan(name, TRUE) };
        assert_eq!(node.run(&plan).await, (Some(0), None), "{name}");
        borrowed += usize::from(borrows);
        assert_eq!(times(&host, BORROWED), borrowed, "{name}");
    }
    let plan = host.script("script", "exit 3");
    assert_eq!(node.run(&plan).await, (Some(3), None));
    assert_eq!((times(&host, BORROWED), times(&host, FORKED_THEN)), (borrowed, 0), "a script");
}

/// What a keeper has, and what it has changed in itself.
#[derive(PartialEq, Eq, Debug)]
struct State {
    descriptors: usize,
    /// The lines of its status that say which signals are blocked, ignored and handled, and that about its privileges.
    status: Vec<String>,
    umask_and_directory: (String, PathBuf),
    /// That of its files in /proc: root where a process is not dumpable (proc(5)), else its own user.
    owner: u32,
}

impl State {
    fn of(pid: i32) -> Self {
        use std::os::unix::fs::MetadataExt;
        let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let status = fs::read_to_string(file("status")).expect("a living keeper");
        let keep = |words: &[&str]| -> Vec<String> {
            let lines = status.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
            lines.map(str::to_owned).collect()
        };
        Self {
            descriptors: fs::read_dir(file("fd")).map_or(0, Iterator::count),
            status: keep(&["SigBlk", "SigIgn", "SigCgt", "Cap", "NoNewPrivs", "Seccomp:", "Uid", "Gid", "Threads"]),
            umask_and_directory: (keep(&["Umask"]).concat(), fs::read_link(file("cwd")).unwrap_or_default()),
            owner: fs::metadata(file("status")).map_or(u32::MAX, |metadata| metadata.uid()),
        }
    }
}

/// What a process has of memory of its own, in KiB.
fn own_memory_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living keeper");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a kernel that counts");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Starts, of which each but the first fails at another step; how each of them fails.
fn ways_to_start(host: &mut Host, round: usize) -> Vec<(LaunchPlan, Option<&'static str>)> {
    // Much enough that it shows when it is left behind once a start.
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("LONG".to_owned(), "x".repeat(16 * 1024))];
    let confinement = landlock(vec![rule("/usr"), rule("/etc")]);
    let garbage = host.file(&format!("garbage{round}"), "neither a program nor a script");
    let linked = host.plan("linked", TRUE);
    fs::create_dir_all(linked.work_dir.parent().expect("a folder above")).expect("a folder in a temporary directory");
    let _ = std::os::unix::fs::symlink("/", &linked.work_dir);
    let missing = landlock(vec![rule("/usr"), rule("/nowhere/to/be/found")]);
    let ways = [
        (host.plan("well", TRUE), confinement.clone(), None),
        (linked, confinement.clone(), Some("a symbolic link stands in its place")),
        (
            host.plan("garbage", garbage),
            Confinement::default(),
            Some("neither a program for this machine nor a script"),
        ),
        (host.plan("absent", "/nowhere/program"), confinement, Some("cannot open the binary `/nowhere/program`")),
        (host.plan("missing", TRUE), missing, Some("cannot open `/nowhere/to/be/found` to the program by Landlock")),
    ];
    ways.into_iter()
        .map(|(plan, confinement, error)| (LaunchPlan { confinement, env: env.clone(), ..plan }, error))
        .collect()
}

async fn start_in_all_ways(host: &mut Host, node: &mut Node, rounds: usize) {
    for round in 0..rounds {
        for (plan, error) in ways_to_start(host, round) {
            match error {
                None => {
                    assert_eq!(node.run(&plan).await, (Some(0), None));
                    node.client.acknowledge(plan.run);
                }
                Some(error) => {
                    let said = node.launch_failing(&plan).await;
                    assert!(said.contains(error), "{said}");
                }
            }
        }
    }
}

#[tokio::test]
async fn starts_leave_nothing_in_the_keeper_whether_they_succeed_or_fail() {
    /// Each round leaves 16 KiB five times, if anything, which is ten times what is allowed below.
    const ROUNDS: usize = 40;
    const GROWTH_MAX_KIB: u64 = 320;
    if landlock_abi().is_none() {
        return skip("starts_leave_nothing_in_the_keeper_whether_they_succeed_or_fail", "the kernel has no Landlock");
    }
    let Some((mut host, _keeper, mut node)) = talkative().await else {
        return skip(
            "starts_leave_nothing_in_the_keeper_whether_they_succeed_or_fail",
            "no group can be made in which children are born",
        );
    };
    let keeper = host.keeper_pid().expect("a keeper");
    start_in_all_ways(&mut host, &mut node, 10).await;
    let (before, memory) = (State::of(keeper), own_memory_kib(keeper));
    assert_eq!(before.owner, 0, "it is not dumpable");
    let borrowed = times(&host, BORROWED);
    start_in_all_ways(&mut host, &mut node, ROUNDS).await;
    assert!(times(&host, BORROWED) >= borrowed + ROUNDS, "those that succeed do so in borrowed memory");
    assert!(times(&host, FORKED_THEN) > 0, "those that fail have been tried there");
    eventually("the keeper to be as it was", || (State::of(keeper) == before).then_some(())).await;
    let grown = own_memory_kib(keeper).saturating_sub(memory);
    assert!(grown <= GROWTH_MAX_KIB, "{grown} KiB");
}

#[tokio::test]
async fn a_start_that_hangs_in_a_file_system_holds_up_nobody_else() {
    if !host::is_root() || landlock_abi().is_none() || !PathBuf::from("/dev/fuse").exists() {
        return skip("a_start_that_hangs_in_a_file_system_holds_up_nobody_else", "it needs root, Landlock and FUSE");
    }
    let mut host = Host::new();
    let far = host.layout.root().join("far");
    fs::create_dir(&far).expect("a folder in a temporary directory");
    // A file system whose server answers nothing: whoever looks something up there waits, until the descriptor is closed.
    let script = format!(
        "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 none {}",
        far.display()
    );
    let _keeper = Talkative(host.start_keeper_among_mounts(&script));
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let hanging = LaunchPlan { confinement: landlock(vec![rule(far.join("file"))]), ..host.plan("hanging", TRUE) };
    node.client.launch(hanging.clone());
    let other = LaunchPlan { confinement: landlock(vec![rule("/usr")]), ..host.plan("other", TRUE) };
    assert_eq!(node.run(&other).await, (Some(0), None));
    let is_hanging = |event: &ProcessEvent| match event {
        ProcessEvent::LaunchFailed { run, .. } | ProcessEvent::Launched { run, .. } => *run == hanging.run,
        _ => false,
    };
    assert_eq!(node.count(is_hanging), 0, "it hangs indeed");
    node.client.kill(hanging.run);
    // Told as an end, or as a start that came to nothing where the keeper had not seen yet that it takes long.
    let is_over = node.when(|event| match event {
        ProcessEvent::Exited { run, ended } if *run == hanging.run => Some(ended.signal == Some(libc::SIGKILL)),
        ProcessEvent::LaunchFailed { run, error } if *run == hanging.run => Some(error.contains("it was killed")),
        _ => None,
    });
    assert!(is_over.await, "by the kill");
    node.client.shutdown(Duration::from_secs(1)).await;
}
