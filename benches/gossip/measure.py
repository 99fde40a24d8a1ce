#!/usr/bin/env python3
"""Measures gossip and membership of narun and of Serf with real nodes on loopback, and prints a Markdown table.

Run by benches/gossip.sh, which makes the network namespace that it counts bytes in. Both clusters have the same size and live
one after the other on the same machine; both are asked in the same way, at the same pace. Only Python's standard library is used.
"""

import argparse
import asyncio
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path

from cluster import MAKERS, WAIT_MAX_S, GivenUp
from narun import Narun
from serf import Serf

FIGURES = {
    "idle": "memory, processor and payload of a node that has nothing to do",
    "change": "a change at one node, until it shows on all",
    "join": "a new node, until all others see it alive",
    "death": "a node that is killed, until all others see it dead",
    "silent": "a node that is stopped but not ended, until all others see it dead",
    "stalled": "false deaths while a part of the nodes is stalled again and again",
}

# A cluster that has just formed still exchanges state.
SETTLE_S = 15
IDLE_S = 60
# Between two changes, so that each has the cluster to itself; at random, so that none keeps step with anybody's timers.
PAUSE_S = (0.2, 0.4)
# How often each node is asked what it thinks of a member. The nodes are asked in turn, so that this is no wave; the error of a
# moment is at most this.
ASK_EVERY_S = 0.1
# Lifeguard's experiment (Dadgar, Phillips, Currey, 2018): nodes that stall together, wake for a moment, and stall again. The
# short stalls end about when they are found out, so that accusations and refutations cross; after the long ones all timers
# of those who wake are overdue at once, and it is they who accuse.
STALLED_SHARE = 0.25
WAKE_S = 1
PATTERNS = {"short": (4, 8), "long": (15, 3)}
# One random course for all runs, the same for both programs.
SEED = 3

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
# What the kernel counts besides payload: the headers of IPv4 and UDP, and of IPv4 and TCP with timestamps.
UDP_HEADERS, TCP_HEADERS = 20 + 8, 20 + 32


def note(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def learned(node, name, state, began, turn):
    """After how many seconds a node says that a member is in a state."""
    await asyncio.sleep(turn * ASK_EVERY_S)
    while await node.state_of(name) != state:
        await asyncio.sleep(ASK_EVERY_S)
    return time.monotonic() - began


async def all_learn(nodes, name, state, began):
    """After how many seconds each of the nodes says so."""
    asking = [asyncio.ensure_future(learned(node, name, state, began, k / len(nodes))) for k, node in enumerate(nodes)]
    try:
        return await asyncio.wait_for(asyncio.gather(*asking), WAIT_MAX_S)
    except asyncio.TimeoutError:
        raise GivenUp(f"waited {WAIT_MAX_S} s in vain until all say that {name} is {state}") from None


async def measure_change(cluster, options):
    """Seconds until a change showed on each node, by round."""
    await cluster.change(cluster.nodes[0], 0)
    rounds = []
    for number in range(1, options.changes + 1):
        await asyncio.sleep(cluster.random.uniform(*PAUSE_S))
        rounds.append(await cluster.change(cluster.random.choice(cluster.nodes), number))
    return rounds


async def measure_join(cluster, options):
    """Seconds from the start of the last node's process until each other node saw it alive, by round."""
    rounds = []
    for _ in range(options.rounds):
        await cluster.leave(*cluster.pick())
        others, node, began = list(cluster.nodes), cluster.add(), time.monotonic()
        cluster.join(node)
        rounds.append(await all_learn(others, node.name, "alive", began))
        await cluster.agree()
    return rounds


async def measure_death(cluster, options):
    """Seconds from the kill of a node and all that belongs to it until each other node took it for dead, by round."""
    rounds = []
    for _ in range(options.rounds):
        victim, = cluster.pick()
        began = time.monotonic()
        victim.kill()
        rounds.append(await all_learn(cluster.without(victim), victim.name, "dead", began))
        cluster.restart(victim)
        await cluster.agree()
    return rounds


async def measure_silent(cluster, options):
    """As a death, but the process stands still: its connections stay, and nobody is told by the kernel that it is gone."""
    rounds = []
    for _ in range(options.rounds):
        victim, = cluster.pick()
        began = time.monotonic()
        victim.stall()
        try:
            rounds.append(await all_learn(cluster.without(victim), victim.name, "dead", began))
        finally:
            victim.resume()
        await cluster.agree()
    return rounds


async def stall_again_and_again(stalled, stall_s, times):
    began = time.monotonic()
    try:
        for number in range(times):
            for node in stalled:
                node.stall()
            await sleep_until(began + number * (stall_s + WAKE_S) + stall_s)
            for node in stalled:
                node.resume()
            await sleep_until(began + (number + 1) * (stall_s + WAKE_S))
    finally:
        for node in stalled:
            node.resume()


async def sleep_until(moment):
    await asyncio.sleep(max(0, moment - time.monotonic()))


async def measure_stalled(cluster, _):
    """Who was declared dead, by pattern: of those who never stalled (by anybody, and by one another), and of those who did."""
    found = {}
    for pattern, (stall_s, times) in PATTERNS.items():
        stalled = cluster.pick(max(1, int(len(cluster.nodes) * STALLED_SHARE)))
        ill = {node.name for node in stalled}
        well = {node.name for node in cluster.nodes} - ill
        mark = await cluster.mark()
        await stall_again_and_again(stalled, stall_s, times)
        # Whatever was decided of late is heard of by then.
        await cluster.agree()
        pairs = await cluster.declared_dead(mark, well | ill)
        found[pattern] = {
            "falsely": len({whom for _, whom in pairs if whom in well}),
            "by the well": len({whom for who, whom in pairs if who in well and whom in well}),
            "pairs": len([whom for _, whom in pairs if whom in well]),
            "rightly": len({whom for _, whom in pairs if whom in ill}),
        }
    return found


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def memory_mib(pid):
    """The resident set, and its share after dividing each page by those who have it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return [int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024 for key in ("Rss", "Pss")]


def payload_bytes():
    """What UDP and TCP have carried over this namespace's loopback, without headers; counted where it arrives."""
    counters = {}
    for file in ("/proc/net/snmp", "/proc/net/netstat"):
        lines = Path(file).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            group, *keys = names.split()
            counters.update(zip(((group.rstrip(":"), key) for key in keys), map(int, values.split()[1:])))
    datagrams = sum(counters["Udp", key] for key in ("InDatagrams", "NoPorts", "InErrors"))
    return counters["IpExt", "InOctets"] - UDP_HEADERS * datagrams - TCP_HEADERS * counters["Tcp", "InSegs"]


async def measure_idle(cluster, _):
    groups = {"node": [node.process.pid for node in cluster.nodes], "rest": sum((node.others() for node in cluster.nodes), [])}
    pids = sum(groups.values(), [])
    before, payload, began = {pid: cpu_seconds(pid) for pid in pids}, payload_bytes(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    span, payload = time.monotonic() - began, payload_bytes() - payload
    result = {"payload": payload / span / len(cluster.nodes)}
    for group, members in groups.items():
        if members:
            result[group] = {
                "rss": [memory_mib(pid)[0] for pid in members],
                "pss": [memory_mib(pid)[1] for pid in members],
                "cpu": [100 * (cpu_seconds(pid) - before[pid]) / span for pid in members],
            }
    return result


async def measure_all(kind, binary, options, wanted):
    """What each figure gave; where it gave nothing, why."""
    results = {}
    folder = options.folder / kind.title.lower()
    note(f"{kind.title}: {options.nodes} nodes form a cluster")
    try:
        async with kind(binary, folder, options.nodes, random.Random(SEED)) as cluster:
            await asyncio.sleep(SETTLE_S)
            for figure in wanted:
                note(f"{kind.title}: {figure}")
                try:
                    results[figure] = await globals()[f"measure_{figure}"](cluster, options)
                except (GivenUp, OSError, asyncio.TimeoutError) as trouble:
                    note(f"{kind.title}: {figure} given up: {trouble!r}")
                    results[figure] = trouble
                    # What comes next begins with a whole cluster, or not at all.
                    await cluster.agree()
    except (GivenUp, OSError, asyncio.TimeoutError) as trouble:
        note(f"{kind.title}: given up: {trouble!r}")
        traceback.print_exc()
        for figure in wanted:
            results.setdefault(figure, trouble)
    return results


class Table:
    """Rows of a figure for both programs, with what was asked for."""

    def __init__(self, results):
        self.results, self.rows = results, []

    def add(self, figure, what, bar, goal, value, form):
        """`value` makes a number of a figure's result, `form` a text of the number."""
        if not any(figure in part for part in self.results.values()):
            return
        numbers = [self.number(title, figure, value) for title in (Narun.title, Serf.title)]
        texts = ["given up" if isinstance(number, Exception) else "" if number is None else form(number) for number in numbers]
        ours, theirs = numbers
        plain = all(isinstance(number, (int, float)) for number in numbers)
        ratio = f"{ours / theirs:.2f}" if plain and theirs else ""
        self.rows.append((what, bar, goal, *texts, ratio))

    def number(self, title, figure, value):
        result = self.results[title].get(figure)
        if result is None or isinstance(result, Exception):
            return result
        try:
            return value(result)
        except KeyError:
            # Serf has no second process.
            return None

    def __str__(self):
        head = ("figure", "bar", "goal", Narun.title, Serf.title, "narun / Serf")
        lines = [head, tuple("---" for _ in head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def flat(rounds):
    return [seconds for nodes in rounds for seconds in nodes]


def last(rounds):
    """When the last node knew, by round."""
    return [max(nodes) for nodes in rounds]


def in_ms(seconds):
    return f"{seconds * 1e3:.0f} ms"


def in_s(seconds):
    return f"{seconds:.2f} s"


def tabulate(results, options):
    table, size = Table(results), options.nodes
    change = f"change at one of {size}, visible at a node"
    table.add("change", f"{change}: p50", "", "", lambda rounds: percentile(flat(rounds), 0.5), in_ms)
    table.add("change", f"{change}: p99", "<= Serf", "1/3 of Serf", lambda rounds: percentile(flat(rounds), 0.99), in_ms)
    table.add("change", f"the same, at the last of {size}: median", "", "", lambda rounds: statistics.median(last(rounds)), in_ms)
    table.add("change", f"the same, at the last of {size}: p99", "", "", lambda rounds: percentile(last(rounds), 0.99), in_ms)
    for figure, what, bar, goal in (
        ("death", "kill -9 of one node, known on all others", "<= 5 s", "3 s"),
        ("silent", "SIGSTOP of one node, known on all others", "", ""),
        ("join", f"start of the node number {size}, alive on all others", "<= 1 s", "0.5 s"),
    ):
        table.add(figure, f"{what}: median of {options.rounds}", bar, goal, lambda rounds: statistics.median(last(rounds)), in_s)
        table.add(figure, f"{what}: worst of {options.rounds}", "", "", lambda rounds: max(last(rounds)), in_s)
        table.add(figure, "the same, at a node: p50", "", "", lambda rounds: percentile(flat(rounds), 0.5), in_s)
    for pattern, (stall_s, times) in PATTERNS.items():
        what = f"{int(size * STALLED_SHARE)} of {size} stalled {times} times for {stall_s} s"
        for key, row, bar, goal in (
            ("falsely", f"{what}: others declared dead by anybody", "<= Serf", "0"),
            ("by the well", "of these, by a node that was not stalled either", "", ""),
            ("pairs", "such declarations in all (who, whom)", "", ""),
            ("rightly", "for comparison: stalled nodes declared dead", "", ""),
        ):
            table.add("stalled", row, bar, goal, lambda found, pattern=pattern, key=key: found[pattern][key], str)
    mean = statistics.mean
    mib, share, rate = "{:.1f} MiB".format, "{:.2f} %".format, "{:.0f} B/s".format
    table.add("idle", "idle node, RSS", "<= 40 MiB", "20 MiB", lambda idle: mean(idle["node"]["rss"]), mib)
    table.add("idle", "idle node, PSS", "", "", lambda idle: mean(idle["node"]["pss"]), mib)
    table.add("idle", "idle node, processor, of a core", "<= 0.5 %", "0.25 %", lambda idle: mean(idle["node"]["cpu"]), share)
    table.add("idle", "idle node, payload sent", "<= 2000 B/s", "1000 B/s", lambda idle: idle["payload"], rate)
    table.add("idle", "its keeper, RSS", "", "", lambda idle: mean(idle["rest"]["rss"]), mib)
    table.add("idle", "its keeper, PSS", "", "", lambda idle: mean(idle["rest"]["pss"]), mib)
    table.add("idle", "its keeper, processor, of a core", "", "", lambda idle: mean(idle["rest"]["cpu"]), share)
    return table


NOTES = """\
How it is measured: {nodes} processes of each program (narun: with as many keepers) on loopback in a network namespace, one
program after the other. Serf runs with the settings of its agent (profile `lan`) and keeps nothing on disk; narun has each change
on its disk before it tells it.

- Change: narun: a revision of a cron spec, from the request to the answer of each node's `GET /v1/services/NAME/wait`. Serf: a
  user event without coalescing, from the request to its coming out of each node's event stream. {changes} changes at random nodes;
  the node of the change counts too.
- Death, silence, join: every node is asked each {every:.0f} ms what it thinks of the one member (narun: `GET /v1/nodes/NAME`, Serf:
  `members-filtered`), so a moment may be that much late. A killed node dies with its keeper. Joins are timed from the start
  of the process, with a fresh folder.
- Stalled: SIGSTOP for the time given, SIGCONT for {wake} s, all at once. Declarations by the nodes' own record
  (narun: since when a member is in its state; Serf: its log), also those that were taken back; two of one node by another count once.
- Idle: the mean over all nodes, {idle} s. Payload: what UDP and TCP carry without their headers, by the namespace's counters;
  as much is received."""


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
    form = argparse.RawDescriptionHelpFormatter
    figures = "\n".join(f"  {name:8} {text}" for name, text in FIGURES.items())
    parser = argparse.ArgumentParser(
        prog="benches/gossip.sh", formatter_class=form, description=__doc__.splitlines()[0], epilog=f"figures:\n{figures}"
    )
    for given in ("narun", "serf", "folder"):
        parser.add_argument(f"--{given}", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--serf-version", default="", help=argparse.SUPPRESS)
    parser.add_argument("figures", nargs="*", metavar="figure", help="what to measure (default: all)")
    parser.add_argument("--nodes", type=int, default=100, help="how many nodes (default: %(default)s, or NODES)")
    parser.add_argument("--changes", type=int, default=50, help="how many changes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how many deaths and joins (default: %(default)s)")
    parser.add_argument("--only", choices=[Narun.title, Serf.title], help="measure one of the two alone")
    options = parser.parse_args()
    if unknown := [figure for figure in options.figures if figure not in FIGURES]:
        parser.error(f"no figure `{unknown[0]}`; there are {', '.join(FIGURES)}")
    if options.nodes <= MAKERS + 1:
        parser.error(f"`--nodes` must be at least {MAKERS + 2}")
    wanted = [figure for figure in FIGURES if not options.figures or figure in options.figures]
    narun, serf = options.narun.resolve(strict=True), options.serf.resolve(strict=True)
    version = subprocess.run([narun, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    # Paths of sockets are short from there.
    os.chdir(options.folder)
    before = f"Machine: {machine(options.folder)}. {version}; Serf {options.serf_version}; {options.nodes} nodes of each."
    results = {Narun.title: {}, Serf.title: {}}
    for kind, binary in ((Serf, serf), (Narun, narun)):
        if options.only in (None, kind.title):
            results[kind.title] = asyncio.run(measure_all(kind, binary, options, wanted))
    print(f"{before}\n\n{tabulate(results, options)}\n")
    print(NOTES.format(
        nodes=options.nodes, changes=options.changes, every=ASK_EVERY_S * 1e3, wake=WAKE_S, idle=IDLE_S
    ))
    if any(isinstance(result, Exception) for part in results.values() for result in part.values()):
        sys.exit("gossip.sh: not every figure could be taken")


if __name__ == "__main__":
    main()
