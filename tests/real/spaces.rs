//! Namespaces of an instance's own, with real processes: what it sees, what it does not, and what it reaches all the same.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use narun::confinement::{Confinement, LocalPort, Namespaces, Network, Protocol};
use narun::exec::logs::Stream;
use narun::exec::plan::{LaunchPlan, ProcessEvent};
use narun::node::shells::Processes;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};

use crate::host::{self, Host, Node, eventually, lives};
use crate::skip::skip;

const PID: Namespaces = Namespaces { pid: true, ipc: false, mount: false };
const IPC: Namespaces = Namespaces { pid: false, ipc: true, mount: false };
const MOUNT: Namespaces = Namespaces { pid: false, ipc: false, mount: true };
const ALL: Namespaces = Namespaces { pid: true, ipc: true, mount: true };

fn private(namespaces: Namespaces) -> Confinement {
    Confinement { namespaces, ..Confinement::default() }
}

fn nonet(ports: &[(u16, Protocol)]) -> Confinement {
    let port = |&(port, protocol): &(u16, Protocol)| LocalPort { port, protocol };
    Confinement { network: Network::Loopback(ports.iter().map(port).collect()), ..Confinement::default() }
}

/// A plan that runs a shell script.
fn script(host: &mut Host, name: &str, confinement: Confinement, text: &str) -> LaunchPlan {
    LaunchPlan { confinement, ..host.script(name, text) }
}

/// A plan that runs a Python program, which finds the forwarded port in its first argument.
fn python(host: &mut Host, name: &str, confinement: Confinement, port: u16, text: &str) -> LaunchPlan {
    let prelude = "import socket, sys, time\nport = int(sys.argv[1])\nsay = lambda *words: print(*words, flush=True)\n";
    let binary = host.file(name, &format!("{prelude}{text}"));
    let plan = host.plan(name, binary);
    LaunchPlan { confinement, interpreter: Some("python3".to_owned()), args: vec![port.to_string()], ..plan }
}

/// Runs to the end with success; gives the lines of standard output.
async fn output(host: &Host, node: &mut Node, plan: &LaunchPlan) -> Vec<String> {
    let ended = node.run(plan).await;
    assert_eq!(ended, (Some(0), None), "{:#?}", host.text(plan, Stream::Stderr));
    host.text(plan, Stream::Stdout)
}

/// How many descriptors the keeper has open; none where that may not be seen.
fn descriptors(host: &Host) -> Option<usize> {
    let folder = format!("/proc/{}/fd", host.keeper_pid().expect("a keeper"));
    match fs::read_dir(folder) {
        Ok(entries) => Some(entries.count()),
        Err(error) => {
            assert!(host::is_unprivileged(), "{error}");
            None
        }
    }
}

/// The same once a first instance has come and gone: some are opened with that, for all that follow.
async fn settled(host: &mut Host, node: &mut Node) -> Option<usize> {
    let plan = script(host, "first", Confinement::default(), "exit 0");
    node.run(&plan).await;
    node.client.acknowledge(plan.run);
    descriptors(host)
}

/// A listener of the host's on a port that is free for both protocols and not low.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers each connection once its client has said all: with the number of bytes and their sum, then the bytes.
fn serve_sums(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut bytes = Vec::new();
                // A client that breaks off gets no answer.
                if stream.read_to_end(&mut bytes).is_ok() {
                    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
                    let _ = writeln!(stream, "{} {sum}", bytes.len());
                    let _ = stream.write_all(&bytes);
                }
            });
        }
    });
}

// PID namespaces.

#[tokio::test]
async fn a_pid_namespace_shows_the_own_processes_alone() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let text = "echo $$ $(ls /proc | grep -c '^[0-9]')\nsleep 0 & wait\n\
                [ -e /proc/self/status ] && grep -c . /proc/sys/kernel/ostype\n\
                grep NSpid /proc/self/status | tr '\\t' ' '; while [ ! -e go ]; do sleep 0.02; done";
    let plan = script(&mut host, "own", private(PID), text);
    let pid = node.launch(&plan).await;
    eventually("its output", || (host.text(&plan, Stream::Stdout).len() == 3).then_some(())).await;
    // The host knows it by another number.
    assert!(lives(pid) && pid != 2);
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(String::from_utf8_lossy(&command).contains("own"), "{command:?}");
    fs::write(plan.work_dir.join("go"), "").unwrap();
    assert_eq!(node.exit(&plan).await.code, Some(0));
    let lines = host.text(&plan, Stream::Stdout);
    // The init, itself, a subshell, `ls` and `grep` at most.
    let (own, seen) = lines[0].split_once(' ').unwrap();
    assert_eq!(own, "2");
    assert!((2..=5).contains(&seen.parse::<u32>().unwrap()), "{lines:?}");
}

#[tokio::test]
async fn exit_codes_and_signals_pass_the_init_as_they_are() {
    let mut host = Host::new();
    let mut node = host.node().await;
    for code in [0, 1, 7, 127, 255] {
        let plan = script(&mut host, "exits", private(PID), &format!("exit {code}"));
        assert_eq!(node.run(&plan).await, (Some(code), None));
    }
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGRTMIN() + 3] {
        let plan = script(&mut host, "dies", private(PID), &format!("kill -{signal} $$; sleep 60"));
        assert_eq!(node.run(&plan).await, (None, Some(signal)), "signal {signal}");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_program_and_not_its_init() {
    let mut host = Host::new();
    let mut node = host.node().await;
    // A program without any handler: as the first process of its namespace it would not even notice.
    let plan = script(&mut host, "simple", private(PID), "exec sleep 600");
    node.launch(&plan).await;
    node.client.signal(plan.run, libc::SIGTERM);
    assert_eq!(node.exit(&plan).await.signal, Some(libc::SIGTERM));

    let text = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let plan = script(&mut host, "polite", private(PID), text);
    node.launch(&plan).await;
    eventually("the trap is set", || (host.text(&plan, Stream::Stdout) == ["ready"]).then_some(())).await;
    node.client.signal(plan.run, libc::SIGTERM);
    assert_eq!(node.exit(&plan).await.code, Some(3));
    assert_eq!(host.text(&plan, Stream::Stdout), ["ready", "bye"]);
}

#[tokio::test]
async fn the_init_reaps_orphans_and_cannot_be_killed_from_within() {
    let mut host = Host::new();
    let mut node = host.node().await;
    // Ends only when no zombie is left, and nothing else either.
    let text = "for i in 1 2 3 4 5 6 7 8 9; do (setsid sh -c 'exit 0' &); (sleep 0.05 &); done\n\
                kill -9 1; kill -TERM 1; sleep 0.1\n\
                while grep -qs '^State:.Z' /proc/[0-9]*/status || [ $(ls -d /proc/[0-9]* | wc -l) -gt 5 ]; do sleep 0.02; done\n\
                echo $(ls -d /proc/[0-9]* | wc -l)";
    let plan = script(&mut host, "parent", private(PID), text);
    let lines = output(&host, &mut node, &plan).await;
    // The init, the shell, and what counts them.
    assert!(lines[0].parse::<u32>().unwrap() <= 5, "{lines:?}");
}

#[tokio::test]
async fn nothing_of_a_pid_namespace_outlives_its_program() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let text = "trap '' TERM; (setsid sh -c 'trap \"\" TERM HUP; touch away; sleep 600' &)\n\
                while [ ! -e away ]; do sleep 0.02; done; exec sleep 600";
    let plan = script(&mut host, "runaway", private(PID), text);
    let pid = node.launch(&plan).await;
    eventually("its child", || plan.work_dir.join("away").exists().then_some(())).await;
    let space = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    let members = || {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let inside = |pid: &i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|of| of == space);
        pids.filter(inside).filter(|pid| lives(*pid)).count()
    };
    // The init too, where it may be looked at.
    assert!(members() >= 2);
    node.client.kill(plan.run);
    assert_eq!(node.exit(&plan).await.signal, Some(libc::SIGKILL));
    assert_eq!(members(), 0);
}

// IPC and mounts.

#[tokio::test]
async fn an_ipc_namespace_hides_the_segments_of_the_host() {
    let mut host = Host::new();
    let mut node = host.node().await;
    // SAFETY: makes a segment, which is removed below.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) };
    assert!(id >= 0);
    let text = "sed 1d /proc/sysvipc/shm | awk '{print $2}'";
    let plan = script(&mut host, "without", Confinement::default(), text);
    let without = output(&host, &mut node, &plan).await;
    let plan = script(&mut host, "with", private(IPC), text);
    let with = output(&host, &mut node, &plan).await;
    // SAFETY: the segment is this test's own.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    assert!(without.contains(&id.to_string()), "{without:?}");
    assert_eq!(with, [""; 0]);
}

#[tokio::test]
async fn an_ipc_namespace_hides_the_queues_of_the_host() {
    if !host::is_root() {
        return;
    }
    let mut host = Host::new();
    // A host of its own making, since not all have a folder for them.
    let script_before = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mkdir /dev/mqueue /dev/shm && \
                         mount -t mqueue none /dev/mqueue && touch /dev/mqueue/of-the-host-$$";
    let _keeper = Reaped(host.start_keeper_among_mounts(script_before));
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let text = "ls /dev/mqueue | grep -c of-the-host; rm -f /dev/mqueue/of-the-host*; exit 0";
    let plan = script(&mut host, "with", private(IPC), text);
    assert_eq!(output(&host, &mut node, &plan).await, ["0"]);
    let plan = script(&mut host, "without", Confinement::default(), text);
    assert_eq!(output(&host, &mut node, &plan).await, ["1"]);
    node.client.shutdown(std::time::Duration::from_secs(1)).await;
}

/// The lines of /proc/self/mountinfo about these mount points.
fn mounted(points: &[&str]) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_one = |line: &&str| line.split(' ').nth(4).is_some_and(|point| points.contains(&point));
    text.lines().filter(is_one).map(str::to_owned).collect()
}

#[tokio::test]
async fn private_mounts_are_empty_and_the_host_sees_nothing_of_them() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let points = ["/", "/tmp", "/dev/shm", "/proc"];
    let before = mounted(&points);
    let marks = ["/tmp", "/dev/shm"].map(|folder| tempfile::NamedTempFile::new_in(folder).unwrap());
    let [first, second] = marks.each_ref().map(|mark| mark.path().display().to_string());
    let text = format!(
        "for mark in {first} {second}; do [ -e $mark ] && echo seen $mark; done\n\
         stat -c '%a %n' /tmp /dev/shm\n\
         awk '$5 == \"/tmp\" || $5 == \"/dev/shm\" {{print $5, $6}}' /proc/self/mountinfo | tail -2\n\
         echo x > /tmp/inside && echo x > /dev/shm/inside && echo written\n\
         echo kept > kept; pwd"
    );
    let mut confinement = private(MOUNT);
    let plan = script(&mut host, "private", confinement.clone(), &text);
    let lines = output(&host, &mut node, &plan).await;
    let options = |point: &str| format!("{point} rw,nosuid,nodev,relatime");
    let expected = ["1777 /tmp".to_owned(), "1777 /dev/shm".to_owned(), options("/tmp"), options("/dev/shm")];
    assert_eq!(lines[..4], expected);
    assert_eq!(lines[4..], ["written".to_owned(), plan.work_dir.display().to_string()]);
    // The working directory is the same one, though it lies beneath what is covered.
    assert_eq!(fs::read_to_string(plan.work_dir.join("kept")).unwrap(), "kept\n");
    assert!(!fs::exists("/tmp/inside").unwrap() && !fs::exists("/dev/shm/inside").unwrap());

    confinement.namespaces = ALL;
    let plan = script(&mut host, "all", confinement, "echo $$; ls -A /tmp /dev/shm | grep -c inside; cat kept");
    fs::create_dir_all(&plan.work_dir).unwrap();
    fs::write(plan.work_dir.join("kept"), "from outside\n").unwrap();
    assert_eq!(output(&host, &mut node, &plan).await, ["2", "0", "from outside"]);
    assert_eq!(mounted(&points), before);
}

// The network.

/// A process in a network namespace of its own. Ends with the test.
struct OtherNetwork(Reaped);

impl OtherNetwork {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        // SAFETY: a single system call, which allocates nothing and takes no lock.
        unsafe { sleep.pre_exec(|| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?)) };
        Self(Reaped(sleep.arg("600").spawn().expect("a network namespace")))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.0.id())
    }
}

fn joins(path: impl Into<String>) -> Confinement {
    Confinement { network: Network::Join(path.into()), ..Confinement::default() }
}

#[tokio::test]
async fn a_network_namespace_is_joined_by_its_path() {
    let mut host = Host::new();
    let mut node = host.node().await;
    if !host::is_root() {
        let plan = script(&mut host, "joins", joins("/proc/self/ns/net"), "exit 0");
        let error = node.launch_failing(&plan).await;
        let who = nix::unistd::geteuid();
        let words = "cannot join the network namespace `/proc/self/ns/net`: only root may, and this is user";
        assert_eq!(error, format!("{words} {who}"));
        return;
    }
    let other = OtherNetwork::new();
    for (name, namespaces) in [("joins", Namespaces::default()), ("joins-all", ALL)] {
        let confinement = Confinement { namespaces, ..joins(other.path()) };
        let plan = script(&mut host, name, confinement, "readlink /proc/self/ns/net; grep -c : /proc/net/dev");
        let lines = output(&host, &mut node, &plan).await;
        assert_eq!(lines, [fs::read_link(other.path()).unwrap().display().to_string(), "1".to_owned()]);
    }
}

#[tokio::test]
async fn what_is_no_network_namespace_is_not_joined() {
    let mut host = Host::new();
    if !host::is_root() {
        return;
    }
    let mut node = host.node().await;
    let root = host.layout.root().display().to_string();
    let pipe = host.layout.root().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let file = host.file("file", "");
    for path in ["/proc/self/ns/mnt", "/dev/null", &root, pipe.to_str().unwrap(), file.to_str().unwrap()] {
        let plan = script(&mut host, "joins", joins(path), "exit 0");
        assert_eq!(node.launch_failing(&plan).await, format!("`{path}` is not a network namespace"));
    }
    let nothing = format!("{root}/none");
    let plan = script(&mut host, "joins", joins(&nothing), "exit 0");
    let told = format!("cannot open the network namespace `{nothing}`: no such file or directory");
    assert_eq!(node.launch_failing(&plan).await, told);

    // Unless its specification would rather go without.
    let confinement = Confinement { best_effort: true, ..joins(&nothing) };
    let plan = script(&mut host, "joins", confinement, "readlink /proc/self/ns/net");
    node.launch(&plan).await;
    assert_eq!(missing(&mut node, &plan).await, [told]);
    node.exit(&plan).await;
    let host_network = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(host.text(&plan, Stream::Stdout), [host_network.display().to_string()]);
}

#[tokio::test]
async fn without_network_there_is_a_loopback_and_nothing_else() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let text = r#"
say(*[line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line])
for address in ["192.0.2.1", "127.0.0.1"]:
    try:
        socket.create_connection((address, port), 5)
        say("reached", address)
    except OSError as error:
        say(address, error.strerror)
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
say("own loopback")
"#;
    let (_listener, port) = listener();
    let plan = python(&mut host, "alone", nonet(&[]), port, text);
    let expected = ["lo", "192.0.2.1 Network is unreachable", "127.0.0.1 Connection refused", "own loopback"];
    assert_eq!(output(&host, &mut node, &plan).await, expected);
}

#[tokio::test]
async fn forwarded_connections_carry_both_directions_whole() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let (listener, port) = listener();
    serve_sums(listener);
    let text = r#"
connections = [socket.create_connection((host, port)) for _ in range(100) for host in ("127.0.0.1", "::1")]
for number, one in enumerate(connections):
    one.sendall(bytes([number]) * 1000)
for one in connections:
    one.shutdown(socket.SHUT_WR)
for number, one in enumerate(connections):
    answer = b"".join(iter(lambda: one.recv(65536), b""))
    assert answer == b"%d %d\n" % (1000, 1000 * number) + bytes([number]) * 1000, answer[:40]
say(len(connections))
"#;
    for (name, namespaces) in [("many", Namespaces::default()), ("many-private", ALL)] {
        let confinement = Confinement { namespaces, ..nonet(&[(port, Protocol::Tcp)]) };
        let plan = python(&mut host, name, confinement, port, text);
        assert_eq!(output(&host, &mut node, &plan).await, ["200"]);
    }
}

#[tokio::test]
async fn a_big_transfer_arrives_and_a_program_that_ends_at_once_has_sent_it_all() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let (sums, sums_port) = listener();
    serve_sums(sums);
    let (slow, slow_port) = listener();
    let received = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received);
    let go = Arc::new(AtomicUsize::new(0));
    let gate = Arc::clone(&go);
    thread::spawn(move || {
        let (mut stream, _) = slow.accept().unwrap();
        // It reads nothing before the program has long ended.
        while gate.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            counter.fetch_add(len, Ordering::SeqCst);
        }
    });
    let text = r#"
slow = int(sys.argv[2])
one = socket.create_connection(("127.0.0.1", port))
block = bytes(range(256)) * 4096
import threading
def send():
    for _ in range(24):
        one.sendall(block)
    one.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
answer = one.makefile("rb")
say(answer.readline().decode().strip())
count = 0
while part := answer.read(1 << 20):
    assert part == block[:len(part)], count
    count += len(part)
say(count)
last = socket.create_connection(("127.0.0.1", slow))
last.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4000000)
last.sendall(block[:400000])
"#;
    let confinement = nonet(&[(sums_port, Protocol::Tcp), (slow_port, Protocol::Tcp)]);
    let mut plan = python(&mut host, "big", confinement, sums_port, text);
    plan.args.push(slow_port.to_string());
    let size = 24 << 20;
    let sum: u64 = (0..256u64).sum::<u64>() * 4096 * 24;
    assert_eq!(output(&host, &mut node, &plan).await, [format!("{size} {sum}"), size.to_string()]);
    go.store(1, Ordering::SeqCst);
    eventually("its last words", || (received.load(Ordering::SeqCst) == 400_000).then_some(())).await;
}

#[tokio::test]
async fn datagrams_find_their_way_and_back() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok((len, from)) = server.recv_from(&mut buffer) {
            buffer[..len].make_ascii_uppercase();
            let _ = server.send_to(&buffer[..len], from);
        }
    });
    let before = settled(&mut host, &mut node).await;
    let text = r#"
def ask(one, what):
    one.settimeout(1)
    for _ in range(20):
        one.sendto(what, ("127.0.0.1", port))
        try:
            answer, source = one.recvfrom(70000)
            assert source == ("127.0.0.1", port), source
            return answer
        except TimeoutError:
            pass
some = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(400)]
for number, one in enumerate(some):
    assert ask(one, b"from %d" % number) == b"FROM %d" % number
# The first ones were forgotten for the last, and are known again when they speak.
for number in range(3):
    assert ask(some[number], b"again %d" % number) == b"AGAIN %d" % number
assert ask(some[0], b"") == b""
assert ask(some[0], b"x" * 60000) == b"X" * 60000
say("done")
while True:
    time.sleep(1)
"#;
    let plan = python(&mut host, "asks", nonet(&[(port, Protocol::Udp)]), port, text);
    node.launch(&plan).await;
    eventually("all answers", || (host.text(&plan, Stream::Stdout) == ["done"]).then_some(())).await;
    if let (Some(before), Some(now)) = (before, descriptors(&host)) {
        assert!((256..300).contains(&(now - before)), "{before} {now}");
    }
    node.client.kill(plan.run);
    node.exit(&plan).await;
    node.client.acknowledge(plan.run);
    eventually("all given back", || (descriptors(&host) <= before).then_some(())).await;
}

#[tokio::test]
async fn a_port_that_nobody_serves_on_the_host_is_reset() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let (listener, port) = listener();
    drop(listener);
    let text = r#"
try:
    # The reset may be faster than the return from connect(2).
    one = socket.create_connection(("127.0.0.1", port))
    say("got", one.recv(10))
except ConnectionResetError:
    say("reset")
"#;
    let plan = python(&mut host, "asks", nonet(&[(port, Protocol::Tcp)]), port, text);
    assert_eq!(output(&host, &mut node, &plan).await, ["reset"]);
}

#[tokio::test]
async fn the_descriptors_of_a_thousand_connections_are_given_back() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let before = settled(&mut host, &mut node).await;
    let (listener, port) = listener();
    serve_sums(listener);
    let text = r#"
def ask():
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(b"a")
    one.shutdown(socket.SHUT_WR)
    assert one.makefile("rb").read() == b"1 97\na"
ask()
say("one")
while not __import__("os").path.exists("go"):
    time.sleep(0.01)
for _ in range(1000):
    ask()
# Some that are broken off instead.
for _ in range(50):
    one = socket.create_connection(("127.0.0.1", port))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.sendall(b"b")
    one.close()
say("all")
while True:
    time.sleep(1)
"#;
    let plan = python(&mut host, "asks", nonet(&[(port, Protocol::Tcp)]), port, text);
    node.launch(&plan).await;
    eventually("one", || (host.text(&plan, Stream::Stdout) == ["one"]).then_some(())).await;
    let first = descriptors(&host);
    fs::write(plan.work_dir.join("go"), "").unwrap();
    eventually("all", || (host.text(&plan, Stream::Stdout) == ["one", "all"]).then_some(())).await;
    eventually("descriptors given back", || (descriptors(&host) <= first).then_some(())).await;
    node.client.kill(plan.run);
    node.exit(&plan).await;
    node.client.acknowledge(plan.run);
    eventually("those of the run too", || (descriptors(&host) <= before).then_some(())).await;
}

#[tokio::test]
async fn connections_survive_the_node_and_end_with_the_instance() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let (listener, port) = listener();
    let text = r#"
one = socket.create_connection(("127.0.0.1", port))
number = 0
while True:
    number += 1
    one.sendall(b"%d\n" % number)
    assert one.recv(100) == b"ok"
    time.sleep(0.005)
"#;
    let plan = python(&mut host, "talks", nonet(&[(port, Protocol::Tcp)]), port, text);
    node.launch(&plan).await;
    let (mut stream, _) = listener.accept().unwrap();
    let hear = |stream: &mut TcpStream| {
        let mut buffer = [0; 100];
        // An answer that its reader did not live to read makes a reset of the end.
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        let len = match stream.read(&mut buffer) {
            Err(error) if is_reset(&error) => 0,
            read => read.unwrap(),
        };
        let _ = stream.write_all(b"ok");
        String::from_utf8_lossy(&buffer[..len]).trim().parse::<u32>().ok()
    };
    stream.set_read_timeout(Some(host::WAIT_MAX)).unwrap();
    assert_eq!(hear(&mut stream), Some(1));
    node.vanish().await;
    for number in 2..20 {
        assert_eq!(hear(&mut stream), Some(number));
    }
    let mut node = host.node().await;
    node.client.kill(plan.run);
    node.exit(&plan).await;
    let end = std::iter::from_fn(|| hear(&mut stream)).take(1000).count();
    assert!(end < 1000, "the connection has not ended");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_reset_and_make_room_again() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let before = settled(&mut host, &mut node).await;
    let server = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(server.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    // They wait to be accepted, for ever.
    socket::listen(&server, Backlog::new(2000).unwrap()).unwrap();
    let port = TcpListener::from(server.try_clone().unwrap()).local_addr().unwrap().port();
    let text = r#"
import resource, select
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
some, early = [], 0
for _ in range(1100):
    try:
        some.append(socket.create_connection(("127.0.0.1", port)))
    except ConnectionResetError:
        # As above.
        early += 1
broken = []
while early + len(broken) < 1100 - 1024:
    # Nothing is ever sent to them: what is ready is broken.
    poll = select.poll()
    for one in some:
        poll.register(one, select.POLLIN)
    broken = poll.poll(50)
say(early + len(broken), all(events & select.POLLERR for _, events in broken))
for one in some:
    one.close()
while True:
    try:
        one = socket.create_connection(("127.0.0.1", port))
        one.settimeout(0.2)
        one.recv(1)
    except TimeoutError:
        say("room")
        break
    except ConnectionResetError:
        pass
time.sleep(600)
"#;
    let plan = python(&mut host, "leaks", nonet(&[(port, Protocol::Tcp)]), port, text);
    node.launch(&plan).await;
    eventually("the limit", || {
        assert!(host.text(&plan, Stream::Stderr).is_empty(), "{:?}", host.text(&plan, Stream::Stderr));
        (!host.text(&plan, Stream::Stdout).is_empty()).then_some(())
    })
    .await;
    assert_eq!(host.text(&plan, Stream::Stdout), ["76 True"]);
    // The host's ends are still open; only when they close too are the connections over.
    serve_sums(TcpListener::from(server));
    eventually("room", || (host.text(&plan, Stream::Stdout).len() == 2).then_some(())).await;
    node.client.kill(plan.run);
    node.exit(&plan).await;
    node.client.acknowledge(plan.run);
    eventually("all given back", || (descriptors(&host) <= before).then_some(())).await;
}

// Who runs them, and on which kernel.

#[tokio::test]
async fn children_are_born_in_their_groups_where_there_are_groups() {
    let host = Host::new();
    let _node = host.node().await;
    let log = fs::read_to_string(host.layout.keeper_log()).unwrap();
    let expected = if host::has_groups() { "by_birth=true" } else { "PID namespaces" };
    if !log.contains(expected) && !host::is_unprivileged() && log.contains("PID namespaces") {
        return skip("children_are_born_in_their_groups_where_there_are_groups", "no cgroup2 hierarchy can be written");
    }
    assert!(log.contains(expected), "{log}");
}

#[tokio::test]
async fn without_the_newest_system_call_everything_works_the_same() {
    let mut host = Host::new();
    let _keeper = Reaped(host.start_keeper_without(libc::SYS_clone3));
    eventually("the socket", || host.layout.keeper_socket().exists().then_some(())).await;
    let mut node = host.node().await;
    let log = fs::read_to_string(host.layout.keeper_log()).unwrap();
    assert!(log.contains("by_birth=false") || log.contains("PID namespaces"), "{log}");
    let confinement = Confinement { namespaces: ALL, ..nonet(&[]) };
    let plan = script(&mut host, "all", confinement, "echo $$; grep -c : /proc/net/dev; exit 7");
    assert_eq!(node.run(&plan).await, (Some(7), None), "{:?}", host.text(&plan, Stream::Stderr));
    assert_eq!(host.text(&plan, Stream::Stdout), ["2", "1"]);
    let plan = script(&mut host, "plain", Confinement::default(), "exit 3");
    assert_eq!(node.run(&plan).await, (Some(3), None));
    node.client.shutdown(std::time::Duration::from_secs(1)).await;
}

/// Set where no network namespaces can be made.
const NO_NETWORKS_VARIABLE: &str = "NARUN_TEST_NO_NETWORKS";

#[test]
fn a_namespace_that_cannot_be_had_fails_the_start_or_is_left_out() {
    let name = "a_namespace_that_cannot_be_had_fails_the_start_or_is_left_out";
    if host::is_unprivileged() || !host::is_root() {
        return again_as_nobody(name, None);
    }
    let Some(again) = host::again_as_nobody("spaces::where_no_network_can_be_made", None) else {
        return skip(name, "unprivileged user namespaces, setpriv or unshare are not to be had here");
    };
    // The limits of a user namespace are its own root's to lower (namespaces(7), /proc/sys/user).
    let mut again = again.beneath_a_root("echo 0 > /proc/sys/user/max_net_namespaces", NO_NETWORKS_VARIABLE);
    let output = again.command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

/// Called by the test above, in a world of its making.
#[tokio::test]
async fn where_no_network_can_be_made() {
    if std::env::var_os(NO_NETWORKS_VARIABLE).is_none() {
        return;
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    let confinement = Confinement { namespaces: IPC, ..nonet(&[]) };
    let plan = script(&mut host, "strict", confinement.clone(), "exit 0");
    let error = node.launch_failing(&plan).await;
    let names = "cannot make namespaces of its own (pid, ipc, mount, network)";
    assert_eq!(error, format!("{names}: no space left on device: a limit in `/proc/sys/user` is reached"));

    let confinement = Confinement { best_effort: true, ..confinement };
    let plan = script(&mut host, "loose", confinement, "readlink /proc/self/ns/ipc /proc/self/ns/net");
    let lines = output(&host, &mut node, &plan).await;
    let own = ["ipc", "net"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string());
    assert_ne!(lines[0], own[0]);
    assert_eq!(lines[1], own[1]);
    assert_eq!(missing(&mut node, &plan).await, ["a network namespace of its own: no space left on device"]);
}

/// What a run that was launched has to do without.
async fn missing(node: &mut Node, plan: &LaunchPlan) -> Vec<String> {
    let missing = node.when(|event| match event {
        ProcessEvent::Launched { run, enforced, .. } if *run == plan.run => Some(enforced.missing.clone()),
        _ => None,
    });
    missing.await
}

/// A child of the test that has ended, or ends now.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The tests of this file again as an ordinary user, in `group` if one is given.
fn again_as_nobody(name: &str, group: Option<&std::path::Path>) {
    if host::is_unprivileged() {
        return;
    }
    if !host::is_root() {
        return skip(name, "only root can become another user; the other tests ran as this one");
    }
    let Some(mut again) = host::again_as_nobody("spaces::", group) else {
        return skip(name, "unprivileged user namespaces, setpriv or unshare are not to be had here");
    };
    let output = again.command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test spaces::private_mounts_are_empty_and_the_host_sees_nothing_of_them ... ok"), "{text}");
}

#[test]
fn all_of_this_holds_for_an_unprivileged_user() {
    again_as_nobody("all_of_this_holds_for_an_unprivileged_user", None);
}

#[test]
fn all_of_this_holds_for_an_unprivileged_user_with_control_groups() {
    let name = "all_of_this_holds_for_an_unprivileged_user_with_control_groups";
    if host::is_unprivileged() || !host::is_root() {
        return again_as_nobody(name, None);
    }
    let Some(group) = host::DelegatedGroup::new() else {
        return skip(name, "no cgroup2 hierarchy can be written here");
    };
    again_as_nobody(name, Some(group.path()));
}
