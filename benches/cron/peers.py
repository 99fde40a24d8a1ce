#!/usr/bin/env python3
"""Takes the figures of cron's peers: Debian's cron and APScheduler with hundreds of jobs due at once, and a put into etcd of three
members. One JSON object a line. `benches/cron.sh` gives it a place of its own."""

import argparse
import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from nodes import WAIT_MAX_S, GivenUp, until
from stamps import Stamps, say

# Longest a slot of many jobs may take here.
RUSH_MAX_S = 50
APSCHEDULER_EVERY_S = 20
MEMBERS = 3
# As long as a claim of narun in the log.
VALUE = bytes(160)


def report(what, stamps, names, slots, slot_of):
    """Says how late everybody was, of these slots."""
    runs = [(name, slot_of(at), at) for name, at, _, _, _ in stamps.look() if slot_of(at) in slots]
    pairs = {(name, slot) for name, slot, _ in runs}
    say(what, [at - slot * 1000 for _, slot, at in runs], lost=len(names) * len(slots) - len(pairs),
        double=len(runs) - len(pairs))


def measure_cron(options, folder):
    """Debian's cron knows minutes only. It reads its table from /etc, over which `cron.sh` has laid another one."""
    stamps = Stamps(folder / "stamps")
    names = [f"rush-{number}" for number in range(options.specs)]
    lines = "".join(f"* * * * * root {options.stamp} {stamps.path} {name}\n" for name in names)
    # Its package makes this group when it is installed, and it does not start without.
    with open("/etc/group", "a", encoding="ascii") as groups:
        groups.write("crontab:x:64999:\n")
    table = Path("/etc/crontab")
    table.write_text(lines)
    table.chmod(0o644)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([options.cron, "-f"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            minute = int(time.time()) // 60 * 60 + 60
            slots = range(minute, minute + 60 * options.rounds, 60)
            time.sleep(slots[-1] + RUSH_MAX_S - time.time())
            if process.poll() is not None:
                raise GivenUp(f"cron has ended:\n{(folder / 'log').read_text()}")
        finally:
            process.kill()
            process.wait()
    report(f"Debian's cron, {options.specs} jobs due in one second", stamps, names, slots, lambda at: int(at / 60_000) * 60)


def measure_apscheduler(options, folder):
    """In one process, which starts programs as Python does."""
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    stamps = Stamps(folder / "stamps")
    names = [f"rush-{number}" for number in range(options.specs)]
    # One thread for each job that is due, as its manual has it; what is late by more than the second of its default is run as well.
    scheduler = BackgroundScheduler(
        timezone="UTC", executors={"default": ThreadPoolExecutor(options.specs)},
        job_defaults={"misfire_grace_time": RUSH_MAX_S, "max_instances": 3},
    )
    for name in names:
        command = [str(options.stamp), str(stamps.path), name]
        scheduler.add_job(subprocess.run, "cron", args=[command], second=f"*/{APSCHEDULER_EVERY_S}")
    first = (int(time.time()) // APSCHEDULER_EVERY_S + 1) * APSCHEDULER_EVERY_S
    slots = range(first, first + options.rounds * APSCHEDULER_EVERY_S, APSCHEDULER_EVERY_S)
    scheduler.start()
    time.sleep(slots[-1] + APSCHEDULER_EVERY_S - 1 - time.time())
    scheduler.shutdown()
    every = APSCHEDULER_EVERY_S * 1000
    report(f"APScheduler without a sandbox, {options.specs} jobs due in one second", stamps, names, slots,
           lambda at: int(at / every) * APSCHEDULER_EVERY_S)


def field(number, content):
    """A field of bytes, as protocol buffers write it; shorter than 128 bytes, or than 16 KiB with two bytes of length."""
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + content


class Etcd:
    """Members of etcd on loopback. `with` starts and ends them."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.processes = binary, folder, []
        self.clients = [f"127.0.0.1:{23790 + number}" for number in range(MEMBERS)]

    def __enter__(self):
        peers = [f"http://127.0.0.1:{23800 + number}" for number in range(MEMBERS)]
        together = ",".join(f"e{number}={peer}" for number, peer in enumerate(peers))
        for number, (client, peer) in enumerate(zip(self.clients, peers)):
            with open(self.folder / f"e{number}.log", "wb") as log:
                self.processes.append(subprocess.Popen(
                    [self.binary, "--name", f"e{number}", "--data-dir", self.folder / f"e{number}",
                     "--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}",
                     "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", together],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                ))
        until("etcd has a leader", lambda: all(self.is_healthy(client) for client in self.clients))
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    @staticmethod
    def is_healthy(client):
        try:
            with urllib.request.urlopen(f"http://{client}/health", timeout=WAIT_MAX_S) as answer:
                return json.load(answer)["health"] == "true"
        except OSError:
            return False

    @staticmethod
    def leads(client):
        with urllib.request.urlopen(f"http://{client}/metrics", timeout=WAIT_MAX_S) as answer:
            lines = answer.read().decode().splitlines()
        return any(line.split() == ["etcd_server_is_leader", "1"] for line in lines)


def measure_etcd(options, folder):
    """Puts, one after the other, at each member in turn, on a connection that stays; over gRPC, as etcd's own clients do it. What
    such a call takes by itself is told beside: a question that each member answers by itself."""
    import grpc

    with Etcd(options.etcd, folder) as etcd:
        roles = {"the leader's own": [], "another voter's": []}
        floor = []
        channels = [grpc.insecure_channel(client) for client in etcd.clients]
        puts = [channel.unary_unary("/etcdserverpb.KV/Put") for channel in channels]
        asks = [channel.unary_unary("/etcdserverpb.Maintenance/Status") for channel in channels]
        # The first round is not counted: connections are made and pages touched.
        for turn in range(11):
            for client, put, ask in zip(etcd.clients, puts, asks):
                role = "the leader's own" if etcd.leads(client) else "another voter's"
                for number in range(-(-options.count // (10 * MEMBERS))):
                    request = field(1, f"job-{number}".encode()) + field(2, VALUE)
                    began = time.perf_counter()
                    put(request, timeout=WAIT_MAX_S)
                    took = time.perf_counter() - began
                    began = time.perf_counter()
                    ask(b"", timeout=WAIT_MAX_S)
                    alone = time.perf_counter() - began
                    if turn:
                        roles[role].append(1000 * took)
                        floor.append(1000 * alone)
        for channel in channels:
            channel.close()
    for role, figures in roles.items():
        say("put into etcd of three members", figures, by=role)
    say("put into etcd of three members", sum(roles.values(), []), by="anybody's")
    say("a question to etcd that is answered without the others", floor)


PARTS = {"cron": measure_cron, "apscheduler": measure_apscheduler, "etcd": measure_etcd}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("part", choices=PARTS)
    words.add_argument("--stamp", type=Path)
    words.add_argument("--cron", type=Path)
    words.add_argument("--etcd", type=Path)
    words.add_argument("--specs", type=int, default=500)
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--count", type=int, default=1500, help="how many puts")
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="narun-cron-") as folder:
        PARTS[options.part](options, Path(folder))


if __name__ == "__main__":
    main()
