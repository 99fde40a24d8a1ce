//! Processes on this host.
//!
//! Pure: `plan` is the fully resolved launch plan that crosses to the keeper and knows no specification; `supervisor` is the state
//! table of one instance; `backoff` says when to try again; `usage` is what one uses. Shells: `keeper` is the process that owns the
//! others, and its client; `launch` the one function that is the order of a start, `sandbox` its steps, `program` its last one;
//! `cgroup` and `namespace` hold a whole tree of processes together, `cgroup` limits it too, with `clone`, `borrow`, `ignored`,
//! `forget` and `pidfd` under them; `forward` carries ports of a program without network to the host's; `logs` are the files that keep output. `peer` tells
//! instances from those who may speak to narun; `cause` words what the system says.
//!
//! The life of an instance, once:
//!
//! ```text
//!   engine        supervisor: wished, its binary is here and verified --> LaunchPlan
//!   node          the user's name becomes numbers (KeeperClient); the plan goes to the keeper
//!   keeper        log opened; groups made and limited (cgroup); pipes; a child by one clone3: in borrowed memory (borrow) or a
//!                 fork into group and namespaces (clone)
//!     child       run_order: descriptors, session, groups, network, mounts, working directory, rlimits, user, capabilities,
//!                 no_new_privs, Landlock, system calls, exec      (sandbox/mod.rs: the threat that each step answers)
//!   keeper        Launched, with what is enforced; output goes to the log, ports are carried; at the end the child is reaped,
//!                 what is left of its tree killed, the pipes drained, OOM kills counted, the groups removed --> Exited
//!   engine        supervisor: by the restart policy started again (at once no, after a backoff), given up, or finished;
//!                 the exit is in the roster, and only then the keeper may forget it (Acknowledge)
//! ```
//!
//! Each step of a start has an error of its own, which reads in `service info` and `narun why` as it was made. The node may die anywhere
//! in this: the keeper's table holds the rest until it is back. If the keeper dies, all of it ends with it, and is started anew.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod backoff;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod plan;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod supervisor;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub mod usage;

pub mod keeper;
pub mod logs;

pub(crate) mod borrow;
pub(crate) mod cause;
pub(crate) mod cgroup;
pub(crate) mod clone;
pub(crate) mod forget;
pub(crate) mod forward;
pub(crate) mod ignored;
pub(crate) mod launch;
pub(crate) mod namespace;
pub(crate) mod peer;
pub(crate) mod pidfd;
pub(crate) mod program;
pub(crate) mod sandbox;
