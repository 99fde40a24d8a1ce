//! Programs that nobody here wrote, each under limits and under Landlock with the groups that it needs: they serve what they always
//! serve, and cannot reach what was not opened to them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cluster::{Cluster, eventually, free_port, http_get, program};
use crate::host::is_root;
use crate::skip::skip;

/// What all of them are held by.
const LIMITS: &str = "memoryMaxMB: 512\ncpuCores: 1\npidsMax: 200\n";

/// Deploys a program by this specification on a node of its own, where limits can be set.
fn deployed(name: &str, binary: &str, fields: &str) -> Cluster {
    let cluster = Cluster::start(1);
    // An ordinary user's node may have no control groups to set limits in.
    let limits = if is_root() { LIMITS } else { "" };
    let config = cluster.file(
        &format!("{name}.yaml"),
        format!("name: {name}\ntag: v1\nnodes: [{{name: n1}}]\nmode: landlock\n{limits}{fields}"),
    );
    cluster[0].ok(&["deploy", "--config", &config, binary, "--wait"]);
    cluster
}

/// A folder for a program's files, open to it by `landlock.paths`.
fn folder(cluster_file: &str) -> &Path {
    Path::new(cluster_file).parent().expect("a file stands in a folder")
}

/// What a text protocol answers to one line.
fn asked(port: u16, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    Some(answer.trim_end().to_owned())
}

#[test]
fn redis_answers_and_keeps_its_data_in_its_own_folder() {
    let Some(redis) = program("redis-server") else { return skip("redis", "no redis-server is installed") };
    let port = free_port();
    let fields = format!(
        "args: ['--port', '{port}', '--bind', '127.0.0.1', '--dir', '.', '--save', '']\n\
         landlock: {{shared: true, stdio: true, vminfo: true, bindPorts: [{port}]}}\n"
    );
    let cluster = deployed("redis", &redis, &fields);
    assert_eq!(eventually("an answer", || asked(port, "PING")), "+PONG");
    assert_eq!(asked(port, "SET colour green").as_deref(), Some("+OK"));
    assert_eq!(asked(port, "SAVE").as_deref(), Some("+OK"), "it may write to its working directory");
    // What is not opened to it is closed even to its own commands.
    let refused = asked(port, "CONFIG SET dir /etc").unwrap();
    assert!(refused.starts_with("-ERR"), "{refused}");
    assert_eq!(cluster[0].running("redis", 1).len(), 1);
}

#[test]
fn nginx_serves_what_was_opened_to_it_and_nothing_else() {
    let Some(nginx) = program("nginx") else { return skip("nginx", "no nginx is installed (package nginx-light)") };
    let port = free_port();
    let files = Cluster::empty();
    let page = files.file("page.html", "hello from nginx\n");
    let closed = files.file("closed.html", "not opened to anybody\n");
    let config = files.file(
        "nginx.conf",
        format!(
            "daemon off; pid nginx.pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             server {{ listen 127.0.0.1:{port}; location /page {{ root {home}; }} location /closed {{ root {closed}; }} }} }}\n",
            home = folder(&page).display(),
            closed = folder(&closed).display()
        ),
    );
    // Its workers are another user's.
    fs::set_permissions(files.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    // Its master is root and gives that up for its workers, by the capabilities that root has without asking.
    let fields = format!(
        "args: ['-e', 'stderr', '-p', '.', '-c', '{config}']\n\
         landlock: {{shared: true, stdio: true, vminfo: true, dns: true, paths: [{{path: '{home}', modes: r}}, \
         {{path: '{config}', modes: r}}, {{path: /etc/nginx, modes: r}}, {{path: /var/lib/nginx, modes: rwc}}, {{path: /var/log/nginx, modes: rwc}}, \
         {{path: /etc/passwd, modes: r}}, {{path: /etc/group, modes: r}}]}}\n",
        home = folder(&page).display()
    );
    let _cluster = deployed("nginx", &nginx, &fields);
    assert_eq!(eventually("a page", || http_get(port, "/page.html")), "hello from nginx\n");
    // A file that everybody may read, and that was not opened to it.
    assert_eq!(http_get(port, "/closed.html"), None);
}

#[test]
fn busybox_serves_pages_without_any_library() {
    let Some(busybox) = program("busybox") else { return skip("busybox", "no busybox is installed") };
    let port = free_port();
    let files = Cluster::empty();
    let page = files.file("index.html", "hello from busybox\n");
    let home = folder(&page).display();
    let fields = format!(
        "args: [httpd, -f, -p, '127.0.0.1:{port}', -h, '{home}']\n\
         landlock: {{stdio: true, bindPorts: [{port}], connectPorts: [], paths: [{{path: '{home}', modes: r}}]}}\n"
    );
    let _cluster = deployed("busybox", &busybox, &fields);
    assert_eq!(eventually("a page", || http_get(port, "/index.html")), "hello from busybox\n");
}

#[test]
fn python_runs_a_script_that_finds_the_rest_closed() {
    if !Path::new("/usr/bin/python3").exists() {
        return skip("python", "no /usr/bin/python3 is installed");
    }
    let port = free_port();
    let files = Cluster::empty();
    let outside = files.file("closed.txt", "not opened to anybody\n");
    let script = files.file(
        "served.py",
        "#!/usr/bin/python3\n\
         import http.server, os, socketserver, sys, threading\n\
         def closed(path):\n\
         \x20   try:\n\
         \x20       open(path).read()\n\
         \x20       return 'open'\n\
         \x20   except PermissionError:\n\
         \x20       return 'closed'\n\
         open('own', 'w').write('x')\n\
         threading.Thread(target=lambda: None).start()\n\
         said = f'{closed(sys.argv[2])} {closed(\"own\")}'.encode()\n\
         class Handler(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.end_headers(); self.wfile.write(said)\n\
         socketserver.TCPServer.allow_reuse_address = True\n\
         socketserver.TCPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n",
    );
    let fields = format!(
        "args: ['{port}', '{outside}']\n\
         landlock: {{shared: true, stdio: true, dns: true, paths: [{{path: /usr/lib/python3, modes: r}}, {{path: /usr/lib, modes: rx}}, \
         {{path: /usr/bin, modes: rx}}]}}\n"
    );
    let _cluster = deployed("python", &script, &fields);
    assert_eq!(eventually("a page", || http_get(port, "/")), "closed open");
}

#[test]
fn caddy_written_in_go_serves_files() {
    let Some(caddy) = program("caddy") else { return skip("caddy", "no caddy is installed") };
    let port = free_port();
    let files = Cluster::empty();
    let page = files.file("page.txt", "hello from caddy\n");
    let home = folder(&page).display();
    let fields = format!(
        "args: [file-server, --listen, '127.0.0.1:{port}', --root, '{home}']\n\
         landlock: {{shared: true, stdio: true, dns: true, certs: true, vminfo: true, paths: [{{path: '{home}', modes: r}}, \
         {{path: /etc/mime.types, modes: r}}]}}\n"
    );
    let _cluster = deployed("caddy", &caddy, &fields);
    assert_eq!(eventually("a page", || http_get(port, "/page.txt")), "hello from caddy\n");
}
