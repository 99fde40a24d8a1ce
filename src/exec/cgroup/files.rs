//! Files and folders of groups: read, written, made, removed. Shell.
//!
//! A folder is a group; making one makes a group, and removing it needs no emptying (Documentation/admin-guide/cgroup-v2.rst).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::GroupError;

/// The text of a file; none where it is not there or the group is gone: what can be told is told.
pub(super) fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Writes a word to a file of a group: in one piece, and only where the file is there.
pub(super) fn write(path: &Path, word: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(word.as_bytes())
}

/// Makes a group, unless it is there.
pub(super) fn make(path: &Path) -> Result<(), GroupError> {
    match fs::create_dir(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            Err(GroupError::Make { path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

/// Makes a group and those above it that are missing; gives those that it has made, the topmost first.
pub(super) fn make_all(path: &Path) -> Result<Vec<PathBuf>, GroupError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        make(path)?;
        made.push(path.to_owned());
    }
    Ok(made)
}

/// The groups right beneath one.
pub(super) fn children(path: &Path) -> Result<Vec<PathBuf>, GroupError> {
    let read = |cause| GroupError::Read { path: path.to_owned(), cause };
    let mut groups = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// Removes a group and all beneath it. One that is gone already is no error.
pub(super) fn remove_tree(path: &Path) -> Result<(), GroupError> {
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(cause) if is_gone(&cause) => return Ok(()),
        // It holds processes, or groups: those are removed first.
        Err(_) => {}
    }
    for child in children(path)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(cause) if !is_gone(&cause) => Err(GroupError::Remove { path: path.to_owned(), cause }),
        _ => Ok(()),
    }
}

/// Whether an error says that the group itself is not there any more.
pub(super) fn is_gone(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(libc::ENODEV)
}
