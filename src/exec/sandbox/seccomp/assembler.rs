//! A filter's program out of its rules: the kernel's classic BPF (Documentation/userspace-api/seccomp_filter.rst,
//! Documentation/networking/filter.rst). Pure.
//!
//! The filter is installed at every start, and its size is what that costs: the kernel checks, translates and compiles each instruction, and
//! then runs the filter once for each number of a call, to remember which pass whatever their arguments. So the calls stand in a search
//! tree; neighbours that are refused alike stand there as one; and each answer stands once, at the end, where all jumps lead.

use std::collections::BTreeMap;
use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, seccomp_data, sock_filter,
};

use super::table::{Rule, When};

/// A filter for programs of `architecture`, which refuses what the rules say, and nothing else. A call of another
/// architecture's, whose numbers mean other things, kills; one with a number from `foreign` on is unknown.
pub(super) fn assemble<'a>(
    architecture: u32,
    foreign: Option<u32>,
    rules: impl Iterator<Item = &'a Rule>,
) -> Vec<sock_filter> {
    let mut steps = vec![
        Step::Load(offset_of!(seccomp_data, arch)),
        Step::Jump(BPF_JEQ, architecture, NEXT, To::Answer(SECCOMP_RET_KILL_PROCESS)),
        Step::Load(offset_of!(seccomp_data, nr)),
    ];
    if let Some(first) = foreign {
        steps.push(Step::Jump(BPF_JGE, first, refusal(libc::ENOSYS), NEXT));
    }
    let mut calls = BTreeMap::<u32, Vec<&Rule>>::new();
    for rule in rules {
        calls.entry(rule.call).or_default().push(rule);
    }
    steps.extend(search(&alike(calls)));
    link(&steps)
}

/// An instruction whose jumps are not counted yet.
#[derive(Clone, Copy)]
enum Step {
    Load(usize),
    /// By this test against that value: where to if it holds, and if not.
    Jump(u32, u32, To, To),
}

/// Where a jump leads.
#[derive(Clone, Copy)]
enum To {
    /// So many steps on.
    Past(usize),
    /// To an answer.
    Answer(u32),
}

const NEXT: To = To::Past(0);
const ALLOW: To = To::Answer(SECCOMP_RET_ALLOW);

fn refusal(errno: i32) -> To {
    To::Answer(SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

/// Neighbouring calls under the same rules.
struct Calls<'a> {
    first: u32,
    last: u32,
    rules: Vec<&'a Rule>,
}

/// Brings neighbours together that are refused alike, whatever their arguments.
fn alike(calls: BTreeMap<u32, Vec<&Rule>>) -> Vec<Calls<'_>> {
    fn always(rules: &[&Rule]) -> Option<i32> {
        matches!(rules, [Rule { when: When::Always, .. }]).then(|| rules[0].errno)
    }
    let mut all: Vec<Calls<'_>> = Vec::new();
    for (call, rules) in calls {
        match all.last_mut() {
            Some(before)
                if before.last + 1 == call
                    && always(&rules).is_some_and(|errno| always(&before.rules) == Some(errno)) =>
            {
                before.last = call;
            }
            _ => all.push(Calls { first: call, last: call, rules }),
        }
    }
    all
}

/// Finds the call among these, which are in order, and answers.
fn search(calls: &[Calls<'_>]) -> Vec<Step> {
    match calls {
        [] => vec![Step::Jump(BPF_JGE, 0, ALLOW, ALLOW)],
        [calls] => judge(calls),
        _ => {
            let (less, others) = calls.split_at(calls.len() / 2);
            let (less, others_steps) = (search(less), search(others));
            let mut steps = vec![Step::Jump(BPF_JGE, others[0].first, To::Past(less.len()), NEXT)];
            steps.extend(less);
            steps.extend(others_steps);
            steps
        }
    }
}

/// Answers, by the rules if it is one of these calls.
fn judge(calls: &Calls<'_>) -> Vec<Step> {
    let (then, answers) = match calls.rules[..] {
        [Rule { when: When::Always, errno, .. }] => (refusal(*errno), Vec::new()),
        ref rules => (NEXT, answer_by(rules)),
    };
    let mut steps = if calls.first == calls.last {
        vec![Step::Jump(BPF_JEQ, calls.first, then, ALLOW)]
    } else {
        vec![Step::Jump(BPF_JGE, calls.first, NEXT, ALLOW), Step::Jump(BPF_JGT, calls.last, ALLOW, then)]
    };
    steps.extend(answers);
    steps
}

/// Refuses by the first of the rules that applies, and allows what none of them refuses.
fn answer_by(rules: &[&Rule]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let (refusal, otherwise) = (refusal(rule.errno), if at + 1 == rules.len() { ALLOW } else { NEXT });
        match rule.when {
            When::Always => steps.push(Step::Jump(BPF_JGE, 0, refusal, refusal)),
            When::Bits(place, bits) => {
                steps.extend([argument(place), Step::Jump(BPF_JSET, bits, refusal, otherwise)]);
            }
            When::Is(place, value) => steps.extend([argument(place), Step::Jump(BPF_JEQ, value, refusal, otherwise)]),
            When::IsNeither(place, [one, other]) => {
                let past_the_second = match otherwise {
                    To::Past(steps) => To::Past(steps + 1),
                    answer @ To::Answer(_) => answer,
                };
                steps.extend([
                    argument(place),
                    Step::Jump(BPF_JEQ, one, past_the_second, NEXT),
                    Step::Jump(BPF_JEQ, other, otherwise, refusal),
                ]);
            }
        }
    }
    steps
}

/// Loads the low half of the argument at this place.
fn argument(place: u8) -> Step {
    Step::Load(offset_of!(seccomp_data, args) + usize::from(place) * size_of::<u64>() + LOW_HALF)
}

/// Where an argument's low half is in it.
const LOW_HALF: usize = if cfg!(target_endian = "little") { 0 } else { 4 };

/// Counts the jumps, and puts the answers behind the last step.
fn link(steps: &[Step]) -> Vec<sock_filter> {
    let mut answers = Vec::new();
    let mut distance = |from: usize, to: To| match to {
        To::Past(steps) => length(steps),
        To::Answer(answer) => {
            let at = answers.iter().position(|known| *known == answer).unwrap_or_else(|| {
                answers.push(answer);
                answers.len() - 1
            });
            length(steps.len() + at - from - 1)
        }
    };
    let mut program: Vec<_> = steps
        .iter()
        .enumerate()
        .map(|(at, step)| match *step {
            Step::Load(offset) => {
                let offset = u32::try_from(offset).expect("what a filter sees has 64 bytes");
                instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
            }
            Step::Jump(test, value, then, otherwise) => {
                instruction(BPF_JMP | test | BPF_K, value, distance(at, then), distance(at, otherwise))
            }
        })
        .collect();
    program.extend(answers.into_iter().map(|answer| instruction(BPF_RET | BPF_K, answer, 0, 0)));
    program
}

/// How far a jump goes.
fn length(steps: usize) -> u8 {
    u8::try_from(steps).expect("all rules together have fewer instructions than a jump can pass over; a test says so")
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("instructions have 16 bits"), jt, jf, k }
}
