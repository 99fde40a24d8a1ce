//! Limits of real processes, on whatever hierarchies of control groups this host has: each controller by itself is looked for where it
//! is. What version 2 alone can do is asked for where it has the controller.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use narun::confinement::{Limits, PIDS_MAX};
use narun::exec::keeper::sweep_leftovers;
use narun::exec::logs::Stream;
use narun::exec::plan::{LaunchPlan, ProcessEvent};
use narun::node::shells::Processes;
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::host::{self, Host, Node, eventually, lives};
use crate::skip::skip;

const MEBIBYTE: u64 = 1 << 20;

/// A program that uses up all memory that it gets, and gives up at 2 GiB where nothing holds it: no test may use up the host's.
const BOMB: &str = "ulimit -v 2097152; exec tail /dev/zero";

/// Where a controller is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    is_unified: bool,
    /// Where its hierarchy is mounted.
    point: PathBuf,
}

/// Looks for a controller: in a hierarchy of version 1, then in version 2.
fn place(controller: &str) -> Option<Place> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = |kind: &str| {
        let lines = mountinfo.lines().filter_map(|line| line.split_once(" - ")).collect::<Vec<_>>();
        let of_kind =
            lines.into_iter().filter(|(_, right)| right.split(' ').next() == Some(kind)).map(|(left, right)| {
                (PathBuf::from(left.split(' ').nth(4).unwrap()), right.rsplit(' ').next().unwrap().to_owned())
            });
        of_kind.collect::<Vec<_>>()
    };
    let legacy = mounts("cgroup").into_iter().find(|(_, options)| options.split(',').any(|one| one == controller));
    if let Some((point, _)) = legacy {
        return Some(Place { is_unified: false, point });
    }
    let (point, _) = mounts("cgroup2").into_iter().next()?;
    let offered = fs::read_to_string(point.join("cgroup.controllers")).ok()?;
    offered.split_whitespace().any(|one| one == controller).then_some(Place { is_unified: true, point })
}

/// The group of a process that a controller's files are in. Mounts of tests show whole hierarchies.
fn group_of(pid: i32, place: &Place, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_it =
            if place.is_unified { controllers.is_empty() } else { controllers.split(',').any(|one| one == controller) };
        is_it.then(|| path.trim_start_matches('/').to_owned())
    });
    place.point.join(path.expect("a group in that hierarchy"))
}

fn unified_group_of(pid: i32) -> PathBuf {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 file system");
    let point = PathBuf::from(line.split(' ').nth(4).unwrap());
    group_of(pid, &Place { is_unified: true, point }, "")
}

fn number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().parse().unwrap_or_else(|error| panic!("{}: {error}: {text}", path.display()))
}

fn keyed(path: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {key} in {}: {text}", path.display())).parse().unwrap()
}

/// Whether this process may limit by these controllers; says so where a test is skipped.
fn can_limit(test: &str, controllers: &[&str]) -> bool {
    if !host::is_root() || host::is_unprivileged() {
        skip(test, "only root can write to control groups here");
        return false;
    }
    if let Some(lacking) = controllers.iter().find(|controller| place(controller).is_none()) {
        skip(test, &format!("no hierarchy here has the controller `{lacking}`"));
        return false;
    }
    true
}

fn limited(mut plan: LaunchPlan, limits: Limits) -> LaunchPlan {
    plan.confinement.limits = limits;
    plan
}

fn memory_max(mebibytes: u64) -> Limits {
    Limits { memory_max: mebibytes * MEBIBYTE, ..Limits::default() }
}

#[tokio::test]
async fn a_memory_bomb_is_killed_and_counted() {
    if !can_limit("a_memory_bomb_is_killed_and_counted", &["memory"]) {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    // As `memoryMB: 64` has it: kept for it, and the most as well.
    let limits = Limits { memory_low: 64 * MEBIBYTE, ..memory_max(64) };
    let plan = limited(host.script("bomb", BOMB), limits);
    node.launch(&plan).await;
    let ended = node.exit(&plan).await;
    assert_eq!((ended.code, ended.signal), (None, Some(libc::SIGKILL)));
    assert!(ended.oom_kills >= 1, "{ended:?}");
    // One that stays below is left alone.
    let plan = limited(host.script("modest", "head -c 8000000 /dev/zero | tail > /dev/null; exit 4"), memory_max(64));
    node.launch(&plan).await;
    let ended = node.exit(&plan).await;
    assert_eq!((ended.code, ended.oom_kills), (Some(4), 0));
}

#[tokio::test]
async fn a_memory_limit_is_written_where_the_kernel_looks() {
    if !can_limit("a_memory_limit_is_written_where_the_kernel_looks", &["memory"]) {
        return;
    }
    let memory = place("memory").unwrap();
    let mut host = Host::new();
    let mut node = host.node().await;
    let limits = Limits { memory_low: 32 * MEBIBYTE, ..memory_max(64) };
    let plan = limited(host.script("both", "sleep 600"), limits);
    let group = group_of(node.launch(&plan).await, &memory, "memory");
    let [low, max] = match memory.is_unified {
        true => ["memory.low", "memory.max"],
        false => ["memory.soft_limit_in_bytes", "memory.limit_in_bytes"],
    };
    assert_eq!((number(&group.join(low)), number(&group.join(max))), (32 * MEBIBYTE, 64 * MEBIBYTE));
    if memory.is_unified {
        assert_eq!(number(&group.join("memory.oom.group")), 1);
        // A group is kept no more than those above it are.
        let base = group.parent().unwrap();
        assert_eq!(number(&base.join("memory.low")), 32 * MEBIBYTE);
        node.client.kill(plan.run);
        node.exit(&plan).await;
        assert_eq!(number(&base.join("memory.low")), 0);
    }
}

#[tokio::test]
async fn a_bomb_among_several_processes_ends_the_whole_instance_where_the_kernel_can() {
    if !can_limit("a_bomb_among_several_processes_ends_the_whole_instance_where_the_kernel_can", &["memory"]) {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let script = format!("sh -c '{BOMB}' & wait $!; echo survived; exit 3");
    // Without anything that is kept for it: `memoryMaxMB` alone.
    let plan = limited(host.script("worker", &script), memory_max(48));
    node.launch(&plan).await;
    let ended = node.exit(&plan).await;
    assert!(ended.oom_kills >= 1, "{ended:?}");
    let survived = host.text(&plan, Stream::Stdout) == ["survived"];
    match place("memory").unwrap().is_unified {
        true => assert_eq!((ended.signal, survived), (Some(libc::SIGKILL), false)),
        // Version 1 kills one process, and says so.
        false => assert_eq!((ended.code, survived), (Some(3), true)),
    }
}

#[tokio::test]
async fn descendants_cannot_leave_their_limits() {
    if !can_limit("descendants_cannot_leave_their_limits", &["memory", "pids"]) {
        return;
    }
    let memory = place("memory").unwrap();
    let mut host = Host::new();
    let mut node = host.node().await;
    // Forked twice, in a session of its own, an orphan.
    let script = format!(
        "(setsid sh -c 'echo $$ > orphan; while [ ! -e bang ]; do sleep 0.02; done; {BOMB}' &)\n\
         while [ ! -e go ]; do sleep 0.02; done; exit 5"
    );
    let plan = limited(host.script("double", &script), memory_max(64));
    let first = node.launch(&plan).await;
    let orphan =
        eventually("an orphan", || fs::read_to_string(plan.work_dir.join("orphan")).ok()?.trim().parse().ok()).await;
    let group = group_of(first, &memory, "memory");
    assert_eq!(group_of(orphan, &memory, "memory"), group);
    assert_eq!(group_of(orphan, &place("pids").unwrap(), "pids"), group_of(first, &place("pids").unwrap(), "pids"));
    fs::write(plan.work_dir.join("bang"), "").unwrap();
    eventually("the orphan is killed", || (!lives(orphan)).then_some(())).await;
    if !memory.is_unified {
        assert!(keyed(&group.join("memory.oom_control"), "oom_kill") >= 1);
    }
    fs::write(plan.work_dir.join("go"), "").unwrap();
    let ended = node.exit(&plan).await;
    assert!(ended.oom_kills >= 1, "{ended:?}");
    assert!(!group.exists());
}

#[tokio::test]
async fn a_fork_bomb_stops_at_its_limit_and_the_host_stays_well() {
    const MAX: u32 = 64;
    if !can_limit("a_fork_bomb_stops_at_its_limit_and_the_host_stays_well", &["pids"]) {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    // Each tries to become two, for ever; they stay, so that the limit is met.
    let script = "bomb() { (bomb) & (bomb) & sleep 600; }\n(bomb) 2> /dev/null & exec sleep 600";
    let plan = limited(host.script("forks", script), Limits { pids_max: MAX, ..Limits::default() });
    let pid = node.launch(&plan).await;
    let group = group_of(pid, &place("pids").unwrap(), "pids");
    eventually("the limit is met", || (keyed(&group.join("pids.events"), "max") > 0).then_some(())).await;
    assert!(number(&group.join("pids.current")) <= u64::from(MAX));
    // Others start and end as ever.
    let began = Instant::now();
    let other = host.script("other", "exit 6");
    assert_eq!(node.run(&other).await, (Some(6), None));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let members: Vec<i32> = members.lines().filter_map(|line| line.parse().ok()).collect();
    node.client.kill(plan.run);
    node.exit(&plan).await;
    assert!(members.iter().all(|pid| !lives(*pid)));
    assert!(!group.exists());
}

#[tokio::test]
async fn nobody_has_to_ask_for_a_limit_of_processes() {
    if !can_limit("nobody_has_to_ask_for_a_limit_of_processes", &["pids"]) {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = host.script("plain", "sleep 600");
    let pid = node.launch(&plan).await;
    let group = group_of(pid, &place("pids").unwrap(), "pids");
    assert_eq!(number(&group.join("pids.max")), u64::from(PIDS_MAX));
}

#[tokio::test]
async fn a_spinning_program_gets_its_share_of_a_processor_and_no_more() {
    const SHARE: f64 = 0.25;
    if !can_limit("a_spinning_program_gets_its_share_of_a_processor_and_no_more", &["cpu"]) {
        return;
    }
    let cpu = place("cpu").unwrap();
    let mut host = Host::new();
    let mut node = host.node().await;
    // Two at once share what their instance has.
    let script = "(while :; do :; done) & while :; do :; done";
    let plan = limited(host.script("spin", script), Limits { cpu_millicores: 250, ..Limits::default() });
    let pid = node.launch(&plan).await;
    let stat = unified_group_of(pid).join("cpu.stat");
    let used = || Duration::from_micros(keyed(&stat, "usage_usec"));
    // Whatever it got before the first full period does not count.
    eventually("it is held back", || {
        (keyed(&group_of(pid, &cpu, "cpu").join("cpu.stat"), "nr_throttled") > 1).then_some(())
    })
    .await;
    let (before, began) = (used(), Instant::now());
    eventually("three seconds have gone", || (began.elapsed() >= Duration::from_secs(3)).then_some(())).await;
    let share = (used() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    // A busy host gives less, and the kernel settles accounts between processors a slice late.
    assert!((SHARE * 0.3..SHARE * 1.25).contains(&share), "a quota of {SHARE} cores gave {share:.3}");
}

#[tokio::test]
async fn groups_are_gone_with_their_instance_and_base_groups_with_their_keeper() {
    if !can_limit("groups_are_gone_with_their_instance_and_base_groups_with_their_keeper", &["memory", "cpu", "pids"]) {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let all = Limits { cpu_millicores: 500, pids_max: 100, ..memory_max(64) };
    let plan = limited(host.script("all", "sleep 600"), all);
    let groups = groups_of(node.launch(&plan).await);
    assert!(groups.iter().all(|group| group.exists()), "{groups:?}");
    node.client.kill(plan.run);
    node.exit(&plan).await;
    assert_eq!(groups.iter().filter(|group| group.exists()).count(), 0, "{groups:?}");
    node.client.shutdown(Duration::from_secs(5)).await;
    host.is_swept().await;
    let bases: Vec<_> = groups.iter().map(|group| group.parent().unwrap()).collect();
    assert_eq!(bases.iter().filter(|base| base.exists()).count(), 0, "{bases:?}");
}

/// All groups of a process that limits are in.
fn groups_of(pid: i32) -> Vec<PathBuf> {
    let limits = ["memory", "cpu", "pids"].map(|controller| group_of(pid, &place(controller).unwrap(), controller));
    limits.into_iter().chain([unified_group_of(pid)]).collect()
}

#[tokio::test]
async fn what_a_killed_keeper_leaves_is_swept_in_all_hierarchies() {
    if !can_limit("what_a_killed_keeper_leaves_is_swept_in_all_hierarchies", &["memory", "cpu", "pids"]) {
        return;
    }
    let mut host = Host::new();
    let parent = Parent::new(&host);
    let node = &mut host.node().await;
    let all = Limits { cpu_millicores: 500, pids_max: 100, ..memory_max(64) };
    let plain = limited(host.script("plain", "sleep 600"), all.clone());
    let named = limited(host.script("named", "sleep 600"), Limits { cgroup_parent: Some(parent.name.clone()), ..all });
    let mut groups = groups_of(node.launch(&plain).await);
    groups.extend(groups_of(node.launch(&named).await));
    node.task.abort();
    host.kill_keeper();
    host.is_swept().await;
    let bases: Vec<_> = groups.iter().map(|group| group.parent().unwrap()).collect();
    assert_eq!(bases.iter().filter(|base| base.exists()).count(), 0, "{bases:?}");
    assert_eq!(sweep_leftovers(host.layout.root()).unwrap(), 0);
}

/// A group for a specification to name, beneath the group that this test is in wherever that is one of memory, so that the limit of
/// the test's own group goes on holding. Removed at the end.
struct Parent {
    name: String,
}

impl Parent {
    fn new(host: &Host) -> Self {
        let own = match place("memory") {
            Some(memory) if !memory.is_unified => {
                let group = group_of(std::process::id().cast_signed(), &memory, "memory");
                format!("{}/", group.strip_prefix(&memory.point).unwrap().display())
            }
            _ => String::new(),
        };
        let unique = host.layout.root().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        Self { name: format!("{}limits-{unique}/inner", own.trim_start_matches('/')) }
    }

    /// Its folders, the innermost first, and those above them that only it needs.
    fn folders(&self) -> Vec<PathBuf> {
        let points: Vec<_> = ["memory", "cpu", "pids"].iter().filter_map(|one| Some(place(one)?.point)).collect();
        let unified = unified_group_of(std::process::id().cast_signed());
        let point = unified.ancestors().filter(|path| path.join("cgroup.procs").exists()).last().unwrap().to_owned();
        let tops = points.into_iter().chain([point]);
        tops.map(|top| top.join(&self.name)).collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for folder in self.folders() {
            // What others use is not empty, and stays.
            for path in folder.ancestors().take(Path::new(&self.name).components().count()) {
                let _ = fs::remove_dir(path);
            }
        }
    }
}

#[tokio::test]
async fn groups_are_made_beneath_the_parent_that_is_named() {
    if !can_limit("groups_are_made_beneath_the_parent_that_is_named", &["memory", "cpu", "pids"]) {
        return;
    }
    let mut host = Host::new();
    let parent = Parent::new(&host);
    let mut node = host.node().await;
    let all = Limits { cpu_millicores: 500, pids_max: 100, ..memory_max(64) };
    for (service, name) in [("bare", parent.name.clone()), ("rooted", format!("/{}", parent.name))] {
        let limits = Limits { cgroup_parent: Some(name), ..all.clone() };
        let plan = limited(host.script(service, "sleep 600"), limits);
        let groups = groups_of(node.launch(&plan).await);
        for (group, folder) in groups.iter().zip(parent.folders()) {
            assert!(group.starts_with(&folder), "{} is not beneath {}", group.display(), folder.display());
        }
        assert_eq!(number(&groups[2].join("pids.max")), 100);
        node.client.kill(plan.run);
        node.exit(&plan).await;
    }
    let plan = limited(
        host.script("outside", "exit 0"),
        Limits { cgroup_parent: Some("../elsewhere".to_owned()), ..Limits::default() },
    );
    let error = node.launch_failing(&plan).await;
    assert_eq!(error, "cannot use `cgroupParent: ../elsewhere`: it leads out of the hierarchy");
    // What was made for it goes with the keeper.
    node.client.shutdown(Duration::from_secs(5)).await;
    host.is_swept().await;
    let left: Vec<_> = parent.folders().into_iter().filter(|folder| folder.exists()).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
}

/// The lines that the keeper tells of a launch that leaves out what it cannot do.
async fn missing(node: &mut Node, plan: &LaunchPlan) -> Vec<String> {
    node.launch(plan).await;
    let run = plan.run;
    let enforced = node.when(|event| match event {
        ProcessEvent::Launched { run: of, enforced, .. } if *of == run => Some(enforced.clone()),
        _ => None,
    });
    enforced.await.missing
}

#[tokio::test]
async fn a_hierarchy_that_cannot_be_written_fails_the_start_or_is_told() {
    let test = "a_hierarchy_that_cannot_be_written_fails_the_start_or_is_told";
    if !can_limit(test, &["cpu"]) {
        return;
    }
    let cpu = place("cpu").unwrap();
    let mut host = Host::new();
    // As containers have it. The mount of this keeper alone is changed.
    let script = r#"mount -o remount,bind,ro "$1" && exec "$2" keeper --data-dir "$3""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&cpu.point).arg(host::exe()).arg(host.layout.root());
    let mut keeper = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("unshare starts");
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let plan = limited(host.script("slow", "sleep 600"), Limits { cpu_millicores: 500, ..Limits::default() });
    let error = node.launch_failing(&plan).await;
    assert!(error.contains("read-only file system") && error.contains(cpu.point.to_str().unwrap()), "{error}");
    let mut plan = limited(host.script("slow", "sleep 600"), Limits { cpu_millicores: 500, ..Limits::default() });
    plan.confinement.best_effort = true;
    let missing = missing(&mut node, &plan).await;
    assert_eq!(missing, [error]);
    // Nobody asked for anything.
    let plain = host.script("plain", "exit 8");
    assert_eq!(node.run(&plain).await, (Some(8), None));
    drop(node);
    host.kill_keeper();
    keeper.wait().unwrap();
}

#[tokio::test]
async fn a_limit_that_the_kernel_refuses_names_file_and_value() {
    if !can_limit("a_limit_that_the_kernel_refuses_names_file_and_value", &["pids"]) {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    // More processes than the kernel can number.
    let plan = limited(host.script("many", "exit 0"), Limits { pids_max: u32::MAX, ..Limits::default() });
    let error = node.launch_failing(&plan).await;
    assert!(error.starts_with("cannot limit processes: cannot write `4294967295` to `/"), "{error}");
    assert!(error.ends_with("/pids.max`: invalid argument"), "{error}");
    // Nothing is left of the attempt.
    let group = error.split('`').nth(3).map(|path| Path::new(path).parent().unwrap().to_owned()).unwrap();
    assert!(!group.exists(), "{}", group.display());
    let other = host.script("other", "exit 0");
    assert_eq!(node.run(&other).await, (Some(0), None));
}

#[tokio::test]
async fn limits_that_an_unprivileged_user_cannot_have_are_refused_or_told() {
    if !host::is_unprivileged() {
        // It is run as such a user by the test below.
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let parent = Limits { cgroup_parent: Some("batch".to_owned()), ..Limits::default() };
    let asked = [
        (memory_max(64), "cannot limit memory: "),
        (Limits { cpu_millicores: 500, ..Limits::default() }, "cannot limit processor time: "),
        (Limits { pids_max: 10, ..Limits::default() }, "cannot limit processes: "),
        (parent, "cannot use `cgroupParent: batch`: "),
    ];
    for (limits, beginning) in asked {
        let mut plan = limited(host.script("limited", "exit 0"), limits);
        let error = node.launch_failing(&plan).await;
        assert!(error.starts_with(beginning), "{error}");
        plan = LaunchPlan { run: host.plan("again", "none").run, ..plan };
        plan.confinement.best_effort = true;
        assert_eq!(missing(&mut node, &plan).await, [error]);
    }
    let plain = host.script("plain", "exit 8");
    assert_eq!(missing(&mut node, &plain).await, [] as [String; 0]);
}

#[test]
fn an_unprivileged_user_is_told_what_cannot_be_limited() {
    let test = "an_unprivileged_user_is_told_what_cannot_be_limited";
    if host::is_unprivileged() {
        return;
    }
    if !host::is_root() {
        return skip(test, "only root can become another user");
    }
    let nobody = |command: &str| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", command]);
        setpriv
    };
    if !nobody("unshare").args(["--user", "--pid", "--fork", "true"]).status().is_ok_and(|status| status.success()) {
        return skip(test, "unprivileged user namespaces, setpriv or unshare are not to be had here");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let (tests, exe) = (dir.path().join("tests"), dir.path().join("narun"));
    // By another process, for a file that this one has written may be held open by a child of another test.
    for (from, to) in [(std::env::current_exe().unwrap(), &tests), (host::exe(), &exe)] {
        assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
    }
    let name = "limits::limits_that_an_unprivileged_user_cannot_have_are_refused_or_told";
    let mut again = nobody(tests.to_str().unwrap());
    again.args([name, "--exact"]).env("TMPDIR", dir.path()).env(host::EXE_VARIABLE, &exe);
    again.env_remove("CI").env_remove("NARUN_TEST_SKIPS");
    let output = again.current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn any_node_tells_what_the_instances_of_all_use() {
    if !can_limit("any_node_tells_what_the_instances_of_all_use", &["memory", "cpu", "pids"]) {
        return;
    }
    let mut cluster = Cluster::start(2);
    // Some memory that stays, a second process, and work for a quarter of a core.
    let script = cluster.script(
        "worker",
        "sleep 600 & x=$(head -c 4000000 /dev/zero | tr '\\0' x); while :; do :; done; echo $x > /dev/null",
    );
    let fields = "name: used\ntag: v1\nnodes: [{name: n1, replicas: 1}, {name: n2, replicas: 1}]\nmemoryMaxMB: 64\ncpuCores: 0.25\n";
    let spec = cluster.file("spec.yaml", fields);
    cluster[0].ok(&["deploy", "--config", &spec, &script, "--wait"]);
    let usage = |node: usize| cluster[node].json(&["service", "info", "used"])["usage"].clone();
    let told = cluster::eventually("usage of both instances, at work by now", || {
        let usage = usage(1);
        let all = usage["instances"].as_array()?;
        let above = |one: &Value, key: &str, least: u64| one[key].as_u64().is_some_and(|number| number > least);
        let is_at_work = |one: &Value| above(one, "throttled_us", 0) && above(one, "memory", 4 * MEBIBYTE);
        (all.len() == 2 && all.iter().all(is_at_work)).then(|| usage.clone())
    });
    assert_eq!(told["silent"], Value::Array(Vec::new()));
    for (one, node) in told["instances"].as_array().unwrap().iter().zip(["n1", "n2"]) {
        let number = |key: &str| one[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {one}"));
        assert_eq!((&one["instance"], &one["node"]), (&Value::from("used-0"), &Value::from(node)), "{told}");
        assert_eq!((number("memory_max"), &one["memory_is_summed"]), (64 * MEBIBYTE, &Value::from(false)));
        assert!(number("memory") <= 64 * MEBIBYTE, "{one}");
        assert!(number("memory_peak") >= number("memory"), "{one}");
        assert!(number("cpu_us") > 10_000, "{one}");
        assert!((2..10).contains(&number("pids")), "{one}");
        assert_eq!((number("pids_max"), number("oom_kills")), (u64::from(PIDS_MAX), 0));
        if place("cpu").unwrap().is_unified {
            assert!(one["cpu_pressure"]["some_percent"].is_number(), "{one}");
        }
    }
    let table = cluster[0].ok(&["service", "info", "used"]);
    let heading = table.lines().position(|line| line == "Usage").map(|at| table.lines().nth(at + 1).unwrap());
    let words: Vec<_> = heading.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["INSTANCE", "NODE", "MEMORY", "PEAK", "CPU", "THROTTLED", "PIDS", "OOM_KILLS"], "{table}");

    // A node that cannot answer is named, soon, and what the others know is shown.
    cluster.named("n2").crash();
    let began = Instant::now();
    let told = cluster[0].json(&["service", "info", "used"])["usage"].clone();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(told["instances"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["silent"][0]["node"], "n2", "{told}");
}

#[test]
fn memory_that_was_used_up_is_told_with_the_instance() {
    if !can_limit("memory_that_was_used_up_is_told_with_the_instance", &["memory"]) {
        return;
    }
    let cluster = Cluster::start(1);
    let script = cluster.script("bomb", BOMB);
    let spec = cluster.file("spec.yaml", "name: bomb\ntag: v1\nreplicas: 1\nmemoryMaxMB: 32\n");
    cluster[0].ok(&["deploy", "--config", &spec, &script]);
    cluster::eventually("the reason", || {
        let told = cluster[0].instances("bomb");
        told.iter().any(|one| one.error == "ended by signal 9: it used up its memory").then_some(())
    });
}

/// A group of version 2 that a keeper is started in, as a service manager does. Removed at the end.
struct Service {
    path: PathBuf,
    others: Vec<Child>,
}

impl Service {
    /// None where version 2 has no controllers, so that it does not matter who else is in a group.
    fn new(host: &Host) -> Option<Self> {
        let memory = place("memory").filter(|memory| memory.is_unified)?;
        let unique = host.layout.root().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let path = memory.point.join(format!("limits-{unique}.service"));
        fs::create_dir(&path).unwrap();
        Some(Self { path, others: Vec::new() })
    }

    /// Starts a program in it.
    fn start(&mut self, program: &Path, arguments: &[&str]) {
        let script = r#"echo 0 > "$1/cgroup.procs"; shift; exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&self.path).arg(program).args(arguments);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell starts");
        self.others.push(child);
    }

    fn start_keeper(&mut self, host: &Host) {
        self.start(&host::exe(), &["keeper", "--data-dir", host.layout.root().to_str().unwrap()]);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for child in &mut self.others {
            // It may have ended as it was told to.
            let _ = child.kill();
            let _ = child.wait();
        }
        let left = [self.path.join("narun.node"), self.path.clone()].map(|path| fs::remove_dir(&path));
        assert!(left[1].is_ok() || std::thread::panicking(), "{}: {:?}", self.path.display(), left);
    }
}

#[tokio::test]
async fn a_keeper_divides_the_group_that_it_was_given() {
    if !can_limit("a_keeper_divides_the_group_that_it_was_given", &["memory", "cpu", "pids"]) {
        return;
    }
    let mut host = Host::new();
    // Asserted in the virtual machine, where version 2 has the controllers.
    let Some(mut service) = Service::new(&host) else { return };
    service.start_keeper(&host);
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let keeper = unified_group_of(host.keeper_pid().unwrap());
    assert_eq!(keeper, service.path.join("narun.node"), "where it is in nobody's way");
    let plan = limited(host.script("held", "sleep 600"), memory_max(64));
    let group = unified_group_of(node.launch(&plan).await);
    assert_eq!(group.parent().unwrap().parent(), Some(&*service.path), "{}", group.display());
    assert_eq!(number(&group.join("memory.max")), 64 * MEBIBYTE);
    // The next keeper finds itself in the leaf, as the node does that a service manager starts there.
    node.client.shutdown(Duration::from_secs(5)).await;
    host.is_swept().await;
    assert!(!group.parent().unwrap().exists());
}

#[tokio::test]
async fn nobody_elses_processes_are_moved_and_the_groups_are_made_elsewhere() {
    if !can_limit("nobody_elses_processes_are_moved_and_the_groups_are_made_elsewhere", &["memory", "cpu", "pids"]) {
        return;
    }
    let mut host = Host::new();
    // Asserted in the virtual machine, where version 2 has the controllers.
    let Some(mut service) = Service::new(&host) else { return };
    service.start(Path::new("sleep"), &["600"]);
    service.start_keeper(&host);
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    assert_eq!(unified_group_of(host.keeper_pid().unwrap()), service.path);
    let plan = limited(host.script("held", "sleep 600"), memory_max(64));
    let group = unified_group_of(node.launch(&plan).await);
    assert_eq!(group.parent().unwrap().parent(), service.path.parent(), "beneath the root");
    assert_eq!(number(&group.join("memory.max")), 64 * MEBIBYTE);
    // Where it is named all the same, the reason is told.
    let parent = service.path.file_name().unwrap().to_str().unwrap().to_owned();
    let plan =
        limited(host.script("named", "exit 0"), Limits { cgroup_parent: Some(parent.clone()), ..memory_max(64) });
    let error = node.launch_failing(&plan).await;
    assert!(error.starts_with("cannot limit memory: the cgroup `"), "{error}");
    assert!(error.contains("holds processes that are not narun's, such as") && error.contains("(`sleep`)"), "{error}");
    node.client.shutdown(Duration::from_secs(5)).await;
    host.is_swept().await;
}
