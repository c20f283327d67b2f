"""create_connection() and its like with parameters in combination: gyre answers as asyncio does.

Each example is a call with arguments drawn from what is right, odd and wrong, made on both loops
one after the other; the outcomes (what came about, or the words of the exception) have to be equal.
"""

import asyncio
import contextlib
import gc
import inspect
import os
import re
import socket
import ssl
import tempfile
import warnings

import gyre
import pytest
from conftest import CERTS
from hypothesis import given, note
from hypothesis import strategies as st

LIMIT = 10
NUMBERS = re.compile(r"0x[0-9a-f]+|fd=\d+|\b\d{4,}\b|/tmp/tmp\w+")


class Scene:
    """What the arguments of one call refer to; the same for both loops."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.listener = self.keep(socket.create_server(("127.0.0.1", 0), backlog=20))
        self.port = self.listener.getsockname()[1]
        self.path = os.path.join(self.folder, "listens")
        self.unix = self.keep(socket.socket(socket.AF_UNIX))
        self.unix.bind(self.path)
        self.unix.listen(20)
        self.free_path = os.path.join(self.folder, "free")
        self.datagrams = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.datagrams.bind(("127.0.0.1", 0))

    def keep(self, sock):
        self.stack.callback(sock.close)
        return sock

    def connected(self):
        left, right = socket.socketpair()
        self.keep(left), self.keep(right)
        return left

    def sock(self, what):
        if what == "closed":
            sock = socket.socket()
            sock.close()
            return sock
        if what == "connected":
            return self.connected()
        family = socket.AF_UNIX if what == "unix" else socket.AF_INET
        kind = socket.SOCK_DGRAM if what == "datagram" else socket.SOCK_STREAM
        sock = self.keep(socket.socket(family, kind))
        if what in ("bound", "datagram"):
            sock.bind(("127.0.0.1", 0))
        return sock

    def value(self, name, what):
        """The object that stands behind a drawn word."""
        if name == "sock" and what is not None:
            return self.sock(what)
        if isinstance(what, str) and what.startswith("sock "):
            return self.sock(what[5:])
        if isinstance(what, tuple):
            return tuple(self.value("", item) for item in what)
        if what == "the port":
            return self.port
        if what == "the path":
            return self.path
        if what == "a path":
            return self.free_path
        if what == "the datagrams":
            return self.datagrams.getsockname()
        if what == "client":
            context = ssl.create_default_context(cafile=str(CERTS / "localhost.crt"))
            return context
        if what == "server":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTS / "localhost.crt", CERTS / "localhost.key")
            return context
        return what


def words(exc):
    """An exception without what differs from run to run."""
    if isinstance(exc, ssl.SSLError):
        return type(exc).__name__
    text = NUMBERS.sub("#", str(exc))
    return type(exc).__name__, getattr(exc, "errno", None), text


def made(transport):
    info = transport.get_extra_info
    sock = info("socket")
    answer = {
        "family": sock.family,
        "type": sock.type,
        "peer": NUMBERS.sub("#", repr(info("peername"))),
        "own": NUMBERS.sub("#", repr(info("sockname"))),
        "tls": info("ssl_object") is not None,
        "timeout": sock.gettimeout(),
        "limits": getattr(transport, "get_write_buffer_limits", lambda: None)(),
        "closing": transport.is_closing(),
    }
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for option in ("SO_REUSEADDR", "SO_REUSEPORT", "SO_BROADCAST", "SO_KEEPALIVE"):
            answer[option] = sock.getsockopt(socket.SOL_SOCKET, getattr(socket, option))
    return answer


class Protocol(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(None)

    def datagram_received(self, data, addr):
        pass

    def error_received(self, exc):
        pass


async def outcome_of(loop, method, scene, args, options):
    args = [scene.value("", arg) for arg in args]
    options = {name: scene.value(name, value) for name, value in options.items()}
    try:
        async with asyncio.timeout(LIMIT):
            result = await getattr(loop, method)(Protocol, *args, **options)
    except Exception as exc:
        return words(exc)
    if isinstance(result, asyncio.AbstractServer):
        answer = [
            (
                sock.family,
                NUMBERS.sub("#", repr(sock.getsockname())),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
            )
            for sock in result.sockets
        ]
        answer.append(result.is_serving())
        result.close()
        return sorted(map(repr, answer))
    transport, protocol = result
    answer = made(transport)
    transport.abort()
    await protocol.lost
    return answer


def outcome(factory, method, args, options):
    scene = Scene()
    loop = factory()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = loop.run_until_complete(outcome_of(loop, method, scene, args, options))
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_default_executor())
            scene.stack.close()
            loop.close()
    finally:
        loop.close()
    return answer


def options(**choices):
    """Any of the options that this Python's method has, each with one of its values."""
    return st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in choices.items()}
    )


HOSTS = st.sampled_from(["127.0.0.1", "localhost", None, "", "::1", "no such host.invalid", 5])
PORTS = st.sampled_from(["the port", None, 0, "http", 70000, -1])
SOCKS = [None, "connected", "stream", "bound", "datagram", "unix", "closed"]
TLS = {
    "ssl": [None, False, True, "client", "server", "nonsense"],
    "server_hostname": [None, "", "localhost"],
}
LIMITS = {"ssl_handshake_timeout": [None, 1, 0, -1], "ssl_shutdown_timeout": [None, 1, 0]}

CALLS = {
    "create_connection": (
        st.tuples(HOSTS, PORTS) | st.just(()),
        options(
            **TLS,
            **LIMITS,
            sock=SOCKS,
            family=[0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX],
            proto=[0, socket.IPPROTO_TCP, socket.IPPROTO_UDP],
            flags=[0, socket.AI_NUMERICHOST, socket.AI_PASSIVE],
            local_addr=[None, ("127.0.0.1", 0), ("::1", 0), ("127.0.0.1", "the port"), ()],
            happy_eyeballs_delay=[None, 0.25, 0],
            interleave=[None, 0, 1],
            all_errors=[False, True],
        ),
    ),
    "create_server": (
        st.tuples(
            st.sampled_from(["127.0.0.1", None, "", ["127.0.0.1", "127.0.0.2"], [], "::1", 5]),
            st.sampled_from([0, None, "the port", "no service", 70000]),
        )
        | st.just(()),
        options(
            **LIMITS,
            sock=SOCKS,
            ssl=[None, "server", True, "nonsense"],
            family=[0, socket.AF_INET, socket.AF_INET6],
            flags=[socket.AI_PASSIVE, 0, socket.AI_NUMERICHOST],
            backlog=[100, 1, 0, -1],
            reuse_address=[None, True, False],
            reuse_port=[None, True, False],
            keep_alive=[None, True, False],
            start_serving=[True, False],
        ),
    ),
    "create_unix_connection": (
        st.tuples(
            st.sampled_from(["the path", None, "a path", "\0no such name", "a\0b", 5, b"bytes"])
        )
        | st.just(()),
        options(**TLS, **LIMITS, sock=SOCKS),
    ),
    "create_unix_server": (
        st.tuples(st.sampled_from(["a path", "the path", None, "\0some name", "a\0b", 5]))
        | st.just(()),
        options(
            **LIMITS,
            sock=SOCKS,
            ssl=[None, "server", True],
            backlog=[100, 1],
            start_serving=[True, False],
            cleanup_socket=[True, False],
        ),
    ),
    "create_datagram_endpoint": (
        st.just(()),
        options(
            local_addr=[
                None,
                ("127.0.0.1", 0),
                ("::1", 0),
                ("localhost", 0),
                "a path",
                (),
                ("127.0.0.1",),
            ],
            remote_addr=[None, "the datagrams", ("::1", 9), ("localhost", 9), "the path", 5],
            family=[0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX],
            proto=[0, socket.IPPROTO_UDP, socket.IPPROTO_TCP],
            flags=[0, socket.AI_NUMERICHOST],
            reuse_port=[None, True, False],
            allow_broadcast=[None, True, False],
            sock=SOCKS,
        ),
    ),
    "connect_accepted_socket": (
        st.tuples(st.sampled_from(["sock " + word for word in SOCKS if word])),
        options(**LIMITS, ssl=[None, "server", True, "nonsense"]),
    ),
}


def fits(method, keywords):
    """Without what newer Pythons have; no handshake ends, since nobody answers: not long."""
    known = inspect.signature(getattr(asyncio.SelectorEventLoop, method)).parameters
    kept = {name: value for name, value in keywords.items() if name in known}
    if kept.get("ssl") and (kept.get("ssl_handshake_timeout") or 1) > 0:
        kept["ssl_handshake_timeout"] = 0.02
    return kept


@pytest.mark.only("gyre")
@pytest.mark.parametrize("method", CALLS)
def test_the_same_outcome(kind, method, asyncio_log, unraisable):
    args, keywords = CALLS[method]

    @given(args, keywords)
    def check(args, keywords):
        keywords = fits(method, keywords)
        expected = outcome(asyncio.SelectorEventLoop, method, args, keywords)
        note(f"asyncio: {expected}")
        assert outcome(gyre.Loop, method, args, keywords) == expected

    check()
    asyncio_log.take()
    gc.collect()
    unraisable.take()  # sockets that asyncio leaves to the collector
