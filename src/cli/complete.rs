//! Candidates for a word that is being typed. Pure, but for the live names, which a node is asked for.

use std::time::Duration;

use clap::{Arg, ArgAction, Args, Command, CommandFactory};

use crate::api::client::Client;

use super::Cli;
use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;

/// A person waits with the finger on the key: a node that is slower is not asked.
const NAMES_WITHIN: Duration = Duration::from_millis(500);

/// Asked by the scripts of `narun completion`.
#[derive(Args, Debug)]
pub(crate) struct Complete {
    /// The words after `narun`, the last one unfinished
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Names that only a node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    Services,
    /// Services that are cron specs.
    Crons,
    Nodes,
    Instances,
    Tickets,
    /// Services, instances and nodes.
    Things,
}

/// What may stand in a word's place.
#[derive(PartialEq, Eq, Debug, Default)]
struct Candidates {
    words: Vec<String>,
    names: Option<Names>,
}

impl Complete {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let mut command = Cli::command();
        command.build();
        let last = self.words.last().map_or("", String::as_str);
        let Candidates { mut words, names } = candidates(&command, &self.words);
        if let Some(names) = names {
            let client = Client::new(reach.client()?.socket(), NAMES_WITHIN);
            // Without a node there are no names, and nothing to complain about while somebody types.
            words.extend(ask(&client, names).await.unwrap_or_default());
        }
        words.retain(|word| word.starts_with(last));
        words.sort();
        words.dedup();
        for word in words {
            output.text(format!("{word}\n"))?;
        }
        Ok(())
    }
}

async fn ask(client: &Client, names: Names) -> Result<Vec<String>, Failure> {
    Ok(match names {
        Names::Services => client.services().await?.into_iter().map(|service| service.service).collect(),
        Names::Crons => {
            let crons = client.services().await?.into_iter().filter(|service| service.revision.mode == "cron");
            crons.map(|cron| cron.service).collect()
        }
        Names::Nodes => client.nodes().await?.into_iter().map(|node| node.name).collect(),
        Names::Tickets => client.tickets().await?.into_iter().map(|ticket| ticket.id).collect(),
        Names::Instances => {
            let services = client.services().await?;
            services.into_iter().flat_map(|service| service.instances).map(|instance| instance.instance).collect()
        }
        Names::Things => {
            let (services, nodes) = (client.services().await?, client.nodes().await?);
            let instances = services.iter().flat_map(|service| &service.instances).map(|one| one.instance.clone());
            let mut things: Vec<String> = instances.chain(nodes.into_iter().map(|node| node.name)).collect();
            things.extend(services.into_iter().map(|service| service.service));
            things
        }
    })
}

/// What may stand in place of the last of `words`; it need not yet fit what was typed of it.
fn candidates(root: &Command, words: &[String]) -> Candidates {
    let Some((last, before)) = words.split_last() else { return candidates(root, &[String::new()]) };
    let mut command = root;
    let mut positionals = 0;
    let mut waiting: Option<&Arg> = None;
    for word in before {
        if waiting.take().is_some() {
            continue;
        }
        if word.len() > 1 && word.starts_with('-') {
            waiting = option(command, word).filter(|arg| takes_value(arg) && !word.contains('='));
        } else if let Some(next) = command.find_subcommand(word).filter(|_| positionals == 0) {
            command = next;
        } else {
            positionals += 1;
        }
    }
    if let Some(arg) = waiting {
        return values(command, arg);
    }
    if last.starts_with('-') {
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let words = options.filter_map(|arg| arg.get_long()).map(|long| format!("--{long}")).collect();
        return Candidates { words, names: None };
    }
    let commands = command.get_subcommands().filter(|next| !next.is_hide_set());
    let words: Vec<_> = commands.map(|next| next.get_name().to_owned()).collect();
    if positionals == 0 && !words.is_empty() {
        return Candidates { words, names: None };
    }
    let positional = command.get_positionals().nth(positionals);
    positional.map(|arg| values(command, arg)).unwrap_or_default()
}

fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    match name.strip_prefix("--") {
        Some(long) => command.get_arguments().find(|arg| arg.get_long() == Some(long)),
        None => command.get_arguments().find(|arg| arg.get_short() == name.chars().nth(1)),
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// What an option or a positional takes, as far as that can be known.
fn values(command: &Command, arg: &Arg) -> Candidates {
    let words: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let names = match (command.get_name(), arg.get_id().as_str()) {
        (_, "service" | "app") => Some(Names::Services),
        (_, "cron") => Some(Names::Crons),
        (_, "node") => Some(Names::Nodes),
        (_, "instance") => Some(Names::Instances),
        ("revoke", "id") => Some(Names::Tickets),
        ("why", "thing") => Some(Names::Things),
        _ => None,
    };
    Candidates { words, names }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Candidates {
        let mut command = Cli::command();
        command.build();
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        candidates(&command, &words)
    }

    #[test]
    fn commands_are_offered_where_one_is_due() {
        let top = at("").words;
        assert!(top.contains(&"deploy".to_owned()) && top.contains(&"service".to_owned()), "{top:?}");
        assert!(!top.contains(&"keeper".to_owned()), "what is hidden is not offered");
        assert!(at("-o json service ").words.contains(&"scale".to_owned()));
        assert_eq!(at("service li"), at("service "));
    }

    #[test]
    fn live_names_are_offered_where_they_belong() {
        for line in ["service info ", "service scale --wait ", "logs --app ", "--timeout 5s service delete -y we"] {
            assert_eq!(at(line).names, Some(Names::Services), "{line}");
        }
        for line in ["cron next ", "cron run --wait ", "cron pause ", "cron resume ni", "cron history -n 5 "] {
            assert_eq!(at(line).names, Some(Names::Crons), "{line}");
        }
        assert_eq!(at("cron run nightly --node ").names, Some(Names::Nodes));
        assert_eq!(at("logs --node ").names, Some(Names::Nodes));
        for line in ["node info ", "node drain -y ", "node uncordon ", "node label "] {
            assert_eq!(at(line).names, Some(Names::Nodes), "{line}");
        }
        assert_eq!(at("node label n1 ").names, None, "a label is due");
        assert_eq!(at("logs --instance ").names, Some(Names::Instances));
        assert_eq!(at("ticket revoke ").names, Some(Names::Tickets));
        assert_eq!(at("why ").names, Some(Names::Things));
        assert_eq!(at("service scale web ").names, None, "a number is due");
    }

    #[test]
    fn options_and_their_values_are_offered() {
        let options = at("deploy --").words;
        assert!(options.contains(&"--cron-schedule".to_owned()) && options.contains(&"--data-dir".to_owned()));
        assert!(!options.contains(&"--nats".to_owned()), "{options:?}");
        assert_eq!(at("-o ").words, ["table", "json"]);
        assert_eq!(at("completion ").words, ["bash", "zsh", "fish", "powershell"]);
        assert_eq!(at("deploy "), Candidates::default(), "the shell offers files");
    }
}
