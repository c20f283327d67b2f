"""Scripted connections: the sequence of protocol callbacks on gyre is the one on asyncio.

Each scenario drives one transport whose peer is a plain socket, and is run on both loops; what the
protocol was told, with arguments, and what reached the exception handler must be equal.
"""

import asyncio
import contextlib
import socket
import struct

import pytest
from conftest import make_loop

LIMIT = 10.0


class Tracer(asyncio.Protocol):
    """Notes every callback; `on` maps a callback's name to what else to do in it."""

    def __init__(self, trace, on):
        self.trace = trace
        self.on = on
        self.transport = None
        self.received = b""

    def note(self, name, *args):
        self.trace.add(name, *args)
        action = self.on.get(name)
        return action(self) if action is not None else None

    def connection_made(self, transport):
        self.transport = transport
        self.note("connection_made")

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data
        self.trace.got(data)
        action = self.on.get("data_received")
        if action is not None:
            action(self)

    def eof_received(self):
        return self.note("eof_received")

    def connection_lost(self, exc):
        self.note("connection_lost", type(exc).__name__, getattr(exc, "errno", None))
        self.trace.lost.set_result(None)

    def pause_writing(self):
        self.note("pause_writing")

    def resume_writing(self):
        self.note("resume_writing")


class BufferedTracer(asyncio.BufferedProtocol):
    """The same for the other kind of protocol."""

    def __init__(self, trace, on, size=100):
        self.trace = trace
        self.on = on
        self.transport = None
        self.received = b""
        self.buffer = bytearray(size)

    note = Tracer.note
    connection_made = Tracer.connection_made
    eof_received = Tracer.eof_received
    connection_lost = Tracer.connection_lost
    pause_writing = Tracer.pause_writing
    resume_writing = Tracer.resume_writing

    def get_buffer(self, sizehint):
        assert sizehint == -1
        action = self.on.get("get_buffer")
        if action is not None:
            return action(self)
        return self.buffer

    def buffer_updated(self, nbytes):
        data = bytes(self.buffer[:nbytes])
        self.received += data
        self.trace.got(data)
        action = self.on.get("buffer_updated")
        if action is not None:
            action(self)


class Trace:
    """What happened: callbacks in order; bytes in a row are one event however they were cut."""

    def __init__(self, loop):
        self.loop = loop
        self.events = []
        self.lost = loop.create_future()
        loop.set_exception_handler(self.on_exception)

    def add(self, *event):
        self.events.append(event)

    def got(self, data):
        if self.events and self.events[-1][0] == "data":
            self.events[-1] = ("data", self.events[-1][1] + len(data))
        else:
            self.events.append(("data", len(data)))

    def on_exception(self, loop, context):
        keys = sorted(set(context) - {"handle", "source_traceback"})
        message = context["message"]
        if message.startswith("Exception in callback"):  # the rest names types of the loop
            message = "Exception in callback"
        self.add("handler", message, type(context.get("exception")).__name__, *keys)


class Script:
    """One connection: `peer` is the other end, a plain socket."""

    def __init__(self, loop):
        self.loop = loop
        self.trace = Trace(loop)
        self.peer = None
        self.transport = None
        self.protocol = None

    async def open(self, on=None, make=Tracer):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        self.peer.settimeout(LIMIT)
        self.transport, self.protocol = await self.loop.connect_accepted_socket(
            lambda: make(self.trace, on or {}), ours
        )

    async def settle(self, turns=30):
        """Long enough for everything that is on its way on the loopback device."""
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)
        for _ in range(turns):
            await asyncio.sleep(0)

    async def until(self, condition):
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.0005)

    async def peer_reads(self, count=None):
        """What the peer gets: count bytes, or all until the end."""
        self.peer.setblocking(False)
        data = bytearray()
        async with asyncio.timeout(LIMIT):
            while count is None or len(data) < count:
                try:
                    part = self.peer.recv(65536)
                except BlockingIOError:
                    await asyncio.sleep(0.0005)
                    continue
                except ConnectionResetError:
                    self.trace.add("peer reset")
                    break
                if not part:
                    break
                data += part
        return data

    def reset(self):
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    async def over(self):
        async with asyncio.timeout(LIMIT):
            await self.trace.lost
        await self.settle(3)


def run(kind, scenario, **options):
    loop = make_loop(kind, **options)
    try:
        script = Script(loop)

        async def main():
            async with asyncio.timeout(2 * LIMIT):
                await scenario(script)

        loop.run_until_complete(main())
        if script.peer is not None:
            script.peer.close()
        return script.trace.events
    finally:
        loop.close()


# The ways in which gyre receives.
VARIANTS = {
    "poll": {"receive": "poll"},
    "multishot": {"receive": "multishot"},
}
expectations = {}


@pytest.fixture(params=VARIANTS)
def options(request):
    return VARIANTS[request.param]


def compare(key, scenario, options, forgive=None):
    """forgive: an event of asyncio's that is a mistake of its own."""
    if key not in expectations:
        expectations[key] = [event for event in run("asyncio", scenario) if event != forgive]
    assert expectations[key], "the scenario did nothing"
    assert run("gyre", scenario, **options) == expectations[key]


SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_scenario(scenario, options):
    compare(scenario, scenario, options)


# ---- ends


@scenario
async def peer_sends_and_closes(s):
    await s.open()
    s.peer.sendall(b"abc")
    s.peer.close()
    await s.over()


@scenario
async def data_and_end_before_reading_starts(s):
    def write_and_close(protocol):
        s.peer.sendall(b"early")
        s.peer.shutdown(socket.SHUT_WR)

    await s.open({"connection_made": write_and_close})
    await s.over()


@scenario
async def we_close(s):
    await s.open()
    s.transport.write(b"bye")
    s.transport.close()
    s.transport.close()
    assert await s.peer_reads() == b"bye"
    await s.over()


@scenario
async def we_abort(s):
    await s.open()
    s.transport.abort()
    s.transport.abort()
    s.transport.close()
    await s.over()


@scenario
async def peer_resets(s):
    await s.open()
    s.reset()
    await s.over()


@scenario
async def peer_resets_after_data(s):
    await s.open()
    s.peer.sendall(b"last words")
    await s.settle()
    s.reset()
    await s.over()


@scenario
async def half_close_by_peer(s):
    await s.open({"eof_received": lambda p: True})
    s.peer.shutdown(socket.SHUT_WR)
    await s.until(lambda: ("eof_received",) in s.trace.events)
    await s.settle()
    s.trace.add("closing", s.transport.is_closing())
    s.transport.write(b"still here")
    assert await s.peer_reads(10) == b"still here"
    s.transport.close()
    assert await s.peer_reads() == b""
    await s.over()


@scenario
async def half_close_then_reset(s):
    await s.open({"eof_received": lambda p: True})
    s.peer.shutdown(socket.SHUT_WR)
    await s.until(lambda: ("eof_received",) in s.trace.events)
    s.reset()
    await s.settle()
    s.transport.write(b"x")
    await s.settle()
    s.transport.write(b"y")
    await s.over()


@scenario
async def half_close_by_us(s):
    await s.open()
    s.transport.write(b"question")
    s.transport.write_eof()
    s.transport.write_eof()
    assert await s.peer_reads() == b"question"
    s.peer.setblocking(True)
    s.peer.sendall(b"answer")
    await s.until(lambda: s.protocol.received == b"answer")
    s.trace.add("closing", s.transport.is_closing())
    s.peer.close()
    await s.over()


@scenario
async def write_after_eof(s):
    await s.open()
    s.transport.write_eof()
    for call in (s.transport.write, lambda data: s.transport.writelines([data])):
        try:
            call(b"x")
        except RuntimeError as exc:
            s.trace.add("RuntimeError", "after write_eof()" in str(exc))
    s.transport.abort()
    await s.over()


@scenario
async def write_after_close(s):
    await s.open()
    s.transport.close()
    s.transport.write(b"ignored")
    s.transport.write_eof()
    assert await s.peer_reads() == b""
    await s.over()


@scenario
async def write_after_reset(s):
    await s.open()
    s.transport.pause_reading()
    s.reset()
    await s.settle()
    s.transport.write(b"a")  # may be held until the running callback ends
    await s.settle()
    s.transport.write(b"b")
    await s.over()


@scenario
async def reset_while_paused(s):
    await s.open()
    s.transport.pause_reading()
    s.reset()
    await s.settle()
    s.trace.add("closing", s.transport.is_closing())
    s.transport.resume_reading()
    await s.over()


# ---- reading


@scenario
async def pause_and_resume(s):
    await s.open({"data_received": lambda p: p.transport.pause_reading()})
    s.peer.sendall(b"one")
    await s.until(lambda: s.protocol.received == b"one")
    s.trace.add("reading", s.transport.is_reading())
    s.peer.sendall(b"two")
    await s.settle()
    s.trace.add("between")
    s.transport.resume_reading()
    s.transport.resume_reading()
    await s.until(lambda: s.protocol.received == b"onetwo")
    s.peer.close()
    await s.settle()
    s.trace.add("paused again")
    s.transport.resume_reading()
    await s.over()


@scenario
async def pause_in_connection_made(s):
    await s.open({"connection_made": lambda p: p.transport.pause_reading()})
    s.peer.sendall(b"waits")
    s.peer.close()
    await s.settle()
    s.trace.add("reading", s.transport.is_reading())
    s.transport.resume_reading()
    await s.over()


@scenario
async def pause_and_resume_in_data_received(s):
    def toggle(protocol):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()

    await s.open({"data_received": toggle})
    s.peer.sendall(b"x" * 500_000)
    await s.until(lambda: len(s.protocol.received) == 500_000)
    s.peer.close()
    await s.over()


@scenario
async def much_data(s):
    await s.open()
    s.peer.setblocking(False)
    total = 3_000_000
    sent = 0
    while sent < total:
        with contextlib.suppress(BlockingIOError):
            sent += s.peer.send(b"z" * min(100_000, total - sent))
        await asyncio.sleep(0)
    s.peer.close()
    await s.over()


# ---- writing


@scenario
async def big_write_and_close(s):
    await s.open()
    data = bytes(range(256)) * 20_000
    s.transport.write(data)
    s.transport.close()
    s.trace.add("closing", s.transport.is_closing(), s.transport.get_write_buffer_size() > 0)
    assert await s.peer_reads() == data
    await s.over()


@scenario
async def big_write_and_eof(s):
    await s.open()
    data = b"0123456789" * 500_000
    s.transport.write(data)
    s.transport.write_eof()
    assert await s.peer_reads() == data
    s.transport.close()
    await s.over()


@scenario
async def big_write_and_abort(s):
    await s.open()
    s.transport.write(b"x" * 5_000_000)
    s.transport.abort()
    s.trace.add("size", s.transport.get_write_buffer_size())
    assert len(await s.peer_reads()) < 5_000_000
    await s.over()


@scenario
async def write_while_closing(s):
    """Until the buffer is sent, asyncio takes more."""
    await s.open()
    s.transport.write(b"x" * 5_000_000)
    s.transport.close()
    s.transport.write(b"more")
    assert len(await s.peer_reads()) == 5_000_004
    await s.over()


@scenario
async def many_small_writes(s):
    await s.open()
    for i in range(20_000):
        s.transport.write(b"%06d" % i)
    s.transport.close()
    assert await s.peer_reads() == b"".join(b"%06d" % i for i in range(20_000))
    await s.over()


@scenario
async def reset_while_sending(s):
    await s.open()
    s.transport.write(b"x" * 5_000_000)
    await s.settle()
    s.reset()
    await s.over()


@scenario
async def reset_while_closing(s):
    await s.open()
    s.transport.write(b"x" * 5_000_000)
    s.transport.close()
    await s.settle()
    s.reset()
    await s.over()


@scenario
async def flow_control(s):
    await s.open()
    s.transport.set_write_buffer_limits(high=10_000, low=2_000)
    s.trace.add("limits", s.transport.get_write_buffer_limits())
    s.transport.write(b"x" * 8_000_000)
    await s.settle()
    assert len(await s.peer_reads(8_000_000)) == 8_000_000
    await s.settle()
    s.transport.write(b"small")
    s.transport.close()
    assert await s.peer_reads() == b"small"
    await s.over()


@scenario
async def resume_writing_writes(s):
    rounds = []

    def more(protocol):
        rounds.append(1)
        if len(rounds) < 3:
            protocol.transport.write(b"y" * 8_000_000)

    await s.open({"resume_writing": more})
    s.transport.write(b"x" * 8_000_000)
    assert len(await s.peer_reads(24_000_000)) == 24_000_000
    await s.settle()
    s.transport.close()
    await s.over()


@scenario
async def limits_lowered(s):
    await s.open()
    s.transport.set_write_buffer_limits(high=100_000_000)
    s.transport.write(b"x" * 8_000_000)
    s.trace.add("before")
    s.transport.set_write_buffer_limits(high=0)
    s.trace.add("after")
    assert len(await s.peer_reads(8_000_000)) == 8_000_000
    await s.settle()
    s.transport.abort()
    await s.over()


# ---- the order of things


@scenario
async def order_of_scheduling(s):
    soon = s.loop.call_soon

    def note(name):
        return lambda p: soon(s.trace.add, "soon after " + name)

    await s.open({
        "connection_made": note("connection_made"),
        "data_received": note("data_received"),
        "eof_received": note("eof_received"),
        "connection_lost": note("connection_lost"),
    })  # fmt: skip
    s.trace.add("open")
    await s.settle()
    s.peer.sendall(b"x")
    await s.settle()
    s.transport.close()
    soon(s.trace.add, "soon after close")
    await s.over()


@scenario
async def abort_and_call_soon(s):
    await s.open()
    s.loop.call_soon(s.trace.add, "before")
    s.transport.abort()
    s.loop.call_soon(s.trace.add, "after")
    await s.over()


# ---- another protocol


@scenario
async def switch_protocol(s):
    other = Tracer(s.trace, {"eof_received": lambda p: s.trace.add("other's end")})

    def switch(protocol):
        protocol.transport.set_protocol(other)
        s.trace.add("switched", protocol.transport.get_protocol() is other)

    await s.open({"data_received": switch})
    s.peer.sendall(b"first")
    await s.settle()
    s.peer.sendall(b"second")
    await s.settle()
    assert (s.protocol.received, other.received) == (b"first", b"second")
    s.peer.close()
    await s.over()


@scenario
async def switch_to_buffered_and_back(s):
    plain = Tracer(s.trace, {})

    def to_plain(protocol):
        protocol.transport.set_protocol(plain)

    buffered = BufferedTracer(s.trace, {"buffer_updated": to_plain})

    def to_buffered(protocol):
        buffered.transport = plain.transport = protocol.transport
        protocol.transport.set_protocol(buffered)

    await s.open({"data_received": to_buffered})
    for part in (b"first", b"second", b"third"):
        s.peer.sendall(part)
        await s.settle()
        s.trace.add("part")
    assert (s.protocol.received, buffered.received, plain.received) == (
        b"first",
        b"second",
        b"third",
    )
    s.peer.close()
    await s.over()


# ---- BufferedProtocol


@scenario
async def buffered(s):
    await s.open(make=BufferedTracer)
    s.peer.sendall(b"x" * 1234)
    await s.until(lambda: len(s.protocol.received) == 1234)
    s.peer.close()
    await s.over()


@scenario
async def buffered_fills_exactly(s):
    await s.open(make=BufferedTracer)
    s.peer.sendall(b"x" * 400)
    await s.until(lambda: len(s.protocol.received) == 400)
    s.protocol.buffer.clear()  # nothing may hold on to it between events
    s.protocol.buffer.extend(bytes(50))
    s.peer.sendall(b"y" * 50)
    await s.until(lambda: len(s.protocol.received) == 450)
    s.protocol.buffer.clear()
    s.protocol.buffer.extend(bytes(50))
    s.peer.close()
    await s.over()


@scenario
async def buffered_memoryview(s):
    def view(protocol):
        return memoryview(protocol.buffer)[10:20]

    def copied(protocol):
        s.trace.add("at", bytes(protocol.buffer[10:15]))

    await s.open({"get_buffer": view, "buffer_updated": copied}, BufferedTracer)
    s.peer.sendall(b"12345")
    await s.settle()
    s.peer.close()
    await s.over()


def raise_value_error(_protocol):
    raise ValueError("a bug in the protocol")


BAD_BUFFERS = {
    "raises": raise_value_error,
    "empty": lambda p: b"",
    "none": lambda p: None,
    "read_only": lambda p: b"1234",
    "number": lambda p: 17,
    "list": lambda p: [1, 2],
    "strided": lambda p: memoryview(bytearray(10))[::2],
    "pauses": lambda p: (p.transport.pause_reading(), p.buffer)[1],
    "closes": lambda p: (p.transport.close(), p.buffer)[1],
    "aborts": lambda p: (p.transport.abort(), p.buffer)[1],
}


@pytest.mark.parametrize("bad", BAD_BUFFERS)
def test_get_buffer(bad, options):
    async def scenario(s):
        await s.open({"get_buffer": BAD_BUFFERS[bad]}, BufferedTracer)
        s.peer.sendall(b"abc")
        await s.settle()
        if bad == "pauses":
            s.protocol.on.clear()
            # asyncio reads once more into the buffer that it was given before it stops.
            s.transport.resume_reading()
            await s.until(lambda: s.protocol.received == b"abc")
            s.transport.close()
        await s.over()

    if bad in ("closes", "aborts", "pauses"):
        # asyncio goes on reading although it was told to stop; we do not.
        events = run("gyre", scenario, **options)
        assert ("connection_lost", "NoneType", None) in events
        assert (("data", 3) in events) == (bad == "pauses")
    else:
        compare(("get_buffer", bad), scenario, options)


# ---- closing, aborting, failing in each callback

CALLBACKS = [
    "connection_made",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
]


def raise_os_error(_protocol):
    raise OSError(5, "an error of the protocol's own")


def raise_cancelled(_protocol):
    raise asyncio.CancelledError


ACTIONS = {
    "close": lambda p: p.transport.close(),
    "abort": lambda p: p.transport.abort(),
    "write": lambda p: p.transport.write(b"from a callback"),
    "write_close": lambda p: (p.transport.write(b"from a callback"), p.transport.close())[1],
    "value_error": raise_value_error,
    "os_error": raise_os_error,
    "cancelled": raise_cancelled,
    "pause": lambda p: p.transport.pause_reading(),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_action_in_callback(callback, action, options):
    async def scenario(s):
        await s.open({callback: ACTIONS[action]})
        await s.settle()
        if callback in ("pause_writing", "resume_writing"):
            s.transport.write(b"x" * 8_000_000)
            await s.settle()
            if callback == "resume_writing":
                await s.peer_reads(8_000_000)
                await s.settle()
        else:
            with contextlib.suppress(OSError):
                s.peer.sendall(b"some data")
            await s.settle()
            with contextlib.suppress(OSError):
                s.peer.shutdown(socket.SHUT_WR)
            await s.settle()
        s.trace.add("closing", s.transport.is_closing())
        s.transport.abort()
        if not s.trace.lost.done():
            await s.settle()
        s.trace.add("lost", s.trace.lost.done())

    # asyncio's write handler goes on with a transport that resume_writing() has closed.
    stumble = ("handler", "Exception in callback", "AttributeError", "exception", "message")
    forgive = stumble if callback == "resume_writing" else None
    compare((callback, action), scenario, options, forgive)
