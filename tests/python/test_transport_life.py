"""Life and death of stream transports on both loops: references, runs, descriptors."""

import asyncio
import contextlib
import gc
import os
import socket
import threading
import warnings
import weakref

import pytest
from tcp_tools import LIMIT, Quiet, closed, drive, pair, read_all, spin

# ---- life and death


def test_dropped_while_it_waits(loop, connect):
    """The loop keeps a transport that reads; the user need not."""

    async def main():
        transport, protocol, theirs = await connect()
        protocol.transport = None
        alive = weakref.ref(transport)
        del transport
        gc.collect()
        assert alive() is not None
        theirs.sendall(b"still here")
        while not protocol.received:
            await asyncio.sleep(0)
        theirs.close()
        await protocol.lost
        await spin()
        gc.collect()
        assert alive() is None

    drive(loop, main())


def test_unclosed_transport_warns(new_loop, peer):
    loop = new_loop()
    ours, theirs = pair()
    peer.append(theirs)
    protocol = Quiet(loop)
    loop.run_until_complete(loop.connect_accepted_socket(lambda p=protocol: p, ours))
    del ours
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del protocol
        gc.collect()
    assert [w for w in caught if str(w.message).startswith("unclosed transport <")]
    assert {w.category for w in caught} == {ResourceWarning}
    assert theirs.recv(1) == b""


def test_used_after_the_loop_is_closed(new_loop, peer, kind):
    """gyre's close() has closed the descriptor: nothing is lost without a word.  On asyncio what
    the socket takes at once still leaves."""
    loop = new_loop()
    ours, theirs = pair()
    peer.append(theirs)
    protocol = Quiet(loop)
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(lambda p=protocol: p, ours))
    transport.pause_reading()
    loop.close()
    calls = [lambda: transport.write(b"x" * 10_000_000), transport.resume_reading]
    if kind == "gyre":
        calls += [lambda: transport.write(b"x"), lambda: transport.writelines([b"x", b"y"])]
    transport.write(b"")
    for call in [*calls, transport.close]:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()
    assert transport.is_closing()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        protocol.transport = None
        transport = None
        del call, calls, ours
        gc.collect()


def test_loop_closed_with_open_transports(new_loop, peer):
    """Whatever state they are in: descriptors are closed, nothing is called."""
    loop = new_loop()
    protocols = []

    async def main():
        for i in range(6):
            ours, theirs = pair()
            peer.append(theirs)
            protocol = Quiet(loop)
            protocols.append(protocol)
            transport, _ = await loop.connect_accepted_socket(lambda p=protocol: p, ours)
            if i == 1:
                transport.pause_reading()
            if i == 2:
                transport.write(b"x" * 8_000_000)
            if i == 3:
                transport.write(b"x" * 8_000_000)
                transport.close()
            if i == 4:
                transport.close()
            if i == 5:
                transport.abort()

    loop.run_until_complete(main())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        transports = [protocol.transport for protocol in protocols]
        for transport in transports:
            repr(transport)
            transport.get_extra_info("peername")
            transport.get_write_buffer_size()
            transport.is_closing()
        if type(transports[0]).__module__.startswith("gyre"):
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                transports[0].write(b"nobody hears it")
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transports[0].close()
        del transport, transports, protocols[:]
        gc.collect()
    for theirs in peer:
        try:
            read_all(theirs)
        except ConnectionResetError:
            pass


@pytest.mark.only("gyre")
def test_loop_collected_with_open_transports(peer):
    import gyre

    loop = gyre.Loop()
    ours, theirs = pair()
    peer.append(theirs)
    protocol = Quiet(loop)
    loop.run_until_complete(loop.connect_accepted_socket(lambda p=protocol: p, ours))
    alive = weakref.ref(loop), weakref.ref(protocol.transport)
    del ours
    with pytest.warns(ResourceWarning):
        del loop, protocol
        gc.collect()
    gc.collect()
    assert [ref() for ref in alive] == [None, None]
    assert theirs.recv(1) == b""


def test_second_run_in_another_thread(loop, connect):
    transport, protocol, theirs = drive(loop, connect())
    theirs.sendall(b"between the runs")

    async def wait():
        while not protocol.received:
            await asyncio.sleep(0.001)
        transport.write(b"answer")

    thread = threading.Thread(target=drive, args=(loop, wait()))
    thread.start()
    thread.join()
    assert protocol.received == b"between the runs"
    assert theirs.recv(100) == b"answer"
    drive(loop, closed(transport, protocol))


def test_many_runs(loop, connect):
    transport, protocol, theirs = drive(loop, connect())
    for i in range(50):
        theirs.sendall(b"x")

        async def wait(count=i + 1):
            while len(protocol.received) < count:
                await asyncio.sleep(0)

        drive(loop, wait())
    drive(loop, closed(transport, protocol))


def test_what_is_like_a_socket_is_closed_by_its_own_close(loop):
    """A mock's fileno() is any number, and a descriptor of that number somebody else's."""

    class Like:
        family, type, proto = socket.AF_UNIX, socket.SOCK_STREAM, 0
        closed = 0

        def fileno(self):
            return guard

        def setsockopt(self, *args):
            pass

        def getsockname(self):
            return ""

        getpeername = getsockname

        def detach(self):
            return self  # as MagicMock().detach() is no number

        def close(self):
            self.closed += 1

    ours, theirs = pair()
    with ours, theirs:
        guard = ours.fileno()
        like = Like()
        protocol = Quiet(loop)

        async def main():
            transport = loop._make_socket_transport(like, protocol)
            await spin()
            transport.close()
            await protocol.lost

        drive(loop, main())
        assert like.closed == 1
        theirs.sendall(b"still open")
        assert ours.recv(100) == b"still open"


def descriptors():
    """How many are open, apart from rings: one for held sends is made when it is first needed."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            count += "io_uring" not in os.readlink(f"/proc/self/fd/{fd}")
    return count


def test_churn_leaks_nothing(loop, kind):
    """Many short connections: objects, descriptors and operations come back."""

    async def one(address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"ping\n")
        assert await reader.readline() == b"ping\n"
        writer.close()
        await writer.wait_closed()

    async def handle(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        counts = []
        for _ in range(4):
            for _ in range(5):
                await asyncio.gather(*(one(address) for _ in range(20)))
            await asyncio.sleep(0.01)
            gc.collect()
            counts.append((len(gc.get_objects()), descriptors()))
        server.close()
        await server.wait_closed()
        await spin()
        if kind == "gyre":
            stats = loop.stats()
            assert stats["live"] <= 1, stats  # nothing but the loop's own
            assert stats["buffers_leased"] == 0
        return counts

    counts = drive(loop, main())
    assert abs(counts[-1][0] - counts[1][0]) < 100, counts
    assert counts[-1][1] == counts[1][1], counts


# ---- fork


def in_child(function):
    """Runs function in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def read_while_sending(sock, count):
    sock.setblocking(False)
    while count > 0:
        try:
            count -= len(sock.recv(1 << 20))
        except BlockingIOError:
            await asyncio.sleep(0)


def echo_on_a_loop_of_its_own():
    import gyre

    async def handle(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        writer.close()
        server.close()

    asyncio._set_running_loop(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child_loop = gyre.Loop()
        child_loop.run_until_complete(main())
        child_loop.close()


@pytest.mark.only("gyre")
def test_fork_in_a_callback(loop, connect):
    """With a receive and a send in flight: the child has a loop of its own, the parent goes on."""

    async def main():
        transport, protocol, theirs = await connect()
        transport.write(b"x" * 8_000_000)
        await spin()

        def child():
            echo_on_a_loop_of_its_own()
            transport.abort()
            gc.collect()

        assert in_child(child) == 0
        theirs.sendall(b"hello")
        await read_while_sending(theirs, 8_000_000)
        while not protocol.received:
            await asyncio.sleep(0)
        await closed(transport, protocol)

    drive(loop, main())


@pytest.mark.only("gyre")
@pytest.mark.parametrize("how", ["close", "collect"])
def test_fork_between_the_runs(new_loop, peer, how):
    """The child drops the loop and its transports; the parent's are as they were."""
    loops = [new_loop()]
    protocols = []

    async def begin():
        ours, theirs = pair()
        peer.append(theirs)
        protocols.append(Quiet(loops[0]))
        transport, _ = await loops[0].connect_accepted_socket(lambda: protocols[0], ours)
        transport.write(b"x" * 8_000_000)
        await spin()

    async def finish():
        await read_while_sending(peer[0], 8_000_000)
        await closed(protocols[0].transport, protocols[0])

    def child():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if how == "close":
                loops[0].close()
            loops.clear()
            protocols.clear()
            gc.collect()

    drive(loops[0], begin())
    assert in_child(child) == 0
    drive(loops[0], finish())


# ---- the user closes what is ours


@pytest.mark.only("gyre")
@pytest.mark.parametrize("how", ["close", "abort", "peer"])
@pytest.mark.parametrize("busy", [False, True])
def test_descriptor_closed_under_us(loop, connect, busy, how):
    """No crash, and whoever has the number next keeps it."""

    async def main():
        transport, protocol, theirs = await connect()
        if busy:
            transport.write(b"x" * 8_000_000)
            await spin()
        fd = transport.get_extra_info("socket").fileno()
        os.close(fd)
        strangers = socket.socketpair()
        assert fd in [stranger.fileno() for stranger in strangers]
        if how == "peer":
            theirs.close()  # the kernel still holds our socket for the operation in flight
            await spin()
            for stranger in strangers:
                stranger.setblocking(False)
            if not protocol.lost.done():
                transport.abort()
        else:
            getattr(transport, how)()
            if busy and how == "close":
                transport.abort()
        await protocol.lost
        await spin()
        strangers[0].send(b"unharmed")
        assert strangers[1].recv(100) == b"unharmed"
        for stranger in strangers:
            stranger.close()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_number_of_a_closed_descriptor_comes_back(loop, connect):
    async def main():
        transport, protocol, theirs = await connect()
        fd = transport.get_extra_info("socket").fileno()
        os.close(fd)
        ours, theirs2 = pair()
        for sock in (ours, theirs2):
            if sock.fileno() == fd:
                break
        else:
            pytest.fail("the number did not come back")
        protocol2 = Quiet(loop)
        transport2, _ = await loop.connect_accepted_socket(lambda: protocol2, sock)
        exc = await protocol.lost  # the older one has lost its descriptor, and knows
        assert isinstance(exc, OSError)
        other = theirs2 if sock is ours else ours
        other.sendall(b"for the new one")
        while not protocol2.received:
            await asyncio.sleep(0)
        transport2.write(b"answer")
        await asyncio.sleep(0)
        other.settimeout(LIMIT)
        assert other.recv(100) == b"answer"
        await closed(transport2, protocol2)
        other.close()

    drive(loop, main())


def test_socket_object_closed_under_us(loop, peer):
    """The sock= of the user's: asyncio meets EBADF, we too, and never the number's next owner."""

    async def main():
        ours, theirs = pair()
        peer.append(theirs)
        protocol = Quiet(loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        fd = ours.fileno()
        ours.close()
        stranger, other_end = socket.socketpair()
        assert fd in (stranger.fileno(), other_end.fileno())
        transport.write(b"x" * 100)
        await asyncio.sleep(0)
        stranger.setblocking(False)
        other_end.setblocking(False)
        for sock in (stranger, other_end):
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        exc = await protocol.lost
        assert isinstance(exc, OSError)
        await spin()
        stranger.send(b"unharmed")
        assert other_end.recv(100) == b"unharmed"
        stranger.close()
        other_end.close()

    drive(loop, main())


def test_users_socket_is_detached_at_the_end(loop, peer):
    async def main():
        ours, theirs = pair()
        peer.append(theirs)
        protocol = Quiet(loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        assert ours.getpeername() == theirs.getsockname()
        assert ours.fileno() >= 0
        await closed(transport, protocol)
        assert ours.fileno() == -1

    drive(loop, main())


def test_descriptor_of_a_transport_is_not_for_readers(loop, connect):
    async def main():
        transport, protocol, _ = await connect()
        sock = transport.get_extra_info("socket")
        for call in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(sock, print)
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(sock.fileno(), print)
        for call in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(sock)
        await closed(transport, protocol)

    drive(loop, main())


@pytest.mark.only("gyre")
def test_one_descriptor_has_one_transport(loop, connect):
    async def main():
        transport, protocol, _ = await connect()
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.connect_accepted_socket(lambda: Quiet(loop), transport._sock)
        await closed(transport, protocol)

    drive(loop, main())


def test_what_was_written_before_an_abort_leaves(loop, connect):
    """Both in one callback: asyncio's write() sends at once, so abort() comes too late for it."""

    async def main():
        transport, protocol, theirs = await connect()

        def reply(data):
            transport.write(b"bye")
            transport.abort()

        protocol.data_received = reply
        theirs.sendall(b"?")
        await protocol.lost
        assert theirs.recv(10) == b"bye"

    drive(loop, main())


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("in_callback", [False, True])
def test_the_descriptor_is_closed_with_the_connection(loop, peer, how, in_callback):
    """connection_lost() comes in the next turn, and right after it the descriptor is closed: what
    is scheduled behind it may block until the peer sees the end."""

    async def main():
        ours, theirs = pair()
        peer.append(theirs)
        events = []
        over = loop.create_future()

        class Noting(asyncio.Protocol):
            def data_received(self, data):
                leave()

            def connection_lost(self, exc):
                events.append(("lost", ours.fileno() == -1))

        def after():
            theirs.settimeout(5)
            events.append(("after", ours.fileno() == -1))
            events.append(theirs.recv(10))
            over.set_result(None)

        def leave():
            loop.call_soon(events.append, "before")
            getattr(transport, how)()
            loop.call_soon(after)

        transport, _ = await loop.create_connection(Noting, sock=ours)
        for _ in range(3):
            await asyncio.sleep(0)
        if in_callback:
            theirs.send(b"go")
        else:
            leave()
        await over
        return events

    expected = ["before", ("lost", False), ("after", True), b""]
    assert drive(loop, main()) == expected
