//! What the cases attack, and how they are run.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use narun::exec::plan::LaunchPlan;
use tempfile::{NamedTempFile, TempDir};

use super::case::{As, Case, Control, Need, Outcome};
use crate::host::{self, Host, Node, is_root};
use narun::exec::logs::Stream;

/// What a case says by its exit code.
const ESCAPED: i32 = 0;
const REFUSED: i32 = 1;
const NOT_HERE: i32 = 77;

/// The keeper is started with this variable; no instance may have it.
const SECRET: (&str, &str) = ("NARUN_TEST_SECRET", "of the node");

/// All that the cases attack.
pub(super) struct World {
    built: PathBuf,
    host: Host,
    node: Node,
    keeper: Child,
    victim: Child,
    port: TcpListener,
    _abstract: UnixListener,
    abstract_name: String,
    shared: SharedMemory,
    tmp_file: NamedTempFile,
    landlock_abi: u32,
    controllers: Vec<String>,
}

impl World {
    pub(super) async fn new(built: &Path) -> Self {
        let host = Host::new();
        let keeper = host.start_keeper_with(SECRET);
        host::eventually("the keeper to listen", || host.layout.keeper_socket().exists().then_some(())).await;
        let node = host.node().await;
        let abstract_name = format!("narun-escapes-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a short name");
        let capacity = host::capacity();
        Self {
            built: built.to_owned(),
            host,
            node,
            keeper,
            // In a group of its own, which is signalled too.
            victim: Command::new("sleep")
                .arg("3600")
                .stdin(Stdio::null())
                .process_group(0)
                .spawn()
                .expect("sleep starts"),
            port: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            _abstract: UnixListener::bind_addr(&address).expect("an abstract socket"),
            abstract_name,
            shared: SharedMemory::new(),
            tmp_file: tempfile::Builder::new().prefix("narun-escapes-").tempfile_in("/tmp").expect("a file in /tmp"),
            landlock_abi: capacity.landlock_abi,
            controllers: capacity.cgroup_controllers,
        }
    }

    /// Whether this machine has what a mechanism needs.
    pub(super) fn has(&self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::Landlock(abi) => self.landlock_abi >= abi,
            Need::Controller(name) => self.controllers.iter().any(|controller| controller == name),
        }
    }

    /// Runs a case as it is, outside of narun. Gives what is wrong if it does not get done what it tries.
    pub(super) fn control(&self, case: &Case, who: As) -> Option<String> {
        match case.control {
            Control::Nobody => return None,
            Control::Root if who != As::Root => return None,
            Control::Root | Control::Anybody => {}
        }
        if !self.has(case.needs) {
            return None;
        }
        let (outside, work_dir) = (Outside::new(&self.built), tempfile::tempdir().expect("a temporary directory"));
        let mut command = Command::new(self.built.join(&case.name));
        command.env_clear().envs(self.variables(&outside)).current_dir(work_dir.path()).stdin(Stdio::null());
        // Into a file: a pipe would be waited on for as long as any child has it.
        let said = NamedTempFile::new().expect("a temporary file");
        command.stdout(said.reopen().expect("the same file"));
        // Some of them signal their whole group.
        let status = command.process_group(0).status().expect("the case starts");
        match status.code() {
            Some(ESCAPED | NOT_HERE) => None,
            code => {
                let said = fs::read_to_string(said.path()).unwrap_or_default();
                Some(format!("without a sandbox it ended with {code:?} ({:?}): {said}", status.signal()))
            }
        }
    }

    /// Runs a case as an instance.
    pub(super) async fn attempt(&mut self, case: &Case) -> Outcome {
        let outside = Outside::new(&self.built);
        let plan = self.plan(case, &outside);
        let (code, signal) = match self.node.try_run(&plan).await {
            Ok(ended) => (ended.code, ended.signal),
            Err(error) => return Outcome::Broken(format!("it could not be started: {error}")),
        };
        let said = self.host.text(&plan, Stream::Stdout).join(" ");
        match code {
            Some(ESCAPED) => Outcome::Out(said),
            Some(REFUSED) => Outcome::Held,
            Some(NOT_HERE) => Outcome::NotHere(said),
            // A filter or a limit may answer with the end of the process.
            None if matches!(signal, Some(libc::SIGKILL | libc::SIGSYS | libc::SIGSEGV)) => Outcome::Held,
            _ => Outcome::Broken(format!("it ended with {code:?} ({signal:?}): {said}")),
        }
    }

    /// What is wrong if a case is started with `require: strict` by a kernel that cannot enforce what it asks for.
    pub(super) async fn strict_starts(&mut self, case: &Case) -> Option<String> {
        let outside = Outside::new(&self.built);
        let mut plan = self.plan(case, &outside);
        plan.confinement.require_strict = true;
        let asked = plan.confinement.landlock.as_ref();
        // Rights over files that an older interface does not have were asked for by nobody in so many words.
        let by_name = asked.is_some_and(|asked| {
            asked.bind_ports.is_some()
                || asked.connect_ports.is_some()
                || asked.scope_signals
                || asked.scope_abstract_sockets
        });
        match self.node.try_run(&plan).await {
            Ok(_) if by_name => Some("was started though `require: strict` asked for more than there is".to_owned()),
            _ => None,
        }
    }

    fn plan(&mut self, case: &Case, outside: &Outside) -> LaunchPlan {
        let mut plan = self.host.plan(&case.name.replace('_', "-"), self.built.join(&case.name));
        plan.confinement = case.confinement(outside.path());
        plan.env.extend(self.variables(outside));
        plan
    }

    fn variables(&self, outside: &Outside) -> Vec<(String, String)> {
        let port = self.port.local_addr().expect("it listens").port();
        [
            ("OUTSIDE", outside.path().display().to_string()),
            ("VICTIM", self.victim.id().to_string()),
            ("KEEPER", self.keeper.id().to_string()),
            ("KEEPER_SOCKET", self.host.layout.keeper_socket().display().to_string()),
            ("OPEN_PORT", port.to_string()),
            ("ABSTRACT", self.abstract_name.clone()),
            ("SHARED_KEY", self.shared.key.to_string()),
            ("TMP_FILE", self.tmp_file.path().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in [&mut self.victim, &mut self.keeper] {
            // Gone already, at worst.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The folder outside; new for each run, since the controls change it.
struct Outside(TempDir);

impl Outside {
    fn new(built: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode of one's own file");
        };
        mode(dir.path(), 0o777);
        for (name, bits) in [("secret", 0o644), ("writable", 0o666), ("of-root", 0o600)] {
            fs::write(dir.path().join(name), "outside\n").expect("a file in a temporary directory");
            mode(&dir.path().join(name), bits);
        }
        fs::create_dir(dir.path().join("empty")).expect("a folder in a temporary directory");
        for (name, bits) in [("program", 0o755), ("setuid", 0o4755)] {
            // Copied by another process: a file that this one has written may still be held by a child that another test forks.
            let copied = Command::new("cp").arg(built.join(name)).arg(dir.path().join(name)).status();
            assert!(copied.is_ok_and(|status| status.success()), "cannot copy {name}");
            mode(&dir.path().join(name), if is_root() { bits } else { 0o755 });
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A piece of System V shared memory, shmget(2).
struct SharedMemory {
    key: i32,
    id: i32,
}

impl SharedMemory {
    fn new() -> Self {
        let key = std::process::id().cast_signed() | 0x4e00_0000;
        // SAFETY: makes a segment, which nobody attaches.
        let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
        assert!(id >= 0, "cannot make shared memory");
        Self { key, id }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: removes the segment that `new` made.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}
