//! What is left in a data directory when its node is no member any more. Shell.
//!
//! The database says so, and refuses to be started; a file beside it says the same to people. Joining again with the same
//! directory puts key and database aside and begins with new ones: a key that was removed never comes back.

use std::fs;
use std::io;

use crate::crdt::trust::Gone;
use crate::node::layout::Layout;
use crate::time::Wall;

/// What to do about it.
pub(super) const HINT: &str =
    "its instances were stopped; `narun join` with a new ticket makes this host a member again, under a new key";

/// Tells people in the data directory what happened.
pub(super) fn explain(layout: &Layout, gone: &Gone) {
    // The database says the same, and says it to `narun start`: this is for whoever looks around first.
    if let Err(error) = fs::write(layout.gone(), format!("{gone}\n{HINT}\n")) {
        tracing::warn!(%error, "cannot write {}", layout.gone().display());
    }
}

/// Moves key, database and explanation into a folder of their own.
pub(super) fn put_aside(layout: &Layout, now: Wall) -> io::Result<()> {
    let folder = layout.former(now.0 / 1_000);
    fs::create_dir(&folder)?;
    // The key first: a database that says that its node is gone, without a key, is put aside again after a crash; a key without
    // its database would be refused.
    for file in [layout.identity(), layout.database(), layout.ledger(), layout.gone()] {
        if file.exists() {
            let name = file.file_name().expect("files of the layout have names");
            fs::rename(&file, folder.join(name))?;
        }
    }
    fs::File::open(layout.root())?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::trust::GoneCause;
    use crate::ids::NodeName;

    #[test]
    fn what_is_left_is_explained_and_put_aside_whole() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::write(layout.identity(), b"key").unwrap();
        fs::write(layout.database(), b"rows").unwrap();
        fs::write(layout.ledger(), b"log").unwrap();
        let (name, by) = (NodeName::new("b").unwrap(), NodeName::new("a").unwrap());
        explain(&layout, &Gone { name, cause: GoneCause::Removed { by, at: Wall(0) } });
        let text = fs::read_to_string(layout.gone()).unwrap();
        assert!(text.starts_with("`b` was removed from the cluster by `a` at 1970-01-01T00:00:00"), "{text}");
        assert!(text.contains("narun join"), "{text}");

        put_aside(&layout, Wall(7_000)).unwrap();
        assert!(
            !layout.identity().exists()
                && !layout.database().exists()
                && !layout.ledger().exists()
                && !layout.gone().exists()
        );
        assert_eq!(fs::read(layout.former(7).join("identity.key")).unwrap(), b"key");
        assert_eq!(fs::read(layout.former(7).join("catalog.redb")).unwrap(), b"rows");
        assert_eq!(fs::read(layout.former(7).join("ledger.redb")).unwrap(), b"log");
    }
}
