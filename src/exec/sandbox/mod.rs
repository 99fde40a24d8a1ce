//! What holds a program from within. Shell; the keeper's child takes these steps in the order of `launch`, one file each.
//!
//! The order, with the threat that each step answers; the steps of other rooms stand in brackets:
//!
//! | step | file | what a program could do without it |
//! |---|---|---|
//! | descriptors | (`launch`) | read or write what narun has open: other instances' output, the database |
//! | session | (`launch`) | signal narun's own session; outlive the keeper |
//! | cgroup | (`cgroup`) | leave processes behind that nobody finds; use up the host |
//! | namespaces | `namespaces` | see and signal the processes of others, or use their shared memory |
//! | network | `network` | speak to the host's network |
//! | working directory | `work_dir` | have root give away, or open to it, what a link that it left leads to |
//! | mounts | `mounts`, `cgroupfs` | see the temporary files of others; as root: move its processes out of its control group |
//! | rlimits | (`launch`) | leave its memory, with the secrets in it, in a core dump |
//! | groups and user | `identity` | act with the rights of the node's user, or of groups that are not its own |
//! | capabilities | `capabilities` | as root: act on the host instead of on itself |
//! | no_new_privs | (`launch`) | get rights back by a setuid binary; without it the next two could be turned against such a one |
//! | Landlock | `landlock` | read, write, execute, connect to or signal what it was not given |
//! | system calls | `seccomp` | reach the parts of the kernel that escapes are made of; type into its starter's terminal |
//! | exec | (`program`) | be another program than the one that was verified |
//!
//! Steps that take rights stand after all those that need them, so the order can only be changed with a reason. What was asked for
//! and cannot be given fails the start, or is left out and told under `enforce: best-effort`. A user other than the one asked for
//! is never settled with: it would not be a weaker sandbox but another one's rights. What nobody asked for (root's default
//! capabilities, read-only control groups, the filter of calls) is applied where it can be, and told where it cannot.

pub(crate) mod namespaces;

pub(crate) mod cgroupfs;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod work_dir;

pub(crate) mod identity;

pub(crate) mod capabilities;

pub(crate) mod landlock;
pub(crate) mod seccomp;

#[cfg(test)]
mod speed;
