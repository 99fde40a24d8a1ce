//! A data directory with a keeper of the real binary, and the node's side of it in the test.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use narun::exec::keeper;
use narun::exec::keeper::client::KeeperClient;
use narun::exec::logs::{LogLine, LogReader, Stream};
use narun::exec::plan::{Ended, Kept, LaunchPlan, ProcessEvent};
use narun::ids::{BlobHash, InstanceId, RunId, ServiceName};
use narun::node::engine::input::Input;
use narun::node::layout::Layout;
use narun::node::shells::Processes;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest wait for anything: far more than is ever needed, since the machine may be busy with other things.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a condition that nobody announces is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A keeper's data directory. Whatever the test leaves running ends with it.
pub(crate) struct Host {
    pub(crate) layout: Layout,
    /// Removed last.
    _dir: Option<TempDir>,
    next_run: u8,
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::new(dir.path());
        Self { layout, _dir: Some(dir), next_run: 0 }
    }

    /// A data directory at a path of its own choosing, beneath a temporary one.
    pub(crate) fn beneath(path: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join(path);
        fs::create_dir_all(&root).expect("folders in a temporary directory");
        Self { layout: Layout::new(root), _dir: Some(dir), next_run: 0 }
    }

    /// Connects as the node does.
    pub(crate) async fn node(&self) -> Node {
        let (inputs, events) = mpsc::channel(1000);
        let exe = exe();
        let (client, task) = KeeperClient::connect_or_start(&self.layout, exe, inputs).await.expect("a keeper");
        let mut node = Node { client, task, events, seen: Vec::new(), held: Vec::new() };
        node.held = node
            .when(|event| match event {
                ProcessEvent::Holding(kept) => Some(kept.clone()),
                _ => None,
            })
            .await;
        node
    }

    /// Starts a keeper by hand, with options that the node never gives.
    pub(crate) fn start_keeper(&self, options: &[&str]) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.layout.keeper_log()).expect("the log");
        let mut command = Command::new(exe());
        command.arg("keeper").arg("--data-dir").arg(self.layout.root()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the binary starts")
    }

    /// Starts a keeper that sees a small file system of its own in place of the log folder; gives the way to it from outside.
    /// Needs root.
    pub(crate) fn start_keeper_with_small_disk(&self, size: &str) -> (Child, PathBuf) {
        let script = r#"mount -t tmpfs -o "size=$1" none "$2" && exec "$3" keeper --data-dir "$4""#;
        let logs = self.layout.logs();
        fs::create_dir_all(&logs).expect("a folder in a temporary directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", size]).arg(&logs).arg(exe()).arg(self.layout.root());
        let keeper = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("unshare starts");
        let beneath = logs.strip_prefix("/").expect("an absolute path");
        let seen = PathBuf::from(format!("/proc/{}/root", keeper.id())).join(beneath);
        (keeper, seen)
    }

    /// A plan that runs a shell script.
    pub(crate) fn script(&mut self, service: &str, script: &str) -> LaunchPlan {
        let binary = self.file(service, &format!("#!/bin/sh\n{script}\n"));
        self.plan(service, binary)
    }

    /// A program's file.
    pub(crate) fn file(&mut self, name: &str, content: &str) -> PathBuf {
        let path = self.layout.root().join(format!("{name}-{}.program", self.next_run));
        fs::write(&path, content).expect("a file in a temporary directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).expect("its mode");
        path
    }

    pub(crate) fn plan(&mut self, service: &str, binary: impl Into<PathBuf>) -> LaunchPlan {
        self.next_run += 1;
        let instance = InstanceId { service: ServiceName::new(service).expect("a good name"), index: 0 };
        LaunchPlan {
            work_dir: self.layout.work_dir(&instance),
            log_dir: self.layout.log_dir(&instance),
            instance,
            run: RunId([self.next_run; 16]),
            launch_hash: BlobHash::of(b"plan"),
            binary: binary.into(),
            interpreter: None,
            args: Vec::new(),
            env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            replaceable: false,
            revision: 1,
        }
    }

    /// The process number of the keeper.
    pub(crate) fn keeper_pid(&self) -> Option<i32> {
        fs::read_to_string(self.layout.root().join(keeper::LOCK_NAME)).ok()?.parse().ok()
    }

    /// All complete lines of an instance's log so far.
    pub(crate) fn log(&self, plan: &LaunchPlan) -> Vec<LogLine> {
        LogReader::open(&plan.log_dir).read_all().expect("a readable log")
    }

    /// The lines of one stream as text.
    pub(crate) fn text(&self, plan: &LaunchPlan, stream: Stream) -> Vec<String> {
        let lines = self.log(plan).into_iter().filter(|line| line.stream == stream && line.run == plan.run);
        lines.map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    /// Connects to the keeper in the node's place, and goes away again.
    pub(crate) fn interrupt(&self) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let rival = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
        let address = UnixAddr::new(&self.layout.keeper_socket()).expect("a short path");
        socket::connect(rival.as_raw_fd(), &address).expect("the keeper listens");
    }

    /// Kills the keeper, if one lives.
    pub(crate) fn kill_keeper(&self) {
        let Some(pid) = self.keeper_pid() else { return };
        // The number may be another process's by now: only a keeper of this very directory is killed.
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let root = self.layout.root().to_str().expect("a path that is text");
        if command.split('\0').any(|word| word == "keeper") && command.split('\0').any(|word| word == root) {
            // SAFETY: this test started it.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Waits until the keeper's lock is free and nothing is left of it. A lock may seem to be held for a moment by a process
    /// that another test is just forking.
    pub(crate) async fn is_swept(&self) {
        eventually("the keeper to be gone", || keeper::sweep_leftovers(self.layout.root()).ok()).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_keeper();
        let deadline = Instant::now() + WAIT_MAX;
        while let Err(error) = keeper::sweep_leftovers(self.layout.root()) {
            assert!(Instant::now() < deadline || std::thread::panicking(), "cannot clean up: {error}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// The node's side.
pub(crate) struct Node {
    pub(crate) client: KeeperClient,
    pub(crate) task: JoinHandle<()>,
    events: mpsc::Receiver<Input>,
    seen: Vec<ProcessEvent>,
    /// What the keeper held when it was reached.
    pub(crate) held: Vec<Kept>,
}

impl Node {
    /// The first event, of those seen and those to come, that `wanted` makes something of.
    pub(crate) async fn when<T>(&mut self, mut wanted: impl FnMut(&ProcessEvent) -> Option<T>) -> T {
        if let Some(found) = self.seen.iter().find_map(&mut wanted) {
            return found;
        }
        loop {
            let event = tokio::time::timeout(WAIT_MAX, self.events.recv()).await;
            let Ok(Some(Input::Process(event))) = event else {
                panic!("the event did not come; seen: {:#?}", self.seen)
            };
            let found = wanted(&event);
            self.seen.push(event);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Launches and waits until the program runs; gives its process number.
    pub(crate) async fn launch(&mut self, plan: &LaunchPlan) -> i32 {
        self.client.launch(plan.clone());
        let run = plan.run;
        let launched = self.when(|event| match event {
            ProcessEvent::Launched { run: of, pid, .. } if *of == run => Some(Ok(*pid)),
            ProcessEvent::LaunchFailed { run: of, error } if *of == run => Some(Err(error.clone())),
            _ => None,
        });
        launched.await.expect("the launch succeeds").cast_signed()
    }

    /// Launches what cannot be started; gives the error.
    pub(crate) async fn launch_failing(&mut self, plan: &LaunchPlan) -> String {
        self.client.launch(plan.clone());
        let run = plan.run;
        let launched = self.when(|event| match event {
            ProcessEvent::Launched { run: of, pid, .. } if *of == run => Some(Err(*pid)),
            ProcessEvent::LaunchFailed { run: of, error } if *of == run => Some(Ok(error.clone())),
            _ => None,
        });
        launched.await.expect("the launch fails")
    }

    /// Waits for the end of a run.
    pub(crate) async fn exit(&mut self, plan: &LaunchPlan) -> Ended {
        let run = plan.run;
        let exit = self.when(|event| match event {
            ProcessEvent::Exited { run: of, ended } if *of == run => Some(*ended),
            _ => None,
        });
        exit.await
    }

    /// Launches, and waits for the end.
    pub(crate) async fn run(&mut self, plan: &LaunchPlan) -> (Option<i32>, Option<i32>) {
        self.launch(plan).await;
        let ended = self.exit(plan).await;
        (ended.code, ended.signal)
    }

    /// How many of the events seen so far `matching` says yes to.
    pub(crate) fn count(&self, matching: impl Fn(&ProcessEvent) -> bool) -> usize {
        self.seen.iter().filter(|event| matching(event)).count()
    }

    /// Takes no more events.
    pub(crate) fn deaf(self) -> KeeperClient {
        self.client
    }

    /// Ends as a node does that is killed: without a word.
    pub(crate) async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Waits until `condition` gives something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether a process lives; one that has ended and waits to be reaped does not.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// Set for the tests that are run again as an unprivileged user: the binary where that user finds it.
pub(crate) const EXE_VARIABLE: &str = "NARUN_TEST_EXE";

/// The binary to test.
pub(crate) fn exe() -> PathBuf {
    std::env::var_os(EXE_VARIABLE).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_narun")), PathBuf::from)
}

/// Whether the tests were started again as an unprivileged user.
pub(crate) fn is_unprivileged() -> bool {
    std::env::var_os(EXE_VARIABLE).is_some()
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: only asks.
    unsafe { libc::geteuid() == 0 }
}
