"""Many short lives: connections that are torn, children that are killed."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import struct
import threading
from asyncio.subprocess import PIPE

import pytest
from canaries import Canaries

pytestmark = [pytest.mark.only("gyre"), pytest.mark.timeout(300)]


class Server(asyncio.Protocol):
    """Echoes, and ends some connections in the middle."""

    def __init__(self, rng, alive):
        self.rng = rng
        self.alive = alive
        self.ended = False

    def connection_made(self, transport):
        self.transport = transport
        self.alive.add(self)
        if self.rng.random() < 0.02:
            transport.abort()

    def data_received(self, data):
        if self.ended:
            return
        self.transport.write(data)
        chance = self.rng.random()
        if chance < 0.02:
            self.transport.abort()
        elif chance < 0.04:
            self.transport.close()
        elif chance < 0.06 and self.transport.can_write_eof():
            self.ended = True
            self.transport.write_eof()

    def connection_lost(self, exc):
        assert self in self.alive
        self.alive.discard(self)


def reset(writer):
    """The connection ends by RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def client(rng, address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        for _ in range(rng.randrange(4)):
            size = rng.choice([1, 100, 5000, 100_000, 500_000])
            writer.write(os.urandom(1) * size)
            await writer.drain()
            if rng.random() < 0.8:
                await reader.readexactly(rng.randrange(1, size + 1))
        if rng.random() < 0.3:
            writer.write_eof()
    finally:
        how = rng.random()
        if how < 0.3:
            reset(writer)
        elif how < 0.5:
            writer.transport.abort()
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def test_connections(loop, rng, amount):
    alive = set()
    canaries = Canaries()

    async def one(address):
        task = asyncio.create_task(client(rng, address))
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.005)
            task.cancel()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await task

    async def main():
        server = await loop.create_server(lambda: Server(rng, alive), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(amount(60)):
            await asyncio.gather(*[one(address) for _ in range(40)])
            canaries.hatch(40)
            await asyncio.sleep(0.001)
            canaries.check()
        server.close()
        async with asyncio.timeout(10):
            while alive:
                await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    gc.collect()


def zombies():
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as file:
        return file.read().split()


async def child(rng):
    kind = rng.randrange(5)
    if kind == 0:
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0
        return
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    try:
        if kind == 1:
            data = os.urandom(rng.randrange(200_000))
            out, _ = await process.communicate(data)
            assert out == data
        elif kind == 2:
            process.stdin.write(bytes(rng.randrange(1, 300_000)))
            await process.stdout.read(rng.randrange(1, 1000))
            process.kill()
            await process.stdout.read()  # while it is full and paused, wait() does not end
            assert await process.wait() == -signal.SIGKILL
        elif kind == 3:
            process._transport.close()
            await process.wait()
        else:
            async with asyncio.timeout(rng.random() * 0.01):
                await process.stdout.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.stdout.read()
        await process.wait()


def test_children(loop, rng, amount):
    canaries = Canaries()

    async def one():
        with contextlib.suppress(TimeoutError):
            await child(rng)

    async def main():
        for _ in range(amount(40)):
            await asyncio.gather(*[one() for _ in range(15)])
            canaries.hatch(40)
            await asyncio.sleep(0.001)
            canaries.check()
        for _ in range(20):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    gc.collect()
    assert zombies() == []


def test_children_leak_nothing(loop, amount):
    def descriptors():
        gc.collect()
        return sorted(os.listdir("/proc/self/fd"))

    def rss():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def some(count):
        for _ in range(count // 10):
            await asyncio.gather(*[one() for _ in range(10)])

    async def one():
        process = await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
        await process.communicate(b"x")

    loop.run_until_complete(some(amount(500)))
    before, memory = descriptors(), rss()
    loop.run_until_complete(some(amount(2000)))
    assert len(descriptors()) == len(before)
    assert rss() - memory < 4 << 20
    assert zombies() == []
