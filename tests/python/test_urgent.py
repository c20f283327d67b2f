"""Urgent data (MSG_OOB), where a receive stops short: nothing is lost, and the byte not delivered.

A short receive says that the socket is empty (docs/design.md), and here it is not: gyre asks a
moment later.  On both loops everything arrives without another event.
"""

import asyncio
import errno
import socket

import pytest
from helpers import Collector, run_turns, run_until


class Arrivals(Collector):
    """`pause` says to pause reading after each delivery."""

    pause = False

    def __init__(self, loop):
        super().__init__(loop)
        self.news = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        super().data_received(data)
        self.news.set()
        if self.pause:
            self.transport.pause_reading()

    async def has(self, expected):
        """Waits within one run: between two runs sockets are asked anew."""
        while self.data != expected:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 5)


@pytest.fixture(params=["tcp", "unix"])
def peers(loop, request):
    """(the peer's socket, the protocol of ours)"""
    if request.param == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            sock, _ = server.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        make = loop.create_connection
    else:
        peer, sock = socket.socketpair()
        make = loop.create_unix_connection
    with peer:
        _, protocol = loop.run_until_complete(make(lambda: Arrivals(loop), sock=sock))
        yield peer, protocol
        protocol.transport.abort()
        loop.run_until_complete(protocol.lost)


def send_urgent(peer):
    try:
        peer.send(b"!", socket.MSG_OOB)
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP or peer.family != socket.AF_UNIX:
            raise
        pytest.skip("the kernel has no urgent data on UNIX sockets (CONFIG_AF_UNIX_OOB)")


def test_what_follows_later(loop, peers):
    peer, protocol = peers
    peer.send(b"before")
    send_urgent(peer)
    run_until(loop, lambda: protocol.data == b"before")
    run_turns(loop, 3)
    for i in range(1, 4):
        peer.send(b"after")
        run_until(loop, lambda i=i: protocol.data == b"before" + b"after" * i)
    peer.close()
    loop.run_until_complete(protocol.lost)
    assert protocol.data == b"before" + b"after" * 3


def test_what_follows_at_once(loop, peers):
    peer, protocol = peers
    for i in range(1, 4):
        peer.send(b"before")
        send_urgent(peer)
        peer.send(b"after")
        loop.run_until_complete(protocol.has(b"beforeafter" * i))
    peer.close()
    loop.run_until_complete(protocol.lost)
    assert protocol.data == b"beforeafter" * 3


def test_end_behind_it(loop, peers):
    peer, protocol = peers
    peer.send(b"before")
    send_urgent(peer)
    peer.send(b"after")
    peer.close()
    loop.run_until_complete(protocol.lost)
    assert protocol.data == b"beforeafter"


def test_nothing_behind_it(loop, peers):
    peer, protocol = peers
    peer.send(b"before")
    send_urgent(peer)
    run_until(loop, lambda: protocol.data == b"before")
    loop.run_until_complete(asyncio.sleep(0.1))  # longer than gyre waits before it asks
    assert protocol.data == b"before"
    peer.send(b"after")
    loop.run_until_complete(protocol.has(b"beforeafter"))


def test_paused_before_it(loop, peers):
    """What lies behind comes after resume_reading(), and not before."""
    peer, protocol = peers
    protocol.pause = True
    peer.send(b"before")
    send_urgent(peer)
    peer.send(b"after")
    run_until(loop, lambda: protocol.data == b"before")
    loop.run_until_complete(asyncio.sleep(0.1))  # longer than gyre waits before it asks
    assert protocol.data == b"before"
    protocol.transport.resume_reading()
    loop.run_until_complete(protocol.has(b"beforeafter"))


def test_closed_before_it(loop, peers):
    peer, protocol = peers
    peer.send(b"before")
    send_urgent(peer)
    peer.send(b"after")
    run_until(loop, lambda: protocol.data.startswith(b"before"))
    protocol.transport.close()
    loop.run_until_complete(protocol.lost)
    loop.run_until_complete(asyncio.sleep(0.1))  # longer than gyre waits before it asks
    assert protocol.data in (b"before", b"beforeafter")


def test_in_another_run(loop, peers):
    """The run ends between the bytes before it and those behind."""
    peer, protocol = peers
    peer.send(b"before")
    send_urgent(peer)
    peer.send(b"after")
    while protocol.data != b"beforeafter":
        run_turns(loop, 1)
    assert protocol.data == b"beforeafter"


def test_streams(loop):
    async def main():
        peer, sock = socket.socketpair()
        with peer:
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            peer.send(b"before")
            send_urgent(peer)
            peer.send(b"after\n")
            assert await asyncio.wait_for(reader.readline(), 5) == b"beforeafter\n"
            writer.close()

    loop.run_until_complete(main())
