#!/usr/bin/env python3
"""How long other supervisors take to start and to stop many programs that do nothing, and to start one again that has crashed.

Each gets a folder of its own and is asked in its own way. What runs is seen in /proc, by who descends from the supervisor. Prints one
JSON object a line.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAIT_MAX_S = 120
# How often the processes are counted: reading /proc takes a few milliseconds itself.
LOOK_S = 0.005


def until(what, condition):
    """Seconds until `condition` holds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > WAIT_MAX_S:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(LOOK_S)
    return time.monotonic() - begun


def programs(mark):
    """The living processes that were started with this argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"sleep") and mark.encode() in words:
                found.append(int(entry.name))
    return found


class S6:
    name, needs = "s6", "s6-svscan"

    def __init__(self, folder, count, program):
        self.scan = folder / "scan"
        run_scripts(self.scan, count, program)
        self.process = None
        # Its own limit is 1000 services unless it is told otherwise.
        self.command = ["s6-svscan", "-c", str(count + 10), str(self.scan)]

    def start(self):
        self.process = spawn(self.command)

    def stop(self):
        subprocess.run(["s6-svscanctl", "-t", str(self.scan)], check=True)


class Runit:
    name, needs = "runit", "runsvdir"

    def __init__(self, folder, count, program):
        self.services = folder / "services"
        run_scripts(self.services, count, program)
        self.process = None

    def start(self):
        self.process = spawn(["runsvdir", str(self.services)])

    def stop(self):
        # It ends all its services on SIGHUP.
        self.process.send_signal(signal.SIGHUP)


class Supervisord:
    name, needs = "supervisord", "supervisord"

    def __init__(self, folder, count, program):
        self.config = folder / "supervisord.conf"
        self.config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nminfds={count * 4 + 1024}\n"
            f"[program:sleep]\ncommand={program}\nnumprocs={count}\nprocess_name=%(process_num)d\nstartsecs=1\n"
            f"stdout_logfile=NONE\nstderr_logfile=NONE\n")
        self.process = None

    def start(self):
        self.process = spawn(["supervisord", "-c", str(self.config)])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)


class Pm2:
    name, needs = "pm2", "pm2"

    def __init__(self, folder, count, program):
        words = program.split()
        apps = [{"name": f"sleep{number}", "script": words[0], "args": words[1:], "interpreter": "none"} for number in range(count)]
        self.config = folder / "apps.json"
        self.config.write_text(json.dumps({"apps": apps}))
        self.environment = {**os.environ, "PM2_HOME": str(folder / "home"), "PM2_DISCRETE_MODE": "true"}
        self.process = None

    def start(self):
        self.process = spawn(["pm2", "start", str(self.config)], self.environment)

    def stop(self):
        self.process = spawn(["pm2", "kill"], self.environment)


ALL = [S6, Runit, Supervisord, Pm2]


def spawn(command, environment=None):
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True)


def run_scripts(folder, count, program):
    """A folder for each service with the script that becomes it, as s6 and runit both want it."""
    for number in range(count):
        service = folder / f"sleep{number}"
        service.mkdir(parents=True)
        script = service / "run"
        script.write_text(f"#!/bin/sh\nexec {program}\n")
        script.chmod(0o755)


def measure(kind, count):
    mark = f"86{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix=f"narun-{kind.name}-") as folder:
        one = kind(Path(folder), count, f"{shutil.which('sleep')} {mark}")
        begun = time.monotonic()
        try:
            one.start()
            until(f"all to run under {kind.name}", lambda: len(programs(mark)) >= count)
            up = time.monotonic() - begun
            # Supervisors that wait for a second after a start before they count it are past that.
            until("a while", lambda: time.monotonic() - begun > up + 3)
            before = set(programs(mark))
            begun = time.monotonic()
            os.kill(min(before), signal.SIGKILL)
            until("another in its place", lambda: len(set(programs(mark)) - before) == 1)
            restarted = time.monotonic() - begun
            begun = time.monotonic()
            one.stop()
            until(f"all to end under {kind.name}", lambda: not programs(mark))
            stopped = time.monotonic() - begun
            one.process.wait(WAIT_MAX_S)
        finally:
            for pid in programs(mark):
                os.kill(pid, signal.SIGKILL)
    return {"what": kind.name, "count": count, "all_up_s": round(up, 3), "all_stopped_s": round(stopped, 3),
            "crash_to_restarted_s": round(restarted, 3)}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--count", type=int, default=500)
    words.add_argument("names", nargs="*", help=f"some of {', '.join(kind.name for kind in ALL)}")
    asked = words.parse_args()
    for kind in ALL:
        if asked.names and kind.name not in asked.names:
            continue
        if not shutil.which(kind.needs):
            print(f"{kind.name} is not installed", file=sys.stderr)
            continue
        print(json.dumps(measure(kind, asked.count)), flush=True)


main()
