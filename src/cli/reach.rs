//! Which node a command speaks to, and how. Words are read here; nothing is connected.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::api::client::Client;
use crate::node::layout::Layout;

use super::failure::Failure;
use super::words;

/// How long a node may take to answer when nothing is said: a busy node on a slow disk answers in a second.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// The form of results.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Form {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Options that every command knows.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Reach {
    /// The node to ask: `unix:PATH` [env: NARUN_API]
    ///
    /// Without it, the node is reached at `narun.sock` in the data directory.
    #[arg(long, global = true, value_name = "unix:PATH", help_heading = "Common options")]
    api: Option<String>,
    /// The data directory of this host's node
    ///
    /// Without it: `/var/lib/narun` for root, `$XDG_DATA_HOME/narun` (or `~/.local/share/narun`) for everybody else.
    #[arg(long, global = true, alias = "dataDir", value_name = "DIR", env = "NARUN_DATA_DIR", hide_env_values = true)]
    #[arg(help_heading = "Common options")]
    data_dir: Option<PathBuf>,
    /// The form of results
    #[arg(short, long, global = true, value_name = "FORM", default_value = "table", help_heading = "Common options")]
    output: Form,
    /// How long to wait for an answer, such as `15s` or `2m`
    #[arg(long, global = true, value_name = "TIME", value_parser = words::duration, help_heading = "Common options")]
    timeout: Option<Duration>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, default_missing_value = "")]
    nats: Option<String>,
}

/// What those are told who look for the first predecessor's broker.
pub(crate) fn no_broker() -> Failure {
    Failure::usage("`--nats`: there is no broker here; nodes speak with one another")
        .hint("leave it out to ask this host's node, or name one with `--api unix:PATH`")
}

impl Reach {
    /// Tells those who look for a broker that there is none.
    pub(crate) fn refuse_broker(&self) -> Result<(), Failure> {
        if self.nats.is_some() { Err(no_broker()) } else { Ok(()) }
    }

    pub(crate) fn wants_json(&self) -> bool {
        self.output == Form::Json
    }

    /// How long the user wants to wait, if that was said.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The client of the node that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let from_env = || std::env::var("NARUN_API").ok().filter(|text| !text.is_empty());
        let socket = match self.api.clone().or_else(from_env) {
            Some(text) => socket_of(&text)?,
            None => Layout::new(self.data_dir()?).api_socket(),
        };
        Ok(Client::new(socket, self.timeout.unwrap_or(TIMEOUT_DEFAULT)))
    }

    /// Where the node's own socket should be, if the command line says so. The environment is not asked: it names the node that
    /// commands speak to, and a node that takes another's socket would take its users.
    pub(crate) fn own_socket(&self) -> Result<Option<PathBuf>, Failure> {
        self.api.as_deref().map(socket_of).transpose()
    }

    /// Whether the command line or the environment names the data directory.
    pub(crate) fn names_data_dir(&self) -> bool {
        self.data_dir.as_ref().is_some_and(|dir| !dir.as_os_str().is_empty())
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = self.data_dir.clone().filter(|dir| !dir.as_os_str().is_empty()) {
            return Ok(dir);
        }
        if nix::unistd::geteuid().is_root() {
            return Ok("/var/lib/narun".into());
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        data.map(|data| data.join("narun")).ok_or_else(|| {
            Failure::usage("no data directory: neither XDG_DATA_HOME nor HOME is set")
                .hint("name one with `--data-dir`")
        })
    }
}

/// The socket that `--api` names.
fn socket_of(text: &str) -> Result<PathBuf, Failure> {
    let wrong = |message: String| Err(Failure::usage(message).hint("write it as `unix:PATH`"));
    match text.split_once(':') {
        Some(("unix", "")) => wrong("`--api unix:` names no socket".to_owned()),
        Some(("unix", path)) => Ok(path.strip_prefix("//").unwrap_or(path).into()),
        Some(("https", _)) => wrong(format!(
            "`--api {text}`: this version of narun does not answer over `https://`, only on its host's socket"
        )),
        Some(("http", _)) => {
            wrong(format!("`--api {text}`: narun never answers over `http://`, which anybody could read"))
        }
        _ => wrong(format!("`--api {text}` names no node")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_named_by_its_path() {
        assert_eq!(socket_of("unix:/run/n.sock").unwrap(), PathBuf::from("/run/n.sock"));
        assert_eq!(socket_of("unix:///run/n.sock").unwrap(), PathBuf::from("/run/n.sock"));
        assert_eq!(socket_of("unix:n.sock").unwrap(), PathBuf::from("n.sock"));
        for (wrong, told) in [
            ("https://host:1", "`https://`"),
            ("http://host:1", "`http://`"),
            ("unix:", "names no socket"),
            ("/run/n.sock", "names no node"),
            ("", "names no node"),
        ] {
            let failure = socket_of(wrong).unwrap_err();
            assert_eq!(failure.code(), 2, "{wrong}");
            assert!(failure.text().contains(told) && failure.text().contains("unix:PATH"), "{}", failure.text());
        }
    }
}
