//! Tests that cannot run here. Shared by the library's own tests and those in `tests/real`.

use std::io::Write;

/// `scripts/test.sh` names a file here, and shows at the end what was written into it.
const SKIPS_VARIABLE: &str = "NARUN_TEST_SKIPS";

/// Says that the calling test does not run here, past the test harness, which shows only what failing tests print. In CI it fails
/// instead: there, everything has to be there.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
    // The harness names the thread of each test after it.
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(SKIPS_VARIABLE) {
        let file = std::fs::File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of skipped tests can be written");
    }
}
