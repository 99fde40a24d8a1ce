//! `narun completion`: what a shell needs to complete narun's words. Pure.
//!
//! The scripts are short: they ask `narun complete`, which knows the commands of this very binary and the names of the running
//! cluster. So one script serves every version.

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::output::Output;

/// Print a completion script; names of services, nodes and instances are completed live
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  narun completion bash > /etc/bash_completion.d/narun
  narun completion zsh > \"${fpath[1]}/_narun\"
  narun completion fish > ~/.config/fish/completions/narun.fish
  narun completion powershell >> $PROFILE")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

impl Completion {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        output.text(self.shell.script())
    }
}

impl Shell {
    fn script(self) -> &'static str {
        match self {
            Self::Bash => BASH,
            Self::Zsh => ZSH,
            Self::Fish => FISH,
            Self::Powershell => POWERSHELL,
        }
    }
}

/// Without a candidate, bash completes file names by itself (`-o default`).
const BASH: &str = r#"_narun() {
    local IFS=$'\n'
    COMPREPLY=($(narun complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _narun narun
"#;

const ZSH: &str = r#"#compdef narun
_narun() {
    local -a found
    found=("${(@f)$(narun complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
if [[ $funcstack[1] == _narun ]]; then
    _narun "$@"
else
    compdef _narun narun
fi
"#;

const FISH: &str = r#"complete -c narun -a '(narun complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"#;

const POWERSHELL: &str = r#"Register-ArgumentCompleter -Native -CommandName narun -ScriptBlock {
    param($word, $line, $cursor)
    $words = @($line.CommandElements | Select-Object -Skip 1 | Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { "$_" })
    narun complete -- @words "$word" 2>$null | ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
}
"#;
