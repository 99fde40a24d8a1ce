//! The `narun` program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use narun::exec::keeper::{self, Options};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == "keeper") {
        return keeper(args);
    }
    ExitCode::from(2)
}

/// The hidden command `narun keeper --data-dir DIR [--orphan-grace-ms N]`.
fn keeper(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (mut data_dir, mut options) = (None, Options::default());
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        match name.to_str() {
            Some("--data-dir") => data_dir = Some(PathBuf::from(value)),
            Some("--orphan-grace-ms") => match value.to_str().and_then(|value| value.parse().ok()) {
                Some(millis) => options.orphan_grace = Duration::from_millis(millis),
                None => return ExitCode::from(2),
            },
            _ => return ExitCode::from(2),
        }
    }
    let Some(data_dir) = data_dir else { return ExitCode::from(2) };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match keeper::run(&data_dir, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
