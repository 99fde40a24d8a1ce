//! What services look like, as tables and as JSON. Pure.

use serde::Serialize;

use crate::api::wire::{Instance, Placement, Revision, Service};

use super::table::table;
use super::words;

/// One row of `service list`, as JSON: the table's columns, and what the table says in words.
#[derive(Serialize, PartialEq, Debug)]
pub(super) struct Row<'a> {
    service: &'a str,
    tag: &'a str,
    mode: &'a str,
    cron_schedule: Option<&'a str>,
    node: Option<&'a str>,
    node_status: Option<&'a str>,
    node_platform: Option<&'a str>,
    desired: Option<u32>,
    running: Option<u32>,
    instance_ids: &'a [String],
    in_spec: bool,
    stopped: bool,
}

/// The rows of `service list`: one for each service and node, one for a cron spec, one for a service that is nowhere.
pub(super) fn rows(services: &[Service]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for service in services {
        let revision = &service.revision;
        let bare = |desired| Row {
            service: &service.service,
            tag: &revision.tag,
            mode: &revision.mode,
            cron_schedule: revision.cron_schedule.as_deref(),
            node: None,
            node_status: None,
            node_platform: None,
            desired,
            running: desired,
            instance_ids: &[],
            in_spec: true,
            stopped: revision.stopped || revision.suspended,
        };
        match (revision.mode.as_str(), service.placements.as_slice()) {
            ("cron", _) => rows.push(bare(None)),
            (_, []) => rows.push(bare(Some(0))),
            (_, placements) => rows.extend(placements.iter().map(|placement| Row {
                node: placement.node.as_deref(),
                node_status: placement.node_status.as_deref(),
                node_platform: placement.node_platform.as_deref(),
                desired: Some(placement.desired),
                running: Some(placement.running),
                instance_ids: &placement.instance_ids,
                in_spec: placement.in_spec,
                ..bare(None)
            })),
        }
    }
    rows
}

/// The table of `service list`.
pub(super) fn list(rows: &[Row<'_>]) -> String {
    let line = |row: &Row<'_>| {
        let (node, status, platform) = match (row.mode, row.node) {
            ("cron", _) => ("N/A", "N/A", "N/A"),
            (_, None) if row.desired.is_some_and(|desired| desired > 0) => ("-", "no eligible node", "-"),
            (_, None) => ("-", "-", "-"),
            (_, Some(node)) => (node, row.node_status.unwrap_or("offline/unknown"), row.node_platform.unwrap_or("-/-")),
        };
        let (desired, running, ids) = match (row.desired, row.running) {
            (Some(desired), Some(running)) => {
                (desired_text(desired, row.in_spec, row.stopped), running.to_string(), ids(row.instance_ids))
            }
            _ => {
                let desired = if row.stopped { "N/A (paused)" } else { "N/A" };
                (desired.to_owned(), "N/A".to_owned(), "N/A (see info)".to_owned())
            }
        };
        [
            row.service.to_owned(),
            row.tag.to_owned(),
            row.mode.to_owned(),
            row.cron_schedule.unwrap_or("-").to_owned(),
            node.to_owned(),
            status.to_owned(),
            platform.to_owned(),
            desired,
            running,
            ids,
        ]
    };
    table(
        [
            "SERVICE",
            "TAG",
            "MODE",
            "CRON_SCHEDULE",
            "NODE",
            "NODE_STATUS",
            "NODE_PLATFORM",
            "DESIRED",
            "RUNNING",
            "INSTANCE_IDS",
        ],
        rows.iter().map(line),
    )
}

fn desired_text(desired: u32, in_spec: bool, stopped: bool) -> String {
    match (stopped, in_spec) {
        (true, _) => "0 (stopped)".to_owned(),
        (false, false) => format!("{desired} (not in spec)"),
        (false, true) => desired.to_string(),
    }
}

fn ids(ids: &[String]) -> String {
    format!("[{}]", ids.join(","))
}

/// The text of `service info`.
pub(super) fn info(service: &Service) -> String {
    let revision = &service.revision;
    let mut out = format!("Service Information for: {} (Tag: {})\n", service.service, revision.tag);
    out += &format!(
        "Revision {} by `{}` on node {} at {}{}\n\n",
        revision.revision,
        revision.cause,
        revision.author,
        words::seconds(&revision.at),
        if revision.stopped { ", stopped" } else { "" },
    );
    out += "Specification\n";
    for line in revision.spec.lines() {
        out += &format!("  {line}\n");
    }
    out += "\nBinaries\n";
    let binary = |image: &crate::api::wire::ImageRef| {
        [
            format!("  {}/{}", image.os, image.arch),
            image.file_name.clone(),
            words::size(image.size),
            format!("blake3:{}", words::short(&image.hash)),
        ]
    };
    out += &table(["  PLATFORM", "FILE", "SIZE", "DIGEST"], revision.images.iter().map(binary));

    if revision.mode == "cron" {
        return out;
    }
    out += "\nNode Status & Instances\n";
    let placement = |placement: &Placement| {
        [
            format!("  {}", placement.node.as_deref().unwrap_or("(no eligible node)")),
            placement.node_status.clone().unwrap_or_else(|| match placement.node {
                Some(_) => "offline/unknown".to_owned(),
                None => String::new(),
            }),
            placement.node_platform.clone().unwrap_or_else(|| "-/-".to_owned()),
            desired_text(placement.desired, placement.in_spec, revision.stopped),
            placement.running.to_string(),
            ids(&placement.instance_ids),
        ]
    };
    out += &table(
        ["  NODE", "STATUS", "PLATFORM", "DESIRED", "RUNNING", "INSTANCE_IDS"],
        service.placements.iter().map(placement),
    );

    let (wanted, orphans): (Vec<_>, Vec<_>) = service.instances.iter().partition(|instance| instance.wanted);
    out += "\nInstances\n";
    out += &instances(&wanted);
    out += "\nOrphaned Instances\n";
    if orphans.is_empty() {
        out += "  (No orphaned instances found)\n";
    } else {
        out += &instances(&orphans);
    }
    out
}

fn instances(instances: &[&Instance]) -> String {
    let row = |instance: &&Instance| {
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        let ready = if instance.ready { "yes" } else { "no" };
        [
            format!("  {}", instance.instance),
            instance.node.clone(),
            instance.state.clone(),
            ready.to_owned(),
            format!("{}{}", instance.revision, if instance.current { "" } else { " (old)" }),
            number(instance.pid),
            instance.started_at.as_deref().map(words::seconds).unwrap_or_default(),
            instance.restarts.to_string(),
            last_exit(instance),
            instance.run.as_deref().map(words::short).unwrap_or_default().to_owned(),
        ]
    };
    let mut out = table(
        ["  INSTANCE", "NODE", "STATE", "READY", "REVISION", "PID", "STARTED", "RESTARTS", "LAST_EXIT", "RUN"],
        instances.iter().map(row),
    );
    for instance in instances {
        let mut tell = |what: &str| out += &format!("  {} on {}: {what}\n", instance.instance, instance.node);
        if let Some(error) = &instance.error {
            tell(error);
        }
        if let Some(at) = &instance.retry_at {
            tell(&format!("tried again at {}", words::seconds(at)));
        }
        if let Some(abi) = instance.enforced.landlock_abi {
            tell(&format!("held by Landlock, version {abi} of its interface"));
        }
        for missing in &instance.enforced.missing {
            tell(&format!("not enforced: {missing}"));
        }
    }
    out
}

pub(super) fn last_exit(instance: &Instance) -> String {
    let Some(exit) = &instance.exit else { return String::new() };
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => String::new(),
    };
    if exit.oom_kills > 0 { format!("{how} (out of memory)") } else { how }
}

/// The table of `service history`.
pub(super) fn history(revisions: &[Revision]) -> String {
    let row = |revision: &Revision| {
        let images = revision.images.iter().map(|image| format!("{}/{}", image.os, image.arch));
        [
            revision.revision.to_string(),
            revision.status.clone(),
            revision.cause.clone(),
            revision.tag.clone(),
            words::seconds(&revision.at),
            revision.author.clone(),
            images.collect::<Vec<_>>().join(","),
        ]
    };
    table(["REVISION", "STATUS", "CAUSE", "TAG", "AT", "AUTHOR", "IMAGES"], revisions.iter().map(row))
}

#[cfg(test)]
pub(super) mod tests {
    use crate::api::wire::{Enforced, Exit, ImageRef};

    use super::*;

    fn placement(node: Option<&str>, status: Option<&str>, desired: u32, ids: &[&str]) -> Placement {
        Placement {
            node: node.map(Into::into),
            node_status: status.map(Into::into),
            node_platform: status.map(|_| "linux/amd64".into()),
            desired,
            in_spec: desired > 0,
            running: ids.len().try_into().unwrap(),
            instance_ids: ids.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn instance(name: &str, node: &str, wanted: bool) -> Instance {
        Instance {
            instance: name.into(),
            service: "web".into(),
            index: 0,
            node: node.into(),
            node_status: "alive".into(),
            state: "running".into(),
            ready: true,
            revision: 2,
            current: true,
            wanted,
            run: Some("cd".repeat(16)),
            pid: Some(77),
            started_at: Some("2026-11-21T10:30:00.000Z".into()),
            restarts: 1,
            exit: Some(Exit { code: None, signal: Some(9), at: "2026-11-21T10:29:00.000Z".into(), oom_kills: 0 }),
            error: None,
            retry_at: None,
            enforced: Enforced::default(),
        }
    }

    pub(crate) fn web() -> Service {
        let failing = Instance {
            state: "backoff".into(),
            ready: false,
            current: false,
            pid: None,
            revision: 1,
            error: Some("exit code 1".into()),
            retry_at: Some("2026-11-21T10:31:00.250Z".into()),
            exit: Some(Exit { code: None, signal: Some(9), at: "2026-11-21T10:29:00.000Z".into(), oom_kills: 2 }),
            ..instance("web-1", "n1", true)
        };
        Service {
            service: "web".into(),
            revision: Revision {
                revision: 2,
                id: "2-aabbccdd".into(),
                status: "current".into(),
                tag: "v1".into(),
                mode: "service".into(),
                cron_schedule: None,
                stopped: false,
                cause: "deploy".into(),
                author: "n1".into(),
                at: "2026-11-21T10:30:00.000Z".into(),
                images: vec![ImageRef {
                    os: "linux".into(),
                    arch: "amd64".into(),
                    hash: "ab".repeat(32),
                    size: 2048,
                    file_name: "web".into(),
                }],
                spec: "name: web\ntag: v1\n".into(),
                suspended: false,
            },
            placements: vec![
                placement(Some("n1"), Some("alive"), 2, &["web-0"]),
                placement(Some("n9"), None, 1, &[]),
                placement(Some("n2"), Some("down"), 0, &["web-5"]),
                placement(None, None, 2, &[]),
            ],
            instances: vec![
                instance("web-0", "n1", true),
                failing,
                Instance {
                    enforced: Enforced { landlock_abi: Some(4), missing: vec!["scopes need version 6".into()] },
                    ..instance("web-5", "n2", false)
                },
            ],
        }
    }

    fn nightly() -> Service {
        let mut cron = web();
        cron.service = "nightly".into();
        cron.revision.mode = "cron".into();
        cron.revision.cron_schedule = Some("0 2 * * *".into());
        cron.placements.clear();
        cron.instances.clear();
        cron
    }

    #[test]
    fn the_list_has_a_row_for_each_node() {
        let mut paused = nightly();
        (paused.service, paused.revision.suspended) = ("paused".into(), true);
        let mut nowhere = web();
        nowhere.service = "nowhere".into();
        nowhere.placements.clear();
        let mut stopped = web();
        stopped.service = "stopped".into();
        stopped.revision.stopped = true;
        stopped.placements.truncate(1);
        stopped.placements[0] = placement(Some("n1"), Some("alive"), 0, &[]);
        assert_eq!(
            list(&rows(&[nightly(), paused, nowhere, stopped, web()])),
            "\
SERVICE  TAG  MODE     CRON_SCHEDULE  NODE  NODE_STATUS       NODE_PLATFORM  DESIRED          RUNNING  INSTANCE_IDS
nightly  v1   cron     0 2 * * *      N/A   N/A               N/A            N/A              N/A      N/A (see info)
paused   v1   cron     0 2 * * *      N/A   N/A               N/A            N/A (paused)     N/A      N/A (see info)
nowhere  v1   service  -              -     -                 -              0                0        []
stopped  v1   service  -              n1    alive             linux/amd64    0 (stopped)      0        []
web      v1   service  -              n1    alive             linux/amd64    2                1        [web-0]
web      v1   service  -              n9    offline/unknown   -/-            1                0        []
web      v1   service  -              n2    down              linux/amd64    0 (not in spec)  1        [web-5]
web      v1   service  -              -     no eligible node  -              2                0        []
"
        );
    }

    #[test]
    fn the_keys_of_the_list_are_the_columns() {
        let services = [web()];
        let value = serde_json::to_value(rows(&services)).unwrap();
        let keys: Vec<_> = value[0].as_object().unwrap().keys().cloned().collect();
        let table = list(&rows(&services));
        let columns: Vec<_> = table.lines().next().unwrap().split_whitespace().map(str::to_lowercase).collect();
        assert_eq!(keys[..columns.len()], columns);
        assert_eq!(keys[columns.len()..], ["in_spec", "stopped"]);
        assert_eq!(value[0]["instance_ids"], serde_json::json!(["web-0"]));
    }

    #[test]
    fn one_service_is_shown_in_full() {
        assert_eq!(
            info(&web()),
            "\
Service Information for: web (Tag: v1)
Revision 2 by `deploy` on node n1 at 2026-11-21T10:30:00Z

Specification
  name: web
  tag: v1

Binaries
  PLATFORM     FILE  SIZE     DIGEST
  linux/amd64  web   2.0 KiB  blake3:ababababab

Node Status & Instances
  NODE                STATUS           PLATFORM     DESIRED          RUNNING  INSTANCE_IDS
  n1                  alive            linux/amd64  2                1        [web-0]
  n9                  offline/unknown  -/-          1                0        []
  n2                  down             linux/amd64  0 (not in spec)  1        [web-5]
  (no eligible node)  -                -/-          2                0        []

Instances
  INSTANCE  NODE  STATE    READY  REVISION  PID  STARTED               RESTARTS  LAST_EXIT                 RUN
  web-0     n1    running  yes    2         77   2026-11-21T10:30:00Z  1         signal 9                  cdcdcdcdcd
  web-1     n1    backoff  no     1 (old)   -    2026-11-21T10:30:00Z  1         signal 9 (out of memory)  cdcdcdcdcd
  web-1 on n1: exit code 1
  web-1 on n1: tried again at 2026-11-21T10:31:00Z

Orphaned Instances
  INSTANCE  NODE  STATE    READY  REVISION  PID  STARTED               RESTARTS  LAST_EXIT  RUN
  web-5     n2    running  yes    2         77   2026-11-21T10:30:00Z  1         signal 9   cdcdcdcdcd
  web-5 on n2: held by Landlock, version 4 of its interface
  web-5 on n2: not enforced: scopes need version 6
"
        );
        let mut tidy = web();
        tidy.instances.truncate(1);
        assert!(info(&tidy).ends_with("Orphaned Instances\n  (No orphaned instances found)\n"));
        assert!(!info(&nightly()).contains("Instances"), "a cron spec has runs instead");
    }

    #[test]
    fn history_is_a_table() {
        let mut lost = web().revision;
        lost.revision = 1;
        lost.status = "superseded".into();
        assert_eq!(
            history(&[web().revision, lost]),
            "\
REVISION  STATUS      CAUSE   TAG  AT                    AUTHOR  IMAGES
2         current     deploy  v1   2026-11-21T10:30:00Z  n1      linux/amd64
1         superseded  deploy  v1   2026-11-21T10:30:00Z  n1      linux/amd64
"
        );
    }
}
