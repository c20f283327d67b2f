"""What programs take for granted on asyncio and find otherwise on other loops: small things, one
test each, that have no place in the files about their subject."""

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import signal
import socket
import stat
import sys
import weakref

import pytest
from helpers import run_turns
from tcp_tools import Quiet, closed, drive, pair, spin
from tls_tools import Peer

# ---- when a protocol is called


def test_events_come_behind_what_was_ready(loop, connect):
    """Data that waits in the socket is delivered in the turn's order, not before the callbacks."""
    seen = []

    class Noting(Quiet):
        def data_received(self, data):
            seen.append("data")

    async def main():
        transport, protocol, theirs = await connect(Noting(loop))
        await spin()
        loop.call_soon(seen.append, "ready")
        theirs.sendall(b"x")
        while "data" not in seen:
            await asyncio.sleep(0)
        assert seen[0] == "ready"
        await closed(transport, protocol)

    drive(loop, main())


def test_a_write_calls_nobody(loop):
    """Neither the other end nor one's own protocol hears anything inside of write()."""
    inside, wrong = [False], []

    class Watching(Quiet):
        def data_received(self, data):
            wrong.append(inside[0])
            super().data_received(data)

        def connection_lost(self, exc):
            wrong.append(inside[0])
            super().connection_lost(exc)

    async def main():
        ours, theirs = pair()
        left, right = Watching(loop), Watching(loop)
        for protocol, sock in ((left, ours), (right, theirs)):
            await loop.connect_accepted_socket(lambda p=protocol: p, sock)
        for _ in range(50):
            for protocol in (left, right):
                inside[0] = True
                protocol.transport.write(b"x" * 1000)
                inside[0] = False
            await asyncio.sleep(0)
        while len(left.received) < 50_000 or len(right.received) < 50_000:
            await asyncio.sleep(0)
        inside[0] = True
        left.transport.abort()
        right.transport.write(b"y" * 100_000)
        right.transport.write(b"y" * 100_000)
        inside[0] = False
        await left.lost
        await right.lost

    drive(loop, main())
    assert set(wrong) == {False}


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closed_inside_of_pause_writing(loop, connect, how):
    """No resume_writing() of a connection that is gone."""
    calls = []

    class Closing(Quiet):
        def pause_writing(self):
            calls.append("pause")
            getattr(self.transport, how)()

        def resume_writing(self):
            calls.append(("resume", self.lost.done()))

        def connection_lost(self, exc):
            calls.append("lost")
            super().connection_lost(exc)

    async def main():
        transport, protocol, theirs = await connect(Closing(loop))
        transport.write(b"x" * 10_000_000)
        transport.write(b"ignored, and no error")
        reading = loop.run_in_executor(None, drain, theirs)
        await protocol.lost
        await reading
        await spin()
        return calls

    def drain(sock):
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(1 << 20):
                pass

    expected = {"close": ["pause", ("resume", False), "lost"], "abort": ["pause", "lost"]}
    assert drive(loop, main()) == expected[how]


def test_nothing_written_is_nothing_sent(loop, connect):
    async def main():
        transport, protocol, theirs = await connect()
        for empty in (b"", bytearray(), memoryview(b"")):
            transport.write(empty)
        transport.writelines([])
        assert transport.get_write_buffer_size() == 0
        transport.close()
        transport.write(b"")
        transport.write(b"late")
        await protocol.lost
        assert theirs.recv(10) == b""

    drive(loop, main())


def test_a_peer_that_never_stops_leaves_room(loop, connect):
    """However fast it sends, callbacks, timers and other connections have their turns."""
    calls, ticks, timers = [0], [0], [0]

    class Greedy(Quiet):
        def data_received(self, data):
            calls[0] += 1

    def tick():
        ticks[0] += 1
        if calls[0] < 600:
            loop.call_soon(tick)

    def timer():
        timers[0] += 1
        loop.call_later(0.001, timer)

    async def main():
        transport, protocol, theirs = await connect(Greedy(loop))
        other, modest, peer = await connect()
        theirs.setblocking(True)
        sender = await asyncio.create_subprocess_exec("/bin/cat", "/dev/zero", stdout=theirs)
        loop.call_soon(tick)
        loop.call_later(0.001, timer)
        while calls[0] < 300:
            await asyncio.sleep(0)
        peer.sendall(b"x")
        while not modest.received:
            await asyncio.sleep(0)
        assert calls[0] < 550
        while calls[0] < 600:
            await asyncio.sleep(0)
        await closed(transport, protocol)
        await closed(other, modest)
        await sender.wait()

    drive(loop, main())
    assert ticks[0] > 600 / 16 and timers[0] > 0


# ---- what transports are, and their sockets


@pytest.mark.parametrize("what", ["tcp", "unix", "tls", "udp", "read pipe", "write pipe", "child"])
def test_transports_are_asyncios(loop, kind, what, server_context, client_context):
    if (kind, what) == ("asyncio", "udp") and sys.version_info < (3, 12):
        pytest.skip("asyncio's is a plain Transport before 3.12")

    async def main():
        protocol = {"udp": asyncio.DatagramProtocol, "child": asyncio.SubprocessProtocol}.get(
            what, asyncio.Protocol
        )
        base = {
            "udp": asyncio.DatagramTransport,
            "read pipe": asyncio.ReadTransport,
            "write pipe": asyncio.WriteTransport,
            "child": asyncio.SubprocessTransport,
        }.get(what, asyncio.Transport)
        others = contextlib.ExitStack()
        if what == "udp":
            transport, _ = await loop.create_datagram_endpoint(
                protocol, local_addr=("127.0.0.1", 0)
            )
        elif what == "child":
            transport, _ = await loop.subprocess_exec(protocol, "/bin/true")
            await transport._wait()
        elif what.endswith("pipe"):
            read_fd, write_fd = os.pipe()
            reading, writing = open(read_fd, "rb", 0), open(write_fd, "wb", 0)
            if what == "read pipe":
                others.enter_context(writing)
                transport, _ = await loop.connect_read_pipe(protocol, reading)
            else:
                others.enter_context(reading)
                transport, _ = await loop.connect_write_pipe(protocol, writing)
        else:
            ours, theirs = socket.socketpair() if what == "unix" else pair()
            others.enter_context(theirs)
            ours.setblocking(False)
            if what == "tls":
                theirs.setblocking(False)
                task = loop.create_task(
                    loop.connect_accepted_socket(protocol, ours, ssl=server_context)
                )
                await Peer(loop, theirs, client_context).handshake()
                transport, _ = await task
            else:
                transport, _ = await loop.create_connection(protocol, sock=ours)
        assert isinstance(transport, base)
        assert isinstance(transport, asyncio.BaseTransport)
        transport.abort() if hasattr(transport, "abort") else transport.close()
        await spin()
        others.close()

    drive(loop, main())


def test_the_socket_of_a_transport(loop, connect):
    """asyncio's TransportSocket: options and names, but nothing that would take the data away."""

    async def main():
        transport, protocol, theirs = await connect()
        sock = transport.get_extra_info("socket")
        assert type(sock) is asyncio.trsock.TransportSocket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getpeername() == theirs.getsockname()
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert sock.gettimeout() == 0
        sock.settimeout(0)
        with pytest.raises(ValueError, match="only 0 timeout"):
            sock.settimeout(1)
        copy = sock.dup()
        assert copy.getsockname() == sock.getsockname()
        copy.close()
        for name in ("send", "recv", "close", "makefile"):
            assert not hasattr(sock, name)
        sock.shutdown(socket.SHUT_WR)
        assert theirs.recv(1) == b""
        await closed(transport, protocol)
        assert sock.fileno() == -1

    drive(loop, main())


def test_names_of_a_peer_that_is_gone(loop, connect):
    async def main():
        transport, protocol, theirs = await connect()
        name = theirs.getsockname()
        theirs.close()
        await protocol.lost
        await spin()
        assert transport.get_extra_info("peername") == name
        assert transport.get_extra_info("sockname") is not None

    drive(loop, main())


def test_names_are_there_for_whoever_still_asks(loop, connect):
    """However few hold the transport when its descriptor is closed."""

    async def main():
        transport, protocol, theirs = await connect()
        name, ours = theirs.getsockname(), theirs.getpeername()
        ask = transport.get_extra_info
        del transport, protocol.transport
        theirs.close()
        await protocol.lost
        await spin()
        assert ask("peername") == name
        assert ask("sockname") == ours

    drive(loop, main())


# ---- waiting and cancelling


@pytest.mark.parametrize(
    "call", ["sock_recv", "sock_recv_into", "sock_accept", "sock_recvfrom", "sock_sendall"]
)
def test_cancel_says_that_it_did(loop, call, peer):
    async def main():
        if call == "sock_accept":
            sock = socket.create_server(("127.0.0.1", 0))
            args = ()
        else:
            kind = socket.SOCK_DGRAM if call == "sock_recvfrom" else socket.SOCK_STREAM
            sock, other = socket.socketpair(socket.AF_UNIX, kind)
            peer.append(other)
            args = {
                "sock_recv": (10,),
                "sock_recv_into": (bytearray(10),),
                "sock_recvfrom": (10,),
                "sock_sendall": (b"x" * 10_000_000,),
            }[call]
        peer.append(sock)
        sock.setblocking(False)
        task = asyncio.ensure_future(getattr(loop, call)(sock, *args))
        await spin()
        assert task.cancel() is True
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled() and task.cancel() is False

    drive(loop, main())


@pytest.mark.only("gyre")
@pytest.mark.parametrize(
    "call", ["sock_recv", "sock_recv_into", "sock_accept", "sock_recvfrom", "sock_sendall"]
)
@pytest.mark.parametrize("again", [False, True], ids=["closed", "number used again"])
def test_a_socket_closed_under_a_wait(loop, call, again, peer):
    """The wait ends with an error, or waits on; the stranger with its number is left alone."""

    async def main():
        if call == "sock_accept":
            sock, other = socket.create_server(("127.0.0.1", 0)), None
            args = ()
        else:
            kind = socket.SOCK_DGRAM if call == "sock_recvfrom" else socket.SOCK_STREAM
            sock, other = socket.socketpair(socket.AF_UNIX, kind)
            peer.append(other)
            big = b"x" * 10_000_000
            args = {"sock_recv_into": (bytearray(10),), "sock_sendall": (big,)}.get(call, (10,))
        sock.setblocking(False)
        task = asyncio.ensure_future(getattr(loop, call)(sock, *args))
        await spin()
        number = sock.fileno()
        sock.close()
        if again:
            left, right = socket.socketpair()
            peer.extend([left, right])
            assert left.fileno() == number
            right.send(b"for the stranger")
        if other is not None:
            other.close()
        await spin(50)
        if not task.done():
            task.cancel()
        with pytest.raises((OSError, asyncio.CancelledError)):
            await task
        if again:
            assert left.recv(100) == b"for the stranger"

    drive(loop, main())


class Steps:
    """Cancels a coroutine at its n-th wait."""

    def __init__(self, loop):
        self.loop = loop

    async def at(self, wait, make):
        """True: make() had fewer waits, and ended."""
        task = self.loop.create_task(make())
        for _ in range(wait):
            await asyncio.sleep(0)
            if task.done():
                break
        ended = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await spin()
        return ended


@pytest.mark.parametrize("what", ["connect", "serve", "unix", "udp", "pipe", "child"])
def test_cancelled_at_every_wait(loop, what, tmp_path, kind, unraisable):
    """No descriptor is lost, and none is closed twice: its number may be another's by then.  (The
    fixture looks at the descriptors that were there before.)"""

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        unix = await loop.create_unix_server(asyncio.Protocol, str(tmp_path / "socket"))
        guards = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        stats = [os.fstat(guard) for guard in guards]

        children = []  # a child may outlive the task that was cancelled

        async def make():
            if what == "connect":
                transport, _ = await loop.create_connection(
                    asyncio.Protocol, "localhost", listener.getsockname()[1]
                )
                await asyncio.sleep(0)
                transport.close()
            elif what == "serve":
                # Serving at once, asyncio's create_server() waits for a turn, and leaves its
                # sockets to the collector when it is cancelled there.
                async with await loop.create_server(
                    asyncio.Protocol, "localhost", 0, start_serving=False
                ) as server:
                    await server.start_serving()
            elif what == "unix":
                transport, _ = await loop.create_unix_connection(
                    asyncio.Protocol, str(tmp_path / "socket")
                )
                transport.close()
            elif what == "udp":
                transport, _ = await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, local_addr=("localhost", 0)
                )
                transport.close()
            elif what == "pipe":
                read_fd, write_fd = os.pipe()
                with open(write_fd, "wb", 0), open(read_fd, "rb", 0) as reading:
                    transport, _ = await loop.connect_read_pipe(asyncio.Protocol, reading)
                    transport.close()
                    await asyncio.sleep(0)
            else:
                process = await asyncio.create_subprocess_exec(
                    "/bin/true", stdin=-1, stdout=-1, stderr=-1
                )
                children.append(process)
                await process.communicate()

        for wait in range(60):
            # Numbers are used again at once: some are free below those of the guards.
            holes = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
            for hole in holes:
                os.close(hole)
            if await Steps(loop).at(wait, make):
                break
            for guard, before in zip(guards, stats, strict=True):
                assert os.path.samestat(os.fstat(guard), before)
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
        for guard in guards:
            os.close(guard)
        listener.close()
        unix.close()
        await unix.wait_closed()
        await loop.shutdown_default_executor()
        for child in children:
            await child.wait()
            child._transport.close()
        children.clear()
        await spin()
        gc.collect()
        await spin()

    drive(loop, main())
    if kind == "asyncio":  # leaves sockets to the collector in some of these places
        unraisable.take()


# ---- the loop


def test_subclasses_attributes_and_weak_references(kind):
    if kind == "gyre":
        from gyre import Loop
    else:
        Loop = asyncio.SelectorEventLoop

    class Mine(Loop):
        def __init__(self):
            super().__init__()
            self.calls = []

        def call_soon(self, callback, *args, context=None):
            self.calls.append(callback)
            return super().call_soon(callback, *args, context=context)

    loop = Mine()
    loop.name = "of the user"
    assert vars(loop)["name"] == "of the user"
    assert weakref.ref(loop)() is loop and hash(loop) == hash(loop) and loop == loop
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    assert loop.calls
    loop.close()


def test_names_are_looked_up_in_the_default_executor(loop):
    """So that its size limits them, and the application can have its own."""
    calls = []

    class Counting(concurrent.futures.ThreadPoolExecutor):
        def submit(self, function, /, *args, **kwargs):
            calls.append(getattr(function, "func", function))
            return super().submit(function, *args, **kwargs)

    loop.set_default_executor(Counting(1))
    drive(loop, loop.getaddrinfo("localhost", 80))
    drive(loop, loop.getnameinfo(("127.0.0.1", 80)))
    assert len(calls) == 2


def test_stop_does_not_cut_a_turn_short(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.stop)
    for number in (2, 3):
        loop.call_soon(seen.append, number)
    loop.call_soon(lambda: loop.call_soon(seen.append, "next turn"))
    loop.run_forever()
    assert seen == [1, 2, 3]
    run_turns(loop)
    assert seen == [1, 2, 3, "next turn"]


# ---- children


def test_a_handler_for_sigchld(loop):
    """It may be the loop's, and children are still waited for."""
    seen = []
    loop.add_signal_handler(signal.SIGCHLD, seen.append, "ended")

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
        assert await process.wait() == 3
        while not seen:
            await asyncio.sleep(0.001)

    if sys.version_info < (3, 12):  # asyncio asks its child watcher before the loop
        asyncio.set_event_loop(loop)
    try:
        drive(loop, main())
    finally:
        if sys.version_info < (3, 12):
            asyncio.set_event_loop(None)
    assert loop.remove_signal_handler(signal.SIGCHLD)


@pytest.mark.only("gyre")
def test_children_have_pipes(loop):
    """Each of the three, as subprocess has it; newer versions of asyncio give a socket as stdin."""

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1, stderr=-1)
        for number in range(3):
            mode = os.stat(f"/proc/{process.pid}/fd/{number}").st_mode
            assert stat.S_ISFIFO(mode)
        process.stdin.close()
        assert await process.wait() == 0

    drive(loop, main())


def test_zero_bytes_in_arguments_of_a_child(loop):
    async def main():
        for args in (("/bin/echo", "a\0b"), ("/bin/e\0cho",)):
            with pytest.raises(ValueError, match="null (byte|character)"):
                await asyncio.create_subprocess_exec(*args, stdin=-1, stdout=-1)
        with pytest.raises(ValueError, match="null (byte|character)"):
            await asyncio.create_subprocess_shell("echo \0", stdout=-1)

    drive(loop, main())


# ---- options


def test_reuse_port_where_there_are_no_ports(loop, tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        try:
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol,
                local_addr=path,
                family=socket.AF_UNIX,
                reuse_port=True,
            )
        except (ValueError, OSError) as exc:
            return type(exc)
        transport.close()
        await spin()
        return None

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        expected = None
    except OSError:
        expected = ValueError
    finally:
        sock.close()
    assert drive(loop, main()) is expected
