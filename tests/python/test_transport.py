"""The methods and attributes of stream transports, and their errors, on both loops."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
import warnings
import weakref

import pytest
from tcp_tools import LIMIT, Quiet, closed, drive, pair, read_all, spin

# ---- what it is


def test_is_an_asyncio_transport(loop, connect):
    async def main():
        transport, protocol, _ = await connect()
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.ReadTransport)
        assert isinstance(transport, asyncio.WriteTransport)
        assert issubclass(type(transport), asyncio.BaseTransport)
        assert transport._start_tls_compatible is True
        assert transport._loop is loop
        assert transport._protocol is protocol
        assert transport._sock_fd == transport.get_extra_info("socket").fileno()
        assert transport._protocol_paused is False
        assert transport._conn_lost == 0
        assert not transport._buffer
        transport.label = "users set attributes"
        assert transport.label and weakref.ref(transport)() is transport
        assert transport in {transport}
        await closed(transport, protocol)
        assert transport._loop is None
        assert transport._protocol is None
        assert transport.get_protocol() is None
        assert transport._sock is None

    drive(loop, main())


@pytest.mark.only("gyre")
def test_cannot_be_made_by_hand(loop, connect):
    async def main():
        transport, protocol, _ = await connect()
        with pytest.raises(TypeError):
            type(transport)()
        await closed(transport, protocol)

    drive(loop, main())


def test_repr(loop, connect):
    async def main():
        transport, protocol, theirs = await connect()
        name = type(transport).__name__
        fd = transport.get_extra_info("socket").fileno()
        assert repr(transport) == f"<{name} fd={fd} read=polling write=<idle, bufsize=0>>"
        transport.pause_reading()
        assert repr(transport) == f"<{name} fd={fd} read=idle write=<idle, bufsize=0>>"
        transport.write(b"x" * 8_000_000)
        size = transport.get_write_buffer_size()
        assert 0 < size < 8_000_000
        assert repr(transport) == f"<{name} fd={fd} read=idle write=<polling, bufsize={size}>>"
        transport.close()
        assert repr(transport).startswith(f"<{name} closing fd={fd} ")
        await closed(transport, protocol)
        assert repr(transport) == f"<{name} closed fd={fd}>"

    drive(loop, main())


# ---- extra info


def test_extra_info(loop, connect, kind):
    async def main():
        transport, protocol, theirs = await connect()
        sock = transport.get_extra_info("socket")
        assert type(sock) is asyncio.trsock.TransportSocket
        assert transport.get_extra_info("socket") is sock
        if kind == "gyre":  # always; asyncio looks at the socket object's proto, which may be 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.type == socket.SOCK_STREAM and sock.family == socket.AF_INET
        assert transport.get_extra_info("peername") == theirs.getsockname()
        assert transport.get_extra_info(name="sockname") == theirs.getpeername()
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", 17) == 17
        assert transport.get_extra_info("nothing", default=18) == 18
        assert set(transport._extra) == {"socket", "sockname", "peername"}
        for wrong in ((), (1, 2, 3)):
            with pytest.raises(TypeError):
                transport.get_extra_info(*wrong)
        with pytest.raises(TypeError):
            transport.get_extra_info("socket", unknown=1)
        await closed(transport, protocol)
        assert sock.fileno() == -1
        assert transport.get_extra_info("socket") is sock
        assert transport.get_extra_info("peername") == theirs.getsockname()

    drive(loop, main())


def test_names_asked_for_late(loop, connect):
    """Asked for the first time when the peer has reset and all is over."""

    async def main():
        server_side = Quiet(loop)
        server = await loop.create_server(lambda: server_side, "127.0.0.1", 0)
        theirs = socket.create_connection(server.sockets[0].getsockname())
        names = theirs.getsockname(), theirs.getpeername()
        while server_side.transport is None:
            await asyncio.sleep(0)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        assert isinstance(await server_side.lost, ConnectionResetError)
        await spin()
        transport = server_side.transport
        assert transport.get_extra_info("peername") == names[0]
        assert transport.get_extra_info("sockname") == names[1]
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_names_in_connection_lost(loop):
    async def main():
        found = loop.create_future()

        class Asks(Quiet):
            def connection_lost(self, exc):
                sock = self.transport.get_extra_info("socket")
                assert sock.fileno() >= 0
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
                found.set_result(self.transport.get_extra_info("peername"))

        server = await loop.create_server(lambda: Asks(loop), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as theirs:
            name = theirs.getsockname()
        assert await found == name
        server.close()
        await server.wait_closed()

    drive(loop, main())


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_names(loop):
    async def main():
        protocol = Quiet(loop)
        server = await loop.create_server(lambda: protocol, "::1", 0)
        transport, client = await loop.create_connection(
            lambda: Quiet(loop), *server.sockets[0].getsockname()[:2]
        )
        while protocol.transport is None:
            await asyncio.sleep(0)
        for ours, other in ((transport, protocol.transport), (protocol.transport, transport)):
            assert ours.get_extra_info("peername") == other.get_extra_info("sockname")
            name = ours.get_extra_info("peername")
            assert name == ours.get_extra_info("socket").getpeername()
            assert len(name) == 4 and name[0] == "::1"
        await closed(transport, client)
        await protocol.lost
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_unix_names(loop, tmp_path):
    async def main():
        path = str(tmp_path / "sock")
        protocol = Quiet(loop)
        server = await loop.create_unix_server(lambda: protocol, path)
        transport, client = await loop.create_unix_connection(lambda: Quiet(loop), path)
        while protocol.transport is None:
            await asyncio.sleep(0)
        assert transport.get_extra_info("peername") == path
        assert protocol.transport.get_extra_info("sockname") == path
        assert protocol.transport.get_extra_info("peername") == ""
        transport.write(b"over a path")
        while not protocol.received:
            await asyncio.sleep(0)
        await closed(transport, client)
        await protocol.lost
        server.close()
        await server.wait_closed()

    drive(loop, main())


# ---- writing


@pytest.mark.parametrize("method", ["write", "writelines"])
def test_kinds_of_data(loop, connect, method):
    async def main():
        transport, protocol, theirs = await connect()
        data = bytearray(b"bytearray ")
        items = [b"bytes ", data, memoryview(b"memoryview "), b"", memoryview(b"")]
        if method == "writelines":
            transport.writelines(items)
            transport.writelines(
                iter([b"by ", b"iterator "]) if kind_takes_iterators() else [b"by iterator "]
            )
            transport.writelines([])
        else:
            for item in items:
                transport.write(item)
            transport.write(b"by iterator ")
        data[:] = b"changed!! "
        transport.close()
        expected = b"bytes bytearray memoryview by iterator "
        received = b""
        while len(received) < len(expected):
            await asyncio.sleep(0)
            received += theirs.recv(100)
        assert received == expected
        await protocol.lost

    def kind_takes_iterators():
        return sys.version_info < (3, 12)

    drive(loop, main())


def test_a_memoryview_with_gaps(loop, connect, kind):
    """gyre sends what it shows; socket.send() refuses it, and asyncio's transport ends."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        transport, protocol, theirs = await connect()
        transport.write(memoryview(b"abcdefgh")[::2])
        await spin()
        if kind == "gyre":
            assert theirs.recv(100) == b"aceg"
            transport.close()
            assert await protocol.lost is None
        else:
            assert type(await protocol.lost) is BufferError

    drive(loop, main())
    assert len(contexts) == (kind == "asyncio")


def test_wrong_data(loop, connect, kind):
    async def main():
        transport, protocol, _ = await connect()
        for wrong, name in (("text", "str"), (17, "int"), (None, "NoneType"), ([b"x"], "list")):
            with pytest.raises(TypeError) as caught:
                transport.write(wrong)
            assert re.fullmatch(
                "data argument must be (a bytes-like|a bytes, bytearray, or memoryview) object, "
                f"not '{name}'",
                str(caught.value),
            )
        with pytest.raises(TypeError):
            transport.writelines([b"good", "bad"])
        with pytest.raises(TypeError):
            transport.writelines(17)
        if kind == "gyre" or sys.version_info < (3, 15):  # asyncio's keeps b"good" since then
            assert transport.get_write_buffer_size() == 0
        assert not transport.is_closing()
        await closed(transport, protocol)

    drive(loop, main())


def test_mutable_buffer_is_a_snapshot(loop, connect):
    """asyncio up to 3.11 copies, later ones keep a view: ours is what was written."""

    async def main():
        transport, protocol, theirs = await connect()
        data = bytearray(b"a" * 6_000_000)
        transport.write(data)
        size = transport.get_write_buffer_size()
        assert size
        if type(transport).__module__.startswith("gyre"):
            data.clear()  # nothing holds on to it
            data.extend(b"b" * 6_000_000)
        received = 0
        theirs.setblocking(False)
        while received < 6_000_000:
            try:
                part = theirs.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            assert part == b"a" * len(part)
            received += len(part)
        await closed(transport, protocol)

    drive(loop, main())


def test_buffer_size_counts_what_is_in_flight(loop, connect):
    async def main():
        transport, protocol, theirs = await connect()
        transport.write(b"small")
        assert transport.get_write_buffer_size() == 0
        transport.write(b"x" * 8_000_000)
        first = transport.get_write_buffer_size()
        assert 0 < first < 8_000_000
        await spin()
        assert transport.get_write_buffer_size() == first
        transport.write(b"y" * 10)
        transport.writelines([b"z" * 5, b"z" * 5])
        assert transport.get_write_buffer_size() == first + 20
        assert len(transport._buffer) > 0
        await closed(transport, protocol)
        assert transport.get_write_buffer_size() == 0

    drive(loop, main())


def test_write_buffer_limits(loop, connect):
    async def main():
        transport, protocol, _ = await connect()
        assert transport.get_write_buffer_limits() == (16384, 65536)
        for kwargs, limits in (
            ({"high": 1000}, (250, 1000)),
            ({"low": 1000}, (1000, 4000)),
            ({"high": 0}, (0, 0)),
            ({"high": 10, "low": 10}, (10, 10)),
            ({}, (16384, 65536)),
        ):
            transport.set_write_buffer_limits(**kwargs)
            assert transport.get_write_buffer_limits() == limits
        transport.set_write_buffer_limits(1000, 10)
        for kwargs in ({"high": 5, "low": 10}, {"high": -1}, {"low": -1}, {"high": -2, "low": -3}):
            with pytest.raises(ValueError, match=r"high \(-?\d+\) must be >= low"):
                transport.set_write_buffer_limits(**kwargs)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(high="much")
        assert transport.get_write_buffer_limits() == (10, 1000)
        await closed(transport, protocol)

    drive(loop, main())


def test_many_ignored_writes_are_logged(loop, connect, asyncio_log):
    async def main():
        transport, protocol, _ = await connect()
        transport.abort()
        for _ in range(7):
            transport.write(b"x")
            transport.write(b"")
        await protocol.lost
        assert asyncio_log.messages() == ["socket.send() raised exception."] * 3

    drive(loop, main())


def test_write_outside_of_a_run(loop, connect):
    """Between two runs a small write leaves at once."""
    transport, protocol, theirs = drive(loop, connect())
    transport.write(b"now")
    assert theirs.recv(10) == b"now"
    transport.write(b"x" * 8_000_000)
    transport.close()
    received = []
    reader = threading.Thread(target=lambda: received.append(read_all(theirs)))
    reader.start()
    drive(loop, asyncio.wait_for(protocol.lost, LIMIT))
    reader.join()
    assert received == [8_000_000]


def test_header_and_body_are_one_segment(loop, connect, kind):
    async def main():
        transport, protocol, theirs = await connect()
        await spin()
        before = loop.stats()["send_calls"] if kind == "gyre" else 0
        transport.write(b"header")
        transport.write(b"body")
        await asyncio.sleep(0)
        assert theirs.recv(100).startswith(b"header")
        if kind == "gyre":
            assert loop.stats()["send_calls"] - before == 1
        await closed(transport, protocol)

    drive(loop, main())


# ---- errors of callbacks that have to leave the loop


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "callback",
    ["connection_made", "data_received", "eof_received", "connection_lost", "resume_writing"],
)
def test_exit_from_callback(loop, peer, callback, exception):
    """It leaves run_forever, and the loop can run again."""
    ours, theirs = pair()
    peer.append(theirs)
    protocol = Quiet(loop)
    original = getattr(protocol, callback)

    def leave(*args):
        original(*args)
        setattr(protocol, callback, original)
        raise exception

    setattr(protocol, callback, leave)
    theirs.sendall(b"data")

    async def main():
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        if callback == "resume_writing":
            # asyncio fails an assertion of its own if the send that resumes empties the buffer.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            transport.set_write_buffer_limits(high=2_000_000, low=1_000_000)
            transport.write(b"x" * 8_000_000)
            theirs.setblocking(False)
            received = 0
            while received < 8_000_000:
                try:
                    received += len(theirs.recv(1 << 20))
                except BlockingIOError:
                    await asyncio.sleep(0)
        theirs.close()
        await protocol.lost

    task = loop.create_task(main())
    with pytest.raises(exception):
        loop.run_until_complete(task)
    drive(loop, asyncio.wait_for(task, LIMIT))


def test_exit_from_pause_writing(loop, connect):
    class Leaves(Quiet):
        def pause_writing(self):
            raise KeyboardInterrupt

    async def main():
        transport, protocol, _ = await connect(Leaves(loop))
        with pytest.raises(KeyboardInterrupt):
            transport.write(b"x" * 8_000_000)
        await closed(transport, protocol)

    drive(loop, main())


def test_exit_from_protocol_factory(loop, kind, asyncio_log, unraisable):
    calls = []

    def factory():
        calls.append(1)
        raise KeyboardInterrupt

    server = drive(loop, loop.create_server(factory, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname()) as theirs:
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        gc.collect()
        theirs.settimeout(LIMIT)
        assert theirs.recv(1) == b""
    server.close()
    drive(loop, server.wait_closed())
    if kind == "asyncio":  # its task and its socket are left to the collector
        gc.collect()
        asyncio_log.take()
        unraisable.take()


@pytest.mark.parametrize("debug", [False, True])
def test_protocol_factory_raises(loop, debug):
    reports = []
    loop.set_debug(debug)
    loop.set_exception_handler(
        lambda loop, context: reports.append((context["message"], type(context["exception"])))
    )

    def factory():
        raise ValueError("no protocol today")

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.sleep(0.01)
        gc.collect()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio leaves it to the collector
        drive(loop, main())
    assert reports == [("Error on transport creation for incoming connection", ValueError)] * debug


# ---- context


def test_callbacks_run_in_the_context_of_creation(loop, connect):
    var = contextvars.ContextVar("var", default="unset")
    seen = []

    class Looks(Quiet):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(var.get())

        def data_received(self, data):
            seen.append(var.get())

        def eof_received(self):
            seen.append(var.get())

    async def main():
        var.set("creator")
        protocol = Looks(loop)
        transport, _, theirs = await connect(protocol)
        var.set("later")
        theirs.sendall(b"x")
        await asyncio.sleep(0.01)
        theirs.close()
        await protocol.lost
        assert seen == ["creator"] * 3

    drive(loop, main())


@pytest.mark.only("gyre")
def test_all_callbacks_run_in_one_context(loop, connect):
    """Whoever pauses, resumes, writes or closes; asyncio runs some in the context of that call."""
    var = contextvars.ContextVar("var", default="unset")
    seen = {}

    class Looks(Quiet):
        def connection_made(self, transport):
            super().connection_made(transport)
            var.set("made")

        def data_received(self, data):
            seen["data_received"] = var.get()

        def pause_writing(self):
            pass

        def resume_writing(self):
            seen["resume_writing"] = var.get()

        def connection_lost(self, exc):
            seen["connection_lost"] = var.get()
            super().connection_lost(exc)

    async def main():
        var.set("creator")
        protocol = Looks(loop)
        transport, _, theirs = await connect(protocol)
        var.set("later")
        transport.pause_reading()
        await asyncio.sleep(0)
        transport.resume_reading()
        theirs.sendall(b"x")
        size = 8_000_000
        transport.write(bytes(size))
        theirs.setblocking(False)
        while size:
            with contextlib.suppress(BlockingIOError):
                size -= len(theirs.recv(size))
            await asyncio.sleep(0)
        while "resume_writing" not in seen or "data_received" not in seen:
            await asyncio.sleep(0)
        transport.close()
        await protocol.lost
        theirs.close()

    drive(loop, main())
    assert seen == dict.fromkeys(["data_received", "resume_writing", "connection_lost"], "made")


def test_server_callbacks_run_in_the_context_of_the_server(loop):
    var = contextvars.ContextVar("var", default="unset")
    seen = []

    class Looks(Quiet):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(var.get())
            var.set("mine alone")

    async def main():
        var.set("server")
        server = await loop.create_server(lambda: Looks(loop), "127.0.0.1", 0)
        var.set("later")
        for _ in range(2):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()
        assert seen == ["server"] * 2
        assert var.get() == "later"

    drive(loop, main())


# ---- debug mode


def test_debug_log(loop, connect, asyncio_log):
    loop.set_debug(True)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)

    async def main():
        transport, protocol, theirs = await connect()
        transport.pause_reading()
        transport.resume_reading()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        await protocol.lost

    drive(loop, main())
    texts = " / ".join(asyncio_log.messages(logging.DEBUG))
    assert "pauses reading" in texts
    assert "resumes reading" in texts
    assert "Fatal read error on socket transport" in texts


def test_debug_log_of_slow_callbacks(loop, connect, asyncio_log):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.02

    class Slow(Quiet):
        def data_received(self, data):
            threading.Event().wait(0.03)
            heard.set()

    async def main():
        transport, protocol, theirs = await connect(Slow(loop))
        theirs.sendall(b"x")
        await heard.wait()
        await closed(transport, protocol)

    heard = asyncio.Event()
    drive(loop, main())
    assert any(re.search(r" took \d+\.\d+ seconds$", text) for text in asyncio_log.messages())


# ---- sendfile, whose door is the transport


def test_sendfile(loop, connect, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)

    async def main():
        transport, protocol, theirs = await connect()
        received = []
        reader = threading.Thread(target=lambda: received.append(read_all(theirs)))
        reader.start()
        with path.open("rb") as file:
            transport.write(b"header")
            sent = await loop.sendfile(transport, file, 256, 500_000)
        assert sent == 500_000
        transport.close()
        await protocol.lost
        reader.join()
        assert received == [500_006]

    drive(loop, main())


def test_empty_waiter(loop, connect):
    async def main():
        transport, protocol, theirs = await connect()
        waiter = transport._make_empty_waiter()
        await waiter
        with pytest.raises(RuntimeError, match="already set"):
            transport._make_empty_waiter()
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"x")
        transport._reset_empty_waiter()
        transport.write(b"x" * 8_000_000)
        waiter = transport._make_empty_waiter()
        assert not waiter.done()
        transport.abort()
        await protocol.lost
        await spin()
        with pytest.raises(ConnectionError):
            await waiter

    drive(loop, main())


def test_signals_do_not_disturb(loop, connect):
    """A send that is waiting, and SIGALRM again and again."""
    ticks = []
    old = signal.signal(signal.SIGALRM, lambda *args: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:

        async def main():
            transport, protocol, theirs = await connect()
            data = os.urandom(3_000_000)
            transport.write(data)
            transport.close()
            theirs.setblocking(False)
            received = bytearray()
            while len(received) < len(data):
                try:
                    received += theirs.recv(50_000)
                except BlockingIOError:
                    await asyncio.sleep(0)
            assert received == data
            await protocol.lost

        drive(loop, main())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert ticks
