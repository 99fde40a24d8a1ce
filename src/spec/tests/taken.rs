use super::parsed;
use crate::capacity::CgroupLayout;
use crate::ids::NodeName;
use crate::spec::schedule::Zone;
use crate::spec::{
    CatchUp, Concurrency, Constraints, CronPolicy, CronScope, CronSpec, EnvVar, Flags, NamedPlace, OnNodeLoss, Place,
    Placement, RunMode, ServiceSpec,
};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn placement(lines: &str) -> Placement {
    parsed(&format!("name: web\ntag: v1\n{lines}")).placement
}

fn mode(lines: &str) -> RunMode {
    parsed(&format!("name: web\ntag: v1\n{lines}")).mode
}

const WEB: &str = r#"
# A comment.
name: web
tag: v1.2.3
command: python3
args: ["-m", http.server, 8080]
env:
  - name: GREETING
    value: "hello, world = x"
  - name: EMPTY
    value: ""
  - name: BARE
nodes:
  - name: local
  - name: node-b
    replicas: 2
mode: exec
"#;

#[test]
fn a_whole_service_is_read() {
    let spec = parsed(WEB);
    assert_eq!(spec.name.as_str(), "web");
    assert_eq!(spec.tag, "v1.2.3");
    assert_eq!(spec.command.as_deref(), Some("python3"));
    assert_eq!(spec.args, ["-m", "http.server", "8080"]);
    let variable = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: value.to_owned() };
    assert_eq!(spec.env, [variable("GREETING", "hello, world = x"), variable("EMPTY", ""), variable("BARE", "")]);
    assert_eq!(
        spec.placement,
        Placement::Named(vec![
            NamedPlace { node: Place::Local, replicas: 1 },
            NamedPlace { node: Place::Node(node("node-b")), replicas: 2 },
        ])
    );
    assert_eq!(spec.mode, RunMode::Service);
}

#[test]
fn json_says_the_same() {
    let json = r#"{
	"name": "web", "tag": "v1.2.3", "command": "python3",
	"args": ["-m", "http.server", 8080],
	"env": [{"name": "GREETING", "value": "hello, world = x"}, {"name": "EMPTY", "value": ""}, {"name": "BARE", "value": null}],
	"nodes": [{"name": "local", "replicas": 1}, {"name": "node-b", "replicas": 2}],
	"mode": "exec"
}"#;
    assert_eq!(parsed(json), parsed(WEB));
    assert_eq!(parsed(&json.replace('\n', "")), parsed(WEB));
    assert_eq!(parsed(&format!("\u{feff}{}", json.replace('\n', "\r\n"))), parsed(WEB));
}

#[test]
fn json_that_is_no_yaml_is_read_too() {
    let spec = parsed(r#"{"name": "web", "tag": "v1", "args": ["\ud83d\ude00", 8080, true]}"#);
    assert_eq!(spec.args, ["😀", "8080", "true"]);
}

#[test]
fn text_is_kept_as_it_is_written() {
    let spec = parsed("name: 123\ntag: 1.10\nargs: [0x1F, 010, 1e3, True, -0, +5, 2026-11-21, no, .5, 1_000, '7']");
    assert_eq!(spec.name.as_str(), "123");
    assert_eq!(spec.tag, "1.10");
    assert_eq!(spec.args, ["0x1F", "010", "1e3", "True", "-0", "+5", "2026-11-21", "no", ".5", "1_000", "7"]);
}

#[test]
fn aliases_are_followed() {
    let spec = parsed("name: web\ntag: &v 1.10\nargs: [*v, *v]\nenv: [{name: VERSION, value: *v}]");
    assert_eq!(spec.args, ["1.10", "1.10"]);
    assert_eq!(spec.env[0].value, "1.10");
}

#[test]
fn placement_says_where() {
    let cluster = |replicas| Placement::Cluster { replicas };
    assert_eq!(placement(""), cluster(1));
    assert_eq!(placement("nodes: []"), cluster(1));
    assert_eq!(placement("nodes:"), cluster(1));
    assert_eq!(placement("replicas: 3"), cluster(3));
    assert_eq!(placement("nodes: []\nreplicas: 1000"), cluster(1000));
    assert_eq!(placement("nodes: [{name: any}]"), cluster(1));
    assert_eq!(placement("nodes: [{name: any, replicas: 4}]"), cluster(4));
    assert_eq!(placement("nodes: [{name: all}]"), Placement::EachNode { replicas: 1 });
    assert_eq!(placement("nodes: [{name: all, replicas: 2}]"), Placement::EachNode { replicas: 2 });
    let named = Placement::Named(vec![NamedPlace { node: Place::Node(node("n1")), replicas: 2 }]);
    assert_eq!(placement("nodes: [{name: n1, replicas: 2}]"), named);
}

#[test]
fn constraints_say_what_a_node_must_have() {
    let constraints = |lines: &str| parsed(&format!("name: web\ntag: v1\nconstraints: {lines}")).constraints;
    assert_eq!(constraints("~"), Constraints::default());
    let all =
        "{labels: {zone: a, rack: 12}, os: linux, coresMin: 4, memoryMinMB: 2048, landlockMin: 3, cgroup: hybrid}";
    let text = |text: &str| text.to_owned();
    let expected = Constraints {
        labels: [(text("zone"), text("a")), (text("rack"), text("12"))].into(),
        os: Some(text("linux")),
        arch: None,
        cores_min: 4,
        memory_min_mb: 2048,
        landlock_min: 3,
        cgroup: Some(CgroupLayout::Hybrid),
    };
    assert_eq!(constraints(all), expected);
    let platform = constraints("{platform: linux/arm64}");
    assert_eq!((platform.os.as_deref(), platform.arch.as_deref()), (Some("linux"), Some("arm64")));
    assert_eq!(platform, constraints("{os: linux, arch: arm64}"), "two ways to say one thing");
    let with = |lines: &str| parsed(&format!("name: web\ntag: v1\n{lines}"));
    let (free, bound) = (with(""), with("constraints: {os: linux}"));
    assert_eq!(free.launch_hash_input(), bound.launch_hash_input(), "what runs is not replaced for them");
}

#[test]
fn cron_is_read_in_both_spellings() {
    let cron =
        |max_retries, timeout_seconds| cron(CronPolicy { max_retries, timeout_seconds, ..CronPolicy::default() });
    assert_eq!(mode("runMode: cron\ncronSchedule: 0 3 * * *"), cron(0, 0));
    assert_eq!(
        mode("runMode: cron\ncronSchedule: ' 0 3 * * * '\njobMaxRetries: 2\njobTimeoutSeconds: 60"),
        cron(2, 60)
    );
    // One line of predecessors had no `runMode`.
    let older = "cronSchedule: 0 3 * * *\ncronMaxRetries: 2\ncronTimeoutSeconds: 60\ncronAllowConcurrent: false";
    assert_eq!(mode(older), cron(2, 60));
    let allowed = mode("cronSchedule: 0 3 * * *\ncronAllowConcurrent: true");
    assert_eq!(allowed, mode("cronSchedule: 0 3 * * *\nconcurrencyPolicy: allow"));
    assert_ne!(allowed, cron(0, 0));
    assert_eq!(mode(""), RunMode::Service);
    assert_eq!(mode("runMode: service\njobMaxRetries: 0\ncronSchedule: ''"), RunMode::Service);
    assert_eq!(placement("cronSchedule: '@daily'\nreplicas: 1"), Placement::Cluster { replicas: 1 });
    assert_eq!(
        placement("cronSchedule: '@daily'\nnodes: [{name: n1}, {name: local}]"),
        Placement::Named(vec![
            NamedPlace { node: Place::Node(node("n1")), replicas: 1 },
            NamedPlace { node: Place::Local, replicas: 1 },
        ])
    );
}

fn cron(policy: CronPolicy) -> RunMode {
    let (timezone, scope) = (Zone::UTC, CronScope::Cluster);
    RunMode::Cron(CronSpec { schedule: "0 3 * * *".to_owned(), timezone, scope, policy })
}

#[test]
fn policies_of_cron_specs_say_what_they_are_to_say() {
    let with = |lines: &str| match mode(&format!("cronSchedule: 0 3 * * *\n{lines}")) {
        RunMode::Cron(cron) => cron,
        RunMode::Service => panic!("`{lines}` made a service"),
    };
    let policy = CronPolicy::default();
    assert_eq!(with("").policy, policy);
    assert_eq!(
        (policy.concurrency, policy.catch_up, policy.on_node_loss),
        (Concurrency::Skip, CatchUp::Latest, OnNodeLoss::Fail)
    );
    assert_eq!((policy.starting_deadline_seconds, policy.history_limit, policy.suspend), (60, 20, false));
    for (lines, expected) in [
        ("concurrencyPolicy: replace", CronPolicy { concurrency: Concurrency::Replace, ..policy }),
        ("catchUp: none", CronPolicy { catch_up: CatchUp::None, ..policy }),
        ("catchUp: all", CronPolicy { catch_up: CatchUp::All { window_seconds: 86_400 }, ..policy }),
        (
            "catchUp: all\ncatchUpWindowSeconds: 60",
            CronPolicy { catch_up: CatchUp::All { window_seconds: 60 }, ..policy },
        ),
        ("startingDeadlineSeconds: 5", CronPolicy { starting_deadline_seconds: 5, ..policy }),
        ("onNodeLoss: rerun", CronPolicy { on_node_loss: OnNodeLoss::Rerun, ..policy }),
        ("suspend: true", CronPolicy { suspend: true, ..policy }),
        ("historyLimit: 1000", CronPolicy { history_limit: 1_000, ..policy }),
        (
            "jobMaxRetries: 3\njobRetryBackoffSeconds: 10",
            CronPolicy { max_retries: 3, retry_backoff_seconds: 10, ..policy },
        ),
        ("jobTimeoutSeconds: 9", CronPolicy { timeout_seconds: 9, ..policy }),
        ("catchUp: latest\ncatchUpWindowSeconds: 86400\nhistoryLimit: 20\nstartingDeadlineSeconds: 60", policy),
    ] {
        assert_eq!(with(lines).policy, expected, "{lines}");
    }
    assert_eq!(with("timezone: Europe/Berlin").timezone.name(), "Europe/Berlin");
    assert_eq!(with("timezone: UTC").timezone, Zone::UTC);
    assert_eq!(with("cronScope: node").scope, CronScope::Node);
    assert_eq!(
        placement("cronSchedule: '@daily'\ncronScope: node\nnodes: [{name: all}]"),
        Placement::EachNode { replicas: 1 }
    );
}

#[test]
fn pauses_between_retries_double_up_to_a_limit() {
    let pauses = |first| {
        let policy = CronPolicy { retry_backoff_seconds: first, ..CronPolicy::default() };
        [1, 2, 3, 4, 40, u32::MAX].map(|retry| policy.retry_pause(retry).as_secs())
    };
    assert_eq!(pauses(2), [2, 4, 8, 16, 300, 300]);
    assert_eq!(pauses(3_600), [3_600; 6], "one that is longer than the limit stays as it is");
}

#[test]
fn a_policy_is_no_part_of_what_runs() {
    let with = |lines: &str| parsed(&format!("name: job\ntag: v1\ncronSchedule: '@daily'\n{lines}"));
    let (one, other) =
        (with(""), with("concurrencyPolicy: allow\nsuspend: true\ntimezone: Asia/Tokyo\nhistoryLimit: 1"));
    assert_ne!(one.to_stored(), other.to_stored());
    assert_eq!(one.launch_hash_input(), other.launch_hash_input());
}

#[test]
fn fields_that_ask_for_nothing_are_taken() {
    let asks_nothing = "
mounts: []
user: ''
mode: exec
memoryMB: 0
memoryMaxMB: 0
cpuCores: 0.0
cgroupParent: ''
networkNamespacePath: ~
namespaces: []
landlock: {shared: false, tty: no_such_thing}
";
    // A field inside that is wrong is told even where the rest asks for nothing.
    let mistakes = super::refused(&format!("name: web\ntag: v1\n{asks_nothing}")).to_string();
    assert!(mistakes.starts_with("`landlock.tty`: found text `no_such_thing`"), "{mistakes}");

    let asks_nothing = asks_nothing.replace("no_such_thing", "false");
    let more = "
nonet: false
metrics: ~
jail: {devfsRuleset: 4, ip4Addresses: []}
enforce: strict
require: available
constraints: {labels: {}, platform: '', coresMin: 0, cgroup: ~}
spread: ''
singleton: false
restart: always
health: ~
order: stop-first
sockets: []
stopSignal: TERM
stopGraceSeconds: 10
cronScope: cluster
timezone: UTC
concurrencyPolicy: skip
catchUp: latest
startingDeadlineSeconds: 60
onNodeLoss: fail
suspend: false
historyLimit: 20
env: [{name: A, value: b, valueFromSecret: ''}]
";
    let plain = parsed("name: web\ntag: v1\nenv: [{name: A, value: b}]");
    assert_eq!(parsed(&format!("name: web\ntag: v1\n{asks_nothing}{more}")), plain);
}

#[test]
fn options_say_the_same_as_a_file() {
    let text = |text: &str| Some(text.to_owned());
    let flags = Flags { name: text("web"), tag: text("1.10"), ..Flags::default() };
    assert_eq!(
        ServiceSpec::from_flags(&flags).unwrap(),
        parsed("name: web\ntag: 1.10\nnodes: [{name: local, replicas: 1}]")
    );
    let flags = Flags {
        node: text("any"),
        replicas: text("3"),
        args: vec!["--port".to_owned(), "8080".to_owned()],
        env: vec!["A=b=c".to_owned(), "EMPTY=".to_owned()],
        ..flags
    };
    assert_eq!(
        ServiceSpec::from_flags(&flags).unwrap(),
        parsed("name: web\ntag: 1.10\nreplicas: 3\nargs: [--port, 8080]\nenv: [{name: A, value: b=c}, {name: EMPTY}]")
    );
    let flags = Flags {
        name: text("job"),
        tag: text("v1"),
        cron_schedule: text("@daily"),
        job_max_retries: text("2"),
        job_timeout_seconds: text("60"),
        timezone: text("Asia/Tokyo"),
        ..Flags::default()
    };
    let expected =
        "name: job\ntag: v1\ncronSchedule: '@daily'\njobMaxRetries: 2\njobTimeoutSeconds: 60\ntimezone: Asia/Tokyo";
    assert_eq!(ServiceSpec::from_flags(&flags).unwrap(), parsed(expected));
    let flags = Flags { node: text("n1"), run_mode: text("cron"), ..flags };
    assert_eq!(ServiceSpec::from_flags(&flags).unwrap(), parsed(&format!("{expected}\nnodes: [{{name: n1}}]")));
}

#[test]
fn local_becomes_the_node_that_takes_the_deploy() {
    let mut spec = parsed(WEB);
    spec.resolve_local(&node("node-a")).unwrap();
    assert_eq!(
        spec.placement,
        Placement::Named(vec![
            NamedPlace { node: Place::Node(node("node-a")), replicas: 1 },
            NamedPlace { node: Place::Node(node("node-b")), replicas: 2 },
        ])
    );
    let resolved = spec.clone();
    spec.resolve_local(&node("node-c")).unwrap();
    assert_eq!(spec, resolved, "there is nothing left to resolve");
}
