//! `narun spec`: checking specification files without a node. Wiring.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::spec::{RunMode, ServiceSpec};

use super::failure::Failure;
use super::output::Output;

/// Longest specification that is read from a file: more is a mistake, such as the binary's name in its place. The
/// specification's own limit is smaller and says so by itself.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

#[derive(Subcommand, Debug)]
pub(crate) enum Spec {
    Check(Check),
    Schema(Schema),
}

/// Check a specification file in full, without asking a node
///
/// All mistakes are told at once. What is wrong only on a cluster, such as a node that does not exist, is found by
/// `narun deploy --dry-run`.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun spec check web.yaml")]
pub(crate) struct Check {
    /// The file, YAML or JSON
    file: PathBuf,
}

/// Print the JSON schema of specification files, for editors
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun spec schema > narun.schema.json")]
pub(crate) struct Schema {}

impl Spec {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Check(Check { file }) => {
                let spec = read(&file)?;
                let cron = matches!(spec.mode, RunMode::Cron(_));
                let kind = if cron { "cron spec" } else { "service" };
                let value = json!({ "file": file.display().to_string(), "service": spec.name.as_str(), "mode": kind_word(cron), "tag": spec.tag });
                output.answer(&value, || {
                    format!("{} is a good specification of {kind} `{}`\n", file.display(), spec.name)
                })
            }
            Self::Schema(Schema {}) => output.value(&crate::spec::json_schema()),
        }
    }
}

fn kind_word(cron: bool) -> &'static str {
    if cron { "cron" } else { "service" }
}

/// The specification in a file.
pub(super) fn read(file: &Path) -> Result<ServiceSpec, Failure> {
    let shown = file.display();
    let cannot = |cause: String| Failure::failed(format!("cannot read specification {shown}: {cause}"));
    let found = std::fs::metadata(file).map_err(|error| cannot(error.to_string()))?;
    if found.is_dir() {
        return Err(cannot("it is a directory".to_owned()));
    }
    if found.len() > FILE_LEN_MAX {
        return Err(cannot(format!("it has {} bytes, and is hardly a specification", found.len())));
    }
    let bytes = std::fs::read(file).map_err(|error| cannot(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is no text".to_owned()))?;
    ServiceSpec::parse(&text)
        .map_err(|mistakes| Failure::failed(format!("{shown} is no good specification:\n{}", indented(&mistakes))))
}

/// Mistakes, one a line, below a line that names what they are in.
pub(super) fn indented(mistakes: &crate::spec::Mistakes) -> String {
    mistakes.iter().map(|mistake| format!("  {mistake}")).collect::<Vec<_>>().join("\n")
}
