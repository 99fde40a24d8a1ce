#!/usr/bin/env python3
"""Many instances on one node: how soon they run, stop, and are found again, and what each costs in memory.

Starts a node in a temporary directory, runs `sleep` in it, prints the figures as one JSON object, and ends everything that it
started. The program is $NARUN_BIN, or else target/debug/narun.

  benches/instances/many.py [--up 500] [--many 1000]
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# Longest wait for anything: a debug build on a busy machine is slow.
WAIT_MAX_S = 120


class Api(http.client.HTTPConnection):
    """HTTP over the node's socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=WAIT_MAX_S)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_MAX_S)
        self.sock.connect(self.path)


class Node:
    """One node with a data directory of its own."""

    def __init__(self, binary, dir):
        self.binary = binary
        self.data = dir / "data"
        self.log = open(dir / "log", "ab")
        self.process = None

    def start(self):
        words = [self.binary, "start", "--data-dir", self.data]
        if not self.data.exists():
            words += ["--name", "n1", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, process_group=0
        )

    def narun(self, *words):
        environment = {**os.environ, "NARUN_DATA_DIR": str(self.data)}
        environment.pop("NARUN_API", None)
        done = subprocess.run([self.binary, *words], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"narun {' '.join(words)}: {done.stderr}")
        return done.stdout

    def get(self, path):
        """What the API answers; None while there is nobody to answer."""
        api = Api(self.data / "narun.sock")
        try:
            api.request("GET", path)
            answer = api.getresponse()
            return json.load(answer) if answer.status == 200 else None
        except OSError:
            return None
        finally:
            api.close()

    def counts(self, service):
        status = self.get("/v1/status") or {"services": []}
        found = [one for one in status["services"] if one["service"] == service]
        return found[0] if found else {"running": -1, "ready": -1, "desired": -1}

    def pids(self, service):
        info = self.get(f"/v1/services/{service}")
        return [one["pid"] for one in info["instances"] if one["pid"]]

    def keeper(self):
        return int((self.data / "keeper.pid").read_text())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(WAIT_MAX_S)


def until(what, condition, interval=0.005):
    """Seconds until `condition` holds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > WAIT_MAX_S:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(interval)
    return time.monotonic() - begun


def lives(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state not in "ZX"
    except OSError:
        return False


def rss_kib(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def deploy(node, service, replicas, sleep):
    return node.narun(
        "deploy", "--name", service, "--tag", "v1", "--replicas", str(replicas), "--arg", "86400", sleep
    )


def measure(node, sleep, up, many):
    node.start()
    until("the node to serve", lambda: node.get("/v1/version"))
    # The binary is there, and everything has been used once.
    deploy(node, "first", 1, sleep)
    until("the first to run", lambda: node.counts("first")["running"] == 1)
    figures = {"up_count": up, "many_count": many}

    begun = time.monotonic()
    deploy(node, "up", up, sleep)
    until("all to run", lambda: node.counts("up")["running"] == up)
    figures["all_up_s"] = time.monotonic() - begun
    pids = node.pids("up")
    assert len(pids) == up and all(lives(pid) for pid in pids)

    begun = time.monotonic()
    node.narun("service", "stop", "up")
    until("all to have ended", lambda: not any(lives(pid) for pid in pids))
    figures["all_stopped_s"] = time.monotonic() - begun
    until("the node to have seen it", lambda: not node.pids("up"))
    node.narun("service", "delete", "up", "-y")

    before = {"node": rss_kib(node.process.pid), "keeper": rss_kib(node.keeper())}
    begun = time.monotonic()
    deploy(node, "many", many, sleep)
    until("all to be ready", lambda: node.counts("many")["ready"] == many, 0.05)
    figures["many_ready_s"] = time.monotonic() - begun
    after = {"node": rss_kib(node.process.pid), "keeper": rss_kib(node.keeper())}
    for process in before:
        figures[f"{process}_kib_per_instance"] = (after[process] - before[process]) / many
    figures["kib_per_instance"] = sum(after[process] - before[process] for process in before) / many

    pids = node.pids("many")
    node.process.kill()
    node.process.wait()
    begun = time.monotonic()
    node.start()
    until("the node to be back", lambda: node.counts("many")["running"] == many)
    figures["back_in_charge_s"] = time.monotonic() - begun
    assert node.pids("many") == pids and all(lives(pid) for pid in pids), "an instance was disturbed"

    # One falls over: how long it is away, by the clock of the kernel.
    falls = []
    for _ in range(5):
        victim = node.pids("first")[0]
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        until("it to come back", lambda: node.pids("first") not in ([], [victim]), 0.002)
        falls.append(time.monotonic() - begun)
    figures["crash_to_restarted_first_s"] = falls[0]

    begun = time.monotonic()
    node.stop()
    figures["node_with_all_ended_s"] = time.monotonic() - begun
    assert not any(lives(pid) for pid in pids), "an instance was left behind"
    return figures


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--up", type=int, default=500, help="how many to start and stop")
    words.add_argument("--many", type=int, default=1000, help="how many to hold, and to find again")
    asked = words.parse_args()
    # Asked to end, it ends what it started, as on any failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    here = pathlib.Path(__file__).resolve().parent.parent.parent
    binary = os.environ.get("NARUN_BIN") or str(here / "target" / "debug" / "narun")
    with tempfile.TemporaryDirectory(prefix="narun-instances-") as dir:
        node = Node(binary, pathlib.Path(dir))
        try:
            figures = measure(node, shutil.which("sleep"), asked.up, asked.many)
        except BaseException:
            sys.stderr.write((pathlib.Path(dir) / "log").read_text()[-4000:])
            raise
        finally:
            node.stop()
    print(json.dumps({name: round(figure, 4) for name, figure in figures.items()}))


main()
