"""StreamReader and StreamWriter: whatever is done to them, gyre and asyncio answer the same.

Hypothesis makes up what arrives, in which pieces, and what the program does meanwhile; each script
runs on asyncio's own loop and on gyre's, and the two records are compared.
"""

import asyncio
import contextlib
import socket

import pytest
from conftest import finish, make_loop
from hypothesis import given
from hypothesis import strategies as st
from tcp_tools import spin

# So many events are waited for, one after the other, until what was sent before must have arrived.
SETTLE = 3

data = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.lists(
        st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"--", b"-"]), min_size=1, max_size=30
    ).map(b"".join),
    st.integers(100, 3000).map(lambda n: b"x" * n + b"\n"),
)
counts = st.one_of(st.integers(-1, 6), st.sampled_from([17, 100, 1000, 5000]))
reads = st.one_of(
    st.tuples(st.just("read"), counts),
    st.tuples(st.just("readexactly"), counts),
    st.tuples(
        st.just("readuntil"), st.sampled_from([b"\n", b"\r\n", b"--", b"", bytearray(b"\n")])
    ),
    st.tuples(st.just("readline")),
    st.tuples(st.just("__anext__")),
)
steps = st.one_of(
    st.tuples(st.just("arrive"), data),
    st.tuples(st.just("call"), reads),
    st.tuples(st.just("feed"), data),
    st.tuples(st.just("look")),
    st.tuples(st.just("hold")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("limit"), st.sampled_from([1, 10, 100, 1.5])),
    st.tuples(st.just("end"), st.sampled_from(["feed_eof", "peer"])),
    st.tuples(st.just("fail")),
)


def outcome(task):
    if task.cancelled():
        return "cancelled"
    exc = task.exception()
    if exc is None:
        return task.result()
    return type(exc), str(exc), getattr(exc, "partial", None), getattr(exc, "consumed", None)


class Script:
    """One reader, and the record of what happened to it."""

    def __init__(self, limit):
        self.loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit=limit, loop=self.loop)
        self.record = []
        self.tasks = []
        self.held = []

    async def run(self, script):
        ours, self.peer = socket.socketpair()
        self.control = socket.socketpair()
        self.control[0].setblocking(False)
        with self.peer, self.control[0], self.control[1]:
            return await self.play(ours, script)

    async def play(self, ours, script):
        ours.setblocking(False)
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=self.loop)
        transport, _ = await self.loop.connect_accepted_socket(lambda: protocol, ours)
        for name, *args in script:
            getattr(self, name)(*args)
            await self.settle()
            self.note_done()
        self.peer.close()
        await self.settle()
        for task in self.tasks:
            task.cancel()
        await spin(5)
        self.note_done()
        self.look()
        transport.abort()
        await spin(5)
        return self.record

    async def settle(self):
        for _ in range(SETTLE):
            bell = self.loop.create_task(self.loop.sock_recv(self.control[0], 1))
            await spin(2)
            self.control[1].send(b"!")
            await bell

    def note_done(self):
        for number, task in enumerate(self.tasks):
            if task is not None and task.done():
                self.record.append((number, outcome(task)))
        self.tasks = [task for task in self.tasks if not task.done()]

    def arrive(self, data):
        with contextlib.suppress(OSError):  # either end has closed
            self.peer.sendall(data)

    def call(self, call):
        name, *args = call
        self.tasks.append(self.loop.create_task(getattr(self.reader, name)(*args)))

    def feed(self, data):
        try:
            self.reader.feed_data(data)
        except AssertionError as exc:
            self.record.append(str(exc))

    def look(self):
        reader = self.reader
        waits = reader._waiter is not None
        self.record.append((bytes(reader._buffer), reader._eof, reader._paused, waits))
        self.record.append((reader.at_eof(), type(reader.exception()), reader._limit))

    def hold(self):
        self.held.append(memoryview(bytes(self.reader._buffer)))
        self.held.append(self.reader._buffer)

    def cancel(self):
        for task in self.tasks:
            task.cancel()

    def limit(self, limit):
        self.reader._limit = limit

    def end(self, how):
        if how == "feed_eof":
            self.reader.feed_eof()
        else:
            self.peer.close()

    def fail(self):
        self.reader.set_exception(OSError("made up"))


async def play(limit, script):
    return await Script(limit).run(script)  # asyncio wants a loop that runs


def run_on(kind, limit, script):
    loop = make_loop(kind)
    # Data after feed_eof() is an error of data_received(): asyncio and gyre report it.
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
    try:
        return loop.run_until_complete(play(limit, script)), reports
    finally:
        finish(loop)


# Hypothesis says so of its own generator, on 3.14.
@pytest.mark.filterwarnings("ignore:It looks like `register_random`")
@given(limit=st.sampled_from([1, 5, 64, 1000]), script=st.lists(steps, max_size=12))
def test_gyre_does_what_asyncio_does(limit, script):
    assert run_on("gyre", limit, script) == run_on("asyncio", limit, script)
