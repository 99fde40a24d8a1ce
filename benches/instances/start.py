#!/usr/bin/env python3
"""Measures how long a program takes from the wish to start it to its own first deed: bare, by sandboxes, and by narun's keeper.

The program stamps the time itself. For the keeper the clock starts before the request is written to its socket, so that reading
and carrying out the request is counted in. Prints one JSON object a line: what, median and p99 in microseconds.
"""

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cbor2

# Rounds go round all candidates in turn, so that a busy moment of the machine hits all of them.
ROUNDS = 10
WAIT_S = 30

# Ten rules, beside those for the program itself and its working directory. It is static, and needs no group.
LANDLOCK = {0: [], 1: [{0: path, 1: {0: True, 1: False, 2: True, 3: False}} for path in (
    "/usr", "/etc", "/opt", "/srv", "/var/lib", "/var/cache", "/home", "/mnt", "/media", "/run")], 4: False, 5: False}
LIMITS = {0: 64 << 20, 1: 128 << 20, 2: 500, 3: 100, 4: None}
CONFINEMENTS = {
    "narun, cgroup and seccomp only": {},
    "narun, Landlock with ten rules": {5: LANDLOCK},
    "narun, the same and limits of memory, processor and processes": {2: LIMITS, 5: LANDLOCK},
}


def summary(name, figures):
    figures = sorted(figures)
    return {"what": name, "median_us": round(figures[len(figures) // 2], 1),
            "p99_us": round(figures[min(len(figures) - 1, len(figures) * 99 // 100)], 1), "count": len(figures)}


class Peer:
    """A program that starts another one."""

    def __init__(self, folder, spawner, command):
        self.folder, self.spawner, self.command = folder, spawner, command

    def run(self, count):
        output = subprocess.run([self.spawner, str(count), *self.command], cwd=self.folder, check=True,
                                capture_output=True, text=True)
        return [float(line) for line in output.stdout.split()]


class Keeper:
    """A keeper of narun, spoken to as a node does."""

    def __init__(self, narun, folder):
        self.folder = folder
        self.process = subprocess.Popen([narun, "keeper", "--data-dir", folder], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=open(folder / "keeper.log", "w"))
        deadline = time.monotonic() + WAIT_S
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while self.socket.connect_ex(str(folder / "keeper.sock")) != 0:
            assert time.monotonic() < deadline, "the keeper does not listen"
            time.sleep(0.01)
        self.socket.settimeout(WAIT_S)
        self.say(0, {0: 1, 1: 2})
        while self.hear()[0] != 2:
            pass
        self.runs = 0

    def say(self, kind, fields):
        self.socket.send(b"\1\0" + cbor2.dumps([kind, fields]))

    def hear(self):
        while True:
            packet = self.socket.recv(65536)
            assert packet, "the keeper closed the connection: " + (self.folder / "keeper.log").read_text()[-1000:]
            if packet[1] == 0:
                return cbor2.loads(packet[2:])

    def start(self, binary, confinement):
        """Gives microseconds."""
        self.runs += 1
        run = struct.pack(">QQ", 0, self.runs)
        work = self.folder / "instances" / "bench-0"
        stamp = work / "stamp"
        stamp.unlink(missing_ok=True)
        plan = {0: {0: "bench", 1: 0}, 1: run, 2: bytes(32), 3: str(binary).encode(), 4: None, 5: [],
                6: [["PATH", "/usr/bin:/bin"]], 7: str(work).encode(), 8: str(self.folder / "logs" / "bench-0").encode(),
                9: False, 10: 1, 11: confinement}
        begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self.say(1, {0: plan})
        while True:
            kind, fields = self.hear()
            if kind == 4:
                raise SystemExit(f"narun did not start the program: {fields[1]}")
            if kind == 5 and fields[0] == run:
                break
        self.say(4, {0: run})
        (stamped,) = struct.unpack("<q", stamp.read_bytes())
        return (stamped - begun) / 1000

    def stop(self):
        self.say(6, {0: 1000})
        self.process.wait(WAIT_S)


def runc_bundle(scratch):
    """A bundle as the OCI runtime specification has it: the scratch folder, and nothing else, in a root of its own."""
    bundle = scratch / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"].update(terminal=False, args=[str(scratch / "program")], cwd=str(scratch))
    config["root"]["readonly"] = False
    config["mounts"].append({"destination": str(scratch), "type": "none", "source": str(scratch), "options": ["bind", "rw"]})
    path.write_text(json.dumps(config))
    return bundle


def peers(program):
    """The sandboxes that are installed here, each with what asks it for the nearest thing."""
    yield "bare fork and exec", [program]
    if shutil.which("bwrap"):
        yield "bubblewrap", ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--unshare-pid", "--unshare-ipc", "--die-with-parent",
                             "--new-session", program]
    if shutil.which("firejail"):
        yield "firejail", ["firejail", "--quiet", "--noprofile", "--seccomp", "--caps.drop=all", program]
    if shutil.which("runc"):
        scratch = Path(program).parent
        state, bundle = scratch / "runc", runc_bundle(scratch)
        yield "runc", ["runc", "--root", str(state), "run", "--bundle", str(bundle), f"narun-bench-{os.getpid()}"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("narun", type=Path)
    parser.add_argument("folder", type=Path, help="where the compiled programs are")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="narun-bench-") as scratch:
        scratch = Path(scratch)
        program = scratch / "program"
        shutil.copy(arguments.folder / "stamp", program)
        program.chmod(0o555)
        keeper_folder = scratch / "keeper"
        keeper_folder.mkdir()
        keeper = Keeper(arguments.narun, keeper_folder)
        candidates = {name: Peer(scratch, arguments.folder / "spawner", command).run for name, command in peers(str(program))}
        for name, confinement in CONFINEMENTS.items():
            candidates[name] = lambda count, confinement=confinement: [
                keeper.start(program, confinement) for _ in range(count)]
        figures = {name: [] for name in candidates}
        broken = {}
        for _ in range(ROUNDS):
            for name, run in candidates.items():
                if name in broken:
                    continue
                try:
                    figures[name] += run(max(1, arguments.count // ROUNDS))
                except subprocess.CalledProcessError as error:
                    broken[name] = error.stderr.strip()
        keeper.stop()
    for name, found in figures.items():
        if name in broken:
            print(f"{name} cannot be measured here: {broken[name]}", file=sys.stderr)
        else:
            print(json.dumps(summary(name, found)))


if __name__ == "__main__":
    main()
