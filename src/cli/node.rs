//! `narun node`: the members, their labels, and bringing them back from a drain. Wiring; its texts are in `node_text`, draining is
//! in `drain`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use clap::{Args, Subcommand};

use crate::api::wire::Label as LabelRequest;

use super::drain::Drain;
use super::failure::Failure;
use super::node_text as text;
use super::output::Output;
use super::reach::Reach;
use super::remove::Remove;

#[derive(Subcommand, Debug)]
pub(crate) enum Node {
    List(List),
    Info(Info),
    Label(Label),
    Drain(Drain),
    Uncordon(Uncordon),
    Remove(Remove),
}

/// List all members and what the answering node thinks of them
///
/// Columns: NAME STATUS PLATFORM VERSION INSTANCES LABELS AGE. Statuses: alive, suspect (did not answer a probe), down,
/// unknown (not heard of since the answering node started); then draining or drained, where that was asked for. JSON keys: those,
/// with age in seconds and the status alone, and key, is_me, addresses, since, joined_at, started_at, role, capacity (cores,
/// memory_bytes, kernel, landlock_abi, cgroup, cgroup_controllers, is_root), drain (state, since, asked_at, left).
#[derive(Args, Debug)]
#[command(
    after_long_help = "Example:\n  narun node list\n  narun node list -o json | jq '.[] | select(.capacity.cores >= 8)'"
)]
pub(crate) struct List {}

/// Show one member: what it is, what its host offers, and how far it is drained
///
/// JSON keys: those of `node list`.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun node info n1")]
pub(crate) struct Info {
    /// The node's name
    node: String,
}

/// Set and remove labels of a member, over those of its --label at start
///
/// Prints the labels that it has then. Asked at any node, also of a member that is down: it has them when it is back. Services
/// whose `constraints` name labels move where they are met. JSON keys: node, labels, changed.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun node label n1 zone=a disk=ssd\n  narun node label n1 disk-")]
pub(crate) struct Label {
    /// The node's name
    node: String,
    /// `KEY=VALUE` sets a label, `KEY-` removes it
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    labels: Vec<String>,
}

/// Bring a drained member back: it gets instances again, and starts what is bound to it
///
/// What was moved away stays where it is. JSON keys: node, changed.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun node uncordon n1")]
pub(crate) struct Uncordon {
    /// The node's name
    node: String,
}

impl Node {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::List(List {}) => {
                let nodes = reach.client()?.nodes().await?;
                let now = Utc::now();
                let rows: Vec<_> = nodes.iter().map(|node| text::Row::new(node, now)).collect();
                output.answer(&rows, || text::list_text(&nodes, now))
            }
            Self::Info(Info { node }) => {
                let node = reach.client()?.node(&node).await?;
                let now = Utc::now();
                output.answer(&text::Row::new(&node, now), || text::info_text(&node, now))
            }
            Self::Label(label) => label.run(reach, output).await,
            Self::Drain(drain) => drain.run(reach, output).await,
            Self::Uncordon(Uncordon { node }) => {
                let set = reach.client()?.uncordon_node(&node).await?;
                output.answer(&set, || match set.changed {
                    true => format!("node `{node}` is back\n"),
                    false => format!("node `{node}` was not drained\n"),
                })
            }
            Self::Remove(remove) => remove.run(reach, output).await,
        }
    }
}

impl Label {
    async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let request = label_request(&self.labels)?;
        let labelled = reach.client()?.label_node(&self.node, &request).await?;
        output.answer(&labelled, || format!("{}\n", text::labels(&labelled.labels)))
    }
}

fn label_request(words: &[String]) -> Result<LabelRequest, Failure> {
    let mut set = BTreeMap::new();
    let mut remove = BTreeSet::new();
    for word in words {
        let (key, given_before) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => (key, set.insert(key.to_owned(), value.to_owned()).is_some()),
            (None, Some(key)) if !key.is_empty() => (key, !remove.insert(key.to_owned())),
            _ => {
                let message = format!("`{word}` is no label; write KEY=VALUE to set one, KEY- to remove it");
                return Err(Failure::usage(message));
            }
        };
        if given_before {
            return Err(Failure::usage(format!("the label `{key}` was given twice")));
        }
    }
    Ok(LabelRequest { set, remove })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<LabelRequest, Failure> {
        label_request(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn labels_are_set_and_removed_in_one_line() {
        let LabelRequest { set, remove } = request("zone=a disk- note=a-").unwrap();
        assert_eq!(set, BTreeMap::from([("zone".into(), "a".into()), ("note".into(), "a-".into())]));
        assert_eq!(remove, BTreeSet::from(["disk".into()]));
        assert_eq!(request("rack=").unwrap().set["rack"], "");
        for wrong in ["zone", "=a", "-", "a=b a=c", "a- a-"] {
            assert_eq!(request(wrong).unwrap_err().code(), 2, "{wrong}");
        }
    }
}
