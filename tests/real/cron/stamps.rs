//! What runs write of themselves, outside of narun: one line when they begin, and one when they have come to their end.
//!
//! A line is one `write` to a file that was opened to append to: the kernel puts it whole behind all that is there (write(2), `O_APPEND`),
//! whichever hosts' programs write at once.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::DateTime;

use super::checker::{Millis, Stamp};

/// The program that every spec runs: its environment says whose it is, how long it takes and at which attempt it ends well.
pub(super) fn script(file: &Path) -> String {
    format!(
        r#"stamp() {{
    echo "$1 $SPEC $NARUN_JOB_SCHEDULED_TIME $NARUN_RUN_ID $NARUN_JOB_ATTEMPT $NARUN_FENCE $NARUN_NODE_ID $(date +%s%3N)" >>'{}'
}}
stamp start
sleep "$WORK"
stamp end
[ "$NARUN_JOB_ATTEMPT" -ge "$NEEDED" ]"#,
        file.display()
    )
}

/// Reads all stamps. A line that cannot be read is a fault of the test, which stamps what it was given.
pub(super) fn read(file: &Path) -> Vec<Stamp> {
    let text = std::fs::read_to_string(file).expect("the file that the test has made");
    let mut stamps: Vec<Stamp> = Vec::new();
    let mut begun: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for line in text.lines() {
        let (is_start, stamp) = parse(line).unwrap_or_else(|| panic!("`{line}` is no stamp"));
        let key = (stamp.run.clone(), stamp.fence);
        match (is_start, begun.get(&key)) {
            (true, _) => {
                begun.insert(key, stamps.len());
                stamps.push(stamp);
            }
            (false, Some(at)) => stamps[*at].end = Some(stamp.start),
            (false, None) => panic!("an end without a beginning: `{line}`"),
        }
    }
    stamps
}

fn parse(line: &str) -> Option<(bool, Stamp)> {
    let [what, spec, scheduled, run, attempt, fence, node, at] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let start: Millis = at.parse().ok()?;
    let stamp = Stamp {
        spec: spec.to_owned(),
        slot: seconds(scheduled)?,
        run: run.to_owned(),
        attempt: attempt.parse().ok()?,
        fence: fence.parse().ok()?,
        node: node.to_owned(),
        start,
        end: None,
    };
    Some((what == "start", stamp))
}

/// The seconds since 1970 of a time as RFC 3339 writes it.
pub(super) fn seconds(time: &str) -> Option<u64> {
    DateTime::parse_from_rfc3339(time).ok()?.timestamp().try_into().ok()
}

#[test]
fn stamps_are_read_with_their_ends() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("stamps");
    let lines = [
        "start a 2026-11-22T00:00:01Z r1 1 7 n1 1763769601005",
        "start b 2026-11-22T00:00:01.000Z r2 2 8 n2 1763769601006",
        "end a 2026-11-22T00:00:01Z r1 1 7 n1 1763769601300",
    ];
    std::fs::write(&file, lines.map(|line| format!("{line}\n")).concat()).expect("a file in a temporary directory");
    let stamps = read(&file);
    let read: Vec<_> = stamps.iter().map(|stamp| (stamp.spec.as_str(), stamp.fence, stamp.end)).collect();
    assert_eq!(read, [("a", 7, Some(1_763_769_601_300)), ("b", 8, None)]);
    assert_eq!(stamps[0].slot, stamps[1].slot);
}
