//! The sandbox against the real kernel, through the real keeper: what is allowed, and what is refused and how.

mod calls;
mod identity;
mod landlock;
mod walls;

use narun::confinement::{Capabilities, Landlock};
use narun::exec::logs::Stream;
use narun::exec::plan::LaunchPlan;

use crate::host::{self, Host, Node};

/// Tries things and says what came of each.
const PROBE: &str = include_str!("sandbox/probe.py");

/// What the probe is run by: the system's own, which every user can run.
const PYTHON: &str = "/usr/bin/python3";

/// A plan that tries what `words` say.
fn probe(host: &mut Host, service: &str, words: &[&str]) -> LaunchPlan {
    let binary = host.file(service, PROBE);
    let mut plan = host.plan(service, binary);
    plan.interpreter = Some(PYTHON.to_owned());
    plan.args = words.iter().map(|word| (*word).to_owned()).collect();
    plan
}

/// Runs a probe and gives what it says, a line for each thing that it tried.
async fn tried(host: &Host, node: &mut Node, plan: &LaunchPlan) -> Vec<String> {
    let ended = node.run(plan).await;
    let said = host.text(plan, Stream::Stdout);
    assert_eq!(ended, (Some(0), None), "{said:?} {:?}", host.text(plan, Stream::Stderr));
    said
}

/// Runs a probe that tries these things, each with what must come of it.
async fn expect(host: &Host, node: &mut Node, mut plan: LaunchPlan, expected: &[(&str, &str)]) {
    plan.args = expected.iter().map(|(word, _)| (*word).to_owned()).collect();
    let said = tried(host, node, &plan).await;
    let lines: Vec<String> = expected.iter().map(|(word, outcome)| format!("{word} {outcome}")).collect();
    assert_eq!(said, lines);
}

fn capabilities(names: &[&str]) -> Option<Capabilities> {
    let sets = names.iter().map(|name| Capabilities::named(name).expect("a capability"));
    Some(sets.fold(Capabilities::default(), Capabilities::and))
}

/// The version of the kernel's Landlock; none without it.
pub(crate) fn landlock_abi() -> Option<u32> {
    // SAFETY: only asks for the version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Rules that allow a dynamic program to begin, and nothing else.
fn begins() -> Landlock {
    Landlock { groups: vec![narun::confinement::Group::Shared], ..Landlock::default() }
}

/// All tests of these files again, as a user who may write to no control group.
#[test]
fn all_of_this_holds_for_an_unprivileged_user() {
    host::again_unprivileged("sandbox::", "sandbox::landlock::files_and_directories_are_opened_by_their_modes");
}
