use proptest::prelude::*;

use super::{parsed, refused};
use crate::capacity::CgroupLayout;
use crate::confinement::{
    Capabilities, Confinement, Group, Landlock, Limits, LocalPort, Modes, Namespaces, Network, PathRule, Protocol,
};
use crate::ids::{NodeName, ServiceName};
use crate::spec::execution::SIGNALS;
use crate::spec::fields::{FIELDS, Field, Shape};
use crate::spec::schedule::Zone;
use crate::spec::tree::Node;
use crate::spec::{
    CatchUp, Concurrency, Constraints, CronPolicy, CronScope, CronSpec, EnvVar, NamedPlace, OnNodeLoss, Place,
    Placement, Restart, RunMode, SECONDS_MAX, ServiceSpec, StoredError, Supervision, WRITTEN_LEN_MAX, json_schema,
};

/// Any text without NUL: with quotes, line breaks, control characters, and words that YAML takes for something else.
fn text() -> impl Strategy<Value = String> {
    let tricky = prop::sample::select(vec![
        "",
        " ",
        "true",
        "Yes",
        "~",
        "null",
        "1.10",
        "0x1F",
        "- a",
        "a: b",
        "# c",
        "'",
        "\"",
        "\\",
        "\r\n",
        "\t",
        "&a",
        "*a",
        "!b",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{7f}",
        "\u{1b}[0m",
        "😀",
        "...",
        "---",
        "{",
        "]",
        "%x",
        "@every",
        "<<",
        "=",
        "a\n",
    ]);
    prop_oneof![
        2 => "[^\u{0}]{0,20}",
        1 => tricky.prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?"
        .prop_filter("reserved words name no node", |name| !["any", "all", "local"].contains(&name.as_str()))
}

fn placement() -> impl Strategy<Value = Placement> {
    let places = prop::collection::btree_map(prop::option::of(name()), 1..=1000_u32, 1..5).prop_map(|places| {
        let place = |name: Option<String>| name.map_or(Place::Local, |name| Place::Node(NodeName::new(&name).unwrap()));
        places.into_iter().map(|(name, replicas)| NamedPlace { node: place(name), replicas }).collect()
    });
    prop_oneof![
        (1..=1000_u32).prop_map(|replicas| Placement::Cluster { replicas }),
        (1..=1000_u32).prop_map(|replicas| Placement::EachNode { replicas }),
        places.prop_map(Placement::Named),
    ]
}

fn mode() -> impl Strategy<Value = RunMode> {
    let schedules = ["0 3 * * *", "*/10 * * * * *", "@every 1h30m", "@daily", "0 0 * * MON#1", "H H(0-3) * * *"];
    let zones: Vec<Zone> = Zone::all().collect();
    let when = (prop::sample::select(schedules.to_vec()), prop::sample::select(zones), any::<bool>());
    prop_oneof![
        Just(RunMode::Service),
        (when, policy()).prop_map(|((schedule, timezone, is_node), policy)| {
            let scope = if is_node { CronScope::Node } else { CronScope::Cluster };
            RunMode::Cron(CronSpec { schedule: schedule.to_owned(), timezone, scope, policy })
        }),
    ]
}

fn policy() -> impl Strategy<Value = CronPolicy> {
    let concurrency = prop::sample::select(vec![Concurrency::Skip, Concurrency::Allow, Concurrency::Replace]);
    let catch_up = prop_oneof![
        Just(CatchUp::Latest),
        Just(CatchUp::None),
        Just(CatchUp::All { window_seconds: 86_400 }),
        (1..=SECONDS_MAX).prop_map(|window_seconds| CatchUp::All { window_seconds }),
    ];
    let on_node_loss = prop::sample::select(vec![OnNodeLoss::Fail, OnNodeLoss::Rerun]);
    let times = (1..=SECONDS_MAX, 1..=3_600_u64, 0..=SECONDS_MAX);
    let counts = (1..=1_000_u32, 0..=1_000_u32);
    (concurrency, catch_up, on_node_loss, any::<bool>(), times, counts).prop_map(
        |(concurrency, catch_up, on_node_loss, suspend, times, (history_limit, max_retries))| {
            let (starting_deadline_seconds, retry_backoff_seconds, timeout_seconds) = times;
            let otherwise = CronPolicy::default().retry_backoff_seconds;
            // Without a retry a pause before it cannot be asked for.
            let retry_backoff_seconds = if max_retries == 0 { otherwise } else { retry_backoff_seconds };
            CronPolicy {
                concurrency,
                catch_up,
                starting_deadline_seconds,
                on_node_loss,
                suspend,
                history_limit,
                max_retries,
                retry_backoff_seconds,
                timeout_seconds,
            }
        },
    )
}

fn constraints() -> impl Strategy<Value = Constraints> {
    let labels = prop::collection::btree_map("[A-Za-z0-9._/-]{1,8}", "[A-Za-z0-9._/-]{0,8}", 0..3);
    let word = || prop::option::of("[a-z0-9]{1,8}");
    let least = (0..=65_536_u32, 0..=1_u64 << 40, 0..=1_000_u32);
    let cgroup = prop::option::of(prop::sample::select(CgroupLayout::ASKED_FOR.to_vec()));
    (labels, word(), word(), least, cgroup).prop_map(|(labels, os, arch, least, cgroup)| {
        let (cores_min, memory_min_mb, landlock_min) = least;
        Constraints { labels, os, arch, cores_min, memory_min_mb, landlock_min, cgroup }
    })
}

/// Any specification that can be asked for.
fn spec() -> impl Strategy<Value = ServiceSpec> {
    let command = prop::option::of(text().prop_filter("an empty command is none", |text| !text.is_empty()));
    let env = prop::collection::btree_map("[A-Za-z_.\u{e9}][A-Za-z0-9_.]{0,8}", text(), 0..5)
        .prop_map(|env| env.into_iter().map(|(name, value)| EnvVar { name, value }).collect());
    let args = prop::collection::vec(text(), 0..5);
    let held = (confinement(), supervision());
    (name(), "[A-Za-z0-9._+-]{1,20}", command, args, env, placement(), constraints(), mode(), held).prop_map(
        |(name, tag, command, args, env, placement, constraints, mode, (confinement, supervision))| {
            let name = ServiceName::new(&name).unwrap();
            let singleton =
                mode == RunMode::Service && placement == Placement::Cluster { replicas: 1 } && args.is_empty();
            let mut spec = ServiceSpec {
                name,
                tag,
                command,
                args,
                env,
                placement,
                constraints,
                singleton,
                confinement,
                supervision,
                mode,
            };
            if let RunMode::Cron(cron) = &spec.mode {
                match &mut spec.placement {
                    Placement::Named(places) => places.iter_mut().for_each(|place| place.replicas = 1),
                    Placement::EachNode { replicas } if cron.scope == CronScope::Node => *replicas = 1,
                    other => *other = Placement::Cluster { replicas: 1 },
                }
            }
            spec
        },
    )
}

fn confinement() -> impl Strategy<Value = Confinement> {
    let user = prop::option::of("[a-z]{1,8}");
    let capabilities = prop::option::of((0..=Capabilities::ALL.0).prop_map(Capabilities));
    let namespaces = any::<[bool; 3]>().prop_map(|[pid, ipc, mount]| Namespaces { pid, ipc, mount });
    let rest = (prop::option::of(landlock()), any::<bool>(), any::<bool>());
    (user, capabilities, limits(), namespaces, network(), rest).prop_map(
        |(user, capabilities, limits, namespaces, network, (landlock, best_effort, strict))| Confinement {
            user,
            capabilities,
            limits,
            namespaces,
            network,
            // Without Landlock there is nothing to be strict about.
            require_strict: strict && landlock.is_some(),
            landlock,
            best_effort,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let cpu = prop_oneof![Just(0_u32), 10_u32..100_000];
    let parent = prop::option::of("/?[a-z]{1,5}(/[a-z]{1,5})?");
    (0_u64..1000, 0_u64..1000, cpu, 1_u32..100_000, parent).prop_map(
        |(low, more, cpu_millicores, pids_max, cgroup_parent)| Limits {
            memory_low: low << 20,
            memory_max: (low + more) << 20,
            cpu_millicores,
            pids_max,
            cgroup_parent,
        },
    )
}

fn network() -> impl Strategy<Value = Network> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let port = (1_025_u16.., protocol).prop_map(|(port, protocol)| LocalPort { port, protocol });
    prop_oneof![
        Just(Network::Host),
        "/[a-z]{1,9}".prop_map(Network::Join),
        prop::collection::vec(port, 0..4).prop_map(Network::Loopback),
    ]
}

fn landlock() -> impl Strategy<Value = Landlock> {
    let groups = prop::sample::subsequence(Group::ALL.to_vec(), 0..=Group::ALL.len());
    let modes = any::<[bool; 3]>().prop_map(|[write, execute, create]| Modes { read: true, write, execute, create });
    let rule = ("/?[a-z]{1,9}", modes).prop_map(|(path, modes)| PathRule { path, modes });
    let ports = || prop::option::of(prop::collection::vec(1_u16.., 0..3));
    let paths = prop::collection::vec(rule, 0..4);
    (groups, paths, ports(), ports(), any::<bool>(), any::<bool>()).prop_map(
        |(groups, paths, bind_ports, connect_ports, scope_signals, scope_abstract_sockets)| Landlock {
            groups,
            paths,
            bind_ports,
            connect_ports,
            scope_signals,
            scope_abstract_sockets,
        },
    )
}

fn supervision() -> impl Strategy<Value = Supervision> {
    let restart = prop_oneof![Just(Restart::Always), Just(Restart::OnFailure), Just(Restart::Never)];
    let signal = prop::sample::select(SIGNALS.map(|(_, number)| number).to_vec());
    (restart, signal, 0..1000_u64).prop_map(|(restart, stop_signal, stop_grace_seconds)| Supervision {
        restart,
        stop_signal,
        stop_grace_seconds,
    })
}

/// Any tree out of the schema's own words, most of it wrong: what a clever stranger would send.
fn tree() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Node::Null),
        any::<bool>().prop_map(|flag| Node::Flag(flag, Some(flag.to_string()))),
        prop_oneof![-2_i128..3, Just(1000), any::<i128>()].prop_map(|n| Node::Whole(n, Some(n.to_string()))),
        any::<f64>().prop_map(|n| Node::Fraction(n, None)),
        prop::sample::select(vec![
            "a", "any", "all", "local", "cron", "service", "landlock", "@daily", "", "UTC", "/x", "tcp"
        ])
        .prop_map(|text| Node::Text(text.to_owned())),
        text().prop_map(Node::Text),
    ];
    let mut names = Vec::new();
    names_in(FIELDS, &mut names);
    leaf.prop_recursive(4, 60, 8, move |inner| {
        let names = prop::sample::select(names.clone());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Node::List),
            prop::collection::vec((names, inner), 0..10).prop_map(Node::Map),
        ]
    })
}

/// The names of all fields, inner ones too.
fn names_in(table: &[Field], names: &mut Vec<String>) {
    for row in table {
        names.push(row.name.to_owned());
        if let Shape::Map(inner) | Shape::FlagOrMap(inner) | Shape::List(Shape::Map(inner), _) = &row.shape {
            names_in(inner, names);
        }
    }
}

proptest! {
    #[test]
    fn the_stored_form_says_the_same(spec in spec()) {
        let stored = spec.to_stored();
        prop_assert!(stored.starts_with(br#"{"version":1,"name":"#), "the version stands first");
        let back = ServiceSpec::from_stored(&stored).unwrap();
        prop_assert_eq!(&back, &spec);
        prop_assert_eq!(back.to_stored(), stored);
    }

    #[test]
    fn yaml_says_the_same(spec in spec()) {
        let yaml = spec.to_yaml();
        let back = ServiceSpec::parse(&yaml);
        prop_assert_eq!(back.as_ref(), Ok(&spec), "{}", yaml);
    }

    #[test]
    fn specifications_differ_where_their_stored_forms_do(one in spec(), other in spec()) {
        prop_assert_eq!(one == other, one.to_stored() == other.to_stored());
    }

    #[test]
    fn placement_schedule_and_supervision_are_no_part_of_the_launch(
        one in spec(),
        placement in placement(),
        mode in mode(),
        supervision in supervision(),
    ) {
        let other = ServiceSpec { placement, mode, supervision, ..one.clone() };
        prop_assert_eq!(one.launch_hash_input(), other.launch_hash_input());
    }

    #[test]
    fn all_else_is_part_of_the_launch(one in spec(), other in spec()) {
        let launch = |spec: &ServiceSpec| {
            let program = (spec.name.clone(), spec.tag.clone(), spec.command.clone(), spec.args.clone());
            (program, spec.env.clone(), spec.confinement.clone())
        };
        prop_assert_eq!(launch(&one) == launch(&other), one.launch_hash_input() == other.launch_hash_input());
        let changed = ServiceSpec { args: [one.args.clone(), vec![String::new()]].concat(), ..one.clone() };
        prop_assert_ne!(one.launch_hash_input(), changed.launch_hash_input());
    }

    #[test]
    fn no_bytes_make_the_stored_form_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ServiceSpec::from_stored(&bytes).is_err());
    }

    /// A stored form with some bytes changed is refused or is another good specification.
    #[test]
    fn damage_never_makes_a_bad_specification(spec in spec(), damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut stored = spec.to_stored();
        for (at, byte) in damage {
            let at = at % stored.len();
            stored[at] = byte;
        }
        if let Ok(read) = ServiceSpec::from_stored(&stored) {
            prop_assert_eq!(ServiceSpec::from_stored(&read.to_stored()).unwrap(), read);
        }
    }

    #[test]
    fn no_text_makes_the_written_form_panic(text in ".{0,200}") {
        let _ = ServiceSpec::parse(&text);
    }

    /// Whatever is taken can be shown and read back: no check was forgotten, and building never fails without a mistake.
    #[test]
    fn any_tree_is_refused_or_is_a_specification(top in tree(), name in name()) {
        let mut fields = vec![("name".to_owned(), Node::Text(name)), ("tag".to_owned(), Node::Text("v1".to_owned()))];
        if let Node::Map(more) = top {
            fields.extend(more.into_iter().filter(|(name, _)| name != "name" && name != "tag"));
        }
        if let Ok(spec) = ServiceSpec::from_tree(&Node::Map(fields)) {
            prop_assert_eq!(ServiceSpec::parse(&spec.to_yaml()).unwrap(), spec);
        }
    }
}

#[test]
fn the_largest_specification_can_be_shown() {
    let arg = |len: usize| format!("\"{}\"", "\\x01".repeat(len));
    let text = format!("name: web\ntag: v1\nargs: [{}, {}]", arg(128 * 1024 - 1), arg(64 * 1024 - 1));
    let spec = parsed(&text);
    assert!(spec.to_yaml().len() <= WRITTEN_LEN_MAX);
    assert_eq!(parsed(&spec.to_yaml()), spec);
    assert_eq!(ServiceSpec::from_stored(&spec.to_stored()).unwrap(), spec);
}

#[test]
fn the_stored_form_is_fixed() {
    let spec = parsed(
        "name: web\ntag: v1\ncommand: sh\nargs: [-c]\nenv: [{name: A, value: b}]\nnodes: [{name: n1}, {name: local}]",
    );
    assert_eq!(
        String::from_utf8(spec.to_stored()).unwrap(),
        r#"{"version":1,"name":"web","tag":"v1","command":"sh","args":["-c"],"env":[{"name":"A","value":"b"}],"nodes":[{"name":"n1","replicas":1},{"name":"local","replicas":1}]}"#
    );
    assert_eq!(
        String::from_utf8(spec.launch_hash_input()).unwrap(),
        r#"["launch",1,"web","v1","sh",["-c"],[["A","b"]]]"#
    );
    let cron = parsed("name: job\ntag: v1\ncronSchedule: '@daily'\njobMaxRetries: 2");
    assert_eq!(
        String::from_utf8(cron.to_stored()).unwrap(),
        r#"{"version":1,"name":"job","tag":"v1","replicas":1,"runMode":"cron","cronSchedule":"@daily","jobMaxRetries":2}"#
    );
    let all = "{name: job, tag: v1, nodes: [{name: all}], cronSchedule: '0 3 * * *', cronScope: node, \
               timezone: Europe/Berlin, jobMaxRetries: 2, jobRetryBackoffSeconds: 5, jobTimeoutSeconds: 60, \
               concurrencyPolicy: replace, catchUp: all, catchUpWindowSeconds: 3600, startingDeadlineSeconds: 30, \
               onNodeLoss: rerun, suspend: true, historyLimit: 5}";
    assert_eq!(
        String::from_utf8(parsed(all).to_stored()).unwrap(),
        r#"{"version":1,"name":"job","tag":"v1","nodes":[{"name":"all","replicas":1}],"runMode":"cron","cronSchedule":"0 3 * * *","cronScope":"node","timezone":"Europe/Berlin","jobMaxRetries":2,"jobRetryBackoffSeconds":5,"jobTimeoutSeconds":60,"concurrencyPolicy":"replace","catchUp":"all","catchUpWindowSeconds":3600,"startingDeadlineSeconds":30,"onNodeLoss":"rerun","suspend":true,"historyLimit":5}"#
    );
}

#[test]
fn a_stored_form_that_is_not_known_is_refused() {
    let error = |stored: &str| ServiceSpec::from_stored(stored.as_bytes()).unwrap_err();
    assert_eq!(error(r#"{"version":2,"name":"web","colour":"red"}"#), StoredError::Newer(2));
    assert!(matches!(error(r#"{"version":1,"name":"web","tag":"v1","colour":"red"}"#), StoredError::Mistakes(_)));
    assert!(matches!(error(r#"{"version":1,"name":"web","tag":"v1","version":1}"#), StoredError::Mistakes(_)));
    assert!(matches!(error(r#"{"version":1,"name":"web","tag":"v1","replicas":0}"#), StoredError::Mistakes(_)));
    for malformed in
        ["", "[]", "1", "{}", r#"{"name":"web","version":1}"#, r#"{"version":"1"}"#, r#"{"version":0}"#, "name: web"]
    {
        assert!(matches!(error(malformed), StoredError::Malformed(_)), "{malformed}");
    }
    assert!(matches!(error(&" ".repeat(7 << 20)), StoredError::TooLong(_)));
    let newer = error(r#"{"version":2}"#).to_string();
    assert_eq!(newer, "stored in format 2, this version of narun reads format 1; upgrade this node");
}

#[test]
fn the_schema_has_every_field_and_its_rules() {
    let schema = json_schema();
    for row in FIELDS {
        assert!(schema["properties"][row.name]["description"].is_string(), "{}", row.name);
    }
    assert_eq!(schema["required"], serde_json::json!(["name", "tag"]));
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["replicas"]["minimum"], 1);
    assert_eq!(schema["properties"]["runMode"]["enum"], serde_json::json!(["service", "cron"]));
    assert_eq!(schema["properties"]["nodes"]["items"]["required"], serde_json::json!(["name"]));
    let description = |value: &serde_json::Value| value["description"].as_str().unwrap().to_owned();
    assert!(description(&schema["properties"]["health"]).ends_with("(not carried out yet)"));
    let secret = &schema["properties"]["env"]["items"]["properties"]["valueFromSecret"];
    assert!(description(secret).ends_with("(not carried out yet)"));
    assert!(!description(&schema["properties"]["replicas"]).contains("not carried out"));
}

#[test]
fn a_spec_that_was_scaled_by_hand_is_checked_when_it_is_read_back() {
    let mut spec = parsed("name: web\ntag: v1\nreplicas: 3");
    spec.placement = Placement::Cluster { replicas: 0 };
    assert!(ServiceSpec::from_stored(&spec.to_stored()).is_err());
    assert_eq!(refused(&spec.to_yaml()).to_string(), "`replicas`: found `0`, wanted a whole number of at least 1");
}
