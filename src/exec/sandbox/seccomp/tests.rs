use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, c_long};

use super::*;
use crate::exec::sandbox::capabilities::DEFAULT_OF_ROOT;

/// What a filter sees, as words.
fn seen(architecture: u32, call: u32, args: [u64; 6]) -> Vec<u32> {
    let mut words = vec![call, architecture, 0, 0];
    words.extend(args.iter().flat_map(|arg| [(arg & u64::from(u32::MAX)) as u32, (arg >> 32) as u32]));
    words
}

/// Runs a filter as the kernel does; what it answers.
fn run(program: &[sock_filter], words: &[u32]) -> u32 {
    let (mut at, mut loaded) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |is: bool| usize::from(if is { jt } else { jf });
        match u32::from(code) {
            code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => loaded = words[k as usize / 4],
            code if code == libc::BPF_JMP | libc::BPF_JEQ => at += jump(loaded == k),
            code if code == libc::BPF_JMP | libc::BPF_JGE => at += jump(loaded >= k),
            code if code == libc::BPF_JMP | libc::BPF_JGT => at += jump(loaded > k),
            code if code == libc::BPF_JMP | libc::BPF_JSET => at += jump(loaded & k != 0),
            code if code == libc::BPF_RET => return k,
            other => panic!("no filter of ours has the instruction {other:#x}"),
        }
    }
}

const MACHINE: u32 = 0xc000_003e;

fn answer(kept: &[&str], call: c_long, args: [u64; 6]) -> u32 {
    let kept =
        kept.iter().filter_map(|name| Capabilities::named(name)).fold(Capabilities::default(), Capabilities::and);
    run(&program(MACHINE, kept), &seen(MACHINE, call as u32, args))
}

const NO: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const YES: u32 = SECCOMP_RET_ALLOW;

#[test]
fn every_rule_names_a_capability_that_lifts_it() {
    for rule in table::RULES {
        assert!(Capabilities::named(rule.lifted_by).is_some(), "{rule:?}");
        assert!(rule.is_lifted_by(Capabilities::ALL) && !rule.is_lifted_by(Capabilities::default()), "{rule:?}");
    }
    let default = DEFAULT_OF_ROOT.iter().filter_map(|name| Capabilities::named(name));
    let default = default.fold(Capabilities::default(), Capabilities::and);
    assert!(table::RULES.iter().all(|rule| !rule.is_lifted_by(default)), "root's default lifts nothing");
}

#[test]
fn every_call_without_a_condition_is_refused_whatever_its_arguments() {
    for rule in table::RULES.iter().filter(|rule| matches!(rule.when, table::When::Always)) {
        for args in [[0; 6], [u64::MAX; 6]] {
            let refused = SECCOMP_RET_ERRNO | rule.errno.unsigned_abs();
            assert_eq!(answer(&[], rule.call.into(), args), refused, "{rule:?}");
            assert_eq!(answer(&[rule.lifted_by], rule.call.into(), args), YES, "{rule:?}");
        }
    }
}

/// What the rules say by themselves.
fn ruled(kept: Capabilities, call: u32, args: [u64; 6]) -> u32 {
    let applies = |when: table::When| {
        let low = |place: u8| (args[usize::from(place)] & u64::from(u32::MAX)) as u32;
        match when {
            table::When::Always => true,
            table::When::Bits(place, bits) => low(place) & bits != 0,
            table::When::Is(place, value) => low(place) == value,
            table::When::IsNeither(place, values) => !values.contains(&low(place)),
        }
    };
    let mut rules = table::RULES.iter().filter(|rule| rule.call == call && !rule.is_lifted_by(kept));
    rules.find(|rule| applies(rule.when)).map_or(YES, |rule| SECCOMP_RET_ERRNO | rule.errno.unsigned_abs())
}

#[test]
fn the_filter_says_of_every_call_what_the_rules_say() {
    /// More than any kernel has.
    const CALLS_MAX: u32 = 1024;
    let values = table::RULES.iter().flat_map(|rule| match rule.when {
        table::When::Always => vec![],
        table::When::Bits(_, bits) => vec![bits, !bits, bits & bits.wrapping_neg()],
        table::When::Is(_, value) => vec![value, value + 1],
        table::When::IsNeither(_, values) => values.to_vec(),
    });
    let values: Vec<u64> = values.map(u64::from).chain([0, 1, u64::MAX]).collect();
    let kept = ["SYS_ADMIN", "BPF", "SYS_PTRACE", "SYS_TIME"].map(|name| Capabilities::named(name).unwrap());
    for kept in kept.into_iter().chain([Capabilities::default(), Capabilities::ALL]) {
        let filter = program(MACHINE, kept);
        for call in 0..CALLS_MAX {
            for value in &values {
                let args = [*value; 6];
                let (said, expected) = (run(&filter, &seen(MACHINE, call, args)), ruled(kept, call, args));
                assert_eq!(said, expected, "call {call} with {value:#x}");
            }
        }
    }
}

#[test]
fn the_filter_is_short() {
    // Each instruction costs every start; and a jump passes over 255 at most.
    let len = program(MACHINE, Capabilities::default()).len();
    assert!(len <= 128, "{len}");
}

#[test]
fn threads_and_processes_may_be_made_and_namespaces_may_not() {
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let fork = libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD;
    for flags in [thread, fork, libc::SIGCHLD | libc::CLONE_VFORK | libc::CLONE_VM | libc::CLONE_PIDFD] {
        assert_eq!(answer(&[], libc::SYS_clone, [flags.cast_unsigned().into(), 0, 0, 0, 0, 0]), YES, "{flags:#x}");
    }
    for kind in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET, libc::CLONE_NEWUTS] {
        // The kernel passes over the high half.
        for high in [0, 0xffff_ffff_0000_0000] {
            let flags = u64::from(kind.cast_unsigned()) | high;
            assert_eq!(answer(&[], libc::SYS_clone, [flags | 17, 0, 0, 0, 0, 0]), NO, "{kind:#x}");
            assert_eq!(answer(&[], libc::SYS_unshare, [flags, 0, 0, 0, 0, 0]), NO, "{kind:#x}");
            assert_eq!(answer(&["SYS_ADMIN"], libc::SYS_unshare, [flags, 0, 0, 0, 0, 0]), YES);
        }
    }
    let files = libc::CLONE_FILES | libc::CLONE_FS;
    assert_eq!(answer(&[], libc::SYS_unshare, [files.cast_unsigned().into(), 0, 0, 0, 0, 0]), YES);
    assert_eq!(answer(&[], libc::SYS_clone3, [0; 6]), UNKNOWN);
}

#[test]
fn a_terminals_input_cannot_be_written_whatever_the_high_half_says() {
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        for high in [0, 0xffff_ffff_0000_0000] {
            assert_eq!(answer(&[], libc::SYS_ioctl, [0, request | high, 0, 0, 0, 0]), NO);
        }
    }
    for request in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONBIO] {
        assert_eq!(answer(&[], libc::SYS_ioctl, [libc::TIOCSTI, request, libc::TIOCSTI, 0, 0, 0]), YES);
    }
}

#[test]
fn a_personality_may_be_asked_for_and_not_changed() {
    for (personality, expected) in [(0, YES), (0xffff_ffff, YES), (u64::MAX, YES), (0x004_0000, NO), (8, NO)] {
        assert_eq!(answer(&[], libc::SYS_personality, [personality, 0, 0, 0, 0, 0]), expected, "{personality:#x}");
    }
}

#[test]
fn usual_calls_pass_and_those_of_other_machines_do_not() {
    for call in
        [libc::SYS_read, libc::SYS_execve, libc::SYS_execveat, libc::SYS_openat, libc::SYS_futex, libc::SYS_bind]
    {
        assert_eq!(answer(&[], call, [u64::MAX; 6]), YES);
    }
    let filter = program(MACHINE, Capabilities::ALL);
    // The i386 numbers: 102 is socketcall there and getuid here.
    assert_eq!(run(&filter, &seen(0x4000_0003, 102, [0; 6])), SECCOMP_RET_KILL_PROCESS);
    if table::FOREIGN_CALLS.is_some() {
        assert_eq!(run(&filter, &seen(MACHINE, 0x4000_0000 + 1, [0; 6])), UNKNOWN);
    }
}
