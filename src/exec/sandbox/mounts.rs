//! Mounts of an instance's own (mount_namespaces(7)): nothing that the host mounts later comes in, nothing that it mounts gets
//! out. Shell.
//!
//! With `namespaces: [mount]` empty file systems cover the folders that all programs of a host share. They live in memory, which
//! counts against the instance's limit. With `namespaces: [pid]` `/proc` shows the processes of the instance alone, with `[ipc]`
//! `/dev/mqueue` its queues.

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::unistd;

use crate::exec::cause::Cause;
use crate::exec::launch::{LaunchError, Start};
use crate::exec::sandbox::work_dir::WorkDirError;

/// What is covered by an empty file system.
const COVERED: [&str; 2] = ["/tmp", "/dev/shm"];

/// Where POSIX message queues are seen as files, where they are (mq_overview(7)).
const QUEUES: &str = "/dev/mqueue";

/// Gives the instance the mounts that its namespaces promise.
pub(crate) fn mounts(start: &Start<'_>) -> Result<(), LaunchError> {
    if !start.spaces.contains(CloneFlags::CLONE_NEWNS) {
        return Ok(());
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none(), "/", none(), private, none()).map_err(|e| LaunchError::PrivateMounts(e.into()))?;
    let asked = start.plan.confinement.namespaces;
    if asked.mount {
        cover(start)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if asked.ipc && start.spaces.contains(CloneFlags::CLONE_NEWIPC) && Path::new(QUEUES).is_dir() {
        let result = mount(Some("mqueue"), QUEUES, Some("mqueue"), flags, none());
        result.map_err(|e| LaunchError::Mount { what: "`mqueue`", at: QUEUES.into(), cause: e.into() })?;
    }
    if asked.pid && start.spaces.contains(CloneFlags::CLONE_NEWPID) {
        let result = mount(Some("proc"), "/proc", Some("proc"), flags, none());
        result.map_err(|e| LaunchError::Mount { what: "`proc`", at: "/proc".into(), cause: e.into() })?;
    }
    Ok(())
}

/// Covers what is to be covered. What the start itself needs beneath it, as when the data directory is in `/tmp`, is held open
/// meanwhile and mounted back to where it was.
fn cover(start: &Start<'_>) -> Result<(), LaunchError> {
    let (work_dir, binary) = (&start.plan.work_dir, &start.plan.binary);
    let failed = |path: &Path, cause: Cause| LaunchError::KeepInReach { path: path.to_owned(), cause };
    let hold = |path: &Path| File::options().read(true).custom_flags(libc::O_PATH).open(path);
    // The working directory is the one that this process stands in, whatever its name leads to by now.
    let here = unistd::getcwd().map_err(|e| failed(work_dir, e.into()))?;
    let mut kept = vec![(here, hold(Path::new(".")).map_err(|e| failed(work_dir, e.into()))?)];
    // One that does not exist is told by the step that opens it.
    if let Ok(path) = fs::canonicalize(binary) {
        let file = hold(&path).map_err(|e| failed(binary, e.into()))?;
        kept.push((path, file));
    }
    kept.retain(|(path, _)| COVERED.iter().any(|covered| path.starts_with(covered)));
    for at in COVERED {
        // Where there is none, as in small containers, there is nothing to cover.
        if !Path::new(at).is_dir() {
            continue;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let result = mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=1777"));
        result.map_err(|e| LaunchError::Mount { what: "an empty `tmpfs`", at: at.into(), cause: e.into() })?;
    }
    for (path, file) in &kept {
        mount_back(path, file).map_err(|cause| failed(path, cause))?;
    }
    // It is entered anew through its new mount: the old one cannot be reached by any path.
    unistd::chdir(work_dir).map_err(|e| WorkDirError::Enter { path: work_dir.clone(), cause: e.into() }.into())
}

/// Mounts what `file` holds on `path`.
fn mount_back(path: &Path, file: &File) -> Result<(), Cause> {
    let is_dir = file.metadata()?.is_dir();
    let folder = if is_dir { Some(path) } else { path.parent() };
    if let Some(folder) = folder {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    if !is_dir {
        File::create(path)?;
    }
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(mount(Some(open.as_str()), path, none(), MsFlags::MS_BIND, none())?)
}

fn none() -> Option<&'static str> {
    None
}
