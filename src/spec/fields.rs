//! The table of all fields that a specification can have. Pure.
//!
//! One row a field: its name, what it takes, what it is when it is left out, and what it is for. The checks, the suggestions
//! for misspelt names and the JSON schema are all read off this table, so none of them can forget a field. What this version
//! does not carry out yet is one more list, [`NOT_YET`].

use super::{cron, words};
use crate::confinement;

/// Fields that this version checks in full and then refuses, unless they are given the value that asks for nothing. Whoever
/// carries one out deletes its line here.
pub(super) const NOT_YET: &[&str] =
    &["env[].valueFromSecret", "health", "jail", "metrics", "mounts", "order", "sockets", "spread"];

/// Most instances of one service, on one node or over the cluster: what one node is measured to carry.
pub const REPLICAS_MAX: u64 = 1_000;

/// Most entries of `nodes`: three times the full mesh that narun is made for.
pub const PLACES_MAX: usize = 1_000;

/// Most entries of `args`: far more than people write, little enough to be shown.
pub const ARGS_MAX: usize = 4_096;

/// Most entries of `env`.
pub const ENV_MAX: usize = 1_000;

/// Longest single argument, and longest `NAME=value`, in bytes: execve(2) takes 128 KiB for one string, its closing NUL counted.
pub const STRING_LEN_MAX: usize = 128 * 1024 - 1;

/// All of `args` and `env` together, in bytes. The kernel takes 2 MiB with the usual stack limit; this much can be written down
/// as YAML within [`WRITTEN_LEN_MAX`](super::WRITTEN_LEN_MAX) even if each byte needs an escape of four.
pub const ARGS_AND_ENV_LEN_MAX: usize = 192 * 1024;

/// Longest tag, in bytes: it becomes a part of object names, which people read in tables.
pub const TAG_LEN_MAX: usize = 128;

/// Most retries of one run: with a minute between two of them, most of a day.
pub const RETRIES_MAX: u64 = 1_000;

/// Longest time limit and grace, in seconds: a year. What is to run longer than that is a service.
pub const SECONDS_MAX: u64 = 366 * 86_400;

/// Most memory in MiB: an exbibyte, so that a size in bytes still fits 64 bits.
const MEBIBYTES_MAX: u64 = 1 << 40;

/// Most processors that can be asked for: eight times what Linux can be built for.
const CORES_MAX: u64 = 65_536;

/// Highest version of Landlock's interface that can be asked for; ten were made in the first five years.
const LANDLOCK_MAX: u64 = 1_000;

/// Most entries of `capabilities`: as many as there are, with room for those to come.
const CAPABILITIES_MAX: usize = 64;

/// Most entries of the other lists: far more than a program needs, little enough to be shown.
const ENTRIES_MAX: usize = 256;

/// One row of the table.
pub(super) struct Field {
    /// As it is written, in camelCase.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) shape: Shape,
    /// What it is when it is left out.
    pub(super) absent: Absent,
    /// What it is for, in one line.
    pub(super) purpose: &'static str,
}

/// What a field takes.
pub(super) enum Shape {
    /// Text that keeps a rule.
    Text(&'static TextRule),
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Whole(u64, u64),
    /// A number, not negative, at most this.
    Number(f64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// At most so many of the same.
    List(&'static Shape, usize),
    /// A map of known fields.
    Map(&'static [Field]),
    /// A map of names that the user chooses to texts.
    Labels,
    /// `true`, `false`, or a map of known fields.
    FlagOrMap(&'static [Field]),
}

/// A rule for text. No text may hold NUL: neither the kernel nor a path nor a variable takes it.
pub(super) struct TextRule {
    /// Longest text in bytes.
    pub(super) len_max: usize,
    /// The same rule for a JSON schema, where it is a regular expression.
    pub(super) pattern: Option<&'static str>,
    /// Says what is wrong.
    pub(super) check: fn(&str) -> Result<(), String>,
}

/// What a field is when it is left out; given in so many words, it asks for nothing either.
pub(super) enum Absent {
    /// It has to be given.
    Refused,
    /// No value means the same as leaving it out.
    Unlike,
    /// An empty text, list or map; of a map also one all of whose fields ask for nothing.
    Empty,
    /// This flag.
    Flag(bool),
    /// This number.
    Whole(u64),
    /// The first of these words; the others are the same.
    Word(&'static [&'static str]),
}

const fn field(name: &'static str, shape: Shape, absent: Absent, purpose: &'static str) -> Field {
    Field { name, shape, absent, purpose }
}

use Absent::{Empty, Refused, Unlike, Word};
use Shape::{Choice, Flag, FlagOrMap, Labels, List, Map, Number, Text, Whole};

/// Every field.
pub(super) const FIELDS: &[Field] = &[
    field("name", Text(&words::SERVICE), Refused, "the name that the cluster knows it by"),
    field("tag", Text(&words::TAG), Refused, "the version label of the binary"),
    field("command", Text(&words::TEXT), Empty, "the interpreter to run the binary with"),
    field("args", List(&Text(&words::TEXT), ARGS_MAX), Empty, "arguments after the binary"),
    field("env", List(&Map(ENV), ENV_MAX), Empty, "environment variables"),
    field("nodes", List(&Map(PLACE), PLACES_MAX), Empty, "the nodes to run on; instead of `replicas`"),
    field("replicas", Whole(1, REPLICAS_MAX), Unlike, "instances over the whole cluster; instead of `nodes`"),
    field("constraints", Map(CONSTRAINTS), Empty, "what a node must have to be eligible"),
    field("spread", Text(&words::LABEL), Empty, "the node label over whose values instances are spread"),
    field("singleton", Flag, Absent::Flag(false), "at most one instance at any time, under a lease of the ledger"),
    // How it runs.
    field("mode", Choice(&["exec", "landlock", "jail"]), Word(&["exec"]), "the sandbox"),
    field("mounts", List(&Map(MOUNT), ENTRIES_MAX), Empty, "shared files to place in the working directory"),
    field("user", Text(&words::USER), Empty, "the user to run as"),
    field(
        "capabilities",
        List(&Text(&words::CAPABILITY), CAPABILITIES_MAX),
        Unlike,
        "the capabilities to keep; none given: what programs need that begin as root",
    ),
    field("memoryMB", Whole(0, MEBIBYTES_MAX), Absent::Whole(0), "memory kept for it, MiB"),
    field("memoryMaxMB", Whole(0, MEBIBYTES_MAX), Absent::Whole(0), "memory it cannot exceed, MiB"),
    field("cpuCores", Number(65_536.0), Absent::Whole(0), "processor time, in cores"),
    field(
        "pidsMax",
        Whole(1, 1 << 22),
        Absent::Whole(confinement::PIDS_MAX as u64),
        "most processes and threads at once",
    ),
    field("cgroupParent", Text(&words::GROUP), Empty, "the control group to make its own under"),
    field("networkNamespacePath", Text(&words::ABSOLUTE), Empty, "the network namespace to join"),
    field("namespaces", List(&Choice(&["pid", "ipc", "mount"]), 3), Empty, "private namespaces"),
    field("landlock", Map(LANDLOCK), Empty, "what `mode: landlock` lets it reach"),
    field("nonet", FlagOrMap(NONET), Absent::Flag(false), "no network but the loopback"),
    field("metrics", Map(METRICS), Unlike, "where it shows its metrics"),
    field("jail", Map(JAIL), Empty, "what `mode: jail` sets up (FreeBSD)"),
    field("enforce", Choice(&["strict", "best-effort"]), Word(&["strict"]), "whether an impossible limit is refused"),
    field(
        "require",
        Choice(&["available", "strict"]),
        Word(&["available"]),
        "which sandbox rules the kernel must have",
    ),
    // How it is looked after.
    field("restart", Choice(&["always", "on-failure", "never"]), Word(&["always"]), "when it is started again"),
    field("health", Map(HEALTH), Unlike, "how to find out whether it is well"),
    field("order", Choice(&["stop-first", "start-first"]), Word(&["stop-first"]), "how a new revision takes over"),
    field("sockets", List(&Map(SOCKET), ENTRIES_MAX), Empty, "listening sockets that the keeper holds for it"),
    field("stopSignal", Text(&words::SIGNAL), Word(&["SIGTERM", "TERM"]), "the signal that asks it to stop"),
    field("stopGraceSeconds", Whole(0, SECONDS_MAX), Absent::Whole(10), "time to stop in before it is killed"),
    // When it runs.
    field("runMode", Choice(&["service", "cron"]), Word(&["service"]), "kept running, or run at due times"),
    field("cronSchedule", Text(&words::SCHEDULE), Empty, "the due times"),
    field("cronScope", Choice(&["cluster", "node"]), Word(&["cluster"]), "one run a slot, or one a slot and node"),
    field("timezone", Text(&words::TIMEZONE), Word(&["UTC"]), "the zone that the schedule is read in"),
    field("jobMaxRetries", Whole(0, RETRIES_MAX), Absent::Whole(0), "how often a failed run is tried again"),
    field(
        "jobRetryBackoffSeconds",
        Whole(1, cron::RETRY_BACKOFF_SECONDS_MAX),
        Absent::Whole(cron::RETRY_BACKOFF_SECONDS),
        "the pause before the first retry; doubled for each further one, up to 5 minutes",
    ),
    field("jobTimeoutSeconds", Whole(0, SECONDS_MAX), Absent::Whole(0), "when a run is ended; 0: never"),
    field("cronMaxRetries", Whole(0, RETRIES_MAX), Absent::Whole(0), "older spelling of `jobMaxRetries`"),
    field("cronTimeoutSeconds", Whole(0, SECONDS_MAX), Absent::Whole(0), "older spelling of `jobTimeoutSeconds`"),
    field("cronAllowConcurrent", Flag, Absent::Flag(false), "older spelling of `concurrencyPolicy: allow`"),
    field("concurrencyPolicy", Choice(&["skip", "allow", "replace"]), Word(&["skip"]), "when the last run still runs"),
    field("catchUp", Choice(&["latest", "none", "all"]), Word(&["latest"]), "which missed slots are run late"),
    field(
        "catchUpWindowSeconds",
        Whole(1, SECONDS_MAX),
        Absent::Whole(cron::CATCH_UP_WINDOW_SECONDS),
        "how far back `catchUp: all` reaches",
    ),
    field(
        "startingDeadlineSeconds",
        Whole(1, SECONDS_MAX),
        Absent::Whole(cron::STARTING_DEADLINE_SECONDS),
        "how late a run may start",
    ),
    field("onNodeLoss", Choice(&["fail", "rerun"]), Word(&["fail"]), "what becomes of a run whose node is lost"),
    field("suspend", Flag, Absent::Flag(false), "fire no slot for now"),
    field(
        "historyLimit",
        Whole(1, cron::HISTORY_LIMIT_MAX),
        Absent::Whole(cron::HISTORY_LIMIT),
        "how many runs are remembered",
    ),
];

const ENV: &[Field] = &[
    field("name", Text(&words::VARIABLE), Refused, "the variable"),
    field("value", Text(&words::TEXT), Empty, "its value"),
    field("valueFromSecret", Text(&words::TEXT), Empty, "the secret that holds its value"),
];

const PLACE: &[Field] = &[
    field("name", Text(&words::NODE), Refused, "a node, `local`, `any` or `all`"),
    field("replicas", Whole(1, REPLICAS_MAX), Absent::Whole(1), "how many instances"),
];

const CONSTRAINTS: &[Field] = &[
    field("labels", Labels, Empty, "labels that a node must have, with their values"),
    field("platform", Text(&words::PLATFORM), Empty, "as `linux/amd64`"),
    field("os", Text(&words::PLATFORM_WORD), Empty, "as `linux`"),
    field("arch", Text(&words::PLATFORM_WORD), Empty, "as `amd64`"),
    field("coresMin", Whole(0, CORES_MAX), Absent::Whole(0), "least number of processors"),
    field("memoryMinMB", Whole(0, MEBIBYTES_MAX), Absent::Whole(0), "least memory of the host, MiB"),
    field("landlockMin", Whole(0, LANDLOCK_MAX), Absent::Whole(0), "least version of the kernel's Landlock"),
    field("cgroup", Choice(&["v1", "v2", "hybrid"]), Unlike, "which control groups are mounted"),
];

const MOUNT: &[Field] = &[
    field("path", Text(&words::INSIDE), Refused, "where, under the working directory"),
    field("source", Map(MOUNT_SOURCE), Refused, "what"),
];

const MOUNT_SOURCE: &[Field] = &[field("objectStore", Text(&words::FILE), Refused, "the name of a shared file")];

const LANDLOCK: &[Field] = &[
    field("shared", Flag, Absent::Flag(false), "shared libraries and /dev/null"),
    field("stdio", Flag, Absent::Flag(false), "standard streams, random numbers, locales, time zones"),
    field("tty", Flag, Absent::Flag(false), "terminals"),
    field("tmp", Flag, Absent::Flag(false), "/tmp"),
    field("vminfo", Flag, Absent::Flag(false), "processor and memory figures"),
    field("dns", Flag, Absent::Flag(false), "files that name look-ups read"),
    field("certs", Flag, Absent::Flag(false), "certificates of public authorities"),
    field("paths", List(&Map(LANDLOCK_PATH), ENTRIES_MAX), Empty, "further files and directories"),
    field("bindPorts", List(&PORT, ENTRIES_MAX), Unlike, "TCP ports that it may listen on; none given: no rule"),
    field("connectPorts", List(&PORT, ENTRIES_MAX), Unlike, "TCP ports that it may connect to; none given: no rule"),
    field("scopeSignals", Flag, Absent::Flag(false), "no signals to processes outside"),
    field("scopeAbstractSockets", Flag, Absent::Flag(false), "no abstract sockets of processes outside"),
];

const LANDLOCK_PATH: &[Field] = &[
    field("path", Text(&words::PATH), Refused, "a file or directory"),
    field("modes", Text(&words::LANDLOCK_MODES), Refused, "some of `r`, `w`, `x`, `c`"),
];

const PORT: Shape = Whole(1, 65_535);

const NONET: &[Field] =
    &[field("localPorts", List(&Map(LOCAL_PORT), ENTRIES_MAX), Empty, "ports on which it reaches the host's loopback")];

const LOCAL_PORT: &[Field] = &[
    field("port", Whole(1_025, 65_535), Refused, "the port"),
    field("protocol", Choice(&["tcp", "udp"]), Word(&["tcp"]), "the protocol"),
];

const METRICS: &[Field] = &[
    field("port", PORT, Refused, "the port"),
    field("path", Text(&words::ABSOLUTE), Word(&["/metrics"]), "the path of the page"),
];

const JAIL: &[Field] = &[
    field("hostname", Text(&words::TEXT), Empty, "the host name inside"),
    field("ip4Addresses", List(&Text(&words::IP4), ENTRIES_MAX), Empty, "addresses inside"),
    field("allowRawSockets", Flag, Absent::Flag(false), "whether raw sockets may be opened"),
    field("devfsRuleset", Whole(0, 65_535), Absent::Whole(4), "the rule set of the devices"),
    field("mountSystemCerts", Flag, Absent::Flag(false), "whether the host's certificates are there"),
];

const HEALTH: &[Field] = &[
    field("http", Map(HEALTH_HTTP), Unlike, "well while a page answers 2xx or 3xx"),
    field("tcp", Map(HEALTH_TCP), Unlike, "well while a port takes connections"),
    field("exec", Map(HEALTH_EXEC), Unlike, "well while a command ends with 0"),
    field("intervalSeconds", Whole(1, SECONDS_MAX), Absent::Whole(10), "time from probe to probe"),
    field("timeoutSeconds", Whole(1, SECONDS_MAX), Absent::Whole(2), "time that a probe may take"),
    field("retries", Whole(1, RETRIES_MAX), Absent::Whole(3), "failed probes in a row that count"),
    field("startSeconds", Whole(0, SECONDS_MAX), Absent::Whole(0), "time after the start in which none counts"),
];

const HEALTH_HTTP: &[Field] = &[
    field("port", PORT, Refused, "the port"),
    field("path", Text(&words::ABSOLUTE), Word(&["/"]), "the path of the page"),
];

const HEALTH_TCP: &[Field] = &[field("port", PORT, Refused, "the port")];

const HEALTH_EXEC: &[Field] =
    &[field("command", List(&Text(&words::TEXT), ENTRIES_MAX), Refused, "the program and its arguments")];

const SOCKET: &[Field] = &[
    field("name", Text(&words::LABEL), Refused, "its name in LISTEN_FDNAMES"),
    field("address", Text(&words::ADDRESS), Refused, "`HOST:PORT`"),
    field("protocol", Choice(&["tcp", "udp"]), Word(&["tcp"]), "the protocol"),
];
