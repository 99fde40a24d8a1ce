#!/usr/bin/env python3
"""Measures a narun binary with real nodes on loopback, and prints what the README states as a Markdown table.

Only Python's standard library and rustc are used. Everything stands below one temporary folder; every process that is started
here is ended here.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# How long anything may take before the measurement is given up: hundreds of times what is expected.
WAIT_MAX_S = 60
# How often a condition is looked at. It is the error of what is not timed by the program itself.
LOOK_EVERY_S = 0.001
# Size of the deployed binary, as in the goal.
BINARY_LEN = 10_000_000
# A cluster that has just formed still exchanges state.
SETTLE_S = 15
IDLE_S = 30
IDLE_NODES = 10

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class GivenUp(Exception):
    pass


def wait_until(what, condition, every=LOOK_EVERY_S):
    deadline = time.monotonic() + WAIT_MAX_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise GivenUp(f"waited {WAIT_MAX_S} s in vain until {what}")
        time.sleep(every)
    return found


class Node:
    """One node: a process, and its data directory."""

    def __init__(self, narun, folder, name):
        self.narun, self.folder, self.name = narun, folder / name, name
        self.data = self.folder / "data"
        self.process = None
        self.data.mkdir(parents=True)

    def launch(self, *words):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NARUN_")}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.narun, *words, "--data-dir", self.data, "--listen", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )

    def serves(self):
        """Whether the API answers with a result."""
        if self.process.poll() is not None:
            raise GivenUp(f"node {self.name} has ended:\n{(self.folder / 'log').read_text()[-2000:]}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self.data / "narun.sock"))
                connection.sendall(b"GET /v1/status HTTP/1.1\r\nhost: narun\r\nconnection: close\r\n\r\n")
                return connection.recv(12).endswith(b" 200")
            except OSError:
                return False

    def ask(self, *words):
        answer = subprocess.run(
            [self.narun, *words, "--data-dir", self.data], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"]}, check=False,
        )
        if answer.returncode != 0:
            raise GivenUp(f"`narun {' '.join(map(str, words))}` at {self.name}: {answer.stderr}")
        return answer.stdout

    def stop(self):
        """Ends node, keeper and instances; by force where the node does not do it."""
        if self.process is None or self.process.poll() is not None:
            return
        try:
            self.ask("stop", "--timeout", f"{WAIT_MAX_S}s")
            self.process.wait(WAIT_MAX_S)
        except (GivenUp, subprocess.TimeoutExpired) as trouble:
            print(f"node {self.name} did not stop: {trouble}", file=sys.stderr)
            keeper = self.keeper()
            self.process.kill()
            self.process.wait()
            if keeper:
                os.kill(keeper, signal.SIGTERM)

    def keeper(self):
        """The process number of the node's keeper, if one runs."""
        try:
            pid = int((self.data / "keeper.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if words[1:2] == [b"keeper"] and os.fsencode(self.data.resolve()) in words else None


class Cluster:
    """Some nodes that are members of one cluster; stopped at the end of `with`."""

    def __init__(self, narun, folder, size):
        self.nodes = [Node(narun, folder, f"n{k}") for k in range(1, size + 1)]

    def __enter__(self):
        try:
            first, *others = self.nodes
            first.launch("start", "--name", first.name)
            wait_until("the first node serves", first.serves)
            if others:
                ticket = first.ask("ticket", "create", "--uses", str(len(others))).strip()
                for node in others:
                    node.launch("join", ticket, "--name", node.name)
                for node in others:
                    wait_until(f"{node.name} serves", node.serves)
            for node in self.nodes:
                wait_until(f"{node.name} sees all alive", lambda node=node: self.sees_all(node), every=0.1)
        except BaseException:
            self.__exit__()
            raise
        return self.nodes

    def __exit__(self, *_):
        for node in self.nodes:
            node.stop()

    def sees_all(self, node):
        members = json.loads(node.ask("node", "list", "-o", "json"))
        return len(members) == len(self.nodes) and all(member["status"] == "alive" for member in members)


def program(folder):
    """A small static program, as bytes."""
    binary = folder / "probe"
    command = ["rustc", "-O", "-C", "panic=abort", "-C", "strip=symbols", "-C", "target-feature=+crt-static"]
    subprocess.run([*command, "-o", binary, ROOT / "benches/programs/probe.rs"], check=True, cwd=folder)
    return binary.read_bytes()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(values):
    """The figures of a row: median, and what nine of ten stay below."""
    return f"{statistics.median(values):.0f} ms", f"{percentile(values, 0.9):.0f} ms"


def measure_deploys(narun, folder, rounds):
    """From the start of `narun deploy` at one node to the process running on another, with a binary nobody has seen."""
    small = program(folder)
    taken, waited = [], []
    with Cluster(narun, folder / "deploy", 3) as (first, second, _):
        for number in range(rounds):
            binary, mark, name = folder / "binary", folder / f"mark-{number}", f"probe-{number}"
            # What follows an ELF file's sections is of no concern to the kernel. Random bytes cannot be compressed or shared.
            binary.write_bytes(small + os.urandom(BINARY_LEN - len(small)))
            binary.chmod(0o755)
            began_ns = time.time_ns()
            words = ("deploy", "--name", name, "--tag", "v1", "--node", second.name, "--arg", mark, binary)
            first.ask(*words)
            waited.append((time.time_ns() - began_ns) / 1e6)
            wait_until(f"{name} runs", mark.exists)
            taken.append((int(mark.read_text()) - began_ns) / 1e6)
            first.ask("service", "delete", name, "-y")
    return taken, waited


def measure_starts(narun, folder, rounds):
    """From the start of the process to an answer of its API: on a fresh data directory, and on one that has been used."""
    fresh, again = [], []
    for number in range(rounds):
        node = Node(narun, folder / "start", f"s{number}")
        for taken, words in ((fresh, ("start", "--name", node.name)), (again, ("start",))):
            began = time.monotonic()
            node.launch(*words)
            try:
                wait_until("the node serves", node.serves)
                taken.append((time.monotonic() - began) * 1e3)
            finally:
                node.stop()
    return fresh, again


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def resident_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def measure_idle(narun, folder):
    """Memory and processor time of ten nodes that have nothing to do; and of their keepers."""
    with Cluster(narun, folder / "idle", IDLE_NODES) as nodes:
        time.sleep(SETTLE_S)
        pids = [node.process.pid for node in nodes]
        keepers = [keeper for node in nodes if (keeper := node.keeper())]
        before, began = {pid: cpu_seconds(pid) for pid in pids + keepers}, time.monotonic()
        time.sleep(IDLE_S)
        span = time.monotonic() - began
        share = {pid: 100 * (cpu_seconds(pid) - before[pid]) / span for pid in pids + keepers}
        return {
            "rss": [resident_mib(pid) for pid in pids],
            "cpu": [share[pid] for pid in pids],
            "keeper_rss": [resident_mib(pid) for pid in keepers],
            "keeper_cpu": [share[pid] for pid in keepers],
        }


def measure_simulator():
    """Node-seconds that the simulator gets through in a second, by its own word."""
    command = ["cargo", "test", "--locked", "--test", "netsim", "speed", "--", "--ignored", "--nocapture"]
    output = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout
    return float(re.search(r"simulated node-seconds per second: ([0-9.]+)", output)[1])


def machine(folder):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder]
    file_system = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return (
        f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GiB, "
        f"Linux {platform.release()}, {file_system}; load before: {os.getloadavg()[0]:.1f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--narun", type=Path, required=True, help="the release binary")
    parser.add_argument("--rounds", type=int, default=20, help="deploys and starts to take the median of")
    parser.add_argument("--only", choices=["size", "start", "deploy", "idle", "simulator"], action="append")
    parser.add_argument("--folder", type=Path, help="where to put data directories (default: the system's temporary folder)")
    options = parser.parse_args()
    narun = options.narun.resolve(strict=True)
    folder = Path(tempfile.mkdtemp(prefix="narun-bench-", dir=options.folder))
    wanted = options.only or ["size", "start", "deploy", "idle", "simulator"]
    rows = []
    try:
        print(f"Machine: {machine(folder)}", flush=True)
        if "size" in wanted:
            rows.append(("release binary", f"{narun.stat().st_size / 1e6:.1f} MB", "", "<= 25 MB"))
        if "start" in wanted:
            fresh, again = measure_starts(narun, folder, options.rounds)
            rows.append(("node start to serving, fresh data directory", *spread(fresh), "<= 100 ms"))
            rows.append(("node start to serving, resumed", *spread(again), "<= 100 ms"))
        if "deploy" in wanted:
            taken, waited = measure_deploys(narun, folder, options.rounds)
            rows.append(("10 MB binary deployed at one node, process runs on another, cold", *spread(taken), "<= 400 ms"))
            rows.append(("of that, until `narun deploy` returns", *spread(waited), ""))
        if "idle" in wanted:
            idle = measure_idle(narun, folder)
            for what, memory, share, goals in (
                ("node", idle["rss"], idle["cpu"], ("<= 40 MiB", "<= 0.5 %")),
                ("its keeper", idle["keeper_rss"], idle["keeper_cpu"], ("", "")),
            ):
                if not memory:
                    continue
                mean, most = statistics.mean(memory), max(memory)
                rows.append((f"idle memory of {what}, one of ten", f"{mean:.1f} MiB", f"{most:.1f} MiB", goals[0]))
                mean, most = statistics.mean(share), max(share)
                rows.append((f"idle processor of {what}, one of ten", f"{mean:.2f} %", f"{most:.2f} %", goals[1]))
        if "simulator" in wanted:
            rows.append(("simulated node-seconds per second, test profile", f"{measure_simulator():.0f}", "", ""))
    except GivenUp as trouble:
        sys.exit(f"measure: {trouble}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n| what | median or mean | p90 or most | goal |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
