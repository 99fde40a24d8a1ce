//! The output of instances, read from any node.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::cluster::{Cluster, Node, eventually, stays, text, within};

/// A `logs -f` that runs beside the test, and what it printed so far.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Follower {
    fn new(node: &Node, words: &[&str]) -> Self {
        let mut command = node.command(&[&["logs", "-f", "--raw"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value: serde_json::Value = serde_json::from_str(&line).expect("JSON on each line");
                if sender.send(text(&value["message"])).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits until so many lines were printed; gives all of them.
    fn count(&mut self, count: usize) -> &[String] {
        eventually(&format!("{count} lines"), || {
            self.seen.extend(self.lines.try_iter());
            (self.seen.len() >= count).then_some(())
        });
        &self.seen
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `1` and so on, up to how many there are.
fn counted(lines: &[String]) -> Vec<String> {
    (1..=lines.len()).map(|n| n.to_string()).collect()
}

#[test]
fn history_is_told_by_every_node_and_ends() {
    let mut cluster = Cluster::start(2);
    let program = cluster.script(
        "talks",
        r#"echo "out of $NARUN_INSTANCE_ID"; echo "err of $NARUN_INSTANCE_ID" >&2
        echo "tab	here"; printf 'ü\377\n'; printf 'no end of line'; exec sleep 600"#,
    );
    cluster[0].ok(&["deploy", "--name", "talks", "--tag", "v1", "--node", "all", &program, "--wait"]);
    cluster[0].ok(&["deploy", "--name", "other", "--tag", "v1", "--node", "n1", &program, "--wait"]);
    cluster[0].running("talks", 2);
    for node in &cluster.nodes {
        let lines = eventually("all lines of both", || {
            let lines: Vec<String> = node.ok(&["logs", "--app", "talks"]).lines().map(str::to_owned).collect();
            (lines.len() >= 8).then_some(lines)
        });
        let of = |stream: &str, words: &str| {
            let end = format!("] [talks-0] [{stream}] {words}");
            lines.iter().filter(|line| line.starts_with("[20") && line.ends_with(&end)).count()
        };
        assert_eq!(of("stdout", "out of talks-0"), 2, "one on each node: {lines:#?}");
        assert_eq!(of("stderr", "err of talks-0"), 2);
        assert_eq!(of("stdout", "tab\there"), 2);
        assert!(lines.iter().all(|line| !line.contains("other-0")));
    }
    let node = &cluster[1];
    assert_eq!(node.messages(&["--app", "talks", "--node", "n2", "--stream", "stderr"]), ["err of talks-0"]);
    assert_eq!(node.messages(&["--instance", "other-0", "--grep", "out of"]), ["out of other-0"]);
    assert_eq!(node.messages(&["--app", "other", "--node", "n2"]), [""; 0]);
    assert_eq!(node.messages(&["--app", "other", "--stream", "stderr", "--tail", "1"]), ["err of other-0"]);
    assert_eq!(node.messages(&["--app", "other", "--tail", "0"]), [""; 0]);
    assert_eq!(node.messages(&["--app", "other", "--until", "1h"]), [""; 0]);
    assert_eq!(node.messages(&["--app", "other", "--since", "1h", "--grep", "tab"]), ["tab\there"]);
    let raw = node.ok(&["logs", "--raw", "--app", "other", "--grep", "out of"]);
    let line: serde_json::Value = serde_json::from_str(&raw).unwrap();
    for (key, value) in [("app_name", "other"), ("instance_id", "other-0"), ("node_id", "n1"), ("stream", "stdout")] {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!(text(&line["run_id"]), node.running("other", 1)[0].run);
    let odd = node.ok(&["logs", "--raw", "--app", "other", "--grep", "ü"]);
    assert!(odd.contains("message_base64"), "bytes that are no text survive: {odd}");
    for (wrong, code) in [(&["--since", "soon"][..], 2), (&["--stream", "both"], 2), (&["--node", "n9"], 1)] {
        let answer = node.run(&[&["logs"], wrong].concat());
        assert_eq!(answer.code, code, "{wrong:?}: {answer:?}");
        assert!(answer.stderr.contains(wrong[1]), "{answer:?}");
    }

    // A node that is away is named, on standard error; the others tell what they have.
    cluster[0].crash();
    eventually("n1 to be seen as down", || {
        cluster[1].members().contains(&("n1".to_owned(), "down".to_owned())).then_some(())
    });
    let answer = cluster[1].run(&["logs", "--app", "talks", "--stream", "stderr"]);
    assert!(answer.stderr.contains("n1"), "{answer:?}");
    assert_eq!(answer.stdout.lines().count(), 1, "{answer:?}");
}

#[test]
fn following_loses_and_repeats_nothing() {
    let mut cluster = Cluster::start(2);
    let count = cluster.dir().join("count");
    // Numbers that go on where they were. It ends between two of them: none is counted that was not printed.
    let program = cluster.script(
        "counts",
        &format!(
            "n=$(cat {0} 2>/dev/null || echo 0)\nend=\ntrap 'end=1' TERM\n\
             while test -z \"$end\"; do n=$((n+1)); echo $n > {0}.new; mv {0}.new {0}; echo $n; sleep 0.02; done",
            count.display()
        ),
    );
    cluster[0].ok(&["deploy", "--name", "counts", "--tag", "v1", "--node", "n1", &program, "--wait"]);
    let words = ["--app", "counts", "--stream", "stdout"];
    let mut near = Follower::new(&cluster[0], &words);
    let mut far = Follower::new(&cluster[1], &words);
    near.count(20);
    let at = far.count(20).len();

    // The instance is started again.
    cluster[1].ok(&["service", "restart", "counts", "--wait"]);
    let at = far.count(at + 50).len();
    assert_eq!(far.seen, counted(&far.seen));
    near.count(at);
    assert_eq!(near.seen, counted(&near.seen));
    drop(near);

    // The node process is killed, and comes back; what was written in between is told then.
    cluster[0].crash();
    let before = std::fs::read_to_string(&count).unwrap().trim().parse::<usize>().unwrap();
    eventually("output without a node", || {
        let now = std::fs::read_to_string(&count).ok()?.trim().parse::<usize>().ok()?;
        (now > before + 50).then_some(())
    });
    cluster[0].start();
    far.count(before + 100);
    assert_eq!(far.seen, counted(&far.seen));
    // A new reader is told all of it, too.
    let all = cluster[1].messages(&words);
    assert!(all.len() >= far.seen.len());
    assert_eq!(all, counted(&all));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let cluster = Cluster::start(1);
    let program =
        cluster.script("many", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; exec sleep 600");
    cluster[0].ok(&["deploy", "--name", "many", "--tag", "v1", &program, "--wait"]);
    eventually("all lines", || {
        (cluster[0].messages(&["--app", "many", "--tail", "1"]) == ["line 20000"]).then_some(())
    });
    let mut child =
        cluster[0].command(&["logs", "--app", "many"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.ends_with("line 1\n"), "{first}");
    // The pipe is closed by now.
    let output = within(Duration::from_secs(30), || child.try_wait().unwrap()).expect("it ends");
    assert_eq!(output.code(), Some(0), "as with `| head`");
    stays("the node", Duration::from_millis(500), || cluster[0].run(&["node", "list"]).code == 0);
}
