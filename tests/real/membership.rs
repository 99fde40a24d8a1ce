//! Becoming a member, staying one, and who does not become one.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Node, eventually, stays, text};
use crate::host::lives;

/// A new ticket of a node.
fn ticket(node: &Node, words: &[&str]) -> String {
    node.ok(&[&["ticket", "create"], words].concat()).trim().to_owned()
}

/// Tries to join with a ticket, which must not do; gives what was said.
fn cannot_join(cluster: &Cluster, name: &str, ticket: &str, told: &[&str]) -> String {
    let mut stranger = cluster.host(name);
    let answer = stranger.fails(&["join", ticket, "--name", name, "--listen", "127.0.0.1:0"]);
    answer.refused(1, told)
}

/// Where a node listens for others.
fn address(node: &Node) -> String {
    let list = node.json(&["node", "list"]);
    let me = list.as_array().unwrap().iter().find(|row| row["is_me"] == true).expect("its own row");
    text(&me["addresses"][0])
}

#[test]
fn members_learn_one_another_and_remember() {
    let mut cluster = Cluster::start(3);
    // Each node tells the same of the whole cluster.
    let clusters: Vec<Value> = cluster.nodes.iter().map(|node| node.json(&["status"])["cluster"].clone()).collect();
    assert!(clusters.iter().all(|id| *id == clusters[0]), "{clusters:?}");
    for node in &cluster.nodes {
        let status = node.ok(&["status"]);
        assert!(status.contains("3 members, 3 alive"), "{status}");
        let info = node.json(&["node", "info", "n2"]);
        assert_eq!(info["platform"], "linux/amd64");
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    }
    cluster[1].run(&["node", "info", "n9"]).refused(1, &["`n9`"]);

    // One crashes: the others see it, and see it again.
    cluster[1].crash();
    eventually("n2 to be seen as down", || {
        cluster[0].members().contains(&("n2".to_owned(), "down".to_owned())).then_some(())
    });
    cluster[1].start();
    cluster.settled();

    // All of them at once, with nobody left to ask.
    let before: Vec<_> = cluster.nodes.iter().map(address).collect();
    for node in &mut cluster.nodes {
        node.signal(libc::SIGTERM);
    }
    for node in &mut cluster.nodes {
        node.ends();
    }
    for node in &mut cluster.nodes {
        node.spawn(&["start"]);
    }
    for node in &mut cluster.nodes {
        node.serves();
    }
    cluster.settled();
    assert_eq!(cluster.nodes.iter().map(address).collect::<Vec<_>>(), before, "they listen where they did");
    assert_eq!(cluster[0].printed(), "", "a cluster begins once");
}

#[test]
fn stop_ends_instances_keeper_and_node() {
    for by_signal in [false, true] {
        let mut cluster = Cluster::start(1);
        let program = cluster.script("stubborn", "setsid sleep 600 &\nsleep 600 & wait");
        cluster[0].ok(&["deploy", "--name", "some", "--tag", "v1", &program, "--wait"]);
        let pid = cluster[0].running("some", 1)[0].pid();
        let keeper = cluster[0].keeper_pid().expect("a keeper");
        if by_signal {
            cluster[0].signal(libc::SIGINT);
        } else {
            assert_eq!(cluster[0].ok(&["stop"]), "the node has stopped\n");
        }
        cluster[0].ends();
        assert!(!lives(pid), "the instance ended with the node");
        eventually("the keeper to be gone", || (!lives(keeper)).then_some(()));
        cluster[0].run(&["node", "list"]).refused(3, &["narun start"]);
        // It is wanted as before.
        cluster[0].start();
        assert_ne!(cluster[0].running("some", 1)[0].pid(), pid);
    }
}

#[test]
fn tickets_are_good_for_what_they_say() {
    let mut cluster = Cluster::start(2);
    let before = cluster[0].members();

    // Used up.
    let once = ticket(&cluster[0], &["--uses", "1"]);
    let mut third = cluster.host("n3");
    third.join(&once);
    cannot_join(&cluster, "n4", &once, &["used up", "narun ticket create"]);
    cluster.nodes.push(third);
    cluster.settled();

    // Revoked, and where that is done.
    let made = cluster[1].json(&["ticket", "create", "--uses", "2"]);
    let listed = cluster[1].json(&["ticket", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["id"], made["id"]);
    assert_eq!(listed[0].get("ticket"), None, "the secret is shown once");
    let id = text(&made["id"]);
    cluster[0].run(&["ticket", "revoke", &id]).refused(1, &[&id, "the node that made it"]);
    cluster[1].ok(&["ticket", "revoke", &id]);
    cannot_join(&cluster, "n4", &text(&made["ticket"]), &["revoked"]);
    assert_eq!(cluster[1].json(&["ticket", "list"]), serde_json::json!([]));

    // Expired: by the maker's clock.
    let short = ticket(&cluster[0], &["--ttl", "1s"]);
    let listed = |id: &str| {
        let list = cluster[0].json(&["ticket", "list"]);
        list.as_array().unwrap().iter().any(|ticket| ticket["id"] == id)
    };
    let short_id = cluster[0].json(&["ticket", "list"]);
    let short_id = short_id.as_array().unwrap().iter().min_by_key(|ticket| text(&ticket["expires"])).unwrap();
    let short_id = text(&short_id["id"]);
    eventually("the ticket to expire", || (!listed(&short_id)).then_some(()));
    cannot_join(&cluster, "n4", &short, &["expired"]);

    // Not a ticket, half a ticket, and one that was mistyped.
    let good = ticket(&cluster[0], &[]);
    let middle = good.len() / 2;
    let other = if good.as_bytes()[middle] == b'a' { "b" } else { "a" };
    let mistyped = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    for (wrong, told) in
        [("garbage", "not a ticket"), ("narun1", "damaged"), (&good[..middle], "damaged"), (&mistyped, "damaged")]
    {
        let mut stranger = cluster.host("n4");
        let answer = stranger.fails(&["join", wrong, "--name", "n4", "--listen", "127.0.0.1:0"]);
        answer.refused(2, &[told]);
    }

    // A name that is taken, which costs the ticket nothing: it lets somebody in afterwards.
    cannot_join(&cluster, "n1", &good, &["`n1` is a member already", "--name"]);
    let mut fourth = cluster.host("n4");
    fourth.join(&good);
    fourth.sees(&["n1", "n2", "n3", "n4"]);

    // The member is one already.
    fourth.crash();
    let answer = fourth.fails(&["join", &good, "--listen", "127.0.0.1:0"]);
    answer.refused(1, &["belongs to a member of a cluster already", "narun start"]);
    fourth.start();
    assert_eq!(before.len() + 2, fourth.members().len(), "nobody else came in");
    for wrong in [["--uses", "0"], ["--ttl", "0s"], ["--ttl", "400d"], ["--uses", "-1"], ["--ttl", "soon"]] {
        let answer = cluster[0].run(&["ticket", "create", wrong[0], wrong[1]]);
        assert!([1, 2].contains(&answer.code) && answer.stdout.is_empty(), "{wrong:?}: {answer:?}");
    }
}

#[test]
fn a_ticket_is_used_up_for_good() {
    let mut cluster = Cluster::start(1);
    let once = ticket(&cluster[0], &["--uses", "1"]);
    let mut second = cluster.host("n2");
    second.join(&once);
    // Neither a crash of the maker nor a plain restart gives the use back.
    cluster[0].crash();
    cluster[0].start();
    cannot_join(&cluster, "n3", &once, &["used up"]);
    cluster.nodes.push(second);
    cluster.settled();
}

#[test]
fn a_stranger_gets_nothing() {
    let mut cluster = Cluster::start(2);
    let mut other = Cluster::start(1);
    let door = address(&cluster[0]);

    // Who speaks no narun is sent away before long, and in the meantime others are served.
    let mut garbage = TcpStream::connect(&door).expect("the port is open");
    garbage.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    garbage.write_all(&[0xff; 4096]).unwrap();
    let mut silent: Vec<_> = (0..20).map(|_| TcpStream::connect(&door).expect("the port is open")).collect();
    let mut http = TcpStream::connect(&door).expect("the port is open");
    http.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    cluster[0].ok(&["status"]);
    for stream in [&mut garbage, &mut http] {
        let mut said = Vec::new();
        // An error, such as a reset, is an end as well.
        let ended = stream.read_to_end(&mut said);
        let over = ended.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
        assert!(over, "{ended:?}");
        assert!(said.len() < 64, "a stranger is told nothing: {said:?}");
    }
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    }

    // A ticket is for the node that made it: at another cluster's door the joiner finds that out, and says nothing.
    let theirs = ticket(&other[0], &[]);
    let mut stranger = cluster.host("n9");
    let words = ["join", &door, "--token", &theirs, "--name", "n9", "--listen", "127.0.0.1:0"];
    // The ticket names its maker's own address besides, so the maker must be away for the wrong door to be the only one.
    other[0].crash();
    stranger.fails(&words).refused(1, &[]);
    assert_eq!(cluster[0].members().len(), 2);

    // A member of another cluster that happens to come by at the same address is no member here.
    other[0].start();
    stays("two members", Duration::from_secs(2), || cluster[0].members().len() == 2 && other[0].members().len() == 1);

    // A ticket whose maker is gone.
    let orphan = ticket(&cluster[1], &[]);
    cluster[1].crash();
    let asked = Instant::now();
    cannot_join(&cluster, "n9", &orphan, &["127.0.0.1"]);
    assert!(asked.elapsed() < Duration::from_secs(45), "took {:?}", asked.elapsed());
    // What was refused leaves nothing behind: the same directory makes a cluster of its own.
    stranger.found();
    assert_eq!(stranger.members().len(), 1);
}

#[test]
fn a_node_that_cannot_start_says_why_and_harms_nothing() {
    let mut cluster = Cluster::start(1);
    let door = address(&cluster[0]);
    let data = cluster[0].data_dir().to_str().unwrap().to_owned();

    // The data directory is in use.
    let mut second = cluster.host("second");
    let pid = cluster[0].pid().to_string();
    let in_use = crate::cluster::narun(&["start", "--data-dir", &data, "--listen", "127.0.0.1:0"]);
    in_use.refused(1, &["is in use", &data, &pid, "narun stop"]);

    // The port is in use.
    second.fails(&["start", "--name", "second", "--listen", &door]).refused(1, &[&door]);
    // And afterwards that directory is as good as new.
    second.found();

    // Another name than the one that it was admitted under.
    second.crash();
    second.fails(&["start", "--name", "third"]).refused(1, &["`second`", "`third`"]);
    for wrong in ["a b", "a/b", "", "local", &"x".repeat(300)] {
        cluster.host("x").fails(&["start", "--name", wrong, "--listen", "127.0.0.1:0"]).refused(2, &["--name"]);
    }
    for wrong in ["nowhere", "127.0.0.1:99999", "127.0.0.1"] {
        cluster.host("x").fails(&["start", "--listen", wrong]).refused(2, &[wrong, "HOST:PORT"]);
    }

    // The key is open to others.
    let key = second.layout.identity();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    second.fails(&["start"]).refused(1, &[key.to_str().unwrap(), "chmod 600"]);
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    // The database is damaged, in its head and all over.
    let database = second.layout.database();
    let good = fs::read(&database).unwrap();
    let spoil = |from: usize, len: usize| {
        fs::write(&database, &good).unwrap();
        let mut file = OpenOptions::new().write(true).open(&database).unwrap();
        file.seek(SeekFrom::Start(from as u64)).unwrap();
        file.write_all(&vec![0x5a; len]).unwrap();
    };
    for (from, len) in [(0, 512), (0, good.len()), (512, good.len() - 512)] {
        spoil(from, len);
        let spoilt = fs::read(&database).unwrap();
        let told = second.fails(&["start"]).refused(1, &[database.to_str().unwrap(), "damaged"]);
        assert!(told.contains("move the data directory away"), "{told}");
        assert_eq!(fs::read(&database).unwrap(), spoilt, "nothing was changed");
    }
    fs::write(&database, &good[..good.len() / 3]).unwrap();
    second.fails(&["start"]).refused(1, &["damaged"]);

    // The database is empty, or gone: that must not pass for a node that has never been in a cluster.
    fs::write(&database, b"").unwrap();
    second.fails(&["start"]).refused(1, &[database.to_str().unwrap(), "is gone"]);
    fs::remove_file(&database).unwrap();
    second.fails(&["start"]).refused(1, &[database.to_str().unwrap(), "is gone"]);
    assert!(!database.exists(), "nothing was made in its place");
    fs::write(&database, &good).unwrap();
    second.start();
    assert_eq!(second.members(), [("second".to_owned(), "alive".to_owned())]);

    assert_eq!(cluster[0].members().len(), 1);
    cluster[0].crash();
}
