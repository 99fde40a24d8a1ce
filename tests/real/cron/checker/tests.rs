//! The checker is checked: made-up stamps, each with one thing wrong.

use super::faults::{Fault, Kind};
use super::*;

/// When the plan of these tests is judged.
const FROM: u64 = 1_000;
const TO: u64 = 1_009;

fn plan() -> Plan {
    Plan {
        name: "tick".to_owned(),
        period: 1,
        deadline: 60,
        is_concurrent: true,
        is_everywhere: false,
        attempts: 1,
        is_rerun: false,
        deployed: FROM - 2,
        judged: FROM..=TO,
    }
}

fn stamp(slot: u64) -> Stamp {
    Stamp {
        spec: "tick".to_owned(),
        slot,
        run: format!("run-{slot}-"),
        attempt: 1,
        fence: slot,
        node: "n1".to_owned(),
        start: slot * 1_000 + 5,
        end: Some(slot * 1_000 + 300),
    }
}

fn told(slot: u64, status: &str) -> Told {
    let ended = Some(slot * 1_000 + 310);
    let (node, status) = (Some("n1".to_owned()), status.to_owned());
    Told::Run { id: format!("run-{slot}-"), slot, node, status, ended, why: String::new() }
}

fn gap(first: u64, count: u64, status: &str, why: &str) -> Told {
    Told::Gap { first, count, status: status.to_owned(), why: why.to_owned() }
}

fn series() -> Series {
    Series { name: "tick".to_owned(), node: None }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// All went well.
fn well() -> Evidence {
    let nodes = names(&["n1", "n2", "n3", "n4", "n5"]);
    Evidence {
        plans: vec![plan()],
        stamps: (FROM..=TO).map(stamp).collect(),
        told: BTreeMap::from([(series(), (FROM..=TO).map(|slot| told(slot, "success")).collect())]),
        faults: Faults { nodes: nodes.clone(), all: Vec::new() },
        nodes,
    }
}

impl Evidence {
    fn records(&mut self) -> &mut Vec<Told> {
        self.told.get_mut(&series()).expect("it is told of")
    }

    /// As if a slot had not been run, and this was told instead.
    fn without(mut self, slot: u64, instead: Option<Told>) -> Self {
        self.stamps.retain(|stamp| stamp.slot != slot);
        self.records().retain(|told| !matches!(told, Told::Run { slot: of, .. } if *of == slot));
        self.records().extend(instead);
        self
    }

    fn with_fault(mut self, kind: Kind, from: u64, until: u64) -> Self {
        self.faults.all.push(Fault { kind, from: from * 1_000, until: until * 1_000 });
        self
    }
}

#[track_caller]
fn is_clean(evidence: &Evidence) {
    let verdict = judge(evidence);
    assert!(verdict.is_clean(), "{verdict}");
}

#[derive(PartialEq, Debug)]
enum Complaint {
    Extra,
    Missing,
    Untrue,
}
use Complaint::{Extra, Missing, Untrue};

/// The evidence has this one thing wrong, and the complaint names it.
#[track_caller]
fn is_caught(evidence: &Evidence, kind: Complaint, told: &str) {
    let verdict = judge(evidence);
    let found = [(Extra, &verdict.extra), (Missing, &verdict.missing), (Untrue, &verdict.untrue)];
    for (of, list) in found {
        let wanted = usize::from(of == kind);
        assert_eq!(list.len(), wanted, "{of:?}: {verdict}");
        assert!(wanted == 0 || list[0].contains(told), "`{told}` is not told: {verdict}");
    }
}

fn down(node: &str) -> Kind {
    Kind::Down(node.to_owned())
}

/// A cut that leaves nobody a majority.
fn shattered() -> [Kind; 4] {
    let cut = |from: &[&str], to: &[&str]| Kind::Cut { from: names(from), to: names(to) };
    [
        cut(&["n1", "n2"], &["n3", "n4", "n5"]),
        cut(&["n3", "n4", "n5"], &["n1", "n2"]),
        cut(&["n3", "n4"], &["n5"]),
        cut(&["n5"], &["n3", "n4"]),
    ]
}

#[test]
fn all_slots_run_once_is_well() {
    let verdict = judge(&well());
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.slots, verdict.ran, &verdict.late_in_calm[..]), (10, 10, &[5; 10][..]));
}

#[test]
fn a_second_run_of_a_slot_is_extra() {
    let mut evidence = well();
    evidence.stamps.push(Stamp { run: "other".to_owned(), fence: 5_000, ..stamp(1_009) });
    let verdict = judge(&evidence);
    assert!(verdict.extra.iter().any(|told| told.contains("1009 was run 2 times")), "{verdict}");
}

#[test]
fn a_second_start_of_one_run_is_extra() {
    let mut evidence = well();
    evidence.stamps.push(Stamp { fence: 5_000, start: 1_009_400, ..stamp(1_009) });
    let verdict = judge(&evidence);
    assert!(verdict.extra.iter().any(|told| told.contains("2 attempts, and 1 are allowed")), "{verdict}");
}

#[test]
fn a_run_of_what_was_never_due_is_extra() {
    let mut evidence = well();
    evidence.plans[0].period = 2;
    for odd in (FROM + 1..=TO).step_by(2) {
        evidence = evidence.without(odd, None);
    }
    is_clean(&evidence);
    evidence.stamps.push(Stamp { fence: 5_000, slot: 2_001, start: 2_001_005, end: Some(2_001_300), ..stamp(2_001) });
    is_caught(&evidence, Extra, "2001 was never due");
}

#[test]
fn a_run_from_before_the_deploy_is_extra() {
    let mut evidence = well();
    evidence.stamps.insert(0, stamp(FROM - 10));
    is_caught(&evidence, Extra, "before it was deployed");
}

#[test]
fn a_run_of_something_unknown_is_extra() {
    let mut evidence = well();
    evidence.stamps.push(Stamp { spec: "tock".to_owned(), fence: 5_000, ..stamp(1_003) });
    is_caught(&evidence, Extra, "nobody deployed");
}

#[test]
fn a_run_before_its_time_is_extra() {
    let mut evidence = well();
    evidence.stamps[4].start -= 6;
    is_caught(&evidence, Extra, "before it was due");
}

#[test]
fn a_fence_that_is_given_out_twice_is_extra() {
    let mut evidence = well();
    evidence.plans[0].is_everywhere = true;
    evidence.stamps.clear();
    for (at, node) in evidence.nodes.iter().enumerate() {
        let run = |slot| format!("{node}-{slot}-");
        let stamps = (FROM..=TO).map(|slot| Stamp {
            run: run(slot),
            node: node.clone(),
            fence: slot * 10 + at as u64,
            ..stamp(slot)
        });
        evidence.stamps.extend(stamps);
        let told = (FROM..=TO).map(|slot| Told::Run {
            id: run(slot),
            slot,
            node: Some(node.clone()),
            status: "success".to_owned(),
            ended: None,
            why: String::new(),
        });
        evidence.told.insert(Series { name: "tick".to_owned(), node: Some(node.clone()) }, told.collect());
    }
    is_clean(&evidence);
    // The last slot of n2 under the fence of n1's.
    evidence.stamps[19].fence = evidence.stamps[9].fence;
    is_caught(&evidence, Extra, "was given to");
}

#[test]
fn a_fence_that_is_smaller_than_that_of_an_earlier_slot_is_extra() {
    let mut evidence = well();
    evidence.stamps[9].fence = 7;
    is_caught(&evidence, Extra, "was claimed under fence 7, before 1008");
}

#[test]
fn a_slot_without_a_word_is_missing() {
    is_caught(&well().without(1_004, None), Missing, "neither a run nor a record");
    is_caught(&well().without(TO, None), Missing, "1009");
    is_caught(&well().without(FROM, None), Missing, "1000");
}

#[test]
fn a_missed_slot_is_missing_where_nothing_was_wrong() {
    let missed = || Some(gap(1_004, 1, "missed", "no majority"));
    is_caught(&well().without(1_004, missed()), Missing, "nothing was wrong");
    // One node of five is no reason: there was a majority for almost all of the minute.
    let evidence = well().without(1_004, missed()).with_fault(down("n2"), 1_003, 1_010);
    is_caught(&evidence, Missing, "there was a majority");
}

#[test]
fn a_missed_slot_is_none_where_there_was_no_majority() {
    let mut evidence = well();
    for kind in shattered() {
        evidence = evidence.with_fault(kind, 1_003, 1_066);
    }
    is_clean(&evidence.without(1_004, Some(gap(1_004, 1, "missed", "no majority"))));
}

#[test]
fn a_gap_covers_its_own_slots_only() {
    let mut evidence = well();
    for kind in shattered() {
        evidence = evidence.with_fault(kind, 1_002, 1_070);
    }
    for slot in 1_003..=1_005 {
        evidence = evidence.without(slot, None);
    }
    evidence.records().push(gap(1_003, 2, "missed", "no majority"));
    is_caught(&evidence, Missing, "1005 has neither");
}

#[test]
fn a_lost_run_needs_a_fault_of_its_node() {
    let lost = || well().without(1_004, Some(told(1_004, "lost")));
    is_caught(&lost(), Missing, "nothing was wrong with Some(\"n1\")");
    is_caught(&lost().with_fault(down("n2"), 1_003, 1_010), Missing, "nothing was wrong");
    is_clean(&lost().with_fault(down("n1"), 1_004, 1_010));
    // On the lesser side of a cut, and on the greater one.
    let cut = |from: &[&str], to: &[&str]| Kind::Cut { from: names(from), to: names(to) };
    is_clean(&lost().with_fault(cut(&["n1"], &["n2", "n3", "n4", "n5"]), 1_003, 1_010));
    is_caught(&lost().with_fault(cut(&["n2"], &["n1", "n3", "n4", "n5"]), 1_003, 1_010), Missing, "nothing was wrong");
}

#[test]
fn a_skipped_slot_names_a_run_that_was_open() {
    let skipped_at = |slot, why: &str| {
        let mut evidence = well().without(slot, Some(gap(slot, 1, "skipped", why)));
        evidence.plans[0].is_concurrent = false;
        evidence
    };
    let skipped = |why: &str| skipped_at(1_004, why);
    is_caught(&skipped("run run-1003- was open"), Missing, "no run that it names was open");
    // Its end could not be told, by its node, or to somebody else who led, until another one did.
    is_clean(&skipped("run run-1003- was open").with_fault(down("n1"), 1_003, 1_010));
    is_clean(&skipped("run run-1003- was open").with_fault(down("n2"), 1_003, 1_010));
    is_caught(&skipped("run run-1003- was open").with_fault(down("n2"), 980, 997), Missing, "no run that it names");
    let late = skipped_at(1_009, "run run-1002- was open").with_fault(down("n2"), 1_003, 1_010);
    is_caught(&late, Missing, "no run that it names");
    let mut evidence = skipped("run run-1003- was open");
    evidence.stamps[3].end = Some(1_004_900);
    for told in evidence.records() {
        if let Told::Run { slot: 1_003, ended, .. } = told {
            *ended = Some(1_004_910);
        }
    }
    is_clean(&evidence);
    evidence.plans[0].is_concurrent = true;
    is_caught(&evidence, Missing, "may lie side by side");
}

#[test]
fn runs_that_overlap_are_extra_where_they_may_not() {
    let mut evidence = well();
    evidence.plans[0].is_concurrent = false;
    is_clean(&evidence);
    evidence.stamps[3].end = Some(1_004_100);
    is_caught(&evidence, Extra, "began while that of 1003 ran");
}

#[test]
fn attempts_come_one_after_the_other() {
    let mut evidence = well();
    evidence.plans[0].attempts = 2;
    for slot in FROM..=TO {
        let again = Stamp {
            attempt: 2,
            fence: slot + 5_000,
            start: slot * 1_000 + 400,
            end: Some(slot * 1_000 + 600),
            ..stamp(slot)
        };
        evidence.stamps.push(again);
    }
    is_clean(&evidence);
    let last = evidence.stamps.len() - 1;
    evidence.stamps[last].start = 1_009_200;
    is_caught(&evidence, Extra, "began before attempt 1 was over");
    evidence.stamps[last].start = 1_009_400;
    evidence.stamps[last].fence = 1_009;
    let verdict = judge(&evidence);
    assert!(verdict.extra.iter().any(|told| told.contains("attempt 2 under fence 1009 came after")), "{verdict}");
}

#[test]
fn what_is_told_of_a_run_has_to_be_so() {
    // Told to have been run, without a trace.
    is_caught(&well().without(1_004, Some(told(1_004, "success"))), Untrue, "has left no trace");
    // It never came to its end.
    let mut evidence = well();
    evidence.stamps[4].end = None;
    is_caught(&evidence, Untrue, "never came to its end");
    // It did.
    let mut evidence = well();
    evidence.records()[4] = told(1_004, "failure");
    is_caught(&evidence, Untrue, "has ended well, and is told as `failure`");
    // It was run, and is told under another name, not at all, and as missed beside.
    let mut evidence = well();
    evidence.stamps[4].run = "other".to_owned();
    is_caught(&evidence, Untrue, "is told as run run-1004-");
    let mut evidence = well();
    evidence.records().remove(4);
    is_caught(&evidence, Untrue, "has 0 records");
    let mut evidence = well();
    evidence.records().push(gap(1_004, 1, "missed", ""));
    is_caught(&evidence, Untrue, "`missed` as well");
}

#[test]
fn a_run_that_is_cut_short_needs_a_fault_of_its_node() {
    let mut evidence = well();
    evidence.stamps[4].end = None;
    evidence.records()[4] = told(1_004, "lost");
    is_caught(&evidence, Missing, "was not brought to its end");
    is_clean(&evidence.with_fault(down("n1"), 1_004, 1_010));
}

#[test]
fn the_longest_majority_is_that_of_one_who_could_lead_all_along() {
    let nodes = names(&["n1", "n2", "n3", "n4", "n5"]);
    let mut faults = Faults { nodes, all: Vec::new() };
    assert_eq!(faults.longest_majority(0, 100, None), 100);
    let fault = |kind, from, until| Fault { kind, from, until };
    faults.all.push(fault(down("n1"), 10, 20));
    assert_eq!(faults.longest_majority(0, 100, None), 100);
    assert_eq!(faults.longest_majority(0, 100, Some("n1")), 80);
    faults.all.extend([fault(down("n2"), 15, 40), fault(down("n3"), 12, 30)]);
    assert_eq!(faults.longest_majority(0, 100, None), 80, "from 20 on n1, n4 and n5 are up");
    // Who is not heard cannot lead, though it hears everybody.
    let mut faults = Faults { nodes: faults.nodes, all: Vec::new() };
    faults.all.push(fault(Kind::Cut { from: names(&["n1"]), to: names(&["n2", "n3", "n4", "n5"]) }, 0, 50));
    assert_eq!(faults.longest_majority(0, 50, Some("n1")), 0);
    assert_eq!(faults.longest_majority(0, 50, None), 50);
    assert!(!faults.is_calm(55, 60, 10) && faults.is_calm(61, 70, 10) && faults.touched("n1", 40, 45, 0));
    assert!(!faults.touched("n3", 0, 50, 0), "a majority is well");
}
