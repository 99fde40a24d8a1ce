//! Five hosts of a star, and what befalls them: each trouble is made, lasts, and is put right, and what was wrong when is written down for
//! the checker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::checker::Millis;
use super::checker::faults::{Fault, Faults, Kind};
use crate::cluster::{Cluster, text};
use crate::netns::Network;

/// What every node listens on: each has an address of its own.
const PORT: u16 = 7470;

/// Room on the small disk: far more than an empty node needs, and filled in a moment.
const SMALL_DISK: &str = "48m";

/// What befalls hosts, which are counted from 0.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// These and all others do not reach one another.
    Cut(Vec<usize>),
    /// Two, two and one: nobody has a majority.
    Shattered,
    /// What this one sends arrives nowhere, and what is sent to it arrives.
    Mute(usize),
    /// What is sent to this one does not arrive, and what it sends arrives.
    Deaf(usize),
    /// Nothing goes from one to another; everybody else reaches both.
    OneWay(usize, usize),
    /// The node process stands still (SIGSTOP); its keeper and its runs do not.
    Frozen(usize),
    /// The node process is killed and started again later; its keeper and its runs live on.
    Crashed(usize),
    /// Node, keeper and runs are killed, and the node is started again later.
    Dead(usize),
    /// The disk of the node that has a small one is full.
    Full,
}

/// The hosts.
pub(super) struct Field {
    pub(super) cluster: Cluster,
    network: Network,
    pub(super) faults: Faults,
    disk: SmallDisk,
}

impl Field {
    /// So many members that all see one another. The last one has a small disk.
    pub(super) fn start(count: u8) -> Self {
        let cluster = Cluster::empty();
        let network = Network::star(count);
        let disk = SmallDisk { folder: None };
        let mut field = Self { cluster, network, faults: Faults::default(), disk };
        for host in 0..usize::from(count) {
            let name = format!("n{}", host + 1);
            let mut node = field.cluster.host(&name);
            if host + 1 == usize::from(count) {
                field.disk.mount(node.data_dir());
            }
            node.put_on(field.network.namespace(host), format!("{}:{PORT}", field.network.address(host)));
            field.cluster.admit(node);
            field.faults.nodes.push(name);
        }
        field.cluster.settled();
        field
    }

    pub(super) fn count(&self) -> usize {
        self.faults.nodes.len()
    }

    /// The host whose disk is small.
    fn small(&self) -> usize {
        self.count() - 1
    }

    /// Who leads the ledger, as whoever answers first says; none where nobody knows.
    pub(super) fn leader(&self) -> Option<usize> {
        self.cluster.nodes.iter().find_map(|node| {
            let answer = node.run(&["status", "-o", "json"]);
            let status: serde_json::Value = serde_json::from_str(&answer.stdout).ok()?;
            let leader = text(&status["ledger"]["leader"]);
            self.faults.nodes.iter().position(|name| *name == leader)
        })
    }

    /// Makes a trouble, lets it last, and puts it right.
    pub(super) fn suffer(&mut self, trouble: &Trouble, lasts: Duration) {
        let (from, kinds) = (millis(), self.kinds(trouble));
        self.make(trouble);
        eprintln!("{from}: {trouble:?} for {:.1} s", lasts.as_secs_f64());
        // The time itself is what is waited for.
        std::thread::sleep(lasts);
        self.put_right(trouble);
        let until = millis();
        self.faults.all.extend(kinds.into_iter().map(|kind| Fault { kind, from, until }));
    }

    fn make(&mut self, trouble: &Trouble) {
        let cluster = &mut self.cluster;
        match trouble {
            Trouble::Frozen(host) => cluster[*host].signal(libc::SIGSTOP),
            Trouble::Crashed(host) => cluster[*host].crash(),
            Trouble::Dead(host) => cluster[*host].die(),
            Trouble::Full => self.disk.fill(),
            Trouble::Shattered => {
                self.network.cut(&[0, 1], &[2, 3, 4]);
                self.network.cut(&[2, 3], &[4]);
            }
            Trouble::Cut(side) => {
                let others = self.others(side);
                self.network.cut(side, &others);
            }
            Trouble::Mute(host) => self.others(&[*host]).into_iter().for_each(|to| self.network.cut_one_way(*host, to)),
            Trouble::Deaf(host) => {
                self.others(&[*host]).into_iter().for_each(|from| self.network.cut_one_way(from, *host));
            }
            Trouble::OneWay(from, to) => self.network.cut_one_way(*from, *to),
        }
    }

    fn put_right(&mut self, trouble: &Trouble) {
        let small = self.small();
        match trouble {
            Trouble::Frozen(host) => self.cluster[*host].signal(libc::SIGCONT),
            Trouble::Crashed(host) | Trouble::Dead(host) => self.cluster[*host].start(),
            Trouble::Full => {
                self.disk.empty();
                // A node that cannot write what it promises ends.
                if !self.cluster[small].is_up() {
                    self.cluster[small].crash();
                    self.cluster[small].start();
                }
            }
            Trouble::Shattered | Trouble::Cut(_) | Trouble::Mute(_) | Trouble::Deaf(_) | Trouble::OneWay(..) => {
                self.network.heal();
            }
        }
    }

    fn others(&self, side: &[usize]) -> Vec<usize> {
        (0..self.count()).filter(|host| !side.contains(host)).collect()
    }

    /// What is wrong while it lasts, in the checker's words.
    fn kinds(&self, trouble: &Trouble) -> Vec<Kind> {
        let names = |hosts: &[usize]| hosts.iter().map(|host| self.faults.nodes[*host].clone()).collect::<Vec<_>>();
        let one_way = |from: &[usize], to: &[usize]| Kind::Cut { from: names(from), to: names(to) };
        let cut = |one: &[usize], other: &[usize]| [one_way(one, other), one_way(other, one)];
        let down = |host: usize| vec![Kind::Down(self.faults.nodes[host].clone())];
        match trouble {
            Trouble::Cut(side) => cut(side, &self.others(side)).into(),
            Trouble::Shattered => [cut(&[0, 1], &[2, 3, 4]), cut(&[2, 3], &[4])].concat(),
            Trouble::Mute(host) => vec![one_way(&[*host], &self.others(&[*host]))],
            Trouble::Deaf(host) => vec![one_way(&self.others(&[*host]), &[*host])],
            Trouble::OneWay(from, to) => vec![one_way(&[*from], &[*to])],
            Trouble::Frozen(host) | Trouble::Crashed(host) | Trouble::Dead(host) => down(*host),
            Trouble::Full => down(self.small()),
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // Whoever has files on the small disk goes before it does.
        self.cluster.nodes.clear();
        self.disk.unmount();
    }
}

/// A small file system of its own in the place of one node's data directory.
struct SmallDisk {
    folder: Option<PathBuf>,
}

impl SmallDisk {
    fn mount(&mut self, folder: &Path) {
        let options = format!("size={SMALL_DISK},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "narun-test"]).arg(folder).status();
        assert!(mounted.is_ok_and(|status| status.success()), "cannot mount on {}", folder.display());
        self.folder = Some(folder.to_owned());
    }

    fn filler(&self) -> PathBuf {
        self.folder.as_deref().expect("it was mounted").join("filler")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).expect("an empty file takes no room");
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![7; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("the file that filled it");
    }

    fn unmount(&mut self) {
        if let Some(folder) = self.folder.take() {
            // What hangs on to it must not keep it in everybody's sight.
            let unmounted = Command::new("umount").arg("--lazy").arg(&folder).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("cannot unmount {}", folder.display());
            }
        }
    }
}

/// Now, since 1970.
pub(super) fn millis() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    now.as_millis().try_into().expect("it is before the year 500 million")
}
