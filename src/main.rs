//! The `narun` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    narun::cli::main()
}
