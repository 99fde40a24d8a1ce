//! How an instance is run and looked after: the fields of its sandbox, limits and supervision, read and written. Pure.

use serde_json::{Map, Value, json};

use super::mistake::Mistake;
use super::tree::{self, Fields, Node};
use super::words::ALL_CAPABILITIES;
use crate::confinement::{
    Capabilities, Confinement, Group, Landlock, Limits, LocalPort, Modes, Namespaces, Network, PIDS_MAX, PathRule,
    Protocol,
};

const MEBIBYTE: u64 = 1 << 20;

/// Least processor time that can be asked for, in thousandths of a core: the kernel grants a millisecond of each period at least
/// (Documentation/scheduler/sched-bwc.rst).
const MILLICORES_MIN: u32 = 10;

/// The signals that can ask a program to stop, with their numbers on Linux (signal(7)).
pub(super) const SIGNALS: [(&str, i32); 10] = [
    ("TERM", 15),
    ("INT", 2),
    ("QUIT", 3),
    ("HUP", 1),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("WINCH", 28),
    ("PWR", 30),
];

/// How long a program may take to stop where its specification does not say, in seconds.
const STOP_GRACE_SECONDS: u64 = 10;

/// How an instance is looked after. A change of it replaces no instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Supervision {
    /// When it is started again after it has ended by itself.
    pub restart: Restart,
    /// The number of the signal that asks it to stop, signal(7).
    pub stop_signal: i32,
    /// How long it may take to stop before its whole tree is killed, in seconds.
    pub stop_grace_seconds: u64,
}

impl Default for Supervision {
    fn default() -> Self {
        Self { restart: Restart::Always, stop_signal: SIGNALS[0].1, stop_grace_seconds: STOP_GRACE_SECONDS }
    }
}

/// When an instance that has ended by itself is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Restart {
    /// However it ended.
    #[default]
    Always,
    /// Unless it exited with code 0.
    OnFailure,
    /// Never.
    Never,
}

impl Restart {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Always, Self::OnFailure, Self::Never];

    /// The word in specifications.
    pub fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }
}

/// What holds the program.
pub(super) fn confinement(top: &Fields) -> Confinement {
    let word = |name: &str| text(top, name).filter(|word| !word.is_empty()).map(str::to_owned);
    let landlock = (text(top, "mode") == Some("landlock")).then(|| match tree::field(top, "landlock") {
        Some(Node::Map(given)) => landlock(given),
        _ => Landlock::default(),
    });
    let is_private = |name: &str| list(top, "namespaces").any(|one| one.text() == Some(name));
    Confinement {
        user: word("user"),
        capabilities: capabilities(top),
        limits: limits(top),
        namespaces: Namespaces { pid: is_private("pid"), ipc: is_private("ipc"), mount: is_private("mount") },
        network: network(top),
        landlock,
        best_effort: text(top, "enforce") == Some("best-effort"),
        require_strict: text(top, "require") == Some("strict"),
    }
}

fn limits(top: &Fields) -> Limits {
    let memory = |name: &str| whole(top, name).unwrap_or(0).saturating_mul(MEBIBYTE);
    let (low, max) = (memory("memoryMB"), memory("memoryMaxMB"));
    Limits {
        memory_low: low,
        memory_max: if max == 0 { low } else { max },
        cpu_millicores: millicores(top).unwrap_or(0),
        pids_max: whole(top, "pidsMax").and_then(|number| u32::try_from(number).ok()).unwrap_or(PIDS_MAX),
        cgroup_parent: text(top, "cgroupParent").filter(|path| !path.is_empty()).map(str::to_owned),
    }
}

/// The thousandths nearest to what was asked for.
fn millicores(top: &Fields) -> Option<u32> {
    let cores = match tree::field(top, "cpuCores")? {
        Node::Whole(number, _) => *number as f64,
        Node::Fraction(number, _) => *number,
        _ => return None,
    };
    let thousandths = (cores * 1000.0).round();
    // The table's bounds make it fit; a value outside them was told as a mistake.
    (0.0..=f64::from(u32::MAX)).contains(&thousandths).then_some(thousandths as u32)
}

fn capabilities(top: &Fields) -> Option<Capabilities> {
    let Some(Node::List(names)) = tree::field(top, "capabilities") else { return None };
    let set = |name: &str| if name == ALL_CAPABILITIES { Some(Capabilities::ALL) } else { Capabilities::named(name) };
    let sets = names.iter().filter_map(|name| set(name.text()?));
    Some(sets.fold(Capabilities::default(), Capabilities::and))
}

fn network(top: &Fields) -> Network {
    if let Some(path) = text(top, "networkNamespacePath").filter(|path| !path.is_empty()) {
        return Network::Join(path.to_owned());
    }
    match tree::field(top, "nonet") {
        Some(Node::Flag(true, _)) => Network::Loopback(Vec::new()),
        Some(Node::Map(given)) => Network::Loopback(list(given, "localPorts").filter_map(local_port).collect()),
        _ => Network::Host,
    }
}

fn local_port(node: &Node) -> Option<LocalPort> {
    let Node::Map(given) = node else { return None };
    let protocol = if text(given, "protocol") == Some("udp") { Protocol::Udp } else { Protocol::Tcp };
    Some(LocalPort { port: port(whole(given, "port")?)?, protocol })
}

fn landlock(given: &Fields) -> Landlock {
    let flag = |name: &str| matches!(tree::field(given, name), Some(Node::Flag(true, _)));
    let ports = |name: &str| match tree::field(given, name) {
        Some(Node::List(list)) => Some(list.iter().filter_map(|node| port(as_whole(node)?)).collect()),
        _ => None,
    };
    let path_rule = |node: &Node| {
        let Node::Map(rule) = node else { return None };
        let modes = Modes::of_letters(text(rule, "modes")?);
        Some(PathRule { path: text(rule, "path")?.to_owned(), modes })
    };
    Landlock {
        groups: Group::ALL.into_iter().filter(|group| flag(group.word())).collect(),
        paths: list(given, "paths").filter_map(path_rule).collect(),
        bind_ports: ports("bindPorts"),
        connect_ports: ports("connectPorts"),
        scope_signals: flag("scopeSignals"),
        scope_abstract_sockets: flag("scopeAbstractSockets"),
    }
}

/// How it is looked after.
pub(super) fn supervision(top: &Fields) -> Supervision {
    let otherwise = Supervision::default();
    let signal = text(top, "stopSignal").map(|word| word.strip_prefix("SIG").unwrap_or(word));
    let numbered = SIGNALS.into_iter().find(|(name, _)| Some(*name) == signal);
    Supervision {
        restart: Restart::ALL
            .into_iter()
            .find(|restart| Some(restart.word()) == text(top, "restart"))
            .unwrap_or_default(),
        stop_signal: numbered.map_or(otherwise.stop_signal, |(_, number)| number),
        stop_grace_seconds: whole(top, "stopGraceSeconds").unwrap_or(otherwise.stop_grace_seconds),
    }
}

/// The rules between these fields.
pub(super) fn between_fields(top: &Fields, mistakes: &mut Vec<Mistake>) {
    let mut wrong = |path: &str, message: String| mistakes.push(Mistake::new(path, message));
    let (soft, hard) = (whole(top, "memoryMB").unwrap_or(0), whole(top, "memoryMaxMB").unwrap_or(0));
    if hard != 0 && hard < soft {
        wrong("memoryMaxMB", format!("found `{hard}`, wanted at least the {soft} of `memoryMB`"));
    }
    if let Some(Node::Fraction(cores, _)) = tree::field(top, "cpuCores")
        && *cores > 0.0
        && millicores(top).is_some_and(|thousandths| thousandths < MILLICORES_MIN)
    {
        wrong("cpuCores", format!("found `{cores}`, wanted at least {}", f64::from(MILLICORES_MIN) / 1000.0));
    }
    if text(top, "mode") == Some("jail") {
        wrong(
            "mode",
            "`jail` is a sandbox of FreeBSD, and this narun runs on Linux; `landlock` is its like".to_owned(),
        );
    }
    if text(top, "networkNamespacePath").is_some_and(|path| !path.is_empty())
        && matches!(tree::field(top, "nonet"), Some(Node::Flag(true, _) | Node::Map(_)))
    {
        wrong("nonet", "`networkNamespacePath` names another network; give one of them".to_owned());
    }
    if text(top, "require") == Some("strict") && text(top, "mode") != Some("landlock") {
        wrong("require", "needs `mode: landlock`, whose rules it is about".to_owned());
    }
}

/// The fields that ask for something, in the order of the table.
pub(super) fn write(confinement: &Confinement, supervision: &Supervision) -> Map<String, Value> {
    let mut fields = written_confinement(confinement);
    let otherwise = Supervision::default();
    if supervision.restart != otherwise.restart {
        fields.insert("restart".to_owned(), json!(supervision.restart.word()));
    }
    if supervision.stop_signal != otherwise.stop_signal {
        let named = SIGNALS.into_iter().find(|(_, number)| *number == supervision.stop_signal);
        let (name, _) = named.expect("only signals of the table are read");
        fields.insert("stopSignal".to_owned(), json!(format!("SIG{name}")));
    }
    if supervision.stop_grace_seconds != otherwise.stop_grace_seconds {
        fields.insert("stopGraceSeconds".to_owned(), json!(supervision.stop_grace_seconds));
    }
    fields
}

/// The fields of the confinement alone: what a running instance depends on.
pub(super) fn written_confinement(confinement: &Confinement) -> Map<String, Value> {
    let Confinement { user, capabilities, limits, namespaces, network, landlock, best_effort, require_strict } =
        confinement;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if landlock.is_some() {
        put("mode", json!("landlock"));
    }
    if let Some(user) = user {
        put("user", json!(user));
    }
    match capabilities {
        None => {}
        Some(Capabilities::ALL) => put("capabilities", json!([ALL_CAPABILITIES])),
        Some(set) => put("capabilities", set.names().collect()),
    }
    let Limits { memory_low, memory_max, cpu_millicores, pids_max, cgroup_parent } = limits;
    if *memory_low != 0 {
        put("memoryMB", json!(memory_low / MEBIBYTE));
    }
    if memory_max != memory_low {
        put("memoryMaxMB", json!(memory_max / MEBIBYTE));
    }
    if *cpu_millicores != 0 {
        put("cpuCores", json!(f64::from(*cpu_millicores) / 1000.0));
    }
    if *pids_max != PIDS_MAX {
        put("pidsMax", json!(pids_max));
    }
    if let Some(parent) = cgroup_parent {
        put("cgroupParent", json!(parent));
    }
    if let Network::Join(path) = network {
        put("networkNamespacePath", json!(path));
    }
    let private = [("pid", namespaces.pid), ("ipc", namespaces.ipc), ("mount", namespaces.mount)];
    if private.iter().any(|(_, is_private)| *is_private) {
        let names = private.into_iter().filter(|(_, is_private)| *is_private).map(|(name, _)| name);
        put("namespaces", names.collect());
    }
    if let Some(landlock) = landlock.as_ref().filter(|landlock| **landlock != Landlock::default()) {
        put("landlock", Value::Object(written_landlock(landlock)));
    }
    match network {
        Network::Loopback(ports) if ports.is_empty() => put("nonet", json!(true)),
        Network::Loopback(ports) => {
            let port = |port: &LocalPort| json!({ "port": port.port, "protocol": port.protocol.word() });
            put("nonet", json!({ "localPorts": ports.iter().map(port).collect::<Vec<_>>() }));
        }
        Network::Host | Network::Join(_) => {}
    }
    if *best_effort {
        put("enforce", json!("best-effort"));
    }
    if *require_strict {
        put("require", json!("strict"));
    }
    fields
}

fn written_landlock(landlock: &Landlock) -> Map<String, Value> {
    let Landlock { groups, paths, bind_ports, connect_ports, scope_signals, scope_abstract_sockets } = landlock;
    let mut fields: Map<String, Value> = groups.iter().map(|group| (group.word().to_owned(), json!(true))).collect();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if !paths.is_empty() {
        let rule = |rule: &PathRule| json!({ "path": rule.path, "modes": rule.modes.letters() });
        put("paths", paths.iter().map(rule).collect());
    }
    for (name, ports) in [("bindPorts", bind_ports), ("connectPorts", connect_ports)] {
        if let Some(ports) = ports {
            put(name, json!(ports));
        }
    }
    for (name, is_set) in [("scopeSignals", scope_signals), ("scopeAbstractSockets", scope_abstract_sockets)] {
        if *is_set {
            put(name, json!(true));
        }
    }
    fields
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    tree::field(fields, name).and_then(Node::text)
}

fn list<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a Node> {
    match tree::field(fields, name) {
        Some(Node::List(list)) => list.iter(),
        _ => [].iter(),
    }
}

fn whole(fields: &Fields, name: &str) -> Option<u64> {
    tree::field(fields, name).and_then(as_whole)
}

fn as_whole(node: &Node) -> Option<u64> {
    match node {
        Node::Whole(number, _) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn port(number: u64) -> Option<u16> {
    u16::try_from(number).ok()
}
