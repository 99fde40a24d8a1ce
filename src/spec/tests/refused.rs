use super::{parsed, refused};
use crate::ids::NodeName;
use crate::spec::{Flags, ServiceSpec};

/// A service with `lines` beside its name and tag is refused for exactly this one reason.
fn one_mistake(lines: &str, expected: &str) {
    exactly(&format!("name: web\ntag: v1\n{lines}\n"), &[expected]);
}

/// `text` is refused with exactly these mistakes, in any order.
fn exactly(text: &str, expected: &[&str]) {
    let mut found: Vec<String> = refused(text).iter().map(ToString::to_string).collect();
    let mut expected: Vec<String> = expected.iter().map(|&line| line.to_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "\n--- text:\n{text}");
}

#[test]
fn unknown_fields_are_refused_with_a_suggestion() {
    // The predecessor's own sample has `CPUCores`, so its limit was dropped without a word.
    one_mistake("CPUCores: 0.5", "`CPUCores`: unknown field; did you mean `cpuCores`?");
    one_mistake("replcas: 3", "`replcas`: unknown field; did you mean `replicas`?");
    one_mistake("job_max_retries: 3", "`job_max_retries`: unknown field; did you mean `jobMaxRetries`?");
    one_mistake("volumes: []", "`volumes`: unknown field");
    one_mistake("env: [{name: A, vlaue: b}]", "`env[0].vlaue`: unknown field; did you mean `value`?");
    one_mistake("nodes: [{name: n1, replica: 2}]", "`nodes[0].replica`: unknown field; did you mean `replicas`?");
    one_mistake("8080: x", "`8080`: unknown field");
    one_mistake("<<: {args: [a]}", "`<<`: YAML merge keys are not taken; write the fields out");
}

#[test]
fn a_field_given_twice_is_refused() {
    one_mistake("tag: v2", "`tag`: given twice");
    one_mistake("env: [{name: A, value: a, value: b}]", "`env[0].value`: given twice");
    exactly(r#"{"name": "web", "tag": "v1", "tag": "v1"}"#, &["`tag`: given twice"]);
}

#[test]
fn a_wrong_type_is_told_with_what_was_found_and_wanted() {
    for (lines, expected) in [
        ("replicas: three", "`replicas`: found text `three`, wanted a whole number"),
        ("replicas: '3'", "`replicas`: found text `3`, wanted a whole number (leave out the quotes)"),
        ("replicas: 2.5", "`replicas`: found `2.5`, wanted a whole number"),
        ("replicas: 1e3", "`replicas`: found `1e3`, wanted a whole number"),
        ("replicas: true", "`replicas`: found `true`, wanted a whole number"),
        ("replicas: [1]", "`replicas`: found a list, wanted a whole number"),
        ("replicas: {n: 1}", "`replicas`: found a map, wanted a whole number"),
        ("args: --port", "`args`: found text `--port`, wanted a list"),
        ("args: [[a]]", "`args[0]`: found a list, wanted text"),
        ("args: [a, {b: c}]", "`args[1]`: found a map, wanted text"),
        ("env: {A: b}", "`env`: found a map, wanted a list"),
        ("env: [A=b]", "`env[0]`: found text `A=b`, wanted a map"),
        ("nodes: n1", "`nodes`: found text `n1`, wanted a list"),
        ("nodes: [n1]", "`nodes[0]`: found text `n1`, wanted a map"),
        ("command: [python3]", "`command`: found a list, wanted text"),
        ("singleton: 'true'", "`singleton`: found text `true`, wanted `true` or `false` (leave out the quotes)"),
        ("singleton: yes", "`singleton`: found text `yes`, wanted `true` or `false`"),
        ("nonet: 1", "`nonet`: found `1`, wanted `true`, `false` or a map"),
        ("runMode: crom", "`runMode`: found text `crom`, wanted `service` or `cron`"),
        ("mode: [exec]", "`mode`: found a list, wanted `exec`, `landlock` or `jail`"),
        ("cpuCores: two", "`cpuCores`: found text `two`, wanted a number"),
        ("cpuCores: .nan", "`cpuCores`: found `.nan`, wanted a number from 0 to 65536"),
    ] {
        one_mistake(lines, expected);
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (lines, expected) in [
        ("replicas: 0", "`replicas`: found `0`, wanted a whole number of at least 1"),
        ("replicas: -1", "`replicas`: found `-1`, wanted a whole number of at least 1"),
        ("replicas: 1001", "`replicas`: found `1001`, wanted a whole number of at most 1000"),
        (
            "replicas: 99999999999999999999999",
            "`replicas`: found `99999999999999999999999`, wanted a whole number of at most 1000",
        ),
        (
            "replicas: 340282366920938463463374607431768211455",
            "`replicas`: found `340282366920938463463374607431768211455`, wanted a whole number of at most 1000",
        ),
        ("nodes: [{name: n1, replicas: 0}]", "`nodes[0].replicas`: found `0`, wanted a whole number of at least 1"),
        ("nodes: [{name: n1, replicas: -2}]", "`nodes[0].replicas`: found `-2`, wanted a whole number of at least 1"),
        (
            "cronSchedule: '@daily'\njobMaxRetries: -1",
            "`jobMaxRetries`: found `-1`, wanted a whole number of at least 0",
        ),
        ("memoryMB: -1", "`memoryMB`: found `-1`, wanted a whole number of at least 0"),
        ("cpuCores: -0.5", "`cpuCores`: found `-0.5`, wanted a number from 0 to 65536"),
    ] {
        one_mistake(lines, expected);
    }
}

#[test]
fn names_keep_their_rules() {
    for (name, reason) in [
        ("my web", "holds ` `"),
        ("a/b", "holds `/`"),
        ("Web", "holds `W`"),
        ("-web", "must begin and end with a letter or a digit"),
        ("..", "must begin and end"),
        ("wéb", "holds `é`"),
        (&"x".repeat(300), "is 300 characters long"),
        (&"x".repeat(64), "is 64 characters long"),
    ] {
        let mistakes = refused(&format!("name: '{name}'\ntag: v1"));
        assert_eq!(mistakes.iter().count(), 1, "{mistakes}");
        let only = mistakes.to_string();
        assert!(only.starts_with("`name`: ") && only.contains(reason), "{name}: {only}");
    }
    exactly("name: ''\ntag: v1", &["`name`: a name must not be empty"]);
    exactly("tag: v1", &["`name`: missing"]);
    exactly("name: ~\ntag: v1", &["`name`: missing"]);
    exactly("name: web", &["`tag`: missing"]);
    exactly("name: web\ntag: ''", &["`tag`: must not be empty"]);
    exactly("{}", &["`name`: missing", "`tag`: missing"]);
    exactly(
        "name: web\ntag: a b",
        &["`tag`: `a b` holds ` `; it is made of the letters a-z and A-Z, digits, `.`, `_`, `+` and `-`"],
    );
    let long = "t".repeat(129);
    exactly(
        &format!("name: web\ntag: {long}"),
        &[&format!("`tag`: `{}…` is 129 bytes long, wanted at most 128", &long[..40])],
    );
}

#[test]
fn placement_keeps_its_rules() {
    for (lines, expected) in [
        (
            "nodes: [{name: n1}]\nreplicas: 1",
            "`replicas`: `nodes` and `replicas` were both given; `nodes` says how many run on each node",
        ),
        ("nodes: [{replicas: 1}]", "`nodes[0].name`: missing"),
        (
            "nodes: [{name: n1}, {name: n2}, {name: n1, replicas: 2}]",
            "`nodes[2].name`: `n1` was given before; each node stands once in `nodes`",
        ),
        (
            "nodes: [{name: any}, {name: n1}]",
            "`nodes[0].name`: `any` must stand alone: it says nothing beside other nodes",
        ),
        (
            "nodes: [{name: n1}, {name: all}]",
            "`nodes[1].name`: `all` must stand alone: it says nothing beside other nodes",
        ),
        (
            "nodes: [{name: 'n 1'}]",
            "`nodes[0].name`: `n 1` holds ` `; a name is made of the letters a-z, digits, `-`, `_` and `.`",
        ),
        ("nodes: [{name: ''}]", "`nodes[0].name`: a name must not be empty"),
    ] {
        one_mistake(lines, expected);
    }
}

#[test]
fn environment_keeps_its_rules() {
    for (lines, expected) in [
        ("env: [{value: a}]", "`env[0].name`: missing"),
        ("env: [{name: '', value: a}]", "`env[0].name`: must not be empty"),
        ("env: [{name: 'A B'}]", "`env[0].name`: `A B` holds ` `; it is made of anything but spaces and `=`"),
        ("env: [{name: 'A=B'}]", "`env[0].name`: `A=B` holds `=`; it is made of anything but spaces and `=`"),
        ("env: [{name: A}, {name: B}, {name: A}]", "`env[2].name`: `A` was given before"),
        (
            "env: [{name: NARUN_NODE_ID, value: x}]",
            "`env[0].name`: `NARUN_NODE_ID` is reserved: narun itself sets the variables that begin with `NARUN_`",
        ),
        ("env: [{name: A, value: \"x\\0y\"}]", "`env[0].value`: holds a NUL character, which no program can be given"),
        ("args: [\"\\0\"]", "`args[0]`: holds a NUL character, which no program can be given"),
        ("env: [{name: A, value: [b]}]", "`env[0].value`: found a list, wanted text"),
        ("env: [{name: A, valueFromSecret: db}]", "`env[0].valueFromSecret`: not carried out by this version of narun"),
    ] {
        one_mistake(lines, expected);
    }
    exactly(
        "name: web\ntag: v1\nenv: [{name: A, value: x, valueFromSecret: db}]",
        &[
            "`env[0].valueFromSecret`: not carried out by this version of narun",
            "`env[0]`: `value` and `valueFromSecret` were both given; wanted one of them",
        ],
    );
}

#[test]
fn what_execve_cannot_take_is_refused() {
    let longest = "x".repeat(128 * 1024 - 1);
    parsed(&format!("name: web\ntag: v1\nargs: [{longest}]"));
    one_mistake(
        &format!("args: [{longest}x]"),
        &format!("`args[0]`: `{}…` is 131072 bytes long, wanted at most 131071", &longest[..40]),
    );
    let value = &longest[2..];
    parsed(&format!("name: web\ntag: v1\nenv: [{{name: A, value: {value}}}]"));
    one_mistake(
        &format!("env: [{{name: A, value: {value}x}}]"),
        "`env[0]`: name and value are 131072 bytes long, wanted at most 131071",
    );
    one_mistake(
        &format!("args: [{longest}]\nenv: [{{name: A, value: {}}}]", "y".repeat(64 * 1024)),
        "`args` and `env` together are 196611 bytes long, wanted at most 196608",
    );
    one_mistake(&format!("args: [{}]", "a,".repeat(4_097)), "`args`: found 4097 entries, wanted at most 4096");
}

#[test]
fn cron_keeps_its_rules() {
    let needs_cron = "only a cron spec has it; it needs `runMode: cron`";
    for (lines, expected) in [
        ("runMode: cron", "`cronSchedule`: missing; `runMode: cron` needs the times to run at"),
        ("runMode: cron\ncronSchedule: ''", "`cronSchedule`: missing; `runMode: cron` needs the times to run at"),
        ("runMode: cron\ncronSchedule: '0 0 31 2 *'", "`cronSchedule`: `0 0 31 2 *` never fires: no date matches it"),
        ("runMode: cron\ncronSchedule: '61 * * * *'", "`cronSchedule`: minute `61`: `61` is not a number from 0 to 59"),
        ("cronSchedule: '@daily'\nreplicas: 2", "`replicas`: a cron spec runs once for each due time, wanted 1"),
        (
            "cronSchedule: '@daily'\nnodes: [{name: n1, replicas: 2}]",
            "`nodes[0].replicas`: a cron spec runs once for each due time, wanted 1",
        ),
        (
            "cronSchedule: '@daily'\nnodes: [{name: all}]",
            "`nodes[0].name`: a cron spec runs once for each due time; leave out `nodes` to let any node run it, or give \
             `cronScope: node` to let each node run it",
        ),
        (
            "cronSchedule: '@daily'\njobMaxRetries: 1\ncronMaxRetries: 1",
            "`cronMaxRetries`: means the same as `jobMaxRetries`; give one of them",
        ),
        (
            "cronSchedule: '@daily'\njobMaxRetries: 1001",
            "`jobMaxRetries`: found `1001`, wanted a whole number of at most 1000",
        ),
        (
            "cronSchedule: '@daily'\ncronAllowConcurrent: true\nconcurrencyPolicy: skip",
            "`cronAllowConcurrent`: means `concurrencyPolicy: allow`; give one of them",
        ),
        (
            "cronSchedule: '@daily'\ntimezone: europe/berlin",
            "`timezone`: `europe/berlin` is no time zone; did you mean `Europe/Berlin`?",
        ),
        (
            "cronSchedule: '@daily'\nconcurrencyPolicy: Forbid",
            "`concurrencyPolicy`: found text `Forbid`, wanted `skip`, `allow` or `replace`",
        ),
        ("cronSchedule: '@daily'\ncatchUp: some", "`catchUp`: found text `some`, wanted `latest`, `none` or `all`"),
        ("cronSchedule: '@daily'\ncatchUpWindowSeconds: 60", "`catchUpWindowSeconds`: needs `catchUp: all`"),
        (
            "cronSchedule: '@daily'\nstartingDeadlineSeconds: 0",
            "`startingDeadlineSeconds`: found `0`, wanted a whole number of at least 1",
        ),
        (
            "cronSchedule: '@daily'\nhistoryLimit: 1001",
            "`historyLimit`: found `1001`, wanted a whole number of at most 1000",
        ),
        (
            "cronSchedule: '@daily'\njobRetryBackoffSeconds: 5",
            "`jobRetryBackoffSeconds`: needs `jobMaxRetries`, which is 0",
        ),
        ("cronSchedule: 0 0 H(30-31) 2 *", "`cronSchedule`: `0 0 H(30-31) 2 *` never fires: no date matches it"),
        ("cronSchedule: 'H(0-60) * * * *'", "`cronSchedule`: minute `H(0-60)`: `60` is not a number from 0 to 59"),
        ("timezone: Europe/Berlin", &format!("`timezone`: {needs_cron}")),
        ("suspend: true", &format!("`suspend`: {needs_cron}")),
        ("catchUp: none", &format!("`catchUp`: {needs_cron}")),
        ("cronScope: node", &format!("`cronScope`: {needs_cron}")),
        ("runMode: service\ncronSchedule: '@daily'", &format!("`cronSchedule`: {needs_cron}")),
        ("jobMaxRetries: 3", &format!("`jobMaxRetries`: {needs_cron}")),
        ("cronTimeoutSeconds: 30", &format!("`cronTimeoutSeconds`: {needs_cron}")),
    ] {
        one_mistake(lines, expected);
    }
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    let not_yet = |path: &str| format!("`{path}`: not carried out by this version of narun");
    for (path, lines) in [
        ("spread", "spread: zone"),
        ("mounts", "mounts: [{path: etc/app.conf, source: {objectStore: app.conf}}]"),
        ("metrics", "metrics: {port: 9100}"),
        ("health", "health: {http: {port: 80, path: /}}"),
        ("sockets", "sockets: [{name: http, address: '0.0.0.0:80'}]"),
    ] {
        one_mistake(lines, &not_yet(path));
    }
    exactly(
        "name: web\ntag: v1\norder: start-first",
        &["`order`: `start-first` is not carried out by this version of narun"],
    );
}

#[test]
fn sandbox_and_limits_keep_their_rules() {
    for (lines, expected) in [
        ("cpuCores: 0.001", "`cpuCores`: found `0.001`, wanted at least 0.01"),
        ("memoryMB: 64\nmemoryMaxMB: 32", "`memoryMaxMB`: found `32`, wanted at least the 64 of `memoryMB`"),
        ("cgroupParent: ../x", "`cgroupParent`: `../x` holds `.` or `..`; wanted the path of a group from the root"),
        (
            "capabilities: [NET_BIND_SERVISE]",
            "`capabilities[0]`: `NET_BIND_SERVISE` is no capability; did you mean `NET_BIND_SERVICE`? `all` keeps every one",
        ),
        ("landlock: {tmp: true}", "`landlock`: needs `mode: landlock`"),
        ("require: strict", "`require`: needs `mode: landlock`, whose rules it is about"),
        (
            "networkNamespacePath: /run/netns/a\nnonet: true",
            "`nonet`: `networkNamespacePath` names another network; give one of them",
        ),
        (
            "nonet: {localPorts: [{port: 80}]}",
            "`nonet.localPorts[0].port`: found `80`, wanted a whole number of at least 1025",
        ),
    ] {
        one_mistake(lines, expected);
    }
    let jails = "`mode`: `jail` is a sandbox of FreeBSD, and this narun runs on Linux; `landlock` is its like";
    exactly("name: web\ntag: v1\nmode: jail", &[jails]);
    exactly(
        "name: web\ntag: v1\nmode: jail\njail: {ip4Addresses: [10.0.0.1]}",
        &["`jail`: not carried out by this version of narun", jails],
    );
}

#[test]
fn what_is_not_carried_out_is_checked_all_the_same() {
    for (lines, expected) in [
        ("mode: fast", "`mode`: found text `fast`, wanted `exec`, `landlock` or `jail`"),
        ("networkNamespacePath: netns", "`networkNamespacePath`: `netns` does not begin with `/`"),
        ("stopSignal: SIGFOO", "`stopSignal`: `SIGFOO` is no signal that stops a program"),
        ("user: 'a b'", "`user`: `a b` holds ` `; it is made of anything but spaces, `:` and `/`"),
        ("cronSchedule: '@daily'\ntimezone: Mars/Olympus", "`timezone`: `Mars/Olympus` is no time zone"),
        ("cronSchedule: '@daily'\nhistoryLimit: 0", "`historyLimit`: found `0`"),
        ("mounts: [{path: ../x, source: {objectStore: a}}]", "`mounts[0].path`: `../x` leaves the working directory"),
        ("mounts: [{path: a/../../x, source: {objectStore: a}}]", "`mounts[0].path`: `a/../../x` leaves"),
        ("mounts: [{path: /etc/x, source: {objectStore: a}}]", "`mounts[0].path`: `/etc/x` leaves"),
        ("mounts: [{path: ., source: {objectStore: a}}]", "`mounts[0].path`: `.` is the working directory itself"),
        ("mounts: [{path: x}]", "`mounts[0].source`: missing"),
        ("mounts: [{path: x, source: {}}]", "`mounts[0].source.objectStore`: missing"),
        (
            "mounts: [{path: x, source: {objectStore: a}}, {path: x, source: {objectStore: b}}]",
            "`mounts[1].path`: `x` was given before",
        ),
        ("memoryMB: 64\nmemoryMaxMB: 32", "`memoryMaxMB`: found `32`, wanted at least the 64 of `memoryMB`"),
        ("landlock: {paths: [{path: /srv, modes: rz}]}", "`landlock.paths[0].modes`: `rz` holds `z`"),
        ("landlock: {paths: [{path: /srv, modes: rr}]}", "`landlock.paths[0].modes`: `rr` holds `r` twice"),
        ("landlock: {paths: [{path: ''}]}", "`landlock.paths[0].modes`: missing"),
        ("landlock: {tmp: true}", "`landlock`: needs `mode: landlock`"),
        ("landlock: {Tmp: true}", "`landlock.Tmp`: unknown field; did you mean `tmp`?"),
        (
            "nonet: {localPorts: [{port: 80}]}",
            "`nonet.localPorts[0].port`: found `80`, wanted a whole number of at least 1025",
        ),
        ("nonet: {localPorts: [{port: 8080, protocol: sctp}]}", "`nonet.localPorts[0].protocol`: found text `sctp`"),
        ("metrics: {port: 70000}", "`metrics.port`: found `70000`"),
        ("metrics: {path: /m}", "`metrics.port`: missing"),
        ("jail: {ip4Addresses: [300.0.0.1]}", "`jail.ip4Addresses[0]`: `300.0.0.1` is no IPv4 address"),
        ("health: {}", "`health`: found 0 probes"),
        ("health: {tcp: {port: 1}, http: {port: 1}}", "`health`: found 2 probes"),
        ("sockets: [{name: a, address: '80'}]", "`sockets[0].address`: `80` is no address"),
        ("cronSchedule: '@daily'\nsingleton: true", "`singleton`: is for services"),
        ("singleton: true\nreplicas: 2", "`singleton`: found 2 instances, wanted 1"),
        (
            "singleton: true\nnodes: [{name: all, replicas: 1}]",
            "`singleton`: is one instance in the cluster; `name: all`",
        ),
        ("cronSchedule: '@daily'\ncatchUpWindowSeconds: 60", "`catchUpWindowSeconds`: needs `catchUp: all`"),
        ("constraints: {platform: linux}", "`constraints.platform`: `linux` is no platform"),
        ("constraints: {labels: {zone: [a]}}", "`constraints.labels.zone`: found a list, wanted text"),
        ("constraints: {labels: {'': a}}", "`constraints.labels.`: must not be empty"),
        ("constraints: {labels: {zone: 'a b'}}", "`constraints.labels.zone`: `a b` holds ` `"),
        ("constraints: {os: Linux}", "`constraints.os`: `Linux` holds `L`"),
        ("constraints: {platform: linux/amd64, arch: arm64}", "`constraints.arch`: `constraints.platform` says it"),
        ("constraints: {coresMin: -1}", "`constraints.coresMin`: found `-1`, wanted a whole number of at least 0"),
        ("constraints: {memoryMinMB: '64'}", "`constraints.memoryMinMB`: found text `64`, wanted a whole number"),
        ("constraints: {landlockMin: 5000}", "`constraints.landlockMin`: found `5000`"),
        ("constraints: {cgroup: v3}", "`constraints.cgroup`: found text `v3`, wanted `v1`, `v2` or `hybrid`"),
        ("constraints: {corseMin: 4}", "`constraints.corseMin`: unknown field; did you mean `coresMin`?"),
    ] {
        let mistakes = refused(&format!("name: web\ntag: v1\n{lines}\n")).to_string();
        assert!(mistakes.lines().any(|line| line.starts_with(expected)), "{lines}\n{mistakes}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    exactly(
        "name: My App\nreplicas: 0\nCPUCores: 2\nenv: [{name: 'A B'}, {name: B, value: [x]}]\nargs: x\nspread: zone\nrunMode: cron\n",
        &[
            "`name`: `My App` holds `M`; a name is made of the letters a-z, digits, `-`, `_` and `.`",
            "`tag`: missing",
            "`replicas`: found `0`, wanted a whole number of at least 1",
            "`CPUCores`: unknown field; did you mean `cpuCores`?",
            "`env[0].name`: `A B` holds ` `; it is made of anything but spaces and `=`",
            "`env[1].value`: found a list, wanted text",
            "`args`: found text `x`, wanted a list",
            "`spread`: not carried out by this version of narun",
            "`cronSchedule`: missing; `runMode: cron` needs the times to run at",
        ],
    );
}

#[test]
fn mistakes_of_options_name_the_options() {
    let flags = Flags {
        name: Some("my app".to_owned()),
        node: Some("n/1".to_owned()),
        replicas: Some("three".to_owned()),
        job_max_retries: Some("-1".to_owned()),
        job_timeout_seconds: Some("5".to_owned()),
        args: vec!["a\0b".to_owned()],
        env: vec!["A".to_owned(), "=x".to_owned(), "B=1".to_owned(), "B=2".to_owned()],
        ..Flags::default()
    };
    let mut found: Vec<_> = ServiceSpec::from_flags(&flags).unwrap_err().iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "`--arg`: holds a NUL character, which no program can be given",
            "`--env`: `A` has no `=`, wanted `NAME=VALUE`",
            "`--env`: `B` was given before",
            "`--env`: must not be empty",
            "`--job-max-retries`: found `-1`, wanted a whole number of at least 0",
            "`--job-max-retries`: only a cron spec has it; it needs `--run-mode cron`",
            "`--job-timeout-seconds`: only a cron spec has it; it needs `--run-mode cron`",
            "`--name`: `my app` holds ` `; a name is made of the letters a-z, digits, `-`, `_` and `.`",
            "`--node`: `n/1` holds `/`; a name is made of the letters a-z, digits, `-`, `_` and `.`",
            "`--replicas`: found text `three`, wanted a whole number",
            "`--tag`: missing",
        ]
    );
    let cron = Flags { run_mode: Some("cron".to_owned()), replicas: Some("2".to_owned()), ..Flags::default() };
    let found = ServiceSpec::from_flags(&cron).unwrap_err().to_string();
    assert!(found.contains("`--replicas`: a cron spec runs once"), "{found}");
    assert!(found.contains("`--cron-schedule`: missing; `--run-mode cron` needs the times"), "{found}");
}

#[test]
fn local_cannot_stand_beside_the_name_of_the_same_node() {
    let mut spec = parsed("name: web\ntag: v1\nnodes: [{name: n1}, {name: local, replicas: 2}]");
    let before = spec.clone();
    let mistakes = spec.resolve_local(&NodeName::new("n1").unwrap()).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "`nodes[1].name`: `local` is the node `n1` here, which `nodes` names too; name it once"
    );
    assert_eq!(spec, before);
}
