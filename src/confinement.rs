//! What holds a program: its limits and its sandbox, in words that specification, launch plan and kernel share. Pure, plain data.
//!
//! A specification says it, the launch plan carries it to the keeper unchanged, and the steps in `exec/sandbox` and `exec/cgroup`
//! carry it out. The default asks for nothing.

use minicbor::{Decode, Encode};

/// Most processes and threads of an instance where its specification does not say: enough for any program that is well, little
/// enough that a fork bomb leaves the host usable.
pub const PIDS_MAX: u32 = 4096;

/// How much of a cgroup's processor time is granted at a time, in microseconds: the kernel's default period
/// (Documentation/scheduler/sched-bwc.rst).
pub const CPU_PERIOD_US: u32 = 100_000;

/// All that holds a program.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Confinement {
    /// The user to run as, by name or number; none: whoever runs the node.
    #[n(0)]
    pub user: Option<String>,
    /// The capabilities to keep; none: what programs commonly need that begin as root, and nothing for others.
    #[n(1)]
    pub capabilities: Option<Capabilities>,
    /// What it may use up.
    #[n(2)]
    #[cbor(default)]
    pub limits: Limits,
    /// Namespaces of its own.
    #[n(3)]
    #[cbor(default)]
    pub namespaces: Namespaces,
    /// Which network it sees.
    #[n(4)]
    #[cbor(default)]
    pub network: Network,
    /// What it may reach, where that is restricted.
    #[n(5)]
    pub landlock: Option<Landlock>,
    /// Whether what cannot be applied is left out and told, instead of failing the start.
    #[n(6)]
    #[cbor(default)]
    pub best_effort: bool,
    /// Whether a kernel that cannot enforce all Landlock rules fails the start.
    #[n(7)]
    #[cbor(default)]
    pub require_strict: bool,
}

/// What a program with all its descendants may use up.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Limits {
    /// Memory that is kept for it when memory is short, in bytes; 0: none.
    #[n(0)]
    pub memory_low: u64,
    /// Memory that it cannot exceed, in bytes; 0: no limit.
    #[n(1)]
    pub memory_max: u64,
    /// Processor time, in thousandths of a core; 0: no limit.
    #[n(2)]
    pub cpu_millicores: u32,
    /// Processes and threads at once.
    #[n(3)]
    pub pids_max: u32,
    /// The control group, from the hierarchy's root, to make the instance's beneath; none: the node's own.
    #[n(4)]
    pub cgroup_parent: Option<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_low: 0, memory_max: 0, cpu_millicores: 0, pids_max: PIDS_MAX, cgroup_parent: None }
    }
}

/// Namespaces that an instance has to itself, namespaces(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Namespaces {
    /// It sees no processes but its own.
    #[n(0)]
    pub pid: bool,
    /// System V IPC and POSIX message queues of its own.
    #[n(1)]
    pub ipc: bool,
    /// Mounts of its own, with an empty `/tmp`.
    #[n(2)]
    pub mount: bool,
}

/// Which network an instance sees.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum Network {
    /// The host's.
    #[default]
    #[n(0)]
    Host,
    /// The network namespace that is bound to this path.
    #[n(1)]
    Join(#[n(0)] String),
    /// A loopback of its own and nothing else; connections to these ports on it are carried to the same ports of the host's
    /// loopback.
    #[n(2)]
    Loopback(#[n(0)] Vec<LocalPort>),
}

/// A port of the host's loopback.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct LocalPort {
    /// Its number.
    #[n(0)]
    pub port: u16,
    /// Whose.
    #[n(1)]
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Protocol {
    /// TCP.
    #[n(0)]
    Tcp,
    /// UDP.
    #[n(1)]
    Udp,
}

impl Protocol {
    /// The word in specifications.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What `mode: landlock` lets a program reach, landlock(7). Its binary and its working directory are open to it always.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Landlock {
    /// Groups of files that programs commonly need.
    #[n(0)]
    pub groups: Vec<Group>,
    /// Further files and directories.
    #[n(1)]
    pub paths: Vec<PathRule>,
    /// TCP ports that it may listen on; none: no rule.
    #[n(2)]
    pub bind_ports: Option<Vec<u16>>,
    /// TCP ports that it may connect to; none: no rule.
    #[n(3)]
    pub connect_ports: Option<Vec<u16>>,
    /// No signals to processes outside.
    #[n(4)]
    pub scope_signals: bool,
    /// No connections to abstract sockets of processes outside.
    #[n(5)]
    pub scope_abstract_sockets: bool,
}

/// A group of files that programs commonly need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Group {
    /// Shared libraries and /dev/null.
    #[n(0)]
    Shared,
    /// Standard streams, random numbers, locales, time zones.
    #[n(1)]
    Stdio,
    /// Terminals.
    #[n(2)]
    Tty,
    /// `/tmp`.
    #[n(3)]
    Tmp,
    /// Processor and memory figures.
    #[n(4)]
    Vminfo,
    /// Files that name look-ups read.
    #[n(5)]
    Dns,
    /// Certificates of public authorities.
    #[n(6)]
    Certs,
}

impl Group {
    /// All of them, in the order of their field.
    pub const ALL: [Self; 7] = [Self::Shared, Self::Stdio, Self::Tty, Self::Tmp, Self::Vminfo, Self::Dns, Self::Certs];

    /// The word in specifications.
    pub fn word(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Stdio => "stdio",
            Self::Tty => "tty",
            Self::Tmp => "tmp",
            Self::Vminfo => "vminfo",
            Self::Dns => "dns",
            Self::Certs => "certs",
        }
    }
}

/// A file or directory, and what is allowed there and beneath.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct PathRule {
    /// Where; a path that is not absolute begins at the working directory.
    #[n(0)]
    pub path: String,
    /// What.
    #[n(1)]
    pub modes: Modes,
}

/// What may be done with a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Modes {
    /// `r`: files are read, directories listed.
    #[n(0)]
    pub read: bool,
    /// `w`: files are written and truncated.
    #[n(1)]
    pub write: bool,
    /// `x`: files are executed.
    #[n(2)]
    pub execute: bool,
    /// `c`: files and directories are made, renamed and removed.
    #[n(3)]
    pub create: bool,
}

impl Modes {
    /// Out of the letters of a specification; others are passed over.
    pub fn of_letters(letters: &str) -> Self {
        let has = |letter| letters.contains(letter);
        Self { read: has('r'), write: has('w'), execute: has('x'), create: has('c') }
    }

    /// The letters, in their usual order.
    pub fn letters(self) -> String {
        let all = [(self.read, 'r'), (self.write, 'w'), (self.execute, 'x'), (self.create, 'c')];
        all.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
    }
}

/// A set of capabilities, capabilities(7): the bit of each is its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Capabilities(#[n(0)] pub u64);

impl Capabilities {
    /// Their names without `CAP_`, each at the place of its number.
    pub const NAMES: [&'static str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];

    /// Every one.
    pub const ALL: Self = Self((1 << Self::NAMES.len()) - 1);

    /// The set of one, by its name, with or without `CAP_`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        Self::NAMES.iter().position(|known| *known == name).map(|number| Self(1 << number))
    }

    /// Whether all of `other` are in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of those in it.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().enumerate().filter(move |(number, _)| self.0 & (1 << number) != 0).map(|(_, name)| *name)
    }
}

/// What of its confinement a running program has: told by the child that became it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Enforced {
    /// The version of Landlock's interface whose rules hold; none without Landlock.
    #[n(0)]
    pub landlock_abi: Option<u32>,
    /// What was asked for and is not enforced, a line each.
    #[n(1)]
    #[cbor(default)]
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_with_or_without_their_prefix() {
        assert_eq!(Capabilities::named("CAP_NET_BIND_SERVICE"), Some(Capabilities(1 << 10)));
        assert_eq!(Capabilities::named("CHECKPOINT_RESTORE"), Some(Capabilities(1 << 40)));
        assert_eq!(Capabilities::named("net_raw"), None);
        let two = Capabilities::named("KILL").unwrap().and(Capabilities::named("CHOWN").unwrap());
        assert_eq!(two.names().collect::<Vec<_>>(), ["CHOWN", "KILL"]);
        assert!(Capabilities::ALL.has(two) && !two.has(Capabilities::ALL));
        assert_eq!(Capabilities::ALL.names().count(), Capabilities::NAMES.len());
    }

    #[test]
    fn a_confinement_that_says_little_is_the_default() {
        let empty: Confinement = minicbor::decode(&[0xa0]).unwrap();
        assert_eq!(empty, Confinement::default());
        let bytes = minicbor::to_vec(Confinement::default()).unwrap();
        assert_eq!(minicbor::decode::<Confinement>(&bytes).unwrap(), Confinement::default());
    }

    #[test]
    fn modes_are_their_letters() {
        for letters in ["r", "rw", "rx", "rwxc", "c"] {
            assert_eq!(Modes::of_letters(letters).letters(), letters);
        }
        assert_eq!(Modes::of_letters("cr").letters(), "rc");
    }
}
