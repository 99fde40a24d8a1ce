//! What each step adds to a start. A measurement, run by hand, alone:
//! `cargo test --lib sandbox::speed -- --ignored --nocapture --test-threads=1`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe};

use super::landlock::{Asked, restrict};
use super::{capabilities, cgroupfs, seccomp, work_dir};
use crate::confinement::{Capabilities, Enforced, Group, Landlock, Modes, PathRule};

const ROUNDS: usize = 200;

const STEPS: [&str; 6] = [
    "fork",
    "read-only groups",
    "working directory",
    "capabilities",
    "Landlock, ten rules and `shared`",
    "filter of calls",
];

/// Takes the steps in a child; how long each took there, and all of it with the child's end.
fn round(work: &Path, closed: BorrowedFd<'_>) -> ([Duration; STEPS.len()], Duration) {
    let (read, write) = pipe().unwrap();
    let filter = seccomp::Filter::of(Capabilities::default());
    let begun = Instant::now();
    // SAFETY: run alone, this process has no other thread that does anything.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let mut times = Vec::new();
            let mut last = begun;
            let mut lap = || {
                let now = Instant::now();
                times.push(now - std::mem::replace(&mut last, now));
            };
            lap();
            cgroupfs::enter(closed).unwrap();
            lap();
            work_dir::enter(work, None).unwrap();
            lap();
            let kept = capabilities::to_keep(None, true, capabilities::own().unwrap()).0;
            capabilities::keep_only(kept).unwrap();
            lap();
            prctl::set_no_new_privs().unwrap();
            let paths =
                ["/usr/share", "/usr/bin", "/usr/sbin", "/opt", "/srv", "/mnt", "/media", "/home", "/tmp", "/var"];
            let rule = |path: &str| PathRule { path: path.to_owned(), modes: Modes::of_letters("r") };
            let landlock =
                Landlock { groups: vec![Group::Shared], paths: paths.map(rule).into(), ..Landlock::default() };
            let binary = File::open("/bin/true").unwrap();
            let asked = Asked {
                landlock: &landlock,
                is_strict: false,
                is_best_effort: true,
                work_dir: work,
                binary: std::os::fd::AsFd::as_fd(&binary),
                interpreters: &[],
                may_wait: true,
            };
            restrict(&asked, &mut Enforced::default()).unwrap();
            lap();
            filter.install().unwrap();
            lap();
            let nanos: Vec<u8> = times.iter().flat_map(|time| (time.as_nanos() as u64).to_ne_bytes()).collect();
            File::from(write).write_all(&nanos).unwrap();
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut nanos = Vec::new();
            File::from(read).read_to_end(&mut nanos).unwrap();
            waitpid(child, None).unwrap();
            let whole = begun.elapsed();
            let mut times =
                nanos.chunks_exact(8).map(|part| Duration::from_nanos(u64::from_ne_bytes(part.try_into().unwrap())));
            (std::array::from_fn(|_| times.next().unwrap()), whole)
        }
    }
}

#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "its figures are its result")]
fn what_the_steps_cost() {
    let dir = tempfile::tempdir().unwrap();
    // The thread of a test shares its root with the others, and may not enter a mount namespace then.
    unshare(CloneFlags::CLONE_FS).unwrap();
    let mut closed = cgroupfs::Closed::default();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round(dir.path(), closed.namespace().unwrap())).collect();
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    for (at, step) in STEPS.iter().enumerate() {
        println!("{step}: {:?}", middle(rounds.iter().map(|(times, _)| times[at]).collect()));
    }
    println!("from the fork to the end: {:?}", middle(rounds.iter().map(|(_, whole)| *whole).collect()));
}
