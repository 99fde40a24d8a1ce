//! What instances use, as a table. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::api::wire::{InstanceUsage, Service, ServiceUsage};

use super::cron_text::Info;
use super::table::table;
use super::words;

/// `service info` as JSON: the service, and what its instances use.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    #[serde(flatten)]
    pub(super) service: &'a Service,
    /// None where nothing of it runs by its nature, as with a cron spec.
    pub(super) usage: Option<&'a ServiceUsage>,
    /// What only a cron spec has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cron: Option<&'a Info<'a>>,
}

/// The part of `service info` on usage; nothing where nothing runs.
pub(super) fn usage(usage: &ServiceUsage) -> String {
    if usage.instances.is_empty() && usage.silent.is_empty() {
        return String::new();
    }
    let mut out = "\nUsage\n".to_owned();
    out += &table(
        ["  INSTANCE", "NODE", "MEMORY", "PEAK", "CPU", "THROTTLED", "PIDS", "OOM_KILLS"],
        usage.instances.iter().map(row),
    );
    if usage.instances.iter().any(|one| one.memory_is_summed) {
        out += "  ~ the sum over its processes: without a limit of memory, nothing else counts it on that node\n";
    }
    for silent in &usage.silent {
        out += &format!("  node {} is missing: {}\n", silent.node, silent.reason);
    }
    out
}

fn row(one: &InstanceUsage) -> [String; 8] {
    let size = |bytes: Option<u64>| bytes.map(words::size).unwrap_or_default();
    let of_limit = |now: String, max: Option<String>| match max {
        Some(max) if !now.is_empty() => format!("{now} / {max}"),
        _ => now,
    };
    let about = if one.memory_is_summed { "~" } else { "" };
    let memory = one.memory.map(|bytes| format!("{about}{}", words::size(bytes))).unwrap_or_default();
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        format!("  {}", one.instance),
        one.node.clone(),
        of_limit(memory, one.memory_max.map(words::size)),
        size(one.memory_peak),
        one.cpu_us.map(time).unwrap_or_default(),
        one.throttled_us.map(time).unwrap_or_default(),
        of_limit(number(one.pids), one.pids_max.map(|max| max.to_string())),
        number(one.oom_kills),
    ]
}

/// Processor time: exact where it is little, since then the question is whether it has done anything.
fn time(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match time.as_secs() {
        0..10 => format!("{:.2}s", time.as_secs_f64()),
        10..60 => format!("{:.1}s", time.as_secs_f64()),
        _ => words::span(time),
    }
}

#[cfg(test)]
mod tests {
    use crate::api::wire::Silent;

    use super::*;

    fn one(instance: &str) -> InstanceUsage {
        InstanceUsage {
            instance: instance.to_owned(),
            node: "n1".to_owned(),
            run: "cd".repeat(16),
            memory: Some(12 << 20),
            memory_is_summed: false,
            memory_peak: Some(20 << 20),
            memory_max: Some(64 << 20),
            oom_kills: Some(1),
            cpu_us: Some(1_234_567),
            throttled_us: Some(15_000_000),
            throttled_periods: Some(9),
            pids: Some(3),
            pids_peak: Some(5),
            pids_max: Some(4096),
            cpu_pressure: None,
            memory_pressure: None,
            io_pressure: None,
        }
    }

    #[test]
    fn the_table_shows_what_is_used_of_what_is_allowed() {
        let bare = InstanceUsage {
            memory_is_summed: true,
            memory_peak: None,
            memory_max: None,
            oom_kills: None,
            throttled_us: None,
            pids: None,
            ..one("web-1")
        };
        let silent = Silent { node: "n2".to_owned(), reason: "it is down".to_owned() };
        let text = usage(&ServiceUsage { instances: vec![one("web-0"), bare], silent: vec![silent] });
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[2]), "INSTANCE NODE MEMORY PEAK CPU THROTTLED PIDS OOM_KILLS");
        let size = |bytes: u64| super::words::size(bytes);
        let (now, max, peak) = (size(12 << 20), size(64 << 20), size(20 << 20));
        assert_eq!(words(lines[3]), format!("web-0 n1 {now} / {max} {peak} 1.23s 15.0s 3 / 4096 1"));
        assert_eq!(words(lines[4]), format!("web-1 n1 ~{now} - 1.23s - - -"));
        assert!(lines[5].starts_with("  ~ the sum over its processes"), "{text}");
        assert_eq!(lines[6], "  node n2 is missing: it is down");
        assert_eq!(usage(&ServiceUsage::default()), "");
    }
}
