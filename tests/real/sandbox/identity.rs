//! Who a program runs as, with which capabilities, and where.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use narun::confinement::Capabilities;
use narun::exec::logs::Stream;
use narun::exec::plan::{Identity, LaunchPlan};

use super::{capabilities, expect, probe};
use crate::host::{Host, Node, is_root};
use crate::skip::skip;

/// What root's programs keep where nothing is said: the documented set.
const DEFAULT: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"];

/// Lets other users pass to the programs and working directories of a host.
fn open(host: &Host) {
    fs::set_permissions(host.layout.root(), fs::Permissions::from_mode(0o711)).unwrap();
}

/// Runs a program that shows its status, and gives the lines of that.
async fn status(host: &mut Host, node: &mut Node, change: impl FnOnce(&mut LaunchPlan)) -> BTreeMap<String, String> {
    let mut plan = host.script("status", "cat /proc/self/status; echo USER: $USER; pwd");
    plan.env.push(("USER".to_owned(), plan.confinement.user.clone().unwrap_or_default()));
    change(&mut plan);
    if let Some(user) = &plan.confinement.user {
        plan.env.retain(|(name, _)| name != "USER");
        plan.env.push(("USER".to_owned(), user.clone()));
    }
    assert_eq!(node.run(&plan).await, (Some(0), None), "{:?}", host.log(&plan));
    let lines = host.text(&plan, Stream::Stdout);
    assert_eq!(lines.last().map(Path::new), Some(plan.work_dir.as_path()));
    let pair = |line: &String| line.split_once(':').map(|(name, value)| (name.to_owned(), words(value)));
    lines.iter().filter_map(pair).collect()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn set(status: &BTreeMap<String, String>, name: &str) -> Capabilities {
    Capabilities(u64::from_str_radix(&status[name], 16).unwrap())
}

/// What this process, and so the keeper, may do.
fn own_capabilities() -> Capabilities {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
    Capabilities(u64::from_str_radix(line.trim(), 16).unwrap())
}

#[tokio::test]
async fn a_program_runs_as_its_user_with_its_groups_and_nothing_of_roots() {
    if !is_root() {
        return skip("a_program_runs_as_its_user_with_its_groups_and_nothing_of_roots", "only root can become another");
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    open(&host);
    for name in ["nobody", "65534"] {
        let status = status(&mut host, &mut node, |plan| plan.confinement.user = Some(name.to_owned())).await;
        assert_eq!(status["Uid"], "65534 65534 65534 65534");
        assert_eq!((status["Gid"].as_str(), status["Groups"].as_str()), ("65534 65534 65534 65534", "65534"));
        assert_eq!(status["USER"], "nobody");
        for kind in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(set(&status, kind), Capabilities::default(), "{kind}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
    }
    let identity = Identity { name: "someone".to_owned(), uid: 4321, gid: 4322, groups: vec![4322, 4, 27, 30_000] };
    let plan_of = |plan: &mut LaunchPlan| {
        plan.confinement.user = Some("someone".to_owned());
        plan.identity = Some(identity);
    };
    let status = status(&mut host, &mut node, plan_of).await;
    assert_eq!((status["Uid"].as_str(), status["Gid"].as_str()), ("4321 4321 4321 4321", "4322 4322 4322 4322"));
    assert_eq!(status["Groups"], "4 27 4322 30000");
}

#[tokio::test]
async fn the_working_directory_is_the_users_alone() {
    if !is_root() {
        return skip("the_working_directory_is_the_users_alone", "only root can become another user");
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    open(&host);
    let mut plan = probe(&mut host, "owner", &[]);
    plan.confinement.user = Some("nobody".to_owned());
    let work_dir = plan.work_dir.clone();
    let absolute = format!("read:{}/new", work_dir.display());
    let data = format!("list:{}", host.layout.root().display());
    expect(&host, &mut node, plan, &[("create:new", "ok"), (&absolute, "ok"), (&data, "EACCES")]).await;
    let look = |path: &Path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.uid(), metadata.mode() & 0o7777)
    };
    assert_eq!(look(&work_dir), (65534, 0o700));
    // The next run is root's again.
    let plan = host.script("owner", "true");
    node.run(&plan).await;
    assert_eq!(look(&work_dir), (0, 0o700));

    // A link in its place is not followed, and what it leads to is given to nobody.
    let target = host.layout.root().join("target");
    fs::create_dir(&target).unwrap();
    fs::remove_dir_all(&work_dir).unwrap();
    symlink(&target, &work_dir).unwrap();
    let mut plan = probe(&mut host, "owner", &[]);
    plan.confinement.user = Some("nobody".to_owned());
    let error = node.launch_failing(&plan).await;
    assert!(error.ends_with("a symbolic link stands in its place"), "{error}");
    assert_eq!(look(&target).0, 0);
}

#[tokio::test]
async fn a_directory_that_is_closed_to_the_user_is_named() {
    if !is_root() {
        return skip("a_directory_that_is_closed_to_the_user_is_named", "only root can become another user");
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    fs::set_permissions(host.layout.root(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut plan = probe(&mut host, "closed", &[]);
    plan.confinement.user = Some("nobody".to_owned());
    let error = node.launch_failing(&plan).await;
    let root = host.layout.root().display();
    assert!(error.contains(&format!("`{root}` is closed to it\nhint: `chmod o+x {root}`")), "{error}");
}

#[tokio::test]
async fn a_user_that_cannot_be_had_is_refused_by_name() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = host.script("stranger", "true");
    plan.confinement.user = Some("no-such-user".to_owned());
    // Not even where less is allowed.
    plan.confinement.best_effort = true;
    let error = node.launch_failing(&plan).await;
    assert!(error.starts_with("cannot run as `no-such-user`: this host has no such user"), "{error}");
    if is_root() {
        return;
    }
    // SAFETY: only asks.
    let own = unsafe { libc::geteuid() };
    let status = status(&mut host, &mut node, |plan| plan.confinement.user = Some(own.to_string())).await;
    assert_eq!(status["Uid"].split(' ').next(), Some(own.to_string().as_str()));
    let mut plan = host.script("root", "true");
    plan.confinement.user = Some("root".to_owned());
    let error = node.launch_failing(&plan).await;
    let expected =
        format!("cannot run as `root`: narun runs as user {own} here, and only root can become another user");
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_launch_that_is_killed_while_its_user_is_looked_up_is_answered() {
    use narun::exec::plan::ProcessEvent;
    use narun::node::shells::Processes;
    let mut host = Host::new();
    let mut node = host.node().await;
    let mut plan = host.script("hasty", "exec sleep 600");
    plan.confinement.user = Some("0".to_owned());
    node.client.launch(plan.clone());
    node.client.kill(plan.run);
    let over = |event: &ProcessEvent| match event {
        ProcessEvent::LaunchFailed { run, .. } | ProcessEvent::Exited { run, .. } if *run == plan.run => Some(()),
        _ => None,
    };
    node.when(over).await;
}

#[tokio::test]
async fn capabilities_are_what_is_documented_or_asked_for() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let own = own_capabilities();
    let shown =
        |status: &BTreeMap<String, String>| [set(status, "CapPrm"), set(status, "CapEff"), set(status, "CapBnd")];
    if !is_root() {
        let status = status(&mut host, &mut node, |_| {}).await;
        assert_eq!(set(&status, "CapPrm"), Capabilities::default());
        assert_eq!(set(&status, "CapAmb"), Capabilities::default());
        let mut plan = host.script("wants", "true");
        plan.confinement.capabilities = capabilities(&["NET_RAW", "NET_BIND_SERVICE"]);
        let error = node.launch_failing(&plan).await;
        assert_eq!(error, "cannot keep NET_BIND_SERVICE, NET_RAW: narun itself does not have them");
        let mut plan = host.script("takes", "true");
        plan.confinement.capabilities = capabilities(&["NET_RAW"]);
        plan.confinement.best_effort = true;
        assert_eq!(node.run(&plan).await, (Some(0), None));
        let missing = node.enforced(&plan).await.missing;
        assert!(missing.contains(&"cannot keep NET_RAW: narun itself does not have it".to_owned()), "{missing:?}");
        return;
    }
    open(&host);
    for (asked, kept) in [
        (None, capabilities(&DEFAULT).unwrap()),
        (capabilities(&["NET_RAW", "CHOWN"]), capabilities(&["NET_RAW", "CHOWN"]).unwrap()),
        (Some(Capabilities::default()), Capabilities::default()),
        (Some(Capabilities::ALL), own),
    ] {
        let status = status(&mut host, &mut node, |plan| plan.confinement.capabilities = asked).await;
        assert_eq!(shown(&status), [kept; 3], "{asked:?}");
        assert_eq!(set(&status, "CapInh"), Capabilities::default());
    }
    // Another user's program has them at hand though its file has none.
    let mut other = |asked: Option<Capabilities>| {
        let mut plan = probe(&mut host, "port", &[]);
        plan.confinement.user = Some("nobody".to_owned());
        plan.confinement.capabilities = asked;
        plan
    };
    let (with, without) = (other(capabilities(&["NET_BIND_SERVICE"])), other(None));
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim() == "1024" {
        expect(&host, &mut node, with, &[("bind:987", "ok")]).await;
        expect(&host, &mut node, without, &[("bind:987", "EACCES")]).await;
    }
    let lacking: Vec<&str> = Capabilities(Capabilities::ALL.0 & !own.0).names().collect();
    if let Some(name) = lacking.first() {
        let mut plan = host.script("wants", "true");
        plan.confinement.capabilities = capabilities(&[name]);
        let error = node.launch_failing(&plan).await;
        assert_eq!(error, format!("cannot keep {name}: narun itself does not have it"));
    }
}
