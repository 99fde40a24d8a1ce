//! The working directory: private, its owner's, and entered without following what an earlier run has left. Shell.
//!
//! It outlives restarts, so that what stands there, or in its own place, may be hostile: a symlink to /etc would have root give
//! /etc away. So it is opened once, following no link in its last part, and everything else is done to what was opened
//! (open(2), O_NOFOLLOW). What is in it keeps the owners that it has.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{self, AccessFlags, Gid, Uid};

use crate::exec::cause::Cause;
use crate::exec::plan::Identity;

/// Its owner alone may look into it.
const MODE: u32 = 0o700;

/// The folder of all working directories may be passed through by those who know a name in it.
const PARENT_MODE: u32 = 0o711;

/// Why a program has no working directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkDirError {
    #[error("cannot make the working directory `{}`: {cause}", path.display())]
    Make { path: PathBuf, cause: Cause },
    #[error("cannot open the working directory `{}`: {cause}", path.display())]
    Open { path: PathBuf, cause: Cause },
    #[error("cannot use the working directory `{}`: a symbolic link stands in its place", .0.display())]
    Link(PathBuf),
    #[error("cannot give the working directory `{}` to `{user}`: {cause}", path.display())]
    Give { path: PathBuf, user: String, cause: Cause },
    #[error("cannot close the working directory `{}` to others: {cause}", path.display())]
    Close { path: PathBuf, cause: Cause },
    #[error("cannot enter the working directory `{}`: {cause}", path.display())]
    Enter { path: PathBuf, cause: Cause },
    #[error(
        "`{user}` cannot reach the working directory `{}`: `{}` is closed to it\nhint: `chmod o+x {}` lets others pass through it, or \
         `--data-dir` names a data directory that stands elsewhere",
        path.display(),
        closed.display(),
        closed.display()
    )]
    OutOfReach { path: PathBuf, closed: PathBuf, user: String },
}

/// Makes the directory where it is missing, makes it `owner`'s (none: this process's user's) and enters it.
pub(crate) fn enter(path: &Path, owner: Option<&Identity>) -> Result<(), WorkDirError> {
    let dir = open(path)?;
    let close = |cause: Cause| WorkDirError::Close { path: path.to_owned(), cause };
    let metadata = dir.metadata().map_err(|e| close(e.into()))?;
    // Closed before it is given away: what its new owner does to it then is nobody else's.
    if metadata.mode() & 0o7777 != MODE {
        fchmod(&dir, Mode::from_bits_truncate(MODE)).map_err(|e| close(e.into()))?;
    }
    give(&dir, &metadata, path, owner)?;
    unistd::fchdir(&dir).map_err(|e| WorkDirError::Enter { path: path.to_owned(), cause: e.into() })
}

fn open(path: &Path) -> Result<File, WorkDirError> {
    let make = |cause: io::Error| WorkDirError::Make { path: path.to_owned(), cause: cause.into() };
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let open = || File::options().read(true).custom_flags(flags).open(path);
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(PARENT_MODE).create(parent).map_err(make)?;
            }
            match DirBuilder::new().mode(MODE).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(make(error)),
                _ => open(),
            }
        }
        opened => opened,
    };
    opened.map_err(|error| match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => WorkDirError::Link(path.to_owned()),
        // Something that is no directory stands in its way.
        _ if error.kind() == io::ErrorKind::NotADirectory => make(error),
        _ => WorkDirError::Open { path: path.to_owned(), cause: error.into() },
    })
}

fn give(dir: &File, metadata: &std::fs::Metadata, path: &Path, owner: Option<&Identity>) -> Result<(), WorkDirError> {
    let own = || (unistd::geteuid().as_raw(), unistd::getegid().as_raw());
    let (uid, gid) = owner.map_or_else(own, |user| (user.uid, user.gid));
    if metadata.uid() == uid && (metadata.gid() == gid || owner.is_none()) {
        return Ok(());
    }
    let given = unistd::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    given.map_err(|e| {
        let user = owner.map_or_else(|| uid.to_string(), |user| user.name.clone());
        WorkDirError::Give { path: path.to_owned(), user, cause: e.into() }
    })
}

/// Makes sure that the program, which has become `user` by now, can get to its directory by the path that its environment names.
pub(crate) fn is_within_reach(path: &Path, user: &str) -> Result<(), WorkDirError> {
    let is_open = |at: &Path| unistd::faccessat(AT_FDCWD, at, AccessFlags::X_OK, AtFlags::AT_EACCESS);
    if is_open(path) != Err(Errno::EACCES) {
        return Ok(());
    }
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let closed = above.into_iter().find(|at| is_open(at) == Err(Errno::EACCES)).unwrap_or(path);
    Err(WorkDirError::OutOfReach { path: path.to_owned(), closed: closed.to_owned(), user: user.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Opens and gives it without entering: the directory of a process is shared by the tests.
    fn prepare(path: &Path) -> Result<(), WorkDirError> {
        let dir = open(path)?;
        let metadata = dir.metadata().unwrap();
        give(&dir, &metadata, path, None)
    }

    #[test]
    fn it_is_made_with_what_lies_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("instances/web-0");
        prepare(&path).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o711));
        prepare(&path).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("web-0"), dir.path().join("elsewhere"));
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        let error = prepare(&path).unwrap_err().to_string();
        assert!(error.ends_with("a symbolic link stands in its place"), "{error}");
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert!(matches!(prepare(&dir.path().join("dangling")), Err(WorkDirError::Link(_))));
    }

    #[test]
    fn a_file_in_its_way_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        for path in ["file", "file/beneath"] {
            assert!(matches!(prepare(&dir.path().join(path)), Err(WorkDirError::Make { .. })), "{path}");
        }
    }
}
