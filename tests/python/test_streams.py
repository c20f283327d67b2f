"""asyncio.start_server(), open_connection() and what StreamReader and StreamWriter promise.

On gyre readers and writers are adopted (their methods are C) as long as nobody has changed
anything: what is patched, subclassed or set on an instance must be called as on asyncio.
"""

import asyncio
import collections.abc
import gc
import inspect
import socket
import sys
import types
import weakref

import pytest
from tcp_tools import connected, drive, end, spin


def is_adopted(reader):
    return type(reader) is not asyncio.StreamReader


# ---- what one sees


def test_reader_and_writer_look_like_asyncios(loop, pair, kind):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        assert is_adopted(reader) == (kind == "gyre")
        assert (type(writer) is not asyncio.StreamWriter) == (kind == "gyre")
        for thing, wanted in ((reader, asyncio.StreamReader), (writer, asyncio.StreamWriter)):
            assert isinstance(thing, wanted)
            assert thing.__class__ is wanted
            assert type(thing).__name__ == wanted.__name__
            assert type(thing).__module__ == "asyncio.streams"
            assert type(thing).__doc__ == wanted.__doc__
        assert repr(reader).startswith("<StreamReader transport=<")
        assert repr(writer).startswith("<StreamWriter transport=<")
        for name in ("read", "readexactly", "readuntil", "readline"):
            method = getattr(reader, name)
            assert inspect.iscoroutinefunction(method)
            assert inspect.ismethod(method)
            assert method.__qualname__ == f"StreamReader.{name}"
            assert inspect.signature(method) == inspect.signature(
                getattr(asyncio.StreamReader, name).__get__(reader)
            )
            assert method == getattr(reader, name)
        assert inspect.iscoroutinefunction(writer.drain)
        assert writer.write.__doc__ == asyncio.StreamWriter.write.__doc__
        await end(writer)

    drive(loop, main())


def test_private_attributes(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair, limit=100)
        assert reader._limit == 100
        assert reader._loop is loop
        assert reader._transport is writer.transport
        assert reader._buffer == bytearray()
        assert (reader._eof, reader._paused, reader._waiter, reader._exception) == (
            False,
            False,
            None,
            None,
        )
        peer.send(b"abc")
        assert await reader.read(1) == b"a"
        assert reader._buffer == b"bc"
        reader._buffer.extend(b"def")
        assert await reader.readexactly(5) == b"bcdef"
        reader._buffer = bytearray(b"new")
        assert await reader.read(10) == b"new"
        held = reader._buffer
        peer.send(b"more")
        await reader.readexactly(0)
        while not held:
            await spin()
        assert held == b"more"
        assert await reader.read(4) == b"more"
        assert held == b""
        reader._limit = 2.5
        peer.send(b"123456789")
        while not reader._buffer:
            await spin()
        assert reader._paused
        assert await reader.read(9) == b"123456789"
        assert not reader._paused
        del reader._exception
        with pytest.raises(AttributeError):
            reader.exception()
        reader._exception = None
        await end(writer)

    drive(loop, main())


def test_class_can_be_assigned(loop, pair):
    class Loud(asyncio.StreamReader):
        async def read(self, n=-1):
            return (await super().read(n)).upper()

    class Careful(asyncio.StreamWriter):
        async def drain(self):
            await super().drain()
            return "drained"

    async def main():
        reader, writer, peer = await connected(loop, pair)
        peer.send(b"abcd")
        assert await reader.read(2) == b"ab"
        reader.__class__ = Loud
        writer.__class__ = Careful
        assert await reader.read(2) == b"CD"
        assert await writer.drain() == "drained"
        await end(writer)

    drive(loop, main())


@pytest.mark.parametrize("call", ["read", "readexactly", "readuntil", "readline"])
def test_class_assigned_while_it_waits(loop, pair, call):
    class Mine(asyncio.StreamReader):
        pass

    args = {"read": (5,), "readexactly": (2,), "readuntil": (b"\n",), "readline": ()}[call]

    async def main():
        reader, writer, peer = await connected(loop, pair)
        task = loop.create_task(getattr(reader, call)(*args))
        other = loop.create_task(writer.drain())
        await spin()
        reader.__class__ = Mine
        peer.send(b"ab")
        await spin()
        peer.send(b"\n")
        assert await task in (b"ab", b"ab\n")
        await other
        if call != "readuntil" and call != "readline":
            assert (await reader.readline()).endswith(b"\n")
        assert reader._waiter is None
        task = loop.create_task(reader.readline())
        await spin()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await end(writer)

    drive(loop, main())


# ---- coroutines


def test_reads_are_coroutines(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        coro = reader.readline()
        assert isinstance(coro, collections.abc.Coroutine)
        assert isinstance(coro, types.CoroutineType)
        assert asyncio.iscoroutine(coro)
        assert inspect.iscoroutine(coro)
        assert inspect.isawaitable(coro)
        assert coro.__qualname__ == "StreamReader.readline"
        assert "StreamReader.readline" in repr(coro)
        assert not coro.cr_running
        task = loop.create_task(coro)
        await spin()
        assert "StreamReader.readline" in repr(task)
        peer.send(b"a line\n")
        assert await task == b"a line\n"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coro
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.001)
        assert reader._waiter is None
        peer.send(b"xy")
        assert await asyncio.wait_for(reader.read(1), 5) == b"x"
        assert await asyncio.gather(reader.readexactly(1), writer.drain()) == [b"y", None]
        await end(writer)

    drive(loop, main())


def test_nothing_happens_before_the_first_step(loop, pair, recwarn):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        coro = reader.read(10)
        with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
            coro.send(1)
        peer.send(b"abc")
        assert await reader.read(1) == b"a"
        assert await coro == b"bc"
        late = reader.read(1)
        late.close()
        late.close()
        thrown = reader.read(1)
        with pytest.raises(KeyError):
            thrown.throw(KeyError("x"))
        assert not recwarn.list
        reader.readexactly(3)
        gc.collect()
        (warning,) = recwarn.list
        assert "coroutine 'StreamReader.readexactly' was never awaited" in str(warning.message)
        with pytest.raises(TypeError):
            reader.read(1, 2)
        with pytest.raises(TypeError):
            reader.readexactly()
        await end(writer)

    drive(loop, main())


def test_driven_by_hand(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        coro = reader.read(10)
        future = coro.send(None)
        assert future is reader._waiter
        with pytest.raises(RuntimeError, match="called while another coroutine is already waiting"):
            await reader.readline()
        with pytest.raises(LookupError):
            coro.throw(LookupError())
        assert reader._waiter is None
        waiting = reader.readline()
        waiting.send(None)
        waiting.close()
        assert reader._waiter is None
        dropped = reader.readline()
        dropped.send(None)
        del dropped
        gc.collect()
        assert reader._waiter is None
        peer.send(b"abc")
        async with asyncio.timeout(5):
            assert await reader.read(3) == b"abc"
        await end(writer)

    drive(loop, main())


def test_await_is_an_iterator(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)

        class Pair:
            def __await__(self):
                first = yield from reader.readexactly(1).__await__()
                second = yield from reader.readexactly(1).__await__()
                return first, second

        class Fails:
            def __await__(self):
                yield from reader.readexactly(-1).__await__()

        task = loop.create_task(asyncio.wait_for(Pair(), 5))
        await spin()
        peer.send(b"xyz")
        assert await task == (b"x", b"y")
        with pytest.raises(ValueError, match="less than zero"):
            await Fails()
        coro = reader.read(5)
        iterator = coro.__await__()
        assert iter(iterator) is iterator
        with pytest.raises(StopIteration) as caught:
            next(iterator)
        assert caught.value.value == b"z"
        with pytest.raises(TypeError):
            iter(coro)
        waits = reader.read(5).__await__()
        assert waits.send(None) is reader._waiter
        with pytest.raises(LookupError):
            waits.throw(LookupError())
        waits = reader.read(5).__await__()
        next(waits)
        waits.close()
        assert reader._waiter is None
        await end(writer)

    drive(loop, main())


def test_coroutines_have_weak_references(loop, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        coro = reader.read(5)
        gone = []
        reference = weakref.ref(coro, gone.append)
        assert reference() is coro
        coro.close()
        del coro
        assert gone == [reference]
        await end(writer)

    drive(loop, main())


def test_stop_iteration_is_no_result(loop, kind, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        if kind == "gyre" or sys.version_info < (3, 12):  # a coroutine that has not begun
            with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as caught:
                reader.read(5).throw(StopIteration(3))
            assert type(caught.value.__cause__) is StopIteration
        reader.set_exception(StopIteration(3))
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            await reader.readline()
        await end(writer)

    drive(loop, main())


@pytest.mark.parametrize("call", ["read", "readexactly", "readuntil", "readline"])
def test_two_readers_at_once(loop, pair, call):
    args = {"read": (1,), "readexactly": (1,), "readuntil": (), "readline": ()}[call]
    name = "readuntil" if call == "readline" else call

    async def main():
        reader, writer, peer = await connected(loop, pair)
        first = loop.create_task(reader.read(1))
        await spin()
        with pytest.raises(RuntimeError) as info:
            await getattr(reader, call)(*args)
        assert str(info.value) == (
            f"{name}() called while another coroutine is already waiting for incoming data"
        )
        peer.send(b"1")
        assert await first == b"1"
        await end(writer)

    drive(loop, main())


# ---- limits, ends and errors


def test_pauses_above_twice_the_limit(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair, limit=10)
        peer.send(b"x" * 20)
        while len(reader._buffer) < 20:
            await spin()
        assert writer.transport.is_reading()
        peer.send(b"y")
        while writer.transport.is_reading():
            await spin()
        assert reader._paused
        assert await reader.read(10) == b"x" * 10
        assert not writer.transport.is_reading()
        assert await reader.read(1) == b"x"
        assert writer.transport.is_reading()
        assert await reader.readexactly(10) == b"x" * 9 + b"y"
        peer.send(b"z" * 50)
        task = loop.create_task(reader.readexactly(100))
        await spin()
        peer.send(b"z" * 50)
        assert await task == b"z" * 100
        await end(writer)

    drive(loop, main())


def test_line_longer_than_the_limit(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair, limit=4)
        peer.send(b"123456\nok\n")
        with pytest.raises(ValueError) as info:
            await reader.readline()
        assert str(info.value) == "Separator is found, but chunk is longer than limit"
        assert isinstance(info.value.__context__, asyncio.LimitOverrunError)
        assert await reader.readline() == b"ok\n"
        peer.send(b"1234567")
        with pytest.raises(asyncio.LimitOverrunError) as overrun:
            await reader.readuntil(b"--")
        assert str(overrun.value) == "Separator is not found, and chunk exceed the limit"
        assert overrun.value.consumed == 6
        with pytest.raises(ValueError, match="Separator is not found"):
            await reader.readline()
        assert not reader._buffer
        await end(writer)

    drive(loop, main())


def test_end_of_file(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        peer.send(b"one\ntwo")
        peer.close()
        assert await reader.readline() == b"one\n"
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await reader.readexactly(5)
        assert (info.value.partial, info.value.expected) == (b"two", 5)
        assert reader.at_eof()
        assert await reader.readline() == b""
        assert await reader.read() == b""
        assert await reader.read(5) == b""
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readuntil(b"x")
        assert [line async for line in reader] == []
        await end(writer)

    drive(loop, main())


def test_lines_and_the_rest(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        peer.send(b"1\n22\n333\nlast")
        peer.close()
        assert [line async for line in reader] == [b"1\n", b"22\n", b"333\n", b"last"]
        await end(writer)

    drive(loop, main())


def test_exception_wakes_the_reader(loop, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        task = loop.create_task(reader.readexactly(1))
        await spin()
        reader.set_exception(ConnectionAbortedError("gone"))
        with pytest.raises(ConnectionAbortedError):
            await task
        for again in (reader.read(1), reader.readline(), reader.readexactly(1), writer.drain()):
            with pytest.raises(ConnectionAbortedError):
                await again
        await end(writer)

    drive(loop, main())


def test_incomplete_read_error_set_from_outside(loop, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        task = loop.create_task(reader.readline())
        await spin()
        reader.set_exception(asyncio.IncompleteReadError(b"part", 9))
        assert await task == b"part"
        await end(writer)

    drive(loop, main())


# ---- drain()


def test_drain_waits_while_paused(loop, pair):
    async def main():
        _, writer, peer = await connected(loop, pair)
        await writer.drain()
        writer.write(b"x" * (1 << 22))
        task = loop.create_task(writer.drain())
        await spin()
        assert not task.done()
        other = loop.create_task(writer.drain())
        await spin()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        while not task.done():
            try:
                peer.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0)
        assert await task is None
        writer.transport.abort()
        await end(writer)

    drive(loop, main())


def test_drain_after_the_end(loop, pair):
    async def main():
        _, writer, _ = await connected(loop, pair)
        writer.transport.abort()
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()
        with pytest.raises(ConnectionResetError):
            await writer.drain()

    drive(loop, main())


def test_drain_of_a_closing_transport_yields_once(loop, pair):
    async def main():
        _, writer, peer = await connected(loop, pair)
        peer.setblocking(False)
        writer.write(b"x" * (1 << 22))
        writer.close()
        coro = writer.drain()
        assert coro.send(None) is None
        coro.close()
        writer.transport.abort()
        await spin()

    drive(loop, main())


def test_drain_of_a_reader_that_died(loop, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        writer._reader = None
        alive = weakref.ref(reader)
        del reader
        gc.collect()
        # The data has nowhere to go, and that is all.
        assert alive() is None
        pair[1].send(b"lost")
        await spin()
        assert await writer.drain() is None
        await end(writer)

    drive(loop, main())


def test_drain_behind_a_write_to_who_has_left(loop, pair, kind):
    """gyre sends a small write at the end of its callback: the next drain() has the error."""

    async def main():
        _, writer, peer = await connected(loop, pair)
        peer.close()
        writer.write(b"x")
        assert writer.is_closing() == (kind != "gyre")
        if kind == "gyre":
            await writer.drain()
            await asyncio.sleep(0)
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()
        assert writer.is_closing()
        await end(writer)

    drive(loop, main())


# ---- whatever somebody changed is called


@pytest.fixture
def calls():
    return []


def patched(monkeypatch, calls, owner, name):
    original = getattr(owner, name)

    def wrapper(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)


READER_METHODS = (
    "read",
    "feed_data",
    "_wait_for_data",
    "_wakeup_waiter",
    "_maybe_resume_transport",
)


@pytest.mark.parametrize("name", READER_METHODS)
@pytest.mark.parametrize("early", [True, False])
def test_patched_class(loop, pair, monkeypatch, calls, name, early):
    async def main():
        if early:
            patched(monkeypatch, calls, asyncio.StreamReader, name)
        reader, writer, peer = await connected(loop, pair)
        task = loop.create_task(reader.read(2))
        await spin()
        if not early:
            peer.send(b"ab")
            await task
            patched(monkeypatch, calls, asyncio.StreamReader, name)
            task = loop.create_task(reader.read(2))
            await spin()
        peer.send(b"ab")
        assert await task == b"ab"
        assert calls == [name]
        monkeypatch.undo()
        peer.send(b"cd")
        assert await reader.read(2) == b"cd"
        assert calls == [name]
        await end(writer)

    drive(loop, main())


@pytest.mark.parametrize("where", ["class", "class, late", "instance"])
@pytest.mark.parametrize("name", ["feed_eof", "_wakeup_waiter"])
def test_patched_end(loop, pair, monkeypatch, calls, where, name):
    async def main():
        if where == "class":
            patched(monkeypatch, calls, asyncio.StreamReader, name)
        reader, writer, peer = await connected(loop, pair)
        if where == "class, late":
            patched(monkeypatch, calls, asyncio.StreamReader, name)
        elif where == "instance":
            patched(monkeypatch, calls, reader, name)
        task = loop.create_task(reader.read(2))
        await spin()
        peer.shutdown(socket.SHUT_WR)
        assert await task == b""
        assert calls == [name] and reader.at_eof() and reader._eof is True
        monkeypatch.undo()
        await end(writer)

    drive(loop, main())


def test_end_fed_by_hand(loop, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        with pytest.raises(TypeError, match="argument"):
            reader.feed_eof(1)
        cancelled = loop.create_task(reader.read(2))
        await spin()
        reader._waiter.cancel()
        assert reader.feed_eof() is None and reader._waiter is None
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        reader.feed_eof()
        assert await reader.read(2) == b"" and reader.at_eof()
        made = asyncio.StreamReader(loop=loop)
        waiting = loop.create_task(made.read(2))
        await spin()
        type(reader).feed_eof(made)
        assert await waiting == b""
        await end(writer)

    drive(loop, main())


@pytest.mark.parametrize("owner", ["StreamReaderProtocol", "StreamWriter"])
def test_patched_protocol_and_writer(loop, pair, monkeypatch, calls, owner):
    names = {
        "StreamReaderProtocol": ("data_received", "_drain_helper"),
        "StreamWriter": ("write", "drain"),
    }[owner]

    async def main():
        reader, writer, peer = await connected(loop, pair)
        for name in names:
            patched(monkeypatch, calls, getattr(asyncio, owner), name)
        peer.send(b"ab")
        assert await reader.readexactly(2) == b"ab"
        writer.write(b"x")
        await writer.drain()
        assert calls == list(names)
        monkeypatch.undo()
        await end(writer)

    drive(loop, main())


@pytest.mark.parametrize("name", READER_METHODS)
def test_patched_instance(loop, pair, calls, monkeypatch, name):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        reader.mine = 1
        patched(monkeypatch, calls, reader, name)
        task = loop.create_task(reader.read(2))
        await spin()
        peer.send(b"ab")
        assert await task == b"ab"
        assert calls == [name]
        await end(writer)

    drive(loop, main())


def test_protocol_with_its_own_data_received(loop, pair, calls):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        protocol = writer.transport.get_protocol()
        protocol.data_received = calls.append
        protocol._drain_helper = lambda: asyncio.sleep(0, calls.append("drain"))
        peer.send(b"ab")
        while not calls:
            await spin()
        assert not reader._buffer
        await writer.drain()
        assert calls == [b"ab", "drain"]
        await end(writer)

    drive(loop, main())


def test_subclasses_keep_their_methods(loop, pair, calls):
    class Reader(asyncio.StreamReader):
        def feed_data(self, data):
            calls.append(bytes(data))
            super().feed_data(data)

    async def main():
        reader, writer, peer = await connected(loop, pair, reader_class=Reader)
        peer.send(b"ab")
        assert await reader.readexactly(2) == b"ab"
        assert calls == [b"ab"]
        assert type(reader) is Reader
        await end(writer)

    drive(loop, main())


def test_loop_with_its_own_futures(loop, pair, calls):
    original = loop.create_future

    async def main():
        reader, writer, peer = await connected(loop, pair)

        def create_future():
            calls.append("future")
            return asyncio.futures._PyFuture(loop=loop)

        loop.create_future = create_future
        task = loop.create_task(reader.read(2))
        await spin()
        assert calls == ["future"]
        peer.send(b"ab")
        assert await task == b"ab"
        waiting = loop.create_task(reader.readline())
        await spin()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert reader._waiter is None
        loop.create_future = original
        await end(writer)

    drive(loop, main())


def test_set_protocol_and_back(loop, pair):
    class Other(asyncio.Protocol):
        def __init__(self):
            self.received = b""

        def data_received(self, data):
            self.received += data

    async def main():
        reader, writer, peer = await connected(loop, pair)
        streams = writer.transport.get_protocol()
        other = Other()
        writer.transport.set_protocol(other)
        peer.send(b"ab")
        while not other.received:
            await spin()
        writer.transport.set_protocol(streams)
        peer.send(b"cd")
        assert await reader.read(10) == b"cd"
        assert other.received == b"ab"
        await end(writer)

    drive(loop, main())


def test_reader_that_already_waits(loop, pair):
    async def main():
        ours, peer = pair
        reader = asyncio.StreamReader(loop=loop)
        task = loop.create_task(reader.readline())
        reader.feed_data(b"from ")
        await spin()
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        peer.send(b"the peer\nrest")
        assert await task == b"from the peer\n"
        assert await reader.read(9) == b"rest"
        transport.close()
        await protocol._get_close_waiter(None)

    drive(loop, main())


def test_callback_is_given_back(loop, pair):
    seen = []

    def callback(reader, writer):
        seen.append((reader, writer))

    async def main():
        ours, _ = pair
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, callback, loop=loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        assert protocol._client_connected_cb is callback
        assert seen[0][0] is reader
        assert seen[0][1].transport is transport
        transport.close()
        await spin()

    drive(loop, main())


def test_debug_mode(loop, pair):
    loop.set_debug(True)

    async def main():
        reader, writer, peer = await connected(loop, pair)
        assert not is_adopted(reader)
        assert reader._source_traceback
        peer.send(b"ab")
        assert await reader.readexactly(2) == b"ab"
        loop.set_debug(False)
        peer.send(b"cd")
        assert await reader.readexactly(2) == b"cd"
        await end(writer)

    drive(loop, main())


def test_debug_mode_set_later(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        loop.set_debug(True)
        peer.send(b"ab")
        assert await reader.readexactly(2) == b"ab"
        writer.write(b"x")
        await writer.drain()
        await end(writer)

    drive(loop, main())


# ---- servers, and what is left


def test_echo_server_leaves_nothing(loop):
    async def serve(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(address):
        reader, writer = await asyncio.open_connection(*address)
        for i in range(20):
            writer.write(b"%d\n" % i)
            assert await reader.readline() == b"%d\n" % i
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(3):
            await talk(address)
        await spin()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(20):
            await talk(address)
        await spin()
        gc.collect()
        assert len(gc.get_objects()) - before < 20
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_many_pieces(loop, pair):
    """More pieces than are kept apart, large and small, and taken in other pieces."""

    async def main():
        reader, writer, peer = await connected(loop, pair)
        sent = b""
        for i in range(40):
            piece = bytes([i]) * (1 + i * 37 % 1000)
            sent += piece
            peer.send(piece)
            await spin()
        got = b""
        for n in (1, 2, 500, 3, 700, 4000):
            got += await reader.readexactly(n)
        while len(got) < len(sent):
            got += await reader.read(777)
        assert got == sent
        await end(writer)

    drive(loop, main())
