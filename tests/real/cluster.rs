//! A cluster of real nodes on this machine, and the command line as a user types it.
//!
//! Each node is the real binary on a port of loopback that the kernel chose, with a data directory of its own. Whatever is
//! still there at the end of a test (node, keeper, instances) is ended by its number, and nothing else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use narun::exec::keeper;
use narun::node::layout::Layout;
use serde_json::Value;
use tempfile::TempDir;

use crate::host::{exe, is_root, lives};
use crate::netns::Namespace;

/// Longest wait for anything: far more than is ever needed, since the machine may be busy with other things.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a condition that nobody announces is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `condition` gives something.
pub(crate) fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(WAIT_MAX, condition).unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// Waits until `condition` gives something, or the time is over.
pub(crate) fn within<T>(longest: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Checks for a while that something stays as it is.
pub(crate) fn stays(what: &str, time: Duration, mut so: impl FnMut() -> bool) {
    let broken = within(time, || (!so()).then_some(()));
    assert!(broken.is_none(), "did not stay so: {what}");
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().expect("the binary starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // A command that was ended by a signal has no code, which no test expects.
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The result, which must be there.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What is said about a refusal: it has this exit code, prints no result, and names all of these.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, told: &[&str]) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "a refusal is no result: {self:?}");
        for words in told {
            assert!(self.stderr.contains(words), "`{words}` is not told: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }
}

/// Runs the binary without any node in its environment.
pub(crate) fn narun<S: AsRef<OsStr>>(words: &[S]) -> Answer {
    Answer::of(bare().args(words))
}

/// Runs a command against the node of this data directory.
pub(crate) fn narun_at<S: AsRef<OsStr>>(data_dir: &Path, words: &[S]) -> Answer {
    Answer::of(bare().env("NARUN_DATA_DIR", data_dir).args(words))
}

/// The binary with an environment in which nothing speaks of narun.
fn bare() -> Command {
    let mut command = Command::new(exe());
    for name in ["NARUN_API", "NARUN_DATA_DIR", "NARUN_TOKEN", "NARUN_LOG"] {
        command.env_remove(name);
    }
    command
}

/// One host.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) layout: Layout,
    process: Option<Child>,
    /// Where it listens at first.
    listen: String,
    /// The network that it is on, where that is not this machine's own.
    network: Option<Namespace>,
}

impl Node {
    /// A host with an empty data directory below `dir`, on which nothing runs yet.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let data = dir.join(name).join("data");
        fs::create_dir_all(&data).expect("a folder in a temporary directory");
        let listen = "127.0.0.1:0".to_owned();
        Self { name: name.to_owned(), layout: Layout::new(data), process: None, listen, network: None }
    }

    /// Puts the host on another network, where it listens at this address.
    pub(crate) fn put_on(&mut self, network: Namespace, listen: String) {
        self.network = Some(network);
        self.listen = listen;
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.layout.root()
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.data_dir().parent().expect("a folder below the temporary one").join(file)
    }

    /// What the node wrote to standard error since it was last started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.beside("log")).unwrap_or_default()
    }

    /// What the node printed since it was last started.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(self.beside("out")).unwrap_or_default()
    }

    /// The ticket of the join line that a founder prints.
    pub(crate) fn first_ticket(&self) -> String {
        let printed = self.printed();
        let ticket = printed.lines().find_map(|line| line.strip_prefix("narun join "));
        ticket.unwrap_or_else(|| panic!("no join line: {printed:?}")).to_owned()
    }

    /// Runs `narun WORDS` as this host's node, until it serves.
    pub(crate) fn launch(&mut self, words: &[&str]) {
        self.spawn(words);
        self.serves();
    }

    /// Starts `narun WORDS` as this host's node.
    pub(crate) fn spawn(&mut self, words: &[&str]) {
        assert!(self.process.is_none(), "node {} runs already", self.name);
        let file = |name| File::create(self.beside(name)).expect("a file in a temporary directory");
        let mut command = bare();
        command.args(words).arg("--data-dir").arg(self.data_dir());
        // What must never reach an instance.
        command.env("ONLY_THE_NODE_KNOWS", "this");
        // A signal to the group of the tests, such as Ctrl-C, is no signal to the nodes: those end with their tests.
        command.process_group(0).stdin(Stdio::null()).stdout(file("out")).stderr(file("log"));
        if let Some(network) = &self.network {
            network.enter(&mut command);
        }
        self.process = Some(command.spawn().expect("the binary starts"));
    }

    /// Waits until the node serves.
    pub(crate) fn serves(&mut self) {
        let name = self.name.clone();
        eventually(&format!("node {name} to serve"), || {
            let child = self.process.as_mut().expect("a node that was started");
            if let Some(status) = child.try_wait().expect("the node is this test's child") {
                panic!("node {name} has ended, {status}: {}", self.log());
            }
            (self.log().contains("serving") && self.run(&["node", "list"]).code == 0).then_some(())
        });
    }

    /// Begins a cluster.
    pub(crate) fn found(&mut self) {
        let name = self.name.clone();
        let listen = self.listen.clone();
        self.launch(&["start", "--name", &name, "--listen", &listen]);
    }

    /// Becomes a member by a ticket.
    pub(crate) fn join(&mut self, ticket: &str) {
        let name = self.name.clone();
        let listen = self.listen.clone();
        self.launch(&["join", ticket, "--name", &name, "--listen", &listen]);
    }

    /// Starts the node again as a user does.
    pub(crate) fn start(&mut self) {
        self.launch(&["start"]);
    }

    /// Runs `narun WORDS` as a node that cannot start; gives what it said.
    pub(crate) fn fails(&mut self, words: &[&str]) -> Answer {
        self.spawn(words);
        let child = self.process.as_mut().expect("it was just started");
        let status = eventually("a node to give up", || child.try_wait().expect("the node is this test's child"));
        self.process = None;
        Answer { code: status.code().unwrap_or(-1), stdout: self.printed(), stderr: self.log() }
    }

    /// Waits until the node has ended by itself.
    pub(crate) fn ends(&mut self) {
        self.ends_with(0);
    }

    /// Waits until the node has ended by itself, with this code.
    pub(crate) fn ends_with(&mut self, code: i32) {
        let child = self.process.as_mut().expect("a node that was started");
        let status = eventually("the node to end", || child.try_wait().expect("the node is this test's child"));
        self.process = None;
        assert_eq!(status.code(), Some(code), "{status}: {}", self.log());
    }

    /// Sends a signal to the node process.
    pub(crate) fn signal(&self, signal: i32) {
        let child = self.process.as_ref().expect("a node that was started");
        // SAFETY: it is this test's own child, which was not yet waited for.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
    }

    /// kill -9 of the node process alone.
    pub(crate) fn crash(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("the node is this test's child");
            child.wait().expect("the node is this test's child");
        }
    }

    /// The death of the whole host: node, keeper and instances, without a word.
    pub(crate) fn die(&mut self) {
        self.crash();
        self.kill_keeper();
        let swept = within(WAIT_MAX, || keeper::sweep_leftovers(self.data_dir()).ok());
        assert!(swept.is_some() || std::thread::panicking(), "cannot clean up {}", self.data_dir().display());
    }

    /// Whether the node process lives.
    pub(crate) fn is_up(&mut self) -> bool {
        let child = self.process.as_mut().expect("a node that was started");
        child.try_wait().expect("the node is this test's child").is_none()
    }

    /// The process number of the node.
    pub(crate) fn pid(&self) -> i32 {
        self.process.as_ref().expect("a node that was started").id().cast_signed()
    }

    /// The process number of the keeper, while one lives.
    pub(crate) fn keeper_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data_dir().join(keeper::LOCK_NAME)).ok()?;
        let pid = text.trim().parse().ok()?;
        // The number may be another process's by now: only a keeper of this very directory counts.
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let root = self.data_dir().to_str().expect("a path that is text");
        let is_keeper =
            command.split('\0').any(|word| word == "keeper") && command.split('\0').any(|word| word == root);
        (is_keeper && lives(pid)).then_some(pid)
    }

    fn kill_keeper(&self) {
        if let Some(pid) = self.keeper_pid() {
            // SAFETY: the node that this test started has started it.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// The command line, pointed at this node.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = bare();
        command.env("NARUN_DATA_DIR", self.data_dir()).args(words);
        command
    }

    /// Runs a command against this node.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Answer {
        Answer::of(&mut self.command(words))
    }

    /// Runs a command against this node, bound by the modes of files even where the tests run as root.
    pub(crate) fn run_bound_by_modes<S: AsRef<OsStr>>(&self, words: &[S]) -> Answer {
        let mut plain = self.command(words);
        if !is_root() {
            return Answer::of(&mut plain);
        }
        let mut bound = Command::new("setpriv");
        bound.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
        bound.arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => bound.env(name, value),
                None => bound.env_remove(name),
            };
        }
        Answer::of(&mut bound)
    }

    /// Runs a command that must succeed; gives its result.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        self.run(words).done()
    }

    /// The result of a command as JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let text = self.ok(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Members as this node sees them: name and status.
    pub(crate) fn members(&self) -> Vec<(String, String)> {
        let list = self.json(&["node", "list"]);
        let mut members: Vec<_> =
            list.as_array().expect("a list").iter().map(|node| (text(&node["name"]), text(&node["status"]))).collect();
        members.sort();
        members
    }

    /// Waits until this node sees these members, all of them alive, and knows what each tells of itself: work is placed on no
    /// member that has not told its platform yet, and a busy disk holds that back.
    pub(crate) fn sees(&self, names: &[&str]) {
        let mut last = Vec::new();
        let seen = within(WAIT_MAX, || {
            let list = self.json(&["node", "list"]);
            last = list.as_array().expect("a list").clone();
            last.sort_by_key(|node| text(&node["name"]));
            let named = last.iter().map(|node| text(&node["name"])).eq(names.iter().copied());
            let known = last.iter().all(|node| node["status"] == "alive" && node["platform"].is_string());
            (named && known).then_some(())
        });
        assert!(seen.is_some(), "{} sees {last:?} instead of {names:?}: {}", self.name, self.log());
    }

    /// The instances of a service, by index and node; none while there is no such service.
    pub(crate) fn instances(&self, service: &str) -> Vec<Instance> {
        let answer = self.run(&["service", "info", service, "-o", "json"]);
        let Ok(info) = serde_json::from_str::<Value>(&answer.stdout) else { return Vec::new() };
        let list = info["instances"].as_array().expect("a list of instances");
        let mut instances: Vec<_> = list.iter().map(Instance::read).collect();
        instances.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        instances
    }

    /// Waits until a service has exactly so many instances, all of them running and wanted.
    pub(crate) fn running(&self, service: &str, count: usize) -> Vec<Instance> {
        let mut last = Vec::new();
        let found = within(WAIT_MAX, || {
            last = self.instances(service);
            let all_run = last.iter().all(|instance| instance.runs() && instance.wanted && instance.current);
            (last.len() == count && all_run).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{service} does not run {count} times: {last:#?}\n{}", self.log()))
    }

    /// The messages of the logs that these words ask for.
    pub(crate) fn messages(&self, words: &[&str]) -> Vec<String> {
        let raw = self.ok(&[&["logs", "--raw"], words].concat());
        raw.lines()
            .map(|line| text(&serde_json::from_str::<Value>(line).expect("JSON on each line")["message"]))
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<_> = log.lines().rev().take(40).collect();
            let end: Vec<_> = end.into_iter().rev().collect();
            eprintln!("--- the end of the log of {}:\n{}", self.name, end.join("\n"));
        }
        self.die();
    }
}

/// One instance, as `service info` shows it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) state: String,
    pub(crate) ready: bool,
    pub(crate) revision: u64,
    pub(crate) current: bool,
    pub(crate) wanted: bool,
    pub(crate) pid: Option<i32>,
    pub(crate) run: String,
    pub(crate) restarts: u64,
    pub(crate) exit: Value,
    pub(crate) error: String,
}

impl Instance {
    fn read(value: &Value) -> Self {
        let yes = |key: &str| value[key].as_bool().expect("yes or no");
        Self {
            name: text(&value["instance"]),
            node: text(&value["node"]),
            state: text(&value["state"]),
            ready: yes("ready"),
            revision: value["revision"].as_u64().expect("a number"),
            current: yes("current"),
            wanted: yes("wanted"),
            pid: value["pid"].as_i64().map(|pid| pid.try_into().expect("a process number")),
            run: text(&value["run"]),
            restarts: value["restarts"].as_u64().expect("a number"),
            exit: value["exit"].clone(),
            error: text(&value["error"]),
        }
    }

    /// Whether it is up, by what the node says and by what the kernel says.
    pub(crate) fn runs(&self) -> bool {
        self.state == "running" && self.pid.is_some_and(lives)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.unwrap_or_else(|| panic!("an instance without a process: {self:?}"))
    }
}

/// A text in JSON; empty where there is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Some nodes, and a folder for the files of the test.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// Removed last.
    dir: TempDir,
    next_file: AtomicU32,
}

impl Cluster {
    /// `count` members that all see one another, named n1 and so on.
    pub(crate) fn start(count: usize) -> Self {
        let mut cluster = Self::empty();
        for _ in 0..count {
            cluster.add();
        }
        cluster.settled();
        cluster
    }

    /// No node yet.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { nodes: Vec::new(), dir, next_file: AtomicU32::new(0) }
    }

    /// One more member; the first one begins the cluster.
    pub(crate) fn add(&mut self) {
        self.admit(self.host(&format!("n{}", self.nodes.len() + 1)));
    }

    /// This host becomes a member; the first one begins the cluster.
    pub(crate) fn admit(&mut self, mut node: Node) {
        let ticket = self.nodes.first().map(Node::first_ticket);
        match ticket {
            None => node.found(),
            Some(ticket) => node.join(&ticket),
        }
        self.nodes.push(node);
    }

    /// A host that runs nothing yet, with a data directory that no other one has.
    pub(crate) fn host(&self, name: &str) -> Node {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        Node::new(&self.dir.path().join(format!("host{number}")), name)
    }

    /// Waits until all members see one another.
    pub(crate) fn settled(&self) {
        let names: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        for node in &self.nodes {
            node.sees(&names);
        }
    }

    /// The member with this name.
    pub(crate) fn named(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("a member of that name")
    }

    /// A new file with this content; gives its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let folder = self.dir.path().join("files").join(number.to_string());
        fs::create_dir_all(&folder).expect("a folder in a temporary directory");
        let path = folder.join(name);
        fs::write(&path, content).expect("a file in a temporary directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path.into_os_string().into_string().expect("a path that is text")
    }

    /// A shell script as a program.
    pub(crate) fn script(&self, name: &str, content: &str) -> String {
        self.file(name, format!("#!/bin/sh\n{content}\n"))
    }

    /// A program that stays up and does nothing.
    pub(crate) fn sleeper(&self) -> String {
        self.script("sleeper", "exec sleep 600")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl std::ops::Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, at: usize) -> &Node {
        &self.nodes[at]
    }
}

impl std::ops::IndexMut<usize> for Cluster {
    fn index_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }
}

/// Where a program is that a test needs, if it is installed.
pub(crate) fn program(name: &str) -> Option<String> {
    let folders = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())?;
    found.into_os_string().into_string().ok()
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The body of an HTTP answer, if there is a server that says 200.
pub(crate) fn http_get(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}
