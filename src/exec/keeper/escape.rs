//! Processes that have left their instance's control group: ended when an instance ends. Shell.
//!
//! Only root, or a user to whom the hierarchy was handed over, can move a process out. Such a one keeps its family, though: once
//! orphaned it is the keeper's child, which stands in no living instance's group, and nothing of the keeper's own does that.

use std::collections::BTreeSet;
use std::fs;

use nix::unistd::{self, Pid};

use super::instance::Instance;
use crate::exec::cgroup;

/// What has been killed, and not yet reaped. When it is, its own children become the keeper's.
#[derive(Debug, Default)]
pub(super) struct Escapees {
    killed: BTreeSet<Pid>,
    is_due: bool,
}

impl Escapees {
    /// An instance has ended: some of it may have got away.
    pub(super) fn look(&mut self) {
        self.is_due = true;
    }

    /// A child that stands for no instance has ended.
    pub(super) fn reaped(&mut self, child: Pid) {
        if self.killed.remove(&child) {
            self.is_due = true;
        }
    }

    /// Whether nobody is left that was found.
    pub(super) fn are_gone(&self) -> bool {
        self.killed.is_empty() && !self.is_due
    }

    /// Kills those that are there, if it is time to look.
    pub(super) fn end<'a>(&mut self, instances: impl Iterator<Item = &'a Instance> + Clone) {
        if !std::mem::take(&mut self.is_due) {
            return;
        }
        let alive = instances.filter(|instance| instance.is_alive());
        // A number that was reaped may be another's by now.
        let known: BTreeSet<Pid> = alive.clone().filter(|one| !one.is_ending()).map(Instance::child).collect();
        for child in children() {
            if known.contains(&child) || self.killed.contains(&child) {
                continue;
            }
            let Some(group) = group_of(child) else { continue };
            if alive.clone().any(|instance| instance.holds(&group)) || has_ended(child) {
                continue;
            }
            tracing::warn!(pid = child.as_raw(), group, "ended a process that had left its instance's control group");
            // SAFETY: a child that was not reaped, so the number is its own.
            unsafe { libc::kill(child.as_raw(), libc::SIGKILL) };
            self.killed.insert(child);
        }
    }
}

/// This process's children (proc_tid_children(5)): none where the kernel does not list them.
fn children() -> Vec<Pid> {
    let own = unistd::getpid();
    let list = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|number| number.parse().ok().map(Pid::from_raw)).collect()
}

fn group_of(child: Pid) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{child}/cgroup")).ok()?;
    cgroup::path_in_hierarchy(&groups).map(str::to_owned)
}

/// Whether it only waits to be reaped.
fn has_ended(child: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_none_or(|state| matches!(state, "Z" | "X"))
}
