"""TCP servers and connections end to end: create_server, create_connection, Server, streams."""

import asyncio
import socket

import pytest


class Recorder(asyncio.Protocol):
    """Notes what it is told; `finished` is done when the connection is lost."""

    def __init__(self, loop):
        self.loop = loop
        self.events = []
        self.received = b""
        self.transport = None
        self.finished = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.received += data

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append(("lost", exc))
        self.finished.set_result(exc)


class Echo(Recorder):
    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


async def serve(loop, factory):
    server = await loop.create_server(factory, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()


def test_echo(loop):
    async def main():
        accepted = []

        def factory():
            accepted.append(Echo(loop))
            return accepted[-1]

        server, address = await serve(loop, factory)
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), *address)
        assert isinstance(transport, asyncio.Transport)
        payload = b"x" * 300_000
        transport.write(payload)
        while len(protocol.received) < len(payload):
            await asyncio.sleep(0)
        assert protocol.received == payload
        transport.close()
        assert await protocol.finished is None
        assert await accepted[0].finished is None
        assert accepted[0].events == ["made", "eof", ("lost", None)]
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 10))


def test_streams(loop):
    async def main():
        async def handle(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.writelines([b"one\n", b"two\n"])
        assert await reader.readline() == b"ONE\n"
        assert await reader.readline() == b"TWO\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 10))


def test_connection_refused(loop):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        with pytest.raises(ConnectionRefusedError):
            loop.run_until_complete(loop.create_connection(asyncio.Protocol, *address))


def test_the_end_comes_in_a_later_turn_than_the_data(loop):
    """What data_received() puts off by call_soon() runs before eof_received()."""
    order = []
    finished = loop.create_future()

    class Late(asyncio.Protocol):
        def data_received(self, data):
            order.append("data")
            loop.call_soon(order.append, "later")

        def eof_received(self):
            order.append("eof")

        def connection_lost(self, exc):
            finished.set_result(exc)

    async def main():
        server, address = await serve(loop, Late)
        with socket.create_connection(address) as peer:
            peer.sendall(b"all there is")
            peer.shutdown(socket.SHUT_WR)  # in the server's socket before it is accepted
            assert await finished is None
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert order == ["data", "later", "eof"]
