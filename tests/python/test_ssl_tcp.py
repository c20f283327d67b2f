"""TLS, on both loops; on gyre with each of the ways in which it can be done (tls_code).

The certificate (certs/, valid for localhost, self-signed, for tests only) was made by
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500
        -keyout localhost.key -out localhost.crt -subj /CN=localhost
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1
"""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import weakref

import pytest

LIMIT = 20.0
pytestmark = pytest.mark.usefixtures("tls_code")


def drive(loop, coro):
    async def limited():
        async with asyncio.timeout(LIMIT):
            return await coro

    return loop.run_until_complete(limited())


async def echo(reader, writer):
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


@pytest.mark.parametrize("size", [1, 1000, 100_000, 5_000_000])
def test_echo(loop, server_context, client_context, size):
    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
        )
        assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
        assert writer.get_extra_info("peername") == server.sockets[0].getsockname()
        assert writer.get_extra_info("cipher")
        data = os.urandom(size)
        sending = asyncio.create_task(send(writer, data))
        assert await reader.readexactly(size) == data
        await sending
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    async def send(writer, data):
        writer.write(data)
        await writer.drain()

    drive(loop, main())


def test_wrong_host_name(loop, server_context, client_context):
    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context, server_hostname="elsewhere"
            )
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())


@pytest.mark.parametrize("debug", [False, True])
def test_failed_handshake_of_a_client(loop, server_context, debug):
    reports = []
    loop.set_debug(debug)
    loop.slow_callback_duration = 10
    loop.set_exception_handler(
        lambda loop, context: reports.append((context["message"], type(context["exception"])))
    )

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while await loop.sock_recv(peer, 1000):
                    pass
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())
    wanted = ("Error on transport creation for incoming connection", ssl.SSLError)
    assert (wanted in reports) == debug


def test_handshake_timeout(loop, client_context):
    async def main():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer"):
            await asyncio.open_connection(
                *server.sockets[0].getsockname(),
                ssl=client_context,
                server_hostname="localhost",
                ssl_handshake_timeout=0.05,
            )
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_streams_have_their_short_cuts(loop, kind, tls_code, server_context, client_context):
    adopted = kind == "gyre" and tls_code != "asyncio"
    seen = []

    async def handle(reader, writer):
        seen.append((type(reader) is not asyncio.StreamReader, reader))
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context, limit=5000)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
        )
        assert (type(reader) is not asyncio.StreamReader) == adopted
        lines = [b"x" * (n * 37 % 4000) + b"\n" for n in range(100)]
        writer.writelines(lines)
        for line in lines:
            assert await reader.readline() == line
        assert seen[0][0] == adopted
        assert seen[0][1]._buffer == b""
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())


def test_start_tls(loop, server_context, client_context):
    """A plain conversation becomes TLS in the middle, on both sides."""

    async def main():
        async def handle(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go\n")
            await writer.drain()
            await writer.start_tls(server_context)
            writer.write(b"safe: " + await reader.readline())
            await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(client_context, server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"safe: secret\n"
        assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())


def test_peer_resets(loop, server_context, client_context):
    async def main():
        lost = loop.create_future()

        class Server(asyncio.Protocol):
            def connection_lost(self, exc):
                lost.set_result(exc)

        server = await loop.create_server(Server, "127.0.0.1", 0, ssl=server_context)
        _, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
        )
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await lost
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())


def test_sendfile(loop, server_context, client_context, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    async def main():
        async def send(reader, writer):
            with path.open("rb") as file:
                await loop.sendfile(writer.transport, file, 5)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

        server = await asyncio.start_server(send, "127.0.0.1", 0, ssl=server_context)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
        )
        assert await reader.read() == path.read_bytes()[5:]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())


def test_nothing_is_left(loop, server_context, client_context):
    """Protocols and transports of closed connections can be collected."""
    alive = []

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        for _ in range(5):
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
            )
            alive.append(weakref.ref(writer.transport))
            alive.append(weakref.ref(writer.transport.get_protocol()))
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())
    gc.collect()
    assert [ref for ref in alive if ref() is not None] == []
