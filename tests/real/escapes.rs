//! The corpus of escapes and abuses in `tests/escapes` (its README says what a case is), each run by a keeper as root and as an
//! ordinary user, and without any sandbox as a control.

mod case;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host;
use crate::skip::skip;
use case::{As, Case, Need, Outcome};
use world::World;

/// Names a folder with the compiled cases, where there is no compiler.
const BUILT_VARIABLE: &str = "NARUN_TEST_ESCAPES";

/// Fewest cases that must have been refused, so that a corpus which is skipped for some reason does not pass.
const HELD_MIN: usize = 60;

#[tokio::test]
async fn no_case_gets_out_as_root() {
    if !host::is_root() {
        return skip("no_case_gets_out_as_root", "needs root");
    }
    let Some(built) = built() else { return };
    let held = run_all(&built.path, As::Root).await;
    assert!(held >= HELD_MIN, "only {held} cases were refused, wanted {HELD_MIN}");
}

/// The part of the test below that runs as the ordinary user.
#[tokio::test]
async fn no_case_gets_out_of_an_ordinary_users_node() {
    if host::is_unprivileged() {
        let built = PathBuf::from(std::env::var_os(BUILT_VARIABLE).expect("the compiled cases"));
        run_all(&built, As::User).await;
    }
}

#[test]
fn no_case_gets_out_as_an_ordinary_user() {
    const NAME: &str = "no_case_gets_out_as_an_ordinary_user";
    if host::is_unprivileged() {
        return;
    }
    if !host::is_root() {
        return skip(NAME, "only root can become another user");
    }
    let Some(built) = built() else { return };
    let inner = "escapes::no_case_gets_out_of_an_ordinary_users_node";
    let Some(mut again) = host::again_as_nobody(inner, None) else {
        return skip(NAME, "unprivileged user namespaces, setpriv or unshare are not to be had here");
    };
    let output = again.command.arg("--nocapture").env(BUILT_VARIABLE, &built.path).output().expect("setpriv starts");
    let text = String::from_utf8_lossy(&output.stdout);
    eprint!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("test {inner} ... ")), "{text}");
}

/// Runs every case that is meant for this user. Gives how many were refused.
async fn run_all(built: &Path, who: As) -> usize {
    let mut world = World::new(built).await;
    let (mut held, mut weak, mut wrong) = (BTreeMap::<String, usize>::new(), Vec::new(), Vec::new());
    for case in Case::all().into_iter().filter(|case| case.is_for(who)) {
        if let Some(complaint) = world.control(&case, who) {
            wrong.push(format!("{}: {complaint}", case.name));
            continue;
        }
        if !world.has(case.needs) {
            weak.push(format!("{}: not enforced here, it needs {}", case.name, case.needs));
            if let (Need::Landlock(_), Some(complaint)) = (case.needs, world.strict_starts(&case).await) {
                wrong.push(format!("{}: {complaint}", case.name));
            }
            continue;
        }
        match world.attempt(&case).await {
            Outcome::Held => *held.entry(case.refused_by.clone()).or_default() += 1,
            Outcome::NotHere(why) => weak.push(format!("{}: {why}", case.name)),
            Outcome::Out(how) => wrong.push(format!("{}: GOT OUT: {how}", case.name)),
            Outcome::Broken(how) => wrong.push(format!("{}: broken: {how}", case.name)),
        }
    }
    let total = held.values().sum();
    eprintln!("{total} cases refused as {who}: {held:?}");
    for line in &weak {
        eprintln!("  {line}");
    }
    assert!(wrong.is_empty(), "{} of the cases:\n{}", wrong.len(), wrong.join("\n"));
    total
}

/// The compiled cases.
struct Built {
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

fn built() -> Option<Built> {
    if let Some(path) = std::env::var_os(BUILT_VARIABLE) {
        return Some(Built { path: path.into(), _dir: None });
    }
    if !Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success()) {
        skip("escapes", "there is no C compiler `cc`");
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let output = Command::new(case::folder().join("build.sh")).arg(dir.path()).output().expect("build.sh starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(Built { path: dir.path().to_owned(), _dir: Some(dir) })
}
