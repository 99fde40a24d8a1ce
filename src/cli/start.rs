//! `narun start` and `narun join`: running this host's node. Wiring.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::crdt::ticket::Ticket;
use crate::ids::{NAME_LEN_MAX, NodeName};
use crate::node::config::{JoinOptions, Origin, Ready, StartOptions};
use crate::node::run::{self, RunError};
use crate::spec::check_label;

use super::confirm::ask;
use super::failure::Failure;
use super::output::note;
use super::reach::Reach;

/// Longest configuration file: some labels and addresses.
const CONFIG_LEN_MAX: u64 = 64 * 1024;

/// What a node logs where `NARUN_LOG` does not say. Raft speaks of each vote, and warns ten times a second of a voter that is away: what
/// matters of that the ledger says itself.
const LOG_DEFAULT: &str = "info,openraft=error";

/// Run this host's node
///
/// A fresh data directory begins a cluster of one; the line that lets others join is printed. A data directory that belongs to
/// a cluster resumes there. Runs until `narun stop` or Ctrl-C, which end the instances too, or SIGTERM, which leaves them
/// running for the next start.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  narun start
  narun start --name n1 --listen 10.0.0.1:7470 --label zone=a --label disk=ssd
  narun start --config /etc/narun/node.yaml

The file of --config has the keys name, listen, advertise (a list), labels (a map) and data_dir; options win over it.")]
pub(crate) struct Start {
    #[command(flatten)]
    host: Host,
}

/// Make this host's node a member of a cluster, and run it
///
/// Takes the ticket that `narun start` or `narun ticket create` printed on a member, or that member's address and the ticket
/// besides (--token, NARUN_TOKEN, or typed in). Afterwards plain `narun start` resumes.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  narun join narun1abc...
  narun join 10.0.0.1:7470 --token narun1abc...
  NARUN_TOKEN=narun1abc... narun join 10.0.0.1:7470 --name n2")]
pub(crate) struct Join {
    /// The ticket, or the address of the member that made it
    #[arg(value_name = "TICKET | PEER")]
    target: String,
    /// The ticket, where an address is given
    #[arg(long, value_name = "TICKET", env = "NARUN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    host: Host,
}

/// What is said about this host's node.
#[derive(Args, Debug, Default)]
struct Host {
    /// The node's name [default: this host's name]
    #[arg(long)]
    name: Option<String>,
    /// Where to listen for other nodes, HOST:PORT [default: where it listened before, else 0.0.0.0:7470]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where others reach this node, HOST:PORT; may be given again [default: found out]
    #[arg(long, value_name = "ADDR")]
    advertise: Vec<String>,
    /// A label of this node, for placement; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// A file with these settings, YAML or JSON
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The file of `--config`.
#[derive(Deserialize, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    name: Option<String>,
    listen: Option<String>,
    advertise: Vec<String>,
    labels: BTreeMap<String, String>,
    data_dir: Option<PathBuf>,
}

impl Start {
    pub(crate) fn run(self, reach: &Reach) -> Result<(), Failure> {
        let options = self.host.options(reach)?;
        run_node(move || Node::Start(options))
    }
}

impl Join {
    pub(crate) fn run(self, reach: &Reach) -> Result<(), Failure> {
        let ticket = self.ticket()?;
        let start = self.host.options(reach)?;
        run_node(move || Node::Join(JoinOptions { start, ticket }))
    }

    fn ticket(&self) -> Result<Ticket, Failure> {
        if !self.target.contains(':') {
            return self.target.parse().map_err(|error| {
                Failure::usage(error).hint("give a ticket, or a member's address as HOST:PORT with `--token TICKET`")
            });
        }
        let peer = address("join", &self.target)?;
        let token = match &self.token {
            Some(token) => token.clone(),
            None if io::stdin().is_terminal() => {
                ask(&mut io::stdin().lock(), &mut io::stderr(), &format!("The ticket of {peer}: "))?
            }
            None => {
                return Err(Failure::usage(format!("`narun join {peer}` needs the ticket of that member"))
                    .hint("`narun ticket create` makes one there; give it with --token or NARUN_TOKEN"));
            }
        };
        let mut ticket: Ticket = token.parse().map_err(Failure::usage)?;
        // What the user says is tried first: the ticket may name addresses that cannot be reached from here.
        ticket.addresses.retain(|known| *known != peer);
        ticket.addresses.insert(0, peer);
        Ok(ticket)
    }
}

impl Host {
    fn options(self, reach: &Reach) -> Result<StartOptions, Failure> {
        if reach.timeout().is_some() {
            return Err(Failure::usage(
                "`--timeout` is for commands that wait for an answer; a node runs until it is stopped",
            ));
        }
        if reach.wants_json() {
            return Err(Failure::usage("`--output json` is for commands that print results; a node writes a log"));
        }
        let file = self.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let name = match self.name.or(file.name) {
            Some(text) => Some(NodeName::new(&text).map_err(|error| Failure::usage(format!("`--name`: {error}")))?),
            None => None,
        };
        let listen = self.listen.or(file.listen).map(|text| address("--listen", &text)).transpose()?;
        let advertise = if self.advertise.is_empty() { file.advertise } else { self.advertise };
        let mut labels = file.labels;
        for (key, value) in &labels {
            check_label(key, value)
                .map_err(|wrong| Failure::usage(format!("`labels` of the configuration: {wrong}")))?;
        }
        for text in &self.label {
            let (key, value) = label(text)?;
            labels.insert(key, value);
        }
        Ok(StartOptions {
            // A file that one names speaks louder than the default, and lower than the command line and the environment.
            data_dir: match file.data_dir {
                Some(dir) if !reach.names_data_dir() => dir,
                _ => reach.data_dir()?,
            },
            name,
            name_default: host_name()?,
            listen,
            advertise: advertise.iter().map(|text| address("--advertise", text)).collect::<Result<_, _>>()?,
            labels,
            api_socket: reach.own_socket()?,
            announce: Box::new(announce),
        })
    }
}

/// `HOST:PORT`, checked as far as can be without looking a name up.
fn address(option: &str, text: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::usage(format!("`{option}`: `{text}` is no address; write it as HOST:PORT, such as `10.0.0.1:7470`"))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_v6 || host.contains(char::is_whitespace) || host.contains('/') {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

fn label(text: &str) -> Result<(String, String), Failure> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(Failure::usage(format!("`--label`: `{text}` is no label; write it as KEY=VALUE")));
    };
    check_label(key, value).map_err(|wrong| Failure::usage(format!("`--label`: {wrong}")))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn read_config(file: &Path) -> Result<ConfigFile, Failure> {
    let shown = file.display();
    let cannot = |cause: String| Failure::usage(format!("cannot use configuration {shown}: {cause}"));
    let found = std::fs::metadata(file).map_err(|error| cannot(error.to_string()))?;
    if found.len() > CONFIG_LEN_MAX {
        return Err(cannot(format!("it has {} bytes, and is hardly a configuration", found.len())));
    }
    let text = std::fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?;
    if text.trim().is_empty() {
        return Err(cannot("it is empty".to_owned()));
    }
    serde_norway::from_str(&text).map_err(|error| cannot(error.to_string()))
}

/// This host's name, made a node's name: what stands before the first dot, in small letters, `-` for all that a name cannot hold.
fn host_name() -> Result<NodeName, Failure> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    name_of_host(&host).ok_or_else(|| {
        Failure::usage(format!("this host's name, `{host}`, cannot name a node")).hint("give one with `--name`")
    })
}

fn name_of_host(host: &str) -> Option<NodeName> {
    let first = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let name: String = first.chars().map(fit).take(NAME_LEN_MAX).collect();
    NodeName::new(name.trim_matches(['-', '_'])).ok()
}

/// Says that the node serves: the join line is a result, the rest is for the eye.
fn announce(ready: &Ready) {
    let Ready { name, listen, api_socket, origin } = ready;
    note(format!("node `{name}` listens at {listen}; its API answers at {}", api_socket.display()));
    match origin {
        Origin::Founded(ticket) => {
            note("a new cluster begins here; on another host, join it with:");
            let mut output = super::output::Output::standard();
            // Nobody need read it: `narun ticket create` makes another.
            let _ = output.text(format!("narun join {ticket}\n")).and_then(|()| output.flush());
        }
        Origin::Joined => note("this node is a member of the cluster now; from here on, plain `narun start` runs it"),
        Origin::Resumed => {}
    }
}

/// A node to run.
enum Node {
    Start(StartOptions),
    Join(JoinOptions),
}

fn run_node(node: impl FnOnce() -> Node) -> Result<(), Failure> {
    // A second subscriber can only be there in tests.
    let filter = EnvFilter::try_from_env("NARUN_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(wired(node())).map_err(Failure::failed)
}

/// The one place where the command line hands over to the node.
async fn wired(node: Node) -> Result<(), RunError> {
    match node {
        Node::Start(options) => run::start(options).await,
        Node::Join(options) => run::join(options).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_its_node() {
        for (host, name) in [
            ("vm", Some("vm")),
            ("Web-01.example.org", Some("web-01")),
            ("höst", Some("h-st")),
            ("-x-", Some("x")),
            ("", None),
            ("...", None),
            ("local", None),
        ] {
            assert_eq!(name_of_host(host).map(|name| name.to_string()).as_deref(), name, "{host}");
        }
        assert_eq!(name_of_host(&"x".repeat(300)).unwrap().as_str().len(), NAME_LEN_MAX);
    }

    #[test]
    fn addresses_and_labels_are_checked_by_form() {
        for good in ["10.0.0.1:7470", "host.example:1", "[::1]:7470", "localhost:0"] {
            assert_eq!(address("--listen", good).unwrap(), good);
        }
        for wrong in ["10.0.0.1", "10.0.0.1:", ":7470", "::1:7470x", "::1:80", "host:70000", "a b:1", "http://h:1"] {
            let failure = address("--listen", wrong).unwrap_err();
            assert_eq!(failure.code(), 2);
            assert!(failure.text().contains(wrong) && failure.text().contains("HOST:PORT"));
        }
        assert_eq!(label("zone=eu/a-1").unwrap(), ("zone".into(), "eu/a-1".into()));
        for wrong in ["zone", "=a", "a b=c", "zone=a=b", "zone=a b"] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_configuration_has_known_keys_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yaml");
        std::fs::write(&file, "name: n1\nlisten: 10.0.0.1:7470\nlabels: {zone: a}\n").unwrap();
        let config = read_config(&file).unwrap();
        assert_eq!((config.name.as_deref(), config.labels["zone"].as_str()), (Some("n1"), "a"));
        std::fs::write(&file, "nmae: n1\n").unwrap();
        assert!(read_config(&file).unwrap_err().text().contains("nmae"));
        std::fs::write(&file, "").unwrap();
        assert!(read_config(&file).unwrap_err().text().contains("it is empty"));
    }
}
