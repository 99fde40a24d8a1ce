"""A cluster of Serf's agents with the settings that they have by themselves, asked over their RPC (msgpack over TCP)."""

import asyncio
import os
import re
import struct
import time

from cluster import MAKERS, WAIT_MAX_S, Cluster, GivenUp, Line, Node

# Below the range from which the kernel takes ports for outgoing connections.
GOSSIP_PORT_BASE, RPC_PORT_BASE = 20_000, 25_000

STATES = {"failed": "dead", "left": "gone"}
EVENT = "bench"
FAILED = re.compile(rb"EventMemberFailed: (\S+)")


def pack(value):
    """msgpack, as far as requests need it, in the old form without `str8` and `bin` that Serf reads."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else struct.pack(">BI", 0xCE, value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return (bytes([0xA0 | len(value)]) if len(value) < 32 else struct.pack(">BH", 0xDA, len(value))) + value
    if isinstance(value, dict) and len(value) < 16:
        return bytes([0x80 | len(value)]) + b"".join(pack(key) + pack(item) for key, item in value.items())
    raise TypeError(f"no form for {value!r}")


class Short(Exception):
    """The rest of a value has not come yet."""


# Tag: the format of a number that follows, and what the number is.
NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
           0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
RAWS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
LISTS = {0xDC: ">H", 0xDD: ">I"}
MAPS = {0xDE: ">H", 0xDF: ">I"}


class Unpacker:
    """Reads msgpack values out of bytes that come bit by bit. Strings stay bytes, but for the keys of maps."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def bytes(self, count):
        end = self.at + count
        if end > len(self.data):
            raise Short
        part, self.at = bytes(self.data[self.at:end]), end
        return part

    def number(self, form):
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def value(self):
        tag = self.bytes(1)[0]
        if tag < 0x80:
            return tag
        if tag < 0x90:
            return self.map(tag & 0x0F)
        if tag < 0xA0:
            return [self.value() for _ in range(tag & 0x0F)]
        if tag < 0xC0:
            return self.bytes(tag & 0x1F)
        if tag >= 0xE0:
            return tag - 0x100
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in NUMBERS:
            return self.number(NUMBERS[tag])
        if tag in RAWS:
            return self.bytes(self.number(RAWS[tag]))
        if tag in LISTS:
            return [self.value() for _ in range(self.number(LISTS[tag]))]
        if tag in MAPS:
            return self.map(self.number(MAPS[tag]))
        raise GivenUp(f"Serf's RPC says {tag:#x}, which is no form that it is known to use")

    def map(self, count):
        return {self.value().decode(): self.value() for _ in range(count)}


class RpcLine(Line):
    """A header, and a body after it where the command has one. An answer is its moment and its body."""

    BODIES = {"members", "members-filtered"}

    def __init__(self):
        super().__init__()
        self.asked, self.sequence = {}, 0
        self.streamed, self.on_event = None, None

    def take(self, now):
        while self.buffer:
            reader = Unpacker(self.buffer)
            try:
                header = reader.value()
                sequence = header["Seq"]
                streams = sequence == self.streamed and sequence not in self.asked
                bodied = streams or self.asked[sequence] in self.BODIES
                body = reader.value() if bodied else None
            except Short:
                return
            del self.buffer[:reader.at]
            if streams:
                self.on_event(now, body)
                continue
            command, error = self.asked.pop(sequence), header["Error"]
            failed = GivenUp(f"Serf's RPC refuses `{command}`: {error.decode()}") if error else None
            self.answer(self.waiting.popleft(), failed or (now, body))

    def request(self, command, body=None):
        self.sequence += 1
        self.asked[self.sequence] = command
        if command == "stream":
            self.streamed = self.sequence
        header = pack({"Command": command, "Seq": self.sequence})
        return self.send(header + (b"" if body is None else pack(body)))


class SerfNode(Node):
    async def connect(self):
        loop = asyncio.get_running_loop()
        line = (await loop.create_connection(RpcLine, "127.0.0.1", RPC_PORT_BASE + self.number))[1]
        await line.request("handshake", {"Version": 1})
        return line

    async def request(self, command, body=None, purpose="ask"):
        line = await self.line(purpose)
        return await asyncio.wait_for(line.request(command, body), WAIT_MAX_S)

    async def states(self):
        return states_in((await self.request("members"))[1])

    async def state_of(self, name):
        _, body = await self.request("members-filtered", {"Tags": {}, "Status": "", "Name": name})
        return states_in(body).get(name, "gone")


def states_in(body):
    rows = ((member["Name"].decode(), member["Status"].decode()) for member in body["Members"] or [])
    return {name: STATES.get(status, status) for name, status in rows}


class Serf(Cluster):
    title = "Serf"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.awaited = {}

    def make(self, name):
        return SerfNode(self.folder, name, self.numbered)

    def launch(self, node, *words):
        addresses = (f"-bind=127.0.0.1:{GOSSIP_PORT_BASE + node.number}", f"-rpc-addr=127.0.0.1:{RPC_PORT_BASE + node.number}")
        node.spawn([self.binary, "agent", f"-node={node.name}", *addresses, *words], dict(os.environ))

    def found(self, node):
        self.launch(node)

    def join(self, node):
        maker = self.nodes[node.number % MAKERS if node.number > MAKERS else 0]
        self.launch(node, f"-join=127.0.0.1:{GOSSIP_PORT_BASE + maker.number}")

    restart = join

    async def watch(self, node):
        """Has a node's user events streamed to us, once."""
        line = await node.line("watch")
        if line.streamed is None:
            line.on_event = lambda now, event: self.on_event(node.name, now, event)
            await line.request("stream", {"Type": f"user:{EVENT}"})

    def on_event(self, name, now, event):
        future = self.awaited.get((name, event["Payload"]))
        if future is not None and not future.done():
            future.set_result(now)

    async def change(self, origin, number):
        payload = str(number).encode()
        loop = asyncio.get_running_loop()
        self.awaited = {(node.name, payload): loop.create_future() for node in self.nodes}
        await asyncio.gather(*(self.watch(node) for node in self.nodes))
        await origin.line()
        began = time.monotonic()
        await origin.request("event", {"Name": EVENT, "Payload": payload, "Coalesce": False})
        moments = await asyncio.wait_for(asyncio.gather(*self.awaited.values()), WAIT_MAX_S)
        return [at - began for at in moments]

    async def bid_leave(self, node):
        await node.request("leave")

    async def mark(self):
        return {node.name: node.log.stat().st_size for node in self.nodes}

    async def declared_dead(self, mark, names):
        pairs = set()
        for node in self.nodes:
            with open(node.log, "rb") as log:
                log.seek(mark[node.name])
                failed = {name.decode() for name in FAILED.findall(log.read())}
            pairs |= {(node.name, name) for name in failed & names}
        return pairs
