"""Urgent data (MSG_OOB), where a receive stops short: nothing is lost, and the byte not delivered.

A short receive says that the socket is empty (docs/design.md), and here it is not: what arrived
behind the urgent byte before the bytes in front of it were read waits for the next bytes or the
end.  The kernel tells nothing of it without one more call per message.
"""

import errno
import socket

import pytest
from helpers import Collector, run_turns, run_until


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
        _, protocol = loop.run_until_complete(make(lambda: Collector(loop), sock=sock))
        yield peer, protocol


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


@pytest.mark.parametrize("then", ["more", "end"])
def test_what_follows_at_once(loop, peers, then):
    peer, protocol = peers
    peer.send(b"before")
    send_urgent(peer)
    peer.send(b"after")
    run_until(loop, lambda: protocol.data.startswith(b"before"))
    run_turns(loop, 3)
    expected = b"beforeafter"
    if then == "more":
        peer.send(b"more")
        expected += b"more"
        run_until(loop, lambda: protocol.data == expected)
    peer.close()
    loop.run_until_complete(protocol.lost)
    assert protocol.data == expected
