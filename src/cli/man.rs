//! `narun man`: the manual, made from the same words as `--help`. Wiring.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::Cli;
use super::failure::Failure;
use super::output::Output;

/// Print a manual page, or write all of them into a folder
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  narun man | man -l -
  narun man service list | man -l -
  narun man --dir /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The command, such as `service list`; without one: narun itself
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "words")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        if let Some(dir) = &self.dir {
            let failed = |error| Failure::failed(format!("cannot write manual pages into {}: {error}", dir.display()));
            std::fs::create_dir_all(dir).map_err(failed)?;
            return clap_mangen::generate_to(root, dir).map_err(failed);
        }
        let mut command = &root;
        for word in &self.words {
            command = command.find_subcommand(word).ok_or_else(|| {
                Failure::usage(format!("no command `{}`", self.words.join(" ")))
                    .hint("`narun --help` lists all commands")
            })?;
        }
        let mut page = Vec::new();
        Page::new(command.clone())
            .render(&mut page)
            .map_err(|error| Failure::failed(format!("cannot make the manual page: {error}")))?;
        output.text(page)
    }
}
