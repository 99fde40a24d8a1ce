"""Real nodes of narun on this machine: on its loopback interface, or each on a host of its own round a router."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

# How long anything may take that nobody measures: a debug build on a busy machine is slow.
WAIT_MAX_S = 120
LOOK_EVERY_S = 0.02
# How many deploys are under way at once: as many as share a write to the disk well.
DEPLOYERS = 16
PORT = 7470
ROUTER = "169.254.7.1"


class GivenUp(Exception):
    """Something that should have happened did not."""


def until(what, condition, longest=WAIT_MAX_S):
    """What `condition` gives, once it gives something."""
    deadline = time.monotonic() + longest
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise GivenUp(f"waited {longest} s in vain: {what}")
        time.sleep(LOOK_EVERY_S)
    return found


class Api(http.client.HTTPConnection):
    """HTTP over a node's socket; one connection, used again."""

    def __init__(self, path):
        super().__init__("localhost", timeout=WAIT_MAX_S)
        # Relative, since a socket's path may have 107 bytes only.
        self.path = os.path.relpath(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_MAX_S)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        self.request(method, path, content, {"content-type": "application/json"} if content else {})
        answer = self.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise GivenUp(f"{method} {path}: {answer.status} {text[:500].decode(errors='replace')}")
        return json.loads(text)


class Node:
    """A process, and its data directory."""

    def __init__(self, binary, folder, name, listen="127.0.0.1:0", namespace=None):
        self.binary, self.name, self.listen, self.namespace = binary, name, listen, namespace
        self.data, self.log = folder / name, folder / f"{name}.log"
        self.process = None

    def launch(self, *words):
        enter = ["nsenter", f"--net=/run/netns/{self.namespace}", "--"] if self.namespace else []
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NARUN")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*enter, self.binary, *words, "--data-dir", self.data], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )
        until(f"{self.name} serves", self.serves)

    def found(self):
        self.launch("start", "--name", self.name, "--listen", self.listen)

    def join(self, ticket):
        self.launch("join", ticket, "--name", self.name, "--listen", self.listen)

    def start(self):
        self.launch("start")

    def serves(self):
        if self.process.poll() is not None:
            raise GivenUp(f"{self.name} has ended:\n{self.log.read_text(errors='replace')[-2000:]}")
        try:
            return self.ask("GET", "/v1/status")
        except (OSError, http.client.HTTPException, GivenUp):
            return None

    def ask(self, method, path, body=None):
        api = Api(self.data / "narun.sock")
        try:
            return api.ask(method, path, body)
        finally:
            api.close()

    def ticket(self, uses):
        command = [self.binary, "ticket", "create", "--uses", str(uses), "--data-dir", self.data]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def keeper(self):
        """The keeper's process number, if it lives."""
        try:
            pid = int((self.data / "keeper.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if b"keeper" in words and os.fsencode(self.data) in words else None

    def kill(self):
        """A host's death: nothing of it goes on, and nobody is told."""
        for pid in [self.process.pid, self.keeper()]:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(WAIT_MAX_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def processor_s(self):
        """Processor time of the node process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Cluster:
    """Members that see one another. `with` forms the cluster and ends it."""

    def __init__(self, binary, folder, size, star=None):
        folder.mkdir(parents=True)
        hosts = [star.host(number) for number in range(size)] if star else [("127.0.0.1:0", None)] * size
        self.nodes = [Node(binary, folder, f"n{number + 1}", *host) for number, host in enumerate(hosts)]

    def __enter__(self):
        try:
            first, *others = self.nodes
            first.found()
            if others:
                ticket = first.ticket(len(others))
            for node in others:
                node.join(ticket)
            until("all see one another", self.is_whole)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        threads = [threading.Thread(target=node.stop) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def is_whole(self):
        names = {node.name for node in self.nodes}
        return all({member["name"] for member in node.ask("GET", "/v1/nodes") if member["status"] == "alive"} == names
                   for node in self.nodes)

    def leader(self):
        """The node that leads the ledger, by the word of all who say something; none while they differ."""
        told = {node.ask("GET", "/v1/status").get("ledger", {}).get("leader") for node in self.nodes}
        found = [node for node in self.nodes if told == {node.name}]
        return found[0] if found else None

    def deploy(self, specs, program):
        """Deploys specifications, given as YAML by name, all with one program; many at once."""
        stored = self.nodes[0].ask("POST", "/v1/blobs", Path(program).read_bytes())
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        image = {"os": "linux", "arch": machine, "file_name": "stamp", **stored}
        waiting, troubles, lock = list(specs.items()), [], threading.Lock()

        def work():
            api = Api(self.nodes[0].data / "narun.sock")
            while not troubles:
                with lock:
                    if not waiting:
                        break
                    name, spec = waiting.pop()
                try:
                    api.ask("POST", "/v1/services", {"spec": f"name: {name}\ntag: v1\n{spec}", "images": [image]})
                except Exception as trouble:  # Whatever it is, the others are to stop and all of it is to be told.
                    troubles.append(trouble)
            api.close()

        threads = [threading.Thread(target=work) for _ in range(min(DEPLOYERS, len(waiting)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if troubles:
            raise troubles[0]


class Star:
    """Hosts round a router, each a network namespace. Nothing leads from there to this machine's network, and who calls this has a
    place of his own for their names: they end with it."""

    def __init__(self, size):
        self.size = size
        self.run("ip", "netns", "add", "router")
        self.within("router", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        self.faults([])
        for number in range(size):
            name, address = f"h{number}", self.address(number)
            self.run("ip", "netns", "add", name)
            self.run("ip", "-n", "router", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            self.run("ip", "-n", "router", "addr", "add", ROUTER, "peer", address, "dev", name)
            self.run("ip", "-n", "router", "link", "set", name, "up")
            self.run("ip", "-n", name, "link", "set", "lo", "up")
            self.run("ip", "-n", name, "addr", "add", address, "peer", ROUTER, "dev", "eth0")
            self.run("ip", "-n", name, "link", "set", "eth0", "up")
            self.run("ip", "-n", name, "route", "add", "default", "via", ROUTER, "src", address)

    @staticmethod
    def run(*words, lines=None):
        done = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise GivenUp(f"{' '.join(words)}: {done.stderr}")

    def within(self, name, *words, lines=None):
        self.run("nsenter", f"--net=/run/netns/{name}", "--", *words, lines=lines)

    @staticmethod
    def address(number):
        return f"10.77.0.{number + 1}"

    def host(self, number):
        return f"{self.address(number)}:{PORT}", f"h{number}"

    def faults(self, rules):
        table = "table inet faults\ndelete table inet faults\ntable inet faults {\nchain forward {\n"
        table += "type filter hook forward priority 0; policy accept;\n" + "".join(f"{rule}\n" for rule in rules) + "}\n}\n"
        self.within("router", "nft", "-f", "-", lines=table)

    def cut_off(self, number):
        """Nothing passes any more between a host and all others."""
        self.faults([f"ip {end} {self.address(number)} drop" for end in ("saddr", "daddr")])

    def heal(self):
        self.faults([])
