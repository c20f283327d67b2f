"""create_connection() and create_server() with every parameter, on TCP."""

import asyncio
import errno
import inspect
import socket
import struct
import sys

import pytest
from tcp_tools import drive

IPV6 = socket.has_ipv6


def takes(method, parameter):
    """Marks a test of a parameter that newer Pythons have."""
    return pytest.mark.skipif(
        parameter not in inspect.signature(getattr(asyncio.SelectorEventLoop, method)).parameters,
        reason=f"this Python's {method} has no {parameter}",
    )


class Server:
    """A listener that counts, and that answers each connection with its address."""

    def __init__(self, loop):
        self.loop = loop
        self.connections = []

    async def start(self, host="127.0.0.1", port=0, **options):
        self.server = await self.loop.create_server(self.protocol, host, port, **options)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def protocol(self):
        return Answer(self.connections)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for transport in self.connections:
            transport.abort()
        await self.server.wait_closed()
        await asyncio.sleep(0)


class Answer(asyncio.Protocol):
    def __init__(self, connections):
        self.connections = connections

    def connection_made(self, transport):
        self.connections.append(transport)
        transport.write(repr(transport.get_extra_info("peername")[:2]).encode())


class Client(asyncio.Protocol):
    def __init__(self, loop):
        self.data = loop.create_future()
        self.lost = loop.create_future()

    def data_received(self, data):
        if not self.data.done():
            self.data.set_result(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def talk(loop, *args, **options):
    """Connects, hears the address that the server sees, and leaves; (sockname, what it saw)."""
    transport, protocol = await loop.create_connection(lambda: Client(loop), *args, **options)
    seen = await protocol.data
    name = transport.get_extra_info("sockname")
    transport.close()
    await protocol.lost
    return name, seen


def scripted(monkeypatch, answers):
    """getaddrinfo() that knows these names alone: {name: [(family, address, port)]}."""

    def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        found = [
            (fam, socket.SOCK_STREAM, 6, "", (address, number, 0, 0)[: 4 if fam == 10 else 2])
            for fam, address, number in answers[host]
            if family in (0, fam)
        ]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def refusing():
    """A port of 127.0.0.1 and ::1 at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


# ---- create_connection -------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [None, 0, 0.01, 10], ids=str)
@pytest.mark.parametrize("interleave", [None, 0, 1, 2], ids=str)
def test_happy_eyeballs(loop, monkeypatch, refusing, delay, interleave):
    """The first addresses refuse; one that answers is found, whatever the order."""

    async def main():
        async with await Server(loop).start() as server:
            dead = [(socket.AF_INET6, "::1", refusing), (socket.AF_INET6, "::1", refusing)]
            alive = [(socket.AF_INET, "127.0.0.1", server.port)]
            scripted(monkeypatch, {"host": dead + alive, "127.0.0.1": alive})
            options = {"happy_eyeballs_delay": delay}
            if interleave is not None:
                options["interleave"] = interleave
            name, seen = await talk(loop, "host", 80, **options)
            assert seen == repr(name).encode()

    drive(loop, main())


def test_happy_eyeballs_passes_one_that_hangs(loop, monkeypatch):
    """A listener whose queue is full does not answer: the next address wins."""

    async def main():
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            waiting = []
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
                waiting.append(sock)
            async with await Server(loop).start() as server:
                found = [(socket.AF_INET, "127.0.0.1", n) for n in (port, server.port)]
                scripted(monkeypatch, {"host": found, "127.0.0.1": found[1:]})
                name, seen = await talk(loop, "host", 80, happy_eyeballs_delay=0.01)
                assert seen == repr(name).encode()
            for sock in waiting:
                sock.close()

    drive(loop, main())


def test_interleave_orders_the_families(loop, monkeypatch, refusing):
    tried = []

    async def main():
        found = [(socket.AF_INET6, "::1", refusing)] * 3 + [
            (socket.AF_INET, "127.0.0.1", refusing)
        ] * 2
        scripted(monkeypatch, {"host": found})
        connect = loop.sock_connect

        async def sock_connect(sock, address):
            tried.append(sock.family)
            return await connect(sock, address)

        loop.sock_connect = sock_connect
        with pytest.raises(OSError):
            await loop.create_connection(asyncio.Protocol, "host", 80, interleave=1)
        del loop.sock_connect

    drive(loop, main())
    six, four = socket.AF_INET6, socket.AF_INET
    assert tried == [six, four, six, four, six]


@takes("create_connection", "all_errors")
def test_all_errors(loop, monkeypatch, refusing):
    async def main():
        found = [(socket.AF_INET, "127.0.0.1", refusing), (socket.AF_INET, "127.0.0.2", refusing)]
        scripted(monkeypatch, {"host": found})
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(asyncio.Protocol, "host", 80, all_errors=True)
        assert [exc.errno for exc in caught.value.exceptions] == [errno.ECONNREFUSED] * 2
        with pytest.raises(OSError, match="Multiple exceptions") as caught:
            await loop.create_connection(asyncio.Protocol, "host", 80)
        # Equal words of one errno are one error.
        scripted(monkeypatch, {"host": found[:1] * 2})
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "host", 80)

    drive(loop, main())


def test_refused(loop, refusing):
    async def main():
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", refusing)
        assert str(caught.value) == (f"[Errno 111] Connect call failed ('127.0.0.1', {refusing})")

    drive(loop, main())


def test_local_address(loop, refusing):
    async def main():
        async with await Server(loop).start() as server:
            to = ("127.0.0.1", server.port)
            name, seen = await talk(loop, *to, local_addr=("127.0.0.3", 0))
            assert name[0] == "127.0.0.3" and seen == repr(name).encode()
            name, _ = await talk(loop, *to, local_addr=("127.0.0.1", refusing + 0))
            assert name == ("127.0.0.1", refusing)

    # The fixture's socket is bound to that port and does not listen.
    with pytest.raises(OSError) as caught:
        drive(loop, main())
    assert caught.value.errno == errno.EADDRINUSE


def test_local_address_of_the_other_family(loop):
    async def main():
        async with await Server(loop).start() as server:
            with pytest.raises(OSError):
                await talk(loop, "127.0.0.1", server.port, local_addr=("::1", 0))

    drive(loop, main())


@pytest.mark.skipif(not IPV6, reason="no IPv6")
def test_ipv6(loop):
    async def main():
        async with await Server(loop).start("::1") as server:
            name, seen = await talk(loop, "::1", server.port)
            assert len(name) == 4 and seen == repr(name[:2]).encode()
            name, _ = await talk(loop, "::1", server.port, flags=socket.AI_NUMERICHOST)
            assert name[0] == "::1"
            with pytest.raises(OSError):
                await talk(loop, "::1", server.port, family=socket.AF_INET)

    drive(loop, main())


@pytest.mark.skipif(not IPV6, reason="no IPv6")
def test_ipv6_zones(loop):
    """The zone of an address becomes its scope."""

    async def main():
        index = socket.if_nametoindex("lo")
        assert (await loop.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM))[0][4][3] == index
        with pytest.raises(OSError):
            await loop.create_connection(asyncio.Protocol, "fe80::1%nodevice", 80)

    drive(loop, main())


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        (("127.0.0.1", 1), {"sock": True}, "host/port and sock can not be specified"),
        ((), {}, "host and port was not specified and no sock"),
        (("127.0.0.1", 1), {"server_hostname": "x"}, "server_hostname is only meaningful with ssl"),
        (("127.0.0.1", 1), {"ssl_handshake_timeout": 1}, "only meaningful with ssl"),
        (("127.0.0.1", 1), {"ssl_shutdown_timeout": 1}, "only meaningful with ssl"),
        ((), {"ssl": True, "sock": True}, "You must set server_hostname"),
    ],
)
def test_mistakes(loop, pair, args, options, words):
    options = {name: pair[0] if name == "sock" else value for name, value in options.items()}
    with pytest.raises(ValueError, match=words):
        drive(loop, loop.create_connection(asyncio.Protocol, *args, **options))


def test_sock_of_another_type(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for call in (
            loop.create_connection(asyncio.Protocol, sock=sock),
            loop.connect_accepted_socket(asyncio.Protocol, sock),
            loop.create_server(asyncio.Protocol, sock=sock),
        ):
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                drive(loop, call)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    "state", ["connected", "data waits", "peer is gone", "reset", "half closed"]
)
def test_sock_in_every_state(loop, state, blocking):
    """create_connection(sock=): what came before is delivered, and the socket's mode is set."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        ours.setblocking(blocking)
        events = []
        if state in ("data waits", "half closed"):
            theirs.send(b"early")
        if state == "half closed":
            theirs.shutdown(socket.SHUT_WR)
        if state == "peer is gone":
            theirs.close()
        if state == "reset":
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            theirs.close()
        lost = loop.create_future()

        class Noting(asyncio.Protocol):
            def connection_made(self, transport):
                events.append("made")

            def data_received(self, data):
                events.append(data)
                if state == "data waits":
                    transport.close()

            def eof_received(self):
                events.append("eof")

            def connection_lost(self, exc):
                events.append(type(exc).__name__)
                lost.set_result(None)

        transport, _ = await loop.create_connection(Noting, sock=ours)
        assert transport.get_extra_info("socket").fileno() == ours.fileno() != -1
        assert ours.gettimeout() == 0
        if state == "connected":
            transport.close()
        await lost
        theirs.close()
        assert ours.fileno() == -1
        return events

    assert (
        drive(loop, main())
        == {
            "connected": ["made", "NoneType"],
            "data waits": ["made", b"early", "NoneType"],
            "peer is gone": ["made", "eof", "NoneType"],
            "reset": ["made", "ConnectionResetError"],
            "half closed": ["made", b"early", "eof", "NoneType"],
        }[state]
    )


def test_sock_that_is_closed_or_not_connected(loop):
    closed = socket.socket()
    closed.close()
    with pytest.raises(OSError) as caught:
        drive(loop, loop.create_connection(asyncio.Protocol, sock=closed))
    assert caught.value.errno == errno.EBADF

    async def main():
        lost = loop.create_future()

        class Lost(asyncio.Protocol):
            def connection_lost(self, exc):
                lost.set_result(exc)

        sock = socket.socket()
        transport, _ = await loop.create_connection(Lost, sock=sock)
        assert transport.get_extra_info("peername") is None
        transport.write(b"x")
        exc = await lost
        assert exc is None or isinstance(exc, OSError)

    drive(loop, main())


def test_sock_that_a_transport_uses(loop):
    async def main():
        async with await Server(loop).start() as server:
            transport, protocol = await loop.create_connection(
                lambda: Client(loop), "127.0.0.1", server.port
            )
            await protocol.data
            fd = transport.get_extra_info("socket").fileno()
            other = socket.socket(fileno=fd)
            try:
                with pytest.raises(RuntimeError, match="is used by transport"):
                    loop.add_reader(other, print)
                with pytest.raises(RuntimeError, match="is used by transport"):
                    loop.remove_writer(other)
            finally:
                other.detach()
            transport.close()
            await protocol.lost

    drive(loop, main())


# ---- create_server -----------------------------------------------------------------------------


def test_host_lists(loop):
    async def main():
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
        async with await Server(loop).start(hosts) as server:
            names = sorted(sock.getsockname()[0] for sock in server.server.sockets)
            assert names == ["127.0.0.1", "127.0.0.2"]
            for sock in server.server.sockets:
                await talk(loop, *sock.getsockname())

    drive(loop, main())


@pytest.mark.parametrize("host", [None, "", "0.0.0.0"])
def test_every_interface(loop, host):
    async def main():
        async with await Server(loop).start(host) as server:
            families = {sock.family for sock in server.server.sockets}
            assert socket.AF_INET in families
            for sock in server.server.sockets:
                if sock.family == socket.AF_INET:
                    await talk(loop, "127.0.0.1", sock.getsockname()[1])

    drive(loop, main())


def test_options_of_the_listening_socket(loop):
    async def main():
        async with await Server(loop).start(reuse_port=True) as first:
            [sock] = first.server.sockets
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            async with await Server(loop).start(port=first.port, reuse_port=True):
                pass
            with pytest.raises(OSError) as caught:
                await Server(loop).start(port=first.port)
            assert caught.value.errno == errno.EADDRINUSE
        async with await Server(loop).start(reuse_address=False) as server:
            [sock] = server.server.sockets
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0

    drive(loop, main())


@takes("create_server", "keep_alive")
def test_keep_alive(loop):
    async def main():
        async with await Server(loop).start(keep_alive=True) as server:
            [sock] = server.server.sockets
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            await talk(loop, "127.0.0.1", server.port)
            [transport] = server.connections
            accepted = transport.get_extra_info("socket")
            if accepted.fileno() != -1:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1

    drive(loop, main())


def test_backlog(loop):
    """Of a listener, TCP_INFO tells the length of its queue as tcpi_sacked."""

    async def main():
        for options, expected in (({"backlog": 3}, 3), ({}, 100)):
            async with await Server(loop).start(**options) as server:
                info = server.server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
                assert struct.unpack_from("I", info, 28) == (expected,)

    drive(loop, main())


def test_start_serving(loop):
    async def main():
        async with await Server(loop).start(start_serving=False) as server:
            assert not server.server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await talk(loop, "127.0.0.1", server.port)
            await server.server.start_serving()
            await server.server.start_serving()
            assert server.server.is_serving()
            await talk(loop, "127.0.0.1", server.port)

    drive(loop, main())


@pytest.mark.parametrize("blocking", [True, False])
def test_given_listening_socket(loop, blocking):
    async def main():
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(blocking)
        async with await Server(loop).start(None, None, sock=sock) as server:
            assert sock.gettimeout() == 0
            assert server.server.sockets[0].fileno() == sock.fileno()
            assert type(server.server.sockets) is tuple
            assert type(server.server.sockets[0]) is asyncio.trsock.TransportSocket
            await talk(loop, "127.0.0.1", server.port)
        assert server.server.sockets == ()
        await asyncio.sleep(0)
        assert sock.fileno() == -1

    drive(loop, main())


@pytest.mark.parametrize(
    ("args", "options", "error", "words"),
    [
        (("127.0.0.1", 0), {"sock": True}, ValueError, "host/port and sock"),
        ((), {}, ValueError, "Neither host/port nor sock"),
        (("127.0.0.1", 0), {"ssl": True}, TypeError, "ssl argument must be an SSLContext"),
        (("127.0.0.1", 0), {"ssl_handshake_timeout": 1}, ValueError, "only meaningful with ssl"),
        (("127.0.0.1", 0), {"ssl_shutdown_timeout": 1}, ValueError, "only meaningful with ssl"),
    ],
)
def test_mistakes_of_servers(loop, pair, args, options, error, words):
    options = {name: pair[0] if name == "sock" else value for name, value in options.items()}
    with pytest.raises(error, match=words):
        drive(loop, loop.create_server(asyncio.Protocol, *args, **options))


def test_one_address_in_use_leaves_none_open(loop):
    async def main():
        with socket.create_server(("127.0.0.2", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(OSError) as caught:
                await loop.create_server(asyncio.Protocol, ["127.0.0.1", "127.0.0.2"], port)
            assert caught.value.errno == errno.EADDRINUSE
            assert "while attempting to bind on address" in str(caught.value)

    drive(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_clients_of_a_closed_server(loop, how):
    """wait_closed() ends once the clients are told to go, also with bytes that nobody reads."""

    async def main():
        server = await Server(loop).start()
        clients = []
        for _ in range(3):
            clients.append(
                await loop.create_connection(lambda: Client(loop), "127.0.0.1", server.port)
            )
            await clients[-1][1].data
        server.server.close()
        waiting = asyncio.ensure_future(server.server.wait_closed())
        await asyncio.sleep(0.001)
        assert not waiting.done()
        getattr(server.server, how)()
        await waiting
        for transport, protocol in clients:
            exc = await protocol.lost
            assert exc is None if how == "close_clients" else isinstance(exc, (OSError, type(None)))
            transport.close()

    drive(loop, main())
