"""create_unix_connection() and create_unix_server(): paths, names, sockets, files."""

import asyncio
import contextlib
import gc
import os
import pathlib
import socket
import ssl
import stat
import sys
import uuid

import pytest
from tcp_tools import Quiet, spin

NEW_IN_313 = pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket: 3.13")


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def echo_once(loop, path=None, **kwargs):
    """Connects, says something and hears it; (sockname, peername) of the client."""
    reader, writer = await asyncio.open_unix_connection(path, **kwargs)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    names = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    writer.close()
    await writer.wait_closed()
    return names


def abstract():
    return f"\0gyre-test-{uuid.uuid4()}"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "socket")


KINDS = {
    "str": lambda path: (path, path),
    "path": lambda path: (pathlib.Path(path), path),
    "bytes": lambda path: (os.fsencode(path), path),
    "abstract": lambda path: ((name := abstract()), name.encode()),
    "abstract bytes": lambda path: ((name := abstract().encode()), name),
}


@pytest.mark.parametrize("what", KINDS)
def test_names(loop, path, what):
    name, seen = KINDS[what](path)

    async def main():
        server = await loop.create_unix_server(Echo, name)
        assert server.sockets[0].getsockname() == seen
        assert server.sockets[0].gettimeout() == 0
        for _ in range(3):
            assert await echo_once(loop, name) == ("", seen)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["a\0b", b"a\0b", "/tmp/\0"])
def test_a_nul_within_a_path(loop, name, unraisable):
    for method in (loop.create_unix_connection, loop.create_unix_server):
        with pytest.raises((ValueError, OSError)) as raised:
            loop.run_until_complete(method(Quiet, name))
        assert "null" in str(raised.value) or isinstance(raised.value, OSError)
    del raised
    gc.collect()
    unraisable.take()  # asyncio's create_unix_server() leaves its socket to the collector


def test_a_path_that_is_too_long(loop, tmp_path):
    long = str(tmp_path / ("x" * 120))
    for method in (loop.create_unix_connection, loop.create_unix_server):
        with pytest.raises(OSError, match="too long"):
            loop.run_until_complete(method(Quiet, long))


@pytest.mark.parametrize("name", [5, 1.5, ["list"]])
def test_a_path_that_is_none(loop, name):
    for method in (loop.create_unix_connection, loop.create_unix_server):
        with pytest.raises(TypeError):
            loop.run_until_complete(method(Quiet, name))


def test_nobody_listens(loop, path):
    with pytest.raises(FileNotFoundError):
        loop.run_until_complete(loop.create_unix_connection(Quiet, path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    with pytest.raises(ConnectionRefusedError):
        loop.run_until_complete(loop.create_unix_connection(Quiet, path))
    with pytest.raises(ConnectionRefusedError):
        loop.run_until_complete(loop.create_unix_connection(Quiet, abstract()))


# ---- the file of a server


def test_a_stale_file_is_replaced(loop, path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    before = os.stat(path).st_ino

    async def main():
        server = await loop.create_unix_server(Echo, path)
        await echo_once(loop, path)
        server.close()
        await server.wait_closed()

    assert stat.S_ISSOCK(os.stat(path).st_mode)
    loop.run_until_complete(main())
    del before


def test_another_kind_of_file_is_not_replaced(loop, path):
    with open(path, "w") as file:
        file.write("precious")
    with pytest.raises(OSError, match="is already in use"):
        loop.run_until_complete(loop.create_unix_server(Echo, path))
    with open(path) as file:
        assert file.read() == "precious"


def test_a_name_in_use(loop):
    name = abstract()

    async def main():
        server = await loop.create_unix_server(Echo, name)
        with pytest.raises(OSError, match="is already in use"):
            await loop.create_unix_server(Echo, name)
        server.close()

    loop.run_until_complete(main())


def test_a_server_takes_the_path_of_another(loop, path):
    """As on asyncio: the file of a server that lives is taken for stale."""

    async def main():
        first = await loop.create_unix_server(Echo, path)
        second = await loop.create_unix_server(Echo, path)
        await echo_once(loop, path)
        first.close()
        assert os.path.exists(path)
        await echo_once(loop, path)
        second.close()

    loop.run_until_complete(main())


@NEW_IN_313
@pytest.mark.parametrize("cleanup", [True, False, None])
def test_cleanup(loop, path, cleanup):
    kwargs = {} if cleanup is None else {"cleanup_socket": cleanup}

    async def main():
        server = await loop.create_unix_server(Echo, path, **kwargs)
        server.close()
        await server.wait_closed()
        assert os.path.exists(path) == (cleanup is False)
        sock = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock.bind(path)
        server = await loop.create_unix_server(Echo, sock=sock, **kwargs)
        server.close()
        assert os.path.exists(path) == (cleanup is False)

    loop.run_until_complete(main())


@NEW_IN_313
def test_cleanup_of_a_file_that_cannot_be_removed(loop, path, asyncio_log, monkeypatch):
    async def main():
        server = await loop.create_unix_server(Echo, path)

        def refused(path):
            raise PermissionError("no")

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", refused)
            server.close()

    loop.run_until_complete(main())
    assert "Unable to clean up listening UNIX socket" in asyncio_log.messages()[0]
    os.unlink(path)


# ---- sock=


def unbound():
    return socket.socket(socket.AF_UNIX)


def test_sockets_that_are_refused(loop, path):
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right, socket.socket() as tcp, unbound() as unix:
        for method in (loop.create_unix_connection, loop.create_unix_server):
            with pytest.raises(ValueError, match="can not be specified at the same time"):
                loop.run_until_complete(method(Quiet, path, sock=unix))
            with pytest.raises(ValueError, match="sock"):
                loop.run_until_complete(method(Quiet))
            for wrong in (tcp, left):
                with pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected"):
                    loop.run_until_complete(method(Quiet, sock=wrong))


def test_a_closed_socket(loop):
    for method in (loop.create_unix_connection, loop.create_unix_server):
        sock = unbound()
        sock.close()
        with pytest.raises((OSError, ValueError)):
            loop.run_until_complete(method(Quiet, sock=sock))


@pytest.mark.parametrize("state", ["blocking", "timeout", "listening"])
def test_sockets_of_a_server(loop, path, state):
    async def main():
        sock = unbound()
        sock.bind(path)
        if state == "timeout":
            sock.settimeout(5)
        if state == "listening":
            sock.listen(3)
        server = await loop.create_unix_server(Echo, sock=sock, backlog=10)
        assert sock.gettimeout() == 0
        await echo_once(loop, path)
        server.close()
        await server.wait_closed()
        assert sock.fileno() == -1

    loop.run_until_complete(main())


@pytest.mark.parametrize("blocking", [True, False])
def test_a_connected_socket(loop, path, blocking):
    async def main():
        server = await loop.create_unix_server(Echo, path)
        sock = unbound()
        sock.connect(path)
        sock.setblocking(blocking)
        await echo_once(loop, sock=sock)
        assert sock.fileno() == -1
        left, right = socket.socketpair()
        transport, protocol = await loop.create_unix_connection(lambda: Quiet(loop), sock=left)
        with right:
            transport.write(b"x")
            await asyncio.sleep(0)  # small writes leave at the end of the callback
            assert right.recv(10) == b"x"
            transport.close()
            await protocol.lost
        server.close()

    loop.run_until_complete(main())


def test_a_bound_client(loop, path):
    """The server sees the name of a client that has one."""
    names = []

    class Server(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            names.append(transport.get_extra_info("peername"))

    async def main():
        server = await loop.create_unix_server(Server, path)
        sock = unbound()
        sock.bind(path + ".client")
        sock.connect(path)
        assert (await echo_once(loop, sock=sock))[0] == path + ".client"
        server.close()

    loop.run_until_complete(main())
    assert names == [path + ".client"]


# ---- the rest


def test_start_serving_later(loop, path):
    async def main():
        server = await loop.create_unix_server(Echo, path, start_serving=False)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(lambda: Quiet(loop), path)
        await server.start_serving()
        assert server.is_serving()
        await echo_once(loop, path)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("method", "kwargs"),
    [
        ("create_unix_connection", {"ssl": True}),
        ("create_unix_connection", {"server_hostname": "host"}),
        ("create_unix_connection", {"ssl_handshake_timeout": 1}),
        ("create_unix_connection", {"ssl_shutdown_timeout": 1}),
        ("create_unix_server", {"ssl_handshake_timeout": 1}),
        ("create_unix_server", {"ssl_shutdown_timeout": 1}),
    ],
)
def test_tls_parameters_that_make_no_sense(loop, path, method, kwargs):
    with pytest.raises(ValueError, match=r"ssl|server_hostname"):
        loop.run_until_complete(getattr(loop, method)(Quiet, path, **kwargs))


def test_ssl_of_a_server_is_a_context(loop, path):
    with pytest.raises(TypeError, match="SSLContext or None"):
        loop.run_until_complete(loop.create_unix_server(Quiet, path, ssl=True))


def test_tls(loop, path):
    certificates = pathlib.Path(__file__).parent / "certs"
    files = sorted(certificates.glob("localhost.*"))
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = next(file for file in files if file.suffix == ".crt")
    key = next(file for file in files if file.suffix == ".key")
    server_context.load_cert_chain(certificate, key)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE

    async def main():
        server = await loop.create_unix_server(Echo, path, ssl=server_context)
        for _ in range(3):
            await echo_once(loop, path, ssl=client_context, server_hostname="localhost")
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_many_connections(loop, path):
    async def main():
        server = await loop.create_unix_server(Echo, path, backlog=300)
        await asyncio.gather(*[echo_once(loop, path) for _ in range(200)])
        await spin(50)  # until the server's sides are over
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_cancelled_while_connecting(loop, path):
    async def main():
        server = await loop.create_unix_server(Echo, path)
        for turns in range(6):
            task = asyncio.create_task(loop.create_unix_connection(lambda: Quiet(loop), path))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                task.result()[0].close()
        for _ in range(10):
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_descriptors_that_are_passed(loop, path):
    """recvmsg() through the transport's socket is the program's; bytes that carry descriptors do
    not stop the transport."""

    async def main():
        protocol = Quiet(loop)
        server = await loop.create_unix_server(lambda: protocol, path)
        with unbound() as sock, open(os.devnull) as file:
            sock.connect(path)
            for _ in range(5):
                socket.send_fds(sock, [b"12345"], [file.fileno()])
            while len(protocol.received) < 25:
                await asyncio.sleep(0)
        await protocol.lost
        server.close()

    loop.run_until_complete(main())
