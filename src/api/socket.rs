//! The API's socket file. A shell.
//!
//! A socket's path may have at most 107 bytes (unix(7)), a data directory's may have more: so the socket is named through a
//! descriptor of its folder, `/proc/self/fd/<n>/narun.sock`, at both ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use tokio::net::{UnixListener, UnixStream};

/// How many callers may wait to be let in. The default of most servers: callers are people and scripts.
const BACKLOG: i32 = 128;

/// Only the node's own user may speak to it; root may do all.
const SOCKET_MODE: u32 = 0o600;

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the API's socket {path}: {cause}")]
pub struct SocketError {
    step: &'static str,
    path: PathBuf,
    cause: io::Error,
}

/// Listens at `path`, with mode 0600 from its first moment. A socket that stands there is replaced: whoever calls this holds the
/// data directory's lock, so it is a dead node's. Must be called inside of a tokio runtime.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |step: &'static str| move |cause: io::Error| SocketError { step, path: path.to_owned(), cause };
    let (folder, name) = open_folder(path).map_err(failed("find the folder of"))?;
    let there = through(&folder, &name);
    if let Ok(found) = fs::symlink_metadata(&there) {
        use std::os::unix::fs::FileTypeExt;
        if !found.file_type().is_socket() {
            let cause = io::Error::other("a file that is no socket stands there");
            return Err(failed("replace")(cause));
        }
    }
    // Bound under another name, narrowed, and only then opened to callers and put in place: at no moment can another user
    // connect, and at no moment is there no socket.
    let fresh = through(&folder, &format!("{name}.{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = listen(&fresh).inspect_err(|_| drop(fs::remove_file(&fresh))).map_err(failed("listen at"))?;
    fs::rename(&fresh, &there).inspect_err(|_| drop(fs::remove_file(&fresh))).map_err(failed("put in place"))?;
    UnixListener::from_std(listener).map_err(failed("watch"))
}

fn listen(path: &Path) -> io::Result<StdListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener: OwnedFd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener.into())
}

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (folder, name) = open_folder(path)?;
    UnixStream::connect(through(&folder, &name)).await
}

fn open_folder(path: &Path) -> io::Result<(File, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY | nix::libc::O_CLOEXEC;
    Ok((OpenOptions::new().read(true).custom_flags(flags).open(folder)?, name.to_owned()))
}

fn through(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_deep_folder_holds_a_socket_that_only_its_user_may_use() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("narun.sock");
        let listener = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
        let names: Vec<_> = fs::read_dir(&deep).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["narun.sock"], "nothing else is left behind");
    }

    #[tokio::test]
    async fn a_dead_nodes_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("narun.sock");
        drop(bind(&path).unwrap());
        assert_eq!(connect(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _again = bind(&path).unwrap();
        connect(&path).await.unwrap();

        let file = dir.path().join("precious");
        fs::write(&file, "x").unwrap();
        let error = bind(&file).unwrap_err().to_string();
        assert!(error.contains("no socket") && error.contains("precious"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    }

    #[tokio::test]
    async fn a_missing_folder_is_named() {
        let error = bind(Path::new("/nonexistent/narun.sock")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/narun.sock") && error.contains("No such file"), "{error}");
    }
}
