//! A bar for what takes longer than a second, on a terminal only. A shell.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done sooner needs no bar.
const SHOW_AFTER: Duration = Duration::from_secs(1);

/// How often the bar is drawn.
const DRAWS_PER_SECOND: u8 = 10;

/// The progress of one upload.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// An upload of `len` bytes that is known to the user as `name`.
    pub(crate) fn new(name: &str, len: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::hidden());
        let form = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(name.to_owned());
        Self { bar }
    }

    /// So many bytes more were sent.
    pub(crate) fn sent(&self, bytes: usize) {
        if self.bar.is_hidden() && self.bar.elapsed() > SHOW_AFTER && io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        }
        self.bar.inc(bytes as u64);
    }

    /// Takes the bar away.
    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
