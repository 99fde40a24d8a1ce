//! A newer node meets an older keeper: one that speaks the first version of the protocol only.

use std::os::fd::AsRawFd;

use narun::confinement::{Confinement, Limits};
use narun::exec::plan::LaunchPlan;
use narun::node::shells::Processes;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};

use crate::host::{Host, eventually, lives};

/// Asks the keeper for a start as a node of the first version does, and goes away.
fn launch_as_an_older_node(host: &Host, plan: &LaunchPlan) {
    let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let address = UnixAddr::new(&host.layout.keeper_socket()).expect("a short path");
    socket::connect(fd.as_raw_fd(), &address).expect("the keeper listens");
    let send = |message: Vec<u8>| {
        // The form of a packet, and that the message stands in it.
        let packet = [vec![1, 0], message].concat();
        socket::send(fd.as_raw_fd(), &packet, MsgFlags::empty()).expect("the keeper reads");
    };
    let mut hello = Vec::new();
    let mut e = minicbor::Encoder::new(&mut hello);
    e.array(2).unwrap().u8(0).unwrap().map(2).unwrap().u8(0).unwrap().u8(1).unwrap().u8(1).unwrap().u8(1).unwrap();
    send(hello);
    let mut launch = Vec::new();
    let mut e = minicbor::Encoder::new(&mut launch);
    e.array(2).unwrap().u8(1).unwrap().map(1).unwrap().u8(0).unwrap().encode(plan).unwrap();
    send(launch);
    // Not before it was read: what is sent to a closed connection is lost.
    let mut answer = [0; 4096];
    let len = socket::recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("the keeper answers");
    assert!(len > 0, "the keeper hung up");
}

/// A plan that an older keeper would carry out without its limits. Where these tests run unprivileged, a newer one must say so.
fn limited(plan: &LaunchPlan) -> LaunchPlan {
    let limits = Limits { pids_max: 100, ..Limits::default() };
    LaunchPlan { confinement: Confinement { limits, best_effort: true, ..Confinement::default() }, ..plan.clone() }
}

#[tokio::test]
async fn an_older_keeper_is_used_while_it_holds_something_and_then_replaced() {
    let mut host = Host::new();
    let keeper = OwnedProcess(host.start_keeper(&["--speak-at-most", "1"]));
    let old = keeper.0.id().cast_signed();
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let held = host.script("held", "touch up; while [ ! -e go ]; do sleep 0.02; done; exit 6");
    launch_as_an_older_node(&host, &held);
    eventually("it to run", || held.work_dir.join("up").exists().then_some(())).await;

    let mut node = host.node().await;
    assert_eq!(host.keeper_pid(), Some(old), "it holds something, and goes on");
    // What it can do it is asked for, what it cannot do is not.
    let plain = host.script("plain", "exit 7");
    assert_eq!(node.run(&plain).await, (Some(7), None));
    let plan = host.script("limited", "exec sleep 600");
    let error = node.launch_failing(&limited(&plan)).await;
    assert!(error.contains("older version of narun") && error.contains("`narun stop`"), "{error}");

    // It falls empty: another one takes its place, and nothing is said of a loss.
    std::fs::write(held.work_dir.join("go"), "").unwrap();
    let ended = node.exit(&held).await;
    assert_eq!(ended.code, Some(6));
    assert_eq!(host.keeper_pid(), Some(old), "until its exits were acknowledged");
    node.client.acknowledge(plain.run);
    node.client.acknowledge(held.run);
    let again = LaunchPlan { run: narun::ids::RunId([99; 16]), ..limited(&plan) };
    let pid = node.launch(&again).await;
    assert!(lives(pid) && !lives(old));
    assert_ne!(host.keeper_pid(), Some(old));
    assert_eq!(node.count(|event| *event == narun::exec::plan::ProcessEvent::KeeperLost), 0);
}

#[tokio::test]
async fn an_older_keeper_that_holds_nothing_is_replaced_when_it_is_met() {
    let mut host = Host::new();
    let keeper = OwnedProcess(host.start_keeper(&["--speak-at-most", "1"]));
    let old = keeper.0.id().cast_signed();
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let plan = limited(&host.script("limited", "exec sleep 600"));
    assert!(lives(node.launch(&plan).await));
    assert!(!lives(old));
}

#[tokio::test]
async fn an_older_keeper_ends_when_it_is_told_to() {
    let mut host = Host::new();
    let keeper = OwnedProcess(host.start_keeper(&["--speak-at-most", "1"]));
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let held = host.script("held", "exec sleep 600");
    launch_as_an_older_node(&host, &held);
    let node = host.node().await;
    node.client.shutdown(narun::exec::keeper::SHUTDOWN_GRACE_MAX).await;
    let pid = keeper.0.id().cast_signed();
    eventually("its end", || (!lives(pid)).then_some(())).await;
}

/// A child that is reaped with the test.
struct OwnedProcess(std::process::Child);

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        // It has ended, or ends here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
