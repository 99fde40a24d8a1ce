//! The user's hand: words, tables, exit codes. Wiring; the pure parts stand in files of their own.
//!
//! One file a noun: it builds a request, asks a node, and prints the answer. Words are checked before any node is asked. Only
//! results go to standard output, everything else to standard error. What tables and JSON look like is made by pure functions
//! over the API's wire types, and is a contract: columns and keys are added, never renamed.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no node reached.

mod binaries;
mod complete;
mod completion;
mod confirm;
mod cron;
mod cron_run;
mod cron_text;
mod deploy;
mod drain;
mod failure;
mod image;
mod keeper;
mod ledger;
mod logs;
mod man;
mod node;
mod node_text;
mod output;
mod progress;
mod reach;
mod remove;
mod service;
mod service_text;
mod spec;
mod start;
mod status;
mod stop;
mod table;
mod ticket;
mod usage_text;
mod wait;
mod why;
mod why_cron;
mod words;

#[cfg(test)]
mod cron_tests;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use failure::Failure;
use output::Output;
use reach::Reach;

const ABOUT: &str = "Run services and scheduled jobs on your own machines, without a broker or a control plane";

const AFTER_LONG_HELP: &str = "\
Exit codes:
  0  done
  1  refused, or failed
  2  the command line is wrong
  3  no node was reached

Environment:
  NARUN_API       the node to ask, as --api
  NARUN_DATA_DIR  the data directory, as --data-dir
  NARUN_LOG       what `start` and `join` tell on standard error: error, warn, info (default), debug, trace
  NO_COLOR        no colour, also on a terminal

Examples:
  narun start                                      begin a cluster of one on this host
  narun join narun1abc...                          make another host a member
  narun deploy --name web --tag v1 ./web           run a program
  narun service list                               what runs where
  narun logs --app web -f                          its output, from all nodes";

/// The whole command line.
#[derive(Parser, Debug)]
#[command(name = "narun", version, about = ABOUT, after_long_help = AFTER_LONG_HELP, propagate_version = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Start(start::Start),
    Join(start::Join),
    Stop(stop::Stop),
    Leave(remove::Leave),
    /// Make, list and revoke what lets new members in
    #[command(subcommand)]
    Ticket(ticket::Ticket),
    /// The members of the cluster
    #[command(subcommand)]
    Node(node::Node),
    Status(status::Status),
    Why(why::Why),
    Deploy(Box<deploy::Deploy>),
    /// Services and cron specs: what runs where, and changing it
    #[command(subcommand)]
    Service(service::Service),
    /// Cron specs: due times, runs, and what became of them
    #[command(subcommand)]
    Cron(cron::Cron),
    /// What the nodes agree on: leases and runs of cron specs
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    #[command(name = "list-images")]
    ListImages(image::List),
    /// The binaries of kept revisions
    #[command(subcommand)]
    Image(image::Image),
    Logs(Box<logs::Logs>),
    /// Check specification files
    #[command(subcommand)]
    Spec(spec::Spec),
    Completion(completion::Completion),
    Man(man::Man),
    /// Candidates for shell completion
    #[command(hide = true)]
    Complete(complete::Complete),
    /// Own processes for a node
    #[command(hide = true)]
    Keeper(keeper::Keeper),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut output = Output::standard();
    let done = match parse(std::env::args_os()) {
        Ok(cli) => {
            output.json = cli.reach.wants_json();
            cli.run(&mut output)
        }
        Err(failure) => Err(failure),
    };
    let done = done.and_then(|()| output.flush());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Reads a command line. Help and versions come back as failures that are none.
fn parse(words: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> Result<Cli, Failure> {
    let words: Vec<std::ffi::OsString> = words.into_iter().map(Into::into).collect();
    let wrong = |error: clap::Error| wrong_words(error, &words);
    let matches = Cli::command().try_get_matches_from(&words).map_err(wrong)?;
    let cli = Cli::from_arg_matches(&matches).map_err(wrong)?;
    cli.reach.refuse_broker()?;
    Ok(cli)
}

/// Options of the first predecessor that took one dash there.
const ONE_DASH: [&str; 15] = [
    "config",
    "name",
    "tag",
    "node",
    "replicas",
    "runMode",
    "cronSchedule",
    "jobMaxRetries",
    "jobTimeoutSeconds",
    "nats",
    "timeout",
    "app",
    "instance",
    "follow",
    "raw",
];

fn wrong_words(error: clap::Error, words: &[std::ffi::OsString]) -> Failure {
    if matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidValue | ErrorKind::MissingRequiredArgument)
    {
        let said = |word: &std::ffi::OsString| {
            let name = word.to_str()?.strip_prefix('-')?.split('=').next()?;
            ONE_DASH.contains(&name).then(|| name.to_owned())
        };
        if let Some(name) = words.iter().find_map(said) {
            return match name.as_str() {
                "nats" => reach::no_broker(),
                _ => Failure::usage(format!("unknown option `-{name}`"))
                    .hint(format!("write it with two dashes: `--{name}`")),
            };
        }
    }
    Failure::Clap(error)
}

impl Cli {
    fn run(self, output: &mut Output) -> Result<(), Failure> {
        // These need no asynchronous runtime of the client's kind: the keeper must have one thread, a node has its own.
        match self.command {
            Command::Keeper(keeper) => return keeper.run(&self.reach),
            Command::Start(start) => return start.run(&self.reach),
            Command::Join(join) => return join.run(&self.reach),
            Command::Completion(completion) => return completion.run(output),
            Command::Man(man) => return man.run(output),
            Command::Spec(spec) => return spec.run(output),
            Command::Ledger(ledger) => return ledger.run(&self.reach, output),
            _ => {}
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
        runtime.block_on(self.ask(output))
    }

    /// Runs a command that asks a node.
    async fn ask(self, output: &mut Output) -> Result<(), Failure> {
        let reach = &self.reach;
        match self.command {
            Command::Stop(stop) => stop.run(reach, output).await,
            Command::Leave(leave) => leave.run(reach, output).await,
            Command::Ticket(ticket) => ticket.run(reach, output).await,
            Command::Node(node) => node.run(reach, output).await,
            Command::Status(status) => status.run(reach, output).await,
            Command::Why(why) => why.run(reach, output).await,
            Command::Deploy(deploy) => deploy.run(reach, output).await,
            Command::Service(service) => service.run(reach, output).await,
            Command::Cron(cron) => cron.run(reach, output).await,
            Command::ListImages(list) | Command::Image(image::Image::List(list)) => list.run(reach, output).await,
            Command::Logs(logs) => logs.run(reach, output).await,
            Command::Complete(complete) => complete.run(reach, output).await,
            Command::Keeper(_)
            | Command::Start(_)
            | Command::Join(_)
            | Command::Completion(_)
            | Command::Man(_)
            | Command::Ledger(_)
            | Command::Spec(_) => unreachable!("these were run before"),
        }
    }
}
