#!/usr/bin/env python3
"""Takes the figures of narun's cron with real nodes, one JSON object a line. `benches/cron.sh` gives it a place of its own."""

import argparse
import math
import tempfile
import time
from pathlib import Path

from nodes import WAIT_MAX_S, Cluster, GivenUp, Star, until
from stamps import Stamps, say

# Between two slots of the spec of which hundreds are due at once: each rush is over before the next one.
RUSH_EVERY_S = 20
# A cluster that has just formed or changed still has things to say.
SETTLE_S = 10
IDLE_S = 120
# After so many deploys there is more to be put in order, within the first minute's look at everything.
DEPLOYED_S = 60
# As many as there are seconds in the idle minute in which they are due.
LONE_SLOTS = 120
# Specs that are fired each second while holders are lost: enough that each of three nodes holds some.
HELD = 12
NODES = 3

# What a run may do: be itself, and append to the stamps.
SANDBOX = "mode: landlock\nlandlock: {{stdio: true, paths: [{{path: '{stamps}', modes: rw}}]}}\nmemoryMaxMB: 64\npidsMax: 16\n"


def spec(schedule, name, stamps, more=""):
    """A sandboxed spec that stamps, and runs somewhere."""
    return (f"nodes: [{{name: any}}]\ncronSchedule: '{schedule}'\nargs: ['{stamps.path}', '{name}']\n"
            + SANDBOX.format(stamps=stamps.path) + more)


def count_of(stamps, slots):
    """How often each spec stamped each of these slots."""
    counts = {}
    for name, _, slot, _, _ in stamps.look():
        if slot in slots:
            counts[name, slot] = counts.get((name, slot), 0) + 1
    return counts


def late(stamps, slots):
    return [at - slot * 1000 for _, at, slot, _, _ in stamps.look() if slot in slots]


def measure_rush(options, folder):
    """Many specs that are due in one second, on one node."""
    stamps = Stamps(folder / "stamps")
    names = [f"rush-{number}" for number in range(options.specs)]
    with Cluster(options.narun, folder / "rush", 1) as cluster:
        # None is skipped because the one before still runs.
        specs = {name: spec(f"*/{RUSH_EVERY_S} * * * * *", name, stamps, "concurrencyPolicy: allow\n") for name in names}
        cluster.deploy(specs, options.stamp)
        time.sleep(SETTLE_S)
        first = (math.floor(time.time()) // RUSH_EVERY_S + 1) * RUSH_EVERY_S
        slots = range(first, first + options.rounds * RUSH_EVERY_S, RUSH_EVERY_S)
        longest = options.rounds * RUSH_EVERY_S + WAIT_MAX_S
        until("all have run", lambda: len(count_of(stamps, slots)) == len(names) * len(slots), longest)
        # What is run twice is run twice soon.
        time.sleep(SETTLE_S)
    counts = count_of(stamps, slots)
    say(f"narun, {options.specs} sandboxed specs due in one second", late(stamps, slots),
        lost=len(names) * len(slots) - len(counts), double=sum(count - 1 for count in counts.values()))


def measure_lone(options, folder):
    """One spec that is due each second, on an idle cluster."""
    stamps = Stamps(folder / "stamps")
    with Cluster(options.narun, folder / "lone", NODES) as cluster:
        until("there are voters", cluster.leader)
        cluster.deploy({"lone": spec("* * * * * *", "lone", stamps)}, options.stamp)
        time.sleep(SETTLE_S)
        first = math.ceil(time.time())
        slots = range(first, first + LONE_SLOTS)
        time.sleep(LONE_SLOTS + 2)
    counts = count_of(stamps, slots)
    say(f"narun, one spec a second, idle cluster of {NODES}", late(stamps, slots), lost=LONE_SLOTS - len(counts),
        double=sum(count - 1 for count in counts.values()))


def measure_idle(options, folder):
    """Many specs that are not due: what they cost a node."""
    stamps = Stamps(folder / "stamps")
    specs = {f"idle-{number}": spec(f"{number % 60} {number // 60 % 24} 1 1 *", "idle", stamps) for number in range(options.idle)}
    with Cluster(options.narun, folder / "idle", NODES) as cluster:
        began = time.monotonic()
        cluster.deploy(specs, options.stamp)
        deployed = time.monotonic() - began

        def all_know():
            return all(len(node.ask("GET", "/v1/services")) == options.idle for node in cluster.nodes)

        until("all nodes know all specs", all_know)
        spread = time.monotonic() - began
        time.sleep(DEPLOYED_S)
        before = [node.processor_s() for node in cluster.nodes]
        time.sleep(IDLE_S)
        shares = [100 * (node.processor_s() - start) / IDLE_S for node, start in zip(cluster.nodes, before)]
    say(f"narun, {options.idle} idle specs, cluster of {NODES}", percent_of_a_core=[round(share, 2) for share in shares],
        deployed_s=round(deployed, 1), known_everywhere_s=round(spread, 1))


class Fall:
    """A holder that is lost, and how it comes back."""

    def __init__(self, cluster, star):
        self.cluster, self.star = cluster, star

    def killed(self, node):
        node.kill()
        return node.start

    def paused(self, node):
        node.pause()
        return node.resume

    def cut_off(self, node):
        self.star.cut_off(self.cluster.nodes.index(node))
        return self.star.heal


def measure_loss(options, folder):
    """A holder is killed, paused or cut off half a second before its next slots: how late those are run elsewhere."""
    stamps = Stamps(folder / "stamps")
    star = Star(NODES)
    with Cluster(options.narun, folder / "loss", NODES, star) as cluster:
        fall = Fall(cluster, star)
        names = [f"held-{number}" for number in range(HELD)]
        cluster.deploy({name: spec("* * * * * *", name, stamps, "concurrencyPolicy: allow\n") for name in names}, options.stamp)
        for leads in (False, True):
            for kind in (fall.killed, fall.paused, fall.cut_off):
                figures = [lose(cluster, stamps, names, kind, leads) for _ in range(options.rounds)]
                say(f"narun, holder {kind.__name__.replace('_', ' ')}{', which also leads' if leads else ''}", figures)


def holders(stamps, names):
    """Who ran what last."""
    last = {name: node for name, _, _, _, node in stamps.look()}
    return {name: last.get(name) for name in names}


def lose(cluster, stamps, names, kind, leads):
    """Milliseconds from the first slot after the loss to its run elsewhere: the latest of all specs of the lost node."""
    whole = {node.name for node in cluster.nodes}

    def is_well():
        recent = {(name, node) for name, at, _, _, node in stamps.look()[-4 * HELD:] if at > (time.time() - 2) * 1000}
        return cluster.is_whole() and len({name for name, _ in recent}) == HELD and {node for _, node in recent} == whole

    until("each node holds something", is_well)
    leader = until("all agree on who leads", cluster.leader)
    # Leases move for a while yet after somebody came back.
    time.sleep(SETTLE_S)
    victim = leader if leads else next(node for node in cluster.nodes if node is not leader)
    time.sleep(1.5 - time.time() % 1)
    lost = [name for name, node in holders(stamps, names).items() if node == victim.name]
    if not lost:
        raise GivenUp(f"{victim.name} holds nothing")
    slot = math.ceil(time.time())
    back = kind(victim)

    def taken():
        runs = {}
        for name, at, of, _, node in stamps.look():
            if name in lost and of == slot and node != victim.name:
                runs[name] = min(at, runs.get(name, at))
        return runs if len(runs) == len(lost) else None

    try:
        runs = until("the others have run its slots", taken)
    finally:
        back()
    return max(runs.values()) - slot * 1000


PARTS = {"rush": measure_rush, "lone": measure_lone, "idle": measure_idle, "loss": measure_loss}


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("part", choices=PARTS)
    words.add_argument("--narun", type=Path, required=True)
    words.add_argument("--stamp", type=Path, required=True, help="the program that is run")
    words.add_argument("--specs", type=int, default=500, help="how many are due in one second")
    words.add_argument("--idle", type=int, default=10_000, help="how many are not due")
    words.add_argument("--rounds", type=int, default=3)
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="narun-cron-") as folder:
        PARTS[options.part](options, Path(folder))


if __name__ == "__main__":
    main()
