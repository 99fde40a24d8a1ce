//! Tests that cannot run here say so loudly.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that a test was not run, and why: on standard error, and in the file that NARUN_TEST_SKIPS names. In CI that is a
/// failure.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {test}: {why}");
    let line = format!("SKIPPED: {test}: {why}\n");
    // Past the capture of the test harness, which would swallow it where all goes well.
    let _ = write!(std::io::stderr(), "\n*** {line}\n");
    if let Some(file) = std::env::var_os("NARUN_TEST_SKIPS") {
        let opened = OpenOptions::new().create(true).append(true).open(&file);
        let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the file of NARUN_TEST_SKIPS can be written");
    }
}
