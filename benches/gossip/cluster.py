"""What a measured cluster is, whichever program its nodes run: processes that are started, asked, stalled and killed."""

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter, deque

# How long anything may take that nobody measures: a node's start, all nodes' agreement. Many times what is expected, since a
# cluster forms slowly when a hundred nodes share two cores.
WAIT_MAX_S = 120
# How often a condition is looked at that nobody measures.
LOOK_EVERY_S = 0.1
# How many nodes are started at once: the door of a member of narun takes ten strangers a second.
WAVE = 10
# How many nodes, the first ones, let others in. They stay from beginning to end.
MAKERS = 5


class GivenUp(Exception):
    """Something that should have happened did not."""


async def wait_until(what, condition):
    """Awaits that `condition()`, which may ask nodes, becomes true."""
    deadline = time.monotonic() + WAIT_MAX_S
    while not await condition():
        if time.monotonic() > deadline:
            raise GivenUp(f"waited {WAIT_MAX_S} s in vain until {what}")
        await asyncio.sleep(LOOK_EVERY_S)


class Line(asyncio.Protocol):
    """One connection to the interface that a node has for its users. Answers come in the order of the questions."""

    def __init__(self):
        self.buffer, self.waiting, self.transport = bytearray(), deque(), None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.transport = None
        while self.waiting:
            self.answer(self.waiting.popleft(), ConnectionError("the connection broke"))

    def data_received(self, data):
        # Read before anything is made of the bytes: this is when the node said it.
        now = time.monotonic()
        self.buffer += data
        self.take(now)

    def take(self, now):
        """Takes whole answers out of the buffer."""
        raise NotImplementedError

    def send(self, data):
        """Asks, and gives back what will have the answer."""
        if self.transport is None:
            raise ConnectionError("not connected")
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.transport.write(data)
        return future

    @staticmethod
    def answer(future, value):
        if not future.done():
            (future.set_exception if isinstance(value, Exception) else future.set_result)(value)

    def close(self):
        if self.transport is not None:
            self.transport.abort()


class Node:
    """A process with a folder. What it is asked, and how, is its program's own."""

    def __init__(self, folder, name, number):
        self.folder, self.name, self.number = folder / name, name, number
        self.log = self.folder / "log"
        self.process, self.lines = None, {}
        self.folder.mkdir(parents=True)

    def spawn(self, command, environment):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def expect_running(self):
        if self.process.poll() is not None:
            raise GivenUp(f"node {self.name} has ended:\n{self.log.read_text(errors='replace')[-2000:]}")

    def others(self):
        """Process numbers that belong to the node besides its first one."""
        return []

    async def connect(self):
        """A new line to the node."""
        raise NotImplementedError

    async def line(self, purpose="ask"):
        """The line that is kept for a purpose; a new one when it broke."""
        kept = self.lines.get(purpose)
        if kept is None or kept.transport is None:
            kept = self.lines[purpose] = await self.connect()
        return kept

    async def answers(self):
        """Whether the node can be asked."""
        self.expect_running()
        try:
            await self.line()
            return True
        except OSError:
            return False

    async def states(self):
        """What the node says of every member: `alive`, `dead`, `gone`, or another word of its own."""
        raise NotImplementedError

    async def state_of(self, name):
        """What the node says of one member."""
        raise NotImplementedError

    def kill(self):
        """Kills all of the node at once, as a host's death would."""
        for pid in [self.process.pid, *self.others()]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.hang_up()

    def stall(self):
        """Nothing is answered any more, though every connection stands."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def hang_up(self):
        for line in self.lines.values():
            line.close()
        self.lines.clear()


class Cluster:
    """Nodes of one program. `async with` forms the cluster and ends it."""

    def __init__(self, binary, folder, size, random):
        self.binary, self.folder, self.size, self.random = binary, folder, size, random
        self.nodes, self.numbered = [], 0

    # What each program does in its own way.

    def make(self, name):
        """A node that is not launched yet."""
        raise NotImplementedError

    def found(self, node):
        """Launches the first node."""
        raise NotImplementedError

    def join(self, node):
        """Launches a node that becomes a member."""
        raise NotImplementedError

    def restart(self, node):
        """Launches a member that was killed."""
        raise NotImplementedError

    async def ready(self):
        """Called once when all nodes are members."""

    async def change(self, origin, number):
        """Makes the change `number` at one node, and gives back for each node after how many seconds it showed there."""
        raise NotImplementedError

    async def bid_leave(self, node):
        """Asks a node to leave the cluster and to end."""
        raise NotImplementedError

    async def mark(self):
        """A moment for `declared_dead`."""
        raise NotImplementedError

    async def declared_dead(self, mark, names):
        """Which node declared which of these dead since the mark, by its own word; also where that was taken back."""
        raise NotImplementedError

    # What all do alike.

    async def __aenter__(self):
        try:
            first = self.add()
            self.found(first)
            await wait_until("the first node answers", first.answers)
            while len(self.nodes) < self.size:
                makers = len(self.nodes) < MAKERS
                await self.join_wave(min(WAVE, (MAKERS if makers else self.size) - len(self.nodes)))
            await self.agree()
            await self.ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()

    def add(self):
        self.numbered += 1
        node = self.make(f"n{self.numbered}")
        self.nodes.append(node)
        return node

    async def join_wave(self, count):
        wave = [self.add() for _ in range(count)]
        for node in wave:
            self.join(node)
        for node in wave:
            await wait_until(f"{node.name} answers", node.answers)

    async def agree(self):
        """Waits until every node says that exactly the present nodes are alive."""
        expected = {node.name for node in self.nodes}
        states = {}

        async def sees_all(node):
            nonlocal states
            node.expect_running()
            states = await node.states()
            return {name for name, state in states.items() if state == "alive"} == expected

        for node in self.nodes:
            try:
                await wait_until(f"{node.name} sees all {len(expected)} alive", lambda node=node: sees_all(node))
            except GivenUp as trouble:
                raise GivenUp(f"{trouble}; it sees {dict(Counter(states.values()))}") from None

    def without(self, gone):
        return [node for node in self.nodes if node is not gone]

    def pick(self, count=1):
        """Some nodes at random, but none of those that let others in."""
        return self.random.sample(self.nodes[min(MAKERS, self.size - 1):], count)

    async def leave(self, node):
        """Takes a node out of the cluster, and waits until all others know."""
        self.nodes.remove(node)
        await self.bid_leave(node)

        async def ended():
            return node.process.poll() is not None

        await wait_until(f"{node.name} has left and ended", ended)
        node.hang_up()
        await self.agree()
