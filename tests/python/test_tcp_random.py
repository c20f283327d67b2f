"""Many connections that do random things, from a seed: what must hold whatever they do.

Bytes arrive in order and complete (or as a prefix, after an abort or a reset); connection_made is
first and connection_lost last, once; pause_writing and resume_writing alternate; nothing is
received while reading is paused; at the end nothing is left.
"""

import asyncio
import contextlib
import gc
import random
import socket

import pytest
from tcp_tools import drive, spin

CONNECTIONS = 8
STEPS = 40


def pattern(offset, count):
    """The bytes of a stream at this offset: each place knows its number."""
    block = 251
    first = offset % block
    return (bytes(range(block)) * (count // block + 2))[first : first + count]


class Checked(asyncio.Protocol):
    def __init__(self, world):
        self.world = world
        self.state = "new"
        self.transport = None
        self.received = 0
        self.sent = 0
        self.writing_paused = False
        self.ended = False
        self.lost = world.loop.create_future()

    def expect(self, condition, what):
        if not condition:
            self.world.errors.append(f"{what} in state {self.state}")

    def connection_made(self, transport):
        self.expect(self.state == "new", "connection_made")
        self.state = "open"
        self.transport = transport
        self.world.react(self)

    def check_data(self, data):
        self.expect(self.state == "open", "data_received")
        self.expect(not self.ended, "data after the end")
        self.expect(not self.transport._paused, "data while paused")
        self.expect(not self.transport.is_closing(), "data while closing")
        self.expect(bytes(data) == pattern(self.received, len(data)), "wrong bytes")
        self.received += len(data)

    def data_received(self, data):
        self.check_data(data)
        self.world.react(self)

    def eof_received(self):
        self.expect(self.state == "open" and not self.ended, "eof_received")
        self.ended = True
        self.world.react(self)
        return self.world.random.random() < 0.5

    def pause_writing(self):
        self.expect(self.state == "open" and not self.writing_paused, "pause_writing")
        self.writing_paused = True

    def resume_writing(self):
        self.expect(self.state == "open" and self.writing_paused, "resume_writing")
        self.writing_paused = False
        self.world.react(self)

    def connection_lost(self, exc):
        self.expect(self.state == "open", "connection_lost")
        self.expect(exc is None or isinstance(exc, OSError), f"lost with {exc!r}")
        self.state = "lost"
        if not self.transport._eof:
            self.transport.write(b"ignored")
        self.transport = None
        self.lost.set_result(None)


class CheckedBuffered(asyncio.BufferedProtocol, Checked):
    def __init__(self, world):
        Checked.__init__(self, world)
        self.buffer = bytearray(world.random.choice([1, 100, 70_000]))

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.check_data(memoryview(self.buffer)[:nbytes])
        self.world.react(self)

    connection_made = Checked.connection_made
    connection_lost = Checked.connection_lost
    eof_received = Checked.eof_received
    pause_writing = Checked.pause_writing
    resume_writing = Checked.resume_writing


class World:
    def __init__(self, loop, seed):
        self.loop = loop
        self.random = random.Random(seed)
        self.errors = []
        self.protocols = []

    def protocol(self):
        make = CheckedBuffered if self.random.random() < 0.3 else Checked
        self.protocols.append(make(self))
        return self.protocols[-1]

    def react(self, protocol):
        """Sometimes something happens inside a callback."""
        if self.random.random() < 0.2:
            self.act(protocol)

    def act(self, protocol):
        transport = protocol.transport
        if transport is None:
            return
        action = self.random.choice(
            ["write"] * 6
            + ["writelines", "pause", "resume", "resume", "eof", "close", "abort"]
            + ["limits", "look", "switch"]  # fmt: skip
        )
        getattr(self, action)(protocol, transport)

    def write(self, protocol, transport):
        size = self.random.choice([1, 10, 1000, 4096, 5000, 100_000, 1_000_000])
        if transport._eof or protocol.writing_paused:
            return
        data = pattern(protocol.sent, size)
        protocol.sent += size
        transport.write(data if self.random.random() < 0.7 else bytearray(data))

    def writelines(self, protocol, transport):
        if transport._eof:
            return
        parts = []
        for _ in range(self.random.randrange(1, 80)):
            size = self.random.choice([0, 1, 50, 3000])
            parts.append(pattern(protocol.sent, size))
            protocol.sent += size
        transport.writelines(parts)

    def pause(self, protocol, transport):
        transport.pause_reading()

    def resume(self, protocol, transport):
        if not transport.is_reading():
            protocol.ended = False  # what resumes reading hears the end again, as on asyncio
        transport.resume_reading()

    def eof(self, protocol, transport):
        if self.random.random() < 0.2:
            transport.write_eof()

    def close(self, protocol, transport):
        if self.random.random() < 0.3:
            transport.close()

    def abort(self, protocol, transport):
        if self.random.random() < 0.3:
            transport.abort()

    def limits(self, protocol, transport):
        transport.set_write_buffer_limits(self.random.choice([0, 10, 5000, 100_000]))

    def look(self, protocol, transport):
        transport.get_write_buffer_size()
        transport.get_extra_info(self.random.choice(["socket", "peername", "sockname"]))
        repr(transport)

    def switch(self, protocol, transport):
        transport.set_protocol(protocol)


async def live(world, peer):
    """The other end: reads, writes, and leaves in one way or another."""
    loop = world.loop
    sent = received = 0
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(world.random.randrange(STEPS)):
            action = world.random.random()
            if action < 0.4:
                size = world.random.choice([1, 10, 1000, 20_000, 300_000])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(loop.sock_sendall(peer, pattern(sent, size)), 0.02)
                    sent += size
                    continue
                break  # nobody knows how much of it has left
            if action < 0.8:
                with contextlib.suppress(BlockingIOError):
                    data = peer.recv(100_000)
                    if data != pattern(received, len(data)):
                        world.errors.append("wrong bytes at the peer")
                    received += len(data)
            else:
                await spin(world.random.randrange(3))
    ending = world.random.random()
    if ending < 0.3:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif ending < 0.5:
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.001)
    peer.close()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("options", [{}, {"receive": "multishot"}, {"send": "batched"}], ids=str)
@pytest.mark.only("gyre")
def test_random_connections(kind, new_loop, seed, options):
    loop = new_loop(**options)
    world = World(loop, seed)

    async def one(address):
        peer = socket.socket()
        peer.setblocking(False)
        await loop.sock_connect(peer, address)
        await live(world, peer)

    async def stir():
        while True:
            await spin(world.random.randrange(1, 4))
            if world.protocols:
                world.act(world.random.choice(world.protocols))

    async def main():
        server = await loop.create_server(world.protocol, "127.0.0.1", 0)
        stirring = asyncio.create_task(stir())
        await asyncio.gather(*(one(server.sockets[0].getsockname()) for _ in range(CONNECTIONS)))
        stirring.cancel()
        await asyncio.sleep(0.01)
        for protocol in world.protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await asyncio.gather(*(protocol.lost for protocol in world.protocols))
        server.close()
        await server.wait_closed()
        await spin()
        stats = loop.stats()
        assert stats["buffers_leased"] == 0
        assert stats["live"] == 0, stats

    drive(loop, main())
    assert not world.errors
    assert len(world.protocols) == CONNECTIONS
    gc.collect()
