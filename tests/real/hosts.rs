//! Hosts with addresses of their own, on a network that fails: partitions, loss, one-way cuts, pulled cables, moves.
//!
//! Needs root, `ip` and `nft` (see `netns`). The command line reaches each node by its socket, which no fault touches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::cluster::{Cluster, Node, WAIT_MAX, eventually, stays, text, within};
use crate::netns::Network;
use crate::skip::skip;

/// What every node listens on: each has an address of its own.
const PORT: u16 = 7470;

/// How long a host loses packets: each of its members is probed a dozen times and more, and its links have to send much again.
const LOSS_TIME: Duration = Duration::from_secs(60);

/// How many deploys are made in that time.
const LOSS_ROUNDS: u32 = 6;

/// How often all are asked whom they hold for dead.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a false death may stand at most.
const REFUTED_MAX: Duration = Duration::from_secs(10);

/// Twice as long as a member that cannot refute takes to be held for dead.
const ACCUSED_LONG: Duration = Duration::from_secs(10);

/// Members, each on a host of a star.
struct Hosts {
    cluster: Cluster,
    network: Network,
}

impl Hosts {
    /// So many members that all see one another; none where that cannot be had here.
    fn start(count: u8) -> Option<Self> {
        if let Some(why) = Network::missing() {
            skip("hosts with addresses of their own", &why);
            return None;
        }
        let mut hosts = Self { cluster: Cluster::empty(), network: Network::star(count) };
        for host in 0..count.into() {
            let mut node = hosts.cluster.host(&format!("n{}", host + 1));
            node.put_on(hosts.network.namespace(host), hosts.listen(host));
            hosts.cluster.admit(node);
        }
        hosts.cluster.settled();
        Some(hosts)
    }

    fn listen(&self, host: usize) -> String {
        format!("{}:{PORT}", self.network.address(host))
    }

    /// Waits until these members hold just these others for dead.
    fn see_down(&self, at: &[usize], down: &[usize]) {
        let down: BTreeSet<_> = down.iter().map(|host| self.cluster[*host].name.clone()).collect();
        for host in at {
            eventually(&format!("n{} to see {down:?} down", host + 1), || {
                (self.cluster[*host].with_status("down") == down).then_some(())
            });
        }
    }

    /// Waits until nobody names anything as wrong, and every service runs as wanted everywhere.
    fn are_well(&self) {
        for node in &self.cluster.nodes {
            let mut last = Value::Null;
            let well = within(WAIT_MAX, || {
                last = node.json(&["status"]);
                let problems = last["problems"].as_array().expect("a list");
                let services = last["services"].as_array().expect("a list");
                let as_wanted = services
                    .iter()
                    .all(|service| service["running"] == service["desired"] && service["ready"] == service["desired"]);
                (problems.is_empty() && as_wanted).then_some(())
            });
            assert!(well.is_some(), "{} is not content: {last:#}", node.name);
        }
    }
}

impl Node {
    /// Members of this status, as this node sees them.
    fn with_status(&self, wanted: &str) -> BTreeSet<String> {
        self.members().into_iter().filter(|(_, status)| status == wanted).map(|(name, _)| name).collect()
    }

    /// Since when each member is what it is, as this node sees it.
    fn since(&self) -> BTreeMap<String, String> {
        let list = self.json(&["node", "list"]);
        list.as_array().expect("a list").iter().map(|row| (text(&row["name"]), text(&row["since"]))).collect()
    }

    /// Deploys a service that runs anywhere.
    #[track_caller]
    fn deploys(&self, service: &str, replicas: &str, program: &str) {
        self.ok(&["deploy", "--name", service, "--tag", "v1", "--node", "any", "--replicas", replicas, program]);
    }

    /// Whether this node knows of a service.
    fn knows(&self, service: &str) -> bool {
        self.run(&["service", "info", service]).code == 0
    }

    /// On how many of these nodes a service's instances run.
    fn running_among(&self, service: &str, nodes: &[&str]) -> usize {
        let here = self.instances(service).into_iter().filter(|one| nodes.contains(&one.node.as_str()));
        here.filter(|one| one.runs() && one.ready && one.wanted).count()
    }
}

/// Tells how long something took.
fn tell(what: &str, since: Instant) {
    eprintln!("{what} {:.1} s", since.elapsed().as_secs_f64());
}

#[test]
fn both_sides_of_a_partition_go_on_and_are_one_again_when_it_heals() {
    let Some(mut hosts) = Hosts::start(5) else { return };
    let program = hosts.cluster.sleeper();
    hosts.cluster[0].deploys("web", "5", &program);
    for node in &hosts.cluster.nodes {
        node.running("web", 5);
    }

    let (one, other) = ([0, 1], [2, 3, 4]);
    let (cut, cut_at) = (Instant::now(), Utc::now());
    hosts.network.cut(&one, &other);
    hosts.see_down(&one, &other);
    hosts.see_down(&other, &one);
    tell("a partition was noticed by all after", cut);
    for (side, beyond) in [(&one[..], &other[..]), (&other, &one)] {
        for host in side {
            let told = problems(&hosts.cluster[*host]);
            for name in beyond.iter().map(|host| &hosts.cluster[*host].name) {
                let told = told.get(name).unwrap_or_else(|| panic!("{name} is not told of: {told:?}"));
                let since = told.strip_prefix("out of reach since ").unwrap_or_else(|| panic!("{told}"));
                let since: DateTime<Utc> = since.parse().expect("a time");
                assert!(cut_at <= since && since <= Utc::now(), "cut at {cut_at}, told: {since}");
            }
        }
    }

    // Each side takes deploys, runs what was on the other one, and changes the same service.
    let cluster = &hosts.cluster;
    cluster[1].deploys("left", "2", &program);
    cluster[3].deploys("right", "2", &program);
    cluster[0].ok(&["service", "scale", "web", "4"]);
    cluster[4].ok(&["service", "scale", "web", "6"]);
    for (at, service, count, side) in [
        (0, "left", 2, &["n1", "n2"][..]),
        (2, "right", 2, &["n3", "n4", "n5"]),
        (1, "web", 4, &["n1", "n2"]),
        (3, "web", 6, &["n3", "n4", "n5"]),
    ] {
        eventually(&format!("{service} to run {count} times on {side:?}"), || {
            (cluster[at].running_among(service, side) == count).then_some(())
        });
    }
    assert!(!cluster[0].knows("right") && !cluster[2].knows("left"), "nothing passes");

    let healed = Instant::now();
    hosts.network.heal();
    hosts.cluster.settled();
    tell("its healing was noticed by all after", healed);
    let cluster = &hosts.cluster;
    for node in &cluster.nodes {
        eventually("both sides' deploys", || (node.knows("left") && node.knows("right")).then_some(()));
    }
    let agreed = eventually("one truth", || {
        let all: Vec<_> = cluster.nodes.iter().map(|node| node.json(&["service", "history", "web"])).collect();
        all.iter().all(|history| *history == all[0] && scales(history).len() == 2).then(|| all[0].clone())
    });
    tell("the changes of both sides were everywhere after", healed);
    // One of the two scales holds, the other one lost and is shown.
    let statuses: BTreeSet<_> = scales(&agreed).iter().map(|scale| text(&scale["status"])).collect();
    assert_eq!(statuses, BTreeSet::from(["current".to_owned(), "superseded".to_owned()]), "{agreed:#}");
    let current = scales(&agreed).into_iter().find(|scale| scale["status"] == "current").expect("one");
    let wanted = if current["author"] == "n1" { 4 } else { 6 };
    for node in &cluster.nodes {
        node.running("web", wanted);
        node.running("left", 2);
        node.running("right", 2);
    }
    hosts.are_well();
    tell("all ran as wanted after", healed);
}

/// What a node says is wrong, by subject.
fn problems(node: &Node) -> BTreeMap<String, String> {
    let status = node.json(&["status"]);
    let problems = status["problems"].as_array().expect("a list").iter();
    problems.map(|problem| (text(&problem["subject"]), text(&problem["message"]))).collect()
}

fn scales(history: &Value) -> Vec<Value> {
    let revisions = history.as_array().expect("a list").iter();
    revisions.filter(|revision| revision["cause"] == "scale").cloned().collect()
}

/// Who is held for dead and lives, as far as looks show it.
#[derive(Debug, Default)]
struct Deaths {
    /// By whom, who, and since when.
    standing: BTreeMap<(String, String), Instant>,
    longest: Duration,
}

impl Deaths {
    fn look(&mut self, nodes: &[Node]) {
        for node in nodes {
            let down = node.with_status("down");
            for name in &down {
                self.standing.entry((node.name.clone(), name.clone())).or_insert_with(Instant::now);
            }
            self.standing.retain(|(by, name), since| {
                self.longest = self.longest.max(since.elapsed());
                *by != node.name || down.contains(name)
            });
        }
    }
}

#[test]
fn who_loses_a_fifth_of_what_it_sends_is_not_held_for_dead() {
    let Some(mut hosts) = Hosts::start(5) else { return };
    let program = hosts.cluster.sleeper();
    let before: Vec<_> = hosts.cluster.nodes.iter().map(Node::since).collect();
    hosts.network.lose(2, 20);
    let begun = Instant::now();
    let mut deaths = Deaths::default();
    for round in 1..=LOSS_ROUNDS {
        // News passes all the while, from who loses and to it.
        let service = format!("news-{round}");
        hosts.cluster[if round % 2 == 0 { 2 } else { 0 }].deploys(&service, "1", &program);
        while begun.elapsed() < LOSS_TIME * round / LOSS_ROUNDS || !deaths.standing.is_empty() {
            deaths.look(&hosts.cluster.nodes);
            assert!(deaths.longest < REFUTED_MAX, "not refuted: {deaths:?}");
            std::thread::sleep(LOOK_INTERVAL);
        }
        for node in &hosts.cluster.nodes {
            eventually("the news", || node.knows(&service).then_some(()));
        }
    }
    let dropped = hosts.network.dropped();
    assert!(dropped > 100, "only {dropped} packets were lost");
    hosts.network.heal();
    hosts.cluster.settled();
    // One that was over between two looks has left its mark: who was held for dead is alive since then.
    let after: Vec<_> = hosts.cluster.nodes.iter().map(Node::since).collect();
    let marked: usize =
        before.iter().zip(&after).map(|(a, b)| a.iter().filter(|(name, at)| b[*name] != **at).count()).sum();
    eprintln!(
        "with 20 % of one host's packets lost for {LOSS_TIME:?}: {marked} of 20 views had a false death, of {:?} at most",
        deaths.longest
    );
    hosts.are_well();
}

#[test]
fn two_that_cannot_reach_one_another_hear_of_everything_through_others() {
    let Some(mut hosts) = Hosts::start(4) else { return };
    let program = hosts.cluster.sleeper();
    let before: Vec<_> = hosts.cluster.nodes.iter().map(Node::since).collect();
    hosts.network.cut_one_way(0, 1);
    // The connection dies of it, on both sides.
    for node in &hosts.cluster.nodes[..2] {
        eventually("the silence to be noticed", || node.log().contains("disconnected").then_some(()));
    }
    stays("nobody held for dead", ACCUSED_LONG, || {
        hosts.cluster.nodes.iter().all(|node| node.with_status("down").is_empty())
    });
    let begun = Instant::now();
    hosts.cluster[0].deploys("of-n1", "2", &program);
    hosts.cluster[1].deploys("of-n2", "2", &program);
    for node in &hosts.cluster.nodes {
        eventually("the news of both", || (node.knows("of-n1") && node.knows("of-n2")).then_some(()));
    }
    tell("over a one-way cut news passed within", begun);
    let after: Vec<_> = hosts.cluster.nodes.iter().map(Node::since).collect();
    assert_eq!(before, after, "nobody was held for dead at any time");
    hosts.network.heal();
    hosts.cluster.settled();
    hosts.are_well();
}

#[test]
fn a_host_whose_cable_is_pulled_is_missed_and_comes_back() {
    let Some(hosts) = Hosts::start(3) else { return };
    let program = hosts.cluster.sleeper();
    hosts.cluster[0].deploys("web", "3", &program);
    for node in &hosts.cluster.nodes {
        node.running("web", 3);
    }
    let pulled = hosts.cluster[2].instances("web").into_iter().find(|one| one.node == "n3").expect("one on each").pid();
    let unplugged = Instant::now();
    hosts.network.unplug(2);
    hosts.see_down(&[0, 1], &[2]);
    tell("a pulled cable was noticed by the others after", unplugged);
    hosts.see_down(&[2], &[0, 1]);
    tell("and by the lone one after", unplugged);
    hosts.cluster[0].deploys("meanwhile", "1", &program);
    // It goes on with what it runs, and takes changes.
    assert_eq!(hosts.cluster[2].ok(&["node", "label", "n3", "alone=yes"]), "alone=yes\n");
    assert!(crate::host::lives(pulled));
    let plugged = Instant::now();
    hosts.network.plug(2);
    hosts.cluster.settled();
    tell("its return was noticed by all after", plugged);
    eventually("what it missed", || hosts.cluster[2].knows("meanwhile").then_some(()));
    eventually("what it did", || {
        (hosts.cluster[0].json(&["node", "info", "n3"])["labels"]["alone"] == "yes").then_some(())
    });
    hosts.are_well();
}

#[test]
fn one_that_is_removed_beyond_a_partition_is_told_when_it_heals() {
    let Some(mut hosts) = Hosts::start(5) else { return };
    let (one, other) = ([0, 1, 2], [3, 4]);
    hosts.network.cut(&one, &other);
    hosts.see_down(&one, &other);
    hosts.see_down(&other, &one);
    hosts.cluster[0].ok(&["node", "remove", "n5", "-y"]);
    // Beyond the cut nobody knows, and both go on.
    assert_eq!(hosts.cluster[3].with_status("alive"), BTreeSet::from(["n4".to_owned(), "n5".to_owned()]));
    hosts.cluster[4].ok(&["node", "label", "n4", "by=n5"]);
    let healed = Instant::now();
    hosts.network.heal();
    let mut removed = hosts.cluster.nodes.pop().expect("n5");
    removed.ends_with(1);
    tell("one removed beyond a partition ended after its healing by", healed);
    assert!(removed.log().contains("`n5` was removed from the cluster by `n1`"), "{}", removed.log());
    hosts.cluster.settled();
    tell("the others agreed on that after", healed);
    hosts.are_well();
}

#[test]
fn a_host_with_a_new_address_is_found_by_all() {
    let Some(mut hosts) = Hosts::start(3) else { return };
    let at = |hosts: &Hosts, host: usize| text(&hosts.cluster[host].json(&["node", "info", "n3"])["addresses"][0]);
    hosts.cluster[2].signal(libc::SIGTERM);
    hosts.cluster[2].ends();
    hosts.network.move_host(2, Ipv4Addr::new(10, 77, 3, 3));
    let listen = hosts.listen(2);
    let moved = Instant::now();
    hosts.cluster[2].launch(&["start", "--listen", "0.0.0.0:7470", "--advertise", &listen]);
    hosts.cluster.settled();
    tell("a host that moved was seen by all after", moved);
    for host in 0..3 {
        eventually("its new address", || (at(&hosts, host) == listen).then_some(()));
    }

    // From now on it cannot dial: whoever has it has gone to its new address, those included that were started again.
    hosts.network.keep_from_dialling(2);
    hosts.cluster[2].crash();
    hosts.see_down(&[0, 1], &[2]);
    hosts.cluster[0].crash();
    hosts.cluster[0].start();
    let back = Instant::now();
    hosts.cluster[2].start();
    hosts.cluster.settled();
    tell("one that cannot dial was found by all after", back);
    assert_eq!(at(&hosts, 0), listen);
    hosts.are_well();
}
