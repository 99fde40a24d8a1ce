//! Every socket on which a running node listens, found by asking the kernel, and what each says to a stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use crate::cluster::{Cluster, Node, eventually, text};
use crate::host::is_root;

/// How long a stranger listens to a port that has said what it had to say: longer than a node takes to send it away.
const PATIENCE: Duration = Duration::from_secs(20);

/// The numbers of the sockets that a process holds open.
fn sockets_of(pid: i32) -> BTreeSet<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// A socket that takes connections or datagrams from others.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Listener {
    /// TCP: its port.
    Tcp(u16),
    /// UDP: its port.
    Udp(u16),
    /// A unix socket: its path, or what the kernel shows in place of one.
    Unix(String),
}

/// All listening sockets of a process in this network namespace.
fn listeners_of(pid: i32) -> Vec<Listener> {
    let own = sockets_of(pid);
    let mut found = Vec::new();
    let rows = |table: &str| -> Vec<Vec<String>> {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().expect("a port"), 16).expect("a port");
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for row in rows(table).iter().filter(|row| row[9].parse().is_ok_and(|inode: u64| own.contains(&inode))) {
            match table {
                // 0A is LISTEN.
                "tcp" | "tcp6" if row[3] == "0A" => found.push(Listener::Tcp(port(&row[1]))),
                "udp" | "udp6" => found.push(Listener::Udp(port(&row[1]))),
                _ => {}
            }
        }
    }
    for row in rows("unix").iter().filter(|row| row[6].parse().is_ok_and(|inode: u64| own.contains(&inode))) {
        // __SO_ACCEPTCON
        if u32::from_str_radix(&row[3], 16).is_ok_and(|flags| flags & 0x1_0000 != 0) {
            found.push(Listener::Unix(row.get(7).cloned().unwrap_or_default()));
        }
    }
    found.sort();
    found
}

/// The unix sockets that lie in a data directory, by name.
fn socket_files(dir: &Path) -> BTreeMap<String, fs::Metadata> {
    let files = fs::read_dir(dir).expect("the data directory").map(|file| file.expect("its entry"));
    let named =
        files.map(|file| (file.file_name().to_string_lossy().into_owned(), file.metadata().expect("it is there")));
    named.filter(|(_, metadata)| metadata.file_type().is_socket()).collect()
}

/// What a TCP port says to one who says this, until it closes.
fn said(address: SocketAddr, words: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(words);
    let mut said = Vec::new();
    let ended = stream.read_to_end(&mut said);
    let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(ended.as_ref().map_or_else(reset, |_| true), "it never closed: {ended:?}");
    said
}

fn port_says_nothing(node: &Node, secrets: &[String]) {
    let info = node.json(&["node", "info", &node.name]);
    let address: SocketAddr = text(&info["addresses"][0]).parse().expect("an address");
    let header = b"\x13/multistream/1.0.0\n";
    let list = [&header[..], b"\x03ls\n"].concat();
    let http = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";
    for words in
        [&b""[..], header, &list, http, b"\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
    {
        let said = said(address, words);
        // The protocol's own first line, and at most a `na` for what it does not know, or the one security protocol that it has.
        let rest = said.strip_prefix(header).unwrap_or(&said);
        assert!(
            [&b""[..], b"\x03na\n", b"\x09\x07/noise\n\n"].contains(&rest),
            "{:?} to {:?}",
            String::from_utf8_lossy(&said),
            words
        );
        for secret in secrets {
            assert!(!String::from_utf8_lossy(&said).contains(secret.as_str()), "it tells `{secret}`");
        }
    }
}

#[test]
fn a_node_listens_where_it_says_and_tells_strangers_nothing() {
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let status = node.json(&["status"]);
    let info = node.json(&["node", "info", "n1"]);
    let port = text(&info["addresses"][0]).parse::<SocketAddr>().expect("an address").port();
    let keeper = eventually("the keeper", || node.keeper_pid());

    let of_node = listeners_of(node.pid());
    let (tcp, unix): (Vec<_>, Vec<_>) = of_node.iter().partition(|listener| !matches!(listener, Listener::Unix(_)));
    assert_eq!(tcp, [&Listener::Tcp(port)], "one port, and no datagrams");
    assert_eq!(unix.len(), 1, "{unix:?}");
    let of_keeper = listeners_of(keeper);
    assert_eq!(of_keeper.len(), 1, "{of_keeper:?}");
    assert!(matches!(of_keeper[0], Listener::Unix(_)), "{of_keeper:?}");
    // An abstract socket would have no mode: whoever knows its name may speak to it.
    for listener in unix.into_iter().chain(&of_keeper) {
        let Listener::Unix(path) = listener else { unreachable!("looked at just now") };
        assert!(!path.is_empty() && !path.starts_with('@'), "{path:?} has no file");
    }

    let files = socket_files(node.data_dir());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["keeper.sock", "narun.sock"]);
    for (name, file) in &files {
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
        assert_eq!(file.uid(), fs::metadata("/proc/self").unwrap().uid(), "{name}");
    }

    port_says_nothing(node, &["n1".to_owned(), "narun".to_owned(), text(&status["version"]), text(&status["cluster"])]);
}

#[test]
fn other_users_are_refused_at_the_local_sockets() {
    if !is_root() {
        return crate::skip::skip("other_users_are_refused_at_the_local_sockets", "only root can become another user");
    }
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    // The temporary directories above are open to others, so that it is the sockets that refuse.
    let mut folder = Some(node.data_dir());
    while let Some(at) = folder.filter(|at| at.starts_with(std::env::temp_dir()) && *at != std::env::temp_dir()) {
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        folder = at.parent();
    }
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX, int(sys.argv[2]))\n\
        s.settimeout(10)\n\
        s.connect(sys.argv[1])\n\
        s.send(b'GET /v1/status HTTP/1.0\\r\\n\\r\\n')\n\
        print(s.recv(100))\n";
    for (socket, kind) in [("narun.sock", libc::SOCK_STREAM), ("keeper.sock", libc::SOCK_SEQPACKET)] {
        let path = node.data_dir().join(socket);
        let mut command = std::process::Command::new("setpriv");
        // The system's own: one in somebody's home is nothing that another user can run.
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "/usr/bin/python3", "-c", script]);
        let output = command.arg(&path).arg(kind.to_string()).output().expect("setpriv starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains("PermissionError"), "{socket}: {told}");
        assert!(output.stdout.is_empty(), "{socket}: {}", String::from_utf8_lossy(&output.stdout));
    }
    assert!(node.ok(&["status"]).contains("1 member"), "its own user is served");
}
