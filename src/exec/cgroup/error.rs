//! Why a control group cannot be used.

use std::io;
use std::path::PathBuf;

use super::SWEEP_WAIT_MAX;
use super::hierarchy::Controller;
use crate::exec::cause::why;

/// Why no group can be used, or one could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A file that says where groups are cannot be read.
    #[error("cannot read `{path}`: {}", why(cause))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is no hierarchy.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// The kernel is too old.
    #[error("`{0}` has no `cgroup.kill`: the kernel is older than 5.14")]
    NoKill(PathBuf),
    /// A group cannot be made.
    #[error("cannot make the cgroup `{path}`: {}", why(cause))]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No process can be put into a group.
    #[error("cannot move a process into the cgroup `{path}`: {}", why(cause))]
    Enter {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Whether processes can be moved at all was tried, in vain.
    #[error("cannot move a process into a new cgroup: {}", why(cause))]
    Probe {
        /// Why.
        cause: io::Error,
    },
    /// A limit cannot be written.
    #[error("cannot limit {controller}: cannot write `{value}` to `{path}`: {}", why(cause))]
    Set {
        /// Of what.
        controller: Controller,
        /// To which file.
        path: PathBuf,
        /// What.
        value: String,
        /// Why.
        cause: io::Error,
    },
    /// No hierarchy that this keeper can use has the controller.
    #[error("cannot limit {controller}: {reason}")]
    NoController {
        /// Which one.
        controller: Controller,
        /// What stands in the way, with a hint where one helps.
        reason: String,
    },
    /// A group was asked for where there can be none.
    #[error("cannot use `cgroupParent: {parent}`: {reason}")]
    NoParent {
        /// Which one.
        parent: String,
        /// Why.
        reason: String,
    },
    /// The processes of a group cannot be killed.
    #[error("cannot kill the processes of the cgroup `{path}`: {}", why(cause))]
    Kill {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The processes of a group do not end.
    #[error("the processes of the cgroup `{0}` did not end within {SWEEP_WAIT_MAX:?} after they were killed")]
    Stuck(PathBuf),
    /// A group cannot be removed.
    #[error("cannot remove the cgroup `{path}`: {}", why(cause))]
    Remove {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The record of the base groups cannot be written.
    #[error("cannot write `{path}`: {}", why(cause))]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}
