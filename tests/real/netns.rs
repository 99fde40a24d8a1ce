//! Hosts with addresses of their own: a star of network namespaces round a router, and what goes wrong with networks.
//!
//! Each host has one cable to the router, which is a namespace too: nothing leads from there to this machine's own network. Faults are
//! rules of nftables in the router, which no host sees. The namespaces have no names. The kernel removes each, with all
//! that is in it, when its last process and its last descriptor are gone, however the tests end.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::cluster::{eventually, program};
use crate::host::is_root;
use crate::skip::skip;

/// The router, as every host sees it at the other end of its cable.
const ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 1);

/// A network namespace.
#[derive(Clone)]
pub(crate) struct Namespace(Arc<File>);

impl Namespace {
    fn new() -> io::Result<Self> {
        // A namespace belongs to a thread: one that ends leaves it to whoever has it open.
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().expect("nothing in it panics")?;
        Ok(Self(Arc::new(file)))
    }

    /// Makes the command start in this namespace.
    pub(crate) fn enter(&self, command: &mut Command) {
        let namespace = Arc::clone(&self.0);
        // SAFETY: a single system call, on a descriptor that the closure keeps open.
        unsafe { command.pre_exec(move || Ok(setns(&*namespace, CloneFlags::CLONE_NEWNET)?)) };
    }

    /// Does something here, on a thread of its own.
    fn inside<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&*self.0, CloneFlags::CLONE_NEWNET).expect("a namespace that this test made");
                deed()
            });
            thread.join().expect("it did not panic")
        })
    }

    /// Where a program finds this namespace that does not run in it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a program here that reads these lines; gives what it printed.
    fn tell(&self, program: &str, words: &[&str], lines: &str) -> String {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.enter(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it is this test's child");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} refused: {told}\n{lines}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ip(&self, lines: &str) {
        self.tell("ip", &["-batch", "-"], lines);
    }
}

/// A router with hosts round it, counted from 0.
pub(crate) struct Network {
    router: Namespace,
    hosts: Vec<(Namespace, Ipv4Addr)>,
    /// The router's rules; a packet that no rule drops is passed on.
    faults: Vec<String>,
}

impl Network {
    /// Why no such network can be made here, if it cannot.
    pub(crate) fn missing() -> Option<String> {
        if !is_root() {
            return Some("making network namespaces needs root".to_owned());
        }
        for (name, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            if program(name).is_none() {
                return Some(format!("there is no `{name}`; install {package}"));
            }
        }
        Namespace::new().err().map(|error| format!("cannot make a network namespace: {error}"))
    }

    /// So many hosts that all reach one another.
    pub(crate) fn star(count: u8) -> Self {
        let namespace = || Namespace::new().expect("`missing` has made one");
        let router = namespace();
        let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        router.inside(forward).expect("the router forwards what is not for itself");

        let mut network = Self { router, hosts: Vec::new(), faults: Vec::new() };
        for host in 0..count {
            let (inside, address) = (namespace(), Ipv4Addr::new(10, 77, 0, host + 1));
            let cable = cable(host.into());
            network.router.ip(&format!(
                "link add {cable} type veth peer name eth0 netns {}\n\
                 addr add {ROUTER} peer {address} dev {cable}\n\
                 link set {cable} up\n",
                inside.path()
            ));
            inside.ip(&format!("link set lo up\nlink set eth0 up\n{}", host_routes(address)));
            network.hosts.push((inside, address));
        }
        network
    }

    pub(crate) fn namespace(&self, host: usize) -> Namespace {
        self.hosts[host].0.clone()
    }

    pub(crate) fn address(&self, host: usize) -> Ipv4Addr {
        self.hosts[host].1
    }

    /// Nothing passes between these hosts and those, without a word to either.
    pub(crate) fn cut(&mut self, these: &[usize], those: &[usize]) {
        let (one, other) = (self.set(these), self.set(those));
        self.fault(format!("ip saddr {one} ip daddr {other} counter drop"));
        self.fault(format!("ip saddr {other} ip daddr {one} counter drop"));
    }

    /// Nothing passes from one host to another one.
    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.fault(format!("ip saddr {} ip daddr {} counter drop", self.address(from), self.address(to)));
    }

    /// So many percent of what a host sends are lost.
    pub(crate) fn lose(&mut self, from: usize, percent: u8) {
        self.fault(format!("ip saddr {} numgen random mod 100 < {percent} counter drop", self.address(from)));
    }

    /// A host can answer, and begin no connection.
    pub(crate) fn keep_from_dialling(&mut self, host: usize) {
        self.fault(format!("ip saddr {} tcp flags & (syn | ack) == syn counter drop", self.address(host)));
    }

    /// How many packets the rules have dropped since the last one came.
    pub(crate) fn dropped(&self) -> u64 {
        let listed = self.router.tell("nft", &["list", "table", "inet", "faults"], "");
        let counters = listed.lines().filter_map(|line| line.split_once("counter packets "));
        let packets = counters.filter_map(|(_, rest)| rest.split_whitespace().next());
        packets.map(|packets| packets.parse::<u64>().expect("a number")).sum()
    }

    /// All rules are lifted.
    pub(crate) fn heal(&mut self) {
        self.faults.clear();
        self.apply();
    }

    /// Pulls the cable of a host.
    pub(crate) fn unplug(&self, host: usize) {
        self.router.ip(&format!("link set {} down\n", cable(host)));
    }

    /// Puts it back.
    pub(crate) fn plug(&self, host: usize) {
        self.router.ip(&format!("link set {} up\n", cable(host)));
    }

    /// Gives a host another address, and takes its old one away.
    pub(crate) fn move_host(&mut self, host: usize, address: Ipv4Addr) {
        let cable = cable(host);
        self.router.ip(&format!("addr flush dev {cable}\naddr add {ROUTER} peer {address} dev {cable}\n"));
        let (inside, old) = &mut self.hosts[host];
        inside.ip(&format!("addr flush dev eth0\n{}", host_routes(address)));
        *old = address;
    }

    fn set(&self, hosts: &[usize]) -> String {
        let addresses: Vec<_> = hosts.iter().map(|host| self.address(*host).to_string()).collect();
        format!("{{ {} }}", addresses.join(", "))
    }

    fn fault(&mut self, rule: String) {
        self.faults.push(rule);
        self.apply();
    }

    fn apply(&self) {
        // Made where it is missing, then made anew, in one step for every packet.
        let mut table =
            String::from("table inet faults\ndelete table inet faults\ntable inet faults {\nchain forward {\n");
        table.push_str("type filter hook forward priority 0; policy accept;\n");
        for rule in &self.faults {
            writeln!(table, "{rule}").expect("writing into memory cannot fail");
        }
        table.push_str("}\n}\n");
        self.router.tell("nft", &["-f", "-"], &table);
    }
}

/// The router's end of a host's cable.
fn cable(host: usize) -> String {
    format!("host{host}")
}

/// How a host with this address reaches everybody.
fn host_routes(address: Ipv4Addr) -> String {
    format!("addr add {address} peer {ROUTER} dev eth0\nroute add default via {ROUTER} src {address}\n")
}

#[test]
fn a_network_does_what_it_is_told() {
    if let Some(why) = Network::missing() {
        return skip("a star of network namespaces", &why);
    }
    let mut network = Network::star(3);
    let there = SocketAddr::from((network.address(1), 7));
    let _listener = network.namespace(1).inside(|| TcpListener::bind(there).expect("a free port"));
    let connects = || TcpStream::connect_timeout(&there, Duration::from_secs(1)).is_ok();
    let reached = |network: &Network| [0, 2].map(|host| network.namespace(host).inside(connects));
    // A cable that was put back carries nothing for a moment, and what was sent meanwhile is sent again a second later.
    let comes_to = |network: &Network, wanted: [bool; 2]| {
        eventually("the network to be as it was told", || (reached(network) == wanted).then_some(()));
    };
    comes_to(&network, [true, true]);
    network.cut(&[0], &[1, 2]);
    assert_eq!(reached(&network), [false, true]);
    assert!(network.dropped() > 0);
    network.heal();
    network.cut_one_way(1, 2);
    assert_eq!(reached(&network), [true, false], "the answer does not come");
    network.heal();
    network.keep_from_dialling(0);
    assert_eq!(reached(&network), [false, true]);
    network.heal();
    network.lose(0, 99);
    // One in a hundred gets through.
    reached(&network);
    assert!(network.dropped() > 0);
    network.heal();
    network.unplug(1);
    assert_eq!(reached(&network), [false, false]);
    network.plug(1);
    comes_to(&network, [true, true]);
    network.move_host(0, Ipv4Addr::new(10, 77, 1, 1));
    comes_to(&network, [true, true]);
    network.cut_one_way(0, 1);
    assert_eq!(reached(&network), [false, true], "it speaks from its new address");
}
