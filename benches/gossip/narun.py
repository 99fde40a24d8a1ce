"""A cluster of narun's nodes, asked over the API on their unix sockets."""

import asyncio
import json
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path

from cluster import MAKERS, WAIT_MAX_S, Cluster, GivenUp, Line, Node, wait_until

# Below the range from which the kernel takes ports for outgoing connections.
PORT_BASE = 10_000
# Changes go round among this many cron specs, so that the documents stay as short as those that people have.
SPECS = 10
# Longest that the API holds an answer back.
HOLD_MS = 60_000

STATES = {"down": "dead"}


class ApiLine(Line):
    """HTTP/1.1, as much of it as the API uses. An answer is its moment, its status and what its JSON says."""

    def take(self, now):
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            status, *fields = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
            lengths = [value for key, _, value in (field.partition(":") for field in fields) if key == "content-length"]
            whole = end + 4 + (int(lengths[0]) if lengths else 0)
            if len(self.buffer) < whole:
                return
            body = bytes(self.buffer[end + 4:whole])
            del self.buffer[:whole]
            self.answer(self.waiting.popleft(), (now, int(status.split(" ")[1]), json.loads(body) if body else None))

    def request(self, method, path, body=None):
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: narun\r\ncontent-length: {len(content)}\r\n"
        if content:
            head += "content-type: application/json\r\n"
        return self.send(head.encode() + b"\r\n" + content)


class NarunNode(Node):
    def __init__(self, folder, name, number):
        super().__init__(folder, name, number)
        self.data = self.folder / "data"

    async def connect(self):
        # Relative, since a socket's path may have 107 bytes only.
        path = os.path.relpath(self.data / "narun.sock")
        return (await asyncio.get_running_loop().create_unix_connection(ApiLine, path))[1]

    async def request(self, method, path, body=None, purpose="ask", allowed=(200,)):
        """The moment of the answer, and what it says; none for a refusal that is allowed."""
        line = await self.line(purpose)
        at, status, answer = await asyncio.wait_for(line.request(method, path, body), WAIT_MAX_S)
        if status not in allowed:
            raise GivenUp(f"{method} {path} at {self.name}: {status} {answer}")
        return at, answer if status == 200 else None

    def others(self):
        """The keeper, if one runs."""
        try:
            pid = int((self.data / "keeper.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return []
        return [pid] if words[1:2] == [b"keeper"] and os.fsencode(self.data.resolve()) in words else []

    async def answers(self):
        # The socket may be there before what serves it.
        return await super().answers() and (await self.request("GET", "/v1/status", allowed=(200, 503)))[1] is not None

    async def members(self):
        return (await self.request("GET", "/v1/nodes"))[1]

    async def states(self):
        return {member["name"]: STATES.get(member["status"], member["status"]) for member in await self.members()}

    async def state_of(self, name):
        _, member = await self.request("GET", f"/v1/nodes/{name}", allowed=(200, 404))
        return "gone" if member is None else STATES.get(member["status"], member["status"])


class Narun(Cluster):
    title = "narun"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tickets, self.revisions = {}, {}

    def make(self, name):
        return NarunNode(self.folder, name, self.numbered)

    def launch(self, node, *words):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NARUN")}
        command = [self.binary, *words, "--data-dir", node.data, "--listen", f"127.0.0.1:{PORT_BASE + node.number}"]
        node.spawn(command, environment | {"NARUN_LOG": "warn"})

    def found(self, node):
        self.launch(node, "start", "--name", node.name)

    def join(self, node):
        # Their makers' doors in turn, once there are makers.
        maker = self.nodes[node.number % MAKERS if node.number > MAKERS else 0]
        self.launch(node, "join", self.ticket(maker), "--name", node.name)

    def ticket(self, maker):
        """A maker's ticket, good for all who will ever join there."""
        if maker.name not in self.tickets:
            self.tickets[maker.name] = self.ask(maker, "ticket", "create", "--uses", "1000").strip()
        return self.tickets[maker.name]

    def restart(self, node):
        self.launch(node, "start")

    def ask(self, node, *words):
        """What the command line prints at a node."""
        command = [self.binary, *words, "--data-dir", node.data]
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise GivenUp(f"`narun {' '.join(map(str, words))}` at {node.name}: {done.stderr}")
        return done.stdout

    async def ready(self):
        """Makes what is not to be timed: all tickets, and the cron specs that `change` changes. They are due on New Year's
        Day, so that nothing of them ever runs here."""
        for maker in self.nodes[:MAKERS]:
            self.ticket(maker)
        script = self.folder / "probe"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        for number in range(SPECS):
            words = ("--name", f"probe-{number}", "--tag", "v1", "--run-mode", "cron", "--cron-schedule", "0 0 1 1 *")
            self.ask(self.nodes[0], "deploy", *words, script)
            self.revisions[number] = 1
        for node in self.nodes:

            async def knows_all(node=node):
                _, services = await node.request("GET", "/v1/services")
                return len(services) == SPECS

            await wait_until(f"{node.name} knows the cron specs", knows_all)
            for number in range(SPECS):
                await self.seen(node, number, 1)

    async def seen(self, node, spec, revision):
        """The moment at which a node answers that a revision has come: it holds the answer back until then."""
        path = f"/v1/services/probe-{spec}/wait?revision={revision}&timeout_ms={HOLD_MS}"
        at, answer = await node.request("GET", path, purpose="watch")
        if answer["outcome"] != "done":
            raise GivenUp(f"revision {revision} of probe-{spec} at {node.name}: {answer}")
        return at

    async def change(self, origin, number):
        spec = number % SPECS
        revision = self.revisions[spec] = self.revisions[spec] + 1
        # A stop and a start are revisions as any other, and unlike a deploy they can be taken by a node without the binary.
        verb = "stop" if revision % 2 == 0 else "start"
        await origin.line()
        watches = [asyncio.ensure_future(self.seen(node, spec, revision)) for node in self.nodes]
        # The questions are on their way before the change is: a watch that comes late would be answered late.
        await asyncio.gather(*(node.state_of(origin.name) for node in self.nodes))
        began = time.monotonic()
        _, revised = await origin.request("POST", f"/v1/services/probe-{spec}/{verb}")
        if revised["revision"] != revision:
            raise GivenUp(f"{verb} of probe-{spec} at {origin.name}: {revised} instead of revision {revision}")
        return [at - began for at in await asyncio.gather(*watches)]

    async def bid_leave(self, node):
        await node.request("POST", "/v1/leave")

    async def mark(self):
        return time.time()

    async def declared_dead(self, mark, names):
        pairs = set()
        for node in self.nodes:
            for member in await node.members():
                # The moment is kept through suspicion; it is another one only after the node was taken for dead.
                since = datetime.fromisoformat(member["since"].replace("Z", "+00:00")).timestamp()
                if member["name"] in names and (member["status"] == "down" or since > mark):
                    pairs.add((node.name, member["name"]))
        return pairs
