"""Readers and writers in unusual hands: made from the class of another, awaited by a generator,
looked at while they wait.  On gyre they are adopted (test_streams.py)."""

import asyncio
import collections.abc
import inspect
import io
import types

import pytest
from tcp_tools import connected, drive, end, spin
from test_streams import is_adopted

CALLS = {"read": (5,), "readexactly": (2,), "readuntil": (b"\n",), "readline": ()}


# ---- type(reader) as a class


def test_the_class_of_a_reader_makes_readers(loop, pair, kind):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        assert is_adopted(reader) == (kind == "gyre")
        for made in (type(reader)(limit=5), reader.__class__(limit=5)):
            assert isinstance(made, asyncio.StreamReader)
            assert made.__class__ is asyncio.StreamReader
            assert made._limit == 5 and made._buffer == b"" and not made._eof
            made.feed_data(b"abc")
            made._eof = False
            del made._exception
            with pytest.raises(AttributeError):
                _ = made._exception
            with pytest.raises(AttributeError):
                del made._exception
            made._exception = None
            assert await made.read(2) == b"ab"
            made.feed_eof()
            assert await made.read() == b"c" and made.at_eof()
        await end(writer)

    drive(loop, main())


def test_the_class_of_a_writer_makes_writers(loop, pair):
    async def main():
        reader, writer, peer = await connected(loop, pair)
        other = type(writer)(writer.transport, writer._protocol, reader, loop)
        assert other.__class__ is asyncio.StreamWriter
        other.write(b"x")
        await other.drain()
        await spin()
        assert peer.recv(10) == b"x"
        await end(writer)

    drive(loop, main())


def test_a_class_derived_from_the_class_of_a_reader(loop, pair):
    async def main():
        reader, writer, _ = await connected(loop, pair)

        class Counting(type(reader)):
            def __init__(self):
                super().__init__(limit=7)
                self.calls = 0

            async def read(self, n=-1):
                self.calls += 1
                return await super().read(n)

        made = Counting()
        made.feed_data(b"abc")
        assert made.__class__ is Counting and type(made) is Counting
        assert made._limit == 7
        assert await made.read(2) == b"ab" and made.calls == 1
        made.__class__ = asyncio.StreamReader
        assert made.__class__ is asyncio.StreamReader
        assert await made.read(2) == b"c"
        await end(writer)

    drive(loop, main())


def test_a_reader_made_from_the_class_of_another_is_connected(loop, pair):
    async def main():
        import socket

        first, writer, _ = await connected(loop, pair)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader, second, _ = await connected(loop, (ours, theirs), reader_class=type(first))
        theirs.send(b"line\nrest")
        assert await reader.readline() == b"line\n"
        assert await reader.read(10) == b"rest"
        theirs.close()
        await end(second)
        await end(writer)

    drive(loop, main())


# ---- coroutines that a generator waits for


def test_a_generator_waits_for_them(loop, pair):
    @types.coroutine
    def conversation(reader, writer):
        first = yield from reader.read(1)
        yield from writer.drain()
        second = yield from reader.readexactly(2)
        third = yield from reader.readline()
        return first, second, third

    async def awaiting(generator):
        return await generator

    async def main():
        reader, writer, peer = await connected(loop, pair)
        task = loop.create_task(awaiting(conversation(reader, writer)))
        for part in (b"a", b"bc", b"de\n"):
            await spin(3)
            peer.send(part)
        assert await task == (b"a", b"bc", b"de\n")
        await end(writer)

    drive(loop, main())


def test_they_are_no_iterables_to_others(loop, pair):
    def plain(coro):
        yield from coro

    async def main():
        reader, writer, _ = await connected(loop, pair)
        coro = reader.read(1)
        assert not isinstance(coro, collections.abc.Iterable)
        assert not hasattr(coro, "__iter__")
        for call in (iter, list, tuple, lambda coro: next(plain(coro))):
            with pytest.raises(TypeError, match="coroutine"):
                call(coro)
        coro.close()
        await end(writer)

    drive(loop, main())


# ---- what is seen of one that waits


@pytest.mark.parametrize("call", CALLS)
def test_state_in_the_words_of_inspect(loop, pair, call):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        coro = getattr(reader, call)(*CALLS[call])
        assert inspect.getcoroutinestate(coro) == "CORO_CREATED"
        assert coro.cr_code is getattr(asyncio.StreamReader, call).__code__
        assert coro.cr_frame.f_code is coro.cr_code
        assert coro.cr_await is None
        coro.send(None)
        assert inspect.getcoroutinestate(coro) == "CORO_SUSPENDED"
        assert coro.cr_await is not None
        coro.close()
        assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"
        assert coro.cr_frame is None
        await end(writer)

    drive(loop, main())


@pytest.mark.parametrize("call", CALLS)
def test_the_stack_of_a_task_that_reads(loop, pair, call):
    async def main():
        reader, writer, _ = await connected(loop, pair)
        task = loop.create_task(getattr(reader, call)(*CALLS[call]))
        await spin()
        assert [frame.f_code.co_name for frame in task.get_stack()] == [call]
        text = io.StringIO()
        task.print_stack(file=text)
        assert f"in {call}\n" in text.getvalue()
        assert f"coro=<StreamReader.{call}() running at" in repr(task)
        task.cancel()
        await asyncio.wait([task])
        await end(writer)

    drive(loop, main())


def test_the_stack_of_a_task_that_reads_further_down(loop, pair):
    async def outer(reader):
        return await reader.read(1)

    async def main():
        reader, writer, _ = await connected(loop, pair)
        task = loop.create_task(outer(reader))
        await spin()
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["outer"]
        coro = task.get_coro().cr_await
        assert coro.__qualname__ == "StreamReader.read" and coro.cr_frame is not None
        task.cancel()
        await asyncio.wait([task])
        await end(writer)

    drive(loop, main())
