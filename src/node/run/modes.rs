//! Who may look into the data directory. Shell.
//!
//! What is in it is its owner's alone. Where the node is root's, though, instances may run as other users, who have to get to their
//! programs and working directories by paths that lead through it: then the directory itself, `bin` and `instances` can be passed
//! through by those who know a name. Who could list it before, since its owner made it so, can go on to.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::{Mode, umask};
use nix::unistd;

use crate::node::layout::Layout;

/// The rights of all but a file's owner.
const OTHERS: u32 = 0o077;

/// For directories that are passed through.
const PASSAGE: u32 = 0o711;

/// From here on this process makes files for its owner alone, unless it says otherwise.
pub(super) fn make_private() {
    umask(Mode::from_bits_truncate(OTHERS));
}

/// Gives everything in the data directory the mode that it should have, whoever made it. What is private is closed before a way
/// through is opened. The key is left as it is: whoever finds it open to others refuses it, since they may have read it.
pub(super) fn set(layout: &Layout) -> io::Result<()> {
    let passages = [layout.executables(), layout.instances()];
    let is_shared = unistd::geteuid().is_root();
    for entry in fs::read_dir(layout.root())? {
        let path = entry?.path();
        if path == layout.identity() {
            continue;
        }
        let metadata = path.symlink_metadata()?;
        // A link leads to what somebody has put elsewhere, and given a mode there.
        let is_passage = is_shared && passages.contains(&path);
        if metadata.mode() & OTHERS != 0 && !metadata.is_symlink() && !is_passage {
            fs::set_permissions(&path, Permissions::from_mode(metadata.mode() & 0o7700))?;
        }
    }
    if is_shared {
        for path in &passages {
            DirBuilder::new().recursive(true).mode(PASSAGE).create(path)?;
            open(path)?;
        }
        open(layout.root())?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<()> {
    let mode = path.metadata()?.mode() & 0o7777;
    if mode & PASSAGE != PASSAGE { fs::set_permissions(path, Permissions::from_mode(mode | PASSAGE)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_closed_and_a_way_leads_through_for_roots_instances_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let layout = Layout::new(dir.path());
        for folder in [layout.executables(), layout.logs(), layout.blobs()] {
            DirBuilder::new().create(&folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(layout.database(), "").unwrap();
        fs::write(layout.identity(), "").unwrap();
        for file in [layout.database(), layout.identity()] {
            fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        set(&layout).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        for private in [layout.logs(), layout.blobs()] {
            assert_eq!(mode(&private), 0o700, "{private:?}");
        }
        assert_eq!(mode(&layout.database()), 0o600);
        assert_eq!(mode(&layout.identity()), 0o644, "its own check has to see that");
        if unistd::geteuid().is_root() {
            assert_eq!((mode(layout.root()), mode(&layout.instances())), (0o711, 0o711));
            assert_eq!(mode(&layout.executables()) & 0o711, 0o711);
        } else {
            assert_eq!((mode(layout.root()), mode(&layout.executables())), (0o700, 0o700));
        }
    }
}
