"""A transport to which nothing can come any more is collected with what refers to it, warns, and
closes its descriptor: reading is paused, or the peer's end was told and the transport kept open.

asyncio has no reader in its selector then, and so no reference.
"""

import asyncio
import gc
import os
import socket
import sys
import warnings
import weakref

import pytest
import tcp_tools
from conftest import make_loop
from helpers import in_thread, run_turns


class Kept(asyncio.Protocol):
    """Refers to its transport, as protocols do."""

    def __init__(self, loop):
        self.transport = None
        self.got = b""
        self.ended = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += data

    def eof_received(self):
        self.ended.set_result(None)
        return True


class KeptBuffered(asyncio.BufferedProtocol):
    def __init__(self, loop):
        self.transport = None
        self.buffer = bytearray(100)
        self.ended = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, count):
        pass

    eof_received = Kept.eof_received


async def paused(loop, protocol):
    ours, peer = tcp_tools.pair()
    transport, protocol = await loop.connect_accepted_socket(lambda: protocol(loop), ours)
    peer.send(b"x")
    await tcp_tools.spin()
    transport.pause_reading()
    return transport, protocol, peer


async def ended(loop, protocol):
    ours, peer = tcp_tools.pair()
    transport, protocol = await loop.connect_accepted_socket(lambda: protocol(loop), ours)
    peer.shutdown(socket.SHUT_WR)
    await protocol.ended
    return transport, protocol, peer


async def paused_pipe(loop, protocol):
    read_fd, write_fd = os.pipe()
    transport, protocol = await loop.connect_read_pipe(
        lambda: protocol(loop), open(read_fd, "rb", buffering=0)
    )
    os.write(write_fd, b"x")
    await tcp_tools.spin()
    transport.pause_reading()
    return transport, protocol, open(write_fd, "wb", buffering=0)


async def streams(loop, protocol):
    """A server's handler that reads to the end and forgets to close."""
    ours, peer = tcp_tools.pair()
    over = loop.create_future()

    async def serve(reader, writer):
        await reader.read()
        over.set_result(None)

    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, serve, loop=loop)
    transport, protocol = await loop.connect_accepted_socket(lambda: protocol, ours)
    peer.shutdown(socket.SHUT_WR)
    await over
    await tcp_tools.spin()
    return transport, protocol, peer


WAYS = [
    pytest.param(paused, Kept, id="paused"),
    pytest.param(paused, KeptBuffered, id="paused, buffered"),
    pytest.param(ended, Kept, id="ended"),
    pytest.param(ended, KeptBuffered, id="ended, buffered"),
    pytest.param(paused_pipe, Kept, id="a paused pipe"),
    pytest.param(
        streams,
        None,
        id="streams",
        marks=pytest.mark.skipif(
            sys.version_info >= (3, 13), reason="a StreamWriter that goes closes the transport"
        ),
    ),
]


def is_closed(peer):
    """Whether the other end of a connection, or of a pipe, is."""
    try:
        if isinstance(peer, socket.socket):
            peer.setblocking(False)
            return peer.recv(1) == b""
        return not peer.write(b"x")
    except BlockingIOError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


async def collect(reference, collector=gc.collect):
    """True if it was collected, and what was said of it; its memory may take some turns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        collector()
        await tcp_tools.spin()
    said = [str(w.message) for w in caught if "unclosed transport" in str(w.message)]
    # A warning has the transport as its source, and since 3.15 a weak reference sees that.
    caught.clear()
    collector()
    await tcp_tools.spin()
    return reference() is None, said


@pytest.fixture(autouse=True)
def no_collection_between():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("way, protocol", WAYS)
def test_at_rest(loop, way, protocol):
    async def main():
        transport, protocol_, peer = await way(loop, protocol)
        reference = weakref.ref(protocol_)
        assert not is_closed(peer)
        del transport, protocol_
        dead, said = await collect(reference)
        assert dead
        assert is_closed(peer)
        peer.close()
        return said

    assert len(loop.run_until_complete(main())) == 1


@pytest.mark.parametrize("way, protocol", WAYS)
def test_by_another_thread(loop, way, protocol):
    async def main():
        transport, protocol_, peer = await way(loop, protocol)
        reference = weakref.ref(protocol_)
        del transport, protocol_
        dead, _ = await collect(reference, lambda: in_thread(gc.collect))
        assert dead
        assert is_closed(peer)
        peer.close()

    loop.run_until_complete(main())
    run_turns(loop, 5)


@pytest.mark.parametrize("way, protocol", WAYS)
def test_between_two_runs(loop, way, protocol):
    transport, protocol_, peer = loop.run_until_complete(way(loop, protocol))
    reference = weakref.ref(protocol_)
    del transport, protocol_
    with pytest.warns(ResourceWarning):
        gc.collect()
    gc.collect()  # what the warnings have kept
    assert reference() is None
    assert is_closed(peer)
    peer.close()
    run_turns(loop, 5)


@pytest.mark.parametrize("way, protocol", WAYS)
def test_with_the_loop(kind, balanced, way, protocol):
    """Everything at once; whichever is finalised first."""
    loop = make_loop(kind)
    transport, protocol_, peer = loop.run_until_complete(way(loop, protocol))
    reference = weakref.ref(loop)
    del loop, transport, protocol_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
        gc.collect()
    assert reference() is None
    assert is_closed(peer)
    peer.close()


class User:
    """Uses the transport once more while both are collected."""

    def __init__(self, how):
        self.how = how

    def __del__(self):
        self.how(self.transport)


async def to_the_end(peer):
    """Everything that comes, while garbage is collected: what a finaliser has used may be again."""
    got = b""
    async with asyncio.timeout(10):
        while True:
            try:
                part = peer.recv(1 << 20)
            except BlockingIOError:
                part = None
            if part == b"":
                return got
            got += part or b""
            await asyncio.sleep(0)
            gc.collect()


@pytest.mark.only("gyre")
@pytest.mark.parametrize("way", [paused, ended])
@pytest.mark.parametrize(
    "how, said",
    [
        (lambda transport: transport.close(), b""),
        (lambda transport: transport.abort(), b""),
        (lambda transport: transport.write(b"last words"), b"last words"),
        (lambda transport: transport.write(bytes(3_000_000)), bytes(3_000_000)),
    ],
    ids=["close", "abort", "write", "write much"],
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_finaliser_that_uses_it(loop, way, how, said, first):
    """Before that of the transport, or after it: the older object's comes first.
    asyncio's finaliser closes the socket under the other's feet, or after it."""

    async def main():
        user = User(how) if first else None
        transport, protocol, peer = await way(loop, Kept)
        peer.setblocking(False)
        protocol.user = user = user or User(how)
        user.transport = transport
        del user, transport, protocol
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
            got = await to_the_end(peer)
        assert got in (said, b"")
        peer.close()

    loop.run_until_complete(main())


def test_who_is_told_something_stays(loop):
    """Reading, or with bytes to send, nobody else need refer to it."""

    async def main():
        references, peers = [], []
        for sends in False, True:
            ours, peer = tcp_tools.pair()
            transport, protocol = await loop.connect_accepted_socket(lambda: Kept(loop), ours)
            if sends:
                transport.write(bytes(10_000_000))
                assert transport.get_write_buffer_size() > 0
                transport.pause_reading()
            references.append(weakref.ref(protocol))
            peers.append(peer)
            del transport, protocol
        gc.collect()
        await tcp_tools.spin()
        assert all(reference() is not None for reference in references)
        peers[0].send(b"still here")
        await tcp_tools.spin()
        assert references[0]().got == b"still here"
        for reference, peer in zip(references, peers):
            reference().transport.abort()
            peer.close()
        await tcp_tools.spin()

    loop.run_until_complete(main())


def test_it_may_be_used_again(loop):
    """At rest, and referred to: nothing happens to it."""

    async def main():
        transport, protocol, peer = await paused(loop, Kept)
        gc.collect()
        await tcp_tools.spin()
        peer.send(b"more")
        transport.resume_reading()
        await tcp_tools.spin()
        assert protocol.got == b"xmore"
        transport.write(b"answer")
        await tcp_tools.spin()
        assert peer.recv(10) == b"answer"
        transport.close()
        peer.close()
        await tcp_tools.spin()

    loop.run_until_complete(main())
