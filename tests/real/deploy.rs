//! Asking for things: what is carried out, what is refused, and what stands after a crash.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Node, eventually, text};
use crate::host::is_root;
use crate::skip::skip;

/// A program for the processor with this number in the head of an ELF file (e_machine): a real one, relabelled.
fn program_for(cluster: &Cluster, name: &str, machine: u16) -> String {
    let mut content = fs::read("/bin/sleep").expect("every system can sleep");
    content[18..20].copy_from_slice(&machine.to_le_bytes());
    cluster.file(name, content)
}

const ARM64: u16 = 183;
const AMD64: u16 = 62;
const SPARC: u16 = 2;

/// What a node knows of all services, without what changes by itself.
fn catalog(node: &Node) -> Vec<(String, Value)> {
    let mut services: Vec<String> =
        node.json(&["service", "list"]).as_array().unwrap().iter().map(|row| text(&row["service"])).collect();
    services.dedup();
    services.into_iter().map(|service| (service.clone(), node.json(&["service", "history", &service]))).collect()
}

#[test]
fn all_four_forms_and_their_manners() {
    let cluster = Cluster::start(3);
    let sleeper = cluster.sleeper();
    let node = &cluster[1];

    // Options: a service, which `local` places on the node that took it.
    let words = ["deploy", "--name", "flags", "--tag", "v1", &sleeper];
    assert_eq!(node.ok(&words), "service `flags` deployed: revision 1\n");
    assert_eq!(cluster[0].running("flags", 1)[0].node, "n2");
    assert_eq!(node.ok(&words), "service `flags` is unchanged: revision 1\n");

    // A file: a service, everywhere on disk before it is acknowledged.
    let spec = cluster.file("spec.yaml", "name: file\ntag: v1\nreplicas: 3\nenv:\n  - {name: A, value: b}\n");
    let answer = node.json(&["deploy", "--config", &spec, &sleeper, "--acks", "3", "--wait"]);
    assert_eq!((&answer["revision"], &answer["ready"], &answer["changed"]), (&1.into(), &3.into(), &true.into()));
    let mut places: Vec<_> = cluster[2].running("file", 3).into_iter().map(|instance| instance.node).collect();
    places.sort();
    assert_eq!(places, ["n1", "n2", "n3"], "one each");

    // A file and options: cron specs, whose next slots are shown.
    let spec = cluster
        .file("cron.json", r#"{"name": "nightly", "tag": "v1", "cronSchedule": "0 2 * * *", "runMode": "cron"}"#);
    let told = node.run(&["deploy", "--config", &spec, &sleeper]).done();
    assert!(told.contains("Next due") && told.matches("T02:00:00Z").count() == 5, "{told}");
    let words =
        ["deploy", "--name", "hourly", "--tag", "v1", "--runMode", "cron", "--cronSchedule", "@hourly", &sleeper];
    node.ok(&words);
    eventually("n1 to have heard of everything", || (catalog(&cluster[0]).len() == 4).then_some(()));
    let list = cluster[0].json(&["service", "list"]);
    let row = |name: &str| list.as_array().unwrap().iter().find(|row| row["service"] == name).unwrap().clone();
    assert_eq!(row("nightly")["cron_schedule"], "0 2 * * *");
    assert_eq!(row("hourly")["mode"], "cron");
    // Each node tells when it is due; a service never is.
    eventually("two nodes to be asked within one hour", || {
        let [one, other] = [0, 2].map(|node| cluster[node].json(&["cron", "next", "hourly", "-n", "3"]));
        (one == other && one.as_array().is_some_and(|slots| slots.len() == 3)).then_some(())
    });
    let next = cluster[0].ok(&["cron", "next", "nightly"]);
    assert_eq!(
        next.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["SCHEDULED_AT", "LOCAL_TIME", "TIMEZONE"]
    );
    assert_eq!(next.matches("T02:00:00Z  ").count(), 5, "{next}");
    node.run(&["cron", "next", "flags"]).refused(1, &["`flags` is a service"]);
    node.run(&["cron", "next", "nobody"]).refused(1, &["`nobody`"]);
    assert_eq!(row("hourly")["instance_ids"], serde_json::json!([]), "nothing is fired");
    assert_eq!(row("flags")["desired"], 1);

    // Several platforms in one deploy, and a dry run of it first.
    let arm = program_for(&cluster, "sleep-arm64", ARM64);
    let amd = program_for(&cluster, "sleep-amd64", AMD64);
    let words = ["deploy", "--name", "both", "--tag", "v2", "--arg", "600", "--node", "any", &arm, &amd];
    let before = catalog(node);
    let dry = node.ok(&[&words[..], &["--dry-run"]].concat());
    assert!(dry.contains("nothing was changed"), "{dry}");
    assert_eq!(catalog(node), before);
    node.ok(&[&words[..], &["--wait"]].concat());
    let images = node.json(&["list-images"]);
    let of_both: Vec<_> =
        images.as_array().unwrap().iter().filter(|image| image["used_by"] == serde_json::json!(["both"])).collect();
    let mut architectures: Vec<_> = of_both.iter().map(|image| text(&image["arch"])).collect();
    architectures.sort();
    assert_eq!(architectures, ["amd64", "arm64"]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let sleeper = cluster.sleeper();
    node.ok(&["deploy", "--name", "web", "--tag", "v1", &sleeper, "--wait"]);
    let before = catalog(node);
    let pid = node.running("web", 1)[0].pid();

    // By file: each says the field and what is wrong with it.
    let long = "x".repeat(300);
    for (fields, told) in [
        ("nmae: web\ntag: v1", &["`nmae`", "`name`"][..]),
        ("name: web\ntag: v2\nreplcias: 2", &["`replcias`", "did you mean `replicas`"]),
        ("name: web\ntag: v2\nreplicas: two", &["`replicas`", "two"]),
        ("name: web\ntag: v2\nreplicas: 0", &["`replicas`", "0"]),
        ("name: web\ntag: v2\nreplicas: -1", &["`replicas`", "-1"]),
        ("name: web\ntag: v2\nreplicas: 1.5", &["`replicas`"]),
        ("name: web\ntag: v2\nreplicas: 100000000000000000000", &["`replicas`"]),
        ("name: web\ntag: v2\nargs: -x", &["`args`"]),
        ("name: web\ntag: v2\nenv: {A: b}", &["`env`"]),
        ("name: [web]\ntag: v2", &["`name`"]),
        ("name: my web\ntag: v2", &["my web"]),
        ("name: a/b\ntag: v2", &["a/b"]),
        ("name: ../etc\ntag: v2", &["../etc"]),
        ("name: \"\"\ntag: v2", &["`name`"]),
        ("name: wéb\ntag: v2", &["wéb"]),
        (&format!("name: {long}\ntag: v2"), &["300 characters"]),
        ("tag: v2", &["`name`"]),
        ("name: web", &["`tag`"]),
        ("name: web\ntag: v2\nnodes: [{name: n9, replicas: 1}]", &["`n9`", "n1"]),
        ("name: web\ntag: v2\nnodes: [{name: n1, replicas: 0}]", &["replicas"]),
        ("name: web\ntag: v2\nspread: zone", &["`spread`", "not carried out"]),
        ("name: web\ntag: v2\nlandlock: [{path: /tmp, modes: r}]", &["`landlock"]),
        ("name: web\ntag: v2\nmetrics: {port: 9100}", &["`metrics`", "not carried out"]),
        ("name: web\ntag: v2\nrunMode: cron", &["`cronSchedule`"]),
        ("name: web\ntag: v2\nrunMode: cron\ncronSchedule: every day", &["`cronSchedule`"]),
        ("name: web\ntag: v2\ncronSchedule: 0 0 30 2 *", &["`cronSchedule`", "never fires"]),
        ("name: web\ntag: v2\ncronSchedule: '@daily'\ntimezone: Berlin", &["`timezone`", "`Europe/Berlin`"]),
        ("name: web\ntag: v2\nrunMode: sometimes", &["`runMode`", "sometimes"]),
        ("name: web\nname: web\ntag: v2", &["name"]),
        ("", &["empty"]),
        ("{", &[]),
        ("just a text", &[]),
    ] {
        let spec = cluster.file("spec.yaml", fields);
        node.run(&["deploy", "--config", &spec, &sleeper]).refused(1, told);
    }
    node.run(&["deploy", "--config", "/does/not/exist.yaml", &sleeper]).refused(1, &["/does/not/exist.yaml"]);

    // By options.
    for (options, told) in [
        (["--name", "my web"], "my web"),
        (["--name", &long], "300 characters"),
        (["--replicas", "0"], "replicas"),
        (["--replicas", "-1"], "-1"),
        (["--replicas", "many"], "many"),
        (["--node", "n9"], "`n9`"),
        (["--env", "no-value"], "no-value"),
        (["--env", "NARUN_X=1"], "NARUN_X"),
        (["--run-mode", "daily"], "daily"),
        (["--tag", ""], "tag"),
    ] {
        let mut words = vec!["deploy", &options[0], &options[1]];
        for default in [["--name", "web"], ["--tag", "v2"]] {
            if default[0] != options[0] {
                words.extend(default);
            }
        }
        words.push(&sleeper);
        let answer = node.run(&words);
        assert!([1, 2].contains(&answer.code), "{options:?}: {answer:?}");
        let code = answer.code;
        answer.refused(code, &[told]);
    }

    // By the files.
    let arm = program_for(&cluster, "arm", ARM64);
    let amd = program_for(&cluster, "amd", AMD64);
    let sparc = program_for(&cluster, "sparc", SPARC);
    let empty = cluster.file("empty", "");
    let words = cluster.file("notes.txt", "just some words");
    let folder = cluster.dir().to_str().unwrap();
    for (files, told) in [
        (&[&amd[..], &amd][..], &["both for linux/amd64", &amd][..]),
        (&[&sleeper, &sleeper], &["both for", &sleeper]),
        (&[&arm], &["no binary for node `n1`", "linux/amd64"]),
        (&[&empty], &["empty", &empty]),
        (&[folder], &["directory", folder]),
        (&["/does/not/exist"], &["no such file", "/does/not/exist"]),
        (&[&words], &["ELF", &words]),
        (&[&sparc], &[&sparc]),
        (&["/dev/null"], &["/dev/null"]),
        (&[&empty, &words], &["empty", &words]),
    ] {
        let mut command = vec!["deploy", "--name", "web", "--tag", "v2", "--node", "n1"];
        command.extend(files);
        node.run(&command).refused(1, told);
    }
    let closed = cluster.script("closed", "exec sleep 600");
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let words = ["deploy", "--name", "web", "--tag", "v2", "--node", "n1", &closed];
    node.run_bound_by_modes(&words).refused(1, &["ermission denied", &closed]);

    // Wrong words, which never reach the node.
    node.run(&["deploy", "--name", "web", "--tag", "v2"]).refused(2, &["BINARY"]);
    node.run(&["deploy", "--tag", "v2", &sleeper]).refused(2, &["--name"]);
    node.run(&["deploy", "--name", "web", "--tag", "v2", "--acks", "0", &sleeper]).refused(2, &["--acks"]);
    for words in [&["scale", "web", "0"][..], &["scale", "nothing", "2"], &["stop", "nothing"], &["info", "nothing"]] {
        node.run(&[&["service"], words].concat()).refused(1, &[words[1]]);
    }
    node.run(&["service", "scale", "web", "-1"]).refused(2, &["-1"]);
    // More disks than there are members.
    let answer = node.run(&["deploy", "--name", "web", "--tag", "v1", "--acks", "2", "--timeout", "2s", &sleeper]);
    assert_eq!(answer.code, 1, "{answer:?}");

    assert_eq!(catalog(node), before);
    assert_eq!(node.running("web", 1)[0].pid(), pid, "what runs was not disturbed");
    let images = node.json(&["list-images"]);
    assert_eq!(images.as_array().unwrap().len(), 1, "{images}");
}

#[test]
fn waiting_hands_on_what_came_of_it() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    // What dies again and again is given up, and the reason is told.
    let dies = cluster.script("dies", "echo last words >&2; exit 7");
    let told = node.run(&["deploy", "--name", "dies", "--tag", "v1", &dies, "--wait"]);
    told.refused(1, &["`dies`", "code 7", "narun logs --app dies"]);
    let gone = &node.instances("dies")[0];
    assert!(!gone.ready && gone.exit["code"] == 7, "{gone:?}");
    assert!(node.ok(&["status"]).contains("dies"), "status tells what is wrong");
    assert!(node.messages(&["--app", "dies", "--stream", "stderr"]).iter().all(|message| message == "last words"));

    // What cannot be started says why.
    let odd = cluster.file("odd", "#!/no/such/interpreter\n");
    node.run(&["deploy", "--name", "odd", "--tag", "v1", &odd, "--wait"]).refused(1, &["/no/such/interpreter"]);

    // What takes too long is told as well, with the time that it was given.
    let flaps = cluster.script("flaps", "sleep 0.6; exit 1");
    let begun = Instant::now();
    node.run(&["deploy", "--name", "late", "--tag", "v1", &flaps, "--wait", "--timeout", "1s"])
        .refused(1, &["after 1s", "0 of 1"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // Given up is not for good: a better revision runs.
    node.ok(&["deploy", "--name", "dies", "--tag", "v2", &cluster.sleeper(), "--wait"]);
    node.running("dies", 1);
}

#[test]
fn of_two_deploys_at_once_one_wins_everywhere() {
    let cluster = Cluster::start(3);
    let programs: Vec<_> = (0..3).map(|n| cluster.script("contender", &format!("# {n}\nexec sleep 600"))).collect();
    // The binaries are everywhere before the race: what races is the revision.
    for (n, program) in programs.iter().enumerate() {
        cluster[n].ok(&["deploy", "--name", &format!("warm-{n}"), "--tag", "v1", program]);
    }
    let racers: Vec<_> = (0..3)
        .map(|n| {
            let tag = format!("of-n{}", n + 1);
            let words = ["deploy", "--name", "contested", "--node", "any", "--tag", &tag, &programs[n], "-o", "json"];
            cluster[n].command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut made = Vec::new();
    for racer in racers {
        let output = racer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        made.push(serde_json::from_slice::<Value>(&output.stdout).unwrap());
    }
    let histories =
        || -> Vec<Value> { cluster.nodes.iter().map(|node| node.json(&["service", "history", "contested"])).collect() };
    let agreed = eventually("all nodes to tell the same history", || {
        let histories = histories();
        let all = histories.iter().all(|history| history.as_array().unwrap().len() == 3 && *history == histories[0]);
        all.then(|| histories[0].clone())
    });
    let rows = agreed.as_array().unwrap();
    let mut tags: Vec<_> = rows.iter().map(|row| text(&row["tag"])).collect();
    tags.sort();
    assert_eq!(tags, ["of-n1", "of-n2", "of-n3"], "nothing that was acknowledged is lost");
    let current: Vec<_> = rows.iter().filter(|row| row["status"] == "current").collect();
    assert_eq!(current.len(), 1, "{agreed}");
    let winner = text(&current[0]["tag"]);
    eventually("the winner to run alone", || {
        let instances = cluster[0].instances("contested");
        (instances.len() == 1 && instances[0].runs() && instances[0].current).then_some(())
    });
    for node in &cluster.nodes {
        let info = node.json(&["service", "info", "contested"]);
        assert_eq!(text(&info["revision"]["tag"]), winner);
    }
}

#[test]
fn a_deploy_is_whole_or_absent_after_a_crash() {
    let mut cluster = Cluster::start(1);
    // The crash comes at another moment in each round, from before the upload to after the answer.
    for round in 0..15_u64 {
        // A script that is large enough for the upload to take a while.
        let padding = format!("# {round} {}\n", "x".repeat(100)).repeat(40_000);
        let program = cluster.script("large", &format!("exec sleep 600\n{padding}"));
        let name = format!("round-{round}");
        let words = ["deploy", "--name", &name, "--tag", "v1", &program, "-o", "json"];
        let mut deploy = cluster[0].command(&words);
        let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Not a wait for something: the moment of the crash is what the rounds differ in.
        std::thread::sleep(Duration::from_millis(round * 45));
        cluster[0].crash();
        let answer = deploy.wait_with_output().unwrap();
        cluster[0].start();
        let known = cluster[0].run(&["service", "info", &name]);
        if answer.status.success() {
            assert_eq!(known.code, 0, "an acknowledged deploy is gone: {known:?}");
        }
        if known.code == 0 {
            cluster[0].running(&name, 1);
        } else {
            assert_eq!(known.code, 1, "{known:?}");
        }
        if round == 14 {
            // The last one again, however far it had come.
            cluster[0].ok(&[&words[..6], &["--wait"]].concat());
        }
    }
    for service in catalog(&cluster[0]) {
        cluster[0].running(&service.0, 1);
    }
}

#[test]
fn a_full_disk_refuses_an_upload_and_loses_nothing() {
    if !is_root() {
        return skip("a_full_disk_refuses_an_upload_and_loses_nothing", "only root can mount a small file system");
    }
    let cluster = Cluster::empty();
    let host = cluster.host("n1");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(host.data_dir()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return skip("a_full_disk_refuses_an_upload_and_loses_nothing", "a tmpfs cannot be mounted here");
    }
    let _mount = Mount(host.data_dir().to_owned());
    // Dropped before the file system is taken away, whatever becomes of this test.
    let mut node = host;
    node.found();
    node.ok(&["deploy", "--name", "small", "--tag", "v1", &cluster.sleeper(), "--wait"]);
    let pid = node.running("small", 1)[0].pid();
    let before = catalog(&node);
    let large = cluster.script("large", &format!("exec sleep 600\n{}", "x".repeat(40 << 20)));
    let told = node.run(&["deploy", "--name", "small", "--tag", "v2", &large]).refused(1, &["cannot upload", &large]);
    assert!(told.contains("the disk of") && told.contains("is full"), "{told}");
    assert_eq!(catalog(&node), before);
    assert_eq!(node.running("small", 1)[0].pid(), pid);
    // What the upload had taken is free again.
    let fits = cluster.script("fits", &format!("exec sleep 600\n{}", "y".repeat(4 << 20)));
    node.ok(&["deploy", "--name", "fits", "--tag", "v1", &fits, "--wait"]);
    node.crash();
    node.start();
    assert_eq!(node.running("small", 1)[0].pid(), pid);
}

/// A mounted file system, which is taken away again.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: what still looks into it must not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
