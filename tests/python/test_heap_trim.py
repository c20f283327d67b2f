"""gyre.Loop(heap_trim=): what a burst leaves in the C library's heap goes back to the system."""

import asyncio
import ctypes
import json
import platform
import socket
import sys

import pytest
from helpers import script

pytestmark = pytest.mark.only("gyre")

# A server of each kind keeps what 64 connections send, 1 MiB each, until they close, and with each
# piece a small block that stays: none of the pieces lies at the top of the heap when it is freed.
BURST = """
    import asyncio, json, os, socket, sys, threading, time
    import gyre

    CONNECTIONS, SIZE, PIECE = 64, 1 << 20, 100_000
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    pins = []

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def clients(port, closed):
        message = b"x" * SIZE
        socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        for sock in socks:
            sock.sendall(message)
            assert sock.recv(1) == b"."  # all of it is there
        for sock in socks:
            sock.close()
        closed()

    class Keep(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.kept, self.missing = transport, [], SIZE

        def data_received(self, data):
            self.kept.append(data)
            pins.append(bytearray(2000))
            self.missing -= len(data)
            if self.missing == 0:
                self.transport.write(b".")

        def connection_lost(self, exc):
            del self.kept

    async def keep(read, write):
        kept, missing = [], SIZE
        while data := await read(PIECE):
            kept.append(data)
            pins.append(bytearray(2000))
            missing -= len(data)
            if missing == 0:
                await write(b".")

    async def connected(reader, writer):
        async def write(data):
            writer.write(data)
        await keep(reader.read, write)
        writer.close()

    async def serve_sock(loop, listener):
        async def serve(conn):
            with conn:
                await keep(lambda n: loop.sock_recv(conn, n), lambda d: loop.sock_sendall(conn, d))
        for _ in range(CONNECTIONS):
            conn, _ = await loop.sock_accept(listener)
            conn.setblocking(False)
            tasks.append(loop.create_task(serve(conn)))

    tasks = []

    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        before = resident()
        if mode == "proto":
            await loop.create_server(Keep, sock=listener)
        elif mode == "streams":
            await asyncio.start_server(connected, sock=listener)
        else:
            tasks.append(loop.create_task(serve_sock(loop, listener)))
        over = asyncio.Event()
        thread = threading.Thread(
            target=clients, args=(port, lambda: loop.call_soon_threadsafe(over.set)))
        thread.start()
        await over.wait()
        thread.join()
        most = resident() - before
        end = time.monotonic() + float(sys.argv[3])
        while (left := resident() - before) > 10 << 20 and time.monotonic() < end:
            await asyncio.sleep(0.01)  # a little goes on
        print(json.dumps([most, left, loop.stats()["heap_trims"]]))

    asyncio.Runner(loop_factory=lambda: gyre.new_event_loop(**options)).run(main())
"""


def sanitized():
    with open("/proc/self/maps") as maps:
        return "libasan" in maps.read()


def burst(mode, wait_s, **options):
    """What the process held at most and in the end beyond its start, and the trims."""
    # malloc_trim() is glibc's alone, and a sanitizer puts its own heap in place of it.
    if platform.libc_ver()[0] != "glibc" or sanitized():
        pytest.skip("not the heap of glibc: nothing is trimmed")
    # All pieces in the heap, as they are once a large one has been freed.
    done = script(
        BURST,
        arguments=[mode, json.dumps(options), str(wait_s)],
        MALLOC_MMAP_THRESHOLD_="1000000000",
        MALLOC_TRIM_THRESHOLD_="131072",
        PYTHONMALLOC="pymalloc",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["proto", "streams", "sock"])
def test_a_burst_leaves_nothing(kind, mode):
    most, left, trims = burst(mode, 20)
    assert most > 60 << 20
    assert left <= 10 << 20, trims
    assert trims > 0


@pytest.mark.parametrize("mode", ["proto", "streams", "sock"])
def test_without_it_stays(kind, mode):
    most, left, trims = burst(mode, 0.3, heap_trim=False)
    assert trims == 0
    assert left > 50 << 20, most


def test_default_and_stats(new_loop):
    loop = new_loop()
    assert loop.stats()["heap_trims"] == 0


STEADY = """
    import asyncio, os, time
    import gyre

    SIZE, ROUNDS = 128 << 10, 4000

    async def main():
        loop = asyncio.get_running_loop()
        held = []  # in use: it looks as if a burst had left it

        async def echo(reader, writer):
            while data := await reader.read(SIZE):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def client():
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            message = bytes(SIZE)
            for _ in range(ROUNDS):
                writer.write(message)
                await reader.readexactly(SIZE)
                if len(held) < 64:
                    held.append(b"x" * (1 << 20))
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        begin = time.monotonic()
        await client()
        print(loop.stats()["heap_trims"], time.monotonic() - begin)

    asyncio.Runner(loop_factory=gyre.new_event_loop).run(main())
"""


def test_a_steady_load_is_not_trimmed(kind):
    done = script(STEADY)
    assert done.returncode == 0, done.stderr
    trims, took_s = map(float, done.stdout.split())
    # None, but a machine that stands still for a tenth of a second makes it look like the end.
    assert trims <= took_s / 0.5, took_s


def usable(data):
    """The size of the block that the object lies in."""
    call = ctypes.CDLL(None).malloc_usable_size
    call.restype, call.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    return call(id(data))


@pytest.fixture
def plain_blocks():
    # A debugging allocator puts words of its own around each object, and the test looks at blocks.
    allocator = sys.flags.dev_mode or "debug" in str(sys._xoptions)
    if platform.libc_ver()[0] != "glibc" or sanitized() or allocator or sys.abiflags:
        pytest.skip("large objects are no plain blocks of glibc's")
    assert 100_033 <= usable(bytes(100_000)) < 104_096


class Keep(asyncio.Protocol):
    def __init__(self, wanted):
        self.wanted = wanted

    def connection_made(self, transport):
        self.got = []
        self.size = 0
        self.there = asyncio.Event()

    def data_received(self, data):
        self.got.append(data)
        self.size += len(data)
        if self.size in self.wanted:
            self.there.set()


# What realloc() cuts off by a few bytes is kept by glibc for the next small malloc(): nothing below
# it goes back to the system after a burst.
def test_received_bytes_are_cut_where_they_are(loop, plain_blocks):
    message = b"7" * 99_500

    async def receive():
        mine, peer = socket.socketpair()
        peer.setblocking(False)
        with peer:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: Keep({100_000, 199_500}), mine
            )
            for data in (bytes(100_000), message):
                protocol.there.clear()
                await loop.sock_sendall(peer, data)
                await protocol.there.wait()
            transport.close()
            return protocol.got

    async def sock_recv():
        mine, peer = socket.socketpair()
        mine.setblocking(False)
        peer.setblocking(False)
        with mine, peer:
            await loop.sock_sendall(peer, message)
            return [await loop.sock_recv(mine, 100_000)]

    for way in (receive, sock_recv):
        got = loop.run_until_complete(way())
        assert b"".join(got).endswith(message)
        assert usable(got[-1]) >= 100_033
        assert hash(got[-1]) == hash(bytes(memoryview(got[-1])))
        assert ctypes.string_at(id(got[-1]) + bytes.__basicsize__ - 1 + len(got[-1]), 1) == b"\0"


# Every second message takes memory at the top of the heap, and each other one gives it back.
STORM = """
    import asyncio, json
    import gyre

    SIZE, ROUNDS = 1 << 20, 200

    async def main():
        loop = asyncio.get_running_loop()

        async def sink(reader, writer):
            pieces = []
            while await reader.read(SIZE):
                pieces = [] if pieces else [b"x" * 100_000 for _ in range(20)]
            writer.close()

        server = await asyncio.start_server(sink, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        held = False
        for _ in range(ROUNDS):
            writer.write(bytes(SIZE))
            await writer.drain()
            held = held or bool(loop.stats()["ballast_held"])
        writer.close()
        await reader.read()
        while loop.stats()["ballast_held"]:
            await asyncio.sleep(0.05)
        print(json.dumps([held, loop.stats()["ballasts"]]))

    asyncio.Runner(loop_factory=gyre.new_event_loop).run(main())
"""


def test_a_heap_that_swings_is_kept_until_it_is_quiet(kind):
    done = script(STORM)
    assert done.returncode == 0, done.stderr
    held, ballasts = json.loads(done.stdout)
    if platform.libc_ver()[0] == "glibc" and not sanitized():
        assert held and ballasts >= 1
