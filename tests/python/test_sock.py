"""loop.sock_*: streams, datagrams, accept and connect, on both loops."""

import array
import asyncio
import gc
import os
import socket
import tracemalloc
import warnings
import weakref

import pytest

LIMIT = 10.0


def drive(loop, coro):
    async def limited():
        async with asyncio.timeout(LIMIT):
            return await coro

    return loop.run_until_complete(limited())


async def spin(turns=20):
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def client():
    with socket.socket() as sock:
        sock.setblocking(False)
        yield sock


def fill(sock):
    """Until its peer's buffer takes no more; what was sent."""
    sent = 0
    while True:
        try:
            sent += sock.send(b"f" * 65536)
        except BlockingIOError:
            return sent


@pytest.mark.parametrize("method", ["sock_recv", "sock_recvfrom"])
def test_a_receive_that_waits_holds_no_memory(loop, pair, method):
    left, right = pair
    size = 1 << 20

    async def main():
        for data in (b"a" * 1000, b"b"):
            tracemalloc.start()
            try:
                task = loop.create_task(getattr(loop, method)(left, size))
                await spin()
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert not task.done()
            assert held < size // 2
            right.send(data)
            got = await task
            assert (got if method == "sock_recv" else got[0]) == data

    drive(loop, main())


async def drain(sock, count):
    data = b""
    while len(data) < count:
        try:
            data += sock.recv(count - len(data))
        except BlockingIOError:
            await asyncio.sleep(0)
    return data


def test_they_are_coroutines(loop, pair, listener):
    left, _ = pair
    coros = [
        loop.sock_recv(left, 1),
        loop.sock_recv_into(left, bytearray(1)),
        loop.sock_sendall(left, b""),
        loop.sock_accept(listener),
        loop.sock_connect(left, "path"),
    ]
    for coro in coros:
        assert asyncio.iscoroutine(coro)
        coro.close()


def test_recv(loop, pair):
    left, right = pair

    async def main():
        right.send(b"at once")
        assert await loop.sock_recv(left, 100) == b"at once"
        task = asyncio.create_task(loop.sock_recv(left, 4))
        await spin()
        assert not task.done()
        right.send(b"later")
        assert await task == b"late"
        assert await loop.sock_recv(left, 0) == b""
        assert await loop.sock_recv(left, 100) == b"r"
        right.close()
        assert await loop.sock_recv(left, 100) == b""

    drive(loop, main())


def test_recv_into(loop, pair):
    left, right = pair

    async def main():
        buffer = bytearray(10)
        right.send(b"at once")
        assert await loop.sock_recv_into(left, buffer) == 7
        assert buffer == b"at once\0\0\0"
        task = asyncio.create_task(loop.sock_recv_into(left, memoryview(buffer)[8:]))
        await spin()
        right.send(b"ab")
        assert await task == 2
        assert buffer == b"at once\0ab"
        buffer.clear()  # nobody holds on to it
        items = array.array("i", [0, 0])
        right.send(b"\1\0\0\0\2\0\0\0")
        assert await loop.sock_recv_into(left, items) == 8
        assert items.tolist() == [1, 2]

    drive(loop, main())


def test_sendall(loop, pair):
    left, right = pair

    async def main():
        assert await loop.sock_sendall(left, b"small") is None
        assert right.recv(10) == b"small"
        await loop.sock_sendall(left, b"")
        data = bytearray(os.urandom(3_000_000))
        task = asyncio.create_task(loop.sock_sendall(left, data))
        await spin()
        assert not task.done()
        assert await drain(right, len(data)) == data
        await task
        for item in (memoryview(b"view"), array.array("b", b"view")):
            await loop.sock_sendall(left, item)
            assert right.recv(10) == b"view"

    drive(loop, main())


@pytest.mark.only("gyre")  # asyncio counts items as bytes, and waits for ever
def test_sendall_of_wide_items(loop, pair):
    left, right = pair

    async def main():
        items = array.array("i", range(1_000_000))
        for data in (items, memoryview(items), memoryview(bytes(12)).cast("B", (3, 4))):
            task = asyncio.create_task(loop.sock_sendall(left, data))
            assert await drain(right, len(bytes(data))) == bytes(data)
            await task

    drive(loop, main())


def test_accept_and_connect(loop, listener, client):
    async def main():
        accepting = asyncio.create_task(loop.sock_accept(listener))
        await spin()
        await loop.sock_connect(client, listener.getsockname())
        conn, address = await accepting
        with conn:
            assert type(conn) is socket.socket
            assert conn.gettimeout() == 0
            assert not conn.get_inheritable()
            assert address == client.getsockname() == conn.getpeername()
            assert (conn.family, conn.type) == (socket.AF_INET, socket.SOCK_STREAM)
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(conn, 10) == b"hello"
        with socket.create_connection(listener.getsockname()) as second:
            conn, address = await loop.sock_accept(listener)
            assert address == second.getsockname()
            conn.close()

    drive(loop, main())


def test_connect_is_tried_at_once(loop, listener, client):
    """After one step of the coroutine the listener has the connection in its queue."""

    async def main():
        task = asyncio.create_task(loop.sock_connect(client, listener.getsockname()))
        await asyncio.sleep(0)
        listener.accept()[0].close()
        await task

    drive(loop, main())


def test_connect_refused(loop, client):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            drive(loop, loop.sock_connect(client, other.getsockname()))


def test_connect_looks_names_up(loop, listener, client):
    async def main():
        await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
        listener.accept()[0].close()

    drive(loop, main())


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("path", ["sock", "\0abstract-{pid}"])
def test_connect_unix(loop, tmp_path, path, as_bytes):
    address = path.format(pid=os.getpid()) if path[0] == "\0" else str(tmp_path / path)
    if as_bytes:
        address = os.fsencode(address)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as sock:
        server.bind(address)
        server.listen()
        server.setblocking(False)
        sock.setblocking(False)

        async def main():
            await loop.sock_connect(sock, address)
            conn, name = await loop.sock_accept(server)
            assert name == conn.getpeername()
            conn.close()

        drive(loop, main())


@pytest.mark.parametrize("address", [17, None, ("127.0.0.1",), ("127.0.0.1", "x"), (1, 2)])
def test_connect_to_nonsense(loop, client, address):
    with pytest.raises((TypeError, ValueError, OSError, IndexError)):
        drive(loop, loop.sock_connect(client, address))


def test_connect_port_out_of_range(loop, client):
    with pytest.raises(OverflowError):
        drive(loop, loop.sock_connect(client, ("127.0.0.1", 65536)))


def test_wrong_arguments(loop, pair):
    left, right = pair
    right.send(b"data")
    for coro, error in (
        (loop.sock_recv(left, "many"), TypeError),
        (loop.sock_recv(left, -1), ValueError),
        (loop.sock_recv_into(left, b"read-only"), TypeError),
        (loop.sock_sendall(left, "text"), TypeError),
        (loop.sock_recv(object(), 1), (AttributeError, TypeError)),
    ):
        with pytest.raises(error):
            drive(loop, coro)
    assert drive(loop, loop.sock_recv(left, 10)) == b"data"


def test_nothing_is_asked_for(loop, pair, client):
    """As the socket module has it: the socket is not even looked at."""
    left, right = pair
    right.send(b"data")
    left.close()

    async def main():
        for sock in (left, client):
            assert await loop.sock_recv(sock, 0) == b""
            assert await loop.sock_recv_into(sock, bytearray()) == 0

    drive(loop, main())


def test_wrong_arguments_of_a_closed_socket(loop, pair):
    """The arguments are looked at first."""
    left, _ = pair
    left.close()
    for coro, error in (
        (loop.sock_recv(left, "many"), TypeError),
        (loop.sock_recv_into(left, b"read-only"), TypeError),
        (loop.sock_recv_into(left, 5), TypeError),
        (loop.sock_sendall(left, "text"), TypeError),
        (loop.sock_sendall(left, memoryview(b"12345678")[::2]), BufferError),
        (loop.sock_recvfrom_into(left, bytearray(5), 10), ValueError),
        (loop.sock_sendto(left, "text", ("127.0.0.1", 9)), TypeError),
    ):
        with pytest.raises(error):
            drive(loop, coro)


class Noting(socket.socket):
    """A socket with methods of its own, which are asyncio's to call."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []


def noted(name):
    def method(self, *args):
        self.calls.append(name)
        return getattr(socket.socket, name)(self, *args)

    return method


for method in "recv recv_into recvfrom recvfrom_into send sendto accept connect".split():
    setattr(Noting, method, noted(method))


def test_the_class_is_replaced_by_a_function(loop, monkeypatch):
    """As AsyncSSH's own tests do for another kind of socket: the others go on."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setblocking(False)
    real = socket.socket
    monkeypatch.setattr(socket, "socket", lambda *args, **kwargs: real(*args, **kwargs))

    async def main():
        await loop.sock_connect(client, listener.getsockname())
        await loop.sock_sendall(client, b"hello")

    with listener, client:
        drive(loop, main())
        peer = listener.accept()[0]
        with peer:
            assert peer.recv(10) == b"hello"


def test_methods_of_a_subclass_are_called(loop):
    async def main():
        with Noting() as listener, Noting() as client:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            for sock in (listener, client):
                sock.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await spin()
            await loop.sock_connect(client, listener.getsockname())
            conn, address = await accepting
            assert address == client.getsockname()
            with conn:
                assert conn.gettimeout() == 0
                receiving = asyncio.create_task(loop.sock_recv(client, 2))
                await spin()
                conn.send(b"abcdefgh")
                assert await receiving == b"ab"
                buffer = bytearray(2)
                assert await loop.sock_recv_into(client, buffer) == 2
                assert (await loop.sock_recvfrom(client, 2))[0] == b"ef"
                assert (await loop.sock_recvfrom_into(client, buffer, 1))[0] == 1
                assert buffer == b"gd"
                data = os.urandom(10_000_000)
                sending = asyncio.create_task(loop.sock_sendall(client, data))
                got = bytearray()
                while len(got) < len(data):
                    got += await loop.sock_recv(conn, 1 << 20)
                await sending
                assert got == data
            return listener.calls, client.calls

    accepted, called = drive(loop, main())
    assert set(accepted) == {"accept"} and len(accepted) > 1
    assert called[0] == "connect" and called.count("recv") > 1 and called.count("send") > 1
    assert set(called[1:]) == {"recv", "recv_into", "recvfrom", "recvfrom_into", "send"}


def test_what_is_like_a_socket(loop, pair):
    """Its methods count; of the socket that it may hide, only the descriptor is used."""
    left, right = pair

    class Upper:
        def __init__(self, sock):
            self.sock = sock

        def recv(self, n):
            return self.sock.recv(n).upper()

        def send(self, data):
            return self.sock.send(bytes(data).upper()[:2])

        def fileno(self):
            return self.sock.fileno()

        def gettimeout(self):
            return 0

    async def main():
        like = Upper(left)
        await loop.sock_sendall(like, b"hello")
        assert await loop.sock_recv(right, 10) == b"HELLO"
        receiving = asyncio.create_task(loop.sock_recv(like, 10))
        await spin()
        right.send(b"world")
        assert await receiving == b"WORLD"
        with pytest.raises(AttributeError, match="recv_into"):
            await loop.sock_recv_into(like, bytearray(1))

    drive(loop, main())


def test_closed_socket(loop, pair, listener):
    left, _ = pair
    left.close()
    listener.close()
    for coro in (
        loop.sock_recv(left, 1),
        loop.sock_recv_into(left, bytearray(1)),
        loop.sock_sendall(left, b"x"),
        loop.sock_accept(listener),
    ):
        with pytest.raises(OSError) as caught:
            drive(loop, coro)
        assert caught.value.errno == 9


def test_errors_of_the_peer(loop, pair):
    left, right = pair

    async def main():
        filled = fill(left)
        assert filled
        task = asyncio.create_task(loop.sock_sendall(left, b"x" * 1_000_000))
        await spin()
        right.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await task

    drive(loop, main())


def test_debug_mode_wants_non_blocking_sockets(loop, pair, listener):
    left, _ = pair
    left.setblocking(True)
    listener.setblocking(True)
    loop.set_debug(True)
    for coro in (
        loop.sock_recv(left, 1),
        loop.sock_recv_into(left, bytearray(1)),
        loop.sock_sendall(left, b"x"),
        loop.sock_accept(listener),
        loop.sock_connect(left, "path"),
    ):
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            drive(loop, coro)


@pytest.mark.only("gyre")
def test_blocking_mode_is_left_alone(loop, pair):
    left, right = pair
    left.setblocking(True)

    async def main():
        task = asyncio.create_task(loop.sock_recv(left, 10))
        await spin()
        right.send(b"x")
        assert await task == b"x"
        assert left.gettimeout() is None

    drive(loop, main())


# ---- cancelling


def test_cancelled_recv_takes_nothing(loop, pair):
    left, right = pair

    async def main():
        for _ in range(20):
            task = asyncio.create_task(loop.sock_recv(left, 100))
            await spin(3)
            task.cancel()
            right.send(b"x")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await loop.sock_recv(left, 100) == b"x"

    drive(loop, main())


def test_cancelled_recv_into_leaves_the_buffer(loop, pair):
    left, right = pair

    async def main():
        buffer = bytearray(10)
        task = asyncio.create_task(loop.sock_recv_into(left, buffer))
        await spin()
        task.cancel()
        right.send(b"x")
        with pytest.raises(asyncio.CancelledError):
            await task
        await spin()
        assert buffer == bytes(10)
        buffer.clear()
        assert left.recv(10) == b"x"

    drive(loop, main())


def test_cancelled_sendall_sends_no_more(loop, pair):
    left, right = pair

    async def main():
        task = asyncio.create_task(loop.sock_sendall(left, b"a" * 5_000_000))
        await spin()
        task.cancel()
        second = asyncio.create_task(loop.sock_sendall(left, b"world"))
        with pytest.raises(asyncio.CancelledError):
            await task
        data = bytearray()
        while not data.endswith(b"world"):
            data += await loop.sock_recv(right, 1 << 20)
        await second
        assert set(data[:-5]) == {ord("a")}
        assert len(data) < 5_000_000

    drive(loop, main())


@pytest.mark.parametrize("late", [False, True])
def test_cancelled_accept_loses_no_descriptor(loop, kind, listener, late, unraisable):
    """Also when the connection came and the task was cancelled before it saw it."""

    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            task = asyncio.create_task(loop.sock_accept(listener))
            await spin()
            with socket.create_connection(listener.getsockname()) as first:
                if late:
                    while not task._fut_waiter or not task._fut_waiter.done():
                        await asyncio.sleep(0)
                        if task.done():
                            break
                task.cancel()
                try:
                    conn, _ = await task
                    conn.close()
                except asyncio.CancelledError:
                    pass
                first.settimeout(0.05)
                del task
                gc.collect()
                if not late:
                    conn, _ = await loop.sock_accept(listener)
                    conn.close()

    drive(loop, asyncio.sleep(0))  # what the loop's first run opens
    before = set(os.listdir("/proc/self/fd"))
    drive(loop, main())
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
    if kind == "asyncio":  # leaves the socket object to the collector
        unraisable.take()


@pytest.mark.only("gyre")
def test_dropped_coroutine(loop, pair):
    """Closed by the collector in the middle of a wait."""
    left, right = pair

    async def main():
        coro = loop.sock_recv(left, 100)
        future = coro.send(None)
        assert asyncio.isfuture(future)
        await spin()
        coro.close()
        del coro, future
        gc.collect()
        await spin()
        right.send(b"x")
        await spin()
        assert left.recv(10) == b"x"

    drive(loop, main())


def test_socket_closed_during_recv(loop, pair):
    """The next owner of the number is left alone."""
    left, right = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(left, 100))
        await spin()
        fd = left.fileno()
        left.close()
        strangers = socket.socketpair()
        assert fd in [sock.fileno() for sock in strangers]
        for sock, other in (strangers, strangers[::-1]):
            other.setblocking(False)
            sock.send(b"not for the task")
        await spin()
        for sock in strangers:
            assert sock.recv(100) == b"not for the task"
            sock.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    drive(loop, main())


# ---- the loop ends first


def test_loop_closed_while_waiting(new_loop, pair, listener):
    loop = new_loop()
    left, right = pair
    tasks = []

    async def main():
        tasks.append(loop.create_task(loop.sock_recv(left, 10)))
        tasks.append(loop.create_task(loop.sock_sendall(right, b"x" * 5_000_000)))
        tasks.append(loop.create_task(loop.sock_accept(listener)))
        await spin()
        left.recv(1)

    loop.run_until_complete(main())
    for task in tasks:
        task._log_destroy_pending = False
    loop.close()
    refs = [weakref.ref(task) for task in tasks]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del task, tasks[:]
        gc.collect()
    assert not any(ref() for ref in refs)


def test_waits_go_on_in_the_next_run(loop, pair):
    left, right = pair
    task = loop.create_task(loop.sock_recv(left, 10))
    drive(loop, spin())
    right.send(b"between")
    drive(loop, spin())

    async def main():
        assert await task == b"between"

    drive(loop, main())


@pytest.mark.only("gyre")
def test_two_readers_of_one_socket(loop, pair):
    left, right = pair

    async def main():
        tasks = [asyncio.create_task(loop.sock_recv(left, 1)) for _ in range(2)]
        await spin()
        right.send(b"ab")
        assert sorted(await asyncio.gather(*tasks)) == [b"a", b"b"]

    drive(loop, main())


def test_sendfile(loop, pair, tmp_path):
    left, right = pair
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    async def main():
        with path.open("rb") as file:
            reading = asyncio.create_task(drain(right, 500_000))
            assert await loop.sock_sendfile(left, file, 10, 500_000) == 500_000
            assert await reading == b"0123456789" * 50_000

    drive(loop, main())


@pytest.mark.only("gyre")
def test_cancelled_by_fileno(loop, pair):
    """A fileno() of the user's that cancels the call for which it is asked."""
    left, right = pair
    seen = []

    class Sock(socket.socket):
        def fileno(self):
            if seen:
                seen.pop().close()
            return super().fileno()

    with Sock(fileno=os.dup(left.fileno())) as sock:
        sock.setblocking(False)

        async def main():
            op = loop._sock_recv(sock, 10)
            future = op.future
            seen.append(op)
            del op
            right.send(b"data")
            for _ in range(5):
                await asyncio.sleep(0)
            assert not seen
            return future

        loop.run_until_complete(main())
        assert loop.stats()["ops_in_flight"] == 0


WAITS = {
    "recv": lambda loop, sock: loop.sock_recv(sock, 5),
    "recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(5)),
    "recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 5),
    "recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(5)),
    "sendall": lambda loop, sock: loop.sock_sendall(sock, bytes(10_000_000)),
}


@pytest.mark.parametrize("what", WAITS)
def test_the_socket_of_a_transport(loop, pair, what):
    """What would have to wait for it is refused, until the transport closes."""
    left, right = pair

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        transport.pause_reading()
        with pytest.raises(RuntimeError, match=rf"descriptor {left.fileno()} is used by transport"):
            await WAITS[what](loop, left)
        transport.abort()
        await spin()
        if what != "sendall":
            receiving = asyncio.create_task(WAITS[what](loop, right))  # the end, at the latest
            assert await receiving in (b"", 0, (b"", None), (0, None), (b"", ""), (0, ""))

    drive(loop, main())


@pytest.mark.parametrize("method", ["sock_recv_into", "sock_recvfrom_into"])
@pytest.mark.parametrize("buffer", [b"read-only", "text", 5, None])
def test_the_words_about_a_buffer(loop, pair, method, buffer):
    async def main():
        with pytest.raises(TypeError) as caught:
            await getattr(loop, method)(pair[0], buffer)
        return str(caught.value)

    def words():
        plain = getattr(pair[0], method.removeprefix("sock_"))
        with pytest.raises(TypeError) as caught:
            plain(buffer)
        return str(caught.value)

    pair[1].send(b"data")
    if method == "sock_recv_into" or isinstance(buffer, (bytes, str)):  # else asyncio wants a len()
        assert drive(loop, main()) == words()
    else:
        assert "has no len()" in drive(loop, main())


def test_accepting_with_what_is_no_socket(loop):
    for what in (None, 5):
        with pytest.raises(AttributeError, match="fileno"):
            drive(loop, loop.sock_accept(what))


@pytest.mark.only("gyre")
def test_a_receive_beside_a_reader(loop, pair):
    """asyncio has one reader per descriptor, and the later takes its place."""
    left, right = pair

    async def main():
        task = loop.create_task(loop.sock_recv(left, 10))
        await spin()
        assert not loop.remove_reader(left)
        ready = asyncio.Event()
        loop.add_reader(left, ready.set)
        right.send(b"data")
        assert await task == b"data"
        right.send(b"more")
        await ready.wait()
        assert loop.remove_reader(left)

    drive(loop, main())
