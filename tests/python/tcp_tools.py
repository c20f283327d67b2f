"""What the tests of transports share: a protocol that notes, pairs of sockets, a limited run."""

import asyncio
import socket

LIMIT = 10.0


class Quiet(asyncio.Protocol):
    """Notes its transport and what it received; `lost` is done when the connection is lost."""

    def __init__(self, loop):
        self.lost = loop.create_future()
        self.received = b""
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def pair():
    """(ours, peer): both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    peer.settimeout(LIMIT)
    return ours, peer


def drive(loop, coro):
    """run_until_complete() that does not hang."""

    async def limited():
        async with asyncio.timeout(LIMIT):
            return await coro

    return loop.run_until_complete(limited())


async def spin(turns=20):
    for _ in range(turns):
        await asyncio.sleep(0)


async def closed(transport, protocol):
    transport.abort()
    await protocol.lost
    await spin(3)


def read_all(sock):
    total = 0
    while part := sock.recv(1 << 20):
        total += len(part)
    return total


async def connected(loop, pair, *, callback=None, limit=2**16, reader_class=asyncio.StreamReader):
    """(StreamReader, StreamWriter, the peer's socket) over a socket pair."""
    ours, peer = pair
    reader = reader_class(limit=limit, loop=loop)
    made = loop.create_future()
    protocol = asyncio.StreamReaderProtocol(
        reader, callback or (lambda reader, writer: made.set_result(writer)), loop=loop
    )
    await loop.connect_accepted_socket(lambda: protocol, ours)
    return reader, await made, peer


async def end(writer):
    """Closes it and waits, whatever the error."""
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass
