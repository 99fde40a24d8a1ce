"""What the measured programs stamp of themselves, and what is made of it."""

import json
from datetime import datetime


class Stamps:
    """A file that programs append to. What is read once is kept."""

    def __init__(self, path):
        self.path, self.read, self.all = path, 0, []
        path.touch()

    def look(self):
        """All stamps so far: name, milliseconds since 1970, and of narun the slot in seconds, the run and the node."""
        with open(self.path, "rb") as file:
            file.seek(self.read)
            content = file.read()
        # A line is written at once.
        self.read += len(content)
        for line in content.decode().splitlines():
            name, at, scheduled, run, node = line.split(" ")
            slot = None if scheduled == "-" else int(datetime.fromisoformat(scheduled.replace("Z", "+00:00")).timestamp())
            self.all.append((name, int(at) / 1e6, slot, run, node))
        return self.all


def share(figures, percent):
    figures = sorted(figures)
    return figures[min(len(figures) - 1, len(figures) * percent // 100)]


def say(what, figures=None, **more):
    """Prints one figure as JSON; with `figures`, in milliseconds, how they are spread."""
    if figures:
        spread = {"p50_ms": share(figures, 50), "p99_ms": share(figures, 99), "max_ms": max(figures)}
        more = {**{name: round(figure, 2) for name, figure in spread.items()}, "count": len(figures), **more}
    print(json.dumps({"what": what, **more}), flush=True)
