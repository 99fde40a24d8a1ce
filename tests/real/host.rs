//! A data directory with a keeper of the real binary, and the node's side of it in the test.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use narun::confinement::{Confinement, Enforced};
use narun::exec::keeper;
use narun::exec::keeper::client::KeeperClient;
use narun::exec::logs::{LogLine, LogReader, Stream};
use narun::exec::plan::{Ended, Kept, LaunchPlan, ProcessEvent, Stop};
use narun::ids::{BlobHash, InstanceId, RunId, ServiceName};
use narun::node::engine::input::Input;
use narun::node::layout::Layout;
use narun::node::shells::Processes;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::skip::skip;

/// Longest wait for anything: far more than is ever needed, since the machine may be busy with other things, or an emulated one.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(240);

/// How often a condition that nobody announces is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A keeper's data directory. Whatever the test leaves running ends with it.
pub(crate) struct Host {
    pub(crate) layout: Layout,
    /// Removed last.
    _dir: Option<TempDir>,
    next_run: u16,
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
        self.keeper(options).spawn().expect("the binary starts")
    }

    /// The same with a variable in its environment.
    pub(crate) fn start_keeper_with(&self, (name, value): (&str, &str)) -> Child {
        self.keeper(&[]).env(name, value).spawn().expect("the binary starts")
    }

    /// A keeper that a policy lets make no call of `number`: it is told that the kernel does not know it.
    pub(crate) fn start_keeper_without(&self, number: libc::c_long) -> Child {
        use std::os::unix::process::CommandExt;
        let number = u32::try_from(number).expect("system calls have small numbers");
        // The call's number stands at the head of what a filter is given (seccomp(2)).
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, unknown),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let mut command = self.keeper(&[]);
        // SAFETY: two system calls, which allocate nothing and take no lock; the program lives in the closure.
        unsafe {
            command.pre_exec(move || {
                let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
                let own = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                match own | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        command.spawn().expect("the binary starts")
    }

    /// A keeper in a mount namespace of its own, in which this shell script has been run before. Needs root.
    pub(crate) fn start_keeper_among_mounts(&self, script: &str) -> Child {
        let keeper = self.keeper(&[]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!(r#"{script} && exec "$@""#)).arg("sh");
        command.arg(keeper.get_program()).args(keeper.get_args());
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("unshare starts")
    }

    fn keeper(&self, options: &[&str]) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.layout.keeper_log()).expect("the log");
        let mut command = Command::new(exe());
        command.arg("keeper").arg("--data-dir").arg(self.layout.root()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
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
        self.next_run = self.next_run.wrapping_add(1);
        let instance = InstanceId { service: ServiceName::new(service).expect("a good name"), index: 0 };
        LaunchPlan {
            work_dir: self.layout.work_dir(&instance),
            log_dir: self.layout.log_dir(&instance),
            instance,
            run: RunId(std::array::from_fn(|at| self.next_run.to_be_bytes()[at % 2])),
            launch_hash: BlobHash::of(b"plan"),
            binary: binary.into(),
            interpreter: None,
            args: Vec::new(),
            env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            replaceable: false,
            revision: 1,
            confinement: Confinement::default(),
            identity: None,
            stop: Stop::default(),
            is_job: false,
            lease_until: None,
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
            if Instant::now() > deadline {
                assert!(std::thread::panicking(), "cannot clean up: {error}");
                break;
            }
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

    /// What of its confinement a run has, which was launched.
    pub(crate) async fn enforced(&mut self, plan: &LaunchPlan) -> Enforced {
        let run = plan.run;
        let launched = self.when(|event| match event {
            ProcessEvent::Launched { run: of, enforced, .. } if *of == run => Some(enforced.clone()),
            _ => None,
        });
        launched.await
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

    /// Launches, and waits for the end; fails where the launch does.
    pub(crate) async fn try_run(&mut self, plan: &LaunchPlan) -> Result<Ended, String> {
        self.client.launch(plan.clone());
        let run = plan.run;
        let over = self.when(|event| match event {
            ProcessEvent::Exited { run: of, ended } if *of == run => Some(Ok(*ended)),
            ProcessEvent::LaunchFailed { run: of, error } if *of == run => Some(Err(error.clone())),
            _ => None,
        });
        over.await
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

/// Set for those that are run again in a control group that this user may divide.
const GROUPED_VARIABLE: &str = "NARUN_TEST_GROUPED";

/// Whether the keeper can be expected to have control groups.
pub(crate) fn has_groups() -> bool {
    !is_unprivileged() || std::env::var_os(GROUPED_VARIABLE).is_some()
}

/// The binary to test.
pub(crate) fn exe() -> PathBuf {
    std::env::var_os(EXE_VARIABLE).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_narun")), PathBuf::from)
}

/// Whether the tests were started again as an unprivileged user.
pub(crate) fn is_unprivileged() -> bool {
    std::env::var_os(EXE_VARIABLE).is_some()
}

/// The user that tests are run again as.
const NOBODY: u32 = 65534;

/// Tests of this binary, to be run again as an ordinary user.
pub(crate) struct Again {
    pub(crate) command: Command,
    /// Holds copies of what it runs; removed last.
    _dir: TempDir,
}

/// Prepares those that `filter` names, in `group` if one is given. None where an ordinary user can make no namespaces.
pub(crate) fn again_as_nobody(filter: &str, group: Option<&Path>) -> Option<Again> {
    let nobody = |command: &Path| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        setpriv.args(["--clear-groups", "--"]).arg(command);
        setpriv
    };
    let mut try_it = nobody(Path::new("unshare"));
    if !try_it.args(["--user", "--pid", "--fork", "true"]).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("its mode");
    let (tests, narun) = (dir.path().join("tests"), dir.path().join("narun"));
    // The build's own folder may be closed to others. Copied by another process: a file that this one has written may still
    // be held by a child that some other test was forking meanwhile, and could not be run.
    for (from, to) in [(std::env::current_exe().expect("the test binary"), &tests), (exe(), &narun)] {
        assert!(Command::new("cp").arg(from).arg(to).status().expect("cp starts").success());
    }
    let mut command = nobody(&tests);
    if let Some(group) = group {
        let mut inside = Command::new("sh");
        inside.args(["-c", r#"echo 0 > "$1/cgroup.procs"; shift; exec "$@""#, "sh"]).arg(group);
        inside.arg(command.get_program()).args(command.get_args());
        command = inside;
    }
    command.args([filter, "--test-threads=2"]).env("TMPDIR", dir.path()).env(EXE_VARIABLE, &narun);
    if group.is_some() {
        command.env(GROUPED_VARIABLE, "1");
    }
    // What this user may not do was done as root; it is no loss here, and the file of skipped tests is root's.
    command.env_remove("CI").env_remove("NARUN_TEST_SKIPS").current_dir("/");
    Some(Again { command, _dir: dir })
}

/// Runs the tests whose names begin with `filter` again, as a user who may write to no control group; `one_of_them` has to be
/// among those that pass.
pub(crate) fn again_unprivileged(filter: &str, one_of_them: &str) {
    if is_unprivileged() {
        return;
    }
    let this = format!("{filter} as an unprivileged user");
    if !is_root() {
        return skip(&this, "only root can become another user; the other tests ran as this one");
    }
    let Some(mut again) = again_as_nobody(filter, None) else {
        return skip(&this, "unprivileged user namespaces, setpriv or unshare are not to be had here");
    };
    let output = again.command.output().expect("the tests start");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("test {one_of_them} ... ok")), "{text}");
}

impl Again {
    /// Runs them, with this shell script before them, as the root of a user namespace; `variable` is set for them.
    pub(crate) fn beneath_a_root(mut self, script: &str, variable: &str) -> Self {
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", "sh", "-c"]).arg(format!(r#"{script} && exec "$@""#)).arg("sh");
        // Who becomes another user does so before.
        let words: Vec<_> = self.command.get_args().map(ToOwned::to_owned).collect();
        let program = words.iter().position(|word| word == "--").expect("setpriv's options end") + 1;
        let mut command = Command::new(self.command.get_program());
        command.args(&words[..program]).arg(inside.get_program()).args(inside.get_args()).args(&words[program..]);
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env(variable, "1").current_dir("/");
        self.command = command;
        self
    }
}

/// A control group that an ordinary user may divide further. Removed with all beneath it, which must have ended.
pub(crate) struct DelegatedGroup(PathBuf);

impl DelegatedGroup {
    /// Beneath the group of this process; none where no hierarchy of version 2 can be written.
    pub(crate) fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let path = Path::new(mount).join(own).join(format!("delegated-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        for file in [".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            std::os::unix::fs::chown(group.0.join(file), Some(NOBODY), Some(NOBODY)).ok()?;
        }
        Some(group)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DelegatedGroup {
    fn drop(&mut self) {
        fn remove(path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let deadline = Instant::now() + WAIT_MAX;
            // The last processes may just be ending.
            while fs::remove_dir(path).is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound) {
                if Instant::now() > deadline {
                    assert!(std::thread::panicking(), "`{}` cannot be removed", path.display());
                    return;
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
        remove(&self.0);
    }
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: only asks.
    unsafe { libc::geteuid() == 0 }
}

/// What this host offers, as a node reports it.
pub(crate) fn capacity() -> narun::capacity::Capacity {
    narun::node::host::capacity()
}
