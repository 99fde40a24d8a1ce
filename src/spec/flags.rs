//! A specification out of the options of `narun deploy`. Pure.
//!
//! The options become the same tree as a file's text, so that one code checks both; only the mistakes are told in the words of
//! the command line.

use super::ServiceSpec;
use super::mistake::{Mistake, Mistakes};
use super::tree::{Fields, Node, shortened};

/// What stood on the command line; numbers still as text, so that they are judged here like all else.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// `--name`.
    pub name: Option<String>,
    /// `--tag`.
    pub tag: Option<String>,
    /// `--node`. Not given, a service belongs on the node that takes the deploy, and a cron spec on any.
    pub node: Option<String>,
    /// `--replicas`; 1 where it is not given.
    pub replicas: Option<String>,
    /// `--run-mode`.
    pub run_mode: Option<String>,
    /// `--cron-schedule`.
    pub cron_schedule: Option<String>,
    /// `--timezone`.
    pub timezone: Option<String>,
    /// `--job-max-retries`.
    pub job_max_retries: Option<String>,
    /// `--job-timeout-seconds`.
    pub job_timeout_seconds: Option<String>,
    /// Each `--arg`, in order.
    pub args: Vec<String>,
    /// Each `--env`, in order: `NAME=VALUE`.
    pub env: Vec<String>,
}

/// Which option stands for which field.
const OPTIONS: [(&str, &str); 12] = [
    ("nodes[0].name", "--node"),
    ("nodes[0].replicas", "--replicas"),
    ("nodes", "--node"),
    ("name", "--name"),
    ("tag", "--tag"),
    ("replicas", "--replicas"),
    ("runMode", "--run-mode"),
    ("cronSchedule", "--cron-schedule"),
    ("timezone", "--timezone"),
    ("jobMaxRetries", "--job-max-retries"),
    ("jobTimeoutSeconds", "--job-timeout-seconds"),
    ("args", "--arg"),
];

impl ServiceSpec {
    /// Checks the options of a deploy as [`parse`](Self::parse) checks a file. Each mistake names its option.
    pub fn from_flags(flags: &Flags) -> Result<Self, Mistakes> {
        let pairs: Vec<_> = flags.env.iter().filter_map(|variable| not_a_pair(variable)).collect();
        match Self::from_tree(&Node::Map(tree(flags))) {
            Ok(spec) => Mistakes::check(pairs).map(|()| spec),
            Err(found) => Err(found.map(in_options).and(pairs)),
        }
    }
}

fn tree(flags: &Flags) -> Fields {
    let texts = [
        ("name", &flags.name),
        ("tag", &flags.tag),
        ("runMode", &flags.run_mode),
        ("cronSchedule", &flags.cron_schedule),
        ("timezone", &flags.timezone),
    ];
    let numbers = [("jobMaxRetries", &flags.job_max_retries), ("jobTimeoutSeconds", &flags.job_timeout_seconds)];
    let mut fields = Fields::new();
    let mut put = |name: &str, node: Node| fields.push((name.to_owned(), node));
    for (name, given) in texts {
        if let Some(text) = given {
            put(name, Node::Text(text.clone()));
        }
    }
    for (name, given) in numbers {
        if let Some(text) = given {
            put(name, number(text));
        }
    }
    let cron = flags.cron_schedule.is_some() || flags.run_mode.as_deref() == Some("cron");
    let replicas = flags.replicas.as_deref().map_or_else(|| number("1"), number);
    match &flags.node {
        None if cron => put("replicas", replicas),
        node => {
            let name = Node::Text(node.clone().unwrap_or_else(|| "local".to_owned()));
            let place = Node::Map(vec![("name".to_owned(), name), ("replicas".to_owned(), replicas)]);
            put("nodes", Node::List(vec![place]));
        }
    }
    put("args", Node::List(flags.args.iter().cloned().map(Node::Text).collect()));
    put("env", Node::List(flags.env.iter().filter_map(|pair| variable(pair)).collect()));
    fields
}

fn number(text: &str) -> Node {
    match text.parse::<i128>() {
        Ok(number) => Node::Whole(number, Some(text.to_owned())),
        Err(_) => Node::Text(text.to_owned()),
    }
}

fn variable(pair: &str) -> Option<Node> {
    let (name, value) = pair.split_once('=')?;
    let fields = [("name", name), ("value", value)].map(|(key, text)| (key.to_owned(), Node::Text(text.to_owned())));
    Some(Node::Map(fields.into()))
}

fn not_a_pair(variable: &str) -> Option<Mistake> {
    let message = || format!("`{}` has no `=`, wanted `NAME=VALUE`", shortened(variable));
    (!variable.contains('=')).then(|| Mistake::new("--env", message()))
}

/// The mistake in the words of the command line.
fn in_options(mistake: Mistake) -> Mistake {
    let Mistake { path, mut message } = mistake;
    let option = OPTIONS.iter().find(|(field, _)| *field == path).map(|(_, option)| (*option).to_owned());
    let path = option.unwrap_or_else(|| match path.split('[').next() {
        Some("args") => "--arg".to_owned(),
        Some("env") => "--env".to_owned(),
        _ => path,
    });
    // Fields that a message mentions: `runMode: cron` is `--run-mode cron` here.
    for (field, option) in OPTIONS {
        message = message.replace(&format!("`{field}`"), &format!("`{option}`"));
        message = message.replace(&format!("`{field}: "), &format!("`{option} "));
    }
    Mistake { path, message }
}
