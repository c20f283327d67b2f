"""What gyre means to do otherwise, where no file about the thing has a place for it."""

import asyncio
import copy
import os
import socket

import gyre
import pytest


@pytest.fixture
def loop():
    loop = gyre.new_event_loop()
    yield loop
    loop.close()


def driven(coroutine):
    """The outcome of a coroutine that has nothing to wait for."""
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


def test_a_closed_loop_receives_nothing():
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.send(b"there already")
        loop = gyre.new_event_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            driven(loop.sock_recv(left, 100))
        assert left.recv(100) == b"there already"


def test_a_closed_loop_connects_to_nothing(tmp_path):
    loop = gyre.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        driven(loop.create_unix_connection(asyncio.Protocol, str(tmp_path / "nobody")))


def test_callbacks_without_a_pause_hold_up_the_kernel_for_some_turns(loop):
    """16, and one in which what it brought is told."""
    left, right = socket.socketpair()
    heard = loop.create_future()
    turns = 0

    class Hears(asyncio.Protocol):
        def data_received(self, data):
            heard.set_result(turns)

    def again():
        nonlocal turns
        turns += 1
        if not heard.done():
            loop.call_soon(again)

    with right:
        transport, _ = loop.run_until_complete(loop.create_connection(Hears, sock=left))
        right.send(b"there already")
        again()
        assert loop.run_until_complete(heard) <= 18
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_nothing_with_a_descriptor_is_copied(loop):
    handle = loop.call_soon(print)
    left, right = socket.socketpair()
    with right:
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=left))
        for what in (loop, handle, transport):
            with pytest.raises(TypeError):
                copy.copy(what)
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_marks_are_whole_bytes(loop):
    left, right = socket.socketpair()
    with right:
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=left))
        transport.set_write_buffer_limits(high=1.5)
        assert transport.get_write_buffer_limits() == (0, 1)
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_a_server_whose_socket_was_closed_can_be_closed(loop):
    async def main():
        loop.set_exception_handler(lambda loop, context: None)  # the accept may say EBADF
        listener = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(asyncio.Protocol, sock=listener)
        listener.close()
        server.close()
        assert not server.is_serving() and not server.sockets

    loop.run_until_complete(main())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_a_pipe_without_a_protocol_stays_open(loop, method):
    ends = os.pipe()
    with open(ends[0], "rb", 0) as reader, open(ends[1], "wb", 0) as writer:
        pipe = reader if method == "connect_read_pipe" else writer
        with pytest.raises(AttributeError, match="connection_made"):
            loop.run_until_complete(getattr(loop, method)(lambda: None, pipe))
        assert not pipe.closed
        writer.write(b"data")
        assert reader.read(10) == b"data"


def test_whose_exception_it_is_that_a_read_pipe_reports(loop):
    reports = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            raise LookupError(data)

        def connection_lost(self, exc):
            lost.set_result(exc)

    async def main():
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        ends = os.pipe()
        transport, protocol = await loop.connect_read_pipe(Protocol, open(ends[0], "rb", 0))
        with open(ends[1], "wb", 0) as writer:
            writer.write(b"data")
            while not reports:
                await asyncio.sleep(0)
        assert await asyncio.wait_for(lost, 10) is None
        (report,) = reports
        assert report["protocol"] is protocol and report["transport"] is transport
        assert "data_received" in report["message"]
        assert report["exception"].args == (b"data",)

    lost = loop.create_future()
    loop.run_until_complete(main())
